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
    let wanted = expected.transcripts.values().map(|body| (ObjectId::of(body), 1)).collect();
    assert_same(&bodies, &wanted, &format!("{what}: transcripts"));
}

fn assert_same<K: Ord + std::fmt::Debug>(
    found: &BTreeMap<K, usize>,
    wanted: &BTreeMap<K, usize>,
    what: &str,
) {
    let missing: Vec<_> = wanted.keys().filter(|id| !found.contains_key(id)).collect();
    let foreign: Vec<_> = found.keys().filter(|id| !wanted.contains_key(id)).collect();
    let twice: Vec<_> = found.iter().filter(|(_, count)| **count > 1).map(|(id, _)| id).collect();
    assert!(missing.is_empty(), "{what} that are lost: {missing:?}");
    assert!(foreign.is_empty(), "{what} that nobody sent: {foreign:?}");
    assert!(twice.is_empty(), "{what} that are there twice: {twice:?}");
}
