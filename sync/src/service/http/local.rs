//! The service without sockets, for simulations: requests are handed to the router, one after the other.
//!
//! What a request does on threads for blocking work is done by one thread, and an answer is there once all of it is: its
//! body and whatever the thread had still to do. So one order of requests gives one order of operations.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use agent_trace_store::{Error, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Runtime;

use super::routes::router;
use super::{Backend, State};

/// How long the thread is kept where there is nothing to do.
const THREAD_KEPT: Duration = Duration::from_secs(86_400);

/// The one thread that works for services.
pub struct Worker(Runtime);

impl Worker {
    /// Makes it; `begin` is run on the thread first.
    pub fn new(begin: impl Fn() + Send + Sync + 'static) -> Result<Worker> {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .thread_keep_alive(THREAD_KEPT)
            .on_thread_start(begin)
            .build()
            .map(Worker)
            .map_err(|error| Error::io("cannot start a thread for a service", error))
    }

    /// Runs something on the thread, after all that was begun there. Panics as it does.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let done = self.0.block_on(async { self.0.spawn_blocking(work).await });
        done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

/// A request that is handed over.
#[derive(Clone, Debug)]
pub struct Handed {
    /// What is to be done.
    pub method: Method,
    /// With what: path and query.
    pub target: String,
    /// What is said of it.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Whether the connection ends behind the last byte of the body that is here, before its end.
    pub is_cut: bool,
}

/// An answer, all of it.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its status.
    pub status: u16,
    /// What is said of it.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// Whether the service broke off behind it.
    pub is_cut: bool,
}

/// A service that is open.
pub struct Local(TowerToHyperService<Router>);

impl Local {
    /// Opens it; `spool` is where bodies lie that have no room in memory.
    pub fn open(backend: Backend, spool: &Path, requests_per_second: u32) -> Result<Local> {
        let state = Arc::new(State::open(backend, spool, requests_per_second, super::Waits::default())?);
        Ok(Local(TowerToHyperService::new(router(&state))))
    }

    /// Answers a request.
    pub fn answer(&self, worker: &Worker, handed: Handed) -> Answered {
        let body = Arriving { bytes: Some(handed.body), is_cut: handed.is_cut };
        let mut request = Request::new(Body::new(body));
        *request.method_mut() = handed.method;
        *request.uri_mut() = handed.target.parse().expect("a client asks for what can be asked for");
        *request.headers_mut() = handed.headers;
        let answered = worker.0.block_on(async {
            let response = self.0.call(request).await.unwrap_or_else(|never: Infallible| match never {});
            let (parts, mut body) = response.into_parts();
            let (status, headers) = (parts.status.as_u16(), parts.headers);
            let mut answered = Answered { status, headers, body: Vec::new(), is_cut: false };
            while let Some(frame) = body.frame().await {
                match frame.map(Frame::into_data) {
                    Ok(Ok(bytes)) => answered.body.extend_from_slice(&bytes),
                    Ok(Err(_)) => {}
                    Err(_) => {
                        answered.is_cut = true;
                        break;
                    }
                }
            }
            answered
        });
        // What the thread lets go of behind the end of a body.
        worker.run(|| ());
        answered
    }
}

/// A body on its way to the service.
struct Arriving {
    bytes: Option<Bytes>,
    is_cut: bool,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, io::Error>>> {
        let next = match self.bytes.take().filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None if self.is_cut => Some(Err(io::ErrorKind::ConnectionReset.into())),
            None => None,
        };
        Poll::Ready(next)
    }
}
