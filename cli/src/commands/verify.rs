//! `verify`: checks every stored byte, and says what is wrong and what that affects.

use agent_trace_store::ErrorKind;
use agent_trace_store::verify::{self, Report};
use agent_trace_sync::exchange::Exchange;
use agent_trace_sync::inspect;

use super::{Context, hinted};
use crate::args;
use crate::json;
use crate::remotes::{Files, Named};
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::ui::{self, Ui};

const AFFECTED_SHOWN_MAX: usize = 20;

pub(super) fn run(context: &Context, args: &args::Verify) -> Result<Done, Failure> {
    let (place, store) = context.open()?;
    if let Some(name) = &args.remote {
        let files = context.files(&place, &store);
        return inspect(context, &files, &context.pick(&files, Some(name), None)?);
    }
    let report = {
        let progress = context.ui.progress();
        verify::verify(&store, progress.as_ref())?
    };
    print(&context.ui, &report)?;
    Ok(if report.problems.is_empty() { Done::Well } else { Done::Corrupt })
}

/// Checks a remote; a service checks itself.
fn inspect(context: &Context, files: &Files<'_>, remote: &Named) -> Result<Done, Failure> {
    let Exchange::Layout(layout) = context.reach(files, remote, false)? else {
        let message = format!("the remote `{}` is a service: it is checked where it runs", remote.name);
        return Err(Failure::new(
            ErrorKind::Invalid,
            message,
            "agent-trace --store DIR verify, on its machine",
        ));
    };
    let inspected = {
        let progress = context.ui.progress();
        inspect::inspect(files.store, &layout, progress.as_ref()).map_err(|error| hinted(remote, error))?
    };
    let ui = &context.ui;
    let is_well = inspected.problems.is_empty();
    if ui.is_json() {
        ui.json(&json::VerifyRemote {
            schema: json::VERIFY_REMOTE,
            remote: remote.name.clone(),
            url: remote.url.clone(),
            ok: is_well,
            heads: inspected.heads,
            segments: inspected.segments,
            bytes: inspected.bytes,
            events: inspected.events,
            requests: inspected.requests,
            problems: inspected.problems,
        })?;
        return Ok(if is_well { Done::Well } else { Done::Corrupt });
    }
    ui.line(format_args!(
        "Checked {} segment(s), {}, {} events of {} writer(s) at {}",
        ui::number(inspected.segments),
        ui::bytes(inspected.bytes),
        ui::number(inspected.events),
        ui::number(inspected.heads),
        sanitize::line(&remote.url)
    ))?;
    for problem in &inspected.problems {
        ui.line(format_args!("{} {}", ui.bad("damaged"), sanitize::line(problem)))?;
    }
    if is_well {
        ui.line("Everything is as it was sent")?;
        return Ok(Done::Well);
    }
    ui.line(format_args!("{} problem(s)", ui::number(inspected.problems.len() as u64)))?;
    ui.hint("a store that holds what is damaged there can push it to a new remote: agent-trace push --full");
    Ok(Done::Corrupt)
}

fn print(ui: &Ui, report: &Report) -> Result<(), Failure> {
    if ui.is_json() {
        let problems = report.problems.iter().map(|problem| json::Problem {
            code: problem.code.to_owned(),
            what: problem.what.clone(),
            message: problem.message.clone(),
            affects: problem.affects.clone(),
        });
        ui.json(&json::Verify {
            schema: json::VERIFY,
            ok: report.problems.is_empty(),
            segments: report.segments,
            bytes: report.bytes,
            objects: report.objects,
            events: report.events,
            unconfirmed: report.unconfirmed,
            elsewhere: report.elsewhere,
            problems: problems.collect(),
        })?;
        return Ok(());
    }
    ui.line(format_args!(
        "Checked {} segment(s), {}, {} objects, {} events",
        ui::number(report.segments),
        ui::bytes(report.bytes),
        ui::number(report.objects),
        ui::number(report.events)
    ))?;
    if report.unconfirmed > 0 {
        let count = ui::number(report.unconfirmed);
        ui.line(format_args!("  {count} events are unconfirmed: the one before or after them is not here"))?;
    }
    if report.elsewhere > 0 {
        let count = ui::number(report.elsewhere);
        ui.line(format_args!(
            "  {count} objects are elsewhere: left out of a pull, to be fetched on demand"
        ))?;
    }
    for problem in &report.problems {
        let what = sanitize::line(&problem.what);
        ui.line(format_args!(
            "{} {}: {what}: {}",
            ui.bad("damaged"),
            problem.code,
            sanitize::line(&problem.message)
        ))?;
        for affected in problem.affects.iter().take(AFFECTED_SHOWN_MAX) {
            ui.line(format_args!("  affects {}", sanitize::line(affected)))?;
        }
        if problem.affects.len() > AFFECTED_SHOWN_MAX {
            ui.line(format_args!(
                "  and {} more; --json lists all",
                problem.affects.len() - AFFECTED_SHOWN_MAX
            ))?;
        }
    }
    if report.problems.is_empty() {
        ui.line("Everything is as it was written")?;
    } else {
        ui.line(format_args!("{} problem(s)", ui::number(report.problems.len() as u64)))?;
        ui.hint(
            "agent-trace reindex keeps what is good of damaged segments; agent-trace pull brings back what a remote has",
        );
    }
    Ok(())
}
