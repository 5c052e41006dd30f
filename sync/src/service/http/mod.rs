//! The service over HTTP: both protocol versions, over accounts and archives that know nothing of it.
//!
//! ```text
//! socket ─► listen ─► routes ─► call (who, what may be done) ─► accounts, records, pages, blobs, protocol ─► archive
//! ```
//!
//! Asynchronous is only what waits for clients; what touches accounts and archives runs on blocking threads. Whatever
//! clients do, memory is bounded: `limits` names the bounds, `throttle` gives turns, bodies beyond them lie in files.

mod accounts;
mod admin;
mod answer;
mod blobs;
mod body;
mod call;
mod flow;
pub mod limits;
mod listen;
#[cfg(feature = "sim")]
pub mod local;
mod metrics;
mod opening;
mod pages;
mod protocol;
mod records;
mod routes;
mod scan;
mod service;
mod text;
mod throttle;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_trace_store::env::Env;
use agent_trace_store::{Error, Result};
use tokio::sync::watch;
use tokio::task::JoinError;

pub use listen::{Server, Stopper};
pub use routes::{Access, ROUTES, Route};

use answer::Refusal;
use body::Spools;
use limits::ORG_REQUESTS_TOKENS;
use metrics::{Limit, Metrics};
use routes::counted;
use throttle::{Rates, Turns};

use crate::limits::ORG_UPLOADS_MAX;
use crate::service::archive::{Accounts, Staging};
use crate::service::grant::Grant;
use crate::service::quota::{Reserved, Room, Usage};

/// How the service listens.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens; port 0 for any.
    pub listen: SocketAddr,
    /// Where it shows its counters, without asking who looks; nowhere if `None`.
    pub metrics: Option<SocketAddr>,
    /// Files of the certificate chain and its key, for TLS.
    pub tls: Option<TlsFiles>,
    /// Where bodies lie that have no room in memory; what is in there is removed.
    pub spool: PathBuf,
    /// Requests of one token per second on average.
    pub requests_per_second: u32,
}

/// Where a certificate and its key lie, both as PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate and those above it.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How long clients are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// For all headers of a request, idle time between requests included.
    pub headers: Duration,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For the next bytes of a request's body.
    pub body: Duration,
    /// Until the next bytes of an answer are taken.
    pub answer: Duration,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits {
            headers: Duration::from_secs(limits::HEADER_WAIT_SECONDS_MAX),
            handshake: Duration::from_secs(limits::HANDSHAKE_WAIT_SECONDS_MAX),
            body: Duration::from_secs(limits::BODY_WAIT_SECONDS_MAX),
            answer: Duration::from_secs(limits::ANSWER_WAIT_SECONDS_MAX),
        }
    }
}

/// What the service stands on.
#[derive(Clone)]
pub struct Backend {
    /// Files, time and randomness.
    pub env: Env,
    /// Organisations, projects, tokens, and the way to archives.
    pub accounts: Arc<dyn Accounts>,
    /// Blobs that no pointer names yet.
    pub staging: Arc<dyn Staging>,
}

/// Serves until the process is told to stop; `ready` learns where.
pub fn serve(config: &Config, backend: Backend, ready: impl FnOnce(&Server)) -> Result<()> {
    let server = Server::bind(config, backend)?;
    server.stop_on_signals()?;
    ready(&server);
    server.run()
}

/// What all requests share.
struct State {
    env: Env,
    accounts: Arc<dyn Accounts>,
    staging: Arc<dyn Staging>,
    rates: Rates,
    org_rates: Rates,
    turns: Turns,
    spools: Arc<Spools>,
    metrics: Metrics,
    waits: Waits,
    /// Whether the service is about to stop.
    draining: watch::Sender<bool>,
}

impl State {
    /// Makes it, with the folder for bodies that have no room in memory.
    fn open(backend: Backend, spool: &Path, requests_per_second: u32, waits: Waits) -> Result<State> {
        Ok(State {
            spools: Arc::new(Spools::open(&backend.env, spool)?),
            env: backend.env,
            accounts: backend.accounts,
            staging: backend.staging,
            rates: Rates::new(requests_per_second),
            org_rates: Rates::new(requests_per_second.saturating_mul(ORG_REQUESTS_TOKENS)),
            turns: Turns::new(),
            waits,
            metrics: Metrics::new(counted()),
            draining: watch::Sender::new(false),
        })
    }

    /// Counts a request of a token and of its organisation, or puts it off.
    fn admit(&self, grant: &Grant) -> Result<(), Refusal> {
        let now = self.env.clock.monotonic_micros();
        let busy = |limit, what, seconds| {
            self.metrics.limited(limit);
            Refusal::new(429, "busy", what).retry_after(seconds)
        };
        self.rates
            .take(grant.token.as_str(), now)
            .map_err(|seconds| busy(Limit::TokenRequests, "too many requests of this token", seconds))?;
        self.org_rates
            .take(&grant.org_id, now)
            .map_err(|seconds| busy(Limit::OrgRequests, "too many requests of this organisation", seconds))
    }

    /// Reserves room for what is about to be written.
    fn reserve(&self, org_id: &str, added: Usage) -> Result<Room, Refusal> {
        match self.accounts.reserve(org_id, added)? {
            Reserved::Room(room) => Ok(room),
            Reserved::OverQuota { bytes, quota_bytes } => {
                self.metrics.limited(Limit::Quota);
                let message =
                    format!("the organisation has {bytes} bytes here, and may have {quota_bytes} in all");
                Err(Refusal::new(507, "quota_exceeded", message))
            }
            Reserved::TooManyUploads => {
                self.metrics.limited(Limit::Uploads);
                let message = format!("an organisation may have {ORG_UPLOADS_MAX} uploads at once");
                Err(Refusal::new(429, "busy", message).retry_after(5))
            }
        }
    }
}

/// Does blocking work on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Refusal::from),
        Err(error) => Err(panicked(&error)),
    }
}

/// A thread that panicked, or was not started since the service stops.
fn panicked(error: &JoinError) -> Refusal {
    Refusal::from(Error::new(
        agent_trace_store::ErrorKind::Failed,
        format!("a request's work ended: {error}"),
    ))
}
