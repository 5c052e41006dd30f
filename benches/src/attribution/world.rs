//! A scratch repository and its shadow: the same history, in which each line begins with a number that only it has.
//!
//! Every operation of git runs in both. A line's number goes wherever the line goes, through merges and rebases too, and
//! who wrote it is known by its number. Where the two come to different texts, the case is given up: nobody could say
//! then whose a line is.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::edits::Edit;
use crate::report::Result;
use crate::words::Rng;

/// When every history begins.
const START_SECONDS: i64 = 1_770_000_000;
/// How long one thing takes.
const STEP_SECONDS: i64 = 45;

/// A line that knows which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) text: String,
}

/// Where the peer works beside us.
#[derive(Clone, Debug)]
pub(super) struct PeerPlace {
    pub(super) program: PathBuf,
    pub(super) home: PathBuf,
}

/// One case.
pub(super) struct World {
    pub(super) real: PathBuf,
    pub(super) shadow: PathBuf,
    pub(super) peer: Option<(PathBuf, PeerPlace)>,
    pub(super) rng: Rng,
    next: u64,
    agents: HashSet<u64>,
    pub(super) transcript: String,
    session: String,
    calls: u64,
    /// Seconds; people and agents take their time, and the benchmark does not.
    clock: std::cell::Cell<i64>,
}

impl World {
    pub(super) fn new(work: &Path, seed: u64, peer: Option<PeerPlace>) -> Result<World> {
        let (real, shadow) = (work.join("real"), work.join("shadow"));
        let peer = peer.map(|place| (work.join("peer"), place));
        let session = format!("00000000-0000-4000-8000-{seed:012x}");
        let world = World {
            real,
            shadow,
            peer,
            rng: Rng::new(seed),
            next: 1,
            agents: HashSet::new(),
            transcript: String::new(),
            session,
            calls: 0,
            clock: std::cell::Cell::new(START_SECONDS),
        };
        for directory in world.places() {
            std::fs::create_dir_all(&directory)?;
        }
        world.git(&["init", "-q", "-b", "main", "."])?;
        world.git(&["commit", "-q", "--allow-empty", "-m", "first"])?;
        if let Some((directory, place)) = &world.peer {
            let mut init = peer_command(place, directory);
            run(init.arg("init"))?;
            // Its standard settings ask for a model that nobody has here.
            run(peer_command(place, directory).args(["config", "set", "summary.enabled", "false"]))?;
        }
        Ok(world)
    }

    pub(super) fn places(&self) -> Vec<PathBuf> {
        let peer = self.peer.iter().map(|(directory, _)| directory.clone());
        [self.real.clone(), self.shadow.clone()].into_iter().chain(peer).collect()
    }

    /// Runs git everywhere; it must do the same everywhere.
    pub(super) fn git(&self, args: &[&str]) -> Result<bool> {
        self.git_with(args, &[])
    }

    /// The same with variables; says whether it succeeded.
    pub(super) fn git_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Result<bool> {
        let mut done = Vec::new();
        self.clock.set(self.clock.get() + STEP_SECONDS);
        for directory in self.places() {
            let mut command = self.command("git", &directory);
            command.args(args).envs(variables.iter().copied());
            done.push(command.output()?.status.success());
        }
        if done.iter().any(|one| *one != done[0]) {
            return Err(format!("git {args:?} does not end alike").into());
        }
        Ok(done[0])
    }

    /// A command of git that must succeed.
    pub(super) fn must(&self, args: &[&str]) -> Result<()> {
        if self.git(args)? { Ok(()) } else { Err(format!("git {args:?} failed").into()) }
    }

    pub(super) fn command(&self, program: &str, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(directory).env_remove("GIT_DIR").env("GIT_CONFIG_NOSYSTEM", "1");
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_EDITOR", "true")
            .env("FILTER_BRANCH_SQUELCH_WARNING", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "bench")
                .env(format!("GIT_{role}_EMAIL"), "bench@localhost");
            command.env(format!("GIT_{role}_DATE"), format!("{} +0000", self.clock.get()));
        }
        if let Some((peer, place)) = &self.peer
            && peer == directory
        {
            let paths = std::env::var("PATH").unwrap_or_default();
            let folder = place.program.parent().unwrap_or(Path::new("/")).display().to_string();
            command
                .env("PATH", format!("{folder}:{paths}"))
                .env("AGENT_TRACE_HOME", &place.home)
                .env("HOME", &place.home);
        }
        command
    }

    /// The lines of a file as it is in the work tree.
    pub(super) fn lines(&self, file: &str) -> Result<Vec<Line>> {
        let shadow = std::fs::read_to_string(self.shadow.join(file))?;
        let mut lines = Vec::new();
        for line in shadow.lines() {
            let (number, text) = line.split_once('|').ok_or("a line without a number")?;
            lines.push(Line { number: number.parse()?, text: text.to_owned() });
        }
        if std::fs::read_to_string(self.real.join(file))? != join(&lines) {
            return Err(format!("`{file}` differs from its shadow").into());
        }
        Ok(lines)
    }

    /// A number below another; 0 where there is none.
    pub(super) fn pick(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.below(bound as u64)).unwrap_or_default()
    }

    /// Whose a line is.
    pub(super) fn is_agents(&self, line: &Line) -> bool {
        self.agents.contains(&line.number)
    }

    /// A new line of a human.
    pub(super) fn typed(&mut self, text: impl Into<String>) -> Line {
        self.next += 1;
        Line { number: self.next, text: text.into() }
    }

    pub(super) fn write(&self, file: &str, lines: &[Line]) -> Result<()> {
        let shadow: String = lines.iter().map(|line| format!("{}|{}\n", line.number, line.text)).collect();
        for directory in self.places() {
            let path = directory.join(file);
            std::fs::create_dir_all(path.parent().unwrap_or(&directory))?;
            std::fs::write(&path, if directory == self.shadow { shadow.clone() } else { join(lines) })?;
        }
        Ok(())
    }

    /// A file that a human has written.
    pub(super) fn human_file(&mut self, file: &str, content: &str) -> Result<()> {
        let lines: Vec<Line> = content.lines().map(|line| self.typed(line)).collect();
        self.write(file, &lines)
    }

    pub(super) fn commit(&self, message: &str) -> Result<()> {
        self.must(&["add", "-A"])?;
        self.must(&["commit", "-q", "--allow-empty", "-m", message])
    }

    /// Lets the agent edit a file; false where the edit does not fit any more.
    pub(super) fn agent(&mut self, file: &str, edit: &Edit) -> Result<bool> {
        let exists = self.real.join(file).exists();
        let before = if exists { self.lines(file)? } else { Vec::new() };
        let original = join(&before);
        let after = match edit {
            Edit::Write(content) => content.clone(),
            Edit::Replace { old, new, all: true } if original.contains(old.as_str()) => {
                original.replace(old.as_str(), new)
            }
            Edit::Replace { old, new, all: false } if original.matches(old.as_str()).count() == 1 => {
                original.replacen(old.as_str(), new, 1)
            }
            Edit::Replace { .. } => return Ok(false),
        };
        if after == original || !after.ends_with('\n') {
            return Ok(false);
        }
        let texts: Vec<&str> = after.lines().collect();
        let pairs = common(self.real.parent().unwrap_or(&self.real), &original, &after)?;
        let mut lines = Vec::with_capacity(texts.len());
        for (text, pair) in texts.iter().zip(pairs) {
            lines.push(match pair {
                Some(at) => before[at].clone(),
                None => {
                    let line = self.typed(*text);
                    self.agents.insert(line.number);
                    line
                }
            });
        }
        self.write(file, &lines)?;
        self.tell(file, edit, exists.then_some(original))?;
        Ok(true)
    }

    /// Writes down what the agent did, as its transcript and its hook would.
    fn tell(&mut self, file: &str, edit: &Edit, original: Option<String>) -> Result<()> {
        self.calls += 1;
        let id = format!("toolu_{}_{}", &self.session[24..], self.calls);
        self.clock.set(self.clock.get() + STEP_SECONDS);
        let now = jiff::Timestamp::from_second(self.clock.get())?.to_string();
        let of = |root: &Path| {
            let path = root.join(file).display().to_string();
            match edit {
                Edit::Replace { old, new, all } => (
                    "Edit",
                    json!({"file_path": path, "old_string": old, "new_string": new, "replace_all": all}),
                    json!({"filePath": path, "oldString": old, "newString": new, "originalFile": original,
                        "structuredPatch": [], "userModified": false, "replaceAll": all}),
                ),
                Edit::Write(content) => (
                    "Write",
                    json!({"file_path": path, "content": content}),
                    json!({"type": if original.is_some() { "update" } else { "create" }, "filePath": path,
                        "content": content, "originalFile": original, "structuredPatch": []}),
                ),
            }
        };
        let (tool, input, result) = of(&self.real);
        let common = json!({"cwd": self.real, "sessionId": self.session, "version": "2.1.37", "gitBranch": "main",
            "isSidechain": false, "userType": "external", "uuid": id, "timestamp": now});
        let mut call = common.clone();
        call["type"] = json!("assistant");
        call["message"] = json!({"role": "assistant", "model": "claude-opus-4-6",
            "content": [{"type": "tool_use", "id": id, "name": tool, "input": input}]});
        let mut answer = common;
        answer["type"] = json!("user");
        answer["message"] =
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "ok"}]});
        answer["toolUseResult"] = result;
        self.transcript.push_str(&format!("{call}\n{answer}\n"));
        if let Some((directory, place)) = &self.peer {
            let (tool, input, result) = of(directory);
            let payload = json!({"hook_event_name": "PostToolUse", "session_id": self.session, "cwd": directory,
                "tool_name": tool, "tool_use_id": id, "tool_input": input, "tool_response": result,
                "model": "claude-opus-4-6"});
            let mut child = peer_command(place, directory).arg("record").stdin(Stdio::piped()).spawn()?;
            child.stdin.take().ok_or("no pipe")?.write_all(payload.to_string().as_bytes())?;
            child.wait()?;
            set_time(place, &now)?;
        }
        Ok(())
    }

    /// Files of the newest commit.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let mut list = self.command("git", &self.real);
        let listed = list.args(["-c", "core.quotePath=false", "ls-files"]).output()?;
        Ok(String::from_utf8(listed.stdout)?.lines().map(str::to_owned).collect())
    }
}

/// The peer takes the time from the clock; its newest trace gets the one of the case.
fn set_time(place: &PeerPlace, now: &str) -> Result<()> {
    for project in std::fs::read_dir(place.home.join("projects"))? {
        let path = project?.path().join("traces.jsonl");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if let Some(last) = lines.last_mut() {
            let mut trace: serde_json::Value = serde_json::from_str(last)?;
            trace["timestamp"] = json!(now);
            *last = trace.to_string();
        }
        std::fs::write(&path, lines.join("\n") + "\n")?;
    }
    Ok(())
}

pub(super) fn peer_command(place: &PeerPlace, directory: &Path) -> Command {
    let mut command = Command::new(&place.program);
    command.current_dir(directory).env("AGENT_TRACE_HOME", &place.home).env("HOME", &place.home);
    command.env_remove("GIT_DIR").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed").into()) }
}

pub(super) fn join(lines: &[Line]) -> String {
    lines.iter().map(|line| format!("{}\n", line.text)).collect()
}

/// For each line after an edit the line before that it is, as git has it: which of two equal lines is the new one is a
/// matter of convention, and the convention is git's.
fn common(folder: &Path, before: &str, after: &str) -> Result<Vec<Option<usize>>> {
    let (one, two) = (folder.join("before"), folder.join("after"));
    std::fs::write(&one, before)?;
    std::fs::write(&two, after)?;
    let mut diff = Command::new("git");
    diff.args(["diff", "--no-index", "--no-color", "-U0"])
        .arg(&one)
        .arg(&two)
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    let printed = diff.output()?.stdout;
    let mut pairs = vec![None; after.lines().count()];
    let (mut old, mut new) = (0, 0);
    let heads = String::from_utf8_lossy(&printed).into_owned();
    for head in heads.lines().filter_map(|line| line.strip_prefix("@@ -")) {
        let (from, rest) = head.split_once(" +").ok_or("a hunk without a second side")?;
        let (start, length) = range(from)?;
        let (start_new, length_new) = range(rest.split(' ').next().unwrap_or_default())?;
        // A side without lines names the line before it.
        let start = if length == 0 { start } else { start - 1 };
        while old < start {
            pairs[new] = Some(old);
            (old, new) = (old + 1, new + 1);
        }
        let start_new = if length_new == 0 { start_new } else { start_new - 1 };
        (old, new) = (start + length, start_new + length_new);
    }
    while new < pairs.len() {
        pairs[new] = Some(old);
        (old, new) = (old + 1, new + 1);
    }
    Ok(pairs)
}

/// `12` or `12,3`.
fn range(text: &str) -> Result<(usize, usize)> {
    match text.split_once(',') {
        Some((start, length)) => Ok((start.parse()?, length.parse()?)),
        None => Ok((text.parse()?, 1)),
    }
}
