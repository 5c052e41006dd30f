//! `erase`: shows what would go, asks, and removes it here and, with the next push, everywhere.

use agent_trace_store::erase::{self, ErasePlan, Stays, Swept, Wanted};
use agent_trace_store::limits::ERASE_REASON_BYTES_MAX;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record::facts;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{ErrorKind, EventId, Kind, Store, Timestamp};

use super::Context;
use crate::args;
use crate::glob;
use crate::json;
use crate::project::Place;
use crate::remotes::Remotes;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::target::{self, Target};
use crate::time::Edge;
use crate::ui::{self, Ui};

/// Kinds that tell what somebody said or wrote.
const TOLD: [Kind; 3] = [Kind::TRACE, Kind::TRANSCRIPT, Kind::SUMMARY];

pub(super) fn run(context: &Context, args: &args::Erase) -> Result<Done, Failure> {
    if args.reason.as_ref().is_some_and(|reason| reason.len() > ERASE_REASON_BYTES_MAX) {
        let message = format!("expected a reason of at most {ERASE_REASON_BYTES_MAX} bytes");
        return Err(Failure::new(ErrorKind::Invalid, message, "say it shorter"));
    }
    // What hooks have brought is erased too, where it belongs to what is named.
    let (place, store) = context.open_current()?;
    let wanted = wanted(context, &store, args)?;
    let plan = erase::plan(&store, &wanted)?;
    let ui = &context.ui;
    if !ui.is_json() {
        show(context, &place, &store, &plan)?;
    }
    if args.dry_run || plan.is_empty() {
        return answer(ui, args.dry_run, &plan, None);
    }
    if !args.yes {
        match ui.confirm("Erase this for good, here and for everybody?")? {
            Some(true) => {}
            Some(false) => {
                ui.note("nothing was erased");
                return Ok(Done::Well);
            }
            None => {
                let message = "cannot ask whether to erase: there is no terminal";
                return Err(Failure::new(ErrorKind::Invalid, message, "agent-trace erase --yes ..."));
            }
        }
    }
    let done = {
        let progress = ui.progress();
        erase::execute(&store, &plan, args.reason.as_deref(), progress.as_ref())?
    };
    answer(ui, false, &plan, Some(&done))
}

/// What the arguments name.
fn wanted(context: &Context, store: &Store, args: &args::Erase) -> Result<Wanted, Failure> {
    let snapshot = store.snapshot()?;
    let mut wanted = Wanted::default();
    for id in &args.ids {
        add_id(store, &snapshot, id, &mut wanted)?;
    }
    if !args.path.is_empty() {
        let query = Query { kind: Some(Kind::TRACE), ..Query::default() };
        for found in question::list(store, &snapshot, &query)? {
            let Some(record) = store.read_unless_erased(&found.record())? else { continue };
            let Ok(facts) = facts(Kind::TRACE, &record) else { continue };
            if facts.paths.iter().any(|path| args.path.iter().any(|pattern| glob::fits(pattern, path))) {
                wanted.add([found]);
            }
        }
    }
    if let Some(before) = context.time(args.older_than.as_deref(), Edge::First)? {
        add_older(store, &snapshot, before, &mut wanted)?;
    }
    Ok(wanted)
}

/// A session first, since that is what people know; else what the id stands for.
fn add_id(store: &Store, snapshot: &Snapshot, id: &str, wanted: &mut Wanted) -> Result<(), Failure> {
    if wanted.add_session(store, snapshot, id)? {
        return Ok(());
    }
    match target::find(store, snapshot, id)? {
        Target::Object(object) => {
            wanted.named.insert(object);
        }
        Target::Records(records) => {
            for versions in records {
                let fact = &versions.answer().event.fact;
                if fact.kind == Kind::ERASE {
                    let message = format!("`{}` is an erase, which cannot be erased", sanitize::line(id));
                    return Err(Failure::new(
                        ErrorKind::Invalid,
                        message,
                        "agent-trace show ID says what it erased",
                    ));
                }
                if fact.kind == Kind::TRANSCRIPT {
                    wanted.add_conversation(store, snapshot, &fact.key.clone())?;
                }
                wanted.add(versions.all);
            }
        }
    }
    Ok(())
}

fn add_older(
    store: &Store,
    snapshot: &Snapshot,
    before: Timestamp,
    wanted: &mut Wanted,
) -> Result<(), Failure> {
    for kind in TOLD {
        let query = Query { kind: Some(kind), until: Some(before), ..Query::default() };
        let found = question::list(store, snapshot, &query)?;
        wanted.add(found.into_iter().filter(|found| found.event.fact.time < before));
    }
    Ok(())
}

fn show(context: &Context, place: &Place, store: &Store, plan: &ErasePlan) -> Result<(), Failure> {
    let ui = &context.ui;
    if plan.is_empty() {
        ui.line("Nothing to erase")?;
        return Ok(());
    }
    let records: u64 = plan.events.values().sum();
    ui.line(format_args!(
        "To erase: {} record(s), {} object(s), {}",
        ui::number(records),
        ui::number(plan.present),
        ui::bytes(plan.bytes)
    ))?;
    for (kind, count) in &plan.events {
        ui.line(format_args!("  {:<20} {:>9}", kind.name(), ui::number(*count)))?;
    }
    for key in &plan.conversations {
        let key = sanitize::line(key);
        ui.line(format_args!("  conversation {key}: nothing of it is taken in any more"))?;
    }
    ui.line(format_args!(
        "Here {} segment(s) of {} are written anew; ids, times and keys of the records stay in the log",
        ui::number(plan.segments),
        ui::bytes(plan.segment_bytes)
    ))?;
    let (listed, parts) = stays(plan);
    if listed > 0 {
        ui.line(format_args!("{} object(s) stay: other records list them too", ui::number(listed)))?;
    }
    if parts > 0 {
        ui.line(format_args!("{} object(s) stay: they are parts of other transcripts", ui::number(parts)))?;
    }
    let remotes = Remotes::read(&context.files(place, store))?.list();
    if remotes.is_empty() {
        ui.line("No remote is in the settings; copies elsewhere go when they hear of this erase")?;
    }
    for remote in remotes {
        let name = sanitize::line(&remote.name);
        ui.line(format_args!(
            "`{name}` drops the bytes with the next push; other clones with their next pull"
        ))?;
    }
    if plan.others > 0 {
        ui.note(&format!(
            "{} of them were written by others: a service takes that only from a token with the scope `erase`",
            ui::number(plan.others)
        ));
    }
    ui.note("the agents' own session files are not touched");
    Ok(())
}

/// How many objects stay, because they are listed, and because they are parts.
fn stays(plan: &ErasePlan) -> (u64, u64) {
    let count = |why| plan.stays.values().filter(|stays| **stays == why).count() as u64;
    (count(Stays::Listed), count(Stays::Part))
}

fn answer(
    ui: &Ui,
    dry_run: bool,
    plan: &ErasePlan,
    done: Option<&(Vec<EventId>, Swept)>,
) -> Result<Done, Failure> {
    if ui.is_json() {
        let (stay_listed, stay_parts) = stays(plan);
        ui.json(&json::Erase {
            schema: json::ERASE,
            dry_run,
            plan: json::ErasePlan {
                records: json::counts(&plan.events),
                conversations: plan.conversations.iter().cloned().collect(),
                objects: plan.objects.len() as u64,
                present: plan.present,
                bytes: plan.bytes,
                others: plan.others,
                stay_listed,
                stay_parts,
                segments: plan.segments,
                segment_bytes: plan.segment_bytes,
            },
            done: done.map(|(events, swept)| json::EraseDone {
                events: events.iter().map(ToString::to_string).collect(),
                objects: swept.objects,
                segments: swept.segments,
                bytes_before: swept.bytes_before,
                bytes_after: swept.bytes_after,
            }),
        })?;
    } else if let Some((_, swept)) = done {
        ui.line(format_args!(
            "Erased: {} object(s), {} before, {} after",
            ui::number(swept.objects),
            ui::bytes(swept.bytes_before),
            ui::bytes(swept.bytes_after)
        ))?;
        ui.hint("agent-trace push tells the remotes");
    }
    Ok(Done::Well)
}
