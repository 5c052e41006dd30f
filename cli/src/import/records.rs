//! Files of records: read in large pieces by whoever is free, parsed and taken in by all threads.
//!
//! A line is cut off at `\n` only. A line that is no record is noted by its number and kept out; one that is JSON, but
//! has no canonical form, is noted and kept as raw bytes. Allocates nothing per line beyond what the intake needs.

use std::io;
use std::sync::Mutex;

use agent_trace_store::intake::{Intake, Taken};
use agent_trace_store::json::{Canonicalizer, is_lenient_object};
use agent_trace_store::limits::RECORD_BYTES_MAX;
use agent_trace_store::record::{self, Facts};
use agent_trace_store::{Kind, ObjectId, Result};

use super::items::Items;
use super::peer::Layout;
use super::probe::Probe;
use super::source::{Role, SourceFile};
use super::tally::Job;
use super::{Worker, hold};

/// What one thread takes at once.
const PIECE_BYTES: usize = 1 << 20;
/// The longest piece: the longest record and its line end.
const PIECE_BYTES_MAX: usize = RECORD_BYTES_MAX + 2;
/// Records that a dry run asks the store about together.
const ASKED_TOGETHER: usize = 1024;

/// How records stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One on each line.
    Lines,
    /// The items of an array.
    Items,
    /// The file is one record.
    Whole,
}

/// Hands out files of records piece by piece.
pub(super) struct Feeder<'a> {
    job: &'a Job<'a>,
    queue: Vec<(usize, Mode)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: usize,
    open: Option<Open>,
}

/// The file that is being handed out.
struct Open {
    source: usize,
    mode: Mode,
    file: SourceFile,
    bytes: u64,
    at: u64,
    line: u64,
}

/// A piece of a file: whole lines or items; the bytes are in the thread's buffer.
#[derive(Clone, Copy)]
struct Piece {
    source: usize,
    mode: Mode,
    line_first: u64,
    is_first: bool,
    is_last: bool,
}

/// What a thread keeps from piece to piece.
#[derive(Default)]
pub(super) struct Buffers {
    piece: Vec<u8>,
    canonical: Vec<u8>,
    canonicalizer: Canonicalizer,
    asked: Vec<ObjectId>,
    found: [u64; Kind::KNOWN.len()],
}

impl<'a> Feeder<'a> {
    pub(super) fn new(job: &'a Job<'a>, probes: &[Probe]) -> Feeder<'a> {
        let records = probes.iter().enumerate().filter_map(|(source, probe)| match probe {
            Probe::Records(mode) => Some((source, *mode)),
            Probe::Nothing | Probe::Transcript(_) => None,
        });
        Feeder { job, queue: records.collect(), state: Mutex::default() }
    }

    /// Reads the next piece into the buffer.
    fn next(&self, buffer: &mut Vec<u8>) -> Option<Piece> {
        let mut state = hold(&self.state);
        loop {
            if self.job.is_stopped() {
                return None;
            }
            if state.open.is_none() {
                let (source, mode) = *self.queue.get(state.next)?;
                state.next += 1;
                state.open = self.open(source, mode);
            }
            let Some(open) = &mut state.open else { continue };
            let (source, line, before) = (open.source, open.line, open.at);
            match open.next(self.job, buffer) {
                Ok(Some(piece)) => {
                    self.job.progress.advance(open.at - before);
                    return Some(piece);
                }
                Ok(None) => {}
                Err(error) => self.job.note(source, Some(line), format!("cannot read it: {error}")),
            }
            state.open = None;
        }
    }

    fn open(&self, source: usize, mode: Mode) -> Option<Open> {
        let found = &self.job.sources[source];
        match SourceFile::open(self.job.store.env(), found) {
            Ok(file) => Some(Open { source, mode, file, bytes: found.metadata.bytes, at: 0, line: 1 }),
            Err(error) => {
                self.job.note(source, None, format!("cannot open it: {error}"));
                None
            }
        }
    }
}

impl Open {
    /// Reads the next piece; nothing at the end.
    fn next(&mut self, job: &Job<'_>, buffer: &mut Vec<u8>) -> io::Result<Option<Piece>> {
        let mut size = PIECE_BYTES;
        while self.at < self.bytes {
            let left = usize::try_from(self.bytes - self.at).unwrap_or(usize::MAX);
            buffer.resize(left.min(size), 0);
            let read = self.file.read_up_to(buffer, self.at)?;
            if read < buffer.len() {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it became shorter while it was read",
                ));
            }
            let is_last = read == left;
            let end = if is_last { read } else { self.cut(buffer) };
            if end > 0 {
                buffer.truncate(end);
                let piece = Piece {
                    source: self.source,
                    mode: self.mode,
                    line_first: self.line,
                    is_first: self.at == 0,
                    is_last,
                };
                self.at += end as u64;
                self.line += memchr::memchr_iter(b'\n', buffer).count() as u64;
                return Ok(Some(piece));
            }
            if size < PIECE_BYTES_MAX {
                size = (size * 2).min(PIECE_BYTES_MAX);
                continue;
            }
            let reason = format!("expected a record of at most {RECORD_BYTES_MAX} bytes, found a longer one");
            job.note(self.source, Some(self.line), reason);
            if self.mode != Mode::Lines {
                return Ok(None);
            }
            self.pass_line(buffer)?;
            size = PIECE_BYTES;
        }
        Ok(None)
    }

    /// Where the last complete line or item ends.
    fn cut(&self, bytes: &[u8]) -> usize {
        match self.mode {
            Mode::Lines => memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1),
            Mode::Items => {
                let mut items = Items::new(bytes, self.at == 0);
                let found = items.by_ref().count();
                if found > 0 { items.end() } else { 0 }
            }
            Mode::Whole => 0,
        }
    }

    /// Passes over the rest of a line.
    fn pass_line(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.resize(PIECE_BYTES, 0);
        loop {
            let read = self.file.read_up_to(buffer, self.at)?;
            match memchr::memchr(b'\n', &buffer[..read]) {
                Some(at) => {
                    self.at += at as u64 + 1;
                    self.line += 1;
                    return Ok(());
                }
                None if read == 0 => {
                    self.at = self.bytes;
                    return Ok(());
                }
                None => self.at += read as u64,
            }
        }
    }
}

/// Takes in pieces until there are no more.
pub(super) fn take(
    job: &Job<'_>,
    feeder: &Feeder<'_>,
    layouts: &[Layout],
    worker: &mut Worker<'_>,
) -> Result<()> {
    let mut buffer = std::mem::take(&mut worker.records.piece);
    while let Some(piece) = feeder.next(&mut buffer) {
        let layout = match job.sources[piece.source].role {
            Role::Records(Some(number)) if layouts[number].has_blobs() => Some((number, &layouts[number])),
            _ => None,
        };
        let taking = Taking { job, source: piece.source, layout };
        match piece.mode {
            Mode::Lines => {
                for (line, number) in Lines(&buffer).zip(piece.line_first..) {
                    taking.record(worker, line, number)?;
                }
            }
            Mode::Items => taking.items(worker, &buffer, piece)?,
            Mode::Whole => taking.record(worker, &buffer, 1)?,
        }
        for (kind, found) in Kind::KNOWN.into_iter().zip(&mut worker.records.found) {
            if *found > 0 {
                job.count(piece.source, kind, std::mem::take(found));
            }
        }
    }
    // The next stage may need the memory.
    drop(buffer);
    ask(job, worker)
}

/// The lines of a piece.
struct Lines<'b>(&'b [u8]);

impl<'b> Iterator for Lines<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.0).unwrap_or(self.0.len());
        let line = &self.0[..end];
        self.0 = &self.0[self.0.len().min(end + 1)..];
        Some(line)
    }
}

/// Where records of one thread go.
struct Outlet<'w, 's> {
    intake: &'w mut Intake<'s>,
    taken: &'w mut Taken,
    skipped_since: &'w mut u64,
    asked: &'w mut Vec<ObjectId>,
}

/// Where records come from.
struct Taking<'a> {
    job: &'a Job<'a>,
    source: usize,
    /// The layout whose conversations traces of this source may name.
    layout: Option<(usize, &'a Layout)>,
}

impl Taking<'_> {
    fn items(&self, worker: &mut Worker<'_>, bytes: &[u8], piece: Piece) -> Result<()> {
        let mut items = Items::new(bytes, piece.is_first);
        for item in items.by_ref() {
            self.record(worker, item.bytes, piece.line_first + item.lines_before)?;
        }
        let is_between = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b']' | b',');
        let rest = bytes[items.end()..].iter().position(|byte| !is_between(byte));
        if let Some(rest) = rest.filter(|_| piece.is_last) {
            let before = &bytes[..items.end() + rest];
            let line = piece.line_first + memchr::memchr_iter(b'\n', before).count() as u64;
            self.job.note(self.source, Some(line), "invalid JSON: the last item has no end");
        }
        Ok(())
    }

    /// Takes one record in, or notes why not.
    fn record(&self, worker: &mut Worker<'_>, bytes: &[u8], line: u64) -> Result<()> {
        let bytes = bytes.trim_ascii();
        if bytes.is_empty() {
            return Ok(());
        }
        let redacted = self.job.redaction.as_ref().and_then(|redaction| redaction.bytes(bytes));
        let bytes = redacted.as_ref().map_or(bytes, |(redacted, _)| redacted);
        let Worker { intake, taken, skipped_since, pins, records } = worker;
        let Buffers { canonical, canonicalizer, asked, found, .. } = records;
        let mut outlet = Outlet { intake, taken, skipped_since, asked };
        canonical.clear();
        let read = match canonicalizer.canonicalize(bytes, canonical) {
            Ok(()) => read(canonical),
            Err(error) if is_lenient_object(bytes) => {
                return self.keep_raw(&mut outlet, bytes, line, &format!("no canonical JSON: {error}"));
            }
            Err(error) => Err(format!("invalid JSON: {error}")),
        };
        let (kind, facts) = match read {
            Ok(read) => read,
            Err(reason) => {
                self.job.note(self.source, Some(line), reason);
                return Ok(());
            }
        };
        if let Some((number, layout)) = self.layout.filter(|_| kind == Kind::TRACE) {
            // A trace whose names cannot be read pins nothing.
            let _ = pins.note(number, layout, canonical, facts.session.as_deref());
        }
        if let Some(number) = Kind::KNOWN.iter().position(|known| *known == kind) {
            found[number] += 1;
        }
        self.take(&mut outlet, kind, canonical, &facts)
    }

    /// Keeps a line of which no canonical form says what it means, byte for byte (I11).
    fn keep_raw(&self, outlet: &mut Outlet<'_, '_>, bytes: &[u8], line: u64, reason: &str) -> Result<()> {
        let modified = self.job.sources[self.source].metadata.modified;
        if self.job.since.is_none_or(|since| modified >= since) {
            self.job.note_kept(self.source, line, reason);
        }
        self.job.count(self.source, Kind::UNKNOWN, 1);
        self.take(outlet, Kind::UNKNOWN, bytes, &record::raw_facts(bytes))
    }

    /// Hands a record over to the intake.
    fn take(&self, outlet: &mut Outlet<'_, '_>, kind: Kind, bytes: &[u8], facts: &Facts<'_>) -> Result<()> {
        let time = facts.time.unwrap_or(self.job.sources[self.source].metadata.modified);
        if self.job.since.is_some_and(|since| time < since) {
            *outlet.skipped_since += 1;
            return Ok(());
        }
        if !self.job.dry_run {
            return outlet.intake.record(kind, bytes, facts, time, &[]);
        }
        outlet.asked.push(ObjectId::of(bytes));
        if outlet.asked.len() < ASKED_TOGETHER {
            return Ok(());
        }
        let held = self.job.store.contains_all(outlet.asked)?;
        outlet.asked.clear();
        count_held(outlet.taken, &held);
        Ok(())
    }
}

fn read(canonical: &[u8]) -> Result<(Kind, Facts<'_>), String> {
    let read = record::read(canonical).map_err(|error| error.message().to_owned())?;
    Ok(read.ok_or("expected an Agent Trace record, found something else")?)
}

/// Asks the store about the records of a dry run that still wait.
fn ask(job: &Job<'_>, worker: &mut Worker<'_>) -> Result<()> {
    let asked = std::mem::take(&mut worker.records.asked);
    count_held(&mut worker.taken, &job.store.contains_all(&asked)?);
    Ok(())
}

fn count_held(taken: &mut Taken, held: &[bool]) {
    let known = held.iter().filter(|held| **held).count() as u64;
    taken.known += known;
    taken.events += held.len() as u64 - known;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_line_feeds_only() {
        let check = |text: &str, expected: &[&str]| {
            let lines: Vec<&[u8]> = Lines(text.as_bytes()).collect();
            assert_eq!(lines, expected.iter().map(|line| line.as_bytes()).collect::<Vec<_>>(), "{text:?}");
        };
        check("", &[]);
        check("\n", &[""]);
        check("a", &["a"]);
        check("a\n", &["a"]);
        check("a\r\n\nb\u{2028}c\u{85}", &["a\r", "", "b\u{2028}c\u{85}"]);
    }
}
