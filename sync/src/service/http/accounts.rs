//! Organisations, projects and tokens, as version 1 has them.

use agent_trace_store::id::{decode_hex, encode_hex};
use agent_trace_store::{Error, ErrorKind, Result as StoreResult, Timestamp};
use axum::body::Body;
use axum::http::Response;

use super::answer::{Json, Refusal, empty, json};
use super::blocking;
use super::call::{Call, Form};
use crate::address::Slug;
use crate::service::archive::{NewToken, Org, Project, TokenRow};
use crate::service::grant::{Grant, Scope, TokenId};
use crate::token::Token;

/// The organisation of requests that name none.
const DEFAULT_ORG_ID: &str = "00000000-0000-0000-0000-000000000001";
const NOTE: &str = "Store this token securely \u{2014} the plaintext is shown exactly once. \
    Use it as: Authorization: Bearer <token>.";

type Answer = Result<Response<Body>, Refusal>;

/// `POST /api/v1/orgs`
pub(super) async fn create_org(call: &mut Call) -> Answer {
    let form = call.form().await?;
    let Some(slug) = form.text("slug")?.map(str::to_owned) else {
        return Err(Refusal::plain(400, "slug is required"));
    };
    if Slug::parse(&slug).is_none() {
        return Err(Refusal::new(400, "invalid_slug", slug_message(&slug)));
    }
    let id = form.text("id")?.map(uuid).transpose()?;
    let name = form.text("name")?.map(str::to_owned);
    let state = call.state.clone();
    let conflict =
        Refusal::new(409, "org_slug_conflict", format!("Slug '{slug}' already belongs to another org"));
    let made = blocking_kinds(move || state.accounts.put_org(&slug, name.as_deref(), id.as_deref())).await?;
    match made {
        Ok((org, is_new)) => Ok(json(if is_new { 201 } else { 200 }, Json::Object(org_members(&org)))),
        Err(error) if error.kind() == ErrorKind::Conflict => Err(conflict),
        Err(error) => Err(error.into()),
    }
}

/// `POST /api/v1/tokens`
pub(super) async fn create_token(call: &mut Call) -> Answer {
    let form = call.form().await?;
    let org = org_by_id(call, form.text("org_id")?.unwrap_or(DEFAULT_ORG_ID)).await?;
    let scopes = match form.texts("scopes")?.filter(|scopes| !scopes.is_empty()) {
        None => vec![Scope::Read, Scope::Write],
        Some(scopes) => scopes.iter().map(|scope| Scope::parse(scope)).collect::<StoreResult<_>>()?,
    };
    let expires_at = form.text("expires_at")?.map(|text| {
        Timestamp::parse(text)
            .ok_or_else(|| Refusal::new(400, "invalid", "expires_at must be an RFC 3339 date and time"))
    });
    let project = form.text("project_id")?.map(str::to_owned);
    if project.as_deref().is_some_and(|project| Slug::parse(project).is_none()) {
        return Err(Refusal::new(400, "invalid_slug", slug_message(project.as_deref().unwrap_or_default())));
    }
    let new = NewToken {
        org_id: org.id,
        project,
        scopes,
        name: form.text("name")?.map(str::to_owned),
        expires_at: expires_at.transpose()?,
    };
    let state = call.state.clone();
    let (row, token): (TokenRow, Token) = blocking(move || state.accounts.create_token(&new)).await?;
    let mut members = vec![
        ("id", Json::text(row.id.as_str())),
        ("token", Json::text(token.expose())),
        ("prefix", Json::text(row.prefix)),
        ("org_id", Json::text(row.org_id)),
        ("project_id", Json::option(row.project)),
        ("scopes", scopes_json(&row.scopes)),
        ("name", Json::option(row.name)),
        ("note", Json::text(NOTE)),
        ("created_at", Json::time(row.created_at)),
    ];
    if let Some(expires_at) = row.expires_at {
        members.push(("expires_at", Json::time(expires_at)));
    }
    Ok(json(201, Json::Object(members)))
}

/// `GET /api/v1/tokens`
pub(super) async fn tokens(call: &mut Call) -> Answer {
    let org = call.query("org_id").map(str::to_owned);
    let state = call.state.clone();
    let rows = blocking(move || state.accounts.tokens(org.as_deref())).await?;
    let items = rows.iter().map(token_json).collect();
    Ok(json(200, Json::Object(vec![("items", Json::List(items))])))
}

/// `DELETE /api/v1/tokens/<id>`
pub(super) async fn revoke_token(call: &mut Call) -> Answer {
    let (state, id) = (call.state.clone(), TokenId::new(call.param("id")));
    if blocking(move || state.accounts.revoke_token(&id)).await? {
        return Ok(json(200, Json::Object(vec![("ok", Json::Bool(true))])));
    }
    Err(Refusal::plain(404, "Token not found or already revoked"))
}

/// `POST /api/v1/tokens/verify`
pub(super) async fn verify_token(call: &mut Call) -> Answer {
    let form = call.form().await?;
    let Some(token) = form.text("token")?.map(str::to_owned) else {
        return Err(Refusal::plain(400, "token is required"));
    };
    let state = call.state.clone();
    let grant = blocking(move || state.accounts.authenticate(&token)).await?;
    let Some(grant) = grant else {
        let members = vec![("valid", Json::Bool(false))];
        return Err(Refusal::with(401, "Invalid or revoked token", members));
    };
    let body = Json::Object(vec![
        ("valid", Json::Bool(true)),
        ("org_id", Json::text(&grant.org_id)),
        ("org_slug", Json::text(&grant.org_slug)),
        ("project_id", Json::option(grant.project)),
        ("scopes", scopes_json(&grant.scopes)),
    ]);
    Ok(json(200, body))
}

/// `GET /api/v1/auth/whoami`
pub(super) async fn whoami(call: &mut Call) -> Answer {
    let grant = call.grant();
    let body = Json::Object(vec![
        ("org_id", Json::text(&grant.org_id)),
        ("org_slug", Json::text(&grant.org_slug)),
        ("project_id_scope", Json::option(grant.project.clone())),
        ("scopes", scopes_json(&grant.scopes)),
    ]);
    Ok(json(200, body))
}

/// `POST /api/v1/projects`
pub(super) async fn create_project(call: &mut Call) -> Answer {
    let may = may_change_projects(call).await?;
    let form = call.form().await?;
    let org_id = org_of_change(call, may, &form).await?;
    let Some(slug) = form.text("project_id")?.map(str::to_owned) else {
        return Err(Refusal::plain(400, "project_id is required"));
    };
    if Slug::parse(&slug).is_none() {
        return Err(Refusal::new(400, "invalid_slug", slug_message(&slug)));
    }
    let name = form.text("name")?.map(str::to_owned);
    let description = form.text("description")?.map(str::to_owned);
    let exists = Refusal::new(409, "project_exists", format!("Project '{slug}' already exists in this org"));
    let state = call.state.clone();
    let made = blocking_kinds(move || {
        state.accounts.create_project(&org_id, &slug, name.as_deref(), description.as_deref())
    });
    match made.await? {
        Ok(project) => Ok(json(201, project_json(&project))),
        Err(error) if error.kind() == ErrorKind::Conflict => Err(exists),
        Err(error) => Err(error.into()),
    }
}

/// `GET /api/v1/projects`
pub(super) async fn projects(call: &mut Call) -> Answer {
    let grant = call.grant().clone();
    let (state, org) = (call.state.clone(), grant.org_id.clone());
    let projects = blocking(move || state.accounts.projects(&org)).await?;
    let items = projects.iter().filter(|project| grant.reaches(&project.slug)).map(project_json).collect();
    Ok(json(200, Json::Object(vec![("items", Json::List(items))])))
}

/// `GET /api/v1/projects/<project>`
pub(super) async fn project(call: &mut Call) -> Answer {
    let found = call.project(Some(call.param("project"))).await;
    match found {
        Ok(project) => Ok(json(200, project_json(&project))),
        Err(refusal) if refusal.status() == 404 => Err(Refusal::plain(404, "Project not found")),
        Err(refusal) => Err(refusal),
    }
}

/// `DELETE /api/v1/projects/<project>`
pub(super) async fn delete_project(call: &mut Call) -> Answer {
    let may = may_change_projects(call).await?;
    let form = call.form().await?;
    let org_id = org_of_change(call, may, &form).await?;
    let slug = call.param("project").to_owned();
    let missing = Refusal::new(404, "project_not_found", format!("Project '{slug}' not found in this org"));
    let state = call.state.clone();
    if blocking(move || state.accounts.delete_project(&org_id, &slug)).await? {
        return Ok(empty(204));
    }
    Err(missing)
}

/// Who changes projects.
enum Changer {
    Admin,
    Token(Grant),
}

async fn may_change_projects(call: &mut Call) -> Result<Changer, Refusal> {
    if call.is_admin().await? {
        return Ok(Changer::Admin);
    }
    if !call.headers.contains_key("authorization") {
        let message = "Project admin requires X-Admin-Secret or org-scoped Bearer token";
        return Err(Refusal::plain(401, message));
    }
    call.authenticate(None).await?;
    call.check_prefix()?;
    let grant = call.grant().clone();
    if grant.project.is_some() || !grant.allows(Scope::ProjectsWrite) {
        let message = "Token must be org-scoped (no project_id_scope) and carry the 'projects:write' scope. \
            Admin can also use X-Admin-Secret.";
        return Err(Refusal::plain(403, message));
    }
    Ok(Changer::Token(grant))
}

/// The organisation whose projects are changed.
async fn org_of_change(call: &Call, changer: Changer, form: &Form) -> Result<String, Refusal> {
    let named = form.text("org_slug")?.or(call.query("org_slug")).or(call.at_org());
    let named = named.filter(|slug| !slug.is_empty());
    match changer {
        Changer::Token(grant) => match named.filter(|slug| *slug != grant.org_slug) {
            None => Ok(grant.org_id),
            Some(other) => {
                let message = format!(
                    "Token belongs to org '{}' but request targets org '{other}'. The org slug in the URL must \
                     match the token's org.",
                    grant.org_slug
                );
                let members = vec![
                    ("code", Json::text("org_slug_mismatch")),
                    ("expected", Json::text(&grant.org_slug)),
                    ("got", Json::text(other)),
                ];
                Err(Refusal::with(403, message, members))
            }
        },
        Changer::Admin => {
            let id = form.text("org_id")?.or(call.query("org_id")).filter(|id| !id.is_empty());
            let Some(slug) = named else {
                return Ok(org_by_id(call, id.unwrap_or(DEFAULT_ORG_ID)).await?.id);
            };
            let org = orgs_of(call).await?.into_iter().find(|org| org.slug == slug);
            let Some(org) = org else {
                let message = format!("Org with slug '{slug}' does not exist");
                return Err(Refusal::new(404, "org_not_found", message));
            };
            match id.filter(|id| *id != org.id) {
                None => Ok(org.id),
                Some(other) => {
                    let message = format!(
                        "org_id and org_slug refer to different orgs: slug '{slug}' resolves to {} but org_id was \
                         '{other}'",
                        org.id
                    );
                    Err(Refusal::new(400, "org_slug_mismatch", message))
                }
            }
        }
    }
}

pub(super) async fn orgs_of(call: &Call) -> Result<Vec<Org>, Refusal> {
    let state = call.state.clone();
    blocking(move || state.accounts.orgs()).await
}

async fn org_by_id(call: &Call, id: &str) -> Result<Org, Refusal> {
    let found = orgs_of(call).await?.into_iter().find(|org| org.id == id);
    found.ok_or_else(|| Refusal::plain(404, format!("Org '{id}' does not exist")))
}

/// Does blocking work and hands its error over as it is.
async fn blocking_kinds<T: Send + 'static>(
    work: impl FnOnce() -> StoreResult<T> + Send + 'static,
) -> Result<Result<T, Error>, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| super::panicked(&error))
}

/// A UUID in its one spelling.
fn uuid(text: &str) -> Result<String, Refusal> {
    let text = text.trim_start_matches("urn:").trim_start_matches("uuid:");
    let digits = text.trim_matches(['{', '}']).replace('-', "").to_ascii_lowercase();
    let mut bytes = [0; 16];
    if digits.len() != 32 || !decode_hex(&digits, &mut bytes) {
        return Err(Refusal::new(400, "invalid_id", "id must be a UUID"));
    }
    let hex = encode_hex(&bytes);
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

fn slug_message(slug: &str) -> String {
    format!("Invalid slug '{slug}': must match ^[a-z0-9][a-z0-9._-]{{0,63}}$")
}

pub(super) fn org_members(org: &Org) -> Vec<(&'static str, Json)> {
    let mut members = vec![
        ("id", Json::text(&org.id)),
        ("slug", Json::text(&org.slug)),
        ("name", Json::text(&org.name)),
        ("created_at", Json::time(org.created_at)),
    ];
    members.extend(org.quota_bytes.map(|quota| ("quota_bytes", Json::Number(quota))));
    members
}

pub(super) fn project_json(project: &Project) -> Json {
    Json::Object(vec![
        ("id", Json::text(&project.id)),
        ("org_id", Json::text(&project.org_id)),
        ("project_id", Json::text(&project.slug)),
        ("name", Json::option(project.name.clone())),
        ("description", Json::option(project.description.clone())),
        ("created_at", Json::time(project.created_at)),
        ("updated_at", Json::time(project.updated_at)),
    ])
}

pub(super) fn token_json(row: &TokenRow) -> Json {
    let time = |time: Option<Timestamp>| time.map_or(Json::Null, Json::time);
    Json::Object(vec![
        ("id", Json::text(row.id.as_str())),
        ("org_id", Json::text(&row.org_id)),
        ("project_id", Json::option(row.project.clone())),
        ("scopes", scopes_json(&row.scopes)),
        ("prefix", Json::text(&row.prefix)),
        ("name", Json::option(row.name.clone())),
        ("created_at", time(Some(row.created_at))),
        ("expires_at", time(row.expires_at)),
        ("last_used_at", time(row.last_used_at)),
        ("revoked_at", time(row.revoked_at)),
    ])
}

fn scopes_json(scopes: &[Scope]) -> Json {
    Json::List(scopes.iter().map(|scope| Json::text(scope.name())).collect())
}
