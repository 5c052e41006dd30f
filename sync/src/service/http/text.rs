//! Bytes that come in parts, as text and as base64.

use agent_trace_store::Result as StoreResult;

/// Takes characters out of parts that may be cut within one.
#[derive(Debug, Default)]
pub(super) struct Characters {
    /// The start of a character whose rest comes with the next part.
    carry: Vec<u8>,
    is_broken: bool,
}

impl Characters {
    /// Hands over the whole characters that there are by now. After bytes that are no text there are none.
    pub(super) fn push(
        &mut self,
        part: &[u8],
        each: &mut dyn FnMut(&str) -> StoreResult<()>,
    ) -> StoreResult<()> {
        let mut rest = part;
        while !self.carry.is_empty() && !self.is_broken {
            let Some((first, after)) = rest.split_first() else { return Ok(()) };
            self.carry.push(*first);
            rest = after;
            match std::str::from_utf8(&self.carry) {
                Ok(text) => {
                    each(text)?;
                    self.carry.clear();
                }
                Err(error) if error.error_len().is_none() => {}
                Err(_) => self.is_broken = true,
            }
        }
        if self.is_broken {
            return Ok(());
        }
        match std::str::from_utf8(rest) {
            Ok(text) => each(text),
            Err(error) => {
                let (text, tail) = rest.split_at(error.valid_up_to());
                self.is_broken = error.error_len().is_some();
                self.carry = tail.get(..4.min(tail.len())).unwrap_or_default().to_vec();
                each(std::str::from_utf8(text).expect("it is valid up to here"))
            }
        }
    }

    /// Whether all of it was text.
    pub(super) fn is_text(&self) -> bool {
        !self.is_broken && self.carry.is_empty()
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes base64 with padding.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    carry: Vec<u8>,
}

impl Base64 {
    /// All of some bytes.
    pub(super) fn of(bytes: &[u8]) -> String {
        let mut encoder = Base64::default();
        let mut text = encoder.push(bytes);
        text.push_str(&encoder.end());
        text
    }

    /// The digits that are known by now.
    pub(super) fn push(&mut self, part: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.carry);
        bytes.extend_from_slice(part);
        let whole = bytes.len() / 3 * 3;
        self.carry = bytes.split_off(whole);
        let mut text = String::with_capacity(whole / 3 * 4);
        bytes.chunks_exact(3).for_each(|three| digits(three, &mut text));
        text
    }

    /// The last digits.
    pub(super) fn end(&mut self) -> String {
        let mut text = String::new();
        if !self.carry.is_empty() {
            digits(&self.carry, &mut text);
            self.carry.clear();
        }
        text
    }
}

/// The four digits of one to three bytes.
fn digits(bytes: &[u8], text: &mut String) {
    let byte = |at: usize| u32::from(bytes.get(at).copied().unwrap_or(0));
    let all = byte(0) << 16 | byte(1) << 8 | byte(2);
    for at in 0..4 {
        let digit = DIGITS[(all >> (18 - 6 * at) & 63) as usize];
        text.push(if at <= bytes.len() { char::from(digit) } else { '=' });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_known_values() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(Base64::of(bytes.as_bytes()), text);
        }
        assert_eq!(Base64::of(&[0xff, 0xfe, 0xfd]), "//79");
        let mut encoder = Base64::default();
        let parts: String = [&b"f"[..], b"oob", b"a"].iter().map(|part| encoder.push(part)).collect();
        assert_eq!(parts + &encoder.end(), "Zm9vYmE=");
    }

    #[test]
    fn characters_survive_every_cut() {
        let text = "aé\u{2028}\u{1f600}z";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let (mut characters, mut found) = (Characters::default(), String::new());
                let bytes = text.as_bytes();
                for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                    characters
                        .push(part, &mut |text| {
                            found.push_str(text);
                            Ok(())
                        })
                        .unwrap();
                }
                assert_eq!(found, text);
                assert!(characters.is_text());
            }
        }
    }

    #[test]
    fn what_is_no_text_is_seen() {
        for parts in [&[&b"a\xff"[..], b"b"][..], &[b"\xc3", b"a"], &[b"ok\xf0\x9f"], &[b"\xed\xa0\x80"]] {
            let mut characters = Characters::default();
            for part in parts {
                characters.push(part, &mut |_| Ok(())).unwrap();
            }
            assert!(!characters.is_text(), "{parts:?}");
        }
    }
}
