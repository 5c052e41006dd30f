//! `log`: lists records, newest first.

use std::borrow::Cow;

use agent_trace_store::question::{self, Found, Query};
use agent_trace_store::record::{self, Facts};
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Kind, ObjectId, Store};
use jiff::tz::TimeZone;

use super::{Context, head, kind, zone};
use crate::args;
use crate::edit::trace::TraceEdits;
use crate::json;
use crate::link::ledger::Ledger;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::target::{self, Target};
use crate::time::{self, Edge};
use crate::ui;

const LIMIT: usize = 50;
const SUMMARY_CHARS: usize = 72;
/// Places of a file that are listed.
const PLACES_MAX: usize = 4;

pub(super) fn run(context: &Context, args: &args::Log) -> Result<Done, Failure> {
    let limit = match (args.limit, &args.since, &args.commit) {
        (Some(limit), _, _) => Some(limit),
        (None, None, None) => Some(LIMIT),
        _ => None,
    };
    let query = Query {
        kind: args.kind.as_deref().map(kind).transpose()?,
        since: context.time(args.since.as_deref(), Edge::First)?,
        until: context.time(args.until.as_deref(), Edge::Last)?,
        session: args.session.clone(),
        path: args.path.clone(),
        limit,
        erased: true,
    };
    let (_, store) = context.open_current()?;
    let snapshot = store.snapshot()?;
    let found = match &args.commit {
        Some(commit) => of_commit(&store, &snapshot, commit, &query)?,
        None => question::list(&store, &snapshot, &query)?,
    };
    let zone = zone();
    for found in &found {
        print(context, &store, found, &zone)?;
    }
    if args.limit.is_none() && limit == Some(found.len()) {
        context.ui.hint(&format!(
            "these are the newest {LIMIT}; -n N shows more, --since TIME shows all since then"
        ));
    }
    Ok(Done::Well)
}

/// The ledger and commit-link of a commit, and the traces that cite it, newest first.
fn of_commit(store: &Store, snapshot: &Snapshot, commit: &str, query: &Query) -> Result<Vec<Found>, Failure> {
    let mut commit = commit.to_owned();
    let mut found = question::named(store, snapshot, &commit, true)?;
    found.extend(question::named(store, snapshot, &commit, false)?);
    if found.is_empty() {
        // Not a whole commit: a beginning stands for the one that it begins.
        if let Target::Records(records) = target::find(store, snapshot, &commit)? {
            commit.clone_from(&records[0].answer().event.fact.key);
        }
        found = question::named(store, snapshot, &commit, true)?;
        found.extend(question::named(store, snapshot, &commit, false)?);
    }
    let about_commit =
        |found: &Found| matches!(found.event.fact.kind, Kind::LEDGER | Kind::COMMIT_LINK | Kind::TRACE);
    let in_time = |found: &Found| {
        let time = found.event.fact.time;
        query.since.is_none_or(|since| time >= since) && query.until.is_none_or(|until| time <= until)
    };
    found.retain(|found| about_commit(found) && in_time(found));
    found.retain(|found| query.kind.is_none_or(|kind| kind == found.event.fact.kind));
    found.sort_by_key(|found| {
        std::cmp::Reverse((found.event.fact.time, found.event.fact.kind, found.record()))
    });
    found.dedup_by_key(|found| (found.event.fact.kind, found.record()));
    let mut kept = Vec::new();
    for found in found {
        let record = store.read(&found.record())?;
        let Ok(facts) = record::facts(found.event.fact.kind, &record) else { continue };
        let session = query.session.as_ref().is_none_or(|session| facts.session.as_deref() == Some(session));
        if session && query.path.as_ref().is_none_or(|path| facts.paths.iter().any(|given| given == path)) {
            kept.push(found);
        }
        if Some(kept.len()) == query.limit {
            break;
        }
    }
    Ok(kept)
}

fn print(context: &Context, store: &Store, found: &Found, zone: &TimeZone) -> Result<(), Failure> {
    let ui = &context.ui;
    let fact = &found.event.fact;
    let erased = store.erased();
    let act = fact.objects.iter().find_map(|id| erased.act(id));
    let bytes = store.read_unless_erased(&found.record())?.unwrap_or_default();
    // A record that is erased, or of a kind that this version does not know has no facts, and is listed all the same.
    let facts = record::facts(fact.kind, &bytes).ok();
    if ui.is_json() {
        let facts = facts.unwrap_or_else(|| Facts {
            key: Cow::Borrowed(""),
            time: None,
            session: None,
            agent: None,
            paths: Vec::new(),
            names: Vec::new(),
        });
        let Facts { session, agent, paths, .. } = facts;
        let erased = act.map(json::Erased::of);
        ui.json(&json::Log { schema: json::LOG, head: head(found), session, agent, paths, erased })?;
        return Ok(());
    }
    if let Some(act) = act {
        let when = time::show(act.time, zone);
        ui.line(format_args!(
            "{}  {}  {:<11}  {:<12}  {}",
            ui.name(found.record().short()),
            ui.faint(time::show(fact.time, zone)),
            fact.kind.name(),
            "-",
            sanitize::line(&format!("{}  erased {when} by {}", summary(found, None), act.writer.short()))
        ))?;
        return Ok(());
    }
    let agent = facts.as_ref().and_then(|facts| facts.agent.as_deref()).unwrap_or("-");
    ui.line(format_args!(
        "{}  {}  {:<11}  {:<12}  {}",
        ui.name(found.record().short()),
        ui.faint(time::show(fact.time, zone)),
        fact.kind.name(),
        sanitize::line(agent),
        sanitize::line(&format!("{}{}", summary(found, facts.as_ref()), lines(fact.kind, &bytes)))
    ))?;
    Ok(())
}

/// Which lines of its file a trace touched; how many lines of a commit are an agent's.
fn lines(kind: Kind, bytes: &[u8]) -> String {
    match kind {
        Kind::LEDGER => Ledger::decode(bytes).map_or_else(
            |_| String::new(),
            |ledger| format!("  {} lines in {} file(s)", ui::number(ledger.lines()), ledger.files.len()),
        ),
        Kind::TRACE => {
            let Ok(trace) = TraceEdits::read(ObjectId::of(bytes), bytes) else { return String::new() };
            let [file] = &trace.files[..] else { return String::new() };
            let places = file.hunks.iter().filter(|hunk| !hunk.new.is_empty());
            let places: Vec<String> = places
                .map(|hunk| match (hunk.new_start + 1, hunk.new_start + hunk.new.len()) {
                    (first, last) if first == last => first.to_string(),
                    (first, last) => format!("{first}-{last}"),
                })
                .collect();
            match &places[..] {
                [] => String::new(),
                places if places.len() <= PLACES_MAX => format!(":{}", places.join(",")),
                places => format!(":{},...", places[..PLACES_MAX].join(",")),
            }
        }
        _ => String::new(),
    }
}

/// The key, and the files where there are any. Long keys of hex digits are cut: their beginning finds them too.
fn summary(found: &Found, facts: Option<&Facts<'_>>) -> String {
    let key = found.event.fact.key.as_str();
    // The key of a summary ends in its time, which is shown already.
    let key = if found.event.fact.kind == Kind::SUMMARY { key.split(':').next().unwrap_or(key) } else { key };
    let is_id = key.len() >= 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let key = if is_id { &key[..12] } else { key };
    match facts.map_or(&[][..], |facts| &facts.paths[..]) {
        [] => cut(key),
        [path] => cut(&format!("{key}  {path}")),
        [path, rest @ ..] => cut(&format!("{key}  {path} and {} more", rest.len())),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= SUMMARY_CHARS {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(SUMMARY_CHARS - 1).collect();
    cut.push('…');
    cut
}
