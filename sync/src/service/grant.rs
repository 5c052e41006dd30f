//! What a token may do.

use std::fmt;

use agent_trace_store::{Error, Result};

/// The public part of a token: 16 lower-case hex digits and more, never secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(String);

impl TokenId {
    /// Takes an id as it is stored.
    pub fn new(text: &str) -> TokenId {
        TokenId(text.to_owned())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One thing that a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Read records.
    Read,
    /// Add records.
    Write,
    /// Make and remove projects.
    ProjectsWrite,
    /// Everything in its organisation.
    Admin,
    /// Erase what others have written.
    Erase,
}

impl Scope {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::ProjectsWrite => "projects:write",
            Scope::Admin => "admin",
            Scope::Erase => "erase",
        }
    }

    /// Reads a scope.
    pub fn parse(text: &str) -> Result<Scope> {
        [Scope::Read, Scope::Write, Scope::ProjectsWrite, Scope::Admin, Scope::Erase]
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "expected a scope of `read`, `write`, `projects:write`, `erase` or `admin`, found `{text}`"
                ))
            })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a request may do, by the token that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token.
    pub token: TokenId,
    /// The organisation's id.
    pub org_id: String,
    /// The organisation's slug.
    pub org_slug: String,
    /// The slug of the only project that it may reach; `None` for all of the organisation.
    pub project: Option<String>,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

impl Grant {
    /// Whether it may do something; `admin` includes all else.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether it may reach a project of its organisation.
    pub fn reaches(&self, project: &str) -> bool {
        self.project.as_deref().is_none_or(|only| only == project)
    }
}
