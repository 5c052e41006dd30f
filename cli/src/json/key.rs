//! The JSON shape of `key`, and of where a secret is.

use serde::Serialize;

use crate::remotes::SecretRef;

/// `key`
#[derive(Serialize)]
pub(crate) struct Key {
    pub(crate) schema: &'static str,
    pub(crate) remote: Option<String>,
    pub(crate) epoch: Option<u32>,
    pub(crate) key_id: Option<String>,
    /// Who may open it from this epoch on; empty where a passphrase does.
    pub(crate) members: Vec<String>,
    /// The own recipients; empty for a passphrase.
    pub(crate) own: Vec<String>,
    /// Heads that were opened.
    pub(crate) heads: Option<u64>,
    /// Heads that cannot be opened, with reasons.
    pub(crate) refused: Vec<String>,
}

/// Where the secret of a remote is.
#[derive(Serialize)]
pub(crate) struct SecretPlace {
    pub(crate) variable: Option<String>,
    pub(crate) file: Option<String>,
}

impl SecretPlace {
    /// Where it is, as a program reads it.
    pub(crate) fn of(secret: &SecretRef) -> SecretPlace {
        match secret {
            SecretRef::Variable(name) => SecretPlace { variable: Some(name.clone()), file: None },
            SecretRef::File(path) => SecretPlace { variable: None, file: Some(path.display().to_string()) },
            SecretRef::Unknown => SecretPlace { variable: None, file: None },
        }
    }
}
