//! Names of things: newtypes around hashes, keys and numbers, with their text forms.
//!
//! An id prints as lower-case hex; `short()` is what people see. Objects, events and segments are named by BLAKE3.

use std::collections::{HashMap, HashSet};
use std::fmt;

use foldhash::fast::RandomState;

use crate::error::{Error, Result};

macro_rules! id32 {
    ($(#[$doc:meta])* $name:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the 32 bytes as they are.
            pub const fn from_bytes(bytes: [u8; 32]) -> $name {
                $name(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Reads 64 hex digits, upper or lower case.
            pub fn parse(text: &str) -> Result<$name> {
                let mut bytes = [0; 32];
                if decode_hex(text, &mut bytes) {
                    Ok($name(bytes))
                } else {
                    Err(Error::invalid(format!(concat!("cannot read ", $noun, " id `{}`: expected 64 hex digits"), text)))
                }
            }

            /// The first twelve hex digits, for people.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(12);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }
    };
}

id32!(
    /// Names an object: the BLAKE3 hash of exactly its bytes.
    ObjectId,
    "object"
);
id32!(
    /// Names an event: the BLAKE3 hash of its encoding, which contains the id of the event before.
    EventId,
    "event"
);
id32!(
    /// Names a writer: an Ed25519 public key.
    WriterId,
    "writer"
);
id32!(
    /// Names a sealed segment: the BLAKE3 hash of its file.
    SegmentId,
    "segment"
);

impl ObjectId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> ObjectId {
        ObjectId(*blake3::hash(bytes).as_bytes())
    }
}

/// A map by object id. Ids are hashes of what anyone may choose, so the map's own hash is still seeded, but cheap.
pub type IdMap<T> = HashMap<ObjectId, T, RandomState>;
/// A set of object ids.
pub type IdSet = HashSet<ObjectId, RandomState>;

impl EventId {
    /// The id that the first event of a log has as its previous one.
    pub const NONE: EventId = EventId([0; 32]);

    /// The id of an encoded event.
    pub fn of(encoded: &[u8]) -> EventId {
        EventId(*blake3::hash(encoded).as_bytes())
    }
}

/// The position of an event in its writer's log; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// The first position of a log.
    pub const FIRST: Seq = Seq(1);

    /// Makes a position; there is none at zero.
    pub fn new(number: u64) -> Option<Seq> {
        (number != 0).then_some(Seq(number))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0.checked_add(1).expect("a log cannot hold 2^64 events"))
    }

    /// The position before this one, if there is one.
    pub fn previous(self) -> Option<Seq> {
        Seq::new(self.0 - 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Lower-case hex digits of some bytes.
pub fn encode_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads exactly as many hex digits as fill `bytes`; false if the text is anything else.
pub fn decode_hex(text: &str, bytes: &mut [u8]) -> bool {
    let digits = text.as_bytes();
    if digits.len() != bytes.len() * 2 {
        return false;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (Some(high), Some(low)) = (hex_value(pair[0]), hex_value(pair[1])) else { return false };
        *byte = high << 4 | low;
    }
    true
}

/// The value of one hex digit.
#[inline]
pub fn hex_value(digit: u8) -> Option<u8> {
    let value = HEX_VALUES[usize::from(digit)];
    (value < 16).then_some(value)
}

/// Digits by byte; 255 where a byte is none.
const HEX_VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        values[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_as_it_is_read() {
        let id = ObjectId::of(b"x");
        assert_eq!(ObjectId::parse(&id.to_string()).unwrap(), id);
        assert_eq!(ObjectId::parse(&id.to_string().to_uppercase()).unwrap(), id);
        for text in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
            assert!(ObjectId::parse(text).is_err(), "{text}");
        }
    }
}
