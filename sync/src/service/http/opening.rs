//! The first bytes of a connection, which must come in time.
//!
//! The server tells the versions of HTTP apart by the bytes with which version 2 begins, and has no limit of its own for
//! how long they take: a client that sends nothing, or only the beginning of them, would stay for ever. Once it is clear
//! which version is spoken, the limits of that version hold.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// With this a client of version 2 begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that breaks where its version is not clear in time.
pub(super) struct Opening<S> {
    stream: S,
    /// What is left of the preface, as long as all that came was it.
    left: &'static [u8],
    /// Runs until the version is clear.
    wait: Option<Pin<Box<Sleep>>>,
}

impl<S> Opening<S> {
    /// Waits as long as this.
    pub(super) fn new(stream: S, wait: Duration) -> Opening<S> {
        Opening { stream, left: PREFACE, wait: Some(Box::pin(tokio::time::sleep(wait))) }
    }

    fn look(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.left.len());
        let (wanted, left) = self.left.split_at(count);
        self.left = left;
        if left.is_empty() || bytes[..count] != *wanted {
            self.wait = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.wait.is_none() {
            return done;
        }
        if done.is_ready() {
            self.look(&buffer.filled()[before..]);
            return done;
        }
        match self.wait.as_mut().map(|wait| wait.as_mut().poll(context)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            _ => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
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
