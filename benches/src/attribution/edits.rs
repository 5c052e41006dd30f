//! Real edits of agents, from the corpus: the states of one file through one session.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use crate::report::Result;

/// Files whose edits are replayed have so many lines at first.
const LINES: std::ops::RangeInclusive<usize> = 12..=900;
/// Bytes of transcripts that are looked at.
const BYTES_MAX: u64 = 160_000_000;
const THREADS_MAX: usize = 400;

/// What an agent did to a file.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Replace { old: String, new: String, all: bool },
    Write(String),
}

/// A file and the edits that one session made to it.
#[derive(Clone, Debug)]
pub(super) struct Thread {
    /// The file's name, without folders.
    pub(super) name: String,
    pub(super) start: String,
    pub(super) edits: Vec<Edit>,
}

/// Takes edits out of transcripts, in the order of their names.
pub(super) fn threads(corpus: &Path) -> Result<Vec<Thread>> {
    let mut files: Vec<_> = std::fs::read_dir(corpus)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(['3', '7'])));
    files.sort();
    let (mut threads, mut bytes) = (Vec::new(), 0);
    for path in files {
        bytes += path.metadata()?.len();
        if bytes > BYTES_MAX || threads.len() >= THREADS_MAX {
            break;
        }
        threads.extend(of_session(&path)?);
    }
    Ok(threads)
}

fn of_session(path: &Path) -> Result<Vec<Thread>> {
    let mut by_file: BTreeMap<String, Thread> = BTreeMap::new();
    for line in BufReader::new(std::fs::File::open(path)?).split(b'\n') {
        let line = line?;
        if !line.windows(14).any(|window| window == b"\"originalFile\"") {
            continue;
        }
        let Ok(value) = serde_json::from_slice::<Value>(&line) else { continue };
        let result = &value["toolUseResult"];
        let (Some(file), Some(original)) = (result["filePath"].as_str(), result["originalFile"].as_str())
        else {
            continue;
        };
        let edit =
            match (result["oldString"].as_str(), result["newString"].as_str(), result["content"].as_str()) {
                (Some(old), Some(new), _) if !old.is_empty() => Edit::Replace {
                    old: old.to_owned(),
                    new: new.to_owned(),
                    all: result["replaceAll"].as_bool().unwrap_or(false),
                },
                (None, _, Some(content)) => Edit::Write(content.to_owned()),
                _ => continue,
            };
        let name = file.rsplit('/').next().unwrap_or(file).to_owned();
        let is_plain = |text: &str| !text.contains(['\r', '\0']);
        if !is_plain(original) || !original.ends_with('\n') {
            continue;
        }
        let thread = by_file.entry(file.to_owned());
        thread
            .or_insert_with(|| Thread { name, start: original.to_owned(), edits: Vec::new() })
            .edits
            .push(edit);
    }
    let threads = by_file.into_values().filter(|thread| LINES.contains(&thread.start.lines().count()));
    Ok(threads.filter(|thread| thread.edits.len() >= 2).collect())
}
