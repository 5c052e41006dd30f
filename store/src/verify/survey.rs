//! One segment file read from its first byte to its last, whatever is wrong with it.
//!
//! Unlike `scan`, which stops where a reader must, this goes on behind every damage and keeps what is good; it takes
//! neither the footer's word nor the index's. Changes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::batch::Taken;
use super::tables;
use crate::env::File;
use crate::error::{Error, Result};
use crate::frame::{Frame, FrameKey, FrameKind, Unpacker};
use crate::id::{ObjectId, SegmentId, WriterId, encode_hex};
use crate::limits::{SEGMENT_BYTES_MAX, VERIFY_BATCH_BYTES, VERIFY_BATCHES};
use crate::log::hash_file;
use crate::progress::Progress;
use crate::scan::{ScanStart, next_frame, scan_open};
use crate::segment::{Commit, Contents, Directory, HEADER_BYTES, LogTail, SegmentHeader};
use crate::segment::{read_footer, read_frame};
use crate::store::Store;
use crate::table::NameEntry;
use crate::writer::Tip;

/// What a segment's file is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// By its hash.
    Sealed(SegmentId),
    /// By its nonce.
    Open([u8; 16]),
}

/// Something wrong in a segment file.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The problem's code.
    pub(crate) code: &'static str,
    /// The bytes concerned, where they are known.
    pub(crate) place: Option<(u64, u64)>,
    /// What is wrong.
    pub(crate) message: String,
}

/// Where an object stands in a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectAt {
    /// The object.
    pub(crate) id: ObjectId,
    /// The offset of its frame.
    pub(crate) frame: u32,
    /// Its slot in the frame.
    pub(crate) slot: u32,
    /// Its whole length.
    pub(crate) bytes: u32,
    /// Whether a recipe stands there.
    pub(crate) recipe: bool,
}

/// A segment file to be read.
pub(crate) struct Source {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// What it is called.
    pub(crate) name: Name,
    /// The file.
    pub(crate) file: Box<dyn File>,
    /// Its length when it was opened.
    pub(crate) bytes: u64,
}

/// What is known from elsewhere about a segment, if anything.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hint {
    /// Its nonce, for a file whose header is damaged.
    pub(crate) nonce: Option<[u8; 16]>,
    /// Up to where it was acknowledged.
    pub(crate) end: u64,
}

/// What is in a segment file.
pub(crate) struct Survey {
    /// The file.
    pub(crate) source: Source,
    /// Its header, if that can be read.
    pub(crate) header: Option<SegmentHeader>,
    /// The nonce, from the header or from elsewhere.
    pub(crate) nonce: Option<[u8; 16]>,
    /// What the footer says.
    pub(crate) directory: Option<Directory>,
    /// What the good frames hold; numbers of events count only these. Ids and names are taken out when compared.
    pub(crate) contents: Contents,
    /// The objects in good frames.
    pub(crate) objects: Vec<ObjectAt>,
    /// The time of each event.
    pub(crate) times: Vec<i64>,
    /// Tips, with the offset of their frame.
    pub(crate) tips: Vec<(u32, Tip)>,
    /// Commits, with the offset behind them.
    pub(crate) commits: Vec<(u64, Commit)>,
    /// Up to where batches go.
    pub(crate) end: u64,
    /// What is wrong.
    pub(crate) faults: Vec<Fault>,
    /// Whether bytes of batches are lost.
    pub(crate) lost: bool,
    /// Ids of objects that stood in damaged frames, with the number of the fault.
    pub(crate) lost_ids: Vec<(ObjectId, usize)>,
    /// The names of the events of an open segment, in file order.
    pub(crate) names: Vec<NameEntry>,
    /// Names that events may have beyond those in `contents`, since their records lie elsewhere.
    pub(crate) loose_names: Vec<NameEntry>,
    /// Events whose records are erased: they may still be found by what those said.
    pub(crate) erased_events: BTreeSet<u32>,
}

impl Survey {
    /// The key of the file's checksums, if its nonce is known.
    pub(crate) fn key(&self) -> Option<FrameKey> {
        self.nonce.as_ref().map(FrameKey::new)
    }

    /// Where the own log stood, as far as this file says.
    pub(crate) fn tails(&self) -> impl Iterator<Item = LogTail> + '_ {
        let header = self.header.iter().map(|header| header.tail);
        header.chain(self.commits.iter().map(|(_, commit)| commit.tail))
    }

    fn fault(&mut self, code: &'static str, place: Option<(u64, u64)>, message: impl Into<String>) {
        self.faults.push(Fault { code, place, message: message.into() });
    }

    fn start(source: Source) -> Survey {
        Survey {
            source,
            header: None,
            nonce: None,
            directory: None,
            contents: Contents::default(),
            objects: Vec::new(),
            times: Vec::new(),
            tips: Vec::new(),
            commits: Vec::new(),
            end: HEADER_BYTES as u64,
            faults: Vec::new(),
            lost: false,
            lost_ids: Vec::new(),
            names: Vec::new(),
            loose_names: Vec::new(),
            erased_events: BTreeSet::new(),
        }
    }
}

/// Reads a segment file and says what is in it and what is wrong with it.
pub(crate) fn survey(store: &Store, source: Source, hint: Hint, progress: &dyn Progress) -> Survey {
    let mut survey = Survey::start(source);
    if survey.source.bytes > SEGMENT_BYTES_MAX {
        let bytes = survey.source.bytes;
        survey.lost = true;
        survey.fault("segment", None, format!("expected at most {SEGMENT_BYTES_MAX} bytes, found {bytes}"));
        return survey;
    }
    survey.read_header(hint);
    let named = survey.check_name();
    if let Err(message) = named {
        survey.fault("segment", None, message);
    }
    let Some(key) = survey.key() else {
        survey.lost = true;
        survey.fault("segment", None, "nothing in it can be read without its header");
        return survey;
    };
    let until = survey.extent(&key, hint);
    let mut walk = Walk::new(store, &key, until);
    walk.run(&mut survey, progress);
    let walked = walk.finish(&mut survey);
    survey.note_lost_ids(&key);
    if !survey.lost && walked.whole {
        tables::compare(&mut survey, &key, &walked);
    }
    let names = std::mem::take(&mut survey.contents.names);
    if matches!(survey.source.name, Name::Open(_)) {
        survey.names = names;
    }
    survey.contents.ids = Vec::new();
    survey
}

impl Survey {
    fn read_header(&mut self, hint: Hint) {
        let by_name = match self.source.name {
            Name::Open(nonce) => Some(nonce),
            Name::Sealed(_) => hint.nonce,
        };
        match SegmentHeader::read(self.source.file.as_ref()) {
            Ok(header) => {
                self.nonce = Some(header.nonce);
                self.header = Some(header);
                if matches!(self.source.name, Name::Open(nonce) if nonce != header.nonce) {
                    let found = encode_hex(&header.nonce);
                    self.lost = true;
                    self.fault("segment", None, format!("it has the header of segment `{found}`"));
                }
            }
            Err(error) => {
                self.nonce = by_name;
                self.fault("segment", Some((0, HEADER_BYTES as u64)), text(&error));
            }
        }
    }

    fn check_name(&self) -> std::result::Result<(), String> {
        let Name::Sealed(id) = self.source.name else { return Ok(()) };
        match hash_file(self.source.file.as_ref(), self.source.bytes) {
            Ok(found) if found == id => Ok(()),
            Ok(found) => {
                Err(format!("its bytes do not have the hash that names it, but `{}`", found.short()))
            }
            Err(error) => Err(text(&error)),
        }
    }

    /// Reads a sealed segment's footer, and returns up to where the file must be whole.
    fn extent(&mut self, key: &FrameKey, hint: Hint) -> u64 {
        let bytes = self.source.bytes;
        let footer = read_footer(self.source.file.as_ref(), key, bytes);
        if let Name::Open(_) = self.source.name {
            return self.open_extent(key, hint, footer.ok().flatten().map(|footer| footer.start));
        }
        match footer {
            Ok(Some(footer)) => self.directory = Some(footer.directory),
            Ok(None) => self.fault("segment", Some((bytes, bytes)), "it has no trailer"),
            Err(error) => self.fault("table", None, text(&error)),
        }
        bytes
    }

    /// What follows the last commit of an open segment was never acknowledged, unless the index has seen it, or a
    /// footer was written behind it. The footer itself may be torn, and is written again.
    fn open_extent(&mut self, key: &FrameKey, hint: Hint, footer: Option<u64>) -> u64 {
        let nobody = LogTail::empty(WriterId::from_bytes([0; 32]));
        let tail = self.header.map_or(nobody, |header| header.tail);
        let start = ScanStart { offset: HEADER_BYTES as u64, batch: 0, tail, events: 0 };
        let scanned = scan_open(self.source.file.as_ref(), key, start, &mut |_| Ok(()));
        let bytes = self.source.bytes;
        let end = scanned.map_or(bytes, |scanned| scanned.end.min(bytes));
        if hint.end > end {
            self.lost = true;
            let message =
                format!("it was acknowledged up to byte {}, but only {end} bytes are whole", hint.end);
            self.fault("segment", Some((end, hint.end)), message);
        }
        end.max(hint.end.min(bytes)).max(footer.unwrap_or(0).min(bytes))
    }

    /// Finds out from the footer's table what stood in frames that are lost.
    fn note_lost_ids(&mut self, key: &FrameKey) {
        let Some(directory) = &self.directory else { return };
        let gaps: Vec<(usize, u64, u64)> = self
            .faults
            .iter()
            .enumerate()
            .filter_map(|(number, fault)| {
                fault.place.filter(|_| fault.code == "frame").map(|(start, end)| (number, start, end))
            })
            .collect();
        if gaps.is_empty() {
            return;
        }
        let Ok(ids) = crate::segment::all_ids(self.source.file.as_ref(), key, directory) else { return };
        for entry in ids {
            let at = u64::from(entry.frame);
            let gap = gaps.iter().find(|(_, start, end)| (*start..*end).contains(&at));
            self.lost_ids.extend(gap.map(|(number, _, _)| (entry.id, *number)));
        }
    }
}

/// An error with its causes in one line.
pub(crate) fn text(error: &Error) -> String {
    let mut text = error.message().to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What a walk saw of the footer.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Whether no byte of the batches is missing.
    pub(crate) whole: bool,
    /// The footer's frames in file order.
    pub(crate) footer: Vec<(u64, FrameKind)>,
}

/// How many events a commit counts, and where it stands.
struct Count {
    events: u32,
    place: (u64, u64),
}

/// A batch that waits to be taken apart, and what its commit counts if nothing before it is lost.
type Waiting = (Vec<(u64, Frame)>, Option<Count>);

/// Goes from frame to frame.
struct Walk<'a> {
    store: &'a Store,
    key: &'a FrameKey,
    until: u64,
    at: u64,
    frames: Vec<(u64, Frame)>,
    batches: Vec<Waiting>,
    waiting_bytes: u64,
    broken: bool,
    footer: Vec<(u64, FrameKind)>,
    footer_end: Option<u64>,
}

impl<'a> Walk<'a> {
    fn new(store: &'a Store, key: &'a FrameKey, until: u64) -> Walk<'a> {
        Walk {
            store,
            key,
            until,
            at: HEADER_BYTES as u64,
            frames: Vec::new(),
            batches: Vec::new(),
            waiting_bytes: 0,
            broken: false,
            footer: Vec::new(),
            footer_end: None,
        }
    }

    fn run(&mut self, survey: &mut Survey, progress: &dyn Progress) {
        progress.advance(self.at.min(survey.source.bytes));
        while self.at < self.until {
            let from = self.at;
            match read_frame(survey.source.file.as_ref(), self.key, from) {
                Ok(frame) if from + frame.file_bytes() <= self.until => self.take(survey, frame),
                Ok(_) => self.gap(survey, "the frame goes beyond what was acknowledged"),
                Err(error) => self.gap(survey, &text(&error)),
            }
            progress.advance(self.at - from);
            if self.batches.len() >= VERIFY_BATCHES || self.waiting_bytes >= VERIFY_BATCH_BYTES {
                self.digest(survey);
            }
        }
    }

    /// Bytes that are no frame: noted, and passed over.
    fn gap(&mut self, survey: &mut Survey, message: &str) {
        let start = self.at;
        let next = next_frame(survey.source.file.as_ref(), self.key, start + 1, self.until);
        let end = next.ok().flatten().unwrap_or(self.until).min(self.until);
        self.at = end;
        let in_footer = match &survey.directory {
            Some(directory) => start >= directory.ids_start,
            None => !self.footer.is_empty(),
        };
        if in_footer {
            survey.fault("table", Some((start, end)), message);
        } else {
            self.broken = true;
            survey.lost = true;
            let events = events_lost(survey.directory.as_ref(), start, end);
            survey.fault("frame", Some((start, end)), format!("{message}{events}"));
        }
    }

    fn take(&mut self, survey: &mut Survey, frame: Frame) {
        let (from, bytes) = (self.at, frame.file_bytes());
        self.at += bytes;
        if frame.kind == FrameKind::Trailer || self.footer_end.is_some() {
            if self.footer_end.is_some() {
                survey.fault("segment", Some((from, self.at)), "it goes on behind its trailer");
            }
            self.footer_end = Some(self.at);
        }
        match frame.kind {
            FrameKind::Objects | FrameKind::Events | FrameKind::Tips => {
                self.out_of_place(survey, from);
                self.waiting_bytes += bytes + u64::from(frame.raw_bytes);
                self.frames.push((from, frame));
            }
            FrameKind::Commit => {
                self.out_of_place(survey, from);
                self.commit(survey, from, &frame);
            }
            kind => self.footer.push((from, kind)),
        }
    }

    fn out_of_place(&mut self, survey: &mut Survey, from: u64) {
        if !self.footer.is_empty() {
            survey.fault("frame", Some((from, self.at)), "the frame stands within the footer");
        }
    }

    fn commit(&mut self, survey: &mut Survey, from: u64, frame: &Frame) {
        let place = (from, self.at);
        let frames = std::mem::take(&mut self.frames);
        let commit = match Commit::decode(&frame.stored) {
            Ok(commit) => commit,
            Err(error) => {
                self.batches.push((frames, None));
                return survey.fault("frame", Some(place), text(&error));
            }
        };
        let expected = survey.commits.last().map_or(1, |(_, commit)| commit.batch.saturating_add(1));
        if commit.batch != expected && !self.broken {
            let message = format!("expected batch {expected}, found batch {}", commit.batch);
            survey.lost = true;
            survey.fault("frame", Some(place), message);
        }
        self.broken = false;
        self.batches.push((frames, (!survey.lost).then_some(Count { events: commit.events, place })));
        survey.commits.push((self.at, commit));
        survey.end = self.at;
    }

    /// Takes the batches that wait apart, all at once.
    fn digest(&mut self, survey: &mut Survey) {
        self.waiting_bytes = 0;
        let batches = std::mem::take(&mut self.batches);
        let store = self.store;
        let taken: Vec<(Taken, Option<Count>)> = batches
            .into_par_iter()
            .map_init(Unpacker::new, |unpacker, (frames, count)| (Taken::of(store, frames, unpacker), count))
            .collect();
        for (taken, count) in taken {
            let sound = taken.faults.is_empty();
            taken.add_to(survey);
            let found = survey.contents.events;
            if let Some(count) = count.filter(|count| sound && count.events != found) {
                let message = format!("the commit counts {} events, but there are {found}", count.events);
                survey.fault("frame", Some(count.place), message);
            }
        }
    }

    fn finish(mut self, survey: &mut Survey) -> Walked {
        self.digest(survey);
        if !self.frames.is_empty() {
            let from = self.frames[0].0;
            self.batches.push((std::mem::take(&mut self.frames), None));
            self.digest(survey);
            if !survey.lost {
                survey.fault("frame", Some((from, self.at)), "no commit follows");
            }
            survey.lost = true;
        }
        let sealed = matches!(survey.source.name, Name::Sealed(_));
        if sealed && self.footer.is_empty() {
            survey.lost = true;
        }
        Walked { whole: !survey.lost, footer: self.footer }
    }
}

/// Which events of a segment stood between two offsets, for people.
fn events_lost(directory: Option<&Directory>, start: u64, end: u64) -> String {
    let Some(directory) = directory else { return String::new() };
    let places = &directory.events_frames;
    let within = |offset: u32| (start..end).contains(&u64::from(offset));
    let Some(first) = places.iter().position(|place| within(place.offset)) else { return String::new() };
    let count = places[first..].iter().take_while(|place| within(place.offset)).count();
    let after = places.get(first + count).map_or(directory.events, |place| place.first_event);
    let (low, high) = (places[first].first_event, after.saturating_sub(1));
    format!(" (its events {low} to {high} stood there)")
}

/// Opens all segment files of a store at one moment; those that vanish meanwhile were replaced, so it looks again.
pub(crate) fn sources(store: &Store) -> Result<(Vec<Source>, Vec<Fault>)> {
    const LOOKS_MAX: usize = 16;
    let dir = crate::segments::segments_dir(store.dir());
    let mut looks = 0;
    loop {
        looks += 1;
        let entries = store.env().fs.list(&dir);
        let entries = entries
            .map_err(|error| Error::io(format!("cannot list segments in `{}`", dir.display()), error))?;
        let (mut found, mut faults, mut vanished) = (Vec::new(), Vec::new(), false);
        for entry in entries {
            let path = dir.join(&entry.name);
            let Some(name) = entry.name.to_str().and_then(parse_name) else {
                let message = format!("`{}` has no segment's name", path.display());
                faults.push(Fault { code: "segment", place: None, message });
                continue;
            };
            match open_source(store, &path, name) {
                Ok(source) => found.push(source),
                Err(error) if error.kind() == crate::ErrorKind::NotFound => vanished = true,
                Err(error) => faults.push(Fault { code: "segment", place: None, message: text(&error) }),
            }
        }
        if !vanished || looks == LOOKS_MAX {
            return Ok((found, faults));
        }
    }
}

fn parse_name(name: &str) -> Option<Name> {
    let stem = name.strip_suffix(".seg")?;
    if let Some(nonce) = stem.strip_prefix("open-") {
        let mut bytes = [0; 16];
        return crate::id::decode_hex(nonce, &mut bytes).then_some(Name::Open(bytes));
    }
    SegmentId::parse(stem).ok().map(Name::Sealed)
}

fn open_source(store: &Store, path: &Path, name: Name) -> Result<Source> {
    let doing = |error| Error::io(format!("cannot open segment `{}`", path.display()), error);
    let file = store.env().fs.open(path).map_err(doing)?;
    let bytes = file.len().map_err(doing)?;
    Ok(Source { path: path.to_owned(), name, file, bytes })
}
