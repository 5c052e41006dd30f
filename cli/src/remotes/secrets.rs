//! Where the secret of an encrypted remote is found: in a variable, or in a file. Only the name or the path is kept.
//!
//! ```json
//! {"url":"file:///srv/team","encryption":{"secret_env":"TEAM_SECRET"}}
//! {"url":"file:///srv/team","encryption":{"key_file":"/home/me/team.key"}}
//! ```

use std::path::PathBuf;

use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;
use agent_trace_store::{Error, ErrorKind};
use agent_trace_sync::limits::SECRET_BYTES_MAX;
use agent_trace_sync::seal::{Access, Secret};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{Files, Named};
use crate::args;
use crate::report::Failure;
use crate::settings::{self, ADMIN_SECRET};

const MEMBER: &str = "encryption";

/// Where a secret is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretRef {
    /// In a variable of this name.
    Variable(String),
    /// In this file.
    File(PathBuf),
    /// Where this version cannot look.
    Unknown,
}

impl SecretRef {
    /// Takes what a command was given.
    pub(crate) fn given(
        source: &args::SecretSource,
        directory: &std::path::Path,
    ) -> Result<Option<SecretRef>, Failure> {
        if let Some(name) = &source.secret_env {
            check_variable(name)?;
            return Ok(Some(SecretRef::Variable(name.clone())));
        }
        let Some(path) = &source.key_file else { return Ok(None) };
        // The next command may be run elsewhere.
        let path: PathBuf = directory.join(path).components().collect();
        if path.to_str().is_none() {
            return Err(Error::invalid("cannot keep the path of the key file: it is no text").into());
        }
        Ok(Some(SecretRef::File(path)))
    }

    /// Reads what an entry says; `None` where the remote is not encrypted.
    pub(super) fn read(entry: &Map<String, Value>) -> Option<SecretRef> {
        let encryption = entry.get(MEMBER).filter(|value| !value.is_null())?;
        let text = |name: &str| encryption.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        Some(match (text("secret_env"), text("key_file")) {
            (Some(name), None) => SecretRef::Variable(name.to_owned()),
            (None, Some(path)) => SecretRef::File(path.into()),
            // It is encrypted, whatever is said of how.
            _ => SecretRef::Unknown,
        })
    }

    /// Says in an entry where its secret is.
    pub(super) fn write(&self, entry: &mut Map<String, Value>) {
        let value = match self {
            SecretRef::Variable(name) => json!({"secret_env": name}),
            SecretRef::File(path) => json!({"key_file": path}),
            SecretRef::Unknown => return,
        };
        entry.insert(MEMBER.into(), value);
    }

    /// The secret.
    pub(crate) fn resolve(&self, env: &Env) -> Result<Secret, Failure> {
        let text = match self {
            SecretRef::Variable(name) => settings::secret(name)?.map(Zeroizing::new).ok_or_else(|| {
                let message =
                    format!("the variable `{name}`, in which the secret of the remote is, is not set");
                Failure::new(ErrorKind::Locked, message, format!("set {name} and run the same command again"))
            })?,
            SecretRef::File(path) => {
                let doing = format!("cannot read the key file `{}`", path.display());
                let bytes = read_small(env, path, SECRET_BYTES_MAX)
                    .map_err(|error| Error::new(ErrorKind::Locked, doing.clone()).with_source(error))?;
                let bytes = Zeroizing::new(bytes);
                let text = std::str::from_utf8(&bytes)
                    .map_err(|_| Error::new(ErrorKind::Locked, format!("{doing}: it is no text")))?;
                Zeroizing::new(text.to_owned())
            }
            SecretRef::Unknown => {
                let message = "the remote is encrypted, and this version cannot tell where its secret is";
                return Err(Error::new(ErrorKind::Locked, message).into());
            }
        };
        Ok(Secret::parse(&text)?)
    }

    /// Whether others may read the file, where that can be known.
    pub(crate) fn is_open_to_others(&self, env: &Env) -> bool {
        let SecretRef::File(path) = self else { return false };
        env.fs.mode(path).is_ok_and(|mode| mode.is_some_and(|mode| mode & 0o077 != 0))
    }

    /// Where it is, for people.
    pub(crate) fn words(&self) -> String {
        match self {
            SecretRef::Variable(name) => format!("secret in the variable {name}"),
            SecretRef::File(path) => format!("secret in {}", path.display()),
            SecretRef::Unknown => "secret kept where this version does not look".to_owned(),
        }
    }
}

impl Files<'_> {
    /// What opens a remote, where it is encrypted.
    pub(crate) fn access(&self, remote: &Named) -> Result<Option<Access>, Failure> {
        remote.secret.as_ref().map(|secret| self.access_by(secret)).transpose()
    }

    /// What opens a remote by a secret.
    pub(crate) fn access_by(&self, secret: &SecretRef) -> Result<Access, Failure> {
        let secret = secret.resolve(self.store.env())?;
        Ok(Access { secret, cache: self.store.dir().join("remotes") })
    }

    /// Changes where the secret of a remote is found.
    pub(crate) fn set_secret(&self, name: &str, secret: &SecretRef) -> Result<(), Failure> {
        self.change(|remotes| {
            remotes.get(name)?;
            secret.write(remotes.entry_mut(name)?);
            Ok(())
        })
    }
}

/// The name is not repeated in the refusal: it may be a secret in the wrong place.
fn check_variable(name: &str) -> Result<(), Failure> {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let rest = |byte: u8| first(byte) || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    if !(1..=128).contains(&bytes.len()) || !first(bytes[0]) || !bytes.iter().all(|byte| rest(*byte)) {
        let message = "cannot take what --secret-env names: expected the name of a variable, of letters, digits and `_`";
        return Err(Failure::new(
            ErrorKind::Invalid,
            message,
            "put the secret into a variable, or use --key-file",
        ));
    }
    if name == ADMIN_SECRET {
        let message =
            format!("cannot use `{ADMIN_SECRET}` as the secret of a remote: it only creates projects");
        return Err(Failure::new(ErrorKind::Invalid, message, "name another variable"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_secret_is_comes_back() {
        for secret in [SecretRef::Variable("TEAM".into()), SecretRef::File("/a b/key".into())] {
            let mut entry = Map::new();
            assert_eq!(SecretRef::read(&entry), None);
            secret.write(&mut entry);
            assert_eq!(SecretRef::read(&entry), Some(secret));
        }
        for odd in
            [json!({}), json!(true), json!({"secret_env": "A", "key_file": "/b"}), json!({"vault": "x"})]
        {
            let entry = Map::from_iter([(MEMBER.to_owned(), odd)]);
            assert_eq!(SecretRef::read(&entry), Some(SecretRef::Unknown), "it never counts as plain");
        }
    }
}
