//! An import that is cut at any operation: all of the bundle is there, or nothing of it, and the same again comes to its end.

use std::path::Path;

use agent_trace_store::env::sim::{FaultKind, Repeat};
use agent_trace_store::{Kind, Store, switches};
use agent_trace_sync::bundle::import;

use crate::world::{World, add, events, open, sound, trace};

/// How an operation fails.
#[derive(Clone, Copy, Debug)]
enum Way {
    PowerCut,
    Fail(FaultKind, Repeat),
}

/// A bundle, and a store that has a part of it and something else.
fn prepared(bytes: u32) -> (World, Vec<u8>) {
    let world = World::new();
    let one = world.store("/one");
    add(&one, Kind::TRACE, (0..40).map(trace));
    let text: Vec<u8> = (0..bytes / 4).flat_map(|number| mixed(number).to_le_bytes()).collect();
    world.snapshot(&one, "conversation-1", &text[..1_000], 1);
    let first = world.all(&one);
    let two = world.store("/two");
    add(&two, Kind::TRACE, (100..105).map(trace));
    world.import(&two, &first);
    world.snapshot(&one, "conversation-1", &text, 2);
    add(&one, Kind::TRACE, (40..60).map(trace));
    let bytes = world.all(&one);
    (world, bytes)
}

/// A number that does not compress.
fn mixed(number: u32) -> u32 {
    let mixed = (number ^ 0x5bd1_e995).wrapping_mul(2_654_435_761);
    (mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519) ^ (mixed >> 13)
}

/// Cuts an import at every so many operations, in one way; returns how many cuts there were.
fn cut(world: &World, bytes: &[u8], way: Way, stride: usize) -> usize {
    let two = Store::open(&world.env, Path::new("/two")).unwrap();
    let before = events(&two);
    drop(two);
    let (mut after, mut cuts) = (Vec::new(), 0);
    for at in (0..).step_by(stride) {
        let disk = world.disk.snapshot(at);
        let (_, env) = disk.process();
        let store = Store::open(&env, Path::new("/two")).unwrap();
        match way {
            Way::PowerCut => disk.crash_at(disk.operations() + at),
            Way::Fail(kind, repeat) => disk.fail_at(disk.operations() + at, kind, repeat),
        }
        let done = import(&store, &open(bytes).unwrap(), false, false, &agent_trace_store::progress::Silent);
        let was_cut = !disk.is_powered() || disk.faults_hit() > 0;
        drop(store);
        disk.clear_faults();
        if disk.is_powered() {
            // What was acknowledged must survive a power cut; what was not may be lost.
            disk.crash();
        }
        disk.restart();
        let (_, env) = disk.process();
        let store = Store::open(&env, Path::new("/two")).unwrap();
        let found = events(&store);
        let cut = World { disk, env };
        sound(&store);
        if done.is_err() && found == before {
            // Nothing of it.
        } else {
            if after.is_empty() {
                after.clone_from(&found);
                assert_eq!(after.len(), before.len() + 21, "{way:?} at {at}: all of it");
            }
            assert_eq!(found, after, "{way:?} at {at}: all of it or nothing");
        }
        cut.import(&store, bytes);
        sound(&store);
        assert_eq!(events(&store).len(), before.len() + 21, "{way:?} at {at}: the same again");
        if !was_cut {
            assert!(done.is_ok(), "{way:?} at {at}: {done:?}");
            return cuts;
        }
        cuts += 1;
    }
    unreachable!("an import ends")
}

fn every_way(transcript_bytes: u32, stride: usize) {
    let (world, bytes) = prepared(transcript_bytes);
    let cuts = cut(&world, &bytes, Way::PowerCut, stride);
    assert!(cuts > 5, "{cuts} cuts");
    for kind in [FaultKind::Eio, FaultKind::Enospc, FaultKind::SyncFail] {
        cut(&world, &bytes, Way::Fail(kind, Repeat::Once), 3 * stride);
        cut(&world, &bytes, Way::Fail(kind, Repeat::FromThenOn), 7 * stride);
    }
}

#[test]
fn an_import_in_one_batch_is_there_whole_or_not_at_all() {
    every_way(12_000, 1);
}

#[test]
fn an_import_of_segments_is_there_whole_or_not_at_all() {
    if cfg!(feature = "sim") {
        switches::make_small(true);
        every_way(40_000, 1);
        switches::make_small(false);
    } else {
        every_way(5 << 20, 5);
    }
}
