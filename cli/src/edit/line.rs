//! Lines of a file as attribution sees them: two hashes and how much they say.
//!
//! A line ends at a line feed; a carriage return before it is no part of it, so that a file with Windows line ends and
//! the text that an agent wrote into it have the same lines. Knows nothing of files, agents or git.

use imara_diff::IndentLevel;
use sha2::{Digest, Sha256};

/// A line: what it holds, what it holds without white space, and how much that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The first eight bytes of the SHA-256 of its bytes.
    pub(crate) strict: u64,
    /// A hash of its bytes without white space: the same before and after a re-indent.
    pub(crate) loose: u64,
    /// Letters and digits in it; more than 255 count as 255. Nothing is known of it where only hashes are.
    pub(crate) weight: u8,
    /// How far it is indented.
    pub(crate) indent: IndentLevel,
}

/// The SHA-256 of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineHash([u8; 32]);

impl LineHash {
    /// The hash of a line's bytes, which have no line end.
    pub(crate) fn of(line: &[u8]) -> LineHash {
        LineHash(Sha256::digest(line).into())
    }

    /// Reads one as records spell it: `sha256:`, or nothing, and 64 hex digits.
    pub(crate) fn parse(text: &str) -> Option<LineHash> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut bytes = [0; 32];
        agent_trace_store::id::decode_hex(digits, &mut bytes).then_some(LineHash(bytes))
    }

    /// As records spell it.
    pub(crate) fn text(&self) -> String {
        format!("sha256:{}", agent_trace_store::id::encode_hex(&self.0))
    }

    /// What [`Line::strict`] holds.
    pub(crate) fn short(&self) -> u64 {
        u64::from_be_bytes(*self.0.first_chunk().expect("a hash is longer"))
    }
}

impl Line {
    /// Looks at a line's bytes, which have no line end.
    pub(crate) fn of(line: &[u8]) -> Line {
        let indent = IndentLevel::for_ascii_line(line.iter().copied(), 8);
        Line { strict: LineHash::of(line).short(), loose: loose(line), weight: weight(line), indent }
    }

    /// A line of which only the hashes are known.
    pub(crate) fn of_hashes(strict: u64, loose: u64) -> Line {
        Line { strict, loose, weight: 0, indent: IndentLevel::for_ascii_line(*b"x", 8) }
    }
}

/// A hash of the bytes that are no white space.
pub(crate) fn loose(line: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        hasher.update(word);
    }
    u64::from_be_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash is longer"))
}

fn weight(line: &[u8]) -> u8 {
    let count = line.iter().filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii()).count();
    u8::try_from(count).unwrap_or(u8::MAX)
}

/// The lines of a file, without their ends; nothing after the last line feed is no line.
pub(crate) fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let none = bytes.is_empty();
    whole
        .split(|byte| *byte == b'\n')
        .filter(move |_| !none)
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Looks at all lines of a file.
pub(crate) fn lines(bytes: &[u8]) -> Vec<Line> {
    split(bytes).map(Line::of).collect()
}

/// Whether this is no text: a NUL in the first 8,000 bytes, as git has it.
pub(crate) fn is_binary(bytes: &[u8]) -> bool {
    memchr::memchr(0, &bytes[..bytes.len().min(8_000)]).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_a_line_feed_with_or_without_a_carriage_return() {
        let check = |bytes: &[u8], expected: &[&[u8]]| {
            assert_eq!(split(bytes).collect::<Vec<_>>(), expected);
        };
        check(b"", &[]);
        check(b"\n", &[b""]);
        check(b"a", &[b"a"]);
        check(b"a\n", &[b"a"]);
        check(b"a\n\n", &[b"a", b""]);
        check(b"a\r\nb\r\n", &[b"a", b"b"]);
        check(b"a\rb\n", &[b"a\rb"]);
    }

    #[test]
    fn white_space_changes_only_the_strict_hash() {
        let (one, two) = (Line::of(b"\tif a {"), Line::of(b"        if  a {"));
        assert_ne!(one.strict, two.strict);
        assert_eq!((one.loose, one.weight), (two.loose, two.weight));
        assert_eq!(one.weight, 3);
        assert_ne!(one.loose, Line::of(b"if b {").loose);
    }

    #[test]
    fn hashes_are_read_in_both_spellings() {
        let hash = LineHash::of(b"x");
        let text = hash.text();
        assert_eq!(LineHash::parse(&text), Some(hash));
        assert_eq!(LineHash::parse(&text[7..]), Some(hash));
        for bad in ["", "sha256:", "sha1:00", &text[..70], &format!("{text}0")] {
            assert_eq!(LineHash::parse(bad), None, "{bad}");
        }
    }
}
