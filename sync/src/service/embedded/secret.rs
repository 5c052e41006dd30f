//! Secrets that the service gives out: how they are written, made and kept.
//!
//! ```text
//! token           at_<id: 16 hex digits>_<43 of 0-9A-Za-z: 256 random bits>_<6: CRC-32 of all before the last _>
//! admin's secret  at_admin_<43>_<6>, or whatever its owner chose
//! ```
//!
//! The checksum lets a scanner know a leaked one without asking anybody. Only hashes are kept, keyed by the *pepper*, 32
//! random bytes beside the database, so that neither of the two alone tells whether a guess is right. 256 random bits
//! need no slow hash. Hashes are compared in constant time.

use agent_trace_store::env::Entropy;
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, Result};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::service::grant::TokenId;
use crate::token::Token;

/// Bytes of the pepper.
pub(super) const PEPPER_BYTES: usize = 32;
const PREFIX: &str = "at_";
const ADMIN_PREFIX: &str = "at_admin";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const SECRET_DIGITS: usize = 43;
const CHECK_DIGITS: usize = 6;
const TOKEN_CHARS: usize = PREFIX.len() + 2 * ID_BYTES + 1 + SECRET_DIGITS + 1 + CHECK_DIGITS;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The hash of a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Hash(pub(super) [u8; 32]);

/// Not shown, since it is half of what an attacker wants.
impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash")
    }
}

impl Hash {
    /// Compares without telling by its time where two differ.
    pub(super) fn is(&self, other: &Hash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// The key of all hashes of one service.
pub(super) struct Pepper(Zeroizing<[u8; PEPPER_BYTES]>);

impl Pepper {
    /// Takes the bytes of its file.
    pub(super) fn new(bytes: &[u8]) -> Option<Pepper> {
        bytes.try_into().ok().map(|bytes| Pepper(Zeroizing::new(bytes)))
    }

    /// Hashes a token.
    pub(super) fn token(&self, secret: &str) -> Hash {
        self.hash(b"token", secret.as_bytes())
    }

    /// Hashes the admin's secret.
    pub(super) fn admin(&self, secret: &str) -> Hash {
        self.hash(b"admin", secret.as_bytes())
    }

    /// What tells one pepper from another.
    pub(super) fn check(&self) -> Hash {
        self.hash(b"check", b"")
    }

    fn hash(&self, what: &[u8; 5], secret: &[u8]) -> Hash {
        Hash(*blake3::Hasher::new_keyed(&self.0).update(what).update(secret).finalize().as_bytes())
    }
}

/// The secret that makes organisations, projects and tokens.
#[derive(Clone, Debug)]
pub struct AdminSecret(Token);

impl AdminSecret {
    /// Takes a secret that its owner chose.
    pub fn parse(text: &str) -> Result<AdminSecret> {
        let taken = Token::parse(text).map_err(|error| error.context("cannot take the admin's secret"))?;
        Ok(AdminSecret(taken))
    }

    /// Makes one.
    pub fn generate(entropy: &dyn Entropy) -> AdminSecret {
        AdminSecret(checked(&Zeroizing::new(format!("{ADMIN_PREFIX}_{}", &*random(entropy)))))
    }

    /// The secret itself, to be shown once.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Makes a token.
pub(super) fn generate(entropy: &dyn Entropy) -> (TokenId, Token) {
    let mut id = [0; ID_BYTES];
    entropy.fill(&mut id);
    let id = encode_hex(&id);
    let text = Zeroizing::new(format!("{PREFIX}{id}_{}", &*random(entropy)));
    (TokenId::new(&id), checked(&text))
}

/// What may be shown of a token: its id, as the token begins.
pub(super) fn prefix(id: &TokenId) -> String {
    format!("{PREFIX}{}", id.as_str())
}

/// The id of a token that is written as ours are; any other text has none.
pub(super) fn id_of(secret: &str) -> Option<TokenId> {
    if secret.len() != TOKEN_CHARS || !secret.is_ascii() {
        return None;
    }
    let (text, check) = secret.rsplit_once('_')?;
    let (id, random) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits = id.len() == 2 * ID_BYTES
        && id.bytes().all(is_hex)
        && random.len() == SECRET_DIGITS
        && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && check == checksum(text);
    fits.then(|| TokenId::new(id))
}

/// 256 random bits in base 62.
fn random(entropy: &dyn Entropy) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    entropy.fill(bytes.as_mut());
    Zeroizing::new(base62(*bytes, SECRET_DIGITS))
}

fn checked(text: &str) -> Token {
    let text = Zeroizing::new(format!("{text}_{}", checksum(text)));
    Token::parse(&text).expect("letters, digits and `_` make a token")
}

fn checksum(text: &str) -> String {
    let mut bytes = [0; SECRET_BYTES];
    bytes[SECRET_BYTES - 4..].copy_from_slice(&crc32(text.as_bytes()).to_be_bytes());
    base62(bytes, CHECK_DIGITS)
}

/// Writes a big-endian number with that many digits, the last ones of it.
fn base62(mut number: [u8; SECRET_BYTES], digits: usize) -> String {
    let mut text = vec![b'0'; digits];
    for digit in text.iter_mut().rev() {
        let mut rest = 0;
        for byte in &mut number {
            let value = (rest << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("the rest is below the divisor");
            rest = value % 62;
        }
        *digit = DIGITS[rest as usize];
    }
    String::from_utf8(text).expect("digits are ASCII")
}

/// CRC-32 as in zip and gzip, which every scanner has.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// An error that says which pepper was expected.
pub(super) fn other_pepper(path: &std::path::Path) -> Error {
    Error::corrupt(format!(
        "cannot check tokens: `{}` is not the file that they were made with; restore it from a backup",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Seeded(std::sync::Mutex<u64>);

    impl Entropy for Seeded {
        fn fill(&self, buffer: &mut [u8]) {
            let mut seed = self.0.lock().unwrap();
            for byte in buffer {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (*seed >> 56) as u8;
            }
        }
    }

    fn token(seed: u64) -> (TokenId, Token) {
        generate(&Seeded(std::sync::Mutex::new(seed)))
    }

    #[test]
    fn checksums_are_those_that_others_compute() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
        // 0xcbf43926 is 3421780262: 3, 45, 35, 27, 22, 14 in base 62.
        assert_eq!(checksum("123456789"), "3jZRME");
    }

    #[test]
    fn numbers_fill_their_digits() {
        assert_eq!(base62([0; 32], 3), "000");
        let mut number = [0; 32];
        number[30..].copy_from_slice(&3_843u16.to_be_bytes());
        assert_eq!(base62(number, 3), "0zz");
        number[30..].copy_from_slice(&3_844u16.to_be_bytes());
        assert_eq!(base62(number, 3), "100");
        // The largest of 256 bits needs all 43.
        assert!(!base62([0xff; 32], SECRET_DIGITS).starts_with('0'));
        assert!(base62([0xff; 32], SECRET_DIGITS + 1).starts_with('0'));
    }

    #[test]
    fn hashes_differ_by_pepper_and_by_use() {
        let (one, two) = (Pepper::new(&[1; 32]).unwrap(), Pepper::new(&[2; 32]).unwrap());
        assert!(one.token("x").is(&one.token("x")));
        assert!(!one.token("x").is(&two.token("x")));
        assert!(!one.token("x").is(&one.admin("x")));
        assert!(!one.token("").is(&one.check()));
        assert!(Pepper::new(&[1; 31]).is_none());
    }

    #[test]
    fn the_secret_of_an_admin_is_no_token() {
        let secret = AdminSecret::generate(&Seeded(std::sync::Mutex::new(1)));
        assert!(secret.expose().starts_with("at_admin_"));
        assert_eq!(id_of(secret.expose()), None);
        assert!(!format!("{secret:?}").contains(&secret.expose()[9..20]));
        assert!(AdminSecret::parse("of my choice").is_err());
        assert_eq!(AdminSecret::parse(" chosen\n").unwrap().expose(), "chosen");
    }

    proptest! {
        #[test]
        fn tokens_come_back(seed: u64) {
            let (id, token) = token(seed);
            prop_assert_eq!(token.expose().len(), TOKEN_CHARS);
            prop_assert!(token.expose().starts_with(&prefix(&id)));
            prop_assert_eq!(id_of(token.expose()), Some(id));
        }

        #[test]
        fn a_changed_token_is_none(seed: u64, at in 0..TOKEN_CHARS, byte in 0x20u8..0x7f) {
            let (_, token) = token(seed);
            let mut changed = token.expose().as_bytes().to_vec();
            prop_assume!(changed[at] != byte);
            changed[at] = byte;
            prop_assert_eq!(id_of(std::str::from_utf8(&changed).unwrap()), None);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,100}", at in 0..70usize) {
            prop_assert_eq!(id_of(&text), None);
            let (_, token) = token(1);
            id_of(&token.expose()[..at]);
            id_of(&token.expose()[at..]);
        }
    }
}
