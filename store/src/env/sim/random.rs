//! The generator behind all simulated chance: SplitMix64.
//!
//! One seed gives one sequence, on every machine and in every version. Small and fast, not cryptographic.

/// A seeded sequence of numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Starts the sequence of a seed; `stream` makes several that have nothing to do with each other.
    pub(super) fn new(seed: u64, stream: u64) -> Random {
        Random(mix(seed ^ mix(stream.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// True that many times in ten thousand; draws nothing if the answer is fixed.
    pub(super) fn chance(&mut self, per_10_000: u32) -> bool {
        match per_10_000 {
            0 => false,
            10_000.. => true,
            odds => self.next() % 10_000 < u64::from(odds),
        }
    }

    pub(super) fn coin(&mut self) -> bool {
        self.chance(5_000)
    }

    /// A number from 0 to `last`, both included; the bias is far below what a test can see.
    pub(super) fn up_to(&mut self, last: usize) -> usize {
        usize::try_from(self.next() % (last as u64).saturating_add(1)).expect("not above `last`")
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}

/// Spreads every bit of the input over the whole output, one to one.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A 64-bit fingerprint of bytes for the trace; equal bytes give equal numbers, no more is promised.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let mut hash = 0x243f_6a88_85a3_08d3 ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mix(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_never_changes() {
        // First output of the published SplitMix64 for the state 0.
        assert_eq!(Random(0).next(), 0xe220_a839_7b1d_cdaf);
        assert_ne!(Random::new(1, 0).next(), Random::new(1, 1).next());
        assert_ne!(Random::new(1, 0).next(), Random::new(2, 0).next());
    }

    #[test]
    fn odds_are_kept() {
        let mut random = Random::new(7, 0);
        let hits = (0..100_000).filter(|_| random.chance(2_500)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| random.up_to(3) <= 3));
    }
}
