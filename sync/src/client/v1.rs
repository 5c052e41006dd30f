//! The calls of protocol 1, that of agent-trace-service 1.x.

use agent_trace_store::{Error, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use agent_trace_store::id::encode_hex;

use super::http::{Reply, Request, Who, cut};
use super::{Client, nonsense};
use crate::limits::{ANSWER_BYTES_MAX, PAGE_BYTES_MAX, PAGE_ITEMS_MAX};

pub use crate::service::archive::Resource;

/// A page of records.
#[derive(Debug, Default, Deserialize)]
pub struct Page {
    /// The records, each as it came.
    pub items: Vec<Box<RawValue>>,
    /// From where to go on.
    #[serde(default)]
    pub max_timestamp: Option<String>,
}

/// What a service says of records that it was sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Taken {
    skipped: Vec<SkippedItem>,
}

/// An item that the service did not take.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SkippedItem {
    index: usize,
    error: String,
}

/// The name of a resource in paths.
fn path(resource: Resource) -> &'static str {
    match resource {
        Resource::Traces => "traces",
        Resource::Ledgers => "ledgers",
        Resource::CommitLinks => "commit-links",
        Resource::Conversations => "conversations",
        Resource::Summaries => "summaries",
    }
}

impl Client {
    fn v1(&self, method: Method, path: &str) -> Request<'_> {
        Request::new(method, self.at(&format!("/api/v1/{path}")), Who::Token(self.token.as_ref()))
    }

    /// Sends records; returns those that were skipped, by number, with reasons. `None` where the service does not know
    /// the resource.
    pub fn put_items(&self, resource: Resource, items: &[Vec<u8>]) -> Result<Option<Vec<(usize, String)>>> {
        let doing = |error| self.doing(&format!("send {}", path(resource)), error);
        let mut body = format!("{{\"project_id\":\"{}\",\"items\":[", self.url.project()).into_bytes();
        for (number, item) in items.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            body.extend_from_slice(item);
        }
        body.extend_from_slice(b"]}");
        let mut request = self.v1(Method::POST, &format!("sync/{}", path(resource)));
        request.is_work = true;
        match self.http.ask(&request.with("application/json", body)).map_err(doing)? {
            Reply::Bad(refusal) if is_missing_route(resource, refusal.status, refusal.is_known) => Ok(None),
            reply => {
                let answer = reply.good().map_err(doing)?;
                let taken: Taken = answer.json(ANSWER_BYTES_MAX, "what it took").map_err(doing)?;
                Ok(Some(taken.skipped.into_iter().map(|item| (item.index, item.error)).collect()))
            }
        }
    }

    /// A page of records that arrived after a time that the service gave; `None` where it does not know the resource.
    pub fn page(&self, resource: Resource, since: Option<&str>) -> Result<Option<Page>> {
        let doing = |error| self.doing(&format!("ask for {}", path(resource)), error);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("project_id", self.url.project().as_str());
        query.append_pair("limit", &PAGE_ITEMS_MAX.to_string());
        if let Some(since) = since {
            query.append_pair("since", since);
        }
        let mut request = self.v1(Method::GET, &format!("sync/{}?{}", path(resource), query.finish()));
        request.is_work = true;
        match self.http.ask(&request).map_err(doing)? {
            Reply::Bad(refusal) if is_missing_route(resource, refusal.status, refusal.is_known) => Ok(None),
            reply => {
                let page: Page =
                    reply.good().map_err(doing)?.json(PAGE_BYTES_MAX, "a page").map_err(doing)?;
                if page.items.len() > PAGE_ITEMS_MAX {
                    return Err(doing(nonsense("a page of the size that was asked for")));
                }
                Ok(Some(page))
            }
        }
    }

    /// One ledger; `None` where there is none.
    pub fn ledger(&self, commit: &str) -> Result<Option<Vec<u8>>> {
        let doing = |error| self.doing("ask for a ledger", error);
        let commit: String = url::form_urlencoded::byte_serialize(commit.as_bytes()).collect();
        let request = self.v1(Method::GET, &format!("ledgers/{commit}?project_id={}", self.url.project()));
        match self.http.ask(&request).map_err(doing)? {
            Reply::Bad(refusal) if refusal.status == 404 => Ok(None),
            reply => reply.good().map_err(doing)?.bytes(PAGE_BYTES_MAX).map(Some).map_err(doing),
        }
    }

    /// Whether the service has the bytes with this SHA-256.
    pub fn has_blob(&self, sha256: &str) -> Result<bool> {
        let request = self.v1(Method::HEAD, &format!("blobs/{sha256}"));
        let doing = |error| self.doing("ask for a transcript", error);
        match self.http.ask(&request).map_err(doing)? {
            Reply::Good(_) => Ok(true),
            Reply::Bad(refusal) if matches!(refusal.status, 401 | 403) => Err(doing(refusal.into_error())),
            // Whatever else it says: it is sent then.
            Reply::Bad(_) => Ok(false),
        }
    }

    /// Sends the bytes of a transcript; false where the service takes none that way.
    pub fn put_blob(&self, bytes: Vec<u8>) -> Result<bool> {
        let mut request = self.v1(Method::POST, "blobs").with("application/octet-stream", bytes);
        request.is_work = true;
        let doing = |error| self.doing("send a transcript", error);
        match self.http.ask(&request).map_err(doing)? {
            Reply::Bad(refusal) if matches!(refusal.status, 404 | 405) => Ok(false),
            reply => reply.good().map(|_| true).map_err(doing),
        }
    }

    /// Hands over the bytes with this SHA-256, which are compared with it at the end.
    pub fn blob(&self, sha256: &str, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut request = self.v1(Method::GET, &format!("blobs/{sha256}"));
        request.is_work = true;
        let doing = |error| self.doing("fetch a transcript", error);
        let mut answer = self.http.ask(&request).map_err(doing)?.good().map_err(doing)?;
        let (mut hasher, mut total) = (Sha256::new(), 0u64);
        while let Some(part) = answer.part().map_err(|error| doing(cut(error)))? {
            total += part.len() as u64;
            if total > agent_trace_store::limits::OBJECT_BYTES_MAX {
                return Err(doing(nonsense("a transcript within its limit")));
            }
            hasher.update(&part);
            each(&part)?;
        }
        if encode_hex(&hasher.finalize()) != sha256 {
            return Err(doing(Error::corrupt("a transcript does not have its hash")));
        }
        Ok(())
    }
}

/// Conversations and summaries are younger than the rest; a project that is not there is told in JSON.
fn is_missing_route(resource: Resource, status: u16, is_known: bool) -> bool {
    matches!(resource, Resource::Conversations | Resource::Summaries) && status == 404 && !is_known
}
