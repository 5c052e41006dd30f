//! One request and its answer: sent, waited for, and sent again where that may help.
//!
//! Every call blocks until its answer begins. How bytes go there and back is the carrier's affair; what counts as an
//! answer, and for how long it is asked for, is decided here.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use agent_trace_store::env::Env;
use agent_trace_store::{Error, ErrorKind, Result};
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use serde::de::DeserializeOwned;

use super::carrier::{Came, Carrier, Lost, Sent};
use super::nonsense;
use super::refusal::Refusal;
use super::retry::{Tries, asked_micros, passes};
use super::sockets::Sockets;
use crate::limits::{ANSWER_MICROS_MAX, REFUSAL_BYTES_MAX, TRIES_MAX, WORK_MICROS_MAX};
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
    carrier: Box<dyn Carrier>,
    requests: AtomicU64,
    pub(super) tries_max: u32,
}

impl Http {
    /// Prepares; nothing is sent yet.
    pub(super) fn open(env: &Env, host_url: &str) -> Result<Http> {
        Ok(Http::over(env, Box::new(Sockets::open(host_url)?)))
    }

    /// The same by another way than sockets.
    pub(super) fn over(env: &Env, carrier: Box<dyn Carrier>) -> Http {
        Http { env: env.clone(), carrier, requests: AtomicU64::new(0), tries_max: TRIES_MAX }
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
        let came = self.carrier.carry(Sent {
            method: request.method.clone(),
            url: &request.url,
            headers: headers(request)?,
            body: request.body.as_ref().map(|(_, body)| body.clone()),
            wait_micros: if request.is_work { WORK_MICROS_MAX } else { ANSWER_MICROS_MAX },
        })?;
        let status = came.status;
        let answer = Answer { came, rest: Bytes::new() };
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
}

fn headers(request: &Request<'_>) -> Result<HeaderMap, Lost> {
    let unfit = |_| Lost { error: Error::invalid("cannot send what is no text in a header"), is_final: true };
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

/// An answer whose body is still to be read.
pub struct Answer<'a> {
    came: Came<'a>,
    rest: Bytes,
}

impl Answer<'_> {
    /// The status.
    pub(super) fn status(&self) -> u16 {
        self.came.status
    }

    /// A header, if it is there and a text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.came.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    /// The next part of the body; nothing at the end.
    pub(super) fn part(&mut self) -> io::Result<Option<Bytes>> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        self.came.body.next()
    }

    /// All of the body, which must not be longer than this.
    pub fn bytes(mut self, bytes_max: u64) -> Result<Vec<u8>> {
        if self.came.bytes.is_some_and(|stated| stated > bytes_max) {
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
