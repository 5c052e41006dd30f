//! Stores on a simulated disk, and bundles between them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::env::{Env, File};
use agent_trace_store::intake::Intake;
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::{Kind, ObjectId, Result, Store, Timestamp};
use agent_trace_sync::bundle::{
    Bundle, BundleInfo, BundleWriter, ExportOptions, ImportReport, NewFile, Wanted, execute, import, plan,
};

pub(crate) use crate::support::{add, ledger, trace_id};

pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) env: Env,
}

impl World {
    pub(crate) fn new() -> World {
        let disk = SimDisk::new(5);
        let env = disk.env();
        World { disk, env }
    }

    pub(crate) fn store(&self, name: &str) -> Store {
        Store::init(&self.env, Path::new(name)).unwrap()
    }

    pub(crate) fn snapshot(&self, store: &Store, conversation: &str, content: &[u8], time: i64) -> ObjectId {
        self.disk.write_file(Path::new("/t.jsonl"), content);
        let file = store.env().fs.open(Path::new("/t.jsonl")).unwrap();
        let mut intake = Intake::new(store);
        let body = intake.body(file.as_ref(), content.len() as u64, None).unwrap();
        let record = TranscriptRecord {
            conversation_id: conversation.into(),
            session_id: Some(format!("session of {conversation}")),
            agent: None,
            content_sha256: body.sha256.clone(),
            size: body.bytes,
            created_at: Timestamp::from_micros(time),
            source: None,
        };
        let bytes = record.encode();
        let facts = facts(Kind::TRANSCRIPT, &bytes).unwrap();
        intake.record(Kind::TRANSCRIPT, &bytes, &facts, record.created_at, &[body.id]).unwrap();
        intake.finish().unwrap();
        store.catch_up().unwrap();
        body.id
    }

    /// The bytes of a bundle of what is wanted.
    pub(crate) fn export(&self, store: &Store, options: &ExportOptions) -> (Vec<u8>, BundleInfo) {
        let path = Path::new("/out.atb");
        let flow = NewFile::create(&self.env, path).unwrap();
        let writer =
            BundleWriter::start(&self.env, Box::new(flow), &store.dir().join("tmp"), "/out.atb").unwrap();
        let plan = plan(store, options).unwrap();
        let info = execute(store, &plan, options, &writer, &Silent).unwrap();
        writer.finish().unwrap();
        let file = self.env.fs.open(path).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        (bytes, info)
    }

    pub(crate) fn all(&self, store: &Store) -> Vec<u8> {
        self.export(store, &ExportOptions::default()).0
    }

    pub(crate) fn try_import(&self, store: &Store, bytes: &[u8]) -> Result<ImportReport> {
        import(store, &open(bytes)?, false, false, &Silent)
    }

    pub(crate) fn import(&self, store: &Store, bytes: &[u8]) -> ImportReport {
        self.try_import(store, bytes).unwrap()
    }
}

pub(crate) fn open(bytes: &[u8]) -> Result<Bundle> {
    Bundle::of_file(Arc::new(Memory(bytes.to_vec())), "the bundle")
}

pub(crate) struct Memory(pub(crate) Vec<u8>);

impl File for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let length = buffer.len().min(self.0.len() - start);
        buffer[..length].copy_from_slice(&self.0[start..start + length]);
        Ok(length)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn sessions(names: &[&str]) -> ExportOptions {
    let sessions = names.iter().map(|name| (*name).to_owned()).collect();
    ExportOptions { wanted: Wanted { sessions, ..Wanted::default() }, ..ExportOptions::default() }
}

pub(crate) fn trace(number: u32) -> Vec<u8> {
    trace_of(number, number)
}

pub(crate) fn trace_of(number: u32, conversation: u32) -> Vec<u8> {
    format!(
        r#"{{"files":[{{"conversations":[{{"id":"conversation-{conversation}"}}],"path":"src/f.rs"}}],"id":"{}","metadata":{{"session_id":"session of conversation-{conversation}"}},"timestamp":"2026-01-01T00:00:{:02}Z","version":"2.0"}}"#,
        trace_id(number),
        number % 60
    )
    .into_bytes()
}

/// Every event with its record, by log.
pub(crate) fn events(store: &Store) -> Vec<(String, u64, Kind, String, Vec<ObjectId>)> {
    let found = question::list(store, &store.snapshot().unwrap(), &Query::default()).unwrap();
    let mut events: Vec<_> = found
        .into_iter()
        .map(|found| {
            let event = found.event;
            (event.writer.to_string(), event.seq.get(), event.fact.kind, event.fact.key, event.fact.objects)
        })
        .collect();
    events.sort();
    events
}

/// Fails unless two stores hold the same, and all of it can be read.
pub(crate) fn same(one: &Store, two: &Store) {
    assert_eq!(events(one), events(two));
    for (_, _, _, _, objects) in events(one) {
        for id in objects {
            assert_eq!(one.read(&id).unwrap(), two.read(&id).unwrap());
        }
    }
    sound(two);
}

pub(crate) fn sound(store: &Store) {
    let report = agent_trace_store::verify::verify(store, &Silent).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

/// All files of a store that count, with their bytes.
pub(crate) fn files(world: &World, store: &Store) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut waiting = vec![store.dir().to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in world.env.fs.list(&dir).unwrap() {
            let path = dir.join(&entry.name);
            let name = entry.name.to_string_lossy().into_owned();
            if entry.is_dir {
                waiting.push(path);
            } else if !name.ends_with("lock") && name != "index.redb" {
                let file = world.env.fs.open(&path).unwrap();
                let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
                file.read_exact_at(&mut bytes, 0).unwrap();
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    files
}
