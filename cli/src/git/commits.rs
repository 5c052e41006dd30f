//! Commits: which there are, what each says of itself, and which files it changes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Stdio;

use agent_trace_store::{Error, ErrorKind, Result, Timestamp};

use super::objects::{Object, Objects};
use super::process::{Git, answer, not_started};

/// What one question asks of git at most.
const COMMITS_TOGETHER: usize = 512;

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Its id, in hex.
    pub(crate) id: String,
    /// Its parents.
    pub(crate) parents: Vec<String>,
    /// Who wrote it, as git spells it: a name and an address.
    pub(crate) author: String,
    /// When it was written.
    pub(crate) authored: Timestamp,
    /// When it was committed.
    pub(crate) committed: Timestamp,
    /// What it says.
    pub(crate) message: String,
}

/// A file that a commit changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Its path in the commit; the one that it had before, where it was removed.
    pub(crate) path: OsString,
    /// What it holds in the commit; nothing where it was removed.
    pub(crate) blob: Option<String>,
    /// For each parent the path and what it held there; nothing where it was not there.
    pub(crate) before: Vec<Option<(OsString, String)>>,
}

impl Commit {
    /// Reads a commit.
    pub(crate) fn read(objects: &mut Objects, id: &str) -> Result<Option<Commit>> {
        match objects.read(id)? {
            Object::Bytes(bytes) => Ok(Commit::parse(id, &bytes)),
            Object::Missing | Object::TooLarge => Ok(None),
        }
    }

    fn parse(id: &str, bytes: &[u8]) -> Option<Commit> {
        let text = String::from_utf8_lossy(bytes);
        let (head, message) = text.split_once("\n\n").unwrap_or((&text, ""));
        let (mut parents, mut author, mut authored, mut committed) = (Vec::new(), String::new(), None, None);
        for line in head.lines() {
            match line.split_once(' ') {
                Some(("parent", parent)) => parents.push(parent.to_owned()),
                Some(("author", rest)) => {
                    author = rest.rsplitn(3, ' ').nth(2).unwrap_or_default().to_owned();
                    authored = seconds(rest);
                }
                Some(("committer", rest)) => committed = seconds(rest),
                _ => {}
            }
        }
        let (authored, committed) = (authored?, committed?);
        Some(Commit { id: id.to_owned(), parents, author, authored, committed, message: message.to_owned() })
    }
}

/// The instant in the line of an author or committer.
fn seconds(line: &str) -> Option<Timestamp> {
    let seconds: i64 = line.rsplit(' ').nth(1)?.parse().ok()?;
    Some(Timestamp::from_micros(seconds.saturating_mul(1_000_000)))
}

/// Ids of commits, parents before children and otherwise by time; `args` are those of `git rev-list`.
pub(crate) fn list(git: &Git, args: &[&str]) -> Result<Vec<String>> {
    let mut all = vec!["rev-list", "--reverse", "--date-order"];
    all.extend_from_slice(args);
    let printed = git.ask(&all)?;
    Ok(String::from_utf8_lossy(&printed).lines().map(str::to_owned).collect())
}

/// The commit that a name stands for.
pub(crate) fn resolve(git: &Git, name: &str) -> Result<String> {
    let spec = format!("{name}^{{commit}}");
    let printed =
        git.ask(&["rev-parse", "--verify", "--quiet", "--end-of-options", &spec]).map_err(|error| {
            Error::new(ErrorKind::NotFound, format!("there is no commit `{name}`"))
                .with_source(error.to_string())
        })?;
    Ok(String::from_utf8_lossy(&printed).trim().to_owned())
}

/// The files that commits change. Of a merge only those that differ from all parents count.
pub(crate) fn changes(git: &Git, ids: &[String]) -> Result<HashMap<String, Vec<Changed>>> {
    let mut all = HashMap::new();
    for some in ids.chunks(COMMITS_TOGETHER) {
        let mut child = git
            .command(["diff-tree", "--stdin", "-r", "-z", "-M", "-c", "--root", "--raw", "--no-abbrev"])
            .args(["--combined-all-paths", "--always", "--no-ext-diff", "--no-textconv"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| not_started(&error))?;
        let mut input = child.stdin.take().expect("it was piped");
        let list = some.join("\n") + "\n";
        // The list fits the pipe, so this cannot wait for output that nobody reads.
        let written = input.write_all(list.as_bytes());
        drop(input);
        let output = child.wait_with_output().map_err(|error| not_started(&error))?;
        let printed = answer("diff-tree", output)?;
        written.map_err(|error| not_started(&error))?;
        parse_changes(&printed, &mut all)?;
    }
    Ok(all)
}

fn parse_changes(printed: &[u8], all: &mut HashMap<String, Vec<Changed>>) -> Result<()> {
    let nonsense = || Error::new(ErrorKind::Failed, "cannot read what `git diff-tree` prints");
    let mut fields = printed.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    let mut current = String::new();
    while let Some(field) = fields.next() {
        let parents = field.iter().take_while(|byte| **byte == b':').count();
        if parents == 0 {
            current = String::from_utf8_lossy(field).into_owned();
            all.entry(current.clone()).or_default();
            continue;
        }
        let line = std::str::from_utf8(&field[parents..]).map_err(|_| nonsense())?;
        let words: Vec<&str> = line.split(' ').collect();
        if words.len() != 2 * (parents + 1) + 1 {
            return Err(nonsense());
        }
        let (modes, rest) = words.split_at(parents + 1);
        let (ids, status) = rest.split_at(parents + 1);
        let is_renamed = status[0].starts_with(['R', 'C']);
        let paths = match (parents, is_renamed) {
            (1, false) => 1,
            (1, true) => 2,
            _ => parents + 1,
        };
        let paths: Vec<&OsStr> = fields.by_ref().take(paths).map(OsStr::from_bytes).collect();
        let path = paths.last().ok_or_else(nonsense)?;
        let file = |at: usize| is_file(modes[at]).then(|| ids[at].to_owned());
        let before = (0..parents).map(|at| {
            let path = paths.get(at).unwrap_or(path);
            file(at).map(|id| (OsString::from(path), id))
        });
        let changed = Changed { path: OsString::from(path), blob: file(parents), before: before.collect() };
        if changed.blob.is_some() || changed.before.iter().any(Option::is_some) {
            all.get_mut(&current).ok_or_else(nonsense)?.push(changed);
        }
    }
    Ok(())
}

/// Whether a mode is that of a file: no link, no other repository, not nothing.
fn is_file(mode: &str) -> bool {
    mode.starts_with("100")
}

/// A path as records spell it; bytes that are no UTF-8 are replaced, so such a path is never mixed up with another.
pub(crate) fn spelled(path: &OsStr) -> String {
    match path.to_str() {
        Some(path) => path.to_owned(),
        None => String::from_utf8_lossy(&path.to_owned().into_vec()).into_owned(),
    }
}
