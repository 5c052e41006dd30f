//! `key`, and where a secret comes from, as they can be written.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `key`
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a new key for what is pushed from now on, and change who may open it
    Rotate(KeyRotate),
    /// Show which key a remote has, for comparing with others
    ShowId(KeyRemote),
    /// Check that the secret opens the remote and all heads on it
    Check(KeyRemote),
    /// Make a key file of your own, and show the recipient that others are told
    New {
        /// The file, which must not be there yet
        file: PathBuf,
    },
}

/// Which remote.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeyRemote {
    /// The remote
    #[arg(long, value_name = "NAME")]
    pub(crate) remote: Option<String>,
}

/// `key rotate`
#[derive(Args, Clone, Debug)]
pub(crate) struct KeyRotate {
    #[command(flatten)]
    pub(crate) remote: KeyRemote,
    /// Let this recipient (age1...) open the remote too; may be repeated
    #[arg(long, value_name = "RECIPIENT")]
    pub(crate) add: Vec<String>,
    /// Leave this recipient out; may be repeated
    #[arg(long, value_name = "RECIPIENT")]
    pub(crate) remove: Vec<String>,
    #[command(flatten)]
    pub(crate) secret: SecretSource,
}

/// Where a secret is found each time; at most one of them.
#[derive(Args, Clone, Debug)]
#[group(multiple = false)]
pub(crate) struct SecretSource {
    /// Look for the secret in this variable each time, a passphrase or a secret key of age; only its name is kept
    #[arg(long, value_name = "VAR")]
    pub(crate) secret_env: Option<String>,
    /// Read the secret from this file each time, secret keys of age or a passphrase; only its path is kept
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}
