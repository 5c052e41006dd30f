//! The carrier over real connections: reqwest, on a runtime of its own with one thread.
//!
//! An answer's body is read as the caller asks for it, so a service sends no faster than its bytes are used.

use std::io;
use std::time::Duration;

use agent_trace_store::{Error, ErrorKind, Result};
use bytes::Bytes;
use reqwest::Response;
use reqwest::redirect::Policy;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::carrier::{Came, Carrier, Lost, Parts, Sent};
use crate::limits::{CONNECT_MICROS_MAX, IDLE_MICROS_MAX, WHOLE_MICROS_MAX};

/// Connections to one host.
pub(super) struct Sockets {
    runtime: Runtime,
    client: reqwest::Client,
    host_url: String,
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

impl Sockets {
    /// Prepares; nothing is sent yet.
    pub(super) fn open(host_url: &str) -> Result<Sockets> {
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
        Ok(Sockets { runtime, client, host_url: host_url.to_owned() })
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

impl Carrier for Sockets {
    fn carry(&self, request: Sent<'_>) -> Result<Came<'_>, Lost> {
        let mut builder = self.client.request(request.method, request.url).headers(request.headers);
        if let Some(body) = request.body {
            builder = builder.body(body);
        }
        let wait = micros(request.wait_micros);
        let sent = self.runtime.block_on(async { timeout(wait, builder.send()).await });
        let mut response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.lost(&error)),
            Err(_) => {
                let message = format!("`{}` does not answer", self.host_url);
                return Err(Lost { error: Error::new(ErrorKind::Unavailable, message), is_final: false });
            }
        };
        Ok(Came {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            bytes: response.content_length(),
            body: Box::new(Body { runtime: &self.runtime, response }),
        })
    }
}

/// The body of a response.
struct Body<'a> {
    runtime: &'a Runtime,
    response: Response,
}

impl Parts for Body<'_> {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let response = &mut self.response;
        match self.runtime.block_on(async { timeout(micros(IDLE_MICROS_MAX), response.chunk()).await }) {
            Ok(Ok(part)) => Ok(part),
            Ok(Err(error)) => Err(io::Error::other(with_causes(&error))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
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
