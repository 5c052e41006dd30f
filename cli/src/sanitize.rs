//! Text from elsewhere, made harmless for a terminal: what is stored was written by others.
//!
//! Control characters, escape sequences, bidirectional controls and invisible characters are shown as `\u{..}`.
//! Bytes that go into a file or a pipe by `cat` do not pass here.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Makes one line of it: line breaks and tabs are shown too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape(text, is_harmful)
}

/// Makes it harmless, and leaves line breaks and tabs as they are.
pub(crate) fn block(text: &str) -> Cow<'_, str> {
    escape(text, |char| is_harmful(char) && char != '\n' && char != '\t')
}

/// Makes JSON text harmless without changing what it means: such characters stand in strings only.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for char in text.chars() {
        if is_harmful(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(char);
        }
    }
    Cow::Owned(out)
}

fn escape(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for char in text.chars() {
        if harmful(char) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(char));
        } else {
            out.push(char);
        }
    }
    Cow::Owned(out)
}

fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_passes() {
        for number in 0..=0x10_ffff {
            let Some(char) = char::from_u32(number) else { continue };
            let text = format!("a{char}b");
            assert!(!line(&text).chars().any(is_harmful), "{number:x}");
            assert!(!block(&text).chars().any(|c| is_harmful(c) && c != '\n' && c != '\t'), "{number:x}");
        }
    }

    #[test]
    fn harmful_characters_are_named() {
        let check = |text: &str, expected: &str| assert_eq!(line(text), expected);
        check("plain é 漢 👩‍💻", "plain é 漢 👩‍💻");
        check("\u{1b}]52;c;AA\u{7}", "\\u{1b}]52;c;AA\\u{7}");
        check("a\nb\tc", "a\\u{a}b\\u{9}c");
        check("x\u{202e}y\u{9b}z", "x\\u{202e}y\\u{9b}z");
        assert_eq!(block("a\nb\r"), "a\nb\\u{d}");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = serde_json::to_string("a\u{1b}\u{7f}\u{9b}\u{202e}\u{e0041}é").unwrap();
        let safe = json(&text);
        assert!(safe.chars().all(|char| !is_harmful(char)), "{safe}");
        let back: String = serde_json::from_str(&safe).unwrap();
        assert_eq!(back, "a\u{1b}\u{7f}\u{9b}\u{202e}\u{e0041}é");
    }
}
