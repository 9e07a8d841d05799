//! The daemon: a volume, its mount, its control socket, and how they end.
//!
//! Order: keeper (the process that mounts and unmounts), keystore, confinement, volume (takes the
//! vault's lock), signals, socket, mount, ready: whoever sees the mount can ask for it and end it. The end
//! comes from a
//! signal or from an unmount by somebody else; both leave by the same door: the kernel's last
//! request is answered, everything is synced, the vault is released.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::awake::Awake;
use super::background::{self, Detached};
use super::confine::{self, Confined};
use super::control;
use super::keeper::{Charge, Keeper};
use super::plan::Plan;
use super::reach::{self, Keys, Reach};
use crate::cli::args::options::Sync;
use crate::cli::env::keys_from::KeysFrom;
use crate::cli::env::mounts::detach::Detach;
use crate::cli::env::mounts::farewell::{self, Farewell};
use crate::cli::env::mounts::mountinfo;
use crate::cli::env::mounts::mountpoint::Mountpoint;
use crate::cli::env::{failure, process, vault};
use crate::cli::jobs::follow::Follower;
use crate::cli::jobs::maintenance::Maintenance;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::logging;
use crate::control::{RuntimeDir, Server, VaultDir};
use crate::fuse;
use crate::keystore::{Keystore, LeasedDir, Unlock};
use crate::volume::{AccessTimes, Options, Volume, VolumeError};

/// Starts the process that mounts and unmounts for the daemon.
pub(in crate::cli) fn keeper(plan: &Plan, mountpoint: Mountpoint) -> Result<Keeper, CliError> {
    match mountpoint.exchanger() {
        Ok(Some(exchanger)) => log::warn!(
            "others can put another directory in the place of {}, and what is written there then \
             does not come into the vault: {exchanger}",
            plan.mountpoint.display()
        ),
        Ok(None) => {}
        Err(error) => log::debug!("the directories above the mountpoint: {error}"),
    }
    Keeper::start(Charge { vault: plan.vault.clone(), mountpoint, options: fuse_options(plan) })
}

/// Mounts, serves until the end, and releases the vault; in the background from when it is ready,
/// if it is detached.
pub(in crate::cli) fn run(
    plan: &Plan,
    unlock: Option<Unlock>,
    keeper: Keeper,
    detached: Option<Detached>,
) -> Result<Exit, CliError> {
    process::bound_heap();
    process::raise_open_files();
    process::lock_secrets();
    process::clear_umask();
    let options = fuse_options(plan);
    let awake = Awake::prepare(plan.options.keep_awake);
    let runtime = RuntimeDir::open();
    if !plan.read_only {
        reach::prepare();
    }
    let (keys, confined) = open_keys(plan, unlock, runtime.as_ref().ok())?;
    process::lock_memory();
    let volume = open(plan, &keys)?;
    if let Err(error) = lease(plan, &keys, &volume) {
        // Nothing was changed: the next session must not take this one for a crash.
        let _ = volume.end();
        return Err(error);
    }
    let (keeper, device, farewell) = (Arc::new(keeper), Arc::default(), Arc::default());
    let daemon =
        Daemon { plan, volume: &volume, keys: &keys, keeper, confined, device, farewell, awake };
    // Whoever sees the mount may end it.
    let signals = watch_signals(&daemon.keeper)?;
    let server = daemon.listen(&runtime);
    confine::restrict_sockets(daemon.confined.sockets);
    let mounted = daemon.keeper.mount().and_then(|connection| {
        if let Ok(Some(mount)) = mountinfo::at(&plan.mountpoint) {
            let _ = daemon.device.set(mount.device_text());
        }
        let activity = daemon.awake.activity();
        let served = fuse::serve(Arc::clone(&volume), connection, &options, activity);
        served.inspect_err(|_| end_mount(&daemon.keeper))
    });
    let mounted = match mounted {
        Ok(mounted) => mounted,
        Err(error) => {
            drop(server);
            // Nothing was changed: the next session must not take this one for a crash.
            let _ = volume.end();
            return Err(explain_mount(&plan.mountpoint, &error));
        }
    };
    if signals.came_already() {
        end_mount(&daemon.keeper);
    }
    let served = daemon.serve(&mounted, server, &runtime, detached);
    signals.handle.close();
    if served.is_err() {
        // Nobody would ever answer at that mountpoint.
        end_mount(&daemon.keeper);
    }
    let failed = farewell::failure(&plan.vault, &volume.end());
    match &failed {
        // Nobody reads what a daemon in the background returns.
        Some(error) => log::error!("volume {}: {}", volume.id(), error.what),
        None => log::info!("volume {} is released", volume.id()),
    }
    write_audit_log(&keys);
    daemon.farewell.tell(failed.as_ref().map(CliError::to_failure));
    daemon.keeper.finish();
    failed.map_or(Ok(()), Err)?;
    served.map(|()| Exit::Ok)
}

/// Writes what is counted in memory now: a thread that still answers somebody may keep the keystore open
/// until the process is gone.
fn write_audit_log(keys: &KeysFrom) {
    let KeysFrom::Keystore(keystore) = keys else { return };
    if let Err(error) = keystore.flush_audit() {
        log::error!("records of the audit log are lost: {error}");
    }
}

/// A daemon that has everything it needs.
struct Daemon<'a> {
    plan: &'a Plan,
    volume: &'a Arc<Volume>,
    keys: &'a KeysFrom,
    keeper: Arc<Keeper>,
    confined: Confined,
    /// The device number of the mount.
    device: Arc<OnceLock<String>>,
    farewell: Arc<Farewell>,
    awake: Arc<Awake>,
}

impl Daemon<'_> {
    /// Everything between the mount and its end, which the control socket does not outlive.
    fn serve(
        &self,
        mounted: &fuse::Mounted,
        _server: Option<Server>,
        runtime: &std::io::Result<RuntimeDir>,
        detached: Option<Detached>,
    ) -> Result<(), CliError> {
        let Self { plan, volume, keys, .. } = self;
        volume.attach_kernel(mounted.kernel_cache());
        let _upkeep =
            volume.start_upkeep().map_err(|error| failure::volume(&plan.vault, &error))?;
        let _maintenance = keys.keystore().and_then(|keystore| {
            let follower = Follower::new(keystore, volume, &plan.vault);
            let follower = (!plan.read_only).then_some(follower);
            Maintenance::start(keystore, move || follower.iter().for_each(Follower::follow))
        });
        let _awake = self.awake.start();
        if let Some(detached) = detached {
            go_to_background(volume, runtime, detached)?;
        }
        log::info!("volume {} is mounted; confined: {}", volume.id(), self.confined);
        let _ = sd_notify::notify(&[NotifyState::Ready]);
        mounted.wait();
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        Ok(())
    }

    /// Opens the control socket. A mount without one works, but cannot be steered.
    fn listen(&self, runtime: &std::io::Result<RuntimeDir>) -> Option<Server> {
        let Self { plan, volume, keys, confined, .. } = self;
        // Readers may share a vault, and have nothing to steer.
        if plan.read_only {
            return None;
        }
        let started = match runtime {
            Ok(dir) => VaultDir::of(volume.root()).and_then(|vault| {
                let keystore = keys.keystore().cloned();
                let state = control::State {
                    device: Arc::clone(&self.device),
                    farewell: Arc::clone(&self.farewell),
                    awake: Arc::clone(&self.awake),
                };
                let handler = control::handler(Arc::clone(volume), keystore, plan, confined, state);
                Server::start(&dir.socket(vault), handler)
            }),
            Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
        };
        started.inspect_err(|error| log::warn!("no control socket: {error}")).ok()
    }
}

/// Opens the source of the keys and confines this process, which has no threads yet: the library of
/// an endpoint starts some, and a keystore when it is first used. The secret goes here: nothing needs
/// it once the keystore is open.
fn open_keys(
    plan: &Plan,
    unlock: Option<Unlock>,
    runtime: Option<&RuntimeDir>,
) -> Result<(KeysFrom, Confined), CliError> {
    let Some(unlock) = unlock else {
        let missing = || CliError::new(Exit::Usage, "neither a keystore nor an endpoint");
        let address = plan.kms.address()?.ok_or_else(missing)?;
        let confined = confine::confine(&Reach::of(plan, Keys::Endpoint(&address), runtime));
        let keys = plan.kms.open_endpoint()?.ok_or_else(missing)?;
        return Ok((KeysFrom::Endpoint(keys), confined));
    };
    let by_token = matches!(unlock, Unlock::Token(..));
    let keystore = Keystore::open(&plan.keystore, &unlock)?;
    drop(unlock);
    let tokens = by_token || keystore.has_custom_key_stores()?;
    let kind = if tokens { Keys::Tokens } else { Keys::Keystore };
    let confined = confine::confine(&Reach::of(plan, kind, runtime));
    Ok((KeysFrom::Keystore(Arc::new(keystore)), confined))
}

fn open(plan: &Plan, keys: &KeysFrom) -> Result<Arc<Volume>, CliError> {
    let options = Options {
        read_only: plan.read_only,
        suid: plan.options.suid == Some(true),
        open_vault: plan.options.allow_open_vault,
        shared: plan.options.shared,
        export: plan.options.nfs_export,
        page_journal: plan.options.page_journal,
        access_times: plan.options.atime.unwrap_or_default(),
        ..plan.trust.options()
    };
    vault::must_be_expected(keys, &plan.vault, &options)?;
    let patience = Instant::now() + PATIENCE;
    let volume = loop {
        match Volume::open_vault(&plan.vault, keys.service_with(plan.kms.grace()), options.clone())
        {
            // umount(8) returns while the daemon still writes; a mount right after it must work.
            Err(VolumeError::InUse) if is_ending(plan) && Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => break opened.map_err(|error| keys.failed(&plan.vault, &error))?,
        }
    };
    let volume = vault::opened_as_expected(keys, &plan.vault, options.restored, volume)?;
    // The vault may have moved. A keystore that cannot be written is no reason not to read files.
    // One that is only read may be a copy.
    let learn = |keystore: &Keystore| match plan.read_only {
        true => keystore.note_volume_path(volume.id(), &plan.vault),
        false => keystore.register_volume(volume.id(), &plan.vault),
    };
    if let Some(Err(error)) = keys.keystore().map(|keystore| learn(keystore)) {
        log::warn!("the keystore does not learn where volume {} is: {error}", volume.id());
    }
    Ok(Arc::new(volume))
}

/// Nobody destroys what the volume needs because its vault is not where it was.
fn lease(plan: &Plan, keys: &KeysFrom, volume: &Volume) -> Result<(), CliError> {
    let Some(keystore) = keys.keystore() else { return Ok(()) };
    let dir = VaultDir::of(volume.root());
    let (device, inode) =
        dir.map_err(|error| CliError::io(plan.vault.display(), &error))?.numbers();
    Ok(keystore.lease_vault(LeasedDir::new(device, inode))?)
}

/// True when the vault is held, but mounted nowhere that can be seen.
fn is_ending(plan: &Plan) -> bool {
    mountinfo::of_vault(&plan.vault).is_ok_and(|mount| mount.is_none())
}

fn fuse_options(plan: &Plan) -> fuse::MountOptions {
    let asked = &plan.options;
    let usual = fuse::MountOptions::default();
    fuse::MountOptions {
        read_only: plan.read_only,
        allow_other: asked.allow_other,
        default_permissions: !asked.no_default_permissions,
        xattrs: !asked.no_xattrs,
        suid: asked.suid.unwrap_or(usual.suid),
        dev: asked.dev.unwrap_or(usual.dev),
        exec: asked.exec.unwrap_or(usual.exec),
        atime: asked.atime != Some(AccessTimes::Never),
        sync: asked.sync == Some(Sync::All),
        dirsync: asked.sync == Some(Sync::Directories),
        nosymfollow: asked.nosymfollow,
        shared: asked.shared,
        open_vault: asked.allow_open_vault,
        export: asked.nfs_export,
        threads: asked.threads.unwrap_or(usual.threads),
    }
}

/// The thread that waits for signals.
struct Watched {
    handle: signal_hook::iterator::Handle,
    came: Arc<AtomicBool>,
}

impl Watched {
    /// True if one came before there was anything to unmount, perhaps.
    fn came_already(&self) -> bool {
        self.came.load(Ordering::Acquire)
    }
}

/// A signal unmounts. A busy mount vanishes from the tree at once and ends with its last user.
fn watch_signals(keeper: &Arc<Keeper>) -> Result<Watched, CliError> {
    let failed = |error: &std::io::Error| CliError::io("signals", error);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| failed(&error))?;
    let watched = Watched { handle: signals.handle(), came: Arc::default() };
    let (keeper, came) = (Arc::clone(keeper), Arc::clone(&watched.came));
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                log::info!("signal {signal}: unmounting");
                let _ = sd_notify::notify(&[NotifyState::Stopping]);
                came.store(true, Ordering::Release);
                end_mount(&keeper);
            }
        })
        .map_err(|error| failed(&error))?;
    Ok(watched)
}

fn end_mount(keeper: &Keeper) {
    let mut result = keeper.unmount(Detach::WhenFree);
    if result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy) {
        let holders = keeper.holders();
        log::warn!("the mount is busy ({holders} processes): it ends when they let go of it");
        result = keeper.unmount(Detach::Lazily);
    }
    if let Err(error) = result {
        log::error!("cannot unmount: {error}");
    }
}

fn go_to_background(
    volume: &Volume,
    runtime: &std::io::Result<RuntimeDir>,
    detached: Detached,
) -> Result<(), CliError> {
    let log = runtime.as_ref().ok().map(|dir| dir.log_path(volume.id()));
    let place = log.as_deref().unwrap_or(Path::new("the log")).display();
    logging::to_background(log.as_deref()).map_err(|error| CliError::io(place, &error))?;
    background::ready(detached).map_err(|error| CliError::io("cannot go to the background", &error))
}

fn explain_mount(mountpoint: &Path, error: &std::io::Error) -> CliError {
    let place = mountpoint.display();
    // What fusermount3 said ends with a newline.
    let said = error.to_string();
    let said = said.trim();
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => CliError::new(
            Exit::FuseMissing,
            format!("may not mount at {place}: {said}"),
        )
        .advise(
            "-o allow_other needs user_allow_other in /etc/fuse.conf; a container needs the right \
             to mount",
        ),
        std::io::ErrorKind::NotFound => {
            CliError::new(Exit::FuseMissing, format!("cannot mount at {place}: {said}"))
                .advise("is /dev/fuse there, and the package fuse3 installed?")
        }
        _ => {
            let mut failed = CliError::io(format!("cannot mount at {place}"), error);
            failed.exit = Exit::Mountpoint;
            failed
        }
    }
}

/// How long a mount waits for the daemon of an earlier one.
const PATIENCE: Duration = Duration::from_secs(10);
