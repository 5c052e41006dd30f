//! The data folder of a service: its files, the lock that keeps it to one process, and removal of projects.
//!
//! ```text
//! format          "agent-trace service 1", written last: its presence says that the rest is there
//! lock            locked while a process uses the folder; names that process
//! pepper          32 random bytes, the key of all hashes of tokens, 0600
//! accounts.redb   organisations, projects, tokens
//! projects/<id>/  the archive of each project
//! removed/<id>/   what was the archive of a removed project, until its bytes are gone
//! ```
//!
//! Making a folder may be cut short anywhere and run again. A folder that holds anything else is refused.

use std::io;
use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, Lock, LockMode};
use agent_trace_store::layout::{create_dir_durably, read_small, write_durably};
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind, Result};

use super::secret::{PEPPER_BYTES, Pepper};
use super::uuid::Uuid;
use crate::limits::SERVICE_LOCK_WAIT_MICROS_MAX;

const FORMAT_FIRST: &str = "agent-trace service";
const FORMAT_VERSION: u32 = 1;
const HOLDER_BYTES_MAX: u64 = 256;
/// What may be there when a folder is made, since the process before may have died.
const HALF_MADE: [&str; 6] = ["lock", "pepper", "accounts.redb", "accounts.redb.new", "projects", "removed"];

/// What to do where there is no data folder yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Make one.
    Create,
    /// Say so.
    Refuse,
}

/// A data folder that this process uses alone.
pub(super) struct Folder {
    env: Env,
    dir: PathBuf,
    _lock: Box<dyn Lock>,
}

impl Folder {
    /// Takes a folder; what is missing in it is made or refused.
    pub(super) fn open(env: &Env, dir: &Path, missing: Missing) -> Result<Folder> {
        let is_made = is_made(env, dir)?;
        if !is_made {
            if missing == Missing::Refuse {
                let message = format!("there is no data of a service in `{}`", dir.display());
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            check_empty(env, dir)?;
            let doing = |error| Error::io(format!("cannot make the data folder `{}`", dir.display()), error);
            create_dir_durably(env, dir).map_err(doing)?;
        }
        let lock_path = dir.join("lock");
        let held = lock(env, &lock_path, LockMode::Exclusive, SERVICE_LOCK_WAIT_MICROS_MAX);
        let held = held.map_err(|error| match error.kind() {
            ErrorKind::Unavailable => in_use(env, dir),
            _ => error,
        })?;
        let folder = Folder { env: env.clone(), dir: dir.to_owned(), _lock: held };
        let holder = format!("process {} since {}\n", std::process::id(), env.clock.now());
        folder.write_holder(holder.as_bytes())?;
        Ok(folder)
    }

    /// A path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the archive of a project lies.
    pub(super) fn project(&self, id: Uuid) -> PathBuf {
        self.dir.join("projects").join(id.to_string())
    }

    /// Whether all of it has been made.
    pub(super) fn is_made(&self) -> Result<bool> {
        is_made(&self.env, &self.dir)
    }

    /// Makes what comes before the database, and takes away what an interrupted write left.
    pub(super) fn prepare(&self) -> Result<()> {
        let (fs, dir) = (&self.env.fs, &self.dir);
        let doing = |error| Error::io(format!("cannot use the data folder `{}`", dir.display()), error);
        for entry in fs.list(dir).map_err(doing)? {
            let name = entry.name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(".new") && !entry.is_dir {
                fs.remove(&dir.join(&entry.name)).map_err(doing)?;
            }
        }
        for name in ["projects", "removed"] {
            fs.create_dir_all(&dir.join(name)).map_err(doing)?;
        }
        fs.sync_dir(dir).map_err(doing)
    }

    /// Reads the pepper; where there is none it is made, if that may be.
    pub(super) fn pepper(&self, may_make: bool) -> Result<Pepper> {
        let path = self.path("pepper");
        let bytes = match read_small(&self.env, &path, PEPPER_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_make => {
                let mut bytes = vec![0; PEPPER_BYTES];
                self.env.entropy.fill(&mut bytes);
                write_durably(&self.env, &path, &bytes, true)?;
                bytes
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(super::secret::other_pepper(&path));
            }
            Err(error) => return Err(Error::io(format!("cannot read `{}`", path.display()), error)),
        };
        Pepper::new(&bytes).ok_or_else(|| super::secret::other_pepper(&path))
    }

    /// Bytes of all files below a directory. What goes away meanwhile does not count.
    pub(super) fn bytes_below(&self, dir: &Path) -> Result<u64> {
        let (mut bytes, mut dirs) = (0, vec![dir.to_owned()]);
        while let Some(dir) = dirs.pop() {
            let doing = |error| Error::io(format!("cannot measure `{}`", dir.display()), error);
            let entries = match self.env.fs.list(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(doing)?,
            };
            for entry in entries {
                let path = dir.join(&entry.name);
                if entry.is_dir {
                    dirs.push(path);
                    continue;
                }
                match self.env.fs.metadata(&path) {
                    Ok(metadata) => bytes += metadata.bytes,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(doing(error)),
                }
            }
        }
        Ok(bytes)
    }

    /// Says that all is there.
    pub(super) fn finish(&self) -> Result<()> {
        let text = format!("{FORMAT_FIRST} {FORMAT_VERSION}\n");
        write_durably(&self.env, &self.path("format"), text.as_bytes(), false)
    }

    /// Removes the archive of a project that no row names any more, or what is left of it.
    pub(super) fn remove_project(&self, id: Uuid) -> Result<()> {
        let fs = &self.env.fs;
        let (from, aside) = (self.project(id), self.path("removed").join(id.to_string()));
        let doing = |error| Error::io(format!("cannot remove `{}`", from.display()), error);
        absent_is_well(fs.remove_dir_all(&aside)).map_err(doing)?;
        // Aside first: whoever still works in it finds its names gone at once, not one after the other.
        absent_is_well(fs.rename(&from, &aside)).map_err(doing)?;
        for name in ["projects", "removed"] {
            fs.sync_dir(&self.path(name)).map_err(doing)?;
        }
        absent_is_well(fs.remove_dir_all(&aside)).map_err(doing)
    }

    /// Names this process to others; the lock itself is what counts.
    fn write_holder(&self, text: &[u8]) -> Result<()> {
        let path = self.path("lock");
        let write = || {
            let file = self.env.fs.open_write(&path)?;
            file.set_len(0)?;
            file.write_all_at(text, 0)
        };
        write().map_err(|error| Error::io(format!("cannot write `{}`", path.display()), error))
    }
}

fn is_made(env: &Env, dir: &Path) -> Result<bool> {
    let path = dir.join("format");
    let bytes = match read_small(env, &path, 256) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io(format!("cannot read `{}`", path.display()), error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let version = text.lines().next().and_then(|line| line.strip_prefix(FORMAT_FIRST));
    match version.and_then(|version| version.trim().parse::<u32>().ok()) {
        Some(FORMAT_VERSION) => Ok(true),
        Some(version) => {
            let message = format!(
                "cannot open the data of a service in `{}`: its version {version} is newer than this program",
                dir.display()
            );
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        None => Err(Error::invalid(format!("`{}` is no data folder of a service", dir.display()))),
    }
}

fn check_empty(env: &Env, dir: &Path) -> Result<()> {
    let entries = match env.fs.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot look into `{}`", dir.display()), error)),
    };
    for entry in entries {
        let name = entry.name.to_string_lossy();
        let is_ours = HALF_MADE.contains(&name.as_ref()) || (name.starts_with('.') && name.ends_with(".new"));
        if !is_ours {
            return Err(Error::invalid(format!(
                "cannot make a data folder of `{}`: it holds something else, `{name}`",
                dir.display()
            )));
        }
    }
    Ok(())
}

fn read_holder(env: &Env, path: &Path) -> Result<String> {
    let bytes = read_small(env, path, HOLDER_BYTES_MAX)
        .map_err(|error| Error::io(format!("cannot read `{}`", path.display()), error))?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn in_use(env: &Env, dir: &Path) -> Error {
    // The name is for people; that it cannot be read changes nothing.
    let holder = read_holder(env, &dir.join("lock")).unwrap_or_default();
    let holder = if holder.is_empty() { "another process" } else { &holder };
    Error::new(ErrorKind::Unavailable, format!("the data folder `{}` is in use by {holder}", dir.display()))
}

fn absent_is_well(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
