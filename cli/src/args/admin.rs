//! `admin`, as it can be written.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `admin`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Admin {
    /// Manage the orgs of a service
    #[command(subcommand)]
    Org(AdminOrg),
    /// Manage the projects of a service
    #[command(subcommand)]
    Project(AdminProject),
    /// Manage the tokens of a service
    #[command(subcommand)]
    Token(AdminToken),
}

/// Which service.
#[derive(Args, Clone, Debug)]
pub(crate) struct Service {
    /// The data folder of a service that is not running
    #[arg(long, value_name = "DIR", required_unless_present = "url")]
    pub(crate) data: Option<PathBuf>,
    /// A running service, with its admin's secret from AGENT_TRACE_ADMIN_SECRET or --secret-file
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub(crate) url: Option<String>,
    /// A file with the admin's secret
    #[arg(long, value_name = "FILE", requires = "url", conflicts_with = "data")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Let the secret go over http to another machine
    #[arg(long, requires = "url", conflicts_with = "data")]
    pub(crate) insecure_http: bool,
}

/// `admin org`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AdminOrg {
    /// Make an org, or find the one that has this name or id
    Create(OrgCreate),
    /// Change an org
    Set(OrgSet),
    /// Show an org: its quota, and what it has stored
    Show {
        /// The org, by its name or id
        org: String,
        #[command(flatten)]
        service: Service,
    },
    /// List the orgs, oldest first
    List {
        #[command(flatten)]
        service: Service,
    },
}

/// `admin org create`
#[derive(Args, Clone, Debug)]
pub(crate) struct OrgCreate {
    /// Its name in URLs: lower-case letters, digits, `.`, `_`, `-`; at most 64
    pub(crate) slug: String,
    #[command(flatten)]
    pub(crate) service: Service,
    /// Its name for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Its id, a UUID; made where it is not given
    #[arg(long, value_name = "UUID")]
    pub(crate) id: Option<String>,
    /// What its data may take in all, also where the org is there already; `none` for no quota
    #[arg(long, value_name = "N")]
    pub(crate) quota_bytes: Option<Quota>,
}

/// `admin org set`
#[derive(Args, Clone, Debug)]
pub(crate) struct OrgSet {
    /// The org, by its name or id
    pub(crate) org: String,
    #[command(flatten)]
    pub(crate) service: Service,
    /// What its data may take in all: archives, uploads, staged blobs; `none` for no quota
    #[arg(long, value_name = "N")]
    pub(crate) quota_bytes: Quota,
}

/// A number of bytes, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota(pub(crate) Option<u64>);

impl std::str::FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Quota, String> {
        match text {
            "none" => Ok(Quota(None)),
            text => match text.parse() {
                Ok(bytes) => Ok(Quota(Some(bytes))),
                Err(_) => Err("expected a number of bytes, or `none`".to_owned()),
            },
        }
    }
}

/// `admin project`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AdminProject {
    /// Make a project
    Create(AdminProjectCreate),
    /// List the projects, newest first
    List {
        #[command(flatten)]
        service: Service,
        /// Only those of this org
        #[arg(long, value_name = "ORG")]
        org: Option<String>,
    },
    /// Remove a project with all that it holds, and revoke the tokens that are bound to it
    Remove(ProjectRemove),
}

/// `admin project create`
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminProjectCreate {
    /// Its name in URLs: lower-case letters, digits, `.`, `_`, `-`; at most 64
    pub(crate) slug: String,
    #[command(flatten)]
    pub(crate) service: Service,
    /// The org, by its name or id
    #[arg(long, value_name = "ORG", default_value = "default")]
    pub(crate) org: String,
    /// Its name for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// What it is about
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
}

/// `admin project remove`
#[derive(Args, Clone, Debug)]
pub(crate) struct ProjectRemove {
    /// The project
    pub(crate) slug: String,
    #[command(flatten)]
    pub(crate) service: Service,
    /// The org, by its name or id
    #[arg(long, value_name = "ORG", default_value = "default")]
    pub(crate) org: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `admin token`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AdminToken {
    /// Make a token and print it; it is never shown again
    Create(TokenCreate),
    /// List the tokens, oldest first; their secrets are not kept
    List {
        #[command(flatten)]
        service: Service,
        /// Only those of this org
        #[arg(long, value_name = "ORG")]
        org: Option<String>,
    },
    /// Revoke a token: it grants nothing from then on
    Revoke {
        /// The id of the token, with or without the `at_` before it
        id: String,
        #[command(flatten)]
        service: Service,
    },
}

/// `admin token create`
#[derive(Args, Clone, Debug)]
pub(crate) struct TokenCreate {
    #[command(flatten)]
    pub(crate) service: Service,
    /// The org, by its name or id
    #[arg(long, value_name = "ORG", default_value = "default")]
    pub(crate) org: String,
    /// Only this project of the org
    #[arg(long, value_name = "PROJECT")]
    pub(crate) project: Option<String>,
    /// What it may do: read, write, projects:write, erase, admin; may be repeated [default: read and write]
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// Its name for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// When it ends: RFC 3339, a date (the end of that day), or from now on: 12h, 30d, 2w
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<String>,
}
