//! Version 1 blobs: staged under the token that sent them, and read by tokens that may read what names them.
//!
//! A hash proves nothing: bytes of a project that the token may not reach are not there, and nothing looks for them.

use std::io;
use std::sync::Arc;

use agent_trace_store::id::{decode_hex, encode_hex};
use agent_trace_store::{ErrorKind, ObjectId, Result as StoreResult};
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Response};

use super::answer::{Json, Refusal, chain, empty, json};
use super::body::{PumpReader, length, pump};
use super::call::Call;
use super::flow::{flow, unsent};
use super::limits::{BLOB_ARCHIVES_OPENED_MAX, BLOB_BYTES_MAX, BLOB_RESERVED_BYTES};
use super::{State, blocking, panicked};
use crate::service::archive::{Archive, Project};
use crate::service::grant::{Grant, Scope};
use crate::service::quota::{Room, Usage};

type Answer = Result<Response<Body>, Refusal>;

/// `HEAD /api/v1/blobs/<sha256>`
pub(super) async fn head(call: &mut Call) -> Answer {
    let grant = call.grant();
    if !grant.allows(Scope::Read) && !grant.allows(Scope::Write) {
        return Err(Refusal::new(403, "scope", "Token lacks the scope 'read'"));
    }
    match find(call).await? {
        Some(_) => Ok(empty(200)),
        None => Ok(empty(404)),
    }
}

/// `GET /api/v1/blobs/<sha256>`
pub(super) async fn get(call: &mut Call) -> Answer {
    let turn = call.state.turns.stream().await?;
    let Some((found, size)) = find(call).await? else {
        return Err(Refusal::plain(404, "Blob not found"));
    };
    let (state, token) = (call.state.clone(), call.grant().token.clone());
    let (mut flow, body) = flow();
    tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let _turn = turn;
        let mut each = |part: &[u8]| flow.write_all(part).map_err(unsent);
        let done = match found {
            Place::Object(archive, id) => archive.object(&id, &mut each),
            Place::Staged(sha256) => state.staging.read_staged(&token, &sha256, &mut each),
        };
        if let Err(error) = flow.close(done.map(|_| ())) {
            tracing::warn!(cause = chain(&error), "a blob was cut");
        }
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size));
    Ok(response)
}

/// `POST /api/v1/blobs`
pub(super) async fn put(call: &mut Call) -> Answer {
    match length(&call.headers) {
        Some(0) => return Err(Refusal::plain(400, "Empty body")),
        Some(length) if length > BLOB_BYTES_MAX => {
            return Err(Refusal::plain(413, format!("blob too large: {length} > {BLOB_BYTES_MAX}")));
        }
        _ => {}
    }
    let length = length(&call.headers).unwrap_or_default();
    let mut room =
        RoomFor { org: call.grant().org_id.clone(), ahead: length, rooms: Vec::new(), refused: None };
    if length > 0 {
        room.rooms.push(call.reserve(length, 0).await?);
    }
    let mut incoming = call.incoming("the blob", BLOB_BYTES_MAX)?;
    let turn = call.state.turns.stage().await?;
    let Some(first) = incoming.next().await? else {
        return Err(Refusal::plain(400, "Empty body"));
    };
    let (to, reader) = pump();
    to.try_send(Ok(first)).expect("the queue is new and holds one");
    let (state, token) = (call.state.clone(), call.grant().token.clone());
    let staged = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut reader = Reserving { reader, state: &state, room };
        let staged = state.staging.stage(&token, &mut reader, BLOB_BYTES_MAX);
        match reader.room.refused {
            Some(refusal) => Err(refusal),
            None => staged.map_err(Refusal::from),
        }
    });
    // A body that breaks leaves nothing; what is wrong with it is the reason to tell.
    incoming.pump(to).await?;
    let (sha256, size) = staged.await.map_err(|error| panicked(&error))??;
    let body = Json::Object(vec![("sha256", Json::text(encode_hex(&sha256))), ("size", Json::Number(size))]);
    Ok(json(201, body))
}

/// What is reserved for a blob, and for how much that is still to come.
struct RoomFor {
    org: String,
    ahead: u64,
    rooms: Vec<Room>,
    refused: Option<Refusal>,
}

/// Reserves room for bytes whose number was not said before they came.
struct Reserving<'a> {
    reader: PumpReader,
    state: &'a State,
    room: RoomFor,
}

impl io::Read for Reserving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        let (room, bytes) = (&mut self.room, count as u64);
        if bytes > room.ahead {
            let added = Usage { bytes: bytes.max(BLOB_RESERVED_BYTES), uploads: 0 };
            match self.state.reserve(&room.org, added) {
                Ok(more) => room.rooms.push(more),
                Err(refusal) => {
                    room.refused = Some(refusal);
                    return Err(io::ErrorKind::QuotaExceeded.into());
                }
            }
            room.ahead += added.bytes;
        }
        room.ahead -= bytes;
        Ok(count)
    }
}

/// Where a blob's bytes are.
enum Place {
    Object(Arc<dyn Archive>, ObjectId),
    Staged([u8; 32]),
}

/// Looks for a blob among what the token may read and what it has staged.
async fn find(call: &Call) -> Result<Option<(Place, u64)>, Refusal> {
    let mut sha256 = [0; 32];
    if !decode_hex(call.param("sha256"), &mut sha256) {
        return Ok(None);
    }
    let (state, grant) = (call.state.clone(), call.grant().clone());
    let only = call.at_project().map(str::to_owned).or_else(|| grant.project.clone());
    blocking(move || {
        if let Some(size) = state.staging.staged(&grant.token, &sha256)? {
            return Ok(Some((Place::Staged(sha256), size)));
        }
        search(&state, &grant, only.as_deref(), &sha256)
    })
    .await
}

/// Looks in the project that is named, or else in those of the organisation: first those that are open, then a few more,
/// so that a hash that nobody has does not open them all.
fn search(
    state: &State,
    grant: &Grant,
    only: Option<&str>,
    sha256: &[u8; 32],
) -> StoreResult<Option<(Place, u64)>> {
    let mut closed = Vec::new();
    for project in readable(state, grant, only)? {
        match state.accounts.archive_at_hand(&project) {
            Some(archive) => {
                if let Some((id, size)) = archive.blob(sha256)? {
                    return Ok(Some((Place::Object(archive, id), size)));
                }
            }
            None => closed.push(project),
        }
    }
    for project in closed.iter().take(BLOB_ARCHIVES_OPENED_MAX) {
        match state.accounts.archive(project) {
            Ok(archive) => {
                if let Some((id, size)) = archive.blob(sha256)? {
                    return Ok(Some((Place::Object(archive, id), size)));
                }
            }
            // Removed since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn readable(state: &State, grant: &Grant, only: Option<&str>) -> StoreResult<Vec<Project>> {
    match only {
        Some(slug) => Ok(state.accounts.project(&grant.org_id, slug)?.into_iter().collect()),
        None => state.accounts.projects(&grant.org_id),
    }
}
