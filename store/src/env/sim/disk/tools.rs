//! The power cut, and tools for a simulated disk at rest: damage, inspection and copies.
//!
//! The tools make everything durable first; they count as no operation and are never refused.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::names::{new_directory, parts};
use super::{Body, Disk, ROOT};
use crate::env::sim::content::Content;

impl Disk {
    /// Cuts the power and starts again: chance decides what of the unsynced is there, and that is durable.
    pub(in super::super) fn crash(&mut self) {
        self.end_processes(|_| true);
        let kept = self.draw_kept_changes();
        for (change, kept) in std::mem::take(&mut self.changes).into_iter().zip(kept) {
            if kept {
                self.make_durable(&change);
            }
        }
        let mut reachable = BTreeSet::from([ROOT]);
        let mut queue = vec![ROOT];
        while let Some(number) = queue.pop() {
            if let Body::Directory { visible, durable } = &mut self.inode_mut(number).body {
                visible.clone_from(durable);
                queue.extend(durable.values());
                reachable.extend(durable.values());
            }
        }
        self.inodes.retain(|number, _| reachable.contains(number));
        self.used = 0;
        for inode in self.inodes.values_mut() {
            inode.linked = true;
            if let Body::File(content) = &mut inode.body {
                content.crash(&self.odds, &mut self.crash_random);
                self.used += content.bytes().len() as u64;
            }
        }
        self.powered = true;
        self.crash_at = None;
        self.fold(u64::MAX);
    }

    /// Makes all that is seen durable.
    pub(in super::super) fn settle(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            self.make_durable(&change);
        }
        for inode in self.inodes.values_mut() {
            if let Body::File(content) = &mut inode.body {
                content.settle();
            }
        }
    }

    pub(in super::super) fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.collect_files(ROOT, &PathBuf::from("/"), &mut found);
        found.sort();
        found
    }

    fn collect_files(&self, directory: u64, path: &Path, found: &mut Vec<PathBuf>) {
        for (name, inode) in self.directory(directory).into_iter().flatten() {
            if self.is_dir(*inode) {
                self.collect_files(*inode, &path.join(name), found);
            } else {
                found.push(path.join(name));
            }
        }
    }

    pub(in super::super) fn read_file(&self, path: &Path) -> Option<&[u8]> {
        let inode = self.find(path).ok()?;
        (!self.is_dir(inode)).then(|| self.bytes(inode))
    }

    pub(in super::super) fn is_private(&self, path: &Path) -> Option<bool> {
        self.find(path).ok().map(|inode| self.inode(inode).private)
    }

    /// Changes a file at rest; false if there is none or the change says so.
    pub(in super::super) fn edit_file(
        &mut self,
        path: &Path,
        edit: impl FnOnce(&mut Content) -> bool,
    ) -> bool {
        let Some(inode) = self.find(path).ok().filter(|inode| !self.is_dir(*inode)) else { return false };
        let done = self.change_content(inode, edit);
        self.settle();
        done
    }

    /// Flips a bit as rot does, without a trace in the times.
    pub(in super::super) fn flip_bit(&mut self, path: &Path, byte: usize, bit: u32) -> bool {
        self.settle();
        let Some(inode) = self.find(path).ok().filter(|inode| !self.is_dir(*inode)) else { return false };
        self.content_mut(inode).flip_bit(byte, bit)
    }

    pub(in super::super) fn write_file(&mut self, path: &Path, bytes: &[u8]) {
        if !self.edit_file(path, |content| {
            *content = Content::new(bytes.to_vec());
            true
        }) {
            let inode = self.add_inode(Body::File(Content::new(bytes.to_vec())), false);
            self.used += bytes.len() as u64;
            let parts = parts(path);
            let (last, above) = parts.split_last().expect("the root is no file");
            let directory = self.make_directories(above);
            self.change_names(None, Some((directory, last.to_os_string())), inode);
            self.settle();
        }
    }

    pub(in super::super) fn remove_file(&mut self, path: &Path) -> bool {
        let found = self.parent(path).ok().and_then(|name| Some((self.entry(&name)?, name)));
        if let Some((inode, name)) = found.clone() {
            self.remove_tree(name, inode);
            self.settle();
        }
        found.is_some()
    }

    pub(in super::super) fn copy_tree(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let source = self.find(from)?;
        if parts(to).starts_with(&parts(from)) {
            return Err(Errno::INVAL.into());
        }
        self.copy_below(source, to);
        self.settle();
        Ok(())
    }

    fn copy_below(&mut self, source: u64, to: &Path) {
        match self.inode(source).body.clone() {
            Body::File(content) => self.write_file(to, content.bytes()),
            Body::Directory { visible, .. } => {
                self.make_directories(&parts(to));
                for (name, inode) in visible {
                    self.copy_below(inode, &to.join(name));
                }
            }
        }
    }

    fn make_directories(&mut self, parts: &[&OsStr]) -> u64 {
        let mut directory = ROOT;
        for part in parts {
            let name = (directory, part.to_os_string());
            directory = self.entry(&name).unwrap_or_else(|| {
                let inode = self.add_inode(new_directory(), true);
                self.change_names(None, Some(name), inode);
                inode
            });
        }
        directory
    }
}
