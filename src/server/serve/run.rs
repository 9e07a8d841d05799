//! The server: its sockets, its threads, and how it ends.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use super::accept::{self, Core};
use super::heavy::Heavy;
use super::http::Shared;
use super::metrics;
use super::watch::KeystoreWatch;
use crate::server::config::{Config, ServerError, Unsigned};
use crate::server::identity::Identities;
use crate::server::keystores::Keystores;
use crate::server::transport::listen::{Listen, Listening};
use crate::server::transport::slots::ConnectionSlots;
use crate::server::transport::tls::Tls;

/// A server whose sockets listen, so that clients can connect already.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    sockets: Vec<Listening>,
    metrics: Option<TcpListener>,
    core: Arc<Core>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Opens all sockets; `passed` are those of a service manager, which listen already.
    /// Errors: all of [`ServerError`]. In particular, an address that others can reach needs TLS.
    pub fn bind(
        config: &Config,
        addresses: &[Listen],
        passed: Vec<OwnedFd>,
        keystores: Keystores,
    ) -> Result<Self, ServerError> {
        let sockets = open(config, addresses, passed)?;
        let metrics = config.metrics.map(metrics::bind).transpose()?;
        let limits = config.limits;
        let shared = Shared {
            keystores: Arc::new(keystores),
            identities: Identities::new(config.unsigned),
            region: config.region.clone(),
            limits,
            calls: Arc::new(Semaphore::new(limits.calls)),
            heavy: Heavy::new(limits),
        };
        let (stop, stopped) = watch::channel(false);
        let core = Core {
            shared: Arc::new(shared),
            tls: config.tls.as_ref().map(Tls::load).transpose()?,
            slots: ConnectionSlots::new(limits),
            stopped,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("kms-server")
            .max_blocking_threads(limits.calls + limits.heavy + SPARE_THREADS)
            .enable_all()
            .build()
            .map_err(ServerError::io("start threads"))?;
        Ok(Self { runtime, sockets, metrics, core: Arc::new(core), stop })
    }

    /// Where the server listens, as clients name it.
    pub fn addresses(&self) -> Vec<String> {
        let scheme = if self.core.tls.is_some() { "https" } else { "http" };
        let named = |socket: &Listening| match socket {
            Listening::Tcp(_) => format!("{scheme}://{socket}"),
            Listening::Unix(..) => socket.to_string(),
        };
        self.sockets.iter().map(named).collect()
    }

    /// Where metrics are served.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until SIGTERM or SIGINT. Then nothing new is accepted, requests under way are
    /// answered, and connections are closed; a second signal does not wait. SIGHUP reads
    /// certificate and key anew.
    /// Errors: `Io`.
    pub fn run(self) -> Result<(), ServerError> {
        let Self { runtime, sockets, metrics, core, stop } = self;
        let keystores = Arc::clone(&core.shared.keystores);
        let watch = KeystoreWatch::start(&core.shared.keystores)
            .map_err(ServerError::io("start a thread"))?;
        let served = runtime.block_on(serve(sockets, metrics, core, &stop));
        drop(watch);
        // Operations that did not end in time are not waited for again.
        runtime.shutdown_timeout(LAST_WAIT);
        write_down(&keystores);
        served
    }
}

fn open(
    config: &Config,
    addresses: &[Listen],
    passed: Vec<OwnedFd>,
) -> Result<Vec<Listening>, ServerError> {
    let mut sockets = Vec::new();
    for socket in passed {
        sockets.push(Listening::inherited(socket)?);
    }
    for address in addresses {
        sockets.extend(Listening::open(address, config.socket)?);
    }
    if sockets.is_empty() {
        return Err(ServerError::Nowhere);
    }
    for address in sockets.iter().filter_map(Listening::exposed) {
        if config.tls.is_none() {
            return Err(ServerError::NeedsTls(address));
        }
        if config.unsigned == Unsigned::Accepted {
            return Err(ServerError::UnsignedElsewhere(address));
        }
    }
    Ok(sockets)
}

/// What was answered is in the audit logs before the process ends, whoever still holds the keystores.
fn write_down(keystores: &Keystores) {
    for (_, keystore) in keystores.all() {
        if let Err(error) = keystore.flush_audit() {
            let path = keystore.path().display();
            log::error!("{path}: the last records of the audit log are not written: {error}");
        }
    }
}

async fn serve(
    sockets: Vec<Listening>,
    metrics: Option<TcpListener>,
    core: Arc<Core>,
    stop: &watch::Sender<bool>,
) -> Result<(), ServerError> {
    let mut signals = Signals::watch()?;
    let mut accepting = Vec::new();
    for socket in sockets {
        accepting.push(accept::start(socket, &core)?);
    }
    if let Some(listener) = metrics {
        accepting.push(metrics::start(listener, &core)?);
    }
    signals.until_stop(&core).await;
    log::info!("stopping: requests under way are answered");
    // The sockets and their names go before the connections do.
    for task in accepting {
        task.abort();
        let _ = task.await;
    }
    let _ = stop.send(true);
    tokio::select! {
        () = core.slots.all_free() => {}
        () = tokio::time::sleep(core.shared.limits.drain_time) => {
            log::warn!("some requests are not answered in time: they are cut off");
        }
        () = signals.until_stop(&core) => {}
    }
    Ok(())
}

/// The signals that a server obeys.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn watch() -> Result<Self, ServerError> {
        let of = |kind| signal(kind).map_err(ServerError::io("watch for signals"));
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            hang_up: of(SignalKind::hangup())?,
        })
    }

    /// Returns when the server is told to stop, and obeys SIGHUP until then.
    async fn until_stop(&mut self, core: &Core) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => reload(core),
            }
        }
    }
}

fn reload(core: &Core) {
    match core.tls.as_ref().map(Tls::reload) {
        None => log::info!("SIGHUP: there is no certificate to read anew"),
        Some(Ok(())) => log::info!("SIGHUP: certificate and key were read anew"),
        Some(Err(error)) => log::error!("SIGHUP: the old certificate stays: {error}"),
    }
}

/// Blocking threads beyond those of operations, for what the runtime itself needs.
const SPARE_THREADS: usize = 2;
const LAST_WAIT: Duration = Duration::from_secs(1);
