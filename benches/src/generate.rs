//! Makes synthetic records in the local layout of agent-trace-cli: `traces.jsonl`, `ledgers.jsonl`, `commit-links.jsonl`.
//!
//! Half of the records are traces (1 to 4 KB), a quarter ledgers, a quarter commit-links. Nine traces of ten are named
//! by a ledger. One seed and size give one output, byte for byte; the files are streamed, never held. JSON is written
//! as Python's `json.dumps` writes it. The digests are random hex, so they are as incompressible as real ones; they are
//! not digests of anything.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::report::Result;
use crate::words::{Rng, Words};

const START_SECONDS: i64 = 1_759_276_800; // 1 October 2025
const SPAN_MICROS: u64 = 270 * 86_400 * 1_000_000;
const STEP_MICROS_MAX: u64 = 600 * 1_000_000;
const SESSIONS_AT_ONCE: usize = 4;
const TRACE_BYTES_MIN: usize = 1_040;
const TRACE_BYTES_MAX: usize = 4_000;
const NAMED_PERCENT: u64 = 90;
const BUFFER_BYTES: usize = 1 << 20;

const MODELS: [&str; 5] = [
    "anthropic/claude-sonnet-4-5",
    "anthropic/claude-opus-4-5",
    "openai/gpt-5-codex",
    "anthropic/claude-haiku-4-5",
    "google/gemini-2.5-pro",
];
const TOOLS: [&str; 3] = ["claude-code", "cursor", "codex"];
const FOLDERS: [&str; 12] =
    ["src", "core", "web", "api", "tests", "docs", "server", "client", "lib", "internal", "cmd", "packages"];
const ENDINGS: [&str; 6] = ["rs", "ts", "py", "go", "tsx", "md"];

/// What was written.
pub(crate) struct Made {
    pub(crate) files: Vec<(&'static str, u64, u64)>,
    pub(crate) digest_digits: u64,
}

impl Made {
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.2).sum()
    }

    /// One line for each file, for people.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for (name, count, bytes) in &self.files {
            let mean = bytes.checked_div(*count).unwrap_or(0);
            let _ = writeln!(text, "{name}: {count} records, {bytes} bytes, {mean} on average");
        }
        let traces_bytes = self.files[0].2.max(1);
        let _ = writeln!(
            text,
            "total: {} bytes; {} new digest digits in each 1400 bytes of traces",
            self.bytes(),
            self.digest_digits * 1_400 / traces_bytes
        );
        text
    }
}

/// Writes `records` records into `dir`, which is created.
pub(crate) fn generate(dir: &Path, records: u64, seed: u64) -> Result<Made> {
    let ledgers = records / 4;
    generate_kinds(dir, records - 2 * ledgers, ledgers, seed)
}

/// Writes so many traces, and so many ledgers and commit-links, into `dir`, which is created.
pub(crate) fn generate_kinds(dir: &Path, traces: u64, ledgers: u64, seed: u64) -> Result<Made> {
    std::fs::create_dir_all(dir)?;
    let mut world = World::new(seed, traces + 2 * ledgers, traces);
    let mut out = [open(dir, "traces.jsonl")?, open(dir, "ledgers.jsonl")?, open(dir, "commit-links.jsonl")?];
    let mut bytes = [0_u64; 3];
    let mut line = String::with_capacity(8_192);
    let mut committed = 0;
    for made in 1..=traces {
        world.trace(&mut line);
        bytes[0] += append(&mut out[0], &line)?;
        let due = u64::try_from(u128::from(made) * u128::from(ledgers) / u128::from(traces))?;
        while committed < due {
            let last = committed + 1 == ledgers;
            let commit = world.commit(last);
            commit.ledger(&mut world, &mut line);
            bytes[1] += append(&mut out[1], &line)?;
            commit.link(&world, &mut line);
            bytes[2] += append(&mut out[2], &line)?;
            committed += 1;
        }
    }
    for file in &mut out {
        file.flush()?;
    }
    let files = vec![
        ("traces.jsonl", traces, bytes[0]),
        ("ledgers.jsonl", ledgers, bytes[1]),
        ("commit-links.jsonl", ledgers, bytes[2]),
    ];
    Ok(Made { files, digest_digits: world.digest_digits })
}

fn open(dir: &Path, name: &str) -> Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(BUFFER_BYTES, File::create(dir.join(name))?))
}

fn append(out: &mut BufWriter<File>, line: &str) -> Result<u64> {
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(line.len() as u64 + 1)
}

/// One agent session: what its traces have in common.
struct Session {
    id: String,
    conversation: String,
    model: &'static str,
    tool: &'static str,
    files: Vec<usize>,
    left: u64,
    sequence: u64,
}

/// A trace that waits to be named by a ledger.
struct Waiting {
    trace_id: String,
    path: Option<usize>,
    lines: (u64, u64),
    model: &'static str,
    conversation: String,
    line_hash: String,
}

/// A commit, from which its ledger and its link are written.
struct Commit {
    sha: String,
    parent: Option<String>,
    parent_committed_at: Option<String>,
    committed_at: String,
    created_at: String,
    traces: Vec<Waiting>,
}

struct World {
    rng: Rng,
    words: Words,
    paths: Vec<String>,
    common_hashes: Vec<String>,
    project: String,
    slots: Vec<(Session, VecDeque<Waiting>)>,
    head: Option<(String, String)>,
    now: Timestamp,
    step_micros: u64,
    digest_digits: u64,
}

impl World {
    fn new(seed: u64, records: u64, traces: u64) -> World {
        let mut rng = Rng::new(seed);
        let words = Words::new(&mut rng, 4_000);
        let paths = paths(&mut rng, &words, (records / 80).clamp(200, 12_000));
        let common_hashes = (0..2_000).map(|_| rng.hex_string(64)).collect();
        let project = format!("at-{}", rng.hex_string(32));
        let slots =
            (0..SESSIONS_AT_ONCE).map(|_| (session(&mut rng, paths.len()), VecDeque::new())).collect();
        let now = Timestamp::from_second(START_SECONDS).expect("a time of this century");
        let step_micros = (SPAN_MICROS / traces.max(1)).min(STEP_MICROS_MAX);
        World {
            rng,
            words,
            paths,
            common_hashes,
            project,
            slots,
            head: None,
            now,
            step_micros,
            digest_digits: 0,
        }
    }

    fn advance(&mut self, micros: u64) {
        let micros = i64::try_from(micros).expect("a step is minutes at most");
        self.now += SignedDuration::from_micros(micros);
    }

    /// A line hash: mostly new, sometimes that of a line which occurs everywhere.
    fn line_hash(&mut self) -> String {
        if self.rng.chance(15) {
            return self.rng.pick_skewed(&self.common_hashes).clone();
        }
        self.digest_digits += 64;
        self.rng.hex_string(64)
    }

    /// Writes the next trace into `line`.
    fn trace(&mut self, line: &mut String) {
        let step = self.rng.between(1, 2 * self.step_micros.max(1));
        self.advance(step);
        let slot = usize::try_from(self.rng.below(SESSIONS_AT_ONCE as u64)).expect("a few");
        if self.slots[slot].0.left == 0 {
            self.slots[slot].0 = session(&mut self.rng, self.paths.len());
        }
        let waiting = self.write_trace(slot, line);
        let (session, queue) = &mut self.slots[slot];
        session.left -= 1;
        session.sequence += 1;
        if self.rng.chance(NAMED_PERCENT) {
            queue.push_back(waiting);
        }
    }

    fn write_trace(&mut self, slot: usize, line: &mut String) -> Waiting {
        let shell = self.rng.chance(10);
        let path = if shell { None } else { Some(*self.rng.pick_skewed(&self.slots[slot].0.files)) };
        let trace_id = self.rng.uuid();
        let content_sha256 = self.rng.hex_string(64);
        let (start, length) = (self.rng.skewed(900) + 1, self.rng.skewed(60) + 1);
        let lines = if shell { (1, 1) } else { (start, start + length) };
        let hashes: Vec<String> = if shell { Vec::new() } else { self.hashes() };
        self.digest_digits += 64 + 32;
        let session = &self.slots[slot].0;
        line.clear();
        let _ = write!(
            line,
            "{{\"version\": \"2.0\", \"id\": \"{trace_id}\", \"timestamp\": \"{}\", \"tool\": {{\"name\": \"{}\"}}, \
             \"files\": [{{\"path\": \"{}\", \"conversations\": [{{\"contributor\": {{\"type\": \"ai\", \"model_id\": \
             \"{}\"}}, \"ranges\": [{{\"start_line\": {}, \"end_line\": {}",
            utc(self.now),
            session.tool,
            path.map_or(".shell-history", |path| self.paths[path].as_str()),
            session.model,
            lines.0,
            lines.1
        );
        if let Some((content, rest)) = hashes.split_first() {
            let _ = write!(line, ", \"content_hash\": \"sha256:{content}\", \"line_hashes\": [");
            for (offset, hash) in rest.iter().enumerate() {
                let comma = if offset == 0 { "" } else { ", " };
                let _ = write!(line, "{comma}{{\"line_offset\": {offset}, \"hash\": \"sha256:{hash}\"}}");
            }
            line.push(']');
        }
        let _ = write!(
            line,
            "}}], \"id\": \"{}\", \"content_sha256\": \"{content_sha256}\"}}]}}], ",
            session.conversation
        );
        if let Some((revision, _)) = &self.head {
            let _ = write!(line, "\"vcs\": {{\"type\": \"git\", \"revision\": \"{revision}\"}}, ");
        }
        self.write_metadata(slot, shell, line);
        let session = &self.slots[slot].0;
        Waiting {
            trace_id,
            path,
            lines,
            model: session.model,
            conversation: session.conversation.clone(),
            line_hash: hashes.get(1).cloned().unwrap_or_default(),
        }
    }

    /// The hash of a content and those of a few of its lines.
    fn hashes(&mut self) -> Vec<String> {
        self.digest_digits += 64;
        let content = self.rng.hex_string(64);
        let lines = *self.rng.pick(&[2, 2, 2, 2, 2, 2, 3, 3, 3, 4]);
        let mut hashes = vec![content];
        for _ in 0..lines {
            let hash = self.line_hash();
            hashes.push(hash);
        }
        hashes
    }

    fn write_metadata(&mut self, slot: usize, shell: bool, line: &mut String) {
        let session = &self.slots[slot].0;
        let edits: &[&str] =
            if session.tool == "codex" { &["apply_patch"] } else { &["Edit", "Edit", "Edit", "Write"] };
        let name = if shell { "Bash" } else { *self.rng.pick(edits) };
        let _ = write!(
            line,
            "\"metadata\": {{\"session_id\": \"{}\", \"tool_name\": \"{name}\", \"tool_use_id\": \"toolu_01",
            session.id
        );
        self.rng.base62(line, 22);
        let _ = write!(
            line,
            "\", \"is_creation\": {}, \"project_id\": \"{}\", \"repo_root\": \"/home/dev/{}\", \"edit_sequence\": {}",
            name == "Write",
            self.project,
            &self.project[3..11],
            session.sequence
        );
        if shell {
            let (one, two) = (self.words.word(&mut self.rng), self.words.rare(&mut self.rng));
            let path = self.rng.pick_skewed(&self.paths);
            let _ = write!(
                line,
                ", \"command\": \"make {one} && grep -rn {two} {path} | head -{}\"",
                self.rng.below(99)
            );
            let _ = write!(line, ", \"duration_ms\": {}", self.rng.skewed(90_000));
        }
        let wanted = if self.rng.chance(55) { self.rng.skewed(4_200) } else { 0 };
        let wanted = usize::try_from(wanted).expect("thousands");
        let length = wanted.max(TRACE_BYTES_MIN.saturating_sub(line.len())).min(TRACE_BYTES_MAX - line.len());
        if length > 0 {
            line.push_str(", \"last_assistant_message\": \"");
            let from = line.len();
            self.words.prose(&mut self.rng, line, length);
            cut(line, from, TRACE_BYTES_MAX);
            line.push('"');
        }
        line.push_str("}}");
    }

    /// Takes waiting traces into a commit; the last one takes all.
    fn commit(&mut self, last: bool) -> Commit {
        let pause = self.rng.between(1, 1 + self.step_micros / 4);
        self.advance(pause);
        let mut traces = Vec::new();
        if last {
            traces.extend(self.slots.iter_mut().flat_map(|slot| slot.1.drain(..)));
        } else if let Some((_, queue)) = self.slots.iter_mut().max_by_key(|slot| slot.1.len()) {
            let wanted = if queue.len() > 12 { 6 } else { self.rng.between(1, 3) };
            let wanted = usize::try_from(wanted).expect("a few").min(queue.len());
            traces.extend(queue.drain(..wanted));
        }
        traces.sort_by(|one, two| one.trace_id.cmp(&two.trace_id));
        let sha = self.rng.hex_string(40);
        let committed_at = local(self.now);
        self.advance(340_000);
        let previous = self.head.replace((sha.clone(), committed_at.clone()));
        let (parent, parent_committed_at) = previous.unzip();
        Commit {
            sha,
            parent,
            parent_committed_at,
            committed_at,
            created_at: utc(self.now).to_string(),
            traces,
        }
    }
}

impl Commit {
    fn ledger(&self, world: &mut World, line: &mut String) {
        line.clear();
        let _ = write!(line, "{{\"version\": \"2.0\", \"commit_sha\": \"{}\", ", self.sha);
        let _ = write!(line, "\"parent_sha\": {}, ", quoted(self.parent.as_deref()));
        let _ = write!(line, "\"parent_committed_at\": {}, ", quoted(self.parent_committed_at.as_deref()));
        let _ = write!(
            line,
            "\"committed_at\": \"{}\", \"created_at\": \"{}\", ",
            self.committed_at, self.created_at
        );
        self.write_trace_ids(line);
        line.push_str(", \"files\": {");
        for (place, (path, traces)) in self.by_path().into_iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(line, "{comma}\"{}\": {{\"line_attributions\": [", world.paths[path]);
            for (place, trace) in traces.iter().enumerate() {
                line.push_str(if place == 0 { "" } else { ", " });
                let (start, end) = trace.lines;
                let _ = write!(
                    line,
                    "{{\"start_line\": {start}, \"end_line\": {end}, \"type\": \"ai\", \"trace_id\": \"{}\", \"model_id\": \
                     \"{}\", \"conversation_id\": \"{}\", \"evidence\": [",
                    trace.trace_id, trace.model, trace.conversation
                );
                if world.rng.chance(60) {
                    let code = world.words.code(&mut world.rng);
                    let hash = &trace.line_hash;
                    let _ = write!(
                        line,
                        "{{\"line\": {start}, \"hash\": \"sha256:{hash}\", \"content\": \"{code}\"}}"
                    );
                }
                line.push_str("]}");
            }
            line.push_str("]}");
        }
        line.push_str("}}");
    }

    fn link(&self, world: &World, line: &mut String) {
        line.clear();
        let _ = write!(line, "{{\"commit_sha\": \"{}\", ", self.sha);
        let _ = write!(line, "\"parent_sha\": {}, ", quoted(self.parent.as_deref()));
        self.write_trace_ids(line);
        line.push_str(", \"files_changed\": [");
        for (place, path) in self.by_path().into_keys().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(line, "{comma}\"{}\"", world.paths[path]);
        }
        let _ = write!(
            line,
            "], \"committed_at\": \"{}\", \"created_at\": \"{}\"}}",
            self.committed_at, self.created_at
        );
    }

    fn write_trace_ids(&self, line: &mut String) {
        line.push_str("\"trace_ids\": [");
        for (place, trace) in self.traces.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            let _ = write!(line, "{comma}\"{}\"", trace.trace_id);
        }
        line.push(']');
    }

    fn by_path(&self) -> BTreeMap<usize, Vec<&Waiting>> {
        let mut files: BTreeMap<usize, Vec<&Waiting>> = BTreeMap::new();
        for trace in &self.traces {
            if let Some(path) = trace.path {
                files.entry(path).or_default().push(trace);
            }
        }
        files
    }
}

fn session(rng: &mut Rng, paths: usize) -> Session {
    let model = *rng.pick_skewed(&MODELS);
    let tool = if model.starts_with("openai") { "codex" } else { *rng.pick_skewed(&TOOLS[..2]) };
    let touched = rng.between(5, 15);
    let files = (0..touched).map(|_| usize::try_from(rng.skewed(paths as u64)).expect("an index")).collect();
    let id = rng.uuid();
    let conversation = rng.hex_string(64);
    let left = 20 + rng.skewed(400).min(180);
    Session { id, conversation, model, tool, files, left, sequence: 0 }
}

fn paths(rng: &mut Rng, words: &Words, count: u64) -> Vec<String> {
    let mut paths = std::collections::BTreeSet::new();
    while (paths.len() as u64) < count {
        let mut path = String::from(*rng.pick_skewed(&FOLDERS));
        for _ in 0..rng.between(1, 3) {
            let _ = write!(path, "/{}", words.word(rng));
        }
        let _ = write!(path, "/{}_{}.{}", words.word(rng), words.rare(rng), rng.pick_skewed(&ENDINGS));
        paths.insert(path);
    }
    let mut paths: Vec<String> = paths.into_iter().collect();
    for place in (1..paths.len()).rev() {
        let other = usize::try_from(rng.below(place as u64 + 1)).expect("an index");
        paths.swap(place, other);
    }
    paths
}

/// Cuts text that began at `from` to end before `end`, never inside an escape or a word.
fn cut(line: &mut String, from: usize, end: usize) {
    if line.len() <= end {
        return;
    }
    let space = line[..end].rfind(' ').filter(|&space| space > from).unwrap_or(from);
    line.truncate(space);
}

fn quoted(text: Option<&str>) -> String {
    text.map_or_else(|| "null".into(), |text| format!("\"{text}\""))
}

fn utc(time: Timestamp) -> impl std::fmt::Display {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

fn local(time: Timestamp) -> String {
    (time + SignedDuration::from_hours(1)).strftime("%Y-%m-%dT%H:%M:%S+01:00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_output_and_nine_of_ten_traces_are_named() {
        let dir = std::env::temp_dir().join(format!("agent-trace-benches-test-{}", std::process::id()));
        let (one, two) = (dir.join("one"), dir.join("two"));
        generate(&one, 8_000, 7).unwrap();
        generate(&two, 8_000, 7).unwrap();
        for name in ["traces.jsonl", "ledgers.jsonl", "commit-links.jsonl"] {
            assert_eq!(std::fs::read(one.join(name)).unwrap(), std::fs::read(two.join(name)).unwrap());
        }
        let lines = |name: &str| std::fs::read_to_string(one.join(name)).unwrap();
        let traces = lines("traces.jsonl");
        assert!(traces.lines().all(|line| line.len() >= 1_024));
        assert!(traces.lines().all(|line| line.len() <= 4_096));
        assert_eq!(traces.lines().count(), 4_000);
        let mut named = 0;
        for line in lines("ledgers.jsonl").lines() {
            let (_, rest) = line.split_once("\"trace_ids\": [").unwrap();
            named += rest.split_once(']').unwrap().0.matches("\", \"").count();
            named += usize::from(!rest.starts_with(']'));
        }
        assert!((3_500..3_700).contains(&named), "{named} of 4000 are named");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
