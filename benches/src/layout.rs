//! Makes a project in the local layout of agent-trace-cli: records, and transcripts named by their SHA-256.
//!
//! Transcripts are lines of JSON with prose and code, of even sizes around the mean of the peer's measurement. They are
//! written one at a time; one seed and size give one output.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::Options;
use crate::files;
use crate::generate;
use crate::measure;
use crate::report::Result;
use crate::words::{Rng, Words};

const BYTES_MIN: u64 = 20_000;
const BYTES_MAX: u64 = 1_320_000;
const WORDS: usize = 4_000;
const TRACES: u64 = 20_000;
const COMMITS: u64 = 5_000;
/// What a quick run makes of it.
const QUICK_DIVISOR: u64 = 20;

/// How many traces, and how many ledgers and commit-links each.
pub(crate) fn counts(options: &Options) -> (u64, u64) {
    let divisor = if options.quick { QUICK_DIVISOR } else { 1 };
    (TRACES / divisor, COMMITS / divisor)
}

/// The folder of the project, made by a process of its own if it is not there yet.
pub(crate) fn folder(options: &Options) -> Result<PathBuf> {
    let ((traces, commits), transcripts) = (counts(options), options.transcripts());
    let name = format!("project-{traces}-{commits}-{transcripts}-{}", options.seed);
    let (dir, aside) = (options.work.join(&name), options.work.join(format!("{name}.part")));
    if !dir.is_dir() {
        files::remove(&aside)?;
        let mut generate = Command::new(std::env::current_exe()?);
        generate.arg("project").arg(&aside).args(["--seed", &options.seed.to_string()]);
        generate.args(["--transcripts", &transcripts.to_string()]);
        generate.args(options.quick.then_some("--quick"));
        measure::output(&mut generate)?;
        std::fs::rename(&aside, &dir)?;
    }
    Ok(dir)
}

/// Writes the project into `dir`, which is created.
pub(crate) fn generate(dir: &Path, options: &Options) -> Result<()> {
    let (traces, commits) = counts(options);
    generate::generate_kinds(dir, traces, commits, options.seed)?;
    let mut writer = Writer::new(options.seed);
    let mut index = BTreeMap::new();
    for _ in 0..options.transcripts() {
        let id = writer.rng.hex_string(64);
        let bytes = writer.rng.between(BYTES_MIN, BYTES_MAX);
        let text = writer.transcript(bytes)?;
        index.insert(id, put(dir, text.as_bytes())?);
    }
    write_index(dir, &index)
}

/// Writes one session of so many bytes into `dir`, and gives its text.
pub(crate) fn session(dir: &Path, seed: u64, bytes: u64) -> Result<String> {
    let text = Writer::new(seed).transcript(bytes)?;
    replace_session(dir, &text)?;
    Ok(text)
}

/// Lets the session in `dir` grow by so many bytes.
pub(crate) fn grow(dir: &Path, seed: u64, text: &str, bytes: u64) -> Result<()> {
    let more = Writer::new(seed).transcript(bytes)?;
    replace_session(dir, &format!("{text}{more}"))
}

fn replace_session(dir: &Path, text: &str) -> Result<()> {
    files::renew(dir)?;
    std::fs::write(dir.join("traces.jsonl"), "")?;
    let sha = put(dir, text.as_bytes())?;
    write_index(dir, &BTreeMap::from([("5e551011".repeat(8), sha)]))
}

/// Writes a transcript under its name, which it gives.
fn put(dir: &Path, text: &[u8]) -> Result<String> {
    let sha = Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let folder = dir.join("conversations").join(&sha[..2]);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(&sha), text)?;
    Ok(sha)
}

fn write_index(dir: &Path, index: &BTreeMap<String, String>) -> Result<()> {
    let folder = dir.join("conversations");
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join("_index.json"), serde_json::to_vec_pretty(index)?)?)
}

struct Writer {
    rng: Rng,
    words: Words,
}

impl Writer {
    fn new(seed: u64) -> Writer {
        let mut rng = Rng::new(seed ^ 0x7a05);
        let words = Words::new(&mut rng, WORDS);
        Writer { rng, words }
    }

    /// Whole lines of at least so many bytes.
    fn transcript(&mut self, bytes: u64) -> Result<String> {
        let bytes = usize::try_from(bytes)?;
        let session = self.rng.uuid();
        let mut text = String::with_capacity(bytes + 8_192);
        while text.len() < bytes {
            let (role, uuid) = (*self.rng.pick(&["user", "assistant"]), self.rng.uuid());
            let _ = write!(
                text,
                "{{\"type\":\"{role}\",\"sessionId\":\"{session}\",\"uuid\":\"{uuid}\",\"message\":{{\"role\":\"{role}\",\
                 \"content\":[{{\"type\":\"text\",\"text\":\""
            );
            if self.rng.chance(40) {
                for _ in 0..self.rng.between(5, 40) {
                    let code = self.words.code(&mut self.rng);
                    let _ = write!(text, "{code}\\n");
                }
            } else {
                let length = usize::try_from(100 + self.rng.skewed(3_000))?;
                self.words.prose(&mut self.rng, &mut text, length);
            }
            text.push_str("\"}]}}\n");
        }
        Ok(text)
    }
}
