//! `export`: writes a bundle, or what is in the store in forms that others read.

use std::path::Path;

use agent_trace_store::{Error, ErrorKind, Store, Timestamp};
use agent_trace_sync::bundle::{
    BundleInfo, BundleWriter, ExportOptions, ExportPlan, Flow, NewFile, NewFolder, Pipe, Wanted, execute,
    plan,
};
use agent_trace_sync::gate::Gate as _;

use super::Context;
use crate::args;
use crate::bundles::{self, PIPE};
use crate::exported;
use crate::git::commits;
use crate::git::process::Git;
use crate::json;
use crate::privacy::gate::PrivacyGate;
use crate::report::{Done, Failure};
use crate::time::Edge;
use crate::ui::{self, Ui};

pub(super) fn run(context: &Context, args: &args::Export) -> Result<Done, Failure> {
    let since = context.time(args.since.as_deref(), Edge::First)?;
    let to_pipe = args.path.as_deref() == Some(Path::new(PIPE));
    if to_pipe && !args.dry_run {
        check_pipe(&context.ui, args)?;
    }
    agent_trace_store::env::yield_to_others();
    let (place, store) = context.open_current()?;
    let options = options(context, args, since)?;
    let plan = plan(&store, &options)?;
    if let Some(unknown) = plan.unknown().first() {
        let message = format!("nothing in this store is of a session or conversation `{unknown}`");
        return Err(Failure::new(
            ErrorKind::NotFound,
            message,
            "`agent-trace log --json` lists records with their sessions",
        ));
    }
    if !args.allow_sensitive {
        let (policy, progress) = (context.policy(&place)?, context.ui.progress());
        PrivacyGate::new(&policy, progress.as_ref())
            .ask(&store, plan.events())
            .map_err(|error| Failure::from(error).hint(super::SENSITIVE))?;
    }
    if let Some(form) = exported::Form::of(args) {
        return other_form(context, args, &store, &plan, form);
    }
    let path = args.path.as_deref().expect("one target is required");
    let (info, bytes) = match args.dry_run {
        true => (None, 0),
        false => {
            let (info, bytes) = write(context, args, path, &store, &plan, &options)?;
            (Some(info), bytes)
        }
    };
    tell(&context.ui, args, path, &plan, info.as_ref(), bytes, to_pipe && !args.dry_run)?;
    Ok(if plan.elsewhere() > 0 { Done::Partial } else { Done::Well })
}

fn check_pipe(ui: &Ui, args: &args::Export) -> Result<(), Failure> {
    if args.folder {
        return Err(Error::invalid("a folder cannot go into a pipe").into());
    }
    if ui.is_json() {
        return Err(Error::invalid("the bundle and the answer in JSON cannot both go to stdout").into());
    }
    if ui.out_is_terminal() {
        let hint = "give the name of a file, or send stdout into a file or a program";
        return Err(Failure::new(ErrorKind::Invalid, "a bundle is not written to a terminal", hint));
    }
    Ok(())
}

/// What is asked for.
fn options(
    context: &Context,
    args: &args::Export,
    since: Option<Timestamp>,
) -> Result<ExportOptions, Failure> {
    let commits = if args.commits.is_empty() { None } else { Some(named_commits(context, &args.commits)?) };
    let base = args.base.as_deref().map(|text| bundles::base(&context.env, text)).transpose()?;
    let mut selection: Vec<String> = Vec::new();
    selection.extend(args.sessions.iter().map(|session| format!("--session {session}")));
    selection.extend(args.commits.iter().map(|commit| format!("--commit {commit}")));
    selection.extend(since.map(|since| format!("--since {since}")));
    Ok(ExportOptions {
        wanted: Wanted { sessions: args.sessions.clone(), commits, since },
        base,
        selection,
        program: concat!("agent-trace ", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}

/// The full names of commits; git is asked for all but those that are given so.
fn named_commits(context: &Context, ranges: &[String]) -> Result<Vec<String>, Failure> {
    let git = Git::from(&context.settings.directory);
    let mut names = Vec::new();
    for range in ranges {
        if range.starts_with('-') {
            return Err(Error::invalid(format!("`{range}` is no commit and no range of commits")).into());
        }
        let is_full = range.len() == 40 && range.bytes().all(|digit| digit.is_ascii_hexdigit());
        if is_full {
            names.push(range.to_ascii_lowercase());
        } else if range.contains("..") {
            names.extend(commits::list(&git, &[range, "--"])?);
        } else {
            names.push(commits::resolve(&git, range)?);
        }
    }
    Ok(names)
}

fn write(
    context: &Context,
    args: &args::Export,
    path: &Path,
    store: &Store,
    plan: &ExportPlan,
    options: &ExportOptions,
) -> Result<(BundleInfo, u64), Failure> {
    let progress = context.ui.progress();
    if args.folder {
        let folder = NewFolder::create(&context.env, path)?;
        let info = execute(store, plan, options, folder.transport(), progress.as_ref())?;
        folder.finish()?;
        let bytes = info.segment_bytes;
        return Ok((info, bytes));
    }
    if context.env.fs.metadata(path).is_ok_and(|there| there.is_dir) {
        let message = format!("`{}` is a folder", path.display());
        return Err(Failure::new(
            ErrorKind::Invalid,
            message,
            "give the name of a file, or --folder and a new folder",
        ));
    }
    let flow: Box<dyn Flow> = match path == Path::new(PIPE) {
        true => Box::new(Pipe(context.ui.pipe()?)),
        false => Box::new(NewFile::create(&context.env, path)?),
    };
    let writer =
        BundleWriter::start(&context.env, flow, &store.dir().join("tmp"), &path.display().to_string())?;
    let info = execute(store, plan, options, &writer, progress.as_ref())?;
    Ok((info, writer.finish()?))
}

fn tell(
    ui: &Ui,
    args: &args::Export,
    path: &Path,
    plan: &ExportPlan,
    info: Option<&BundleInfo>,
    bytes: u64,
    is_piped: bool,
) -> Result<(), Failure> {
    if ui.is_json() {
        ui.json(&json::Export {
            schema: json::EXPORT,
            dry_run: args.dry_run,
            path: path.display().to_string(),
            form: if args.folder { "folder" } else { "file" },
            id: info.map(|info| info.id.clone()),
            counts: json::counts(&plan.counts),
            segments: info.map_or(0, |info| info.segments),
            bytes,
            elsewhere: plan.elsewhere(),
            skipped: 0,
            base: info.and_then(|info| info.base.as_ref()).and_then(|base| base.id.clone()),
            cursor: info.map(|info| info.cursor.clone()),
        })?;
        return Ok(());
    }
    let total: u64 = plan.counts.values().sum();
    let prefix = if args.dry_run { "[dry-run] would export" } else { "Exported" };
    let mut lines = vec![format!("{prefix} {} record(s) to {}", ui::number(total), path.display())];
    for (kind, count) in plan.counts.iter().filter(|(_, count)| **count > 0) {
        lines.push(format!("  {:<12} {:>9}", kind.name(), ui::number(*count)));
    }
    if let Some(info) = info {
        lines.push(format!("  {} of bundle {}", ui::bytes(bytes), info.id));
    }
    for line in lines {
        // A bundle on stdout leaves no room for words.
        if is_piped { ui.note(&line) } else { ui.line(crate::sanitize::line(&line))? }
    }
    if plan.elsewhere() > 0 {
        ui.warn(&format!("{} conversation(s) are not inside: their bytes are elsewhere", plan.elsewhere()));
        ui.hint("agent-trace pull --transcripts brings them");
    }
    Ok(())
}

fn other_form(
    context: &Context,
    args: &args::Export,
    store: &Store,
    plan: &ExportPlan,
    form: exported::Form<'_>,
) -> Result<Done, Failure> {
    let written = match args.dry_run {
        true => exported::Written::default(),
        false => exported::write(context, store, plan, &form)?,
    };
    let (ui, path) = (&context.ui, form.path().display().to_string());
    let skipped = written.skipped + plan.elsewhere();
    if ui.is_json() {
        ui.json(&json::Export {
            schema: json::EXPORT,
            dry_run: args.dry_run,
            path,
            form: form.name(),
            id: None,
            counts: json::counts(if args.dry_run { &plan.counts } else { &written.counts }),
            segments: 0,
            bytes: written.bytes,
            elsewhere: plan.elsewhere(),
            skipped: written.skipped,
            base: None,
            cursor: None,
        })?;
    } else {
        let counts = if args.dry_run { &plan.counts } else { &written.counts };
        let total: u64 = counts.values().sum();
        let prefix = if args.dry_run { "[dry-run] would export" } else { "Exported" };
        ui.line(format_args!(
            "{prefix} {} record(s) to {}",
            ui::number(total),
            crate::sanitize::line(&path)
        ))?;
        if skipped > 0 {
            ui.warn(&format!(
                "{skipped} record(s) stay out: this form cannot say them, or their bytes are elsewhere"
            ));
        }
    }
    Ok(if skipped > 0 { Done::Partial } else { Done::Well })
}
