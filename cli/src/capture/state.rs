//! What capture remembers beside the spool: which agent was last heard of, and where the edits of a session stand.
//!
//! ```text
//! projects/<id>/capture/last.json       {"claude-code": {"event", "time"}, "git/post-commit": ...}
//! projects/<id>/capture/sessions.json   {<conversation>: {"next", "model", "version", "said", "time"}}
//! ```
//!
//! Both may be deleted at any time: the next number of a session is then counted from its traces. Written by whoever
//! holds `absorb.lock`, replaced in one step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::layout::{read_small, write_durably};
use agent_trace_store::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};

use super::limits::SESSIONS_MAX;

const STATE_BYTES_MAX: u64 = 4 << 20;

/// When something was last heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Last {
    pub(crate) event: String,
    pub(crate) time: String,
}

/// Where a session stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The number of its next edit.
    pub(crate) next: u64,
    /// The model that was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// The agent's version that was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// What was last said about its transcript, so that it is said once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) said: Option<String>,
    /// When it was last heard of, in microseconds.
    #[serde(default)]
    pub(crate) time: i64,
}

/// What is remembered.
pub(crate) struct State {
    dir: PathBuf,
    pub(crate) last: BTreeMap<String, Last>,
    pub(crate) sessions: BTreeMap<String, Session>,
    is_changed: bool,
}

impl State {
    /// Reads what there is; what cannot be read is forgotten.
    pub(crate) fn read(env: &Env, data: &Path) -> State {
        let dir = data.join("capture");
        State {
            last: read_json(env, &dir.join("last.json")),
            sessions: read_json(env, &dir.join("sessions.json")),
            is_changed: false,
            dir,
        }
    }

    /// Notes that something was heard of.
    pub(crate) fn heard(&mut self, name: &str, event: &str, time: Timestamp) {
        self.is_changed = true;
        let known = self.last.get(name).and_then(|last| Timestamp::parse(&last.time));
        if known.is_none_or(|known| known <= time) {
            let last = Last { event: event.to_owned(), time: time.to_string() };
            self.last.insert(name.to_owned(), last);
        }
    }

    /// A session, to be changed.
    pub(crate) fn session(&mut self, conversation: &str, time: Timestamp) -> &mut Session {
        self.is_changed = true;
        let session = self.sessions.entry(conversation.to_owned()).or_default();
        session.time = session.time.max(time.micros());
        session
    }

    /// Replaces the files, if anything has changed.
    pub(crate) fn write(&mut self, env: &Env) -> Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        while self.sessions.len() > SESSIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.time);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { break };
            self.sessions.remove(&name);
        }
        env.fs
            .create_dir_all(&self.dir)
            .map_err(|error| Error::io(format!("cannot make `{}`", self.dir.display()), error))?;
        write_json(env, &self.dir.join("last.json"), &self.last)?;
        write_json(env, &self.dir.join("sessions.json"), &self.sessions)?;
        self.is_changed = false;
        Ok(())
    }
}

fn read_json<T: Default + for<'de> Deserialize<'de>>(env: &Env, path: &Path) -> T {
    let bytes = read_small(env, path, STATE_BYTES_MAX).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn write_json(env: &Env, path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::invalid(format!("cannot write `{}`", path.display())).with_source(error))?;
    write_durably(env, path, &bytes, true)
}
