//! One request to a bucket and its answer: counted, timed, paced, and looked at before anybody believes it.
//!
//! A good status proves nothing: lists that end early, errors with status 200 and answers that stop coming are turned
//! into errors here, below the library that signs and reads. Decides nothing about trying again; follows no redirect.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use agent_trace_store::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use reqwest::redirect::Policy;
use tokio::time::timeout;

use super::pace::{PART_BYTES, Pace};
use super::refusal::{Refusal, is_error_body};
use crate::client::asked_micros;
use crate::limits::{
    BUCKET_ANSWER_BYTES_MAX, CONNECT_MICROS_MAX, IDLE_MICROS_MAX, METADATA_MICROS_MAX, WORK_MICROS_MAX,
};

/// What an asynchronous call of a service returns.
type Answer<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

/// The way to a bucket.
#[derive(Clone, Debug)]
pub(super) struct Line(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    way: Arc<dyn HttpService>,
    requests: AtomicU64,
    pace: Option<Arc<Pace>>,
}

impl Line {
    /// Over sockets.
    pub(super) fn over_sockets(pace: Option<Arc<Pace>>) -> Result<Line> {
        let way = Arc::new(Sockets::open(pace.clone())?);
        Ok(Line(Arc::new(Inner { way, requests: AtomicU64::new(0), pace })))
    }

    /// Over something else.
    pub(super) fn over(way: Arc<dyn HttpService>) -> Line {
        Line(Arc::new(Inner { way, requests: AtomicU64::new(0), pace: None }))
    }

    /// How many requests were made.
    pub(super) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let asked = Asked::of(&request);
        let answer = match timeout(asked.wait(), self.0.way.call(request)).await {
            Ok(answer) => answer.map_err(|error| asked.lost(error))?,
            Err(_) => return Err(asked.silent().into()),
        };
        let status = answer.status();
        if asked == Asked::Metadata && !status.is_success() {
            return Err(no_credentials().into());
        }
        if !status.is_success() {
            let (parts, body) = answer.into_parts();
            let header = |name| {
                parts.headers.get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok())
            };
            let wait = header("retry-after").and_then(|after| asked_micros(after, header("date")));
            // What cannot be read of it says nothing more.
            let body = whole(body).await.unwrap_or_default();
            return match Refusal::of_answer(status.as_u16(), &body, wait) {
                Some(refusal) => Err(refusal.into()),
                None => Ok(HttpResponse::from_parts(parts, body.into())),
            };
        }
        match asked {
            Asked::File | Asked::Metadata => self.watch(answer).await,
            Asked::List => {
                let (parts, body) = answer.into_parts();
                let body = whole(body).await?;
                if !is_whole_list(&body) {
                    return Err(odd(&body, "the list from the bucket is cut or none").into());
                }
                Ok(HttpResponse::from_parts(parts, body.into()))
            }
            Asked::Change => {
                let (parts, body) = answer.into_parts();
                let body = whole(body).await?;
                if is_error_body(&body) {
                    return Err(odd(&body, "the bucket fails").into());
                }
                Ok(HttpResponse::from_parts(parts, body.into()))
            }
        }
    }

    /// Watches over the bytes of a file: that they go on coming, not too fast, and that they are no error.
    async fn watch(&self, answer: HttpResponse) -> Result<HttpResponse, HttpError> {
        let (parts, body) = answer.into_parts();
        let is_text = parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().ends_with(b"xml"));
        let mut stream = Watched { stream: body.bytes_stream(), pace: self.0.pace.clone() };
        let first = if is_text { stream.next_part().await.transpose()? } else { None };
        if let Some(first) = first.as_ref().filter(|first| is_error_body(first)) {
            return Err(odd(first, "the bucket answers with an error in place of the file").into());
        }
        let first = futures_util::stream::iter(first.map(Ok));
        let rest = futures_util::stream::unfold(stream, |mut stream| async move {
            stream.next_part().await.map(|part| (part, stream))
        });
        let frames = Synced::new(first.chain(rest).map(|part| part.map(Frame::data)));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(StreamBody::new(frames))))
    }
}

/// A stream that only its owner polls, so that it may be shared.
struct Synced<S>(Mutex<Pin<Box<S>>>);

impl<S> Synced<S> {
    fn new(stream: S) -> Synced<S> {
        Synced(Mutex::new(Box::pin(stream)))
    }
}

impl<S: Stream> Stream for Synced<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll_next(context)
    }
}

struct Watched {
    stream: futures_util::stream::BoxStream<'static, Result<Bytes, HttpError>>,
    pace: Option<Arc<Pace>>,
}

impl Watched {
    async fn next_part(&mut self) -> Option<Result<Bytes, HttpError>> {
        let part = match timeout(micros(IDLE_MICROS_MAX), self.stream.next()).await {
            Ok(part) => part?,
            Err(_) => Err(Refusal::passing("the bucket has stopped sending").into()),
        };
        let part = part.map_err(|error| Asked::File.lost(error));
        if let (Ok(bytes), Some(pace)) = (&part, &self.pace) {
            pace.wait(bytes.len()).await;
        }
        Some(part)
    }
}

impl HttpService for Line {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.ask(request))
    }
}

impl HttpConnector for Line {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    File,
    List,
    Change,
    /// The machine's own credentials.
    Metadata,
}

impl Asked {
    fn of(request: &HttpRequest) -> Asked {
        let host = request.uri().host().unwrap_or_default();
        let query = request.uri().query().unwrap_or_default();
        if host.starts_with("169.254.") || host.starts_with("metadata.") {
            Asked::Metadata
        } else if request.method() != reqwest::Method::GET {
            Asked::Change
        } else if query.contains("list-type=") || query.contains("comp=list") {
            Asked::List
        } else {
            Asked::File
        }
    }

    fn wait(self) -> Duration {
        micros(match self {
            Asked::Metadata => METADATA_MICROS_MAX,
            Asked::Change => WORK_MICROS_MAX,
            Asked::File | Asked::List => IDLE_MICROS_MAX,
        })
    }

    fn silent(self) -> Refusal {
        match self {
            Asked::Metadata => no_credentials(),
            _ => Refusal::passing("the bucket does not answer"),
        }
    }

    /// What it means that no answer came.
    fn lost(self, error: HttpError) -> HttpError {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        let mut innermost = String::new();
        let mut is_untrusted = false;
        while let Some(cause) = next {
            if cause.is::<Refusal>() {
                return error;
            }
            is_untrusted |= matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)));
            innermost = cause.to_string();
            // An error of the system may carry one of TLS that it does not name as its cause.
            let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            next = match inner {
                Some(inner) => Some(inner),
                None => cause.source(),
            };
        }
        if self == Asked::Metadata {
            return no_credentials().into();
        }
        let what = if is_untrusted { "its certificate cannot be trusted" } else { "the connection was lost" };
        let refusal = Refusal::passing(format!("{what} ({innermost})"));
        Refusal { passes: !is_untrusted, ..refusal }.into()
    }
}

fn no_credentials() -> Refusal {
    Refusal::lasting(ErrorKind::Denied, "no credentials are given, and this machine has none of its own")
}

fn odd(body: &[u8], else_what: &str) -> Refusal {
    match Refusal::of_answer(200, body, None) {
        Some(refusal) if is_error_body(body) => {
            Refusal { passes: true, kind: ErrorKind::Unavailable, ..refusal }
        }
        _ => Refusal::passing(else_what),
    }
}

/// A list that names its kind and comes to its end.
fn is_whole_list(body: &[u8]) -> bool {
    let end = body.trim_ascii_end();
    let kinds = ["ListBucketResult", "EnumerationResults"];
    kinds.iter().any(|kind| {
        memchr::memmem::find(&end[..end.len().min(1024)], format!("<{kind}").as_bytes()).is_some()
            && (end.ends_with(format!("</{kind}>").as_bytes()) || end.ends_with(b"/>"))
    })
}

async fn whole(body: HttpResponseBody) -> Result<Bytes, HttpError> {
    let limited = http_body_util::Limited::new(body, BUCKET_ANSWER_BYTES_MAX);
    match timeout(micros(IDLE_MICROS_MAX), limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => Err(match error.downcast::<HttpError>() {
            Ok(error) => Asked::List.lost(*error),
            Err(_) => {
                Refusal::lasting(ErrorKind::Failed, "the answer of the bucket is over its limit").into()
            }
        }),
        Err(_) => Err(Refusal::passing("the bucket has stopped sending").into()),
    }
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// Real connections.
struct Sockets {
    secure: reqwest::Client,
    /// Said to be in the open, this machine, or the machine's own credentials: a proxy has no part in it.
    plain: reqwest::Client,
    pace: Option<Arc<Pace>>,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sockets")
    }
}

impl Sockets {
    fn open(pace: Option<Arc<Pace>>) -> Result<Sockets> {
        // Another part of the program may have chosen one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("agent-trace/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .referer(false)
                .connect_timeout(micros(CONNECT_MICROS_MAX))
        };
        let failed = |error: reqwest::Error| {
            Error::new(ErrorKind::Failed, "cannot prepare requests to a bucket")
                .with_source(error.to_string())
        };
        let secure = builder().build().map_err(failed)?;
        let plain = builder().no_proxy().build().map_err(failed)?;
        Ok(Sockets { secure, plain, pace })
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let failed = |error: reqwest::Error| {
            HttpError::new(object_store::client::HttpErrorKind::Unknown, error.without_url())
        };
        let url = parts.uri.to_string().parse::<url::Url>();
        let url =
            url.map_err(|_| Refusal::lasting(ErrorKind::Invalid, "the address of the bucket is no URL"))?;
        let client = if url.scheme() == "http" { &self.plain } else { &self.secure };
        let mut sent = reqwest::Request::new(parts.method, url);
        *sent.headers_mut() = parts.headers;
        *sent.body_mut() = Some(self.paced(body).await?);
        let answer: axum::http::Response<reqwest::Body> = client.execute(sent).await.map_err(failed)?.into();
        let (parts, body) = answer.into_parts();
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body.map_err(failed))))
    }

    /// The body of a request, in small parts where they may not go as fast as they can.
    async fn paced(&self, body: object_store::client::HttpRequestBody) -> Result<reqwest::Body, HttpError> {
        let bytes = match body.as_bytes() {
            Some(bytes) => bytes.clone(),
            None => body.collect().await?.to_bytes(),
        };
        let Some(pace) = self.pace.clone().filter(|_| !bytes.is_empty()) else { return Ok(bytes.into()) };
        let parts = futures_util::stream::unfold((bytes, pace), |(mut bytes, pace)| async move {
            if bytes.is_empty() {
                return None;
            }
            let part = bytes.split_to(bytes.len().min(PART_BYTES));
            pace.wait(part.len()).await;
            Some((Ok::<Bytes, std::io::Error>(part), (bytes, pace)))
        });
        // Its length stands in a header already.
        Ok(reqwest::Body::wrap(StreamBody::new(Synced::new(parts.map(|part| part.map(Frame::data))))))
    }
}

impl HttpService for Sockets {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.send(request))
    }
}
