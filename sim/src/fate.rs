//! Randomness without a stream: every decision is a function of (seed, purpose, link, ordinal), so that taking one
//! fault away leaves all other decisions as they were.

use crate::limits::{HOSTS, LINKS};
use std::collections::BTreeMap;

/// What a decision is about. The number is part of the function: append, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Purpose {
    Plan = 1,
    Latency,
    Segment,
    Read,
    ReadPause,
    Written,
    Commit,
    Told,
    Load,
    Late,
    Defer,
    Dial,
    Reset,
    Cut,
    Seed,
    Act,
    Pace,
    Size,
    Retransmit,
    Attack,
    Port,
    Regret,
    Expiry,
    Flight,
    Relay,
    Twin,
}

const PURPOSES: usize = Purpose::Twin as usize + 1;

/// One part in this many is the unit of chances.
pub const MILLION: u64 = 1_000_000;

/// The directed link from one host to another; `link(a, a)` is what happens inside `a`.
#[must_use]
pub const fn link(from: usize, to: usize) -> usize {
    from * HOSTS + to
}

/// The keyed function, and decisions that were fixed by hand.
#[derive(Debug, Clone, Default)]
pub struct Fates {
    seed: u64,
    fixed: BTreeMap<(Purpose, usize, u64), u64>,
}

impl Fates {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, fixed: BTreeMap::new() }
    }

    /// Makes one decision explicit, whatever the seed says.
    pub fn fix(&mut self, purpose: Purpose, link: usize, ordinal: u64, value: u64) {
        self.fixed.insert((purpose, link, ordinal), value);
    }

    #[must_use]
    pub fn draw(&self, purpose: Purpose, link: usize, ordinal: u64) -> u64 {
        if !self.fixed.is_empty()
            && let Some(value) = self.fixed.get(&(purpose, link, ordinal))
        {
            return *value;
        }
        let key = ((purpose as u64) << 32) | link as u64;
        mix(mix(mix(self.seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_add(key)).wrapping_add(ordinal))
    }

    /// 32 bytes for what needs a seed of its own.
    #[must_use]
    pub fn bytes(&self, purpose: Purpose, link: usize, ordinal: u64) -> [u8; 32] {
        let mut out = [0; 32];
        for (index, part) in out.chunks_exact_mut(8).enumerate() {
            let word = mix(self.draw(purpose, link, ordinal).wrapping_add(index as u64));
            part.copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood, 2014).
const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// `draw` scaled to `0..bound` without a division; 0 for an empty range.
const fn scale(draw: u64, bound: u64) -> u64 {
    ((draw as u128 * bound as u128) >> 64) as u64
}

/// Fates with their ordinals counted: one counter for each purpose on each link.
#[derive(Debug, Clone)]
pub struct Dice {
    fates: Fates,
    next: Vec<[u64; LINKS]>,
}

impl Dice {
    #[must_use]
    pub fn new(fates: Fates) -> Self {
        Self { fates, next: vec![[0; LINKS]; PURPOSES] }
    }

    pub fn draw(&mut self, purpose: Purpose, link: usize) -> u64 {
        let next = &mut self.next[purpose as usize][link];
        let ordinal = *next;
        *next += 1;
        self.fates.draw(purpose, link, ordinal)
    }

    /// Uniform in `0..bound`; 0 if `bound` is.
    pub fn below(&mut self, purpose: Purpose, link: usize, bound: u64) -> u64 {
        scale(self.draw(purpose, link), bound)
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, purpose: Purpose, link: usize, low: u64, high: u64) -> u64 {
        low + self.below(purpose, link, high.saturating_sub(low).saturating_add(1))
    }

    pub fn chance(&mut self, purpose: Purpose, link: usize, per_million: u64) -> bool {
        self.below(purpose, link, MILLION) < per_million
    }

    pub fn bytes(&mut self, purpose: Purpose, link: usize) -> [u8; 32] {
        let next = &mut self.next[purpose as usize][link];
        let ordinal = *next;
        *next += 1;
        self.fates.bytes(purpose, link, ordinal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_depends_on_its_key_alone() {
        let fates = Fates::new(7);
        let value = fates.draw(Purpose::Latency, 3, 9);
        assert_eq!(value, Fates::new(7).draw(Purpose::Latency, 3, 9));
        assert_ne!(value, Fates::new(8).draw(Purpose::Latency, 3, 9));
        assert_ne!(value, fates.draw(Purpose::Segment, 3, 9));
        assert_ne!(value, fates.draw(Purpose::Latency, 4, 9));
        assert_ne!(value, fates.draw(Purpose::Latency, 3, 10));
    }

    #[test]
    fn a_fixed_decision_moves_no_other() {
        let (mut plain, mut fates) = (Dice::new(Fates::new(7)), Fates::new(7));
        fates.fix(Purpose::Commit, 0, 1, 42);
        let mut fixed = Dice::new(fates);
        assert_eq!(plain.draw(Purpose::Commit, 0), fixed.draw(Purpose::Commit, 0));
        let _other = plain.draw(Purpose::Commit, 0);
        assert_eq!(fixed.draw(Purpose::Commit, 0), 42);
        assert_eq!(plain.draw(Purpose::Commit, 0), fixed.draw(Purpose::Commit, 0));
    }

    #[test]
    fn draws_are_spread_and_stay_in_bounds() {
        let mut dice = Dice::new(Fates::new(1));
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[dice.below(Purpose::Act, 0, 10) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!(dice.below(Purpose::Act, 0, 0), 0);
        assert!((5..=6).contains(&dice.between(Purpose::Act, 0, 5, 6)));
    }
}
