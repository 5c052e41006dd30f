//! The repository as sessions speak of it: where its work trees lie or lay, and what a path is called in it.
//!
//! A work tree that was removed and a checkout of somebody else are told by the files that a session names: the folder
//! from which most of them are files of this repository.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::capture::repository::normalised;
use crate::git::process::Git;

/// The repository.
pub(super) struct Tree<'a> {
    git: Option<&'a Git>,
    /// Its work trees, the innermost first where one lies in another.
    roots: Vec<PathBuf>,
    names: OnceLock<HashSet<PathBuf>>,
}

impl<'a> Tree<'a> {
    /// Asks git for the work trees.
    pub(super) fn of(git: Option<&'a Git>) -> Tree<'a> {
        let listed = git.and_then(|git| git.ask(&["worktree", "list", "--porcelain", "-z"]).ok());
        let listed = listed.unwrap_or_default();
        let lines = listed.split(|byte| *byte == 0).filter_map(|line| line.strip_prefix(b"worktree "));
        let mut roots: Vec<PathBuf> = lines.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
        // The place may be known by another name too, where a part of it is a link.
        let given: Vec<PathBuf> = roots.iter().filter_map(|root| root.canonicalize().ok()).collect();
        roots.extend(given);
        roots.sort_by_key(|root| std::cmp::Reverse(root.as_os_str().len()));
        roots.dedup();
        Tree { git, roots, names: OnceLock::new() }
    }

    /// The work trees that there are.
    pub(super) fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// The work tree around a folder, whether it is still there or not; `paths` are files that the session names.
    pub(super) fn around(&self, folder: &Path, paths: &[PathBuf]) -> Option<PathBuf> {
        let folder = normalised(folder);
        let inside = |folder: &Path| self.roots.iter().find(|root| folder.starts_with(root)).cloned();
        let (folder, root) = match inside(&folder) {
            Some(root) => (folder, root),
            None => {
                let real = folder.canonicalize().ok()?;
                let root = inside(&real)?;
                (real, root)
            }
        };
        if folder == root {
            return Some(root);
        }
        // A work tree within it that is no more.
        let between = folder.ancestors().take_while(|folder| **folder != *root);
        let best = self.best(between, paths);
        Some(best.filter(|(_, score)| *score > self.score(&root, paths)).map_or(root, |(folder, _)| folder))
    }

    /// The folder from which most of these files have names of this repository, and how many have.
    pub(super) fn best<'p>(
        &self,
        folders: impl Iterator<Item = &'p Path>,
        paths: &[PathBuf],
    ) -> Option<(PathBuf, usize)> {
        let scored = folders.map(|folder| (folder.to_owned(), self.score(folder, paths)));
        scored.filter(|(_, score)| *score > 0).max_by_key(|(_, score)| *score)
    }

    fn score(&self, folder: &Path, paths: &[PathBuf]) -> usize {
        let names = self.names();
        paths.iter().filter(|path| path.strip_prefix(folder).is_ok_and(|name| names.contains(name))).count()
    }

    /// The files of the newest commit.
    fn names(&self) -> &HashSet<PathBuf> {
        self.names.get_or_init(|| {
            let listed = self
                .git
                .and_then(|git| git.ask(&["ls-tree", "-r", "-z", "--name-only", "--full-tree", "HEAD"]).ok());
            let listed = listed.unwrap_or_default();
            let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
            names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect()
        })
    }

    /// What a file is called in the repository; nothing for one outside. `folder` is where the agent worked.
    pub(super) fn name(&self, root: &Path, folder: &Path, path: &Path) -> Option<String> {
        let path = normalised(&folder.join(path));
        let in_root = path.strip_prefix(root).ok();
        let name = in_root.or_else(|| self.roots.iter().find_map(|root| path.strip_prefix(root).ok()))?;
        let is_file = !name.as_os_str().is_empty() && !name.starts_with(".git");
        is_file.then(|| name.to_string_lossy().into_owned())
    }
}
