//! Which packet numbers of a session were seen: a sliding window after RFC 6479, so that a repeated packet is dropped
//! and packets that overtake each other are not.
//!
//! The window moves only by [`Window::mark`], which is called after a packet proved to be the peer's. A forged packet
//! with a high number is at most looked up ([`Window::check`]) and pushes nothing out.

use crate::limits::REPLAY_NUMBERS;

const WORD: u64 = u64::BITS as u64;
/// One word more than the window needs: numbers that become too old are cleared by whole words (RFC 6479, section 2).
const WORDS: u64 = REPLAY_NUMBERS / WORD + 1;

#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// Highest number marked, zero before the first.
    highest: u64,
    /// A ring of bits: number `n` has bit `n % 64` of word `n / 64 % WORDS`.
    seen: [u64; WORDS as usize],
}

impl Window {
    pub(crate) const fn new() -> Self {
        Self { highest: 0, seen: [0; WORDS as usize] }
    }

    /// Whether a packet of this number may be new. Nothing moves.
    pub(crate) fn check(&self, number: u64) -> bool {
        if number > self.highest {
            return true;
        }
        let (word, bit) = place(number);
        self.highest - number < REPLAY_NUMBERS && self.seen.get(word).is_some_and(|word| word & bit == 0)
    }

    /// Notes the number of a packet that is authenticated. False if it is a replay or too old to tell: then nothing
    /// changed.
    pub(crate) fn mark(&mut self, number: u64) -> bool {
        if !self.check(number) {
            return false;
        }
        let (from, to) = (self.highest / WORD, number / WORD);
        // Words that the window enters hold numbers that it has left; more than all of them there are not.
        for entered in (from + 1..=to).take(self.seen.len()) {
            if let Some(word) = self.seen.get_mut((entered % WORDS) as usize) {
                *word = 0;
            }
        }
        self.highest = self.highest.max(number);
        let (word, bit) = place(number);
        if let Some(word) = self.seen.get_mut(word) {
            *word |= bit;
        }
        true
    }
}

/// Word in the ring, and the bit in it.
const fn place(number: u64) -> (usize, u64) {
    (((number / WORD) % WORDS) as usize, 1 << (number % WORD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::collections::BTreeSet;

    #[test]
    fn a_number_passes_once_in_any_order() {
        let mut window = Window::new();
        for number in [3, 0, 1, 70, 2, 69] {
            assert!(window.check(number), "{number}");
            assert!(window.mark(number), "{number}");
            assert!(!window.check(number), "{number}");
            assert!(!window.mark(number), "{number}");
        }
        assert!(window.check(4) && window.check(68) && window.check(71));
    }

    #[test]
    fn a_forged_number_that_is_only_checked_pushes_nothing_out() {
        let mut window = Window::new();
        assert!(window.mark(5));
        assert!(window.check(u64::MAX));
        assert!(window.mark(4));
        assert!(!window.check(5));
    }

    #[test]
    fn the_window_ends_where_it_says() {
        for highest in [REPLAY_NUMBERS, 10_000, 10_047, 10_048, u64::MAX] {
            let mut window = Window::new();
            assert!(window.mark(highest));
            assert!(window.check(highest - (REPLAY_NUMBERS - 1)), "the last that is inside");
            assert!(!window.check(highest - REPLAY_NUMBERS), "the first that is too old");
            assert!(!window.mark(highest - REPLAY_NUMBERS));
            assert!(window.mark(highest - (REPLAY_NUMBERS - 1)));
            assert!(!window.mark(highest - (REPLAY_NUMBERS - 1)));
        }
    }

    #[test]
    fn a_leap_over_the_whole_ring_forgets_what_was_there() {
        let mut window = Window::new();
        for number in 0..REPLAY_NUMBERS {
            assert!(window.mark(number));
        }
        // The same places of the ring, another time around.
        let leap = 1000 * WORDS * WORD;
        assert!(window.mark(leap + REPLAY_NUMBERS));
        for number in leap + 1..leap + REPLAY_NUMBERS {
            assert!(window.mark(number), "{number}");
        }
    }

    #[test]
    fn any_order_of_numbers_is_judged_as_a_set_would() {
        let mut rng = Rng::from_seed([7; 32]);
        for _ in 0..20 {
            let (mut window, mut marked, mut front, mut highest) =
                (Window::new(), BTreeSet::new(), 0u64, 0u64);
            for _ in 0..4000 {
                // Mostly near the front, at times far behind it, at times beyond a leap.
                let (leaps, lags) = (rng.up_to(99) == 0, rng.up_to(4) == 0);
                front += rng.up_to(if leaps { 3 * REPLAY_NUMBERS } else { 2 });
                let behind = rng.up_to(if lags { REPLAY_NUMBERS + 200 } else { 20 });
                let number = front.saturating_sub(behind);
                let fresh = !marked.contains(&number) && number + REPLAY_NUMBERS > highest;
                assert_eq!(window.check(number), fresh, "{number} of {highest}");
                if rng.up_to(1) == 0 {
                    assert_eq!(window.mark(number), fresh, "{number} of {highest}");
                    if fresh {
                        marked.insert(number);
                        highest = highest.max(number);
                    }
                }
            }
        }
    }
}
