//! Where a bucket lies and what is needed to reach it; read and checked without touching anything.
//!
//! ```text
//! s3://<bucket>[/<prefix>]     S3 and whatever speaks like it (endpoint)
//! gs://<bucket>[/<prefix>]     Google Cloud Storage
//! az://<container>[/<prefix>]  Azure Blob Storage
//! ```
//!
//! Secrets are no part of the text: [`Credentials`] come from elsewhere, are never written, and cannot be printed.

use std::fmt;

use agent_trace_store::{Error, Result};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::address::Plaintext;
use crate::limits::{PREFIX_BYTES_MAX, RATE_BYTES_MIN};

/// The grammar, for messages.
pub const GRAMMAR: &str = "`s3://<bucket>[/<prefix>]`, `gs://...` or `az://...`";

/// Who keeps a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// S3, or a server that speaks like it.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Cloud {
    /// The one that a scheme stands for.
    pub fn parse(scheme: &str) -> Option<Cloud> {
        match scheme {
            "s3" => Some(Cloud::S3),
            "gs" => Some(Cloud::Google),
            "az" => Some(Cloud::Azure),
            _ => None,
        }
    }

    /// Its scheme.
    pub fn scheme(self) -> &'static str {
        match self {
            Cloud::S3 => "s3",
            Cloud::Google => "gs",
            Cloud::Azure => "az",
        }
    }
}

/// What is said of a bucket beside its URL; nothing of it is secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketOptions {
    /// The server, where it is not the cloud's own.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The bucket is part of the host's name instead of the path.
    pub virtual_host: bool,
    /// Requests carry no signature.
    pub anonymous: bool,
    /// At most so many bytes a second, each way.
    pub rate_bytes: Option<u64>,
}

/// What a bucket's requests are signed with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(Vec<(Credential, Zeroizing<String>)>);

/// A part of credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The id of an access key; the account's name with Azure.
    AccessKey,
    /// The secret of an access key; the account's key with Azure, the JSON of a service account's key with Google.
    SecretKey,
    /// A session token; a shared access signature with Azure.
    SessionToken,
    /// The file with the key of a service account, for Google.
    ServiceAccountFile,
    /// The file with a web identity, for roles of AWS.
    IdentityFile,
    /// The role that a web identity takes.
    Role,
    /// Where a container asks for credentials, as a path.
    ContainerPath,
    /// The same as a whole URL.
    ContainerUrl,
    /// The file with the token for that.
    ContainerTokenFile,
}

impl Credentials {
    /// Adds a part; an empty one is none.
    pub fn set(&mut self, part: Credential, text: &str) {
        if !text.trim().is_empty() {
            self.0.push((part, Zeroizing::new(text.trim().to_owned())));
        }
    }

    /// A part, for the one place that signs.
    pub(super) fn get(&self, part: Credential) -> Option<&str> {
        self.0.iter().find(|(found, _)| *found == part).map(|(_, text)| text.as_str())
    }

    /// Whether nothing is given: then the machine is asked for its own.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<Credential> = self.0.iter().map(|(part, _)| *part).collect();
        write!(f, "Credentials({parts:?})")
    }
}

/// A bucket, and the part of it that is the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUrl {
    /// Who keeps it.
    pub cloud: Cloud,
    bucket: String,
    prefix: String,
    options: BucketOptions,
    /// Who asks; not part of the address.
    pub credentials: Credentials,
}

impl BucketUrl {
    /// Reads what stands behind `<scheme>://`; says what was expected where it cannot.
    pub(crate) fn parse(cloud: Cloud, rest: &str) -> Result<BucketUrl, String> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts = bucket.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !starts || !(3..=222).contains(&bucket.len()) || !bucket.bytes().all(inner) {
            return Err("expected a bucket's name of 3 or more letters, digits, `.`, `_` or `-`".to_owned());
        }
        let part = |part: &str| {
            let fits = |byte: u8| inner(byte) || matches!(byte, b'=' | b'+');
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(fits)
        };
        if prefix.len() > PREFIX_BYTES_MAX || !(prefix.is_empty() || prefix.split('/').all(part)) {
            return Err(format!(
                "expected a prefix of at most {PREFIX_BYTES_MAX} letters, digits, `.`, `_`, `-`, `=` or `+`, \
                 in parts with `/` between them"
            ));
        }
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        let (options, credentials) = (BucketOptions::default(), Credentials::default());
        Ok(BucketUrl { cloud, bucket, prefix, options, credentials })
    }

    /// Adds what is said beside the URL, checked.
    pub fn with_options(mut self, mut options: BucketOptions, plaintext: Plaintext) -> Result<BucketUrl> {
        if let Some(endpoint) = &options.endpoint {
            options.endpoint = Some(check_endpoint(endpoint, plaintext)?);
        } else if options.virtual_host && self.cloud != Cloud::S3 {
            return Err(Error::invalid("only a bucket of S3 can be part of the host's name"));
        }
        if let Some(region) = &options.region {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if region.is_empty() || region.len() > 64 || !region.bytes().all(fits) {
                return Err(Error::invalid("cannot take the region: expected letters, digits, `-` or `_`"));
            }
        }
        if options.rate_bytes.is_some_and(|rate| rate < RATE_BYTES_MIN) {
            let message = format!("cannot limit the rate so far: expected at least {RATE_BYTES_MIN} bytes/s");
            return Err(Error::invalid(message));
        }
        self.options = options;
        Ok(self)
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What stands before each key, without a slash at its end; empty for none.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What is said beside the URL.
    pub fn options(&self) -> &BucketOptions {
        &self.options
    }

    /// Whether requests leave this machine without encryption.
    pub fn is_insecure(&self) -> bool {
        let endpoint = self.options.endpoint.as_deref().filter(|endpoint| endpoint.starts_with("http://"));
        endpoint.and_then(|endpoint| Url::parse(endpoint).ok()).is_some_and(|url| !is_loopback(&url))
    }

    /// Says the region where nobody else has; what cannot be one says nothing.
    pub fn set_region(&mut self, region: Option<&str>) {
        let fits = |region: &&str| {
            let byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            !region.is_empty() && region.len() <= 64 && region.bytes().all(byte)
        };
        if self.options.region.is_none() {
            self.options.region = region.filter(fits).map(str::to_owned);
        }
    }

    /// Limits the rate for this time.
    pub fn limit_rate(&mut self, bytes: u64) {
        self.options.rate_bytes = Some(bytes);
    }

    /// The text under which the state of a remote there is remembered: two servers may have a bucket of one name.
    pub(crate) fn name(&self) -> String {
        match &self.options.endpoint {
            Some(endpoint) => format!("{self} at {endpoint}"),
            None => self.to_string(),
        }
    }
}

/// The URL in its canonical form.
impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "{}://{}{slash}{}", self.cloud.scheme(), self.bucket, self.prefix)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Reads the URL of a server; what is wrong is not repeated where it may hold a password.
fn check_endpoint(text: &str, plaintext: Plaintext) -> Result<String> {
    let refused = |why: &str| {
        Error::invalid(format!("cannot take the endpoint: {why}, expected `https://<host>[:port]`"))
    };
    let url = Url::parse(text.trim()).map_err(|_| refused("it is no URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("it holds a name or a password"));
    }
    if url.query().is_some() || url.fragment().is_some() || url.host().is_none() || url.port() == Some(0) {
        return Err(refused("it is more or less than a server's address"));
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) || plaintext == Plaintext::Anywhere => {}
        "http" => return Err(refused("`http` could be read and changed on the way")),
        _ => return Err(refused("it is no web address")),
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BucketUrl, String> {
        let (scheme, rest) = text.split_once("://").unwrap();
        BucketUrl::parse(Cloud::parse(scheme).unwrap(), rest)
    }

    #[test]
    fn a_bucket_and_a_prefix_are_read() {
        for text in ["s3://abc", "gs://a.b-c/p", "az://abc/p/q.r/s=t", "s3://A_9/x+y"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        assert_eq!(read("s3://abc/p/").unwrap().to_string(), "s3://abc/p");
        let long = format!("s3://abc/{}", "p".repeat(PREFIX_BYTES_MAX + 1));
        for text in [
            "s3://",
            "s3://ab",
            "s3://.abc",
            "s3://a b c",
            "s3://abc//p",
            "s3://abc/../p",
            "s3://abc/p q",
            &long,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_is_a_server_and_no_password() {
        let with = |endpoint: &str, plaintext| {
            let options = BucketOptions { endpoint: Some(endpoint.to_owned()), ..BucketOptions::default() };
            read("s3://abc").unwrap().with_options(options, plaintext)
        };
        let bucket = with("http://127.0.0.1:7480/", Plaintext::Loopback).unwrap();
        assert_eq!(bucket.name(), "s3://abc at http://127.0.0.1:7480");
        assert!(with("http://minio.lan:9000", Plaintext::Anywhere).is_ok());
        for endpoint in
            ["http://minio.lan", "ftp://h", "h", "https://u:secret@h", "https://h?q=secret", "https://h:0"]
        {
            let error = with(endpoint, Plaintext::Loopback).unwrap_err();
            assert!(!error.message().contains("secret"), "{error}");
        }
    }

    #[test]
    fn credentials_are_never_printed() {
        let mut credentials = Credentials::default();
        credentials.set(Credential::AccessKey, "");
        assert!(credentials.is_empty());
        credentials.set(Credential::SecretKey, " topsecret\n");
        assert_eq!(credentials.get(Credential::SecretKey), Some("topsecret"));
        let mut bucket = read("s3://abc").unwrap();
        bucket.credentials = credentials;
        assert!(!format!("{bucket:?} {bucket} {}", bucket.name()).contains("topsecret"));
    }
}
