//! What the service stands on: accounts, and one archive per project, behind two narrow traits.
//!
//! The embedded implementation keeps a store and a table of arrivals per project in one folder; another may keep them in
//! a database and a bucket. Both traits are blocking: the HTTP side calls them from blocking threads, so that neither
//! implementation nor its tests need a runtime. Everything that returns without an error is durable.

use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{EventId, ObjectId, Result, SegmentId, Seq, Timestamp, WriterId};

pub use crate::collect::Bodies;
use crate::service::grant::{Grant, Scope, TokenId};
use crate::service::quota::{Reserved, Usage};
pub use crate::wire::ArrivalRun;

/// An organisation: the namespace of projects and tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Org {
    /// A UUID, as text.
    pub id: String,
    /// Its name in URLs.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What all its data may take; `None` for as much as there is.
    pub quota_bytes: Option<u64>,
}

/// A project of an organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// A UUID, as text.
    pub id: String,
    /// The organisation's id.
    pub org_id: String,
    /// Its name in URLs, unique in the organisation.
    pub slug: String,
    /// Its name for people.
    pub name: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its name or description last changed.
    pub updated_at: Timestamp,
}

/// What is kept of a token; the secret itself is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Its public part.
    pub id: TokenId,
    /// The organisation's id.
    pub org_id: String,
    /// The slug of the only project that it may reach; `None` for all of the organisation.
    pub project: Option<String>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The first characters of the secret, for people.
    pub prefix: String,
    /// Its name for people.
    pub name: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A token that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewToken {
    /// The organisation's id.
    pub org_id: String,
    /// The slug of the only project that it may reach.
    pub project: Option<String>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Its name for people.
    pub name: Option<String>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// Organisations, projects and tokens.
pub trait Accounts: Send + Sync {
    /// Makes an organisation, or finds the one that has this id or slug; true where it is new.
    fn put_org(&self, slug: &str, name: Option<&str>, id: Option<&str>) -> Result<(Org, bool)>;
    /// All organisations, oldest first.
    fn orgs(&self) -> Result<Vec<Org>>;
    /// Sets what an organisation's data may take; `None` where there is no such organisation.
    fn set_quota(&self, org_id: &str, quota_bytes: Option<u64>) -> Result<Option<Org>>;
    /// What an organisation has stored, measured now.
    fn usage(&self, org_id: &str) -> Result<Usage>;
    /// Reserves room before something of an organisation is written.
    fn reserve(&self, org_id: &str, added: Usage) -> Result<Reserved>;
    /// Makes a project; `Conflict` where there is one of that slug.
    fn create_project(
        &self,
        org_id: &str,
        slug: &str,
        name: Option<&str>,
        description: Option<&str>,
    ) -> Result<Project>;
    /// Finds a project.
    fn project(&self, org_id: &str, slug: &str) -> Result<Option<Project>>;
    /// The projects of an organisation, newest first.
    fn projects(&self, org_id: &str) -> Result<Vec<Project>>;
    /// Removes a project with all that it holds; false where there is none.
    fn delete_project(&self, org_id: &str, slug: &str) -> Result<bool>;
    /// Makes a token and returns its secret, which is never shown again.
    fn create_token(&self, new: &NewToken) -> Result<(TokenRow, crate::token::Token)>;
    /// Tokens, oldest first, of one organisation or of all.
    fn tokens(&self, org_id: Option<&str>) -> Result<Vec<TokenRow>>;
    /// Revokes a token; false where there is none.
    fn revoke_token(&self, id: &TokenId) -> Result<bool>;
    /// What a secret grants now; `None` for one that is unknown, revoked or expired, found in the same time.
    fn authenticate(&self, secret: &str) -> Result<Option<Grant>>;
    /// Whether this is the admin's secret, found in the same time for every other text.
    fn is_admin(&self, secret: &str) -> bool;
    /// Does what nobody should wait for, such as writing when tokens were last used. To be called about once a minute,
    /// and at the end.
    fn tend(&self) -> Result<()> {
        Ok(())
    }
    /// The archive of a project; `NotFound` where it has been removed.
    fn archive(&self, project: &Project) -> Result<std::sync::Arc<dyn Archive>>;
    /// The archive of a project, where asking for it costs nothing: one that is open already.
    fn archive_at_hand(&self, project: &Project) -> Option<std::sync::Arc<dyn Archive>>;
}

/// How far a project's arrivals go. A cursor is an epoch and a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Random; changes where the archive was restored from a copy, so that no cursor of the other history counts.
    pub epoch: [u8; 16],
    /// How many events have arrived.
    pub position: u64,
}

/// What arrived after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// Up to where this goes; less than the newest where there is more than fits one answer.
    pub reach: Reach,
    /// The newest position.
    pub newest: u64,
    /// The events, in order of arrival.
    pub runs: Vec<ArrivalRun>,
    /// How far each log goes that is named here or, for a first answer, that is known at all.
    pub tips: Vec<Tip>,
}

/// Part of what a pull brings.
pub enum Part<'a> {
    /// A segment file: its id, its length and a way to read it.
    Segment(&'a SegmentId, u64, &'a dyn agent_trace_store::env::File),
    /// Signed statements about logs; they come before the segments that need them.
    Tips(&'a [Tip]),
    /// All events up to this position have been sent.
    Reached(u64),
}

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The newest position after it.
    pub position: u64,
    /// Events that are new.
    pub taken: u64,
    /// Logs that have forked; both sides are kept.
    pub forks: Vec<String>,
    /// What was refused, with reasons. Nothing of a commit is taken where something of it is refused.
    pub refused: Vec<String>,
}

/// The five resources of protocol v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `traces`, by `id`.
    Traces,
    /// `ledgers`, by `commit_sha`.
    Ledgers,
    /// `commit-links`, by `commit_sha`.
    CommitLinks,
    /// `conversations`, by `conversation_id`: pointers to transcripts.
    Conversations,
    /// `summaries`, by conversation id and time.
    Summaries,
}

/// One item of a v1 upload.
#[derive(Clone, Debug)]
pub struct Item {
    /// The JSON object as it was sent.
    pub json: Vec<u8>,
}

/// What became of a v1 upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Items that are new or replace an older winner.
    pub stored: u64,
    /// Items that were held already.
    pub known: u64,
    /// Items that were skipped: their place in the request and why. They do not stop the others.
    pub skipped: Vec<(usize, String)>,
    /// The first pointer whose bytes the token can neither read nor has staged: the peer's 400 for the whole request.
    pub blob_missing: Option<String>,
}

/// One row of a v1 page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRow {
    /// When it arrived: unique and increasing in its resource.
    pub arrived: Timestamp,
    /// The record in canonical JSON; of a conversation the transcript record.
    pub record: Vec<u8>,
}

/// The data of one project.
pub trait Archive: Send + Sync {
    // ---- v2

    /// How far arrivals go.
    fn reach(&self) -> Result<Reach>;
    /// What arrived after a position.
    fn arrivals(&self, after: u64) -> Result<Arrivals>;
    /// Which of these objects the project holds.
    fn holds(&self, ids: &[ObjectId]) -> Result<Vec<bool>>;
    /// All events by place.
    fn events(&self) -> Result<EventSet>;
    /// Hands over the ids of all events that had arrived at a position, in no order, for reconciliation; both sides of
    /// a fork.
    fn event_ids(
        &self,
        position: u64,
        each: &mut dyn FnMut(&EventId, &WriterId, Seq) -> Result<()>,
    ) -> Result<()>;
    /// How much of a segment has been uploaded by this token; all of it where the project has taken it already.
    fn uploaded(&self, token: &TokenId, id: &SegmentId) -> Result<u64>;
    /// Takes the next bytes of a segment at an offset; returns how much there is then. Another offset than the one that
    /// is there is `Conflict`.
    fn upload(&self, token: &TokenId, id: &SegmentId, offset: u64, bytes: &[u8]) -> Result<u64>;
    /// Checks uploaded segments and takes all of them in, or none. The same batch again gives the same answer.
    fn commit(
        &self,
        token: &TokenId,
        batch: &[u8; 16],
        segments: &[SegmentId],
        tips: &[Tip],
    ) -> Result<Committed>;
    /// The same for a token that may erase what others have written.
    fn commit_erasing(
        &self,
        token: &TokenId,
        batch: &[u8; 16],
        segments: &[SegmentId],
        tips: &[Tip],
    ) -> Result<Committed> {
        self.commit(token, batch, segments, tips)
    }
    /// Hands over what arrived after a position, in order, in segments.
    /// Segments between two marks of what is reached may need each other's objects.
    fn pull(&self, after: u64, bodies: Bodies, each: &mut dyn FnMut(Part<'_>) -> Result<()>) -> Result<()>;
    /// Hands over chosen events that have arrived, by place and by id, with all objects that they need, but for bodies
    /// that are left out. What has not arrived is passed over.
    fn fetch(
        &self,
        runs: &[ArrivalRun],
        ids: &[EventId],
        bodies: Bodies,
        each: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()>;
    /// Hands over the bytes of an object in parts; false where the project does not hold it.
    fn object(&self, id: &ObjectId, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool>;

    // ---- v1

    /// Takes items in: one durable batch, bad items listed.
    fn put(&self, token: &TokenId, resource: Resource, items: &[Item]) -> Result<Stored>;
    /// Winners of a resource that arrived after a time, oldest first, at most so many; fewer where they are large, and
    /// none only where there are none.
    fn page(&self, resource: Resource, since: Option<Timestamp>, limit: usize) -> Result<Vec<PageRow>>;
    /// The winner under a key.
    fn one(&self, resource: Resource, key: &str) -> Result<Option<PageRow>>;
    /// The object that has this SHA-256, where this project holds it: its id and length.
    fn blob(&self, sha256: &[u8; 32]) -> Result<Option<(ObjectId, u64)>>;
}

/// Bytes that a token has sent by v1 and that no pointer names yet.
pub trait Staging: Send + Sync {
    /// Keeps bytes for a day; they must have this hash.
    fn stage(
        &self,
        token: &TokenId,
        bytes: &mut dyn std::io::Read,
        bytes_max: u64,
    ) -> Result<([u8; 32], u64)>;
    /// Whether this token has staged them.
    fn staged(&self, token: &TokenId, sha256: &[u8; 32]) -> Result<Option<u64>>;
    /// Hands over what this token has staged, in parts; false where it has not.
    fn read_staged(
        &self,
        token: &TokenId,
        sha256: &[u8; 32],
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool>;
}
