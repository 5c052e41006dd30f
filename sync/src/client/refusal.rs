//! What a service says when it does not do what it was asked, and what that means here.

use agent_trace_store::{Error, ErrorKind};
use serde::Deserialize;

/// Texts of a service are shown up to this length.
const SHOWN_CHARS_MAX: usize = 300;

/// A refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The status.
    pub(super) status: u16,
    /// What a program may decide by.
    pub(super) code: Option<String>,
    /// What the service says to people.
    pub(super) text: Option<String>,
    /// Where an upload goes on.
    pub(super) offset: Option<u64>,
    /// What of a commit does not check.
    pub(super) refused: Vec<String>,
    /// Where else the service wants the request to go.
    pub(super) location: Option<String>,
    /// How long the service wants to be left alone.
    pub(super) retry_after_micros: Option<u64>,
    /// What the service's clock says.
    pub(super) date: Option<String>,
    /// Whether the body was one of ours, and not a page of a proxy.
    pub(super) is_known: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Option<String>,
    code: Option<String>,
    offset: Option<u64>,
    refused: Vec<String>,
}

impl Refusal {
    /// Reads a refusal.
    pub(super) fn read(status: u16, location: Option<String>, body: &[u8]) -> Refusal {
        let parsed = serde_json::from_slice::<Body>(body);
        let is_known = parsed.is_ok();
        let body = parsed.unwrap_or_default();
        Refusal {
            status,
            code: body.code.map(|code| shown(&code)),
            text: body.error.map(|text| shown(&text)),
            offset: body.offset,
            refused: body.refused.iter().map(|text| shown(text)).collect(),
            location,
            retry_after_micros: None,
            date: None,
            is_known,
        }
    }

    /// Whether it carries a code.
    pub(super) fn is(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }

    fn kind(&self) -> ErrorKind {
        match self.status {
            400 | 405 | 413 | 415 => ErrorKind::Invalid,
            422 => ErrorKind::Corrupt,
            401 | 403 => ErrorKind::Denied,
            404 | 410 => ErrorKind::NotFound,
            409 | 412 => ErrorKind::Conflict,
            426 => ErrorKind::Unsupported,
            507 => ErrorKind::Full,
            408 | 429 | 502..=504 => ErrorKind::Unavailable,
            300..=399 => ErrorKind::Invalid,
            _ => ErrorKind::Failed,
        }
    }

    /// The refusal as an error.
    pub(super) fn into_error(self) -> Error {
        let kind = self.kind();
        let what = match (self.status, &self.location) {
            (300..=399, Some(location)) => {
                format!("the service sends elsewhere, to `{}`, and no redirect is followed", shown(location))
            }
            (401 | 403, _) => "the service refuses the token".to_owned(),
            (404, _) => "the service does not have it, or not for this token".to_owned(),
            (408, _) => "the service did not get all of the request in time".to_owned(),
            (413, _) => "it is over a limit of the service".to_owned(),
            (422, _) => "the service found it damaged".to_owned(),
            (426, _) => "the service wants a newer version of this program".to_owned(),
            (429, _) => "the service is busy".to_owned(),
            (502..=504, _) => "the service is not available".to_owned(),
            (507, _) if self.is("quota_exceeded") => {
                "the organisation has used up its quota at the service".to_owned()
            }
            (507, _) => "the service is full".to_owned(),
            _ => "the service refuses".to_owned(),
        };
        let mut message = format!("{what} (status {}", self.status);
        if let Some(code) = &self.code {
            message.push_str(&format!(", `{code}`"));
        }
        message.push(')');
        let said: Vec<String> = self.text.into_iter().chain(self.refused).collect();
        let error = Error::new(kind, message);
        if said.is_empty() { error } else { error.with_source(said.join("\n")) }
    }
}

/// A text of the service without what may confuse a terminal, and not too long.
fn shown(text: &str) -> String {
    let visible = |char: char| if char.is_control() { ' ' } else { char };
    text.chars().take(SHOWN_CHARS_MAX).map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_mean_what_the_table_says() {
        let check = |status: u16, body: &str, kind: ErrorKind, part: &str| {
            let error = Refusal::read(status, None, body.as_bytes()).into_error();
            assert_eq!(error.kind(), kind, "{status} {body}");
            assert!(error.message().contains(part), "{error}");
        };
        check(400, "{}", ErrorKind::Invalid, "status 400");
        check(401, r#"{"error":"x","code":"unauthorized"}"#, ErrorKind::Denied, "`unauthorized`");
        check(403, r#"{"code":"project_scope"}"#, ErrorKind::Denied, "`project_scope`");
        check(404, "<html>", ErrorKind::NotFound, "does not have it");
        check(409, r#"{"code":"epoch"}"#, ErrorKind::Conflict, "`epoch`");
        check(408, r#"{"code":"cut"}"#, ErrorKind::Unavailable, "`cut`");
        check(413, "", ErrorKind::Invalid, "limit");
        check(422, r#"{"refused":["a"]}"#, ErrorKind::Corrupt, "damaged");
        check(426, "", ErrorKind::Unsupported, "newer");
        check(429, "", ErrorKind::Unavailable, "busy");
        check(503, "", ErrorKind::Unavailable, "not available");
        check(507, "", ErrorKind::Full, "full");
        check(507, r#"{"code":"quota_exceeded"}"#, ErrorKind::Full, "quota");
        check(500, "\u{1b}[31m", ErrorKind::Failed, "status 500");
        let long = format!(r#"{{"error":"{}\u001b"}}"#, "x".repeat(10_000));
        let refusal = Refusal::read(400, None, long.as_bytes());
        assert_eq!(refusal.text.unwrap().len(), SHOWN_CHARS_MAX);
    }
}
