//! One request and its answer: sent, waited for, and sent again where that may help.
//!
//! The runtime is the client's own and has one thread; every call blocks until its answer begins. An answer's body is
//! read as the caller asks for it, so a service sends no faster than its bytes are used.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_trace_store::env::Env;
use agent_trace_store::{Error, ErrorKind, Result};
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::nonsense;
use super::refusal::Refusal;
use super::retry::{Tries, asked_micros, passes};
use crate::limits::{
    ANSWER_MICROS_MAX, CONNECT_MICROS_MAX, IDLE_MICROS_MAX, REFUSAL_BYTES_MAX, TRIES_MAX, WHOLE_MICROS_MAX,
    WORK_MICROS_MAX,
};
use crate::token::Token;

/// Who a request speaks for.
#[derive(Clone, Copy)]
pub(super) enum Who<'a> {
    /// Nobody.
    Nobody,
    /// The holder of a token.
    Token(Option<&'a Token>),
    /// The admin of the service.
    Admin(&'a Token),
}

/// A request.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) who: Who<'a>,
    pub(super) body: Option<(&'static str, Bytes)>,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Whether sending it twice does no harm.
    pub(super) repeatable: bool,
    /// Whether the service may need long for the answer.
    pub(super) is_work: bool,
}

impl<'a> Request<'a> {
    /// A request without a body, which may be repeated.
    pub(super) fn new(method: Method, url: String, who: Who<'a>) -> Request<'a> {
        Request { method, url, who, body: None, headers: Vec::new(), repeatable: true, is_work: false }
    }

    /// The same with a body.
    pub(super) fn with(mut self, kind: &'static str, body: impl Into<Bytes>) -> Request<'a> {
        self.body = Some((kind, body.into()));
        self
    }
}

/// What came back.
pub(super) enum Reply<'a> {
    /// What was asked for.
    Good(Answer<'a>),
    /// Something else.
    Bad(Refusal),
}

impl<'a> Reply<'a> {
    /// The answer, or the refusal as an error.
    pub(super) fn good(self) -> Result<Answer<'a>> {
        match self {
            Reply::Good(answer) => Ok(answer),
            Reply::Bad(refusal) => Err(refusal.into_error()),
        }
    }
}

/// Requests to one host.
pub(super) struct Http {
    env: Env,
    runtime: Runtime,
    client: reqwest::Client,
    host_url: String,
    requests: AtomicU64,
    pub(super) tries_max: u32,
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

impl Http {
    /// Prepares; nothing is sent yet.
    pub(super) fn open(env: &Env, host_url: &str) -> Result<Http> {
        // Another part of the program may have chosen one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("agent-trace/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(micros(CONNECT_MICROS_MAX))
            .timeout(micros(WHOLE_MICROS_MAX));
        if host_url.starts_with("http://") {
            // Said to be in the open, or this machine: a proxy has no part in it.
            builder = builder.no_proxy();
        }
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Failed, format!("cannot prepare requests to `{host_url}`"))
                .with_source(error.to_string())
        };
        let client = builder.build().map_err(|error| failed(&with_causes(&error)))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| failed(&error))?;
        let (env, host_url) = (env.clone(), host_url.to_owned());
        Ok(Http { env, runtime, client, host_url, requests: AtomicU64::new(0), tries_max: TRIES_MAX })
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Sends a request, again where that may help, and waits until the answer begins.
    pub(super) fn ask(&self, request: &Request<'_>) -> Result<Reply<'_>> {
        let mut tries = Tries::new(&self.env, if request.repeatable { self.tries_max } else { 1 });
        loop {
            match self.ask_once(request) {
                Ok(Reply::Bad(refusal)) if passes(refusal.status) => {
                    if !tries.wait(refusal.retry_after_micros) {
                        return Ok(Reply::Bad(refusal));
                    }
                }
                Ok(reply) => return Ok(reply),
                Err(Lost { error, is_final }) => {
                    if is_final || !tries.wait(None) {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn ask_once(&self, request: &Request<'_>) -> Result<Reply<'_>, Lost> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut builder = self.client.request(request.method.clone(), &request.url);
        builder = builder.headers(self.headers(request)?);
        if let Some((_, body)) = &request.body {
            builder = builder.body(body.clone());
        }
        let wait = if request.is_work { WORK_MICROS_MAX } else { ANSWER_MICROS_MAX };
        let sent = self.runtime.block_on(async { timeout(micros(wait), builder.send()).await });
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.lost(&error)),
            Err(_) => {
                let message = format!("`{}` does not answer", self.host_url);
                return Err(Lost { error: Error::new(ErrorKind::Unavailable, message), is_final: false });
            }
        };
        let status = response.status().as_u16();
        let answer = Answer { http: self, response, rest: Bytes::new() };
        if (200..300).contains(&status) {
            return Ok(Reply::Good(answer));
        }
        let location = answer.header(LOCATION.as_str());
        let date = answer.header(DATE.as_str());
        let retry_after_micros =
            answer.header(RETRY_AFTER.as_str()).and_then(|text| asked_micros(&text, date.as_deref()));
        // What cannot be read of a refusal is not worth another failure.
        let body = answer.bytes(REFUSAL_BYTES_MAX).unwrap_or_default();
        let refusal = Refusal { retry_after_micros, date, ..Refusal::read(status, location, &body) };
        Ok(Reply::Bad(refusal))
    }

    fn headers(&self, request: &Request<'_>) -> Result<HeaderMap, Lost> {
        let unfit =
            |_| Lost { error: Error::invalid("cannot send what is no text in a header"), is_final: true };
        let mut headers = HeaderMap::new();
        if let Some((kind, _)) = &request.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let secret = |text: String| -> Result<HeaderValue, Lost> {
            let mut value = HeaderValue::try_from(text).map_err(|_| Lost {
                error: Error::invalid("cannot send the token: it does not fit a header"),
                is_final: true,
            })?;
            value.set_sensitive(true);
            Ok(value)
        };
        match request.who {
            Who::Token(Some(token)) => {
                headers.insert(AUTHORIZATION, secret(format!("Bearer {}", token.expose()))?);
            }
            Who::Admin(admin) => {
                headers.insert("x-admin-secret", secret(admin.expose().to_owned())?);
            }
            Who::Token(None) | Who::Nobody => {}
        }
        for (name, text) in &request.headers {
            headers.insert(*name, HeaderValue::try_from(text.as_str()).map_err(unfit)?);
        }
        Ok(headers)
    }

    /// What it means that no answer came.
    fn lost(&self, error: &reqwest::Error) -> Lost {
        let is_final = error.is_builder() || is_untrusted(error);
        let kind = if error.is_builder() { ErrorKind::Invalid } else { ErrorKind::Unavailable };
        let what = if is_untrusted(error) {
            format!("the certificate of `{}` cannot be trusted", self.host_url)
        } else if error.is_connect() {
            format!("cannot connect to `{}`", self.host_url)
        } else if error.is_timeout() {
            format!("`{}` does not answer", self.host_url)
        } else {
            format!("the connection to `{}` was lost", self.host_url)
        };
        Lost { error: Error::new(kind, what).with_source(with_causes(error)), is_final }
    }
}

/// A request without an answer.
struct Lost {
    error: Error,
    /// Whether another try would end the same.
    is_final: bool,
}

/// Whether the other side could not prove who it is.
fn is_untrusted(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if matches!(cause.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // An error of the system may carry one of TLS that it does not name as its cause.
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    false
}

/// The innermost of the causes, which says most; the others repeat the URL.
fn with_causes(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// An answer whose body is still to be read.
pub struct Answer<'a> {
    http: &'a Http,
    response: Response,
    rest: Bytes,
}

impl Answer<'_> {
    /// The status.
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header, if it is there and a text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    /// The next part of the body; nothing at the end.
    pub(super) fn part(&mut self) -> io::Result<Option<Bytes>> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let response = &mut self.response;
        let read =
            self.http.runtime.block_on(async { timeout(micros(IDLE_MICROS_MAX), response.chunk()).await });
        match read {
            Ok(Ok(part)) => Ok(part),
            Ok(Err(error)) => Err(io::Error::other(with_causes(&error))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// All of the body, which must not be longer than this.
    pub fn bytes(mut self, bytes_max: u64) -> Result<Vec<u8>> {
        let stated = self.response.content_length();
        if stated.is_some_and(|stated| stated > bytes_max) {
            return Err(too_long(bytes_max));
        }
        let mut bytes = Vec::new();
        while let Some(part) = self.part().map_err(cut)? {
            if (bytes.len() + part.len()) as u64 > bytes_max {
                return Err(too_long(bytes_max));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    /// The body as JSON of this shape.
    pub fn json<T: DeserializeOwned>(self, bytes_max: u64, what: &str) -> Result<T> {
        let bytes = self.bytes(bytes_max)?;
        serde_json::from_slice(&bytes).map_err(|error| nonsense(what).with_source(error))
    }
}

fn too_long(bytes_max: u64) -> Error {
    Error::new(ErrorKind::Failed, format!("the service answers with more than {bytes_max} bytes"))
}

/// Says that an answer has no end.
pub(super) fn cut(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the answer of the service was cut").with_source(error)
}

impl Read for Answer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut part) = self.part()? else { return Ok(0) };
        let length = part.len().min(buffer.len());
        buffer[..length].copy_from_slice(&part[..length]);
        self.rest = part.split_off(length);
        Ok(length)
    }
}
