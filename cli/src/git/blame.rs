//! Which commit each line of a file comes from, as `git blame` has it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::process::{Child, Stdio};
use std::rc::Rc;

use agent_trace_store::{Result, Timestamp};

use super::process::{Git, answer, not_started};

/// What is known of a commit from blaming.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blamed {
    /// Its id; zeros where the lines are not committed yet.
    pub(crate) id: String,
    /// Who wrote it.
    pub(crate) author: String,
    /// The author's address, in angle brackets.
    pub(crate) mail: String,
    /// When it was written.
    pub(crate) authored: Timestamp,
    /// The author's zone, as git spells it.
    pub(crate) zone: String,
    /// The first line of what it says.
    pub(crate) summary: String,
    /// Lines of the porcelain form between the first and the file's name, as they came.
    pub(crate) header: Vec<Vec<u8>>,
}

impl Blamed {
    /// Whether the lines are in a commit.
    pub(crate) fn is_committed(&self) -> bool {
        self.id.bytes().any(|digit| digit != b'0')
    }
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlamedLine {
    /// Its commit.
    pub(crate) commit: Rc<Blamed>,
    /// The file's path in that commit.
    pub(crate) path: Rc<OsString>,
    /// Its number there, from 1.
    pub(crate) line_original: usize,
    /// Its number now, from 1.
    pub(crate) line: usize,
    /// What it holds.
    pub(crate) bytes: Vec<u8>,
}

/// A blame that git is working on.
pub(crate) struct Blaming(Child);

/// Blames lines of a file: all, or those of some ranges, from 1; at a commit, or as it is now.
pub(crate) fn blame(
    git: &Git,
    commit: Option<&str>,
    path: &OsStr,
    ranges: &[Range<usize>],
) -> Result<Vec<BlamedLine>> {
    start(git, commit, path, ranges)?.finish()
}

/// Starts to blame, and does not wait for it.
pub(crate) fn start(
    git: &Git,
    commit: Option<&str>,
    path: &OsStr,
    ranges: &[Range<usize>],
) -> Result<Blaming> {
    let mut command = git.command(["blame", "--porcelain"]);
    for range in ranges {
        command.arg(format!("-L{},{}", range.start, range.end - 1));
    }
    if let Some(commit) = commit {
        command.arg(commit);
    }
    let child = command.arg("--").arg(path).stdout(Stdio::piped()).spawn();
    child.map(Blaming).map_err(|error| not_started(&error))
}

impl Blaming {
    /// Waits for it.
    pub(crate) fn finish(mut self) -> Result<Vec<BlamedLine>> {
        let lines = parse(&mut BufReader::new(self.0.stdout.take().expect("it was piped")));
        let output = self.0.wait_with_output().map_err(|error| not_started(&error))?;
        answer("blame", output)?;
        lines.map_err(|error| not_started(&error))
    }
}

fn parse(output: &mut dyn BufRead) -> std::io::Result<Vec<BlamedLine>> {
    let mut commits: HashMap<String, (Rc<Blamed>, Rc<OsString>)> = HashMap::new();
    let mut lines = Vec::new();
    let mut buffer = Vec::new();
    let mut next = |buffer: &mut Vec<u8>| -> std::io::Result<bool> {
        buffer.clear();
        let read = output.read_until(b'\n', buffer)?;
        if buffer.last() == Some(&b'\n') {
            buffer.pop();
        }
        Ok(read > 0)
    };
    while next(&mut buffer)? {
        let head = String::from_utf8_lossy(&buffer).into_owned();
        let mut words = head.split(' ');
        let id = words.next().unwrap_or_default().to_owned();
        let mut number = || words.next().and_then(|word| word.parse::<usize>().ok()).unwrap_or_default();
        let (line_original, line) = (number(), number());
        let mut known = commits.get(&id).cloned();
        let mut blamed = Blamed { id: id.clone(), ..Blamed::default() };
        let mut path = None;
        while next(&mut buffer)? && buffer.first() != Some(&b'\t') {
            if let Some(name) = buffer.strip_prefix(b"filename ") {
                path = Some(Rc::new(unquoted(name)));
            } else if known.is_none() {
                note(&mut blamed, &buffer);
            }
        }
        let bytes = buffer.get(1..).unwrap_or_default().to_vec();
        if let Some((_, known)) = &mut known
            && let Some(path) = &path
        {
            *known = path.clone();
        }
        let (commit, path) =
            known.unwrap_or_else(|| (Rc::new(blamed), path.unwrap_or_else(|| Rc::new(OsString::new()))));
        commits.insert(id, (commit.clone(), path.clone()));
        lines.push(BlamedLine { commit, path, line_original, line, bytes });
    }
    Ok(lines)
}

fn note(blamed: &mut Blamed, line: &[u8]) {
    blamed.header.push(line.to_vec());
    let text = String::from_utf8_lossy(line);
    match text.split_once(' ') {
        Some(("author", name)) => blamed.author = name.to_owned(),
        Some(("author-mail", mail)) => blamed.mail = mail.to_owned(),
        Some(("author-tz", zone)) => blamed.zone = zone.to_owned(),
        Some(("summary", summary)) => blamed.summary = summary.to_owned(),
        Some(("author-time", seconds)) => {
            let seconds: i64 = seconds.parse().unwrap_or_default();
            blamed.authored = Timestamp::from_micros(seconds.saturating_mul(1_000_000));
        }
        _ => {}
    }
}

/// A name as it is, where git has put it in quotes.
pub(crate) fn unquoted(name: &[u8]) -> OsString {
    let Some(inner) = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")) else {
        return OsString::from_vec(name.to_vec());
    };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let [first, after @ ..] = rest {
        if *first != b'\\' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
            continue;
        }
        let Some((letter, after)) = after.split_first() else { break };
        bytes.push(match letter {
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            other => *other,
        });
        rest = after;
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_names_are_read() {
        let check = |name: &str, expected: &[u8]| assert_eq!(unquoted(name.as_bytes()).into_vec(), expected);
        check("plain name", b"plain name");
        check(r#""a\tb\nc\\\"d""#, b"a\tb\nc\\\"d");
        check(r#""\303\244""#, "ä".as_bytes());
        check(r#""\"#, br#""\"#);
    }

    #[test]
    fn a_commit_is_described_once_and_a_name_may_change() {
        let text = "1111 1 1 2\nauthor A B\nauthor-mail <a@b>\nauthor-time 5\nauthor-tz +0100\nsummary s\nfilename old\n\tx\n1111 2 2\n\ty\n\
                    1111 7 3 1\nfilename new\n\tz\n";
        let lines = parse(&mut text.as_bytes()).unwrap();
        let seen: Vec<(usize, usize, &str, &[u8])> = lines
            .iter()
            .map(|line| (line.line_original, line.line, line.path.to_str().unwrap(), line.bytes.as_slice()))
            .collect();
        assert_eq!(seen, [(1, 1, "old", &b"x"[..]), (2, 2, "old", b"y"), (7, 3, "new", b"z")]);
        assert_eq!(lines[2].commit.author, "A B");
        assert_eq!(lines[0].commit.authored, Timestamp::from_micros(5_000_000));
        assert!(lines[0].commit.is_committed());
    }
}
