//! All rows of the accounts in memory, and how they come from redb and go there.
//!
//! Every change is a list of edits, which is written and then applied; a whole state is the edits that make it out of
//! nothing, so that a file can be made anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};

use agent_trace_store::{Error, ErrorKind, Result, Timestamp};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::database::Opened;
use super::folder::Folder;
use super::rows;
use super::secret::{self, Hash, Pepper};
use super::uuid::Uuid;
use crate::service::archive::{Org, Project, TokenRow};
use crate::service::grant::TokenId;

/// The organisation that is there from the start.
pub const DEFAULT_ORG_ID: &str = "00000000-0000-0000-0000-000000000001";
/// Its name in URLs.
pub const DEFAULT_ORG_SLUG: &str = "default";

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const ORGS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("orgs");
const PROJECTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("projects");
const TOKENS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("tokens");
const REMOVED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("removed");
const VERSION: u32 = 1;
const MINUTE_MICROS: i64 = 60_000_000;

/// All rows.
#[derive(Default)]
pub(super) struct State {
    pub(super) orgs: BTreeMap<String, Org>,
    pub(super) projects: BTreeMap<(String, String), Project>,
    pub(super) tokens: HashMap<TokenId, Kept>,
    pub(super) removed: BTreeMap<Uuid, Timestamp>,
    pub(super) admin: Option<Hash>,
}

/// A token.
pub(super) struct Kept {
    pub(super) row: TokenRow,
    pub(super) hash: Hash,
    /// When it was last used, in microseconds; newer than what the row says until that is written.
    used: AtomicI64,
}

/// One change of a row.
pub(super) enum Edit {
    Org(Org),
    Project(Project),
    Token(TokenRow, Hash),
    Removed(Uuid, Timestamp),
    DropProject(Project),
    DropRemoved(Uuid),
    Admin(Hash),
}

impl Kept {
    fn new(row: TokenRow, hash: Hash) -> Kept {
        let used = row.last_used_at.map_or(i64::MIN, Timestamp::micros);
        Kept { row, hash, used: AtomicI64::new(used) }
    }

    /// Whether it grants anything.
    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        self.row.revoked_at.is_none() && self.row.expires_at.is_none_or(|end| now < end)
    }

    /// When it was last used.
    pub(super) fn used(&self) -> Option<Timestamp> {
        let used = self.used.load(Ordering::Relaxed);
        (used != i64::MIN).then(|| Timestamp::from_micros(used))
    }

    /// Notes a use, to the minute; a clock that goes back changes nothing.
    pub(super) fn note_use(&self, now: Timestamp) {
        let minute = now.micros().div_euclid(MINUTE_MICROS) * MINUTE_MICROS;
        if minute > self.used.load(Ordering::Relaxed) {
            self.used.fetch_max(minute, Ordering::Relaxed);
        }
    }

    /// The row as it stands now.
    pub(super) fn now(&self) -> TokenRow {
        TokenRow { last_used_at: self.used(), ..self.row.clone() }
    }
}

impl State {
    /// What a new service has.
    pub(super) fn new(now: Timestamp) -> State {
        let mut state = State::default();
        state.apply(Edit::Org(Org {
            id: DEFAULT_ORG_ID.to_owned(),
            slug: DEFAULT_ORG_SLUG.to_owned(),
            name: DEFAULT_ORG_SLUG.to_owned(),
            created_at: now,
            quota_bytes: None,
        }));
        state
    }

    /// Finds an organisation.
    pub(super) fn org(&self, id: &str) -> Result<&Org> {
        let org = Uuid::parse(id).and_then(|id| self.orgs.get(&id.to_string()));
        org.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no org `{id}`")))
    }

    /// Makes a change that is durable visible.
    pub(super) fn apply(&mut self, edit: Edit) {
        match edit {
            Edit::Org(org) => drop(self.orgs.insert(org.id.clone(), org)),
            Edit::Project(project) => {
                self.projects.insert((project.org_id.clone(), project.slug.clone()), project);
            }
            Edit::Token(row, hash) => {
                let kept = Kept::new(row, hash);
                if let Some(before) = self.tokens.insert(kept.row.id.clone(), kept) {
                    // It may have been used since the row was planned.
                    let used = before.used.load(Ordering::Relaxed);
                    self.tokens[&before.row.id].used.fetch_max(used, Ordering::Relaxed);
                }
            }
            Edit::Removed(project, when) => drop(self.removed.insert(project, when)),
            Edit::DropProject(project) => drop(self.projects.remove(&(project.org_id, project.slug))),
            Edit::DropRemoved(project) => drop(self.removed.remove(&project)),
            Edit::Admin(hash) => self.admin = Some(hash),
        }
    }

    /// What makes this state out of nothing.
    pub(super) fn edits(&self) -> Vec<Edit> {
        let orgs = self.orgs.values().cloned().map(Edit::Org);
        let projects = self.projects.values().cloned().map(Edit::Project);
        let tokens = self.tokens.values().map(|kept| Edit::Token(kept.now(), kept.hash));
        let removed = self.removed.iter().map(|(project, when)| Edit::Removed(*project, *when));
        orgs.chain(projects).chain(tokens).chain(removed).chain(self.admin.map(Edit::Admin)).collect()
    }
}

/// Reads all rows; another pepper than the one they were made with is damage.
pub(super) fn load(database: &Opened, pepper: &Pepper, folder: &Folder) -> Result<State> {
    database.read(|transaction| {
        let mut state = State::default();
        let meta = transaction.open_table(META).map_err(|error| database.error(error))?;
        let value = |name: &str| -> Result<Option<Vec<u8>>> {
            Ok(meta.get(name).map_err(|error| database.error(error))?.map(|value| value.value().to_vec()))
        };
        if value("version")?.as_deref() != Some(VERSION.to_le_bytes().as_slice()) {
            let message = "cannot open the accounts: their version is newer than this program";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let hash = |value: Option<Vec<u8>>| value.and_then(|bytes| bytes.try_into().ok()).map(Hash);
        if !hash(value("check")?).is_some_and(|check| check.is(&pepper.check())) {
            return Err(secret::other_pepper(&folder.path("pepper")));
        }
        state.admin = hash(value("admin")?);
        let mut each = |table, decode: fn(&[u8], &[u8]) -> Result<Edit>| -> Result<()> {
            let table = transaction.open_table(table).map_err(|error| database.error(error))?;
            for row in table.iter().map_err(|error| database.error(error))? {
                let (key, value) = row.map_err(|error| database.error(error))?;
                state.apply(decode(key.value(), value.value())?);
            }
            Ok(())
        };
        each(ORGS, |key, value| rows::decode_org(key, value).map(Edit::Org))?;
        each(PROJECTS, |key, value| rows::decode_project(key, value).map(Edit::Project))?;
        each(TOKENS, |key, value| rows::decode_token(key, value).map(|(row, hash)| Edit::Token(row, hash)))?;
        each(REMOVED, |key, value| {
            rows::decode_removed(key, value).map(|(project, when)| Edit::Removed(project, when))
        })?;
        Ok(state)
    })
}

/// Writes changes into a transaction.
pub(super) fn write(database: &Opened, transaction: &WriteTransaction, edits: &[Edit]) -> Result<()> {
    let open = |table| transaction.open_table(table).map_err(|error| database.error(error));
    let mut meta = transaction.open_table(META).map_err(|error| database.error(error))?;
    let (mut orgs, mut projects) = (open(ORGS)?, open(PROJECTS)?);
    let (mut tokens, mut removed) = (open(TOKENS)?, open(REMOVED)?);
    for edit in edits {
        let (table, (key, value)) = match edit {
            Edit::Org(org) => (&mut orgs, rows::encode_org(org)),
            Edit::Project(project) => (&mut projects, rows::encode_project(project)),
            Edit::Token(row, hash) => (&mut tokens, rows::encode_token(row, hash)),
            Edit::Removed(project, when) => (&mut removed, rows::encode_removed(*project, *when)),
            Edit::DropProject(project) => {
                let key = rows::project_key(&project.org_id, &project.slug);
                projects.remove(key.as_slice()).map_err(|error| database.error(error))?;
                continue;
            }
            Edit::DropRemoved(project) => {
                removed.remove(project.0.as_slice()).map_err(|error| database.error(error))?;
                continue;
            }
            Edit::Admin(hash) => {
                meta.insert("admin", hash.0.as_slice()).map_err(|error| database.error(error))?;
                continue;
            }
        };
        table.insert(key.as_slice(), value.as_slice()).map_err(|error| database.error(error))?;
    }
    Ok(())
}

/// Writes a whole state, and what comes before all rows.
pub(super) fn write_all(
    database: &Opened,
    transaction: &WriteTransaction,
    pepper: &Pepper,
    state: &State,
) -> Result<()> {
    let mut meta = transaction.open_table(META).map_err(|error| database.error(error))?;
    for (name, value) in [("version", VERSION.to_le_bytes().as_slice()), ("check", &pepper.check().0)] {
        meta.insert(name, value).map_err(|error| database.error(error))?;
    }
    drop(meta);
    write(database, transaction, &state.edits())
}
