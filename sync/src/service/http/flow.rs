//! Bytes that go out: a thread produces them, a bounded queue holds them back until the client takes them.
//!
//! The thread stops when the client goes or takes nothing for `ANSWER_WAIT_SECONDS_MAX`. What breaks after the answer began
//! ends the connection, so that no client takes a part for the whole.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use agent_trace_store::{Error, ErrorKind, Result as StoreResult};
use axum::body::{Body, Bytes};
use http_body::Frame;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::limits::{ANSWER_PIECE_BYTES, ANSWER_PIECES_MAX, ANSWER_WAIT_SECONDS_MAX};

/// The thread's end.
pub(super) struct Flow {
    to: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
    pending: Vec<u8>,
}

/// The client's end.
struct Outgoing(mpsc::Receiver<io::Result<Bytes>>);

/// Both ends of an answer that is produced by a thread.
pub(super) fn flow() -> (Flow, Body) {
    let (to, from) = mpsc::channel(ANSWER_PIECES_MAX);
    let flow = Flow { to, runtime: Handle::current(), pending: Vec::new() };
    (flow, Body::new(Outgoing(from)))
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

impl Flow {
    /// Sends what has gathered.
    fn send(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.pending));
        let wait = Duration::from_secs(ANSWER_WAIT_SECONDS_MAX);
        let sent = self.runtime.block_on(tokio::time::timeout(wait, self.to.send(Ok(bytes))));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Ends well, or breaks the connection.
    pub(super) fn close(mut self, done: StoreResult<()>) -> Result<(), Error> {
        let done = done.and_then(|()| self.flush().map_err(unsent));
        if done.is_err() {
            let broken = self.to.send(Err(io::ErrorKind::ConnectionAborted.into()));
            let wait = Duration::from_secs(1);
            let _ = self.runtime.block_on(tokio::time::timeout(wait, broken));
        }
        done
    }
}

impl Write for Flow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = ANSWER_PIECE_BYTES.saturating_sub(self.pending.len()).max(1);
        let count = bytes.len().min(room);
        self.pending.extend_from_slice(&bytes[..count]);
        if self.pending.len() >= ANSWER_PIECE_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// What a failed write to the client means for the one who produces.
pub(super) fn unsent(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "cannot send the answer").with_source(error)
}
