//! Finds the files to read: those named, and in folders those that look like transcripts, records or a peer's layout.
//!
//! Files and folders are visited in order of name, each once. Passes over `.git`, over links to folders, over stores,
//! and in a peer's home over all but its data, since its settings hold tokens. Reads manifests and conversation
//! indexes; what other files are is decided later, by content.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use agent_trace_store::Store;
use agent_trace_store::env::{DirEntry, Env, Metadata};
use agent_trace_store::limits::OBJECT_BYTES_MAX;

use super::Bad;
use super::manifest::{self, Entry};
use super::peer::{self, Layout};
use super::source::{Role, Source, SourceFile};
use super::tally::BadAt;

/// Folders inside folders.
const DEPTH_MAX: usize = 64;
/// A manifest, or the index of a peer's conversations.
const LIST_BYTES_MAX: u64 = 256 << 20;
/// Endings of files that are taken from a folder.
const ENDINGS: [&str; 5] = ["jsonl", "json", "md", "log", "txt"];

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) sources: Vec<Source>,
    /// What manifests say, in their order.
    pub(super) entries: Vec<Entry>,
    pub(super) layouts: Vec<Layout>,
    pub(super) bad: Vec<BadAt>,
}

/// Finds all files below the given paths.
pub(super) fn find(store: &Store, paths: &[PathBuf]) -> Found {
    let mut walk =
        Walk { env: store.env(), store: store.dir(), found: Found::default(), seen: HashMap::new() };
    for path in paths {
        // Without the working directory there is nothing that a relative path could mean but itself.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        walk.visit_root(&path);
    }
    walk.found
}

pub(super) struct Walk<'a> {
    env: &'a Env,
    store: &'a Path,
    pub(super) found: Found,
    seen: HashMap<PathBuf, usize>,
}

impl Walk<'_> {
    fn visit_root(&mut self, path: &Path) {
        match self.env.fs.metadata(path) {
            Err(error) => self.bad(usize::MAX, path, None, format!("cannot look at it: {error}")),
            Ok(metadata) if metadata.is_dir => self.visit_dir(path, 0),
            Ok(_) if path.file_name() == Some(OsStr::new(manifest::FILE)) && self.visit_manifest(path) => {}
            Ok(_) => {
                let role = if peer::is_records(path) { Role::Records(None) } else { Role::Unknown };
                self.add(path, role);
            }
        }
    }

    fn visit_dir(&mut self, dir: &Path, depth: usize) {
        if depth > DEPTH_MAX {
            return self.bad(usize::MAX, dir, None, format!("folders are nested more than {DEPTH_MAX} deep"));
        }
        let entries = match self.env.fs.list(dir) {
            Ok(entries) => entries,
            Err(error) => return self.bad(usize::MAX, dir, None, format!("cannot list it: {error}")),
        };
        if self.is_store(dir, &entries) {
            return;
        }
        if peer::is_home(dir, &entries) {
            for entry in entries.iter().filter(|entry| peer::is_home_data(entry)) {
                self.visit_dir(&dir.join(&entry.name), depth + 1);
            }
            return;
        }
        let is_layout = peer::is_layout(self, dir, &entries);
        if is_layout {
            peer::find(self, dir, &entries);
        }
        if entries.iter().any(|entry| !entry.is_dir && entry.name == manifest::FILE) {
            self.visit_manifest(&dir.join(manifest::FILE));
        }
        for entry in entries {
            if is_layout && peer::is_own_business(&entry) {
                continue;
            }
            let path = dir.join(&entry.name);
            match entry.is_dir {
                true if entry.name == ".git" || is_link(&path) => {}
                true => self.visit_dir(&path, depth + 1),
                false if has_ending(&path) => drop(self.add(&path, Role::Unknown)),
                false => {}
            }
        }
    }

    /// The own store, or another.
    fn is_store(&self, dir: &Path, entries: &[DirEntry]) -> bool {
        let has =
            |name: &str, is_dir| entries.iter().any(|entry| entry.name == name && entry.is_dir == is_dir);
        dir == self.store || (has("format", false) && has("segments", true))
    }

    /// Takes a manifest and what it names; false if it is none.
    fn visit_manifest(&mut self, path: &Path) -> bool {
        if self.seen.contains_key(path) {
            return true;
        }
        let Some(bytes) = self.read(path) else { return false };
        let Some(lines) = manifest::parse(&bytes) else { return false };
        let Some(number) = self.add(path, Role::Manifest) else { return true };
        let dir = path.parent().unwrap_or(path).to_owned();
        for (line, entry) in lines {
            let listed = entry.and_then(|listed| {
                let path = manifest::resolve(&dir, &listed.file)?;
                Ok((listed, path))
            });
            let (listed, path) = match listed {
                Ok(listed) => listed,
                Err(reason) => {
                    self.bad(number, path, Some(line), reason);
                    continue;
                }
            };
            let Some(source) = self.add(&path, Role::Listed(number)) else {
                // It must be looked for again next time.
                self.bad(
                    number,
                    &dir.join(manifest::FILE),
                    Some(line),
                    format!("cannot take `{}`", listed.file),
                );
                continue;
            };
            self.found.entries.push(Entry { manifest: number, line, source, listed });
        }
        true
    }

    /// Adds a file, once; nothing where it cannot be taken.
    pub(super) fn add(&mut self, path: &Path, role: Role) -> Option<usize> {
        if let Some(number) = self.seen.get(path) {
            return Some(*number);
        }
        let metadata = self.look_at(path, &role)?;
        let number = self.found.sources.len();
        self.found.sources.push(Source { path: path.to_owned(), metadata, role });
        self.seen.insert(path.to_owned(), number);
        Some(number)
    }

    fn look_at(&mut self, path: &Path, role: &Role) -> Option<Metadata> {
        let is_lines = matches!(role, Role::Records(_) | Role::Manifest);
        let reason = match self.env.fs.metadata(path) {
            Ok(metadata) if metadata.is_dir => "expected a file, found a folder".to_owned(),
            Ok(metadata) if metadata.bytes > OBJECT_BYTES_MAX && !is_lines && !may_be_lines(path, role) => {
                format!("expected at most {OBJECT_BYTES_MAX} bytes, found {}", metadata.bytes)
            }
            Ok(metadata) => return Some(metadata),
            Err(error) => format!("cannot look at it: {error}"),
        };
        self.bad(usize::MAX, path, None, reason);
        None
    }

    /// Reads a list whole.
    pub(super) fn read(&mut self, path: &Path) -> Option<Vec<u8>> {
        let read = || -> io::Result<Vec<u8>> {
            let metadata = self.env.fs.metadata(path)?;
            if metadata.bytes > LIST_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let source = Source { path: path.to_owned(), metadata, role: Role::Manifest };
            let mut bytes = vec![0; usize::try_from(metadata.bytes).unwrap_or(0)];
            let read = SourceFile::open(self.env, &source)?.read_up_to(&mut bytes, 0)?;
            bytes.truncate(read);
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.bad(usize::MAX, path, None, format!("cannot read it: {error}"));
                None
            }
        }
    }

    pub(super) fn env(&self) -> &Env {
        self.env
    }

    pub(super) fn bad(&mut self, source: usize, file: &Path, line: Option<u64>, reason: String) {
        self.found.bad.push(BadAt { source, bad: Bad { file: file.to_owned(), line, reason, kept: false } });
    }
}

/// A file of records may be longer than one object.
fn may_be_lines(path: &Path, role: &Role) -> bool {
    *role == Role::Unknown && path.extension().is_some_and(|ending| ending == "jsonl" || ending == "json")
}

fn has_ending(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|ending| ENDINGS.contains(&ending))
}

/// Whether a folder is a link, by which a walk could run in circles.
fn is_link(path: &Path) -> bool {
    // `Fs` follows links and does not tell them; a simulated disk has none.
    path.is_symlink()
}
