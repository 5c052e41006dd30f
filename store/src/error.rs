//! What can go wrong, sorted by what the caller can do about it.
//!
//! One `Error` for the crate; the kind is API, the text is not. A kind exists only where a user or a
//! program would act differently. Broken rules of our own are assertions, never errors.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// The result of everything in this crate that touches the world.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Read the message; nothing more specific is known.
    Failed,
    /// Fix the input, flag or configuration.
    Invalid,
    /// Try again later: a lock is held past its limit, a remote does not answer.
    Unavailable,
    /// A log has forked or a remote moved under us.
    Conflict,
    /// Stored bytes are damaged: run `verify`, restore from a remote.
    Corrupt,
    /// No such object, record, store or remote.
    NotFound,
    /// A newer format: upgrade this program.
    Unsupported,
    /// Free space or raise the quota.
    Full,
    /// The caller may not do this.
    Denied,
    /// A key is missing or wrong: give the secret.
    Locked,
    /// The privacy gate found something that must not leave.
    Refused,
}

/// An error with the operation that failed and the cause below it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of a kind; the message says what we were doing, in lower case, without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None }
    }

    /// Adds what caused the error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// Wraps a failed file operation; `doing` names the operation and the path.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Error {
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let kind = match source.kind() {
            // A file that is elsewhere fails in more ways than those of a system.
            _ if inner.is_some() => inner.map_or(ErrorKind::Failed, Error::kind),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                ErrorKind::Full
            }
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Failed,
        };
        Error { kind, message: doing.into(), source: Some(Box::new(source)) }
    }

    /// Says that stored bytes are damaged.
    pub fn corrupt(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Corrupt, message)
    }

    /// Says that the input cannot be taken.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, message)
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What we were doing when it went wrong, without the causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error under an outer message that says what the caller was doing.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Error {
        Error { kind: self.kind, message: message.into(), source: Some(Box::new(self)) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}
