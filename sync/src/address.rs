//! Where a remote lies, as a user writes it: read and checked without touching anything.
//!
//! ```text
//! file:///path                                   a folder
//! <scheme>://<host>[:port]/<org>/<project>       a service
//! <scheme>://<host>[:port]/at/<org>/<project>    a service behind a gateway that keeps the path
//! s3://, gs:// or az://<bucket>[/<prefix>]       a bucket, see `bucket`
//! ```
//!
//! A service's URL has one canonical form, without query, fragment and trailing slash. A name and a password in it are
//! refused, and no message and no [`shown`] text repeats them. Resolves no names and opens no connections.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use agent_trace_store::id::decode_hex;
use agent_trace_store::{Error, Result};
use url::{Host, Url};

use crate::bucket::{BucketUrl, Cloud};
use crate::limits::{SLUG_BYTES_MAX, URL_BYTES_MAX};

const GRAMMAR: &str = "`https://<host>[:port]/<org>/<project>` or `https://<host>[:port]/at/<org>/<project>`";
/// The path segment by which a gateway is known.
const GATEWAY: &str = "at";
/// What stands for a name and a password that are not shown.
const HIDDEN: &str = "***";

/// Where a remote lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteUrl {
    /// A folder.
    Folder(PathBuf),
    /// A project of a service.
    Service(ServiceUrl),
    /// A bucket, or a part of one.
    Bucket(Box<BucketUrl>),
}

/// How far requests may go without encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// `http` to this machine only.
    Loopback,
    /// `http` to any host; what is sent can be read on the way.
    Anywhere,
}

impl RemoteUrl {
    /// Reads a URL.
    pub fn parse(text: &str, plaintext: Plaintext) -> Result<RemoteUrl> {
        let text = text.trim();
        if text.len() > URL_BYTES_MAX {
            return Err(refused(&text[..text.floor_char_boundary(64)], "it is too long"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(refused(text, &format!("expected `file:///path`, {GRAMMAR}")));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => folder(rest).map(RemoteUrl::Folder).ok_or_else(|| {
                refused(
                    text,
                    "expected `file:///path` of a folder, special characters as `%` and two hex digits",
                )
            }),
            scheme @ ("s3" | "gs" | "az") => {
                let cloud = Cloud::parse(scheme).expect("one of these three");
                let read = BucketUrl::parse(cloud, rest);
                read.map(|url| RemoteUrl::Bucket(Box::new(url))).map_err(|why| refused(text, &why))
            }
            scheme @ ("http" | "https") => service(text, scheme, rest, plaintext).map(RemoteUrl::Service),
            _ => {
                Err(refused(text, &format!("expected `file:///path`, {GRAMMAR}, {}", crate::bucket::GRAMMAR)))
            }
        }
    }

    /// The text under which the state of a remote at this address is remembered.
    pub fn name(&self) -> String {
        match self {
            RemoteUrl::Folder(path) => format!("file://{}", path.display()),
            RemoteUrl::Service(service) => service.to_string(),
            RemoteUrl::Bucket(bucket) => bucket.name(),
        }
    }
}

/// A project of a service, as requests find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl {
    host_url: String,
    org: Slug,
    project: Slug,
    is_gateway: bool,
    is_insecure: bool,
}

impl ServiceUrl {
    /// Scheme, host and port, without a path.
    pub fn host_url(&self) -> &str {
        &self.host_url
    }

    /// What stands before `/api/...` in requests: the host, and behind a gateway the whole URL.
    pub fn base_url(&self) -> String {
        if self.is_gateway { self.to_string() } else { self.host_url.clone() }
    }

    /// The organisation.
    pub fn org(&self) -> &Slug {
        &self.org
    }

    /// The project, as the service names it.
    pub fn project(&self) -> &Slug {
        &self.project
    }

    /// Whether it is the form with `/at/`.
    pub fn is_gateway(&self) -> bool {
        self.is_gateway
    }

    /// Whether requests leave this machine without encryption.
    pub fn is_insecure(&self) -> bool {
        self.is_insecure
    }
}

/// The canonical form.
impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateway = if self.is_gateway { "/at" } else { "" };
        write!(f, "{}{gateway}/{}/{}", self.host_url, self.org, self.project)
    }
}

/// What stands before `/api/...` in requests to a service as such: its host, or the URL of a remote of it.
pub fn service_base(text: &str, plaintext: Plaintext) -> Result<String> {
    let text = text.trim();
    let rest = text.split_once("://").map_or("", |(_, rest)| without_query(rest));
    // A host alone is read as one with a project, which is left out again.
    let is_host = !rest.is_empty() && authority(rest).1.is_empty() && text.len() <= URL_BYTES_MAX;
    let whole =
        if is_host { format!("{}/at/org/project", text.trim_end_matches('/')) } else { text.to_owned() };
    match RemoteUrl::parse(&whole, plaintext) {
        Ok(RemoteUrl::Service(service)) if is_host => Ok(service.host_url),
        Ok(RemoteUrl::Service(service)) => Ok(service.base_url()),
        Ok(RemoteUrl::Folder(_) | RemoteUrl::Bucket(_)) => {
            Err(refused(text, "expected that of a service, `https://<host>[:port]`"))
        }
        Err(error) if is_host => {
            Err(Error::new(error.kind(), error.message().replace("/at/org/project", "")))
        }
        Err(error) => Err(error),
    }
}

/// Names an organisation or a project of a service: `^[a-z0-9][a-z0-9._-]{0,63}$`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slug(String);

impl Slug {
    /// Reads a slug.
    pub fn parse(text: &str) -> Option<Slug> {
        let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let rest = |byte: u8| first(byte) || matches!(byte, b'.' | b'_' | b'-');
        let bytes = text.as_bytes();
        let fits = (1..=SLUG_BYTES_MAX).contains(&bytes.len());
        (fits && first(bytes[0]) && bytes.iter().all(|byte| rest(*byte))).then(|| Slug(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A URL without what may be secret in it: name and password, query, fragment.
pub fn shown(text: &str) -> String {
    let text = text.trim();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("file") => return text.to_owned(),
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    // A password may hold any character, and who writes one into a URL may forget to escape it: everything up to the
    // last `@` is taken for one.
    match rest.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}{HIDDEN}@{}", without_query(rest)),
        None => format!("{scheme}{}", without_query(rest)),
    }
}

/// Whether a URL holds a name or a password. Neither a host nor a slug holds an `@`, and a password that nobody escaped
/// may hold the `/` that would end the host.
pub fn has_credentials(text: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    without_query(rest).contains('@')
}

fn without_query(rest: &str) -> &str {
    rest.split(['?', '#']).next().unwrap_or_default()
}

/// What names host and port, and the path behind it.
fn authority(rest: &str) -> (&str, &str) {
    rest.split_once('/').unwrap_or((rest, ""))
}

fn refused(text: &str, why: &str) -> Error {
    Error::invalid(format!("cannot take remote address `{}`: {why}", shown(text)))
}

fn folder(rest: &str) -> Option<PathBuf> {
    let path = percent_decode(rest)?;
    (path.starts_with('/') && !path.contains('\0')).then(|| path.into())
}

fn service(text: &str, scheme: &str, rest: &str, plaintext: Plaintext) -> Result<ServiceUrl> {
    if has_credentials(text) {
        return Err(refused(text, "expected no name and no password in it"));
    }
    let rest = without_query(rest);
    if rest.contains(|char: char| char.is_whitespace() || char.is_control() || char == '\\') {
        return Err(refused(text, &format!("expected {GRAMMAR}")));
    }
    let (authority, path) = authority(rest);
    let (host_url, is_loopback) = host(scheme, authority)
        .ok_or_else(|| refused(text, &format!("its host or port cannot be read, expected {GRAMMAR}")))?;
    let (org, project, is_gateway) = project(path).map_err(|why| refused(text, &why))?;
    let is_insecure = scheme == "http" && !is_loopback;
    if is_insecure && plaintext == Plaintext::Loopback {
        return Err(refused(text, "expected `https`, since `http` could be read and changed on the way"));
    }
    Ok(ServiceUrl { host_url, org, project, is_gateway, is_insecure })
}

/// Scheme, host and port in canonical form, and whether the host is this machine.
fn host(scheme: &str, authority: &str) -> Option<(String, bool)> {
    // The parser skips slashes in front of a host, which would let the path stand for it.
    if authority.is_empty() {
        return None;
    }
    let url = Url::parse(&format!("{scheme}://{authority}/")).ok()?;
    if url.path() != "/" || url.port() == Some(0) {
        return None;
    }
    let is_loopback = match url.host()? {
        Host::Domain(domain) => domain == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => is_loopback(address),
    };
    Some((url.origin().ascii_serialization(), is_loopback))
}

fn is_loopback(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.to_ipv4_mapped().is_some_and(|mapped| mapped.is_loopback())
}

/// Reads the path of a service's URL: organisation, project, and whether it is the form of a gateway.
fn project(path: &str) -> Result<(Slug, Slug, bool), String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let parts: Vec<&str> = path.split('/').collect();
    let (org, project, is_gateway) = match parts[..] {
        [at, org, project] if at.eq_ignore_ascii_case(GATEWAY) => (org, project, true),
        [org, project] => (org, project, false),
        _ => return Err(format!("expected {GRAMMAR}")),
    };
    let slug = |what: &str, text: &str| {
        Slug::parse(text).ok_or_else(|| {
            format!(
                "expected {what} of at most {SLUG_BYTES_MAX} lower-case letters, digits, `.`, `_` or `-`, \
                 a letter or digit first, found `{text}`"
            )
        })
    };
    Ok((slug("an org", org)?, slug("a project", project)?, is_gateway))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let mut byte = [0; 1];
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            if !decode_hex(digits, &mut byte) {
                return None;
            }
            bytes.push(byte[0]);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}
