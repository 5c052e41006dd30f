//! The archive of one project: a store, and beside it in which order things arrived.
//!
//! One lock orders all writes; readers look at what was published last and wait for nobody. What is taken in is durable
//! in the store first, then gets its positions in `arrivals.redb`, and only then is seen. What a crash left between the
//! two is finished when the archive is opened. After a failed write whoever comes next opens everything anew (I9).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};

use agent_trace_store::env::Env;
use agent_trace_store::layout::create_dir_durably;
use agent_trace_store::segment::LogTail;
use agent_trace_store::segments::SegmentSet;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::OpenPart;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, EventId, ObjectId, Result, SegmentId, Seq, Store, WriterId};
use redb::ReadTransaction;

use super::arrivals::{self, ArrivedRun, Change};
use super::database::Opened;
use super::places::Places;
use super::staging::StagedFiles;
use super::uploads::{UPLOADS, Uploads, folder_of, list};
use crate::accept::set_of;
use crate::limits::{QUESTION_IDS_MAX, RUNS_MAX};
use crate::receive::Neighbours;
use crate::service::archive::{
    Archive, ArrivalRun, Arrivals, Bodies, Committed, Item, PageRow, Part, Reach, Resource, Staging, Stored,
};
use crate::service::grant::TokenId;

/// The archive of one project, in a directory that this process owns.
pub struct ProjectArchive {
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) uploads: Uploads,
    pub(super) staging: Arc<StagedFiles>,
    /// Hashes of bodies that were compared with what records say, and fit.
    pub(super) compared: Mutex<BTreeSet<[u8; 32]>>,
    opened: RwLock<Option<Opened>>,
    seen: RwLock<Arc<Seen>>,
    writing: Mutex<Writing>,
}

/// What readers see.
pub(super) struct Seen {
    pub store: Arc<Store>,
    pub epoch: [u8; 16],
    pub position: u64,
    /// All that has arrived.
    pub held: EventSet,
    /// The segments there were then, and how far the open one went.
    pub segments: Arc<SegmentSet>,
    pub open: Option<OpenPart>,
}

/// What whoever writes knows besides.
pub(super) struct Writing {
    pub store: Arc<Store>,
    pub neighbours: Neighbours,
    pub tips: BTreeMap<WriterId, Tip>,
    /// Where the own log stands.
    pub tail: LogTail,
    /// A write failed: all is opened anew before the next.
    pub broken: bool,
    /// Commits since old answers were forgotten.
    pub commits: u32,
}

impl ProjectArchive {
    /// Opens the archive in a directory, or makes it in an empty one, and finishes what a crash left unfinished.
    pub fn open(env: &Env, dir: &Path) -> Result<ProjectArchive> {
        let staging = Arc::new(StagedFiles::open(env, dir.join("staged"))?);
        ProjectArchive::open_with(env, dir, staging)
    }

    /// The same with bytes that are staged elsewhere, for several projects.
    pub fn open_with(env: &Env, dir: &Path, staging: Arc<StagedFiles>) -> Result<ProjectArchive> {
        create_dir_durably(env, &dir.join("store"))
            .map_err(|error| Error::io(format!("cannot create `{}`", dir.display()), error))?;
        let uploads = Uploads::open(env, dir.join(UPLOADS))?;
        clear_aside(env, &dir.join("aside"))?;
        let (opened, writing, seen) = open_parts(env, dir)?;
        let archive = ProjectArchive {
            env: env.clone(),
            dir: dir.to_owned(),
            uploads,
            staging,
            compared: Mutex::default(),
            opened: RwLock::new(Some(opened)),
            seen: RwLock::new(Arc::new(seen)),
            writing: Mutex::new(writing),
        };
        let mut writing = archive.writing();
        archive.finish_interrupted(&mut writing)?;
        drop(writing);
        archive.uploads.sweep()?;
        Ok(archive)
    }

    /// Where segments are built that are sent or taken in.
    pub(super) fn aside(&self) -> PathBuf {
        self.dir.join("aside")
    }

    pub(super) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on one read transaction of the arrivals.
    pub(super) fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        self.heal();
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some(opened) => opened.read(work),
            None => Err(Error::new(ErrorKind::Unavailable, "the project is being opened anew")),
        }
    }

    /// Runs `work` in one write transaction of the arrivals.
    pub(super) fn change<T>(&self, work: impl FnOnce(&Change<'_>) -> Result<T>) -> Result<T> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some(opened) => opened.write(|transaction| work(&Change::new(transaction))),
            None => Err(Error::new(ErrorKind::Unavailable, "the project is being opened anew")),
        }
    }

    /// Takes the lock of writers; where a write has failed, opens everything anew and finishes what it left.
    pub(super) fn write<T>(&self, work: impl FnOnce(&mut Writing) -> Result<T>) -> Result<T> {
        let mut writing = self.writing();
        if writing.broken {
            self.open_again(&mut writing)?;
        }
        work(&mut writing)
    }

    /// Opens everything anew where a write has failed and nobody writes just now: readers would wait for ever for the
    /// next one, and whoever writes reads first.
    fn heal(&self) {
        let mut writing = match self.writing.try_lock() {
            Ok(writing) => writing,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if writing.broken {
            // Where that fails too, the reader finds out, and the next one tries again.
            let _ = self.open_again(&mut writing);
        }
    }

    /// Runs what changes something: unless it comes to its end, nothing is known of what it left behind.
    pub(super) fn changing<T>(
        &self,
        writing: &mut Writing,
        work: impl FnOnce(&mut Writing) -> Result<T>,
    ) -> Result<T> {
        writing.broken = true;
        let done = work(writing)?;
        writing.broken = false;
        Ok(done)
    }

    fn open_again(&self, writing: &mut Writing) -> Result<()> {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        // What it still writes comes before the file is opened again.
        drop(opened.take());
        clear_aside(&self.env, &self.aside())?;
        let (fresh, now, seen) = open_parts(&self.env, &self.dir)?;
        *opened = Some(fresh);
        drop(opened);
        *writing = now;
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(seen);
        self.finish_interrupted(writing).inspect_err(|_| writing.broken = true)
    }

    /// Makes visible what has been given positions.
    pub(super) fn publish(&self, writing: &mut Writing, arrived: &[ArrivedRun]) -> Result<()> {
        let before = self.seen();
        let mut held = before.held.clone();
        if !arrived.is_empty() {
            held = held.union(&set_of(arrived.iter().map(|arrived| &arrived.run)));
        }
        arrived.iter().for_each(|arrived| writing.neighbours.join(&arrived.run));
        let epoch = self.read(arrivals::epoch)?;
        let seen = Seen {
            store: Arc::clone(&writing.store),
            epoch,
            position: arrived.last().map_or(before.position, ArrivedRun::last),
            held,
            open: writing.store.open_part()?,
            segments: writing.store.segments(),
        };
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(seen);
        Ok(())
    }

    /// Finishes a commit that was begun, and gives positions to own events that were appended and not acknowledged.
    fn finish_interrupted(&self, writing: &mut Writing) -> Result<()> {
        if let Some(pending) = self.read(arrivals::pending)? {
            self.finish_pending(writing, &pending)?;
        }
        self.finish_put(writing)?;
        let (noted, before) = self.read(|transaction| {
            Ok((
                arrivals::writer(transaction)?,
                self.env.clock.now().plus_micros(-crate::limits::UPLOADS_KEPT_MICROS),
            ))
        })?;
        let writer = writing.store.writer();
        self.change(|change| {
            change.sweep(before)?;
            if noted != writer {
                // The archive is a copy: other positions may have been given since it was made.
                change.set_history(&self.fresh_epoch(), writer)?;
            }
            Ok(())
        })?;
        self.publish(writing, &[])
    }

    pub(super) fn fresh_epoch(&self) -> [u8; 16] {
        let mut epoch = [0; 16];
        self.env.entropy.fill(&mut epoch);
        epoch
    }
}

fn clear_aside(env: &Env, dir: &Path) -> Result<()> {
    let doing = |error| Error::io(format!("cannot clear `{}`", dir.display()), error);
    create_dir_durably(env, dir).map_err(doing)?;
    for name in list(env, dir)? {
        env.fs.remove(&dir.join(name)).map_err(doing)?;
    }
    Ok(())
}

fn open_parts(env: &Env, dir: &Path) -> Result<(Opened, Writing, Seen)> {
    let store = Arc::new(Store::init(env, &dir.join("store"))?);
    // Nobody asks this store questions, so nothing is indexed: `index.redb` is made when a command looks at it.
    store.defer_index();
    store.settle()?;
    store.prepare_bulk()?;
    let opened = arrivals::open(env, &dir.join("arrivals.redb"), store.writer())?;
    let mut neighbours = Neighbours::default();
    let (epoch, position, held, tips) = opened.read(|transaction| {
        arrivals::each_run(transaction, 1, |arrived| {
            neighbours.join(&arrived.run);
            Ok(true)
        })?;
        let position = arrivals::last_run(transaction)?.map_or(0, |arrived| arrived.last());
        let held = arrivals::arrived_until(transaction, position)?;
        Ok((arrivals::epoch(transaction)?, position, held, arrivals::tips(transaction)?))
    })?;
    let open = store.open_part()?;
    let segments = store.segments();
    if let Some(unreadable) = segments.unreadable.first() {
        let path = unreadable.path.display();
        return Err(Error::corrupt(format!("cannot open the project: segment `{path}` cannot be read")));
    }
    let seen = Seen { store: Arc::clone(&store), epoch, position, held, segments, open };
    // What was acknowledged must be there; what is there and was not is finished by the caller.
    let lost = seen.held.minus(&Places::of(&seen).events());
    if !lost.is_empty() {
        let message = format!("cannot open the project: {} events that had arrived are gone", lost.len());
        return Err(Error::corrupt(message));
    }
    let tail = store.tail()?;
    Ok((opened, Writing { store, neighbours, tips, tail, broken: false, commits: 0 }, seen))
}

impl Archive for ProjectArchive {
    fn reach(&self) -> Result<Reach> {
        let seen = self.seen();
        Ok(Reach { epoch: seen.epoch, position: seen.position })
    }

    fn arrivals(&self, after: u64) -> Result<Arrivals> {
        let seen = self.seen();
        check_position(&seen, after)?;
        let mut runs: Vec<ArrivalRun> = Vec::new();
        let mut reached = after;
        let mut tips = self.read(|transaction| {
            arrivals::each_run(transaction, after + 1, |arrived| {
                if arrived.position > seen.position {
                    return Ok(false);
                }
                let skipped = (after + 1).saturating_sub(arrived.position);
                let run = ArrivalRun {
                    writer: arrived.run.writer,
                    seq_first: arrived.run.seq_first.get() + skipped,
                    count: u64::from(arrived.run.count) - skipped,
                };
                let full = runs.len() == RUNS_MAX;
                match runs.last_mut() {
                    Some(last)
                        if last.writer == run.writer && last.seq_first + last.count == run.seq_first =>
                    {
                        last.count += run.count;
                    }
                    _ if full => return Ok(false),
                    _ => runs.push(run),
                }
                reached = arrived.last();
                Ok(true)
            })?;
            arrivals::tips(transaction)
        })?;
        if after > 0 {
            let named: BTreeSet<WriterId> = runs.iter().map(|run| run.writer).collect();
            tips.retain(|writer, _| named.contains(writer));
        }
        let reach = Reach { epoch: seen.epoch, position: reached };
        Ok(Arrivals { reach, newest: seen.position, runs, tips: tips.into_values().collect() })
    }

    fn holds(&self, ids: &[ObjectId]) -> Result<Vec<bool>> {
        if ids.len() > QUESTION_IDS_MAX {
            return Err(Error::invalid(format!(
                "expected at most {QUESTION_IDS_MAX} ids, found {}",
                ids.len()
            )));
        }
        // What is in the store and has not arrived is there for good all the same.
        self.seen().store.contains_all(ids)
    }

    fn events(&self) -> Result<EventSet> {
        Ok(self.seen().held.clone())
    }

    fn event_ids(
        &self,
        position: u64,
        each: &mut dyn FnMut(&EventId, &WriterId, Seq) -> Result<()>,
    ) -> Result<()> {
        let seen = self.seen();
        check_position(&seen, position)?;
        let until = match position == seen.position {
            true => None,
            false => Some(self.read(|transaction| arrivals::arrived_until(transaction, position))?),
        };
        let until = until.as_ref().unwrap_or(&seen.held);
        Places::of(&seen).each_event(&mut |laid, id| match until.contains(&laid.writer, laid.seq) {
            true => each(id, &laid.writer, laid.seq),
            false => Ok(()),
        })
    }

    fn uploaded(&self, token: &TokenId, id: &SegmentId) -> Result<u64> {
        if let Some(bytes) = self.uploads.uploaded(&folder_of(token), id)? {
            return Ok(bytes);
        }
        if let Some(sealed) = self.seen().segments.get(id) {
            return Ok(sealed.bytes);
        }
        Ok(self.read(|transaction| arrivals::taken(transaction, id))?.unwrap_or_default())
    }

    fn upload(&self, token: &TokenId, id: &SegmentId, offset: u64, bytes: &[u8]) -> Result<u64> {
        let there = self.uploaded(token, id)?;
        if there > 0 && self.uploads.uploaded(&folder_of(token), id)?.is_none() {
            // The project has it: nothing is to be sent.
            return Ok(there);
        }
        self.uploads.upload(token, id, offset, bytes)
    }

    fn commit(
        &self,
        token: &TokenId,
        batch: &[u8; 16],
        segments: &[SegmentId],
        tips: &[Tip],
    ) -> Result<Committed> {
        self.commit_batch(&folder_of(token), batch, segments, tips, false)
    }

    fn commit_erasing(
        &self,
        token: &TokenId,
        batch: &[u8; 16],
        segments: &[SegmentId],
        tips: &[Tip],
    ) -> Result<Committed> {
        self.commit_batch(&folder_of(token), batch, segments, tips, true)
    }

    fn pull(&self, after: u64, bodies: Bodies, each: &mut dyn FnMut(Part<'_>) -> Result<()>) -> Result<()> {
        let seen = self.seen();
        check_position(&seen, after)?;
        self.send_after(&seen, after, bodies, each)
    }

    fn fetch(
        &self,
        runs: &[ArrivalRun],
        ids: &[EventId],
        bodies: Bodies,
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()> {
        self.send_chosen(&self.seen(), runs, ids, bodies, each)
    }

    fn object(&self, id: &ObjectId, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let store = Arc::clone(&self.seen().store);
        if store.locate(id)?.is_none() {
            return Ok(false);
        }
        store.copy(id, each)?;
        Ok(true)
    }

    fn put(&self, token: &TokenId, resource: Resource, items: &[Item]) -> Result<Stored> {
        match resource {
            Resource::Conversations => self.put_conversations(token, items),
            _ => self.put_records(resource, items),
        }
    }

    fn page(
        &self,
        resource: Resource,
        since: Option<agent_trace_store::Timestamp>,
        limit: usize,
    ) -> Result<Vec<PageRow>> {
        self.rows_of(resource, since, limit)
    }

    fn one(&self, resource: Resource, key: &str) -> Result<Option<PageRow>> {
        self.row_of(resource, key)
    }

    fn blob(&self, sha256: &[u8; 32]) -> Result<Option<(ObjectId, u64)>> {
        self.content_of(sha256)
    }
}

impl Staging for ProjectArchive {
    fn stage(
        &self,
        token: &TokenId,
        bytes: &mut dyn std::io::Read,
        bytes_max: u64,
    ) -> Result<([u8; 32], u64)> {
        self.staging.stage(token, bytes, bytes_max)
    }

    fn staged(&self, token: &TokenId, sha256: &[u8; 32]) -> Result<Option<u64>> {
        self.staging.staged(token, sha256)
    }

    fn read_staged(
        &self,
        token: &TokenId,
        sha256: &[u8; 32],
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        self.staging.read_staged(token, sha256, each)
    }
}

/// Refuses a position that has not been given.
fn check_position(seen: &Seen, position: u64) -> Result<()> {
    if position > seen.position {
        let message = format!("expected a position up to {}, found {position}", seen.position);
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    Ok(())
}
