//! What git is asked, and how: the one place that starts it.

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
    // Before 2.31 git does not know the option, and repeats it.
    let answer = output.stdout.strip_prefix(b"--path-format=absolute\n").unwrap_or(&output.stdout);
    let answer = answer.strip_suffix(b"\n").unwrap_or(answer);
    Ok(directory.join(OsStr::from_bytes(answer)))
}
