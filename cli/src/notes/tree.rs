//! Notes as git keeps them: a tree of blobs named by commits, and the commits of its ref.
//!
//! All changes of one call become one commit, made beside and put in place by compare-and-swap; whoever loses looks
//! again. Folders of the tree stay as git has made them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write;
use std::process::Stdio;

use agent_trace_store::env::Env;
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, ErrorKind, Result};

use super::payload::NOTE_BYTES_MAX;
use crate::git::objects::{Object, Objects};
use crate::git::process::{Git, answer, not_started};

/// From so many notes on they go into folders.
const FLAT_MAX: usize = 256;
/// How often a lost race for the ref is run again.
const TRIES_MAX: u32 = 64;

/// The notes under one ref.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// The newest commit of the ref.
    pub(crate) tip: Option<String>,
    /// Path in the tree and blob, by commit.
    pub(crate) entries: HashMap<String, (String, String)>,
}

impl Notes {
    /// Reads the notes under a ref; one that is not there has none.
    pub(crate) fn read(git: &Git, name: &str) -> Result<Notes> {
        let Some(tip) = tip(git, name)? else { return Ok(Notes::default()) };
        let printed = git.ask(&["ls-tree", "-r", "-z", "--full-tree", &tip])?;
        let mut entries = HashMap::new();
        for entry in printed.split(|byte| *byte == 0) {
            let text = String::from_utf8_lossy(entry);
            let Some((head, path)) = text.split_once('\t') else { continue };
            let Some(blob) = head.split(' ').nth(2) else { continue };
            let commit = path.replace('/', "");
            if matches!(commit.len(), 40 | 64) && commit.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                entries.insert(commit, (path.to_owned(), blob.to_owned()));
            }
        }
        Ok(Notes { tip: Some(tip), entries })
    }

    /// The note on a commit.
    pub(crate) fn note(&self, objects: &mut Objects, commit: &str) -> Result<Option<Vec<u8>>> {
        let Some((_, blob)) = self.entries.get(commit) else { return Ok(None) };
        match objects.read(blob)? {
            Object::Bytes(bytes) if bytes.len() <= NOTE_BYTES_MAX => Ok(Some(bytes)),
            Object::Bytes(_) | Object::TooLarge | Object::Missing => Ok(None),
        }
    }

    fn path(&self, commit: &str) -> String {
        match self.entries.get(commit) {
            Some((path, _)) => path.clone(),
            None if self.entries.len() >= FLAT_MAX => format!("{}/{}", &commit[..2], &commit[2..]),
            None => commit.to_owned(),
        }
    }
}

/// The commit that a ref names.
pub(crate) fn tip(git: &Git, name: &str) -> Result<Option<String>> {
    let output = git
        .command(["rev-parse", "--verify", "--quiet", "--end-of-options", name])
        .output()
        .map_err(|error| not_started(&error))?;
    let tip = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok((output.status.success() && !tip.is_empty()).then_some(tip))
}

/// Says which notes shall be, by commit, given those that are.
pub(crate) type Change<'a> = dyn FnMut(&Notes, &mut Objects) -> Result<BTreeMap<String, Vec<u8>>> + 'a;

/// Changes notes: `change` is given what there is and says what shall be, as long as others are faster.
/// `theirs` becomes a second parent. False where nothing changes.
pub(crate) fn update(
    env: &Env,
    git: &Git,
    name: &str,
    theirs: Option<&str>,
    message: &str,
    change: &mut Change<'_>,
) -> Result<bool> {
    let mut objects = Objects::open(git)?;
    for tries in 0..TRIES_MAX {
        let notes = Notes::read(git, name)?;
        let changes = change(&notes, &mut objects)?;
        if changes.is_empty() && theirs.is_none() {
            return Ok(false);
        }
        let commit = write(env, git, &notes, theirs, message, &changes)?;
        if swap(git, name, &commit, notes.tip.as_deref())? {
            return Ok(true);
        }
        pause(env, tries);
    }
    Err(Error::new(ErrorKind::Unavailable, format!("others change `{name}` faster than it can be written")))
}

/// Waits a moment that nobody else waits as well, longer the more often the race was lost.
pub(crate) fn pause(env: &Env, tries: u32) {
    let mut random = [0; 2];
    env.entropy.fill(&mut random);
    env.clock.sleep(5_000 + (u64::from(u16::from_le_bytes(random)) << tries.min(5)));
}

/// Puts a ref on a commit, if it is still where it was.
pub(crate) fn swap(git: &Git, name: &str, new: &str, old: Option<&str>) -> Result<bool> {
    let zero = "0".repeat(new.len());
    let output = git
        .command(["update-ref", "-m", "agent-trace notes", name, new, old.unwrap_or(&zero)])
        .output()
        .map_err(|error| not_started(&error))?;
    if output.status.success() {
        return Ok(true);
    }
    // Another tip means that somebody was faster; the same one means that it cannot be written at all.
    if tip(git, name)?.as_deref() != old {
        return Ok(false);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("cannot lock ref") || said.contains("Unable to create") {
        return Ok(false);
    }
    Err(Error::new(ErrorKind::Failed, format!("cannot write `{name}`")).with_source(said.trim().to_owned()))
}

/// Makes a commit of changed notes; no ref of the user's names it yet.
fn write(
    env: &Env,
    git: &Git,
    notes: &Notes,
    theirs: Option<&str>,
    message: &str,
    changes: &BTreeMap<String, Vec<u8>>,
) -> Result<String> {
    let mut random = [0; 8];
    env.entropy.fill(&mut random);
    let aside = format!("refs/agent-trace/aside/{}", encode_hex(&random));
    let mut stream: Vec<u8> = Vec::new();
    let mut head = format!(
        "commit {aside}\ncommitter {} {} +0000\n",
        committer(git),
        env.clock.now().micros() / 1_000_000
    );
    let _ = write!(head, "data {}\n{message}\n", message.len());
    for (word, parent) in [("from", notes.tip.as_deref()), ("merge", theirs)] {
        if let Some(parent) = parent {
            let _ = writeln!(head, "{word} {parent}");
        }
    }
    stream.extend_from_slice(head.as_bytes());
    for (commit, note) in changes {
        stream.extend_from_slice(
            format!("M 100644 inline {}\ndata {}\n", notes.path(commit), note.len()).as_bytes(),
        );
        stream.extend_from_slice(note);
        stream.push(b'\n');
    }
    stream.extend_from_slice(b"\ndone\n");
    let mut child = git
        .command(["fast-import", "--quiet", "--done", "--date-format=raw"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(&error))?;
    // It prints next to nothing, so all of the input can be written first.
    let written = child.stdin.take().expect("it was piped").write_all(&stream);
    let output = child.wait_with_output().map_err(|error| not_started(&error))?;
    answer("fast-import", output)?;
    written.map_err(|error| not_started(&error))?;
    let commit = tip(git, &aside)?;
    git.ask(&["update-ref", "-d", &aside])?;
    commit.ok_or_else(|| Error::new(ErrorKind::Failed, "cannot write notes: git made no commit"))
}

/// Who the notes' commits are by: the user, if git knows one.
fn committer(git: &Git) -> String {
    let known = git.ask(&["var", "GIT_COMMITTER_IDENT"]).ok();
    let known = known.map(|line| String::from_utf8_lossy(&line).trim().to_owned());
    let name = known.and_then(|line| line.rsplitn(3, ' ').nth(2).map(str::to_owned));
    name.filter(|name| name.ends_with('>')).unwrap_or_else(|| "agent-trace <agent-trace@localhost>".into())
}
