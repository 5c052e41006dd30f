//! Sockets, TLS, and the end of the service.
//!
//! A connection that sends or takes nothing is closed; there are at most `CONNECTIONS_MAX`. When the service is told to
//! stop, it takes no further connections, cuts pulls, finishes what it has begun, and ends within `DRAIN_SECONDS_MAX`
//! whatever clients do.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use agent_trace_store::env::Env;
use agent_trace_store::{Error, Result};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use super::answer::chain;
use super::limits::{
    BLOCKING_THREADS_MAX, CONNECTION_BUFFER_BYTES, CONNECTION_STREAMS_MAX, CONNECTIONS_MAX,
    DRAIN_SECONDS_MAX, HEADER_BYTES_MAX, HEADERS_MAX, STREAM_WINDOW_BYTES,
};
use super::opening::Opening;
use super::routes::router;
use super::{Backend, Config, State, TlsFiles, Waits};

/// Certificates and keys are at most this long.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// Accounts are tended so often.
const TEND_SECONDS: u64 = 60;

/// The service with its sockets open.
pub struct Server {
    runtime: Runtime,
    state: Arc<State>,
    listener: TcpListener,
    address: SocketAddr,
    metrics: Option<(TcpListener, SocketAddr)>,
    tls: Option<TlsAcceptor>,
}

/// Tells a service to stop.
#[derive(Clone)]
pub struct Stopper(Arc<State>);

impl Stopper {
    /// Begins the end; once is enough.
    pub fn stop(&self) {
        self.0.draining.send_replace(true);
    }
}

impl Server {
    /// Opens the sockets. Connections wait until [`Server::run`].
    pub fn bind(config: &Config, backend: Backend) -> Result<Server> {
        Server::bind_with(config, backend, Waits::default())
    }

    /// The same, but clients are waited for as long as this.
    pub fn bind_with(config: &Config, backend: Backend, waits: Waits) -> Result<Server> {
        let tls = config.tls.as_ref().map(|files| acceptor(&backend.env, files)).transpose()?;
        let state = Arc::new(State::open(backend, &config.spool, config.requests_per_second, waits)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_keep_alive(Duration::from_secs(5))
            .build()
            .map_err(|error| Error::io("cannot start threads for the service", error))?;
        let (listener, address) = runtime.block_on(listen(config.listen))?;
        let metrics = config.metrics.map(|at| runtime.block_on(listen(at))).transpose()?;
        Ok(Server { runtime, state, listener, address, metrics, tls })
    }

    /// Where the service listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it shows its counters.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(|(_, address)| *address)
    }

    /// What stops it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.state.clone())
    }

    /// Stops when the process is told to, by SIGTERM or SIGINT.
    pub fn stop_on_signals(&self) -> Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let _entered = self.runtime.enter();
        let failed = |error| Error::io("cannot wait for signals", error);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let stopper = self.stopper();
        self.runtime.spawn(async move {
            let (mut terminate, mut interrupt) = (pin!(terminate.recv()), pin!(interrupt.recv()));
            std::future::poll_fn(|context| {
                let is_told =
                    terminate.as_mut().poll(context).is_ready() | interrupt.as_mut().poll(context).is_ready();
                if is_told { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            tracing::info!("told to stop");
            stopper.stop();
        });
        Ok(())
    }

    /// Serves until it is told to stop, and ends when what was begun is done.
    pub fn run(self) -> Result<()> {
        let Server { runtime, state, listener, metrics, tls, .. } = self;
        let app = router(&state);
        if let Some((listener, _)) = metrics {
            runtime.spawn(show_metrics(listener, state.clone()));
        }
        runtime.spawn(tend(state.clone()));
        runtime.block_on(accept(&listener, &state, app, tls));
        runtime.shutdown_timeout(Duration::from_secs(1));
        state.accounts.tend()
    }
}

async fn listen(at: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let failed = |error| Error::io(format!("cannot listen at `{at}`"), error);
    let listener = TcpListener::bind(at).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn tend(state: Arc<State>) {
    loop {
        tokio::time::sleep(Duration::from_secs(TEND_SECONDS)).await;
        let accounts = state.accounts.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || accounts.tend()).await {
            tracing::error!(cause = chain(&error), "accounts cannot be tended");
        }
    }
}

/// Becomes ready when the service is told to stop.
async fn stopped(state: &State) {
    let mut draining = state.draining.subscribe();
    // The sender lives as long as the state.
    let _ = draining.wait_for(|draining| *draining).await;
}

async fn accept(listener: &TcpListener, state: &Arc<State>, app: Router, tls: Option<TlsAcceptor>) {
    let open = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let builder = Arc::new(builder(&state.waits));
    let mut stop = pin!(stopped(state));
    loop {
        let permit = open.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let accepted = {
            let mut next = pin!(listener.accept());
            std::future::poll_fn(|context| {
                if stop.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                next.as_mut().poll(context).map(Some)
            })
            .await
        };
        let stream = match accepted {
            None => break,
            Some(Ok((stream, _))) => stream,
            Some(Err(error)) => {
                // Too many files are open, or a client went at once.
                tracing::warn!(cause = %error, "cannot take a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let (state, app, tls) = (state.clone(), app.clone(), tls.clone());
        let (watcher, builder) = (graceful.watcher(), builder.clone());
        tokio::spawn(async move {
            let _permit = permit;
            state.metrics.connections.fetch_add(1, Ordering::Relaxed);
            let (metrics, waits) = (state.clone(), state.waits);
            let stream = Counted::new(stream, state.clone());
            let service = TowerToHyperService::new(app);
            // How a connection ends is the client's affair; requests have lines of their own.
            match tls {
                None => {
                    let stream = Opening::new(stream, waits.headers);
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    let _ = watcher.watch(connection).await;
                }
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(waits.handshake, tls.accept(stream)).await {
                        let stream = Opening::new(stream, waits.headers);
                        let connection = builder.serve_connection(TokioIo::new(stream), service);
                        let _ = watcher.watch(connection).await;
                    }
                }
            }
            metrics.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
    let wait = Duration::from_secs(DRAIN_SECONDS_MAX);
    if tokio::time::timeout(wait, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were cut, since they did not end in time");
    }
}

fn builder(waits: &Waits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(waits.headers)
        .max_headers(HEADERS_MAX)
        .max_buf_size(CONNECTION_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .max_header_list_size(u32::try_from(2 * HEADER_BYTES_MAX).expect("the limit fits"))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(2 * STREAM_WINDOW_BYTES)
        .max_send_buf_size(CONNECTION_BUFFER_BYTES)
        .keep_alive_interval(waits.headers)
        .keep_alive_timeout(waits.headers);
    builder
}

/// Shows the counters to whoever reaches the address; nothing there names a tenant.
async fn show_metrics(listener: TcpListener, state: Arc<State>) {
    let open = Arc::new(Semaphore::new(16));
    let builder = Arc::new(builder(&state.waits));
    loop {
        let permit = open.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (state, builder) = (state.clone(), builder.clone());
        let state_waits = state.waits;
        tokio::spawn(async move {
            let _permit = permit;
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let page = match request.uri().path() {
                    "/metrics" => Response::new(Body::from(state.metrics.page())),
                    _ => super::answer::empty(404),
                };
                async move { Ok::<_, std::convert::Infallible>(page) }
            });
            let stream = Opening::new(stream, state_waits.headers);
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn acceptor(env: &Env, files: &TlsFiles) -> Result<TlsAcceptor> {
    let read = |path: &Path| -> Result<Vec<u8>> {
        let failed = |error| Error::io(format!("cannot read `{}`", path.display()), error);
        let file = env.fs.open(path).map_err(failed)?;
        let length = file.len().map_err(failed)?;
        let length = usize::try_from(length.min(PEM_BYTES_MAX + 1)).expect("the limit fits");
        if length as u64 > PEM_BYTES_MAX {
            return Err(Error::invalid(format!("`{}` is over {PEM_BYTES_MAX} bytes", path.display())));
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        Ok(bytes)
    };
    let odd = |path: &Path, what: &str| {
        let message = format!("cannot read {what} in `{}`: expected PEM", path.display());
        move |error: rustls::pki_types::pem::Error| Error::invalid(message).with_source(error)
    };
    let certificates = CertificateDer::pem_slice_iter(&read(&files.chain)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(odd(&files.chain, "certificates"))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(odd(&files.key, "a private key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unfit = |error| Error::invalid("cannot use the certificate and its key").with_source(error);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(unfit)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A connection that counts its bytes, and breaks where the client takes nothing for too long.
struct Counted {
    stream: TcpStream,
    state: Arc<State>,
    /// Runs while the client does not take what there is for it.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    fn new(stream: TcpStream, state: Arc<State>) -> Counted {
        // Only a matter of speed.
        let _ = stream.set_nodelay(true);
        Counted { stream, state, stalled: None }
    }

    fn written(
        &mut self,
        done: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(done) = done {
            self.stalled = None;
            if let Ok(count) = done {
                self.state.metrics.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
            }
            return Poll::Ready(done);
        }
        let wait = self.state.waits.answer;
        let stalled =
            self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + wait)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        self.state.metrics.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
        done
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(done, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.written(done, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
