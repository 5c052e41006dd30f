//! Commits that git hooks told of: linked to the traces that came before them, then their entries go.
//!
//! After all that waited before has been absorbed, so that the traces are there. A commit that git has no longer was
//! rewritten meanwhile, and whoever rewrote it has told of it too. Linking again writes nothing, so a stop anywhere is
//! harmless.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use agent_trace_store::Result;
use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;

use super::absorb::{GIT, Place};
use super::entry::Entry;
use super::limits::ENTRY_BYTES_MAX;
use super::spool::Spool;
use crate::git::process::Git;
use crate::link::{Linker, rewrites};
use crate::notes::attach::{NoteSettings, Present, attach};

/// What hooks of one repository told of.
#[derive(Default)]
struct Told {
    entries: Vec<PathBuf>,
    commits: Vec<String>,
    rewritten: Vec<(String, String)>,
}

/// Links what waits, at most so many entries; how many are left.
pub(crate) fn run(place: &Place<'_>, entries_max: usize) -> Result<usize> {
    let env = place.store.env();
    let mut names = waiting(env, place.spool);
    let left = names.len().saturating_sub(entries_max);
    names.truncate(entries_max);
    let mut by_repository: BTreeMap<PathBuf, Told> = BTreeMap::new();
    for path in names {
        let entry = read_small(env, &path, ENTRY_BYTES_MAX).ok().and_then(|bytes| Entry::decode(&bytes).ok());
        let Some(entry) = entry else {
            place.spool.note(env, &format!("cannot read what git told of in `{}`", path.display()));
            discard(place, &path);
            continue;
        };
        by_repository.entry(entry.facts.git_dir.clone()).or_default().add(path, &entry);
    }
    for (git_dir, told) in by_repository {
        if env.fs.metadata(&git_dir).is_err() {
            place.spool.note(env, &format!("the repository at `{}` is gone", git_dir.display()));
        } else if let Err(error) = told.link(place, &git_dir) {
            // It may be that git is missing for a while; the entries stay, and the answer goes on without them.
            place.spool.note(env, &format!("cannot link commits: {error}"));
            continue;
        }
        told.entries.iter().for_each(|path| discard(place, path));
    }
    Ok(left)
}

/// The entries that wait, in order of arrival, by which their names begin.
pub(crate) fn waiting(env: &Env, spool: &Spool) -> Vec<PathBuf> {
    let dir = spool.path(GIT);
    let entries = env.fs.list(&dir).unwrap_or_default();
    let mut names: Vec<PathBuf> =
        entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| dir.join(entry.name)).collect();
    names.sort();
    names
}

impl Told {
    fn add(&mut self, path: PathBuf, entry: &Entry) {
        self.entries.push(path);
        if entry.facts.name == "post-rewrite" {
            let text = String::from_utf8_lossy(&entry.payload);
            let is_id = |word: &&str| {
                matches!(word.len(), 40 | 64) && word.bytes().all(|digit| digit.is_ascii_hexdigit())
            };
            self.rewritten.extend(text.lines().filter_map(|line| {
                let mut words = line.split_whitespace().filter(is_id);
                Some((words.next()?.to_owned(), words.next()?.to_owned()))
            }));
        } else if let Some(commit) = &entry.facts.revision {
            self.commits.push(commit.clone());
        }
    }

    fn link(&self, place: &Place<'_>, git_dir: &Path) -> Result<()> {
        let mut linker = Linker::open(place.store, &Git::of(git_dir))?;
        let new = rewrites(&mut linker, &self.rewritten);
        let mut seen = HashSet::new();
        let mut ids: Vec<String> = self.commits.iter().chain(&new).cloned().collect();
        ids.retain(|id| seen.insert(id.clone()));
        let mut linked = Vec::new();
        linker.link(&ids, &mut |one| linked.push(one.clone()))?;
        let settings = NoteSettings::read(place.store.env(), place.data);
        if settings.enabled && linked.iter().any(|one| one.lines > 0) {
            place.store.catch_up()?;
            let git = Git::of(git_dir);
            if let Err(error) = attach(place.store, &git, &linked, settings.include, Present::Join) {
                // The ledger is there; `notes backfill` makes what is missing.
                place.spool.note(place.store.env(), &format!("cannot put a note on a commit: {error}"));
            }
        }
        Ok(())
    }
}

fn discard(place: &Place<'_>, path: &Path) {
    // One that stays is linked again, which writes nothing.
    let _ = place.store.env().fs.remove(path);
}
