//! An archive and a staging area in memory, behind the traits that the HTTP side is given.
//!
//! Checks nothing of segments: what is tested with it is who gets which answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use agent_trace_store::env::File;
use agent_trace_store::id::encode_hex;
use agent_trace_store::json::{Reader, canonicalize};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, EventId, ObjectId, Result, SegmentId, Seq, Timestamp, WriterId};
use agent_trace_sync::service::archive::{
    Archive, ArrivalRun, Arrivals, Bodies, Committed, Item, PageRow, Part, Reach, Resource, Staging, Stored,
};
use agent_trace_sync::service::embedded::OpenArchive;
use agent_trace_sync::service::grant::TokenId;
use sha2::{Digest as _, Sha256};

type Staged = HashMap<(TokenId, [u8; 32]), Vec<u8>>;

pub(crate) const EPOCH: [u8; 16] = [7; 16];

/// What all archives of a test share.
#[derive(Default)]
pub(crate) struct World {
    staged: Mutex<Staged>,
    /// Whether pulls never end by themselves.
    pub(crate) is_endless: AtomicBool,
    /// Segments that pulls have handed over.
    pub(crate) pulled: AtomicUsize,
    /// How many archives were opened.
    pub(crate) opened: AtomicUsize,
}

impl World {
    /// How an archive is opened; each folder has one.
    pub(crate) fn opener(self: &Arc<World>) -> Box<OpenArchive> {
        let (world, all) = (self.clone(), Mutex::new(HashMap::new()));
        Box::new(move |_, path| {
            let mut all = all.lock().unwrap();
            world.opened.fetch_add(1, Ordering::Relaxed);
            let archive = all
                .entry(path.to_owned())
                .or_insert_with(|| Arc::new(FakeArchive { world: world.clone(), kept: Mutex::default() }));
            Ok(archive.clone() as Arc<dyn Archive>)
        })
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl Staging for World {
    fn stage(&self, token: &TokenId, bytes: &mut dyn io::Read, bytes_max: u64) -> Result<([u8; 32], u64)> {
        let mut all = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(bytes, bytes_max + 1), &mut all)
            .map_err(|error| Error::io("cannot read the blob", error))?;
        let (hash, length) = (sha256(&all), all.len() as u64);
        self.staged.lock().unwrap().insert((token.clone(), hash), all);
        Ok((hash, length))
    }

    fn staged(&self, token: &TokenId, sha256: &[u8; 32]) -> Result<Option<u64>> {
        let staged = self.staged.lock().unwrap();
        Ok(staged.get(&(token.clone(), *sha256)).map(|bytes| bytes.len() as u64))
    }

    fn read_staged(
        &self,
        token: &TokenId,
        sha256: &[u8; 32],
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let found = self.staged.lock().unwrap().get(&(token.clone(), *sha256)).cloned();
        found.map_or(Ok(false), |bytes| each(&bytes).map(|()| true))
    }
}

#[derive(Default)]
struct Kept {
    rows: HashMap<Resource, BTreeMap<String, (i64, Vec<u8>)>>,
    clock: i64,
    blobs: HashMap<[u8; 32], (ObjectId, u64)>,
    objects: HashMap<ObjectId, Vec<u8>>,
    uploads: HashMap<(TokenId, SegmentId), Vec<u8>>,
    segments: Vec<(SegmentId, Vec<u8>)>,
    batches: HashMap<[u8; 16], Committed>,
}

struct FakeArchive {
    world: Arc<World>,
    kept: Mutex<Kept>,
}

struct Memory(Vec<u8>);

impl File for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn event(number: usize) -> EventId {
    EventId::of(&number.to_le_bytes())
}

fn field(canonical: &[u8], wanted: &str) -> Option<String> {
    let mut reader = Reader::new(canonical);
    reader.enter_object().ok()?.then_some(())?;
    while let Some(key) = reader.next_key().ok()? {
        if key == wanted.as_bytes() {
            return reader.string().ok()?.map(|text| text.into_owned());
        }
        reader.skip().ok()?;
    }
    None
}

impl Kept {
    fn reach(&self) -> Reach {
        Reach { epoch: EPOCH, position: self.segments.len() as u64 }
    }

    fn hold(&mut self, bytes: &[u8]) {
        let id = ObjectId::of(bytes);
        self.objects.insert(id, bytes.to_owned());
        self.blobs.insert(sha256(bytes), (id, bytes.len() as u64));
    }

    fn put(
        &mut self,
        world: &World,
        token: &TokenId,
        resource: Resource,
        item: &Item,
    ) -> Result<bool, String> {
        let mut canonical = Vec::new();
        canonicalize(&item.json, &mut canonical).map_err(|error| error.to_string())?;
        let name = match resource {
            Resource::Traces => "id",
            Resource::Ledgers | Resource::CommitLinks => "commit_sha",
            Resource::Conversations | Resource::Summaries => "conversation_id",
        };
        let key = field(&canonical, name).ok_or(format!("no `{name}`"))?;
        if resource == Resource::Conversations {
            if let Some(content) = field(&canonical, "content") {
                self.hold(content.as_bytes());
                let sha = encode_hex(&sha256(content.as_bytes()));
                canonical =
                    format!("{{\"content_sha256\":\"{sha}\",\"conversation_id\":\"{key}\"}}").into_bytes();
            } else if let Some(hex) = field(&canonical, "content_sha256") {
                let mut sha = [0; 32];
                agent_trace_store::id::decode_hex(&hex, &mut sha);
                let staged = world.staged.lock().unwrap().get(&(token.clone(), sha)).cloned();
                match staged {
                    Some(bytes) => self.hold(&bytes),
                    None if self.blobs.contains_key(&sha) => {}
                    None => return Err(format!("missing {hex}")),
                }
            }
        }
        self.clock += 1;
        let row = (self.clock, canonical);
        Ok(self.rows.entry(resource).or_default().insert(key, row).is_none())
    }
}

impl Archive for FakeArchive {
    fn reach(&self) -> Result<Reach> {
        Ok(self.kept.lock().unwrap().reach())
    }

    fn arrivals(&self, after: u64) -> Result<Arrivals> {
        let reach = self.reach()?;
        let newest = reach.position;
        let writer = WriterId::from_bytes([1; 32]);
        let run = ArrivalRun { writer, seq_first: after + 1, count: newest - after };
        Ok(Arrivals {
            reach,
            newest,
            runs: (after < newest).then_some(run).into_iter().collect(),
            tips: vec![],
        })
    }

    fn holds(&self, ids: &[ObjectId]) -> Result<Vec<bool>> {
        let kept = self.kept.lock().unwrap();
        Ok(ids.iter().map(|id| kept.objects.contains_key(id)).collect())
    }

    fn events(&self) -> Result<EventSet> {
        Ok(EventSet::default())
    }

    fn event_ids(
        &self,
        position: u64,
        each: &mut dyn FnMut(&EventId, &WriterId, Seq) -> Result<()>,
    ) -> Result<()> {
        let count = usize::try_from(position).unwrap();
        (0..count).try_for_each(|number| each(&event(number), &WriterId::from_bytes([1; 32]), Seq::FIRST))
    }

    fn uploaded(&self, token: &TokenId, id: &SegmentId) -> Result<u64> {
        let kept = self.kept.lock().unwrap();
        Ok(kept.uploads.get(&(token.clone(), *id)).map_or(0, |bytes| bytes.len() as u64))
    }

    fn upload(&self, token: &TokenId, id: &SegmentId, offset: u64, bytes: &[u8]) -> Result<u64> {
        let mut kept = self.kept.lock().unwrap();
        let there = kept.uploads.entry((token.clone(), *id)).or_default();
        if there.len() as u64 != offset {
            return Err(Error::new(ErrorKind::Conflict, "another offset"));
        }
        there.extend_from_slice(bytes);
        Ok(there.len() as u64)
    }

    fn commit(
        &self,
        token: &TokenId,
        batch: &[u8; 16],
        segments: &[SegmentId],
        _: &[Tip],
    ) -> Result<Committed> {
        let mut kept = self.kept.lock().unwrap();
        if let Some(done) = kept.batches.get(batch) {
            return Ok(done.clone());
        }
        let missing = segments.iter().filter(|id| !kept.uploads.contains_key(&(token.clone(), **id)));
        let refused: Vec<_> = missing.map(|id| format!("segment `{id}` is not here")).collect();
        if !refused.is_empty() {
            return Ok(Committed { refused, ..Committed::default() });
        }
        for id in segments {
            let bytes = kept.uploads.remove(&(token.clone(), *id)).unwrap();
            kept.hold(&bytes);
            kept.segments.push((*id, bytes));
        }
        let taken = segments.len() as u64;
        let done = Committed { position: kept.reach().position, taken, ..Committed::default() };
        kept.batches.insert(*batch, done.clone());
        Ok(done)
    }

    fn pull(&self, after: u64, _: Bodies, each: &mut dyn FnMut(Part<'_>) -> Result<()>) -> Result<()> {
        loop {
            let segments = self.kept.lock().unwrap().segments.clone();
            for (at, (id, bytes)) in segments.iter().enumerate().skip(usize::try_from(after).unwrap()) {
                self.world.pulled.fetch_add(1, Ordering::Relaxed);
                each(Part::Segment(id, bytes.len() as u64, &Memory(bytes.clone())))?;
                each(Part::Reached(at as u64 + 1))?;
            }
            if !self.world.is_endless.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    fn fetch(
        &self,
        runs: &[ArrivalRun],
        ids: &[EventId],
        _: Bodies,
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()> {
        let segments = self.kept.lock().unwrap().segments.clone();
        let wanted = |at: usize| {
            runs.iter().any(|run| (run.seq_first..run.seq_first + run.count).contains(&(at as u64 + 1)))
                || ids.contains(&event(at))
        };
        for (at, (id, bytes)) in segments.iter().enumerate().filter(|(at, _)| wanted(*at)) {
            assert!(at < segments.len());
            each(Part::Segment(id, bytes.len() as u64, &Memory(bytes.clone())))?;
        }
        Ok(())
    }

    fn object(&self, id: &ObjectId, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let found = self.kept.lock().unwrap().objects.get(id).cloned();
        let Some(bytes) = found else { return Ok(false) };
        bytes.chunks(100_000).try_for_each(each)?;
        Ok(true)
    }

    fn put(&self, token: &TokenId, resource: Resource, items: &[Item]) -> Result<Stored> {
        let mut kept = self.kept.lock().unwrap();
        let mut stored = Stored::default();
        for (at, item) in items.iter().enumerate() {
            match kept.put(&self.world, token, resource, item) {
                Ok(true) => stored.stored += 1,
                Ok(false) => stored.known += 1,
                Err(why) => match why.strip_prefix("missing ") {
                    Some(sha) => stored.blob_missing = stored.blob_missing.or(Some(sha.to_owned())),
                    None => stored.skipped.push((at, why)),
                },
            }
        }
        Ok(stored)
    }

    fn page(&self, resource: Resource, since: Option<Timestamp>, limit: usize) -> Result<Vec<PageRow>> {
        let kept = self.kept.lock().unwrap();
        let mut rows: Vec<_> = kept.rows.get(&resource).into_iter().flat_map(BTreeMap::values).collect();
        rows.sort();
        let after = since.map_or(0, |since| since.micros() - 1_000_000_000_000_000);
        let page = rows.into_iter().filter(|(at, _)| *at > after).take(limit);
        Ok(page.map(row).collect())
    }

    fn one(&self, resource: Resource, key: &str) -> Result<Option<PageRow>> {
        let kept = self.kept.lock().unwrap();
        Ok(kept.rows.get(&resource).and_then(|rows| rows.get(key)).map(row))
    }

    fn blob(&self, sha256: &[u8; 32]) -> Result<Option<(ObjectId, u64)>> {
        Ok(self.kept.lock().unwrap().blobs.get(sha256).copied())
    }
}

fn row((at, record): &(i64, Vec<u8>)) -> PageRow {
    PageRow { arrived: Timestamp::from_micros(1_000_000_000_000_000 + at), record: record.clone() }
}

/// Ids of which nobody has an object, an event or a segment.
pub(crate) fn strangers() -> HashSet<ObjectId> {
    (0..3u8).map(|byte| ObjectId::of(&[byte, 99])).collect()
}
