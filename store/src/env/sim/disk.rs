//! The state of a simulated disk: inodes, names, handles, locks, faults and the trace.
//!
//! Every operation passes `Disk::run`, which counts it, decides its fate and adds it to the trace. Names are
//! kept twice, as seen and as durable, with the ordered list of changes between them. Has no links.

mod names;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use self::names::{new_directory, path_digest};
use super::content::Content;
use super::random::{Random, digest, mix};
use super::{CrashOdds, FILE_BYTES_MAX, FaultKind, Faults, Lies, Repeat};
use crate::env::LockMode;
use crate::time::Timestamp;

const ROOT: u64 = 1;
/// The simulated clock starts at 2026-01-01T00:00:00Z.
const START_MICROS: i64 = 1_767_225_600_000_000;
const OPERATION_MICROS: u64 = 10;
const STREAM_FAULTS: u64 = 1;
const STREAM_CRASHES: u64 = 2;

/// A name: the directory's inode and the last part of the path.
type Name = (u64, OsString);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Create = 1,
    Rename,
    Remove,
    RemoveTree,
    Write,
    SetLength,
    Sync,
    SyncDirectory,
    Open,
    Read,
    Length,
    List,
    Metadata,
    Lock,
}

impl Operation {
    fn mutates(self) -> bool {
        use Operation::{Create, Remove, RemoveTree, Rename, SetLength, Sync, SyncDirectory, Write};
        matches!(self, Create | Rename | Remove | RemoveTree | Write | SetLength | Sync | SyncDirectory)
    }
}

#[derive(Clone, Debug)]
enum Body {
    File(Content),
    Directory { visible: BTreeMap<OsString, u64>, durable: BTreeMap<OsString, u64> },
}

#[derive(Clone, Debug)]
struct Inode {
    body: Body,
    private: bool,
    linked: bool,
    handles: u32,
    modified: Timestamp,
    changed: Timestamp,
}

/// One change of names that is not durable yet: a creation, a removal or, with both names, a rename.
#[derive(Clone, Debug)]
struct NameChange {
    from: Option<Name>,
    to: Option<Name>,
    inode: u64,
    replaced: Option<u64>,
}

impl NameChange {
    fn names(&self) -> impl Iterator<Item = &Name> {
        self.from.iter().chain(&self.to)
    }
}

#[derive(Clone, Copy, Debug)]
struct Handle {
    process: u64,
    inode: u64,
    writable: bool,
}

#[derive(Clone, Copy, Debug)]
struct HeldLock {
    process: u64,
    inode: u64,
    mode: LockMode,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    mutating: bool,
    number: u64,
    kind: FaultKind,
    repeat: Repeat,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) faults: Faults,
    pub(super) lies: Lies,
    pub(super) odds: CrashOdds,
    pub(super) capacity: Option<u64>,
    pub(super) crash_at: Option<u64>,
    pub(super) operations: u64,
    pub(super) observations: u64,
    pub(super) faults_hit: u64,
    pub(super) trace: u64,
    pub(super) powered: bool,
    pub(super) micros: u64,
    pub(super) wall_shift: i64,
    seed: u64,
    fault_random: Random,
    crash_random: Random,
    plans: Vec<Plan>,
    was_interrupted: bool,
    inodes: BTreeMap<u64, Inode>,
    changes: Vec<NameChange>,
    used: u64,
    processes: BTreeSet<u64>,
    handles: BTreeMap<u64, Handle>,
    locks: BTreeMap<u64, HeldLock>,
    next_id: u64,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Disk {
        let mut disk = Disk {
            faults: Faults::default(),
            lies: Lies::default(),
            odds: CrashOdds::default(),
            capacity: None,
            crash_at: None,
            operations: 0,
            observations: 0,
            faults_hit: 0,
            trace: 0,
            powered: true,
            micros: 0,
            wall_shift: 0,
            seed,
            fault_random: Random::new(seed, STREAM_FAULTS),
            crash_random: Random::new(seed, STREAM_CRASHES),
            plans: Vec::new(),
            was_interrupted: false,
            inodes: BTreeMap::new(),
            changes: Vec::new(),
            used: 0,
            processes: BTreeSet::new(),
            handles: BTreeMap::new(),
            locks: BTreeMap::new(),
            next_id: ROOT,
        };
        let root = disk.add_inode(new_directory(), false);
        assert_eq!(root, ROOT);
        disk
    }

    /// The same disk in another future: nobody runs, and chance starts over from the seed.
    pub(super) fn fork(&self, seed: u64) -> Disk {
        let mut disk = self.clone();
        disk.seed = seed;
        disk.fault_random = Random::new(seed, STREAM_FAULTS);
        disk.crash_random = Random::new(seed, STREAM_CRASHES);
        disk.end_processes(|_| true);
        disk
    }

    pub(super) fn wall(&self) -> Timestamp {
        let micros = i64::try_from(self.micros).unwrap_or(i64::MAX);
        Timestamp::from_micros(START_MICROS.saturating_add(micros).saturating_add(self.wall_shift))
    }

    // Processes.

    pub(super) fn start_process(&mut self) -> (u64, Random) {
        let process = self.take_id();
        self.processes.insert(process);
        (process, Random::new(self.seed, mix(process)))
    }

    pub(super) fn end_processes(&mut self, ends: impl Fn(u64) -> bool) {
        self.processes.retain(|process| !ends(*process));
        self.locks.retain(|_, lock| !ends(lock.process));
        let ended: Vec<u64> =
            self.handles.iter().filter(|(_, handle)| ends(handle.process)).map(|(id, _)| *id).collect();
        for handle in ended {
            self.close(handle);
        }
    }

    pub(super) fn unlock(&mut self, lock: u64) {
        self.locks.remove(&lock);
    }

    pub(super) fn close(&mut self, handle: u64) {
        if let Some(handle) = self.handles.remove(&handle) {
            self.inode_mut(handle.inode).handles -= 1;
            self.release(handle.inode);
        }
    }

    // Faults.

    pub(super) fn plan(&mut self, mutating: bool, number: u64, kind: FaultKind, repeat: Repeat) {
        self.plans.push(Plan { mutating, number, kind, repeat });
    }

    pub(super) fn clear_faults(&mut self) {
        self.faults = Faults::default();
        self.plans.clear();
        self.crash_at = None;
    }

    /// Passes one operation: counts it, lets it happen, cuts it short or makes it fail, and traces it.
    fn run<T>(
        &mut self,
        process: u64,
        operation: Operation,
        details: [u64; 3],
        body: impl FnOnce(&mut Disk, bool) -> io::Result<T>,
    ) -> io::Result<T> {
        self.check_alive(process)?;
        self.micros += OPERATION_MICROS;
        let result = if operation.mutates() && self.crash_at.is_some_and(|at| at <= self.operations) {
            // The power goes during the operation: it may have been performed, nobody hears of it.
            if self.crash_random.coin() {
                let _ = body(self, false);
            }
            self.operations += 1;
            self.powered = false;
            Err(dead())
        } else {
            match self.fault_for(operation) {
                None => body(self, false),
                Some(FaultKind::ShortRead | FaultKind::ShortWrite) => body(self, true),
                Some(kind) => Err(kind.errno().into()),
            }
        };
        let outcome = match &result {
            Ok(_) => 0,
            Err(error) => u64::from(error.raw_os_error().unwrap_or(-1).unsigned_abs()),
        };
        for word in [operation as u64, process].into_iter().chain(details).chain([outcome]) {
            self.fold(word);
        }
        result
    }

    fn fold(&mut self, word: u64) {
        self.trace = mix(self.trace.rotate_left(5) ^ word);
    }

    fn check_alive(&self, process: u64) -> io::Result<()> {
        if self.powered && self.processes.contains(&process) { Ok(()) } else { Err(dead()) }
    }

    fn fault_for(&mut self, operation: Operation) -> Option<FaultKind> {
        let mutating = operation.mutates();
        let counter = if mutating { &mut self.operations } else { &mut self.observations };
        let number = *counter;
        *counter += 1;
        let planned = self.plans.iter().find(|plan| {
            let now = match plan.repeat {
                Repeat::Once => number == plan.number,
                Repeat::FromThenOn => number >= plan.number,
            };
            now && plan.mutating == mutating && applies(plan.kind, operation)
        });
        let kind = match planned {
            Some(plan) => Some(plan.kind),
            None => self.draw_fault(operation),
        };
        // An interrupted call is repeated; if that were interrupted for ever, no caller could go on.
        let was_interrupted = std::mem::take(&mut self.was_interrupted);
        let kind = kind.filter(|kind| !(was_interrupted && *kind == FaultKind::Interrupted));
        self.was_interrupted = kind == Some(FaultKind::Interrupted);
        self.faults_hit += u64::from(kind.is_some());
        kind
    }

    fn draw_fault(&mut self, operation: Operation) -> Option<FaultKind> {
        use FaultKind::{Eio, Emfile, Enospc, Interrupted, ShortRead, ShortWrite, SyncFail};
        let f = self.faults;
        let candidates: &[(u32, FaultKind)] = match operation {
            Operation::Create => &[(f.create_fail, Eio), (f.enospc, Enospc), (f.emfile, Emfile)],
            Operation::Rename => &[(f.rename_fail, Eio)],
            Operation::Remove | Operation::RemoveTree => &[(f.remove_fail, Eio)],
            Operation::Write => &[
                (f.write_eio, Eio),
                (f.enospc, Enospc),
                (f.short_write, ShortWrite),
                (f.interrupted, Interrupted),
            ],
            Operation::SetLength => &[(f.write_eio, Eio), (f.enospc, Enospc)],
            Operation::Sync => &[(f.sync_fail, SyncFail)],
            Operation::SyncDirectory => &[(f.sync_dir_fail, SyncFail), (f.emfile, Emfile)],
            Operation::Open | Operation::Lock => &[(f.emfile, Emfile)],
            Operation::Read => &[(f.read_eio, Eio), (f.short_read, ShortRead), (f.interrupted, Interrupted)],
            Operation::List => &[(f.read_eio, Eio), (f.emfile, Emfile)],
            Operation::Length | Operation::Metadata => &[],
        };
        let random = &mut self.fault_random;
        candidates.iter().find(|(odds, _)| random.chance(*odds)).map(|(_, kind)| *kind)
    }

    // Files. Names are in `names`, tools in `tools`.

    pub(super) fn open(&mut self, process: u64, path: &Path, writable: bool) -> io::Result<u64> {
        self.run(process, Operation::Open, [path_digest(path), u64::from(writable), 0], |disk, _| {
            let inode = disk.find(path)?;
            if disk.is_dir(inode) {
                return Err(Errno::ISDIR.into());
            }
            Ok(disk.add_handle(process, inode, writable))
        })
    }

    pub(super) fn len(&mut self, handle: u64) -> io::Result<u64> {
        let Handle { process, inode, .. } = self.handle(handle)?;
        self.run(process, Operation::Length, [inode, 0, 0], |disk, _| Ok(disk.bytes(inode).len() as u64))
    }

    pub(super) fn read(&mut self, handle: u64, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Handle { process, inode, .. } = self.handle(handle)?;
        let details = [inode, offset, buffer.len() as u64];
        self.run(process, Operation::Read, details, |disk, short| {
            let start = index(offset.min(disk.bytes(inode).len() as u64));
            let mut count = buffer.len().min(disk.bytes(inode).len() - start);
            if short {
                count = shorter(count, &mut disk.fault_random);
            }
            buffer[..count].copy_from_slice(&disk.bytes(inode)[start..start + count]);
            Ok(count)
        })
    }

    pub(super) fn write(&mut self, handle: u64, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let Handle { process, inode, writable } = self.handle(handle)?;
        let details = [inode, offset, digest(bytes)];
        self.run(process, Operation::Write, details, |disk, short| {
            if !writable {
                return Err(Errno::BADF.into());
            }
            if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > FILE_BYTES_MAX) {
                return Err(Errno::FBIG.into());
            }
            if bytes.is_empty() {
                return Ok(0);
            }
            let count = if short { shorter(bytes.len(), &mut disk.fault_random) } else { bytes.len() };
            let end_max = (disk.bytes(inode).len() as u64).saturating_add(disk.free());
            let count = count.min(index(end_max.saturating_sub(offset).min(FILE_BYTES_MAX)));
            if count == 0 {
                return Err(Errno::NOSPC.into());
            }
            disk.change_content(inode, |content| content.write(&bytes[..count], index(offset)));
            Ok(count)
        })
    }

    pub(super) fn set_len(&mut self, handle: u64, bytes: u64) -> io::Result<()> {
        let Handle { process, inode, writable } = self.handle(handle)?;
        self.run(process, Operation::SetLength, [inode, bytes, 0], |disk, _| {
            if !writable {
                return Err(Errno::INVAL.into());
            }
            if bytes > FILE_BYTES_MAX {
                return Err(Errno::FBIG.into());
            }
            if bytes.saturating_sub(disk.bytes(inode).len() as u64) > disk.free() {
                return Err(Errno::NOSPC.into());
            }
            disk.change_content(inode, |content| content.set_len(index(bytes)));
            Ok(())
        })
    }

    pub(super) fn sync(&mut self, handle: u64) -> io::Result<()> {
        let Handle { process, inode, .. } = self.handle(handle)?;
        let result = self.run(process, Operation::Sync, [inode, 0, 0], |disk, _| {
            if !disk.lies.drop_file_sync {
                disk.content_mut(inode).sync();
            }
            Ok(())
        });
        if result.is_err() && self.powered {
            self.content_mut(inode).doom();
        }
        result
    }

    // Helpers.

    fn change_content<T>(&mut self, inode: u64, change: impl FnOnce(&mut Content) -> T) -> T {
        let now = self.wall();
        let inode = self.inode_mut(inode);
        (inode.modified, inode.changed) = (now, now);
        let Body::File(content) = &mut inode.body else { panic!("only files have content") };
        let bytes_before = content.bytes().len() as u64;
        let result = change(content);
        let bytes_after = content.bytes().len() as u64;
        self.used = self.used - bytes_before + bytes_after;
        result
    }

    /// Gives back the space of a file without name and handle.
    fn release(&mut self, number: u64) {
        let inode = self.inode(number);
        if !inode.linked && inode.handles == 0 {
            if let Body::File(content) = &inode.body {
                self.used -= content.bytes().len() as u64;
            }
            self.forget(number);
        }
    }

    /// Drops an inode that neither a name, nor a handle, nor a crash can bring back.
    fn forget(&mut self, number: u64) {
        let gone = self.inodes.get(&number).is_some_and(|inode| !inode.linked && inode.handles == 0);
        let mentions = |change: &NameChange| change.inode == number || change.replaced == Some(number);
        if gone && !self.changes.iter().any(mentions) {
            self.inodes.remove(&number);
        }
    }

    /// Bytes in all files that have a name or a handle.
    #[cfg(test)]
    pub(super) fn used_bytes(&self) -> u64 {
        self.used
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used))
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn add_inode(&mut self, body: Body, private: bool) -> u64 {
        let (number, now) = (self.take_id(), self.wall());
        let inode = Inode { body, private, linked: true, handles: 0, modified: now, changed: now };
        self.inodes.insert(number, inode);
        number
    }

    fn add_handle(&mut self, process: u64, inode: u64, writable: bool) -> u64 {
        let handle = self.take_id();
        self.inode_mut(inode).handles += 1;
        self.handles.insert(handle, Handle { process, inode, writable });
        handle
    }

    fn handle(&self, handle: u64) -> io::Result<Handle> {
        self.handles.get(&handle).copied().ok_or_else(dead)
    }

    fn inode(&self, number: u64) -> &Inode {
        self.inodes.get(&number).expect("names and handles keep their inode")
    }

    fn inode_mut(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("names and handles keep their inode")
    }

    fn content_mut(&mut self, number: u64) -> &mut Content {
        match &mut self.inode_mut(number).body {
            Body::File(content) => content,
            Body::Directory { .. } => panic!("only files have content"),
        }
    }

    fn bytes(&self, number: u64) -> &[u8] {
        match &self.inode(number).body {
            Body::File(content) => content.bytes(),
            Body::Directory { .. } => panic!("only files have content"),
        }
    }

    fn is_dir(&self, number: u64) -> bool {
        matches!(self.inode(number).body, Body::Directory { .. })
    }

    fn directory(&self, number: u64) -> io::Result<&BTreeMap<OsString, u64>> {
        match &self.inode(number).body {
            Body::File(_) => Err(Errno::NOTDIR.into()),
            Body::Directory { visible, .. } => Ok(visible),
        }
    }

    fn directory_mut(&mut self, number: u64) -> &mut BTreeMap<OsString, u64> {
        match &mut self.inode_mut(number).body {
            Body::File(_) => panic!("only directories have names"),
            Body::Directory { visible, .. } => visible,
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the simulated process is dead or the power is off")
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("simulated files fit in memory")
}

/// At least one byte less, but never nothing, so that callers get on.
fn shorter(count: usize, random: &mut Random) -> usize {
    if count < 2 { count } else { 1 + random.up_to(count - 2) }
}

fn applies(kind: FaultKind, operation: Operation) -> bool {
    use Operation::{Create, List, Lock, Open, Read, Rename, SetLength, Sync, SyncDirectory, Write};
    match kind {
        FaultKind::Eio => true,
        FaultKind::Enospc => matches!(operation, Create | Rename | Write | SetLength),
        FaultKind::Emfile => matches!(operation, Create | SyncDirectory | Open | List | Lock),
        FaultKind::Interrupted => matches!(operation, Read | Write),
        FaultKind::ShortRead => operation == Read,
        FaultKind::ShortWrite => operation == Write,
        FaultKind::SyncFail => matches!(operation, Sync | SyncDirectory),
    }
}
