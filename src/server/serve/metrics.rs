//! `GET /metrics`: counts and latencies in the text form of Prometheus, on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::accept::{Core, protocol};
use crate::server::config::ServerError;
use crate::server::transport::stall::Stall;

/// Opens the socket. Metrics name keys and volumes by their ids and need no signature.
/// Errors: `MetricsElsewhere`, `Io`.
pub(in crate::server) fn bind(address: SocketAddr) -> Result<std::net::TcpListener, ServerError> {
    if !address.ip().is_loopback() {
        return Err(ServerError::MetricsElsewhere(address));
    }
    let failed = || ServerError::io(format!("serve metrics at {address}"));
    let listener = std::net::TcpListener::bind(address).map_err(failed())?;
    listener.set_nonblocking(true).map_err(failed())?;
    Ok(listener)
}

/// Serves until the task is aborted.
pub(in crate::server) fn start(
    listener: std::net::TcpListener,
    core: &Arc<Core>,
) -> Result<JoinHandle<()>, ServerError> {
    let listener = TcpListener::from_std(listener).map_err(ServerError::io("serve metrics"))?;
    let core = Arc::clone(core);
    Ok(tokio::spawn(async move {
        let readers = Arc::new(Semaphore::new(MOST_READERS));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            // One reader too many finds its connection closed.
            let Ok(permit) = Arc::clone(&readers).try_acquire_owned() else { continue };
            let core = Arc::clone(&core);
            tokio::spawn(async move {
                let limits = core.shared.limits;
                let mut builder = protocol(&limits);
                builder.header_read_timeout(limits.first_time);
                let service = service_fn(move |request| answer(request, Arc::clone(&core)));
                let stream = TokioIo::new(Stall::new(stream, limits.stall_time, None));
                if let Err(error) = builder.serve_connection(stream, service).await {
                    log::debug!("a reader of metrics: {error}");
                }
                drop(permit);
            });
        }
    }))
}

/// The path names a region where a keystore of its own serves it.
async fn answer(
    request: Request<Incoming>,
    core: Arc<Core>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let read = move || -> Option<String> {
        let keystores = &core.shared.keystores;
        let keystore = match path.strip_prefix("/metrics")? {
            "" => keystores.first(),
            region => keystores.keystore_of(region.strip_prefix('/')?)?,
        };
        keystore
            .metrics_text(SystemTime::now())
            .inspect_err(|error| log::warn!("no metrics: {error}"))
            .ok()
    };
    let text = match *request.method() {
        Method::GET => tokio::task::spawn_blocking(read).await.ok().flatten(),
        _ => None,
    };
    let found = text.is_some();
    let mut response = Response::new(Full::new(Bytes::from(text.unwrap_or_default())));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if !found {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}

const MOST_READERS: usize = 16;
