//! A project of a service in memory, enough of it for a client: it numbers what arrives and gives it back as it came.
//! It checks nothing; the real service's tests do that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{EventId, SegmentId, WriterId};
use agent_trace_sync::collect::{Source, chosen_events};
use agent_trace_sync::reconcile::answer;
use agent_trace_sync::wire::{
    ArrivalRun, ArrivalsBody, BatchId, CommitRequest, CommittedBody, Cursor, FetchRequest, HoldsBody,
    HoldsRequest, OffsetBody, PartWriter, ReconcileRequest, encode_json,
};

use crate::server::{Request, Response};

#[derive(Default)]
pub struct Project {
    pub epoch: [u8; 16],
    pub position: u64,
    uploads: HashMap<SegmentId, Vec<u8>>,
    commits: Vec<(u64, ArrivalRun, SegmentId)>,
    tips: BTreeMap<WriterId, Tip>,
    pub batches: HashMap<BatchId, CommittedBody>,
    /// Bytes of segments are changed on the way.
    pub spoils: bool,
}

pub type Shared = Arc<Mutex<Project>>;

impl Project {
    pub fn with_epoch(epoch: [u8; 16]) -> Project {
        Project { epoch, ..Project::default() }
    }

    /// The newest position, and how many commits there were.
    pub fn counts(&self) -> (u64, usize) {
        (self.position, self.batches.len())
    }

    pub fn answer(&mut self, request: &Request) -> Response {
        let path = request.path.trim_start_matches("/api/v2/acme/web/");
        match (request.method.as_str(), path) {
            ("GET", "/api/v1/auth/whoami") => Response::new(
                200,
                r#"{"org_id":"1","org_slug":"acme","project_id_scope":"web","scopes":["read"]}"#,
            ),
            ("GET", "/api/v2/caps") => Response::new(200, encode_json(&agent_trace_sync::wire::Caps::ours())),
            ("GET", "arrivals") => self.arrivals(request),
            ("POST", "holds") => self.holds(&HoldsRequest::decode(&request.body).unwrap()),
            ("POST", "commit") => self.commit(&CommitRequest::decode(&request.body).unwrap()),
            ("POST", "reconcile") => self.reconcile(&ReconcileRequest::decode(&request.body).unwrap()),
            ("GET", "pull") => self.stream(|at, _, _| at > request.query["after"].parse().unwrap()),
            ("POST", "fetch") => {
                let FetchRequest { runs, ids } = FetchRequest::decode(&request.body).unwrap();
                let set = set_of(&runs);
                let named = |id: &SegmentId| {
                    !ids.is_empty() && self.event_ids(id).iter().any(|event| ids.contains(event))
                };
                self.stream(|_, run, id| set_of(&[*run]).minus(&set).len() < run.count || named(id))
            }
            ("PUT" | "GET", upload) if upload.starts_with("uploads/") => self.upload(request),
            _ => Response::new(404, r#"{"error":"no such thing","code":"not_found"}"#),
        }
    }

    fn arrivals(&self, request: &Request) -> Response {
        let reached = Cursor { epoch: self.epoch, position: self.position };
        let mut body = ArrivalsBody { reached, newest: self.position, runs: Vec::new(), tips: Vec::new() };
        if let Some(after) = request.query.get("after") {
            let after: u64 = after.parse().unwrap();
            if Cursor::parse_epoch(&request.query["epoch"]).unwrap() != self.epoch || after > self.position {
                return Response::new(409, r#"{"error":"another history","code":"epoch"}"#);
            }
            body.runs =
                self.commits.iter().filter(|(at, _, _)| *at > after).map(|(_, run, _)| *run).collect();
            body.tips = self.tips.values().copied().collect();
        }
        Response::new(200, body.encode())
    }

    fn reconcile(&self, request: &ReconcileRequest) -> Response {
        let ids: BTreeSet<EventId> = self.commits.iter().flat_map(|(_, _, id)| self.event_ids(id)).collect();
        let taken_at = Cursor { epoch: self.epoch, position: self.position };
        Response::new(200, answer(request, taken_at, ids.into_iter()).encode())
    }

    fn event_ids(&self, id: &SegmentId) -> Vec<EventId> {
        let source = Source::sealed(&Arc::new(self.sealed(id)));
        let numbers: Vec<u32> = (0..source.events).collect();
        chosen_events(&source, &numbers).unwrap().into_iter().map(|(_, id, _)| id).collect()
    }

    fn holds(&self, question: &HoldsRequest) -> Response {
        let sealed: Vec<Sealed> = self.commits.iter().map(|(_, _, id)| self.sealed(id)).collect();
        let held = question.ids.iter();
        let held = held.map(|id| sealed.iter().any(|sealed| sealed.find(id).unwrap().is_some())).collect();
        Response::new(200, HoldsBody { held }.encode())
    }

    fn sealed(&self, id: &SegmentId) -> Sealed {
        let disk = SimDisk::new(1);
        let bytes = &self.uploads[id];
        disk.write_file(Path::new("/s"), bytes);
        let file = disk.env().fs.open(Path::new("/s")).unwrap();
        Sealed::from_file(file, bytes.len() as u64, *id).unwrap()
    }

    fn upload(&mut self, request: &Request) -> Response {
        let id = SegmentId::parse(request.path.rsplit('/').next().unwrap()).unwrap();
        let there = self.uploads.entry(id).or_default();
        if request.method == "PUT" {
            let offset: usize = request.query["offset"].parse().unwrap();
            if offset != there.len() {
                let body = format!(r#"{{"error":"elsewhere","code":"offset","offset":{}}}"#, there.len());
                return Response::new(409, body);
            }
            let hash = blake3::hash(&request.body).to_hex().to_string();
            assert_eq!(request.headers["x-chunk-blake3"], hash);
            there.extend_from_slice(&request.body);
        }
        Response::new(200, encode_json(&OffsetBody { offset: there.len() as u64 }))
    }

    fn commit(&mut self, commit: &CommitRequest) -> Response {
        if let Some(done) = self.batches.get(&commit.batch) {
            return Response::new(200, encode_json(done));
        }
        let held = set_of(&self.commits.iter().map(|(_, run, _)| *run).collect::<Vec<_>>());
        let before = self.position;
        for id in &commit.segments {
            assert_eq!(blake3::hash(&self.uploads[id]).as_bytes(), id.as_bytes());
            for run in &self.sealed(id).directory.runs {
                let run = ArrivalRun {
                    writer: run.writer,
                    seq_first: run.seq_first.get(),
                    count: u64::from(run.count),
                };
                if set_of(&[run]).minus(&held).is_empty() {
                    continue;
                }
                self.position += run.count;
                self.commits.push((self.position, run, *id));
            }
        }
        self.tips.extend(commit.tips.iter().map(|tip| (tip.writer, *tip)));
        let done =
            CommittedBody { position: self.position, taken: self.position - before, forks: Vec::new() };
        self.batches.insert(commit.batch, done.clone());
        Response::new(200, encode_json(&done))
    }

    fn stream(&self, wanted: impl Fn(u64, &ArrivalRun, &SegmentId) -> bool) -> Response {
        let mut writer = PartWriter::new(Vec::new());
        writer.tips(&self.tips.values().copied().collect::<Vec<_>>()).unwrap();
        let mut sent = Vec::new();
        for (at, run, id) in &self.commits {
            if !sent.contains(id) && wanted(*at, run, id) {
                let mut bytes = self.uploads[id].clone();
                if self.spoils {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                }
                writer.segment(id, bytes.len() as u64, &mut bytes.as_slice()).unwrap();
                sent.push(*id);
            }
        }
        writer.reached(&Cursor { epoch: self.epoch, position: self.position }).unwrap();
        Response::new(200, writer.end().unwrap())
    }
}

fn set_of(runs: &[ArrivalRun]) -> EventSet {
    EventSet::from_ranges(runs.iter().map(|run| (run.writer, run.seq_first, run.seq_first + run.count - 1)))
}
