//! Ids of organisations and projects: UUIDs, random (version 4) where they are made here.

use std::fmt;

use agent_trace_store::env::Entropy;
use agent_trace_store::id::{decode_hex, encode_hex};

/// Where the hyphens stand.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// A UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Uuid(pub(super) [u8; 16]);

impl Uuid {
    /// Makes a random one.
    pub(super) fn random(entropy: &dyn Entropy) -> Uuid {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Uuid(bytes)
    }

    /// Reads the form with hyphens, in either case, or 32 hex digits.
    pub(super) fn parse(text: &str) -> Option<Uuid> {
        let mut digits = text.to_ascii_lowercase();
        if digits.len() == 36 && HYPHENS.iter().all(|at| digits.as_bytes()[*at] == b'-') {
            digits.retain(|char| char != '-');
        }
        let mut bytes = [0; 16];
        (digits.len() == 32 && decode_hex(&digits, &mut bytes)).then_some(Uuid(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = encode_hex(&self.0);
        let (a, b, c, d, e) = (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_one_is_written() {
        let text = "00000000-0000-4000-8000-00000000abcd";
        for form in [text, "00000000-0000-4000-8000-00000000ABCD", "0000000000004000800000000000abcd"] {
            assert_eq!(Uuid::parse(form).unwrap().to_string(), text);
        }
        for other in [
            "",
            "default",
            "00000000-0000-4000-8000-00000000abc",
            "{00000000-0000-4000-8000-00000000abcd}",
            "00000000-0000-4000-8000-00000000abcg",
            "0000000000004000-8000-0000-0000-abcd",
            "é0000000-0000-4000-8000-00000000abc",
        ] {
            assert_eq!(Uuid::parse(other), None, "{other}");
        }
    }

    #[test]
    fn random_ones_say_so() {
        struct Ones;
        impl Entropy for Ones {
            fn fill(&self, buffer: &mut [u8]) {
                buffer.fill(0xff);
            }
        }
        assert_eq!(Uuid::random(&Ones).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
