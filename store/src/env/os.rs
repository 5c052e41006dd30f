//! The real world: files, clock and randomness of the operating system.
//!
//! Each call is one or two system calls and says what they said. Makes names and bytes durable only when
//! told to, follows links as the system does, never retries and keeps nothing in memory.

#![expect(clippy::disallowed_methods, reason = "the real world")]

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Clock, DirEntry, Entropy, Env, File, Fs, Lock, LockMode, Metadata};
use crate::time::Timestamp;

/// Makes the environment of a real program.
pub fn os_env() -> Env {
    Env { fs: Arc::new(OsFs), clock: Arc::new(OsClock::new()), entropy: Arc::new(OsEntropy) }
}

/// Lets other processes go first from now on: for bulk work, beside which hooks and questions should answer at once.
///
/// Threads that are running already keep their priority, so a command calls this before it starts any.
pub fn yield_to_others() {
    // Where the system does not allow it, the work goes on as it would have.
    let _ = rustix::process::nice(NICENESS);
}

/// How much others go first: enough that they hardly notice, and nothing is lost where nobody else works.
const NICENESS: i32 = 10;

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

impl Fs for OsFs {
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::File::open(path)?;
        // The system opens directories for reading and only fails at the first read.
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Box::new(OsFile(file)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(OsFile(fs::OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path, private: bool) -> io::Result<Box<dyn File>> {
        let mode = if private { 0o600 } else { 0o644 };
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
        Ok(Box::new(OsFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let mut is_dir = entry.file_type()?.is_dir();
            if entry.file_type()?.is_symlink() {
                // A link to nowhere is a name that is no directory.
                is_dir = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
            }
            entries.push(DirEntry { name: entry.file_name(), is_dir });
        }
        entries.sort();
        Ok(entries)
    }

    fn create_shared_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let directory = fs::File::open(path)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        directory.sync_all()
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let metadata = fs::metadata(path)?;
        Ok(Metadata {
            bytes: metadata.len(),
            is_dir: metadata.is_dir(),
            modified: timestamp(metadata.mtime(), metadata.mtime_nsec()),
            changed: timestamp(metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    fn is_plain(&self, path: &Path) -> io::Result<bool> {
        let kind = fs::symlink_metadata(path)?.file_type();
        Ok(kind.is_file() || kind.is_dir())
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        Ok(Some(fs::metadata(path)?.permissions().mode() & 0o777))
    }

    fn make_private(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    }

    fn try_lock(&self, path: &Path, mode: LockMode) -> io::Result<Option<Box<dyn Lock>>> {
        let mut options = fs::OpenOptions::new();
        let file = match options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path) {
            // Readers of a store they may not write share the lock file that is there.
            Err(error) if mode == LockMode::Shared && is_denied(&error) => fs::File::open(path)?,
            opened => opened?,
        };
        let taken = match mode {
            LockMode::Shared => file.try_lock_shared(),
            LockMode::Exclusive => file.try_lock(),
        };
        match taken {
            Ok(()) => Ok(Some(Box::new(OsLock { _file: file }))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn timestamp(seconds: i64, nanos: i64) -> Timestamp {
    Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000))
}

struct OsFile(fs::File);

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        // Times are left out: only content and length are promised.
        self.0.sync_data()
    }
}

/// The open file holds the lock; the system releases it when the last descriptor is closed.
struct OsLock {
    _file: fs::File,
}

impl Lock for OsLock {}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct OsClock {
    origin: Instant,
}

impl OsClock {
    /// Makes a clock whose monotonic time starts at zero now.
    pub fn new() -> OsClock {
        OsClock { origin: Instant::now() }
    }
}

impl Default for OsClock {
    fn default() -> OsClock {
        OsClock::new()
    }
}

impl Clock for OsClock {
    fn now(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        };
        Timestamp::from_micros(micros)
    }

    fn monotonic_micros(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, micros: u64) {
        thread::sleep(Duration::from_micros(micros));
    }
}

/// The random bytes of the operating system, fit for keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("a system without random bytes cannot make ids or keys");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// What every `Fs` does, whatever is below it. `root` is an empty directory.
    pub(in crate::env) fn check_conformance(fs: &dyn Fs, root: &Path) {
        files_are_created_once_and_read_at_offsets(fs, root);
        lengths_are_cut_and_extended_with_zeroes(fs, root);
        names_are_replaced_removed_and_listed_in_order(fs, root);
        directories_come_and_go(fs, root);
        handles_survive_their_names(fs, root);
        metadata_tells_files_apart(fs, root);
        locks_exclude_each_other(fs, root);
        assert_eq!(fs.list(root).unwrap(), [], "each check clears up");
    }

    fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
        result.map(drop).expect_err("must fail").kind()
    }

    fn put(fs: &dyn Fs, path: &Path, content: &[u8]) -> Box<dyn File> {
        let file = fs.create(path, false).unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    fn content(fs: &dyn Fs, path: &Path) -> Vec<u8> {
        content_of(&*fs.open(path).unwrap())
    }

    fn content_of(file: &dyn File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn names(fs: &dyn Fs, path: &Path) -> Vec<String> {
        let mark = |entry: &DirEntry| if entry.is_dir { "/" } else { "" };
        let entries = fs.list(path).unwrap();
        entries.iter().map(|entry| format!("{}{}", entry.name.to_str().unwrap(), mark(entry))).collect()
    }

    fn files_are_created_once_and_read_at_offsets(fs: &dyn Fs, root: &Path) {
        let path = root.join("file");
        assert_eq!(kind(fs.open(&path)), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.open_write(&path)), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.create(&root.join("absent/file"), false)), io::ErrorKind::NotFound);
        let file = put(fs, &path, b"hello world");
        assert_eq!(kind(fs.create(&path, true)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(fs.open(&path.join("below"))), io::ErrorKind::NotADirectory);
        let mut buffer = [0; 8];
        assert_eq!(file.read_at(&mut buffer, 6).unwrap(), 5);
        assert_eq!(&buffer[..5], b"world");
        assert_eq!(file.read_at(&mut buffer, 11).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
        assert_eq!(kind(file.read_exact_at(&mut buffer, 6)), io::ErrorKind::UnexpectedEof);
        let reader = fs.open(&path).unwrap();
        reader.write_at(b"x", 0).expect_err("a reader does not write");
        reader.set_len(0).expect_err("a reader does not cut");
        let writer = fs.open_write(&path).unwrap();
        writer.write_all_at(b"there", 6).unwrap();
        writer.write_all_at(b"!", 13).unwrap();
        writer.sync().unwrap();
        assert_eq!(content_of(&*reader), b"hello there\0\0!");
        fs.remove(&path).unwrap();
    }

    fn lengths_are_cut_and_extended_with_zeroes(fs: &dyn Fs, root: &Path) {
        let path = root.join("file");
        let file = put(fs, &path, b"abcdef");
        for (bytes, expected) in [(3, &b"abc"[..]), (5, b"abc\0\0"), (5, b"abc\0\0"), (0, b""), (2, b"\0\0")]
        {
            file.set_len(bytes).unwrap();
            assert_eq!(file.len().unwrap(), bytes);
            assert_eq!(content(fs, &path), expected);
        }
        fs.remove(&path).unwrap();
    }

    fn names_are_replaced_removed_and_listed_in_order(fs: &dyn Fs, root: &Path) {
        for name in ["b", "c", "a"] {
            put(fs, &root.join(name), name.as_bytes());
        }
        fs.create_dir_all(&root.join("aa")).unwrap();
        assert_eq!(names(fs, root), ["a", "aa/", "b", "c"]);
        fs.rename(&root.join("a"), &root.join("b")).unwrap();
        assert_eq!(
            (names(fs, root), content(fs, &root.join("b"))),
            (["aa/", "b", "c"].map(String::from).to_vec(), b"a".to_vec())
        );
        fs.rename(&root.join("b"), &root.join("b")).unwrap();
        fs.rename(&root.join("b"), &root.join("aa/d")).unwrap();
        assert_eq!(
            (names(fs, root), names(fs, &root.join("aa"))),
            (["aa/", "c"].map(String::from).to_vec(), ["d"].map(String::from).to_vec())
        );
        assert_eq!(kind(fs.rename(&root.join("a"), &root.join("b"))), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.rename(&root.join("c"), &root.join("no/c"))), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.rename(&root.join("c"), &root.join("aa"))), io::ErrorKind::IsADirectory);
        assert_eq!(kind(fs.rename(&root.join("aa"), &root.join("c"))), io::ErrorKind::NotADirectory);
        fs.rename(&root.join("aa"), &root.join("e")).unwrap();
        assert_eq!(content(fs, &root.join("e/d")), b"a");
        fs.sync_dir(root).unwrap();
        fs.remove(&root.join("c")).unwrap();
        fs.remove(&root.join("e/d")).unwrap();
        assert_eq!(kind(fs.remove(&root.join("c"))), io::ErrorKind::NotFound);
        fs.remove_dir_all(&root.join("e")).unwrap();
    }

    fn directories_come_and_go(fs: &dyn Fs, root: &Path) {
        let (deep, file) = (root.join("one/two/three"), root.join("one/file"));
        fs.create_dir_all(&deep).unwrap();
        fs.create_dir_all(&deep).unwrap();
        put(fs, &file, b"");
        put(fs, &deep.join("leaf"), b"");
        assert_eq!(names(fs, &root.join("one")), ["file", "two/"]);
        assert!(fs.metadata(&deep).unwrap().is_dir);
        assert_eq!(kind(fs.open(&deep)), io::ErrorKind::IsADirectory);
        assert_eq!(kind(fs.open_write(&deep)), io::ErrorKind::IsADirectory);
        fs.remove(&deep).expect_err("a directory is not a file");
        assert_eq!(kind(fs.create(&deep, false)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(fs.create_dir_all(&file)), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(fs.create_dir_all(&file.join("x"))), io::ErrorKind::NotADirectory);
        assert_eq!(kind(fs.list(&file)), io::ErrorKind::NotADirectory);
        assert_eq!(kind(fs.list(&root.join("zero"))), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.sync_dir(&file)), io::ErrorKind::NotADirectory);
        assert_eq!(kind(fs.sync_dir(&root.join("zero"))), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.remove_dir_all(&root.join("zero"))), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.remove_dir_all(&file)), io::ErrorKind::NotADirectory);
        fs.remove_dir_all(&root.join("one")).unwrap();
        assert_eq!(kind(fs.metadata(&deep)), io::ErrorKind::NotFound);
    }

    fn handles_survive_their_names(fs: &dyn Fs, root: &Path) {
        let (old, new) = (root.join("old"), root.join("new"));
        let (first, second) = (put(fs, &old, b"first"), put(fs, &new, b"second"));
        fs.rename(&old, &new).unwrap();
        first.write_all_at(b"F", 0).unwrap();
        assert_eq!((content(fs, &new), content_of(&*second)), (b"First".to_vec(), b"second".to_vec()));
        fs.remove(&new).unwrap();
        second.write_all_at(b"S", 0).unwrap();
        second.sync().unwrap();
        put(fs, &new, b"third");
        assert_eq!((content_of(&*first), content_of(&*second)), (b"First".to_vec(), b"Second".to_vec()));
        fs.remove(&new).unwrap();
    }

    fn metadata_tells_files_apart(fs: &dyn Fs, root: &Path) {
        let paths = [root.join("one"), root.join("two")];
        let file = put(fs, &paths[0], b"1");
        put(fs, &paths[1], b"22");
        let [one, two] = paths.clone().map(|path| fs.metadata(&path).unwrap());
        assert_eq!((one.bytes, one.is_dir, two.bytes), (1, false, 2));
        assert_eq!((one.device, one.inode == two.inode), (two.device, false));
        file.write_all_at(b"!", 1).unwrap();
        let later = fs.metadata(&paths[0]).unwrap();
        assert_eq!((later.bytes, later.inode), (2, one.inode));
        assert!(later.modified >= one.modified);
        assert!(later.changed >= later.modified);
        fs.rename(&paths[0], &paths[1]).unwrap();
        assert_eq!(fs.metadata(&paths[1]).unwrap().inode, one.inode);
        assert_eq!(kind(fs.metadata(&paths[0])), io::ErrorKind::NotFound);
        fs.remove(&paths[1]).unwrap();
    }

    fn locks_exclude_each_other(fs: &dyn Fs, root: &Path) {
        let path = root.join("lock");
        let take = |mode| fs.try_lock(&path, mode).unwrap();
        let first = take(LockMode::Shared).unwrap();
        let second = take(LockMode::Shared).unwrap();
        assert!(take(LockMode::Exclusive).is_none());
        drop(first);
        assert!(take(LockMode::Exclusive).is_none());
        drop(second);
        let alone = take(LockMode::Exclusive).unwrap();
        assert!(take(LockMode::Shared).is_none());
        assert!(take(LockMode::Exclusive).is_none());
        assert_eq!(fs.metadata(&path).unwrap().bytes, 0);
        drop(alone);
        drop(take(LockMode::Exclusive).unwrap());
        assert_eq!(kind(fs.try_lock(&root.join("no/lock"), LockMode::Shared)), io::ErrorKind::NotFound);
        fs.remove(&path).unwrap();
    }

    /// A directory of its own that goes away with the value.
    struct TempDir(PathBuf);

    impl TempDir {
        fn new(name: &str) -> TempDir {
            let path = std::env::temp_dir().join(format!("agent-trace-env-{}-{name}", std::process::id()));
            OsFs.create_dir_all(&path).unwrap();
            TempDir(path)
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = OsFs.remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_real_file_system_conforms() {
        let temp = TempDir::new("conforms");
        check_conformance(&OsFs, &temp.0);
    }

    #[test]
    fn modes_are_tight_from_the_start() {
        let temp = TempDir::new("modes");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let path = |name: &str| temp.0.join(name);
        OsFs.create(&path("private"), true).unwrap();
        OsFs.create(&path("public"), false).unwrap();
        OsFs.create_dir_all(&path("one/two")).unwrap();
        drop(OsFs.try_lock(&path("lock"), LockMode::Shared).unwrap());
        assert_eq!((mode(&path("private")), mode(&path("lock"))), (0o600, 0o600));
        assert_eq!((mode(&path("one")), mode(&path("one/two"))), (0o700, 0o700));
        assert_eq!(mode(&path("public")) & !0o644, 0);
    }

    #[test]
    fn links_are_followed() {
        let temp = TempDir::new("links");
        std::os::unix::fs::symlink(".", temp.0.join("here")).unwrap();
        std::os::unix::fs::symlink("absent", temp.0.join("nowhere")).unwrap();
        assert_eq!(names(&OsFs, &temp.0), ["here/", "nowhere"]);
        assert_eq!(kind(OsFs.create(&temp.0.join("nowhere"), false)), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn time_passes_and_random_bytes_differ() {
        let env = os_env();
        let (wall, start) = (env.clock.now(), env.clock.monotonic_micros());
        env.clock.sleep(1_000);
        assert!(env.clock.now() > wall);
        assert!(env.clock.monotonic_micros() >= start + 1_000);
        let (mut one, mut two) = ([0; 32], [0; 32]);
        env.entropy.fill(&mut one);
        env.entropy.fill(&mut two);
        assert_ne!(one, two);
    }
}
