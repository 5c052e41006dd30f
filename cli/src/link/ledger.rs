//! The ledger and the commit-link: records of whose lines a commit holds, and of the traces in it.
//!
//! Both are as agent-trace-cli 0.1.3 has them, with these differences: evidence has a line's hash, never its text; each
//! attribution says `how` it is known; `derived_from` may name a rewritten commit.

use std::collections::{BTreeMap, BTreeSet};

use agent_trace_store::{Error, Kind, Result, Timestamp, json, record};
use serde::{Deserialize, Serialize};

/// Whose lines a commit holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    #[serde(default)]
    pub(crate) version: String,
    /// The commit.
    #[serde(default)]
    pub(crate) commit_sha: String,
    /// Its first parent.
    #[serde(default)]
    pub(crate) parent_sha: Option<String>,
    /// When that was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent_committed_at: Option<String>,
    /// When it was committed.
    #[serde(default)]
    pub(crate) committed_at: String,
    /// When the ledger was made.
    #[serde(default)]
    pub(crate) created_at: String,
    /// The traces that it names, sorted.
    #[serde(default)]
    pub(crate) trace_ids: Vec<String>,
    /// By path.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, LedgerFile>,
    /// What it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) derived_from: Option<Derived>,
}

/// One file of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerFile {
    /// Runs of lines of one trace, in order.
    #[serde(default)]
    pub(crate) line_attributions: Vec<Attribution>,
}

/// Lines of one trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attribution {
    /// The first line, from 1, in the commit's file.
    #[serde(default)]
    pub(crate) start_line: u64,
    /// The last.
    #[serde(default)]
    pub(crate) end_line: u64,
    /// `ai`.
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    /// The trace.
    #[serde(default)]
    pub(crate) trace_id: Option<String>,
    /// The model.
    #[serde(default)]
    pub(crate) model_id: Option<String>,
    /// The conversation.
    #[serde(default)]
    pub(crate) conversation_id: Option<String>,
    /// How it is known: `exact`, `reindented`, `moved`, `found`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) how: Option<String>,
    /// Each line's hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) evidence: Vec<Evidence>,
}

/// What a line was when it was attributed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// From 1.
    #[serde(default)]
    pub(crate) line: u64,
    /// `sha256:` and the hash of the line.
    #[serde(default)]
    pub(crate) hash: String,
}

/// What a ledger was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Derived {
    /// `merge`, `cherry-pick`, `revert` or `rewrite`.
    #[serde(default)]
    pub(crate) kind: String,
    /// The commit that was picked, undone or rewritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source_sha: Option<String>,
    /// The parents of a merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parents: Option<Vec<String>>,
}

/// The traces that a commit holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommitLink {
    /// The commit.
    #[serde(default)]
    pub(crate) commit_sha: String,
    /// Its first parent.
    #[serde(default)]
    pub(crate) parent_sha: Option<String>,
    /// The traces, sorted.
    #[serde(default)]
    pub(crate) trace_ids: Vec<String>,
    /// The files that it changes.
    #[serde(default)]
    pub(crate) files_changed: Vec<String>,
    /// When it was committed.
    #[serde(default)]
    pub(crate) committed_at: String,
    /// When the link was made.
    #[serde(default)]
    pub(crate) created_at: String,
}

impl Ledger {
    /// Reads a record, ours or another program's.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Ledger> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::invalid("cannot read a ledger").with_source(error))
    }

    /// Its canonical JSON.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        encode(Kind::LEDGER, self)
    }

    /// Whether another says the same, whenever it was made.
    pub(crate) fn says_the_same(&self, other: &Ledger) -> bool {
        Ledger { created_at: String::new(), ..self.clone() }
            == Ledger { created_at: String::new(), ..other.clone() }
    }

    /// How many lines are attributed.
    pub(crate) fn lines(&self) -> u64 {
        let runs = self.files.values().flat_map(|file| &file.line_attributions);
        runs.map(Attribution::lines).sum()
    }

    /// The run that holds a line of a file, both counted from 1.
    pub(crate) fn at(&self, path: &str, line: u64) -> Option<&Attribution> {
        let runs = &self.files.get(path)?.line_attributions;
        runs.iter().find(|run| run.start_line <= line && line <= run.end_line)
    }

    /// The commit-link that goes with it.
    pub(crate) fn link(&self, files_changed: BTreeSet<String>) -> CommitLink {
        CommitLink {
            commit_sha: self.commit_sha.clone(),
            parent_sha: self.parent_sha.clone(),
            trace_ids: self.trace_ids.clone(),
            files_changed: files_changed.into_iter().collect(),
            committed_at: self.committed_at.clone(),
            created_at: self.created_at.clone(),
        }
    }
}

impl Attribution {
    /// How many lines it has.
    pub(crate) fn lines(&self) -> u64 {
        self.end_line.saturating_add(1).saturating_sub(self.start_line)
    }
}

impl CommitLink {
    /// Its canonical JSON.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        encode(Kind::COMMIT_LINK, self)
    }
}

fn encode<T: Serialize>(kind: Kind, value: &T) -> Result<Vec<u8>> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("cannot write a {kind}")).with_source(error.to_string())
    };
    let spelled = serde_json::to_vec(value).map_err(|error| failed(&error))?;
    let mut canonical = Vec::with_capacity(spelled.len());
    json::canonicalize(&spelled, &mut canonical).map_err(|error| failed(&error))?;
    record::facts(kind, &canonical)?;
    Ok(canonical)
}

/// An instant as ledgers spell it.
pub(crate) fn spelled(time: Timestamp) -> String {
    time.to_string()
}
