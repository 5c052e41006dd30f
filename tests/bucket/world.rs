//! A few stores on one simulated disk, and one bucket.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::intake::Intake;
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record::facts;
use agent_trace_store::{Kind, ObjectId, Result, Store};
use agent_trace_sync::address::{Plaintext, RemoteUrl};
use agent_trace_sync::bucket::fake::FakeBucket;
use agent_trace_sync::bucket::{Bucket, BucketOptions, BucketUrl, Credential};
use agent_trace_sync::pull::{PullOptions, PullReport, pull};
use agent_trace_sync::push::{PushOptions, PushReport, push};
use agent_trace_sync::remote::Remote;
use agent_trace_tests::trace;

pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) bucket: FakeBucket,
    // The files live as long as this.
    _disk: SimDisk,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let disk = SimDisk::new(seed);
        let env = disk.env();
        let bucket = FakeBucket::new(Arc::clone(&env.clock));
        World { env, bucket, _disk: disk }
    }

    pub(crate) fn store(&self, path: &str) -> Store {
        Store::init(&self.env, Path::new(path)).unwrap()
    }

    pub(crate) fn add(&self, store: &Store, numbers: Range<u64>) {
        let mut intake = Intake::new(store);
        for number in numbers {
            let bytes = trace(number, &format!("c{}", number % 7));
            let facts = facts(Kind::TRACE, &bytes).unwrap();
            intake.record(Kind::TRACE, &bytes, &facts, facts.time.unwrap(), &[]).unwrap();
        }
        intake.finish().unwrap();
        store.catch_up().unwrap();
    }

    pub(crate) fn remote(&self, create: bool) -> Result<Remote> {
        let url = url();
        let bucket = Bucket::over(&self.env, &url, Arc::new(self.bucket.clone()))?;
        Remote::over(&self.env, Box::new(bucket), &RemoteUrl::Bucket(Box::new(url)).name(), create)
    }

    pub(crate) fn push(&self, store: &Store) -> Result<PushReport> {
        let options = PushOptions { full: true, ..PushOptions::default() };
        push(store, &self.remote(true)?, &options, &Silent)
    }

    pub(crate) fn pull(&self, store: &Store) -> Result<PullReport> {
        pull(store, &self.remote(false)?, &PullOptions::default(), &Silent)
    }

    pub(crate) fn records(&self, store: &Store) -> Vec<ObjectId> {
        let found = question::list(store, &store.snapshot().unwrap(), &Query::default()).unwrap();
        let mut ids: Vec<ObjectId> = found.iter().map(|found| found.record()).collect();
        ids.sort_unstable();
        ids
    }
}

fn url() -> BucketUrl {
    let Ok(RemoteUrl::Bucket(url)) = RemoteUrl::parse("s3://team/traces", Plaintext::Loopback) else {
        unreachable!("it is the URL of a bucket")
    };
    let options = BucketOptions { endpoint: Some("http://127.0.0.1".to_owned()), ..BucketOptions::default() };
    let mut url = url.with_options(options, Plaintext::Loopback).unwrap();
    url.credentials.set(Credential::AccessKey, "key");
    url.credentials.set(Credential::SecretKey, "secret");
    url
}

/// How often what was asked, in order of the names.
pub(crate) fn counts(asked: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for asked in asked {
        let (method, key) = asked.split_once(' ').unwrap();
        *counts.entry(if key.is_empty() { "LIST" } else { method }).or_default() += 1;
    }
    counts.into_iter().map(|(method, count)| format!("{count} {method}")).collect()
}
