//! The local layout of agent-trace-cli 0.1.3: four files of records, and conversations named by their SHA-256.
//!
//! A conversation's id comes from the layout's `_index.json` or from the traces that pin its bytes; both are read
//! before the conversations. Takes data only: settings, tokens and state files stay where they are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use agent_trace_store::env::DirEntry;
use agent_trace_store::json::{Canonicalizer, JsonError, Reader};
use agent_trace_store::record::TranscriptRecord;

use super::source::Role;
use super::walk::Walk;

const RECORDS: [&str; 4] = ["traces.jsonl", "ledgers.jsonl", "commit-links.jsonl", "session-summaries.jsonl"];
const CONVERSATIONS: &str = "conversations";
const INDEX: &str = "_index.json";
/// Records of the transcripts that lie beside it, one to a line, as `export --jsonl` writes them.
pub(crate) const RECORDS_OF_TRANSCRIPTS: &str = "_records.jsonl";
/// What lies beside the data in a layout and is no data.
const OWN_BUSINESS: [&str; 6] = [
    "project-config.json",
    "remotes.json",
    "sync-state.json",
    "session-state.json",
    "attribution-state.json",
    CONVERSATIONS,
];

/// One project's folder.
#[derive(Default)]
pub(super) struct Layout {
    /// Conversations by the SHA-256 of their latest state.
    index: HashMap<String, BTreeSet<String>>,
    /// Those that `_index.json` knows.
    indexed: HashSet<String>,
    /// SHA-256 of the states that are here.
    blobs: HashSet<String>,
    /// Records of transcripts that came along, by the SHA-256 of their bytes.
    records: HashMap<String, Vec<TranscriptRecord>>,
}

/// What traces say of conversations, by layout.
#[derive(Default)]
pub(super) struct Pins(HashMap<usize, LayoutPins>);

#[derive(Default)]
struct LayoutPins {
    /// Conversations by SHA-256.
    conversations: HashMap<String, BTreeSet<String>>,
    /// Sessions by conversation; of several, the first by name.
    sessions: BTreeMap<String, String>,
}

/// Whether this is the name of a file of records.
pub(super) fn is_records(path: &Path) -> bool {
    RECORDS.iter().any(|name| path.file_name().is_some_and(|file| file == *name))
}

/// Whether a folder is a home: projects, and settings that are none of our business.
pub(super) fn is_home(dir: &Path, entries: &[DirEntry]) -> bool {
    let has = |name: &str, is_dir| entries.iter().any(|entry| entry.name == name && entry.is_dir == is_dir);
    let is_named = dir.file_name().is_some_and(|name| name == ".agent-trace");
    has("projects", true) && (is_named || has("projects.json", false) || has(".registry.lock", false))
}

/// Whether an entry of a home is a folder of projects.
pub(super) fn is_home_data(entry: &DirEntry) -> bool {
    entry.is_dir && (entry.name == "projects" || entry.name == "detached")
}

/// Whether a folder is a project's.
pub(super) fn is_layout(walk: &Walk<'_>, dir: &Path, entries: &[DirEntry]) -> bool {
    entries.iter().any(|entry| match entry.is_dir {
        true => {
            entry.name == CONVERSATIONS
                && walk.env().fs.metadata(&dir.join(CONVERSATIONS).join(INDEX)).is_ok()
        }
        false => entry.name == "project-config.json" || RECORDS.iter().any(|name| entry.name == *name),
    })
}

/// Whether an entry of a layout is dealt with here or left alone.
pub(super) fn is_own_business(entry: &DirEntry) -> bool {
    OWN_BUSINESS.iter().chain(&RECORDS).any(|name| entry.name == *name)
}

/// Finds the data of one project.
pub(super) fn find(walk: &mut Walk<'_>, dir: &Path, entries: &[DirEntry]) {
    let number = walk.found.layouts.len();
    let mut layout = Layout::default();
    if entries.iter().any(|entry| entry.is_dir && entry.name == CONVERSATIONS) {
        find_blobs(walk, &dir.join(CONVERSATIONS), number, &mut layout);
    }
    for name in RECORDS {
        if entries.iter().any(|entry| !entry.is_dir && entry.name == name) {
            walk.add(&dir.join(name), Role::Records(Some(number)));
        }
    }
    walk.found.layouts.push(layout);
}

fn find_blobs(walk: &mut Walk<'_>, dir: &Path, number: usize, layout: &mut Layout) {
    let index = dir.join(INDEX);
    if walk.env().fs.metadata(&index).is_ok() {
        read_index(walk, &index, layout);
    }
    let records = dir.join(RECORDS_OF_TRANSCRIPTS);
    if walk.env().fs.metadata(&records).is_ok() {
        read_transcripts(walk, &records, layout);
    }
    let folders = match walk.env().fs.list(dir) {
        Ok(folders) => folders,
        Err(error) => return walk.bad(usize::MAX, dir, None, format!("cannot list it: {error}")),
    };
    for folder in folders.into_iter().filter(|folder| folder.is_dir && folder.name.len() == 2) {
        let folder = dir.join(folder.name);
        let blobs = match walk.env().fs.list(&folder) {
            Ok(blobs) => blobs,
            Err(error) => {
                walk.bad(usize::MAX, &folder, None, format!("cannot list it: {error}"));
                continue;
            }
        };
        for blob in blobs {
            let Some(sha256) =
                blob.name.to_str().filter(|name| !blob.is_dir && agent_trace_store::record::is_sha256(name))
            else {
                continue;
            };
            if walk.add(&folder.join(sha256), Role::Blob(number, sha256.to_owned())).is_some() {
                layout.blobs.insert(sha256.to_owned());
            }
        }
    }
}

fn read_index(walk: &mut Walk<'_>, path: &Path, layout: &mut Layout) {
    let Some(bytes) = walk.read(path) else { return };
    match serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(&bytes) {
        Ok(index) => {
            for (conversation, sha256) in index {
                let Some(sha256) = sha256.as_str().filter(|_| !conversation.is_empty()) else { continue };
                layout.indexed.insert(conversation.clone());
                layout.index.entry(sha256.to_owned()).or_default().insert(conversation);
            }
        }
        Err(error) => walk.bad(usize::MAX, path, Some(error.line() as u64), format!("invalid JSON: {error}")),
    }
}

fn read_transcripts(walk: &mut Walk<'_>, path: &Path, layout: &mut Layout) {
    let Some(bytes) = walk.read(path) else { return };
    let (mut canonicalizer, mut canonical) = (Canonicalizer::new(), Vec::new());
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1u64..).filter(|(line, _)| !line.is_empty())
    {
        canonical.clear();
        let read = canonicalizer.canonicalize(line, &mut canonical).ok();
        match read.and_then(|()| TranscriptRecord::decode(&canonical).ok()) {
            Some(record) => layout.records.entry(record.content_sha256.clone()).or_default().push(record),
            None => {
                walk.bad(usize::MAX, path, Some(number), "expected the record of a transcript".to_owned())
            }
        }
    }
}

impl Layout {
    /// The records of a transcript that came along with its bytes.
    pub(super) fn records(&self, sha256: &str) -> &[TranscriptRecord] {
        self.records.get(sha256).map_or(&[], Vec::as_slice)
    }

    /// Whether traces of this layout can tell anything about its conversations.
    pub(super) fn has_blobs(&self) -> bool {
        !self.blobs.is_empty()
    }
}

impl Pins {
    /// Notes what a trace in canonical form says of a layout's conversations.
    pub(super) fn note(
        &mut self,
        number: usize,
        layout: &Layout,
        trace: &[u8],
        session: Option<&str>,
    ) -> Result<(), JsonError> {
        let pins = self.0.entry(number).or_default();
        each_conversation(trace, &mut |id, sha256| {
            let is_here = sha256.as_ref().is_some_and(|sha256| layout.blobs.contains(sha256));
            if let Some(session) = session.filter(|_| is_here || layout.indexed.contains(&id)) {
                let known = pins.sessions.entry(id.clone()).or_insert_with(|| session.to_owned());
                if session < known.as_str() {
                    session.clone_into(known);
                }
            }
            if let Some(sha256) = sha256.filter(|_| is_here) {
                pins.conversations.entry(sha256).or_default().insert(id);
            }
        })
    }

    /// What two threads have noted.
    pub(super) fn merged(mut self, other: Pins) -> Pins {
        for (number, theirs) in other.0 {
            let mine = self.0.entry(number).or_default();
            for (sha256, conversations) in theirs.conversations {
                mine.conversations.entry(sha256).or_default().extend(conversations);
            }
            for (conversation, session) in theirs.sessions {
                let known = mine.sessions.entry(conversation).or_insert_with(|| session.clone());
                if session < *known {
                    *known = session;
                }
            }
        }
        self
    }

    /// The conversations of which some bytes are a state, each with its session where that is known.
    pub(super) fn conversations(
        &self,
        number: usize,
        layout: &Layout,
        sha256: &str,
    ) -> Vec<(String, Option<String>)> {
        let pins = self.0.get(&number);
        let mut ids: BTreeSet<&String> = layout.index.get(sha256).into_iter().flatten().collect();
        ids.extend(pins.and_then(|pins| pins.conversations.get(sha256)).into_iter().flatten());
        let session = |id: &String| pins.and_then(|pins| pins.sessions.get(id)).cloned();
        ids.into_iter().map(|id| (id.clone(), session(id))).collect()
    }
}

/// Calls `each` with the id of every conversation of a trace and the SHA-256 that is pinned with it.
fn each_conversation(trace: &[u8], each: &mut dyn FnMut(String, Option<String>)) -> Result<(), JsonError> {
    let mut reader = Reader::new(trace);
    each_of(&mut reader, b"files", &mut |reader| {
        each_of(reader, b"conversations", &mut |reader| {
            let (mut id, mut sha256) = (None, None);
            if reader.enter_object()? {
                while let Some(key) = reader.next_key()? {
                    match key {
                        b"id" => id = reader.string()?,
                        b"content_sha256" => sha256 = reader.string()?,
                        _ => drop(reader.skip()?),
                    }
                }
            }
            if let Some(id) = id.filter(|id| !id.is_empty()) {
                each(id.into_owned(), sha256.map(|sha256| sha256.into_owned()));
            }
            Ok(())
        })
    })
}

type Each<'e, 'a> = &'e mut dyn FnMut(&mut Reader<'a>) -> Result<(), JsonError>;

/// Calls `each` before each item of the array under a key of the object that comes next.
fn each_of<'a>(reader: &mut Reader<'a>, wanted: &[u8], each: Each<'_, 'a>) -> Result<(), JsonError> {
    if !reader.enter_object()? {
        return Ok(());
    }
    while let Some(key) = reader.next_key()? {
        if key != wanted {
            reader.skip()?;
        } else if reader.enter_array()? {
            while reader.next_item()? {
                each(reader)?;
            }
        }
    }
    Ok(())
}
