//! `tour`: what agent-trace does, on sample data, told step by step and really run.
//!
//! Everything happens in a temporary directory. Ends well only if every step did what it says.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, ErrorKind};
use serde_json::Value;

use super::Context;
use crate::args;
use crate::report::{Done, Failure};
use crate::sample::{self, State};
use crate::settings::Settings;
use crate::ui::Ui;

pub(super) fn run(context: &Context, args: &args::Tour) -> Result<Done, Failure> {
    let mut random = [0; 4];
    context.env.entropy.fill(&mut random);
    let temporary = context.settings.directory.join(&context.settings.temporary);
    let directory = temporary.join(format!("agent-trace-tour-{}", encode_hex(&random)));
    let doing = |error| Error::io(format!("cannot use `{}`", directory.display()), error);
    context.env.fs.create_dir_all(&directory).map_err(doing)?;
    let tour = Tour { context, directory: directory.clone() };
    let done = tour.walk();
    if args.keep {
        context.ui.note(&format!("kept: {}", directory.display()));
    } else {
        context.env.fs.remove_dir_all(&directory).map_err(doing)?;
    }
    done.map(|()| Done::Well)
}

struct Tour<'a> {
    context: &'a Context,
    directory: PathBuf,
}

impl Tour<'_> {
    fn walk(&self) -> Result<(), Failure> {
        let states = sample::write(&self.context.env, &self.directory)?;
        self.fill()?;
        self.ask(&states)?;
        let url = format!("file://{}", self.directory.join("team").display().to_string().replace('%', "%25"));
        self.exchange(&url, &states)?;
        self.care(&states)?;
        self.tell("All of it held. Now in a repository of yours: agent-trace init")
    }

    fn fill(&self) -> Result<(), Failure> {
        self.tell(
            "A store, and in it a session of Claude Code in three states and what agent-trace-cli has kept:",
        )?;
        self.step(&["--store", "laptop", "init"])?;
        self.step(&["--store", "laptop", "import", "sessions", "agent-trace-cli"])?;
        let again = self.json(&["--store", "laptop", "import", "sessions", "agent-trace-cli"])?;
        self.hold(again["added"] == 0, "importing again adds nothing")
    }

    fn ask(&self, states: &[State]) -> Result<(), Failure> {
        self.tell("What is there, newest first, and one of it:")?;
        self.step(&["--store", "laptop", "log", "-n", "6"])?;
        let summary = self.json(&["--store", "laptop", "log", "--kind", "summary", "-n", "1"])?;
        let id = summary["id"].as_str().unwrap_or_default();
        self.step(&["--store", "laptop", "show", &id[..id.len().min(8)]])?;
        self.tell("A transcript comes back byte for byte, in every state that it had:")?;
        self.compare("laptop", states)
    }

    fn exchange(&self, url: &str, states: &[State]) -> Result<(), Failure> {
        self.tell("A folder is a remote. What no ledger names stays here, unless --full is given:")?;
        self.step(&["--store", "laptop", "remote", "add", "team", url])?;
        self.step(&["--store", "laptop", "push", "--dry-run"])?;
        self.step(&["--store", "laptop", "push", "--full"])?;
        self.tell("Another machine:")?;
        self.step(&["--store", "desktop", "init"])?;
        self.step(&["--store", "desktop", "remote", "add", "team", url])?;
        self.step(&["--store", "desktop", "pull"])?;
        self.compare("desktop", states)?;
        let (laptop, desktop) = (self.ids("laptop")?, self.ids("desktop")?);
        self.hold(!laptop.is_empty() && laptop == desktop, "both have the same records")
    }

    fn care(&self, states: &[State]) -> Result<(), Failure> {
        self.tell("Every byte can be checked, the index made anew, and the segments rewritten (which pays for large stores):")?;
        self.step(&["--store", "desktop", "verify"])?;
        self.step(&["--store", "laptop", "reindex"])?;
        self.step(&["--store", "laptop", "compact", "--yes"])?;
        self.step(&["--store", "laptop", "verify"])?;
        self.compare("laptop", states)?;
        self.step(&["--store", "laptop", "status"])
    }

    /// Runs a command, and prints it and what it prints.
    fn step(&self, args: &[&str]) -> Result<(), Failure> {
        let ui = &self.context.ui;
        let root = format!("{}/", self.directory.display());
        let shown: Vec<String> = args.iter().map(|arg| arg.replace(&root, "$PWD/")).collect();
        ui.line(format_args!(
            "{} {}",
            ui.faint("$"),
            ui.strong(format_args!("agent-trace {}", shown.join(" ")))
        ))?;
        self.command(args, ui.without_notes())
    }

    /// Runs a command for its answer.
    fn json(&self, args: &[&str]) -> Result<Value, Failure> {
        let kept = self.context.ui.capturing(true);
        self.command(args, kept.clone())?;
        serde_json::from_slice(&kept.captured()).map_err(|error| {
            let message = format!("cannot read the answer of `{}` as JSON", args.join(" "));
            Error::new(ErrorKind::Failed, message).with_source(error).into()
        })
    }

    /// The ids of all records of a store, sorted.
    fn ids(&self, store: &str) -> Result<Vec<String>, Failure> {
        let kept = self.context.ui.capturing(true);
        self.command(&["--store", store, "log", "-n", "1000"], kept.clone())?;
        let answer = kept.captured();
        let lines = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let ids = lines.filter_map(|line| {
            let record: Value = serde_json::from_slice(line).ok()?;
            record["id"].as_str().map(str::to_owned)
        });
        let mut ids: Vec<String> = ids.collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Compares every state of the session with what a store gives back, and prints the last comparison.
    fn compare(&self, store: &str, states: &[State]) -> Result<(), Failure> {
        let ui = &self.context.ui;
        for (number, state) in states.iter().enumerate() {
            let kept = ui.capturing(false);
            let short = &state.sha256[..12];
            self.command(&["--store", store, "cat", short], kept.clone())?;
            if kept.captured() != state.bytes {
                return self.hold(false, &format!("state {} comes back byte for byte", number + 1));
            }
            if number + 1 == states.len() {
                let line = format!("agent-trace --store {store} cat {short} | cmp - sessions/{}", state.file);
                ui.line(format_args!("{} {}", ui.faint("$"), ui.strong(line)))?;
            }
        }
        self.hold(true, &format!("all {} states are identical, byte for byte", states.len()))
    }

    /// Runs a command in this process, as the program would.
    fn command(&self, args: &[&str], ui: Ui) -> Result<(), Failure> {
        let directory: &Path = &self.directory;
        let mut all = vec![OsString::from("agent-trace"), OsString::from("-C"), directory.into()];
        all.extend(args.iter().map(OsString::from));
        let cli = args::parse(all).map_err(|usage| Error::invalid(usage.error.to_string()))?;
        let settings = Settings::read(&cli.global)?;
        let context = Context { env: self.context.env.clone(), settings, ui };
        match super::run(&context, &cli.command)? {
            Done::Well => Ok(()),
            done => {
                let message = format!("`agent-trace {}` ended with status {}", args.join(" "), done.status());
                Err(Error::new(ErrorKind::Failed, message).into())
            }
        }
    }

    fn tell(&self, text: &str) -> Result<(), Failure> {
        self.context.ui.line("")?;
        Ok(self.context.ui.line(self.context.ui.strong(text))?)
    }

    fn hold(&self, holds: bool, what: &str) -> Result<(), Failure> {
        if !holds {
            return Err(Error::new(ErrorKind::Failed, format!("this did not hold: {what}")).into());
        }
        Ok(self.context.ui.line(format_args!("  ok: {what}"))?)
    }
}
