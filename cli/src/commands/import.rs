//! `import`: says what was brought in; the work is done by the module `import`.

use agent_trace_store::Error;

use super::Context;
use crate::args;
use crate::import::{self, Bad, Report};
use crate::json;
use crate::report::{Done, Failure};
use crate::time::Edge;
use crate::ui::{self, Ui};

const BAD_SHOWN_MAX: usize = 100;

pub(super) fn run(context: &Context, args: &args::Import) -> Result<Done, Failure> {
    let since = context.time(args.since.as_deref(), Edge::First)?;
    agent_trace_store::env::yield_to_others();
    let (_, store) = context.open()?;
    for path in &args.paths {
        let doing = |error| Error::io(format!("cannot look at `{}`", path.display()), error);
        context.env.fs.metadata(path).map_err(doing)?;
    }
    let options =
        import::Options { paths: args.paths.clone(), since, dry_run: args.dry_run, index: !args.no_index };
    let report = {
        let progress = context.ui.progress();
        import::run(&store, &options, progress.as_ref())?
    };
    tell_bad(&context.ui, &report.bad);
    print(&context.ui, args.dry_run, &report)?;
    Ok(if report.bad.is_empty() { Done::Well } else { Done::Partial })
}

fn print(ui: &Ui, dry_run: bool, report: &Report) -> Result<(), Failure> {
    if ui.is_json() {
        let bad = report.bad.iter().map(|bad| json::Bad {
            file: bad.file.display().to_string(),
            line: bad.line,
            reason: bad.reason.clone(),
            kept: bad.kept,
        });
        ui.json(&json::Import {
            schema: json::IMPORT,
            dry_run,
            found: json::counts(&report.found),
            added: report.added,
            known: report.known,
            skipped_since: report.skipped_since,
            erased: report.erased,
            files: report.files,
            bytes: report.bytes,
            bad: bad.collect(),
        })?;
        return Ok(());
    }
    let prefix = if dry_run { "[dry-run] " } else { "" };
    let files = ui::number(report.files);
    ui.line(format_args!("{prefix}Read {files} file(s), {}", ui::bytes(report.bytes)))?;
    for (kind, count) in report.found.iter().filter(|(_, count)| **count > 0) {
        ui.line(format_args!("  {:<12} {:>9}", kind.name(), ui::number(*count)))?;
    }
    let verb = if dry_run { "would be added" } else { "added" };
    let mut said = format!("{} {verb}, {} known already", ui::number(report.added), ui::number(report.known));
    if report.skipped_since > 0 {
        said.push_str(&format!(", {} older than --since", ui::number(report.skipped_since)));
    }
    if report.erased > 0 {
        said.push_str(&format!(", {} erased and not taken in", ui::number(report.erased)));
    }
    let kept = report.bad.iter().filter(|bad| bad.kept).count();
    for (count, what) in [(report.bad.len() - kept, "left out"), (kept, "kept as raw bytes")] {
        if count > 0 {
            said.push_str(&format!(", {} {what}", ui::number(count as u64)));
        }
    }
    ui.line(format_args!("{prefix}{said}"))?;
    Ok(())
}

fn tell_bad(ui: &Ui, bad: &[Bad]) {
    if ui.is_json() {
        return;
    }
    for bad in bad.iter().take(BAD_SHOWN_MAX) {
        let line = bad.line.map(|line| format!("{line}:")).unwrap_or_default();
        ui.warn(&format!("{}:{line} {}", bad.file.display(), bad.reason));
    }
    if bad.len() > BAD_SHOWN_MAX {
        ui.warn(&format!("and {} more; --json lists all", bad.len() - BAD_SHOWN_MAX));
    }
}
