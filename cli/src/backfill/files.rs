//! What files held while a session went on, for agents that do not say: as committed then, and as edited since.
//!
//! A guess that does not fit an edit does no harm: where an edit's own text is not found in it, the edit is known by
//! itself alone.

use std::collections::HashMap;
use std::sync::Mutex;

use agent_trace_store::{Result, Timestamp};

use crate::edit::{self, Change, ToolEdit};
use crate::git::commits;
use crate::git::objects::{Object, Objects};
use crate::git::process::Git;

/// Bytes of files that are remembered of one session; then all are forgotten.
const REMEMBERED_BYTES_MAX: usize = 32 << 20;

/// Commits by time, and their files.
pub(super) struct History {
    /// First parents, newest first, by the name that was asked for.
    lines: Mutex<HashMap<String, Vec<(i64, String)>>>,
    git: Git,
    objects: Mutex<Objects>,
}

impl History {
    /// Of a repository.
    pub(super) fn of(git: &Git) -> Result<History> {
        Ok(History { lines: Mutex::default(), git: git.clone(), objects: Mutex::new(Objects::open(git)?) })
    }

    /// The commit at the tip of a branch at a time; where the branch is gone, that of what is checked out now.
    fn commit(&self, branch: Option<&str>, time: Timestamp) -> Option<String> {
        let named = [branch.filter(|branch| !branch.starts_with('-')), Some("HEAD")];
        let mut lines = self.lines.lock().ok()?;
        for name in named.into_iter().flatten() {
            let line = lines.entry(name.to_owned()).or_insert_with(|| self.line(name));
            let seconds = time.micros().div_euclid(1_000_000);
            // Times of commits go back now and then; the newest that is old enough answers.
            if let Some((_, commit)) = line.iter().find(|(at, _)| *at <= seconds) {
                return Some(commit.clone());
            }
        }
        None
    }

    fn line(&self, name: &str) -> Vec<(i64, String)> {
        let Ok(commit) = commits::resolve(&self.git, name) else { return Vec::new() };
        let printed =
            self.git.ask(&["log", "--first-parent", "--format=%ct %H", &commit]).unwrap_or_default();
        let text = String::from_utf8_lossy(&printed);
        let split = text.lines().filter_map(|line| line.split_once(' '));
        split.filter_map(|(time, commit)| Some((time.parse().ok()?, commit.to_owned()))).collect()
    }

    fn content(&self, commit: &str, path: &str) -> Option<Vec<u8>> {
        match self.objects.lock().ok()?.read(&format!("{commit}:{path}")).ok()? {
            Object::Bytes(bytes) => Some(bytes),
            Object::Missing | Object::TooLarge => None,
        }
    }
}

/// The files of one session.
#[derive(Default)]
pub(super) struct Files {
    known: HashMap<String, Vec<u8>>,
    bytes: usize,
}

impl Files {
    /// Completes an edit by what its file held, where the agent does not say.
    pub(super) fn complete(
        &mut self,
        history: Option<&History>,
        edit: &mut ToolEdit,
        path: &str,
        at: (Option<&str>, Option<&str>, Timestamp),
    ) {
        // What is written whole is compared with what the commit's parent holds, which is no guess.
        if edit.before.is_some() || matches!(edit.change, Change::Cell { .. } | Change::Write(_)) {
            return;
        }
        let guess = self.known.get(path).cloned().or_else(|| {
            let history = history?;
            let (revision, branch, time) = at;
            let by_revision = revision.and_then(|revision| history.content(revision, path));
            by_revision.or_else(|| history.content(&history.commit(branch, time)?, path))
        });
        let Some(guess) = guess else { return };
        if edit::apply(&guess, &edit.change).is_some() {
            edit.before = Some(guess);
        } else {
            // It has changed by other hands.
            self.forget(path);
        }
    }

    /// Notes what an edit made of its file.
    pub(super) fn edited(&mut self, edit: &ToolEdit, path: &str) {
        let after = match (&edit.after, &edit.before, &edit.change) {
            (Some(after), ..) => Some(after.clone()),
            (None, _, Change::Write(content)) => Some(content.clone()),
            (None, Some(before), change) => edit::apply(before, change),
            (None, None, _) => None,
        };
        self.forget(path);
        let Some(after) = after else { return };
        if self.bytes + after.len() > REMEMBERED_BYTES_MAX {
            (self.known, self.bytes) = Default::default();
        }
        self.bytes += after.len();
        self.known.insert(path.to_owned(), after);
    }

    fn forget(&mut self, path: &str) {
        if let Some(gone) = self.known.remove(path) {
            self.bytes -= gone.len();
        }
    }
}
