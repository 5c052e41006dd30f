//! The layout of agent-trace-cli: four files of records, and conversations by their SHA-256.
//!
//! Records of transcripts lie beside their bytes, where that program does not look, so that importing the folder gives the same
//! records.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use agent_trace_store::event::Event;
use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::{Error, Kind, ObjectId, Result, Store, Timestamp};
use agent_trace_sync::bundle::{ExportPlan, NewDir};

use super::out::Out;
use super::{RECORDS_OF_TRANSCRIPTS, Written};

/// The files of records.
const FILES: [(Kind, &str); 4] = [
    (Kind::TRACE, "traces.jsonl"),
    (Kind::LEDGER, "ledgers.jsonl"),
    (Kind::COMMIT_LINK, "commit-links.jsonl"),
    (Kind::SUMMARY, "session-summaries.jsonl"),
];

/// The newest snapshot of a conversation: its length, time and SHA-256.
type Newest = BTreeMap<String, (u64, Timestamp, String)>;

struct Writing<'a> {
    store: &'a Store,
    dir: std::path::PathBuf,
    files: BTreeMap<Kind, Out>,
    records: Out,
    seen: HashSet<ObjectId>,
    blobs: HashSet<String>,
    newest: Newest,
    written: Written,
}

pub(super) fn write(store: &Store, plan: &ExportPlan, path: &Path) -> Result<Written> {
    let env = store.env();
    let dir = NewDir::create(env, path)?;
    let conversations = dir.aside().join("conversations");
    make(store, &conversations)?;
    let mut files = BTreeMap::new();
    for (kind, name) in FILES {
        files.insert(kind, Out::create(env, &dir.aside().join(name))?);
    }
    let mut writing = Writing {
        store,
        records: Out::create(env, &conversations.join(RECORDS_OF_TRANSCRIPTS))?,
        dir: conversations,
        files,
        seen: HashSet::new(),
        blobs: HashSet::new(),
        newest: Newest::new(),
        written: Written::default(),
    };
    plan.each(&mut |event| writing.add(event))?;
    let written = writing.finish()?;
    dir.finish()?;
    Ok(written)
}

fn make(store: &Store, dir: &Path) -> Result<()> {
    let doing = |error| Error::io(format!("cannot create `{}`", dir.display()), error);
    store.env().fs.create_dir_all(dir).map_err(doing)
}

impl Writing<'_> {
    fn add(&mut self, event: &Event) -> Result<()> {
        let fact = &event.fact;
        // The same record may stand in several logs.
        if !self.seen.insert(fact.objects[0]) {
            return Ok(());
        }
        if fact.kind == Kind::TRANSCRIPT {
            return self.transcript(event);
        }
        let Some(file) = self.files.get_mut(&fact.kind) else {
            self.written.skipped += 1;
            return Ok(());
        };
        let mut line = self.store.read(&fact.objects[0])?;
        line.push(b'\n');
        file.put(&line)?;
        *self.written.counts.entry(fact.kind).or_default() += 1;
        Ok(())
    }

    fn transcript(&mut self, event: &Event) -> Result<()> {
        let mut line = self.store.read(&event.fact.objects[0])?;
        let (Ok(record), Some(body)) = (TranscriptRecord::decode(&line), event.fact.objects.get(1)) else {
            self.written.skipped += 1;
            return Ok(());
        };
        let sha256 = record.content_sha256;
        if self.blobs.insert(sha256.clone()) {
            let folder = self.dir.join(&sha256[..2]);
            make(self.store, &folder)?;
            let mut blob = Out::create(self.store.env(), &folder.join(&sha256))?;
            self.store.copy(body, &mut |part| blob.put(part))?;
            self.written.bytes += blob.finish()?;
        }
        let state = (record.size, record.created_at, sha256);
        let newest = self.newest.entry(record.conversation_id).or_insert_with(|| state.clone());
        if *newest < state {
            *newest = state;
        }
        line.push(b'\n');
        self.records.put(&line)?;
        *self.written.counts.entry(Kind::TRANSCRIPT).or_default() += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Written> {
        let index: BTreeMap<String, String> =
            self.newest.into_iter().map(|(conversation, (_, _, sha256))| (conversation, sha256)).collect();
        let mut file = Out::create(self.store.env(), &self.dir.join("_index.json"))?;
        let index = serde_json::to_vec_pretty(&index)
            .map_err(|error| Error::invalid("cannot write `_index.json`").with_source(error))?;
        file.put(&index)?;
        self.written.bytes += file.finish()? + self.records.finish()?;
        for (_, file) in self.files {
            self.written.bytes += file.finish()?;
        }
        Ok(self.written)
    }
}
