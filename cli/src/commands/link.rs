//! `commit-link`, `rewrite-ledger`, `link`: whose lines commits hold, worked out and written down.

use std::collections::BTreeSet;

use agent_trace_store::{Error, Store, Timestamp};

use super::Context;
use crate::args;
use crate::git::commits;
use crate::git::process::Git;
use crate::json;
use crate::link::{Linked, Linker};
use crate::notes::attach::{NoteSettings, Present, attach};
use crate::project::Place;
use crate::report::{Done, Failure};
use crate::time::Edge;
use crate::ui;

/// What `rewrite-ledger` reads at most.
const REWRITES_BYTES_MAX: u64 = 16 << 20;

/// `commit-link`: one commit.
pub(super) fn commit(context: &Context, args: &args::CommitLink) -> Result<Done, Failure> {
    let git = Git::from(&context.settings.directory);
    let name = args.revision.as_deref().unwrap_or("HEAD");
    let id = commits::resolve(&git, name)?;
    let (place, store) = context.open()?;
    let mut linker = Linker::open(&store, &git)?;
    let linked = run_all(&mut linker, &[id])?;
    store.catch_up()?;
    attach_notes(context, &place, &store, &git, &linked);
    let Some(one) = linked.first() else { return Ok(Done::Well) };
    if context.ui.is_json() {
        context.ui.json(&document(&linked, false))?;
    } else if one.traces > 0 {
        // Scripts read this line; it is the one that agent-trace-cli prints.
        let short = &one.commit[..8.min(one.commit.len())];
        context.ui.line(format_args!("agent-trace: linked commit {short} to {} trace(s)", one.traces))?;
        context.ui.note(&format!(
            "{} of {} added lines are an agent's",
            ui::number(one.lines),
            ui::number(one.added)
        ));
    } else {
        context.ui.note("no line of it is an agent's, as far as traces say");
    }
    Ok(Done::Well)
}

/// `rewrite-ledger`: pairs of old and new commits on stdin, as git gives them to post-rewrite.
pub(super) fn rewrite(context: &Context) -> Result<Done, Failure> {
    let input = context.ui.input(REWRITES_BYTES_MAX)?;
    let pairs = pairs(&String::from_utf8_lossy(&input))?;
    let (place, store) = context.open()?;
    let git = Git::from(&context.settings.directory);
    let mut linker = Linker::open(&store, &git)?;
    let ids = crate::link::rewrites(&mut linker, &pairs);
    let linked = run_all(&mut linker, &ids)?;
    store.catch_up()?;
    attach_notes(context, &place, &store, &git, &linked);
    let written = linked.iter().filter(|linked| linked.traces > 0).count();
    if context.ui.is_json() {
        context.ui.json(&document(&linked, false))?;
    } else {
        context.ui.line(format_args!("agent-trace: remapped {written} ledger(s)"))?;
    }
    Ok(if linked.iter().any(|linked| linked.is_missing) { Done::Partial } else { Done::Well })
}

/// `link`: commits of a range or a time, whatever hooks have run.
pub(super) fn link(context: &Context, args: &args::Link) -> Result<Done, Failure> {
    let git = Git::from(&context.settings.directory);
    let since = context.time(args.since.as_deref(), Edge::First)?;
    let ids = chosen(&git, args, since)?;
    let (place, store) = context.open()?;
    let mut linker = Linker::open(&store, &git)?;
    linker.dry_run(args.dry_run);
    let linked = run_all(&mut linker, &ids)?;
    if !args.dry_run {
        store.catch_up()?;
        let new: Vec<Linked> = linked.iter().filter(|one| one.is_new).cloned().collect();
        attach_notes(context, &place, &store, &git, &new);
    }
    let ui = &context.ui;
    if ui.is_json() {
        ui.json(&document(&linked, args.dry_run))?;
        return Ok(Done::Well);
    }
    for one in linked.iter().filter(|one| one.is_new) {
        let short = &one.commit[..12.min(one.commit.len())];
        let (lines, added) = (ui::number(one.lines), ui::number(one.added));
        ui.line(format_args!("{} {} trace(s), {lines} of {added} lines", ui.name(short), one.traces))?;
    }
    let new = linked.iter().filter(|one| one.is_new).count() as u64;
    let with_lines = linked.iter().filter(|one| one.lines > 0).count() as u64;
    let verb = if args.dry_run { "would be written" } else { "written" };
    ui.line(format_args!(
        "Looked at {} commit(s): {} hold lines of an agent, {} ledger(s) {verb}",
        ui::number(linked.len() as u64),
        ui::number(with_lines),
        ui::number(new)
    ))?;
    Ok(Done::Well)
}

/// The commits that are asked for, parents first.
fn chosen(git: &Git, args: &args::Link, since: Option<Timestamp>) -> Result<Vec<String>, Failure> {
    let since = since.map(|since| format!("--since={}", since.micros().div_euclid(1_000_000)));
    let mut list: Vec<&str> = since.as_deref().into_iter().collect();
    match &args.range {
        Some(range) if range.starts_with('-') => {
            return Err(Error::invalid(format!("cannot read range `{range}`: expected commits")).into());
        }
        Some(range) => list.push(range),
        // Commits that were rewritten say whose the lines of those in their place are, as long as git remembers them.
        None => list.extend(["--branches", "--remotes", "--reflog", "HEAD"]),
    }
    Ok(commits::list(git, &list)?)
}

fn run_all(linker: &mut Linker<'_>, ids: &[String]) -> Result<Vec<Linked>, Failure> {
    let mut all = Vec::with_capacity(ids.len());
    linker.link(ids, &mut |linked| all.push(linked.clone()))?;
    Ok(all)
}

/// Puts notes on what was linked, where the project wants that. The ledgers stand without them.
fn attach_notes(context: &Context, place: &Place, store: &Store, git: &Git, linked: &[Linked]) {
    let settings = NoteSettings::read(&context.env, &place.data);
    if settings.enabled
        && let Err(error) = attach(store, git, linked, settings.include, Present::Join)
    {
        context.ui.warn(&format!("cannot put notes on commits: {error}"));
    }
}

/// Pairs of commits, one on each line; what stands behind them on a line is git's own.
fn pairs(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut pairs = Vec::new();
    let mut seen = BTreeSet::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut words = line.split_whitespace().map(str::to_owned);
        let is_id = |word: &String| {
            matches!(word.len(), 40 | 64) && word.bytes().all(|digit| digit.is_ascii_hexdigit())
        };
        match (words.next().filter(is_id), words.next().filter(is_id)) {
            (Some(old), Some(new)) => {
                if seen.insert((old.clone(), new.clone())) {
                    pairs.push((old, new));
                }
            }
            _ => {
                let message = format!("cannot read line {}: expected two commit ids", number + 1);
                return Err(Failure::from(Error::invalid(message)));
            }
        }
    }
    Ok(pairs)
}

fn document(linked: &[Linked], dry_run: bool) -> json::Link {
    let commits = linked.iter().map(|one| json::LinkedCommit {
        commit: one.commit.clone(),
        traces: one.traces as u64,
        lines: one.lines,
        added: one.added,
        written: one.is_new,
        missing: one.is_missing,
    });
    json::Link { schema: json::LINK, dry_run, commits: commits.collect() }
}
