//! The accounts of a service for `admin`: those of a data folder that nobody uses, or those of a running service.

use agent_trace_store::{ErrorKind, Result as StoreResult};
use agent_trace_sync::address::{Plaintext, service_base};
use agent_trace_sync::client::Admin;
use agent_trace_sync::service::archive::{NewToken, Org, Project, TokenRow};
use agent_trace_sync::service::embedded::{AccountBook, Missing};
use agent_trace_sync::service::grant::TokenId;
use agent_trace_sync::service::quota::Usage;
use agent_trace_sync::token::Token;

use super::Context;
use super::serve::admin_secret;
use crate::args;
use crate::report::Failure;
use crate::settings::ADMIN_SECRET;

/// Accounts, wherever they are.
pub(super) enum Book {
    Folder(Box<AccountBook>),
    Service(Admin),
}

impl Book {
    /// Opens the accounts of a data folder, which a running service keeps to itself, or of a service by its URL.
    pub(super) fn open(
        context: &Context,
        service: &args::Service,
        missing: Missing,
    ) -> Result<Book, Failure> {
        match (&service.url, &service.data) {
            (Some(url), _) => open_url(context, service, url),
            (None, Some(data)) => {
                let dir = context.settings.directory.join(data);
                AccountBook::open(&context.env, &dir, missing)
                    .map(Box::new)
                    .map(Book::Folder)
                    .map_err(unopened)
            }
            (None, None) => {
                let message = "cannot tell which service is meant";
                Err(Failure::new(ErrorKind::Invalid, message, "give --data DIR or --url URL"))
            }
        }
    }

    pub(super) fn orgs(&self) -> StoreResult<Vec<Org>> {
        match self {
            Book::Folder(book) => Ok(book.orgs()),
            Book::Service(admin) => admin.orgs(),
        }
    }

    pub(super) fn put_org(
        &self,
        slug: &str,
        name: Option<&str>,
        id: Option<&str>,
    ) -> StoreResult<(Org, bool)> {
        match self {
            Book::Folder(book) => book.put_org(slug, name, id),
            Book::Service(admin) => admin.put_org(slug, name, id),
        }
    }

    pub(super) fn set_quota(&self, org_id: &str, quota_bytes: Option<u64>) -> StoreResult<Option<Org>> {
        match self {
            Book::Folder(book) => book.set_quota(org_id, quota_bytes),
            Book::Service(admin) => admin.set_quota(org_id, quota_bytes),
        }
    }

    pub(super) fn usage(&self, org_id: &str) -> StoreResult<Usage> {
        match self {
            Book::Folder(book) => book.usage(org_id),
            Book::Service(admin) => admin.usage(org_id),
        }
    }

    pub(super) fn projects(&self, org_id: &str) -> StoreResult<Vec<Project>> {
        match self {
            Book::Folder(book) => Ok(book.projects(org_id)),
            Book::Service(admin) => admin.projects(org_id),
        }
    }

    pub(super) fn project(&self, org_id: &str, slug: &str) -> StoreResult<Option<Project>> {
        match self {
            Book::Folder(book) => Ok(book.project(org_id, slug)),
            Book::Service(admin) => admin.project(org_id, slug),
        }
    }

    pub(super) fn create_project(
        &self,
        org_id: &str,
        slug: &str,
        name: Option<&str>,
        description: Option<&str>,
    ) -> StoreResult<Project> {
        match self {
            Book::Folder(book) => book.create_project(org_id, slug, name, description),
            Book::Service(admin) => admin.create_project(org_id, slug, name, description),
        }
    }

    pub(super) fn delete_project(&self, org_id: &str, slug: &str) -> StoreResult<bool> {
        match self {
            Book::Folder(book) => book.delete_project(org_id, slug),
            Book::Service(admin) => admin.delete_project(org_id, slug),
        }
    }

    pub(super) fn create_token(&self, new: &NewToken) -> StoreResult<(TokenRow, Token)> {
        match self {
            Book::Folder(book) => book.create_token(new),
            Book::Service(admin) => admin.create_token(new),
        }
    }

    /// Tokens, oldest first, of one of these organisations or of all.
    pub(super) fn tokens(&self, only: Option<&Org>, orgs: &[Org]) -> StoreResult<Vec<TokenRow>> {
        match self {
            Book::Folder(book) => Ok(book.tokens(only.map(|org| org.id.as_str()))),
            Book::Service(admin) => {
                let mut rows = Vec::new();
                for org in only.map_or(orgs, std::slice::from_ref) {
                    rows.extend(admin.tokens(&org.id)?);
                }
                rows.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
                Ok(rows)
            }
        }
    }

    pub(super) fn revoke_token(&self, id: &TokenId) -> StoreResult<bool> {
        match self {
            Book::Folder(book) => book.revoke_token(id),
            Book::Service(admin) => admin.revoke_token(id),
        }
    }
}

fn open_url(context: &Context, service: &args::Service, url: &str) -> Result<Book, Failure> {
    let plaintext = if service.insecure_http { Plaintext::Anywhere } else { Plaintext::Loopback };
    let base = service_base(url, plaintext)
        .map_err(|error| Failure::from(error).hint("give the URL of the service, `https://<host>[:port]`"))?;
    let Some(secret) = admin_secret(context, service.secret_file.as_deref())? else {
        let message = "cannot ask the service without its admin's secret";
        let hint = format!("set {ADMIN_SECRET}, or give --secret-file FILE");
        return Err(Failure::new(ErrorKind::Invalid, message, hint));
    };
    let secret = Token::parse(&secret).map_err(|error| {
        agent_trace_store::Error::invalid("cannot take the admin's secret").with_source(error)
    })?;
    Ok(Book::Service(Admin::open(&context.env, &base, secret)?))
}

fn unopened(error: agent_trace_store::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::Unavailable => Some(
            "while a service uses the folder give `--url URL` of that service instead of `--data`, with its admin's secret; or stop the service",
        ),
        ErrorKind::NotFound => {
            Some("the data folder is made by the first `agent-trace admin org create` or start")
        }
        ErrorKind::Corrupt => Some("restore the data folder from a backup"),
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
