//! JSON in canonical form: one spelling for one value, so that the same fact has the same id.
//!
//! [`Canonicalizer`] parses strictly (RFC 8259, without duplicate keys, invalid UTF-8 or a byte order mark,
//! within the depth and size of `limits`) and writes keys sorted by the UTF-8 bytes of the decoded key, the
//! shortest escapes and no white space. Number tokens stay as they are, byte for byte, since no program may
//! round what another has recorded. The canonical form is never longer than the input, is its own canonical
//! form, and is the same for every order of keys, spelling of escapes and white space.
//!
//! Builds no tree, converts no number and knows nothing about records. [`Reader`] takes single fields out of
//! canonical bytes.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;

use crate::id::{encode_hex, hex_value};
use crate::limits::{JSON_DEPTH_MAX, RECORD_BYTES_MAX};

mod lenient;
mod reader;

pub use lenient::is_lenient_object;
pub use reader::{Reader, Shape};

/// Why some bytes are not JSON as this crate takes it, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The offset of the first byte that does not fit.
    pub offset: usize,
    /// What was wrong there.
    pub reason: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason, self.offset)
    }
}

impl StdError for JsonError {}

/// Appends the canonical form of one JSON value to `out`.
///
/// On an error `out` is as it was. Bulk work keeps a [`Canonicalizer`] instead, for its buffers.
pub fn canonicalize(input: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
    Canonicalizer::new().canonicalize(input, out)
}

/// Brings JSON values into canonical form, one after the other, and keeps its buffers between them.
#[derive(Debug, Default)]
pub struct Canonicalizer {
    /// The members read so far of every object that is open, innermost last.
    members: Vec<Member>,
    /// Decoded keys of those members whose spelling has escapes.
    decoded: Vec<u8>,
    /// The members of one object while they are put in order.
    sorted: Vec<u8>,
}

/// One member of an object that is being read.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// Where the decoded key stands: in `decoded` if its spelling has escapes, else in the input.
    key_start: usize,
    key_end: usize,
    key_escaped: bool,
    /// Where the key's spelling starts in the input, for errors.
    offset: usize,
    /// Where key and value stand in the output.
    start: usize,
    end: usize,
}

impl Canonicalizer {
    /// Makes one with empty buffers.
    pub fn new() -> Canonicalizer {
        Canonicalizer::default()
    }

    /// Appends the canonical form of one JSON value to `out`; on an error `out` is as it was.
    pub fn canonicalize(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
        if input.len() > RECORD_BYTES_MAX {
            return Err(JsonError { offset: RECORD_BYTES_MAX, reason: "value longer than a record may be" });
        }
        if let Err(error) = std::str::from_utf8(input) {
            return Err(JsonError { offset: error.valid_up_to(), reason: "invalid UTF-8" });
        }
        self.members.clear();
        self.decoded.clear();
        let out_start = out.len();
        out.reserve(input.len() + SHORT_RUN);
        let mut pass = Pass { input, copied: 0, out, buffers: self };
        let result = pass.document();
        if result.is_err() {
            out.truncate(out_start);
        }
        result
    }
}

/// Runs up to this length are copied with a fixed size, which needs no call.
const SHORT_RUN: usize = 32;

/// One pass over one input.
///
/// Input that is canonical already is only looked at, and copied in one piece at the end: `copied` says how
/// far `out` has it. Only what must be spelled differently breaks that run.
struct Pass<'a> {
    input: &'a [u8],
    copied: usize,
    out: &'a mut Vec<u8>,
    buffers: &'a mut Canonicalizer,
}

impl Pass<'_> {
    fn document(&mut self) -> Result<(), JsonError> {
        if self.input.starts_with("\u{feff}".as_bytes()) {
            return fail(0, "byte order mark");
        }
        let at = self.skip_space(0);
        let at = self.value(at, 0)?;
        let at = self.skip_space(at);
        if at != self.input.len() {
            return fail(at, "expected the end after the value");
        }
        self.copy_to(at);
        Ok(())
    }

    /// Reads the value that starts at `at`, inside `depth` containers, and gives the position after it.
    fn value(&mut self, at: usize, depth: usize) -> Result<usize, JsonError> {
        match self.byte(at) {
            b'"' => Ok(self.string(at + 1)?.0),
            b'{' => self.object(at, depth),
            b'[' => self.array(at, depth),
            b'-' | b'0'..=b'9' => self.number(at),
            b't' => self.literal(at, b"true"),
            b'f' => self.literal(at, b"false"),
            b'n' => self.literal(at, b"null"),
            _ => fail(at, "expected a value"),
        }
    }

    fn object(&mut self, open: usize, depth: usize) -> Result<usize, JsonError> {
        if depth == JSON_DEPTH_MAX {
            return fail(open, "nested too deeply");
        }
        let members_start = self.buffers.members.len();
        let decoded_start = self.buffers.decoded.len();
        let mut in_order = true;
        let mut at = self.skip_space(open + 1);
        if self.byte(at) == b'}' {
            return Ok(at + 1);
        }
        loop {
            if self.byte(at) != b'"' {
                return fail(at, "expected a key");
            }
            let start = self.position(at);
            let (key_end, escaped) = self.string(at + 1)?;
            in_order &= self.push_member(members_start, at + 1..key_end - 1, escaped, start);
            at = self.skip_space(key_end);
            if self.byte(at) != b':' {
                return fail(at, "expected `:` after the key");
            }
            at = self.skip_space(at + 1);
            at = self.value(at, depth + 1)?;
            let end = self.position(at);
            self.buffers.members.last_mut().expect("a member was just pushed").end = end;
            at = self.skip_space(at);
            match self.byte(at) {
                b',' => at = self.skip_space(at + 1),
                b'}' => break,
                _ => return fail(at, "expected `,` or `}` after the member"),
            }
        }
        if !in_order {
            self.copy_to(at);
            self.sort_members(members_start)?;
        }
        self.buffers.members.truncate(members_start);
        self.buffers.decoded.truncate(decoded_start);
        Ok(at + 1)
    }

    /// Remembers a member by its key and says whether it comes after the one before it.
    #[inline]
    fn push_member(
        &mut self,
        members_start: usize,
        spelling: Range<usize>,
        key_escaped: bool,
        start: usize,
    ) -> bool {
        let offset = spelling.start;
        let key = if key_escaped { self.decode_key(spelling) } else { spelling };
        let member =
            Member { key_start: key.start, key_end: key.end, key_escaped, offset, start, end: start };
        // Keys that all come after the one before are sorted, and none of them is there twice.
        let in_order = match self.buffers.members.get(members_start..) {
            Some([.., last]) => self.key(last) < self.key(&member),
            _ => true,
        };
        self.buffers.members.push(member);
        in_order
    }

    /// Appends the decoded form of a key, with lone surrogates as in WTF-8, to the decoded keys.
    #[cold]
    fn decode_key(&mut self, spelling: Range<usize>) -> Range<usize> {
        let decoded = &mut self.buffers.decoded;
        let start = decoded.len();
        for piece in Pieces(&self.input[spelling]) {
            match piece {
                Piece::Plain(bytes) => decoded.extend_from_slice(bytes),
                Piece::Escape(Escaped::Char(meant)) => {
                    decoded.extend_from_slice(meant.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Piece::Escape(Escaped::Surrogate(unit)) => {
                    let [high, low] = unit.to_be_bytes();
                    decoded.extend_from_slice(&[
                        0xe0 | high >> 4,
                        0x80 | (high & 0x0f) << 2 | low >> 6,
                        0x80 | low & 0x3f,
                    ]);
                }
            }
        }
        start..decoded.len()
    }

    #[inline]
    fn key(&self, member: &Member) -> &[u8] {
        key_of(self.input, &self.buffers.decoded, member)
    }

    /// Puts the members of the object that ends `out` in the order of their keys, and finds duplicates.
    fn sort_members(&mut self, members_start: usize) -> Result<(), JsonError> {
        let Canonicalizer { members, decoded, sorted } = &mut *self.buffers;
        let members = &mut members[members_start..];
        let start = members[0].start;
        members.sort_unstable_by(|one, other| {
            key_of(self.input, decoded, one).cmp(key_of(self.input, decoded, other))
        });
        for pair in members.windows(2) {
            if key_of(self.input, decoded, &pair[0]) == key_of(self.input, decoded, &pair[1]) {
                return fail(pair[0].offset.max(pair[1].offset), "duplicate key");
            }
        }
        sorted.clear();
        sorted.reserve(self.out.len() - start + SHORT_RUN);
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                sorted.push(b',');
            }
            append_run(self.out, member.start, member.end, sorted);
        }
        assert_eq!(sorted.len(), self.out.len() - start, "sorting members neither adds nor drops a byte");
        self.out[start..].copy_from_slice(sorted);
        Ok(())
    }

    fn array(&mut self, open: usize, depth: usize) -> Result<usize, JsonError> {
        if depth == JSON_DEPTH_MAX {
            return fail(open, "nested too deeply");
        }
        let mut at = self.skip_space(open + 1);
        if self.byte(at) == b']' {
            return Ok(at + 1);
        }
        loop {
            at = self.value(at, depth + 1)?;
            at = self.skip_space(at);
            match self.byte(at) {
                b',' => at = self.skip_space(at + 1),
                b']' => return Ok(at + 1),
                _ => return fail(at, "expected `,` or `]` after the item"),
            }
        }
    }

    /// Reads a string from after its opening quote; gives the position after the closing one, and whether
    /// it has escapes.
    #[inline]
    fn string(&mut self, start: usize) -> Result<(usize, bool), JsonError> {
        let at = plain_end(self.input, start);
        if self.byte(at) == b'"' { Ok((at + 1, false)) } else { Ok((self.string_rest(at)?, true)) }
    }

    fn string_rest(&mut self, mut at: usize) -> Result<usize, JsonError> {
        loop {
            match self.byte(at) {
                b'"' => return Ok(at + 1),
                b'\\' => at = self.escape(at)?,
                _ if at == self.input.len() => return fail(at, "string without an end"),
                _ => return fail(at, "control character in a string"),
            }
            at = plain_end(self.input, at);
        }
    }

    /// Reads the escape at `at`, and writes it anew where there is a shorter one.
    fn escape(&mut self, at: usize) -> Result<usize, JsonError> {
        match self.byte(at + 1) {
            b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 2),
            b'/' => {
                self.copy_to(at);
                self.copied = at + 1;
                Ok(at + 2)
            }
            _ => {
                let Some((piece, end)) = read_escape(self.input, at) else {
                    return fail(at, "unknown escape");
                };
                self.copy_to(at);
                self.copied = end;
                match piece {
                    Escaped::Char(decoded) => write_char(decoded, self.out),
                    Escaped::Surrogate(unit) => write_unit(unit, self.out),
                }
                Ok(end)
            }
        }
    }

    #[inline]
    fn number(&mut self, start: usize) -> Result<usize, JsonError> {
        let mut at = if self.byte(start) == b'-' { start + 1 } else { start };
        at = if self.byte(at) == b'0' { at + 1 } else { self.digits(at)? };
        if self.byte(at) == b'.' {
            at = self.digits(at + 1)?;
        }
        if matches!(self.byte(at), b'e' | b'E') {
            let signed = matches!(self.byte(at + 1), b'+' | b'-');
            at = self.digits(if signed { at + 2 } else { at + 1 })?;
        }
        Ok(at)
    }

    /// Reads one digit or more.
    #[inline]
    fn digits(&self, start: usize) -> Result<usize, JsonError> {
        let mut at = start;
        while self.byte(at).is_ascii_digit() {
            at += 1;
        }
        if at == start { fail(at, "expected a digit") } else { Ok(at) }
    }

    #[inline]
    fn literal(&mut self, at: usize, word: &[u8]) -> Result<usize, JsonError> {
        if self.input[at..].starts_with(word) { Ok(at + word.len()) } else { fail(at, "expected a value") }
    }

    /// The byte at a position; zero, which no token starts with, at the end.
    #[inline]
    fn byte(&self, at: usize) -> u8 {
        self.input.get(at).copied().unwrap_or(0)
    }

    /// Where in the output the byte at an input position will stand.
    #[inline]
    fn position(&self, at: usize) -> usize {
        self.out.len() + (at - self.copied)
    }

    /// Leaves white space out, if there is any here, and gives the position after it.
    #[inline]
    fn skip_space(&mut self, at: usize) -> usize {
        if self.byte(at) > b' ' {
            return at;
        }
        let mut end = at;
        while matches!(self.byte(end), b' ' | b'\n' | b'\r' | b'\t') {
            end += 1;
        }
        if end != at {
            self.copy_to(at);
            self.copied = end;
        }
        end
    }

    /// Brings `out` up to an input position.
    #[inline]
    fn copy_to(&mut self, at: usize) {
        append_run(self.input, self.copied, at, self.out);
        self.copied = at;
    }
}

#[cold]
fn fail<T>(offset: usize, reason: &'static str) -> Result<T, JsonError> {
    Err(JsonError { offset, reason })
}

#[inline]
fn key_of<'a>(input: &'a [u8], decoded: &'a [u8], member: &Member) -> &'a [u8] {
    let bytes = if member.key_escaped { decoded } else { input };
    &bytes[member.key_start..member.key_end]
}

/// Appends `bytes[start..end]`; most runs are short, and a copy of fixed size is several times faster.
#[inline]
fn append_run(bytes: &[u8], start: usize, end: usize, out: &mut Vec<u8>) {
    let run = &bytes[start..];
    let length = end - start;
    match run.first_chunk::<SHORT_RUN>() {
        Some(chunk) if length <= SHORT_RUN => {
            let out_length = out.len() + length;
            out.extend_from_slice(chunk);
            out.truncate(out_length);
        }
        _ => out.extend_from_slice(&run[..length]),
    }
}

/// The position of the first quote, backslash or control character from `at` on, or the end.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    // Keys and short values end within the first eight bytes; hashes and texts go on in wider steps.
    if let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let stops = stops_in(u64::from_le_bytes(*chunk));
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<WIDE>()) {
        // Written so that the compiler makes vector instructions of it.
        let is_plain = |byte: &u8| (*byte != b'"') & (*byte != b'\\') & (*byte >= 0x20);
        if !chunk.iter().fold(true, |plain, byte| plain & is_plain(byte)) {
            break;
        }
        at += WIDE;
    }
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let stops = stops_in(u64::from_le_bytes(*chunk));
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        at += 1;
    }
    at
}

/// Bytes that are looked at together in a long text.
const WIDE: usize = 32;

/// Sets the highest bit of the first byte of eight that ends a plain run; bits above that one mean nothing.
#[inline]
fn stops_in(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5c);
    // Subtracting borrows into a byte's highest bit where the byte was smaller, and not before.
    (quote.wrapping_sub(ONES) & !quote
        | backslash.wrapping_sub(ONES) & !backslash
        | word.wrapping_sub(ONES * 0x20) & !word)
        & (ONES * 0x80)
}

/// What an escape stands for.
enum Escaped {
    Char(char),
    /// Half of a surrogate pair whose other half is not beside it.
    Surrogate(u16),
}

/// Decodes the escape whose backslash stands at `at`; gives the position after it, or nothing if it is none.
fn read_escape(bytes: &[u8], at: usize) -> Option<(Escaped, usize)> {
    let simple = match *bytes.get(at + 1)? {
        byte @ (b'"' | b'\\' | b'/') => char::from(byte),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let unit = read_unit(bytes, at)?;
            let next = if matches!(unit, 0xd800..=0xdbff) { read_unit(bytes, at + 6) } else { None };
            // A high half with anything but a low half after it stays alone.
            let units = [unit, next.unwrap_or(0)];
            return match char::decode_utf16(units).next()? {
                Ok(decoded) => Some((Escaped::Char(decoded), at + 6 * decoded.len_utf16())),
                Err(alone) => Some((Escaped::Surrogate(alone.unpaired_surrogate()), at + 6)),
            };
        }
        _ => return None,
    };
    Some((Escaped::Char(simple), at + 2))
}

/// Reads `\uXXXX` at `at`.
fn read_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let [b'\\', b'u', digits @ ..] = bytes.get(at..at + 6)? else { return None };
    digits.iter().try_fold(0, |unit: u16, digit| Some(unit << 4 | u16::from(hex_value(*digit)?)))
}

/// Cuts the spelling of a string into plain runs and escapes; what is no escape stands for U+FFFD.
struct Pieces<'a>(&'a [u8]);

enum Piece<'a> {
    Plain(&'a [u8]),
    Escape(Escaped),
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if *self.0.first()? == b'\\' {
            let (escaped, length) =
                read_escape(self.0, 0).unwrap_or((Escaped::Char(char::REPLACEMENT_CHARACTER), 1));
            self.0 = &self.0[length..];
            return Some(Piece::Escape(escaped));
        }
        let length = memchr::memchr(b'\\', self.0).unwrap_or(self.0.len());
        let (plain, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(Piece::Plain(plain))
    }
}

/// Appends a string in canonical form, quotes included.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut start = 0;
    loop {
        let end = plain_end(bytes, start);
        out.extend_from_slice(&bytes[start..end]);
        let Some(byte) = bytes.get(end) else { break };
        write_char(char::from(*byte), out);
        start = end + 1;
    }
    out.push(b'"');
}

/// Appends one character of a string in its shortest spelling.
fn write_char(written: char, out: &mut Vec<u8>) {
    let short = match written {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\0'..='\u{1f}' => {
            return write_unit(u16::try_from(u32::from(written)).expect("a control character fits"), out);
        }
        _ => return out.extend_from_slice(written.encode_utf8(&mut [0; 4]).as_bytes()),
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends `\u` and four lower-case hex digits.
fn write_unit(unit: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u");
    out.extend_from_slice(encode_hex(&unit.to_be_bytes()).as_bytes());
}

/// Decodes the spelling of a string, with U+FFFD for what has no character.
pub fn decode_string(spelling: &[u8]) -> Cow<'_, str> {
    if memchr::memchr(b'\\', spelling).is_none() {
        return String::from_utf8_lossy(spelling);
    }
    let mut text = String::with_capacity(spelling.len());
    for piece in Pieces(spelling) {
        match piece {
            Piece::Plain(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
            Piece::Escape(Escaped::Char(meant)) => text.push(meant),
            Piece::Escape(Escaped::Surrogate(_)) => text.push(char::REPLACEMENT_CHARACTER),
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    fn canonical(input: &[u8]) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::new();
        canonicalize(input, &mut out).map(|()| out)
    }

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let out = canonical(input.as_bytes()).unwrap_or_else(|error| panic!("{input}: {error}"));
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{input}");
        assert_eq!(canonical(expected.as_bytes()).unwrap(), expected.as_bytes(), "{expected}");
    }

    #[track_caller]
    fn check_refused(input: impl AsRef<[u8]>, offset: usize, reason: &'static str) {
        let input = input.as_ref();
        let shown = String::from_utf8_lossy(&input[..input.len().min(80)]);
        let mut out = b"before".to_vec();
        assert_eq!(canonicalize(input, &mut out), Err(JsonError { offset, reason }), "{shown}");
        assert_eq!(out, b"before", "{shown}");
    }

    #[test]
    fn white_space_goes() {
        check(" { \"a\" :\t[ 1 ,\r\n2 , { } , [ ] ] }\n", r#"{"a":[1,2,{},[]]}"#);
        check("\t1 ", "1");
        check("\"  in  strings stays \"", "\"  in  strings stays \"");
    }

    #[test]
    fn keys_are_sorted_by_their_decoded_bytes() {
        check(r#"{"b":1,"a":2}"#, r#"{"a":2,"b":1}"#);
        check(
            r#"{"b":{"z":1,"y":{"q":0,"p":[{"n":1,"m":2}]}},"a":2}"#,
            r#"{"a":2,"b":{"y":{"p":[{"m":2,"n":1}],"q":0},"z":1}}"#,
        );
        check(r#"{"aa":1,"a":2,"":3,"B":4}"#, r#"{"":3,"B":4,"a":2,"aa":1}"#);
        check(r#"{"\u0062":1,"a":2}"#, r#"{"a":2,"b":1}"#);
        // In their spelling `\n` comes after `A`, decoded it comes before.
        check(r#"{"A":1,"\n":2}"#, r#"{"\n":2,"A":1}"#);
        check(r##"{"#":1,"\"":2}"##, r##"{"\"":2,"#":1}"##);
        // UTF-16 order would have U+10000 before U+FFFD.
        check(
            "{\"\u{10000}\":1,\"\u{fffd}\":2,\"é\":3,\"z\":4}",
            "{\"z\":4,\"é\":3,\"\u{fffd}\":2,\"\u{10000}\":1}",
        );
        // A lone surrogate has its place in WTF-8: after U+D7FF, before U+E000.
        check(
            "{\"\u{e000}\":1,\"\\uDC00\":2,\"\\uD800\":3,\"\u{d7ff}\":4}",
            "{\"\u{d7ff}\":4,\"\\ud800\":3,\"\\udc00\":2,\"\u{e000}\":1}",
        );
    }

    #[test]
    fn every_lone_surrogate_has_its_place() {
        let keys = (0xd800..0xe000u32).map(|unit| format!("\"\\u{unit:04x}\":0"));
        let sorted = keys.clone().collect::<Vec<_>>().join(",");
        let reversed = keys.rev().collect::<Vec<_>>().join(",");
        check(&format!("{{{reversed},\"\u{d7ff}\":0}}"), &format!("{{\"\u{d7ff}\":0,{sorted}}}"));
    }

    #[test]
    fn strings_have_the_shortest_escapes() {
        check(r#""\"\\\/\b\f\n\r\t""#, r#""\"\\/\b\f\n\r\t""#);
        check(r#""\u0022\u005c\u002f\u0008\u000c\u000a\u000D\u0009""#, r#""\"\\/\b\f\n\r\t""#);
        check(r#""\u0000\u001F\u000b\u007f\u0020""#, "\"\\u0000\\u001f\\u000b\u{7f} \"");
        check(r#""\u00e9\u20AC\u2028\ud83D\uDE00é""#, "\"é€\u{2028}😀é\"");
        check(r#""a/b\/c""#, r#""a/b/c""#);
        check("\"\u{85}\u{2029}\u{feff}\u{10ffff}\"", "\"\u{85}\u{2029}\u{feff}\u{10ffff}\"");
    }

    #[test]
    fn lone_surrogates_stay_escaped() {
        check(r#""\uD83D""#, r#""\ud83d""#);
        check(r#""\uDE00\uD83D""#, r#""\ude00\ud83d""#);
        check(r#""\uD83Dx\uDE00""#, r#""\ud83dx\ude00""#);
        check(r#""\uD83D\n\uDE00""#, r#""\ud83d\n\ude00""#);
        check(r#""\uD83D\uD83D\uDE00""#, r#""\ud83d😀""#);
        check(r#""\uD83D\u0041""#, r#""\ud83dA""#);
    }

    #[test]
    fn numbers_stay_as_they_are() {
        for token in [
            "0",
            "-0",
            "10",
            "1.0",
            "1.10",
            "1e5",
            "1E+05",
            "-1.5e-3",
            "0e0",
            "0.0",
            "123456789012345678901234567890",
            "1e999",
            "0.1000000000000000055511151231257827",
        ] {
            check(token, token);
            check(&format!(" [ {token} ] "), &format!("[{token}]"));
        }
        for literal in ["true", "false", "null"] {
            check(literal, literal);
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        check_refused("01", 1, "expected the end after the value");
        check_refused("[-]", 2, "expected a digit");
        check_refused("-01", 2, "expected the end after the value");
        check_refused("1.", 2, "expected a digit");
        check_refused("1.e1", 2, "expected a digit");
        check_refused("1e", 2, "expected a digit");
        check_refused("1e+", 3, "expected a digit");
        check_refused(".5", 0, "expected a value");
        check_refused("+1", 0, "expected a value");
        check_refused("0x1", 1, "expected the end after the value");
        check_refused("NaN", 0, "expected a value");
        check_refused("-Infinity", 1, "expected a digit");
    }

    #[test]
    fn broken_syntax_is_refused() {
        for input in [
            "",
            " ",
            "{",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{a:1}",
            "{1:1}",
            "{'a':1}",
            "]",
            "}",
            "[1}",
            "{\"a\":1]",
            "tru",
            "nulL",
            "True",
            "\"",
            "\"a",
            "\"\\",
            "\"\\\"",
            "\"\\u12",
            "\"\\u12g4\"",
            "\"\\x\"",
            "\"\\U0041\"",
            "\"a\nb\"",
            "\"a\0b\"",
            "\"\u{1f}\"",
            "[\"12345678\u{1f}\"]",
            "\u{b}1",
            "\u{a0}1",
            "// c\n1",
            "1 2",
            "{}{}",
            "[] x",
            "null\0",
            "\u{feff}1",
            "\"a\"\u{feff}",
        ] {
            assert!(canonical(input.as_bytes()).is_err(), "{input:?}");
        }
        check_refused("\u{feff}{}", 0, "byte order mark");
        check_refused("{} {}", 3, "expected the end after the value");
        check_refused("{\"b\":1,\"a\" 1}", 11, "expected `:` after the key");
        check_refused("[\"\\u0041\\q\"]", 8, "unknown escape");
        check_refused("\"\\u0041\u{1}\"", 7, "control character in a string");
        check_refused("\"\\u0041", 7, "string without an end");
    }

    #[test]
    fn duplicate_keys_are_refused() {
        check_refused(r#"{"a":1,"a":2}"#, 8, "duplicate key");
        check_refused(r#"{"a":1,"b":2,"a":3}"#, 14, "duplicate key");
        check_refused(r#"{"a":1,"\u0061":2}"#, 8, "duplicate key");
        check_refused(r#"{"\/":1,"b":0,"/":2}"#, 15, "duplicate key");
        check_refused(r#"{"\ud800":1,"\uD800":2}"#, 13, "duplicate key");
        check_refused("{\"\\ud83d\\ude00\":1,\"x\":0,\"😀\":2}", 25, "duplicate key");
        check_refused(r#"[{"x":{"":1,"":2}}]"#, 13, "duplicate key");
        // The decoded form of a lone surrogate is nobody else's.
        check("{\"\u{fffd}\":1,\"\\ud800\":2}", "{\"\\ud800\":2,\"\u{fffd}\":1}");
        check(r#"{"a":{"a":1},"b":{"a":1}}"#, r#"{"a":{"a":1},"b":{"a":1}}"#);
    }

    #[test]
    fn invalid_utf8_is_refused() {
        check_refused(b"\"a\xff\"", 2, "invalid UTF-8");
        check_refused(b"\"\xed\xa0\x80\"", 1, "invalid UTF-8");
        check_refused(b"\"\xc0\x80\"", 1, "invalid UTF-8");
        check_refused(b"\"\xe2\x82", 1, "invalid UTF-8");
        check_refused(b"1\x80", 1, "invalid UTF-8");
    }

    #[test]
    fn nesting_is_bounded() {
        let arrays = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = |depth: usize| format!("{}1{}", "{\"b\":0,\"a\":".repeat(depth), "}".repeat(depth));
        let sorted = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), ",\"b\":0}".repeat(depth));
        for depth in [1, JSON_DEPTH_MAX - 1, JSON_DEPTH_MAX] {
            check(&arrays(depth), &arrays(depth));
            check(&objects(depth), &sorted(depth));
        }
        check_refused(arrays(JSON_DEPTH_MAX + 1), JSON_DEPTH_MAX, "nested too deeply");
        check_refused("[".repeat(1_000_000), JSON_DEPTH_MAX, "nested too deeply");
        let offset = "{\"b\":0,\"a\":".len() * JSON_DEPTH_MAX;
        check_refused(objects(JSON_DEPTH_MAX + 1), offset, "nested too deeply");
        let many = format!("[{}]", vec!["[]"; 1000].join(","));
        check(&many, &many);
    }

    #[test]
    fn length_is_bounded() {
        for length in [RECORD_BYTES_MAX - 1, RECORD_BYTES_MAX] {
            let text = format!("\"{}\"", "x".repeat(length - 2));
            assert_eq!(canonical(text.as_bytes()).unwrap(), text.as_bytes());
        }
        let text = format!("\"{}\"", "x".repeat(RECORD_BYTES_MAX - 1));
        check_refused(text, RECORD_BYTES_MAX, "value longer than a record may be");
        let spaces = format!("1{}", " ".repeat(RECORD_BYTES_MAX));
        check_refused(spaces, RECORD_BYTES_MAX, "value longer than a record may be");
    }

    #[test]
    fn every_length_of_string_is_taken() {
        for length in 0usize..70 {
            for stop in ["", "\\n", "\\u0041", "é"] {
                let text = format!("k{}{stop}{}", "x".repeat(length), "y".repeat(length));
                let expected = text.replace("\\u0041", "A");
                check(
                    &format!("{{ \"{text}\" : \"{text}\", \"\":0}}"),
                    &format!("{{\"\":0,\"{expected}\":\"{expected}\"}}"),
                );
            }
            check_refused(
                format!("\"{}\u{1f}\"", "x".repeat(length)),
                length + 1,
                "control character in a string",
            );
        }
    }

    #[test]
    fn one_canonicalizer_serves_many_values() {
        let mut canonicalizer = Canonicalizer::new();
        let mut out = Vec::new();
        for (input, result) in [
            (r#"{"b":{"\u0061":1"#, false),
            (r#"{"b":1,"a":{"\u0064":1,"c":2}}"#, true),
            (r#"{"b":1,"a":2,"b":3}"#, false),
            (r#" [2, 1]"#, true),
        ] {
            assert_eq!(canonicalizer.canonicalize(input.as_bytes(), &mut out).is_ok(), result, "{input}");
        }
        assert_eq!(out, br#"{"a":{"c":2,"d":1},"b":1}[2,1]"#);
    }

    #[test]
    fn written_strings_are_canonical() {
        let text: String = ('\0'..'\u{300}').chain("\"\\/\u{2028}😀".chars()).collect();
        for text in ["", "a", "\"", "\n\n", "12345678\"", &text] {
            let mut out = Vec::new();
            write_string(text, &mut out);
            assert_eq!(canonical(&out).unwrap(), out);
            assert_eq!(decode_string(&out[1..out.len() - 1]), text);
        }
    }

    /// A value as it is meant; strings are UTF-16 units, so that lone surrogates occur.
    #[derive(Clone, Debug)]
    enum Model {
        Token(String),
        Text(Vec<u16>),
        Array(Vec<Model>),
        Object(BTreeMap<Vec<u16>, Model>),
    }

    fn texts() -> impl Strategy<Value = Vec<u16>> {
        let unit = prop_oneof![
            4 => 0x61u16..0x64,
            2 => 0u16..0x80,
            1 => prop::sample::select(vec![0x22, 0x5c, 0x2f, 0x0a, 0x1f, 0x7f]),
            1 => 0xd7fe_u16..0xe002,
            1 => prop::sample::select(vec![0xd83d, 0xde00, 0xd800, 0xdfff]),
            1 => any::<u16>(),
        ];
        prop::collection::vec(unit, 0..12)
    }

    fn models() -> impl Strategy<Value = Model> {
        let leaf = prop_oneof![
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?".prop_map(Model::Token),
            prop::sample::select(vec!["true", "false", "null"])
                .prop_map(|word| Model::Token(word.to_owned())),
            texts().prop_map(Model::Text),
        ];
        leaf.prop_recursive(5, 40, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Model::Array),
                prop::collection::btree_map(texts(), inner, 0..8).prop_map(Model::Object),
            ]
        })
    }

    /// Makes the choices of one rendering out of a few bytes.
    struct Choices(u64);

    impl Choices {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }

        fn space(&mut self) -> &'static str {
            ["", "", "", " ", "\n", " \t\r\n  "][usize::try_from(self.below(6)).unwrap()]
        }

        fn text(&mut self, units: &[u16]) -> String {
            let mut out = String::from("\"");
            for decoded in char::decode_utf16(units.iter().copied()) {
                let raw = decoded.as_ref().is_ok_and(|decoded| *decoded >= ' ' && !"\"\\".contains(*decoded));
                match decoded {
                    Ok(decoded) if raw && self.below(3) > 0 => out.push(decoded),
                    Ok(decoded) => {
                        let short = "\"\"\\\\//b\u{8}f\u{c}n\nr\rt\t";
                        let short = short.chars().zip(short.chars().skip(1)).step_by(2);
                        let short =
                            short.filter(|(_, meant)| *meant == decoded).map(|(short, _)| short).next();
                        match short {
                            Some(short) if self.below(2) == 0 => out.extend(['\\', short]),
                            _ => decoded
                                .encode_utf16(&mut [0; 2])
                                .iter()
                                .for_each(|unit| self.unit(*unit, &mut out)),
                        }
                    }
                    Err(alone) => self.unit(alone.unpaired_surrogate(), &mut out),
                }
            }
            out + "\""
        }

        fn unit(&mut self, unit: u16, out: &mut String) {
            let upper = self.below(2) == 0;
            out.push_str(&if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") });
        }

        fn value(&mut self, model: &Model, out: &mut String) {
            out.push_str(self.space());
            match model {
                Model::Token(token) => out.push_str(token),
                Model::Text(units) => out.push_str(&self.text(units)),
                Model::Array(items) => {
                    out.push('[');
                    for (index, item) in items.iter().enumerate() {
                        out.push_str(if index > 0 { "," } else { "" });
                        self.value(item, out);
                    }
                    out.push_str(self.space());
                    out.push(']');
                }
                Model::Object(members) => {
                    let mut members: Vec<_> = members.iter().collect();
                    for end in (1..members.len()).rev() {
                        let other = usize::try_from(self.below(end as u64 + 1)).unwrap();
                        members.swap(end, other);
                    }
                    out.push('{');
                    for (index, (key, value)) in members.into_iter().enumerate() {
                        out.push_str(if index > 0 { "," } else { "" });
                        out.push_str(self.space());
                        out.push_str(&self.text(key));
                        out.push_str(self.space());
                        out.push(':');
                        self.value(value, out);
                    }
                    out.push_str(self.space());
                    out.push('}');
                }
            }
            out.push_str(self.space());
        }
    }

    /// The canonical form, written the slow and obvious way.
    fn render_canonical(model: &Model) -> String {
        let code_points = |units: &[u16]| -> Vec<u32> {
            char::decode_utf16(units.iter().copied())
                .map(|decoded| decoded.map_or_else(|alone| alone.unpaired_surrogate().into(), u32::from))
                .collect()
        };
        let text = |units: &[u16]| -> String {
            let spell = |code: u32| match char::from_u32(code) {
                Some('"') => "\\\"".to_owned(),
                Some('\\') => "\\\\".to_owned(),
                Some('\u{8}') => "\\b".to_owned(),
                Some('\u{c}') => "\\f".to_owned(),
                Some('\n') => "\\n".to_owned(),
                Some('\r') => "\\r".to_owned(),
                Some('\t') => "\\t".to_owned(),
                Some(decoded) if decoded >= ' ' => decoded.to_string(),
                _ => format!("\\u{code:04x}"),
            };
            format!("\"{}\"", code_points(units).into_iter().map(spell).collect::<String>())
        };
        match model {
            Model::Token(token) => token.clone(),
            Model::Text(units) => text(units),
            Model::Array(items) => {
                format!("[{}]", items.iter().map(render_canonical).collect::<Vec<_>>().join(","))
            }
            Model::Object(members) => {
                // The order of WTF-8 bytes is the order of code points.
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by_key(|(key, _)| code_points(key));
                let member =
                    |(key, value): (&Vec<u16>, &Model)| format!("{}:{}", text(key), render_canonical(value));
                format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
            }
        }
    }

    proptest! {
        #[test]
        fn every_spelling_of_a_value_has_one_form(model in models(), seeds in prop::array::uniform3(any::<u64>())) {
            let expected = render_canonical(&model);
            for seed in seeds {
                let mut spelled = String::new();
                Choices(seed).value(&model, &mut spelled);
                let out = canonical(spelled.as_bytes()).map_err(|error| TestCaseError::fail(format!("{error}: {spelled}")))?;
                prop_assert_eq!(std::str::from_utf8(&out).unwrap(), &expected, "{}", spelled);
                prop_assert!(out.len() <= spelled.len());
            }
            prop_assert_eq!(canonical(expected.as_bytes()).unwrap(), expected.as_bytes());
            prop_assert_eq!(Reader::new(expected.as_bytes()).skip().unwrap(), expected.as_bytes());
        }

        #[test]
        fn no_bytes_panic(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[\\[\\]{},: \"\\\\u0-9a-fnrt.e+-]{0,64}".prop_map(String::into_bytes),
        ]) {
            let mut out = Vec::new();
            if canonicalize(&bytes, &mut out).is_ok() {
                prop_assert_eq!(canonical(&out).unwrap(), out.clone());
                Reader::new(&out).skip().unwrap();
            } else {
                prop_assert!(out.is_empty());
            }
            let _ = decode_string(&bytes);
        }

        #[test]
        fn any_damage_is_refused_or_has_a_form(model in models(), seed: u64, at: prop::sample::Index, byte: u8) {
            let mut spelled = String::new();
            Choices(seed).value(&model, &mut spelled);
            let mut bytes = spelled.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(out) = canonical(&bytes) {
                prop_assert_eq!(canonical(&out).unwrap(), out);
            }
        }

        #[test]
        fn any_text_comes_back(text in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            let mut out = Vec::new();
            write_string(&text, &mut out);
            prop_assert_eq!(canonical(&out).unwrap(), out.clone());
            prop_assert_eq!(Reader::new(&out).string().unwrap().unwrap(), text);
        }
    }
}
