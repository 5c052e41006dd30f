//! Version 1 uploads of records: items are taken from the body one by one and put into the archive in batches.
//!
//! A bad item is skipped and listed; the rest of its request is kept. Each batch is durable before the next is read, so
//! that a request that breaks in the middle is right when it is sent again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent_trace_store::Error;
use axum::body::Body;
use axum::http::Response;

use super::answer::{Json, Refusal, json};
use super::body::Spool;
use super::call::Call;
use super::limits::{
    BATCH_ITEM_BYTES_TARGET, ITEM_BYTES_MAX, ITEM_COPIES, RECORDS_BYTES_MAX, RECORDS_MAX, SKIPPED_SHOWN_MAX,
};
use super::panicked;
use super::scan::{Envelope, Items, Listed, ScanError, each_item, envelope};
use crate::limits::ITEMS_MAX;
use crate::service::archive::{Archive, Item, Resource};
use crate::service::grant::TokenId;

type Answer = Result<Response<Body>, Refusal>;

/// `POST /api/v1/sync/traces`
pub(super) async fn put_traces(call: &mut Call) -> Answer {
    put(call, Resource::Traces).await
}

/// `POST /api/v1/sync/ledgers`
pub(super) async fn put_ledgers(call: &mut Call) -> Answer {
    put(call, Resource::Ledgers).await
}

/// `POST /api/v1/sync/commit-links`
pub(super) async fn put_commit_links(call: &mut Call) -> Answer {
    put(call, Resource::CommitLinks).await
}

/// `POST /api/v1/sync/conversations`
pub(super) async fn put_conversations(call: &mut Call) -> Answer {
    put(call, Resource::Conversations).await
}

/// `POST /api/v1/sync/summaries`
pub(super) async fn put_summaries(call: &mut Call) -> Answer {
    put(call, Resource::Summaries).await
}

async fn put(call: &mut Call, resource: Resource) -> Answer {
    // A project in the query is checked before the body is read.
    let named = call.query("project_id").map(str::to_owned);
    let early = match &named {
        Some(named) => Some(call.archive(Some(named)).await?),
        None => None,
    };
    let incoming = call.incoming("the body", RECORDS_BYTES_MAX)?;
    let spool = incoming.spool(&call.state.spools, &call.state.turns).await?;
    let (spool, found) = looked_at(spool).await?;
    let body = match found {
        Ok(body) => body,
        Err(ScanError::Malformed) if early.is_some() => {
            return Err(Refusal::new(400, "invalid", "the body is not a JSON object"));
        }
        Err(ScanError::Malformed) => Envelope::default(),
        Err(error) => return Err(unscanned(error)),
    };
    let listed = match resource {
        Resource::Conversations => body.items.or(body.contents),
        _ => body.items,
    };
    let no_list = || Refusal::plain(400, "items must be a list");
    if resource == Resource::Traces && listed == Some(Listed::Other) {
        return Err(no_list());
    }
    let archive = match early {
        Some(archive) => archive,
        None => call.archive(body.project.as_deref()).await?,
    };
    let items = match listed {
        None => return Ok(json(200, counted(0, &Outcome::default()))),
        Some(Listed::Other) => return Err(no_list()),
        Some(Listed::Items(items)) => items,
    };
    let item_bytes = usize::try_from(items.bytes_max).unwrap_or(usize::MAX).min(ITEM_BYTES_MAX);
    let whole = usize::try_from(spool.len()).unwrap_or(usize::MAX);
    let held = (item_bytes + BATCH_ITEM_BYTES_TARGET).min(whole);
    let turn = call.state.turns.work(held.saturating_mul(ITEM_COPIES)).await?;
    let room = call.reserve(spool.len(), 0).await?;
    let token = call.grant().token.clone();
    let work = tokio::task::spawn_blocking(move || {
        let (_turn, _room) = (turn, room);
        take_in(&*archive, &token, resource, &spool, &items)
    });
    let outcome = work.await.map_err(|error| panicked(&error))?.map_err(Refusal::from)?;
    for (counter, count) in
        call.state.metrics.items.iter().zip([outcome.stored, outcome.known, outcome.skipped_count])
    {
        counter.fetch_add(count, Ordering::Relaxed);
    }
    match outcome.blob_missing {
        Some(sha256) => {
            let message = "Referenced blob is missing; upload it via POST /api/v1/blobs first";
            Err(Refusal::with(400, message, vec![("content_sha256", Json::text(sha256))]))
        }
        None => Ok(json(200, counted(items.count, &outcome))),
    }
}

/// Finds the items of a body.
async fn looked_at(spool: Spool) -> Result<(Arc<Spool>, Result<Envelope, ScanError>), Refusal> {
    let work = move || {
        let spool = Arc::new(spool);
        let found = envelope(&*spool);
        (spool, found)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| panicked(&error))
}

fn unscanned(error: ScanError) -> Refusal {
    match error {
        ScanError::Malformed => Refusal::new(400, "invalid", "the body is not a JSON object"),
        ScanError::TooMany => {
            Refusal::new(413, "too_large", format!("the body has more than {RECORDS_MAX} items"))
        }
        ScanError::Io(error) => Error::io("cannot read the body again", error).into(),
    }
}

/// What became of all items of a request.
#[derive(Default)]
struct Outcome {
    stored: u64,
    known: u64,
    skipped: Vec<(u64, String)>,
    skipped_count: u64,
    blob_missing: Option<String>,
}

impl Outcome {
    fn skip(&mut self, at: u64, why: String) {
        self.skipped_count += 1;
        if self.skipped.len() < SKIPPED_SHOWN_MAX {
            self.skipped.push((at, why));
        }
    }
}

/// Why items were not taken in.
enum Stopped {
    Scan(ScanError),
    Archive(Error),
    /// An item names a blob that is not there, which ends the request.
    BlobMissing,
}

impl From<ScanError> for Stopped {
    fn from(error: ScanError) -> Stopped {
        Stopped::Scan(error)
    }
}

impl From<Stopped> for Refusal {
    fn from(stopped: Stopped) -> Refusal {
        match stopped {
            Stopped::Scan(error) => unscanned(error),
            Stopped::Archive(error) => error.into(),
            Stopped::BlobMissing => Refusal::plain(400, "Referenced blob is missing"),
        }
    }
}

/// Items that are put together.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    /// Where each stands in the request.
    places: Vec<u64>,
    bytes: usize,
}

fn take_in(
    archive: &dyn Archive,
    token: &TokenId,
    resource: Resource,
    spool: &Spool,
    items: &Items,
) -> Result<Outcome, Stopped> {
    let (mut outcome, mut batch, mut place) = (Outcome::default(), Batch::default(), 0);
    let done = each_item::<Stopped>(spool, items, ITEM_BYTES_MAX, &mut |item| {
        match item {
            None => {
                outcome.skip(place, format!("the item is over {ITEM_BYTES_MAX} bytes; send it as a blob"))
            }
            Some(json) => {
                batch.bytes += json.len();
                batch.items.push(Item { json });
                batch.places.push(place);
            }
        }
        place += 1;
        if batch.bytes >= BATCH_ITEM_BYTES_TARGET || batch.items.len() == ITEMS_MAX {
            flush(archive, token, resource, &mut batch, &mut outcome)
        } else {
            Ok(())
        }
    });
    let done = done.and_then(|()| flush(archive, token, resource, &mut batch, &mut outcome));
    match done {
        Ok(()) | Err(Stopped::BlobMissing) => Ok(outcome),
        Err(stopped) => Err(stopped),
    }
}

fn flush(
    archive: &dyn Archive,
    token: &TokenId,
    resource: Resource,
    batch: &mut Batch,
    outcome: &mut Outcome,
) -> Result<(), Stopped> {
    let batch = std::mem::take(batch);
    if batch.items.is_empty() {
        return Ok(());
    }
    let stored = archive.put(token, resource, &batch.items).map_err(Stopped::Archive)?;
    outcome.stored += stored.stored;
    outcome.known += stored.known;
    for (at, why) in stored.skipped {
        outcome.skip(batch.places.get(at).copied().unwrap_or_default(), why);
    }
    outcome.blob_missing = stored.blob_missing;
    if outcome.blob_missing.is_some() { Err(Stopped::BlobMissing) } else { Ok(()) }
}

fn counted(count: u64, outcome: &Outcome) -> Json {
    let mut members = vec![("ok", Json::Bool(true)), ("count", Json::Number(count))];
    if outcome.skipped_count > 0 {
        let skipped = outcome
            .skipped
            .iter()
            .map(|(at, why)| Json::Object(vec![("index", Json::Number(*at)), ("error", Json::text(why))]));
        members.push(("skipped", Json::List(skipped.collect())));
        members.push(("skipped_count", Json::Number(outcome.skipped_count)));
    }
    Json::Object(members)
}
