//! The shapes of `privacy`, and what `status` says of it.

use serde::Serialize;

pub(crate) const PRIVACY_SCAN: &str = "agent-trace/privacy-scan/1";
pub(crate) const PRIVACY_ALLOW: &str = "agent-trace/privacy-allow/1";
pub(crate) const PRIVACY_RULES: &str = "agent-trace/privacy-rules/1";

/// `privacy scan`
#[derive(Serialize)]
pub(crate) struct PrivacyScan {
    pub(crate) schema: &'static str,
    /// The id of the rule set.
    pub(crate) rules: String,
    /// Whether what is only possible counts.
    pub(crate) strict: bool,
    /// What was looked through now.
    pub(crate) scanned: PrivacyScanned,
    /// Secrets, each once: certain, possible, and allowed ones.
    pub(crate) certain: u64,
    pub(crate) possible: u64,
    pub(crate) allowed: u64,
    pub(crate) findings: Vec<PrivacyFinding>,
    /// Files that could not be read.
    pub(crate) skipped: Vec<PrivacySkipped>,
}

/// What a scan has looked through.
#[derive(Serialize)]
pub(crate) struct PrivacyScanned {
    pub(crate) events: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// A secret.
#[derive(Serialize)]
pub(crate) struct PrivacyFinding {
    pub(crate) rule: String,
    /// `certain` or `possible`.
    pub(crate) class: &'static str,
    pub(crate) fingerprint: String,
    /// What may be shown of it.
    pub(crate) hint: String,
    pub(crate) allowed: bool,
    /// In how many records or files it stands.
    pub(crate) count: u64,
    /// The first of them.
    pub(crate) places: Vec<PrivacyPlace>,
}

/// Where a secret stands.
#[derive(Serialize)]
pub(crate) struct PrivacyPlace {
    /// The kind of the record, or `file`.
    pub(crate) kind: String,
    /// The key of the record, or the path.
    pub(crate) key: String,
    /// The object; nothing for a file.
    pub(crate) object: Option<String>,
    /// The line, from 1.
    pub(crate) line: u64,
    /// How often it stands there.
    pub(crate) count: u64,
}

/// A file that could not be read.
#[derive(Serialize)]
pub(crate) struct PrivacySkipped {
    pub(crate) path: String,
    pub(crate) reason: String,
}

/// `privacy allow`
#[derive(Serialize)]
pub(crate) struct PrivacyAllow {
    pub(crate) schema: &'static str,
    pub(crate) fingerprint: String,
    pub(crate) reason: Option<String>,
}

/// `privacy rules`
#[derive(Serialize)]
pub(crate) struct PrivacyRules {
    pub(crate) schema: &'static str,
    /// The id of the rule set.
    pub(crate) id: String,
    pub(crate) rules: Vec<PrivacyRule>,
}

/// A rule.
#[derive(Serialize)]
pub(crate) struct PrivacyRule {
    pub(crate) id: String,
    /// `certain` or `possible`.
    pub(crate) class: &'static str,
    /// By what it knows a secret, where it is certain.
    pub(crate) reason: Option<&'static str>,
}

/// What `status` says of secrets.
#[derive(Serialize)]
pub(crate) struct PrivacyStatus {
    /// `warn`, `redact` or `off`.
    pub(crate) mode: &'static str,
    /// Records that were not looked through yet.
    pub(crate) not_scanned: u64,
    /// Secrets in those that were, less allowed ones.
    pub(crate) certain: u64,
    pub(crate) possible: u64,
}
