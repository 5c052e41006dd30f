//! Where both kinds of remote meet: a layout of our own, reached file by file, and a service.

use agent_trace_store::env::Env;
use agent_trace_store::progress::Progress;
use agent_trace_store::{Result, Store};

use crate::address::RemoteUrl;
use crate::pull::pull;
use crate::push::{PushOptions, PushReport, push};
use crate::remote::Remote;
use crate::service_remote::Service;
use crate::take::{PullOptions, PullReport};
use crate::token::Token;

/// A remote that can be pushed to and pulled from.
pub enum Exchange {
    /// A folder.
    Layout(Remote),
    /// A project of a service.
    Service(Service),
}

impl Exchange {
    /// Opens a remote; `create` makes a folder's layout where there is none.
    pub fn open(env: &Env, address: &RemoteUrl, token: Option<Token>, create: bool) -> Result<Exchange> {
        match address {
            RemoteUrl::Folder(_) => Remote::open(env, address, create).map(Exchange::Layout),
            RemoteUrl::Service(url) => Service::open(env, url, token).map(Exchange::Service),
        }
    }

    /// Sends what the remote has not got.
    pub fn push(&self, store: &Store, options: &PushOptions, progress: &dyn Progress) -> Result<PushReport> {
        match self {
            Exchange::Layout(remote) => push(store, remote, options, progress),
            Exchange::Service(service) => service.push(store, options, progress),
        }
    }

    /// Takes what the remote has and the store has not.
    pub fn pull(&self, store: &Store, options: &PullOptions, progress: &dyn Progress) -> Result<PullReport> {
        match self {
            Exchange::Layout(remote) => pull(store, remote, options, progress),
            Exchange::Service(service) => service.pull(store, options, progress),
        }
    }
}
