//! A client without a network: a store that pushes to an archive and pulls from it, as a real one would.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::intake::Intake;
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::verify::verify;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Kind, ObjectId, SegmentId, Seq, Store, Timestamp, WriterId};
use agent_trace_sync::accept::{ForkedIds, adopt, append, goes_whole, new_events, runs_of, tips_for};
use agent_trace_sync::receive::{Checked, Neighbours, Verdict, check};
use agent_trace_sync::service::archive::{Archive, Bodies, Committed, Item, Part};
use agent_trace_sync::service::embedded::ProjectArchive;
use agent_trace_sync::service::grant::TokenId;
use sha2::{Digest, Sha256};

pub(crate) fn token() -> TokenId {
    TokenId::new("0123456789abcdef")
}

pub(crate) fn trace_id(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

pub(crate) fn trace(number: u32) -> Vec<u8> {
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"c-{number}"}}],"path":"src/f.rs"}}],"id":"{}","timestamp":"2026-01-01T00:00:{:02}Z","version":"2.0"}}"#,
        trace_id(number),
        number % 60
    )
    .into_bytes()
}

pub(crate) fn traces(numbers: Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(trace).collect()
}

pub(crate) fn ledger(number: u32, created: &str, names: &[u32]) -> Vec<u8> {
    let ids: Vec<String> = names.iter().map(|n| format!("\"{}\"", trace_id(*n))).collect();
    format!(
        r#"{{"commit_sha":"{number:040x}","created_at":"{created}","files":{{}},"trace_ids":[{}]}}"#,
        ids.join(",")
    )
    .into_bytes()
}

pub(crate) fn batch(records: impl IntoIterator<Item = Vec<u8>>) -> Vec<Item> {
    records.into_iter().map(|json| Item { json }).collect()
}

/// Lines that compress little.
pub(crate) fn lines(seed: u8, bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 100);
    let mut number = 0u32;
    while text.len() < bytes {
        let noise = blake3::hash(&[&number.to_le_bytes()[..], &[seed]].concat());
        text.extend_from_slice(format!("{{\"number\":{number},\"noise\":\"{noise}\"}}\n").as_bytes());
        number += 1;
    }
    text.truncate(bytes);
    text
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut noise);
    noise
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whoever takes the parts of a stream.
type Each<'e> = &'e mut dyn FnMut(Part<'_>) -> agent_trace_store::Result<()>;

pub(crate) struct Client {
    env: Env,
    dir: PathBuf,
    pub(crate) store: Store,
    tips: BTreeMap<WriterId, Tip>,
}

impl Client {
    pub(crate) fn new(disk: &SimDisk, dir: &str) -> Client {
        let store = Store::init(&disk.env(), Path::new(dir)).unwrap();
        disk.env().fs.create_dir_all(&Path::new(dir).join("inbox")).unwrap();
        Client { env: disk.env(), dir: dir.into(), store, tips: BTreeMap::new() }
    }

    /// A store that writes with the key of another.
    pub(crate) fn with_key(disk: &SimDisk, dir: &str, secret: &[u8; 32]) -> Client {
        drop(Client::new(disk, dir));
        disk.write_file(&Path::new(dir).join("writer.key"), secret);
        let client = Client::new(disk, dir);
        assert_eq!(client.store.key().secret(), *secret);
        client
    }

    /// Adds records as one segment.
    pub(crate) fn add(&mut self, kind: Kind, records: impl IntoIterator<Item = Vec<u8>>) {
        let mut intake = Intake::new(&self.store);
        for bytes in records {
            let facts = facts(kind, &bytes).unwrap();
            intake.record(kind, &bytes, &facts, facts.time.unwrap(), &[]).unwrap();
        }
        intake.finish().unwrap();
        self.store.seal().unwrap();
    }

    pub(crate) fn add_transcript(&mut self, conversation: &str, content: &[u8]) {
        let path = self.dir.join("t.jsonl");
        let _ = self.env.fs.remove(&path);
        let file = self.env.fs.create(&path, true).unwrap();
        file.write_all_at(content, 0).unwrap();
        let mut intake = Intake::new(&self.store);
        let body = intake.body(file.as_ref(), content.len() as u64, None).unwrap();
        let record = TranscriptRecord {
            conversation_id: conversation.into(),
            session_id: None,
            agent: None,
            content_sha256: body.sha256.clone(),
            size: body.bytes,
            created_at: Timestamp::from_micros(7),
            source: None,
        };
        let bytes = record.encode();
        let facts = facts(Kind::TRANSCRIPT, &bytes).unwrap();
        intake.record(Kind::TRANSCRIPT, &bytes, &facts, record.created_at, &[body.id]).unwrap();
        intake.finish().unwrap();
        self.store.seal().unwrap();
    }

    pub(crate) fn segments(&self) -> Vec<SegmentId> {
        self.store.refresh().unwrap().sealed.iter().map(|sealed| sealed.id).collect()
    }

    fn sealed(&self, id: &SegmentId) -> Arc<Sealed> {
        Arc::clone(self.store.refresh().unwrap().get(id).unwrap())
    }

    pub(crate) fn bytes_of(&self, id: &SegmentId) -> u64 {
        self.sealed(id).bytes
    }

    pub(crate) fn read(&self, id: &SegmentId) -> Vec<u8> {
        let sealed = self.sealed(id);
        let mut bytes = vec![0; usize::try_from(sealed.bytes).unwrap()];
        sealed.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    pub(crate) fn tip(&self) -> Tip {
        let tail = self.store.tail().unwrap();
        self.store.key().tip(Seq::new(tail.seq).unwrap(), tail.event)
    }

    /// An older tip: what lies behind it is not signed.
    pub(crate) fn tip_at(&self, seq: u64) -> Tip {
        for sealed in &self.store.refresh().unwrap().sealed {
            for place in &sealed.directory.events_frames {
                let handle = agent_trace_store::store::Handle::Sealed(Arc::clone(sealed));
                let events = agent_trace_store::store::read_events(&handle, place.offset).unwrap();
                if let Some((event, id)) = events.iter().find(|(event, _)| event.seq.get() == seq) {
                    return self.store.key().tip(event.seq, *id);
                }
            }
        }
        panic!("there is no event {seq}");
    }

    pub(crate) fn upload_one(&self, archive: &ProjectArchive, token: &TokenId, id: &SegmentId) {
        let bytes = self.read(id);
        let mut at = archive.uploaded(token, id).unwrap();
        while at < bytes.len() as u64 {
            let from = usize::try_from(at).unwrap();
            let to = bytes.len().min(from + 3000);
            at = archive.upload(token, id, at, &bytes[from..to]).unwrap();
        }
    }

    pub(crate) fn upload(&self, archive: &ProjectArchive, token: &TokenId) {
        self.segments().iter().for_each(|id| self.upload_one(archive, token, id));
    }

    /// Pushes all segments of the store, new or not.
    pub(crate) fn push(&mut self, archive: &ProjectArchive, batch: u8) -> Committed {
        self.upload(archive, &token());
        archive.commit(&token(), &[batch; 16], &self.segments(), &[self.tip()]).unwrap()
    }

    /// Pulls what came after a position; returns the position that is reached then.
    pub(crate) fn pull(&mut self, archive: &ProjectArchive, after: u64) -> u64 {
        self.receive(&mut |each| archive.pull(after, Bodies::Along, each)).expect("a pull ends with a mark")
    }

    /// Takes a stream in; between two marks segments may need each other.
    pub(crate) fn receive(
        &mut self,
        stream: &mut dyn FnMut(Each<'_>) -> agent_trace_store::Result<()>,
    ) -> Option<u64> {
        let mut reached = None;
        let mut waiting: Vec<(PathBuf, Arc<Sealed>)> = Vec::new();
        stream(&mut |part| {
            match part {
                Part::Tips(tips) => {
                    for tip in tips {
                        tip.verify().unwrap();
                        self.tips.insert(tip.writer, *tip);
                    }
                }
                Part::Segment(id, bytes, file) => {
                    waiting.push(self.keep(id, bytes, file));
                    self.take_all(&mut waiting);
                }
                Part::Reached(position) => {
                    self.take_all(&mut waiting);
                    assert!(waiting.is_empty(), "what is reached is complete");
                    assert!(reached.is_none_or(|reached| reached <= position));
                    reached = Some(position);
                }
            }
            Ok(())
        })
        .unwrap();
        self.take_all(&mut waiting);
        assert!(waiting.is_empty(), "what was sent is complete");
        self.store.catch_up().unwrap();
        let report = verify(&self.store, &Silent).unwrap();
        // That a log has forked is what a fork is to show.
        let problems: Vec<_> = report.problems.iter().filter(|problem| problem.code != "fork").collect();
        assert!(problems.is_empty(), "{problems:?}");
        reached
    }

    fn keep(
        &self,
        id: &SegmentId,
        bytes: u64,
        file: &dyn agent_trace_store::env::File,
    ) -> (PathBuf, Arc<Sealed>) {
        let path = self.dir.join("inbox").join(id.to_string());
        let _ = self.env.fs.remove(&path);
        let target = self.env.fs.create(&path, true).unwrap();
        let mut content = vec![0; usize::try_from(bytes).unwrap()];
        file.read_exact_at(&mut content, 0).unwrap();
        target.write_all_at(&content, 0).unwrap();
        target.sync().unwrap();
        let sealed = Sealed::open(&self.env, &path, *id).unwrap();
        (path, Arc::new(sealed))
    }

    fn take_all(&self, waiting: &mut Vec<(PathBuf, Arc<Sealed>)>) {
        loop {
            let count = waiting.len();
            waiting.retain(|(path, sealed)| !self.take(path, sealed));
            if waiting.is_empty() || waiting.len() == count {
                return;
            }
        }
    }

    fn held(&self) -> EventSet {
        self.store.held(&self.store.snapshot().unwrap()).unwrap()
    }

    fn take(&self, path: &Path, sealed: &Arc<Sealed>) -> bool {
        let checked: Checked = match check(&self.store, sealed, &self.tips, &Neighbours::default()).unwrap() {
            Verdict::Good(checked) => *checked,
            Verdict::Incomplete(_) => return false,
        };
        assert!(checked.unsigned.is_empty(), "all that is sent is signed");
        assert!(checked.footer_holds);
        let held = self.held();
        let mut ids = ForkedIds::new();
        for found in question::list(&self.store, &self.store.snapshot().unwrap(), &Query::default()).unwrap()
        {
            ids.entry((found.event.writer, found.event.seq)).or_default().insert(found.id);
        }
        let events = new_events(&checked, &held, &ids);
        if events.is_empty() {
            return true;
        }
        let runs = runs_of(&events);
        let tips = tips_for(&runs, &self.tips, &checked.tips);
        if goes_whole(&events, &checked) {
            adopt(&self.store, path, &sealed.id, tips, None).unwrap();
        } else {
            append(&self.store, &self.dir.join("inbox"), sealed, &[], events, tips).unwrap();
        }
        self.store.catch_up().unwrap();
        true
    }

    pub(crate) fn records(&self) -> BTreeSet<ObjectId> {
        let snapshot = self.store.snapshot().unwrap();
        let found = question::list(&self.store, &snapshot, &Query::default()).unwrap();
        found.iter().map(|found| found.record()).collect()
    }

    /// The bytes of all transcripts, by their hash.
    pub(crate) fn transcripts(&self) -> BTreeSet<ObjectId> {
        let snapshot = self.store.snapshot().unwrap();
        let query = Query { kind: Some(Kind::TRANSCRIPT), ..Query::default() };
        let found = question::list(&self.store, &snapshot, &query).unwrap();
        found
            .iter()
            .map(|found| ObjectId::of(&self.store.read(&found.event.fact.objects[1]).unwrap()))
            .collect()
    }
}
