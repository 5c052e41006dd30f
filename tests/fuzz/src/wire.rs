//! Targets for what goes between clients and a service.
//!
//! Bodies end with a check that anybody can compute: each target runs on the bytes as they are and on the same fields
//! under a check that fits.

use std::io::Read;

use agent_trace_store::limits::SEGMENT_BYTES_MAX;
use agent_trace_store::writer::{Tip, WriterKey};
use agent_trace_store::{EventId, ObjectId, Result, SegmentId, Seq, WriterId};
use agent_trace_sync::limits::SYMBOLS_FIRST;
use agent_trace_sync::reconcile::{Progress, Reconciliation, answer};
use agent_trace_sync::wire::{
    ArrivalRun, ArrivalsBody, CommitRequest, Cursor, ErrorBody, FetchRequest, HoldsBody, HoldsRequest, Part,
    PartReader, PartWriter, ReconcileRequest, Symbol, SymbolsBody,
};

use super::Random;

const CHECK_BYTES: usize = 16;
const AT: Cursor = Cursor { epoch: [7; 16], position: 9 };

/// What is accepted has one encoding; returns it.
fn check<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T>, encode: impl Fn(&T) -> Vec<u8>) -> Option<T> {
    let mut forged = bytes[..bytes.len().saturating_sub(CHECK_BYTES)].to_vec();
    let hash = blake3::hash(&forged);
    forged.extend_from_slice(&hash.as_bytes()[..CHECK_BYTES]);
    let mut accepted = None;
    for bytes in [bytes, &forged] {
        if let Ok(body) = decode(bytes) {
            assert_eq!(encode(&body), bytes, "what is accepted has one encoding");
            accepted = Some(body);
        }
    }
    accepted
}

/// What arrived.
pub fn arrivals(bytes: &[u8]) {
    let Some(body) = check(bytes, ArrivalsBody::decode, ArrivalsBody::encode) else { return };
    assert!(body.reached.position <= body.newest);
    assert!(body.runs.iter().all(|run| run.seq_first.checked_add(run.count).is_some()));
}

/// A request for symbols.
pub fn reconcile_request(bytes: &[u8]) {
    let Some(request) = check(bytes, ReconcileRequest::decode, ReconcileRequest::encode) else { return };
    if request.count as usize <= 16 * SYMBOLS_FIRST {
        let body = answer(&request, AT, (0..3).map(event));
        assert_eq!(body.symbols.len(), request.count as usize);
    }
}

/// Symbols, and what is found in them.
pub fn symbols(bytes: &[u8]) {
    let Some(mut body) = check(bytes, SymbolsBody::decode, SymbolsBody::encode) else { return };
    body.first = 0;
    body.symbols.truncate(SYMBOLS_FIRST);
    find(&body);
}

fn find(body: &SymbolsBody) {
    let mut reconciliation = Reconciliation::new();
    if let Ok(Progress::Done(found)) = reconciliation.take(body, (0..3).map(event)) {
        assert!(found.only_there.len() + found.only_here.len() <= body.symbols.len());
        assert_eq!(3 + found.only_there.len() as u64, body.size + found.only_here.len() as u64);
    }
}

/// A script for symbols that look true: ids taken in and out of any symbols, with their check values.
pub fn reconcile(bytes: &[u8]) {
    let request = Reconciliation::new().request();
    let mut body = answer(&request, AT, (2..6).map(event));
    for step in bytes.chunks_exact(4).take(1_000) {
        let one =
            answer(&ReconcileRequest { count: 1, ..request }, AT, std::iter::once(event(step[1].into())));
        let symbol: &mut Symbol = &mut body.symbols[usize::from(step[0])];
        let part = one.symbols[0];
        match step[2] % 4 {
            0 => symbol.count = i64::from(step[3].cast_signed()) << (step[3] % 56),
            1 => *symbol = part,
            2 => body.size = step[3].into(),
            _ => {
                symbol.sum.iter_mut().zip(part.sum).for_each(|(sum, byte)| *sum ^= byte);
                symbol.checks ^= part.checks;
                symbol.count += i64::from(step[3].cast_signed());
            }
        }
    }
    find(&body);
}

/// A request for events.
pub fn fetch(bytes: &[u8]) {
    let _ = check(bytes, FetchRequest::decode, FetchRequest::encode);
}

/// A question for objects, and its answer.
pub fn holds(bytes: &[u8]) {
    let _ = check(bytes, HoldsRequest::decode, HoldsRequest::encode);
    let asked = bytes.get(9..13).map_or(0, |count| u32::from_le_bytes(count.try_into().expect("four bytes")));
    let decode = |bytes: &[u8]| HoldsBody::decode(bytes, asked as usize);
    let _ = check(bytes, decode, HoldsBody::encode);
}

/// A commit.
pub fn commit_request(bytes: &[u8]) {
    let _ = check(bytes, CommitRequest::decode, CommitRequest::encode);
}

/// A stream of parts; what comes out of it makes the same stream again.
pub fn parts(bytes: &[u8]) {
    let mut reader = PartReader::new(bytes);
    let mut writer = PartWriter::new(Vec::new());
    let mut length = 0;
    loop {
        let part = match reader.read_part() {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(_) => return,
        };
        match part {
            Part::Tips(tips) => writer.tips(&tips).expect("memory takes all"),
            Part::Reached(cursor) => writer.reached(&cursor).expect("memory takes all"),
            Part::Error(_) => {
                assert!(reader.read_part().is_err(), "nothing comes after an error");
                return;
            }
            Part::Segment(id, file_bytes, mut file) => {
                assert!(file_bytes > 0 && file_bytes <= SEGMENT_BYTES_MAX);
                let mut content = Vec::new();
                if file.read_to_end(&mut content).is_err() {
                    return;
                }
                writer.segment(&id, file_bytes, &mut &content[..]).expect("memory takes all");
            }
        }
        length += 1;
    }
    assert!(length <= bytes.len());
    assert_eq!(writer.end().expect("memory takes all"), bytes, "what is accepted has one encoding");
}

fn event(number: u64) -> EventId {
    EventId::of(&number.to_le_bytes())
}

fn small(random: &mut Random, most: usize) -> Vec<u64> {
    (0..random.index(most)).map(|_| random.draw()).collect()
}

fn tips(random: &mut Random) -> Vec<Tip> {
    let key = WriterKey::from_secret(&[9; 32]);
    let seqs = small(random, 3);
    seqs.into_iter().map(|seq| key.tip(Seq::new(seq | 1).expect("not zero"), event(seq))).collect()
}

fn runs(random: &mut Random) -> Vec<ArrivalRun> {
    let writers = small(random, 4);
    let run = |writer: u64| ArrivalRun {
        writer: WriterId::from_bytes(*event(writer).as_bytes()),
        seq_first: 1 + writer % 99,
        count: 1 + writer % 7,
    };
    writers.into_iter().map(run).collect()
}

pub(super) fn seed_arrivals(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    ArrivalsBody { reached: AT, newest: 9 + random.draw() % 9, runs: runs(random), tips: tips(random) }
        .encode()
}

pub(super) fn seed_reconcile_request(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let count = u32::try_from(random.index(600)).expect("small");
    ReconcileRequest { first: random.draw() % 600, count, position: random.draw() % 9 }.encode()
}

pub(super) fn seed_symbols(seed: u64) -> Vec<u8> {
    let ids = small(&mut Random::new(seed), 20);
    let request = ReconcileRequest { count: 40, ..Reconciliation::new().request() };
    answer(&request, AT, ids.into_iter().map(event)).encode()
}

pub(super) fn seed_reconcile(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let count = random.index(80);
    random.bytes(count)
}

pub(super) fn seed_fetch(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    FetchRequest { runs: runs(random), ids: small(random, 4).into_iter().map(event).collect() }.encode()
}

pub(super) fn seed_holds(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let numbers = small(random, 20);
    if seed.is_multiple_of(2) {
        return HoldsBody { held: numbers.iter().map(|number| number % 2 == 0).collect() }.encode();
    }
    HoldsRequest { ids: numbers.iter().map(|number| ObjectId::of(&number.to_le_bytes())).collect() }.encode()
}

pub(super) fn seed_commit_request(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let segments =
        small(random, 4).iter().map(|number| SegmentId::from_bytes(*event(*number).as_bytes())).collect();
    CommitRequest { batch: [5; 16], segments, tips: tips(random) }.encode()
}

pub(super) fn seed_parts(seed: u64) -> Vec<u8> {
    const MEMORY: &str = "memory takes all";
    let random = &mut Random::new(seed);
    let mut writer = PartWriter::new(Vec::new());
    for number in small(random, 4) {
        writer.tips(&tips(random)).expect(MEMORY);
        let count = 1 + random.index(60);
        let content = random.bytes(count);
        let id = SegmentId::from_bytes(*event(number).as_bytes());
        writer.segment(&id, content.len() as u64, &mut &content[..]).expect(MEMORY);
        writer.reached(&Cursor { position: number, ..AT }).expect(MEMORY);
    }
    if seed.is_multiple_of(4) {
        let body = ErrorBody {
            error: "it drains".to_owned(),
            code: "unavailable".to_owned(),
            ..ErrorBody::default()
        };
        return writer.error(&body).expect(MEMORY);
    }
    writer.end().expect(MEMORY)
}
