//! What the control socket does inside the daemon.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::awake::Awake;
use super::confine::Confined;
use super::plan::Plan;
use crate::cli::env::mounts::farewell::Farewell;
use crate::cli::env::mounts::mountinfo::text;
use crate::cli::env::{failure, keys_from};
use crate::cli::jobs::{rewrap, survey};
use crate::cli::report::exit::{CliError, Exit};
use crate::control::{DirRef, Event, Failure, Handler, Request};
use crate::envelope::{CrossMode, DirDescriptor};
use crate::id::KeyId;
use crate::keystore::Keystore;
use crate::volume::{Adoption, KeyHealth, Volume, VolumeError};

/// What the daemon learns while it serves.
pub(in crate::cli) struct State {
    /// The device number of the mount, once there is one.
    pub device: Arc<OnceLock<String>>,
    /// How the session ended.
    pub farewell: Arc<Farewell>,
    /// What is done about processors that sleep.
    pub awake: Arc<Awake>,
}

/// The function that answers requests for this mount.
pub(in crate::cli) fn handler(
    volume: Arc<Volume>,
    keystore: Option<Arc<Keystore>>,
    plan: &Plan,
    confined: &Confined,
    state: State,
) -> Arc<Handler> {
    let mount = Mount {
        volume,
        vault: plan.vault.clone(),
        mountpoint: plan.mountpoint.clone(),
        state,
        keys_from: keys_from::describe(&plan.kms, &plan.keystore),
        keystore,
        confined: confined.to_string(),
    };
    Arc::new(move |request, send: &mut dyn FnMut(Event) -> bool| {
        mount.answer(request, send).map_err(Failure::from)
    })
}

struct Mount {
    volume: Arc<Volume>,
    vault: PathBuf,
    mountpoint: PathBuf,
    state: State,
    keys_from: (&'static str, String),
    keystore: Option<Arc<Keystore>>,
    confined: String,
}

impl Mount {
    fn answer(
        &self,
        request: Request,
        send: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Value, CliError> {
        match request {
            Request::Status => Ok(json!({
                "volume": self.volume.id().to_string(),
                "mountpoint": text(&self.mountpoint),
                "device": self.state.device.get(),
                (self.keys_from.0): self.keys_from.1,
                "pid": std::process::id(),
                "crashes_to_mend": self.volume.unrecovered().len(),
                "crashes_not_believed": withheld(&self.volume),
                "rollbacks_seen": self.volume.rollbacks(),
                "found_at_mount": self.volume.notice(),
                "confined": self.confined,
                "small_blocks": self.volume.told_of_small_blocks(),
                "journals_pages": self.volume.journals_pages(),
                "keeps_processors_awake": self.state.awake.state(),
                "times_kept_awake": self.state.awake.times(),
            })),
            Request::Metrics => self.metrics(),
            Request::Rewrap { key, to, list, take_in, confirm: _ } => {
                let what = rewrap::What { key, to, strangers: rewrap::strangers(take_in) };
                rewrap::carry_out(&self.volume, &self.vault, &what, &mut |event| {
                    let wanted = list || !matches!(event, Event::Changed(_));
                    !wanted || send(event)
                })
            }
            Request::References => {
                let found = self.volume.references(&mut |done| match send(Event::Progress {
                    done,
                    total: None,
                }) {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                });
                let found = found.map_err(|error| self.failed(&error))?;
                Ok(survey::to_value(self.volume.id(), &found))
            }
            Request::PolicyShow { dir } => {
                let found = self.volume.dir_policy(dir.inode);
                Ok(dir_policy(&found.map_err(|error| failed(&dir, &error))?))
            }
            Request::PolicySet { dir, key, cross } => {
                self.set_dir_policy(&dir, &key, cross.as_deref())
            }
            Request::AdoptShow { dir } => self.on_directory(&dir, Volume::adoption),
            Request::Adopt { dir } => self.on_directory(&dir, Volume::adopt),
            Request::Sync => {
                self.volume.flush(Duration::ZERO).map_err(|error| self.failed(&error))?;
                Ok(Value::Null)
            }
            Request::AwaitEnd => {
                self.state.farewell.attend(send);
                Ok(Value::Null)
            }
        }
    }

    fn set_dir_policy(
        &self,
        dir: &DirRef,
        key: &str,
        cross: Option<&str>,
    ) -> Result<Value, CliError> {
        let failed = |error: VolumeError| failed(dir, &error);
        let ino = dir.inode;
        let service = self.volume.keyring().service();
        let key = service.find_key(key).map_err(failed)?;
        if service.health(&[key]).iter().any(|(_, health)| *health == KeyHealth::Unusable) {
            return Err(failed(VolumeError::KeyUnusable(key)));
        }
        let cross = cross.map(cross_mode).transpose()?;
        self.volume.set_dir_policy(ino, key, cross).map_err(failed)?;
        Ok(dir_policy(&self.volume.dir_policy(ino).map_err(failed)?))
    }

    fn on_directory(
        &self,
        dir: &DirRef,
        act: impl Fn(&Volume, u64) -> Result<Option<Adoption>, VolumeError>,
    ) -> Result<Value, CliError> {
        let done = act(&self.volume, dir.inode);
        Ok(adoption(done.map_err(|error| failed(dir, &error))?))
    }

    fn metrics(&self) -> Result<Value, CliError> {
        let keystore = self.keystore.as_ref().ok_or_else(|| {
            CliError::new(Exit::General, "this mount has its keys from another KMS")
                .advise("the metrics of keys are there")
        })?;
        Ok(keystore.metrics_text(SystemTime::now())?.into())
    }

    fn failed(&self, error: &VolumeError) -> CliError {
        failure::volume(&self.mountpoint, error)
    }
}

fn failed(dir: &DirRef, error: &VolumeError) -> CliError {
    failure::volume(Path::new(&dir.name), error)
}

/// Crashes whose traces nobody has agreed to believe.
fn withheld(volume: &Volume) -> usize {
    volume.unrecovered().iter().filter(|crash| crash.withheld).count()
}

/// The policy of a directory as the command shows it.
fn dir_policy(descriptor: &DirDescriptor) -> Value {
    json!({
        "key": descriptor.policy.to_string(),
        "inherited": descriptor.inherited,
        "cross": match descriptor.cross {
            CrossMode::Rewrap => "rewrap",
            CrossMode::Exdev => "exdev",
            CrossMode::Keep => "keep",
        },
        "previous": descriptor.previous.iter().map(KeyId::to_string).collect::<Vec<_>>(),
    })
}

/// A directory that is, or was, not in its place.
fn adoption(of: Option<Adoption>) -> Value {
    match of {
        None => json!({ "misplaced": null }),
        Some(Adoption { why, dir, policy, inherited }) => json!({
            "misplaced": why.to_string(),
            "directory": dir.to_string(),
            "key": policy.to_string(),
            "inherited": inherited,
        }),
    }
}

fn cross_mode(name: &str) -> Result<CrossMode, CliError> {
    match name {
        "rewrap" => Ok(CrossMode::Rewrap),
        "exdev" => Ok(CrossMode::Exdev),
        "keep" => Ok(CrossMode::Keep),
        other => Err(CliError::new(Exit::Usage, format!("no such mode: {other}"))),
    }
}
