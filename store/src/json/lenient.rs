//! Tells a complete JSON object that the canonical form refuses from what is no JSON at all.
//!
//! RFC 8259 without its three bounds that writers break: a key may stand twice, strings may hold bytes that are no
//! UTF-8, and nesting has no limit but the length of a record. Builds nothing, gives no values and does not recurse.

use crate::limits::RECORD_BYTES_MAX;

/// Whether some bytes, without white space around them, are one complete JSON object by a lenient reading.
pub fn is_lenient_object(bytes: &[u8]) -> bool {
    bytes.len() <= RECORD_BYTES_MAX
        && bytes.first() == Some(&b'{')
        && Pass { bytes, at: 0 }.document().is_some_and(|end| end == bytes.len())
}

/// One pass; `None` where the bytes are not JSON.
struct Pass<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Pass<'_> {
    /// Reads one value, and gives the position after it.
    fn document(&mut self) -> Option<usize> {
        // What closes each container that is open, innermost last.
        let mut open: Vec<u8> = Vec::new();
        loop {
            // Here a value begins.
            match self.peek()? {
                b'{' => {
                    self.at += 1;
                    if self.after_space()? == b'}' {
                        self.at += 1;
                    } else {
                        open.push(b'}');
                        self.key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.at += 1;
                    if self.after_space()? == b']' {
                        self.at += 1;
                    } else {
                        open.push(b']');
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            // Here one has ended, and perhaps what it ends with it.
            loop {
                let Some(close) = open.last() else { return Some(self.at) };
                let next = self.after_space()?;
                self.at += 1;
                if next == *close {
                    open.pop();
                    continue;
                }
                if next != b',' {
                    return None;
                }
                self.after_space()?;
                if *close == b'}' {
                    self.key()?;
                }
                break;
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Passes over white space; the byte after it.
    fn after_space(&mut self) -> Option<u8> {
        while matches!(self.peek()?, b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.peek()
    }

    /// Passes over a key, its colon and the white space after both.
    fn key(&mut self) -> Option<()> {
        self.string()?;
        if self.after_space()? != b':' {
            return None;
        }
        self.at += 1;
        self.after_space().map(drop)
    }

    fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    fn literal(&mut self, word: &[u8]) -> Option<()> {
        self.bytes[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn string(&mut self) -> Option<()> {
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => {
                    let escape = self.peek()?;
                    self.at += 1;
                    match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let digits = self.bytes.get(self.at..self.at + 4)?;
                            if !digits.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            self.at += 4;
                        }
                        _ => return None,
                    }
                }
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        self.pass(b"-");
        if !self.pass(b"0") {
            self.digits()?;
        }
        if self.pass(b".") {
            self.digits()?;
        }
        if self.pass(b"eE") {
            self.pass(b"+-");
            self.digits()?;
        }
        Some(())
    }

    /// Passes over one of these bytes, if one comes next.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        let passed = self.peek().is_some_and(|byte| bytes.contains(&byte));
        self.at += usize::from(passed);
        passed
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::canonicalize;
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: bool) {
        assert_eq!(is_lenient_object(bytes), expected, "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn what_only_the_canonical_form_refuses_is_an_object() {
        check(br#"{"a":1,"a":2}"#, true);
        check(b"{\"a\":\"\xff\",\"\xc0\":[]}", true);
        for depth in [1, 128, 129, 100_000] {
            check(format!("{}1{}", "{\"a\":[".repeat(depth), "]}".repeat(depth)).as_bytes(), true);
            check(format!("{}1{}", "{\"a\":[".repeat(depth), "}]".repeat(depth)).as_bytes(), false);
            check(format!("{}1{}", "{\"a\":[".repeat(depth), "]}".repeat(depth - 1)).as_bytes(), false);
        }
    }

    #[test]
    fn what_is_no_json_is_none() {
        for text in [
            "",
            " {}",
            "{",
            "}",
            "[]",
            "1",
            "\"a\"",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\":tru}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u00g0\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":[1,]}",
            "{\"a\":1}x",
            "{\"a\":1}{}",
            "{a:1}",
            "{\"a\":[1}]",
        ] {
            check(text.as_bytes(), false);
        }
        check(b"{\"a\":\xff}", false);
        check(&vec![b'{'; RECORD_BYTES_MAX + 1], false);
    }

    proptest! {
        /// Bytes of which most are JSON, so that both answers come up.
        #[test]
        fn what_is_json_is_json_by_a_lenient_reading(text in r#"\{("(a|b|\\u0041|\\n)":( ?[\[\]{},:0-9tru"ae.-]{1,6}|1|"x"|\[\]|\{\}|-0\.5e\+1),?){0,3}\}"#) {
            let strict = canonicalize(text.as_bytes(), &mut Vec::new());
            let lenient = is_lenient_object(text.as_bytes());
            match strict {
                Ok(()) => prop_assert!(lenient, "{text}"),
                Err(error) => prop_assert!(!lenient || error.reason == "duplicate key", "{text}"),
            }
        }
    }
}
