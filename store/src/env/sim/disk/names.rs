//! Names on a simulated disk: creation, renames, removal, listing and their durability.
//!
//! Changes of one name keep their order; changes of different names may reach the disk in any. A rename is
//! durable after `sync_dir` of either of its directories, as on a file system with a journal.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::{Body, Disk, HeldLock, Name, NameChange, Operation, ROOT};
use crate::env::sim::content::Content;
use crate::env::sim::random::digest;
use crate::env::{DirEntry, LockMode, Metadata};

const DIRECTORY_BYTES: u64 = 4_096;
const DEVICE: u64 = 0x51d;

impl Disk {
    pub(in super::super) fn create(&mut self, process: u64, path: &Path, private: bool) -> io::Result<u64> {
        self.run(process, Operation::Create, [path_digest(path), u64::from(private), 0], |disk, _| {
            let name = disk.parent(path)?;
            if disk.entry(&name).is_some() {
                return Err(Errno::EXIST.into());
            }
            let inode = disk.add_inode(Body::File(Content::default()), private);
            disk.change_names(None, Some(name), inode);
            Ok(disk.add_handle(process, inode, true))
        })
    }

    pub(in super::super) fn create_dir_all(&mut self, process: u64, path: &Path) -> io::Result<()> {
        self.check_alive(process)?;
        let parts = parts(path);
        let mut directory = ROOT;
        for (position, part) in parts.iter().enumerate() {
            let name = (directory, part.to_os_string());
            directory = match self.entry(&name) {
                Some(inode) if self.is_dir(inode) => inode,
                Some(_) if position + 1 == parts.len() => return Err(Errno::EXIST.into()),
                Some(_) => return Err(Errno::NOTDIR.into()),
                None => {
                    self.run(process, Operation::Create, [directory, digest_name(part), 2], |disk, _| {
                        let inode = disk.add_inode(new_directory(), true);
                        disk.change_names(None, Some(name), inode);
                        Ok(inode)
                    })?
                }
            };
        }
        Ok(())
    }

    pub(in super::super) fn rename(&mut self, process: u64, from: &Path, to: &Path) -> io::Result<()> {
        let details = [path_digest(from), path_digest(to), 0];
        self.run(process, Operation::Rename, details, |disk, _| {
            let (from_name, to_name) = (disk.parent(from)?, disk.parent(to)?);
            let inode = disk.entry(&from_name).ok_or(Errno::NOENT)?;
            if from_name == to_name {
                return Ok(());
            }
            if disk.is_dir(inode) && parts(to).starts_with(&parts(from)) {
                return Err(Errno::INVAL.into());
            }
            if let Some(replaced) = disk.entry(&to_name) {
                match (disk.is_dir(inode), disk.directory(replaced)) {
                    (false, Err(_)) => {}
                    (true, Ok(names)) if names.is_empty() => {}
                    (true, Ok(_)) => return Err(Errno::NOTEMPTY.into()),
                    (true, Err(_)) => return Err(Errno::NOTDIR.into()),
                    (false, Ok(_)) => return Err(Errno::ISDIR.into()),
                }
            }
            disk.change_names(Some(from_name), Some(to_name), inode);
            Ok(())
        })
    }

    pub(in super::super) fn remove(&mut self, process: u64, path: &Path) -> io::Result<()> {
        self.run(process, Operation::Remove, [path_digest(path), 0, 0], |disk, _| {
            let name = disk.parent(path)?;
            let inode = disk.entry(&name).ok_or(Errno::NOENT)?;
            if disk.is_dir(inode) {
                return Err(Errno::ISDIR.into());
            }
            disk.change_names(Some(name), None, inode);
            Ok(())
        })
    }

    pub(in super::super) fn remove_dir_all(&mut self, process: u64, path: &Path) -> io::Result<()> {
        self.run(process, Operation::RemoveTree, [path_digest(path), 0, 0], |disk, _| {
            let name = disk.parent(path)?;
            let inode = disk.entry(&name).ok_or(Errno::NOENT)?;
            disk.directory(inode)?;
            disk.remove_tree(name, inode);
            Ok(())
        })
    }

    pub(super) fn remove_tree(&mut self, name: Name, inode: u64) {
        let names: Vec<(OsString, u64)> =
            self.directory(inode).into_iter().flatten().map(|(part, below)| (part.clone(), *below)).collect();
        for (part, below) in names {
            self.remove_tree((inode, part), below);
        }
        self.change_names(Some(name), None, inode);
    }

    pub(in super::super) fn sync_dir(&mut self, process: u64, path: &Path) -> io::Result<()> {
        self.run(process, Operation::SyncDirectory, [path_digest(path), 0, 0], |disk, _| {
            let directory = disk.find(path)?;
            disk.directory(directory)?;
            if !disk.lies.drop_dir_sync {
                disk.make_names_durable(directory);
            }
            Ok(())
        })
    }

    pub(in super::super) fn list(&mut self, process: u64, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.run(process, Operation::List, [path_digest(path), 0, 0], |disk, _| {
            let names = disk.directory(disk.find(path)?)?;
            let entry = |(name, inode): (&OsString, &u64)| DirEntry {
                name: name.clone(),
                is_dir: disk.is_dir(*inode),
            };
            Ok(names.iter().map(entry).collect())
        })
    }

    pub(in super::super) fn metadata(&mut self, process: u64, path: &Path) -> io::Result<Metadata> {
        self.run(process, Operation::Metadata, [path_digest(path), 0, 0], |disk, _| {
            let number = disk.find(path)?;
            let inode = disk.inode(number);
            let (bytes, is_dir) = match &inode.body {
                Body::File(content) => (content.bytes().len() as u64, false),
                Body::Directory { .. } => (DIRECTORY_BYTES, true),
            };
            Ok(Metadata {
                bytes,
                is_dir,
                modified: inode.modified,
                changed: inode.changed,
                device: DEVICE,
                inode: number,
            })
        })
    }

    pub(in super::super) fn try_lock(
        &mut self,
        process: u64,
        path: &Path,
        mode: LockMode,
    ) -> io::Result<Option<u64>> {
        self.check_alive(process)?;
        if self.find(path).is_err() {
            let handle = self.create(process, path, true)?;
            self.close(handle);
        }
        self.run(process, Operation::Lock, [path_digest(path), mode as u64, 0], |disk, _| {
            let inode = disk.find(path)?;
            if disk.is_dir(inode) {
                return Err(Errno::ISDIR.into());
            }
            let shared = mode == LockMode::Shared;
            let free = disk
                .locks
                .values()
                .filter(|lock| lock.inode == inode)
                .all(|lock| shared && lock.mode == LockMode::Shared);
            Ok(free.then(|| {
                let lock = disk.take_id();
                disk.locks.insert(lock, HeldLock { process, inode, mode });
                lock
            }))
        })
    }

    /// Changes names as everybody sees them and notes that it is not durable.
    pub(super) fn change_names(&mut self, from: Option<Name>, to: Option<Name>, inode: u64) {
        let now = self.wall();
        for (directory, _) in from.iter().chain(&to) {
            let directory = self.inode_mut(*directory);
            (directory.modified, directory.changed) = (now, now);
        }
        if let Some((directory, part)) = &from {
            self.directory_mut(*directory).remove(part);
        }
        let replaced = to
            .as_ref()
            .and_then(|(directory, part)| self.directory_mut(*directory).insert(part.clone(), inode));
        let moved = self.inode_mut(inode);
        (moved.linked, moved.changed) = (to.is_some(), now);
        let gone = if to.is_none() { Some(inode) } else { replaced };
        self.changes.push(NameChange { from, to, inode, replaced });
        if let Some(gone) = gone {
            self.inode_mut(gone).linked = false;
            self.release(gone);
        }
    }

    /// Makes the pending changes of a directory durable, with the earlier ones of the same names elsewhere.
    fn make_names_durable(&mut self, directory: u64) {
        let mut needed: HashSet<&Name> = HashSet::new();
        let mut wanted = vec![false; self.changes.len()];
        for (change, wanted) in self.changes.iter().zip(&mut wanted).rev() {
            if change.names().any(|name| name.0 == directory || needed.contains(name)) {
                needed.extend(change.names());
                *wanted = true;
            }
        }
        let mut gone = Vec::new();
        for (change, wanted) in std::mem::take(&mut self.changes).into_iter().zip(wanted) {
            if wanted {
                self.make_durable(&change);
                gone.extend(change.replaced.or(Some(change.inode)));
            } else {
                self.changes.push(change);
            }
        }
        for inode in gone {
            self.forget(inode);
        }
    }

    pub(super) fn make_durable(&mut self, change: &NameChange) {
        if let Some((directory, part)) = &change.from
            && let Some(names) = self.durable_names(*directory)
        {
            names.remove(part);
        }
        if let Some((directory, part)) = &change.to
            && let Some(names) = self.durable_names(*directory)
        {
            names.insert(part.clone(), change.inode);
        }
    }

    /// A directory can be gone for good before a change inside it was written.
    fn durable_names(&mut self, directory: u64) -> Option<&mut BTreeMap<OsString, u64>> {
        match &mut self.inodes.get_mut(&directory)?.body {
            Body::File(_) => None,
            Body::Directory { durable, .. } => Some(durable),
        }
    }

    /// Which pending name changes survive: those before some point, or any that need none of the lost ones.
    pub(super) fn draw_kept_changes(&mut self) -> Vec<bool> {
        let random = &mut self.crash_random;
        if !random.chance(self.odds.names_reordered) {
            let count = random.up_to(self.changes.len());
            return (0..self.changes.len()).map(|position| position < count).collect();
        }
        let mut lost: HashSet<&Name> = HashSet::new();
        let mut kept = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            let keep = random.chance(self.odds.name_kept) && !change.names().any(|name| lost.contains(name));
            if !keep {
                lost.extend(change.names());
            }
            kept.push(keep);
        }
        kept
    }

    pub(super) fn entry(&self, (directory, part): &Name) -> Option<u64> {
        self.directory(*directory).ok()?.get(part).copied()
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        parts(path).into_iter().try_fold(ROOT, |directory, part| {
            self.directory(directory)?.get(part).copied().ok_or_else(|| Errno::NOENT.into())
        })
    }

    /// The directory a path is in, which must exist, and its last part, which need not.
    pub(super) fn parent(&self, path: &Path) -> io::Result<Name> {
        let parts = parts(path);
        let (last, above) = parts.split_last().ok_or(Errno::INVAL)?;
        let directory = self.find(&above.iter().collect::<PathBuf>())?;
        self.directory(directory)?;
        Ok((directory, last.to_os_string()))
    }
}

pub(super) fn new_directory() -> Body {
    Body::Directory { visible: BTreeMap::new(), durable: BTreeMap::new() }
}

/// The parts of a path from the root; there is no working directory and `..` is taken by its letters.
pub(super) fn parts(path: &Path) -> Vec<&OsStr> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::ParentDir => drop(parts.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    parts
}

pub(super) fn path_digest(path: &Path) -> u64 {
    digest(path.as_os_str().as_encoded_bytes())
}

fn digest_name(part: &OsStr) -> u64 {
    digest(part.as_encoded_bytes())
}
