//! `bundle`: looks at a bundle before anything of it is taken in.

use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, ErrorKind, Store};
use agent_trace_sync::bundle::{Bundle, BundleInfo, verify};

use super::Context;
use crate::args;
use crate::bundles;
use crate::json;
use crate::project as place;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::ui::{self, Ui};

const SESSIONS_SHOWN_MAX: usize = 20;

pub(super) fn run(context: &Context, args: &args::Bundle) -> Result<Done, Failure> {
    match args {
        args::Bundle::Show { path } => show(context, path),
        args::Bundle::Verify { path } => check(context, path),
    }
}

fn show(context: &Context, path: &Path) -> Result<Done, Failure> {
    let bundle = bundles::open(&context.env, path)?;
    let ui = &context.ui;
    let bytes: u64 = bundle.segments.iter().map(|(_, bytes)| bytes).sum();
    if ui.is_json() {
        ui.json(&json::BundleShow {
            schema: json::BUNDLE,
            path: path.display().to_string(),
            id: encode_hex(&bundle.id),
            segments: bundle.segments.len() as u64,
            bytes,
            heads: bundle.heads.iter().map(ToString::to_string).collect(),
            manifest: bundle.info.as_ref(),
        })?;
        return Ok(Done::Well);
    }
    ui.line(format_args!("{} {}", ui.strong("bundle"), encode_hex(&bundle.id)))?;
    match &bundle.info {
        Some(info) => describe(ui, info, bytes)?,
        None => ui.line(format_args!(
            "  a folder remote of {} head(s), {} segment(s), {}",
            bundle.heads.len(),
            bundle.segments.len(),
            ui::bytes(bytes)
        ))?,
    }
    Ok(Done::Well)
}

/// What a bundle says of itself, for people. It was written elsewhere, so nothing of it is printed as it is.
fn describe(ui: &Ui, info: &BundleInfo, bytes: u64) -> Result<(), Failure> {
    let line = |name: &str, text: &str| ui.line(format_args!("  {name:<10} {}", sanitize::line(text)));
    line("made", &format!("{} by {} with {}", info.created, info.writer, info.program))?;
    if let (Some(first), Some(last)) = (&info.first, &info.last) {
        line("from", &format!("{first} to {last}"))?;
    }
    for (kind, count) in &info.counts {
        line(kind, &ui::number(*count))?;
    }
    line(
        "objects",
        &format!("{}, {} before compression", ui::number(info.objects), ui::bytes(info.raw_bytes)),
    )?;
    line("segments", &format!("{}, {}", info.segments, ui::bytes(bytes)))?;
    let selection =
        if info.selection.is_empty() { "everything".to_owned() } else { info.selection.join(" ") };
    line("selection", &selection)?;
    if let Some(base) = &info.base {
        let id = base.id.as_deref().unwrap_or("a cursor");
        line("base", &format!("{id}, {} event(s)", ui::number(base.events)))?;
    }
    line("sessions", &ui::number(info.sessions))?;
    for session in info.session_ids.iter().take(SESSIONS_SHOWN_MAX) {
        ui.line(format_args!("             {}", sanitize::line(session)))?;
    }
    if info.sessions > SESSIONS_SHOWN_MAX as u64 {
        ui.line(format_args!("             and {} more", info.sessions - SESSIONS_SHOWN_MAX as u64))?;
    }
    Ok(())
}

fn check(context: &Context, path: &Path) -> Result<Done, Failure> {
    let bundle = bundles::open(&context.env, path)?;
    let bench = Bench::open(context)?;
    let found = {
        let progress = context.ui.progress();
        progress.start("checking", Some(bundle.segments.iter().map(|(_, bytes)| bytes).sum()));
        let found = verify(&bench.store, &bundle, progress.as_ref())?;
        progress.finish();
        found
    };
    if let Some(first) = found.missing.first() {
        let count = found.missing.len();
        let short = first.short();
        let message =
            format!("{count} object(s) that the bundle needs are neither in it nor here, as `{short}`");
        return Err(Failure::new(ErrorKind::NotFound, message, builds_on(&bundle)));
    }
    let ui = &context.ui;
    if ui.is_json() {
        ui.json(&json::BundleVerify {
            schema: json::BUNDLE_VERIFY,
            path: path.display().to_string(),
            id: encode_hex(&bundle.id),
            ok: true,
            counts: json::counts(&found.counts),
            objects: found.objects,
            segments: bundle.segments.len() as u64,
            bytes: found.segment_bytes,
            forks: found.forks.clone(),
        })?;
    } else {
        let events: u64 = found.counts.values().sum();
        ui.line(format_args!(
            "Checked {} segment(s), {}, {} objects, {} events",
            bundle.segments.len(),
            ui::bytes(found.segment_bytes),
            ui::number(found.objects),
            ui::number(events)
        ))?;
        for fork in &found.forks {
            ui.warn(&format!("a log has forked: {fork}"));
        }
        ui.line("The bundle is sound")?;
    }
    Ok(if found.forks.is_empty() { Done::Well } else { Done::Conflict })
}

/// What to take in first.
fn builds_on(bundle: &Bundle) -> String {
    let base = bundle.info.as_ref().and_then(|info| info.base.as_ref()).and_then(|base| base.id.clone());
    match base {
        Some(id) => {
            format!("import bundle {} first, or verify it where that has been done", sanitize::line(&id))
        }
        None => "ask whoever made it for one that is whole".to_owned(),
    }
}

/// A store beside which a bundle is looked at: the one that there is, else one in a temporary folder.
struct Bench {
    store: Store,
    temporary: Option<(Env, PathBuf)>,
}

impl Bench {
    fn open(context: &Context) -> Result<Bench, Failure> {
        if place::find(&context.env, &context.settings).is_ok() {
            let (_, store) = context.open()?;
            return Ok(Bench { store, temporary: None });
        }
        let mut random = [0; 8];
        context.env.entropy.fill(&mut random);
        let directory = context.settings.directory.join(&context.settings.temporary);
        let directory = directory.join(format!("agent-trace-verify-{}", encode_hex(&random)));
        let doing = |error| Error::io(format!("cannot use `{}`", directory.display()), error);
        context.env.fs.create_dir_all(&directory).map_err(doing)?;
        let store = Store::init(&context.env, &directory)?;
        Ok(Bench { store, temporary: Some((context.env.clone(), directory)) })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some((env, directory)) = &self.temporary {
            // Nothing but an empty store.
            let _ = env.fs.remove_dir_all(directory);
        }
    }
}
