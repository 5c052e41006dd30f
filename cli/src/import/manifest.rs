//! `manifest.jsonl` beside transcripts: which file is which session's, in what order and from when.
//!
//! Each line names one state of one session; a name never leads out of the manifest's folder. Reads only.

use std::path::{Component, Path, PathBuf};

use agent_trace_store::Timestamp;
use agent_trace_store::json::{Canonicalizer, JsonError, Reader};

/// The file's name.
pub(super) const FILE: &str = "manifest.jsonl";

/// A line of a manifest, and the file that it names.
pub(super) struct Entry {
    pub(super) manifest: usize,
    pub(super) line: u64,
    pub(super) source: usize,
    pub(super) listed: Listed,
}

/// What a line of a manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) file: String,
    /// The SHA-256 of its bytes, lower-case.
    pub(super) sha256: Option<String>,
    pub(super) bytes: Option<u64>,
    pub(super) created_at: Option<Timestamp>,
    pub(super) session: Option<String>,
    /// Nothing where the manifest does not know it.
    pub(super) agent: Option<String>,
    pub(super) checkpoint: Option<String>,
}

/// A line number and what the line says, or why it cannot be taken.
pub(super) type Line = (u64, Result<Listed, String>);

/// Reads a manifest; nothing if this is none: the first line that is JSON must name a file and its hash or session.
pub(super) fn parse(bytes: &[u8]) -> Option<Vec<Line>> {
    let mut canonicalizer = Canonicalizer::new();
    let mut canonical = Vec::new();
    let mut lines = Vec::new();
    let mut is_manifest = false;
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1u64..) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        canonical.clear();
        let listed = match canonicalizer.canonicalize(line, &mut canonical) {
            Ok(()) => read(&canonical),
            Err(error) => Err(format!("invalid JSON: {error}")),
        };
        if !is_manifest && let Ok(listed) = &listed {
            is_manifest = listed.sha256.is_some() || listed.session.is_some();
        }
        if !is_manifest && lines.len() >= 16 {
            return None;
        }
        lines.push((number, listed));
    }
    is_manifest.then_some(lines)
}

fn read(canonical: &[u8]) -> Result<Listed, String> {
    let mut listed = Listed::default();
    let read = read_members(canonical, &mut listed);
    if read.is_err() || listed.file.is_empty() {
        return Err("expected `file` to be a string that is not empty".to_owned());
    }
    if let Some(sha256) = &mut listed.sha256 {
        sha256.make_ascii_lowercase();
        if sha256.len() != 64 || !sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(format!("expected `sha` to be 64 hex digits, found `{sha256}`"));
        }
    }
    Ok(listed)
}

fn read_members(canonical: &[u8], listed: &mut Listed) -> Result<(), JsonError> {
    let mut reader = Reader::new(canonical);
    if !reader.enter_object()? {
        return Ok(());
    }
    while let Some(key) = reader.next_key()? {
        let target = match key {
            b"file" => {
                listed.file = reader.string()?.unwrap_or_default().into_owned();
                continue;
            }
            b"created_at" => {
                listed.created_at = reader.string()?.and_then(|text| Timestamp::parse(&text));
                continue;
            }
            b"bytes" => {
                listed.bytes = reader.token()?.and_then(|token| token.parse().ok());
                continue;
            }
            b"sha" => &mut listed.sha256,
            b"session_id" => &mut listed.session,
            b"agent" => &mut listed.agent,
            b"checkpoint" => &mut listed.checkpoint,
            _ => {
                reader.skip()?;
                continue;
            }
        };
        *target = reader.string()?.filter(|text| !text.is_empty()).map(|text| text.into_owned());
    }
    // What checkpoint tools write where they do not know the agent.
    listed.agent = listed.agent.take().filter(|agent| agent != "Agent");
    Ok(())
}

/// The path of a file that a manifest names, inside the manifest's folder.
pub(super) fn resolve(dir: &Path, file: &str) -> Result<PathBuf, String> {
    let name = Path::new(file);
    let is_inside = name.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_inside || file.contains('\0') {
        return Err(format!("refused: `{file}` leads out of the manifest's folder"));
    }
    Ok(dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["../x", "/etc/passwd", "a/../../b", "a/..", "./x", "a\0b"] {
            assert!(resolve(Path::new("/m"), name).is_err(), "{name}");
        }
        assert_eq!(resolve(Path::new("/m"), "a/b.jsonl"), Ok(PathBuf::from("/m/a/b.jsonl")));
    }

    #[test]
    fn what_is_no_manifest_is_left_to_others() {
        let check =
            |text: &str, expected: bool| assert_eq!(parse(text.as_bytes()).is_some(), expected, "{text}");
        check("", false);
        check(r#"{"type":"user","sessionId":"s"}"#, false);
        check(r#"{"file":"a"}"#, false);
        check(r#"{"file":"a","session_id":"s"}"#, true);
        check("{\n{\"file\":\"a\",\"session_id\":\"s\"}", true);
    }

    #[test]
    fn odd_fields_count_as_absent_and_a_wrong_hash_is_refused() {
        let text = "{\"file\":\"a\",\"sha\":\"0\"}\r\n\n{\"file\":\"b\",\"session_id\":7,\"agent\":\"\",\"bytes\":\"x\"}\n";
        let lines = parse(format!("{{\"file\":\"c\",\"session_id\":\"s\"}}\n{text}").as_bytes()).unwrap();
        assert_eq!(lines[0].1.as_ref().map(|listed| listed.session.as_deref()), Ok(Some("s")));
        assert_eq!((lines[1].0, lines[1].1.is_err()), (2, true));
        assert_eq!(lines[2], (4, Ok(Listed { file: "b".to_owned(), ..Listed::default() })));
    }
}
