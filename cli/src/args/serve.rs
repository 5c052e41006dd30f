//! `serve`, as it can be written.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// `serve`
#[derive(Args, Clone, Debug)]
pub(crate) struct Serve {
    /// The data folder, which is made where it is missing
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787")]
    pub(crate) listen: SocketAddr,
    /// The certificate and those above it, as PEM; without, a proxy must do TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A file with the admin's secret; also given by the variable AGENT_TRACE_ADMIN_SECRET; made at the first start if neither is
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_secret_file: Option<PathBuf>,
    /// Where to show counters for Prometheus; whoever reaches it may read them
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Requests of one token per second, on average
    #[arg(long, value_name = "N", default_value_t = agent_trace_sync::service::http::limits::TOKEN_REQUESTS_PER_SECOND)]
    pub(crate) requests_per_second: u32,
}
