//! Little-endian integers and lengths, written and read with every bound checked.
//!
//! The decoder takes untrusted bytes: it never panics and never allocates; what it returns borrows from the
//! input. Knows no type of ours but that files begin with a magic and a version.

use crate::error::{Error, ErrorKind, Result};

/// Appends fixed-width little-endian fields to a buffer.
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// Starts with an empty buffer.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Goes on after what a buffer holds already.
    pub fn onto(bytes: Vec<u8>) -> Encoder {
        Encoder { bytes }
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends eight bytes in two's complement.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// Appends bytes as they are, without a length.
    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends a `u32` length and the bytes.
    pub fn prefixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(length_u32(bytes.len())).put(bytes)
    }

    /// The bytes so far.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// A length as it is written; everything we write is bounded far below 4 GiB by `limits`.
pub fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("lengths are bounded by limits")
}

/// Reads fixed-width little-endian fields from borrowed bytes.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte; `what` names the structure in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { bytes, what }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// An error about this structure.
    pub fn error(&self, problem: &str) -> Error {
        Error::corrupt(format!("cannot decode {}: {problem}", self.what))
    }

    /// Takes the next bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        match self.bytes.split_at_checked(count) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => Err(self.error("it ends early")),
        }
    }

    /// Takes a fixed number of bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take returns as many as asked"))
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Takes two bytes.
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Takes four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Takes eight bytes.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes eight bytes in two's complement.
    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Takes a magic and a `u32` version. Another magic is another structure, another version a newer one.
    pub fn format(&mut self, magic: &[u8; 8], version: u32) -> Result<()> {
        if &self.array::<8>()? != magic {
            let name = String::from_utf8_lossy(magic);
            return Err(self.error(&format!("expected magic `{}`", name.trim_end_matches('\0'))));
        }
        let found = self.u32()?;
        if found != version {
            let message = format!("cannot read {}: version {found} is newer than this program", self.what);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(())
    }

    /// Takes a `u32` count of items that each take at least `item_bytes`, so that a false count is found before
    /// anything is allocated for it.
    pub fn count(&mut self, item_bytes: usize, count_max: usize) -> Result<usize> {
        let count = self.u32()? as usize;
        if count > count_max || count.saturating_mul(item_bytes) > self.remaining() {
            return Err(self.error(&format!("a count of {count} cannot be true")));
        }
        Ok(count)
    }

    /// Takes a `u32` length and that many bytes.
    pub fn prefixed(&mut self, bytes_max: usize) -> Result<&'a [u8]> {
        let length = self.u32()? as usize;
        if length > bytes_max {
            return Err(self.error(&format!("a length of {length} is over the limit of {bytes_max}")));
        }
        self.take(length)
    }

    /// Ends; bytes that are left over are an error.
    pub fn finish(self) -> Result<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.error("bytes are left over")) }
    }
}
