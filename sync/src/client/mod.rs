//! The client of a service: blocking calls, over HTTP, for both protocols.
//!
//! ```text
//! calls ─► http: one request, repeated where it may be ─► carrier ─► sockets: reqwest, on a small runtime of its own
//! ```
//!
//! What comes from a service is bounded before it is kept, and believed in nothing. The token goes to the host of the
//! remote and nowhere else: no redirect is followed. Knows nothing of stores.

mod account;
mod admin;
pub mod carrier;
mod http;
mod refusal;
mod retry;
mod sockets;
mod v1;
mod v2;

use agent_trace_store::env::Env;
use agent_trace_store::{Error, ErrorKind, Result};

use crate::address::ServiceUrl;
use crate::token::Token;

pub use account::{Health, ProjectRow, Scope, Whoami};
pub use admin::Admin;
pub use http::Answer;
pub use v1::{Page, Resource};
pub use v2::Arrived;

pub(crate) use retry::{Tries, asked_micros};

use carrier::Carrier;
use http::Http;

/// A service, reachable, and who asks.
pub struct Client {
    http: Http,
    url: ServiceUrl,
    base: String,
    token: Option<Token>,
}

impl Client {
    /// Makes a client of the project at a URL; nothing is sent yet.
    pub fn open(env: &Env, url: &ServiceUrl, token: Option<Token>) -> Result<Client> {
        Ok(Client { http: Http::open(env, url.host_url())?, url: url.clone(), base: url.base_url(), token })
    }

    /// The same by another way than sockets.
    pub fn over(env: &Env, url: &ServiceUrl, token: Option<Token>, carrier: Box<dyn Carrier>) -> Client {
        Client { http: Http::over(env, carrier), url: url.clone(), base: url.base_url(), token }
    }

    /// The same, but each request is tried once: for questions whose answer is not worth a wait.
    #[must_use]
    pub fn without_retries(mut self) -> Client {
        self.http.tries_max = 1;
        self
    }

    /// The project.
    pub fn url(&self) -> &ServiceUrl {
        &self.url
    }

    /// How many requests were made, repeated ones included.
    pub fn requests(&self) -> u64 {
        self.http.requests()
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The beginning of the paths of protocol 2.
    fn project(&self, path: &str) -> String {
        format!("{}/api/v2/{}/{}/{path}", self.base, self.url.org(), self.url.project())
    }

    /// Says what was being done when a call failed.
    fn doing(&self, what: &str, error: Error) -> Error {
        let message = format!("cannot {what} at `{}`: {}", self.url, error.message());
        let outer = Error::new(error.kind(), message);
        match std::error::Error::source(&error) {
            Some(source) => outer.with_source(source.to_string()),
            None => outer,
        }
    }
}

/// Says that an answer is not what the protocol promises.
fn nonsense(what: &str) -> Error {
    Error::new(ErrorKind::Failed, format!("the service answers with something else than {what}"))
}
