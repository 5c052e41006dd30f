//! Protocol 1: pages, winners, bad items, transcripts.

use std::path::Path;

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::{Kind, ObjectId, Timestamp};
use agent_trace_sync::limits::{STAGED_SWEEP_MICROS, UPLOADS_KEPT_MICROS};
use agent_trace_sync::service::archive::{Accounts, Archive, Bodies, Item, PageRow, Resource, Staging};
use agent_trace_sync::service::embedded::{Embedded, ProjectArchive};
use agent_trace_sync::service::grant::TokenId;

use crate::client::{Client, batch, ledger, lines, noise, sha256, token, trace, trace_id, traces};
use crate::{check_positions, open};

fn item(text: &str) -> Item {
    Item { json: text.as_bytes().to_vec() }
}

/// All rows, page by page, as an old client asks for them.
fn all_pages(archive: &ProjectArchive, resource: Resource, limit: usize) -> Vec<PageRow> {
    let mut rows: Vec<PageRow> = Vec::new();
    loop {
        let page = archive.page(resource, rows.last().map(|row| row.arrived), limit).unwrap();
        let count = page.len();
        rows.extend(page);
        if count < limit {
            return rows;
        }
    }
}

#[test]
fn pages_neither_skip_nor_repeat_rows() {
    let disk = SimDisk::new(11);
    let archive = open(&disk);
    let mut client = Client::new(&disk, "/client");
    for number in 0..6 {
        archive.put(&token(), Resource::Traces, &batch(traces(number * 400..number * 400 + 400))).unwrap();
        disk.shift_wall_clock(-5_000_000);
    }
    client.add(Kind::TRACE, traces(2400..3000));
    client.push(&archive, 1);
    for limit in [1000, 500, 7] {
        let rows = all_pages(&archive, Resource::Traces, limit);
        assert_eq!(rows.len(), 3000, "{limit}");
        assert!(rows.windows(2).all(|pair| pair[0].arrived < pair[1].arrived));
        let mut records: Vec<&[u8]> = rows.iter().map(|row| row.record.as_slice()).collect();
        records.sort_unstable();
        records.dedup();
        assert_eq!(records.len(), 3000, "{limit}");
    }
    let last = all_pages(&archive, Resource::Traces, 1000).pop().unwrap().arrived;
    drop(archive);
    disk.shift_wall_clock(-90_000_000);
    let archive = open(&disk);
    archive.put(&token(), Resource::Ledgers, &batch([ledger(1, "2026-02-01T00:00:00Z", &[])])).unwrap();
    let page = archive.page(Resource::Ledgers, None, 10).unwrap();
    assert!(page[0].arrived > last, "times go on after a restart with a clock that went back");
    assert!(archive.page(Resource::Ledgers, Some(page[0].arrived), 10).unwrap().is_empty());
}

#[test]
fn a_better_version_is_served_again_and_a_worse_one_is_not() {
    let disk = SimDisk::new(12);
    let archive = open(&disk);
    let put = |record: Vec<u8>| archive.put(&token(), Resource::Ledgers, &batch([record])).unwrap();
    put(ledger(1, "2026-02-02T00:00:00Z", &[1]));
    let first = archive.page(Resource::Ledgers, None, 10).unwrap();
    put(ledger(1, "2026-02-03T00:00:00Z", &[1, 2]));
    let second = archive.page(Resource::Ledgers, None, 10).unwrap();
    assert_eq!(second.len(), 1);
    assert!(second[0].arrived > first[0].arrived);
    assert_eq!(second[0].record, ledger(1, "2026-02-03T00:00:00Z", &[1, 2]));
    let worse = put(ledger(1, "2026-02-01T00:00:00Z", &[3]));
    assert_eq!((worse.stored, worse.known), (1, 0), "it is kept all the same");
    assert_eq!(put(ledger(1, "2026-02-01T00:00:00Z", &[3])).known, 1);
    assert_eq!(put(ledger(1, "2026-02-03T00:00:00Z", &[1, 2])).known, 1);
    assert_eq!(archive.page(Resource::Ledgers, None, 10).unwrap(), second);
    assert_eq!(archive.reach().unwrap().position, 3);
    // The first trace stays.
    let other = String::from_utf8(trace(1)).unwrap().replace("00:00:01Z", "00:09:00Z");
    archive.put(&token(), Resource::Traces, &[Item { json: trace(1) }, item(&other)]).unwrap();
    let rows = archive.page(Resource::Traces, None, 10).unwrap();
    assert_eq!((rows.len(), &rows[0].record), (1, &trace(1)));
    let mut client = Client::new(&disk, "/client");
    assert_eq!(client.pull(&archive, 0), 5, "all versions travel");
    // A better one that comes by the other protocol.
    client.add(Kind::LEDGER, [ledger(1, "2026-03-01T00:00:00Z", &[])]);
    client.push(&archive, 1);
    let third = archive.page(Resource::Ledgers, Some(second[0].arrived), 10).unwrap();
    assert_eq!(third[0].record, ledger(1, "2026-03-01T00:00:00Z", &[]));
}

#[test]
fn a_bad_item_does_not_stop_the_others() {
    let disk = SimDisk::new(13);
    let archive = open(&disk);
    let deep = format!(
        r#"{{"id":"d","timestamp":"2026-01-01T00:00:00Z","x":{}1{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let items = [
        item(r#"{"timestamp":"2026-01-01T00:00:00Z"}"#),
        Item { json: trace(1) },
        item(r#"{"id":"a","timestamp":"yesterday"}"#),
        item(r#"{"id":"b","timestamp":"2026-01-01T00:00:00Z","text":"a\u0000b"}"#),
        item("[1]"),
        item(&deep),
        item(r#"{"id":"e","id":"f","timestamp":"2026-01-01T00:00:00Z"}"#),
        item(r#"{"id":7,"timestamp":"2026-01-01T00:00:00Z"}"#),
        item(r#"{"id":"g""#),
        Item { json: b"{\"id\":\"\xff\"}".to_vec() },
        item(r#" {"unknown": [1.50, {"b":1,"a":2}], "timestamp":"2026-01-01T00:00:00Z", "id":"h"} "#),
        Item { json: trace(1) },
    ];
    let stored = archive.put(&token(), Resource::Traces, &items).unwrap();
    assert_eq!((stored.stored, stored.known), (2, 1));
    let skipped: Vec<usize> = stored.skipped.iter().map(|(index, _)| *index).collect();
    assert_eq!(skipped, [0, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(stored.skipped.iter().all(|(_, reason)| !reason.is_empty()));
    let kept = archive.one(Resource::Traces, "h").unwrap().unwrap();
    let expected = br#"{"id":"h","timestamp":"2026-01-01T00:00:00Z","unknown":[1.50,{"a":2,"b":1}]}"#;
    assert_eq!(kept.record, expected);
    let summaries = [
        item(r#"{"conversation_id":"c","summary":"x","updated_at":"2026-01-01T00:00:00+00:00"}"#),
        item(r#"{"conversation_id":"c","summary":"x"}"#),
        item(r#"{"conversation_id":"c","created_at":"2026-01-01T00:00:00Z"}"#),
    ];
    let stored = archive.put(&token(), Resource::Summaries, &summaries).unwrap();
    assert_eq!((stored.stored, stored.skipped.len()), (1, 2));
    let key = "c:2026-01-01T00:00:00+00:00";
    assert!(archive.one(Resource::Summaries, key).unwrap().is_some(), "its time is as it was sent");
    let links = [item(r#"{"commit_sha":"abc","files_changed":null,"trace_ids":[]}"#), item("{}")];
    let stored = archive.put(&token(), Resource::CommitLinks, &links).unwrap();
    assert_eq!((stored.stored, stored.skipped.len()), (1, 1));
    check_positions(&archive);
}

#[test]
fn transcripts_come_back_as_they_were() {
    let disk = SimDisk::new(14);
    let archive = open(&disk);
    let staged = lines(1, 700_000);
    let mut reader = staged.as_slice();
    let (hash, bytes) = archive.stage(&token(), &mut reader, 1 << 20).unwrap();
    assert_eq!((hash, bytes), (sha256(&staged), staged.len() as u64));
    assert_eq!(archive.staged(&token(), &hash).unwrap(), Some(bytes));
    assert_eq!(archive.staged(&TokenId::new("other"), &hash).unwrap(), None);
    let hex = |bytes: &[u8]| ObjectId::from_bytes(sha256(bytes)).to_string();
    let pointer =
        format!(r#"{{"conversation_id":"staged","content_sha256":"{}","extra":[1]}}"#, hex(&staged));
    let items = [
        item(r#"{"conversation_id":"text","content":"a\u0000\"\u00e9\n","content_sha256":"a lie"}"#),
        item(r#"{"conversation_id":"bytes","content_b64":"AP/+"}"#),
        item(&pointer),
        item(r#"{"conversation_id":"none"}"#),
        item(r#"{"conversation_id":"half","content":"\ud800"}"#),
        item(r#"{"content":"x"}"#),
        item(r#"{"conversation_id":"empty","content":""}"#),
    ];
    let of_others = archive.put(&TokenId::new("other"), Resource::Conversations, &items).unwrap();
    assert_eq!(of_others.blob_missing, Some(hex(&staged)), "a hash alone grants nothing");
    assert_eq!(archive.reach().unwrap().position, 0);
    let stored = archive.put(&token(), Resource::Conversations, &items).unwrap();
    assert_eq!((stored.stored, stored.blob_missing.clone()), (4, None), "{stored:?}");
    assert_eq!(stored.skipped.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [3, 4, 5]);
    let expected: [(&str, &[u8]); 4] =
        [("text", b"a\0\"\xc3\xa9\n"), ("bytes", b"\0\xff\xfe"), ("staged", &staged), ("empty", b"")];
    for (conversation, content) in expected {
        let row = archive.one(Resource::Conversations, conversation).unwrap().unwrap();
        let record = TranscriptRecord::decode(&row.record).unwrap();
        assert_eq!((record.content_sha256, record.size), (hex(content), content.len() as u64));
        let (object, bytes) = archive.blob(&sha256(content)).unwrap().unwrap();
        assert_eq!(bytes, content.len() as u64);
        let mut read = Vec::new();
        let found = archive.object(&object, &mut |part| {
            read.extend_from_slice(part);
            Ok(())
        });
        assert!(found.unwrap());
        assert!(read == content, "{conversation}");
    }
    let row = archive.one(Resource::Conversations, "staged").unwrap().unwrap();
    assert!(String::from_utf8(row.record).unwrap().contains(r#""extra":[1]"#), "what is not known is kept");
    let again = archive.put(&TokenId::new("other"), Resource::Conversations, &items).unwrap();
    assert_eq!((again.stored, again.known), (0, 4), "the project has the bytes now: {again:?}");
    // A grown state stores its tail.
    let grown = lines(1, 800_000);
    archive.stage(&token(), &mut grown.as_slice(), 1 << 20).unwrap();
    let pointer = format!(r#"{{"conversation_id":"staged","content_sha256":"{}"}}"#, hex(&grown));
    let before = stored_bytes(&disk);
    assert_eq!(archive.put(&token(), Resource::Conversations, &[item(&pointer)]).unwrap().stored, 1);
    assert!(stored_bytes(&disk) - before < 200_000);
    let row = archive.one(Resource::Conversations, "staged").unwrap().unwrap();
    assert_eq!(TranscriptRecord::decode(&row.record).unwrap().size, 800_000);
    assert_eq!(archive.staged(&token(), &sha256(&grown)).unwrap(), None, "it is the project's now");
    let mut client = Client::new(&disk, "/client");
    client.pull(&archive, 0);
    assert!(client.transcripts().contains(&ObjectId::of(&grown)));
    assert!(client.transcripts().contains(&ObjectId::of(b"a\0\"\xc3\xa9\n")));
    // Too much at once, and what is a day old.
    assert!(archive.stage(&token(), &mut grown.as_slice(), 1000).is_err());
    archive.stage(&token(), &mut &b"old"[..], 1000).unwrap();
    disk.advance(90_000_000_000);
    assert_eq!(archive.staged(&token(), &sha256(b"old")).unwrap(), None);
}

fn stored_bytes(disk: &SimDisk) -> u64 {
    let files = disk.files();
    let segments = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.map(|path| disk.read_file(path).unwrap().len() as u64).sum()
}

#[test]
fn the_answering_transcript_does_not_depend_on_the_order() {
    let (short, long, other) = (lines(1, 5_000), lines(1, 9_000), lines(2, 7_000));
    let pointer = |content: &[u8], day: u32| {
        item(&format!(
            r#"{{"conversation_id":"c","content":{},"created_at":"2026-01-{day:02}T00:00:00Z"}}"#,
            quoted(content)
        ))
    };
    let items = [pointer(&short, 3), pointer(&long, 1), pointer(&other, 2)];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mut answers = Vec::new();
    for order in orders {
        let archive = open(&SimDisk::new(15));
        for index in order {
            archive.put(&token(), Resource::Conversations, &[items[index].clone()]).unwrap();
        }
        answers.push(archive.one(Resource::Conversations, "c").unwrap().unwrap().record);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    for order in [[0, 1], [1, 0]] {
        let archive = open(&SimDisk::new(16));
        for index in order {
            archive.put(&token(), Resource::Conversations, &[items[index].clone()]).unwrap();
        }
        let row = archive.one(Resource::Conversations, "c").unwrap().unwrap();
        assert_eq!(TranscriptRecord::decode(&row.record).unwrap().size, 9_000, "the longest that extends");
    }
}

fn quoted(text: &[u8]) -> String {
    let mut out = Vec::new();
    agent_trace_store::json::write_string(std::str::from_utf8(text).unwrap(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn an_empty_project_answers() {
    let archive = open(&SimDisk::new(17));
    assert_eq!(archive.reach().unwrap().position, 0);
    assert!(archive.page(Resource::Summaries, Some(Timestamp::MIN), 10).unwrap().is_empty());
    assert!(archive.one(Resource::Traces, &trace_id(1)).unwrap().is_none());
    assert!(archive.arrivals(0).unwrap().runs.is_empty());
    assert!(archive.arrivals(1).is_err(), "a position that was not given");
    assert_eq!(archive.put(&token(), Resource::Traces, &[]).unwrap().stored, 0);
    let mut parts = 0;
    archive
        .pull(0, Bodies::Along, &mut |_| {
            parts += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(parts, 1);
}

#[test]
fn many_at_once_lose_nothing_and_repeat_nothing() {
    let disk = SimDisk::new(18);
    let archive = open(&disk);
    std::thread::scope(|scope| {
        for thread in 0..6u32 {
            let (archive, disk) = (&archive, &disk);
            scope.spawn(move || {
                let mut client = Client::new(disk, &format!("/client-{thread}"));
                for round in 0..4u32 {
                    let first = thread * 100 + round * 20;
                    // The same by all, and some of their own.
                    archive.put(&token(), Resource::Traces, &batch(traces(9_000..9_010))).unwrap();
                    archive.put(&token(), Resource::Traces, &batch(traces(first..first + 10))).unwrap();
                    client.add(Kind::TRACE, traces(first + 10..first + 20));
                    let name = u8::try_from(thread * 10 + round).unwrap();
                    assert!(client.push(archive, name).refused.is_empty());
                    let rows = all_pages(archive, Resource::Traces, 50);
                    assert!(rows.windows(2).all(|pair| pair[0].arrived < pair[1].arrived));
                    archive.pull(0, Bodies::Along, &mut |_| Ok(())).unwrap();
                }
            });
        }
    });
    assert_eq!(all_pages(&archive, Resource::Traces, 1000).len(), 6 * 80 + 10);
    assert_eq!(archive.reach().unwrap().position, 6 * 80 + 10);
    check_positions(&archive);
    let mut reader = Client::new(&disk, "/reader");
    reader.pull(&archive, 0);
    assert_eq!(reader.records().len(), 6 * 80 + 10);
}

#[test]
fn what_nobody_names_goes_while_the_service_runs() {
    let disk = SimDisk::new(1);
    let (service, staging) = Embedded::open(&disk.env(), Path::new("/data")).unwrap();
    let (forgotten, newer) = (noise(1, 3_000), noise(2, 3_000));
    staging.stage(&token(), &mut &forgotten[..], u64::MAX).unwrap();
    disk.advance(UPLOADS_KEPT_MICROS.unsigned_abs() / 2);
    staging.stage(&token(), &mut &newer[..], u64::MAX).unwrap();
    let files = || disk.files().iter().filter(|path| path.starts_with("/data/staged")).count();
    service.tend().unwrap();
    assert_eq!(files(), 2, "neither is a day old");
    disk.advance(UPLOADS_KEPT_MICROS.unsigned_abs() / 2 + 1);
    service.tend().unwrap();
    assert_eq!(files(), 1);
    assert_eq!(staging.staged(&token(), &sha256(&newer)).unwrap(), Some(3_000));
    // Bytes that were sent again are new again.
    staging.stage(&token(), &mut &newer[..], u64::MAX).unwrap();
    disk.advance(UPLOADS_KEPT_MICROS.unsigned_abs() - 1_000);
    service.tend().unwrap();
    assert_eq!(files(), 1);
    disk.advance(STAGED_SWEEP_MICROS);
    service.tend().unwrap();
    assert_eq!(files(), 0);
}
