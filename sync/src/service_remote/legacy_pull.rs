//! Pull by protocol 1: records page by page, into the store under its own writer.
//!
//! A service of that protocol gives records that arrived together one time, and cuts pages between them. So after every
//! full page the next is asked for from a moment before its end, and what was seen is passed over. Of ledgers it names
//! the wrong moment, and would answer with the same page for ever: then each is asked for by its commit. What is here
//! already is told by its content, since such a service writes times and numbers its own way.

use std::collections::HashSet;
use std::path::PathBuf;

use agent_trace_store::intake::Intake;
use agent_trace_store::json::Canonicalizer;
use agent_trace_store::progress::Progress;
use agent_trace_store::question;
use agent_trace_store::record::{self, Facts, TranscriptRecord};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Error, Kind, ObjectId, Result, Store, Timestamp};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::legacy::ORDER;
use super::{Memory, Service};
use crate::client::{Client, Resource};
use crate::limits::PAGE_ITEMS_MAX;
use crate::state::{cache_dir, clear};
use crate::take::{PullOptions, PullReport};

impl Service {
    /// Takes what has arrived since the last pull.
    pub(super) fn pull_records(
        &self,
        store: &Store,
        memory: &mut Memory,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<PullReport> {
        let snapshot = store.snapshot()?;
        let before = store.tail()?;
        let inbox = cache_dir(store, &self.id)?.join("inbox");
        clear(store, &inbox)?;
        let mut taking = Taking {
            client: &self.client,
            store,
            snapshot,
            intake: Intake::new(store),
            options,
            inbox,
            canonicalizer: Canonicalizer::default(),
            seen: HashSet::new(),
            report: PullReport::default(),
        };
        progress.start("pulling", None);
        let mut outcome = Ok(());
        for (number, (kind, resource)) in (0u8..).zip(ORDER) {
            let since = memory.known.since.get(&number).cloned();
            match taking.resource(kind, resource, since, progress) {
                Ok(Some(reached)) if !options.dry_run && options.since.is_none() => {
                    memory.known.since.insert(number, reached);
                }
                Ok(_) => {}
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        progress.finish();
        let Taking { intake, report, inbox, .. } = taking;
        // What was taken in before a failure counts.
        intake.finish()?;
        clear(store, &inbox)?;
        store.catch_up()?;
        let (writer, last) = (store.writer(), store.tail()?.seq);
        if before.writer == writer && last > before.seq {
            // It came from there, so it need not be sent there.
            let new = EventSet::from_ranges([(writer, before.seq + 1, last)]);
            memory.state.has = memory.state.has.union(&new);
        }
        self.remember(store, memory)?;
        outcome.map(|()| report)
    }
}

struct Taking<'a> {
    client: &'a Client,
    store: &'a Store,
    snapshot: Snapshot,
    intake: Intake<'a>,
    options: &'a PullOptions,
    inbox: PathBuf,
    canonicalizer: Canonicalizer,
    /// Hashes of the items of this resource that have come.
    seen: HashSet<[u8; 32]>,
    report: PullReport,
}

/// A conversation as such a service lists it.
#[derive(Deserialize)]
struct Pointer {
    conversation_id: String,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    content_b64: Option<String>,
    #[serde(default)]
    content_sha256: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
}

impl Taking<'_> {
    /// Takes all pages of a resource; returns from where to go on the next time.
    fn resource(
        &mut self,
        kind: Kind,
        resource: Resource,
        since: Option<String>,
        progress: &dyn Progress,
    ) -> Result<Option<String>> {
        self.seen.clear();
        let mut reached = since.clone();
        let mut since = since;
        loop {
            let Some(page) = self.client.page(resource, since.as_deref())? else { return Ok(reached) };
            let is_full = page.items.len() >= PAGE_ITEMS_MAX;
            let mut is_new = false;
            for item in &page.items {
                let bytes = item.get().as_bytes();
                progress.advance(bytes.len() as u64);
                self.report.bytes += bytes.len() as u64;
                if self.seen.insert(*blake3::hash(bytes).as_bytes()) {
                    is_new = true;
                    self.item(kind, bytes)?;
                }
            }
            if !self.options.dry_run {
                self.intake.append_if_large()?;
            }
            let Some(newest) = page.max_timestamp else { return Ok(reached) };
            if !is_full {
                return Ok(Some(newest));
            }
            if !is_new {
                if resource == Resource::Ledgers {
                    self.ledgers_by_commit(progress)?;
                    // The moment that it names says nothing; the next pull looks at all again.
                    return Ok(None);
                }
                if since.as_deref() == Some(newest.as_str()) {
                    return Ok(Some(newest));
                }
                // More than a page arrived in that moment: some of it cannot be asked for.
                let what =
                    format!("more than {PAGE_ITEMS_MAX} {kind} records of one moment: some may be missing");
                self.report.refused.push(what);
                since = Some(newest.clone());
                reached = Some(newest);
                continue;
            }
            since = Some(moment_before(&newest));
            reached = Some(newest);
        }
    }

    /// Asks for the ledger of every commit that the service knows.
    fn ledgers_by_commit(&mut self, progress: &dyn Progress) -> Result<()> {
        let mut asked = HashSet::new();
        let mut since: Option<String> = None;
        loop {
            let Some(page) = self.client.page(Resource::CommitLinks, since.as_deref())? else {
                return Ok(());
            };
            let mut is_new = false;
            for item in &page.items {
                let Ok(link) = serde_json::from_str::<Value>(item.get()) else { continue };
                let Some(commit) = link["commit_sha"].as_str() else { continue };
                if !asked.insert(commit.to_owned()) {
                    continue;
                }
                is_new = true;
                if let Some(ledger) = self.client.ledger(commit)? {
                    progress.advance(ledger.len() as u64);
                    if self.seen.insert(*blake3::hash(&ledger).as_bytes()) {
                        self.item(Kind::LEDGER, &ledger)?;
                    }
                }
            }
            match page.max_timestamp {
                Some(newest) if page.items.len() >= PAGE_ITEMS_MAX && is_new => {
                    since = Some(moment_before(&newest));
                }
                _ => return Ok(()),
            }
        }
    }

    /// Takes one item in, or says why not.
    fn item(&mut self, kind: Kind, bytes: &[u8]) -> Result<()> {
        if kind == Kind::TRANSCRIPT {
            return self.conversation(bytes);
        }
        let mut canonical = Vec::with_capacity(bytes.len());
        if let Err(error) = self.canonicalizer.canonicalize(bytes.trim_ascii(), &mut canonical) {
            self.report.refused.push(format!("a {kind}: no canonical JSON: {error}"));
            return Ok(());
        }
        let facts = match record::facts(kind, &canonical) {
            Ok(facts) => facts,
            Err(error) => {
                self.report.refused.push(error.message().to_owned());
                return Ok(());
            }
        };
        let time = facts.time.unwrap_or_else(|| self.store.env().clock.now());
        if self.options.since.is_some_and(|since| time < since) || self.holds(kind, &facts, &canonical)? {
            return Ok(());
        }
        *self.report.taken.entry(kind).or_default() += 1;
        if self.options.dry_run {
            return Ok(());
        }
        self.intake.record(kind, &canonical, &facts, time, &[])
    }

    /// Whether the store holds this record, or one that says the same.
    fn holds(&self, kind: Kind, facts: &Facts<'_>, canonical: &[u8]) -> Result<bool> {
        if self.store.contains(&ObjectId::of(canonical))? {
            return Ok(true);
        }
        // A summary's key holds a time, which may be written otherwise; its conversation names it too.
        let name = match kind {
            Kind::SUMMARY => crate::named::conversation(kind, &facts.key).to_owned(),
            _ => facts.key.clone().into_owned(),
        };
        let mut found = question::named(self.store, &self.snapshot, &name, false)?;
        if kind == Kind::SUMMARY {
            found.extend(question::named(self.store, &self.snapshot, &name, true)?);
        }
        let Ok(theirs) = serde_json::from_slice::<Value>(canonical) else { return Ok(false) };
        for found in found.iter().filter(|found| found.event.fact.kind == kind) {
            let Ok(ours) = serde_json::from_slice::<Value>(&self.store.read(&found.record())?) else {
                continue;
            };
            if says_the_same(kind, &ours, &theirs) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn conversation(&mut self, bytes: &[u8]) -> Result<()> {
        let refuse =
            |report: &mut PullReport, why: &str| report.refused.push(format!("a conversation: {why}"));
        let Ok(pointer) = serde_json::from_slice::<Pointer>(bytes) else {
            refuse(&mut self.report, "it cannot be read");
            return Ok(());
        };
        let time = pointer.updated_at.as_deref().and_then(Timestamp::parse);
        let time = time.unwrap_or_else(|| self.store.env().clock.now());
        if self.options.since.is_some_and(|since| time < since) {
            return Ok(());
        }
        let inline = match (&pointer.content, &pointer.content_b64) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(text)) => match BASE64_STANDARD.decode(text) {
                Ok(bytes) => Some(bytes),
                Err(_) => {
                    refuse(&mut self.report, "its bytes cannot be read");
                    return Ok(());
                }
            },
            (None, None) => None,
        };
        let sha256 = match (&inline, pointer.content_sha256) {
            (Some(bytes), _) => hex_sha256(bytes),
            (None, Some(sha256)) if record::is_sha256(&sha256) => sha256,
            (None, _) => {
                refuse(&mut self.report, "it says nothing of its bytes");
                return Ok(());
            }
        };
        if self.holds_transcript(&pointer.conversation_id, &sha256)? {
            return Ok(());
        }
        *self.report.taken.entry(Kind::TRANSCRIPT).or_default() += 1;
        if self.options.dry_run {
            return Ok(());
        }
        let path = self.inbox.join(format!("{sha256}.blob"));
        let fs = &self.store.env().fs;
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        let file = fs.create(&path, true).map_err(doing)?;
        let mut at = 0;
        let mut write = |part: &[u8]| {
            file.write_all_at(part, at).map_err(doing)?;
            at += part.len() as u64;
            Ok(())
        };
        match &inline {
            Some(bytes) => write(bytes)?,
            None => self.client.blob(&sha256, &mut write)?,
        }
        let body = self.intake.body(file.as_ref(), at, None)?;
        fs.remove(&path).map_err(doing)?;
        if body.sha256 != sha256 {
            return Err(Error::corrupt("a transcript changed while it was taken in"));
        }
        let record = TranscriptRecord {
            conversation_id: pointer.conversation_id,
            session_id: None,
            agent: None,
            content_sha256: sha256,
            size: at,
            created_at: time,
            source: Some("agent-trace-service".to_owned()),
        };
        let record = record.encode();
        let facts = record::facts(Kind::TRANSCRIPT, &record)?;
        self.intake.record(Kind::TRANSCRIPT, &record, &facts, time, &[body.id])
    }

    fn holds_transcript(&self, conversation: &str, sha256: &str) -> Result<bool> {
        for found in question::named(self.store, &self.snapshot, conversation, false)? {
            if found.event.fact.kind != Kind::TRANSCRIPT {
                continue;
            }
            let record = TranscriptRecord::decode(&self.store.read(&found.record())?);
            if record.is_ok_and(|record| record.content_sha256 == sha256) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn hex_sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    agent_trace_store::id::encode_hex(&sha2::Sha256::digest(bytes))
}

/// A microsecond before a moment, as such a service reads it; a moment that cannot be read stays as it is.
fn moment_before(text: &str) -> String {
    match Timestamp::parse(text) {
        Some(time) => Timestamp::from_micros(time.micros() - 1).to_string(),
        None => text.to_owned(),
    }
}

/// Whether two records say the same, but for what such a service writes itself.
fn says_the_same(kind: Kind, ours: &Value, theirs: &Value) -> bool {
    let passed_over: &[&str] = match kind {
        Kind::COMMIT_LINK => &["created_at", "files_changed"],
        Kind::SUMMARY => &["updated_at"],
        _ => &[],
    };
    let (Some(ours), Some(theirs)) = (ours.as_object(), theirs.as_object()) else { return false };
    let counts = |(key, value): &(&String, &Value)| !value.is_null() && !passed_over.contains(&key.as_str());
    let ours_has = |(key, value): (&String, &Value)| ours.get(key).is_some_and(|ours| same(ours, value));
    let theirs_has = |key: &String| theirs.get(key).is_some_and(|value| !value.is_null());
    // Such a service keeps of links and summaries the members it knows, so ours may say more.
    let keeps_all = matches!(kind, Kind::TRACE | Kind::LEDGER);
    theirs.iter().filter(counts).all(ours_has)
        && (!keeps_all || ours.iter().filter(counts).all(|(key, _)| theirs_has(key)))
}

/// Whether two values are the same number, moment or text.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::String(a), Value::String(b)) => {
            a == b || matches!((Timestamp::parse(a), Timestamp::parse(b)), (Some(a), Some(b)) if a == b)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_record_is_known_however_it_is_written() {
        let check = |kind: Kind, ours: Value, theirs: Value, expected: bool| {
            assert_eq!(says_the_same(kind, &ours, &theirs), expected, "{ours} {theirs}");
        };
        check(Kind::TRACE, json!({"id": "a", "n": 1.0}), json!({"n": 1, "id": "a"}), true);
        check(Kind::TRACE, json!({"id": "a", "n": 1}), json!({"id": "a", "n": 2}), false);
        check(Kind::TRACE, json!({"id": "a", "n": 1}), json!({"id": "a"}), false);
        check(Kind::LEDGER, json!({"f": [1, {"a": "x"}]}), json!({"f": [1, {"a": "x"}]}), true);
        let link =
            json!({"commit_sha": "c", "trace_ids": ["t"], "created_at": "2026-01-01T00:00:00Z", "more": 1});
        let theirs = json!({"commit_sha": "c", "trace_ids": ["t"], "files_changed": null, "created_at": "x"});
        check(Kind::COMMIT_LINK, link.clone(), theirs, true);
        check(Kind::COMMIT_LINK, link, json!({"commit_sha": "c", "trace_ids": ["t", "u"]}), false);
        check(
            Kind::SUMMARY,
            json!({"conversation_id": "c", "summary": "s", "created_at": "2026-01-01T00:00:00Z"}),
            json!({"conversation_id": "c", "summary": "s", "created_at": "2026-01-01T00:00:00+00:00", "updated_at": "y"}),
            true,
        );
    }

    #[test]
    fn a_moment_before_is_a_microsecond_earlier() {
        let check = |text: &str, expected: &str| {
            let (found, expected) = (Timestamp::parse(&moment_before(text)), Timestamp::parse(expected));
            assert_eq!(found, expected);
        };
        check("2026-01-01T00:00:00.000001+00:00", "2026-01-01T00:00:00Z");
        check("2026-01-01T01:00:00+01:00", "2025-12-31T23:59:59.999999Z");
        assert_eq!(moment_before("soon"), "soon");
    }
}
