//! Random draws: cheap, and the same for the same seed on any machine.

/// A stream of draws (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for `key`, whatever has been drawn from this one.
    pub fn keyed(seed: u64, key: &[u8]) -> Self {
        let fold = |so_far: u64, &byte: &u8| (so_far ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let mut dice = Self(key.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, fold));
        dice.bits();
        dice
    }

    /// 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform in `0..n`, near enough; 0 if `n` is.
    pub fn below(&mut self, n: u64) -> u64 {
        (u128::from(self.bits()) * u128::from(n)).wrapping_shr(64) as u64
    }

    /// Uniform in `from..=to`.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True in `permille` of a thousand cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
