//! Commits that a blame meets and that nobody has linked: no hook told of them, or none of ours runs here.
//!
//! They are looked for only where a trace of the file says a line of theirs, and linked for this answer, in memory; so a
//! commit of people costs a look at hashes. What it comes to is what `link` would write down; nothing is guessed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use agent_trace_store::question::{self, Query};
use agent_trace_store::{Kind, Result, Store, Timestamp};
use rayon::prelude::*;

use crate::edit::line::Line;
use crate::edit::trace::TraceEdits;
use crate::git::blame::{Blamed, BlamedLine};
use crate::git::commits::spelled;
use crate::git::process::Git;
use crate::link::known::Known;
use crate::link::{Linker, reaches_on};

/// The newest traces of a path that are looked at.
const TRACES_MAX: usize = 512;
/// Paths of the lines, where the file has had several.
const PATHS_MAX: usize = 8;
/// Commits that are linked for one answer, and how long that may take.
const COMMITS_MAX: usize = 64;
const LINK_MICROS_MAX: u64 = 1_000_000;
/// What a line must weigh to be a sign of an agent.
const WEIGHT_MIN: u8 = 3;

/// What became of commits that nobody has linked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unlinked {
    /// Those that hold lines of an agent, and were linked for this answer.
    pub(crate) linked: usize,
    /// Those for which there was no time: their lines are not attributed.
    pub(crate) left: usize,
}

/// Links what is not, and tells `known` of it; the ledgers of all commits of the lines have been asked for.
pub(super) fn link(
    store: &Store,
    git: &Git,
    known: &mut Known<'_>,
    lines: &[BlamedLine],
) -> Result<Unlinked> {
    let mut open: BTreeMap<&str, Vec<&BlamedLine>> = BTreeMap::new();
    let mut cited: HashSet<String> = HashSet::new();
    for line in lines.iter().filter(|line| line.commit.is_committed()) {
        match known.ledger(&line.commit.id)? {
            None => open.entry(&line.commit.id).or_default().push(line),
            Some(ledger) if !open.contains_key(line.commit.id.as_str()) => {
                cited.extend(ledger.trace_ids.iter().cloned());
            }
            Some(_) => {}
        }
    }
    let paths: BTreeSet<String> = open.values().flatten().map(|line| spelled(&line.path)).collect();
    if open.is_empty() || paths.len() > PATHS_MAX {
        return Ok(Unlinked::default());
    }
    let traces = traces(store, known, &paths, &cited)?;
    let mut found: Vec<(Timestamp, &str)> = Vec::new();
    for (commit, lines) in &open {
        let committed = committed(&lines[0].commit);
        let until = reaches_on(committed);
        let is_said = |line: &Line| {
            traces.iter().any(|(time, hashes)| {
                *time <= until && (hashes.contains(&line.strict) || hashes.contains(&line.loose))
            })
        };
        let mut telling = lines.iter().map(|line| Line::of(&line.bytes));
        if telling.any(|line| line.weight >= WEIGHT_MIN && is_said(&line)) {
            found.push((committed, commit));
        }
    }
    if found.is_empty() {
        return Ok(Unlinked::default());
    }
    // The newest first, if there are too many; parents before children.
    found.sort_unstable();
    let left = found.len().saturating_sub(COMMITS_MAX);
    let ids: Vec<String> = found[left..].iter().map(|(_, commit)| (*commit).to_owned()).collect();
    let until = store.env().clock.monotonic_micros() + LINK_MICROS_MAX;
    let (ledgers, looked_at) = Linker::open(store, git)?.look(&ids, &paths, until)?;
    ledgers.iter().for_each(|ledger| known.note(ledger));
    Ok(Unlinked { linked: ledgers.len(), left: left + ids.len() - looked_at })
}

/// When traces of these paths were made and the lines that they brought; those that met ledgers cite are left out.
fn traces(
    store: &Store,
    known: &Known<'_>,
    paths: &BTreeSet<String>,
    cited: &HashSet<String>,
) -> Result<Vec<(Timestamp, HashSet<u64>)>> {
    let mut found = Vec::new();
    for path in paths {
        let query = Query {
            kind: Some(Kind::TRACE),
            path: Some(path.clone()),
            limit: Some(TRACES_MAX),
            ..Query::default()
        };
        found.extend(question::list(store, known.snapshot(), &query)?);
    }
    found.retain(|found| !cited.contains(&found.event.fact.key));
    let read = found.par_iter().map(|found| {
        let Ok(trace) = TraceEdits::read(found.record(), &store.read(&found.record())?) else {
            return Ok(None);
        };
        let edits = trace.files.iter().filter(|edit| paths.contains(&edit.path));
        let new = edits.flat_map(|edit| &edit.hunks).flat_map(|hunk| &hunk.new);
        Ok(Some((trace.time, new.flat_map(|line| [line.hash.short(), line.loose]).collect())))
    });
    Ok(read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// When a commit was made.
fn committed(commit: &Blamed) -> Timestamp {
    let said = commit.header.iter().find_map(|line| line.strip_prefix(b"committer-time "));
    let seconds = said.and_then(|text| std::str::from_utf8(text).ok()?.trim().parse::<i64>().ok());
    seconds.map_or(commit.authored, |seconds| Timestamp::from_micros(seconds.saturating_mul(1_000_000)))
}
