//! Pull by protocol 2: what arrived and is not here comes in one stream, is checked and taken in.
//!
//! A stream that is cut costs what came after the last segment: what is here then is not asked for again.

use std::cell::Cell;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use agent_trace_store::env::Env;
use agent_trace_store::progress::Progress;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Result, SegmentId, Store};

use super::compare::note_found;
use super::{Memory, Service};
use crate::collect::Bodies;
use crate::limits::{QUESTION_IDS_MAX, RUNS_MAX, SEGMENTS_AHEAD, STREAMS_MAX, adopt_bytes_min};
use crate::take::{PullOptions, PullReport, Taking};
use crate::wire::{ArrivalRun, Cursor, ErrorBody, Part, PartReader};

impl Service {
    /// Takes what the project has and this store has not.
    pub(super) fn pull_segments(
        &self,
        store: &Store,
        memory: &mut Memory,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<PullReport> {
        let learned = self.replay(store, memory)?;
        if !memory.known.missing.is_empty() && !learned.is_compared {
            note_found(store, memory)?;
        }
        let mut report = PullReport::default();
        if learned.is_other_history {
            report.forks.push("the project's history is another than before".to_owned());
        }
        let tips = memory.state.tips.clone();
        let mut taking = Taking::start(store, &self.id, options, tips, &learned.tips, report)?;
        let wanted = self.wanted(memory, &taking);
        let count = wanted.len() + memory.known.missing.len() as u64;
        if options.dry_run {
            if count > 0 {
                taking.report.taken.insert(Kind::from_number(0), count);
            }
            return Ok(taking.report);
        }
        let mut taken = Ok(());
        if count > 0 {
            progress.start("pulling", None);
            taken = self.take_missing(memory, &mut taking, progress);
            if taken.is_ok() && !wanted.is_empty() {
                taken = self.take_all(memory, &mut taking, wanted, progress);
            }
            progress.finish();
        }
        let rest = memory.state.has.minus(&taking.held);
        // What was replayed and taken in so far counts, also where the rest did not come.
        let report = taking.end()?;
        if !memory.known.missing.is_empty() {
            note_found(store, memory)?;
        }
        if taken.is_ok() {
            if options.since.is_none() && report.refused.is_empty() {
                // All that was asked for came: the service does not hold what did not.
                memory.known.missing.clear();
            }
            if rest.is_empty() && memory.known.missing.is_empty() {
                memory.known.pulled = memory.known.cursor.map_or(0, |cursor| cursor.position);
            }
        }
        self.remember(store, memory)?;
        taken.map(|()| report)
    }

    /// Takes events of which only the ids are known.
    fn take_missing(
        &self,
        memory: &mut Memory,
        taking: &mut Taking<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        if memory.known.missing.is_empty() {
            return Ok(());
        }
        taking.clear()?;
        for turn in 1.. {
            let before = taking.report.segments;
            taking.asked = memory.known.missing.iter().copied().collect();
            let mut parts = memory.known.missing.chunks(QUESTION_IDS_MAX);
            let streamed = parts.try_for_each(|ids| {
                take_stream(self.client.fetch(&[], ids, taking.bodies)?, taking, true, progress)
            });
            match streamed {
                Err(error) if error.kind() == ErrorKind::Unavailable && turn < STREAMS_MAX => {
                    if taking.report.segments == before {
                        return Err(error);
                    }
                    note_found(taking.store, memory)?;
                }
                streamed => return streamed,
            }
        }
        unreachable!("the last turn returns")
    }

    /// What is there and not here; of logs that have forked all, since the other side stands at the same places.
    fn wanted(&self, memory: &Memory, taking: &Taking<'_>) -> EventSet {
        let mut wanted = memory.state.has.minus(&taking.held);
        for writer in taking.forked_writers() {
            let log = memory.state.has.log(&writer).map(|log| log.ranges().to_vec()).unwrap_or_default();
            let log = log.into_iter().map(|(first, last)| (writer, first, last));
            wanted = wanted.union(&EventSet::from_ranges(log));
        }
        wanted
    }

    fn take_all(
        &self,
        memory: &Memory,
        taking: &mut Taking<'_>,
        wanted: EventSet,
        progress: &dyn Progress,
    ) -> Result<()> {
        taking.clear()?;
        let mut wanted = wanted;
        for turn in 1.. {
            let before = taking.report.segments;
            let streamed = self.stream(memory, taking, &wanted, progress);
            let rest = memory.state.has.minus(&taking.held);
            match streamed {
                Ok(is_all) if is_all || rest.is_empty() => return Ok(()),
                Ok(_) if rest == wanted => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Unavailable && turn < STREAMS_MAX => {
                    // Without progress the tries of each request were enough.
                    if rest.is_empty() || taking.report.segments == before {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            wanted = rest;
        }
        unreachable!("the last turn returns")
    }

    /// Asks for a stream and takes it in; false where more was wanted than one stream brings.
    fn stream(
        &self,
        memory: &Memory,
        taking: &mut Taking<'_>,
        wanted: &EventSet,
        progress: &dyn Progress,
    ) -> Result<bool> {
        let cursor = memory.known.cursor.unwrap_or(Cursor { epoch: [0; 16], position: 0 });
        let pulled = Cursor { position: memory.known.pulled, ..cursor };
        // A stream takes for granted that what arrived before is here, with all its objects.
        let is_whole = memory.known.missing.is_empty()
            && (taking.bodies == Bodies::LeftOut || taking.store.elsewhere()?.is_empty());
        if is_whole && wanted.len() == cursor.position - pulled.position {
            // All that came after a position, as it came.
            take_stream(self.client.pull(&pulled, taking.bodies)?, taking, false, progress)?;
            return Ok(true);
        }
        let runs: Vec<ArrivalRun> = wanted
            .logs()
            .flat_map(|(writer, log)| log.ranges().iter().map(move |range| (*writer, *range)))
            .map(|(writer, (first, last))| ArrivalRun { writer, seq_first: first, count: last - first + 1 })
            .collect();
        let runs_asked = &runs[..runs.len().min(RUNS_MAX)];
        take_stream(self.client.fetch(runs_asked, &[], taking.bodies)?, taking, false, progress)?;
        Ok(runs.len() <= RUNS_MAX)
    }
}

/// Segments that wait for objects that another brings.
type Incomplete = Vec<(PathBuf, Arc<Sealed>, Vec<ObjectId>)>;

/// A part of a stream that has come in.
enum Came {
    Tips(Vec<Tip>),
    Segment(PathBuf, Arc<Sealed>),
    /// What is no segment.
    Refused(SegmentId, u64, Error),
    Reached,
    Error(ErrorBody),
}

/// Takes a stream in. Where its tips were not replayed before, they may tell of forks.
pub(super) fn take_stream<R: Read + Send>(
    mut stream: PartReader<R>,
    taking: &mut Taking<'_>,
    are_tips_new: bool,
    progress: &dyn Progress,
) -> Result<()> {
    let mut incomplete = Incomplete::new();
    let inbox = Inbox { env: taking.store.env().clone(), dir: taking.inbox.clone(), count: Cell::new(0) };
    if rayon::current_num_threads() == 1 {
        // One after the other, so that it is the same each time.
        inbox.receive_all(&mut stream, progress, &mut |came| {
            take_part(taking, &mut incomplete, are_tips_new, came).map(|()| true)
        })?;
    } else {
        // The next segment comes in while one is checked; the service is held back where that takes longer.
        std::thread::scope(|scope| {
            let (to, from) = sync_channel(SEGMENTS_AHEAD);
            let receiving = scope.spawn(move || {
                let mut stream = stream;
                inbox.receive_all(&mut stream, progress, &mut |came| Ok(to.send(came).is_ok()))
            });
            for came in from {
                // Who sends learns of a failure here by the end of the channel.
                take_part(taking, &mut incomplete, are_tips_new, came)?;
            }
            receiving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
    }
    take_again(taking, &mut incomplete)?;
    for (_, sealed, missing) in &incomplete {
        taking.refuse_incomplete(&sealed.id, missing);
    }
    Ok(())
}

fn take_part(
    taking: &mut Taking<'_>,
    incomplete: &mut Incomplete,
    are_tips_new: bool,
    came: Came,
) -> Result<()> {
    match came {
        Came::Tips(tips) => {
            tips.iter().try_for_each(Tip::verify)?;
            if are_tips_new {
                taking.note_forks(&tips)?;
            }
            for tip in tips {
                let known = taking.tips.entry(tip.writer).or_insert(tip);
                if known.seq < tip.seq {
                    *known = tip;
                }
            }
        }
        Came::Segment(path, sealed) => {
            taking.report.segments += 1;
            taking.report.bytes += sealed.bytes;
            match taking.take(&path, &sealed)? {
                Some(missing) => incomplete.push((path, sealed, missing)),
                None => discard(taking, path),
            }
        }
        Came::Refused(id, bytes, error) => {
            taking.report.segments += 1;
            taking.report.bytes += bytes;
            taking.refuse(&id, &error);
        }
        Came::Reached => take_again(taking, incomplete)?,
        Came::Error(body) => return Err(told(body)),
    }
    Ok(())
}

/// Tries again what waits, as long as that helps.
fn take_again(taking: &mut Taking<'_>, incomplete: &mut Incomplete) -> Result<()> {
    loop {
        let count = incomplete.len();
        for (path, sealed, _) in std::mem::take(incomplete) {
            match taking.take(&path, &sealed)? {
                Some(missing) => incomplete.push((path, sealed, missing)),
                None => discard(taking, path),
            }
        }
        if incomplete.is_empty() || incomplete.len() == count {
            return Ok(());
        }
    }
}

/// Makes room; a segment that was kept as it is has left the inbox already.
fn discard(taking: &Taking<'_>, path: PathBuf) {
    let _ = taking.store.env().fs.remove(&path);
}

/// Where segments lie until they are part of the store.
struct Inbox {
    env: Env,
    dir: PathBuf,
    /// How many came: each has a file of its own, so that one that comes twice takes no place of what was checked.
    count: Cell<u64>,
}

impl Inbox {
    /// Receives part after part and hands each over, until all have come or nobody wants more.
    fn receive_all<R: Read>(
        &self,
        stream: &mut PartReader<R>,
        progress: &dyn Progress,
        each: &mut dyn FnMut(Came) -> Result<bool>,
    ) -> Result<()> {
        while let Some(part) = stream.read_part()? {
            let came = match part {
                Part::Tips(tips) => Came::Tips(tips),
                Part::Segment(id, bytes, mut file) => match self.receive(&id, bytes, &mut file, progress) {
                    Ok((path, sealed)) => Came::Segment(path, sealed),
                    Err(error) if error.kind() == ErrorKind::Corrupt => Came::Refused(id, bytes, error),
                    Err(error) => return Err(error),
                },
                Part::Reached(_) => Came::Reached,
                Part::Error(body) => Came::Error(body),
            };
            if !each(came)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Copies a segment into the inbox.
    fn receive(
        &self,
        id: &SegmentId,
        bytes: u64,
        file: &mut dyn Read,
        progress: &dyn Progress,
    ) -> Result<(PathBuf, Arc<Sealed>)> {
        let env = &self.env;
        let path = self.dir.join(format!("{id}.{}.seg", self.count.get()));
        self.count.set(self.count.get() + 1);
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        if env.fs.metadata(&path).is_ok() {
            // Of a stream that was cut.
            env.fs.remove(&path).map_err(doing)?;
        }
        let target = env.fs.create(&path, true).map_err(doing)?;
        let mut buffer = vec![0; 256 << 10];
        let mut at = 0;
        while at < bytes {
            let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(buffer.len());
            let read = file.read(&mut buffer[..length]).map_err(|error| {
                Error::new(ErrorKind::Unavailable, "the stream of the service was cut").with_source(error)
            })?;
            target.write_all_at(&buffer[..read], at).map_err(doing)?;
            at += read as u64;
            progress.advance(read as u64);
        }
        if bytes >= adopt_bytes_min() {
            // It may become part of the store as it is.
            target.sync().map_err(doing)?;
        }
        Ok((path.clone(), Arc::new(Sealed::open(env, &path, *id)?)))
    }
}

/// What a service says in the middle of a stream.
fn told(body: ErrorBody) -> Error {
    let kind = match body.code.as_str() {
        "epoch" => ErrorKind::Conflict,
        "upgrade" => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    };
    let text: String = body.error.chars().filter(|char| !char.is_control()).take(300).collect();
    Error::new(kind, format!("the service ended the stream (`{}`)", body.code)).with_source(text)
}
