//! `gc`: clears up a remote. Whoever runs it may go on pushing and pulling meanwhile.

use agent_trace_store::ErrorKind;
use agent_trace_sync::exchange::Exchange;
use agent_trace_sync::gc::{self, GcReport};

use super::{Context, hinted, push};
use crate::args;
use crate::json;
use crate::remotes::Named;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::ui::{self, Ui};

pub(super) fn run(context: &Context, args: &args::Gc) -> Result<Done, Failure> {
    let (place, store) = context.open_current()?;
    let files = context.files(&place, &store);
    let remote = context.pick(&files, args.remote.as_deref(), None)?;
    let Exchange::Layout(layout) = context.reach(&files, &remote, false)? else {
        let message = format!("the remote `{}` is a service: it clears up by itself", remote.name);
        return Err(Failure::new(ErrorKind::Invalid, message, "give the name of a folder or a bucket"));
    };
    let report = {
        let progress = context.ui.progress();
        gc::gc(&store, &layout, args.dry_run, progress.as_ref()).map_err(|error| hinted(&remote, error))?
    };
    if context.ui.is_json() {
        context.ui.json(&to_json(&remote, args.dry_run, &report))?;
    } else {
        print(&context.ui, &remote, args.dry_run, &report)?;
    }
    Ok(if report.refused.is_empty() { Done::Well } else { Done::Partial })
}

fn to_json(remote: &Named, dry_run: bool, report: &GcReport) -> json::Gc {
    json::Gc {
        schema: json::GC,
        remote: remote.name.clone(),
        url: remote.url.clone(),
        dry_run,
        segments: report.segments,
        merged: report.merged,
        merged_bytes: report.merged_bytes,
        made: report.made,
        made_bytes: report.made_bytes,
        not_held: report.not_held,
        removed: report.removed,
        removed_bytes: report.removed_bytes,
        waiting: report.waiting,
        waiting_bytes: report.waiting_bytes,
        requests: report.requests,
        new_writer: report.new_writer,
        refused: report.refused.clone(),
    }
}

fn print(ui: &Ui, remote: &Named, dry_run: bool, report: &GcReport) -> Result<(), Failure> {
    let prefix = push::prefix(dry_run);
    let into = if dry_run { String::new() } else { format!(" into {}", ui::number(report.made)) };
    ui.line(format_args!(
        "{prefix}Merged {} of {} segment(s){into}, {}",
        ui::number(report.merged),
        ui::number(report.segments),
        ui::bytes(report.merged_bytes)
    ))?;
    ui.line(format_args!(
        "{prefix}Removed {} file(s) that nothing refers to, {}",
        ui::number(report.removed),
        ui::bytes(report.removed_bytes)
    ))?;
    if report.waiting > 0 {
        ui.line(format_args!(
            "  ({} more, {}, wait until nothing has referred to them for 14 days)",
            ui::number(report.waiting),
            ui::bytes(report.waiting_bytes)
        ))?;
    }
    if report.new_writer {
        ui.warn("this store was copied or restored: it has a new writer from now on");
    }
    for refused in &report.refused {
        ui.warn(&format!("refused: {}; nothing was removed", sanitize::line(refused)));
    }
    if report.not_held > 0 {
        let count = ui::number(report.not_held);
        ui.hint(&format!(
            "{count} small segment(s) hold what is not here; agent-trace pull --remote {} first merges them too",
            remote.name
        ));
    }
    Ok(())
}
