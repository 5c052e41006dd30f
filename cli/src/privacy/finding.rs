//! A secret as it may be spoken of: its rule, its fingerprint, and a hint that gives nothing away.

use agent_trace_store::id::encode_hex;

use super::class::Class;
use super::rules::Rule;

/// Bytes of a fingerprint; 16 hex digits are enough to tell the secrets of one machine apart.
pub(crate) const FINGERPRINT_BYTES: usize = 8;
/// What a hint shows of a secret that begins with a prefix everybody knows.
const HINT_BYTES: usize = 4;
/// How long a secret must be for that.
const HINTED_BYTES_MIN: usize = 20;

/// What is kept of a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) rule: String,
    pub(crate) class: Class,
    /// The same for the same secret, wherever it stands; see [`FingerprintKey`].
    pub(crate) fingerprint: String,
    /// A few letters of a prefix, and the length.
    pub(crate) hint: String,
}

/// The key of all fingerprints of one home.
///
/// Without it a fingerprint would tell whoever sees one whether a guess is right, and many passwords can be guessed.
#[derive(Clone)]
pub(crate) struct FingerprintKey([u8; 32]);

/// Not shown.
impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FingerprintKey")
    }
}

impl FingerprintKey {
    /// Takes the bytes of its file.
    pub(crate) fn new(bytes: [u8; 32]) -> FingerprintKey {
        FingerprintKey(bytes)
    }

    /// What tells one key from another, and nothing else.
    pub(crate) fn check(&self) -> String {
        self.hash(b"check\0", &[])
    }

    /// The fingerprint of a secret.
    pub(crate) fn fingerprint(&self, secret: &[u8]) -> String {
        self.hash(b"secret\0", secret)
    }

    fn hash(&self, what: &[u8], bytes: &[u8]) -> String {
        let hash = blake3::Hasher::new_keyed(&self.0).update(what).update(bytes).finalize();
        encode_hex(&hash.as_bytes()[..FINGERPRINT_BYTES])
    }
}

impl Finding {
    /// Says what may be said.
    pub(crate) fn new(rule: &Rule, secret: &[u8], key: &FingerprintKey) -> Finding {
        Finding {
            rule: rule.id.clone(),
            class: rule.class,
            fingerprint: key.fingerprint(secret),
            hint: hint(rule, secret),
        }
    }
}

/// What may be shown of a secret: the prefix where it is one, else nothing, and how long it is.
fn hint(rule: &Rule, secret: &[u8]) -> String {
    let start = &secret[..HINT_BYTES.min(secret.len())];
    let is_prefix = rule.class == Class::Certain
        && rule.has_prefix
        && secret.len() >= HINTED_BYTES_MIN
        && start.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    let shown = if is_prefix { String::from_utf8_lossy(start).into_owned() } else { String::new() };
    format!("{shown}\u{2026} ({} bytes)", secret.len())
}

/// Whether a text is a fingerprint.
pub(crate) fn is_fingerprint(text: &str) -> bool {
    text.len() == 2 * FINGERPRINT_BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::super::rules::RuleSet;
    use super::*;

    #[test]
    fn a_hint_shows_a_known_prefix_and_nothing_else() {
        let set = RuleSet::read(&[]).unwrap();
        let rule = |id: &str| set.rules.iter().find(|rule| rule.id == id).unwrap();
        let token = format!("ghp_{}", "f4Kz9Qw81LmXf4Kz9Qw81LmXf4Kz9Qw81LmX");
        assert_eq!(hint(rule("github-pat"), token.as_bytes()), "ghp_\u{2026} (40 bytes)");
        assert_eq!(hint(rule("url-credentials"), b"f4Kz9Qw81LmXf4Kz9Qw81LmX"), "\u{2026} (24 bytes)");
        assert_eq!(hint(rule("generic-api-key"), b"f4Kz9Qw81LmXf4Kz9Qw81LmX"), "\u{2026} (24 bytes)");
        assert_eq!(hint(rule("private-key"), b"-----BEGIN PRIVATE KEY-----"), "\u{2026} (27 bytes)");
    }

    #[test]
    fn fingerprints_are_keyed() {
        let (one, two) = (FingerprintKey::new([1; 32]), FingerprintKey::new([2; 32]));
        assert_eq!(one.fingerprint(b"a"), one.fingerprint(b"a"));
        assert_ne!(one.fingerprint(b"a"), two.fingerprint(b"a"));
        assert_ne!(one.fingerprint(b"a"), one.fingerprint(b"b"));
        assert!(is_fingerprint(&one.fingerprint(b"a")));
        assert!(!is_fingerprint("0123"));
    }
}
