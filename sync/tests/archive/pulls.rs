//! What a pull brings: from every position on, all that came after it, complete, and little more.

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::{Kind, ObjectId};
use agent_trace_sync::service::archive::{Archive, Bodies, Item, Part, Resource, Staging};

use crate::client::{Client, batch, ledger, lines, noise, sha256, token, trace, traces};
use crate::{check_positions, open};

#[test]
fn a_pull_from_any_position_brings_the_rest() {
    let disk = SimDisk::new(21);
    let archive = open(&disk);
    let mut writer = Client::new(&disk, "/writer");
    let text = lines(3, 200_000);
    let mut batches = 0;
    for round in 0..4u32 {
        archive.put(&token(), Resource::Traces, &batch(traces(round * 100..round * 100 + 30))).unwrap();
        let end = 50_000 * (round as usize + 1);
        writer.add_transcript("c", &text[..end]);
        writer.add(Kind::TRACE, traces(round * 100 + 50..round * 100 + 60));
        batches += 1;
        writer.push(&archive, batches);
        let body: String = format!(r#"{{"conversation_id":"d{round}","content":"{round}"}}"#);
        archive.put(&token(), Resource::Conversations, &[Item { json: body.into_bytes() }]).unwrap();
    }
    check_positions(&archive);
    let newest = archive.reach().unwrap().position;
    assert_eq!(newest, 4 * (30 + 1 + 10 + 1));
    let mut marks = Vec::new();
    archive
        .pull(0, Bodies::Along, &mut |part| {
            if let Part::Reached(position) = part {
                marks.push(position);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(marks.last(), Some(&newest));
    let mut whole = Client::new(&disk, "/whole");
    whole.pull(&archive, 0);
    // A client that goes on from each position has all in the end.
    for after in [0, 1, 29, 30, 31, 35, 41, 42, 43, 100, newest - 1, newest] {
        let mut client = Client::new(&disk, &format!("/client-{after}"));
        cut_pull(&archive, &mut client, after);
        assert_eq!(client.pull(&archive, after), newest);
        assert_eq!(client.records(), whole.records(), "{after}");
        assert_eq!(client.transcripts(), whole.transcripts(), "{after}");
    }
}

/// Brings a client up to a position, by fetching what arrived until then.
fn cut_pull(
    archive: &agent_trace_sync::service::embedded::ProjectArchive,
    client: &mut Client,
    position: u64,
) {
    let mut runs = Vec::new();
    let mut left = position;
    for mut run in archive.arrivals(0).unwrap().runs {
        run.count = run.count.min(left);
        left -= run.count;
        if run.count > 0 {
            runs.push(run);
        }
    }
    assert_eq!(client.receive(&mut |each| archive.fetch(&runs, &[], Bodies::Along, each)), None);
}

#[test]
fn a_grown_transcript_costs_its_tail() {
    let disk = SimDisk::new(22);
    let archive = open(&disk);
    let mut writer = Client::new(&disk, "/writer");
    let text = lines(4, 3_000_000);
    writer.add_transcript("c", &text[..2_900_000]);
    let after = writer.push(&archive, 1).position;
    writer.add_transcript("c", &text);
    writer.push(&archive, 2);
    let mut bytes = 0;
    archive
        .pull(after, Bodies::Along, &mut |part| {
            if let Part::Segment(_, length, _) = part {
                bytes += length;
            }
            Ok(())
        })
        .unwrap();
    assert!(bytes < 500_000, "{bytes}");
    let mut reader = Client::new(&disk, "/reader");
    reader.pull(&archive, 0);
    assert_eq!(reader.transcripts(), writer.transcripts());
}

#[test]
fn a_body_larger_than_a_batch_arrives() {
    let disk = SimDisk::new(23);
    let archive = open(&disk);
    archive.put(&token(), Resource::Traces, &batch(traces(0..10))).unwrap();
    // Large enough to go ahead of its event, and to fill segments of its own.
    let large = lines(5, 40 << 20);
    archive.stage(&token(), &mut large.as_slice(), 64 << 20).unwrap();
    let sha = ObjectId::from_bytes(sha256(&large));
    let pointer = format!(r#"{{"conversation_id":"large","content_sha256":"{sha}"}}"#);
    let stored = archive.put(&token(), Resource::Conversations, &[Item { json: pointer.into_bytes() }]);
    assert_eq!(stored.unwrap().stored, 1);
    archive.put(&token(), Resource::Traces, &batch(traces(10..20))).unwrap();
    for after in [0, 10] {
        let mut client = Client::new(&disk, &format!("/client-{after}"));
        cut_pull(&archive, &mut client, after);
        client.pull(&archive, after);
        assert_eq!(client.records().len(), 21);
        assert!(client.transcripts().contains(&ObjectId::of(&large)));
    }
}

#[test]
fn events_are_fetched_by_place_and_by_id() {
    let disk = SimDisk::new(24);
    let archive = open(&disk);
    let mut writer = Client::new(&disk, "/writer");
    writer.add_transcript("c", &lines(6, 300_000));
    writer.add(Kind::TRACE, traces(0..50));
    writer.push(&archive, 1);
    archive.put(&token(), Resource::Ledgers, &batch([ledger(1, "2026-02-01T00:00:00Z", &[1])])).unwrap();
    let mut all = Vec::new();
    let newest = archive.reach().unwrap().position;
    archive
        .event_ids(newest, &mut |id, writer, seq| {
            all.push((*id, *writer, seq));
            Ok(())
        })
        .unwrap();
    assert_eq!(all.len(), 52);
    let mut early = 0;
    archive
        .event_ids(51, &mut |_, _, _| {
            early += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(early, 51, "as it was at an earlier position");
    let ids: Vec<_> = all.iter().step_by(10).map(|(id, _, _)| *id).collect();
    let mut client = Client::new(&disk, "/client");
    client.receive(&mut |each| archive.fetch(&[], &ids, Bodies::Along, each));
    assert_eq!(client.records().len(), ids.len());
    let mut runs = archive.arrivals(0).unwrap().runs;
    runs[0].seq_first = 1;
    runs[0].count = 1;
    client.receive(&mut |each| archive.fetch(&runs[..1], &[], Bodies::Along, each));
    assert_eq!(client.transcripts(), writer.transcripts());
    runs[0].seq_first = 1000;
    client.receive(&mut |each| archive.fetch(&runs[..1], &[], Bodies::Along, each));
    let held = archive.holds(&[ObjectId::of(&trace(3)), ObjectId::of(b"nothing")]).unwrap();
    assert_eq!(held, [true, false]);
}

#[test]
fn a_large_new_segment_is_kept_and_sent_as_it_is() {
    let disk = SimDisk::new(25);
    let archive = open(&disk);
    let mut writer = Client::new(&disk, "/writer");
    writer.add_transcript("c", &noise(7, 5 << 20));
    let segment = writer.segments()[0];
    assert!(writer.bytes_of(&segment) > 4 << 20);
    writer.push(&archive, 1);
    archive.put(&token(), Resource::Traces, &batch(traces(0..10))).unwrap();
    let mut sent = Vec::new();
    archive
        .pull(0, Bodies::Along, &mut |part| {
            if let Part::Segment(id, _, _) = part {
                sent.push(*id);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!((sent.len(), sent[0]), (2, segment));
    assert_eq!(archive.uploaded(&token(), &segment).unwrap(), writer.bytes_of(&segment));
    let mut reader = Client::new(&disk, "/reader");
    reader.pull(&archive, 0);
    assert_eq!(reader.records().len(), 11);
    let left: Vec<_> =
        disk.files().into_iter().filter(|path| path.to_string_lossy().contains("/aside/")).collect();
    assert!(left.is_empty(), "{left:?}");
}
