//! A summary of a conversation: what a command of the user's makes of the transcript, else an extract of it.
//!
//! The command stands in the project's settings below the home of agent-trace, never in the repository: what a
//! repository says starts no program. It is given the transcript on stdin and has a time limit.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use agent_trace_store::env::Env;
use agent_trace_store::{Error, ErrorKind};
use serde_json::Value;

use crate::document::Document;
use crate::report::Failure;
use crate::transcript::{Role, Turn};

/// What a command may take where nothing else is said.
pub(crate) const TIMEOUT_SECONDS: u64 = 30;
const TIMEOUT_SECONDS_MAX: u64 = 3600;
/// What a summary has at most; more is cut.
const SUMMARY_BYTES_MAX: usize = 64 << 10;
const PROMPT_CHARS: usize = 500;
const ANSWER_CHARS: usize = 1500;
/// How agent-trace-cli spells its presets in the settings.
const PEER_PRESET: &str = "agent-trace summary preset-run ";

/// How summaries are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Maker {
    /// The command; none where summaries are extracts.
    pub(crate) command: Option<String>,
    /// How long it may take.
    pub(crate) timeout_seconds: u64,
}

/// A command that is known to summarise.
pub(crate) struct Preset {
    /// Its name, as agent-trace-cli has it.
    pub(crate) name: &'static str,
    /// The model that it takes where none is given.
    pub(crate) model: &'static str,
    before: &'static str,
    after: &'static str,
}

const PROMPT: &str = "'Summarise this session of a coding agent in at most six sentences: what was asked, what was decided and why, what changed.'";

/// All presets.
pub(crate) const PRESETS: [Preset; 3] = [
    Preset { name: "claude-summary", model: "haiku", before: "claude -p --model ", after: " " },
    Preset { name: "cursor-summary", model: "auto", before: "cursor-agent -p --model ", after: " " },
    Preset { name: "ollama-summary", model: "llama3.1:8b", before: "ollama run ", after: " " },
];

impl Preset {
    /// The command with a model, whose name is letters, digits and a few signs.
    pub(crate) fn command(&self, model: Option<&str>) -> Result<String, Failure> {
        let model = model.unwrap_or(self.model);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:_-/".contains(&byte);
        if model.is_empty() || model.starts_with('-') || !model.bytes().all(is_plain) {
            let message =
                format!("cannot take model `{model}`: expected letters, digits, `.`, `:`, `_`, `-`, `/`");
            return Err(Error::invalid(message).into());
        }
        Ok(format!("{}{model}{}{PROMPT}", self.before, self.after))
    }
}

/// Finds a preset.
pub(crate) fn preset(name: &str) -> Result<&'static Preset, Failure> {
    PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let message = format!("there is no preset `{name}`");
        Failure::new(ErrorKind::NotFound, message, "agent-trace summary presets")
    })
}

impl Maker {
    /// What a project's settings say.
    pub(crate) fn read(env: &Env, settings: &Path) -> Result<Maker, Failure> {
        let document = Document::read(env, settings)?;
        let section = document.section("summary")?;
        let member = |name: &str| section.and_then(|section| section.get(name));
        let timeout = member("timeout_seconds").and_then(Value::as_u64).unwrap_or(TIMEOUT_SECONDS);
        let enabled = member("enabled").and_then(Value::as_bool).unwrap_or(true);
        let command = member("command").and_then(Value::as_str).filter(|_| enabled);
        Ok(Maker {
            command: command.filter(|command| !command.trim().is_empty()).map(spelled_out).transpose()?,
            timeout_seconds: timeout.clamp(1, TIMEOUT_SECONDS_MAX),
        })
    }

    /// Makes a summary.
    pub(crate) fn make(&self, transcript: Vec<u8>, turns: &[Turn]) -> Result<String, Failure> {
        let Some(command) = &self.command else { return Ok(extract(turns)) };
        let text = run(command, transcript, Duration::from_secs(self.timeout_seconds))?;
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::new(ErrorKind::Failed, "the summary command printed nothing").into());
        }
        Ok(text.to_owned())
    }
}

/// The command itself, where agent-trace-cli wrote down one of its presets.
fn spelled_out(command: &str) -> Result<String, Failure> {
    let Some(rest) = command.strip_prefix(PEER_PRESET) else { return Ok(command.to_owned()) };
    let mut words = rest.split_whitespace();
    let preset = preset(words.next().unwrap_or_default())?;
    let model = words.find(|word| *word == "--model").and_then(|_| words.next());
    preset.command(model)
}

/// The first prompt and the last answer.
fn extract(turns: &[Turn]) -> String {
    let said = |role: Role| move |turn: &&Turn| turn.role == role;
    let cut = |text: &str, chars: usize| match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    };
    let first = turns.iter().find(said(Role::User)).map(|turn| cut(&turn.text, PROMPT_CHARS));
    let last = turns.iter().rfind(said(Role::Agent)).map(|turn| cut(&turn.text, ANSWER_CHARS));
    let parts = [first.map(|text| format!("Asked: {text}")), last.map(|text| format!("Answered: {text}"))];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

/// What a command prints that is given a text.
fn run(command: &str, input: Vec<u8>, limit: Duration) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        Failure::from(Error::new(ErrorKind::Failed, "cannot run the summary command").with_source(error))
    };
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().expect("it was piped");
    let stdout = child.stdout.take().expect("it was piped");
    // A command need not read all of it; then it cannot be written, which is no failure.
    std::thread::spawn(move || drop(stdin.write_all(&input)));
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(SUMMARY_BYTES_MAX as u64).read_to_end(&mut bytes).map(|_| bytes);
        // Nobody waits for it any more where the time is up.
        let _ = sender.send(read);
    });
    let Ok(read) = receiver.recv_timeout(limit) else {
        let _ = child.kill();
        let _ = child.wait();
        let message = format!("the summary command has not ended after {} s", limit.as_secs());
        return Err(Failure::new(
            ErrorKind::Unavailable,
            message,
            "agent-trace summary enable --timeout SECONDS ...",
        ));
    };
    let bytes = read.map_err(failed)?;
    if bytes.len() == SUMMARY_BYTES_MAX {
        let _ = child.kill();
        let _ = child.wait();
    } else {
        let status = child.wait().map_err(failed)?;
        if !status.success() {
            let message = format!("the summary command has failed: {status}");
            return Err(Failure::new(
                ErrorKind::Failed,
                message,
                "agent-trace summary disable makes extracts",
            ));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_of_the_peer_is_known() {
        let command =
            spelled_out("agent-trace summary preset-run ollama-summary --model llama3.1:8b").unwrap();
        assert!(command.starts_with("ollama run llama3.1:8b '"), "{command}");
        assert_eq!(spelled_out("mine --fast").unwrap(), "mine --fast");
        assert!(spelled_out("agent-trace summary preset-run nothing").is_err());
        for bad in ["", "-x", "a b", "a;b", "$(a)", "a'b"] {
            assert!(PRESETS[0].command(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_has_a_time_limit() {
        let limit = Duration::from_secs(60);
        assert_eq!(run("tr a-z A-Z", b"text".to_vec(), limit).unwrap(), "TEXT");
        assert_eq!(run("true", vec![b'x'; 1 << 20], limit).unwrap(), "");
        assert_eq!(run("exit 3", Vec::new(), limit).err().unwrap().error.kind(), ErrorKind::Failed);
        let late = run("sleep 30", Vec::new(), Duration::from_millis(50)).err().unwrap();
        assert_eq!(late.error.kind(), ErrorKind::Unavailable);
    }
}
