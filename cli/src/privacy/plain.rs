//! What looks like a secret and stands for one: examples, placeholders, passwords that everybody knows.

use super::rules::{Found, Rule};

/// Passwords of programs on one's own machine, and words that stand for one.
const KNOWN: [&str; 42] = [
    "password",
    "passwd",
    "pass",
    "pwd",
    "secret",
    "changeme",
    "change_me",
    "change-me",
    "postgres",
    "mysql",
    "root",
    "admin",
    "user",
    "username",
    "test",
    "testing",
    "guest",
    "token",
    "example",
    "mypassword",
    "your_password",
    "your-password",
    "yourpassword",
    "minioadmin",
    "rabbitmq",
    "mongo",
    "mongodb",
    "redis",
    "dev",
    "local",
    "foo",
    "bar",
    "foobar",
    "hunter2",
    "s3cr3t",
    "letmein",
    "qwerty",
    "pw",
    "p",
    "toor",
    "key",
    "api_key",
];

/// How ids of messages and calls begin, which agents write in every line.
const IDS: [&str; 12] = [
    "msg_",
    "resp_",
    "req_",
    "toolu_",
    "call_",
    "chatcmpl-",
    "run_",
    "thread_",
    "srvtoolu_",
    "ws_",
    "rs_",
    "fc_",
];

/// Whether something only stands for a secret.
pub(super) fn is_placeholder(rule: &Rule, found: &Found<'_>) -> bool {
    let secret = found.secret;
    let has = |needle: &[u8]| memchr::memmem::find(secret, needle).is_some();
    let lower = secret.to_ascii_lowercase();
    let lower_has = |needle: &[u8]| memchr::memmem::find(&lower, needle).is_some();
    if lower_has(b"redacted")
        || has(b"${")
        || has(b"{{")
        || has(b"...")
        || has(b"***")
        || has("\u{2026}".as_bytes())
    {
        return true;
    }
    if lower_has(b"xxxxx")
        || lower_has(b"example")
        || lower_has(b"placeholder")
        || lower_has(b"your_")
        || lower_has(b"your-")
    {
        return true;
    }
    if is_row(secret) {
        return true;
    }
    match rule.id.as_str() {
        "generic-api-key" => IDS.iter().any(|id| secret.starts_with(id.as_bytes())),
        "private-key" => !holds_key(secret),
        "url-credentials" => is_plain_password(secret, found.whole),
        "password-assignment" => {
            KNOWN.iter().any(|known| lower_has(known.as_bytes())) || !secret.iter().any(u8::is_ascii_digit)
        }
        _ => false,
    }
}

/// Whether a key stands between the lines of its frame, and not what reads or writes one.
fn holds_key(secret: &[u8]) -> bool {
    let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\\ \r\n\t-:,.".contains(byte);
    let odd = secret.iter().filter(|byte| !is_key(byte)).count();
    let is_line = |line: &&[u8]| line.len() >= 32;
    let mut lines = secret.split(|byte| !byte.is_ascii_alphanumeric() && !b"+/=".contains(byte));
    odd * 20 < secret.len() && lines.any(|line| is_line(&line))
}

/// Whether it is a row such as `1234567890abcdef`, again and again.
fn is_row(secret: &[u8]) -> bool {
    let steps = secret.windows(2).filter(|pair| {
        let (one, next) = (pair[0], pair[1]);
        next == one
            || next == one.wrapping_add(1)
            || (one == b'9' && (next == b'0' || next.eq_ignore_ascii_case(&b'a')))
    });
    secret.len() >= 8 && steps.count() * 4 >= secret.len() * 3
}

/// Whether a password in a URL is none worth hiding.
fn is_plain_password(secret: &[u8], whole: &[u8]) -> bool {
    let lower = String::from_utf8_lossy(secret).to_lowercase();
    if KNOWN.contains(&lower.as_str()) || secret.iter().all(|byte| *byte == secret[0]) {
        return true;
    }
    // A variable, a pattern, or what an editor shows of one.
    if secret.iter().any(|byte| b"$<>{}[]()*%|^\\;,".contains(byte)) && !is_percent_encoded(secret) {
        return true;
    }
    let whole = String::from_utf8_lossy(whole).to_lowercase();
    let Some((_, rest)) = whole.split_once("://") else { return false };
    let user = rest.split(':').next().unwrap_or_default();
    let host = rest.rsplit('@').next().unwrap_or_default();
    let is_example =
        ["example.", "host", "hostname", "server", "domain."].iter().any(|name| host.starts_with(name));
    user == lower || is_example || host.contains("example.")
}

/// Whether each `%` stands for a character, and nothing else is odd.
fn is_percent_encoded(secret: &[u8]) -> bool {
    let is_code =
        |at: usize| secret.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let odd = secret.iter().any(|byte| b"$<>{}[]()*|^\\;,".contains(byte));
    !odd && secret.iter().enumerate().all(|(at, byte)| *byte != b'%' || is_code(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_no_secrets() {
        for row in ["1234567890abcdef", "aaaaaaaaaaaa", "abcdefghijklmnop", "0123456789012345"] {
            assert!(is_row(row.as_bytes()), "{row}");
        }
        for secret in ["f4Kz9Qw81LmX", "8842617395", "aabbc"] {
            assert!(!is_row(secret.as_bytes()), "{secret}");
        }
    }

    #[test]
    fn passwords_that_everybody_knows_are_none() {
        let plain = |whole: &str| {
            let secret =
                whole.split_once("://").unwrap().1.split_once(':').unwrap().1.rsplit_once('@').unwrap().0;
            is_plain_password(secret.as_bytes(), whole.as_bytes())
        };
        assert!(plain("postgres://postgres:postgres@localhost"));
        assert!(plain("https://u:${TOKEN}@h.io"));
        assert!(plain("https://user:f8Kz@example.com"));
        assert!(!plain("postgres://app:f8Kz%40q!9@db.internal"));
    }
}
