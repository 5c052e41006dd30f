//! Organisations, projects and tokens of one service, in redb and in memory.
//!
//! ```text
//! change: plan on what is in memory ─► rows in one durable transaction ─► memory
//! ```
//!
//! All rows are in memory, so reading and authentication touch no disk, and go on while it fails. A change is visible
//! when it is durable, not before. After a failed write the file is not trusted (I9): the next change writes all of it
//! anew from memory, which holds exactly what was acknowledged. When a token was last used is noted in memory and
//! written by [`AccountBook::tend`]; a crash may lose that and nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use agent_trace_store::env::Env;
use agent_trace_store::{Error, ErrorKind, Result};

use super::STAGED;
use super::database::Opened;
use super::folder::{Folder, Missing};
use super::secret::{self, AdminSecret, Hash, Pepper};
use super::state::{Edit, State, load, write, write_all};
use super::uploads::{folder_of, uploads_in};
use super::uuid::Uuid;
use crate::address::Slug;
use crate::limits::{
    ACCOUNTS_CACHE_BYTES, DESCRIPTION_BYTES_MAX, NAME_BYTES_MAX, ORGS_MAX, PROJECTS_MAX, SLUG_BYTES_MAX,
    TOKENS_MAX,
};
use crate::service::archive::{NewToken, Org, Project, TokenRow};
use crate::service::grant::{Grant, TokenId};
use crate::service::quota::Usage;
use crate::token::Token;

/// The accounts of a service: one folder, one process.
pub struct AccountBook {
    env: Env,
    pepper: Pepper,
    /// What unknown tokens are compared with.
    nobody: Hash,
    state: RwLock<State>,
    /// `None` after a failed write.
    database: Mutex<Option<Opened>>,
    /// Last, since its lock goes when all else is closed.
    folder: Folder,
}

impl AccountBook {
    /// Opens the accounts in a data folder, which no other process uses then.
    pub fn open(env: &Env, dir: &Path, missing: Missing) -> Result<AccountBook> {
        let folder = Folder::open(env, dir, missing)?;
        let is_made = folder.is_made()?;
        folder.prepare()?;
        let pepper = folder.pepper(!is_made)?;
        let path = folder.path("accounts.redb");
        let exists = match env.fs.metadata(&path) {
            Ok(_) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_made => false,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("`{}` is missing; restore it from a backup", path.display());
                return Err(Error::corrupt(message));
            }
            Err(error) => return Err(Error::io(format!("cannot open `{}`", path.display()), error)),
        };
        let (state, database) = if exists {
            let database = Opened::open(env, &path, ACCOUNTS_CACHE_BYTES)?;
            let state = load(&database, &pepper, &folder)?;
            (state, Some(database))
        } else {
            (State::new(env.clock.now()), None)
        };
        let mut nobody = Hash([0; 32]);
        env.entropy.fill(&mut nobody.0);
        let book = AccountBook {
            env: env.clone(),
            pepper,
            nobody,
            state: RwLock::new(state),
            database: Mutex::new(database),
            folder,
        };
        book.database_of(&mut book.database())?;
        if !is_made {
            book.folder.finish()?;
        }
        book.sweep()?;
        Ok(book)
    }

    // ---- orgs

    /// Makes an organisation, or finds the one that has this id or slug; true where it is new.
    pub fn put_org(&self, slug: &str, name: Option<&str>, id: Option<&str>) -> Result<(Org, bool)> {
        check_slug("an org", slug)?;
        let name = checked_name(name)?.unwrap_or_else(|| slug.to_owned());
        let id = id.map(|text| {
            Uuid::parse(text).ok_or_else(|| {
                Error::invalid(format!("cannot make an org: expected a UUID as its id, found `{text}`"))
            })
        });
        let id = id.transpose()?;
        self.change(|state| {
            if let Some(org) = id.and_then(|id| state.orgs.get(&id.to_string())) {
                return Ok((vec![], (org.clone(), false)));
            }
            if let Some(org) = state.orgs.values().find(|org| org.slug == slug) {
                return match id {
                    None => Ok((vec![], (org.clone(), false))),
                    Some(_) => Err(Error::new(
                        ErrorKind::Conflict,
                        format!("there is an org `{slug}` with another id"),
                    )),
                };
            }
            check_room("organisations", state.orgs.len(), ORGS_MAX)?;
            let id = id.unwrap_or_else(|| Uuid::random(self.env.entropy.as_ref())).to_string();
            let org =
                Org { id, slug: slug.to_owned(), name, created_at: self.env.clock.now(), quota_bytes: None };
            Ok((vec![Edit::Org(org.clone())], (org, true)))
        })
    }

    /// All organisations, oldest first.
    pub fn orgs(&self) -> Vec<Org> {
        let mut orgs: Vec<Org> = self.state().orgs.values().cloned().collect();
        orgs.sort_by(|one, other| (one.created_at, &one.slug).cmp(&(other.created_at, &other.slug)));
        orgs
    }

    /// Sets what an organisation's data may take; `None` where there is no such organisation.
    pub fn set_quota(&self, org_id: &str, quota_bytes: Option<u64>) -> Result<Option<Org>> {
        self.change(|state| {
            let Ok(org) = state.org(org_id) else { return Ok((vec![], None)) };
            let changed = Org { quota_bytes, ..org.clone() };
            let edits = if changed == *org { vec![] } else { vec![Edit::Org(changed.clone())] };
            Ok((edits, Some(changed)))
        })
    }

    /// What an organisation's data may take.
    pub(super) fn quota(&self, org_id: &str) -> Option<u64> {
        self.state().org(org_id).ok()?.quota_bytes
    }

    /// What an organisation has stored, measured now.
    pub fn usage(&self, org_id: &str) -> Result<Usage> {
        let mut usage = Usage::default();
        for project in self.projects(org_id) {
            usage.bytes += self.folder.bytes_below(&self.folder.project(uuid_of(&project)))?;
            usage.uploads += uploads_in(&self.env, &self.folder.project(uuid_of(&project)))?;
        }
        for token in self.tokens(Some(org_id)) {
            usage.bytes += self.folder.bytes_below(&self.folder.path(STAGED).join(folder_of(&token.id)))?;
        }
        Ok(usage)
    }

    // ---- projects

    /// Makes a project; `Conflict` where there is one of that slug.
    pub fn create_project(
        &self,
        org_id: &str,
        slug: &str,
        name: Option<&str>,
        description: Option<&str>,
    ) -> Result<Project> {
        check_slug("a project", slug)?;
        let name = checked_name(name)?;
        let description = checked_text("description", description, DESCRIPTION_BYTES_MAX)?;
        self.change(|state| {
            let org = state.org(org_id)?;
            if state.projects.contains_key(&(org.id.clone(), slug.to_owned())) {
                return Err(Error::new(ErrorKind::Conflict, format!("there is a project `{slug}` already")));
            }
            check_room("projects", state.projects.len(), PROJECTS_MAX)?;
            let now = self.env.clock.now();
            let project = Project {
                id: Uuid::random(self.env.entropy.as_ref()).to_string(),
                org_id: org.id.clone(),
                slug: slug.to_owned(),
                name,
                description,
                created_at: now,
                updated_at: now,
            };
            Ok((vec![Edit::Project(project.clone())], project))
        })
    }

    /// Finds a project.
    pub fn project(&self, org_id: &str, slug: &str) -> Option<Project> {
        let org_id = Uuid::parse(org_id)?.to_string();
        self.state().projects.get(&(org_id, slug.to_owned())).cloned()
    }

    /// The projects of an organisation, newest first.
    pub fn projects(&self, org_id: &str) -> Vec<Project> {
        let state = self.state();
        let Ok(org) = state.org(org_id) else { return vec![] };
        let from = (org.id.clone(), String::new());
        let of_org = state.projects.range(from..).take_while(|((id, _), _)| *id == org.id);
        let mut projects: Vec<Project> = of_org.map(|(_, project)| project.clone()).collect();
        projects.sort_by(|one, other| (other.created_at, &other.slug).cmp(&(one.created_at, &one.slug)));
        projects
    }

    /// Removes a project and revokes the tokens that are bound to it, so that they do not reach a later one of the same
    /// name. Its bytes are removed by `remove_bytes`.
    pub(super) fn forget_project(&self, org_id: &str, slug: &str) -> Result<Option<Project>> {
        self.change(|state| {
            let Ok(org) = state.org(org_id) else { return Ok((vec![], None)) };
            let Some(project) = state.projects.get(&(org.id.clone(), slug.to_owned())) else {
                return Ok((vec![], None));
            };
            let now = self.env.clock.now();
            let bound = state.tokens.values().filter(|kept| {
                let row = &kept.row;
                row.org_id == org.id && row.project.as_deref() == Some(slug) && row.revoked_at.is_none()
            });
            let mut edits: Vec<Edit> = bound
                .map(|kept| Edit::Token(TokenRow { revoked_at: Some(now), ..kept.now() }, kept.hash))
                .collect();
            edits.push(Edit::Removed(uuid_of(project), now));
            edits.push(Edit::DropProject(project.clone()));
            Ok((edits, Some(project.clone())))
        })
    }

    /// Removes the bytes of a project that is gone. Its mark stays until the next start, in case somebody who still works
    /// in it writes there.
    pub(super) fn remove_bytes(&self, project: &Project) -> Result<()> {
        self.folder.remove_project(uuid_of(project))
    }

    /// Removes a project with all that it holds, where no archive is open; false where there is none.
    pub fn delete_project(&self, org_id: &str, slug: &str) -> Result<bool> {
        let Some(project) = self.forget_project(org_id, slug)? else { return Ok(false) };
        self.remove_bytes(&project)?;
        Ok(true)
    }

    // ---- tokens

    /// Makes a token and returns its secret, which is never shown again.
    pub fn create_token(&self, new: &NewToken) -> Result<(TokenRow, Token)> {
        if let Some(slug) = &new.project {
            check_slug("a project", slug)?;
        }
        let name = checked_name(new.name.as_deref())?;
        let scopes: BTreeSet<_> = new.scopes.iter().copied().collect();
        if scopes.is_empty() {
            return Err(Error::invalid("cannot make a token: expected at least one scope"));
        }
        self.change(|state| {
            let org = state.org(&new.org_id)?;
            let now = self.env.clock.now();
            if new.expires_at.is_some_and(|end| end <= now) {
                return Err(Error::invalid("cannot make a token: it would have expired already"));
            }
            check_room("tokens", state.tokens.len(), TOKENS_MAX)?;
            let (id, token) = loop {
                let (id, token) = secret::generate(self.env.entropy.as_ref());
                if !state.tokens.contains_key(&id) {
                    break (id, token);
                }
            };
            let row = TokenRow {
                prefix: secret::prefix(&id),
                id,
                org_id: org.id.clone(),
                project: new.project.clone(),
                scopes: scopes.into_iter().collect(),
                name,
                created_at: now,
                expires_at: new.expires_at,
                last_used_at: None,
                revoked_at: None,
            };
            let hash = self.pepper.token(token.expose());
            Ok((vec![Edit::Token(row.clone(), hash)], (row, token)))
        })
    }

    /// Tokens, oldest first, of one organisation or of all.
    pub fn tokens(&self, org_id: Option<&str>) -> Vec<TokenRow> {
        let state = self.state();
        let org_id = org_id.map(|id| Uuid::parse(id).map(|id| id.to_string()));
        let is_asked = |row: &TokenRow| match &org_id {
            None => true,
            Some(id) => id.as_ref() == Some(&row.org_id),
        };
        let mut rows: Vec<TokenRow> =
            state.tokens.values().filter(|kept| is_asked(&kept.row)).map(|kept| kept.now()).collect();
        rows.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        rows
    }

    /// Revokes a token; false where there is none. It grants nothing from then on.
    pub fn revoke_token(&self, id: &TokenId) -> Result<bool> {
        self.change(|state| {
            let Some(kept) = state.tokens.get(id) else { return Ok((vec![], false)) };
            if kept.row.revoked_at.is_some() {
                return Ok((vec![], true));
            }
            let row = TokenRow { revoked_at: Some(self.env.clock.now()), ..kept.now() };
            Ok((vec![Edit::Token(row, kept.hash)], true))
        })
    }

    /// What a secret grants now; `None` for one that is unknown, revoked or expired, found by the same work.
    pub fn authenticate(&self, secret: &str) -> Option<Grant> {
        let now = self.env.clock.now();
        let hash = self.pepper.token(secret);
        let state = self.state();
        let kept = secret::id_of(secret).and_then(|id| state.tokens.get(&id));
        let is_same = hash.is(kept.map_or(&self.nobody, |kept| &kept.hash));
        let kept = kept.filter(|kept| is_same && kept.is_valid(now))?;
        let org = state.orgs.get(&kept.row.org_id)?;
        kept.note_use(now);
        Some(Grant {
            token: kept.row.id.clone(),
            org_id: org.id.clone(),
            org_slug: org.slug.clone(),
            project: kept.row.project.clone(),
            scopes: kept.row.scopes.clone(),
        })
    }

    /// Writes when tokens were last used, where that is newer than what is written. For moments when nobody waits, such
    /// as once a minute.
    pub fn tend(&self) -> Result<()> {
        self.change(|state| {
            let newer = state.tokens.values().filter(|kept| kept.row.last_used_at != kept.used());
            Ok((newer.map(|kept| Edit::Token(kept.now(), kept.hash)).collect(), ()))
        })
    }

    // ---- admin

    /// Takes the admin's secret, if one is given; where there is none at all, makes one, which is returned and never shown
    /// again.
    pub fn admit_admin(&self, given: Option<&AdminSecret>) -> Result<Option<AdminSecret>> {
        self.change(|state| {
            let made = match (given, state.admin) {
                (None, None) => Some(AdminSecret::generate(self.env.entropy.as_ref())),
                _ => None,
            };
            let hash = given.or(made.as_ref()).map(|secret| self.pepper.admin(secret.expose()));
            let edits = hash.filter(|hash| state.admin != Some(*hash)).map(Edit::Admin);
            Ok((edits.into_iter().collect(), made))
        })
    }

    /// Whether this is the admin's secret.
    pub fn is_admin(&self, secret: &str) -> bool {
        let hash = self.pepper.admin(secret);
        let admin = self.state().admin;
        let is_same = hash.is(&admin.unwrap_or(self.nobody));
        is_same && admin.is_some()
    }

    // ---- below

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> MutexGuard<'_, Option<Opened>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a change on what is there, makes it durable, then visible.
    fn change<T>(&self, plan: impl FnOnce(&State) -> Result<(Vec<Edit>, T)>) -> Result<T> {
        // Who holds the database is the only one that changes the state, so what is planned on stays.
        let mut slot = self.database();
        let (edits, answer) = plan(&self.state())?;
        if edits.is_empty() {
            return Ok(answer);
        }
        let database = self.database_of(&mut slot)?;
        if let Err(error) = database.write(|transaction| write(database, transaction, &edits)) {
            *slot = None;
            return Err(error.context("cannot write the accounts"));
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        edits.into_iter().for_each(|edit| state.apply(edit));
        Ok(answer)
    }

    /// The database; made anew from memory where the one before is not trusted.
    fn database_of<'a>(&self, slot: &'a mut Option<Opened>) -> Result<&'a Opened> {
        if slot.is_none() {
            let state = self.state();
            let path = self.folder.path("accounts.redb");
            let made = Opened::create(&self.env, &path, ACCOUNTS_CACHE_BYTES, |database, transaction| {
                write_all(database, transaction, &self.pepper, &state)
            })?;
            *slot = Some(made);
        }
        Ok(slot.as_ref().expect("it has just been made"))
    }

    /// Ends removals that a crash has interrupted. What cannot be removed stops nobody; it keeps its mark.
    fn sweep(&self) -> Result<()> {
        let removed: Vec<Uuid> = self.state().removed.keys().copied().collect();
        let is_gone = |project: &Uuid| self.folder.remove_project(*project).is_ok();
        let gone: Vec<Edit> = removed.into_iter().filter(is_gone).map(Edit::DropRemoved).collect();
        self.change(|_| Ok((gone, ())))
    }

    /// Where the archive of a project lies, as long as there is that project.
    pub(super) fn archive_dir(&self, project: &Project) -> Result<std::path::PathBuf> {
        let found = self.project(&project.org_id, &project.slug).filter(|found| found.id == project.id);
        match found {
            Some(found) => Ok(self.folder.project(uuid_of(&found))),
            None => Err(Error::new(ErrorKind::NotFound, format!("there is no project `{}`", project.slug))),
        }
    }
}

impl Drop for AccountBook {
    fn drop(&mut self) {
        // When tokens were last used is worth no failure.
        let _ = self.tend();
    }
}

impl std::fmt::Debug for AccountBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccountBook")
    }
}

fn uuid_of(project: &Project) -> Uuid {
    Uuid::parse(&project.id).expect("ids of rows are UUIDs")
}

fn check_slug(what: &str, slug: &str) -> Result<()> {
    if Slug::parse(slug).is_some() {
        return Ok(());
    }
    let found: String = slug.chars().take(SLUG_BYTES_MAX + 1).collect();
    Err(Error::invalid(format!(
        "expected {what} of at most {SLUG_BYTES_MAX} lower-case letters, digits, `.`, `_` or `-`, a letter or digit \
         first, found `{found}`"
    )))
}

fn checked_name(name: Option<&str>) -> Result<Option<String>> {
    checked_text("name", name, NAME_BYTES_MAX)
}

fn checked_text(what: &str, text: Option<&str>, bytes_max: usize) -> Result<Option<String>> {
    match text {
        Some(text) if text.len() > bytes_max => Err(Error::invalid(format!(
            "expected a {what} of at most {bytes_max} bytes, found {}",
            text.len()
        ))),
        text => Ok(text.map(str::to_owned)),
    }
}

fn check_room(what: &str, count: usize, count_max: usize) -> Result<()> {
    if count < count_max {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Full, format!("the service holds {count_max} {what}, which is its limit")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_reached_and_not_passed() {
        assert!(check_room("tokens", 9, 10).is_ok());
        for count in [10, 11] {
            assert_eq!(check_room("tokens", count, 10).unwrap_err().kind(), ErrorKind::Full);
        }
    }
}
