//! `import`: says what was brought in; the work is done by the module `import`, and for bundles by `sync`.

use std::path::{Path, PathBuf};

use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, ErrorKind, Store};
use agent_trace_sync::bundle::{self, Bundle, ImportReport};

use super::Context;
use crate::args;
use crate::bundles::{self, PIPE};
use crate::import::{self, Bad, Report};
use crate::json;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::time::Edge;
use crate::ui::{self, Ui};

const BAD_SHOWN_MAX: usize = 100;
const CONFLICTS_SHOWN_MAX: usize = 20;

pub(super) fn run(context: &Context, args: &args::Import) -> Result<Done, Failure> {
    let since = context.time(args.since.as_deref(), Edge::First)?;
    agent_trace_store::env::yield_to_others();
    let (place, store) = context.open()?;
    let (mut paths, mut given): (Vec<PathBuf>, Vec<(PathBuf, Bundle)>) = (Vec::new(), Vec::new());
    for path in &args.paths {
        let found = match path == Path::new(PIPE) {
            true => Some(bundles::from_pipe(&context.ui, &store)?),
            false => bundles::find(&context.env, path)?,
        };
        match found {
            Some(bundle) => given.push((path.clone(), bundle)),
            None => paths.push(path.clone()),
        }
    }
    if since.is_some() && !given.is_empty() {
        let message = "a bundle is taken in as a whole, so `--since` cannot be used with one";
        return Err(Failure::new(
            ErrorKind::Invalid,
            message,
            "agent-trace export --since makes a smaller one",
        ));
    }
    let mut taken = Vec::new();
    for (path, bundle) in &given {
        taken.push(take(context, args, &store, path, bundle)?);
    }
    let mut report = Report::default();
    if !paths.is_empty() {
        let redaction = context.redaction(&place)?;
        let options =
            import::Options { paths, since, dry_run: args.dry_run, index: !args.no_index, redaction };
        let progress = context.ui.progress();
        report = import::run(&store, &options, progress.as_ref())?;
    }
    tell_bad(&context.ui, &report.bad);
    print(&context.ui, args.dry_run, &report, &taken, !given.is_empty())?;
    let bad = if report.bad.is_empty() { Done::Well } else { Done::Partial };
    let forked = taken.iter().any(|taken| !taken.report.forks.is_empty());
    Ok(bad.and(if forked { Done::Conflict } else { Done::Well }))
}

/// A bundle that has been taken in.
struct Taken {
    path: PathBuf,
    id: String,
    report: ImportReport,
}

fn take(
    context: &Context,
    args: &args::Import,
    store: &Store,
    path: &Path,
    bundle: &Bundle,
) -> Result<Taken, Failure> {
    let progress = context.ui.progress();
    let report = bundle::import(store, bundle, args.dry_run, args.accept_erase, progress.as_ref())
        .map_err(|error| hinted(path, bundle, error))?;
    Ok(Taken { path: path.to_owned(), id: encode_hex(&bundle.id), report })
}

/// What can be done about a bundle that is refused.
fn hinted(path: &Path, bundle: &Bundle, error: Error) -> Failure {
    let base = bundle.info.as_ref().and_then(|info| info.base.as_ref());
    match error.kind() {
        ErrorKind::NotFound => {
            let hint = match base.and_then(|base| base.id.as_deref()) {
                Some(id) => format!("import bundle {} first, then this one again", sanitize::line(id)),
                None => "ask whoever made the bundle for one that is whole".to_owned(),
            };
            Failure::from(error).hint(hint)
        }
        ErrorKind::Invalid if error.message().starts_with("the bundle erases") => Failure::from(error)
            .hint("add --accept-erase if whoever made the bundle may do that; nothing was taken in"),
        ErrorKind::Corrupt => Failure::from(error)
            .hint(format!("agent-trace bundle verify {}; nothing was taken in", path.display())),
        _ => error.into(),
    }
}

fn print(ui: &Ui, dry_run: bool, report: &Report, taken: &[Taken], has_bundles: bool) -> Result<(), Failure> {
    if ui.is_json() {
        return print_json(ui, dry_run, report, taken);
    }
    for taken in taken {
        print_bundle(ui, dry_run, taken)?;
    }
    if has_bundles && report.files == 0 && report.bad.is_empty() {
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

fn print_json(ui: &Ui, dry_run: bool, report: &Report, taken: &[Taken]) -> Result<(), Failure> {
    let mut found = report.found.clone();
    let (mut added, mut known, mut bytes) = (report.added, report.known, report.bytes);
    for taken in taken {
        for (kind, count) in &taken.report.taken {
            *found.entry(*kind).or_default() += count;
            added += count;
        }
        known += taken.report.known;
        bytes += taken.report.bytes;
    }
    let bad = report.bad.iter().map(|bad| json::Bad {
        file: bad.file.display().to_string(),
        line: bad.line,
        reason: bad.reason.clone(),
        kept: bad.kept,
    });
    ui.json(&json::Import {
        schema: json::IMPORT,
        dry_run,
        found: json::counts(&found),
        added,
        known,
        skipped_since: report.skipped_since,
        erased: report.erased,
        files: report.files + taken.len() as u64,
        bytes,
        bad: bad.collect(),
        bundles: taken.iter().map(bundle_to_json).collect(),
    })?;
    Ok(())
}

fn bundle_to_json(taken: &Taken) -> json::ImportedBundle {
    let report = &taken.report;
    let conflicts = report.conflicts.iter().map(|conflict| json::KeyConflict {
        kind: conflict.kind.name(),
        key: conflict.key.clone(),
        here: conflict.here.iter().map(ToString::to_string).collect(),
        came: conflict.came.iter().map(ToString::to_string).collect(),
    });
    json::ImportedBundle {
        path: taken.path.display().to_string(),
        id: taken.id.clone(),
        taken: json::counts(&report.taken),
        known: report.known,
        segments: report.segments,
        bytes: report.bytes,
        forks: report.forks.clone(),
        conflicts: conflicts.collect(),
        conflicts_count: report.conflicts_count,
        new_writer: report.new_writer,
    }
}

fn print_bundle(ui: &Ui, dry_run: bool, taken: &Taken) -> Result<(), Failure> {
    let report = &taken.report;
    let prefix = if dry_run { "[dry-run] " } else { "" };
    let path = taken.path.display().to_string();
    ui.line(format_args!("{prefix}Bundle {} from {}", taken.id, sanitize::line(&path)))?;
    for (kind, count) in report.taken.iter().filter(|(_, count)| **count > 0) {
        ui.line(format_args!("  {:<12} {:>9}", kind.name(), ui::number(*count)))?;
    }
    let verb = if dry_run { "would be added" } else { "added" };
    let (added, known) = (ui::number(report.taken.values().sum()), ui::number(report.known));
    ui.line(format_args!("{prefix}{added} {verb}, {known} known already"))?;
    for conflict in report.conflicts.iter().take(CONFLICTS_SHOWN_MAX) {
        let (kind, key) = (conflict.kind, sanitize::line(&conflict.key).into_owned());
        ui.warn(&format!(
            "another {kind} `{key}` was here; both are kept, `agent-trace show --all {key}` lists them"
        ));
    }
    if report.conflicts_count > CONFLICTS_SHOWN_MAX as u64 {
        ui.warn(&format!("and {} more keys", report.conflicts_count - CONFLICTS_SHOWN_MAX as u64));
    }
    for fork in &report.forks {
        ui.warn(&format!("a log has forked, all of it is kept: {fork}"));
    }
    if report.new_writer {
        ui.warn("this store was copied or restored: it has a new writer from now on");
    }
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
