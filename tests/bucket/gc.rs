//! Clearing up: small segments become one, what is dead goes after its grace, and nobody who pushes or pulls loses anything.

use agent_trace_store::ErrorKind;
use agent_trace_store::progress::Silent;
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::bucket::fake::{Ask, Fault};
use agent_trace_sync::gc::{GcReport, gc};
use agent_trace_sync::inspect::inspect;
use agent_trace_sync::limits::GRACE_MICROS;
use agent_trace_sync::pull::{PullOptions, pull};
use agent_trace_sync::push::{PushOptions, push};
use agent_trace_sync::remote::Remote;

use super::world::World;

fn days(world: &World, days: u64) {
    world.env.clock.sleep(days * 86_400_000_000);
}

fn clear(world: &World, store: &agent_trace_store::Store) -> GcReport {
    gc(store, &world.remote(false).unwrap(), false, &Silent).unwrap()
}

fn segments(world: &World) -> usize {
    world.bucket.keys().iter().filter(|key| key.contains("/segments/")).count()
}

/// Twelve small pushes by two stores; both know all.
fn small_pushes(world: &World) -> (agent_trace_store::Store, agent_trace_store::Store) {
    let (a, b) = (world.store("/a"), world.store("/b"));
    for number in 0..6 {
        world.add(&a, number * 10..number * 10 + 8);
        world.push(&a).unwrap();
        world.add(&b, 1000 + number * 10..1000 + number * 10 + 5);
        world.push(&b).unwrap();
    }
    world.pull(&a).unwrap();
    world.pull(&b).unwrap();
    (a, b)
}

#[test]
fn small_segments_become_one_and_the_old_ones_go_after_the_grace() {
    let world = World::new(21);
    let (a, b) = small_pushes(&world);
    let all = world.records(&a);
    let planned = gc(&b, &world.remote(false).unwrap(), true, &Silent).unwrap();
    assert_eq!((planned.merged, planned.made, segments(&world)), (12, 0, 12), "a plan changes nothing");
    let report = clear(&world, &b);
    assert_eq!((report.merged, report.made, report.removed, report.waiting), (12, 1, 0, 12));
    assert_eq!(segments(&world), 13);
    for store in [&a, &b] {
        assert_eq!(world.push(store).unwrap().segments, 0);
        assert_eq!(world.pull(store).unwrap().segments, 0, "nothing is new in the merged one");
    }
    days(&world, 13);
    assert_eq!(clear(&world, &a).removed, 0);
    days(&world, 2);
    let report = clear(&world, &a);
    assert_eq!((report.merged, report.removed, report.waiting), (0, 12, 0));
    assert_eq!(segments(&world), 1);
    let new = world.store("/new");
    let pulled = world.pull(&new).unwrap();
    assert_eq!((pulled.refused, pulled.segments), (Vec::new(), 1));
    assert!(world.records(&new) == all);
    let inspected = inspect(&new, &world.remote(false).unwrap(), &Silent).unwrap();
    assert_eq!((inspected.segments, inspected.events, inspected.problems), (1, all.len() as u64, Vec::new()));
    world.add(&a, 500..503);
    world.push(&a).unwrap();
    world.pull(&new).unwrap();
    assert_eq!(world.records(&new).len(), all.len() + 3);
}

#[test]
fn two_that_clear_up_at_once_lose_nothing() {
    let world = World::new(22);
    let (a, b) = small_pushes(&world);
    let all = world.records(&a);
    // The list that the second one gets is from before the first.
    clear(&world, &a);
    world.bucket.plan(Some(Box::new(|ask: &Ask<'_>| {
        (ask.method == "GET" && ask.key.is_empty()).then_some(Fault::LateList)
    })));
    clear(&world, &b);
    world.bucket.plan(None);
    days(&world, 15);
    clear(&world, &a);
    clear(&world, &b);
    let new = world.store("/new");
    assert_eq!(world.pull(&new).unwrap().refused, Vec::<String>::new());
    assert!(world.records(&new) == all);
}

#[test]
fn a_pull_that_knows_old_segments_only_reads_the_heads_again() {
    let world = World::new(28);
    let (a, b) = (world.store("/a"), world.store("/b"));
    for number in 0..9 {
        world.add(&a, number * 10..number * 10 + 4);
        world.push(&a).unwrap();
    }
    world.add(&b, 500..502);
    // It learns what stands there, and takes nothing. The second push remembers the versions of the heads too.
    world.push(&b).unwrap();
    world.push(&b).unwrap();
    world.bucket.freeze_late_lists();
    clear(&world, &a);
    days(&world, 15);
    assert_eq!(clear(&world, &a).removed, 9);
    let mut lists = 0;
    world.bucket.plan(Some(Box::new(move |ask: &Ask<'_>| {
        lists += u32::from(ask.method == "GET" && ask.key.is_empty());
        (lists == 1 && ask.key.is_empty()).then_some(Fault::LateList)
    })));
    let report = world.pull(&b).unwrap();
    assert_eq!((report.refused, report.segments), (Vec::new(), 1));
    assert_eq!(world.records(&b).len(), 38);
}

#[test]
fn what_a_push_left_behind_goes_late_and_is_sent_again_before() {
    let world = World::new(23);
    let a = world.store("/a");
    world.push(&a).unwrap();
    world.add(&a, 0..50);
    let no_head =
        |ask: &Ask<'_>| (ask.method == "PUT" && ask.key.contains("/heads/")).then_some(Fault::LostRequest);
    world.bucket.plan(Some(Box::new(no_head)));
    assert!(world.push(&a).is_err());
    world.bucket.plan(None);
    let b = world.store("/b");
    world.add(&b, 100..103);
    world.push(&b).unwrap();
    days(&world, 8);
    assert_eq!(clear(&world, &b).removed, 0, "its push may still go on");
    // More than half of the grace is over, so what arrived then does not count any more.
    let sent = world.push(&a).unwrap();
    assert_eq!(sent.segments, 1);
    days(&world, 7);
    let report = clear(&world, &b);
    assert_eq!(report.removed, 2, "a segment and a manifest that nobody named");
    let new = world.store("/new");
    assert_eq!(world.pull(&new).unwrap().refused, Vec::<String>::new());
    assert_eq!(world.records(&new).len(), 53);
}

#[test]
fn a_push_that_took_too_long_looks_again() {
    let world = World::new(24);
    let a = world.store("/a");
    world.add(&a, 0..50);
    let clock = std::sync::Arc::clone(&world.env.clock);
    let mut slept = false;
    world.bucket.plan(Some(Box::new(move |ask| {
        if ask.method == "HEAD" && ask.key.contains("/segments/") && !slept {
            slept = true;
            clock.sleep(GRACE_MICROS.unsigned_abs() / 2 + 1_000_000);
        }
        None
    })));
    let error = world.push(&a).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    world.bucket.plan(None);
    assert_eq!(world.push(&a).unwrap().segments, 1);
}

#[test]
fn where_something_cannot_be_read_nothing_is_removed() {
    let world = World::new(25);
    let (a, b) = small_pushes(&world);
    clear(&world, &a);
    days(&world, 20);
    let manifest = world.bucket.keys().into_iter().find(|key| key.contains("/manifests/")).unwrap();
    world.bucket.set(&manifest, Some("nonsense".into()));
    let before = segments(&world);
    // Who knows what the manifest said sees it only when all is read again.
    let report = clear(&world, &b);
    assert_eq!((report.removed, report.refused.len()), (0, 1), "{report:?}");
    assert_eq!(segments(&world), before);
}

#[test]
fn clearing_up_is_cut_at_each_request() {
    let requests = {
        let world = World::new(26);
        let (a, _) = small_pushes(&world);
        world.bucket.asked();
        clear(&world, &a);
        world.bucket.asked().len() as u64
    };
    for at in (0..requests).step_by(6) {
        for fault in [Fault::LostRequest, Fault::LostAnswer] {
            let world = World::new(26);
            let (a, b) = small_pushes(&world);
            let all = world.records(&a);
            world.bucket.plan(Some(Box::new(move |ask| (ask.number >= at).then_some(fault))));
            let cut = world.remote(false).and_then(|remote| gc(&a, &remote, false, &Silent));
            assert_eq!(cut.unwrap_err().kind(), ErrorKind::Unavailable);
            world.bucket.plan(None);
            let middle = world.store("/middle");
            assert_eq!(world.pull(&middle).unwrap().refused, Vec::<String>::new(), "{fault:?} from {at} on");
            assert!(world.records(&middle) == all);
            clear(&world, &a);
            days(&world, 15);
            clear(&world, &b);
            let new = world.store("/new");
            assert_eq!(world.pull(&new).unwrap().refused, Vec::<String>::new(), "{fault:?} from {at} on");
            assert!(world.records(&new) == all);
        }
    }
}

#[test]
fn a_folder_is_cleared_up_alike() {
    let world = World::new(27);
    let address = RemoteUrl::Folder("/remote".into());
    let open = || Remote::open(&world.env, &address, true).unwrap();
    let a = world.store("/a");
    let full = PushOptions { full: true, ..PushOptions::default() };
    for number in 0..9 {
        world.add(&a, number * 10..number * 10 + 5);
        push(&a, &open(), &full, &Silent).unwrap();
    }
    let report = gc(&a, &open(), false, &Silent).unwrap();
    assert_eq!((report.merged, report.made, report.waiting), (9, 1, 9));
    days(&world, 15);
    assert_eq!(gc(&a, &open(), false, &Silent).unwrap().removed, 9);
    let new = world.store("/new");
    pull(&new, &open(), &PullOptions::default(), &Silent).unwrap();
    assert_eq!(world.records(&new).len(), 45);
}
