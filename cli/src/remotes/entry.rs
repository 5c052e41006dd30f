//! One remote, and the JSON object in which it is kept.
//!
//! ```json
//! {"url":"https://host/org/project","base_url":"https://host","org_slug":"org","project_slug":"project",
//!  "auth":{"type":"bearer","token_ref":"global:<project>::<name>"},"insecure_http":true}
//! ```
//!
//! That is agent-trace-cli's form of a service; `insecure_http` is ours and there only where it is true. A folder has
//! nothing but `url`, a bucket what `bucket` says, and both, where they are encrypted, `encryption`, see `secrets`. Members that this
//! version does not know stay as they are.

use agent_trace_store::Error;
use agent_trace_sync::address::{Plaintext, RemoteUrl, has_credentials, shown};
use serde_json::{Map, Value, json};

use super::bucket::{BucketEntry, MEMBER};
use super::secrets::SecretRef;
use super::tokens::TokenRef;
use crate::report::Failure;

const SERVICE_MEMBERS: [&str; 5] = ["base_url", "org_slug", "project_slug", "auth", "insecure_http"];

/// One remote.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// Its name.
    pub(crate) name: String,
    /// Where it lies, without what may be secret.
    pub(crate) url: String,
    /// Whether it is used where none is named.
    pub(crate) is_default: bool,
    /// Where its token is.
    pub(crate) token: Option<TokenRef>,
    /// What is said of a bucket.
    pub(crate) bucket: BucketEntry,
    /// Where its secret is, if it is encrypted.
    pub(crate) secret: Option<SecretRef>,
    written: String,
    plaintext: Plaintext,
}

impl Named {
    /// Reads an entry; what is no object is none.
    pub(super) fn read(name: &str, entry: &Value, is_default: bool) -> Option<Named> {
        let entry = entry.as_object()?;
        let written = entry.get("url").and_then(Value::as_str).unwrap_or_default().to_owned();
        let insecure = entry.get("insecure_http").and_then(Value::as_bool).unwrap_or(false);
        let token = entry.get("auth").and_then(|auth| auth.get("token_ref")).and_then(Value::as_str);
        Some(Named {
            name: name.to_owned(),
            url: shown(&written),
            is_default,
            token: token.filter(|text| !text.is_empty()).map(TokenRef::parse),
            bucket: BucketEntry::read(entry),
            secret: SecretRef::read(entry),
            written,
            plaintext: if insecure { Plaintext::Anywhere } else { Plaintext::Loopback },
        })
    }

    /// Where it lies.
    pub(crate) fn address(&self) -> Result<RemoteUrl, Failure> {
        let complete = |address| match address {
            RemoteUrl::Bucket(url) => {
                let url = self.bucket.complete(*url, self.plaintext)?;
                Ok(RemoteUrl::Bucket(Box::new(url)))
            }
            address => Ok(address),
        };
        RemoteUrl::parse(&self.written, self.plaintext).and_then(complete).map_err(|error| {
            Failure::from(error).hint(format!("agent-trace remote set-url {} URL", self.name))
        })
    }
}

/// Reads a URL that a user gives.
pub(crate) fn read_url(text: &str, plaintext: Plaintext) -> Result<RemoteUrl, Failure> {
    RemoteUrl::parse(text, plaintext).map_err(|error| {
        let failure = Failure::from(error);
        if has_credentials(text) {
            return failure.hint("leave them out and give the token by --token-stdin or --token");
        }
        if RemoteUrl::parse(text, Plaintext::Anywhere).is_ok() {
            return failure.hint("use https, or add --insecure-http where everybody on the way may read it");
        }
        failure
    })
}

/// What an entry says of where its remote lies.
pub(super) fn set_url(
    entry: &mut Map<String, Value>,
    address: &RemoteUrl,
    written: &str,
    bucket: Option<&BucketEntry>,
) {
    match address {
        RemoteUrl::Bucket(url) => {
            entry.insert("url".into(), json!(url.to_string()));
            for member in SERVICE_MEMBERS {
                entry.shift_remove(member);
            }
            if let Some(bucket) = bucket {
                bucket.write(entry);
            }
            if url.is_insecure() {
                entry.insert("insecure_http".into(), json!(true));
            }
        }
        RemoteUrl::Folder(_) => {
            entry.insert("url".into(), json!(written));
            for member in SERVICE_MEMBERS.into_iter().chain([MEMBER]) {
                entry.shift_remove(member);
            }
        }
        RemoteUrl::Service(service) => {
            entry.shift_remove(MEMBER);
            entry.insert("url".into(), json!(service.to_string()));
            entry.insert("base_url".into(), json!(service.base_url()));
            entry.insert("org_slug".into(), json!(service.org().as_str()));
            entry.insert("project_slug".into(), json!(service.project().as_str()));
            if service.is_insecure() {
                entry.insert("insecure_http".into(), json!(true));
            } else {
                entry.shift_remove("insecure_http");
            }
        }
    }
}

/// Refuses a name that a new remote may not have.
pub(super) fn check_name(name: &str) -> Result<(), Failure> {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let rest = |byte: u8| first(byte) || matches!(byte, b'.' | b'_' | b'-');
    let bytes = name.as_bytes();
    if (1..=64).contains(&bytes.len()) && first(bytes[0]) && bytes.iter().all(|byte| rest(*byte)) {
        return Ok(());
    }
    let message = format!(
        "cannot name a remote `{name}`: expected at most 64 lower-case letters, digits, `.`, `_` or `-`, a letter or digit first"
    );
    Err(Error::invalid(message).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for name in ["a", "team", "9", "a.b_c-d", &"a".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "A", "-a", ".a", "a b", "a/b", "é", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_entry_says_where_its_remote_lies_and_keeps_the_rest() {
        let mut entry = Map::new();
        let mut check = |url: &str, expected: Value| {
            set_url(&mut entry, &RemoteUrl::parse(url, Plaintext::Anywhere).unwrap(), url, None);
            assert_eq!(Value::Object(entry.clone()), expected);
            entry.insert("note".into(), json!([1]));
            TokenRef::Variable("V".into()).write(&mut entry);
        };
        let auth = json!({"type": "bearer", "token_ref": "env:V"});
        check(
            "https://h/o/p/?q",
            json!({"url": "https://h/o/p", "base_url": "https://h", "org_slug": "o", "project_slug": "p"}),
        );
        check(
            "http://h/at/o/p",
            json!({"url": "http://h/at/o/p", "base_url": "http://h/at/o/p", "org_slug": "o", "project_slug": "p",
                "insecure_http": true, "note": [1], "auth": auth}),
        );
        check(
            "https://h/o/q",
            json!({"url": "https://h/o/q", "base_url": "https://h", "org_slug": "o", "project_slug": "q",
                "note": [1], "auth": auth}),
        );
        check("file:///a%20b", json!({"url": "file:///a%20b", "note": [1]}));
    }
}
