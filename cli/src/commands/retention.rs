//! `retention`: how long transcripts are kept here; what is older goes to where a remote holds it, or for good.
//!
//! Only bytes of transcripts are evicted, and only those that a remote verifiably holds: they are elsewhere then, and
//! come back when a command needs them.

use std::collections::BTreeSet;

use agent_trace_store::erase::{self, Swept, Wanted};
use agent_trace_store::question::{self, Found, Query};
use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::{ErrorKind, Kind, ObjectId, Presence, Store, Timestamp};
use serde_json::Value;

use super::{Context, config, hinted};
use crate::args;
use crate::document::Document;
use crate::json;
use crate::project::Place;
use crate::remotes::Remotes;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::time::Edge;
use crate::ui::{self, Ui};

pub(super) fn run(context: &Context, args: &args::Retention) -> Result<Done, Failure> {
    match args {
        args::Retention::Show => show(context),
        args::Retention::Set(args) => set(context, args),
        args::Retention::Run(args) => run_now(context, args),
    }
}

/// What is kept.
struct Kept {
    age: Option<String>,
    /// Transcripts before this instant are not to be kept.
    before: Option<Timestamp>,
    bytes: Option<u64>,
}

fn read(context: &Context, place: &Place) -> Result<Kept, Failure> {
    let document = Document::read(&context.env, &place.data.join("project-config.json"))?;
    let section = document.section("retention")?;
    let member = |name: &str| section.and_then(|section| section.get(name));
    let age = member("age").and_then(Value::as_str).map(str::to_owned);
    let before = context.time(age.as_deref(), Edge::First)?;
    let bytes = member("bytes").and_then(Value::as_str).map(count).transpose()?;
    Ok(Kept { age, before, bytes })
}

fn count(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| {
        let message =
            format!("expected `retention.bytes` to be a number of bytes, found `{}`", sanitize::line(text));
        Failure::new(ErrorKind::Invalid, message, "agent-trace retention set --bytes 2000000000")
    })
}

fn set(context: &Context, args: &args::RetentionSet) -> Result<Done, Failure> {
    if let Some(age) = args.age.as_deref().filter(|age| *age != "off") {
        // One that cannot be read is refused now, not when it is needed.
        context.time(Some(age), Edge::First)?;
    }
    if let Some(bytes) = args.bytes.as_deref().filter(|bytes| *bytes != "off") {
        count(bytes)?;
    }
    for (name, value) in [("retention.age", &args.age), ("retention.bytes", &args.bytes)] {
        match value.as_deref() {
            None => {}
            Some("off") => config::reset(context, name)?,
            Some(value) => config::set(context, name, value)?,
        }
    }
    Ok(Done::Well)
}

/// A transcript whose bytes are here.
struct Held {
    found: Found,
    body: ObjectId,
    bytes: u64,
}

/// Transcripts whose bytes are here, newest first.
fn held(store: &Store) -> Result<Vec<Held>, Failure> {
    let query = Query { kind: Some(Kind::TRANSCRIPT), ..Query::default() };
    let mut held = Vec::new();
    for found in question::list(store, &store.snapshot()?, &query)? {
        let Some(body) = found.event.fact.objects.get(1).copied() else { continue };
        if store.presence(&body)? != Presence::Present {
            continue;
        }
        let record = store.read(&found.record())?;
        let bytes = TranscriptRecord::decode(&record).map_or(0, |record| record.size);
        held.push(Held { found, body, bytes });
    }
    Ok(held)
}

/// Those that are not to be kept: too old, or beyond what may be kept.
fn over(kept: &Kept, held: Vec<Held>) -> Vec<Held> {
    let mut sum = 0u64;
    held.into_iter()
        .filter(|one| {
            sum = sum.saturating_add(one.bytes);
            let is_old = kept.before.is_some_and(|before| one.found.event.fact.time < before);
            is_old || kept.bytes.is_some_and(|bytes| sum > bytes)
        })
        .collect()
}

fn show(context: &Context) -> Result<Done, Failure> {
    let (place, store) = context.open_current()?;
    let kept = read(context, &place)?;
    let over = over(&kept, held(&store)?);
    let bytes = over.iter().map(|one| one.bytes).sum();
    let ui = &context.ui;
    if ui.is_json() {
        let found = json::Found { transcripts: over.len() as u64, bytes };
        let (age, limit) = (kept.age, kept.bytes);
        ui.json(&json::Retention {
            schema: json::RETENTION,
            age,
            bytes: limit,
            found,
            not_held: 0,
            dry_run: true,
            done: None,
        })?;
        return Ok(Done::Well);
    }
    ui.line(format_args!("age    {}", kept.age.as_deref().unwrap_or("kept for ever")))?;
    ui.line(format_args!("bytes  {}", kept.bytes.map_or_else(|| "all".to_owned(), ui::bytes)))?;
    ui.line(format_args!(
        "{} transcript(s) of {} are over that",
        ui::number(over.len() as u64),
        ui::bytes(bytes)
    ))?;
    if !over.is_empty() {
        ui.hint("agent-trace retention run --dry-run");
    }
    Ok(Done::Well)
}

fn run_now(context: &Context, args: &args::RetentionRun) -> Result<Done, Failure> {
    let (place, store) = context.open_current()?;
    let kept = read(context, &place)?;
    if kept.age.is_none() && kept.bytes.is_none() {
        let message = "nothing says what is to be kept";
        return Err(Failure::new(ErrorKind::Invalid, message, "agent-trace retention set --age 90d"));
    }
    let over = over(&kept, held(&store)?);
    match args.erase {
        true => erase_all(context, args, &store, &kept, over),
        false => evict_all(context, args, &place, &store, &kept, over),
    }
}

fn erase_all(
    context: &Context,
    args: &args::RetentionRun,
    store: &Store,
    kept: &Kept,
    over: Vec<Held>,
) -> Result<Done, Failure> {
    let mut wanted = Wanted::default();
    wanted.add(over.into_iter().map(|one| one.found));
    let plan = erase::plan(store, &wanted)?;
    let found = json::Found { transcripts: plan.events.values().sum(), bytes: plan.bytes };
    let question = "Erase them for good, here and for everybody?";
    if plan.is_empty() || !go_on(&context.ui, args, &found, question)? {
        return answer(&context.ui, kept, found, 0, args.dry_run, None);
    }
    let done = {
        let progress = context.ui.progress();
        erase::execute(store, &plan, Some("retention"), progress.as_ref())?.1
    };
    answer(&context.ui, kept, found, 0, false, Some(&done))
}

fn evict_all(
    context: &Context,
    args: &args::RetentionRun,
    place: &Place,
    store: &Store,
    kept: &Kept,
    over: Vec<Held>,
) -> Result<Done, Failure> {
    let ui = &context.ui;
    if over.is_empty() {
        return answer(ui, kept, json::Found { transcripts: 0, bytes: 0 }, 0, args.dry_run, None);
    }
    let files = context.files(place, store);
    let remote = Remotes::read(&files)?.pick(args.remote.as_deref())?;
    let exchange = context.reach(&files, &remote, false)?;
    let bodies: Vec<ObjectId> = over.iter().map(|one| one.body).collect();
    let held = {
        let progress = ui.progress();
        progress.start("comparing", Some(over.iter().map(|one| one.bytes).sum()));
        let held = exchange.holds(store, &bodies, progress.as_ref());
        progress.finish();
        held.map_err(|error| hinted(&remote, error))?
    };
    let not_held = over.iter().filter(|one| !held.contains(&one.body)).count() as u64;
    let goes: BTreeSet<ObjectId> = held;
    let bytes = over.iter().filter(|one| goes.contains(&one.body)).map(|one| one.bytes).sum();
    let found = json::Found { transcripts: goes.len() as u64, bytes };
    let question = format!("Drop their bytes here? `{}` holds them", remote.name);
    let Some(id) = exchange.id().filter(|_| !goes.is_empty()) else {
        return answer(ui, kept, found, not_held, args.dry_run, None);
    };
    if !go_on(ui, args, &found, &question)? {
        return answer(ui, kept, found, not_held, args.dry_run, None);
    }
    let done = {
        let progress = ui.progress();
        erase::evict(store, &id, &goes, progress.as_ref())?
    };
    answer(ui, kept, found, not_held, false, Some(&done))
}

/// Shows what goes and asks, unless that was answered.
fn go_on(ui: &Ui, args: &args::RetentionRun, found: &json::Found, question: &str) -> Result<bool, Failure> {
    if !ui.is_json() {
        let (count, bytes) = (ui::number(found.transcripts), ui::bytes(found.bytes));
        ui.line(format_args!("To go: {count} transcript(s), {bytes}"))?;
    }
    if args.dry_run || args.yes {
        return Ok(!args.dry_run);
    }
    match ui.confirm(question)? {
        Some(answer) => Ok(answer),
        None => {
            let message = "cannot ask whether to go on: there is no terminal";
            Err(Failure::new(ErrorKind::Invalid, message, "agent-trace retention run --yes"))
        }
    }
}

fn answer(
    ui: &Ui,
    kept: &Kept,
    found: json::Found,
    not_held: u64,
    dry_run: bool,
    done: Option<&Swept>,
) -> Result<Done, Failure> {
    if ui.is_json() {
        let done = done.map(|done| json::RetentionDone {
            objects: done.objects,
            bytes_before: done.bytes_before,
            bytes_after: done.bytes_after,
        });
        let (age, bytes) = (kept.age.clone(), kept.bytes);
        ui.json(&json::Retention { schema: json::RETENTION, age, bytes, found, not_held, dry_run, done })?;
        return Ok(Done::Well);
    }
    if not_held > 0 {
        ui.note(&format!("{not_held} transcript(s) stay: the remote does not hold them"));
        ui.hint("agent-trace push --full");
    }
    match done {
        Some(done) => ui.line(format_args!(
            "Gone: {} object(s), {} before, {} after",
            ui::number(done.objects),
            ui::bytes(done.bytes_before),
            ui::bytes(done.bytes_after)
        ))?,
        None if found.transcripts == 0 => ui.line("Nothing is to go")?,
        None => {}
    }
    Ok(Done::Well)
}
