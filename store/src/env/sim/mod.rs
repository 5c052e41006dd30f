//! A seeded world in memory: a disk that loses, tears and fails, a clock that jumps, and plain chance.
//!
//! One seed and one sequence of calls give one outcome. What is not synced may be lost at a power cut, kept,
//! or kept in part, each change by itself; what is synced never is lost, unless a lie is switched on. Knows
//! no links and no permissions, runs no threads and is as little cryptographic as can be.
//!
//! ```text
//! let disk = SimDisk::new(seed);            let start = disk.operations();
//! disk.crash_at(start + k);                 workload(&disk.env());   // ends with an error, or k is past the end
//! disk.crash();                             check(&disk.env());      // a new process after the power cut
//! ```

mod content;
mod disk;
mod random;
mod world;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use self::disk::Disk;
use self::world::{SharedDisk, hold};
use super::Env;
use crate::time::Timestamp;

/// What a disk writes in one piece: a torn write is whole in each sector.
pub const SECTOR_BYTES: usize = 512;
/// The longest simulated file; writes beyond fail as on a real file system.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// A simulated disk with its clock; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: SharedDisk,
}

/// One simulated process; it lives until it is killed or the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(u64);

/// How often each operation fails by chance, in parts per 10,000. None of them does by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reads of files and directories that fail.
    pub read_eio: u32,
    /// Reads that return less than there is.
    pub short_read: u32,
    /// Writes and changes of length that fail.
    pub write_eio: u32,
    /// Writes that take less than given.
    pub short_write: u32,
    /// Writes, changes of length and creations that find no space.
    pub enospc: u32,
    /// Reads and writes that are interrupted; never two calls in a row.
    pub interrupted: u32,
    /// Opens, creations, listings and locks that find no free descriptor.
    pub emfile: u32,
    /// Failing syncs of files; what was pending is doomed.
    pub sync_fail: u32,
    /// Failing syncs of directories; a later one can still succeed.
    pub sync_dir_fail: u32,
    /// Creations of files and directories that fail.
    pub create_fail: u32,
    /// Renames that fail.
    pub rename_fail: u32,
    /// Removals that fail.
    pub remove_fail: u32,
}

/// A fault of one operation. A failed operation changes nothing, but a failed sync dooms what it should save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Any operation: input/output error. As `SyncFail` for a sync.
    Eio,
    /// Write, change of length, creation, rename: no space left.
    Enospc,
    /// Open, creation, listing, lock, sync of a directory: too many open files.
    Emfile,
    /// Read or write: interrupted; never two calls in a row, or no caller would get on.
    Interrupted,
    /// Read: fewer bytes than there are, at least one.
    ShortRead,
    /// Write: fewer bytes than given, at least one.
    ShortWrite,
    /// Sync of a file or directory: input/output error.
    SyncFail,
}

impl FaultKind {
    /// All kinds, for loops over them.
    pub const ALL: [FaultKind; 7] = [
        FaultKind::Eio,
        FaultKind::Enospc,
        FaultKind::Emfile,
        FaultKind::Interrupted,
        FaultKind::ShortRead,
        FaultKind::ShortWrite,
        FaultKind::SyncFail,
    ];

    fn errno(self) -> Errno {
        match self {
            FaultKind::Eio | FaultKind::SyncFail => Errno::IO,
            FaultKind::Enospc => Errno::NOSPC,
            FaultKind::Emfile => Errno::MFILE,
            FaultKind::Interrupted => Errno::INTR,
            FaultKind::ShortRead | FaultKind::ShortWrite => panic!("a short transfer is no error"),
        }
    }
}

/// Whether a scheduled fault passes or stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repeat {
    /// At that operation only; nothing happens if its kind cannot fail that way.
    Once,
    /// At that operation and all later ones that can fail that way.
    FromThenOn,
}

/// Planted bugs: the disk says that something is durable and does nothing. They prove that tests test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lies {
    /// `File::sync` does nothing.
    pub drop_file_sync: bool,
    /// `Fs::sync_dir` does nothing.
    pub drop_dir_sync: bool,
}

/// What a power cut does to unsynced changes, in parts per 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashOdds {
    /// A change of content is kept whole.
    pub kept: u32,
    /// One that is not kept is torn: each of its sectors is there or not.
    pub torn: u32,
    /// One that is neither has changed the length only. All others are lost.
    pub extended: u32,
    /// A file's changes share one fate, kept or lost, instead of having each its own.
    pub together: u32,
    /// A change doomed by a failed sync is treated as one that was never synced, instead of being lost.
    pub doomed_kept: u32,
    /// Changes of names are kept or lost each by itself, instead of in the order in which they were made.
    pub names_reordered: u32,
    /// Then: one is kept, if it needs none that is lost.
    pub name_kept: u32,
    /// Bytes within the length that were never written are garbage instead of zero.
    pub garbage: bool,
}

impl Default for CrashOdds {
    fn default() -> CrashOdds {
        CrashOdds {
            kept: 3_500,
            torn: 4_000,
            extended: 2_000,
            together: 3_000,
            doomed_kept: 3_000,
            names_reordered: 5_000,
            name_kept: 5_000,
            garbage: false,
        }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl SimDisk {
    /// Makes an empty disk with a root directory, whose chance is decided by the seed.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk { shared: Arc::new(Mutex::new(Disk::new(seed))) }
    }

    /// Starts a process that is never killed by itself.
    pub fn env(&self) -> Env {
        self.process().1
    }

    /// Starts a process with locks, handles and randomness of its own.
    pub fn process(&self) -> (ProcessId, Env) {
        let (process, env) = world::start_process(&self.shared);
        (ProcessId(process), env)
    }

    /// Ends a process: its operations fail from now on, its locks are free, its writes stay visible.
    pub fn kill(&self, process: ProcessId) {
        hold(&self.shared).end_processes(|candidate| candidate == process.0);
    }

    /// Cuts the power and starts again: unsynced changes have the fate that `CrashOdds` draws for them.
    ///
    /// What is left is durable; all processes are dead and all locks free. Faults, lies and capacity stay, a
    /// `crash_at` still ahead is called off.
    pub fn crash(&self) {
        hold(&self.shared).crash();
    }

    /// Starts again after a `crash_at`; the same as `crash`, since the power cut is applied now.
    pub fn restart(&self) {
        self.crash();
    }

    /// Whether the power is on: not between a `crash_at` that has come and `restart`.
    pub fn is_powered(&self) -> bool {
        hold(&self.shared).powered
    }

    /// Lets the power go during the mutating operation with that number, counted from zero.
    ///
    /// It may or may not be performed, its caller gets an error, and so do all until `restart`.
    pub fn crash_at(&self, operation: u64) {
        hold(&self.shared).crash_at = Some(operation);
    }

    /// Lets the mutating operation with that number, counted from zero, fail.
    pub fn fail_at(&self, operation: u64, kind: FaultKind, repeat: Repeat) {
        hold(&self.shared).plan(true, operation, kind, repeat);
    }

    /// Lets the operation with that number among those that change nothing fail.
    pub fn fail_observation_at(&self, observation: u64, kind: FaultKind, repeat: Repeat) {
        hold(&self.shared).plan(false, observation, kind, repeat);
    }

    /// Sets how often operations fail by chance.
    pub fn set_faults(&self, faults: Faults) {
        hold(&self.shared).faults = faults;
    }

    /// Ends all faults, by chance and scheduled, and a `crash_at` still ahead.
    pub fn clear_faults(&self) {
        hold(&self.shared).clear_faults();
    }

    /// Switches planted bugs.
    pub fn set_lies(&self, lies: Lies) {
        hold(&self.shared).lies = lies;
    }

    /// Sets what power cuts do.
    pub fn set_crash_odds(&self, odds: CrashOdds) {
        hold(&self.shared).odds = odds;
    }

    /// Limits the bytes in all files together; `None` is no limit. What is there already stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        hold(&self.shared).capacity = bytes;
    }

    /// Number of mutating operations so far: write, change of length, sync, creation, rename, removal.
    pub fn operations(&self) -> u64 {
        hold(&self.shared).operations
    }

    /// Number of other operations so far: open, read, length, list, metadata, lock.
    pub fn observations(&self) -> u64 {
        hold(&self.shared).observations
    }

    /// Number of operations that failed or were cut short by a fault, power cuts not counted.
    pub fn faults_hit(&self) -> u64 {
        hold(&self.shared).faults_hit
    }

    /// A fingerprint of all operations so far with their order, arguments and outcomes.
    pub fn trace_hash(&self) -> u64 {
        hold(&self.shared).trace
    }

    /// The wall clock, which does not advance by this.
    pub fn now(&self) -> Timestamp {
        hold(&self.shared).wall()
    }

    /// Lets time pass.
    pub fn advance(&self, micros: u64) {
        let mut disk = hold(&self.shared);
        disk.micros = disk.micros.saturating_add(micros);
    }

    /// Sets the wall clock forward or back; monotonic time goes on as before.
    pub fn shift_wall_clock(&self, micros: i64) {
        let mut disk = hold(&self.shared);
        disk.wall_shift = disk.wall_shift.saturating_add(micros);
    }

    /// Copies the whole disk, unsynced changes included, into one without processes and with chance of its own.
    ///
    /// Cutting the power of many such copies shows many outcomes of one moment. Costs a copy of all content.
    pub fn snapshot(&self, seed: u64) -> SimDisk {
        SimDisk { shared: Arc::new(Mutex::new(hold(&self.shared).fork(seed))) }
    }

    /// Makes all that is visible durable. All tools below do this too.
    pub fn settle(&self) {
        hold(&self.shared).settle();
    }

    /// All files, sorted by path.
    pub fn files(&self) -> Vec<PathBuf> {
        hold(&self.shared).files()
    }

    /// Reads a file past all faults, changing nothing; `None` if there is no such file.
    pub fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        hold(&self.shared).read_file(path).map(<[u8]>::to_vec)
    }

    /// Whether a file was made private, which directories always are; `None` if there is none.
    pub fn is_private(&self, path: &Path) -> Option<bool> {
        hold(&self.shared).is_private(path)
    }

    /// Writes a whole file, with its directories, durably; an existing one keeps its inode.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) {
        hold(&self.shared).write_file(path, bytes);
    }

    /// Flips one bit; false if there is no such byte. Times do not change.
    pub fn flip_bit(&self, path: &Path, byte: usize, bit: u32) -> bool {
        hold(&self.shared).flip_bit(path, byte, bit)
    }

    /// Cuts or extends a file; false if there is none.
    pub fn truncate(&self, path: &Path, bytes: usize) -> bool {
        let set_len = |content: &mut content::Content| {
            content.set_len(bytes);
            true
        };
        hold(&self.shared).edit_file(path, set_len)
    }

    /// Removes a file, or a directory with all that is in it; false if there is none.
    pub fn remove_file(&self, path: &Path) -> bool {
        hold(&self.shared).remove_file(path)
    }

    /// Copies a file or directory with all that is in it; copies have inodes and times of their own.
    ///
    /// # Errors
    ///
    /// If there is nothing to copy, or the target is within it.
    pub fn copy_tree(&self, from: &Path, to: &Path) -> io::Result<()> {
        hold(&self.shared).copy_tree(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::os::tests::check_conformance;
    use crate::env::{File, Fs, LockMode};
    use std::collections::BTreeSet;

    const SEEDS: u64 = 200;

    fn path(text: &str) -> &Path {
        Path::new(text)
    }

    fn put(fs: &dyn Fs, name: &str, content: &[u8]) -> Box<dyn File> {
        let file = fs.create(path(name), false).unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    type Contents = (Option<Vec<u8>>, Option<Vec<u8>>);

    /// What is in `/a` and `/b` after a power cut, over all seeds.
    fn outcomes(prepare: impl Fn(&SimDisk, &dyn Fs)) -> BTreeSet<Contents> {
        outcomes_with(CrashOdds::default(), prepare)
    }

    fn outcomes_with(odds: CrashOdds, prepare: impl Fn(&SimDisk, &dyn Fs)) -> BTreeSet<Contents> {
        (0..SEEDS)
            .map(|seed| {
                let disk = SimDisk::new(seed);
                disk.set_crash_odds(odds);
                prepare(&disk, &*disk.env().fs);
                disk.crash();
                (disk.read_file(path("/a")), disk.read_file(path("/b")))
            })
            .collect()
    }

    fn bytes(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
        result.map(drop).expect_err("must fail").kind()
    }

    #[test]
    fn the_simulated_file_system_conforms() {
        let disk = SimDisk::new(1);
        check_conformance(&*disk.env().fs, path("/"));
        let env = disk.env();
        env.fs.create_dir_all(path("/deep/er")).unwrap();
        check_conformance(&*env.fs, path("/deep/er"));
        assert_eq!(disk.files(), Vec::<PathBuf>::new());
    }

    #[test]
    fn unsynced_content_is_lost_or_kept_and_synced_content_stays() {
        let found = outcomes(|_, fs| {
            let a = put(fs, "/a", b"old");
            a.sync().unwrap();
            fs.sync_dir(path("/")).unwrap();
            a.write_all_at(b"new", 0).unwrap();
            a.write_all_at(b"!", 3).unwrap();
        });
        let expected = ["old", "new", "old!", "new!", "old\0", "new\0"];
        assert_eq!(found, expected.map(|text| (bytes(text), None)).into());
        let found = outcomes(|_, fs| {
            let a = put(fs, "/a", b"one");
            a.sync().unwrap();
            fs.sync_dir(path("/")).unwrap();
            a.write_all_at(b"two", 0).unwrap();
            a.set_len(2).unwrap();
            a.sync().unwrap();
        });
        assert_eq!(found, [(bytes("tw"), None)].into());
    }

    #[test]
    fn a_sync_of_the_file_does_not_save_its_name_and_the_other_way_round() {
        let found = outcomes(|_, fs| put(fs, "/a", b"x").sync().unwrap());
        assert_eq!(found, [(None, None), (bytes("x"), None)].into());
        let found = outcomes(|_, fs| {
            put(fs, "/a", b"x");
            fs.sync_dir(path("/")).unwrap();
        });
        assert_eq!(found, ["", "x", "\0"].map(|text| (bytes(text), None)).into());
    }

    #[test]
    fn an_unsynced_cut_is_lost_or_kept() {
        let found = outcomes(|disk, fs| {
            disk.write_file(path("/a"), b"12345");
            fs.open_write(path("/a")).unwrap().set_len(2).unwrap();
        });
        assert_eq!(found, ["12", "12345"].map(|text| (bytes(text), None)).into());
    }

    #[test]
    fn an_unsynced_rename_is_done_or_undone_as_a_whole() {
        let prepare = |disk: &SimDisk, fs: &dyn Fs| {
            disk.write_file(path("/a"), b"new");
            disk.write_file(path("/b"), b"old");
            fs.rename(path("/a"), path("/b")).unwrap();
        };
        assert_eq!(outcomes(prepare), [(bytes("new"), bytes("old")), (None, bytes("new"))].into());
        let synced = outcomes(|disk, fs| {
            prepare(disk, fs);
            fs.sync_dir(path("/")).unwrap();
        });
        assert_eq!(synced, [(None, bytes("new"))].into());
    }

    #[test]
    fn changes_of_different_names_are_reordered_and_of_one_name_are_not() {
        let create = |_: &SimDisk, fs: &dyn Fs| {
            for name in ["/a", "/b"] {
                put(fs, name, b"x").sync().unwrap();
            }
        };
        let all = [(None, None), (bytes("x"), None), (None, bytes("x")), (bytes("x"), bytes("x"))];
        assert_eq!(outcomes(create), all.clone().into());
        let in_order = outcomes_with(CrashOdds { names_reordered: 0, ..CrashOdds::default() }, create);
        assert_eq!(in_order, [all[0].clone(), all[1].clone(), all[3].clone()].into());
        // The rotated file is never lost, as its second name is older than the new file under its first.
        let found = outcomes(|disk, fs| {
            disk.write_file(path("/a"), b"1");
            fs.rename(path("/a"), path("/b")).unwrap();
            put(fs, "/a", b"2").sync().unwrap();
        });
        assert_eq!(found, [(bytes("1"), None), (None, bytes("1")), (bytes("2"), bytes("1"))].into());
    }

    #[test]
    fn a_rename_between_directories_brings_its_creation_along() {
        let found = outcomes(|disk, fs| {
            fs.create_dir_all(path("/temporary")).unwrap();
            disk.settle();
            put(fs, "/temporary/a", b"x").sync().unwrap();
            fs.rename(path("/temporary/a"), path("/a")).unwrap();
            fs.sync_dir(path("/")).unwrap();
        });
        assert_eq!(found, [(bytes("x"), None)].into());
    }

    #[test]
    fn torn_writes_keep_whole_sectors() {
        let mut torn = 0;
        for seed in 0..SEEDS {
            let disk = SimDisk::new(seed);
            disk.write_file(path("/a"), &[1; 4_096]);
            let file = disk.env().fs.open_write(path("/a")).unwrap();
            file.write_all_at(&[2; 3_000], 100).unwrap();
            disk.crash();
            let found = disk.read_file(path("/a")).unwrap();
            assert!(found[..100].iter().chain(&found[3_100..]).all(|byte| *byte == 1));
            let sectors: Vec<&[u8]> = found[100..3_100].split_at(412).1.chunks(SECTOR_BYTES).collect();
            assert!(sectors.iter().all(|sector| sector.iter().all(|byte| *byte == sector[0])), "{seed}");
            torn += u64::from(found[100..3_100].iter().collect::<BTreeSet<_>>().len() == 2);
        }
        assert!(torn > SEEDS / 10, "{torn}");
    }

    #[test]
    fn garbage_appears_only_on_request() {
        let content = |garbage| {
            let odds = CrashOdds {
                kept: 0,
                torn: 0,
                extended: 10_000,
                together: 0,
                garbage,
                ..CrashOdds::default()
            };
            outcomes_with(odds, |disk, fs| {
                disk.write_file(path("/a"), b"");
                fs.open_write(path("/a")).unwrap().write_all_at(&[7; 64], 0).unwrap();
            })
        };
        assert_eq!(content(false), [(Some(vec![0; 64]), None)].into());
        assert!(content(true).len() > 100);
    }

    #[test]
    fn a_failed_sync_dooms_what_it_should_have_saved() {
        let fail = |disk: &SimDisk, fs: &dyn Fs| {
            disk.write_file(path("/a"), b"....");
            let file = fs.open_write(path("/a")).unwrap();
            file.write_all_at(b"12", 0).unwrap();
            disk.fail_at(disk.operations(), FaultKind::Eio, Repeat::Once);
            file.sync().unwrap_err();
            file.write_all_at(b"34", 2).unwrap();
            file.sync().unwrap();
            assert_eq!(disk.read_file(path("/a")), bytes("1234"));
            file
        };
        let found = outcomes(|disk, fs| drop(fail(disk, fs)));
        assert_eq!(found, [(bytes("..34"), None), (bytes("1234"), None)].into());
        let forgotten = CrashOdds { doomed_kept: 0, ..CrashOdds::default() };
        assert_eq!(outcomes_with(forgotten, |disk, fs| drop(fail(disk, fs))), [(bytes("..34"), None)].into());
        let rewritten = outcomes(|disk, fs| {
            let file = fail(disk, fs);
            file.write_all_at(b"12", 0).unwrap();
            file.sync().unwrap();
        });
        assert_eq!(rewritten, [(bytes("1234"), None)].into());
    }

    #[test]
    fn lies_lose_what_was_synced() {
        let lie = |lies| {
            outcomes(move |disk, fs| {
                disk.set_lies(lies);
                let file = put(fs, "/a", b"x");
                file.sync().unwrap();
                fs.sync_dir(path("/")).unwrap();
            })
        };
        assert_eq!(lie(Lies::default()), [(bytes("x"), None)].into());
        assert!(lie(Lies { drop_file_sync: true, drop_dir_sync: false }).contains(&(bytes(""), None)));
        assert!(lie(Lies { drop_file_sync: false, drop_dir_sync: true }).contains(&(None, None)));
    }

    /// Eight mutating operations and some others; stops at the first error.
    fn workload(env: &Env) -> io::Result<()> {
        env.fs.create_dir_all(path("/d"))?;
        let file = env.fs.create(path("/d/new"), false)?;
        file.write_all_at(b"0123456789", 0)?;
        file.set_len(9)?;
        file.sync()?;
        env.fs.rename(path("/d/new"), path("/d/file"))?;
        env.fs.sync_dir(path("/d"))?;
        let mut buffer = [0; 9];
        env.fs.open(path("/d/file"))?.read_exact_at(&mut buffer, 0)?;
        env.fs.list(path("/d"))?;
        env.fs.remove(path("/d/file"))
    }

    #[test]
    fn faults_hit_exactly_the_operation_they_are_set_for() {
        let disk = SimDisk::new(0);
        workload(&disk.env()).unwrap();
        assert_eq!((disk.operations(), disk.observations(), disk.faults_hit()), (8, 3, 0));
        for number in 0..=8 {
            let disk = SimDisk::new(0);
            disk.fail_at(number, FaultKind::Eio, Repeat::Once);
            assert_eq!(workload(&disk.env()).is_err(), number < 8, "{number}");
            assert_eq!((disk.operations(), disk.faults_hit()), (8.min(number + 1), u64::from(number < 8)));
        }
        for number in 0..=3 {
            let disk = SimDisk::new(0);
            disk.fail_observation_at(number, FaultKind::Eio, Repeat::FromThenOn);
            assert_eq!(workload(&disk.env()).is_err(), number < 3, "{number}");
        }
        let disk = SimDisk::new(0);
        disk.fail_at(1, FaultKind::Enospc, Repeat::FromThenOn);
        assert_eq!(kind(workload(&disk.env())), io::ErrorKind::StorageFull);
        disk.clear_faults();
        workload(&disk.env()).unwrap();
    }

    #[test]
    fn interruptions_and_short_transfers_do_not_stop_a_caller_that_goes_on() {
        for kind in [FaultKind::Interrupted, FaultKind::ShortRead, FaultKind::ShortWrite] {
            let disk = SimDisk::new(3);
            disk.fail_at(0, kind, Repeat::FromThenOn);
            disk.fail_observation_at(0, kind, Repeat::FromThenOn);
            workload(&disk.env()).unwrap();
            assert!(disk.faults_hit() > 0, "{kind:?}");
        }
    }

    #[test]
    fn every_chance_fault_happens() {
        let none = Faults::default();
        let always = 10_000;
        for faults in [
            Faults { read_eio: always, ..none },
            Faults { write_eio: always, ..none },
            Faults { enospc: always, ..none },
            Faults { emfile: always, ..none },
            Faults { sync_fail: always, ..none },
            Faults { sync_dir_fail: always, ..none },
            Faults { create_fail: always, ..none },
            Faults { rename_fail: always, ..none },
            Faults { remove_fail: always, ..none },
        ] {
            let disk = SimDisk::new(0);
            disk.set_faults(faults);
            workload(&disk.env()).unwrap_err();
            assert_eq!(disk.faults_hit(), 1);
        }
        let disk = SimDisk::new(0);
        disk.set_faults(Faults { short_read: always, short_write: always, interrupted: 5_000, ..none });
        workload(&disk.env()).unwrap();
        assert!(disk.faults_hit() > 4);
    }

    #[test]
    fn the_power_goes_at_the_operation_asked_for() {
        for number in 0..=8 {
            let disk = SimDisk::new(number);
            let env = disk.env();
            let other = disk.env();
            disk.crash_at(number);
            assert_eq!(workload(&env).is_err(), number < 8);
            assert_eq!(disk.is_powered(), number == 8);
            assert_eq!(other.fs.list(path("/")).is_err(), number < 8);
            assert_eq!(disk.env().fs.list(path("/")).is_err(), number < 8);
            disk.restart();
            env.fs.list(path("/")).expect_err("processes do not survive");
            let found = disk.env().fs.list(path("/")).unwrap();
            assert!(found.len() <= 1);
        }
    }

    #[test]
    fn the_operation_in_flight_is_done_or_not() {
        let done = |seed| {
            let disk = SimDisk::new(seed);
            disk.write_file(path("/a"), b"old");
            let file = disk.env().fs.open_write(path("/a")).unwrap();
            file.write_all_at(b"new", 0).unwrap();
            disk.set_crash_odds(CrashOdds {
                kept: 0,
                torn: 0,
                extended: 0,
                together: 0,
                ..CrashOdds::default()
            });
            disk.crash_at(disk.operations());
            file.sync().unwrap_err();
            disk.restart();
            disk.read_file(path("/a")) == bytes("new")
        };
        let count = (0..SEEDS).filter(|seed| done(*seed)).count();
        assert!((60..140).contains(&count), "{count}");
    }

    #[test]
    fn killed_processes_lose_locks_and_handles_but_no_writes() {
        let disk = SimDisk::new(0);
        let ((first, one), (_, two)) = (disk.process(), disk.process());
        let file = put(&*one.fs, "/a", b"x");
        let lock = one.fs.try_lock(path("/lock"), LockMode::Exclusive).unwrap().unwrap();
        assert!(two.fs.try_lock(path("/lock"), LockMode::Shared).unwrap().is_none());
        disk.kill(first);
        file.len().unwrap_err();
        one.fs.list(path("/")).unwrap_err();
        let other = two.fs.try_lock(path("/lock"), LockMode::Exclusive).unwrap().unwrap();
        drop(lock);
        assert!(
            two.fs.try_lock(path("/lock"), LockMode::Shared).unwrap().is_none(),
            "a dead lock frees nothing"
        );
        assert_eq!(disk.read_file(path("/a")), bytes("x"));
        disk.crash();
        drop(other);
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_gets_room_back() {
        let disk = SimDisk::new(0);
        disk.set_capacity(Some(10));
        let fs = disk.env().fs;
        let a = put(&*fs, "/a", b"1234567");
        let b = put(&*fs, "/b", b"");
        assert_eq!(b.write_at(b"12345", 0).unwrap(), 3);
        assert_eq!(kind(b.write_at(b"45", 3)), io::ErrorKind::StorageFull);
        assert_eq!(kind(a.set_len(8)), io::ErrorKind::StorageFull);
        assert_eq!(a.write_at(b"again", 0).unwrap(), 5, "overwriting needs no room");
        fs.remove(path("/a")).unwrap();
        assert_eq!(kind(b.write_at(b"45", 3)), io::ErrorKind::StorageFull, "an open file keeps its room");
        drop(a);
        b.write_all_at(b"4567890", 3).unwrap();
        b.set_len(0).unwrap();
        for name in ["/c", "/d", "/e"] {
            drop(put(&*fs, name, b"1234567890"));
            fs.rename(path(name), path("/c")).unwrap();
            fs.remove(path("/c")).unwrap();
        }
        b.write_at(b"x", FILE_BYTES_MAX).unwrap_err();
        b.write_at(b"x", u64::MAX).unwrap_err();
        fs.sync_dir(path("/")).unwrap();
        disk.crash();
        disk.env().fs.create(path("/c"), false).unwrap().write_all_at(b"1", 0).unwrap();
    }

    /// A random step on a few files in two directories.
    fn step(env: &Env, random: &mut random::Random) -> io::Result<()> {
        let names = ["/a", "/b", "/d/a", "/d/b"];
        let (one, two) = (path(names[random.up_to(3)]), path(names[random.up_to(3)]));
        let mut buffer = vec![0; random.up_to(2_000)];
        env.entropy.fill(&mut buffer);
        let offset = random.up_to(1_000) as u64;
        match random.up_to(9) {
            0 | 1 => env.fs.create(one, false).map(drop),
            2 => env.fs.rename(one, two),
            3 => env.fs.remove(one),
            4 => env.fs.sync_dir(path("/d")),
            5 => env.fs.sync_dir(path("/")),
            6 => env.fs.open_write(one).and_then(|file| file.set_len(offset)),
            7 if random.chance(2_000) => {
                env.fs.remove_dir_all(path("/d"))?;
                env.fs.create_dir_all(path("/d"))
            }
            _ => env.fs.open_write(one).and_then(|file| {
                file.write_all_at(&buffer, offset)?;
                if random.coin() { file.sync() } else { Ok(()) }
            }),
        }
    }

    fn all_content(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
        let with_content = |file: PathBuf| disk.read_file(&file).map(|content| (file, content));
        disk.files().into_iter().filter_map(with_content).collect()
    }

    #[test]
    fn what_is_synced_survives_whatever_happened_before() {
        for seed in 0..SEEDS {
            let disk = SimDisk::new(seed);
            let env = disk.env();
            let mut random = random::Random::new(seed, 98);
            env.fs.create_dir_all(path("/d")).unwrap();
            for _ in 0..random.up_to(80) {
                let _ = step(&env, &mut random);
            }
            for file in disk.files() {
                env.fs.open(&file).unwrap().sync().unwrap();
            }
            let mut directories = ["/", "/d"];
            directories.rotate_left(random.up_to(1));
            for directory in directories {
                env.fs.sync_dir(path(directory)).unwrap();
            }
            let before = all_content(&disk);
            disk.crash();
            assert_eq!(all_content(&disk), before, "{seed}");
        }
    }

    /// A random mix of everything, ended by a power cut.
    fn storm(seed: u64) -> (u64, u64) {
        let disk = SimDisk::new(seed);
        disk.set_faults(Faults {
            sync_fail: 500,
            short_write: 500,
            enospc: 100,
            rename_fail: 500,
            ..Faults::default()
        });
        let mut random = random::Random::new(seed, 99);
        for _ in 0..4 {
            let env = disk.env();
            let _ = env.fs.create_dir_all(path("/d"));
            for _ in 0..60 {
                let _ = step(&env, &mut random);
            }
            disk.crash();
            let held: usize = all_content(&disk).iter().map(|(_, content)| content.len()).sum();
            assert_eq!(hold(&disk.shared).used_bytes(), held as u64, "{seed}");
        }
        let content: Vec<u8> = all_content(&disk).into_iter().flat_map(|(_, content)| content).collect();
        (disk.trace_hash(), random::digest(&content))
    }

    #[test]
    fn one_seed_gives_one_trace_and_one_outcome() {
        let first: Vec<_> = (0..50).map(storm).collect();
        let second: Vec<_> = (0..50).map(storm).collect();
        assert_eq!(first, second);
        assert_eq!(first.iter().map(|(trace, _)| trace).collect::<BTreeSet<_>>().len(), 50);
    }

    #[test]
    fn entropy_and_clock_are_seeded() {
        let draw = |env: &Env| {
            let mut buffer = [0; 20];
            env.entropy.fill(&mut buffer);
            buffer
        };
        let (disk, same) = (SimDisk::new(5), SimDisk::new(5));
        let (one, two) = (disk.env(), disk.env());
        assert_ne!(draw(&one), draw(&two), "two processes never draw the same");
        assert_eq!(draw(&same.env()), draw(&SimDisk::new(5).env()));
        assert_ne!(draw(&SimDisk::new(6).env()), draw(&SimDisk::new(5).env()));
        let (wall, start) = (one.clock.now(), one.clock.monotonic_micros());
        one.clock.sleep(1_000_000);
        assert!(two.clock.now() > wall.plus_micros(1_000_000));
        disk.shift_wall_clock(-10_000_000);
        assert!(disk.now() < wall);
        assert!(one.clock.monotonic_micros() > start + 1_000_000);
    }

    #[test]
    fn tools_damage_copy_and_show_what_they_say() {
        let disk = SimDisk::new(0);
        disk.write_file(path("/s/x/one"), b"abc");
        disk.write_file(path("/s/two"), b"");
        assert!(disk.flip_bit(path("/s/x/one"), 1, 0));
        assert!(!disk.flip_bit(path("/s/x/one"), 3, 0));
        disk.copy_tree(path("/s"), path("/copy/of")).unwrap();
        disk.copy_tree(path("/s"), path("/s/below")).unwrap_err();
        assert!(disk.truncate(path("/s/x/one"), 1));
        assert!(disk.remove_file(path("/s/two")));
        assert!(!disk.remove_file(path("/s/two")));
        let copy = disk.snapshot(1);
        disk.write_file(path("/s/x/one"), b"later");
        copy.crash();
        assert_eq!(copy.files(), ["/copy/of/two", "/copy/of/x/one", "/s/x/one"].map(PathBuf::from));
        assert_eq!(copy.read_file(path("/copy/of/x/one")), bytes("acc"));
        assert_eq!(copy.read_file(path("/s/x/one")), bytes("a"));
        let inode = |file| disk.env().fs.metadata(path(file)).unwrap().inode;
        assert_ne!(inode("/s/x/one"), inode("/copy/of/x/one"));
        disk.env().fs.create(path("/key"), true).unwrap();
        assert_eq!(
            ["/key", "/s/x/one", "/no"].map(|file| disk.is_private(path(file))),
            [Some(true), Some(false), None]
        );
    }

    #[test]
    fn snapshots_of_one_moment_show_many_outcomes() {
        let disk = SimDisk::new(0);
        let fs = disk.env().fs;
        let file = put(&*fs, "/a", b"");
        fs.sync_dir(path("/")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        let cut = |seed| {
            let copy = disk.snapshot(seed);
            copy.crash();
            copy.read_file(path("/a"))
        };
        assert_eq!((0..SEEDS).map(cut).collect::<BTreeSet<_>>(), ["", "x", "\0"].map(bytes).into());
        file.len().expect("the original runs on");
    }
}
