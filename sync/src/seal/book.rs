//! The names of a remote's segments in memory, read when they are first asked for and kept when something waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use agent_trace_store::env::Env;
use agent_trace_store::layout::create_dir_durably;
use agent_trace_store::{Error, Result, SegmentId, WriterId};

use super::names::{Names, There};

/// The names, shared by all who send and read.
pub(super) struct Book {
    env: Env,
    path: PathBuf,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    names: Option<Names>,
    is_changed: bool,
    /// Whether the names of the directories are known to last.
    has_dir: bool,
}

impl Pages {
    fn save(&mut self, env: &Env, path: &Path) -> Result<()> {
        let Some(names) = &mut self.names else { return Ok(()) };
        if !self.has_dir {
            let dir = path.parent().expect("it lies in the cache of a remote");
            create_dir_durably(env, dir)
                .map_err(|error| Error::io(format!("cannot create `{}`", dir.display()), error))?;
            self.has_dir = true;
        }
        names.save(env, path)?;
        self.is_changed = false;
        Ok(())
    }
}

impl Book {
    pub(super) fn new(env: &Env, path: &Path) -> Book {
        Book { env: env.clone(), path: path.to_owned(), pages: Mutex::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Names, &mut bool) -> T) -> T {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let Pages { names, is_changed, .. } = &mut *pages;
        work(names.get_or_insert_with(|| Names::load(&self.env, &self.path)), is_changed)
    }

    /// Under which names a segment may stand there.
    pub(super) fn of(&self, id: &SegmentId) -> Vec<There> {
        self.with(|names, _| names.of(id).to_vec())
    }

    /// The writers whose heads have been read.
    pub(super) fn writers(&self) -> BTreeSet<WriterId> {
        self.with(|names, _| names.writers.clone())
    }

    /// Plain ids by names there.
    pub(super) fn by_name(&self) -> BTreeMap<SegmentId, SegmentId> {
        self.with(|names, _| names.by_name())
    }

    /// Learns names that can be learned again.
    pub(super) fn learn(&self, found: impl IntoIterator<Item = (SegmentId, There)>) {
        self.with(|names, is_changed| {
            for (id, there) in found {
                *is_changed |= names.learn(id, there);
            }
        });
    }

    /// Learns whose heads are there.
    pub(super) fn learn_writers(&self, found: impl IntoIterator<Item = WriterId>) {
        self.with(|names, is_changed| {
            for writer in found {
                *is_changed |= names.writers.insert(writer);
            }
        });
    }

    /// Forgets a segment that has been removed.
    pub(super) fn forget(&self, id: &SegmentId) {
        self.with(|names, is_changed| {
            names.forget(id);
            *is_changed = true;
        });
    }

    /// Learns a name that nothing else says yet; durable when this returns.
    pub(super) fn note(&self, id: &SegmentId, there: There) -> Result<()> {
        self.learn([(*id, there)]);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.save(&self.env, &self.path)
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        let pages = self.pages.get_mut().unwrap_or_else(PoisonError::into_inner);
        if pages.is_changed {
            // What was not kept is learned again from the remote.
            let _ = pages.save(&self.env, &self.path);
        }
    }
}
