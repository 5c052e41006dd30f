//! A bucket of S3 in memory, with everything that may go wrong on the way to one and in one; for tests and simulations.
//!
//! It speaks the protocol itself, so all that signs, reads, tries again and gives up is the real code. It checks no
//! signatures. What fails is decided by a plan that sees each request.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use agent_trace_store::Timestamp;
use agent_trace_store::env::Clock;
use axum::http::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never arrives.
    LostRequest,
    /// It is done, and nobody hears of it.
    LostAnswer,
    /// It is not done; the answer has a status and a code.
    Refused(u16, &'static str),
    /// It is not done, and the answer is good but for its body.
    ErrorBody,
    /// It is done, and half of the answer comes, as if that were all.
    CutBody,
    /// It is done, and the connection breaks in the middle of the answer.
    BrokenBody,
    /// It is said to be done; nothing is kept.
    NotKept,
    /// A list shows what stood there a while ago.
    LateList,
    /// One bit of the answer's body is another.
    FlippedBit,
}

/// A request, as a plan sees it.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// How many came before it.
    pub number: u64,
    /// Its method.
    pub method: &'a str,
    /// The key; empty for lists.
    pub key: &'a str,
}

/// Decides what happens to each request.
pub type Plan = Box<dyn FnMut(&Ask<'_>) -> Option<Fault> + Send>;

/// What the tags of files stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// The content, as they should.
    Content,
    /// Nothing: all files have the same, and the same time.
    Nothing,
    /// The key, whatever the content is; all have the same time.
    Key,
}

/// How a server differs from what S3 promises, at all times.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Conditional writes overwrite.
    pub ignores_conditions: bool,
    /// A range is answered with the whole.
    pub breaks_ranges: bool,
    /// What tags stand for.
    pub tags: Tags,
    /// Names in one page of a list.
    pub page: usize,
}

impl Default for Manners {
    fn default() -> Manners {
        Manners { ignores_conditions: false, breaks_ranges: false, tags: Tags::Content, page: 1000 }
    }
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    modified: Timestamp,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    /// What lists that are late show.
    before: BTreeMap<String, Object>,
    /// Whether that stays as it is.
    is_frozen: bool,
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    plan: Option<Plan>,
    requests: u64,
    manners: Manners,
    asked: Vec<String>,
}

/// The bucket.
#[derive(Clone)]
pub struct FakeBucket {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for FakeBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeBucket")
    }
}

impl FakeBucket {
    /// An empty one.
    pub fn new(clock: Arc<dyn Clock>) -> FakeBucket {
        FakeBucket { state: Arc::default(), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Behaves otherwise from now on.
    pub fn behave(&self, manners: Manners) {
        self.state().manners = manners;
    }

    /// Fails by a plan from now on, which counts from zero.
    pub fn plan(&self, plan: Option<Plan>) {
        let mut state = self.state();
        (state.plan, state.requests) = (plan, 0);
    }

    /// Lists that are late show what stands there now, from now on.
    pub fn freeze_late_lists(&self) {
        let mut state = self.state();
        (state.before, state.is_frozen) = (state.objects.clone(), true);
    }

    /// The keys, with the bucket's name before them.
    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// The bytes of a file.
    pub fn content(&self, key: &str) -> Option<Bytes> {
        self.state().objects.get(key).map(|object| object.bytes.clone())
    }

    /// Puts a file there, or takes it away.
    pub fn set(&self, key: &str, content: Option<Bytes>) {
        let modified = self.clock.now();
        let objects = &mut self.state().objects;
        match content {
            Some(bytes) => objects.insert(key.to_owned(), Object { bytes, modified }),
            None => objects.remove(key),
        };
    }

    /// What was asked since this was last called: methods and keys.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state().asked)
    }

    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let (answer, fault) = self.act(&parts, body)?;
        match fault {
            Some(Fault::LostAnswer) => Err(lost()),
            Some(Fault::CutBody) => changed(answer, |bytes| bytes.slice(..bytes.len() / 2)).await,
            Some(Fault::FlippedBit) => changed(answer, |bytes| flipped(&bytes)).await,
            Some(Fault::BrokenBody) => broken(answer).await,
            _ => Ok(answer),
        }
    }

    fn act(
        &self,
        parts: &axum::http::request::Parts,
        body: Bytes,
    ) -> Result<(HttpResponse, Option<Fault>), HttpError> {
        let mut state = self.state();
        let key = parts.uri.path().trim_start_matches('/').to_owned();
        let query = Query::read(parts.uri.query().unwrap_or_default());
        let is_list = query.get("list-type").is_some();
        let shown = if is_list { "" } else { key.as_str() };
        state.asked.push(format!("{} {shown}", parts.method));
        let number = state.requests;
        state.requests += 1;
        let ask = Ask { number, method: parts.method.as_str(), key: shown };
        let fault = state.plan.as_mut().and_then(|plan| plan(&ask));
        match fault {
            Some(Fault::LostRequest) => return Err(lost()),
            Some(Fault::Refused(status, code)) => return Ok((error(status, code), None)),
            Some(Fault::ErrorBody) => return Ok((error(200, "InternalError"), None)),
            _ => {}
        }
        let is_kept = fault != Some(Fault::NotKept);
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let now = self.clock.now();
        let answer = match (parts.method.as_str(), &query) {
            ("GET", query) if is_list => state.list(&key, query, fault == Some(Fault::LateList)),
            ("GET", _) => state.get(&key, header("range"), false),
            ("HEAD", _) => state.get(&key, None, true),
            ("PUT", query) if query.get("uploadId").is_some() => state.put_part(query, body, is_kept),
            ("PUT", _) => state.put(&key, body, header("if-none-match"), now, is_kept),
            ("POST", query) if query.get("uploads").is_some() => state.start_upload(&key),
            ("POST", query) => state.end_upload(&key, query, now, is_kept),
            ("DELETE", query) => match query.get("uploadId") {
                Some(id) => {
                    state.uploads.remove(id);
                    respond(Response::builder().status(204), Bytes::new())
                }
                None => state.remove(&key, is_kept),
            },
            _ => error(405, "MethodNotAllowed"),
        };
        Ok((answer, fault))
    }
}

impl HttpService for FakeBucket {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { self.answer(request).await })
    }
}

/// The parts of a query, in order.
struct Query(Vec<(String, String)>);

impl Query {
    fn read(text: &str) -> Query {
        Query(::url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl State {
    fn note_before(&mut self) {
        if !self.is_frozen {
            self.before = self.objects.clone();
        }
    }

    fn tag(&self, key: &str, object: &Object) -> String {
        let named = match self.manners.tags {
            Tags::Content => &object.bytes,
            Tags::Nothing => &b""[..],
            Tags::Key => key.as_bytes(),
        };
        format!("\"{}\"", blake3::hash(named).to_hex())
    }

    fn time(&self, object: &Object) -> Timestamp {
        let is_kept = self.manners.tags == Tags::Content;
        if is_kept { object.modified } else { Timestamp::from_micros(1_700_000_000_000_000) }
    }

    fn get(&self, key: &str, range: Option<&str>, is_head: bool) -> HttpResponse {
        let Some(object) = self.objects.get(key) else { return error(404, "NoSuchKey") };
        let all = object.bytes.len();
        let mut builder = Response::builder()
            .header("etag", self.tag(key, object))
            .header("last-modified", http_date(self.time(object)))
            .header("content-type", "application/octet-stream");
        let mut bytes = object.bytes.clone();
        let range = range.filter(|_| !self.manners.breaks_ranges && !is_head);
        if let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
            let first: usize = first.parse().unwrap_or(usize::MAX);
            let end = last.parse::<usize>().map_or(all, |last| last.saturating_add(1)).min(all);
            if first >= end {
                return error(416, "InvalidRange");
            }
            builder = builder.status(206).header("content-range", format!("bytes {first}-{}/{all}", end - 1));
            bytes = bytes.slice(first..end);
        }
        builder = builder.header("content-length", bytes.len());
        respond(builder, if is_head { Bytes::new() } else { bytes })
    }

    fn put(
        &mut self,
        key: &str,
        bytes: Bytes,
        condition: Option<&str>,
        modified: Timestamp,
        is_kept: bool,
    ) -> HttpResponse {
        if condition.is_some() && !self.manners.ignores_conditions && self.objects.contains_key(key) {
            return error(412, "PreconditionFailed");
        }
        let object = Object { bytes, modified };
        let tag = self.tag(key, &object);
        if is_kept {
            self.note_before();
            self.objects.insert(key.to_owned(), object);
        }
        respond(Response::builder().header("etag", tag), Bytes::new())
    }

    fn remove(&mut self, key: &str, is_kept: bool) -> HttpResponse {
        if is_kept {
            self.note_before();
            self.objects.remove(key);
        }
        respond(Response::builder().status(204), Bytes::new())
    }

    fn start_upload(&mut self, key: &str) -> HttpResponse {
        let id = format!("upload-{}", self.requests);
        self.uploads.insert(id.clone(), BTreeMap::new());
        let body = format!(
            "<InitiateMultipartUploadResult><Key>{key}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        respond(Response::builder(), body.into())
    }

    fn put_part(&mut self, query: &Query, bytes: Bytes, is_kept: bool) -> HttpResponse {
        let upload = query.get("uploadId").and_then(|id| self.uploads.get_mut(id));
        let number = query.get("partNumber").and_then(|number| number.parse().ok());
        let (Some(upload), Some(number)) = (upload, number) else { return error(404, "NoSuchUpload") };
        let tag = format!("\"{}\"", blake3::hash(&bytes).to_hex());
        if is_kept {
            upload.insert(number, bytes);
        }
        respond(Response::builder().header("etag", tag), Bytes::new())
    }

    fn end_upload(&mut self, key: &str, query: &Query, modified: Timestamp, is_kept: bool) -> HttpResponse {
        let Some(parts) = query.get("uploadId").and_then(|id| self.uploads.remove(id)) else {
            return error(404, "NoSuchUpload");
        };
        let bytes: Vec<u8> = parts.into_values().flatten().collect();
        let object = Object { bytes: bytes.into(), modified };
        let tag = self.tag(key, &object);
        if is_kept {
            self.note_before();
            self.objects.insert(key.to_owned(), object);
        }
        let body = format!(
            "<CompleteMultipartUploadResult><Key>{key}</Key><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
        );
        respond(Response::builder(), body.into())
    }

    fn list(&self, bucket: &str, query: &Query, is_late: bool) -> HttpResponse {
        let objects = if is_late { &self.before } else { &self.objects };
        let bucket = format!("{}/", bucket.trim_end_matches('/'));
        let start = format!("{bucket}{}", query.get("prefix").unwrap_or_default());
        let after = query.get("continuation-token").or(query.get("start-after"));
        let from = match after {
            Some(after) => Bound::Excluded(format!("{bucket}{after}")),
            None => Bound::Included(start.clone()),
        };
        let mut body = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
        let (mut count, mut last, mut is_more) = (0, String::new(), false);
        let mut groups = std::collections::BTreeSet::new();
        for (key, object) in objects.range((from, Bound::Unbounded)) {
            if !key.starts_with(&start) {
                break;
            }
            if count == self.manners.page {
                is_more = true;
                break;
            }
            let name = &key[bucket.len()..];
            last = name.to_owned();
            count += 1;
            if let (Some(_), Some((group, _))) = (query.get("delimiter"), key[start.len()..].split_once('/'))
            {
                groups.insert(format!("{}{group}/", &start[bucket.len()..]));
                continue;
            }
            let tag = self.tag(key, object).replace('"', "&quot;");
            body += &format!(
                "<Contents><Key>{name}</Key><Size>{}</Size><LastModified>{}</LastModified><ETag>{tag}</ETag></Contents>",
                object.bytes.len(),
                self.time(object)
            );
        }
        for group in groups {
            body += &format!("<CommonPrefixes><Prefix>{group}</Prefix></CommonPrefixes>");
        }
        if is_more {
            body += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
        }
        body += &format!("<IsTruncated>{is_more}</IsTruncated></ListBucketResult>");
        respond(Response::builder().header("content-type", "application/xml"), body.into())
    }
}

fn http_date(time: Timestamp) -> String {
    let micros = u64::try_from(time.micros()).unwrap_or_default();
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_micros(micros))
}

fn respond(builder: axum::http::response::Builder, body: Bytes) -> HttpResponse {
    builder.body(HttpResponseBody::from(body)).expect("its parts are valid")
}

fn error(status: u16, code: &str) -> HttpResponse {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>planned</Message></Error>");
    respond(Response::builder().status(status).header("content-type", "application/xml"), body.into())
}

fn lost() -> HttpError {
    HttpError::new(HttpErrorKind::Interrupted, io::Error::from(io::ErrorKind::ConnectionReset))
}

async fn changed(
    answer: HttpResponse,
    change: impl FnOnce(Bytes) -> Bytes,
) -> Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let bytes = change(body.bytes().await?);
    Ok(HttpResponse::from_parts(parts, bytes.into()))
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 4;
    }
    bytes.into()
}

async fn broken(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let bytes = body.bytes().await?;
    let frames = [Ok(Frame::data(bytes.slice(..bytes.len() / 2))), Err(lost())];
    let body = HttpResponseBody::new(StreamBody::new(futures_util::stream::iter(frames)));
    Ok(HttpResponse::from_parts(parts, body))
}
