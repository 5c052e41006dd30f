//! A segment: a file of frames, its header, its commits, and the footer that seals it.
//!
//! ```text
//! header ▸ batch: objects… events… tips… commit ▸ batch ▸ … ▸ footer: id pages, name pages, filter, directory, trailer
//! ```
//!
//! A sealed segment never changes. An open one grows by whole batches; what follows its last commit frame was never
//! acknowledged. This module knows layouts and reads them; who may write, and when, is `log.rs`.

use std::collections::BTreeMap;
use std::io;

use crate::codec::{Decoder, Encoder, length_u32};
use crate::env::File;
use crate::error::{Error, ErrorKind, Result};
use crate::event::decode_time;
use crate::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKey, FrameKind, Packer, Unpacker};
use crate::id::{EventId, ObjectId, Seq, WriterId};
use crate::kind::Kind;
use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_EVENTS_MAX, SEGMENT_FRAMES_MAX};
use crate::table::{
    ID_ENTRY_BYTES, ID_PAGE_ENTRIES, IdEntry, NAME_ENTRY_BYTES, NAME_PAGE_ENTRIES, NameEntry, entries, pages,
};
use crate::time::Timestamp;

/// Bytes of a segment header.
pub const HEADER_BYTES: usize = 128;
const HEADER_MAGIC: &[u8; 8] = b"ATSEGMNT";
const FORMAT_VERSION: u32 = 1;
const COMMIT_BYTES: usize = 96;
const TRAILER_BYTES: usize = 16;
const ID_PAGE_BYTES: usize = FRAME_HEADER_BYTES + ID_PAGE_ENTRIES * ID_ENTRY_BYTES;
const NAME_PAGE_BYTES: usize = FRAME_HEADER_BYTES + NAME_PAGE_ENTRIES * NAME_ENTRY_BYTES;

/// Where the log of the store's own writer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTail {
    /// The writer.
    pub writer: WriterId,
    /// How many events its log has.
    pub seq: u64,
    /// The id of the newest one, [`EventId::NONE`] if there is none.
    pub event: EventId,
}

impl LogTail {
    /// The tail of an empty log.
    pub fn empty(writer: WriterId) -> LogTail {
        LogTail { writer, seq: 0, event: EventId::NONE }
    }

    fn encode(&self, encoder: &mut Encoder) {
        encoder.put(self.writer.as_bytes()).u64(self.seq).put(self.event.as_bytes());
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<LogTail> {
        Ok(LogTail {
            writer: WriterId::from_bytes(decoder.array()?),
            seq: decoder.u64()?,
            event: EventId::from_bytes(decoder.array()?),
        })
    }
}

/// The first bytes of a segment.
///
/// | bytes | field |
/// |---|---|
/// | 8 | magic `ATSEGMNT` |
/// | 4, 4 | version 1; zero |
/// | 16 | nonce, drawn at random |
/// | 8 | when it was started |
/// | 32, 8, 32 | own log before the first batch: writer, seq, event |
/// | 16 | checksum: the first half of BLAKE3 over the bytes before |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Distinguishes this segment from all others, open or sealed.
    pub nonce: [u8; 16],
    /// When it was started.
    pub created: Timestamp,
    /// The own log before the first batch.
    pub tail: LogTail,
}

impl SegmentHeader {
    /// The bytes at the start of the file.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut encoder = Encoder::new();
        encoder.put(HEADER_MAGIC).u32(FORMAT_VERSION).u32(0).put(&self.nonce).i64(self.created.micros());
        self.tail.encode(&mut encoder);
        let mut bytes = encoder.finish();
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..16]);
        bytes.try_into().expect("the fields add up to the header")
    }

    /// Reads the header of a file.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<SegmentHeader> {
        let mut decoder = Decoder::new("segment header", bytes);
        if &decoder.array::<8>()? != HEADER_MAGIC {
            return Err(decoder.error("expected magic `ATSEGMNT`"));
        }
        let version = decoder.u32()?;
        if blake3::hash(&bytes[..112]).as_bytes()[..16] != bytes[112..] {
            return Err(decoder.error("the checksum does not fit its bytes"));
        }
        if version != FORMAT_VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("cannot read segment: version {version} is newer than this program"),
            ));
        }
        if decoder.u32()? != 0 {
            return Err(decoder.error("reserved bits are set"));
        }
        Ok(SegmentHeader {
            nonce: decoder.array()?,
            created: decode_time(&mut decoder)?,
            tail: LogTail::decode(&mut decoder)?,
        })
    }

    /// Reads the header from the file.
    pub fn read(file: &dyn File) -> Result<SegmentHeader> {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::corrupt("cannot read segment header: it ends early"),
            _ => Error::io("cannot read segment header", error),
        })?;
        SegmentHeader::decode(&bytes)
    }
}

/// The end of a batch: what stands before it is durable once the sync that follows has returned.
///
/// | bytes | field |
/// |---|---|
/// | 8 | number of the batch in its segment, from 1 |
/// | 32, 8, 32 | own log after the batch: writer, seq, event |
/// | 4, 4 | events in the segment so far; zero |
/// | 8 | when it was written |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The number of the batch in its segment, from 1.
    pub batch: u64,
    /// The own log after the batch.
    pub tail: LogTail,
    /// Events in the segment so far.
    pub events: u32,
    /// When it was written.
    pub appended: Timestamp,
}

impl Commit {
    /// Bytes of a commit frame in a file.
    pub const FILE_BYTES: u64 = (FRAME_HEADER_BYTES + COMMIT_BYTES) as u64;

    /// The commit as a frame.
    pub fn frame(&self) -> Frame {
        let mut encoder = Encoder::new();
        encoder.u64(self.batch);
        self.tail.encode(&mut encoder);
        encoder.u32(self.events).u32(0).i64(self.appended.micros());
        Frame::plain(FrameKind::Commit, encoder.finish())
    }

    /// Reads a commit frame's content.
    pub fn decode(raw: &[u8]) -> Result<Commit> {
        let mut decoder = Decoder::new("commit frame", raw);
        let batch = decoder.u64()?;
        let tail = LogTail::decode(&mut decoder)?;
        let events = decoder.u32()?;
        if decoder.u32()? != 0 || batch == 0 || events > SEGMENT_EVENTS_MAX {
            return Err(decoder.error("a field is out of range"));
        }
        let appended = decode_time(&mut decoder)?;
        decoder.finish()?;
        Ok(Commit { batch, tail, events, appended })
    }
}

/// Reads and checks the frame at an offset.
pub fn read_frame(file: &dyn File, key: &FrameKey, offset: u64) -> Result<Frame> {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let ends_early = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::corrupt(format!("frame at byte {offset}: it ends early")),
        _ => Error::io(format!("cannot read the frame at byte {offset}"), error),
    };
    file.read_exact_at(&mut bytes, offset).map_err(ends_early)?;
    let header = FrameHeader::decode(&bytes)
        .map_err(|error| error.context(format!("frame at byte {offset} has no valid header")))?;
    let mut stored = vec![0; header.stored_bytes as usize];
    file.read_exact_at(&mut stored, offset + FRAME_HEADER_BYTES as u64).map_err(ends_early)?;
    header.check(key, offset, stored)
}

/// Events of one log that follow each other within one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whose log.
    pub writer: WriterId,
    /// The first event's place in it.
    pub seq_first: Seq,
    /// How many events.
    pub count: u32,
    /// The id before the first event.
    pub previous: EventId,
    /// The id of the last event.
    pub last: EventId,
    /// The first event's number in the segment.
    pub first_event: u32,
}

impl Run {
    /// The last event's place in the log.
    pub fn seq_last(&self) -> u64 {
        self.seq_first.get() + u64::from(self.count) - 1
    }
}

/// An events frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsPlace {
    /// The number of its first event in the segment.
    pub first_event: u32,
    /// Where the frame stands.
    pub offset: u32,
}

/// Everything that a segment's footer says apart from the two tables.
///
/// | bytes | field |
/// |---|---|
/// | 8 | raw bytes of all objects |
/// | 4, 4 | objects; events |
/// | 4, then 1, 4 each | kinds: kind, events |
/// | 4, then 4 each | offsets of objects frames |
/// | 4, then 4, 4 each | events frames: first event, offset |
/// | 4, then 4 each | offsets of tips frames |
/// | 4, then 32, 8, 4, 32, 32, 4 each | runs: writer, first seq, count, id before, last id, first event |
/// | 8, 4, then 8 each | id pages: offset of the first, number; fences |
/// | 8, 4, then 8 each | name pages: offset of the first, number; fences |
/// | 8 | offset of the filter |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Raw bytes of all objects frames.
    pub raw_bytes: u64,
    /// Number of objects.
    pub objects: u32,
    /// Number of events.
    pub events: u32,
    /// Events by kind.
    pub kinds: BTreeMap<Kind, u32>,
    /// Objects frames in file order.
    pub objects_frames: Vec<u32>,
    /// Events frames in file order.
    pub events_frames: Vec<EventsPlace>,
    /// Tips frames in file order.
    pub tips_frames: Vec<u32>,
    /// Which events there are.
    pub runs: Vec<Run>,
    /// Where the id pages start.
    pub ids_start: u64,
    /// The first bytes of each id page.
    pub id_fences: Vec<[u8; 8]>,
    /// Where the name pages start.
    pub names_start: u64,
    /// The first bytes of each name page.
    pub name_fences: Vec<[u8; 8]>,
    /// Where the filter stands.
    pub filter_at: u64,
}

const RUN_BYTES: usize = 112;

impl Directory {
    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u64(self.raw_bytes).u32(self.objects).u32(self.events);
        encoder.u32(length_u32(self.kinds.len()));
        for (kind, events) in &self.kinds {
            encoder.u8(kind.number()).u32(*events);
        }
        encoder.u32(length_u32(self.objects_frames.len()));
        for offset in &self.objects_frames {
            encoder.u32(*offset);
        }
        encoder.u32(length_u32(self.events_frames.len()));
        for place in &self.events_frames {
            encoder.u32(place.first_event).u32(place.offset);
        }
        encoder.u32(length_u32(self.tips_frames.len()));
        for offset in &self.tips_frames {
            encoder.u32(*offset);
        }
        encoder.u32(length_u32(self.runs.len()));
        for run in &self.runs {
            encode_run(run, &mut encoder);
        }
        for (start, fences) in [(self.ids_start, &self.id_fences), (self.names_start, &self.name_fences)] {
            encoder.u64(start).u32(length_u32(fences.len()));
            for fence in fences {
                encoder.put(fence);
            }
        }
        encoder.u64(self.filter_at);
        encoder.finish()
    }

    fn decode(raw: &[u8]) -> Result<Directory> {
        let mut decoder = Decoder::new("segment directory", raw);
        let decoder = &mut decoder;
        let frames_max = SEGMENT_FRAMES_MAX as usize;
        let mut directory = Directory {
            raw_bytes: decoder.u64()?,
            objects: decoder.u32()?,
            events: decoder.u32()?,
            ..Directory::default()
        };
        if directory.events > SEGMENT_EVENTS_MAX {
            return Err(decoder.error("the number of events is over its limit"));
        }
        for _ in 0..decoder.count(5, 256)? {
            let kind = Kind::from_number(decoder.u8()?);
            directory.kinds.insert(kind, decoder.u32()?);
        }
        for _ in 0..decoder.count(4, frames_max)? {
            directory.objects_frames.push(decoder.u32()?);
        }
        for _ in 0..decoder.count(8, frames_max)? {
            let place = EventsPlace { first_event: decoder.u32()?, offset: decoder.u32()? };
            directory.events_frames.push(place);
        }
        for _ in 0..decoder.count(4, frames_max)? {
            directory.tips_frames.push(decoder.u32()?);
        }
        for _ in 0..decoder.count(RUN_BYTES, SEGMENT_EVENTS_MAX as usize)? {
            directory.runs.push(decode_run(decoder)?);
        }
        directory.ids_start = decoder.u64()?;
        directory.id_fences = decode_fences(decoder)?;
        directory.names_start = decoder.u64()?;
        directory.name_fences = decode_fences(decoder)?;
        directory.filter_at = decoder.u64()?;
        decoder.clone().finish()?;
        directory.check_events()?;
        Ok(directory)
    }

    /// Checks that each event is in exactly one run, and that frames are in the order of their events.
    fn check_events(&self) -> Result<()> {
        let mut next = 0u32;
        for run in &self.runs {
            if run.first_event != next {
                return Err(Error::corrupt("cannot decode segment directory: a run is out of order"));
            }
            next = next.saturating_add(run.count);
        }
        let frames_in_order =
            self.events_frames.windows(2).all(|pair| pair[0].first_event <= pair[1].first_event);
        if next != self.events || !frames_in_order {
            return Err(Error::corrupt("cannot decode segment directory: its events do not add up"));
        }
        Ok(())
    }

    /// Checks that the tables and the filter stand before the directory, one after the other.
    fn check_places(&self, directory_at: u64) -> Result<()> {
        let fits = |start: u64, end: u64, pages: usize, page_bytes: usize| {
            let most = (pages * page_bytes) as u64;
            end.checked_sub(start)
                .is_some_and(|bytes| bytes <= most && bytes >= most.saturating_sub(page_bytes as u64 - 1))
        };
        if !fits(self.ids_start, self.names_start, self.id_fences.len(), ID_PAGE_BYTES)
            || !fits(self.names_start, self.filter_at, self.name_fences.len(), NAME_PAGE_BYTES)
            || self.filter_at >= directory_at
        {
            return Err(Error::corrupt("the segment directory places its tables out of order"));
        }
        Ok(())
    }

    /// The events frame that holds an event, and the event's place in it.
    pub fn locate_event(&self, event: u32) -> Option<(u32, usize)> {
        locate_event(&self.events_frames, event).filter(|_| event < self.events)
    }
}

/// Finds an event's frame among frames in order of their first event.
pub fn locate_event(frames: &[EventsPlace], event: u32) -> Option<(u32, usize)> {
    let index = frames.partition_point(|place| place.first_event <= event).checked_sub(1)?;
    let place = frames[index];
    Some((place.offset, (event - place.first_event) as usize))
}

/// Appends a run's 112 bytes.
pub fn encode_run(run: &Run, encoder: &mut Encoder) {
    encoder.put(run.writer.as_bytes()).u64(run.seq_first.get()).u32(run.count);
    encoder.put(run.previous.as_bytes()).put(run.last.as_bytes()).u32(run.first_event);
}

/// Reads a run's 112 bytes.
pub fn decode_run(decoder: &mut Decoder<'_>) -> Result<Run> {
    let writer = WriterId::from_bytes(decoder.array()?);
    let seq_first = Seq::new(decoder.u64()?).ok_or_else(|| decoder.error("seq is zero"))?;
    let count = decoder.u32()?;
    if count == 0 || seq_first.get().checked_add(u64::from(count)).is_none() {
        return Err(decoder.error("a run has an impossible length"));
    }
    let previous = EventId::from_bytes(decoder.array()?);
    let last = EventId::from_bytes(decoder.array()?);
    Ok(Run { writer, seq_first, count, previous, last, first_event: decoder.u32()? })
}

fn decode_fences(decoder: &mut Decoder<'_>) -> Result<Vec<[u8; 8]>> {
    let count = decoder.count(8, SEGMENT_FRAMES_MAX as usize)?;
    (0..count).map(|_| decoder.array()).collect()
}

/// What a segment holds, as it is known while the segment is written or scanned.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Raw bytes of all objects frames.
    pub raw_bytes: u64,
    /// Number of events, those before `runs` included.
    pub events: u32,
    /// Events by kind.
    pub kinds: BTreeMap<Kind, u32>,
    /// Where objects stand, in file order.
    pub ids: Vec<IdEntry>,
    /// Under which names events can be found, in file order.
    pub names: Vec<NameEntry>,
    /// Objects frames in file order.
    pub objects_frames: Vec<u32>,
    /// Events frames in file order.
    pub events_frames: Vec<EventsPlace>,
    /// Tips frames in file order.
    pub tips_frames: Vec<u32>,
    /// Which events there are.
    pub runs: Vec<Run>,
}

impl Contents {
    /// Adds an event that is next in the segment.
    pub fn add_event(&mut self, event: &crate::event::Event, id: EventId) {
        *self.kinds.entry(event.fact.kind).or_default() += 1;
        self.add_run(Run {
            writer: event.writer,
            seq_first: event.seq,
            count: 1,
            previous: event.previous,
            last: id,
            first_event: self.events,
        });
    }

    /// Adds events that are next in the segment and follow each other in a log; their kinds are counted by the caller.
    pub fn add_run(&mut self, run: Run) {
        let number = self.events;
        self.events += run.count;
        if let Some(last) = self.runs.last_mut() {
            let adjacent = last.first_event + last.count == number;
            let follows = last.seq_last() + 1 == run.seq_first.get() && last.last == run.previous;
            if adjacent && last.writer == run.writer && follows {
                last.count += run.count;
                last.last = run.last;
                return;
            }
        }
        self.runs.push(Run { first_event: number, ..run });
    }

    /// The frames that seal a segment which ends at `offset`, as bytes.
    pub fn footer(&self, key: &FrameKey, offset: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        ids.dedup_by_key(|entry| entry.id);
        let mut names = self.names.clone();
        names.sort_unstable();
        names.dedup();
        let mut directory = Directory {
            raw_bytes: self.raw_bytes,
            objects: length_u32(ids.len()),
            events: self.events,
            kinds: self.kinds.clone(),
            objects_frames: self.objects_frames.clone(),
            events_frames: self.events_frames.clone(),
            tips_frames: self.tips_frames.clone(),
            runs: self.runs.clone(),
            ids_start: offset,
            ..Directory::default()
        };
        for page in ids.chunks(ID_PAGE_ENTRIES) {
            directory.id_fences.push(page[0].id.as_bytes()[..8].try_into().expect("an id has 32 bytes"));
            let raw = encode_page(page, IdEntry::encode);
            let at = offset + out.len() as u64;
            Frame::plain(FrameKind::Ids, raw).place(key, at, &mut out);
        }
        directory.names_start = offset + out.len() as u64;
        for page in names.chunks(NAME_PAGE_ENTRIES) {
            directory.name_fences.push(page[0].prefix);
            let raw = encode_page(page, NameEntry::encode);
            let at = offset + out.len() as u64;
            Frame::plain(FrameKind::Names, raw).place(key, at, &mut out);
        }
        directory.filter_at = offset + out.len() as u64;
        let filter = Filter::build(ids.iter().map(|entry| entry.id));
        Frame::plain(FrameKind::Filter, filter.bits).place(key, directory.filter_at, &mut out);
        let directory_at = offset + out.len() as u64;
        let frame = Packer::new(crate::frame::Effort::FAST).frame(FrameKind::Directory, &directory.encode());
        frame.place(key, directory_at, &mut out);
        let mut trailer = Encoder::new();
        trailer.u64(directory_at).u64(0);
        let at = offset + out.len() as u64;
        Frame::plain(FrameKind::Trailer, trailer.finish()).place(key, at, &mut out);
        out
    }
}

fn encode_page<T, const N: usize>(entries: &[T], encode: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(entries.len() * N);
    for entry in entries {
        raw.extend_from_slice(&encode(entry));
    }
    raw
}

/// A sealed segment's footer, read and checked.
#[derive(Clone, Debug)]
pub struct Footer {
    /// Where everything stands.
    pub directory: Directory,
    /// Where the footer starts, which is where the last batch ends.
    pub start: u64,
}

/// Reads the footer of a file of this length; `None` where the file has no trailer, so is not sealed.
pub fn read_footer(file: &dyn File, key: &FrameKey, file_bytes: u64) -> Result<Option<Footer>> {
    let trailer_bytes = (FRAME_HEADER_BYTES + TRAILER_BYTES) as u64;
    if file_bytes < HEADER_BYTES as u64 + trailer_bytes || file_bytes > SEGMENT_BYTES_MAX {
        return Ok(None);
    }
    let frame = match read_frame(file, key, file_bytes - trailer_bytes) {
        Ok(frame) if frame.kind == FrameKind::Trailer => frame,
        // That it could not be read does not say that it is not there.
        Err(error) if error.kind() == ErrorKind::Failed => return Err(error),
        _ => return Ok(None),
    };
    let mut decoder = Decoder::new("segment trailer", &frame.stored);
    let directory_at = decoder.u64()?;
    if decoder.u64()? != 0 || directory_at >= file_bytes {
        return Err(decoder.error("a field is out of range"));
    }
    decoder.finish()?;
    let frame = read_frame(file, key, directory_at)?;
    if frame.kind != FrameKind::Directory {
        return Err(Error::corrupt(format!("frame at byte {directory_at}: expected the directory")));
    }
    let directory = Directory::decode(&frame.into_raw(&mut Unpacker::new())?)?;
    directory.check_places(directory_at)?;
    let start = directory.ids_start;
    Ok(Some(Footer { directory, start }))
}

/// Looks ids up whose first bytes are from `low` to `high`.
pub fn find_ids(
    file: &dyn File,
    key: &FrameKey,
    directory: &Directory,
    low: &[u8; 32],
    high: &[u8; 32],
) -> Result<Vec<IdEntry>> {
    let fence = |id: &[u8; 32]| -> [u8; 8] { id[..8].try_into().expect("an id has 32 bytes") };
    let mut found = Vec::new();
    for page in pages(&directory.id_fences, &fence(low), &fence(high)) {
        let raw = table_page(file, key, FrameKind::Ids, directory.ids_start + (page * ID_PAGE_BYTES) as u64)?;
        for entry in entries::<ID_ENTRY_BYTES>(&raw)? {
            if entry[..32] >= low[..] && entry[..32] <= high[..] {
                found.push(IdEntry::decode(entry));
            }
        }
    }
    Ok(found)
}

/// Looks names up whose prefixes are from `low` to `high`.
pub fn find_names(
    file: &dyn File,
    key: &FrameKey,
    directory: &Directory,
    low: &[u8; 8],
    high: &[u8; 8],
) -> Result<Vec<NameEntry>> {
    let mut found = Vec::new();
    for page in pages(&directory.name_fences, low, high) {
        let at = directory.names_start + (page * NAME_PAGE_BYTES) as u64;
        let raw = table_page(file, key, FrameKind::Names, at)?;
        for entry in entries::<NAME_ENTRY_BYTES>(&raw)? {
            if entry[..8] >= low[..] && entry[..8] <= high[..] {
                found.push(NameEntry::decode(entry));
            }
        }
    }
    Ok(found)
}

/// Looks many names up by their prefixes, which are sorted; each page is read once.
pub fn find_names_among(
    file: &dyn File,
    key: &FrameKey,
    directory: &Directory,
    prefixes: &[[u8; 8]],
) -> Result<Vec<NameEntry>> {
    let mut found = Vec::new();
    let mut next = 0;
    for prefix in prefixes {
        let wanted = pages(&directory.name_fences, prefix, prefix);
        // What stands on a page that was read for the prefix before has been taken then.
        for page in wanted.start.max(next)..wanted.end {
            let at = directory.names_start + (page * NAME_PAGE_BYTES) as u64;
            let raw = table_page(file, key, FrameKind::Names, at)?;
            let named = entries::<NAME_ENTRY_BYTES>(&raw)?.map(NameEntry::decode);
            found.extend(named.filter(|entry| prefixes.binary_search(&entry.prefix).is_ok()));
        }
        next = next.max(wanted.end);
    }
    Ok(found)
}

/// Says of an object whether it may be in a segment; about one in three hundred times it says so falsely.
///
/// Six bits are set for each object: those at its id's first six 32-bit words, modulo the number of bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    bits: Vec<u8>,
}

const FILTER_BITS_PER_OBJECT: usize = 12;
const FILTER_PROBES: usize = 6;

impl Filter {
    /// Makes the filter of some ids.
    pub fn build(ids: impl ExactSizeIterator<Item = ObjectId>) -> Filter {
        let mut filter = Filter { bits: vec![0; (ids.len() * FILTER_BITS_PER_OBJECT).div_ceil(8).max(8)] };
        for id in ids {
            for bit in filter.probes(&id) {
                filter.bits[bit / 8] |= 1 << (bit % 8);
            }
        }
        filter
    }

    /// Reads the filter of a sealed segment.
    pub fn read(file: &dyn File, key: &FrameKey, directory: &Directory) -> Result<Filter> {
        let frame = read_frame(file, key, directory.filter_at)?;
        if frame.kind != FrameKind::Filter || frame.compressed || frame.stored.is_empty() {
            return Err(Error::corrupt(format!(
                "frame at byte {}: expected the filter",
                directory.filter_at
            )));
        }
        Ok(Filter { bits: frame.stored })
    }

    /// Whether the object may be there.
    pub fn admits(&self, id: &ObjectId) -> bool {
        self.probes(id).all(|bit| self.bits[bit / 8] & 1 << (bit % 8) != 0)
    }

    fn probes(&self, id: &ObjectId) -> impl Iterator<Item = usize> + use<> {
        let bits = self.bits.len() * 8;
        let words = *id.as_bytes();
        (0..FILTER_PROBES).map(move |probe| {
            let word = words[probe * 4..probe * 4 + 4].try_into().expect("an id has eight words");
            // A division of 32 bits is much cheaper, and this one is made for each object and segment.
            match u32::try_from(bits) {
                Ok(bits) => (u32::from_le_bytes(word) % bits) as usize,
                Err(_) => u32::from_le_bytes(word) as usize,
            }
        })
    }
}

/// Reads all names of a sealed segment, sorted.
pub fn all_names(file: &dyn File, key: &FrameKey, directory: &Directory) -> Result<Vec<NameEntry>> {
    find_names(file, key, directory, &[0; 8], &[255; 8])
}

/// Reads all ids of a sealed segment, sorted.
pub fn all_ids(file: &dyn File, key: &FrameKey, directory: &Directory) -> Result<Vec<IdEntry>> {
    find_ids(file, key, directory, &[0; 32], &[255; 32])
}

fn table_page(file: &dyn File, key: &FrameKey, kind: FrameKind, offset: u64) -> Result<Vec<u8>> {
    let frame = read_frame(file, key, offset)?;
    if frame.kind != kind || frame.compressed {
        return Err(Error::corrupt(format!("frame at byte {offset}: expected a page of the {kind:?} table")));
    }
    Ok(frame.stored)
}
