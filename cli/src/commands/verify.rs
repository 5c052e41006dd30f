//! `verify`: checks every stored byte, and says what is wrong and what that affects.

use agent_trace_store::verify::{self, Report};

use super::Context;
use crate::json;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::ui::{self, Ui};

const AFFECTED_SHOWN_MAX: usize = 20;

pub(super) fn run(context: &Context) -> Result<Done, Failure> {
    let (_, store) = context.open()?;
    let report = {
        let progress = context.ui.progress();
        verify::verify(&store, progress.as_ref())?
    };
    print(&context.ui, &report)?;
    Ok(if report.problems.is_empty() { Done::Well } else { Done::Corrupt })
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
