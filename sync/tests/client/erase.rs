//! Erasing by way of the service itself: its bytes go at once, those of other stores with their next pull.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::path::Path;

use agent_trace_store::erase::{self, Wanted};
use agent_trace_store::progress::Silent;
use agent_trace_store::{ErrorKind, Kind, ObjectId, Store};
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::take::PullOptions;

use crate::real::{client, start_with};
use crate::{add, add_transcript, full, noise, records, trace, world};

/// Whether some file below a directory holds these bytes as they are; noise is never stored shorter.
fn stands_in(dir: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return stands_in(&path, needle);
        }
        std::fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    })
}

fn erase(store: &Store, wanted: &Wanted) {
    let plan = erase::plan(store, wanted).unwrap();
    assert!(!plan.is_empty());
    erase::execute(store, &plan, None, &Silent).unwrap();
}

#[test]
fn own_records_go_from_the_service_at_once_and_those_of_others_need_a_scope() {
    let dir = tempfile::tempdir().unwrap();
    let at = start_with(&dir, &[&[Scope::Read, Scope::Write], &[Scope::Read, Scope::Write, Scope::Erase]]);
    let (url, plain, may) = (&at.0, &at.1[0], &at.1[1]);
    let (plain, may) = ((url.clone(), plain.clone()), (url.clone(), may.clone()));
    let (disk, env, stores) = world(&["/a", "/b", "/c"]);
    let [a, b, c] = &stores[..] else { unreachable!() };
    let content = noise(300_000);
    let needle = &content[100_000..100_064];
    add(a, Kind::TRACE, (0..50).map(trace));
    let body = add_transcript(&disk, a, "gone", &content);
    client(&env, &plain).push(a, &full(), &Silent).unwrap();
    client(&env, &plain).pull(b, &PullOptions::default(), &Silent).unwrap();
    assert_eq!(b.read(&body).unwrap(), content);
    assert!(stands_in(dir.path(), needle));

    let mut wanted = Wanted::default();
    wanted.add_conversation(a, &a.snapshot().unwrap(), "gone").unwrap();
    erase(a, &wanted);
    client(&env, &plain).push(a, &full(), &Silent).unwrap();
    assert!(!stands_in(dir.path(), needle), "the service has dropped it");
    let pulled = client(&env, &plain).pull(b, &PullOptions::default(), &Silent).unwrap();
    assert_eq!((&pulled.refused, pulled.dropped > 0), (&Vec::new(), true));
    assert_eq!(b.read(&body).unwrap_err().kind(), ErrorKind::NotFound);
    let pulled = client(&env, &plain).pull(c, &PullOptions::default(), &Silent).unwrap();
    assert_eq!((&pulled.refused, pulled.erased), (&Vec::new(), 1));
    assert_eq!(records(a), records(c));

    let one = ObjectId::of(&trace(7));
    erase(b, &Wanted { named: BTreeSet::from([one]), ..Wanted::default() });
    let refused = client(&env, &plain).push(b, &full(), &Silent).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    client(&env, &may).push(b, &full(), &Silent).unwrap();
    for store in [a, c] {
        client(&env, &plain).pull(store, &PullOptions::default(), &Silent).unwrap();
        assert!(store.read(&one).is_err());
        assert_eq!(store.read(&ObjectId::of(&trace(8))).unwrap(), trace(8));
        assert_eq!(records(store), records(b));
    }
    // Nothing is put back by one that never knew, and nothing else is told.
    add(c, Kind::TRACE, [trace(7), trace(900)]);
    let pushed = client(&env, &plain).push(c, &full(), &Silent).unwrap();
    assert_eq!(pushed.sent[&Kind::TRACE], 1);
}
