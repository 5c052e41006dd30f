//! Stores that exchange through a bucket which fails in every way that buckets and the way to them do.
//!
//! The bucket speaks S3 in memory; all that signs, reads, tries again and gives up is the real code. Waits cost nothing.
#![allow(clippy::unwrap_used, missing_docs)]

mod faults;
mod gc;
mod manners;
mod world;

use agent_trace_store::ErrorKind;
use agent_trace_sync::bucket::fake::{Fault, Manners, Tags};

use world::{World, counts};

#[test]
fn two_stores_converge_and_an_unchanged_exchange_costs_a_few_requests() {
    let world = World::new(1);
    let (a, b) = (world.store("/a"), world.store("/b"));
    world.add(&a, 0..300);
    world.add(&b, 200..400);
    assert_eq!(world.push(&a).unwrap().sent.values().sum::<u64>(), 300);
    world.push(&b).unwrap();
    world.pull(&a).unwrap();
    world.pull(&b).unwrap();
    assert_eq!(world.records(&a), world.records(&b));
    assert_eq!(world.records(&a).len(), 400);
    for store in [&a, &b] {
        // The first one after a change may still look at heads.
        world.push(store).unwrap();
        world.pull(store).unwrap();
        world.bucket.asked();
        assert_eq!(world.push(store).unwrap().segments, 0);
        assert_eq!(counts(&world.bucket.asked()), ["1 GET", "1 LIST"], "an unchanged push");
        world.pull(store).unwrap();
        assert_eq!(counts(&world.bucket.asked()), ["1 GET", "1 LIST"], "an unchanged pull");
    }
    world.add(&a, 500..501);
    world.bucket.asked();
    let pushed = world.push(&a).unwrap();
    let asked = world.bucket.asked();
    assert!(asked.len() <= 10, "one new trace: {asked:?}");
    assert_eq!(pushed.requests, asked.len() as u64);
    world.pull(&b).unwrap();
    let asked = world.bucket.asked();
    assert!(asked.len() <= 6, "one new trace: {asked:?}");
    assert_eq!(world.records(&b).len(), 401);
}

#[test]
fn many_heads_are_listed_by_the_thousand_and_read_when_they_change() {
    let world = World::new(2);
    let stores: Vec<_> = (0..12).map(|number| world.store(&format!("/{number}"))).collect();
    for (number, store) in (0u64..).zip(&stores) {
        world.add(store, number * 10..number * 10 + 3);
        world.push(store).unwrap();
    }
    world.bucket.behave(Manners { page: 5, ..Manners::default() });
    let late = world.store("/late");
    world.pull(&late).unwrap();
    assert_eq!(world.records(&late).len(), 36);
    world.bucket.asked();
    world.pull(&late).unwrap();
    assert_eq!(counts(&world.bucket.asked()), ["1 GET", "3 LIST"], "12 heads in pages of 5");
}

#[test]
fn what_cannot_be_helped_is_said_at_once() {
    let check = |fault: Fault, kind: ErrorKind, word: &str| {
        let world = World::new(3);
        let store = world.store("/a");
        world.add(&store, 0..3);
        world.bucket.plan(Some(Box::new(move |_| Some(fault))));
        let error = world.push(&store).unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        assert!(error.message().contains(word), "{fault:?}: {error}");
        let asked = world.bucket.asked().len();
        assert_eq!(asked == 1, kind != ErrorKind::Unavailable, "{fault:?}: asked {asked} times");
        world.bucket.plan(None);
        world.push(&store).unwrap();
    };
    check(Fault::Refused(400, "ExpiredToken"), ErrorKind::Denied, "expired");
    check(Fault::Refused(403, "SignatureDoesNotMatch"), ErrorKind::Denied, "credentials");
    check(Fault::Refused(403, "RequestTimeTooSkewed"), ErrorKind::Denied, "clock");
    check(Fault::Refused(404, "NoSuchBucket"), ErrorKind::NotFound, "no such bucket");
    check(Fault::Refused(403, "QuotaExceeded"), ErrorKind::Full, "full");
    check(Fault::Refused(301, "PermanentRedirect"), ErrorKind::Invalid, "region");
    check(Fault::Refused(503, "SlowDown"), ErrorKind::Unavailable, "busy");
    check(Fault::Refused(429, ""), ErrorKind::Unavailable, "busy");
    check(Fault::Refused(500, ""), ErrorKind::Unavailable, "fails");
    check(Fault::ErrorBody, ErrorKind::Unavailable, "InternalError");
    check(Fault::LostRequest, ErrorKind::Unavailable, "lost");
}

#[test]
fn segments_that_arrived_are_not_sent_again() {
    let world = World::new(4);
    let store = world.store("/a");
    for part in 0..4 {
        world.add(&store, part * 400..part * 400 + 400);
        store.seal().unwrap();
    }
    // The connection goes when the head is to be written.
    world.bucket.plan(Some(Box::new(|ask| {
        (ask.method == "PUT" && ask.key.contains("/heads/")).then_some(Fault::LostRequest)
    })));
    assert_eq!(world.push(&store).unwrap_err().kind(), ErrorKind::Unavailable);
    world.bucket.plan(None);
    world.bucket.asked();
    let report = world.push(&store).unwrap();
    assert_eq!(report.sent.values().sum::<u64>(), 1600);
    assert_eq!((report.segments, report.bytes), (0, 0), "all of it had arrived");
    let sent = world
        .bucket
        .asked()
        .iter()
        .filter(|asked| asked.starts_with("PUT") && asked.contains("segments"))
        .count();
    assert_eq!(sent, 0);
    let other = world.store("/b");
    world.pull(&other).unwrap();
    assert_eq!(world.records(&other).len(), 1600);
}

#[test]
fn a_writer_that_another_copy_used_is_left_whatever_lists_say() {
    let world = World::new(5);
    let a = world.store("/a");
    world.add(&a, 0..5);
    world.push(&a).unwrap();
    world.push(&a).unwrap();
    let head = world.bucket.keys().into_iter().find(|key| key.contains("/heads/")).unwrap();
    let own = world.bucket.content(&head).unwrap();
    for number in 5..8 {
        world.add(&a, number..number + 1);
        world.push(&a).unwrap();
    }
    // The tags of this bucket do not change, and the head that a copy of the store wrote has the length of ours.
    world.bucket.behave(Manners { tags: Tags::Key, ..Manners::default() });
    world.push(&a).unwrap();
    assert_eq!(own.len(), world.bucket.content(&head).unwrap().len());
    world.bucket.set(&head, Some(own));
    assert_eq!(world.push(&a).unwrap().segments, 0, "nothing is to be replaced, and the list says nothing");
    world.add(&a, 8..9);
    assert!(world.push(&a).unwrap().new_writer, "the head is another one than this store wrote");
}
