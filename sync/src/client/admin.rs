//! What the admin of a service does: organisations, projects and tokens, as `AccountBook` does it on the data folder.

use agent_trace_store::env::Env;
use agent_trace_store::{Error, ErrorKind, Result, Timestamp};
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::http::{Answer, Http, Reply, Request, Who};
use super::nonsense;
use super::refusal::Refusal;
use crate::address::Slug;
use crate::limits::{ADMIN_PAGE_BYTES_MAX, ANSWER_BYTES_MAX};
use crate::service::archive::{NewToken, Org, Project, TokenRow};
use crate::service::grant::{Scope, TokenId};
use crate::service::quota::Usage;
use crate::token::Token;

/// A service, and the secret of its admin.
pub struct Admin {
    http: Http,
    base: String,
    secret: Token,
}

impl Admin {
    /// Prepares; nothing is sent yet. `base` is what stands before `/api`.
    pub fn open(env: &Env, base: &str, secret: Token) -> Result<Admin> {
        Ok(Admin { http: Http::open(env, base)?, base: base.to_owned(), secret })
    }

    // ---- orgs

    /// All organisations, oldest first.
    pub fn orgs(&self) -> Result<Vec<Org>> {
        self.pages("/admin/orgs", OrgRow::org)
    }

    /// Makes an organisation, or finds the one that has this id or slug; true where it is new.
    pub fn put_org(&self, slug: &str, name: Option<&str>, id: Option<&str>) -> Result<(Org, bool)> {
        let body = json!({"slug": slug, "name": name, "id": id});
        let answer = self.send(Method::POST, "/v1/orgs", Some(&body))?;
        let is_new = answer.status() == 201;
        let row: OrgRow = answer.json(ANSWER_BYTES_MAX, "an org")?;
        Ok((row.org()?, is_new))
    }

    /// Sets what an organisation's data may take; `None` where there is no such organisation.
    pub fn set_quota(&self, org_id: &str, quota_bytes: Option<u64>) -> Result<Option<Org>> {
        let body = json!({"quota_bytes": quota_bytes});
        let path = format!("/admin/orgs/{}", checked_id(org_id)?);
        match self.ask(Method::PATCH, &path, Some(&body))? {
            Reply::Good(answer) => answer.json::<OrgRow>(ANSWER_BYTES_MAX, "an org")?.org().map(Some),
            Reply::Bad(refusal) if refusal.is("org_not_found") => Ok(None),
            Reply::Bad(refusal) => Err(self.refused(refusal)),
        }
    }

    /// What an organisation has stored, measured now.
    pub fn usage(&self, org_id: &str) -> Result<Usage> {
        let answer = self.send(Method::GET, &format!("/admin/orgs/{}", checked_id(org_id)?), None)?;
        let row: OrgRow = answer.json(ANSWER_BYTES_MAX, "an org")?;
        match (row.used_bytes, row.uploads) {
            (Some(bytes), Some(uploads)) => Ok(Usage { bytes, uploads }),
            _ => Err(nonsense("what an org has stored")),
        }
    }

    // ---- projects

    /// The projects of an organisation, newest first.
    pub fn projects(&self, org_id: &str) -> Result<Vec<Project>> {
        let path = format!("/admin/orgs/{}/projects", checked_id(org_id)?);
        self.pages(&path, ProjectRow::project)
    }

    /// Finds a project.
    pub fn project(&self, org_id: &str, slug: &str) -> Result<Option<Project>> {
        Ok(self.projects(org_id)?.into_iter().find(|project| project.slug == slug))
    }

    /// Makes a project; `Conflict` where there is one of that slug.
    pub fn create_project(
        &self,
        org_id: &str,
        slug: &str,
        name: Option<&str>,
        description: Option<&str>,
    ) -> Result<Project> {
        let body = json!({"org_id": org_id, "project_id": slug, "name": name, "description": description});
        let answer = self.send(Method::POST, "/v1/projects", Some(&body))?;
        answer.json::<ProjectRow>(ANSWER_BYTES_MAX, "a project")?.project()
    }

    /// Removes a project with all that it holds; false where there is none.
    pub fn delete_project(&self, org_id: &str, slug: &str) -> Result<bool> {
        if Slug::parse(slug).is_none() {
            return Ok(false);
        }
        let path = format!("/v1/projects/{slug}?org_id={}", checked_id(org_id)?);
        self.found(Method::DELETE, &path, "project_not_found")
    }

    // ---- tokens

    /// Makes a token and returns its secret, which is never shown again.
    pub fn create_token(&self, new: &NewToken) -> Result<(TokenRow, Token)> {
        let scopes: Vec<&str> = new.scopes.iter().map(|scope| scope.name()).collect();
        let body = json!({
            "org_id": new.org_id,
            "project_id": new.project,
            "scopes": scopes,
            "name": new.name,
            "expires_at": new.expires_at.map(|time| time.to_string()),
        });
        let answer = self.send(Method::POST, "/v1/tokens", Some(&body))?;
        let row: TokenBody = answer.json(ANSWER_BYTES_MAX, "a token")?;
        let token = Token::parse(row.token.as_deref().ok_or_else(|| nonsense("a token"))?)?;
        Ok((row.row()?, token))
    }

    /// The tokens of an organisation, oldest first.
    pub fn tokens(&self, org_id: &str) -> Result<Vec<TokenRow>> {
        let path = format!("/admin/orgs/{}/tokens", checked_id(org_id)?);
        self.pages(&path, TokenBody::row)
    }

    /// Revokes a token; false where there is none. It grants nothing from then on.
    pub fn revoke_token(&self, id: &TokenId) -> Result<bool> {
        if id.as_str().is_empty() || !id.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(false);
        }
        self.found(Method::DELETE, &format!("/v1/tokens/{}", id.as_str()), "")
    }

    // ---- below

    /// All rows of a list.
    fn pages<T: DeserializeOwned, R>(&self, path: &str, row: impl Fn(T) -> Result<R>) -> Result<Vec<R>> {
        let (mut rows, mut after) = (Vec::new(), String::new());
        loop {
            let answer = self.send(Method::GET, &format!("{path}{after}"), None)?;
            let page: Page<T> = answer.json(ADMIN_PAGE_BYTES_MAX, "a list")?;
            let before = rows.len();
            for item in page.items {
                rows.push(row(item)?);
            }
            match page.next {
                None => return Ok(rows),
                // A list that does not go on would be asked for without end.
                Some(_) if rows.len() == before => return Err(nonsense("a list")),
                Some(next) => after = format!("?after={}", checked_id(&next)?),
            }
        }
    }

    /// A request; an answer that is not good is an error.
    fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer<'_>> {
        match self.ask(method, path, body)? {
            Reply::Good(answer) => Ok(answer),
            Reply::Bad(refusal) => Err(self.refused(refusal)),
        }
    }

    /// Whether what a request names was there.
    fn found(&self, method: Method, path: &str, code: &str) -> Result<bool> {
        match self.ask(method, path, None)? {
            Reply::Good(_) => Ok(true),
            Reply::Bad(refusal) if refusal.status == 404 && (code.is_empty() || refusal.is(code)) => {
                Ok(false)
            }
            Reply::Bad(refusal) => Err(self.refused(refusal)),
        }
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply<'_>> {
        let is_read = method == Method::GET;
        let mut request = Request::new(method, format!("{}/api{path}", self.base), Who::Admin(&self.secret));
        if let Some(body) = body {
            request = request.with("application/json", body.to_string());
        }
        // The answer to a first try that was lost would look like something that was there before.
        request.repeatable = is_read;
        self.http.ask(&request)
    }

    fn refused(&self, refusal: Refusal) -> Error {
        // The routes of the admin are not there for others.
        let is_hidden = refusal.status == 404 && refusal.is("not_found");
        if is_hidden || matches!(refusal.status, 401 | 403) {
            let message = format!("the service at `{}` does not take this admin's secret", self.base);
            return Error::new(ErrorKind::Denied, message);
        }
        refusal.into_error()
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

/// An id that goes into a URL: from the service, which is believed in nothing.
fn checked_id(id: &str) -> Result<&str> {
    let fits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { Ok(id) } else { Err(nonsense("an id")) }
}

fn time(text: &str) -> Result<Timestamp> {
    Timestamp::parse(text).ok_or_else(|| nonsense("a time"))
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct OrgRow {
    id: String,
    slug: String,
    name: String,
    created_at: String,
    quota_bytes: Option<u64>,
    used_bytes: Option<u64>,
    uploads: Option<u64>,
}

impl OrgRow {
    fn org(self) -> Result<Org> {
        Ok(Org {
            created_at: time(&self.created_at)?,
            id: self.id,
            slug: self.slug,
            name: self.name,
            quota_bytes: self.quota_bytes,
        })
    }
}

#[derive(Deserialize)]
struct ProjectRow {
    id: String,
    org_id: String,
    project_id: String,
    name: Option<String>,
    description: Option<String>,
    created_at: String,
    updated_at: String,
}

impl ProjectRow {
    fn project(self) -> Result<Project> {
        Ok(Project {
            created_at: time(&self.created_at)?,
            updated_at: time(&self.updated_at)?,
            id: self.id,
            org_id: self.org_id,
            slug: self.project_id,
            name: self.name,
            description: self.description,
        })
    }
}

#[derive(Deserialize)]
struct TokenBody {
    id: String,
    token: Option<String>,
    org_id: String,
    project_id: Option<String>,
    scopes: Vec<String>,
    prefix: String,
    name: Option<String>,
    created_at: String,
    expires_at: Option<String>,
    last_used_at: Option<String>,
    revoked_at: Option<String>,
}

impl TokenBody {
    fn row(self) -> Result<TokenRow> {
        let maybe = |text: Option<String>| text.as_deref().map(time).transpose();
        Ok(TokenRow {
            id: TokenId::new(&self.id),
            org_id: self.org_id,
            project: self.project_id,
            scopes: self.scopes.iter().map(|scope| Scope::parse(scope)).collect::<Result<_>>()?,
            prefix: self.prefix,
            name: self.name,
            created_at: time(&self.created_at)?,
            expires_at: maybe(self.expires_at)?,
            last_used_at: maybe(self.last_used_at)?,
            revoked_at: maybe(self.revoked_at)?,
        })
    }
}
