//! A service as a remote: push and pull over HTTP.
//!
//! ```text
//! push   arrivals ─► select ─► outbox ─► uploads ─► commit
//! pull   arrivals ─► stream ─► inbox ─► check ─► take in
//! ```
//!
//! A service numbers what arrives, so one position stands for all heads, and a store that has replayed up to the newest
//! knows every event there. What is chosen, how segments are made and how they are checked is the same as for a folder.
//! By protocol 1 records go one by one, see `legacy`; such a service is asked each time whether it speaks protocol 2 now,
//! see `upgrade`.

mod bodies;
mod compare;
mod known;
mod legacy;
mod legacy_pull;
mod outbox;
mod pull;
mod push;
mod replay;
mod upgrade;

use std::sync::Arc;

use agent_trace_store::env::{Env, Lock, LockMode};
use agent_trace_store::lock::lock;
use agent_trace_store::progress::Progress;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, Result, Store};

use crate::address::ServiceUrl;
use crate::client::{Client, Scope};
use crate::gate::{Gate, Open};
use crate::head::RemoteId;
use crate::limits::EXCHANGE_WAIT_MICROS_MAX;
use crate::push::{PushOptions, PushReport};
use crate::state::{State, cache_dir};
use crate::take::{PullOptions, PullReport, Transcripts};
use crate::token::Token;
use crate::wire::{Caps, NO_TRANSCRIPTS};

use known::{Known, Protocol};

/// A project of a service.
pub struct Service {
    client: Arc<Client>,
    id: RemoteId,
    name: String,
}

impl Service {
    /// Prepares; nothing is sent yet.
    pub fn open(env: &Env, url: &ServiceUrl, token: Option<Token>) -> Result<Service> {
        Ok(Service::over(Client::open(env, url, token)?))
    }

    /// The same over calls that somebody else has prepared.
    pub fn over(client: Client) -> Service {
        let url = client.url();
        let name = url.to_string();
        let id = remote_id(url);
        Service { client: Arc::new(client), id, name }
    }

    /// The calls of the service.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Makes sure that the token is for this project, as is done before every push.
    pub fn check_scope(&self) -> Result<Scope> {
        self.client.check_scope()
    }

    /// Pushes, whatever it is.
    pub fn push(&self, store: &Store, options: &PushOptions, progress: &dyn Progress) -> Result<PushReport> {
        self.push_through(store, options, &Open, progress)
    }

    /// Pushes what a gate lets pass; where it refuses, nothing is sent.
    pub fn push_through(
        &self,
        store: &Store,
        options: &PushOptions,
        gate: &dyn Gate,
        progress: &dyn Progress,
    ) -> Result<PushReport> {
        let _busy = store.busy()?;
        let _lock = self.lock(store)?;
        store.settle()?;
        let mut memory = self.remembered(store)?;
        let report = match self.protocol(store, &mut memory)? {
            Protocol::Two => self.push_segments(store, &mut memory, options, gate, progress),
            Protocol::One => self.push_records(store, &mut memory, options, gate, progress),
        };
        let report = self.ask_again_later(store, &memory, report)?;
        Ok(PushReport { requests: self.client.requests(), ..report })
    }

    /// Pulls.
    pub fn pull(&self, store: &Store, options: &PullOptions, progress: &dyn Progress) -> Result<PullReport> {
        let _busy = store.busy()?;
        let _lock = self.lock(store)?;
        store.catch_up()?;
        let mut memory = self.remembered(store)?;
        let report = match self.protocol(store, &mut memory)? {
            Protocol::Two => self.pull_by_two(store, &mut memory, options, progress),
            Protocol::One if options.transcripts == Transcripts::None => {
                let message =
                    format!("`{}` speaks protocol 1, which cannot leave transcripts out", self.name);
                return Err(Error::invalid(message));
            }
            Protocol::One => self.pull_records(store, &mut memory, options, progress),
        };
        let report = self.ask_again_later(store, &memory, report)?;
        Ok(PullReport { requests: self.client.requests(), ..report })
    }

    /// Pulls by protocol 2. Where a service cannot leave bodies out, they come.
    fn pull_by_two(
        &self,
        store: &Store,
        memory: &mut Memory,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<PullReport> {
        let mut options = options.clone();
        let mut cannot_leave_out = false;
        if options.transcripts == Transcripts::None {
            let leaves_out = |caps: Caps| caps.features.iter().any(|feature| feature == NO_TRANSCRIPTS);
            if !self.client.caps()?.is_some_and(leaves_out) {
                (options.transcripts, cannot_leave_out) = (Transcripts::New, true);
            }
        }
        let report = self.pull_segments(store, memory, &options, progress)?;
        Ok(PullReport { cannot_leave_out, ..report })
    }

    /// Which remote it is.
    pub fn id(&self) -> RemoteId {
        self.id
    }

    /// Which protocol the service speaks. One that spoke protocol 2 is taken at its word until it no longer answers to
    /// that; one that did not is asked every time, since it may have been replaced by a newer one.
    fn protocol(&self, store: &Store, memory: &mut Memory) -> Result<Protocol> {
        let before = memory.known.protocol;
        if before == Some(Protocol::Two) {
            return Ok(Protocol::Two);
        }
        let caps = self.client.caps()?;
        let protocol =
            if caps.is_some_and(|caps| caps.protocols.contains(&2)) { Protocol::Two } else { Protocol::One };
        if (before, protocol) == (Some(Protocol::One), Protocol::Two) {
            self.upgrade(store, memory)?;
        }
        memory.known.protocol = Some(protocol);
        Ok(protocol)
    }

    /// Forgets the protocol where an exchange found that it is not spoken any more.
    fn ask_again_later<T>(&self, store: &Store, memory: &Memory, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() && memory.known.protocol.is_none() {
            memory.known.save(store, &self.id)?;
        }
        outcome
    }

    fn lock(&self, store: &Store) -> Result<Box<dyn Lock>> {
        let path = cache_dir(store, &self.id)?.join("lock");
        lock(store.env(), &path, LockMode::Exclusive, EXCHANGE_WAIT_MICROS_MAX)
    }

    fn remembered(&self, store: &Store) -> Result<Memory> {
        let (state, known) = (State::load(store, &self.id)?, Known::load(store, &self.id)?);
        Ok(Memory {
            saved: Some((state.clone(), known.clone())),
            state,
            known,
            by_records: EventSet::default(),
        })
    }

    /// Remembers what has been learned, if that is new.
    fn remember(&self, store: &Store, memory: &mut Memory) -> Result<()> {
        let now = (memory.state.clone(), memory.known.clone());
        if memory.saved.as_ref() == Some(&now) {
            return Ok(());
        }
        State::note_address(store, &self.name, &self.id)?;
        // The state first: a cursor that is behind costs a question, one that is ahead would hide arrivals.
        memory.state.save(store, &self.id)?;
        memory.known.save(store, &self.id)?;
        memory.saved = Some(now);
        Ok(())
    }
}

/// Which remote a project of a service is: a service has no id of its own, so it goes by its URL.
pub(crate) fn remote_id(url: &ServiceUrl) -> RemoteId {
    let mut hasher = blake3::Hasher::new_derive_key("agent-trace 2026 project of a service");
    for part in [url.base_url().as_str(), url.org().as_str(), url.project().as_str()] {
        hasher.update(part.as_bytes()).update(&[0]);
    }
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer")
}

/// What is remembered of a service.
struct Memory {
    state: State,
    known: Known,
    saved: Option<(State, Known)>,
    /// Events whose records are there by protocol 1, between a change of protocol and the replay after it.
    by_records: EventSet,
}
