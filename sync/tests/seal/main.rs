//! Encrypted remotes: the bytes, their names, the keys, and what is refused.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod exchange;
mod format;
mod keys;
mod vectors;

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::remote::Remote;
use agent_trace_sync::seal::{Access, Secret};

/// Secret keys of three people.
pub(crate) const KEYS: [&str; 3] = [
    "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZ9K4CN",
    "AGE-SECRET-KEY-1QGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQ0N3JDM",
    "AGE-SECRET-KEY-1QVPSXQCRQVPSXQCRQVPSXQCRQVPSXQCRQVPSXQCRQVPSXQCRQVPS2PGGME",
];

/// What the secret of a person opens, kept in a store's directory.
pub(crate) fn access(store: &str, person: usize) -> Access {
    Access { secret: Secret::parse(KEYS[person]).unwrap(), cache: Path::new(store).join("remotes") }
}

/// Opens the remote that all share.
pub(crate) fn remote(env: &Env, access: &Access, create: bool) -> agent_trace_store::Result<Remote> {
    Remote::open_with(env, &RemoteUrl::Folder("/remote".into()), create, Some(access))
}
