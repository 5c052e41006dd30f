//! Push by protocol 1: records one by one, in batches, to a service that knows nothing else.
//!
//! That protocol has no place for raw bytes of unknown kind, and keeps one transcript of each conversation: all bytes
//! are sent, so that what traces pin is there, and the newest pointer last. Each batch that is acknowledged counts: a
//! push that is cut sends the others the next time.

use agent_trace_store::event::Event;
use agent_trace_store::progress::Progress;
use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, Kind, ObjectId, Result, Store};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::{Memory, Service};
use crate::client::Resource;
use crate::collect::chosen_events;
use crate::gate::Gate;
use crate::limits::{INLINE_BYTES_MAX, LEGACY_BYTES_MAX, LEGACY_ITEMS_MAX};
use crate::push::{PushOptions, PushReport, choose};
use crate::select::Selection;

/// In which order kinds go, so that what names something comes after it where that matters.
pub(super) const ORDER: [(Kind, Resource); 5] = [
    (Kind::TRACE, Resource::Traces),
    (Kind::LEDGER, Resource::Ledgers),
    (Kind::COMMIT_LINK, Resource::CommitLinks),
    (Kind::TRANSCRIPT, Resource::Conversations),
    (Kind::SUMMARY, Resource::Summaries),
];

/// What of one kind has been put together for the next request.
#[derive(Default)]
struct Batch {
    items: Vec<Vec<u8>>,
    events: Vec<Event>,
    bytes: usize,
}

impl Service {
    /// Sends what the project has not got, as far as this store knows.
    pub(super) fn push_records(
        &self,
        store: &Store,
        memory: &mut Memory,
        options: &PushOptions,
        gate: &dyn Gate,
        progress: &dyn Progress,
    ) -> Result<PushReport> {
        let selection = choose(store, &memory.state, options)?;
        let mut report = PushReport {
            held_back: selection.held_back.clone(),
            elsewhere: selection.elsewhere,
            ..PushReport::default()
        };
        if options.dry_run {
            report.sent = selection.sent.clone();
            return Ok(report);
        }
        gate.ask(store, &selection.events)?;
        let mut events = chosen(&selection)?;
        let unknown = events.iter().filter(|event| !Kind::KNOWN.contains(&event.fact.kind)).count();
        if unknown > 0 {
            report
                .refused
                .push(format!("{unknown} records of unknown kind: protocol 1 has no place for them"));
        }
        // The newest state of a conversation last: that protocol keeps the last.
        events.sort_by_key(|event| (event.fact.time, event.fact.objects[0]));
        let mut sending = Sending { service: self, store, report, done: Vec::new(), takes_blobs: true };
        progress.start("pushing", None);
        let mut outcome = Ok(());
        for (kind, resource) in ORDER {
            let of_kind = events.iter().filter(|event| event.fact.kind == kind);
            outcome = sending.all(resource, of_kind, progress);
            if outcome.is_err() {
                break;
            }
        }
        progress.finish();
        let sent = EventSet::from_ranges(sending.done);
        memory.state.has = memory.state.has.union(&sent);
        if outcome.is_ok() {
            // What was refused stays missing, and is tried again.
            let refused = selection.events.minus(&sent);
            memory.state.held = selection.held.minus(&refused);
            memory.state.held_kinds = selection.held_back;
            memory.state.evaluated = selection.evaluated;
        }
        self.remember(store, memory)?;
        outcome.map(|()| sending.report)
    }
}

fn chosen(selection: &Selection) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for pick in &selection.picks {
        let numbers = pick.numbers.clone().unwrap_or_else(|| (0..pick.source.events).collect());
        events.extend(chosen_events(&pick.source, &numbers)?.into_iter().map(|(event, _, _)| event));
    }
    Ok(events)
}

struct Sending<'a> {
    service: &'a Service,
    store: &'a Store,
    report: PushReport,
    /// Events that the service has acknowledged.
    done: Vec<(agent_trace_store::WriterId, u64, u64)>,
    /// Whether it takes transcripts apart from their pointers.
    takes_blobs: bool,
}

impl Sending<'_> {
    fn all<'e>(
        &mut self,
        resource: Resource,
        events: impl Iterator<Item = &'e Event>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut batch = Batch::default();
        for event in events {
            let record = read(self.store, &event.fact.objects[0])?;
            let item = match resource {
                Resource::Conversations => self.pointer(&record, event)?,
                _ => record,
            };
            if item.len() > LEGACY_BYTES_MAX {
                let key = &event.fact.key;
                self.report.refused.push(format!("`{key}` is too long for protocol 1"));
                continue;
            }
            let is_full =
                batch.items.len() == LEGACY_ITEMS_MAX || batch.bytes + item.len() > LEGACY_BYTES_MAX;
            if is_full && !self.send(resource, std::mem::take(&mut batch), progress)? {
                return Ok(());
            }
            batch.bytes += item.len() + 1;
            batch.items.push(item);
            batch.events.push(event.clone());
        }
        if !batch.items.is_empty() {
            self.send(resource, batch, progress)?;
        }
        Ok(())
    }

    /// Sends a batch; false where the service does not know the resource.
    fn send(&mut self, resource: Resource, batch: Batch, progress: &dyn Progress) -> Result<bool> {
        let Some(skipped) = self.service.client.put_items(resource, &batch.items)? else {
            // A service from before summaries; they are sent once it knows them.
            return Ok(false);
        };
        for (number, event) in batch.events.iter().enumerate() {
            if let Some((_, reason)) = skipped.iter().find(|(index, _)| *index == number) {
                let reason: String = reason.chars().filter(|char| !char.is_control()).take(300).collect();
                self.report.refused.push(format!("{} `{}`: {reason}", event.fact.kind, event.fact.key));
                continue;
            }
            *self.report.sent.entry(event.fact.kind).or_default() += 1;
            self.done.push((event.writer, event.seq.get(), event.seq.get()));
        }
        self.report.bytes += batch.bytes as u64;
        progress.advance(batch.bytes as u64);
        Ok(true)
    }

    /// The pointer to a transcript; its bytes are there then, or in it.
    fn pointer(&mut self, record: &[u8], event: &Event) -> Result<Vec<u8>> {
        let transcript = TranscriptRecord::decode(record)?;
        let mut pointer = json!({
            "conversation_id": transcript.conversation_id,
            "content_sha256": transcript.content_sha256,
            "size": transcript.size,
        });
        let body = event.fact.objects.get(1).copied();
        let body = body.ok_or_else(|| Error::corrupt("the record of a transcript lists no bytes"))?;
        let is_small = transcript.size <= INLINE_BYTES_MAX;
        if !is_small && self.takes_blobs {
            if self.service.client.has_blob(&transcript.content_sha256)? {
                return Ok(pointer.to_string().into_bytes());
            }
            let bytes = read(self.store, &body)?;
            let length = bytes.len() as u64;
            self.takes_blobs = self.service.client.put_blob(bytes)?;
            if self.takes_blobs {
                self.report.bytes += length;
                return Ok(pointer.to_string().into_bytes());
            }
        }
        match String::from_utf8(read(self.store, &body)?) {
            Ok(text) => pointer["content"] = json!(text),
            Err(error) => pointer["content_b64"] = json!(BASE64_STANDARD.encode(error.as_bytes())),
        }
        Ok(pointer.to_string().into_bytes())
    }
}

fn read(store: &Store, id: &ObjectId) -> Result<Vec<u8>> {
    store.read(id)
}
