//! A token that speaks for its user at a service.
//!
//! Cannot be printed by mistake: neither `Debug` nor `Display` shows it, and its memory is cleared when it goes. Copies
//! that others made of the bytes before they came here are not reached.

use std::fmt;

use agent_trace_store::{Error, Result};
use zeroize::Zeroizing;

use crate::limits::TOKEN_BYTES_MAX;

const MASK: &str = "********";
/// What a mask shows of the end, and how long a token must be for that.
const SHOWN_BYTES: usize = 4;
const SHOWN_FROM_BYTES: usize = 9;

/// A token, fit for a request header: 1 to `TOKEN_BYTES_MAX` visible ASCII characters.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes a token; white space around it is left out.
    pub fn parse(text: &str) -> Result<Token> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Error::invalid("cannot take the token: it is empty"));
        }
        if text.len() > TOKEN_BYTES_MAX {
            let message = format!("cannot take the token: expected at most {TOKEN_BYTES_MAX} characters");
            return Err(Error::invalid(message));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message =
                "cannot take the token: expected one line of visible ASCII characters without spaces";
            return Err(Error::invalid(message));
        }
        Ok(Token(Zeroizing::new(text.to_owned())))
    }

    /// The token itself, for a header or a file that only its user reads.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What may be shown: the last characters of a long token, nothing of a short one.
    pub fn masked(&self) -> String {
        match self.0.len().checked_sub(SHOWN_BYTES) {
            Some(start) if self.0.len() >= SHOWN_FROM_BYTES => format!("{MASK}...{}", &self.0[start..]),
            _ => MASK.to_owned(),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({MASK})")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fits_a_header_is_taken() {
        for text in ["a", "at_0-9", " at_x\n", "~!\"", &"x".repeat(TOKEN_BYTES_MAX)] {
            assert_eq!(Token::parse(text).unwrap().expose(), text.trim());
        }
        for text in ["", " \n", "a b", "a\nb", "a\u{0}b", "é", "a\u{7f}", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            let error = Token::parse(text).unwrap_err();
            assert!(text.trim().is_empty() || !error.message().contains(text.trim()), "{error}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::parse("at_secretsecretwxyz").unwrap();
        for text in [format!("{token}"), format!("{token:?}"), format!("{:?}", Some(&token)), token.masked()]
        {
            assert!(!text.contains("secret"), "{text}");
        }
        assert_eq!(token.masked(), "********...wxyz");
        assert_eq!(Token::parse("123456789").unwrap().masked(), "********...6789");
        assert_eq!(Token::parse("12345678").unwrap().masked(), "********");
    }
}
