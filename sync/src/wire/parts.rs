//! The stream that a pull and a fetch answer with: parts, one after the other, until one says that it is the end.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | kind: 1 tips, 2 segment, 3 reached, 4 end, 5 error |
//! | 8 | length of what follows the header |
//! | 8 | check: first bytes of BLAKE3 over kind, length and what follows; of a segment only its id |
//! | length | tips of 136 bytes each; id of a segment (32) and its file; epoch (16) and position (8); nothing; JSON |
//!
//! A stream that stops without its end was cut, and is `Unavailable`; everything before counts. A segment is handed
//! over as a reader of exactly its bytes, and checked by whoever takes it in: its id is the hash of its file.

use std::io::{self, Read, Write};

use agent_trace_store::codec::{Decoder, Encoder};
use agent_trace_store::limits::SEGMENT_BYTES_MAX;
use agent_trace_store::writer::{TIP_BYTES, Tip, decode_tips, encode_tips};
use agent_trace_store::{Error, ErrorKind, Result, SegmentId};

use crate::limits::{ERROR_BYTES_MAX, PART_TIPS_MAX, STREAM_BUFFER_BYTES};
use crate::wire::{Cursor, ErrorBody, decode_json, encode_json, take_cursor};

/// Bytes of the header of a part.
pub const PART_HEADER_BYTES: usize = 17;
const CURSOR_BYTES: u64 = 24;
const ID_BYTES: u64 = 32;

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// Signed statements about logs, before the segments that need them.
    Tips,
    /// A segment.
    Segment,
    /// All events up to a cursor have been sent.
    Reached,
    /// All has been sent.
    End,
    /// The stream ends here for a reason.
    Error,
}

impl PartKind {
    const ALL: [PartKind; 5] =
        [PartKind::Tips, PartKind::Segment, PartKind::Reached, PartKind::End, PartKind::Error];

    fn number(self) -> u8 {
        match self {
            PartKind::Tips => 1,
            PartKind::Segment => 2,
            PartKind::Reached => 3,
            PartKind::End => 4,
            PartKind::Error => 5,
        }
    }

    fn fits(self, length: u64) -> bool {
        let tip = TIP_BYTES as u64;
        match self {
            PartKind::Tips => {
                length > 0 && length <= PART_TIPS_MAX as u64 * tip && length.is_multiple_of(tip)
            }
            PartKind::Segment => length > ID_BYTES && length <= ID_BYTES + SEGMENT_BYTES_MAX,
            PartKind::Reached => length == CURSOR_BYTES,
            PartKind::End => length == 0,
            PartKind::Error => length <= ERROR_BYTES_MAX as u64,
        }
    }
}

/// What stands before each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// What follows.
    pub kind: PartKind,
    /// How many bytes of it.
    pub length: u64,
    /// The check of both, and of what follows.
    pub check: u64,
}

impl PartHeader {
    /// The header of a part that is not a segment.
    pub fn of(kind: PartKind, payload: &[u8]) -> PartHeader {
        let length = payload.len() as u64;
        PartHeader { kind, length, check: check(kind, length, payload) }
    }

    /// The header of a segment; its id and its file follow.
    pub fn of_segment(id: &SegmentId, file_bytes: u64) -> PartHeader {
        let length = ID_BYTES + file_bytes;
        PartHeader { kind: PartKind::Segment, length, check: check(PartKind::Segment, length, id.as_bytes()) }
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; PART_HEADER_BYTES] {
        assert!(self.kind.fits(self.length), "I10: parts are sized before");
        let mut encoder = Encoder::new();
        encoder.u8(self.kind.number()).u64(self.length).u64(self.check);
        encoder.finish().try_into().expect("one byte and two numbers")
    }

    /// Reads a header; the length is within the bounds of the kind.
    pub fn decode(bytes: &[u8; PART_HEADER_BYTES]) -> Result<PartHeader> {
        let mut decoder = Decoder::new("part header", bytes);
        let number = decoder.u8()?;
        let Some(kind) = PartKind::ALL.into_iter().find(|kind| kind.number() == number) else {
            return Err(decoder.error(&format!("kind {number} is not known")));
        };
        let header = PartHeader { kind, length: decoder.u64()?, check: decoder.u64()? };
        if !kind.fits(header.length) {
            return Err(decoder.error(&format!("a length of {} is out of range", header.length)));
        }
        decoder.finish()?;
        Ok(header)
    }

    fn verify(&self, payload: &[u8]) -> Result<()> {
        if check(self.kind, self.length, payload) == self.check {
            return Ok(());
        }
        Err(Error::corrupt("cannot decode part: its check does not fit its bytes"))
    }
}

fn check(kind: PartKind, length: u64, payload: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind.number()]).update(&length.to_le_bytes()).update(payload);
    let hash = hasher.finalize();
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash is longer"))
}

/// One part of a stream.
pub enum Part<'a, R> {
    /// Signed statements about logs; the signatures are not compared yet.
    Tips(Vec<Tip>),
    /// A segment: its id, the length of its file, and the file.
    Segment(SegmentId, u64, SegmentBytes<'a, R>),
    /// All events up to there have been sent.
    Reached(Cursor),
    /// The stream ends here for a reason; what came before counts.
    Error(ErrorBody),
}

/// Takes a stream apart.
pub struct PartReader<R> {
    source: R,
    /// What of the segment has not been read.
    segment_left: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Going,
    Ended,
    Broken,
}

impl<R: Read> PartReader<R> {
    /// Starts at the first byte of a stream.
    pub fn new(source: R) -> PartReader<R> {
        PartReader { source, segment_left: 0, state: State::Going }
    }

    /// The next part, or `None` at the end. What was left of a segment is passed over. After an error, of the stream
    /// or in it, there is nothing but errors.
    pub fn read_part(&mut self) -> Result<Option<Part<'_, R>>> {
        match self.state {
            State::Ended => return Ok(None),
            State::Broken => {
                return Err(Error::new(ErrorKind::Unavailable, "the stream has ended with an error"));
            }
            State::Going => self.state = State::Broken,
        }
        self.pass_over_segment()?;
        let mut head = [0; PART_HEADER_BYTES];
        self.fill(&mut head)?;
        let header = PartHeader::decode(&head)?;
        if header.kind == PartKind::Segment {
            let mut id = [0; 32];
            self.fill(&mut id)?;
            header.verify(&id)?;
            self.state = State::Going;
            self.segment_left = header.length - ID_BYTES;
            let bytes = self.segment_left;
            return Ok(Some(Part::Segment(SegmentId::from_bytes(id), bytes, SegmentBytes { stream: self })));
        }
        let length = usize::try_from(header.length).expect("a length is within the bounds of its kind");
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        header.verify(&payload)?;
        self.part(header.kind, &payload)
    }

    fn part(&mut self, kind: PartKind, payload: &[u8]) -> Result<Option<Part<'_, R>>> {
        let part = match kind {
            PartKind::Tips => Part::Tips(decode_part_tips(payload)?),
            PartKind::Reached => Part::Reached(take_cursor(&mut Decoder::new("cursor", payload))?),
            PartKind::Error => return Ok(Some(Part::Error(decode_json("error of a stream", payload)?))),
            PartKind::End => {
                self.finish()?;
                return Ok(None);
            }
            PartKind::Segment => unreachable!("segments are handed over as they come"),
        };
        self.state = State::Going;
        Ok(Some(part))
    }

    fn finish(&mut self) -> Result<()> {
        let mut more = [0];
        loop {
            match self.source.read(&mut more) {
                Ok(0) => break,
                Ok(_) => return Err(Error::corrupt("cannot decode stream: bytes follow its end")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cut(error)),
            }
        }
        self.state = State::Ended;
        Ok(())
    }

    fn pass_over_segment(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        while self.segment_left > 0 {
            let want = buffer.len().min(usize::try_from(self.segment_left).unwrap_or(usize::MAX));
            self.fill(&mut buffer[..want])?;
            self.segment_left -= want as u64;
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.source.read_exact(buffer).map_err(cut)
    }
}

fn cut(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the stream was cut before its end").with_source(error)
}

fn decode_part_tips(payload: &[u8]) -> Result<Vec<Tip>> {
    let count = u32::try_from(payload.len() / TIP_BYTES).expect("a length is within the bounds of its kind");
    let bytes = [&count.to_le_bytes()[..], payload].concat();
    let mut decoder = Decoder::new("tips", &bytes);
    let tips = decode_tips(&mut decoder)?;
    decoder.finish()?;
    Ok(tips)
}

/// The file of a segment within a stream: exactly its bytes, or an error.
pub struct SegmentBytes<'a, R> {
    stream: &'a mut PartReader<R>,
}

impl<R: Read> Read for SegmentBytes<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.stream.segment_left).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        if want == 0 {
            return Ok(0);
        }
        let read = self.stream.source.read(&mut buffer[..want])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream was cut within a segment"));
        }
        self.stream.segment_left -= read as u64;
        Ok(read)
    }
}

/// Puts a stream together.
pub struct PartWriter<W> {
    sink: W,
}

impl<W: Write> PartWriter<W> {
    /// Starts a stream.
    pub fn new(sink: W) -> PartWriter<W> {
        PartWriter { sink }
    }

    /// Sends tips, in as many parts as they take; none for none.
    pub fn tips(&mut self, tips: &[Tip]) -> Result<()> {
        tips.chunks(PART_TIPS_MAX).try_for_each(|tips| self.small(PartKind::Tips, &encode_tips(tips)[4..]))
    }

    /// Sends a segment, whose file has so many bytes; a reader that gives fewer breaks the stream.
    pub fn segment(&mut self, id: &SegmentId, file_bytes: u64, file: &mut dyn Read) -> Result<()> {
        self.put(&PartHeader::of_segment(id, file_bytes).encode())?;
        self.put(id.as_bytes())?;
        let mut buffer = vec![0; STREAM_BUFFER_BYTES];
        let mut left = file_bytes;
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.read_exact(&mut buffer[..want])
                .map_err(|error| Error::io(format!("cannot read segment `{id}`"), error))?;
            self.put(&buffer[..want])?;
            left -= want as u64;
        }
        Ok(())
    }

    /// Says how far it goes by now.
    pub fn reached(&mut self, cursor: &Cursor) -> Result<()> {
        let mut encoder = Encoder::new();
        encoder.put(&cursor.epoch).u64(cursor.position);
        self.small(PartKind::Reached, &encoder.finish())
    }

    /// Ends the stream.
    pub fn end(mut self) -> Result<W> {
        self.small(PartKind::End, &[])?;
        self.close()
    }

    /// Ends the stream for a reason, whose text is cut to its limit.
    pub fn error(mut self, body: &ErrorBody) -> Result<W> {
        let mut bytes = encode_json(body);
        if bytes.len() > ERROR_BYTES_MAX {
            bytes = encode_json(&ErrorBody { code: body.code.clone(), ..ErrorBody::default() });
        }
        self.small(PartKind::Error, &bytes)?;
        self.close()
    }

    fn small(&mut self, kind: PartKind, payload: &[u8]) -> Result<()> {
        self.put(&PartHeader::of(kind, payload).encode())?;
        self.put(payload)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(unsent)
    }

    fn close(mut self) -> Result<W> {
        self.sink.flush().map_err(unsent)?;
        Ok(self.sink)
    }
}

fn unsent(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "cannot send the stream").with_source(error)
}
