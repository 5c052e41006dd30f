//! What git is asked, and how: the one place that starts it.

pub(crate) mod ask;
pub(crate) mod blame;
pub(crate) mod commits;
pub(crate) mod objects;
pub(crate) mod process;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_trace_store::{Error, ErrorKind};

use crate::report::Failure;

/// The directory that all worktrees of the repository share, as git finds it from here (`GIT_DIR` included).
pub(crate) fn common_dir(directory: &Path) -> Result<PathBuf, Failure> {
    let hint = "run it inside a git repository, or give a directory: agent-trace --store DIR init";
    let output = Command::new("git")
        .args(["rev-parse", "--path-format=absolute", "--git-common-dir"])
        .current_dir(directory)
        .output()
        .map_err(|error| {
            let message = if error.kind() == io::ErrorKind::NotFound {
                "cannot look for the git repository: `git` is not installed"
            } else {
                "cannot start `git`"
            };
            Failure::from(Error::new(ErrorKind::Invalid, message).with_source(error)).hint(hint)
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let error = Error::invalid(format!("no git repository at `{}`", directory.display()));
        return Err(Failure::from(error.with_source(said)).hint(hint));
    }
    Ok(directory.join(OsStr::from_bytes(printed_path(&output.stdout))))
}

/// The path that `git rev-parse --path-format=absolute` has printed.
fn printed_path(printed: &[u8]) -> &[u8] {
    // Before 2.31 git does not know the option, and repeats it.
    let answer = printed.strip_prefix(b"--path-format=absolute\n").unwrap_or(printed);
    answer.strip_suffix(b"\n").unwrap_or(answer)
}
