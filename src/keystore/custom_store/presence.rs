//! Whether keys are on their token. Tokens are asked by a thread of their own: one that hangs must
//! not keep those who watch over all keys.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::id::MaterialId;

/// What the last probes of the keys of one token found.
#[derive(Default)]
pub(in crate::keystore) struct Presence {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    results: HashMap<MaterialId, ProbeResult>,
    wanted: BTreeSet<MaterialId>,
    /// Since when the thread waits for the token, while there is a thread.
    asking_since: Option<Instant>,
}

#[derive(Clone, Copy)]
struct ProbeResult {
    there: bool,
    at: Instant,
}

impl Presence {
    /// Was the key there a moment ago? `probe` asks the token, on a thread that ends when there is
    /// nothing left to ask. A token that does not answer for some seconds is not there.
    pub(in crate::keystore) fn is_there(
        self: &Arc<Self>,
        material: MaterialId,
        probe: impl Fn(MaterialId) -> bool + Send + 'static,
    ) -> bool {
        let mut state = self.lock();
        let known = state.results.get(&material).copied();
        if let Some(result) = known.filter(|result| result.at.elapsed() < BELIEVED) {
            return result.there;
        }
        state.wanted.insert(material);
        let since = match state.asking_since {
            Some(since) => since,
            None => self.ask(&mut state, probe),
        };
        let patience = if known.is_some() { PATIENCE } else { FIRST_PATIENCE };
        self.wait(state, material, patience.saturating_sub(since.elapsed()))
    }

    /// An operation with the key failed.
    pub(in crate::keystore) fn is_gone(&self, material: MaterialId) {
        self.lock().note(material, false);
    }

    /// Starts the thread.
    fn ask(
        self: &Arc<Self>,
        state: &mut State,
        probe: impl Fn(MaterialId) -> bool + Send + 'static,
    ) -> Instant {
        let now = Instant::now();
        let presence = Arc::clone(self);
        let run = move || {
            while let Some(material) = presence.next() {
                let there = probe(material);
                presence.lock().note(material, there);
                presence.answered.notify_all();
            }
        };
        match std::thread::Builder::new().name("token".into()).spawn(run) {
            Ok(_) => state.asking_since = Some(now),
            Err(error) => log::error!("no thread to ask a token with: {error}"),
        }
        now
    }

    fn next(&self) -> Option<MaterialId> {
        let mut state = self.lock();
        let next = state.wanted.pop_first();
        state.asking_since = next.map(|_| Instant::now());
        next
    }

    fn wait(
        &self,
        mut state: MutexGuard<'_, State>,
        material: MaterialId,
        patience: Duration,
    ) -> bool {
        let asked = Instant::now();
        let told = |state: &State| {
            state.results.get(&material).filter(|result| result.at >= asked).copied()
        };
        self.answered.wait_while_for(&mut state, |state| told(state).is_none(), patience);
        let bridged =
            || state.results.get(&material).filter(|result| result.at.elapsed() < BRIDGED).copied();
        if let Some(result) = told(&state).or_else(bridged) {
            return result.there;
        }
        if state.results.get(&material).is_none_or(|before| before.there) {
            log::warn!("key material {material}: its token does not answer");
        }
        state.note(material, false);
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn note(&mut self, material: MaterialId, there: bool) {
        self.results.insert(material, ProbeResult { there, at: Instant::now() });
    }
}

/// How long a result is believed.
const BELIEVED: Duration = Duration::from_millis(600);
/// How long it is believed when the token takes its time to answer again.
const BRIDGED: Duration = Duration::from_secs(3);
/// How long one waits for a token that answered before.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long one waits for the first answer, which may take a login.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const A: MaterialId = MaterialId::from_bytes([1; 16]);
    const B: MaterialId = MaterialId::from_bytes([2; 16]);

    /// One key's absence made all keys of the token unavailable, and one's presence the others there.
    #[test]
    fn regression_each_key_is_looked_for_by_itself() {
        let presence = Arc::new(Presence::default());
        let only_a = |material| material == A;
        assert!(presence.is_there(A, only_a));
        assert!(!presence.is_there(B, only_a));
        assert!(presence.is_there(A, only_a));
        presence.is_gone(A);
        assert!(!presence.is_there(A, only_a));
    }

    /// A token that hung stopped the thread that watches all keys of a volume.
    #[test]
    fn regression_a_token_that_hangs_is_waited_for_once() {
        let presence = Arc::new(Presence::default());
        assert!(presence.is_there(A, |_| true));
        let (release, hang) = mpsc::channel::<()>();
        let hang = Arc::new(Mutex::new(hang));
        let hanging = || {
            let hang = Arc::clone(&hang);
            move |_| hang.lock().recv().is_ok()
        };
        let mut answers = 0;
        while presence.is_there(A, hanging()) {
            answers += 1;
            std::thread::sleep(BELIEVED / 4);
        }
        assert!(answers > 0, "what was seen is believed for a while");
        for _ in 0..1000 {
            assert!(!presence.is_there(A, hanging()), "nobody answers");
        }
        release.send(()).unwrap();
        while !presence.is_there(A, hanging()) {
            std::thread::sleep(BELIEVED / 4);
        }
    }

    #[test]
    fn the_thread_ends_when_nothing_is_left_to_ask() {
        let presence = Arc::new(Presence::default());
        assert!(presence.is_there(A, |_| true));
        while presence.lock().asking_since.is_some() {
            std::thread::yield_now();
        }
        assert!(presence.is_there(B, |_| true));
    }
}
