//! A running service over real accounts and archives on a simulated disk, which counts what is read and written.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::intake::Intake;
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::{EventId, Kind, ObjectId, SegmentId, Seq, Store, Timestamp};
use agent_trace_sync::service::archive::{Accounts, ArrivalRun, NewToken};
use agent_trace_sync::service::embedded::{AdminSecret, Embedded};
use agent_trace_sync::service::grant::{Scope, TokenId};
use agent_trace_sync::service::http::{Backend, Config, Server, Stopper};
use agent_trace_sync::wire::{ArrivalsBody, CommitRequest};

use crate::client::{Answer, Ask};
use crate::fake::sha256;
use crate::service::ADMIN;

pub(crate) struct Real {
    pub(crate) disk: SimDisk,
    pub(crate) address: SocketAddr,
    pub(crate) accounts: Arc<Embedded>,
    /// Ids of the organisations `acme` and `other`.
    pub(crate) orgs: [String; 2],
    stopper: Stopper,
    run: Option<JoinHandle<agent_trace_store::Result<()>>>,
}

/// What a project holds, by every name under which it could be asked for.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) org: String,
    pub(crate) project: String,
    /// The key of one record of each kind.
    pub(crate) key: String,
    pub(crate) blob: [u8; 32],
    pub(crate) object: ObjectId,
    pub(crate) segment: SegmentId,
    pub(crate) event: EventId,
    pub(crate) run: ArrivalRun,
    pub(crate) epoch: [u8; 16],
}

impl Real {
    /// `acme` has the projects `web` and `ops`, `other` has `theirs`.
    pub(crate) fn start() -> Real {
        let disk = SimDisk::new(11);
        let (accounts, address, stopper, run) = serve(&disk);
        let orgs = ["acme", "other"].map(|slug| accounts.put_org(slug, None, None).unwrap().0.id);
        for (org, slug) in [(0, "web"), (0, "ops"), (1, "theirs")] {
            accounts.create_project(&orgs[org], slug, None, None).unwrap();
        }
        Real { disk, address, accounts, orgs, stopper, run: Some(run) }
    }

    /// Ends it and starts it again, so that no archive is open.
    pub(crate) fn restarted(mut self) -> Real {
        let (disk, orgs) = (self.disk.clone(), self.orgs.clone());
        self.end();
        drop(self);
        let (accounts, address, stopper, run) = serve(&disk);
        Real { disk, address, accounts, orgs, stopper, run: Some(run) }
    }

    fn end(&mut self) {
        self.stopper.stop();
        if let Some(run) = self.run.take() {
            run.join().unwrap().unwrap();
        }
    }

    /// The id and the secret of a new token.
    pub(crate) fn token(
        &self,
        org: usize,
        project: Option<&str>,
        scopes: &[Scope],
        expires_at: Option<Timestamp>,
    ) -> (TokenId, String) {
        let new = NewToken {
            org_id: self.orgs[org].clone(),
            project: project.map(str::to_owned),
            scopes: scopes.to_owned(),
            name: None,
            expires_at,
        };
        let (row, token) = self.accounts.create_token(&new).unwrap();
        (row.id, token.expose().to_owned())
    }

    pub(crate) fn ask(&self, ask: &Ask) -> Answer {
        ask.send(self.address)
    }

    /// The answer, and how often the disk was used for it.
    pub(crate) fn ask_counted(&self, ask: &Ask) -> (Answer, u64) {
        let used = || self.disk.operations() + self.disk.observations();
        let before = used();
        let answer = self.ask(ask);
        (answer, used() - before)
    }

    /// Puts one record of each kind and a transcript into a project, as a client of protocol 2 does.
    pub(crate) fn fill(&self, org: usize, project: &str, key: &str, bytes: &[u8]) -> Names {
        let slug = ["acme", "other"][org];
        let (_, token) = self.token(org, None, &[Scope::Read, Scope::Write], None);
        let at = |path: &str| format!("/api/v2/{slug}/{project}/{path}");
        let store = made(&self.disk, project, key, bytes);
        let sealed = store.segments().sealed[0].clone();
        let mut file = vec![0; usize::try_from(sealed.bytes).unwrap()];
        sealed.file.read_exact_at(&mut file, 0).unwrap();
        let put = Ask::new("PUT", at(&format!("uploads/{}?offset=0", sealed.id))).token(&token);
        let put = put.header("X-Chunk-Blake3", blake3::hash(&file).to_string()).body(file);
        assert_eq!(self.ask(&put).status, 200);
        let tail = store.tail().unwrap();
        let tip = store.key().tip(Seq::new(tail.seq).unwrap(), tail.event);
        let commit = CommitRequest { batch: batch(), segments: vec![sealed.id], tips: vec![tip] };
        let done = self.ask(&Ask::new("POST", at("commit")).token(&token).body(commit.encode()));
        assert_eq!((done.status, done.json()["taken"].as_u64()), (200, Some(tail.seq)), "{}", done.text());
        let arrivals = self.ask(&Ask::new("GET", at("arrivals")).token(&token));
        let epoch = ArrivalsBody::decode(&arrivals.body).unwrap().reached.epoch;
        Names {
            org: slug.to_owned(),
            project: project.to_owned(),
            key: key.to_owned(),
            blob: sha256(bytes),
            object: ObjectId::of(bytes),
            segment: sealed.id,
            event: tail.event,
            run: ArrivalRun { writer: tip.writer, seq_first: 1, count: tail.seq },
            epoch,
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.end();
    }
}

type Running = (Arc<Embedded>, SocketAddr, Stopper, JoinHandle<agent_trace_store::Result<()>>);

fn serve(disk: &SimDisk) -> Running {
    let env = disk.env();
    let (accounts, staging) = Embedded::open(&env, Path::new("/data")).unwrap();
    accounts.book().admit_admin(Some(&AdminSecret::parse(ADMIN).unwrap())).unwrap();
    let accounts = Arc::new(accounts);
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        metrics: None,
        tls: None,
        spool: "/data/spool".into(),
        requests_per_second: 1_000_000,
    };
    let server = Server::bind(&config, Backend { env, accounts: accounts.clone(), staging }).unwrap();
    let (address, stopper) = (server.address(), server.stopper());
    (accounts, address, stopper, std::thread::spawn(move || server.run()))
}

/// No two commits have one name.
pub(crate) fn batch() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut batch = [7; 16];
    batch[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    batch
}

/// A store of one sealed segment.
fn made(disk: &SimDisk, name: &str, key: &str, bytes: &[u8]) -> Store {
    let dir = Path::new("/clients").join(name);
    let store = Store::init(&disk.env(), &dir).unwrap();
    disk.write_file(Path::new("/body"), bytes);
    let file = disk.env().fs.open(Path::new("/body")).unwrap();
    let mut intake = Intake::new(&store);
    let body = intake.body(file.as_ref(), bytes.len() as u64, None).unwrap();
    let transcript = TranscriptRecord {
        conversation_id: key.into(),
        session_id: None,
        agent: None,
        content_sha256: body.sha256.clone(),
        size: body.bytes,
        created_at: Timestamp::from_micros(7),
        source: None,
    };
    let time = "2026-01-01T00:00:00Z";
    for (kind, record, objects) in [
        (Kind::TRANSCRIPT, transcript.encode(), vec![body.id]),
        (
            Kind::TRACE,
            format!(r#"{{"files":[],"id":"{key}","timestamp":"{time}","version":"2.0"}}"#).into(),
            vec![],
        ),
        (
            Kind::LEDGER,
            format!(r#"{{"commit_sha":"{key}","created_at":"{time}","files":{{}},"trace_ids":[]}}"#).into(),
            vec![],
        ),
    ] {
        let facts = facts(kind, &record).unwrap();
        intake.record(kind, &record, &facts, facts.time.unwrap(), &objects).unwrap();
    }
    intake.finish().unwrap();
    store.seal().unwrap();
    store.refresh().unwrap();
    store
}
