//! The service over HTTP: both protocol versions, over accounts and archives that know nothing of it.
//!
//! ```text
//! socket ─► listen ─► routes ─► call (who, what may be done) ─► accounts, records, pages, blobs, protocol ─► archive
//! ```
//!
//! Asynchronous is only what waits for clients; what touches accounts and archives runs on blocking threads. Whatever
//! clients do, memory is bounded: `limits` names the bounds, `throttle` gives turns, bodies beyond them lie in files.

mod accounts;
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

use agent_trace_store::env::Env;
use agent_trace_store::{Error, Result};
use tokio::sync::watch;
use tokio::task::JoinError;

pub use listen::{Server, Stopper};
pub use routes::{Access, ROUTES, Route};

use answer::Refusal;
use body::Spools;
use metrics::Metrics;
use routes::counted;
use throttle::{Rates, Turns};

use crate::service::archive::{Accounts, Staging};
use crate::service::grant::TokenId;

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
    turns: Turns,
    spools: Arc<Spools>,
    metrics: Metrics,
    /// Whether the service is about to stop.
    draining: watch::Sender<bool>,
}

impl State {
    /// Makes it, with the folder for bodies that have no room in memory.
    fn open(backend: Backend, spool: &Path, requests_per_second: u32) -> Result<State> {
        Ok(State {
            spools: Arc::new(Spools::open(&backend.env, spool)?),
            env: backend.env,
            accounts: backend.accounts,
            staging: backend.staging,
            rates: Rates::new(requests_per_second),
            turns: Turns::new(),
            metrics: Metrics::new(counted()),
            draining: watch::Sender::new(false),
        })
    }

    /// Counts a request of a token, or puts it off.
    fn admit(&self, token: &TokenId) -> Result<(), Refusal> {
        self.rates.take(token, self.env.clock.monotonic_micros()).map_err(|seconds| {
            Refusal::new(429, "busy", "too many requests of this token").retry_after(seconds)
        })
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
