//! `show`: a record with all that is known of it.

use agent_trace_store::erased::Act;
use agent_trace_store::json::canonicalize;
use agent_trace_store::question::Found;
use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{ErrorKind, Kind, ObjectId, Presence, Store};
use serde_json::value::RawValue;

use super::{Context, commit, head, zone};
use crate::args;
use crate::bodies::Holders;
use crate::git::commits;
use crate::git::process::Git;
use crate::json;
use crate::link::ledger::Ledger;
use crate::project::Place;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::target::{self, Target, Versions};
use crate::time;
use crate::ui;

pub(super) fn run(context: &Context, args: &args::Show) -> Result<Done, Failure> {
    let (place, store) = context.open_current()?;
    let snapshot = store.snapshot()?;
    match find(context, &store, &snapshot, &args.id)? {
        Target::Object(id) => show_object(context, &store, &id)?,
        Target::Records(records) => {
            let commit = commit_of(&store, &snapshot, &records)?;
            if context.ui.is_json() {
                show_json(context, &store, &records, args.all, commit)?;
            } else {
                if let Some(commit) = &commit {
                    commit::print(context, commit)?;
                }
                show_records(context, &place, &store, &records, args.all)?;
            }
        }
    }
    Ok(Done::Well)
}

/// What an id stands for; where nothing is called so, what git calls so.
fn find(context: &Context, store: &Store, snapshot: &Snapshot, id: &str) -> Result<Target, Failure> {
    let failure = match target::find(store, snapshot, id) {
        Err(failure) if failure.error.kind() == ErrorKind::NotFound => failure,
        found => return found,
    };
    match commits::resolve(&Git::from(&context.settings.directory), id) {
        Ok(commit) if commit != id => target::find(store, snapshot, &commit),
        _ => Err(failure),
    }
}

/// What the commit holds, where its ledger is among the records.
fn commit_of(
    store: &Store,
    snapshot: &Snapshot,
    records: &[Versions],
) -> Result<Option<json::CommitSummary>, Failure> {
    let ledger = records.iter().map(Versions::answer).find(|found| found.event.fact.kind == Kind::LEDGER);
    let Some(found) = ledger else { return Ok(None) };
    // What another program calls a ledger and is none is shown as it is.
    let Some(record) = store.read_unless_erased(&found.record())? else { return Ok(None) };
    let Ok(ledger) = Ledger::decode(&record) else { return Ok(None) };
    commit::describe(store, snapshot, &ledger).map(Some)
}

fn show_object(context: &Context, store: &Store, id: &ObjectId) -> Result<(), Failure> {
    let ui = &context.ui;
    let bytes = target::object_bytes(store, id)?;
    if ui.is_json() {
        let object = json::Object { id: id.to_string(), bytes };
        ui.json(&json::Show { schema: json::SHOW, records: Vec::new(), object: Some(object), commit: None })?;
        return Ok(());
    }
    ui.line(format_args!("{} {}", ui.strong("object"), ui.name(id)))?;
    ui.line(format_args!("size     {}", ui::bytes(bytes)))?;
    ui.hint(&format!("agent-trace cat {}", id.short()));
    Ok(())
}

/// The versions that are wanted, and whether each answers for all.
fn wanted(versions: &Versions, all: bool) -> impl Iterator<Item = (&Found, bool)> {
    let rest = versions.all.iter().enumerate().filter(|(index, _)| *index != versions.chosen);
    let rest = rest.map(|(_, found)| (found, false)).filter(move |_| all);
    std::iter::once((versions.answer(), true)).chain(rest)
}

fn show_json(
    context: &Context,
    store: &Store,
    records: &[Versions],
    all: bool,
    commit: Option<json::CommitSummary>,
) -> Result<(), Failure> {
    let mut shown = Vec::new();
    let erased = store.erased();
    for versions in records {
        for (found, chosen) in wanted(versions, all) {
            let bytes = store.read_unless_erased(&found.record())?.unwrap_or_default();
            let size = bytes.len() as u64;
            // What is no JSON for every reader is had by `cat`.
            let text = String::from_utf8(bytes).ok().filter(|text| is_strict(text));
            let record = text.and_then(|text| RawValue::from_string(text).ok());
            let mut elsewhere = Vec::new();
            for body in &found.event.fact.objects[1..] {
                if matches!(store.presence(body)?, Presence::Elsewhere(_)) {
                    elsewhere.push(body.to_string());
                }
            }
            shown.push(json::Record {
                head: head(found),
                elsewhere,
                erased: found.event.fact.objects.iter().find_map(|id| erased.act(id)).map(json::Erased::of),
                bytes: size,
                versions: versions.all.len() as u64,
                chosen,
                record,
            });
        }
    }
    context.ui.json(&json::Show { schema: json::SHOW, records: shown, object: None, commit })?;
    Ok(())
}

fn show_records(
    context: &Context,
    place: &Place,
    store: &Store,
    records: &[Versions],
    all: bool,
) -> Result<(), Failure> {
    let mut first = true;
    for versions in records {
        for (found, _) in wanted(versions, all) {
            if !std::mem::take(&mut first) {
                context.ui.line("")?;
            }
            show_record(context, place, store, found)?;
        }
        let others = versions.all.len() - 1;
        if others > 0 && !all {
            context.ui.note(&format!("{others} other version(s) of it; --all shows them"));
        }
    }
    Ok(())
}

fn show_record(context: &Context, place: &Place, store: &Store, found: &Found) -> Result<(), Failure> {
    let ui = &context.ui;
    let fact = &found.event.fact;
    let record = store.read_unless_erased(&found.record())?;
    ui.line(format_args!("{} {}", ui.strong(fact.kind.name()), ui.name(found.record())))?;
    ui.line(format_args!("key      {}", sanitize::line(&fact.key)))?;
    ui.line(format_args!("time     {}", time::show(fact.time, &zone())))?;
    ui.line(format_args!(
        "event    {} ({} of writer {})",
        found.id.short(),
        found.event.seq,
        found.event.writer.short()
    ))?;
    let Some(bytes) = record else {
        if let Presence::Erased(act) = store.presence(&found.record())? {
            ui.line(format_args!("erased   {}", erased_words(&act)))?;
        }
        return Ok(());
    };
    ui.line(format_args!("size     {}", ui::bytes(bytes.len() as u64)))?;
    for body in &fact.objects[1..] {
        let words = match store.presence(body)? {
            Presence::Elsewhere(remotes) => {
                let holders = Holders::of(&context.files(place, store))?;
                let size = TranscriptRecord::decode(&bytes).map_or(0, |record| record.size);
                format!("{}, elsewhere: {}", ui::bytes(size), holders.names(&remotes))
            }
            Presence::Erased(act) => format!("erased {}", erased_words(&act)),
            Presence::Present | Presence::Missing => ui::bytes(target::object_bytes(store, body)?),
        };
        ui.line(format_args!("bytes    {} ({})", ui.name(body.short()), sanitize::line(&words)))?;
    }
    ui.line("")?;
    ui.line(sanitize::block(&pretty(&bytes)))?;
    Ok(())
}

/// When and by whom.
fn erased_words(act: &Act) -> String {
    format!("{} by writer {}", time::show(act.time, &zone()), act.writer.short())
}

/// Whether this is JSON that every reader takes: no key twice, not nested without end.
fn is_strict(text: &str) -> bool {
    canonicalize(text.as_bytes(), &mut Vec::new()).is_ok()
}

/// Canonical JSON with line breaks and indents added, and nothing else changed: numbers stay as they are written.
fn pretty(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !is_strict(&text) {
        return text.into_owned();
    }
    let (mut out, mut depth, mut in_string, mut escaped) =
        (String::with_capacity(text.len() * 2), 0usize, false, false);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if in_string {
            out.push(char);
            in_string = escaped || char != '"';
            escaped = char == '\\' && !escaped;
            continue;
        }
        let break_line = |out: &mut String, depth: usize| {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        };
        match char {
            '{' | '[' => {
                out.push(char);
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(char);
            }
            ',' => {
                out.push(char);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                in_string = true;
                out.push(char);
            }
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn pretty_changes_white_space_only() {
        let text = r#"{"a":[1.50,-2e3,{}],"b":"x\"{,:\\","c":[],"d":{"e":null}}"#;
        let shown = pretty(text.as_bytes());
        assert_eq!(
            shown,
            "{\n  \"a\": [\n    1.50,\n    -2e3,\n    {}\n  ],\n  \"b\": \"x\\\"{,:\\\\\",\n  \"c\": [],\n  \"d\": {\n    \"e\": null\n  }\n}"
        );
        assert_eq!(pretty(b"no json"), "no json");
    }
}
