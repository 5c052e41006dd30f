//! Records for the tests of exchanging, and how they get into a store.

use agent_trace_store::intake::Intake;
use agent_trace_store::record::facts;
use agent_trace_store::{Kind, Store};

/// The id of the trace with a number.
pub(crate) fn trace_id(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

/// A ledger that names traces.
pub(crate) fn ledger(number: u32, names: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let ids: Vec<String> = names.into_iter().map(|name| format!("\"{}\"", trace_id(name))).collect();
    format!(
        r#"{{"commit_sha":"{number:040x}","created_at":"2026-02-01T00:00:00Z","files":{{}},"trace_ids":[{}]}}"#,
        ids.join(",")
    )
    .into_bytes()
}

/// Takes records in.
pub(crate) fn add(store: &Store, kind: Kind, records: impl IntoIterator<Item = Vec<u8>>) {
    let mut intake = Intake::new(store);
    for bytes in records {
        let facts = facts(kind, &bytes).unwrap();
        intake.record(kind, &bytes, &facts, facts.time.unwrap(), &[]).unwrap();
    }
    intake.finish().unwrap();
    store.catch_up().unwrap();
}
