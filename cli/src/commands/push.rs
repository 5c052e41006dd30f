//! `push`: sends what a remote has not got.

use std::collections::BTreeMap;

use agent_trace_store::Kind;
use agent_trace_sync::client::Scope;
use agent_trace_sync::exchange::Exchange;
use agent_trace_sync::push::{PushOptions, PushReport};

use super::{Context, hinted, kind};
use crate::args;
use crate::bodies::Holders;
use crate::json;
use crate::privacy::gate::PrivacyGate;
use crate::remotes::{Files, Named};
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::time::Edge;
use crate::ui::{self, Ui};

pub(super) fn run(context: &Context, args: &args::Push) -> Result<Done, Failure> {
    let options = PushOptions {
        full: args.full,
        only: args.only.iter().map(|only| kind(only)).collect::<Result<_, _>>()?,
        since: context.time(args.since.as_deref(), Edge::First)?,
        dry_run: args.dry_run,
    };
    let (place, store) = context.open_current()?;
    let files = context.files(&place, &store);
    let remote = context.pick(&files, args.remote.as_deref(), args.limit_rate.as_deref())?;
    let sent = send(context, &files, &remote, &options, args.allow_sensitive)?;
    let report = &sent.report;
    if context.ui.is_json() {
        context.ui.json(&to_json(&remote, options.dry_run, &sent))?;
    } else {
        print(&context.ui, options.dry_run, &sent)?;
        hint_elsewhere(context, &files, report)?;
    }
    Ok(done(report))
}

/// How a push has ended.
pub(super) fn done(report: &PushReport) -> Done {
    let refused = if report.refused.is_empty() { Done::Well } else { Done::Partial };
    let is_whole = report.gone_back.is_empty() && report.forks.is_empty();
    refused.and(if is_whole { Done::Well } else { Done::Conflict })
}

/// What was sent, and what the privacy gate has let pass.
pub(super) struct Sent {
    pub(super) report: PushReport,
    /// What may be secrets.
    pub(super) possible: u64,
}

/// Pushes to a remote, after asking a service who the token is for, and the privacy gate what leaves.
pub(super) fn send(
    context: &Context,
    files: &Files<'_>,
    remote: &Named,
    options: &PushOptions,
    allow_sensitive: bool,
) -> Result<Sent, Failure> {
    let exchange = context.reach(files, remote, !options.dry_run)?;
    if let Exchange::Service(service) = &exchange {
        let scope = service.check_scope().map_err(|error| hinted(remote, error))?;
        if scope == Scope::Unsupported {
            context.ui.warn(UNSUPPORTED);
        }
    }
    let progress = context.ui.progress();
    // Whoever keeps an encrypted remote cannot read what goes there.
    if allow_sensitive || remote.secret.is_some() {
        let pushed = exchange.push(files.store, options, progress.as_ref());
        return Ok(Sent { report: pushed.map_err(|error| hinted(remote, error))?, possible: 0 });
    }
    let policy = context.policy(files.place)?;
    let gate = PrivacyGate::new(&policy, progress.as_ref());
    let pushed = exchange.push_through(files.store, options, &gate, progress.as_ref());
    let report = pushed.map_err(|error| hinted(remote, error))?;
    let possible = gate.found.borrow().possible;
    Ok(Sent { report, possible })
}

/// What is said of a service that does not tell who a token is for.
pub(super) const UNSUPPORTED: &str =
    "the service is too old to say who the token is for (`whoami_unsupported`)";

/// The report for a program.
pub(super) fn to_json(remote: &Named, dry_run: bool, sent: &Sent) -> json::Push {
    let report = &sent.report;
    json::Push {
        schema: json::PUSH,
        remote: remote.name.clone(),
        url: remote.url.clone(),
        dry_run,
        sent: json::counts(&report.sent),
        held_back: json::counts(&report.held_back),
        elsewhere: report.elsewhere,
        segments: report.segments,
        bytes: report.bytes,
        requests: report.requests,
        new_writer: report.new_writer,
        gone_back: report.gone_back.clone(),
        refused: report.refused.clone(),
        forks: report.forks.clone(),
        possible_secrets: sent.possible,
    }
}

/// The report for people, and for scripts that read the lines of agent-trace-cli.
pub(super) fn print(ui: &Ui, dry_run: bool, sent: &Sent) -> Result<(), Failure> {
    let report = &sent.report;
    ui.line(format_args!("{}{}", prefix(dry_run), counted("Pushed", &report.sent)))?;
    let held: u64 = report.held_back.values().sum();
    if held > 0 {
        ui.line(format_args!("  ({} held back; use --full to push)", held_words(&report.held_back)))?;
    }
    if report.elsewhere > 0 {
        ui.line(format_args!(
            "  ({} conversation(s) not sent: their bytes are elsewhere)",
            report.elsewhere
        ))?;
    }
    if !dry_run && report.bytes > 0 {
        ui.note(&format!("{} in {} segment(s)", ui::bytes(report.bytes), report.segments));
    }
    if sent.possible > 0 {
        ui.note(&format!("{} possible secret(s); agent-trace privacy scan lists them", sent.possible));
    }
    if report.withdrawn > 0 {
        ui.note(&format!("{} segment(s) there held erased bytes and were replaced", report.withdrawn));
    }
    if report.new_writer {
        ui.warn("this store was copied or restored: it has a new writer from now on, and pushed under that");
    }
    for fork in &report.forks {
        ui.warn(&format!("a log has forked: {}", sanitize::line(fork)));
    }
    tell_wrong(ui, &report.gone_back, &report.refused);
    if held > 0 && report.sent.values().sum::<u64>() == 0 {
        ui.hint("agent-trace push --full");
    }
    Ok(())
}

/// Says how to bring what could not be sent.
pub(super) fn hint_elsewhere(
    context: &Context,
    files: &Files<'_>,
    report: &PushReport,
) -> Result<(), Failure> {
    if report.elsewhere > 0 {
        let name = Holders::of(files)?.for_hint(&files.store.elsewhere()?);
        context
            .ui
            .hint(&format!("agent-trace pull --transcripts --remote {name} brings them, then push again"));
    }
    Ok(())
}

/// Says what is wrong on the remote.
pub(super) fn tell_wrong(ui: &Ui, gone_back: &[String], refused: &[String]) {
    for head in gone_back {
        ui.warn(&format!("a head on the remote went back or vanished: {head}"));
    }
    for refused in refused {
        ui.warn(&format!("refused: {refused}"));
    }
}

/// What stands before the lines of a dry run.
pub(super) fn prefix(dry_run: bool) -> &'static str {
    if dry_run { "[dry-run] " } else { "" }
}

/// The line that scripts read.
pub(super) fn counted(verb: &str, counts: &BTreeMap<Kind, u64>) -> String {
    let of = |kind: Kind| counts.get(&kind).copied().unwrap_or(0);
    format!(
        "{verb} {} trace(s), {} ledger(s), {} commit-link(s), {} conversation(s), {} summary(ies)",
        of(Kind::TRACE),
        of(Kind::LEDGER),
        of(Kind::COMMIT_LINK),
        of(Kind::TRANSCRIPT),
        of(Kind::SUMMARY)
    )
}

fn held_words(held: &BTreeMap<Kind, u64>) -> String {
    let words = held.iter().filter(|(_, count)| **count > 0).map(|(kind, count)| match *kind {
        Kind::TRACE => format!("{count} unattributed trace(s)"),
        Kind::LEDGER => format!("{count} ledger(s)"),
        Kind::COMMIT_LINK => format!("{count} commit-link(s)"),
        Kind::TRANSCRIPT => format!("{count} conversation(s)"),
        Kind::SUMMARY => format!("{count} summary(ies)"),
        Kind::ERASE => format!("{count} erase(s)"),
        _ => format!("{count} of a kind that this version does not know"),
    });
    words.collect::<Vec<String>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_that_scripts_read() {
        let sent = BTreeMap::from([(Kind::TRACE, 2), (Kind::TRANSCRIPT, 1)]);
        assert_eq!(
            counted("Pushed", &sent),
            "Pushed 2 trace(s), 0 ledger(s), 0 commit-link(s), 1 conversation(s), 0 summary(ies)"
        );
        let held = BTreeMap::from([(Kind::TRACE, 3), (Kind::TRANSCRIPT, 4)]);
        assert_eq!(held_words(&held), "3 unattributed trace(s), 4 conversation(s)");
    }
}
