//! Modules: shared libraries that are loaded once, started lazily, and started anew when a token
//! went away or the process was forked.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::slot::Slot;
use parking_lot::{Mutex, RwLock};

use super::error::unavailable;
use super::{Serial, TokenError, TokenRef};

/// One library of this process.
pub(super) struct Module {
    path: PathBuf,
    library: RwLock<Library>,
}

/// The library in its present state.
pub(super) struct Library {
    context: Pkcs11,
    /// The process that started it. A child must start it again.
    process: u32,
    /// Counts the starts. Sessions of an earlier epoch do not exist any more.
    epoch: u64,
    started: Instant,
}

/// How long a library is left alone after a start, so that a token that stays away does not cost
/// the others of the same module their sessions all the time.
const PAUSE: Duration = Duration::from_secs(1);

impl Module {
    /// The module at `path`, loaded and started now if it was not yet.
    /// Errors: `Module`.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, TokenError> {
        static LOADED: Mutex<Option<HashMap<PathBuf, Arc<Module>>>> = Mutex::new(None);
        let failed = |problem: String| TokenError::Module { path: path.to_owned(), problem };
        let real = fs::canonicalize(path).map_err(|error| failed(error.to_string()))?;
        let mut loaded = LOADED.lock();
        let loaded = loaded.get_or_insert_default();
        if let Some(module) = loaded.get(&real) {
            return Ok(Arc::clone(module));
        }
        check_owner(&real).map_err(failed)?;
        let context = Pkcs11::new(&real).map_err(|error| failed(error.to_string()))?;
        start(&context).map_err(|error| failed(error.to_string()))?;
        let (process, started) = (std::process::id(), Instant::now());
        let library = RwLock::new(Library { context, process, epoch: 1, started });
        let module = Arc::new(Self { path: real.clone(), library });
        loaded.insert(real, Arc::clone(&module));
        Ok(module)
    }

    /// Runs `work` while nobody starts the library anew.
    /// Errors: `Module` when it has to be started in this process and cannot.
    pub(super) fn enter<T>(&self, work: impl FnOnce(&Library) -> T) -> Result<T, TokenError> {
        loop {
            let library = self.library.read();
            if library.process == std::process::id() {
                return Ok(work(&library));
            }
            drop(library);
            self.exclusively(|library| {
                if library.process == std::process::id() { Ok(()) } else { library.restart() }
            })?;
        }
    }

    /// Runs `work` while nobody else uses the library.
    pub(super) fn exclusively<T>(
        &self,
        work: impl FnOnce(&mut Library) -> Result<T, Error>,
    ) -> Result<T, TokenError> {
        let mut library = self.library.write();
        work(&mut library).map_err(|error| TokenError::Module {
            path: self.path.clone(),
            problem: error.to_string(),
        })
    }

    /// Starts the library anew, so that it sees the tokens that are there now. `false`, and
    /// nothing done, when it was started only a moment ago.
    /// Errors: `Module`.
    pub(super) fn renew(&self, seen: u64) -> Result<bool, TokenError> {
        self.exclusively(|library| {
            // Another thread was faster.
            if library.epoch != seen {
                return Ok(true);
            }
            if library.started.elapsed() < PAUSE {
                return Ok(false);
            }
            library.restart().map(|()| true)
        })
    }
}

impl Library {
    pub(super) fn context(&self) -> &Pkcs11 {
        &self.context
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The slot that holds the token: with this serial number, if that is known.
    /// Errors: `NotFound`, `Another`, `Ambiguous`, `Unavailable`.
    pub(super) fn slot(
        &self,
        token_ref: &TokenRef,
        serial: Option<&Serial>,
    ) -> Result<(Slot, Option<Serial>), TokenError> {
        let failed = |error: Error| unavailable(token_ref, &error);
        let mut found = Vec::new();
        for slot in self.context.get_slots_with_token().map_err(failed)? {
            // A token that is pulled out meanwhile is not the one that is looked for.
            let Ok(info) = self.context.get_token_info(slot) else { continue };
            let own = Serial::of(&info);
            if info.serial_number() == token_ref.token {
                found = vec![(slot, own)];
                break;
            }
            if info.label() == token_ref.token {
                found.push((slot, own));
            }
        }
        if let (Some(serial), false) = (serial, found.is_empty()) {
            found.retain(|(_, own)| own.as_ref() == Some(serial));
            let other = || TokenError::Another(token_ref.clone(), serial.0.clone());
            return found.pop().ok_or_else(other);
        }
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(TokenError::NotFound(token_ref.clone())),
            (Some(_), false) => Err(TokenError::Ambiguous(token_ref.clone())),
        }
    }

    fn restart(&mut self) -> Result<(), Error> {
        // A library that was never started in this process says so; that is no obstacle.
        let _ = self.context.clone().finalize();
        self.epoch += 1;
        (self.process, self.started) = (std::process::id(), Instant::now());
        start(&self.context)
    }
}

fn start(context: &Pkcs11) -> Result<(), Error> {
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        other => other,
    }
}

/// A module runs inside this process: only root and the user of the process may have put it there.
fn check_owner(path: &Path) -> Result<(), String> {
    const STICKY: u32 = 0o1000;
    let own = rustix::process::geteuid().as_raw();
    for above in path.ancestors() {
        let metadata = fs::metadata(above).map_err(|error| error.to_string())?;
        let mode = metadata.mode();
        let shared = mode & 0o022 != 0 && (above == path || mode & STICKY == 0);
        if shared || ![0, own].contains(&metadata.uid()) {
            return Err(format!(
                "others than root and the user of kmsfs could change '{}'",
                above.display()
            ));
        }
    }
    Ok(())
}
