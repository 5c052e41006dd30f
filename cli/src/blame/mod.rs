//! Whose lines a file holds now: git says which commit each line comes from, the commit's ledger whose it is there.
//!
//! ```text
//! git blame ─► commit, path and line of each line ─► ledgers of these commits ─► run of lines ─► trace ─► session, prompt
//! ```
//!
//! git works while the store is opened; ledgers and traces are asked for all at once. A line is attributed only if it
//! is the one that the ledger speaks of, by its hash. Lines that are not committed are attributed by the traces, and so are
//! those of commits that nobody has linked, for this answer.

pub(crate) mod place;
pub(crate) mod porcelain;
pub(crate) mod prompts;
pub(crate) mod traces;
pub(crate) mod unlinked;

use std::collections::{BTreeSet, HashMap};
use std::error::Error as _;
use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;
use agent_trace_store::{Error, ErrorKind, Store};

use crate::edit::line::LineHash;
use crate::git::blame::{self, Blamed, BlamedLine, Blaming};
use crate::git::commits::spelled;
use crate::git::objects::FILE_BYTES_MAX;
use crate::link::Linker;
use crate::link::known::Known;
use crate::link::ledger::{Attribution, Ledger};
use crate::report::Failure;

use place::Spot;
use traces::TraceFacts;
use unlinked::Unlinked;

/// A blame on its way.
pub(crate) struct Asked<'a> {
    spot: &'a Spot,
    is_now: bool,
    running: Blaming,
    range: Option<Range<usize>>,
}

/// A file's lines and whose they are.
pub(crate) struct Annotated {
    /// From the root of the repository.
    pub(crate) file: String,
    /// The lines that were asked for.
    pub(crate) lines: Vec<Line>,
    /// The traces that they name, as far as they are here.
    pub(crate) traces: HashMap<String, TraceFacts>,
    /// What became of commits that nobody has linked.
    pub(crate) unlinked: Unlinked,
}

/// A line, and whose it is.
pub(crate) struct Line {
    /// What git knows of it.
    pub(crate) blamed: BlamedLine,
    /// An agent's, if it is one.
    pub(crate) by: Option<Rc<Run>>,
    /// The hash that the ledger has of it.
    pub(crate) hash: Option<String>,
}

/// Lines of one trace in one commit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The trace.
    pub(crate) trace: Option<String>,
    /// The model.
    pub(crate) model: Option<String>,
    /// The conversation.
    pub(crate) conversation: Option<String>,
    /// How it is known.
    pub(crate) how: Option<String>,
}

/// Starts to blame a file, and does not wait for it.
pub(crate) fn start<'a>(
    spot: &'a Spot,
    revision: Option<&str>,
    range: Option<Range<usize>>,
) -> Result<Asked<'a>, Failure> {
    let ranges: Vec<Range<usize>> = range.iter().cloned().collect();
    let running = blame::start(&spot.git, revision, &spot.path, &ranges)?;
    Ok(Asked { spot, is_now: revision.is_none(), running, range })
}

impl Asked<'_> {
    /// Waits for git, and finds whose the lines are.
    pub(crate) fn finish(self, store: &Store, known: &mut Known<'_>) -> Result<Annotated, Failure> {
        let Asked { spot, is_now, running, range } = self;
        let file = spelled(&spot.path);
        let blamed = match running.finish() {
            Ok(lines) => lines,
            Err(error) => {
                let refused = refused(&error, &file);
                match untracked(store.env(), spot, range.as_ref()).filter(|_| is_now && refused.is_absent) {
                    Some(lines) => lines?,
                    None => return Err(refused.failure),
                }
            }
        };
        let commits: BTreeSet<&str> = blamed
            .iter()
            .filter(|line| line.commit.is_committed())
            .map(|line| line.commit.id.as_str())
            .collect();
        known.prepare(&commits.into_iter().collect::<Vec<_>>())?;
        let unlinked = unlinked::link(store, &spot.git, known, &blamed)?;
        let now = match blamed.iter().find(|line| !line.commit.is_committed()) {
            Some(line) => work_tree(store, spot, &line.commit)?.map(Rc::new),
            None => None,
        };
        let mut runs = Runs::default();
        let mut lines = Vec::with_capacity(blamed.len());
        for blamed in blamed {
            let ledger =
                if blamed.commit.is_committed() { known.ledger(&blamed.commit.id)? } else { now.clone() };
            let found = ledger.as_ref().and_then(|ledger| runs.of(ledger, &blamed));
            let (by, hash) = found.unzip();
            lines.push(Line { blamed, by, hash: hash.flatten() });
        }
        let ids: BTreeSet<&str> =
            lines.iter().filter_map(|line| line.by.as_ref()?.trace.as_deref()).collect();
        let traces = traces::read(store, known.snapshot(), &ids.into_iter().collect::<Vec<_>>())?;
        Ok(Annotated { file, lines, traces, unlinked })
    }
}

/// Runs, each once.
#[derive(Default)]
struct Runs(HashMap<(*const Ledger, OsString, u64), Rc<Run>>);

impl Runs {
    /// The run of a line and the hash that the ledger has of it; nothing if it has another.
    fn of(&mut self, ledger: &Rc<Ledger>, line: &BlamedLine) -> Option<(Rc<Run>, Option<String>)> {
        let number = line.line_original as u64;
        let found = ledger.at(&spelled(&line.path), number).filter(|run| run.kind != "human")?;
        let hash = evidence(found, number);
        if hash.is_some_and(|hash| !is_hash_of(hash, &line.bytes)) {
            return None;
        }
        let key = (Rc::as_ptr(ledger), (*line.path).clone(), found.start_line);
        let run = self.0.entry(key).or_insert_with(|| {
            Rc::new(Run {
                trace: found.trace_id.clone(),
                model: found.model_id.clone(),
                conversation: found.conversation_id.clone(),
                how: found.how.clone(),
            })
        });
        Some((run.clone(), hash.map(str::to_owned)))
    }
}

/// What a run says of a line.
fn evidence(run: &Attribution, number: u64) -> Option<&str> {
    let guess = usize::try_from(number.checked_sub(run.start_line)?).ok()?;
    let fits = |line: &&crate::link::ledger::Evidence| line.line == number;
    let found =
        run.evidence.get(guess).filter(fits).or_else(|| run.evidence.iter().find(|line| line.line == number));
    found.map(|line| line.hash.as_str())
}

/// Whether a hash is that of a line, with or without a carriage return at its end. What is no hash says nothing.
fn is_hash_of(text: &str, line: &[u8]) -> bool {
    let Some(hash) = LineHash::parse(text) else { return true };
    LineHash::of(line) == hash || line.strip_suffix(b"\r").is_some_and(|line| LineHash::of(line) == hash)
}

/// Why git has not answered.
struct Refused {
    failure: Failure,
    /// Whether the commit has no such file.
    is_absent: bool,
}

fn refused(error: &Error, file: &str) -> Refused {
    let said = error.source().map(ToString::to_string).unwrap_or_default();
    let has = |part: &str| said.contains(part);
    let no_history =
        has("no such ref: HEAD") || has("bad revision 'HEAD'") || has("ambiguous argument 'HEAD'");
    let is_absent = has("no such path") || no_history;
    let is_missing = is_absent || has("cannot lstat") || has("Cannot lstat") || has("cannot stat path");
    let (kind, message) = if is_missing {
        (ErrorKind::NotFound, format!("there is no file `{file}`"))
    } else if has("has only") {
        (ErrorKind::Invalid, format!("`{file}` has no such lines"))
    } else {
        (error.kind(), format!("git cannot blame `{file}`"))
    };
    let failure = Failure::from(Error::new(kind, message).with_source(said));
    Refused { failure, is_absent }
}

/// The lines of a file that git does not know yet; nothing if there is no such file.
fn untracked(
    env: &Env,
    spot: &Spot,
    range: Option<&Range<usize>>,
) -> Option<Result<Vec<BlamedLine>, Failure>> {
    let bytes = read_small(env, &spot.on_disk()?, FILE_BYTES_MAX).ok()?;
    let commit = Rc::new(Blamed {
        id: "0".repeat(40),
        author: "Not Committed Yet".into(),
        mail: "<not.committed.yet>".into(),
        authored: env.clock.now(),
        zone: "+0000".into(),
        ..Blamed::default()
    });
    let path = Rc::new(spot.path.clone());
    let whole = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let all = whole.split(|byte| *byte == b'\n').take(if bytes.is_empty() { 0 } else { usize::MAX });
    let lines: Vec<BlamedLine> = all
        .zip(1..)
        .filter(|(_, line)| range.is_none_or(|range| range.contains(line)))
        .map(|(bytes, line)| BlamedLine {
            commit: commit.clone(),
            path: path.clone(),
            line_original: line,
            line,
            bytes: bytes.to_vec(),
        })
        .collect();
    if lines.is_empty() && range.is_some() {
        let message = format!("`{}` has no such lines", spelled(&spot.path));
        return Some(Err(Error::invalid(message).into()));
    }
    Some(Ok(lines))
}

/// The ledger that the file would have if it were committed now; `blamed` is what git says of lines that are not.
fn work_tree(store: &Store, spot: &Spot, blamed: &Blamed) -> Result<Option<Ledger>, Failure> {
    let Some(path) = spot.on_disk() else { return Ok(None) };
    // A file that is larger, or gone by now, is nobody's.
    let Ok(bytes) = read_small(store.env(), &path, FILE_BYTES_MAX) else { return Ok(None) };
    let before = blamed.header.iter().find_map(|line| line.strip_prefix(b"previous "));
    let before = before.and_then(|line| {
        let at = memchr::memchr(b' ', line)?;
        let commit = std::str::from_utf8(&line[..at]).ok()?.to_owned();
        Some((commit, blame::unquoted(&line[at + 1..])))
    });
    let mut linker = Linker::open(store, &spot.git)?;
    Ok(Some(linker.work_tree(&spelled(&spot.path), bytes, before)?))
}

/// A path as git prints it: in quotes where it holds what would break a line.
pub(crate) fn quoted(path: &std::ffi::OsStr) -> Vec<u8> {
    let bytes = path.as_bytes();
    if !bytes.iter().any(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7f)) {
        return bytes.to_vec();
    }
    let mut quoted = vec![b'"'];
    for byte in bytes {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', *byte]),
            b'\n' => quoted.extend(b"\\n"),
            b'\t' => quoted.extend(b"\\t"),
            b'\r' => quoted.extend(b"\\r"),
            byte if *byte < 0x20 || *byte == 0x7f => quoted.extend(format!("\\{byte:03o}").as_bytes()),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn names_are_quoted_as_git_does_and_read_back() {
        for name in ["plain name", "ä", "a\"b", "a\\b", "new\nline", "\t\u{1}\u{7f}"] {
            let quoted = quoted(OsStr::new(name));
            assert!(!quoted.contains(&b'\n'));
            assert_eq!(blame::unquoted(&quoted), OsStr::new(name));
        }
        assert_eq!(quoted(OsStr::new("a\n\"b")), br#""a\n\"b""#);
    }

    #[test]
    fn a_line_is_attributed_only_if_it_is_the_one_that_the_ledger_speaks_of() {
        let hash = LineHash::of(b"x").text();
        assert!(is_hash_of(&hash, b"x"));
        assert!(is_hash_of(&hash, b"x\r"));
        assert!(!is_hash_of(&hash, b"y"));
        assert!(is_hash_of("", b"y"));
    }
}
