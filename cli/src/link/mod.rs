//! Commits and traces: which lines of a commit are an agent's, written down as its ledger and commit-link.
//!
//! ```text
//! commit ─► files that it changes ─► traces and ledgers of these files ─► attribution ─► ledger, commit-link ─► store
//! ```
//!
//! The same commit with the same traces gives the same ledger; one that says nothing new is not written. A commit that
//! was rewritten, picked or squashed is no special case: what was written is found by its content. Changes nothing in
//! the repository.

pub(crate) mod known;
pub(crate) mod ledger;
mod looked;
mod older;
mod work_tree;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use agent_trace_store::intake::Intake;
use agent_trace_store::{Kind, Result, Store, Timestamp, record};

use crate::attribution::{self, By, FileChange, How, PriorLine};
use crate::edit::hunk::Lines;
use crate::edit::line::{self, Line};
use crate::edit::trace::{FileEdit, TraceEdits};
use crate::git::blame::blame;
use crate::git::commits::{self, Changed, Commit, spelled};
use crate::git::objects::{Object, Objects};
use crate::git::process::Git;

use known::Known;
use ledger::{Attribution, Derived, Evidence, Ledger, LedgerFile};

/// Traces of a file that are replayed; of more, the newest.
const REPLAYED_MAX: usize = 1024;
/// A trace may be a little younger than its commit: a commit has whole seconds, and a hook tells of an edit after it.
/// What an agent did later must not count for what was committed before: it may well repeat lines of it.
const CLOCK_MICROS: i64 = 5_000_000;

/// Who a line is attributed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Source {
    trace: String,
    model: Option<String>,
    conversation: Option<String>,
}

impl Source {
    /// Who a ledger's run says.
    fn of(run: &Attribution) -> Option<Source> {
        let (model, conversation) = (run.model_id.clone(), run.conversation_id.clone());
        Some(Source { trace: run.trace_id.clone()?, model, conversation })
    }
}

/// What linking a commit came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Linked {
    /// The commit.
    pub(crate) commit: String,
    /// The traces that it holds.
    pub(crate) traces: usize,
    /// Lines that are an agent's.
    pub(crate) lines: u64,
    /// Lines that it adds.
    pub(crate) added: u64,
    /// Whether something was written.
    pub(crate) is_new: bool,
    /// Whether git no longer has it.
    pub(crate) is_missing: bool,
}

/// Links commits of one repository.
pub(crate) struct Linker<'a> {
    store: &'a Store,
    git: Git,
    objects: Objects,
    known: Known<'a>,
    intake: Intake<'a>,
    /// Commits that were rewritten, by what they became.
    rewritten: HashMap<String, Vec<String>>,
    is_dry: bool,
}

impl<'a> Linker<'a> {
    /// Prepares.
    pub(crate) fn open(store: &'a Store, git: &Git) -> Result<Linker<'a>> {
        Ok(Linker {
            store,
            git: git.clone(),
            objects: Objects::open(git)?,
            known: Known::of(store)?,
            intake: Intake::new(store),
            rewritten: HashMap::new(),
            is_dry: false,
        })
    }

    /// Whether nothing is written.
    pub(crate) fn dry_run(&mut self, is_dry: bool) {
        self.is_dry = is_dry;
    }

    /// Notes that a commit took the place of another.
    pub(crate) fn rewrite(&mut self, old: &str, new: &str) {
        self.rewritten.entry(new.to_owned()).or_default().push(old.to_owned());
    }

    /// Links commits; parents come before their children. `each` is told of every one.
    pub(crate) fn link(&mut self, ids: &[String], each: &mut dyn FnMut(&Linked)) -> Result<()> {
        for some in ids.chunks(256) {
            let mut present = Vec::with_capacity(some.len());
            for id in some {
                match Commit::read(&mut self.objects, id)? {
                    Some(commit) => present.push(commit),
                    None => each(&Linked { commit: id.clone(), is_missing: true, ..Linked::default() }),
                }
            }
            let ids: Vec<String> = present.iter().map(|commit| commit.id.clone()).collect();
            let changes = commits::changes(&self.git, &ids)?;
            for commit in present {
                let changed = changes.get(&commit.id).map(Vec::as_slice).unwrap_or_default();
                let linked = self.link_one(commit, changed)?;
                each(&linked);
            }
            self.intake.append_if_large()?;
        }
        self.intake.append()
    }

    fn link_one(&mut self, commit: Commit, changed: &[Changed]) -> Result<Linked> {
        let mut sources: Vec<Source> = Vec::new();
        let files = self.files(&commit, changed)?;
        let (added, authors) = self.authors(&commit, &files, &mut sources)?;
        let parent = match commit.parents.first() {
            Some(parent) => Commit::read(&mut self.objects, parent)?,
            None => None,
        };
        let mut ledger = Ledger {
            version: "2.0".into(),
            commit_sha: commit.id.clone(),
            parent_sha: commit.parents.first().cloned(),
            parent_committed_at: parent.map(|parent| ledger::spelled(parent.authored)),
            committed_at: ledger::spelled(commit.authored),
            created_at: ledger::spelled(self.store.env().clock.now()),
            files: entries(&files, &authors, &sources),
            derived_from: self.derived(&commit),
            ..Ledger::default()
        };
        let runs = ledger.files.values().flat_map(|file| &file.line_attributions);
        let traces: BTreeSet<String> = runs.filter_map(|run| run.trace_id.clone()).collect();
        ledger.trace_ids = traces.into_iter().collect();
        let (traces, lines) = (ledger.trace_ids.len(), ledger.lines());
        let is_new = self.write(&commit, ledger, changed)?;
        Ok(Linked { commit: commit.id, traces, lines, added, is_new, is_missing: false })
    }

    /// The files that a commit changes and that are text.
    fn files(&mut self, commit: &Commit, changed: &[Changed]) -> Result<Vec<File>> {
        let mut files = Vec::with_capacity(changed.len());
        for change in changed {
            let after = match &change.blob {
                Some(id) => match self.objects.read(id)? {
                    Object::Bytes(bytes) if !line::is_binary(&bytes) => bytes,
                    _ => continue,
                },
                None => Vec::new(),
            };
            let mut parents = Vec::with_capacity(change.before.len());
            let mut paths = BTreeSet::from([spelled(&change.path)]);
            for before in &change.before {
                parents.push(match before {
                    Some((path, id)) => {
                        paths.insert(spelled(path));
                        self.lines(id)?
                    }
                    None => Vec::new(),
                });
            }
            let until = reaches_on(commit.committed);
            let mut traces = self.known.traces_of(&paths, until)?;
            if traces.is_empty() && change.blob.is_some() {
                paths.extend(self.former_paths(commit, &spelled(&change.path))?);
                traces = self.known.traces_of(&paths, until)?;
            }
            let before = change.before.first().cloned().flatten().map(|(path, _)| path);
            files.push(File::of(spelled(&change.path), before, paths, after, parents, traces));
        }
        Ok(files)
    }

    /// The lines of an object that is text; of any other none.
    fn lines(&mut self, name: &str) -> Result<Vec<Line>> {
        Ok(match self.objects.read(name)? {
            Object::Bytes(bytes) if !line::is_binary(&bytes) => line::lines(&bytes),
            _ => Vec::new(),
        })
    }

    /// Paths under which traces may know a file that was given a new folder, or lost one, throughout the history: those
    /// that end like its own. A path that is still there is another file.
    fn former_paths(&mut self, commit: &Commit, path: &str) -> Result<Vec<String>> {
        let mut former: Vec<String> =
            path.match_indices('/').map(|(at, _)| path[at + 1..].to_owned()).collect();
        former.extend(self.known.longer_paths(path)?);
        let mut gone = Vec::new();
        for path in former {
            let is_known = !self.known.traces(&path, commit.committed)?.is_empty();
            if is_known && matches!(self.objects.read(&format!("{}:{path}", commit.id))?, Object::Missing) {
                gone.push(path);
            }
        }
        // Of several nobody knows which.
        Ok(if gone.len() == 1 { gone } else { Vec::new() })
    }

    /// The authors of the lines that a commit adds, and how many lines those are.
    fn authors(
        &mut self,
        commit: &Commit,
        files: &[File],
        sources: &mut Vec<Source>,
    ) -> Result<(u64, Vec<Vec<Option<By>>>)> {
        let mut numbers: HashMap<(String, String), usize> = HashMap::new();
        // A block may move from one file of the commit to another, so what counts is what all of them add.
        let telling: HashSet<u64> = files.iter().flat_map(File::telling).collect();
        let mut edits: Vec<Vec<(usize, FileEdit)>> = Vec::with_capacity(files.len());
        for file in files {
            let mut own = Vec::new();
            for (path, trace) in file.replayed(&telling) {
                for edit in trace.files.iter().filter(|edit| &edit.path == path) {
                    let number = *numbers.entry((trace.id.clone(), path.clone())).or_insert_with(|| {
                        sources.push(Source {
                            trace: trace.id.clone(),
                            model: edit.model.clone(),
                            conversation: edit.conversation.clone(),
                        });
                        sources.len() - 1
                    });
                    own.push((number, edit.clone()));
                }
            }
            edits.push(own);
        }
        let changes: Vec<FileChange<'_>> = files
            .iter()
            .zip(&edits)
            .map(|(file, edits)| FileChange {
                after: &file.lines,
                parents: &file.parents,
                added: &file.added,
                edits: edits.iter().map(|(number, edit)| (*number, edit)).collect(),
            })
            .collect();
        let mut failure = None;
        let mut authors = attribution::attribute(&changes, &mut |lines| {
            self.priors(commit, files, lines, sources).unwrap_or_else(|error| {
                failure.get_or_insert(error);
                vec![None; lines.len()]
            })
        });
        if let Some(error) = failure {
            return Err(error);
        }
        for (number, file) in files.iter().enumerate() {
            let open = (0..file.lines.len()).filter(|at| file.added[*at] && authors[number][*at].is_none());
            let open: HashSet<usize> = open.collect();
            if !open.is_empty() {
                self.by_older(commit, file, &open, sources, &mut authors[number])?;
            }
        }
        let count = files.iter().flat_map(|file| &file.added).filter(|added| **added).count() as u64;
        Ok((count, authors))
    }

    /// The authors of lines of the first parent, by blame and the ledgers of what it names.
    fn priors(
        &mut self,
        commit: &Commit,
        files: &[File],
        lines: &[PriorLine],
        sources: &mut Vec<Source>,
    ) -> Result<Vec<Option<usize>>> {
        let Some(parent) = commit.parents.first() else { return Ok(vec![None; lines.len()]) };
        // Where there is no ledger, nobody need be asked.
        if !self.known.has_ledgers()? {
            return Ok(vec![None; lines.len()]);
        }
        let mut wanted: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (file, line) in lines {
            wanted.entry(*file).or_default().insert(*line);
        }
        let mut found: HashMap<PriorLine, usize> = HashMap::new();
        for (number, wanted) in wanted {
            let Some(path) = &files[number].before else { continue };
            for blamed in blame(&self.git, Some(parent), path, &ranges(&wanted))? {
                let Some(ledger) = self.known.ledger(&blamed.commit.id)? else { continue };
                let Some(run) = ledger.at(&spelled(&blamed.path), blamed.line_original as u64) else {
                    continue;
                };
                let Some(source) = Source::of(run) else { continue };
                found.insert((number, blamed.line - 1), number_of(sources, source));
            }
        }
        Ok(lines.iter().map(|line| found.get(line).copied()).collect())
    }

    /// What a commit was made from, as far as it says so or git has said so.
    fn derived(&self, commit: &Commit) -> Option<Derived> {
        let named = |kind: &str, before: &str, after: char| {
            let (_, rest) = commit.message.split_once(before)?;
            let id = rest.split(after).next()?.trim();
            let is_id = id.len() >= 7 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_id.then(|| Derived { kind: kind.into(), source_sha: Some(id.to_owned()), parents: None })
        };
        if let Some(old) = self.rewritten.get(&commit.id).and_then(|old| old.last()) {
            return Some(Derived { kind: "rewrite".into(), source_sha: Some(old.clone()), parents: None });
        }
        if commit.parents.len() > 1 {
            return Some(Derived {
                kind: "merge".into(),
                source_sha: None,
                parents: Some(commit.parents.clone()),
            });
        }
        named("cherry-pick", "(cherry picked from commit ", ')')
            .or_else(|| named("revert", "This reverts commit ", '.'))
    }

    /// Writes down what has been found, where that is new.
    fn write(&mut self, commit: &Commit, ledger: Ledger, changed: &[Changed]) -> Result<bool> {
        let known = self.known.ledger(&commit.id)?;
        let is_known = match &known {
            Some(known) => known.says_the_same(&ledger),
            // A commit without a line of an agent has no ledger.
            None => ledger.files.is_empty(),
        };
        if is_known {
            return Ok(false);
        }
        if self.is_dry {
            self.known.note(&Rc::new(ledger));
            return Ok(true);
        }
        let link = ledger.link(changed.iter().map(|change| spelled(&change.path)).collect());
        for (kind, canonical) in [(Kind::LEDGER, ledger.encode()?), (Kind::COMMIT_LINK, link.encode()?)] {
            let facts = record::facts(kind, &canonical)?;
            let time = facts.time.unwrap_or(commit.authored);
            self.intake.record(kind, &canonical, &facts, time, &[])?;
        }
        self.known.note(&Rc::new(ledger));
        Ok(true)
    }
}

/// Notes rewritten commits, and says which are to be linked: the new ones, in the order of the pairs, which is git's.
pub(crate) fn rewrites(linker: &mut Linker<'_>, pairs: &[(String, String)]) -> Vec<String> {
    let mut seen = HashSet::new();
    for (old, new) in pairs {
        linker.rewrite(old, new);
    }
    pairs.iter().map(|(_, new)| new.clone()).filter(|new| seen.insert(new.clone())).collect()
}

/// A text file that a commit changes.
struct File {
    path: String,
    /// Its path in the first parent.
    before: Option<std::ffi::OsString>,
    /// All paths that it has had in the commit and its parents.
    paths: BTreeSet<String>,
    after: Vec<u8>,
    lines: Vec<Line>,
    parents: Vec<Vec<Line>>,
    /// Which of its lines no parent has.
    added: Vec<bool>,
    traces: Vec<(String, Rc<TraceEdits>)>,
}

impl File {
    fn of(
        path: String,
        before: Option<std::ffi::OsString>,
        paths: BTreeSet<String>,
        after: Vec<u8>,
        parents: Vec<Vec<Line>>,
        traces: Vec<(String, Rc<TraceEdits>)>,
    ) -> File {
        let lines = line::lines(&after);
        let added = attribution::added(&lines, &parents);
        File { path, before, paths, after, lines, parents, added, traces }
    }

    /// The traces worth replaying, oldest first: those that bring lines which the commit adds, and those whose lines
    /// they change.
    fn replayed(&self, added: &HashSet<u64>) -> Vec<&(String, Rc<TraceEdits>)> {
        let mut wanted = added.clone();
        let mut replayed = Vec::new();
        for trace in self.traces.iter().rev() {
            let hunks = || {
                let edits = trace.1.files.iter().filter(|edit| edit.path == trace.0);
                edits.flat_map(|edit| &edit.hunks)
            };
            let mut new = hunks().flat_map(|hunk| &hunk.new);
            if new.any(|line| wanted.contains(&line.hash.short()) || wanted.contains(&line.loose)) {
                wanted.extend(hunks().flat_map(|hunk| &hunk.old));
                replayed.push(trace);
                if replayed.len() == REPLAYED_MAX {
                    break;
                }
            }
        }
        replayed.reverse();
        replayed
    }

    /// Hashes of the telling lines that are in no parent.
    fn telling(&self) -> impl Iterator<Item = u64> {
        let telling = self.lines.iter().zip(&self.added).filter(|(line, added)| **added && line.weight > 2);
        telling.flat_map(|(line, _)| [line.strict, line.loose])
    }
}

/// Lines from 0 as ranges from 1, close ones together.
fn ranges(lines: &BTreeSet<usize>) -> Vec<std::ops::Range<usize>> {
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for line in lines {
        match ranges.last_mut() {
            Some(last) if *line < last.end + 8 => last.end = line + 2,
            _ => ranges.push(line + 1..line + 2),
        }
    }
    ranges
}

fn number_of(sources: &mut Vec<Source>, source: Source) -> usize {
    match sources.iter().position(|known| *known == source) {
        Some(number) => number,
        None => {
            sources.push(source);
            sources.len() - 1
        }
    }
}

/// Authors as a ledger's files: runs of lines of one trace, known in one way.
fn entries(files: &[File], authors: &[Vec<Option<By>>], sources: &[Source]) -> BTreeMap<String, LedgerFile> {
    let mut entries = BTreeMap::new();
    for (file, authors) in files.iter().zip(authors) {
        let bytes = Lines::of(&file.after);
        let mut runs: Vec<Attribution> = Vec::new();
        let mut last: Option<(By, usize)> = None;
        for (at, by) in authors.iter().enumerate() {
            let Some(by) = by else { continue };
            let evidence = Evidence { line: at as u64 + 1, hash: bytes.hash(at).text() };
            match runs.last_mut() {
                Some(run) if last == Some((*by, at.wrapping_sub(1))) => {
                    run.end_line = at as u64 + 1;
                    run.evidence.push(evidence);
                }
                _ => {
                    let source = &sources[by.source];
                    runs.push(Attribution {
                        start_line: at as u64 + 1,
                        end_line: at as u64 + 1,
                        kind: "ai".into(),
                        trace_id: Some(source.trace.clone()),
                        model_id: source.model.clone(),
                        conversation_id: source.conversation.clone(),
                        how: Some(by.how.name().into()),
                        evidence: vec![evidence],
                    });
                }
            }
            last = Some((*by, at));
        }
        if !runs.is_empty() {
            entries.insert(file.path.clone(), LedgerFile { line_attributions: runs });
        }
    }
    entries
}

#[cfg(test)]
mod tests;

/// The time from which on traces may belong to commits after it; for callers that look at a window of time.
pub(crate) fn reaches_back(since: Timestamp) -> Timestamp {
    since.plus_micros(-CLOCK_MICROS)
}

/// The time until which traces may belong to a commit of this time.
pub(crate) fn reaches_on(committed: Timestamp) -> Timestamp {
    committed.plus_micros(CLOCK_MICROS)
}

impl How {
    /// The evidence that a ledger names.
    fn parse(name: Option<&str>) -> How {
        match name {
            Some("reindented") => How::Reindented,
            Some("moved") => How::Moved,
            Some("found") => How::Found,
            _ => How::Exact,
        }
    }
}
