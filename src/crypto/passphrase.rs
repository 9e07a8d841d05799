//! Keys from passphrases: Argon2id with a stored, bounded cost.

use argon2::{Algorithm, Argon2, Block, Params, Version};

use zeroize::Zeroizing;

use super::{CryptoError, Secret};

/// What one guess at a passphrase costs. Stored beside what the key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// The least that is accepted.
    pub const MINIMUM: Self = Self { memory_kib: 8 << 10, passes: 1, lanes: 1 };

    /// A cost within bounds, so that a forged one can neither exhaust the machine nor make
    /// guessing free.
    /// Units: KiB. Errors: `CostRefused` outside 8 MiB to 4 GiB, 1 to 64 passes, 1 to 64 lanes.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, CryptoError> {
        let inside = (8 << 10..=4 << 20).contains(&memory_kib)
            && (1..=64).contains(&passes)
            && (1..=64).contains(&lanes);
        if inside { Ok(Self { memory_kib, passes, lanes }) } else { Err(CryptoError::CostRefused) }
    }

    /// Memory of one guess. Units: KiB.
    pub fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    /// Passes over that memory.
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// Lanes that could be filled in parallel.
    pub fn lanes(&self) -> u32 {
        self.lanes
    }
}

impl Default for Cost {
    /// Twice the memory of RFC 9106's second recommended option: well under a second per guess
    /// here, and still within reach of a small machine.
    fn default() -> Self {
        Self { memory_kib: 128 << 10, passes: 3, lanes: 4 }
    }
}

/// The key that `passphrase` stands for.
/// Errors: `NoMemory`; `TooLong` for a passphrase over 4 GiB.
/// Source: RFC 9106, Argon2id version 0x13.
pub fn derive(passphrase: &[u8], salt: &[u8; 16], cost: Cost) -> Result<Secret<32>, CryptoError> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
        .map_err(|_| CryptoError::CostRefused)?;
    let mut memory = Zeroizing::new(Vec::new());
    memory.try_reserve_exact(params.block_count()).map_err(|_| CryptoError::NoMemory)?;
    memory.resize(params.block_count(), Block::default());
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    Secret::try_filled(|out| {
        let done =
            argon.hash_password_into_with_memory(passphrase, salt, out, memory.as_mut_slice());
        done.map_err(|_| CryptoError::TooLong)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_outside_the_bounds_are_refused() {
        let refused = Err(CryptoError::CostRefused);
        assert_eq!(Cost::new((4 << 20) + 1, 3, 4), refused);
        assert_eq!(Cost::new(u32::MAX, 3, 4), refused);
        assert_eq!(Cost::new(64, 3, 4), refused);
        assert_eq!(Cost::new(64 << 10, 0, 4), refused);
        assert_eq!(Cost::new(64 << 10, 65, 4), refused);
        assert_eq!(Cost::new(64 << 10, 3, 0), refused);
        assert!(Cost::new(64 << 10, 3, 4).is_ok());
    }

    /// RFC 9106, section 5.3. It has a secret and associated data, which keystores do not use.
    #[test]
    fn the_primitive_agrees_with_its_rfc() {
        let mut params = argon2::ParamsBuilder::new();
        params.m_cost(32).t_cost(3).p_cost(4).output_len(32);
        params.data(argon2::AssociatedData::new(&[4; 12]).unwrap());
        let argon = Argon2::new_with_secret(
            &[3; 8],
            Algorithm::Argon2id,
            Version::V0x13,
            params.build().unwrap(),
        );
        let mut tag = [0; 32];
        argon.unwrap().hash_password_into(&[1; 32], &[2; 16], &mut tag).unwrap();
        assert_eq!(
            tag,
            [
                0x0d, 0x64, 0x0d, 0xf5, 0x8d, 0x78, 0x76, 0x6c, 0x08, 0xc0, 0x37, 0xa3, 0x4a, 0x8b,
                0x53, 0xc9, 0xd0, 0x1e, 0xf0, 0x45, 0x2d, 0x75, 0xb6, 0x5e, 0xb5, 0x25, 0x20, 0xe9,
                0x6b, 0x01, 0xe6, 0x59,
            ]
        );
    }

    #[test]
    fn salt_passphrase_and_cost_all_count() {
        let cheap = Cost::MINIMUM;
        let key = derive(b"correct horse", &[1; 16], cheap).unwrap();
        assert_eq!(key, derive(b"correct horse", &[1; 16], cheap).unwrap());
        assert_ne!(key, derive(b"correct horsf", &[1; 16], cheap).unwrap());
        assert_ne!(key, derive(b"correct horse", &[2; 16], cheap).unwrap());
        let other = Cost::new(8 << 10, 2, 1).unwrap();
        assert_ne!(key, derive(b"correct horse", &[1; 16], other).unwrap());
    }
}
