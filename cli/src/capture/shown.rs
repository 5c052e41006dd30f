//! What `status` and `doctor` say of capture: what waits, who was heard of last, what has failed. Changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use agent_trace_store::Result;
use agent_trace_store::env::Env;

use super::absorb::{self, GIT};
use super::calls::BEFORE;
use super::flush;
use super::spool::{self, Spool};
use super::state::{Last, State};
use crate::json;

/// Entries that wait whose agent is looked up.
const LOOKED_AT_MAX: usize = 64;

/// What there is to say of a project's capture.
pub(crate) fn shown(env: &Env, data: &Path) -> Result<json::Capture> {
    let spool = Spool::of(data);
    let waiting = spool.waiting(env)?;
    let mut state = State::read(env, data);
    for waiting in waiting.iter().rev().take(LOOKED_AT_MAX) {
        if let Some((name, event, time)) = absorb::heard_in(env, &spool.path(&waiting.name)) {
            state.heard(&name, &event, time);
        }
    }
    let count = |name: &str| env.fs.list(&spool.path(name)).map_or(0, |entries| entries.len() as u64);
    let odd = spool.odd(env);
    Ok(json::Capture {
        waiting: waiting.len() as u64,
        bytes: waiting.iter().map(|waiting| waiting.bytes).sum(),
        oldest: waiting
            .first()
            .and_then(|waiting| spool::arrived(&waiting.name))
            .map(|time| time.to_string()),
        calls: count(BEFORE),
        commits: count(GIT),
        odd: odd.len() as u64,
        flusher: flush::is_running(env, &spool),
        last: state
            .last
            .into_iter()
            .map(|(name, Last { event, time })| (name, json::Heard { event, time }))
            .collect::<BTreeMap<_, _>>(),
        failures: spool
            .failures(env)
            .into_iter()
            .map(|failed| json::Failed { time: failed.time.to_string(), message: failed.message })
            .collect(),
    })
}
