//! Connections: how they come, and what each is allowed.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::http::{self, Shared};
use crate::server::config::{Limits, ServerError};
use crate::server::transport::listen::Listening;
use crate::server::transport::peer::Peer;
use crate::server::transport::slots::{Connection, ConnectionSlot, ConnectionSlots, PeerId};
use crate::server::transport::socket_file::SocketFile;
use crate::server::transport::stall::Stall;
use crate::server::transport::tls::Tls;

/// What every connection needs.
#[derive(Debug)]
pub(in crate::server) struct Core {
    pub shared: Arc<Shared>,
    pub tls: Option<Tls>,
    pub slots: Arc<ConnectionSlots>,
    /// Becomes true when the server stops.
    pub stopped: watch::Receiver<bool>,
}

/// Accepts connections until the task is aborted.
pub(in crate::server) fn start(
    socket: Listening,
    core: &Arc<Core>,
) -> Result<JoinHandle<()>, ServerError> {
    let failed = || ServerError::io(format!("listen at {socket}"));
    let core = Arc::clone(core);
    match socket {
        Listening::Tcp(ref listener) => {
            listener.set_nonblocking(true).map_err(failed())?;
            let listener = listener.try_clone().and_then(TcpListener::from_std);
            Ok(tokio::spawn(accept_tcp(listener.map_err(failed())?, core)))
        }
        Listening::Unix(listener, name) => {
            let failed = || ServerError::io("listen at a Unix socket");
            listener.set_nonblocking(true).map_err(failed())?;
            let listener = UnixListener::from_std(listener).map_err(failed())?;
            Ok(tokio::spawn(accept_unix(listener, name, core)))
        }
    }
}

async fn accept_tcp(listener: TcpListener, core: Arc<Core>) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                wait_after(&error).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let peer = Peer::Tcp { address, encrypted: core.tls.is_some() };
        match core.slots.take(PeerId::of(&peer)) {
            Some(slot) => {
                tokio::spawn(serve_in_slot(stream, peer, Arc::clone(&core), slot));
            }
            // A client that speaks TLS could not read it.
            None if core.tls.is_some() => {}
            None => {
                tokio::spawn(turn_away(stream));
            }
        }
    }
}

async fn accept_unix(listener: UnixListener, _name: Option<SocketFile>, core: Arc<Core>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                wait_after(&error).await;
                continue;
            }
        };
        let peer = match Peer::of_unix(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                log::warn!("a peer is unknown to the kernel: {error}");
                continue;
            }
        };
        match core.slots.take(PeerId::of(&peer)) {
            Some(slot) => {
                tokio::spawn(serve_in_slot(stream, peer, Arc::clone(&core), slot));
            }
            None => {
                tokio::spawn(turn_away(stream));
            }
        }
    }
}

/// Out of file descriptors, most likely: do not spin.
async fn wait_after(error: &io::Error) {
    log::warn!("a connection was not accepted: {error}");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Tells a client that there are too many of them.
async fn turn_away(mut stream: impl AsyncWrite + Unpin) {
    let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/x-amz-json-1.1\r\n\
                  content-length: 82\r\nconnection: close\r\n\r\n\
                  {\"__type\":\"ServiceUnavailableException\",\"message\":\"Too many connections at once.\"}";
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
}

/// Serves a connection for as long as it may keep its slot.
async fn serve_in_slot<S>(stream: S, peer: Peer, core: Arc<Core>, mut slot: ConnectionSlot)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = slot.connection();
    let limits = core.shared.limits;
    tokio::select! {
        () = connection.is_over(&limits) => log::debug!("a connection without a request is closed"),
        () = async {
            if slot.is_free().await {
                greet(stream, peer, &core, slot.connection()).await;
            } else if core.tls.is_none() {
                turn_away(stream).await;
            }
        } => {}
    }
}

/// A connection, with TLS where a TCP server has a certificate.
async fn greet<S>(stream: S, peer: Peer, core: &Arc<Core>, connection: Arc<Connection>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let tls = core.tls.as_ref().filter(|_| matches!(peer, Peer::Tcp { .. }));
    let Some(tls) = tls else { return converse(stream, peer, core, connection).await };
    let limits = core.shared.limits;
    match tokio::time::timeout(limits.stall_time, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, peer, core, connection).await,
        Ok(Err(error)) => log::debug!("TLS: {error}"),
        Err(_) => log::debug!("TLS: no handshake in time"),
    }
}

/// Serves the requests of a connection, until it ends or the server stops.
async fn converse<S>(stream: S, peer: Peer, core: &Arc<Core>, connection: Arc<Connection>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shared = Arc::clone(&core.shared);
    let peer = Arc::new(peer);
    let stream = Stall::new(stream, shared.limits.stall_time, Some(Arc::clone(&connection)));
    let builder = protocol(&shared.limits);
    let stopped = core.stopped.clone();
    let service = service_fn(move |request| {
        let (peer, connection) = (Arc::clone(&peer), Arc::clone(&connection));
        let answer = http::serve(request, peer, connection, Arc::clone(&shared));
        let stopped = stopped.clone();
        async move {
            let mut reply = answer.await?;
            // The task of this connection may hear of the stop only after it has answered.
            if *stopped.borrow() {
                http::last_of_its_connection(&mut reply);
            }
            Ok::<_, Infallible>(reply)
        }
    });
    let mut conversation = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = conversation.as_mut() => ended,
        () = stop_of(core) => {
            // The request under way is answered; an idle connection ends now.
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = ended {
        log::debug!("a connection ended early: {error}");
    }
}

/// Returns when the server stops.
async fn stop_of(core: &Core) {
    let mut stopped = core.stopped.clone();
    // A sender that is gone has stopped as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

pub(in crate::server) fn protocol(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_time)
        .max_header_size(limits.head)
        .max_headers(MOST_HEADERS);
    builder
}

const MOST_HEADERS: usize = 64;
