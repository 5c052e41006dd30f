//! The service's data in one folder: accounts in redb, and for each project a folder with its archive.
//!
//! ```text
//! Embedded ─► AccountBook ──► accounts.redb, pepper, lock
//!          ├► Archives ─────► projects/<id>/ ─► ProjectArchive
//!          └► StagedFiles ──► staged/
//! ```
//!
//! One process owns the folder. `docs/service.md` describes its files.

mod uuid;
mod secret;
mod folder;
mod database;
mod rows;
mod state;
mod accounts;
mod arrivals;
mod winners;
mod places;
mod uploads;
mod staging;
mod items;
mod archive;
mod erases;
mod commit;
mod outgoing;
mod legacy;
mod archives;

use std::path::Path;
use std::sync::Arc;

use agent_trace_store::Result;
use agent_trace_store::env::Env;

use crate::limits::ARCHIVES_OPEN_MAX;
use crate::service::archive::{Accounts, Archive, NewToken, Org, Project, TokenRow};
use crate::service::grant::{Grant, TokenId};
use crate::service::quota::{Quotas, Reserved, Usage};
use crate::token::Token;

pub use accounts::AccountBook;
pub use archive::ProjectArchive;
pub use archives::OpenArchive;
pub use folder::Missing;
pub use secret::AdminSecret;
pub use staging::StagedFiles;
pub use state::{DEFAULT_ORG_ID, DEFAULT_ORG_SLUG};

use archives::Archives;

/// Accounts and archives in one data folder.
pub struct Embedded {
    env: Env,
    archives: Archives,
    quotas: Quotas,
    /// Tended with the accounts; not there where somebody else keeps what is staged.
    staging: Option<Arc<StagedFiles>>,
    /// Last, since its lock goes when the archives are closed.
    book: AccountBook,
}

/// The folder of bytes that are sent and not named yet.
const STAGED: &str = "staged";

impl Embedded {
    /// Opens a data folder with all that the service needs of it, and makes it where it is missing.
    pub fn open(env: &Env, dir: &Path) -> Result<(Embedded, Arc<StagedFiles>)> {
        // First the lock, then what only its holder may touch.
        let book = AccountBook::open(env, dir, Missing::Create)?;
        let staging = Arc::new(StagedFiles::open(env, dir.join(STAGED))?);
        let shared = staging.clone();
        let open: Box<OpenArchive> = Box::new(move |env, dir| {
            Ok(Arc::new(ProjectArchive::open_with(env, dir, shared.clone())?) as Arc<dyn Archive>)
        });
        let archives = Archives::new(open, ARCHIVES_OPEN_MAX);
        let quotas = Quotas::default();
        Ok((Embedded { env: env.clone(), archives, quotas, staging: Some(staging.clone()), book }, staging))
    }

    /// Opens a data folder, which is made where it is missing; archives are opened by `open`.
    pub fn open_with(env: &Env, dir: &Path, open: Box<OpenArchive>) -> Result<Embedded> {
        let book = AccountBook::open(env, dir, Missing::Create)?;
        let archives = Archives::new(open, ARCHIVES_OPEN_MAX);
        Ok(Embedded { env: env.clone(), archives, quotas: Quotas::default(), staging: None, book })
    }

    /// The accounts.
    pub fn book(&self) -> &AccountBook {
        &self.book
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Embedded")
    }
}

impl Accounts for Embedded {
    fn put_org(&self, slug: &str, name: Option<&str>, id: Option<&str>) -> Result<(Org, bool)> {
        self.book.put_org(slug, name, id)
    }

    fn orgs(&self) -> Result<Vec<Org>> {
        Ok(self.book.orgs())
    }

    fn set_quota(&self, org_id: &str, quota_bytes: Option<u64>) -> Result<Option<Org>> {
        self.book.set_quota(org_id, quota_bytes)
    }

    fn usage(&self, org_id: &str) -> Result<Usage> {
        self.book.usage(org_id)
    }

    fn reserve(&self, org_id: &str, added: Usage) -> Result<Reserved> {
        let quota = self.book.quota(org_id);
        self.quotas.reserve(&self.env, org_id, quota, added, &|| self.book.usage(org_id))
    }

    fn create_project(
        &self,
        org_id: &str,
        slug: &str,
        name: Option<&str>,
        description: Option<&str>,
    ) -> Result<Project> {
        self.book.create_project(org_id, slug, name, description)
    }

    fn project(&self, org_id: &str, slug: &str) -> Result<Option<Project>> {
        Ok(self.book.project(org_id, slug))
    }

    fn projects(&self, org_id: &str) -> Result<Vec<Project>> {
        Ok(self.book.projects(org_id))
    }

    fn delete_project(&self, org_id: &str, slug: &str) -> Result<bool> {
        let Some(project) = self.book.forget_project(org_id, slug)? else { return Ok(false) };
        self.archives.forget(&project.id);
        // The project is gone for good. Bytes that cannot be removed now are removed at the next start.
        let _ = self.book.remove_bytes(&project);
        Ok(true)
    }

    fn create_token(&self, new: &NewToken) -> Result<(TokenRow, Token)> {
        self.book.create_token(new)
    }

    fn tokens(&self, org_id: Option<&str>) -> Result<Vec<TokenRow>> {
        Ok(self.book.tokens(org_id))
    }

    fn revoke_token(&self, id: &TokenId) -> Result<bool> {
        self.book.revoke_token(id)
    }

    fn authenticate(&self, secret: &str) -> Result<Option<Grant>> {
        Ok(self.book.authenticate(secret))
    }

    fn is_admin(&self, secret: &str) -> bool {
        self.book.is_admin(secret)
    }

    fn tend(&self) -> Result<()> {
        let tended = self.book.tend();
        // One that fails does not keep the other from being done.
        let swept = self.staging.as_ref().map_or(Ok(()), |staging| staging.sweep_sometimes());
        tended.and(swept)
    }

    fn archive(&self, project: &Project) -> Result<Arc<dyn Archive>> {
        self.archives.get(&self.env, &project.id, || self.book.archive_dir(project))
    }

    fn archive_at_hand(&self, project: &Project) -> Option<Arc<dyn Archive>> {
        self.archives.at_hand(&project.id)
    }
}
