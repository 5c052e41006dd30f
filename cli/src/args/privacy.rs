//! The arguments of `privacy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `privacy`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Privacy {
    /// Look for secrets in the store, or in files; status 8 where there are any
    Scan(PrivacyScan),
    /// Say that a finding is no secret, by its fingerprint
    Allow {
        /// The fingerprint, as `privacy scan` lists it
        fingerprint: String,
        /// Why; kept beside it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// List the rules
    Rules,
}

/// `privacy scan`
#[derive(Args, Clone, Debug)]
pub(crate) struct PrivacyScan {
    /// Files and directories to look through instead of the store
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Look through all of the store again, and not only at what is new
    #[arg(long, conflicts_with = "paths")]
    pub(crate) all: bool,
    /// Only what is not older: RFC 3339, a date (local midnight), or back from now: 30d, 12h, 2w
    #[arg(long, value_name = "TIME", conflicts_with = "paths")]
    pub(crate) since: Option<String>,
}
