//! `compact`: shows what would be rewritten, asks, and rewrites.

use agent_trace_store::ErrorKind;
use agent_trace_store::compact::{self, CompactPlan, CompactReport};

use super::Context;
use crate::args;
use crate::json;
use crate::report::{Done, Failure};
use crate::ui::{self, Ui};

pub(super) fn run(context: &Context, args: &args::Compact) -> Result<Done, Failure> {
    agent_trace_store::env::yield_to_others();
    let (_, store) = context.open()?;
    let ui = &context.ui;
    let plan = compact::plan(&store)?;
    if !ui.is_json() {
        show(ui, &plan)?;
    }
    if args.dry_run || plan.segments == 0 {
        answer(ui, args.dry_run, &plan, None)?;
        return Ok(Done::Well);
    }
    if !args.yes {
        match ui.confirm("Rewrite them?")? {
            Some(true) => {}
            Some(false) => {
                ui.note("nothing was rewritten");
                return Ok(Done::Well);
            }
            None => {
                let message = "cannot ask whether to rewrite: there is no terminal";
                return Err(Failure::new(ErrorKind::Invalid, message, "agent-trace compact --yes"));
            }
        }
    }
    let done = {
        let progress = ui.progress();
        compact::execute(&store, &plan, progress.as_ref())?
    };
    answer(ui, false, &plan, Some(&done))?;
    Ok(Done::Well)
}

fn show(ui: &Ui, plan: &CompactPlan) -> Result<(), Failure> {
    if plan.segments == 0 {
        ui.line("Nothing to rewrite")?;
        return Ok(());
    }
    ui.line(format_args!(
        "To rewrite: {} segment(s), {}, {} objects, {} events",
        ui::number(plan.segments),
        ui::bytes(plan.bytes),
        ui::number(plan.objects),
        ui::number(plan.events)
    ))?;
    Ok(())
}

fn answer(ui: &Ui, dry_run: bool, plan: &CompactPlan, done: Option<&CompactReport>) -> Result<(), Failure> {
    if ui.is_json() {
        ui.json(&json::Compact {
            schema: json::COMPACT,
            dry_run,
            plan: json::CompactPlan {
                segments: plan.segments,
                bytes: plan.bytes,
                objects: plan.objects,
                events: plan.events,
            },
            done: done.map(|done| json::CompactDone {
                bytes_before: done.bytes_before,
                bytes_after: done.bytes_after,
                segments: done.segments,
            }),
        })?;
    } else if let Some(done) = done {
        let (before, after) = (ui::bytes(done.bytes_before), ui::bytes(done.bytes_after));
        ui.line(format_args!("Rewritten: {before} before, {after} after, in {} segment(s)", done.segments))?;
    }
    Ok(())
}
