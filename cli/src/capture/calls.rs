//! Tool calls that have begun: what their files held then waits for the end of the call, in `spool/before/`.
//!
//! A call may take long, so that its beginning is absorbed before its end has come. The name of a file there is
//! `<session>-<call>+<entry>`, each a hash of 8 bytes in hex, so that the end of a call finds it without reading
//! others. What waits for an end that does not come goes with the end of its session, or after an hour.

use std::collections::BTreeMap;
use std::path::PathBuf;

use agent_trace_store::env::Env;
use agent_trace_store::id::encode_hex;

use super::absorb::{paths_of, read_entry};
use super::adapters::Event;
use super::entry::{Entry, FileState, SeenFile};
use super::limits::BEFORE_MICROS_MAX;
use super::spool::{self, Spool};

/// The directory within the spool.
pub(crate) const BEFORE: &str = "before";

/// The calls of one batch.
pub(super) struct Calls<'a> {
    env: &'a Env,
    spool: &'a Spool,
    /// Those that have begun in this batch and not ended.
    begun: Vec<Begun>,
    /// Beginnings of earlier batches that are of no use any more.
    used: Vec<PathBuf>,
}

struct Begun {
    call: String,
    /// The entry's name.
    name: String,
    files: Vec<SeenFile>,
}

impl<'a> Calls<'a> {
    pub(super) fn new(env: &'a Env, spool: &'a Spool) -> Calls<'a> {
        Calls { env, spool, begun: Vec::new(), used: Vec::new() }
    }

    /// Notes the beginning of a call.
    pub(super) fn begin(&mut self, event: &Event, name: &str, entry: &Entry) {
        let call = name_of(event, &paths_of(entry));
        self.begun.push(Begun { call, name: name.to_owned(), files: entry.files.clone() });
    }

    /// What files held before a call that has ended, as far as a hook saw it.
    pub(super) fn end(&mut self, event: &Event, paths: &[PathBuf]) -> BTreeMap<PathBuf, FileState> {
        let call = name_of(event, paths);
        let mut befores = BTreeMap::new();
        for path in self.waiting(&format!("{call}+")) {
            // Later ones take the place of earlier ones.
            if let Ok(Some(entry)) = read_entry(self.env, &path) {
                befores.extend(entry.files.into_iter().map(|file| (file.path, file.state)));
            }
            self.used.push(path);
        }
        for begun in self.begun.extract_if(.., |begun| begun.call == call) {
            befores.extend(begun.files.into_iter().map(|file| (file.path, file.state)));
        }
        befores
    }

    /// Lets go of a call that has failed, or of all calls of a session that has ended.
    pub(super) fn forget(&mut self, event: &Event) {
        let name = name_of(event, &[]);
        let prefix = match (event.tool_use.as_ref(), name.split_once('-')) {
            (None, Some((session, _))) => format!("{session}-"),
            _ => format!("{name}+"),
        };
        let waiting = self.waiting(&prefix);
        self.used.extend(waiting);
        self.begun.retain(|begun| !format!("{}+", begun.call).starts_with(&prefix));
    }

    /// The entries of this batch whose end has not come, and where they wait for it.
    pub(super) fn not_ended(&mut self) -> Vec<(String, PathBuf)> {
        let place = self.spool.path(BEFORE);
        let begun = self.begun.drain(..);
        begun
            .map(|begun| (begun.name.clone(), place.join(format!("{}+{}", begun.call, begun.name))))
            .collect()
    }

    /// Removes what is of no use any more.
    pub(super) fn clear(&self) {
        for path in &self.used {
            // It would go after an hour anyway.
            let _ = self.env.fs.remove(path);
        }
    }

    fn waiting(&self, prefix: &str) -> Vec<PathBuf> {
        let place = self.spool.path(BEFORE);
        let found = self.env.fs.list(&place).unwrap_or_default().into_iter();
        let found = found.filter(|found| found.name.to_string_lossy().starts_with(prefix));
        found.map(|found| place.join(found.name)).collect()
    }
}

/// Removes what has waited for too long.
pub(super) fn tidy(env: &Env, spool: &Spool) {
    let now = env.clock.now().micros();
    for entry in env.fs.list(&spool.path(BEFORE)).unwrap_or_default() {
        let name = entry.name.to_string_lossy();
        let arrived = name.rsplit_once('+').and_then(|(_, name)| spool::arrived(name));
        if arrived.is_none_or(|arrived| now - arrived.micros() > BEFORE_MICROS_MAX) {
            // It helps to tell an edit's lines, and no more.
            let _ = env.fs.remove(&spool.path(BEFORE).join(&entry.name));
        }
    }
}

/// The name under which a call waits for its end: of its session, then of the call in it.
fn name_of(event: &Event, paths: &[PathBuf]) -> String {
    let short = |text: &str| encode_hex(&blake3::hash(text.as_bytes()).as_bytes()[..8]);
    let session = format!("{}\0{}", event.agent.name(), event.session.as_deref().unwrap_or_default());
    let call = match &event.tool_use {
        Some(tool_use) => tool_use.clone(),
        None => format!("{:?}\0{paths:?}", event.tool),
    };
    format!("{}-{}", short(&session), short(&call))
}
