//! What it means when a bucket does not do what it was asked.
//!
//! The line puts a [`Refusal`] below every error that is not about one file, so its kind is known however many layers
//! wrap it. Nothing of a request is repeated: URLs may be signed.

use std::error::Error as StdError;
use std::fmt;

use agent_trace_store::{Error, ErrorKind};
use object_store::client::{HttpError, HttpErrorKind};

use crate::limits::REFUSAL_TEXT_BYTES_MAX;

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What the caller can do.
    pub(super) kind: ErrorKind,
    /// Whether the same request may do better in a while.
    pub(super) passes: bool,
    /// How long the other side asks to wait.
    pub(super) wait_micros: Option<u64>,
    /// What it is, for people.
    pub(super) message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Refusal {}

impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> HttpError {
        HttpError::new(HttpErrorKind::Unknown, refusal)
    }
}

impl Refusal {
    /// One that may pass.
    pub(super) fn passing(message: impl Into<String>) -> Refusal {
        Refusal { kind: ErrorKind::Unavailable, passes: true, wait_micros: None, message: message.into() }
    }

    /// One that stays.
    pub(super) fn lasting(kind: ErrorKind, message: impl Into<String>) -> Refusal {
        Refusal { kind, passes: false, wait_micros: None, message: message.into() }
    }

    /// What a status with a body says; `None` where it is about the one file that was asked for.
    pub(super) fn of_answer(status: u16, body: &[u8], wait_micros: Option<u64>) -> Option<Refusal> {
        let text = Told::read(body);
        let code = text.code.as_str();
        let message = text.words(status);
        let refusal = match (status, code) {
            (404, "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted") => {
                Refusal::lasting(ErrorKind::NotFound, format!("there is no such bucket ({message})"))
            }
            // About the file, or a condition that was given with it.
            (304 | 404 | 412, _) => return None,
            (409, "OperationAborted" | "ConditionalRequestConflict" | "BucketAlreadyExists") => {
                Refusal::passing(message)
            }
            (409, _) => return None,
            (_, "QuotaExceeded" | "InsufficientStorage" | "AccountFull") | (507, _) => {
                Refusal::lasting(ErrorKind::Full, format!("the bucket is full ({message})"))
            }
            (_, "ExpiredToken" | "TokenRefreshRequired" | "RequestExpired") => {
                Refusal::lasting(ErrorKind::Denied, format!("the credentials have expired ({message})"))
            }
            (_, "RequestTimeTooSkewed") => {
                Refusal::lasting(ErrorKind::Denied, format!("this machine's clock is wrong ({message})"))
            }
            (401 | 403, _) | (_, "InvalidToken" | "InvalidAccessKeyId" | "AuthorizationHeaderMalformed") => {
                Refusal::lasting(
                    ErrorKind::Denied,
                    format!("the bucket does not accept the credentials ({message})"),
                )
            }
            (_, "SlowDown" | "InternalError" | "RequestTimeout" | "ServiceUnavailable" | "ServerBusy") => {
                Refusal::passing(format!("the bucket is busy ({message})"))
            }
            (408 | 429, _) => Refusal::passing(format!("the bucket is busy ({message})")),
            (501, _) => {
                Refusal::lasting(ErrorKind::Unsupported, format!("the bucket cannot do that ({message})"))
            }
            (500..=599, _) => Refusal::passing(format!("the bucket fails ({message})")),
            (300..=399, _) => Refusal::lasting(
                ErrorKind::Invalid,
                format!("the bucket is elsewhere: another region or endpoint ({message})"),
            ),
            (416, _) => Refusal::lasting(ErrorKind::Corrupt, "it is shorter than it should be".to_owned()),
            _ => Refusal::lasting(ErrorKind::Failed, format!("the bucket refuses ({message})")),
        };
        Some(Refusal { wait_micros, ..refusal })
    }

    /// The one below an error, if there is one.
    pub(super) fn below(error: &object_store::Error) -> Option<&Refusal> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(cause) = next {
            if let Some(refusal) = cause.downcast_ref::<Refusal>() {
                return Some(refusal);
            }
            next = cause.source();
        }
        None
    }
}

/// What an error in XML says.
struct Told {
    code: String,
    message: String,
}

impl Told {
    fn read(body: &[u8]) -> Told {
        let text = String::from_utf8_lossy(&body[..body.len().min(64 << 10)]);
        Told { code: element(&text, "Code"), message: element(&text, "Message") }
    }

    fn words(&self, status: u16) -> String {
        let words = [self.code.as_str(), self.message.as_str()];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            format!("status {status}")
        } else {
            format!("status {status}, {}", words.join(": "))
        }
    }
}

/// The text of the first element of a name, printable and not too long.
fn element(text: &str, name: &str) -> String {
    let found = text.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once("</"));
    let (inner, _) = found.unwrap_or_default();
    let clean: String = inner.chars().filter(|char| !char.is_control()).collect();
    clean[..clean.floor_char_boundary(REFUSAL_TEXT_BYTES_MAX)].to_owned()
}

/// Whether a body that came with a good status says that something has failed.
pub(super) fn is_error_body(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let head = &start[..start.len().min(512)];
    let is_xml = head.starts_with(b"<?xml") || head.starts_with(b"<Error");
    is_xml && memchr::memmem::find(head, b"<Error").is_some()
}

/// What an error of the library means; `what` says what we were doing.
pub(super) fn explain(what: &str, error: &object_store::Error) -> Error {
    let (kind, because) = match (Refusal::below(error), error) {
        (Some(refusal), _) => (refusal.kind, refusal.message.clone()),
        (None, object_store::Error::NotFound { .. }) => (ErrorKind::NotFound, "it is not there".to_owned()),
        (
            None,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. },
        ) => (ErrorKind::Denied, "the bucket does not accept the credentials".to_owned()),
        (None, _) => (ErrorKind::Failed, "the answer cannot be understood".to_owned()),
    };
    Error::new(kind, format!("cannot {what}: {because}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(code: &str) -> Vec<u8> {
        format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>no\u{7}</Message></Error>")
            .into_bytes()
    }

    #[test]
    fn answers_are_sorted_by_what_to_do() {
        let check = |status, code: &str, kind, passes| {
            let refusal = Refusal::of_answer(status, &body(code), None).unwrap();
            assert_eq!((refusal.kind, refusal.passes), (kind, passes), "{status} {code}");
        };
        check(400, "ExpiredToken", ErrorKind::Denied, false);
        check(403, "SignatureDoesNotMatch", ErrorKind::Denied, false);
        check(403, "QuotaExceeded", ErrorKind::Full, false);
        check(404, "NoSuchBucket", ErrorKind::NotFound, false);
        check(503, "SlowDown", ErrorKind::Unavailable, true);
        check(500, "", ErrorKind::Unavailable, true);
        check(429, "", ErrorKind::Unavailable, true);
        check(200, "InternalError", ErrorKind::Unavailable, true);
        check(301, "PermanentRedirect", ErrorKind::Invalid, false);
        check(400, "InvalidArgument", ErrorKind::Failed, false);
        for (status, code) in [(404, "NoSuchKey"), (412, ""), (409, "BlobAlreadyExists")] {
            assert!(Refusal::of_answer(status, &body(code), None).is_none());
        }
        let refusal = Refusal::of_answer(403, &body("AccessDenied"), None).unwrap();
        assert!(refusal.message.ends_with("(status 403, AccessDenied: no)"), "{}", refusal.message);
    }

    #[test]
    fn an_error_in_a_good_answer_is_seen() {
        assert!(is_error_body(&body("InternalError")));
        assert!(is_error_body(b"\n <Error><Code>SlowDown</Code></Error>"));
        for fine in [&b""[..], b"ATHEAD", b"<?xml version=\"1.0\"?><ListBucketResult></ListBucketResult>"] {
            assert!(!is_error_body(fine));
        }
    }
}
