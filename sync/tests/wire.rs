//! Bodies of protocol 2 come back, keep their bytes, and no other bytes pass for one.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{self, Read};

use agent_trace_store::limits::{SEGMENT_BYTES_MAX, WRITERS_MAX};
use agent_trace_store::writer::{Tip, WriterKey};
use agent_trace_store::{Error, ErrorKind, EventId, ObjectId, Result, SegmentId, Seq, WriterId};
use agent_trace_sync::limits::{
    COMMIT_SEGMENTS_MAX, ERROR_BYTES_MAX, PART_TIPS_MAX, QUESTION_IDS_MAX, RUNS_MAX, SYMBOLS_MAX,
};
use agent_trace_sync::wire::{
    ArrivalRun, ArrivalsBody, Caps, CommitRequest, CommittedBody, Cursor, ErrorBody, FetchRequest, HoldsBody,
    HoldsRequest, OffsetBody, PART_HEADER_BYTES, Part, PartHeader, PartKind, PartReader, PartWriter,
    ReconcileRequest, Symbol, SymbolsBody, decode_json, encode_json,
};
use proptest::prelude::*;

const AT: Cursor = Cursor { epoch: [0x11; 16], position: 42 };

fn tip(seq: u64) -> Tip {
    WriterKey::from_secret(&[9; 32]).tip(Seq::new(seq).unwrap(), EventId::of(&seq.to_le_bytes()))
}

fn run(seq_first: u64, count: u64) -> ArrivalRun {
    ArrivalRun { writer: WriterId::from_bytes([0x22; 32]), seq_first, count }
}

fn arrivals() -> ArrivalsBody {
    ArrivalsBody { reached: AT, newest: 50, runs: vec![run(1, 9), run(12, 1)], tips: vec![tip(3), tip(12)] }
}

fn symbols() -> SymbolsBody {
    let symbol = Symbol { sum: [0x33; 32], checks: 0x4444, count: -5 };
    SymbolsBody { taken_at: AT, size: 7, first: 3, symbols: vec![symbol, Symbol::default()] }
}

fn fetch() -> FetchRequest {
    FetchRequest { runs: vec![run(5, 6)], ids: vec![EventId::from_bytes([0x66; 32])] }
}

fn commit() -> CommitRequest {
    let segments = vec![SegmentId::from_bytes([0x55; 32]), SegmentId::from_bytes([0x56; 32])];
    CommitRequest { batch: [0x77; 16], segments, tips: vec![tip(1)] }
}

fn holds(count: usize) -> HoldsBody {
    HoldsBody { held: (0..count).map(|at| at % 3 == 0).collect() }
}

/// One sort of body: its bytes, and what reads and writes them again.
struct Sort {
    name: &'static str,
    bytes: Vec<u8>,
    bytes_max: usize,
    again: fn(&[u8]) -> Result<Vec<u8>>,
}

fn sorts() -> Vec<Sort> {
    let reconcile = ReconcileRequest { first: 256, count: 512, position: 42 };
    let objects = HoldsRequest { ids: vec![ObjectId::of(b"a"), ObjectId::of(b"b")] };
    vec![
        Sort {
            name: "arrivals",
            bytes: arrivals().encode(),
            bytes_max: ArrivalsBody::BYTES_MAX,
            again: |bytes| Ok(ArrivalsBody::decode(bytes)?.encode()),
        },
        Sort {
            name: "reconcile",
            bytes: reconcile.encode(),
            bytes_max: ReconcileRequest::BYTES_MAX,
            again: |bytes| Ok(ReconcileRequest::decode(bytes)?.encode()),
        },
        Sort {
            name: "some_symbols",
            bytes: symbols().encode(),
            bytes_max: SymbolsBody::BYTES_MAX,
            again: |bytes| Ok(SymbolsBody::decode(bytes)?.encode()),
        },
        Sort {
            name: "fetch",
            bytes: fetch().encode(),
            bytes_max: FetchRequest::BYTES_MAX,
            again: |bytes| Ok(FetchRequest::decode(bytes)?.encode()),
        },
        Sort {
            name: "holds_request",
            bytes: objects.encode(),
            bytes_max: HoldsRequest::BYTES_MAX,
            again: |bytes| Ok(HoldsRequest::decode(bytes)?.encode()),
        },
        Sort {
            name: "holds",
            bytes: holds(11).encode(),
            bytes_max: HoldsBody::BYTES_MAX,
            again: |bytes| Ok(HoldsBody::decode(bytes, 11)?.encode()),
        },
        Sort {
            name: "commit",
            bytes: commit().encode(),
            bytes_max: CommitRequest::BYTES_MAX,
            again: |bytes| Ok(CommitRequest::decode(bytes)?.encode()),
        },
    ]
}

#[expect(clippy::disallowed_methods, reason = "golden files lie beside the test")]
fn check_golden(name: &str, bytes: &[u8]) {
    let path = format!("{}/tests/golden/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("AGENT_TRACE_BLESS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == bytes, "`{path}` has other bytes");
}

/// Magic, version and check in front of and behind any fields.
fn body(magic: &[u8; 8], version: u8, fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [&magic[..], &[version], &fields.concat()].concat();
    bytes.extend_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    bytes
}

/// The fields of a body with others, under a check that fits.
fn with_fields(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut fields = bytes[9..bytes.len() - 16].to_vec();
    change(&mut fields);
    body(bytes[..8].try_into().unwrap(), 1, &[&fields])
}

#[test]
fn bodies_come_back_and_keep_their_bytes() {
    for sort in sorts() {
        assert_eq!((sort.again)(&sort.bytes).unwrap(), sort.bytes, "{}", sort.name);
        assert!(sort.bytes.len() <= sort.bytes_max);
        check_golden(sort.name, &sort.bytes);
    }
    assert_eq!(ArrivalsBody::decode(&arrivals().encode()).unwrap(), arrivals());
    assert_eq!(SymbolsBody::decode(&symbols().encode()).unwrap(), symbols());
    assert_eq!(FetchRequest::decode(&fetch().encode()).unwrap(), fetch());
    assert_eq!(CommitRequest::decode(&commit().encode()).unwrap(), commit());
}

#[test]
fn no_changed_cut_or_longer_body_passes() {
    for sort in sorts() {
        for at in 0..sort.bytes.len() {
            let mut changed = sort.bytes.clone();
            changed[at] ^= 0x10;
            assert!((sort.again)(&changed).is_err(), "{} changed at {at}", sort.name);
            assert!((sort.again)(&sort.bytes[..at]).is_err(), "{} cut at {at}", sort.name);
        }
        assert!((sort.again)(&[&sort.bytes[..], &[0]].concat()).is_err(), "{}", sort.name);
        // The same with a check that fits, as somebody who means harm would send it.
        for cut in 0..sort.bytes.len() - 25 {
            let bytes = with_fields(&sort.bytes, |fields| fields.truncate(cut));
            assert!((sort.again)(&bytes).is_err(), "{} with {cut} bytes of fields", sort.name);
        }
        let longer = with_fields(&sort.bytes, |fields| fields.push(0));
        assert!((sort.again)(&longer).is_err(), "{} with a byte left over", sort.name);
    }
}

#[test]
fn a_newer_version_is_unsupported_and_another_magic_is_not_it() {
    for sort in sorts() {
        let magic: &[u8; 8] = sort.bytes[..8].try_into().unwrap();
        let error = (sort.again)(&body(magic, 2, &[])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", sort.name);
        let error = (sort.again)(&body(b"ATOTHER\0", 1, &[])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", sort.name);
    }
}

#[test]
fn counts_that_cannot_be_true_are_found_before_anything_is_allocated() {
    for (sort, at) in [
        ("arrivals", 32),
        ("some_symbols", 40),
        ("fetch", 0),
        ("holds_request", 0),
        ("holds", 0),
        ("commit", 16),
    ] {
        let sort = sorts().into_iter().find(|found| found.name == sort).unwrap();
        let bytes = with_fields(&sort.bytes, |fields| fields[at..at + 4].fill(0xff));
        assert!((sort.again)(&bytes).is_err(), "{}", sort.name);
    }
}

#[test]
fn bodies_are_taken_at_their_limits_and_not_beyond() {
    let full =
        ArrivalsBody { runs: vec![run(1, 1); RUNS_MAX], tips: vec![tip(1); WRITERS_MAX], ..arrivals() };
    let bytes = full.encode();
    assert_eq!(bytes.len(), ArrivalsBody::BYTES_MAX);
    assert_eq!(ArrivalsBody::decode(&bytes).unwrap(), full);
    let full = SymbolsBody { first: 0, symbols: vec![Symbol::default(); SYMBOLS_MAX], ..symbols() };
    assert_eq!(full.encode().len(), SymbolsBody::BYTES_MAX);
    assert_eq!(SymbolsBody::decode(&full.encode()).unwrap(), full);
    let full = HoldsRequest { ids: vec![ObjectId::of(b"a"); QUESTION_IDS_MAX] };
    assert_eq!(full.encode().len(), HoldsRequest::BYTES_MAX);
    assert_eq!(HoldsRequest::decode(&full.encode()).unwrap(), full);
    assert_eq!(holds(QUESTION_IDS_MAX).encode().len(), HoldsBody::BYTES_MAX);
    let count = u32::try_from(QUESTION_IDS_MAX + 1).unwrap().to_le_bytes();
    let over = body(b"ATHOLDS\0", 1, &[&count, &vec![0; 32 * (QUESTION_IDS_MAX + 1)]]);
    assert!(HoldsRequest::decode(&over).is_err());
    let count = u32::try_from(COMMIT_SEGMENTS_MAX + 1).unwrap().to_le_bytes();
    let over = body(b"ATCOMIT\0", 1, &[&[0; 16], &count, &vec![0; 32 * (COMMIT_SEGMENTS_MAX + 1)], &[0; 4]]);
    assert!(CommitRequest::decode(&over).is_err());
}

#[test]
fn places_and_positions_out_of_range_are_refused() {
    let check = |run: ArrivalRun, fits: bool| {
        assert_eq!(
            FetchRequest::decode(&FetchRequest { runs: vec![run], ids: vec![] }.encode()).is_ok(),
            fits,
            "{run:?}"
        );
    };
    check(run(1, 1), true);
    check(run(1, u64::MAX - 1), true);
    check(run(0, 1), false);
    check(run(1, 0), false);
    check(run(1, u64::MAX), false);
    check(run(u64::MAX, 1), false);
    assert!(ArrivalsBody::decode(&ArrivalsBody { newest: 41, ..arrivals() }.encode()).is_err());
    let request =
        |first, count| ReconcileRequest::decode(&ReconcileRequest { first, count, position: 0 }.encode());
    let most = SYMBOLS_MAX as u64;
    assert!(request(most - 1, 1).is_ok());
    assert!(request(most, 1).is_err());
    assert!(request(u64::MAX, 1).is_err());
    assert!(request(0, u32::MAX).is_err());
}

#[test]
fn bits_answer_exactly_what_was_asked() {
    for count in [0, 1, 7, 8, 9, 64] {
        let bytes = holds(count).encode();
        assert_eq!(HoldsBody::decode(&bytes, count).unwrap(), holds(count));
        assert!(HoldsBody::decode(&bytes, count + 1).is_err());
    }
    let bytes = with_fields(&holds(3).encode(), |fields| *fields.last_mut().unwrap() |= 0x08);
    assert!(HoldsBody::decode(&bytes, 3).is_err(), "a bit beyond the last answer");
    assert_eq!(HoldsBody { held: vec![true, false, false, true] }.encode()[13], 0b1001);
}

#[test]
fn cursors_stand_in_queries() {
    assert_eq!(AT.query(), format!("epoch={}&after=42", "11".repeat(16)));
    assert_eq!(Cursor::parse_epoch(&"11".repeat(16)).unwrap(), AT.epoch);
    for text in ["", "11", "zz", &"1".repeat(33)] {
        assert_eq!(Cursor::parse_epoch(text).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn json_bodies_pass_over_what_they_do_not_know() {
    let committed: CommittedBody =
        decode_json("commit", br#"{"position":3,"taken":2,"new":{"a":[1]}}"#).unwrap();
    assert_eq!(committed, CommittedBody { position: 3, taken: 2, forks: vec![] });
    assert_eq!(encode_json(&OffsetBody { offset: 9 }), br#"{"offset":9}"#);
    let caps: Caps = decode_json("caps", &encode_json(&Caps::ours())).unwrap();
    assert_eq!(caps, Caps::ours());
    assert!(decode_json::<Caps>("caps", br#"{"protocols":[2]}"#).is_err(), "no limits, no version 2");
    let error = ErrorBody { error: "no".to_owned(), code: "scope".to_owned(), ..ErrorBody::default() };
    assert_eq!(encode_json(&error), br#"{"error":"no","code":"scope"}"#);
    assert_eq!(decode_json::<ErrorBody>("error", br#"{"error":"no"}"#).unwrap().code, "");
    for bytes in [&b""[..], b"{}x", b"[", &[0xff], b"<html>"] {
        assert_eq!(decode_json::<OffsetBody>("offset", bytes).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let deep = "[".repeat(100_000);
    assert!(decode_json::<OffsetBody>("offset", deep.as_bytes()).is_err());
}

/// What a stream brings, read to its end.
#[derive(Debug, PartialEq)]
enum Seen {
    Tips(Vec<Tip>),
    Segment(SegmentId, Vec<u8>),
    Reached(Cursor),
    Error(ErrorBody),
}

fn read_all(source: impl Read) -> (Vec<Seen>, Result<()>) {
    let (mut reader, mut seen) = (PartReader::new(source), Vec::new());
    loop {
        let part = match reader.read_part() {
            Ok(Some(part)) => part,
            Ok(None) => return (seen, Ok(())),
            Err(error) => return (seen, Err(error)),
        };
        seen.push(match part {
            Part::Tips(tips) => Seen::Tips(tips),
            Part::Reached(cursor) => Seen::Reached(cursor),
            Part::Error(body) => Seen::Error(body),
            Part::Segment(id, bytes, mut file) => {
                let mut content = Vec::new();
                if let Err(error) = file.read_to_end(&mut content) {
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                    return (seen, Err(Error::new(ErrorKind::Unavailable, "cut")));
                }
                assert_eq!(content.len() as u64, bytes);
                Seen::Segment(id, content)
            }
        });
    }
}

const SEGMENT: SegmentId = SegmentId::from_bytes([0x88; 32]);

fn stream() -> Vec<u8> {
    let mut writer = PartWriter::new(Vec::new());
    writer.tips(&[]).unwrap();
    writer.tips(&[tip(1), tip(2)]).unwrap();
    writer.segment(&SEGMENT, 5, &mut &b"bytes"[..]).unwrap();
    writer.reached(&AT).unwrap();
    writer.end().unwrap()
}

fn expected() -> Vec<Seen> {
    vec![Seen::Tips(vec![tip(1), tip(2)]), Seen::Segment(SEGMENT, b"bytes".to_vec()), Seen::Reached(AT)]
}

/// Gives one byte at a time, as a slow line does.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(buffer.len()).min(1);
        self.0.read(&mut buffer[..count])
    }
}

#[test]
fn a_stream_comes_back_and_keeps_its_bytes() {
    check_golden("stream", &stream());
    for slow in [false, true] {
        let bytes = stream();
        let (seen, end) = if slow { read_all(Slow(&bytes)) } else { read_all(&bytes[..]) };
        end.unwrap();
        assert_eq!(seen, expected());
    }
}

#[test]
fn a_stream_that_was_cut_is_never_whole() {
    let bytes = stream();
    for at in 0..bytes.len() {
        let (seen, end) = read_all(&bytes[..at]);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::Unavailable, "cut at {at}");
        assert!(expected().starts_with(&seen));
    }
    let (seen, end) = read_all(&[&bytes[..], b"x"].concat()[..]);
    assert_eq!((seen, end.unwrap_err().kind()), (expected(), ErrorKind::Corrupt));
}

#[test]
fn a_changed_byte_of_a_stream_changes_no_meaning() {
    let bytes = stream();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let (seen, end) = read_all(&changed[..]);
        let whole = end.is_ok();
        for (seen, expected) in seen.iter().zip(expected()) {
            match (seen, &expected) {
                // What the id of a segment says of its bytes is for whoever takes it in.
                (Seen::Segment(id, _), Seen::Segment(expected, _)) => assert_eq!(id, expected, "byte {at}"),
                _ => assert_eq!(*seen, expected, "byte {at}"),
            }
        }
        assert!(!whole || seen.len() == expected().len());
    }
}

#[test]
fn what_is_left_of_a_segment_is_passed_over() {
    let bytes = stream();
    let mut reader = PartReader::new(&bytes[..]);
    assert!(matches!(reader.read_part().unwrap(), Some(Part::Tips(_))));
    let Some(Part::Segment(_, 5, mut file)) = reader.read_part().unwrap() else { panic!("no segment") };
    file.read_exact(&mut [0; 2]).unwrap();
    assert!(matches!(reader.read_part().unwrap(), Some(Part::Reached(AT))));
    assert!(reader.read_part().unwrap().is_none());
    assert!(reader.read_part().unwrap().is_none());
}

#[test]
fn an_error_ends_a_stream() {
    let mut writer = PartWriter::new(Vec::new());
    writer.reached(&AT).unwrap();
    let body =
        ErrorBody { error: "draining".to_owned(), code: "unavailable".to_owned(), ..ErrorBody::default() };
    let bytes = writer.error(&body).unwrap();
    let (seen, end) = read_all(&bytes[..]);
    assert_eq!(seen, [Seen::Reached(AT), Seen::Error(body)]);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::Unavailable);
    let long = ErrorBody { error: "x".repeat(ERROR_BYTES_MAX), code: "c".to_owned(), ..ErrorBody::default() };
    let bytes = PartWriter::new(Vec::new()).error(&long).unwrap();
    let (seen, _) = read_all(&bytes[..]);
    assert!(matches!(&seen[..], [Seen::Error(body)] if body.code == "c"));
}

#[test]
fn a_file_shorter_than_promised_breaks_the_stream() {
    let mut writer = PartWriter::new(Vec::new());
    assert!(writer.segment(&SEGMENT, 6, &mut &b"bytes"[..]).is_err());
}

#[test]
fn many_tips_go_in_several_parts() {
    let tips = vec![tip(1); PART_TIPS_MAX + 1];
    let mut writer = PartWriter::new(Vec::new());
    writer.tips(&tips).unwrap();
    let (seen, end) = read_all(&writer.end().unwrap()[..]);
    end.unwrap();
    let counts: Vec<usize> =
        seen.iter().map(|part| if let Seen::Tips(tips) = part { tips.len() } else { 0 }).collect();
    assert_eq!(counts, [PART_TIPS_MAX, 1]);
}

#[test]
fn lengths_of_parts_are_within_the_bounds_of_their_kind() {
    let check = |number: u8, length: u64, fits: bool| {
        let mut bytes = [0; PART_HEADER_BYTES];
        bytes[0] = number;
        bytes[1..9].copy_from_slice(&length.to_le_bytes());
        let header = PartHeader::decode(&bytes);
        assert_eq!(header.is_ok(), fits, "{number} {length}");
        assert!(header.is_err() || header.unwrap().encode() == bytes);
    };
    let tips = 136 * PART_TIPS_MAX as u64;
    for (number, length, fits) in [
        (0, 0, false),
        (1, 0, false),
        (1, 136, true),
        (1, 137, false),
        (1, tips, true),
        (1, tips + 136, false),
        (2, 32, false),
        (2, 33, true),
        (2, 32 + SEGMENT_BYTES_MAX, true),
        (2, 33 + SEGMENT_BYTES_MAX, false),
        (2, u64::MAX, false),
        (3, 23, false),
        (3, 24, true),
        (3, 25, false),
        (4, 0, true),
        (4, 1, false),
        (5, 0, true),
        (5, ERROR_BYTES_MAX as u64, true),
        (5, ERROR_BYTES_MAX as u64 + 1, false),
        (6, 0, false),
        (255, 24, false),
    ] {
        check(number, length, fits);
    }
    assert_eq!(PartHeader::of(PartKind::End, &[]).length, 0);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), which in 0usize..7) {
        let sort = &sorts()[which];
        let magic: &[u8; 8] = sort.bytes[..8].try_into().unwrap();
        for bytes in [bytes.clone(), body(magic, 1, &[&bytes])] {
            if let Ok(again) = (sort.again)(&bytes) {
                prop_assert_eq!(again, bytes);
            }
        }
        let _ = read_all(&bytes[..]);
    }

    #[test]
    fn any_arrivals_come_back(
        epoch in any::<[u8; 16]>(),
        position in any::<u64>(),
        runs in proptest::collection::vec((any::<[u8; 32]>(), 1u64..1 << 40, 1u64..1 << 40), 0..20),
        tips in proptest::collection::vec(1u64..99, 0..3),
    ) {
        let runs = runs.into_iter().map(|(writer, seq_first, count)| ArrivalRun {
            writer: WriterId::from_bytes(writer), seq_first, count,
        }).collect();
        let body = ArrivalsBody {
            reached: Cursor { epoch, position }, newest: u64::MAX, runs, tips: tips.into_iter().map(tip).collect(),
        };
        prop_assert_eq!(ArrivalsBody::decode(&body.encode()).unwrap(), body);
    }

    #[test]
    fn any_symbols_come_back(
        size in any::<u64>(),
        symbols in proptest::collection::vec((any::<[u8; 32]>(), any::<u64>(), any::<i64>()), 0..20),
    ) {
        let symbols = symbols.into_iter().map(|(sum, checks, count)| Symbol { sum, checks, count }).collect();
        let body = SymbolsBody { taken_at: AT, size, first: 5, symbols };
        prop_assert_eq!(SymbolsBody::decode(&body.encode()).unwrap(), body);
    }

    #[test]
    fn any_questions_and_answers_come_back(
        batch in any::<[u8; 16]>(),
        ids in proptest::collection::vec(any::<[u8; 32]>(), 0..40),
        held in proptest::collection::vec(any::<bool>(), 0..70),
    ) {
        let objects = HoldsRequest { ids: ids.iter().map(|id| ObjectId::from_bytes(*id)).collect() };
        prop_assert_eq!(HoldsRequest::decode(&objects.encode()).unwrap(), objects);
        let events = FetchRequest { runs: vec![], ids: ids.iter().map(|id| EventId::from_bytes(*id)).collect() };
        prop_assert_eq!(FetchRequest::decode(&events.encode()).unwrap(), events);
        let segments = ids.iter().map(|id| SegmentId::from_bytes(*id)).collect();
        let commit = CommitRequest { batch, segments, tips: vec![] };
        prop_assert_eq!(CommitRequest::decode(&commit.encode()).unwrap(), commit);
        let body = HoldsBody { held };
        prop_assert_eq!(HoldsBody::decode(&body.encode(), body.held.len()).unwrap(), body);
    }
}
