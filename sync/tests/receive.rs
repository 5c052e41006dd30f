//! What a segment from elsewhere brings is checked before it counts, and then known to the index as if it had been read
//! again.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use agent_trace_store::build::Builder;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::frame::{Effort, Packer};
use agent_trace_store::limits::RECIPE_DEPTH_MAX;
use agent_trace_store::log::Prepared;
use agent_trace_store::object::{ObjectsBuilder, ObjectsFrame, Part, Recipe};
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::segment::LogTail;
use agent_trace_store::segments::Sealed;
use agent_trace_store::verify::verify;
use agent_trace_store::{ErrorKind, Kind, ObjectId, Store};
use agent_trace_sync::address::{Plaintext, RemoteUrl};
use agent_trace_sync::pull::{PullOptions, pull};
use agent_trace_sync::push::{PushOptions, push};
use agent_trace_sync::receive::{Neighbours, Verdict, check};
use agent_trace_sync::remote::Remote;

mod support;

use support::{add, ledger, trace_id};

fn part(bytes: &[u8]) -> Part {
    Part { id: ObjectId::of(bytes), bytes: bytes.len() as u64 }
}

fn recipe(whole: &[u8], parts: &[Part]) -> Recipe {
    Recipe {
        id: ObjectId::of(whole),
        bytes: parts.iter().map(|part| part.bytes).sum(),
        parts: parts.to_vec(),
    }
}

fn packed(plain: &[&[u8]], recipes: &[Recipe]) -> ObjectsFrame {
    let mut builder = ObjectsBuilder::new();
    plain.iter().for_each(|bytes| builder.add(ObjectId::of(bytes), bytes));
    recipes.iter().for_each(|recipe| builder.add_recipe(recipe));
    builder.finish(&mut Packer::new(Effort::FAST))
}

/// What is said of a segment with these objects; the store holds `here`.
fn checked(plain: &[&[u8]], recipes: &[Recipe]) -> Result<Verdict, ErrorKind> {
    let disk = SimDisk::new(1);
    let store = Store::init(&disk.env(), Path::new("/s")).unwrap();
    store.append(Prepared { frames: vec![packed(&[b"here"], &[])], ..Prepared::default() }).unwrap();
    let tail = LogTail::empty(store.writer());
    let mut builder = Builder::new(&disk.env(), &store.dir().join("tmp"), tail).unwrap();
    builder.objects(&packed(plain, recipes)).unwrap();
    let built = builder.finish().unwrap();
    let sealed = Arc::new(Sealed::open(&disk.env(), &built.path, built.id).unwrap());
    check(&store, &sealed, &BTreeMap::new(), &Neighbours::default()).map_err(|error| error.kind())
}

#[track_caller]
fn is_good(plain: &[&[u8]], recipes: &[Recipe]) {
    assert!(matches!(checked(plain, recipes), Ok(Verdict::Good(_))));
}

#[track_caller]
fn is_refused(plain: &[&[u8]], recipes: &[Recipe]) {
    assert!(matches!(checked(plain, recipes), Err(ErrorKind::Corrupt)));
}

#[test]
fn recipes_put_together_what_they_say() {
    let (one, two) = (&b"one "[..], &b"two "[..]);
    let base = recipe(b"one two ", &[part(one), part(two)]);
    is_good(&[one, two], std::slice::from_ref(&base));
    let grown = recipe(b"one two one ", &[part(b"one two "), part(one)]);
    is_good(&[one, two], &[base.clone(), grown.clone()]);
    // Parts that the store holds, and not the segment.
    is_good(&[one], &[recipe(b"one here", &[part(one), part(b"here")])]);
    is_refused(&[one, two], &[recipe(b"two one ", &[part(one), part(two)])]);
    is_refused(&[one], &[recipe(b"here one", &[part(one), part(b"here")])]);
    is_refused(&[one, two], &[recipe(b"one three ", &[part(one), part(two)])]);
    // A false base under a recipe that is false in the same way.
    let bad = Recipe { id: ObjectId::of(b"one one "), ..base.clone() };
    is_refused(&[one, two], &[bad, recipe(b"one two one ", &[part(b"one one "), part(one)])]);
    // A part of another length than it has.
    let long = Part { bytes: 5, ..part(two) };
    is_refused(&[one, two], &[recipe(b"one two ", &[part(one), long])]);
    is_refused(&[one], &[Recipe { bytes: 9, ..recipe(b"one one ", &[part(one), part(one)]) }]);
    assert!(matches!(
        checked(&[one], &[recipe(b"one none", &[part(one), part(b"none")])]),
        Ok(Verdict::Incomplete(id)) if id == [ObjectId::of(b"none")]
    ));
}

#[test]
fn recipes_are_not_too_deep() {
    let chain = |depth: usize| -> Vec<Recipe> {
        let mut base = part(b"a");
        (1..=depth)
            .map(|depth| {
                let made = recipe(&vec![b'a'; depth + 1], &[base, part(b"a")]);
                base = Part { id: made.id, bytes: made.bytes };
                made
            })
            .collect()
    };
    is_good(&[b"a"], &chain(RECIPE_DEPTH_MAX));
    is_refused(&[b"a"], &chain(RECIPE_DEPTH_MAX + 1));
}

#[test]
fn a_segment_that_is_kept_as_it_is_needs_no_second_reading() {
    let disk = SimDisk::new(7);
    let env = disk.env();
    let trace = |number: u32| {
        // Digits that do not compress: 400 traces fill a segment that is kept.
        let digits =
            |part: u32| ObjectId::of(&[number.to_le_bytes(), part.to_le_bytes()].concat()).to_string();
        let noise: String = (0..400).map(digits).collect();
        let (id, second) = (trace_id(number), number % 60);
        format!(
            r#"{{"files":[{{"path":"src/f{number}.rs"}}],"id":"{id}","noise":"{noise}","timestamp":"2026-01-01T00:00:{second:02}Z","version":"2.0"}}"#
        )
        .into_bytes()
    };
    let source = Store::init(&env, Path::new("/a")).unwrap();
    add(&source, Kind::TRACE, (0..400).map(trace));
    add(&source, Kind::LEDGER, [ledger(1, 0..400)]);
    source.seal().unwrap();
    let url = RemoteUrl::parse("file:///remote", Plaintext::Loopback).unwrap();
    let all = PushOptions { full: true, ..PushOptions::default() };
    push(&source, &Remote::open(&env, &url, true).unwrap(), &all, &Silent).unwrap();
    let store = Store::init(&env, Path::new("/b")).unwrap();
    let report =
        pull(&store, &Remote::open(&env, &url, false).unwrap(), &PullOptions::default(), &Silent).unwrap();
    assert_eq!((report.taken.get(&Kind::TRACE), &report.refused), (Some(&400), &Vec::new()));
    let ids = |store: &Store| -> Vec<_> {
        store
            .refresh()
            .unwrap()
            .sealed
            .iter()
            .filter(|sealed| sealed.bytes > 4 << 20)
            .map(|sealed| sealed.id)
            .collect()
    };
    assert!(!ids(&source).is_empty() && ids(&store) == ids(&source), "the file was kept as it is");
    let found = |store: &Store| -> Vec<_> {
        let listed = question::list(store, &store.snapshot().unwrap(), &Query::default()).unwrap();
        listed.iter().map(|found| found.record()).collect()
    };
    assert_eq!(found(&store), found(&source));
    assert_eq!(verify(&store, &Silent).unwrap().problems, Vec::new());
}
