//! Short questions to git about the repository around a directory, and changes of its configuration.
//!
//! Paths come back as bytes, one question each, since a path may hold a newline. `GIT_DIR` and its like are left as they
//! are: whoever exported them means that repository.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use agent_trace_store::{Error, Result};

/// How git ends where a key is absent, or a section.
const ABSENT: [i32; 2] = [1, 128];

/// A part of the repository, as git finds it from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Where git looks for hooks, `core.hooksPath` included.
    Hooks,
    /// The root of the working tree; a bare repository has none.
    WorkTree,
}

/// Where a part of the repository lies; `None` where there is no repository, or no such part.
pub(crate) fn place(directory: &Path, part: Part) -> Option<PathBuf> {
    let asked: &[&str] = match part {
        Part::Hooks => &["--git-path", "hooks"],
        Part::WorkTree => &["--show-toplevel"],
    };
    let args: Vec<&OsStr> =
        ["rev-parse", "--path-format=absolute"].iter().chain(asked).map(OsStr::new).collect();
    let output = run(directory, &args).ok().filter(|output| output.status.success())?;
    let answer = super::printed_path(&output.stdout);
    (!answer.is_empty()).then(|| directory.join(OsStr::from_bytes(answer)))
}

/// Git's version, its first two numbers.
pub(crate) fn version(directory: &Path) -> Option<(u32, u32)> {
    let output = run(directory, &[OsStr::new("version")]).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.strip_prefix("git version ")?.split(['.', ' ', '\n', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A value of the configuration, and the scope it stands in (`local`, `global`, ...).
pub(crate) fn setting(directory: &Path, key: &str) -> Option<(String, OsString)> {
    let args = ["config", "--null", "--show-scope", "--get", key].map(OsStr::new);
    let output = run(directory, &args).ok().filter(|output| output.status.success())?;
    let mut parts = output.stdout.split(|byte| *byte == 0);
    let scope = String::from_utf8_lossy(parts.next()?).into_owned();
    Some((scope, OsString::from_vec(parts.next()?.to_vec())))
}

/// Keys of the repository's own configuration that match a pattern, with their values.
pub(crate) fn local_matching(directory: &Path, pattern: &str) -> Vec<(String, String)> {
    let args = ["config", "--local", "--null", "--get-regexp", pattern].map(OsStr::new);
    let Ok(output) = run(directory, &args) else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.split_terminator('\0').filter_map(|pair| pair.split_once('\n'));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Sets a key of the repository's own configuration.
pub(crate) fn set_local(directory: &Path, key: &str, value: &OsStr) -> Result<()> {
    let args =
        [OsStr::new("config"), OsStr::new("--local"), OsStr::new("--replace-all"), OsStr::new(key), value];
    done(run(directory, &args), &format!("cannot set `{key}` in git's configuration"), &[])
}

/// Removes a section of the repository's own configuration; one that is not there is fine.
pub(crate) fn remove_local_section(directory: &Path, section: &str) -> Result<()> {
    let args = ["config", "--local", "--remove-section", section].map(OsStr::new);
    let doing = format!("cannot remove `{section}` from git's configuration");
    done(run(directory, &args), &doing, &ABSENT)
}

fn done(ran: io::Result<Output>, doing: &str, fine: &[i32]) -> Result<()> {
    let output = ran.map_err(|error| Error::io(doing, error))?;
    if output.status.success() || output.status.code().is_some_and(|code| fine.contains(&code)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(agent_trace_store::ErrorKind::Failed, doing).with_source(said))
}

fn run(directory: &Path, args: &[&OsStr]) -> io::Result<Output> {
    Command::new("git").args(args).current_dir(directory).env("LC_ALL", "C").output()
}
