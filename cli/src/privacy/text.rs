//! What text says once its escapes are taken away, and where each byte of it came from.
//!
//! In JSON a line break is the two characters `\n`, and `n` is a letter: a rule that wants a word's border before a
//! secret never matches the raw bytes. So escapes are decoded in place; what stands outside strings stays.

use std::ops::Range;

/// Where the bytes of a decoded text stood: places from which on both go in step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    /// Of the decoded text and of its source, both rising.
    steps: Vec<(u32, u32)>,
}

impl Map {
    /// Says that the byte at `to` stood at `from`, and those after it behind that.
    pub(crate) fn step(&mut self, to: usize, from: usize) {
        self.steps.push((place(to), place(from)));
    }

    /// Where a byte stood.
    pub(crate) fn source(&self, at: usize) -> usize {
        let number = self.steps.partition_point(|(to, _)| *to as usize <= at);
        match number.checked_sub(1).map(|number| self.steps[number]) {
            Some((to, from)) => from as usize + (at - to as usize),
            None => at,
        }
    }

    /// The parts of the source that a range came from; what stood between them was left out.
    pub(crate) fn parts(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let number = self.steps.partition_point(|(to, _)| *to as usize <= at);
            let end = self.steps.get(number).map_or(range.end, |(to, _)| (*to as usize).min(range.end));
            let from = self.source(at);
            parts.push(from..from + (end - at));
            at = end;
        }
        parts
    }

    fn clear(&mut self) {
        self.steps.clear();
    }
}

/// Pieces are far smaller.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Decodes the escapes of JSON strings, once; what is no escape stays.
pub(crate) fn unescape(raw: &[u8], out: &mut Vec<u8>, map: &mut Map) {
    out.clear();
    map.clear();
    out.reserve(raw.len());
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &raw[at..]) {
        out.extend_from_slice(&raw[at..at + found]);
        at += found;
        let Some(letter) = raw.get(at + 1) else { break };
        let plain = match letter {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'"' | b'\\' | b'/' => *letter,
            b'u' => {
                match unicode(&raw[at..]) {
                    Some((letter, used)) => {
                        out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                        at += used;
                    }
                    None => {
                        out.extend_from_slice(b"\\u");
                        at += 2;
                    }
                }
                map.step(out.len(), at);
                continue;
            }
            other => {
                out.extend_from_slice(&[b'\\', *other]);
                at += 2;
                continue;
            }
        };
        out.push(plain);
        at += 2;
        map.step(out.len(), at);
    }
    out.extend_from_slice(&raw[at..]);
}

/// A character written as `\uXXXX`, or as two of them, and how long it is written.
fn unicode(raw: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| -> Option<u32> {
        let digits = raw.get(at..at + 6)?;
        let text = std::str::from_utf8(digits.strip_prefix(b"\\u")?).ok()?;
        text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok())?
    };
    let first = unit(0)?;
    if let Some(letter) = char::from_u32(first) {
        return Some((letter, 6));
    }
    let second = unit(6).filter(|second| (0xdc00..0xe000).contains(second) && first < 0xdc00);
    match second {
        Some(second) => {
            char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).map(|it| (it, 12))
        }
        // A half of a pair stands for nothing.
        None => Some(('\u{fffd}', 6)),
    }
}

/// Decodes `%2F` and the like.
pub(crate) fn unpercent(raw: &[u8], out: &mut Vec<u8>, map: &mut Map) {
    out.clear();
    map.clear();
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'%', &raw[at..]) {
        out.extend_from_slice(&raw[at..at + found]);
        at += found;
        let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
        match (digit(raw.get(at + 1)), digit(raw.get(at + 2))) {
            (Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
                map.step(out.len(), at);
            }
            _ => {
                out.push(b'%');
                at += 1;
            }
        }
    }
    out.extend_from_slice(&raw[at..]);
}

/// Decodes base64 of either alphabet, up to the first character that is of neither; a rest of one character is left out.
pub(crate) fn unbase64(chars: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut bits = 0u32;
    let mut count = 0;
    for char in chars {
        let value = match char {
            b'A'..=b'Z' => char - b'A',
            b'a'..=b'z' => char - b'a' + 26,
            b'0'..=b'9' => char - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(raw: &str) -> (String, Map) {
        let (mut out, mut map) = (Vec::new(), Map::default());
        unescape(raw.as_bytes(), &mut out, &mut map);
        (String::from_utf8(out).unwrap(), map)
    }

    #[test]
    fn escapes_are_decoded_and_what_is_none_stays() {
        for (raw, plain) in [
            (r#"a\nb"#, "a\nb"),
            (r#"\"\\\/\t"#, "\"\\/\t"),
            (r"\u0041\u00e9", "Aé"),
            (r"\ud83d\ude00", "😀"),
            (r"\ud83dx", "\u{fffd}x"),
            (r"\ude00", "\u{fffd}"),
            (r"\u12", r"\u12"),
            (r"\q", r"\q"),
            (r"end\", r"end\"),
            ("", ""),
        ] {
            assert_eq!(unescaped(raw).0, plain, "{raw}");
        }
    }

    #[test]
    fn every_byte_knows_where_it_stood() {
        let raw = r#"ab\ncd\u0041ef"#;
        let (plain, map) = unescaped(raw);
        assert_eq!(plain, "ab\ncdAef");
        let places: Vec<usize> = (0..=plain.len()).map(|at| map.source(at)).collect();
        assert_eq!(places, [0, 1, 2, 4, 5, 6, 12, 13, 14]);
        assert_eq!(map.parts(1..7), [1..3, 4..7, 12..13]);
    }

    #[test]
    fn percent_and_base64_are_decoded() {
        let (mut out, mut map) = (Vec::new(), Map::default());
        unpercent(b"a%2Fb%zz%4", &mut out, &mut map);
        assert_eq!(out, b"a/b%zz%4");
        assert_eq!(map.source(2), 4);
        unbase64(b"aGVsbG8gd29ybGQ=", &mut out);
        assert_eq!(out, b"hello world");
        unbase64(b"-_-_", &mut out);
        assert_eq!(out, [0xfb, 0xff, 0xbf]);
    }
}
