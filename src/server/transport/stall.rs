//! A connection whose other end must keep reading.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::slots::Connection;

/// A stream that fails when it takes nothing of what is written for too long. How long a client
/// may take to send is limited elsewhere.
pub(in crate::server) struct Stall<S> {
    stream: S,
    time: Duration,
    waiting: bool,
    timer: Pin<Box<Sleep>>,
    /// Is told when something comes.
    connection: Option<Arc<Connection>>,
}

impl<S> Stall<S> {
    pub(in crate::server) fn new(
        stream: S,
        time: Duration,
        connection: Option<Arc<Connection>>,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep(time));
        Self { stream, time, waiting: false, timer, connection }
    }

    /// Passes a result on, or ends the wait that it means.
    fn watch<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.waiting = false;
            return done;
        }
        if !self.waiting {
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.time);
        }
        match self.timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(connection) = &self.connection
            && buf.filled().len() > before
        {
            connection.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, done)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    #[test]
    fn a_reader_that_stops_ends_the_connection() {
        run(async {
            let (near, _far) = tokio::io::duplex(8);
            let mut near = Stall::new(near, Duration::from_millis(20), None);
            let error = near.write_all(&[0; 64]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_slow_reader_is_waited_for() {
        run(async {
            let (near, mut far) = tokio::io::duplex(8);
            let mut near = Stall::new(near, Duration::from_millis(200), None);
            let read = tokio::spawn(async move {
                let mut all = [0; 64];
                for part in all.chunks_mut(8) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    far.read_exact(part).await.unwrap();
                }
            });
            near.write_all(&[0; 64]).await.unwrap();
            read.await.unwrap();
        });
    }
}
