//! Writing a sealed segment in one go: for compaction, for what a push sends, for what is saved from damage.
//!
//! It is written from its start to its end, and hashed on the way, so it may go anywhere that takes bytes in order. A
//! file is written aside and gets its name last, so a build that is cut short leaves nothing that counts.

use std::path::{Path, PathBuf};

use crate::codec::length_u32;
use crate::env::{Env, File};
use crate::error::{Error, Result};
use crate::event::{CutEvents, encode_events};
use crate::frame::{Effort, Frame, FrameKey, FrameKind, Packer};
use crate::id::{SegmentId, encode_hex};
use crate::limits::{BATCH_RAW_BYTES_TARGET, FRAME_EVENTS_MAX, SEGMENT_BYTES_TARGET, SEGMENT_EVENTS_TARGET};
use crate::log::Received;
use crate::object::ObjectsFrame;
use crate::scan::offset_u32;
use crate::segment::{Commit, Contents, EventsPlace, HEADER_BYTES, LogTail, SegmentHeader};
use crate::table::{IdEntry, NameEntry};
use crate::writer::{Tip, encode_tips};

const BUFFER_BYTES: usize = 1 << 20;

/// Where the bytes of a segment go, in order.
pub trait Sink: Send {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> Result<()>;
    /// Gives up; what was written is removed.
    fn discard(self);
}

/// A file that is written aside.
pub struct Aside {
    env: Env,
    path: PathBuf,
    file: Box<dyn File>,
    written: u64,
}

impl Sink for Aside {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, self.written)
            .map_err(|error| Error::io(format!("cannot write `{}`", self.path.display()), error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync().map_err(|error| Error::io(format!("cannot sync `{}`", self.path.display()), error))
    }

    fn discard(self) {
        // Nobody reads a file without a name that counts; a failure to remove it costs room only.
        let _ = self.env.fs.remove(&self.path);
    }
}

/// A segment that is being built.
pub struct Builder<S = Aside> {
    env: Env,
    sink: S,
    hasher: blake3::Hasher,
    header: [u8; HEADER_BYTES],
    key: FrameKey,
    tail: LogTail,
    contents: Contents,
    batch: u64,
    batch_start: u64,
    batch_raw: u64,
    written: u64,
    buffer: Vec<u8>,
    packer: Packer,
}

/// A segment that has been built: durable, under a name that does not count yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The name it is to have.
    pub id: SegmentId,
    /// Where it lies.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Events in it.
    pub events: u32,
}

/// A segment of which all bytes have gone into its sink and are durable there.
pub struct Ended<S> {
    /// The name it is to have.
    pub id: SegmentId,
    /// Its length.
    pub bytes: u64,
    /// Events in it.
    pub events: u32,
    /// Its first bytes.
    pub header: [u8; HEADER_BYTES],
    /// Its last bytes.
    pub footer: Vec<u8>,
    /// Where it went.
    pub sink: S,
}

fn draw(env: &Env) -> [u8; 16] {
    let mut nonce = [0; 16];
    env.entropy.fill(&mut nonce);
    nonce
}

impl Builder<Aside> {
    /// Starts a segment in a directory; `tail` is where the own log stands.
    pub fn new(env: &Env, dir: &Path, tail: LogTail) -> Result<Builder<Aside>> {
        let nonce = draw(env);
        let path = dir.join(format!("build-{}", encode_hex(&nonce)));
        let file = env
            .fs
            .create(&path, true)
            .map_err(|error| Error::io(format!("cannot create `{}`", path.display()), error))?;
        Ok(Builder::start(env, Aside { env: env.clone(), path, file, written: 0 }, nonce, tail))
    }

    /// Ends the segment, makes its content durable and says what it is called.
    pub fn finish(self) -> Result<Built> {
        let ended = self.end()?;
        Ok(Built { id: ended.id, path: ended.sink.path, bytes: ended.bytes, events: ended.events })
    }
}

impl<S: Sink> Builder<S> {
    /// Starts a segment that goes into a sink; `tail` is where the own log stands.
    pub fn into(env: &Env, sink: S, tail: LogTail) -> Builder<S> {
        Builder::start(env, sink, draw(env), tail)
    }

    fn start(env: &Env, sink: S, nonce: [u8; 16], tail: LogTail) -> Builder<S> {
        let header = SegmentHeader { nonce, created: env.clock.now(), tail }.encode();
        Builder {
            env: env.clone(),
            sink,
            hasher: blake3::Hasher::new(),
            header,
            key: FrameKey::new(&nonce),
            tail,
            contents: Contents::default(),
            batch: 0,
            batch_start: HEADER_BYTES as u64,
            batch_raw: 0,
            written: 0,
            buffer: header.to_vec(),
            packer: Packer::new(Effort::FAST),
        }
    }

    fn at(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Length so far.
    pub fn bytes(&self) -> u64 {
        self.at()
    }

    /// Events so far.
    pub fn events(&self) -> u32 {
        self.contents.events
    }

    /// Whether nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.at() == HEADER_BYTES as u64
    }

    /// Whether the segment has grown to its target.
    pub fn is_full(&self) -> bool {
        self.at() >= SEGMENT_BYTES_TARGET || self.contents.events >= SEGMENT_EVENTS_TARGET
    }

    /// Adds objects that are compressed already.
    pub fn objects(&mut self, objects: &ObjectsFrame) -> Result<()> {
        let raw = u64::from(objects.frame.raw_bytes);
        if self.at() > self.batch_start && self.batch_raw + raw > BATCH_RAW_BYTES_TARGET {
            self.commit()?;
        }
        self.batch_raw += raw;
        let offset = offset_u32(self.at());
        self.contents.objects_frames.push(offset);
        self.contents.raw_bytes += u64::from(objects.frame.raw_bytes);
        self.contents.ids.extend(objects.ids.iter().enumerate().map(|(slot, id)| IdEntry {
            id: *id,
            frame: offset,
            slot: length_u32(slot),
        }));
        self.place(&objects.frame)
    }

    /// Adds events whose objects are in this segment or known to be elsewhere.
    pub fn received(&mut self, events: &[Received]) -> Result<()> {
        for part in events.chunks(FRAME_EVENTS_MAX) {
            let place = EventsPlace { first_event: self.contents.events, offset: offset_u32(self.at()) };
            self.contents.events_frames.push(place);
            let frame = self.packer.frame(
                FrameKind::Events,
                &encode_events(part.iter().map(|received| (&received.event, received.id))),
            );
            self.place(&frame)?;
            for received in part {
                let event = self.contents.events;
                let names = received.marks.names.iter();
                let names = names.map(|(prefix, cites)| NameEntry { prefix: *prefix, event, cites: *cites });
                self.contents.names.extend(names);
                self.contents.add_event(&received.event, received.id);
            }
        }
        Ok(())
    }

    /// Adds events that were cut out of another segment; their names are given apart.
    pub fn cut(&mut self, events: &CutEvents, packer: &mut Packer) -> Result<()> {
        let place = EventsPlace { first_event: self.contents.events, offset: offset_u32(self.at()) };
        self.contents.events_frames.push(place);
        self.place(&packer.frame(FrameKind::Events, &events.raw))?;
        for kind in &events.kinds {
            *self.contents.kinds.entry(*kind).or_default() += 1;
        }
        events.runs.iter().for_each(|run| self.contents.add_run(*run));
        Ok(())
    }

    /// Adds names under which events are found, by their numbers here.
    pub fn names(&mut self, names: impl IntoIterator<Item = NameEntry>) {
        self.contents.names.extend(names);
    }

    /// Adds tips.
    pub fn tips(&mut self, tips: &[Tip]) -> Result<()> {
        if tips.is_empty() {
            return Ok(());
        }
        self.contents.tips_frames.push(offset_u32(self.at()));
        self.place(&Frame::plain(FrameKind::Tips, encode_tips(tips)))
    }

    fn place(&mut self, frame: &Frame) -> Result<()> {
        frame.place(&self.key, self.written + self.buffer.len() as u64, &mut self.buffer);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.sink.write(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.batch += 1;
        let events = self.contents.events;
        let commit = Commit { batch: self.batch, tail: self.tail, events, appended: self.env.clock.now() };
        self.place(&commit.frame())?;
        self.batch_start = self.at();
        self.batch_raw = 0;
        Ok(())
    }

    /// Ends the segment and makes its content durable.
    pub fn end(mut self) -> Result<Ended<S>> {
        if self.at() > self.batch_start || self.batch == 0 {
            self.commit()?;
        }
        let footer = self.contents.footer(&self.key, self.at());
        self.buffer.extend_from_slice(&footer);
        self.flush()?;
        self.sink.sync()?;
        let id = SegmentId::from_bytes(*self.hasher.finalize().as_bytes());
        let events = self.contents.events;
        Ok(Ended { id, bytes: self.written, events, header: self.header, footer, sink: self.sink })
    }

    /// Gives up.
    pub fn discard(self) {
        self.sink.discard();
    }
}
