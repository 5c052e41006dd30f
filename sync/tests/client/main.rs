//! The client against services that answer rightly, wrongly, late, in part and not at all.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod compare;
mod erase;
mod exchange;
mod lazy;
mod legacy;
mod project;
mod real;
mod refusals;
mod server;

use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::intake::Intake;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::{Kind, ObjectId, Store, Timestamp};
use agent_trace_sync::address::{Plaintext, RemoteUrl};
use agent_trace_sync::push::PushOptions;
use agent_trace_sync::service_remote::Service;
use agent_trace_sync::token::Token;

pub fn service(env: &Env, server: &server::Server) -> Service {
    let address = RemoteUrl::parse(&format!("{}/acme/web", server.url), Plaintext::Loopback).unwrap();
    let RemoteUrl::Service(url) = address else { panic!("it is a service") };
    Service::open(env, &url, Some(Token::parse("at_secret-of-acme").unwrap())).unwrap()
}

pub fn full() -> PushOptions {
    PushOptions { full: true, ..PushOptions::default() }
}

pub fn trace(number: u32) -> Vec<u8> {
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"conversation-{number}"}}],"path":"src/f.rs"}}],"id":"{number:08x}-0000-4000-8000-000000000000","timestamp":"2026-01-01T00:00:{:02}Z","version":"2.0"}}"#,
        number % 60
    )
    .into_bytes()
}

pub fn ledger(number: u32) -> Vec<u8> {
    format!(
        r#"{{"commit_sha":"{number:040x}","created_at":"2026-02-01T00:00:00Z","files":{{}},"trace_ids":[]}}"#
    )
    .into_bytes()
}

pub fn add(store: &Store, kind: Kind, records: impl IntoIterator<Item = Vec<u8>>) {
    let mut intake = Intake::new(store);
    for bytes in records {
        let facts = facts(kind, &bytes).unwrap();
        intake.record(kind, &bytes, &facts, facts.time.unwrap(), &[]).unwrap();
    }
    intake.finish().unwrap();
    store.catch_up().unwrap();
}

pub fn add_transcript(disk: &SimDisk, store: &Store, conversation: &str, content: &[u8]) -> ObjectId {
    disk.write_file(Path::new("/t.jsonl"), content);
    let file = store.env().fs.open(Path::new("/t.jsonl")).unwrap();
    let mut intake = Intake::new(store);
    let body = intake.body(file.as_ref(), content.len() as u64, None).unwrap();
    let record = TranscriptRecord {
        conversation_id: conversation.into(),
        session_id: None,
        agent: None,
        content_sha256: body.sha256.clone(),
        size: body.bytes,
        created_at: Timestamp::from_micros(7),
        source: None,
    };
    let bytes = record.encode();
    let facts = facts(Kind::TRANSCRIPT, &bytes).unwrap();
    intake.record(Kind::TRANSCRIPT, &bytes, &facts, record.created_at, &[body.id]).unwrap();
    intake.finish().unwrap();
    store.catch_up().unwrap();
    body.id
}

/// Bytes that do not compress.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    content
}

pub fn records(store: &Store) -> Vec<ObjectId> {
    let listed = question::list(store, &store.snapshot().unwrap(), &Query::default()).unwrap();
    let mut ids: Vec<ObjectId> = listed.iter().map(question::Found::record).collect();
    ids.sort_unstable();
    ids
}

pub fn world(names: &[&str]) -> (SimDisk, Env, Vec<Store>) {
    let disk = SimDisk::new(3);
    let env = disk.env();
    let stores = names.iter().map(|name| Store::init(&env, Path::new(name)).unwrap()).collect();
    (disk, env, stores)
}
