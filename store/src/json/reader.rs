//! Single fields out of canonical JSON, without building a tree.
//!
//! Made for bytes that [`canonicalize`](super::canonicalize) wrote. It does not validate: on any other bytes it
//! errs or gives nonsense, but it never panics and never recurses, and every step that gives a value moves on.

use std::borrow::Cow;

use super::{JsonError, decode_string, fail, plain_end};

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number, `true`, `false` or `null`.
    Token,
}

/// Walks over canonical bytes and takes out what the caller asks for.
///
/// The methods that take a value of one shape skip a value of any other shape and say so, which is how odd
/// records are tolerated. After each key or item the caller takes or skips exactly one value.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts before the value that these bytes are.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// The shape of the value that comes next; nothing where none can start.
    pub fn shape(&self) -> Option<Shape> {
        match self.bytes.get(self.at)? {
            b'{' => Some(Shape::Object),
            b'[' => Some(Shape::Array),
            b'"' => Some(Shape::String),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => Some(Shape::Token),
            _ => None,
        }
    }

    /// Goes into an object, so that [`Reader::next_key`] gives its members; skips any other value.
    pub fn enter_object(&mut self) -> Result<bool, JsonError> {
        self.enter(Shape::Object)
    }

    /// Goes into an array, so that [`Reader::next_item`] leads to its items; skips any other value.
    pub fn enter_array(&mut self) -> Result<bool, JsonError> {
        self.enter(Shape::Array)
    }

    fn enter(&mut self, wanted: Shape) -> Result<bool, JsonError> {
        if self.shape() == Some(wanted) {
            self.at += 1;
            return Ok(true);
        }
        self.skip()?;
        Ok(false)
    }

    /// Leads to the next member's value and gives its key's spelling; leaves the object after the last.
    ///
    /// One key has one spelling in canonical form, so keys can be compared as they stand.
    pub fn next_key(&mut self) -> Result<Option<&'a [u8]>, JsonError> {
        if !self.next_in(b'}')? {
            return Ok(None);
        }
        if self.byte() != b'"' {
            return fail(self.at, "expected a key");
        }
        let key = self.spelling()?;
        if self.byte() != b':' {
            return fail(self.at, "expected `:` after the key");
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Leads to the next item; leaves the array after the last and gives false.
    pub fn next_item(&mut self) -> Result<bool, JsonError> {
        self.next_in(b']')
    }

    fn next_in(&mut self, close: u8) -> Result<bool, JsonError> {
        match self.byte() {
            b',' => self.at += 1,
            byte if byte == close => {
                self.at += 1;
                return Ok(false);
            }
            _ if self.at >= self.bytes.len() => return fail(self.at, "container without an end"),
            _ => {}
        }
        Ok(true)
    }

    /// Takes a string, decoded, with U+FFFD for lone surrogates; skips any other value and gives nothing.
    pub fn string(&mut self) -> Result<Option<Cow<'a, str>>, JsonError> {
        if self.byte() == b'"' {
            return Ok(Some(decode_string(self.spelling()?)));
        }
        self.skip()?;
        Ok(None)
    }

    /// Takes a number or literal as it stands; skips any other value and gives nothing.
    pub fn token(&mut self) -> Result<Option<&'a str>, JsonError> {
        let is_token = self.shape() == Some(Shape::Token);
        let raw = self.skip()?;
        Ok(if is_token { std::str::from_utf8(raw).ok() } else { None })
    }

    /// Passes over the next value and gives its bytes.
    pub fn skip(&mut self) -> Result<&'a [u8], JsonError> {
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match self.byte() {
                b'"' => {
                    self.spelling()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => self.pass_token(),
                _ => return fail(self.at, "expected a value"),
            }
            if depth == 0 {
                return Ok(&self.bytes[start..self.at]);
            }
        }
    }

    /// Checks that nothing is left.
    pub fn finish(&self) -> Result<(), JsonError> {
        if self.at < self.bytes.len() { fail(self.at, "expected the end after the value") } else { Ok(()) }
    }

    fn pass_token(&mut self) {
        while matches!(self.byte(), b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') {
            self.at += 1;
        }
    }

    /// Passes over a string and gives what stands between its quotes.
    #[inline]
    fn spelling(&mut self) -> Result<&'a [u8], JsonError> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            at = plain_end(self.bytes, at);
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => at += 2,
                _ => return fail(at.min(self.bytes.len()), "string without an end"),
            }
        }
        self.at = at + 1;
        Ok(&self.bytes[start..at])
    }

    #[inline]
    fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_and_items_are_led_to() {
        let mut reader = Reader::new(br#"{"a":[1,"x",{"b":null}],"c":{},"d":[],"e":-1.5e3}"#);
        assert!(reader.enter_object().unwrap());
        assert_eq!(reader.next_key().unwrap(), Some(&b"a"[..]));
        assert!(reader.enter_array().unwrap());
        assert!(reader.next_item().unwrap());
        assert_eq!(reader.token().unwrap(), Some("1"));
        assert!(reader.next_item().unwrap());
        assert_eq!(reader.string().unwrap().as_deref(), Some("x"));
        assert!(reader.next_item().unwrap());
        assert_eq!(reader.shape(), Some(Shape::Object));
        assert_eq!(reader.skip().unwrap(), br#"{"b":null}"#);
        assert!(!reader.next_item().unwrap());
        assert_eq!(reader.next_key().unwrap(), Some(&b"c"[..]));
        assert!(reader.enter_object().unwrap());
        assert_eq!(reader.next_key().unwrap(), None);
        assert_eq!(reader.next_key().unwrap(), Some(&b"d"[..]));
        assert!(reader.enter_array().unwrap());
        assert!(!reader.next_item().unwrap());
        assert_eq!(reader.next_key().unwrap(), Some(&b"e"[..]));
        assert!(reader.finish().is_err());
        assert_eq!(reader.token().unwrap(), Some("-1.5e3"));
        assert_eq!(reader.next_key().unwrap(), None);
        reader.finish().unwrap();
    }

    #[test]
    fn values_of_another_shape_are_passed_over() {
        for value in [r#""s""#, "1", "null", "{}", r#"{"a":[]}"#, "[]", r#"[{"\"]":"}"}]"#] {
            let shape = Reader::new(value.as_bytes()).shape();
            let check = |took: bool, wanted: Shape, reader: Reader<'_>| {
                assert_eq!(took, shape == Some(wanted), "{value}");
                if !took {
                    reader.finish().unwrap();
                }
            };
            let mut reader = Reader::new(value.as_bytes());
            check(reader.enter_object().unwrap(), Shape::Object, reader);
            let mut reader = Reader::new(value.as_bytes());
            check(reader.enter_array().unwrap(), Shape::Array, reader);
            let mut reader = Reader::new(value.as_bytes());
            check(reader.string().unwrap().is_some(), Shape::String, reader);
            let mut reader = Reader::new(value.as_bytes());
            check(reader.token().unwrap().is_some(), Shape::Token, reader);
        }
    }

    #[test]
    fn strings_are_decoded() {
        let check = |spelling: &str, expected: &str| {
            let bytes = format!("\"{spelling}\"");
            assert_eq!(
                Reader::new(bytes.as_bytes()).string().unwrap().as_deref(),
                Some(expected),
                "{spelling}"
            );
        };
        check("", "");
        check("plain é", "plain é");
        check(r#"a\"\\\n\u0001b"#, "a\"\\\n\u{1}b");
        check(r"\\", "\\");
        check(r"\ud83dx\ude00", "\u{fffd}x\u{fffd}");
        check(r"\q", "\u{fffd}q");
    }

    #[test]
    fn plain_strings_are_borrowed() {
        assert!(matches!(Reader::new(br#""plain""#).string(), Ok(Some(Cow::Borrowed("plain")))));
    }

    #[test]
    fn what_breaks_off_is_an_error() {
        for text in
            ["", "{", "[", "[1", "[1,", "\"", "\"a", "\"a\\", "\"a\\\"", "{\"a", "{\"a\":", ",", "}", " 1"]
        {
            assert!(Reader::new(text.as_bytes()).skip().is_err(), "{text}");
        }
        let mut reader = Reader::new(b"{1:2}");
        assert!(reader.enter_object().unwrap());
        assert!(reader.next_key().is_err());
    }

    #[test]
    fn deep_nesting_is_passed_over() {
        let mut bytes = vec![b'['; 1_000_000];
        assert!(Reader::new(&bytes).skip().is_err());
        bytes.extend(vec![b']'; 1_000_000]);
        assert_eq!(Reader::new(&bytes).skip().unwrap().len(), bytes.len());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                "[\\[\\]{},:\"\\\\u0-9a-f]{0,64}".prop_map(String::into_bytes),
            ],
            steps in prop::collection::vec(0u8..8, 0..64),
        ) {
            let mut reader = Reader::new(&bytes);
            for step in steps {
                match step {
                    0 => drop(reader.enter_object()),
                    1 => drop(reader.enter_array()),
                    2 => drop(reader.next_key()),
                    3 => drop(reader.next_item()),
                    4 => drop(reader.string()),
                    5 => drop(reader.token()),
                    6 => drop(reader.skip()),
                    _ => drop(reader.finish()),
                }
            }
        }
    }
}
