//! Version 2, as `docs/protocol.md` describes it.
//!
//! Bodies are decoded and encoded by `wire`; here is only who gets which answer. A pull is produced by a thread that a
//! bounded queue holds back, and that stops when the client goes or the service stops.

use std::io::{self, Read};
use std::sync::atomic::Ordering;

use agent_trace_store::env::File;
use agent_trace_store::id::decode_hex;
use agent_trace_store::limits::SEGMENT_BYTES_MAX;
use agent_trace_store::{Error, ErrorKind, ObjectId, Result as StoreResult, SegmentId};
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response};
use tokio::sync::oneshot;

use super::answer::{Json, Refusal, bytes, chain, json};
use super::body::Memory;
use super::call::Call;
use super::flow::{Flow, flow, unsent};
use super::throttle::Turn;
use super::{blocking, panicked};
use crate::limits::UPLOAD_CHUNK_BYTES_MAX;
use crate::reconcile::Sketch;
use crate::service::archive::{Bodies, Part, Reach};
use crate::service::grant::Scope;
use crate::wire::{
    ArrivalsBody, Caps, CommitRequest, Cursor, ErrorBody, FetchRequest, HoldsBody, HoldsRequest, PartWriter,
    ReconcileRequest, Symbol, SymbolsBody, encode_json,
};

const BINARY: &str = "application/octet-stream";

type Answer = Result<Response<Body>, Refusal>;

/// `GET /api/v2/caps`
pub(super) async fn caps(_: &mut Call) -> Answer {
    let mut body = encode_json(&Caps::ours());
    body.push(b'\n');
    Ok(bytes(200, "application/json", body))
}

/// `GET …/arrivals`
pub(super) async fn arrivals(call: &mut Call) -> Answer {
    let archive = call.archive_v2().await?;
    let cursor = cursor(call)?;
    let turn = call.state.turns.work(0).await?;
    let work = blocking(move || {
        let _turn = turn;
        let reach = archive.reach()?;
        let Some(cursor) = cursor else {
            let reached = Cursor { epoch: reach.epoch, position: reach.position };
            let body = ArrivalsBody { reached, newest: reach.position, runs: Vec::new(), tips: Vec::new() };
            return Ok(Some(body.encode()));
        };
        if !fits(&cursor, &reach) {
            return Ok(None);
        }
        let found = archive.arrivals(cursor.position)?;
        let reached = Cursor { epoch: found.reach.epoch, position: found.reach.position };
        let body = ArrivalsBody { reached, newest: found.newest, runs: found.runs, tips: found.tips };
        Ok(Some(body.encode()))
    });
    Ok(bytes(200, BINARY, work.await?.ok_or_else(other_epoch)?))
}

/// `POST …/reconcile`
pub(super) async fn reconcile(call: &mut Call) -> Answer {
    let archive = call.archive_v2().await?;
    let body = call.incoming("the request", ReconcileRequest::BYTES_MAX as u64)?.small().await?;
    let request = ReconcileRequest::decode(&body).map_err(|error| Refusal::body(&error))?;
    // The symbols are there twice, once as they are sent.
    let turn = call.state.turns.work(request.count as usize * 2 * size_of::<Symbol>()).await?;
    let work = blocking(move || {
        let _turn = turn;
        let reach = archive.reach()?;
        if request.position > reach.position {
            return Ok(None);
        }
        let position = if request.position == 0 { reach.position } else { request.position };
        let (mut sketch, mut size) = (Sketch::new(&reach.epoch, &request), 0);
        archive.event_ids(position, &mut |id, _, _| {
            sketch.add(id);
            size += 1;
            Ok(())
        })?;
        let taken_at = Cursor { epoch: reach.epoch, position };
        let symbols = sketch.symbols().to_vec();
        Ok(Some(SymbolsBody { taken_at, size, first: request.first, symbols }.encode()))
    });
    Ok(bytes(200, BINARY, work.await?.ok_or_else(other_epoch)?))
}

/// `POST …/holds`
pub(super) async fn holds(call: &mut Call) -> Answer {
    let archive = call.archive_v2().await?;
    let (body, turn) = taken(call, "the question", HoldsRequest::BYTES_MAX as u64).await?;
    let request = HoldsRequest::decode(body.bytes()).map_err(|error| Refusal::body(&error))?;
    let work = blocking(move || {
        let _turn = turn;
        Ok(HoldsBody { held: archive.holds(&request.ids)? }.encode())
    });
    Ok(bytes(200, BINARY, work.await?))
}

/// `GET …/uploads/<segment>`
pub(super) async fn uploaded(call: &mut Call) -> Answer {
    let archive = call.archive_v2().await?;
    let (token, segment) = (call.grant().token.clone(), segment(call)?);
    let offset = blocking(move || archive.uploaded(&token, &segment)).await?;
    Ok(json(200, Json::Object(vec![("offset", Json::Number(offset))])))
}

/// `PUT …/uploads/<segment>`
pub(super) async fn upload(call: &mut Call) -> Answer {
    let archive = call.archive_v2().await?;
    let (token, segment) = (call.grant().token.clone(), segment(call)?);
    let offset = number(call, "offset")?.ok_or_else(|| invalid("offset is required"))?;
    let hash = call.headers.get("x-chunk-blake3").and_then(|value| value.to_str().ok());
    let mut wanted = [0; 32];
    if !hash.is_some_and(|hash| decode_hex(hash, &mut wanted)) {
        return Err(invalid("X-Chunk-Blake3 must be 64 hex digits"));
    }
    let (body, turn) = taken(call, "the chunk", UPLOAD_CHUNK_BYTES_MAX as u64).await?;
    if body.bytes().is_empty() {
        return Err(invalid("the chunk is empty"));
    }
    if offset.checked_add(body.bytes().len() as u64).is_none_or(|end| end > SEGMENT_BYTES_MAX) {
        return Err(Refusal::too_large("the segment", SEGMENT_BYTES_MAX));
    }
    let room = call.reserve(body.bytes().len() as u64, u64::from(offset == 0)).await?;
    let work = tokio::task::spawn_blocking(move || {
        let (_turn, _room) = (turn, room);
        if blake3::hash(body.bytes()) != blake3::Hash::from_bytes(wanted) {
            return Err(invalid("the chunk does not have the hash of X-Chunk-Blake3"));
        }
        match archive.upload(&token, &segment, offset, body.bytes()) {
            Ok(there) => Ok(there),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let there = archive.uploaded(&token, &segment)?;
                let members = vec![("code", Json::text("offset")), ("offset", Json::Number(there))];
                Err(Refusal::with(409, format!("the upload goes on at {there}"), members))
            }
            Err(error) => Err(error.into()),
        }
    });
    let there = work.await.map_err(|error| panicked(&error))??;
    Ok(json(200, Json::Object(vec![("offset", Json::Number(there))])))
}

/// `POST …/commit`
pub(super) async fn commit(call: &mut Call) -> Answer {
    let archive = call.archive_v2().await?;
    let (body, turn) = taken(call, "the commit", CommitRequest::BYTES_MAX as u64).await?;
    let request = CommitRequest::decode(body.bytes()).map_err(|error| Refusal::body(&error))?;
    let (token, may_erase) = (call.grant().token.clone(), call.grant().allows(Scope::Erase));
    let work = blocking(move || {
        let (_turn, _body) = (turn, body);
        match may_erase {
            true => archive.commit_erasing(&token, &request.batch, &request.segments, &request.tips),
            false => archive.commit(&token, &request.batch, &request.segments, &request.tips),
        }
    });
    let done = work.await?;
    let metrics = &call.state.metrics;
    let texts = |texts: Vec<String>| Json::List(texts.into_iter().map(Json::Text).collect());
    if !done.refused.is_empty() {
        metrics.refused.fetch_add(1, Ordering::Relaxed);
        let members = vec![("code", Json::text("refused")), ("refused", texts(done.refused))];
        return Err(Refusal::with(422, "the commit does not check; nothing of it was taken", members));
    }
    metrics.commits.fetch_add(1, Ordering::Relaxed);
    metrics.arrivals.fetch_add(done.taken, Ordering::Relaxed);
    let body = Json::Object(vec![
        ("position", Json::Number(done.position)),
        ("taken", Json::Number(done.taken)),
        ("forks", texts(done.forks)),
    ]);
    Ok(json(200, body))
}

/// `GET …/pull`
pub(super) async fn pull(call: &mut Call) -> Answer {
    let archive = call.archive_v2().await?;
    let cursor = cursor(call)?.ok_or_else(|| invalid("epoch and after are required"))?;
    let bodies = bodies(call)?;
    let from = archive.clone();
    let reach = blocking(move || from.reach()).await?;
    if !fits(&cursor, &reach) {
        return Err(other_epoch());
    }
    let turn = call.state.turns.stream().await?;
    Ok(streamed(call, turn, cursor.epoch, move |each| archive.pull(cursor.position, bodies, each)))
}

/// `POST …/fetch`
pub(super) async fn fetch(call: &mut Call) -> Answer {
    let archive = call.archive_v2().await?;
    let bodies = bodies(call)?;
    let (body, work) = taken(call, "the request", FetchRequest::BYTES_MAX as u64).await?;
    let request = FetchRequest::decode(body.bytes()).map_err(|error| Refusal::body(&error))?;
    drop((body, work));
    let from = archive.clone();
    let reach = blocking(move || from.reach()).await?;
    let turn = call.state.turns.stream().await?;
    let produce = move |each: &mut Each<'_>| archive.fetch(&request.runs, &request.ids, bodies, each);
    Ok(streamed(call, turn, reach.epoch, produce))
}

/// `GET …/objects/<id>`
pub(super) async fn object(call: &mut Call) -> Answer {
    let archive = call.archive_v2().await?;
    let id = ObjectId::parse(call.param("id")).map_err(|_| invalid("an object's id is 64 hex digits"))?;
    let turn = call.state.turns.stream().await?;
    let (mut flow, body) = flow();
    let (found, is_found) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let _turn = turn;
        let mut found = Some(found);
        // Whether it is there is known with its first bytes.
        let mut tell = |answer| found.take().is_some_and(|found| found.send(answer).is_ok());
        let done = archive.object(&id, &mut |part| {
            tell(Ok(true));
            flow.write_all(part).map_err(unsent)
        });
        let done = match done {
            Ok(is_there) => {
                tell(Ok(is_there));
                Ok(())
            }
            Err(error) => {
                let cause = chain(&error);
                if tell(Err(error)) { Ok(()) } else { Err(Error::new(ErrorKind::Failed, cause)) }
            }
        };
        if let Err(error) = flow.close(done) {
            tracing::warn!(cause = chain(&error), "an object was cut");
        }
    });
    match is_found.await {
        Ok(Ok(true)) => Ok(binary(body)),
        Ok(Ok(false)) => Err(Refusal::new(404, "not_found", "not found")),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Refusal::new(500, "failed", "the service failed")),
    }
}

fn binary(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(BINARY));
    response
}

/// A body that is in memory, and the turn to work on it.
async fn taken(call: &mut Call, what: &'static str, bytes_max: u64) -> Result<(Memory, Turn), Refusal> {
    let incoming = call.incoming(what, bytes_max)?;
    let spool = incoming.spool(&call.state.spools, &call.state.turns).await?;
    let turn = call.state.turns.work(spool.work_bytes()).await?;
    let memory = blocking(move || spool.into_memory()).await?;
    Ok((memory, turn))
}

type Each<'a> = dyn FnMut(Part<'_>) -> StoreResult<()> + 'a;

/// An answer of parts that a thread produces.
fn streamed(
    call: &Call,
    turn: Turn,
    epoch: [u8; 16],
    produce: impl FnOnce(&mut Each<'_>) -> StoreResult<()> + Send + 'static,
) -> Response<Body> {
    let (flow, body) = flow();
    let stop = call.state.draining.subscribe();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut writer = PartWriter::new(flow);
        let done = produce(&mut |part| {
            if *stop.borrow() {
                return Err(Error::new(ErrorKind::Unavailable, "the service is stopping"));
            }
            write(&mut writer, epoch, part)
        });
        let closed: StoreResult<Flow> = match done {
            Ok(()) => writer.end(),
            Err(error) => {
                tracing::info!(cause = chain(&error), "a pull was cut");
                let (error, code) = Refusal::from(error).told();
                writer.error(&ErrorBody { error, code, ..ErrorBody::default() })
            }
        };
        // A client that is gone needs no end.
        if let Ok(flow) = closed {
            let _ = flow.close(Ok(()));
        }
    });
    binary(body)
}

fn write(writer: &mut PartWriter<Flow>, epoch: [u8; 16], part: Part<'_>) -> StoreResult<()> {
    match part {
        Part::Segment(id, bytes, file) => writer.segment(id, bytes, &mut FileReader { file, at: 0 }),
        Part::Tips(tips) => writer.tips(tips),
        Part::Reached(position) => writer.reached(&Cursor { epoch, position }),
    }
}

/// Reads a file from its start.
struct FileReader<'a> {
    file: &'a dyn File,
    at: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn invalid(text: &str) -> Refusal {
    Refusal::new(400, "invalid", text)
}

fn other_epoch() -> Refusal {
    Refusal::new(409, "epoch", "the cursor is of another history, or ahead of this one")
}

fn fits(cursor: &Cursor, reach: &Reach) -> bool {
    cursor.epoch == reach.epoch && cursor.position <= reach.position
}

fn segment(call: &Call) -> Result<SegmentId, Refusal> {
    SegmentId::parse(call.param("segment")).map_err(|_| invalid("a segment's id is 64 hex digits"))
}

fn number(call: &Call, name: &str) -> Result<Option<u64>, Refusal> {
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match call.query(name) {
        None => Ok(None),
        Some(text) => match Some(text).filter(is_number).and_then(|text| text.parse().ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(invalid(&format!("{name} must be a whole number"))),
        },
    }
}

/// Whether the bytes of transcripts go along.
fn bodies(call: &Call) -> Result<Bodies, Refusal> {
    match call.query("transcripts") {
        None | Some("yes") => Ok(Bodies::Along),
        Some("no") => Ok(Bodies::LeftOut),
        Some(_) => Err(invalid("transcripts must be yes or no")),
    }
}

/// The cursor of a query; none where neither of its members is there.
fn cursor(call: &Call) -> Result<Option<Cursor>, Refusal> {
    match (call.query("epoch"), number(call, "after")?) {
        (None, None) => Ok(None),
        (Some(epoch), Some(position)) => {
            let epoch = Cursor::parse_epoch(epoch).map_err(|error| Refusal::body(&error))?;
            Ok(Some(Cursor { epoch, position }))
        }
        _ => Err(invalid("epoch and after go together")),
    }
}
