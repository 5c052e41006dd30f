//! What a store has that a remote has not, as far as is known without asking the remote.

use agent_trace_store::seqs::EventSet;
use agent_trace_store::{ErrorKind, Result, Store};

use crate::address::RemoteUrl;
use crate::select::{sources, without_bodies};
use crate::state::State;

/// Counts of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpushed {
    /// Events that a plain push would look at.
    pub new: u64,
    /// Events held back by earlier pushes.
    pub held_back: u64,
    /// Events that cannot be sent, since bytes that they list are elsewhere.
    pub elsewhere: u64,
    /// Whether this store ever exchanged anything with that remote.
    pub known: bool,
}

/// Counts what is unpushed, without asking the remote.
pub fn unpushed(store: &Store, address: &RemoteUrl) -> Result<Unpushed> {
    let snapshot = store.snapshot()?;
    let held = store.held(&snapshot)?;
    let id = State::remote_at(store, &address.name())?;
    let state = id.as_ref().map(|id| State::load(store, id)).transpose()?.unwrap_or_default();
    let rest = held.minus(&state.has);
    let away = match without_bodies(store, &sources(store, &snapshot)?, &rest) {
        // A damaged note: that is told by whoever asks for the notes; counting goes on without them.
        Err(error) if error.kind() == ErrorKind::Corrupt => EventSet::default(),
        away => away?,
    };
    let rest = rest.minus(&away);
    let new = rest.minus(&state.held).len();
    let held_back = rest.len() - new;
    Ok(Unpushed { new, held_back, elsewhere: away.len(), known: id.is_some() })
}
