//! The form of `git blame --porcelain` and `--line-porcelain`, which editors read, with members of our own.

use std::collections::HashMap;
use std::ffi::OsString;
use std::rc::Rc;

use super::{Annotated, Line, quoted};

/// Writes it; with `is_line` all that is known is said with every line.
pub(crate) fn encode(annotated: &Annotated, is_line: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut described: HashMap<&str, Rc<OsString>> = HashMap::new();
    let lines = &annotated.lines;
    for (at, line) in lines.iter().enumerate() {
        let blamed = &line.blamed;
        let (id, path) = (blamed.commit.id.as_str(), &blamed.path);
        out.extend(format!("{id} {} {}", blamed.line_original, blamed.line).bytes());
        if at == 0 || !follows(&lines[at - 1], line) {
            let count = lines[at..].windows(2).take_while(|pair| follows(&pair[0], &pair[1])).count() + 1;
            out.extend(format!(" {count}").bytes());
        }
        out.push(b'\n');
        let known = described.insert(id, path.clone());
        if is_line || known.is_none() {
            describe(&mut out, line);
        }
        if is_line || known.as_ref() != Some(path) {
            out.extend(b"filename ");
            out.extend(quoted(path));
            out.push(b'\n');
        }
        attribute(&mut out, annotated, line);
        out.push(b'\t');
        out.extend(&blamed.bytes);
        out.push(b'\n');
    }
    out
}

/// Whether a line stands behind another in its commit too.
fn follows(one: &Line, two: &Line) -> bool {
    let (one, two) = (&one.blamed, &two.blamed);
    one.commit.id == two.commit.id
        && one.path == two.path
        && one.line_original + 1 == two.line_original
        && one.line + 1 == two.line
}

fn describe(out: &mut Vec<u8>, line: &Line) {
    let commit = &line.blamed.commit;
    if commit.header.is_empty() {
        let seconds = commit.authored.micros().div_euclid(1_000_000);
        let header = format!(
            "author {}\nauthor-mail {}\nauthor-time {seconds}\nauthor-tz {}\nsummary {}\n",
            commit.author, commit.mail, commit.zone, commit.summary
        );
        out.extend(header.bytes());
    }
    for header in &commit.header {
        out.extend(header);
        out.push(b'\n');
    }
}

/// Whose the line is. Whoever does not know these members passes over them, as git asks of readers.
fn attribute(out: &mut Vec<u8>, annotated: &Annotated, line: &Line) {
    let Some(run) = &line.by else { return };
    let facts = run.trace.as_ref().and_then(|trace| annotated.traces.get(trace));
    let members = [
        ("kind", Some("AI")),
        ("agent", facts.map(|facts| facts.agent.as_str())),
        ("model", run.model.as_deref()),
        ("session", facts.and_then(|facts| facts.session.as_deref())),
        ("time", facts.map(|facts| facts.timestamp.as_str())),
        ("trace", run.trace.as_deref()),
        ("conversation", run.conversation.as_deref()),
        ("how", run.how.as_deref()),
    ];
    for (name, value) in members {
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        // A line feed in a record must not begin a line of this form.
        let value = value.replace(['\n', '\r', '\0'], " ");
        out.extend(format!("agent-trace-{name} {value}\n").bytes());
    }
}
