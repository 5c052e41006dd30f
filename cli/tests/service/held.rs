//! What stores must hold in the end: every record once, every transcript byte for byte, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use agent_trace_store::env::os_env;
use agent_trace_store::question::{self, Query};
use agent_trace_store::{Kind, ObjectId, Store};

use crate::layout::Layout;
use crate::support::{self, is_sound};

/// Opens a store past the program, checks it with the program, and compares what is in it.
pub(crate) fn assert_holds(store: &Path, expected: &Layout, what: &str) {
    let verified = support::command(support::PROGRAM, Path::new("/"), Path::new("/nobody"))
        .arg("--store")
        .arg(store)
        .args(["verify", "--json"])
        .output()
        .unwrap();
    let report = serde_json::from_slice(&verified.stdout)
        .unwrap_or_else(|error| panic!("{what}: {error}: {}", String::from_utf8_lossy(&verified.stderr)));
    assert!(is_sound(&report), "{what}: {report}");
    let store = Store::open(&os_env(), store).unwrap();
    let found = question::list(&store, &store.snapshot().unwrap(), &Query::default()).unwrap();
    let mut records: BTreeMap<String, usize> = BTreeMap::new();
    let mut bodies: BTreeMap<ObjectId, usize> = BTreeMap::new();
    for found in &found {
        if found.event.fact.kind == Kind::TRANSCRIPT {
            let body = found.event.fact.objects[1];
            assert_eq!(ObjectId::of(&store.read(&body).unwrap()), body, "{what}: bytes of a transcript");
            *bodies.entry(body).or_default() += 1;
        } else {
            *records.entry(found.record().to_string()).or_default() += 1;
        }
    }
    let wanted: BTreeMap<String, usize> = expected.record_ids().into_iter().map(|id| (id, 1)).collect();
    assert_same(&records, &wanted, &format!("{what}: records"));
    // Short ones of several conversations are the same bytes.
    let mut wanted = BTreeMap::new();
    expected.transcripts.values().for_each(|body| *wanted.entry(ObjectId::of(body)).or_default() += 1);
    assert_same(&bodies, &wanted, &format!("{what}: transcripts"));
}

fn assert_same<K: Ord + std::fmt::Debug>(
    found: &BTreeMap<K, usize>,
    wanted: &BTreeMap<K, usize>,
    what: &str,
) {
    let few = |one: &BTreeMap<K, usize>, other: &BTreeMap<K, usize>| {
        let lacks = |(id, count): &(&K, &usize)| other.get(id).unwrap_or(&0) < *count;
        one.iter()
            .filter(lacks)
            .map(|(id, count)| format!("{id:?} {count}, not {:?}", other.get(id)))
            .collect::<Vec<_>>()
    };
    let (lost, doubled) = (few(wanted, found), few(found, wanted));
    assert!(lost.is_empty(), "{what} that are lost: {lost:?}");
    assert!(doubled.is_empty(), "{what} that nobody sent, or not so often: {doubled:?}");
}
