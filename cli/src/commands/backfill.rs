//! `backfill`: says what was brought in and linked; the work is done by the modules `backfill` and `link`.

use agent_trace_store::env::yield_to_others;
use agent_trace_store::{Error, Store, Timestamp};

use super::Context;
use crate::args;
use crate::backfill::{self, Options, Report, Skipped};
use crate::capture::adapters::Agent;
use crate::git::commits;
use crate::git::process::Git;
use crate::json;
use crate::link::{Linker, reaches_back};
use crate::report::{Done, Failure};
use crate::settings;
use crate::time::Edge;
use crate::ui::{self, Ui};

const SKIPPED_SHOWN_MAX: usize = 20;

/// What linking came to.
#[derive(Clone, Copy, Default)]
struct Commits {
    looked_at: u64,
    with_lines: u64,
    lines: u64,
    written: u64,
}

pub(super) fn run(context: &Context, args: &args::Backfill) -> Result<Done, Failure> {
    let since = context.time(args.since.as_deref(), Edge::First)?;
    let agents = args.agent.iter().map(|name| agent(name)).collect::<Result<Vec<Agent>, Failure>>()?;
    yield_to_others();
    // What hooks have told of already is recognised only once it is in the store.
    let (place, store) = if args.dry_run { context.open()? } else { context.open_current()? };
    let git = Git::from(&context.settings.directory);
    let has_git = git.ask(&["rev-parse", "--git-dir"]).is_ok();
    let options = Options {
        paths: args.paths.clone(),
        since,
        agents,
        project: args.project,
        dry_run: args.dry_run,
        project_id: place.project.as_ref().map(ToString::to_string),
        redaction: context.redaction(&place)?,
    };
    let homes = settings::agent_homes();
    let report = {
        let progress = context.ui.progress();
        let place = backfill::Place { store: &store, git: has_git.then_some(&git), homes: &homes };
        backfill::run(&place, &options, progress.as_ref())?
    };
    let mut commits = Commits::default();
    if !args.dry_run
        && let Some(from) = backfill::pending(&store)?
    {
        store.catch_up()?;
        if has_git {
            commits = link(&store, &git, from)?;
        }
        backfill::set_pending(&store, None)?;
        store.catch_up()?;
    }
    tell_skipped(&context.ui, &report.skipped);
    print(&context.ui, args.dry_run, &report, commits)?;
    Ok(if report.skipped.is_empty() { Done::Well } else { Done::Partial })
}

fn agent(name: &str) -> Result<Agent, Failure> {
    Agent::named(name).ok_or_else(|| {
        let names: Vec<&str> = Agent::ALL.iter().map(|agent| agent.name()).collect();
        Error::invalid(format!("cannot read agent `{name}`: expected one of {}", names.join(", "))).into()
    })
}

/// Links the commits that may hold what came in.
fn link(store: &Store, git: &Git, from: Timestamp) -> Result<Commits, Failure> {
    let mut commits = Commits::default();
    let since = format!("--since={}", reaches_back(from).micros().div_euclid(1_000_000));
    let mut names = vec![since.as_str(), "--branches", "--remotes", "--reflog"];
    // There is no HEAD before the first commit.
    if commits::resolve(git, "HEAD").is_ok() {
        names.push("HEAD");
    }
    let ids = commits::list(git, &names)?;
    Linker::open(store, git)?.link(&ids, &mut |linked| {
        commits.looked_at += 1;
        commits.with_lines += u64::from(linked.lines > 0);
        commits.lines += linked.lines;
        commits.written += u64::from(linked.is_new);
    })?;
    Ok(commits)
}

fn print(ui: &Ui, dry_run: bool, report: &Report, commits: Commits) -> Result<(), Failure> {
    if ui.is_json() {
        return Ok(ui.json(&document(dry_run, report, commits))?);
    }
    let prefix = if dry_run { "[dry-run] " } else { "" };
    let number = ui::number;
    ui.line(format_args!(
        "{prefix}Looked at {} file(s), {}: {} session(s) of this repository, {} file(s) unchanged, {} of other places",
        number(report.files),
        ui::bytes(report.bytes),
        number(report.sessions),
        number(report.unchanged),
        number(report.elsewhere + report.skipped_since)
    ))?;
    for (agent, count) in &report.by_agent {
        ui.line(format_args!("  {agent:<12} {:>9}", number(*count)))?;
    }
    let verb = if dry_run { "would be added" } else { "added" };
    let calls = report.calls;
    let mut said = format!(
        "{} edit(s): {} trace(s) {verb}, {} known already",
        number(calls.found),
        number(calls.added),
        number(calls.known)
    );
    let rest = [
        (calls.outside, "outside the repository"),
        (calls.old + report.skipped_since, "older than --since"),
        (calls.without_lines, "whose lines are not known"),
    ];
    for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
        said.push_str(&format!(", {} {what}", number(count)));
    }
    if calls.failed > 0 {
        said.push_str(&format!("; {} more failed or were refused", number(calls.failed)));
    }
    ui.line(format_args!("{prefix}{said}"))?;
    ui.line(format_args!("{prefix}{} transcript(s) {verb}", number(report.transcripts)))?;
    if !dry_run && commits.looked_at > 0 {
        ui.line(format_args!(
            "Linked {} line(s) of {} commit(s), {} looked at",
            number(commits.lines),
            number(commits.with_lines),
            number(commits.looked_at)
        ))?;
    }
    Ok(())
}

fn document(dry_run: bool, report: &Report, commits: Commits) -> json::Backfill {
    let skipped = report.skipped.iter().map(|skipped| json::Bad {
        file: skipped.file.display().to_string(),
        line: skipped.line,
        reason: skipped.reason.clone(),
        kept: false,
    });
    json::Backfill {
        schema: json::BACKFILL,
        dry_run,
        files: report.files,
        bytes: report.bytes,
        unchanged: report.unchanged,
        elsewhere: report.elsewhere,
        skipped_since: report.skipped_since,
        sessions: report.sessions,
        agents: report.by_agent.clone(),
        transcripts_added: report.transcripts,
        edits: json::BackfillEdits {
            found: report.calls.found,
            added: report.calls.added,
            known: report.calls.known,
            failed: report.calls.failed,
            outside: report.calls.outside,
            skipped_since: report.calls.old,
            without_lines: report.calls.without_lines,
        },
        commits: json::BackfillCommits {
            looked_at: commits.looked_at,
            with_lines: commits.with_lines,
            lines: commits.lines,
            written: commits.written,
        },
        skipped: skipped.collect(),
    }
}

fn tell_skipped(ui: &Ui, skipped: &[Skipped]) {
    if ui.is_json() {
        return;
    }
    for skipped in skipped.iter().take(SKIPPED_SHOWN_MAX) {
        let line = skipped.line.map(|line| format!("{line}:")).unwrap_or_default();
        ui.warn(&format!("{}:{line} {}", skipped.file.display(), skipped.reason));
    }
    if skipped.len() > SKIPPED_SHOWN_MAX {
        ui.warn(&format!("and {} more; --json lists all", skipped.len() - SKIPPED_SHOWN_MAX));
    }
}
