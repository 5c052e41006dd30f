//! The door to the network (I12): how one request leaves and how its answer comes.
//!
//! Who sends what, and again where that may help, is `http`'s affair; a carrier carries once. `sockets` is the real one,
//! the simulation has another.

use std::io;

use agent_trace_store::Error;
use bytes::Bytes;
pub use reqwest::Method;
pub use reqwest::header::HeaderMap;

/// A request as it leaves.
pub struct Sent<'a> {
    /// What is to be done.
    pub method: Method,
    /// With what.
    pub url: &'a str,
    /// Who asks, and what the body is.
    pub headers: HeaderMap,
    /// The body, if there is one.
    pub body: Option<Bytes>,
    /// How long the answer may take to begin.
    pub wait_micros: u64,
}

/// An answer as it begins to come.
pub struct Came<'a> {
    /// Its status.
    pub status: u16,
    /// What is said of it.
    pub headers: HeaderMap,
    /// The length of its body, where it is known before.
    pub bytes: Option<u64>,
    /// Its body, still to be read.
    pub body: Box<dyn Parts + Send + 'a>,
}

/// The body of an answer, in the parts in which it comes.
pub trait Parts {
    /// The next part; nothing at the end. A body that was cut has no end.
    fn next(&mut self) -> io::Result<Option<Bytes>>;
}

/// A request without an answer. It may have arrived all the same.
pub struct Lost {
    /// What happened.
    pub error: Error,
    /// Whether another try would end the same.
    pub is_final: bool,
}

/// Carries requests to one service.
pub trait Carrier: Send + Sync {
    /// Sends a request once and waits until its answer begins.
    fn carry(&self, request: Sent<'_>) -> Result<Came<'_>, Lost>;
}
