//! How git is started: quiet, without prompts, without anybody's hooks or helpers, in one repository and no other.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use agent_trace_store::{Error, ErrorKind, Result};

/// Variables that say which repository git works on; a hook's are another process's business.
const LOCAL_VARIABLES: [&str; 14] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
];

/// A repository, as git is told to find it.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    directory: PathBuf,
    /// Given where the surroundings must not choose the repository.
    git_dir: Option<PathBuf>,
}

impl Git {
    /// The repository that git finds from a directory, `GIT_DIR` included.
    pub(crate) fn from(directory: &Path) -> Git {
        Git { directory: directory.to_owned(), git_dir: None }
    }

    /// The repository with this git directory, whatever the surroundings say.
    pub(crate) fn of(git_dir: &Path) -> Git {
        Git { directory: git_dir.to_owned(), git_dir: Some(git_dir.to_owned()) }
    }

    /// A command of git that reads only.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("git");
        command.current_dir(&self.directory);
        if let Some(git_dir) = &self.git_dir {
            for name in LOCAL_VARIABLES {
                command.env_remove(name);
            }
            command.arg("--git-dir").arg(git_dir);
        }
        command
            .args([
                "-c",
                "core.fsmonitor=false",
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "core.quotePath=false",
            ])
            .args(["-c", "diff.renames=true", "-c", "blame.ignoreRevsFile="])
            .args(args)
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_PAGER", "cat")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end; what it prints.
    pub(crate) fn run(&self, args: &[&OsStr]) -> Result<Vec<u8>> {
        let output = self.command(args).output().map_err(|error| not_started(&error))?;
        answer(&args.first().unwrap_or(&OsStr::new("")).to_string_lossy(), output)
    }

    /// The same with arguments that are text.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<Vec<u8>> {
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        self.run(&args)
    }
}

/// What a command printed, if it did well.
pub(crate) fn answer(what: &str, output: Output) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::invalid(format!("`git {what}` failed")).with_source(said))
}

/// Says that there is no git.
pub(crate) fn not_started(error: &io::Error) -> Error {
    let message = if error.kind() == io::ErrorKind::NotFound {
        "cannot ask git: `git` is not installed"
    } else {
        "cannot start `git`"
    };
    Error::new(ErrorKind::Invalid, message).with_source(error.to_string())
}
