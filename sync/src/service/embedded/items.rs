//! Items of protocol 1: what of them is a record, and what is wrong with the others.

use agent_trace_store::json::{Canonicalizer, Reader, Shape, write_string};
use agent_trace_store::record::facts;
use agent_trace_store::{Kind, ObjectId, Timestamp};

use super::staging::parse_sha256;
use super::winners::kind_of;
use crate::service::archive::Resource;

/// A record that an item is.
pub(super) struct Parsed {
    /// Its bytes in canonical form.
    pub canonical: Vec<u8>,
    /// Their hash.
    pub id: ObjectId,
    /// Its key.
    pub key: String,
    /// Its own time, if it has one.
    pub time: Option<Timestamp>,
    /// Under what it is found.
    pub marks: agent_trace_store::scan::Marks,
}

/// Reads an item of any resource but conversations; or says what is wrong with it.
pub(super) fn parse(
    canonicalizer: &mut Canonicalizer,
    resource: Resource,
    json: &[u8],
) -> Result<Parsed, String> {
    let canonical = canonical(canonicalizer, json)?;
    let canonical = match resource {
        Resource::Summaries => dated_summary(canonicalizer, canonical)?,
        _ => canonical,
    };
    record(kind_of(resource), canonical, resource == Resource::Traces)
}

/// Brings an object into canonical form.
fn canonical(canonicalizer: &mut Canonicalizer, json: &[u8]) -> Result<Vec<u8>, String> {
    let mut canonical = Vec::with_capacity(json.len());
    canonicalizer.canonicalize(json, &mut canonical).map_err(|error| error.to_string())?;
    match Reader::new(&canonical).shape() {
        Some(Shape::Object) => Ok(canonical),
        _ => Err("expected an object".to_owned()),
    }
}

/// Reads what a record says of itself.
fn record(kind: Kind, canonical: Vec<u8>, needs_time: bool) -> Result<Parsed, String> {
    if has_nul(&canonical) {
        return Err("a text holds a NUL".to_owned());
    }
    let about = facts(kind, &canonical).map_err(|error| error.message().to_owned())?;
    if needs_time && about.time.is_none() {
        return Err("expected `timestamp` to be a time".to_owned());
    }
    let id = ObjectId::of(&canonical);
    let marks = agent_trace_store::scan::marks_of(&about, &[id]);
    let (key, time) = (about.key.clone().into_owned(), about.time);
    Ok(Parsed { canonical, id, key, time, marks })
}

/// Whether canonical JSON has a string with a NUL in it, which is always written as an escape.
fn has_nul(canonical: &[u8]) -> bool {
    let mut rest = canonical;
    let mut escaped = false;
    while let Some((byte, after)) = rest.split_first() {
        if escaped && rest.starts_with(b"u0000") {
            return true;
        }
        escaped = !escaped && *byte == b'\\';
        rest = after;
    }
    false
}

/// The members of a canonical object, as they are spelled.
fn members(canonical: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut reader = Reader::new(canonical);
    let mut members = Vec::new();
    if !matches!(reader.enter_object(), Ok(true)) {
        return members;
    }
    while let Ok(Some(key)) = reader.next_key() {
        let Ok(value) = reader.skip() else { break };
        members.push((key, value));
    }
    members
}

/// Takes a member that is a string which is not empty.
fn text(canonical: &[u8], wanted: &[u8]) -> Option<String> {
    let (_, value) = members(canonical).into_iter().find(|(key, _)| *key == wanted)?;
    let text = Reader::new(value).string().ok()??;
    (!text.is_empty()).then(|| text.into_owned())
}

/// The object with other values under some keys, each spelled as JSON; `None` leaves a member out.
fn with(
    canonicalizer: &mut Canonicalizer,
    canonical: &[u8],
    changes: &[(&str, Option<String>)],
) -> Result<Vec<u8>, String> {
    let mut out = vec![b'{'];
    let mut add = |key: &[u8], value: &[u8]| {
        if out.len() > 1 {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(key);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
    };
    for (key, value) in members(canonical) {
        if !changes.iter().any(|(changed, _)| changed.as_bytes() == key) {
            add(key, value);
        }
    }
    for (key, value) in changes {
        if let Some(value) = value {
            add(key.as_bytes(), value.as_bytes());
        }
    }
    out.push(b'}');
    let mut canonical = Vec::with_capacity(out.len());
    canonicalizer.canonicalize(&out, &mut canonical).map_err(|error| error.to_string())?;
    Ok(canonical)
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(text, &mut out);
    String::from_utf8(out).expect("a string is written as UTF-8")
}

/// A summary may have only `updated_at`; its key needs `created_at`.
fn dated_summary(canonicalizer: &mut Canonicalizer, canonical: Vec<u8>) -> Result<Vec<u8>, String> {
    if text(&canonical, b"summary").is_none() {
        return Err("expected `summary` to be a string that is not empty".to_owned());
    }
    let dated = text(&canonical, b"created_at").or_else(|| text(&canonical, b"updated_at"));
    match dated.filter(|time| Timestamp::parse(time).is_some()) {
        Some(time) => with(canonicalizer, &canonical, &[("created_at", Some(quoted(&time)))]),
        None => Err("expected `created_at` to be a time".to_owned()),
    }
}

/// Where the bytes of a transcript are.
pub(super) enum Bytes {
    /// In the item.
    Inline(Vec<u8>),
    /// Wherever this token has sent them, or in the project already.
    Elsewhere,
}

/// An item of conversations.
pub(super) struct Pointer {
    /// The conversation.
    pub conversation: String,
    /// The SHA-256 that it names, or that its bytes have.
    pub sha256: [u8; 32],
    /// Its bytes.
    pub bytes: Bytes,
    /// Its own time, if it says one.
    pub time: Option<Timestamp>,
    canonical: Vec<u8>,
}

/// Reads an item of conversations; or says what is wrong with it.
pub(super) fn parse_pointer(canonicalizer: &mut Canonicalizer, json: &[u8]) -> Result<Pointer, String> {
    let canonical = canonical(canonicalizer, json)?;
    let conversation = text(&canonical, b"conversation_id")
        .ok_or("expected `conversation_id` to be a string that is not empty")?;
    let time = text(&canonical, b"created_at").or_else(|| text(&canonical, b"updated_at"));
    let time = time.and_then(|time| Timestamp::parse(&time));
    let given = |wanted: &[u8]| {
        let found = members(&canonical).into_iter().find(|(key, _)| *key == wanted);
        found.filter(|(_, value)| *value != b"null").map(|(_, value)| value.to_vec())
    };
    let bytes = match (given(b"content"), given(b"content_b64")) {
        (Some(content), _) => Bytes::Inline(content_text(&content)?),
        (None, Some(encoded)) => {
            let text = Reader::new(&encoded).string().ok().flatten();
            let text = text.ok_or("expected `content_b64` to be a string")?;
            Bytes::Inline(decode_base64(&text).ok_or("expected `content_b64` to be base64")?)
        }
        (None, None) => Bytes::Elsewhere,
    };
    let sha256 = match &bytes {
        // The hash that is sent with bytes is not believed.
        Bytes::Inline(bytes) => {
            use sha2::Digest;
            sha2::Sha256::digest(bytes).into()
        }
        Bytes::Elsewhere => {
            let named = text(&canonical, b"content_sha256");
            let sha256 = named.and_then(|named| parse_sha256(&named));
            sha256.ok_or("expected `content_sha256` to be 64 hex digits in lower case, or `content`")?
        }
    };
    let canonical = with(canonicalizer, &canonical, &[("content", None), ("content_b64", None)])?;
    Ok(Pointer { conversation, sha256, bytes, time, canonical })
}

fn content_text(spelled: &[u8]) -> Result<Vec<u8>, String> {
    let text = Reader::new(spelled).string().ok().flatten().ok_or("expected `content` to be a string")?;
    if text.contains('\u{fffd}') && spelled.windows(3).any(|part| part == br"\ud") {
        return Err("`content` holds half of a character".to_owned());
    }
    Ok(text.into_owned().into_bytes())
}

impl Pointer {
    /// The transcript record: all members of the item but its bytes.
    pub(super) fn record(
        &self,
        canonicalizer: &mut Canonicalizer,
        bytes: u64,
        time: Timestamp,
    ) -> Result<Parsed, String> {
        let created = text(&self.canonical, b"created_at").filter(|text| Timestamp::parse(text).is_some());
        let created = created.unwrap_or_else(|| time.to_string());
        let changes = [
            ("content_sha256", Some(quoted(&agent_trace_store::id::encode_hex(&self.sha256)))),
            ("created_at", Some(quoted(&created))),
            ("size", Some(bytes.to_string())),
        ];
        record(Kind::TRANSCRIPT, with(canonicalizer, &self.canonical, &changes)?, false)
    }
}

/// The last time that lines of a transcript say, in its last part.
pub(super) fn last_time(tail: &[u8]) -> Option<Timestamp> {
    let text = String::from_utf8_lossy(tail);
    text.rmatch_indices("\"timestamp\"").find_map(|(at, name)| {
        let value = text[at + name.len()..].trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        Timestamp::parse(value.split('"').next()?)
    })
}

/// Decodes base64 with padding, as it is written on the wire.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        let bytes = bits.to_be_bytes();
        match group.len() {
            4 => out.extend_from_slice(&bytes[1..]),
            3 => out.extend_from_slice(&bytes[1..3]),
            2 => out.push(bytes[1]),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_whole_or_not_at_all() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("AA==", b"\0"),
            ("AAE=", b"\0\x01"),
            ("AAEC", b"\0\x01\x02"),
            ("//79", b"\xff\xfe\xfd"),
        ] {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["A", "AA", "AA=", "A===", "AA=A", "A-==", "AAAAA"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }

    #[test]
    fn only_an_escape_that_is_one_is_a_nul() {
        for (text, nul) in [
            (r#""\u0000""#, true),
            (r#""\\u0000""#, false),
            (r#""\\\u0000""#, true),
            (r#""u0000""#, false),
            (r#""\u0001""#, false),
        ] {
            assert_eq!(has_nul(text.as_bytes()), nul, "{text}");
        }
    }

    #[test]
    fn the_last_time_of_a_transcript_is_found() {
        let lines = br#"{"timestamp":"2026-01-01T00:00:00Z"}
{"timestamp": "2026-01-02T00:00:00Z"}
{"timestamp":"never"}"#;
        assert_eq!(last_time(lines), Timestamp::parse("2026-01-02T00:00:00Z"));
        assert_eq!(last_time(b"nothing"), None);
    }
}
