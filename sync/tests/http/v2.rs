//! Version 2: each request, its repeats and its refusals.

use agent_trace_store::id::encode_hex;
use agent_trace_store::{ErrorKind, ObjectId, SegmentId};
use agent_trace_sync::reconcile::{Progress, Reconciliation};
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::wire::{
    ArrivalRun, ArrivalsBody, CommitRequest, FetchRequest, HoldsBody, HoldsRequest, Part, PartReader,
    ReconcileRequest, SymbolsBody,
};

use crate::client::{Answer, Ask};
use crate::fake::{EPOCH, strangers};
use crate::service::Service;

const P: &str = "/api/v2/acme/web";

struct Client<'a> {
    service: &'a Service,
    token: String,
}

impl Client<'_> {
    fn new(service: &Service) -> Client<'_> {
        Client { service, token: service.token(0, None, &[Scope::Read, Scope::Write]) }
    }

    fn get(&self, path: &str) -> Answer {
        self.service.get(&format!("{P}/{path}"), &self.token)
    }

    fn post(&self, path: &str, body: Vec<u8>) -> Answer {
        self.service.ask(&Ask::new("POST", format!("{P}/{path}")).token(&self.token).body(body))
    }

    fn put(&self, id: &SegmentId, offset: u64, bytes: &[u8], hash: &str) -> Answer {
        let path = format!("{P}/uploads/{id}?offset={offset}");
        let ask = Ask::new("PUT", path).token(&self.token).header("X-Chunk-Blake3", hash);
        self.service.ask(&ask.body(bytes))
    }

    fn upload(&self, bytes: &[u8]) -> SegmentId {
        let id = SegmentId::from_bytes(*blake3::hash(bytes).as_bytes());
        let answer = self.put(&id, 0, bytes, &blake3::hash(bytes).to_string());
        assert_eq!(answer.text(), format!("{{\"offset\":{}}}\n", bytes.len()));
        id
    }

    fn commit(&self, batch: u8, segments: &[SegmentId]) -> Answer {
        let request = CommitRequest { batch: [batch; 16], segments: segments.to_vec(), tips: Vec::new() };
        self.post("commit", request.encode())
    }
}

#[track_caller]
fn code(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json()["code"], code);
}

fn after(position: u64) -> String {
    format!("epoch={}&after={position}", encode_hex(&EPOCH))
}

#[test]
fn a_segment_goes_up_in_chunks_and_is_committed_once() {
    let service = Service::start();
    let client = Client::new(&service);
    let (one, two) = (vec![1; 100_000], vec![2; 8 << 20]);
    let id = SegmentId::from_bytes([9; 32]);
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_string();
    assert_eq!(client.get(&format!("uploads/{id}")).text(), "{\"offset\":0}\n");
    code(&client.put(&id, 0, &one, &hash(&two)), 400, "invalid");
    assert_eq!(client.get(&format!("uploads/{id}")).text(), "{\"offset\":0}\n");
    assert_eq!(client.put(&id, 0, &one, &hash(&one)).text(), "{\"offset\":100000}\n");
    let elsewhere = client.put(&id, 0, &one, &hash(&one));
    code(&elsewhere, 409, "offset");
    assert_eq!(elsewhere.json()["offset"], 100_000);
    assert_eq!(client.put(&id, 100_000, &two, &hash(&two)).status, 200);
    // Somebody else has uploaded nothing.
    assert_eq!(Client::new(&service).get(&format!("uploads/{id}")).text(), "{\"offset\":0}\n");

    let unknown = client.commit(1, &[id, SegmentId::from_bytes([8; 32])]);
    code(&unknown, 422, "refused");
    assert_eq!(unknown.json()["refused"].as_array().unwrap().len(), 1);
    let done = client.commit(2, &[id]);
    assert_eq!(done.text(), "{\"forks\":[],\"position\":1,\"taken\":1}\n");
    assert_eq!(client.commit(2, &[id]).text(), done.text());
    let metrics = Ask::new("GET", "/metrics").send(service.metrics);
    assert!(metrics.text().contains("agent_trace_commits_refused_total 1\n"), "{}", metrics.text());
    assert!(metrics.text().contains("agent_trace_requests_total{method=\"PUT\",route=\"/api/v2/{org}/{project}/uploads/{segment}\",status=\"409\"} 1\n"));
    assert!(!metrics.text().contains("acme"));
}

#[test]
fn odd_uploads_are_refused() {
    let service = Service::start();
    let client = Client::new(&service);
    let id = SegmentId::from_bytes([9; 32]);
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_string();
    code(&client.put(&id, 0, b"", &hash(b"")), 400, "invalid");
    code(&client.put(&id, 0, b"x", "x"), 400, "invalid");
    code(&client.put(&id, 1 << 40, b"x", &hash(b"x")), 413, "too_large");
    code(&client.put(&id, u64::MAX, b"x", &hash(b"x")), 413, "too_large");
    let large = vec![0; (8 << 20) + 1];
    code(&client.put(&id, 0, &large, &hash(&large)), 413, "too_large");
    for path in ["uploads/xyz", "uploads/00"] {
        code(&client.get(path), 400, "invalid");
    }
    let put = Ask::new("PUT", format!("{P}/uploads/{id}")).token(&client.token).body("x");
    code(&service.ask(&put), 400, "invalid");
}

#[test]
fn arrivals_and_pulls_follow_a_cursor() {
    let service = Service::start();
    let client = Client::new(&service);
    let segments: Vec<Vec<u8>> = (1..4).map(|byte| vec![byte; 50_000 * usize::from(byte)]).collect();
    for (at, bytes) in (0..).zip(&segments) {
        assert_eq!(client.commit(at, &[client.upload(bytes)]).status, 200);
    }
    let newest = ArrivalsBody::decode(&client.get("arrivals").body).unwrap();
    assert_eq!((newest.reached.epoch, newest.newest, newest.runs.len()), (EPOCH, 3, 0));
    let body = ArrivalsBody::decode(&client.get(&format!("arrivals?{}", after(1))).body).unwrap();
    assert_eq!((body.reached.position, body.runs[0].count), (3, 2));
    for path in ["arrivals", "pull"] {
        code(&client.get(&format!("{path}?{}", after(4))), 409, "epoch");
        code(&client.get(&format!("{path}?epoch={}&after=0", "00".repeat(16))), 409, "epoch");
        for query in ["after=1", "epoch=00", "epoch=xy&after=0", "epoch=&after=", "after=-1&epoch=00"] {
            code(&client.get(&format!("{path}?{query}")), 400, "invalid");
        }
    }
    code(&client.get("pull"), 400, "invalid");
    for query in ["transcripts=", "transcripts=maybe"] {
        code(&client.get(&format!("pull?{}&{query}", after(1))), 400, "invalid");
        let request = FetchRequest { runs: vec![], ids: vec![] }.encode();
        code(&client.post(&format!("fetch?{query}"), request), 400, "invalid");
    }

    let stream = client.get(&format!("pull?{}", after(1)));
    assert_eq!(read_stream(&stream.body), [segments[1].clone(), segments[2].clone()]);
    let run = ArrivalRun { writer: agent_trace_store::WriterId::from_bytes([1; 32]), seq_first: 1, count: 1 };
    let fetched = client.post("fetch", FetchRequest { runs: vec![run], ids: vec![] }.encode());
    assert_eq!(read_stream(&fetched.body), [segments[0].clone()]);
}

fn read_stream(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = PartReader::new(bytes);
    let mut segments = Vec::new();
    while let Some(part) = reader.read_part().unwrap() {
        if let Part::Segment(_, _, mut file) = part {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
            segments.push(bytes);
        }
    }
    segments
}

#[test]
fn objects_are_asked_for_and_read() {
    let service = Service::start();
    let client = Client::new(&service);
    let bytes = vec![5; 250_000];
    client.commit(0, &[client.upload(&bytes)]);
    let id = ObjectId::of(&bytes);
    let mut ids: Vec<_> = strangers().into_iter().collect();
    ids.insert(1, id);
    let answer = client.post("holds", HoldsRequest { ids }.encode());
    assert_eq!(HoldsBody::decode(&answer.body, 4).unwrap().held, [false, true, false, false]);
    let object = client.get(&format!("objects/{id}"));
    assert!((object.status, &object.body) == (200, &bytes));
    code(&client.get(&format!("objects/{}", ObjectId::of(b"none"))), 404, "not_found");
    code(&client.get("objects/none"), 400, "invalid");
}

#[test]
fn sets_are_reconciled() {
    let service = Service::start();
    let client = Client::new(&service);
    for at in 0..5 {
        client.commit(at, &[client.upload(&[at; 10])]);
    }
    let own: Vec<_> =
        (2..9usize).map(|number| agent_trace_store::EventId::of(&number.to_le_bytes())).collect();
    let mut reconciliation = Reconciliation::new();
    let found = loop {
        let answer = client.post("reconcile", reconciliation.request().encode());
        let body = SymbolsBody::decode(&answer.body).unwrap();
        match reconciliation.take(&body, own.iter().copied()).unwrap() {
            Progress::More => {}
            Progress::Done(found) => break found,
            Progress::TooDifferent => panic!("seven ids are not too many"),
        }
    };
    assert_eq!((found.only_there.len(), found.only_here.len()), (2, 4));
    let ahead = client.post("reconcile", ReconcileRequest { first: 0, count: 1, position: 6 }.encode());
    code(&ahead, 409, "epoch");
}

#[test]
fn bodies_that_cannot_be_read_are_refused() {
    let service = Service::start();
    let client = Client::new(&service);
    for path in ["reconcile", "fetch", "holds", "commit"] {
        for body in [&b""[..], b"x", b"{}", &[0; 40], "ATCOMIT\0\u{1}".as_bytes()] {
            code(&client.post(path, body.to_vec()), 400, "invalid");
        }
    }
    let mut newer = HoldsRequest::default().encode();
    newer[8] = 2;
    assert_eq!(HoldsRequest::decode(&newer).unwrap_err().kind(), ErrorKind::Unsupported);
    code(&client.post("holds", newer), 426, "upgrade");
    code(&client.post("reconcile", vec![0; 4096]), 413, "too_large");
}
