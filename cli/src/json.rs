//! Every JSON shape that is printed; `docs/json.md` is the contract.
//!
//! Each names its schema. Members are added, never renamed or removed, within one number of a schema.

mod ask;
mod buckets;
mod bundle;
mod erase;
mod hooks;
mod key;
mod privacy;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub(crate) use ask::*;
pub(crate) use buckets::*;
pub(crate) use bundle::*;
pub(crate) use erase::*;
pub(crate) use privacy::*;

use agent_trace_store::Kind;
use agent_trace_sync::client::ProjectRow;
use serde::Serialize;
use serde_json::value::RawValue;

pub(crate) use hooks::{AgentHooks, AgentPlace, GitHooks, HookChange, Hooks, HooksStatus, LastEvent};
pub(crate) use key::{Key, SecretPlace};

pub(crate) const ERROR: &str = "agent-trace/error/1";
pub(crate) const INIT: &str = "agent-trace/init/1";
pub(crate) const HOOKS: &str = "agent-trace/hooks/1";
pub(crate) const HOOKS_STATUS: &str = "agent-trace/hooks-status/1";
pub(crate) const IMPORT: &str = "agent-trace/import/1";
pub(crate) const BACKFILL: &str = "agent-trace/backfill/1";
pub(crate) const LOG: &str = "agent-trace/log/1";
pub(crate) const SHOW: &str = "agent-trace/show/1";
pub(crate) const STATUS: &str = "agent-trace/status/1";
pub(crate) const STATS: &str = "agent-trace/stats/1";
pub(crate) const LINK: &str = "agent-trace/link/1";
pub(crate) const NOTE: &str = "agent-trace/note/1";
pub(crate) const NOTES: &str = "agent-trace/notes/1";
pub(crate) const REMOTE: &str = "agent-trace/remote/1";
pub(crate) const KEY: &str = "agent-trace/key/1";
pub(crate) const PUSH: &str = "agent-trace/push/1";
pub(crate) const PULL: &str = "agent-trace/pull/1";
pub(crate) const PROJECT: &str = "agent-trace/project/1";
pub(crate) const DOCTOR: &str = "agent-trace/doctor/1";
pub(crate) const SYNC: &str = "agent-trace/sync/1";
pub(crate) const ADMIN_ORG: &str = "agent-trace/admin-org/1";
pub(crate) const ADMIN_PROJECT: &str = "agent-trace/admin-project/1";
pub(crate) const ADMIN_TOKEN: &str = "agent-trace/admin-token/1";
pub(crate) const SERVE: &str = "agent-trace/serve/1";
pub(crate) const VERIFY: &str = "agent-trace/verify/1";
pub(crate) const REINDEX: &str = "agent-trace/reindex/1";
pub(crate) const COMPACT: &str = "agent-trace/compact/1";

/// Counts by the name of a kind.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Counts by kind, with every known kind in it.
pub(crate) fn counts(by_kind: &BTreeMap<Kind, u64>) -> Counts {
    let mut counts: Counts = Kind::KNOWN.iter().map(|kind| (kind.name().to_owned(), 0)).collect();
    for (kind, count) in by_kind {
        *counts.entry(kind.name().to_owned()).or_default() += count;
    }
    counts
}

/// A failure, on stderr.
#[derive(Serialize)]
pub(crate) struct Failure<'a> {
    pub(crate) schema: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) message: &'a str,
    pub(crate) causes: &'a [String],
    pub(crate) hint: Option<&'a str>,
    pub(crate) exit: u8,
}

/// `init`
#[derive(Serialize)]
pub(crate) struct Init<'a> {
    pub(crate) schema: &'static str,
    pub(crate) project: Option<String>,
    pub(crate) data: String,
    pub(crate) store: String,
    pub(crate) writer: String,
    pub(crate) created: bool,
    pub(crate) peer_data: Option<String>,
    pub(crate) hooks: Vec<HookChange<'a>>,
}

/// `backfill`
#[derive(Serialize)]
pub(crate) struct Backfill {
    pub(crate) schema: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) unchanged: u64,
    pub(crate) elsewhere: u64,
    pub(crate) skipped_since: u64,
    pub(crate) sessions: u64,
    pub(crate) agents: BTreeMap<&'static str, u64>,
    pub(crate) transcripts_added: u64,
    pub(crate) edits: BackfillEdits,
    pub(crate) commits: BackfillCommits,
    pub(crate) skipped: Vec<Bad>,
}

/// What became of the edits of `backfill`.
#[derive(Serialize)]
pub(crate) struct BackfillEdits {
    pub(crate) found: u64,
    pub(crate) added: u64,
    pub(crate) known: u64,
    pub(crate) failed: u64,
    pub(crate) outside: u64,
    pub(crate) skipped_since: u64,
    pub(crate) without_lines: u64,
}

/// The commits that `backfill` has looked at.
#[derive(Serialize)]
pub(crate) struct BackfillCommits {
    pub(crate) looked_at: u64,
    pub(crate) with_lines: u64,
    pub(crate) lines: u64,
    pub(crate) written: u64,
}

/// `import`
#[derive(Serialize)]
pub(crate) struct Import {
    pub(crate) schema: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) found: Counts,
    pub(crate) added: u64,
    pub(crate) known: u64,
    pub(crate) skipped_since: u64,
    /// Records that are erased, or whose conversation is: they were not taken in.
    pub(crate) erased: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) bad: Vec<Bad>,
    pub(crate) bundles: Vec<ImportedBundle>,
}

/// Something that was not imported as it was meant; `kept` where its bytes were.
#[derive(Serialize)]
pub(crate) struct Bad {
    pub(crate) file: String,
    pub(crate) line: Option<u64>,
    pub(crate) reason: String,
    pub(crate) kept: bool,
}

/// A line of `log`.
#[derive(Serialize)]
pub(crate) struct Log<'a> {
    pub(crate) schema: &'static str,
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) session: Option<Cow<'a, str>>,
    pub(crate) agent: Option<Cow<'a, str>>,
    pub(crate) paths: Vec<Cow<'a, str>>,
    /// Where something that it lists is erased: since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) erased: Option<Erased>,
}

/// What is known of a record without reading it.
#[derive(Serialize)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) kind: &'static str,
    pub(crate) key: String,
    pub(crate) time: String,
    pub(crate) appended: String,
    pub(crate) writer: String,
    pub(crate) seq: u64,
    pub(crate) objects: Vec<String>,
}

/// `show`
#[derive(Serialize)]
pub(crate) struct Show {
    pub(crate) schema: &'static str,
    pub(crate) records: Vec<Record>,
    /// An object that no event lists by itself.
    pub(crate) object: Option<Object>,
    /// What a commit holds, where a commit was asked for that has a ledger.
    pub(crate) commit: Option<CommitSummary>,
}

/// A record with its head.
#[derive(Serialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) bytes: u64,
    /// How many versions of it there are.
    pub(crate) versions: u64,
    /// Whether this one answers for all of them.
    pub(crate) chosen: bool,
    /// Those of its objects that are elsewhere.
    pub(crate) elsewhere: Vec<String>,
    /// Where something that it lists is erased: since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) erased: Option<Erased>,
    pub(crate) record: Option<Box<RawValue>>,
}

/// An object.
#[derive(Serialize)]
pub(crate) struct Object {
    pub(crate) id: String,
    pub(crate) bytes: u64,
}

/// `status`
#[derive(Serialize)]
pub(crate) struct Status {
    pub(crate) schema: &'static str,
    pub(crate) project: Option<String>,
    pub(crate) store: String,
    pub(crate) writer: String,
    pub(crate) events: u64,
    pub(crate) kinds: Counts,
    pub(crate) objects: u64,
    /// Objects that were left out of a pull and have not been fetched.
    pub(crate) elsewhere: u64,
    pub(crate) segments: Segments,
    pub(crate) bytes: Bytes,
    pub(crate) not_indexed: u64,
    pub(crate) damaged: Vec<Damaged>,
    pub(crate) remotes: Vec<RemoteStatus>,
    /// What hooks have brought; nothing for a store outside git.
    pub(crate) capture: Option<Capture>,
    /// What is known of secrets.
    pub(crate) privacy: PrivacyStatus,
}

/// What hooks have brought and what became of it.
#[derive(Serialize)]
pub(crate) struct Capture {
    /// Events that are not in the store yet, and their bytes.
    pub(crate) waiting: u64,
    pub(crate) bytes: u64,
    /// When the first of them came.
    pub(crate) oldest: Option<String>,
    /// Tool calls whose end has not been told of.
    pub(crate) calls: u64,
    /// Commits and rewrites that wait to be linked.
    pub(crate) commits: u64,
    /// Events that could not be understood.
    pub(crate) odd: u64,
    /// Whether the flusher runs.
    pub(crate) flusher: bool,
    /// By agent, or `git/<hook>`: the last event.
    pub(crate) last: BTreeMap<String, Heard>,
    pub(crate) failures: Vec<Failed>,
}

/// The last event of an agent or of a git hook.
#[derive(Serialize)]
pub(crate) struct Heard {
    pub(crate) event: String,
    pub(crate) time: String,
}

/// A failure of a hook or of the flusher.
#[derive(Serialize)]
pub(crate) struct Failed {
    pub(crate) time: String,
    pub(crate) message: String,
}

/// Segment files.
#[derive(Serialize)]
pub(crate) struct Segments {
    pub(crate) sealed: u64,
    pub(crate) open: u64,
}

/// What a store takes on disk, and what is in it.
#[derive(Serialize)]
pub(crate) struct Bytes {
    pub(crate) segments: u64,
    pub(crate) index: u64,
    pub(crate) raw: u64,
}

/// A segment that cannot be read.
#[derive(Serialize)]
pub(crate) struct Damaged {
    pub(crate) path: String,
    pub(crate) reason: String,
}

/// A remote, and what it has not got.
#[derive(Serialize)]
pub(crate) struct RemoteStatus {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) default: bool,
    pub(crate) known: bool,
    pub(crate) unpushed: u64,
    pub(crate) held_back: u64,
    /// Events that cannot be sent there, since bytes that they list are elsewhere.
    pub(crate) elsewhere: u64,
    /// Whether it is reached over the network without encryption.
    pub(crate) insecure_http: bool,
    /// Whether all that goes there is sealed.
    pub(crate) encrypted: bool,
    /// The epoch of its key, as it was last seen.
    pub(crate) epoch: Option<u32>,
    /// Why it cannot be used as it is.
    pub(crate) problem: Option<String>,
}

/// `stats`
#[derive(Serialize)]
pub(crate) struct Stats {
    pub(crate) schema: &'static str,
    pub(crate) records: u64,
    pub(crate) kinds: Counts,
    pub(crate) agents: Counts,
    pub(crate) months: BTreeMap<String, Counts>,
    /// Lines of agents that commits brought, by `agent`, `model` and so on.
    pub(crate) lines: BTreeMap<&'static str, Counts>,
    pub(crate) first: Option<String>,
    pub(crate) last: Option<String>,
    pub(crate) bytes: Bytes,
}

/// `commit-link`, `rewrite-ledger`, `link`
#[derive(Serialize)]
pub(crate) struct Link {
    pub(crate) schema: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) commits: Vec<LinkedCommit>,
}

/// One commit of `link`; `written` where something new was said of it, `missing` where git has it no longer.
#[derive(Serialize)]
pub(crate) struct LinkedCommit {
    pub(crate) commit: String,
    pub(crate) traces: u64,
    pub(crate) lines: u64,
    pub(crate) added: u64,
    pub(crate) written: bool,
    pub(crate) missing: bool,
}

/// `notes show`
#[derive(Serialize)]
pub(crate) struct Note {
    pub(crate) schema: &'static str,
    pub(crate) commit: String,
    pub(crate) note: serde_json::Value,
}

/// The other commands of `notes`; `changed` counts notes, of a push whether something was sent.
#[derive(Serialize)]
pub(crate) struct Notes {
    pub(crate) schema: &'static str,
    pub(crate) what: &'static str,
    pub(crate) changed: u64,
}

/// `remote`: one line for each remote.
#[derive(Serialize)]
pub(crate) struct Remote {
    pub(crate) schema: &'static str,
    #[serde(flatten)]
    pub(crate) remote: RemoteStatus,
    pub(crate) service: Option<Service>,
    pub(crate) token: Option<Token>,
    pub(crate) bucket: Option<Bucket>,
    pub(crate) secret: Option<SecretPlace>,
}

/// What the URL of a service says.
#[derive(Serialize)]
pub(crate) struct Service {
    pub(crate) base_url: String,
    pub(crate) org: String,
    pub(crate) project: String,
    pub(crate) gateway: bool,
}

/// Where the token of a remote is; never the token.
#[derive(Serialize)]
pub(crate) struct Token {
    pub(crate) from: &'static str,
    pub(crate) variable: Option<String>,
    pub(crate) masked: Option<String>,
}

/// `push`
#[derive(Serialize)]
pub(crate) struct Push {
    pub(crate) schema: &'static str,
    pub(crate) remote: String,
    pub(crate) url: String,
    pub(crate) dry_run: bool,
    pub(crate) sent: Counts,
    pub(crate) held_back: Counts,
    /// Events that were not sent, since bytes that they list are elsewhere.
    pub(crate) elsewhere: u64,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
    pub(crate) new_writer: bool,
    pub(crate) gone_back: Vec<String>,
    pub(crate) refused: Vec<String>,
    pub(crate) forks: Vec<String>,
    /// What was sent and may be a secret.
    pub(crate) possible_secrets: u64,
}

/// `project create`
#[derive(Serialize)]
pub(crate) struct Project {
    pub(crate) schema: &'static str,
    pub(crate) url: String,
    #[serde(flatten)]
    pub(crate) project: ProjectRow,
}

/// `doctor`: all that was looked at.
#[derive(Serialize)]
pub(crate) struct Doctor {
    pub(crate) schema: &'static str,
    pub(crate) ok: bool,
    pub(crate) checks: Vec<Check>,
}

/// Something that was looked at.
#[derive(Serialize)]
pub(crate) struct Check {
    /// What: `store`, `modes`, `capture`, or of a remote `url`, `dns`, `reach`, `clock`, `scope`.
    pub(crate) check: &'static str,
    pub(crate) remote: Option<String>,
    /// `ok`, `warning`, `bad` or `fixed`.
    pub(crate) state: &'static str,
    pub(crate) message: String,
}

/// `pull`
#[derive(Serialize)]
pub(crate) struct Pull {
    pub(crate) schema: &'static str,
    pub(crate) remote: String,
    pub(crate) url: String,
    pub(crate) dry_run: bool,
    pub(crate) taken: Counts,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
    pub(crate) forks: Vec<String>,
    pub(crate) refused: Vec<String>,
    pub(crate) new_writer: bool,
    /// Transcripts whose bytes were left out, and those whose bytes were elsewhere and have come.
    pub(crate) left_out: u64,
    pub(crate) fetched: u64,
    /// Transcripts whose bytes are elsewhere, and not on this remote.
    pub(crate) not_there: u64,
    pub(crate) cannot_leave_out: bool,
    /// Records of which something is erased: it did not come.
    pub(crate) erased: u64,
    /// Objects whose bytes are gone here, since somebody has erased them.
    pub(crate) dropped: u64,
}

/// `sync`
#[derive(Serialize)]
pub(crate) struct Sync {
    pub(crate) schema: &'static str,
    pub(crate) push: Push,
    pub(crate) pull: Pull,
}

/// `serve`: where it listens.
#[derive(Serialize)]
pub(crate) struct Serve {
    pub(crate) schema: &'static str,
    pub(crate) url: String,
    pub(crate) metrics: Option<String>,
    pub(crate) admin_secret: Option<String>,
}

/// `admin org`: one line for each org.
#[derive(Serialize)]
pub(crate) struct AdminOrg {
    pub(crate) schema: &'static str,
    pub(crate) id: String,
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) created_at: String,
    pub(crate) new: bool,
    pub(crate) quota_bytes: Option<u64>,
    /// What all its files take, where that was asked for.
    pub(crate) used_bytes: Option<u64>,
    /// Uploads that wait for their commit, where that was asked for.
    pub(crate) uploads: Option<u64>,
}

/// `admin project`: one line for each project.
#[derive(Serialize)]
pub(crate) struct AdminProject {
    pub(crate) schema: &'static str,
    pub(crate) id: String,
    pub(crate) org: String,
    pub(crate) org_id: String,
    pub(crate) slug: String,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
}

/// `admin token`: one line for each token.
#[derive(Serialize)]
pub(crate) struct AdminToken {
    pub(crate) schema: &'static str,
    pub(crate) id: String,
    pub(crate) org: String,
    pub(crate) org_id: String,
    pub(crate) project: Option<String>,
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) prefix: String,
    pub(crate) name: Option<String>,
    pub(crate) state: &'static str,
    pub(crate) created_at: String,
    pub(crate) expires_at: Option<String>,
    pub(crate) last_used_at: Option<String>,
    pub(crate) revoked_at: Option<String>,
    /// The token itself, in the answer that makes it and in no other.
    pub(crate) token: Option<String>,
}

/// `verify`
#[derive(Serialize)]
pub(crate) struct Verify {
    pub(crate) schema: &'static str,
    pub(crate) ok: bool,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) objects: u64,
    pub(crate) events: u64,
    pub(crate) unconfirmed: u64,
    pub(crate) elsewhere: u64,
    pub(crate) problems: Vec<Problem>,
}

/// Something that `verify` has found.
#[derive(Serialize)]
pub(crate) struct Problem {
    pub(crate) code: String,
    pub(crate) what: String,
    pub(crate) message: String,
    pub(crate) affects: Vec<String>,
}

/// `reindex`
#[derive(Serialize)]
pub(crate) struct Reindex {
    pub(crate) schema: &'static str,
    pub(crate) segments: u64,
    pub(crate) events: u64,
    pub(crate) objects: u64,
    pub(crate) salvaged: Vec<String>,
}

/// `compact`
#[derive(Serialize)]
pub(crate) struct Compact {
    pub(crate) schema: &'static str,
    pub(crate) dry_run: bool,
    pub(crate) plan: CompactPlan,
    pub(crate) done: Option<CompactDone>,
}

/// What would be rewritten.
#[derive(Serialize)]
pub(crate) struct CompactPlan {
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) objects: u64,
    pub(crate) events: u64,
}

/// What was rewritten.
#[derive(Serialize)]
pub(crate) struct CompactDone {
    pub(crate) bytes_before: u64,
    pub(crate) bytes_after: u64,
    pub(crate) segments: u64,
}
