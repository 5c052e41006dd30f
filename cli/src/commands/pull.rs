//! `pull`: takes what a remote has and this store has not.

use agent_trace_store::ErrorKind;
use agent_trace_sync::exchange::Exchange;
use agent_trace_sync::pull::{PullOptions, PullReport, Transcripts};

use super::{Context, hinted, push};
use crate::args;
use crate::json;
use crate::remotes::{Files, Named};
use crate::report::{Done, Failure};
use crate::time::Edge;
use crate::ui::{self, Ui};

pub(super) fn run(context: &Context, args: &args::Pull) -> Result<Done, Failure> {
    let options = PullOptions {
        since: context.time(args.since.as_deref(), Edge::First)?,
        transcripts: match (args.no_transcripts, args.transcripts) {
            (true, _) => Transcripts::None,
            (_, true) => Transcripts::All,
            _ => Transcripts::New,
        },
        dry_run: args.dry_run,
    };
    let (place, store) = context.open()?;
    let files = context.files(&place, &store);
    let remote = context.pick(&files, args.remote.as_deref(), args.limit_rate.as_deref())?;
    let report = take(context, &files, &remote, &options)?;
    if context.ui.is_json() {
        context.ui.json(&to_json(&remote, options.dry_run, &report))?;
    } else {
        print(&context.ui, options.dry_run, &report)?;
    }
    Ok(done(&report))
}

/// Pulls from a remote.
pub(super) fn take(
    context: &Context,
    files: &Files<'_>,
    remote: &Named,
    options: &PullOptions,
) -> Result<PullReport, Failure> {
    let exchange = context.reach(files, remote, false)?;
    if matches!(&exchange, Exchange::Layout(layout) if layout.id().is_none()) {
        let message = format!("there is nothing at `{}`, the remote `{}`", remote.url, remote.name);
        let hint =
            format!("agent-trace push makes it; agent-trace remote set-url {} URL corrects it", remote.name);
        return Err(Failure::new(ErrorKind::NotFound, message, hint));
    }
    let progress = context.ui.progress();
    exchange.pull(files.store, options, progress.as_ref()).map_err(|error| hinted(remote, error))
}

/// How a pull has ended.
pub(super) fn done(report: &PullReport) -> Done {
    let refused = if report.refused.is_empty() { Done::Well } else { Done::Partial };
    refused.and(if report.forks.is_empty() { Done::Well } else { Done::Conflict })
}

/// The report for a program.
pub(super) fn to_json(remote: &Named, dry_run: bool, report: &PullReport) -> json::Pull {
    json::Pull {
        schema: json::PULL,
        remote: remote.name.clone(),
        url: remote.url.clone(),
        dry_run,
        taken: json::counts(&report.taken),
        segments: report.segments,
        bytes: report.bytes,
        requests: report.requests,
        forks: report.forks.clone(),
        refused: report.refused.clone(),
        new_writer: report.new_writer,
        left_out: report.left_out,
        fetched: report.fetched,
        not_there: report.not_there,
        cannot_leave_out: report.cannot_leave_out,
        erased: report.erased,
        dropped: report.dropped,
    }
}

/// The report for people, and for scripts that read the lines of agent-trace-cli.
pub(super) fn print(ui: &Ui, dry_run: bool, report: &PullReport) -> Result<(), Failure> {
    ui.line(format_args!("{}{}", push::prefix(dry_run), push::counted("Pulled", &report.taken)))?;
    if !dry_run && report.bytes > 0 {
        let within = match report.segments {
            0 => String::new(),
            count => format!(" in {count} segment(s)"),
        };
        ui.note(&format!("{}{within}", ui::bytes(report.bytes)));
    }
    print_bodies(ui, report);
    for fork in &report.forks {
        ui.warn(&format!("a log has forked or gone back, all of it is kept: {fork}"));
    }
    for refused in &report.refused {
        ui.warn(&format!("refused: {refused}"));
    }
    if report.new_writer {
        ui.warn("this store was copied or restored: it has a new writer from now on");
    }
    Ok(())
}

/// What became of the bytes of transcripts.
fn print_bodies(ui: &Ui, report: &PullReport) {
    if report.cannot_leave_out {
        ui.warn("the service is too old to leave transcripts out: they came");
    }
    if report.left_out > 0 {
        let count = report.left_out;
        ui.note(&format!(
            "the bytes of {count} conversation(s) were left out; `agent-trace cat` fetches them"
        ));
    }
    if report.erased > 0 {
        ui.note(&format!("{} record(s) came without their bytes: they are erased", report.erased));
    }
    if report.dropped > 0 {
        ui.note(&format!("somebody has erased {} object(s): their bytes are gone here too", report.dropped));
    }
    if report.fetched > 0 {
        ui.note(&format!("fetched the bytes of {} conversation(s) that were elsewhere", report.fetched));
    }
    if report.not_there > 0 {
        ui.note(&format!(
            "the bytes of {} conversation(s) are elsewhere still: not on this remote",
            report.not_there
        ));
    }
}
