//! Randomness from one 32-byte seed. Every use forks its own stream, so that a new use moves no other.

use chacha20::ChaCha20Rng;
use core::fmt;
use rand_core::{Rng as _, SeedableRng};

/// A deterministic generator (ChaCha20). The seed is fresh at every start of a node and is never stored.
pub(crate) struct Rng(ChaCha20Rng);

impl Rng {
    #[must_use]
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// An independent generator.
    pub(crate) fn fork(&mut self) -> Self {
        Self::from_seed(self.bytes())
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill_bytes(&mut out);
        out
    }

    /// Uniform in `0..=most` (by rejection, so without bias).
    pub(crate) fn up_to(&mut self, most: u64) -> u64 {
        let mask = u64::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let draw = self.0.next_u64() & mask;
            if draw <= most {
                return draw;
            }
        }
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rng(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_stays_in_bounds() {
        let (mut a, mut b) = (Rng::from_seed([1; 32]), Rng::from_seed([1; 32]));
        for most in [0, 1, 2, 5, 1000, u64::MAX] {
            let draw = a.up_to(most);
            assert_eq!(draw, b.up_to(most));
            assert!(draw <= most);
        }
        assert_ne!(a.fork().bytes::<16>(), a.bytes::<16>());
    }
}
