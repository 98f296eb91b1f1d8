//! Chance that comes again.
//!
//! Owns: numbers that follow from a seed alone. Refuses to know: what they decide.

/// A throw after another; cheap to copy, and a copy throws the same.
#[derive(Debug, Clone, Copy)]
pub struct Dice(u64);

impl Dice {
    /// Dice that throw what `seed` says.
    #[must_use]
    pub const fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Other dice for one of many parts, so that what one part throws moves no other.
    #[must_use]
    pub fn part(&self, number: u64) -> Dice {
        let mut dice = Dice(self.0 ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Dice(dice.throw())
    }

    /// A number of 64 bits (splitmix64).
    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end` − 1; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.throw() % end.max(1)
    }

    /// True `of` times in a hundred.
    pub fn percent(&mut self, of: u64) -> bool {
        self.below(100) < of
    }

    /// One of some; they must not be none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len() as u64);
        &from[usize::try_from(at).unwrap_or_default()]
    }
}
