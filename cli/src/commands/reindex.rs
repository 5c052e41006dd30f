//! `reindex`: computes the index again from the segments.

use super::Context;
use crate::json;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::ui;

pub(super) fn run(context: &Context) -> Result<Done, Failure> {
    agent_trace_store::env::yield_to_others();
    let (_, store) = context.open()?;
    let ui = &context.ui;
    let report = {
        let progress = ui.progress();
        agent_trace_store::verify::reindex(&store, progress.as_ref())?
    };
    if ui.is_json() {
        ui.json(&json::Reindex {
            schema: json::REINDEX,
            segments: report.segments,
            events: report.events,
            objects: report.objects,
            salvaged: report.salvaged.clone(),
        })?;
    } else {
        ui.line(format_args!(
            "Indexed {} segment(s), {} events, {} objects",
            ui::number(report.segments),
            ui::number(report.events),
            ui::number(report.objects)
        ))?;
        for salvaged in &report.salvaged {
            ui.line(format_args!("{} {}", ui.bad("salvaged"), sanitize::line(salvaged)))?;
        }
        if !report.salvaged.is_empty() {
            ui.hint("agent-trace pull brings back what a remote has");
        }
    }
    Ok(if report.salvaged.is_empty() { Done::Well } else { Done::Partial })
}
