//! Version 1 answers with records: pages of what arrived, and single ones.
//!
//! A page is written row by row while the client reads it. Its `max_timestamp` is the arrival of its last row, and what
//! a client sends back as `since`.

use std::io::Write;
use std::sync::Arc;

use agent_trace_store::id::decode_hex;
use agent_trace_store::json::{Reader, Shape};
use agent_trace_store::{Error, Result as StoreResult, Timestamp};
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response};

use super::answer::{Json, Refusal, chain, json, python_time, write_text};
use super::blocking;
use super::call::Call;
use super::flow::{Flow, flow, unsent};
use super::limits::{INLINE_BYTES_MAX, PAGE_ROWS_AT_ONCE, PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use super::text::{Base64, Characters};
use crate::service::archive::{Archive, PageRow, Resource};

type Answer = Result<Response<Body>, Refusal>;

/// `GET /api/v1/sync/traces`
pub(super) async fn traces(call: &mut Call) -> Answer {
    page(call, Resource::Traces).await
}

/// `GET /api/v1/sync/ledgers`
pub(super) async fn ledgers(call: &mut Call) -> Answer {
    page(call, Resource::Ledgers).await
}

/// `GET /api/v1/sync/commit-links`
pub(super) async fn commit_links(call: &mut Call) -> Answer {
    page(call, Resource::CommitLinks).await
}

/// `GET /api/v1/sync/conversations`
pub(super) async fn conversations(call: &mut Call) -> Answer {
    page(call, Resource::Conversations).await
}

/// `GET /api/v1/sync/summaries`
pub(super) async fn summaries(call: &mut Call) -> Answer {
    page(call, Resource::Summaries).await
}

/// `GET /api/v1/traces/<id>`
pub(super) async fn trace(call: &mut Call) -> Answer {
    let Some((_, row)) = one(call, Resource::Traces).await? else {
        return Err(Refusal::plain(404, "Trace not found"));
    };
    let token = call.grant().token.as_str();
    Ok(json(200, Json::Object(vec![("trace", Json::Canonical(row.record)), ("user_id", Json::text(token))])))
}

/// `GET /api/v1/ledgers/<sha>`
pub(super) async fn ledger(call: &mut Call) -> Answer {
    match one(call, Resource::Ledgers).await? {
        Some((_, row)) => Ok(json(200, Json::Canonical(row.record))),
        None => Err(Refusal::plain(404, "Ledger not found")),
    }
}

/// `GET /api/v1/conversations/<id>`
pub(super) async fn conversation(call: &mut Call) -> Answer {
    let Some((archive, row)) = one(call, Resource::Conversations).await? else {
        return Err(Refusal::plain(404, "Conversation not found"));
    };
    let turn = call.state.turns.stream().await?;
    Ok(streamed(turn, move |flow| write_whole(&*archive, &row, flow)))
}

async fn one(call: &Call, resource: Resource) -> Result<Option<(Arc<dyn Archive>, PageRow)>, Refusal> {
    let archive = call.archive(call.query("project_id")).await?;
    let key = call.param("id").to_owned();
    blocking(move || Ok(archive.one(resource, &key)?.map(|row| (archive, row)))).await
}

async fn page(call: &mut Call, resource: Resource) -> Answer {
    let archive = call.archive(call.query("project_id")).await?;
    let limit = limit(call.query("limit"))?;
    let since = since(call.query("since"))?;
    let turn = call.state.turns.stream().await?;
    // The first rows come before the answer begins, so that what fails then has a status.
    let (archive, rows) = blocking(move || {
        let rows = archive.page(resource, since, limit.min(PAGE_ROWS_AT_ONCE))?;
        Ok((archive, rows))
    })
    .await?;
    Ok(streamed(turn, move |flow| write_page(&*archive, resource, rows, limit, flow)))
}

fn limit(text: Option<&str>) -> Result<usize, Refusal> {
    let invalid = || Refusal::new(400, "invalid", "limit must be a whole number from 0");
    match text {
        None => Ok(PAGE_ROWS_DEFAULT),
        // More digits than a number has are more than there may be.
        Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(text.parse().unwrap_or(PAGE_ROWS_MAX).min(PAGE_ROWS_MAX))
        }
        Some(_) => Err(invalid()),
    }
}

fn since(text: Option<&str>) -> Result<Option<Timestamp>, Refusal> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    // A client that does not escape the `+` of an offset sends a space.
    let (date, rest) = text.split_at_checked(11).unwrap_or((text, ""));
    let parsed = Timestamp::parse(&format!("{date}{}", rest.replace(' ', "+")));
    parsed.map(Some).ok_or_else(|| Refusal::new(400, "invalid", "since must be an RFC 3339 date and time"))
}

/// An answer of JSON that a thread writes.
fn streamed(
    turn: super::throttle::Turn,
    write: impl FnOnce(&mut Flow) -> StoreResult<()> + Send + 'static,
) -> Response<Body> {
    let (mut flow, body) = flow();
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let done = write(&mut flow);
        if let Err(error) = flow.close(done) {
            tracing::warn!(cause = chain(&error), "an answer was cut");
        }
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn write_page(
    archive: &dyn Archive,
    resource: Resource,
    mut rows: Vec<PageRow>,
    limit: usize,
    flow: &mut Flow,
) -> StoreResult<()> {
    let (mut written, mut last) = (0, None);
    put(flow, b"{\"items\":[")?;
    while written < limit && !rows.is_empty() {
        for row in rows {
            if written > 0 {
                put(flow, b",")?;
            }
            write_row(archive, resource, &row, flow)?;
            (written, last) = (written + 1, Some(row.arrived));
        }
        let wanted = (limit - written).min(PAGE_ROWS_AT_ONCE);
        rows = if wanted > 0 { archive.page(resource, last, wanted)? } else { Vec::new() };
    }
    let last = last.map_or("null".to_owned(), |last| format!("\"{}\"", python_time(last)));
    put(flow, format!("],\"max_timestamp\":{last}}}\n").as_bytes())
}

fn write_row(archive: &dyn Archive, resource: Resource, row: &PageRow, flow: &mut Flow) -> StoreResult<()> {
    let mut out = Vec::new();
    match resource {
        Resource::Conversations => pointer(archive, row)?.write(&mut out),
        _ => Json::Canonical(row.record.clone()).write(&mut out),
    }
    put(flow, &out)
}

fn put(flow: &mut Flow, bytes: &[u8]) -> StoreResult<()> {
    flow.write_all(bytes).map_err(unsent)
}

/// What a transcript's record says that a pointer holds.
struct Pointer {
    conversation: String,
    sha256: Option<(String, [u8; 32])>,
}

impl Pointer {
    fn read(record: &[u8]) -> StoreResult<Pointer> {
        let odd = |error| Error::corrupt("cannot read the record of a transcript").with_source(error);
        let mut reader = Reader::new(record);
        let (mut conversation, mut sha256) = (String::new(), None);
        if reader.shape() == Some(Shape::Object) && reader.enter_object().map_err(odd)? {
            while let Some(key) = reader.next_key().map_err(odd)? {
                match key {
                    b"conversation_id" => {
                        conversation = reader.string().map_err(odd)?.unwrap_or_default().into_owned();
                    }
                    b"content_sha256" => {
                        let hex = reader.string().map_err(odd)?.unwrap_or_default().into_owned();
                        let mut bytes = [0; 32];
                        sha256 = decode_hex(&hex, &mut bytes).then_some((hex, bytes));
                    }
                    _ => {
                        reader.skip().map_err(odd)?;
                    }
                }
            }
        }
        Ok(Pointer { conversation, sha256 })
    }
}

/// The row of a conversation, with its bytes where they are few.
fn pointer(archive: &dyn Archive, row: &PageRow) -> StoreResult<Json> {
    let pointer = Pointer::read(&row.record)?;
    let mut members =
        vec![("conversation_id", Json::text(pointer.conversation)), ("updated_at", Json::time(row.arrived))];
    if let Some((hex, sha256)) = pointer.sha256 {
        members.push(("content_sha256", Json::text(hex)));
        if let Some((id, size)) = archive.blob(&sha256)? {
            members.push(("size", Json::Number(size)));
            if size <= INLINE_BYTES_MAX {
                let mut bytes = Vec::new();
                archive.object(&id, &mut |part| {
                    bytes.extend_from_slice(part);
                    Ok(())
                })?;
                members.push(match String::from_utf8(bytes) {
                    Ok(text) => ("content", Json::Text(text)),
                    Err(error) => ("content_b64", Json::Text(Base64::of(error.as_bytes()))),
                });
            }
        }
    }
    Ok(Json::Object(members))
}

/// A conversation with all of its bytes, which are read twice: whether they are text must be known first.
fn write_whole(archive: &dyn Archive, row: &PageRow, flow: &mut Flow) -> StoreResult<()> {
    let pointer = Pointer::read(&row.record)?;
    let found = match &pointer.sha256 {
        Some((_, sha256)) => archive.blob(sha256)?,
        None => None,
    };
    match &found {
        None => put(flow, b"{\"content\":null,\"content_b64\":null")?,
        Some((id, _)) => {
            let mut check = Characters::default();
            archive.object(id, &mut |part| {
                check.push(part, &mut |_| Ok(()))?;
                Ok(())
            })?;
            if check.is_text() {
                put(flow, b"{\"content\":\"")?;
                let mut characters = Characters::default();
                archive.object(id, &mut |part| {
                    characters.push(part, &mut |text| {
                        let mut out = Vec::with_capacity(text.len());
                        write_text(text, &mut out);
                        put(flow, &out)
                    })
                })?;
                put(flow, b"\",\"content_b64\":null")?;
            } else {
                put(flow, b"{\"content\":null,\"content_b64\":\"")?;
                let mut encoder = Base64::default();
                archive.object(id, &mut |part| put(flow, encoder.push(part).as_bytes()))?;
                put(flow, encoder.end().as_bytes())?;
                put(flow, b"\"")?;
            }
        }
    }
    let mut rest = Vec::new();
    Json::Object(vec![
        ("content_sha256", Json::option(pointer.sha256.map(|(hex, _)| hex))),
        ("conversation_id", Json::text(pointer.conversation)),
        ("size", found.map_or(Json::Null, |(_, size)| Json::Number(size))),
    ])
    .write(&mut rest);
    rest[0] = b',';
    rest.push(b'\n');
    put(flow, &rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_limits_and_times_are_refused() {
        assert_eq!(limit(None).unwrap(), PAGE_ROWS_DEFAULT);
        for (text, expected) in
            [("0", 0), ("1", 1), ("1000", 1000), ("1001", 1000), ("99999999999999999999999", 1000)]
        {
            assert_eq!(limit(Some(text)).unwrap(), expected);
        }
        for text in ["", "-1", "1.5", "x", "+1", " 1", "1e3"] {
            assert_eq!(limit(Some(text)).unwrap_err().status(), 400, "{text}");
        }
        assert_eq!(since(None).unwrap(), None);
        assert_eq!(since(Some("")).unwrap(), None);
        let time = Timestamp::parse("2026-11-20T07:19:55.158873Z");
        for text in [
            "2026-11-20T07:19:55.158873+00:00",
            "2026-11-20T07:19:55.158873 00:00",
            "2026-11-20 07:19:55.158873Z",
        ] {
            assert_eq!(since(Some(text)).unwrap(), time);
        }
        for text in ["x", "2026", "2026-11-20T99:00:00Z", "ééééééééééé"] {
            assert_eq!(since(Some(text)).unwrap_err().status(), 400, "{text}");
        }
    }
}
