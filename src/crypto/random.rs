//! The only source of randomness.
//!
//! Keys, ids and salts come straight from the kernel. Nonces come from a generator in the thread
//! that is seeded by the kernel and seeded anew after a fork and every 100 ms, so that a cloned
//! virtual machine shares a stream for that long at most.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use rustix::process::{Pid, getpid};
use zeroize::Zeroizing;

use super::CryptoError;

/// Fills `buf` with kernel randomness. For keys, salts and ids.
/// Errors: `Random`.
pub fn fill(buf: &mut [u8]) -> Result<(), CryptoError> {
    getrandom::fill(buf).map_err(|_| CryptoError::Random)
}

/// Fills `buf` from the thread's generator. For nonces only.
///
/// The checks for fork and age are made once per call: ask for all the nonces of one request in
/// one call.
/// Errors: `Random` if a new seed is due and the kernel gives none.
pub fn fill_nonces(buf: &mut [u8]) -> Result<(), CryptoError> {
    GENERATOR.with_borrow_mut(|slot| match slot {
        Some(generator) if generator.is_fresh() => {
            generator.stream.fill_bytes(buf);
            Ok(())
        }
        _ => {
            let generator = slot.insert(Generator::seeded()?);
            generator.stream.fill_bytes(buf);
            Ok(())
        }
    })
}

/// Sixteen random bytes for an id.
/// Errors: `Random`.
pub fn id16() -> Result<[u8; 16], CryptoError> {
    let mut id = [0; 16];
    fill(&mut id)?;
    Ok(id)
}

/// A stream of its own, seeded with 256 bits by the kernel. For one operation of an algorithm that
/// draws as much as it needs, such as the search for a prime; wiped when dropped.
/// Errors: `Random`.
pub(super) fn stream() -> Result<ChaCha20Rng, CryptoError> {
    let mut seed = Zeroizing::new([0; 32]);
    fill(&mut *seed)?;
    Ok(ChaCha20Rng::from_seed(*seed))
}

/// A stream together with what makes it stale. The stream wipes itself when it is replaced.
struct Generator {
    stream: ChaCha20Rng,
    seeded_at: Instant,
    seeded_by: Pid,
}

impl Generator {
    fn seeded() -> Result<Self, CryptoError> {
        let stream = stream()?;
        Ok(Self { stream, seeded_at: Instant::now(), seeded_by: getpid() })
    }

    /// A child of fork has a copy of its parent's stream: it must never continue it.
    fn is_fresh(&self) -> bool {
        self.seeded_at.elapsed() < MAX_AGE && self.seeded_by == getpid()
    }
}

const MAX_AGE: Duration = Duration::from_millis(100);

thread_local! {
    static GENERATOR: RefCell<Option<Generator>> = const { RefCell::new(None) };
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nonces_never_repeat_across_calls_and_threads() {
        let draw = || {
            let mut all = vec![0; 12 * 4096];
            for nonce in all.chunks_mut(12 * 16) {
                fill_nonces(nonce).unwrap();
            }
            all
        };
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let mut seen = HashSet::new();
        for thread in threads {
            for nonce in thread.join().unwrap().chunks(12) {
                assert!(seen.insert(nonce.to_vec()));
            }
        }
        assert_eq!(seen.len(), 4 * 4096);
    }

    #[test]
    fn an_old_stream_and_a_stream_of_another_process_are_stale() {
        let mut generator = Generator::seeded().unwrap();
        assert!(generator.is_fresh());
        generator.seeded_by = Pid::INIT;
        assert!(!generator.is_fresh());
        let mut generator = Generator::seeded().unwrap();
        generator.seeded_at = Instant::now().checked_sub(MAX_AGE).unwrap();
        assert!(!generator.is_fresh());
    }
}
