//! What the store knows that bears on commits: traces by path, ledgers by commit and by path. Each is read once.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use agent_trace_store::question::{self, Query};
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Kind, Result, Store, Timestamp};
use rayon::prelude::*;

use super::ledger::Ledger;
use crate::edit::trace::TraceEdits;

/// The traces of one path that are looked at: the newest.
const TRACES_MAX: usize = 4096;
/// Traces whose paths are looked at to find what a file was called before it lost its folder.
const RECENT_MAX: usize = 512;
/// The ledgers of one path that are looked at: the newest.
const LEDGERS_MAX: usize = 256;

/// A reader of the store.
pub(crate) struct Known<'a> {
    store: &'a Store,
    snapshot: Snapshot,
    traces: HashMap<String, Rc<Vec<Rc<TraceEdits>>>>,
    by_commit: HashMap<String, Option<Rc<Ledger>>>,
    by_path: HashMap<String, Rc<Vec<Rc<Ledger>>>>,
    /// Paths of the newest traces.
    recent_paths: Option<Vec<String>>,
}

impl<'a> Known<'a> {
    /// Looks at a store as it is now.
    pub(crate) fn of(store: &'a Store) -> Result<Known<'a>> {
        let snapshot = store.snapshot()?;
        let (traces, by_commit, by_path, recent_paths) = Default::default();
        Ok(Known { store, snapshot, traces, by_commit, by_path, recent_paths })
    }

    /// What it looks at.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The traces that touched a file until a time, oldest first; each once.
    pub(crate) fn traces(&mut self, path: &str, until: Timestamp) -> Result<Vec<Rc<TraceEdits>>> {
        if !self.traces.contains_key(path) {
            let query = Query {
                kind: Some(Kind::TRACE),
                path: Some(path.to_owned()),
                limit: Some(TRACES_MAX),
                ..Query::default()
            };
            let mut traces: Vec<Rc<TraceEdits>> = Vec::new();
            for found in question::list(self.store, &self.snapshot, &query)? {
                // What another program calls a trace and is none has nothing to say.
                if let Ok(trace) = TraceEdits::read(found.record(), &self.store.read(&found.record())?) {
                    traces.push(Rc::new(trace));
                }
            }
            traces.sort_by(|one, two| {
                let key =
                    |trace: &TraceEdits| (trace.time, trace.session.clone(), trace.sequence, trace.record);
                key(one).cmp(&key(two))
            });
            // Of two versions of one trace the earliest answers.
            let mut seen = std::collections::HashSet::new();
            traces.retain(|trace| seen.insert(trace.id.clone()));
            self.traces.insert(path.to_owned(), Rc::new(traces));
        }
        let traces = &self.traces[path];
        Ok(traces.iter().filter(|trace| trace.time <= until).cloned().collect())
    }

    /// Paths of traces that end with a path and a folder before it; only the newest traces are looked at.
    pub(crate) fn longer_paths(&mut self, path: &str) -> Result<Vec<String>> {
        if self.recent_paths.is_none() {
            let query = Query { kind: Some(Kind::TRACE), limit: Some(RECENT_MAX), ..Query::default() };
            let mut paths = BTreeSet::new();
            for found in question::list(self.store, &self.snapshot, &query)? {
                if let Ok(trace) = TraceEdits::read(found.record(), &self.store.read(&found.record())?) {
                    paths.extend(trace.files.into_iter().map(|file| file.path));
                }
            }
            self.recent_paths = Some(paths.into_iter().collect());
        }
        let paths = self.recent_paths.iter().flatten();
        let longer =
            paths.filter(|longer| longer.strip_suffix(path).is_some_and(|folder| folder.ends_with('/')));
        Ok(longer.cloned().collect())
    }

    /// The traces that touched a file under any of its paths until a time, oldest first, each with the path.
    pub(crate) fn traces_of(
        &mut self,
        paths: &BTreeSet<String>,
        until: Timestamp,
    ) -> Result<Vec<(String, Rc<TraceEdits>)>> {
        let mut traces = Vec::new();
        for path in paths {
            traces.extend(self.traces(path, until)?.into_iter().map(|trace| (path.clone(), trace)));
        }
        traces.sort_by(|(_, one), (_, two)| {
            (one.time, &one.session, one.sequence).cmp(&(two.time, &two.session, two.sequence))
        });
        Ok(traces)
    }

    /// Whether there is any ledger.
    pub(crate) fn has_ledgers(&mut self) -> Result<bool> {
        if self.by_commit.values().any(Option::is_some) {
            return Ok(true);
        }
        let query = Query { kind: Some(Kind::LEDGER), limit: Some(1), ..Query::default() };
        Ok(!question::list(self.store, &self.snapshot, &query)?.is_empty())
    }

    /// The ledger of a commit.
    pub(crate) fn ledger(&mut self, commit: &str) -> Result<Option<Rc<Ledger>>> {
        if let Some(known) = self.by_commit.get(commit) {
            return Ok(known.clone());
        }
        let found = question::named(self.store, &self.snapshot, commit, false)?;
        let ledger = match question::choose(Kind::LEDGER, &found) {
            Some(chosen) => Ledger::decode(&self.store.read(&chosen.record())?).ok().map(Rc::new),
            None => None,
        };
        self.by_commit.insert(commit.to_owned(), ledger.clone());
        Ok(ledger)
    }

    /// Reads the ledgers of many commits at once, so that each is known when it is asked for.
    pub(crate) fn prepare(&mut self, commits: &[&str]) -> Result<()> {
        let open: Vec<&str> =
            commits.iter().copied().filter(|commit| !self.by_commit.contains_key(*commit)).collect();
        let found = question::keyed(self.store, &self.snapshot, Kind::LEDGER, &open)?;
        let store = self.store;
        let decoded = found.par_iter().map(|found| match question::choose(Kind::LEDGER, found) {
            Some(chosen) => Ok(Ledger::decode(&store.read(&chosen.record())?).ok()),
            None => Ok(None),
        });
        let decoded = decoded.collect::<Result<Vec<Option<Ledger>>>>()?;
        for (commit, ledger) in open.into_iter().zip(decoded) {
            self.by_commit.insert(commit.to_owned(), ledger.map(Rc::new));
        }
        Ok(())
    }

    /// The ledgers that attribute lines of a file, newest first.
    pub(crate) fn ledgers_of(&mut self, path: &str) -> Result<Rc<Vec<Rc<Ledger>>>> {
        if let Some(known) = self.by_path.get(path) {
            return Ok(known.clone());
        }
        let query = Query {
            kind: Some(Kind::LEDGER),
            path: Some(path.to_owned()),
            limit: Some(LEDGERS_MAX),
            ..Query::default()
        };
        let mut ledgers = Vec::new();
        for found in question::list(self.store, &self.snapshot, &query)? {
            if let Ok(ledger) = Ledger::decode(&self.store.read(&found.record())?) {
                ledgers.push(Rc::new(ledger));
            }
        }
        let ledgers = Rc::new(ledgers);
        self.by_path.insert(path.to_owned(), ledgers.clone());
        Ok(ledgers)
    }

    /// Notes a ledger that has just been made.
    pub(crate) fn note(&mut self, ledger: &Rc<Ledger>) {
        self.by_commit.insert(ledger.commit_sha.clone(), Some(ledger.clone()));
        for path in ledger.files.keys() {
            if let Some(known) = self.by_path.get_mut(path) {
                Rc::make_mut(known).insert(0, ledger.clone());
            }
        }
    }
}
