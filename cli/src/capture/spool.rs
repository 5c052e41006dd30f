//! The spool: a directory of entries, in the order of their names, which is that of their arrival.
//!
//! ```text
//! projects/<id>/spool/<microseconds, 16 hex>-<random, 16 hex>.entry     complete, mode 0600
//! projects/<id>/spool/.<the same>.new                                   being written, or left by a process that died
//! projects/<id>/spool/odd/                                              entries that could not be understood
//! projects/<id>/spool/failed                                            failures of hooks, of a fixed size
//! projects/<id>/spool/tails/<BLAKE3 of a transcript's path>             how far it has been taken
//! projects/<id>/spool/absorb.lock, flush.lock                           who absorbs; who runs in the background
//! ```
//!
//! Whoever puts an entry here needs no lock; whoever takes one away holds `absorb.lock`.

use std::io;
use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, File};
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, Result, Timestamp};

use super::limits::{FAILURE_BYTES, FAILURES_MAX, LEFTOVER_MICROS_MIN, ODD_BYTES_MAX, ODD_ENTRIES_MAX};

const ENTRY: &str = ".entry";
const FAILED: &str = "failed";

/// The spool of one project.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
}

/// A failure of a hook that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) time: Timestamp,
    pub(crate) message: String,
}

/// An entry that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

impl Spool {
    /// The spool among a project's data.
    pub(crate) fn of(data: &Path) -> Spool {
        Spool { dir: data.join("spool") }
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file or directory of it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the offset of a transcript is kept.
    pub(crate) fn tail_path(&self, transcript: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let hash = blake3::hash(transcript.as_os_str().as_bytes());
        self.dir.join("tails").join(encode_hex(&hash.as_bytes()[..16]))
    }

    /// Makes it, if it is not there; `failed` is given its place on the disk while there is some.
    pub(crate) fn make(&self, env: &Env) -> io::Result<()> {
        if env.fs.metadata(&self.path("tails")).is_ok() {
            return Ok(());
        }
        // A project that was removed meanwhile does not come back by what is said of it.
        env.fs.metadata(self.dir.parent().unwrap_or(&self.dir))?;
        env.fs.create_dir_all(&self.path("odd"))?;
        match env.fs.create(&self.path(FAILED), true) {
            Ok(file) => file.write_all_at(&vec![b' '; FAILURES_MAX * FAILURE_BYTES], 0)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        env.fs.create_dir_all(&self.path("tails"))
    }

    /// Puts an entry in: written aside by `write`, then renamed. Durable too where that is wanted.
    pub(crate) fn put(
        &self,
        env: &Env,
        arrived: Timestamp,
        durable: bool,
        write: impl FnOnce(&dyn File) -> io::Result<()>,
    ) -> io::Result<String> {
        self.make(env)?;
        let mut random = [0; 8];
        env.entropy.fill(&mut random);
        let micros = u64::try_from(arrived.micros()).unwrap_or_default();
        let name = format!("{micros:016x}-{}{ENTRY}", encode_hex(&random));
        let aside = self.path(&format!(".{name}.new"));
        let file = env.fs.create(&aside, true)?;
        let written = write(&*file)
            .and_then(|()| if durable { file.sync() } else { Ok(()) })
            .and_then(|()| env.fs.rename(&aside, &self.path(&name)));
        if let Err(error) = written {
            // It takes up space that may be what is missing.
            let _ = env.fs.remove(&aside);
            return Err(error);
        }
        if durable {
            env.fs.sync_dir(&self.dir)?;
        }
        Ok(name)
    }

    /// The entries that wait, in order of arrival. A spool that was never made has none.
    pub(crate) fn list(&self, env: &Env) -> Result<Vec<String>> {
        let entries = match env.fs.list(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.error("list", error)),
        };
        let names = entries.into_iter().filter(|entry| !entry.is_dir);
        let names = names.filter_map(|entry| entry.name.into_string().ok());
        Ok(names.filter(|name| name.ends_with(ENTRY) && !name.starts_with('.')).collect())
    }

    /// The same with their lengths; what goes away meanwhile is left out.
    pub(crate) fn waiting(&self, env: &Env) -> Result<Vec<Waiting>> {
        let names = self.list(env)?.into_iter();
        Ok(names
            .filter_map(|name| {
                let bytes = env.fs.metadata(&self.path(&name)).ok()?.bytes;
                Some(Waiting { name, bytes })
            })
            .collect())
    }

    /// Removes what was written aside by a process that died.
    pub(crate) fn remove_leftovers(&self, env: &Env) {
        let now = env.clock.now();
        for entry in env.fs.list(&self.dir).unwrap_or_default() {
            let name = entry.name.to_string_lossy();
            if !(name.starts_with('.') && name.ends_with(".new")) {
                continue;
            }
            let path = self.dir.join(&entry.name);
            let modified = env.fs.metadata(&path).map(|metadata| metadata.modified);
            if modified.is_ok_and(|modified| now.micros() - modified.micros() > LEFTOVER_MICROS_MIN) {
                // Left-overs harm nobody.
                let _ = env.fs.remove(&path);
            }
        }
    }

    /// Puts an entry that cannot be understood aside. Where there are too many, the oldest goes, and that is noted.
    pub(crate) fn put_aside(&self, env: &Env, name: &str, why: &str) -> Result<()> {
        let odd = self.path("odd");
        env.fs.create_dir_all(&odd).map_err(|error| self.error("make `odd` in", error))?;
        env.fs
            .rename(&self.path(name), &odd.join(name))
            .map_err(|error| self.error("put aside from", error))?;
        self.note(env, &format!("put aside `{name}`: {why}"));
        let mut kept = self.odd(env);
        while kept.len() > ODD_ENTRIES_MAX || kept.iter().map(|(_, bytes)| bytes).sum::<u64>() > ODD_BYTES_MAX
        {
            let (oldest, _) = kept.remove(0);
            env.fs.remove(&odd.join(&oldest)).map_err(|error| self.error("clear `odd` of", error))?;
            self.note(env, &format!("removed `{oldest}`: too many entries could not be understood"));
        }
        Ok(())
    }

    /// The entries that were put aside, oldest first, with their lengths.
    pub(crate) fn odd(&self, env: &Env) -> Vec<(String, u64)> {
        let odd = self.path("odd");
        let entries = env.fs.list(&odd).unwrap_or_default().into_iter();
        entries
            .filter_map(|entry| {
                let bytes = env.fs.metadata(&odd.join(&entry.name)).ok()?.bytes;
                Some((entry.name.to_string_lossy().into_owned(), bytes))
            })
            .collect()
    }

    /// Keeps a failure, in place of the oldest. Never fails: this is where failures end.
    pub(crate) fn note(&self, env: &Env, message: &str) {
        let path = self.path(FAILED);
        let file = env.fs.open_write(&path).or_else(|_| {
            self.make(env)?;
            env.fs.open_write(&path)
        });
        let Ok(file) = file else { return };
        let content =
            super::repository::read(&*file, 0, (FAILURES_MAX * FAILURE_BYTES) as u64).unwrap_or_default();
        let time = |slot: usize| {
            let line = content.get(slot * FAILURE_BYTES..(slot + 1) * FAILURE_BYTES);
            line.and_then(parse_failure).map(|failed| failed.time)
        };
        let oldest = (0..FAILURES_MAX).min_by_key(|slot| time(*slot)).unwrap_or_default();
        let mut line =
            format!("{} {}", env.clock.now(), message.replace(['\n', '\r', '\0'], " ")).into_bytes();
        line.resize(FAILURE_BYTES - 1, b' ');
        line.push(b'\n');
        let _ = file.write_all_at(&line, (oldest * FAILURE_BYTES) as u64);
    }

    /// The failures that were kept, oldest first.
    pub(crate) fn failures(&self, env: &Env) -> Vec<Failed> {
        let bytes_max = (FAILURES_MAX * FAILURE_BYTES) as u64;
        let content =
            super::repository::read_start(env.fs.as_ref(), &self.path(FAILED), bytes_max).unwrap_or_default();
        let mut failures: Vec<Failed> = content.chunks(FAILURE_BYTES).filter_map(parse_failure).collect();
        failures.sort_by_key(|failed| failed.time);
        failures
    }

    fn error(&self, doing: &str, error: io::Error) -> Error {
        Error::io(format!("cannot {doing} the spool `{}`", self.dir.display()), error)
    }
}

fn parse_failure(line: &[u8]) -> Option<Failed> {
    let line = String::from_utf8_lossy(line);
    let (time, message) = line.trim_end().split_once(' ')?;
    Some(Failed { time: Timestamp::parse(time)?, message: message.to_owned() })
}

/// When an entry of this name arrived.
pub(crate) fn arrived(name: &str) -> Option<Timestamp> {
    let micros = i64::from_str_radix(name.get(..16)?, 16).ok()?;
    Some(Timestamp::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_trace_store::env::os_env;

    #[test]
    fn failures_are_kept_in_a_file_of_a_fixed_size() {
        let directory = tempfile::tempdir().unwrap();
        let (env, spool) = (os_env(), Spool::of(directory.path()));
        for number in 0..FAILURES_MAX + 5 {
            spool.note(&env, &format!("number {number}\n{}", "é".repeat(200)));
        }
        let failures = spool.failures(&env);
        assert_eq!(failures.len(), FAILURES_MAX);
        assert!(failures.last().unwrap().message.starts_with(&format!("number {} é", FAILURES_MAX + 4)));
        let bytes = env.fs.metadata(&spool.path(FAILED)).unwrap().bytes;
        assert_eq!(bytes, (FAILURES_MAX * FAILURE_BYTES) as u64);
    }

    #[test]
    fn a_project_that_is_gone_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let env = os_env();
        Spool::of(&directory.path().join("gone")).note(&env, "x");
        assert!(env.fs.metadata(&directory.path().join("gone")).is_err());
    }

    #[test]
    fn what_cannot_be_understood_is_kept_within_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let (env, spool) = (os_env(), Spool::of(directory.path()));
        let mut names = Vec::new();
        for number in 0..ODD_ENTRIES_MAX + 3 {
            let time = Timestamp::from_micros(number as i64);
            names.push(spool.put(&env, time, false, |file| file.write_all_at(b"x", 0)).unwrap());
        }
        assert_eq!(spool.list(&env).unwrap(), names);
        assert_eq!(arrived(&names[2]), Some(Timestamp::from_micros(2)));
        for name in &names {
            spool.put_aside(&env, name, "nonsense").unwrap();
        }
        let kept: Vec<String> = spool.odd(&env).into_iter().map(|(name, _)| name).collect();
        assert_eq!(kept, names[3..]);
        assert!(spool.list(&env).unwrap().is_empty());
    }
}
