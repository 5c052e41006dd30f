//! Drives our own binary: every command with a store outside git and a home of its own, so that nothing of the user's
//! is touched.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files;
use crate::measure::{self, Job};
use crate::report::Result;

/// The binary and one store.
#[derive(Clone)]
pub(crate) struct Ours {
    binary: PathBuf,
    work: PathBuf,
    pub(crate) store: PathBuf,
}

impl Ours {
    /// A store named `name` in the work folder; nothing is made yet.
    pub(crate) fn new(binary: &Path, work: &Path, name: &str) -> Ours {
        Ours { binary: binary.into(), work: work.into(), store: work.join(name) }
    }

    /// The same binary with another store.
    pub(crate) fn other(&self, name: &str) -> Ours {
        Ours::new(&self.binary, &self.work, name)
    }

    /// One command on this store.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--store").arg(&self.store);
        command.current_dir(&self.work).env("AGENT_TRACE_HOME", self.work.join("home"));
        command
    }

    /// An import of `dir`, with more flags.
    pub(crate) fn import(&self, dir: &Path, flags: &[&str]) -> Command {
        let mut command = self.command([OsStr::new("import"), dir.as_os_str()]);
        command.args(flags);
        command
    }

    /// Removes the store and makes it again, empty.
    pub(crate) fn init(&self) -> Result<()> {
        files::remove(&self.store)?;
        self.run(&["init"])
    }

    /// Runs one command that is not measured.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<()> {
        measure::output(&mut self.command(arguments)).map(drop)
    }

    /// A new store with the records of `dir` in it.
    pub(crate) fn fill(&self, dir: &Path) -> Result<()> {
        eprintln!("filling {}", self.store.display());
        self.init()?;
        measure::output(&mut self.import(dir, &[])).map(drop)
    }

    /// The job of an import into a new store.
    pub(crate) fn import_job(&self, name: &str, dir: &Path, flags: &'static [&'static str]) -> Job<'static> {
        let (before, now, after, dir) = (self.clone(), self.clone(), self.clone(), dir.to_path_buf());
        Job::new(name, move |_| Ok(vec![now.import(&dir, flags)]))
            .prepare(move |_| before.init())
            .bytes(move |_| files::bytes_below(&after.store))
    }

    /// The job of one command on the store as it is.
    pub(crate) fn job(&self, name: &str, arguments: &[&str]) -> Job<'static> {
        let (now, after) = (self.clone(), self.clone());
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).into()).collect();
        Job::new(name, move |_| Ok(vec![now.command(&arguments)]))
            .bytes(move |_| files::bytes_below(&after.store))
    }
}
