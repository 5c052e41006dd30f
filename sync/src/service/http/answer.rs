//! What is answered: JSON as Flask writes it, and refusals.
//!
//! Clients of version 1 have seen keys sorted, everything beyond ASCII escaped and a newline at the end, so every JSON
//! answer looks like that. Refusals never hold a cause: that goes to the log, under the request's id.

use std::fmt::Write as _;

use agent_trace_store::{Error, ErrorKind, Timestamp};
use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};

/// A JSON value that is to be written.
#[derive(Clone, Debug)]
pub(super) enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(u64),
    /// A string.
    Text(String),
    /// A value in canonical JSON.
    Canonical(Vec<u8>),
    /// An array.
    List(Vec<Json>),
    /// An object; its keys are sorted when it is written.
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    /// A string.
    pub(super) fn text(text: impl Into<String>) -> Json {
        Json::Text(text.into())
    }

    /// A string, or `null`.
    pub(super) fn option(text: Option<impl Into<String>>) -> Json {
        text.map_or(Json::Null, Json::text)
    }

    /// A time as Python writes it: microseconds where there are any, and `+00:00`.
    pub(super) fn time(time: Timestamp) -> Json {
        Json::Text(python_time(time))
    }

    /// The bytes, without the newline at the end.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Null => out.extend_from_slice(b"null"),
            Json::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Json::Number(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Json::Text(text) => {
                out.push(b'"');
                write_text(text, out);
                out.push(b'"');
            }
            Json::Canonical(bytes) => write_canonical(bytes, out),
            Json::List(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Json::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by_key(|(key, _)| *key);
                out.push(b'{');
                for (at, (key, value)) in members.into_iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    Json::text(*key).write(out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    /// The bytes of a whole answer.
    pub(super) fn into_line(self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out.push(b'\n');
        out
    }
}

/// Writes what stands between the quotes of a string.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    for char in text.chars() {
        match char {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            ' '..='~' => out.push(u8::try_from(char).expect("it is ASCII")),
            _ => write_escaped(char, out),
        }
    }
}

fn write_escaped(char: char, out: &mut Vec<u8>) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        let mut text = String::with_capacity(6);
        write!(text, "\\u{unit:04x}").expect("writing to a string does not fail");
        out.extend_from_slice(text.as_bytes());
    }
}

/// Writes canonical JSON, which differs in nothing but what is beyond ASCII, and that stands in strings only.
fn write_canonical(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| !(b' '..=b'~').contains(byte)) {
        out.extend_from_slice(&rest[..end]);
        let run = rest[end..].iter().position(|byte| (b' '..=b'~').contains(byte));
        let (odd, after) = rest[end..].split_at(run.unwrap_or(rest.len() - end));
        for char in String::from_utf8_lossy(odd).chars() {
            write_escaped(char, out);
        }
        rest = after;
    }
    out.extend_from_slice(rest);
}

/// A time as Python's `isoformat` has it.
pub(super) fn python_time(time: Timestamp) -> String {
    let text = time.to_string();
    let text = text.strip_suffix('Z').unwrap_or(&text);
    match text.split_once('.') {
        Some((whole, fraction)) => format!("{whole}.{fraction:0<6}+00:00"),
        None => format!("{text}+00:00"),
    }
}

/// An answer with a JSON body.
pub(super) fn json(status: u16, body: Json) -> Response<Body> {
    bytes(status, "application/json", body.into_line())
}

/// An answer with bytes.
pub(super) fn bytes(status: u16, kind: &'static str, body: Vec<u8>) -> Response<Body> {
    let length = body.len() as u64;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("the service answers with known statuses");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// An answer without a body.
pub(super) fn empty(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).expect("the service answers with known statuses");
    response
}

/// Why a request is not done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    body: Json,
    retry_after_seconds: Option<u64>,
    allow: Option<String>,
    /// What the log says, and the client does not see.
    pub(super) cause: Option<String>,
}

impl Refusal {
    /// A refusal with a text and no code, as version 1 has most of them.
    pub(super) fn plain(status: u16, error: impl Into<String>) -> Refusal {
        Refusal::with(status, error, Vec::new())
    }

    /// A refusal with a stable code.
    pub(super) fn new(status: u16, code: &'static str, error: impl Into<String>) -> Refusal {
        Refusal::with(status, error, vec![("code", Json::text(code))])
    }

    /// A refusal with further members.
    pub(super) fn with(
        status: u16,
        error: impl Into<String>,
        mut members: Vec<(&'static str, Json)>,
    ) -> Refusal {
        members.push(("error", Json::text(error)));
        Refusal { status, body: Json::Object(members), retry_after_seconds: None, allow: None, cause: None }
    }

    /// Says when to come again.
    pub(super) fn retry_after(mut self, seconds: u64) -> Refusal {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// Says which methods there are.
    pub(super) fn allow(mut self, methods: String) -> Refusal {
        self.allow = Some(methods);
        self
    }

    /// Says to the log what happened.
    pub(super) fn because(mut self, cause: impl Into<String>) -> Refusal {
        self.cause = Some(cause.into());
        self
    }

    /// There is no room or no turn now.
    pub(super) fn busy(what: &str) -> Refusal {
        Refusal::new(429, "busy", what).retry_after(1)
    }

    /// The service is about to stop.
    pub(super) fn draining() -> Refusal {
        Refusal::new(503, "unavailable", "the service is stopping").retry_after(5)
    }

    /// The body goes over a limit.
    pub(super) fn too_large(what: &str, bytes_max: u64) -> Refusal {
        Refusal::new(413, "too_large", format!("{what} is over {bytes_max} bytes"))
    }

    /// A body of version 2 that cannot be read.
    pub(super) fn body(error: &Error) -> Refusal {
        match error.kind() {
            ErrorKind::Unsupported => Refusal::new(426, "upgrade", error.message()),
            _ => Refusal::new(400, "invalid", error.message()),
        }
    }

    /// Status and stable code.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// The text and the code, for a stream that has begun.
    pub(super) fn told(&self) -> (String, String) {
        let Json::Object(members) = &self.body else { return Default::default() };
        let member = |wanted: &str| {
            members.iter().find_map(|(key, value)| match value {
                Json::Text(text) if *key == wanted => Some(text.clone()),
                _ => None,
            })
        };
        (member("error").unwrap_or_default(), member("code").unwrap_or_default())
    }

    /// The answer.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = json(self.status, self.body);
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
            response.headers_mut().insert(ALLOW, allow);
        }
        response
    }
}

/// An error with all its causes, for the log.
pub(super) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// What accounts and archives say.
impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let refusal = match error.kind() {
            ErrorKind::Invalid => Refusal::new(400, "invalid", error.message()),
            ErrorKind::Denied => Refusal::new(403, "scope", error.message()),
            ErrorKind::NotFound => Refusal::new(404, "not_found", "not found"),
            ErrorKind::Conflict => Refusal::new(409, "conflict", error.message()),
            ErrorKind::Unsupported => Refusal::new(426, "upgrade", error.message()),
            ErrorKind::Unavailable => {
                Refusal::new(503, "unavailable", "the service is busy; try again").retry_after(1)
            }
            ErrorKind::Full => Refusal::new(507, "full", "the service has no space left").retry_after(60),
            _ => Refusal::new(
                500,
                "failed",
                "the service failed; its log has the reason under the request's id",
            ),
        };
        refusal.because(chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: Json, expected: &str) {
        assert_eq!(String::from_utf8(json.into_line()).unwrap(), format!("{expected}\n"));
    }

    #[test]
    fn json_looks_as_flask_writes_it() {
        check(
            Json::Object(vec![("b", Json::Null), ("a", Json::List(vec![Json::Number(1), Json::Bool(true)]))]),
            r#"{"a":[1,true],"b":null}"#,
        );
        check(Json::text("a\"\\/\n\u{1}\u{7f}é\u{1f600}"), r#""a\"\\/\n\u0001\u007f\u00e9\ud83d\ude00""#);
        check(Json::Canonical("{\"é\u{7f}\":\"x\u{2028}y\"}".into()), r#"{"\u00e9\u007f":"x\u2028y"}"#);
    }

    #[test]
    fn times_look_as_python_writes_them() {
        let time = |text| python_time(Timestamp::parse(text).unwrap());
        assert_eq!(time("2026-11-20T07:19:55Z"), "2026-11-20T07:19:55+00:00");
        assert_eq!(time("2026-11-20T07:19:55.158Z"), "2026-11-20T07:19:55.158000+00:00");
        assert_eq!(time("2026-11-20T07:19:55.158873Z"), "2026-11-20T07:19:55.158873+00:00");
    }

    #[test]
    fn causes_are_not_told() {
        let error = Error::corrupt("segment `x` is damaged").context("cannot read");
        let refusal = Refusal::from(error);
        assert_eq!(refusal.cause.as_deref(), Some("cannot read: segment `x` is damaged"));
        assert!(!refusal.told().0.contains("segment"));
    }
}
