//! The embedded archive: both protocols on one project, all or nothing, and what a crash leaves.
#![allow(clippy::unwrap_used, missing_docs)]

mod client;
mod crash;
mod legacy;
mod pulls;

use std::path::Path;

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::{Kind, SegmentId};
use agent_trace_sync::service::archive::{Archive, Resource};
use agent_trace_sync::service::embedded::ProjectArchive;
use agent_trace_sync::service::grant::TokenId;
use client::{Client, batch, ledger, token, trace, traces};

const PROJECT: &str = "/service/project";

fn open(disk: &SimDisk) -> ProjectArchive {
    ProjectArchive::open(&disk.env(), Path::new(PROJECT)).unwrap()
}

/// Positions are dense, and arrivals say where all events are.
fn check_positions(archive: &ProjectArchive) {
    let reach = archive.reach().unwrap();
    let arrivals = archive.arrivals(0).unwrap();
    assert_eq!(arrivals.reach, reach);
    assert_eq!(arrivals.runs.iter().map(|run| run.count).sum::<u64>(), reach.position);
}

#[test]
fn both_protocols_see_one_project() {
    let disk = SimDisk::new(1);
    let archive = open(&disk);
    let mut first = Client::new(&disk, "/first");
    first.add(Kind::TRACE, traces(0..200));
    first.add(Kind::LEDGER, [ledger(1, "2026-02-01T00:00:00Z", &[1, 2])]);
    let committed = first.push(&archive, 1);
    assert_eq!((committed.taken, committed.position), (201, 201));
    let stored = archive.put(&token(), Resource::Traces, &batch(traces(150..300))).unwrap();
    assert_eq!((stored.stored, stored.known), (100, 50));
    assert_eq!(archive.reach().unwrap().position, 301);
    let page = archive.page(Resource::Traces, None, 1000).unwrap();
    assert_eq!(page.len(), 300);
    assert_eq!(archive.page(Resource::Ledgers, None, 1000).unwrap().len(), 1);
    let mut second = Client::new(&disk, "/second");
    assert_eq!(second.pull(&archive, 0), 301);
    assert_eq!(second.records().len(), 301);
    assert_eq!(first.pull(&archive, 201), 301);
    assert_eq!(first.records(), second.records());
    let one = archive.one(Resource::Traces, &client::trace_id(7)).unwrap().unwrap();
    assert_eq!(one.record, trace(7));
    check_positions(&archive);
    drop(archive);
    let archive = open(&disk);
    assert_eq!(archive.page(Resource::Traces, None, 1000).unwrap(), page);
    assert_eq!(Client::new(&disk, "/third").pull(&archive, 0), 301);
}

#[test]
fn a_commit_that_is_repeated_gives_the_same_answer() {
    let disk = SimDisk::new(2);
    let archive = open(&disk);
    let mut client = Client::new(&disk, "/client");
    client.add(Kind::TRACE, traces(0..20));
    let first = client.push(&archive, 7);
    assert_eq!(first.taken, 20);
    let segments = client.segments();
    let tips = [client.tip()];
    assert_eq!(archive.commit(&token(), &[7; 16], &segments, &tips).unwrap(), first);
    // Under another name there is nothing to take.
    let again = archive.commit(&token(), &[8; 16], &segments, &tips).unwrap();
    assert_eq!((again.taken, again.position, again.refused.len()), (0, 20, 0));
    assert_eq!(archive.uploaded(&token(), &segments[0]).unwrap(), client.bytes_of(&segments[0]));
    drop(archive);
    let archive = open(&disk);
    assert_eq!(archive.commit(&token(), &[7; 16], &segments, &tips).unwrap(), first);
    // The same events in other segments are no news either.
    client.upload(&archive, &TokenId::new("other"));
    let other = archive.commit(&TokenId::new("other"), &[9; 16], &segments, &tips).unwrap();
    assert_eq!((other.taken, other.position), (0, 20));
    // After a day the name is forgotten, and the answer tells what is.
    disk.advance(90_000_000_000);
    drop(archive);
    let archive = open(&disk);
    let late = archive.commit(&token(), &[7; 16], &segments, &tips).unwrap();
    assert_eq!((late.taken, late.refused.len()), (0, 1), "{late:?}");
}

#[test]
fn a_segment_that_is_refused_refuses_the_commit() {
    let disk = SimDisk::new(3);
    let archive = open(&disk);
    let mut client = Client::new(&disk, "/client");
    client.add(Kind::TRACE, traces(0..20));
    client.add(Kind::TRACE, traces(20..40));
    let segments = client.segments();
    assert_eq!(segments.len(), 2);
    let nowhere = SegmentId::from_bytes([9; 32]);
    client.upload(&archive, &token());
    let missing = archive.commit(&token(), &[1; 16], &[segments[0], nowhere], &[client.tip()]).unwrap();
    assert_eq!(missing.refused.len(), 1, "{missing:?}");
    // A flipped bit anywhere makes it another segment.
    let mut forged = client.read(&segments[1]);
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    let other = TokenId::new("forger");
    archive.upload(&other, &segments[1], 0, &forged).unwrap();
    client.upload_one(&archive, &other, &segments[0]);
    let refused = archive.commit(&other, &[2; 16], &segments, &[client.tip()]).unwrap();
    assert_eq!(refused.refused.len(), 1, "{refused:?}");
    // A whole new segment whose footer was made for other contents, under its right name.
    let unsigned = archive.commit(&token(), &[3; 16], &segments, &[client.tip_at(30)]).unwrap();
    assert_eq!(unsigned.refused.len(), 1, "{unsigned:?}");
    assert!(unsigned.refused[0].contains("10 events that their writer has not signed"), "{unsigned:?}");
    let mut false_tip = client.tip();
    false_tip.signature[5] ^= 1;
    let badly = archive.commit(&token(), &[4; 16], &segments, &[false_tip]).unwrap();
    assert_eq!(badly.refused.len(), 1, "{badly:?}");
    assert_eq!(archive.reach().unwrap().position, 0);
    assert!(archive.page(Resource::Traces, None, 10).unwrap().is_empty());
    assert_eq!(archive.commit(&token(), &[5; 16], &segments, &[client.tip()]).unwrap().taken, 40);
}

#[test]
fn segments_of_one_commit_may_need_each_other_and_nothing_else() {
    let disk = SimDisk::new(4);
    let archive = open(&disk);
    let mut client = Client::new(&disk, "/client");
    let text = client::lines(5, 600_000);
    client.add_transcript("c", &text[..500_000]);
    client.add_transcript("c", &text);
    let segments = client.segments();
    assert_eq!(segments.len(), 2);
    client.upload(&archive, &token());
    let alone = archive.commit(&token(), &[1; 16], &segments[1..], &[client.tip()]).unwrap();
    assert!(alone.refused[0].contains("which is nowhere"), "{alone:?}");
    let backwards = [segments[1], segments[0]];
    let both = archive.commit(&token(), &[2; 16], &backwards, &[client.tip()]).unwrap();
    assert_eq!((both.taken, &both.refused), (2, &Vec::new()));
    let mut other = Client::new(&disk, "/other");
    assert_eq!(other.pull(&archive, 0), 2);
    assert_eq!(other.transcripts(), client.transcripts());
    // Of the two, the one that extends the other answers, by both protocols.
    let page = archive.page(Resource::Conversations, None, 10).unwrap();
    assert_eq!(page.len(), 1);
    let sha256 = client::sha256(&text);
    let (object, bytes) = archive.blob(&sha256).unwrap().unwrap();
    assert_eq!((object, bytes), (agent_trace_store::ObjectId::of(&text), text.len() as u64));
    assert!(archive.blob(&client::sha256(b"other")).unwrap().is_none());
}

#[test]
fn both_sides_of_a_fork_are_kept_and_listed() {
    let disk = SimDisk::new(5);
    let archive = open(&disk);
    let mut first = Client::new(&disk, "/client");
    first.add(Kind::TRACE, traces(0..10));
    assert_eq!(first.push(&archive, 1).taken, 10);
    // The same key at work in two places.
    let secret = first.store.key().secret();
    first.add(Kind::TRACE, traces(10..15));
    assert_eq!(first.push(&archive, 2).taken, 5);
    let mut second = Client::with_key(&disk, "/restored", &secret);
    second.add(Kind::TRACE, traces(0..10));
    second.add(Kind::TRACE, traces(100..120));
    let committed = second.push(&archive, 3);
    assert!(!committed.forks.is_empty(), "{committed:?}");
    assert_eq!(committed.refused, Vec::<String>::new());
    let page = archive.page(Resource::Traces, None, 1000).unwrap();
    assert_eq!(page.len(), 35);
    check_positions(&archive);
    let mut other = Client::new(&disk, "/other");
    other.pull(&archive, 0);
    assert_eq!(other.records().len(), 35);
}

#[test]
fn uploads_go_on_where_they_stopped_and_are_bounded() {
    let disk = SimDisk::new(6);
    let archive = open(&disk);
    let mut client = Client::new(&disk, "/client");
    client.add(Kind::TRACE, traces(0..50));
    let segment = client.segments()[0];
    let bytes = client.read(&segment);
    assert_eq!(archive.uploaded(&token(), &segment).unwrap(), 0);
    assert_eq!(archive.upload(&token(), &segment, 0, &bytes[..1000]).unwrap(), 1000);
    let elsewhere = archive.upload(&token(), &segment, 900, &bytes[900..]).unwrap_err();
    assert_eq!(elsewhere.kind(), agent_trace_store::ErrorKind::Conflict);
    assert_eq!(archive.uploaded(&TokenId::new("other"), &segment).unwrap(), 0, "others do not see it");
    let early = archive.commit(&token(), &[1; 16], &[segment], &[client.tip()]).unwrap();
    assert_eq!(early.refused.len(), 1);
    drop(archive);
    let archive = open(&disk);
    let at = archive.uploaded(&token(), &segment).unwrap();
    archive.upload(&token(), &segment, at, &bytes[usize::try_from(at).unwrap()..]).unwrap();
    assert_eq!(archive.commit(&token(), &[2; 16], &[segment], &[client.tip()]).unwrap().taken, 50);
    for number in 0..8 {
        archive.upload(&token(), &SegmentId::from_bytes([number; 32]), 0, b"x").unwrap();
    }
    let ninth = archive.upload(&token(), &SegmentId::from_bytes([99; 32]), 0, b"x").unwrap_err();
    assert_eq!(ninth.kind(), agent_trace_store::ErrorKind::Unavailable);
    disk.advance(90_000_000_000);
    drop(archive);
    let archive = open(&disk);
    assert_eq!(archive.uploaded(&token(), &SegmentId::from_bytes([1; 32])).unwrap(), 0, "a day is enough");
    archive.upload(&token(), &SegmentId::from_bytes([99; 32]), 0, b"x").unwrap();
}

#[test]
fn a_copy_of_a_project_has_another_history() {
    let disk = SimDisk::new(7);
    let archive = open(&disk);
    archive.put(&token(), Resource::Traces, &batch(traces(0..10))).unwrap();
    let before = archive.reach().unwrap();
    drop(archive);
    assert_eq!(open(&disk).reach().unwrap(), before);
    disk.copy_tree(Path::new(PROJECT), Path::new("/restored")).unwrap();
    let copy = ProjectArchive::open(&disk.env(), Path::new("/restored")).unwrap();
    let after = copy.reach().unwrap();
    assert_eq!(after.position, 10);
    assert_ne!(after.epoch, before.epoch);
    copy.put(&token(), Resource::Traces, &batch(traces(10..20))).unwrap();
    let mut client = Client::new(&disk, "/client");
    assert_eq!(client.pull(&copy, 0), 20);
    let again = ProjectArchive::open(&disk.env(), Path::new("/restored")).unwrap();
    assert_eq!(again.reach().unwrap().epoch, after.epoch);
}
