//! A token in use: a small pool of sessions, and new ones when the old ones are lost.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cryptoki::error::{Error, RvError};
use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, UserType};
use cryptoki::types::RawAuthPin;
use parking_lot::Mutex;

use super::error::Fault;
use super::module::{Library, Module};
use super::{Pin, Serial, TokenError, TokenRef};

/// The id (`CKA_ID`) of a key that this program made: 16 random bytes.
pub(in crate::keystore) type TokenKeyId = [u8; 16];

/// A token whose user is logged in, or will be at the next use.
pub(in crate::keystore) struct Token {
    token_ref: TokenRef,
    /// Which token it must be, if that is known.
    serial: Option<Serial>,
    module: Arc<Module>,
    pin: Pin,
    idle: Mutex<Vec<Line>>,
    /// What it said to the PIN, once it refused it.
    refused: OnceLock<TokenError>,
}

/// A session, used by one thread at a time, and the keys that it has found.
pub(super) struct Line {
    session: Session,
    epoch: u64,
    /// Which token it leads to.
    pub(super) serial: Option<Serial>,
    pub(super) keys: HashMap<TokenKeyId, ObjectHandle>,
}

/// Sessions that wait for work; more are opened as they are needed, and closed afterwards.
const KEEP: usize = 8;

impl Token {
    /// Finds the token and proves the PIN, whoever is logged in already.
    /// Errors: `Module`, `NotFound`, `Ambiguous`, `WrongPin`, `PinUnusable`, `Unavailable`.
    pub(in crate::keystore) fn log_in(token_ref: TokenRef, pin: Pin) -> Result<Self, TokenError> {
        let mut token = Self::new(token_ref, None, pin)?;
        token.serial = token.prove_pin()?;
        Ok(token)
    }

    /// As [`Token::log_in`], if it is the token with this serial number. Tells which one it is.
    /// Errors: as there; `Another`.
    pub(in crate::keystore) fn prove(
        token_ref: TokenRef,
        serial: Option<Serial>,
        pin: Pin,
    ) -> Result<Option<Serial>, TokenError> {
        Self::new(token_ref, serial, pin)?.prove_pin()
    }

    /// The token, which is looked for at its first use. A PIN that it refuses is tried once only:
    /// tokens lock themselves after a few wrong ones.
    /// Errors: `Module`.
    pub(in crate::keystore) fn new(
        token_ref: TokenRef,
        serial: Option<Serial>,
        pin: Pin,
    ) -> Result<Self, TokenError> {
        let module = Module::load(&token_ref.module)?;
        Ok(Self {
            token_ref,
            serial,
            module,
            pin,
            idle: Mutex::default(),
            refused: OnceLock::new(),
        })
    }

    /// Is the token there, and which one is it? Needs no PIN.
    /// Errors: `Module`, `NotFound`, `Ambiguous`, `Unavailable`.
    pub(in crate::keystore) fn find(token_ref: &TokenRef) -> Result<Option<Serial>, TokenError> {
        let module = Module::load(&token_ref.module)?;
        let look = |library: &Library| library.slot(token_ref, None).map(|(_, serial)| serial);
        let (epoch, found) = module.enter(|library| (library.epoch(), look(library)))?;
        if found.as_ref().is_err_and(TokenError::is_absence) && module.renew(epoch)? {
            return module.enter(look)?;
        }
        found
    }

    /// Where it is found.
    pub(in crate::keystore) fn token_ref(&self) -> &TokenRef {
        &self.token_ref
    }

    /// Runs `work` on a session: one that waits, then a new one, then one after a new start of
    /// the library. `work` may run three times, so it must not leave anything half done.
    pub(super) fn run<T>(
        &self,
        work: impl Fn(&mut Line) -> Result<T, Fault>,
    ) -> Result<T, TokenError> {
        if let Some(refused) = self.refused.get() {
            return Err(refused.clone());
        }
        let (_, tried) = self.attempt(&work, Line::waiting)?;
        if !matches!(tried, Err(Fault::Lost(_))) {
            return tried.map_err(|fault| fault.into_error(&self.token_ref));
        }
        let (epoch, tried) = self.attempt(&work, Line::fresh)?;
        let Err(Fault::Lost(why)) = tried else {
            return tried.map_err(|fault| fault.into_error(&self.token_ref));
        };
        if !self.module.renew(epoch)? {
            return Err(why);
        }
        log::info!("looked for {} again: {why}", self.token_ref);
        let (_, tried) = self.attempt(&work, Line::fresh)?;
        tried.map_err(|fault| fault.into_error(&self.token_ref))
    }

    /// One call, with what its failure means.
    pub(super) fn call<T>(&self, result: Result<T, Error>) -> Result<T, Fault> {
        result.map_err(|error| Fault::of(&self.token_ref, &error))
    }

    /// One try; also the epoch in which it was made.
    fn attempt<T>(
        &self,
        work: impl Fn(&mut Line) -> Result<T, Fault>,
        line: impl Fn(&Self, &Library) -> Result<Line, Fault>,
    ) -> Result<(u64, Result<T, Fault>), TokenError> {
        self.module.enter(|library| {
            let tried = line(self, library).and_then(|mut line| {
                let done = work(&mut line);
                match &done {
                    Err(Fault::Lost(_)) => line.close(),
                    _ => self.put_back(line),
                }
                done
            });
            (library.epoch(), tried)
        })
    }

    fn put_back(&self, line: Line) {
        let mut idle = self.idle.lock();
        if idle.len() < KEEP {
            idle.push(line);
        } else {
            drop(idle);
            line.close();
        }
    }

    /// A login that another user of the same process made would hide a wrong PIN.
    fn prove_pin(&self) -> Result<Option<Serial>, TokenError> {
        let prove = |library: &Library| -> Result<Option<Serial>, TokenError> {
            let (slot, serial) = library.slot(&self.token_ref, self.serial.as_ref())?;
            let session = library.context().open_rw_session(slot);
            let session = self.call(session).map_err(|fault| fault.into_error(&self.token_ref))?;
            // Nobody was logged in: all the better.
            let _ = session.logout();
            self.call(self.login(&session)).map_err(|fault| fault.into_error(&self.token_ref))?;
            Ok(serial)
        };
        let mut proven =
            self.module.exclusively(|library| Ok((library.epoch(), prove(library))))?;
        if proven.1.as_ref().is_err_and(TokenError::is_absence) && self.module.renew(proven.0)? {
            proven = self.module.exclusively(|library| Ok((library.epoch(), prove(library))))?;
        }
        proven.1
    }

    fn login(&self, session: &Session) -> Result<(), Error> {
        let logged_in = if self.pin.expose().is_empty() {
            session.login(UserType::User, None)
        } else {
            let pin = RawAuthPin::new(Box::new(self.pin.expose().to_vec()));
            session.login_with_raw(UserType::User, &pin)
        };
        match logged_in {
            Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            other => other,
        }
    }
}

impl Line {
    /// A session that waits for work, or a new one.
    fn waiting(token: &Token, library: &Library) -> Result<Self, Fault> {
        let mut idle = token.idle.lock();
        while let Some(line) = idle.pop() {
            if line.epoch == library.epoch() {
                return Ok(line);
            }
        }
        drop(idle);
        Self::fresh(token, library)
    }

    /// A new session, logged in. What waits is suspect then, and closed.
    fn fresh(token: &Token, library: &Library) -> Result<Self, Fault> {
        let suspects = std::mem::take(&mut *token.idle.lock());
        suspects.into_iter().filter(|line| line.epoch == library.epoch()).for_each(Self::close);
        let found = library.slot(&token.token_ref, token.serial.as_ref());
        let (slot, serial) = found.map_err(|error| match error {
            TokenError::Ambiguous(_) => Fault::Final(error),
            _ => Fault::Lost(error),
        })?;
        let opened = library.context().open_rw_session_no_drop(slot);
        let session = match token.call(opened) {
            Err(Fault::Refused(why)) => {
                return Err(Fault::Lost(TokenError::Unavailable(token.token_ref.clone(), why)));
            }
            other => other?,
        };
        let line = Self { session, epoch: library.epoch(), serial, keys: HashMap::new() };
        match token.call(token.login(&line.session)) {
            Ok(()) => Ok(line),
            Err(fault) => {
                line.close();
                if let Fault::Final(error) = &fault {
                    // Only the first refusal counts, so a second one changes nothing.
                    let _ = token.refused.set(error.clone());
                }
                Err(fault)
            }
        }
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Must not be called in a later epoch: the number may belong to another session then.
    fn close(self) {
        if let Err(error) = self.session.close() {
            log::debug!("closing a session of a token: {error}");
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let idle = std::mem::take(self.idle.get_mut());
        let closed = self.module.enter(|library| {
            idle.into_iter().filter(|line| line.epoch == library.epoch()).for_each(Line::close);
        });
        if let Err(error) = closed {
            log::debug!("leaving a token: {error}");
        }
    }
}
