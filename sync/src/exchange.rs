//! Where both kinds of remote meet: a layout of our own, reached file by file, and a service.

use agent_trace_store::env::Env;
use agent_trace_store::progress::Progress;
use agent_trace_store::{Error, ObjectId, Result, Store};

use crate::address::RemoteUrl;
use crate::bodies::{Brought, bring};
use crate::gate::{Gate, Open};
use crate::head::RemoteId;
use crate::pull::pull;
use crate::push::{PushOptions, PushReport, push_through};
use crate::remote::Remote;
use crate::seal::Access;
use crate::service_remote::{Service, remote_id};
use crate::state::State;
use crate::take::{PullOptions, PullReport, Transcripts};
use crate::token::Token;

/// A remote that can be pushed to and pulled from.
pub enum Exchange {
    /// A folder or a bucket.
    Layout(Remote),
    /// A project of a service.
    Service(Service),
}

impl Exchange {
    /// Opens a remote; `create` makes a folder's layout where there is none.
    pub fn open(env: &Env, address: &RemoteUrl, token: Option<Token>, create: bool) -> Result<Exchange> {
        Exchange::open_with(env, address, token, create, None)
    }

    /// The same for a remote that may be encrypted: with `access` it must be, without it must not.
    pub fn open_with(
        env: &Env,
        address: &RemoteUrl,
        token: Option<Token>,
        create: bool,
        access: Option<&Access>,
    ) -> Result<Exchange> {
        match address {
            RemoteUrl::Folder(_) | RemoteUrl::Bucket(_) => {
                Remote::open_with(env, address, create, access).map(Exchange::Layout)
            }
            RemoteUrl::Service(_) if access.is_some() => {
                Err(Error::invalid("a service is not encrypted from here: it reads what it serves"))
            }
            RemoteUrl::Service(url) => Service::open(env, url, token).map(Exchange::Service),
        }
    }

    /// Which remote lies at an address, without asking it: of a folder what was last seen there.
    pub fn remote_at(store: &Store, address: &RemoteUrl) -> Result<Option<RemoteId>> {
        match address {
            RemoteUrl::Folder(_) | RemoteUrl::Bucket(_) => State::remote_at(store, &address.name()),
            RemoteUrl::Service(url) => Ok(Some(remote_id(url))),
        }
    }

    /// Sends what the remote has not got, whatever it is.
    pub fn push(&self, store: &Store, options: &PushOptions, progress: &dyn Progress) -> Result<PushReport> {
        self.push_through(store, options, &Open, progress)
    }

    /// Sends what the remote has not got and a gate lets pass; where it refuses, nothing is sent.
    pub fn push_through(
        &self,
        store: &Store,
        options: &PushOptions,
        gate: &dyn Gate,
        progress: &dyn Progress,
    ) -> Result<PushReport> {
        match self {
            Exchange::Layout(remote) => push_through(store, remote, options, gate, progress),
            Exchange::Service(service) => service.push_through(store, options, gate, progress),
        }
    }

    /// Takes what the remote has and the store has not.
    pub fn pull(&self, store: &Store, options: &PullOptions, progress: &dyn Progress) -> Result<PullReport> {
        let mut report = match self {
            Exchange::Layout(remote) => pull(store, remote, options, progress),
            Exchange::Service(service) => service.pull(store, options, progress),
        }?;
        if options.transcripts == Transcripts::All && !options.dry_run {
            let ids: Vec<ObjectId> = store.elsewhere()?.ids().copied().collect();
            if !ids.is_empty() {
                progress.start("fetching", None);
                let brought = self.bring(store, &ids, progress)?;
                progress.finish();
                report.fetched = brought.objects;
                report.not_there = brought.not_there.len() as u64;
                report.bytes += brought.bytes;
                report.requests = self.requests();
            }
        }
        Ok(report)
    }

    /// Fetches objects that are elsewhere; those that the remote does not hold are listed.
    pub fn bring(&self, store: &Store, ids: &[ObjectId], progress: &dyn Progress) -> Result<Brought> {
        match self {
            Exchange::Layout(remote) => bring(store, remote, ids, progress),
            Exchange::Service(service) => service.bring(store, ids, progress),
        }
    }

    /// Which remote it is; `None` where nothing has been made there yet.
    pub fn id(&self) -> Option<RemoteId> {
        match self {
            Exchange::Layout(remote) => remote.id(),
            Exchange::Service(service) => Some(service.id()),
        }
    }

    fn requests(&self) -> u64 {
        match self {
            Exchange::Layout(remote) => remote.transport().requests(),
            Exchange::Service(service) => service.client().requests(),
        }
    }
}
