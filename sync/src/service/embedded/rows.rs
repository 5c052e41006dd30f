//! The rows of `accounts.redb`, byte by byte; `docs/service.md` has the same tables.
//!
//! ```text
//! table     key                                value, after one byte that is its version
//! meta      "version", "check", "admin"        u32; hash; hash (these without a version byte)
//! orgs      org (16)                           made, slug, name; version 2: and the quota in bytes (8)
//! projects  org (16), slug                     project (16), made, changed, name?, description?
//! tokens    id                                 org (16), hash (32), project?, scopes, name?, made, ends?, used?, revoked?
//! removed   project (16)                       when
//! ```
//!
//! Integers are little-endian, times are microseconds since 1970 (8), a text is its length (4) and UTF-8, `?` a byte that
//! is 0 or 1 and then the value, scopes their count (4) and a byte each. Rows of another version are refused. An org
//! without a quota is written in version 1, so that older programs go on reading what they know.

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::{Error, ErrorKind, Result, Timestamp};

use super::secret::{Hash, prefix};
use super::uuid::Uuid;
use crate::limits::{DESCRIPTION_BYTES_MAX, NAME_BYTES_MAX, SLUG_BYTES_MAX, TOKEN_ID_BYTES_MAX};
use crate::service::archive::{Org, Project, TokenRow};
use crate::service::grant::{Scope, TokenId};

const VERSION: u8 = 1;
/// The version of an org that has a quota.
const VERSION_QUOTA: u8 = 2;
/// Scopes in the order of their numbers.
const SCOPES: [Scope; 5] = [Scope::Read, Scope::Write, Scope::ProjectsWrite, Scope::Admin, Scope::Erase];

pub(super) fn encode_org(org: &Org) -> (Vec<u8>, Vec<u8>) {
    let mut encoder = Encoder::new();
    encoder.u8(if org.quota_bytes.is_some() { VERSION_QUOTA } else { VERSION });
    time(&mut encoder, org.created_at);
    encoder.prefixed(org.slug.as_bytes()).prefixed(org.name.as_bytes());
    if let Some(quota) = org.quota_bytes {
        encoder.u64(quota);
    }
    (id(&org.id).to_vec(), encoder.finish())
}

pub(super) fn decode_org(key: &[u8], value: &[u8]) -> Result<Org> {
    let (mut row, version) = Row::of_versions("row of an org", value, VERSION_QUOTA)?;
    let org = Org {
        id: uuid("key of an org", key)?.to_string(),
        created_at: row.time()?,
        slug: row.text(SLUG_BYTES_MAX)?,
        name: row.text(NAME_BYTES_MAX)?,
        quota_bytes: if version == VERSION_QUOTA { Some(row.0.u64()?) } else { None },
    };
    row.finish()?;
    Ok(org)
}

pub(super) fn project_key(org_id: &str, slug: &str) -> Vec<u8> {
    [id(org_id).as_slice(), slug.as_bytes()].concat()
}

pub(super) fn encode_project(project: &Project) -> (Vec<u8>, Vec<u8>) {
    let mut encoder = start();
    encoder.put(&id(&project.id));
    time(&mut encoder, project.created_at);
    time(&mut encoder, project.updated_at);
    maybe_text(&mut encoder, project.name.as_deref());
    maybe_text(&mut encoder, project.description.as_deref());
    (project_key(&project.org_id, &project.slug), encoder.finish())
}

pub(super) fn decode_project(key: &[u8], value: &[u8]) -> Result<Project> {
    let mut place = Decoder::new("key of a project", key);
    let org = Uuid(place.array()?);
    let slug = utf8("key of a project", place.take(place.remaining())?)?;
    let mut row = Row::new("row of a project", value)?;
    let project = Project {
        id: Uuid(row.0.array()?).to_string(),
        org_id: org.to_string(),
        slug,
        created_at: row.time()?,
        updated_at: row.time()?,
        name: row.maybe(|row| row.text(NAME_BYTES_MAX))?,
        description: row.maybe(|row| row.text(DESCRIPTION_BYTES_MAX))?,
    };
    row.finish()?;
    Ok(project)
}

pub(super) fn encode_token(token: &TokenRow, hash: &Hash) -> (Vec<u8>, Vec<u8>) {
    let mut encoder = start();
    encoder.put(&id(&token.org_id)).put(&hash.0);
    maybe_text(&mut encoder, token.project.as_deref());
    encoder.u32(length_u32(token.scopes.len()));
    for scope in &token.scopes {
        let number = SCOPES.iter().position(|known| known == scope).expect("the list has all scopes");
        encoder.u8(u8::try_from(number).expect("there are few"));
    }
    maybe_text(&mut encoder, token.name.as_deref());
    time(&mut encoder, token.created_at);
    for at in [token.expires_at, token.last_used_at, token.revoked_at] {
        maybe_time(&mut encoder, at);
    }
    (token.id.as_str().as_bytes().to_vec(), encoder.finish())
}

pub(super) fn decode_token(key: &[u8], value: &[u8]) -> Result<(TokenRow, Hash)> {
    if key.len() > TOKEN_ID_BYTES_MAX {
        return Err(Error::corrupt("cannot decode key of a token: it is too long"));
    }
    let token_id = TokenId::new(&utf8("key of a token", key)?);
    let mut row = Row::new("row of a token", value)?;
    let org_id = Uuid(row.0.array()?).to_string();
    let hash = Hash(row.0.array()?);
    let token = TokenRow {
        prefix: prefix(&token_id),
        id: token_id,
        org_id,
        project: row.maybe(|row| row.text(SLUG_BYTES_MAX))?,
        scopes: row.scopes()?,
        name: row.maybe(|row| row.text(NAME_BYTES_MAX))?,
        created_at: row.time()?,
        expires_at: row.maybe(Row::time)?,
        last_used_at: row.maybe(Row::time)?,
        revoked_at: row.maybe(Row::time)?,
    };
    row.finish()?;
    Ok((token, hash))
}

pub(super) fn encode_removed(project: Uuid, when: Timestamp) -> (Vec<u8>, Vec<u8>) {
    let mut encoder = start();
    time(&mut encoder, when);
    (project.0.to_vec(), encoder.finish())
}

pub(super) fn decode_removed(key: &[u8], value: &[u8]) -> Result<(Uuid, Timestamp)> {
    let mut row = Row::new("row of a removed project", value)?;
    let when = row.time()?;
    row.finish()?;
    Ok((uuid("key of a removed project", key)?, when))
}

fn start() -> Encoder {
    let mut encoder = Encoder::new();
    encoder.u8(VERSION);
    encoder
}

fn id(text: &str) -> [u8; 16] {
    Uuid::parse(text).expect("ids of rows are UUIDs").0
}

fn uuid(what: &'static str, key: &[u8]) -> Result<Uuid> {
    let mut decoder = Decoder::new(what, key);
    let id = Uuid(decoder.array()?);
    decoder.finish()?;
    Ok(id)
}

fn utf8(what: &'static str, bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| Error::corrupt(format!("cannot decode {what}: it is no text")))
}

fn time(encoder: &mut Encoder, time: Timestamp) {
    encoder.i64(time.micros());
}

fn maybe_time(encoder: &mut Encoder, at: Option<Timestamp>) {
    encoder.u8(u8::from(at.is_some()));
    if let Some(at) = at {
        time(encoder, at);
    }
}

fn maybe_text(encoder: &mut Encoder, text: Option<&str>) {
    encoder.u8(u8::from(text.is_some()));
    if let Some(text) = text {
        encoder.prefixed(text.as_bytes());
    }
}

/// A value that is read.
struct Row<'a>(Decoder<'a>);

impl<'a> Row<'a> {
    fn new(what: &'static str, value: &'a [u8]) -> Result<Row<'a>> {
        Row::of_versions(what, value, VERSION).map(|(row, _)| row)
    }

    fn of_versions(what: &'static str, value: &'a [u8], newest: u8) -> Result<(Row<'a>, u8)> {
        let mut decoder = Decoder::new(what, value);
        match decoder.u8()? {
            found if (VERSION..=newest).contains(&found) => Ok((Row(decoder), found)),
            found => {
                let message = format!("cannot decode {what}: version {found} is newer than this program");
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        }
    }

    fn time(&mut self) -> Result<Timestamp> {
        Ok(Timestamp::from_micros(self.0.i64()?))
    }

    fn text(&mut self, bytes_max: usize) -> Result<String> {
        let bytes = self.0.prefixed(bytes_max)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.0.error("a text is not UTF-8"))
    }

    fn maybe<T>(&mut self, read: impl FnOnce(&mut Row<'a>) -> Result<T>) -> Result<Option<T>> {
        match self.0.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(self.0.error("a mark is neither 0 nor 1")),
        }
    }

    fn scopes(&mut self) -> Result<Vec<Scope>> {
        let count = self.0.count(1, SCOPES.len())?;
        let numbers = self.0.take(count)?;
        let scope = |number: &u8| SCOPES.get(usize::from(*number)).copied();
        let scopes: Option<Vec<Scope>> = numbers.iter().map(scope).collect();
        scopes.ok_or_else(|| self.0.error("a scope is not known"))
    }

    fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_trace_store::id::encode_hex;
    use proptest::prelude::*;

    const ORG: &str = "00000000-0000-0000-0000-000000000001";
    const PROJECT: &str = "11111111-2222-4333-8444-555555555555";

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn org() -> Org {
        Org {
            id: ORG.to_owned(),
            slug: "default".to_owned(),
            name: "Default".to_owned(),
            created_at: at(1),
            quota_bytes: None,
        }
    }

    fn org_with_quota() -> Org {
        Org { quota_bytes: Some(0x1234_5678), ..org() }
    }

    fn project() -> Project {
        Project {
            id: PROJECT.to_owned(),
            org_id: ORG.to_owned(),
            slug: "web".to_owned(),
            name: Some("Web".to_owned()),
            description: None,
            created_at: at(2),
            updated_at: at(3),
        }
    }

    fn token() -> (TokenRow, Hash) {
        let token = TokenRow {
            id: TokenId::new("0123456789abcdef"),
            org_id: ORG.to_owned(),
            project: Some("web".to_owned()),
            scopes: vec![Scope::Write, Scope::Admin],
            prefix: "at_0123456789abcdef".to_owned(),
            name: None,
            created_at: at(4),
            expires_at: Some(at(5)),
            last_used_at: None,
            revoked_at: Some(at(6)),
        };
        (token, Hash([0xaa; 32]))
    }

    /// These bytes are on disks: who changes them gives the rows another version.
    #[test]
    fn the_bytes_are_those_of_version_1() {
        let hex = |(key, value): (Vec<u8>, Vec<u8>)| (encode_hex(&key), encode_hex(&value));
        let org_key = "00000000000000000000000000000001";
        let check = |found: (Vec<u8>, Vec<u8>), key: &str, value: &str| {
            assert_eq!(hex(found), (key.to_owned(), value.to_owned()));
        };
        check(encode_org(&org()), org_key, "0101000000000000000700000064656661756c740700000044656661756c74");
        check(
            encode_project(&project()),
            &format!("{org_key}776562"),
            "01111111112222433384445555555555550200000000000000030000000000000001030000005765620\
             0"
            .replace(char::is_whitespace, "")
            .as_str(),
        );
        let (row, hash) = token();
        check(
            encode_token(&row, &hash),
            &encode_hex(b"0123456789abcdef"),
            &format!(
                "01{org_key}{}0103000000776562{}{}{}",
                "aa".repeat(32),
                "020000000103",
                "000400000000000000",
                "01050000000000000000010600000000000000",
            ),
        );
        let id = Uuid::parse(PROJECT).unwrap();
        check(encode_removed(id, at(7)), "11111111222243338444555555555555", "010700000000000000");
    }

    /// As above: an org with a quota is of version 2, one without reads and is written as it always was.
    #[test]
    fn the_bytes_of_a_quota_are_those_of_version_2() {
        let (_, value) = encode_org(&org_with_quota());
        let expected = "0201000000000000000700000064656661756c740700000044656661756c747856341200000000";
        assert_eq!(encode_hex(&value), expected);
        let (key, before) = encode_org(&org());
        assert_eq!(decode_org(&key, &before).unwrap().quota_bytes, None);
        assert_eq!(before[1..], value[1..value.len() - 8]);
    }

    #[test]
    fn rows_come_back() {
        for org in [org(), org_with_quota()] {
            let (key, value) = encode_org(&org);
            assert_eq!(decode_org(&key, &value).unwrap(), org);
        }
        let (key, value) = encode_project(&project());
        assert_eq!(decode_project(&key, &value).unwrap(), project());
        let (row, hash) = token();
        let (key, value) = encode_token(&row, &hash);
        assert_eq!(decode_token(&key, &value).unwrap(), (row, hash));
        let id = Uuid::parse(PROJECT).unwrap();
        let (key, value) = encode_removed(id, at(7));
        assert_eq!(decode_removed(&key, &value).unwrap(), (id, at(7)));
    }

    #[test]
    fn rows_of_a_newer_version_are_refused() {
        let (key, mut value) = encode_org(&org());
        value[0] = 3;
        assert_eq!(decode_org(&key, &value).unwrap_err().kind(), ErrorKind::Unsupported);
        let (key, mut value) = encode_project(&project());
        value[0] = 2;
        assert_eq!(decode_project(&key, &value).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut known = vec![VERSION];
            known.extend_from_slice(&value);
            for value in [&value, &known] {
                let _ = decode_org(&key, value);
                let _ = decode_project(&key, value);
                let _ = decode_token(&key, value);
                let _ = decode_removed(&key, value);
            }
        }

        #[test]
        fn a_cut_row_is_damage(cut in 0usize..100) {
            let (row, hash) = token();
            let (key, value) = encode_token(&row, &hash);
            prop_assume!(cut < value.len());
            prop_assert_eq!(decode_token(&key, &value[..cut]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
