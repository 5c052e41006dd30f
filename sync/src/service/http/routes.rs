//! Every route, in one table, and what is done around each: ids, limits, who may, counting, the log.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use agent_trace_store::id::encode_hex;
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response};
use axum::routing::any;

use super::answer::Refusal;
use super::body::Incoming;
use super::call::Call;
use super::limits::{HEADER_BYTES_MAX, REFUSED_BODY_BYTES_MAX, REQUEST_ID_BYTES_MAX};
use super::{State, accounts, admin, blobs, pages, protocol, records, service};
use crate::service::grant::Scope;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Who has a token, with this scope where one is named.
    Token(Option<Scope>),
    /// The admin.
    Admin,
    /// The admin; to everybody else the route is one that does not exist.
    Hidden,
    /// The admin, or who has a token with `projects:write` for the organisation.
    AdminOrToken,
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response<Body>, Refusal>> + Send + 'a>>;

/// A method on a path.
pub struct Route {
    /// The method; `GET` answers `HEAD` too.
    pub method: &'static str,
    /// The path, with names of its parts in braces.
    pub path: &'static str,
    /// Who may.
    pub access: Access,
    handler: for<'a> fn(&'a mut Call) -> Answer<'a>,
}

impl Route {
    /// Whether it is of version 2, whose errors all have codes.
    pub(super) fn is_v2(&self) -> bool {
        self.path.starts_with("/api/v2/")
    }
}

const READ: Access = Access::Token(Some(Scope::Read));
const WRITE: Access = Access::Token(Some(Scope::Write));

macro_rules! routes {
    ($($method:literal $path:literal $access:expr => $handler:path,)*) => {
        &[$(Route {
            method: $method,
            path: $path,
            access: $access,
            handler: |call| Box::pin($handler(call)),
        },)*]
    };
}

/// All routes. Those below `/api/` are found below `/at/<org>/<project>/` too.
pub static ROUTES: &[Route] = routes![
    "GET" "/" Access::Open => service::root,
    "GET" "/health" Access::Open => service::health,
    "GET" "/healthz" Access::Open => service::alive,
    "GET" "/readyz" Access::Open => service::ready,
    "GET" "/api/openapi.json" Access::Open => service::description,
    "GET" "/api/v1/version" Access::Open => service::version,
    "POST" "/api/v1/orgs" Access::Admin => accounts::create_org,
    "POST" "/api/v1/tokens" Access::Admin => accounts::create_token,
    "GET" "/api/v1/tokens" Access::Admin => accounts::tokens,
    "DELETE" "/api/v1/tokens/{id}" Access::Admin => accounts::revoke_token,
    "GET" "/api/admin/orgs" Access::Hidden => admin::orgs,
    "GET" "/api/admin/orgs/{org}" Access::Hidden => admin::org,
    "PATCH" "/api/admin/orgs/{org}" Access::Hidden => admin::change_org,
    "GET" "/api/admin/orgs/{org}/projects" Access::Hidden => admin::projects,
    "GET" "/api/admin/orgs/{org}/tokens" Access::Hidden => admin::tokens,
    "POST" "/api/v1/tokens/verify" Access::Open => accounts::verify_token,
    "GET" "/api/v1/auth/whoami" Access::Token(None) => accounts::whoami,
    "POST" "/api/v1/projects" Access::AdminOrToken => accounts::create_project,
    "GET" "/api/v1/projects" READ => accounts::projects,
    "GET" "/api/v1/projects/{project}" READ => accounts::project,
    "DELETE" "/api/v1/projects/{project}" Access::AdminOrToken => accounts::delete_project,
    "POST" "/api/v1/sync/traces" WRITE => records::put_traces,
    "POST" "/api/v1/sync/ledgers" WRITE => records::put_ledgers,
    "POST" "/api/v1/sync/commit-links" WRITE => records::put_commit_links,
    "POST" "/api/v1/sync/conversations" WRITE => records::put_conversations,
    "POST" "/api/v1/sync/summaries" WRITE => records::put_summaries,
    "GET" "/api/v1/sync/traces" READ => pages::traces,
    "GET" "/api/v1/sync/ledgers" READ => pages::ledgers,
    "GET" "/api/v1/sync/commit-links" READ => pages::commit_links,
    "GET" "/api/v1/sync/conversations" READ => pages::conversations,
    "GET" "/api/v1/sync/summaries" READ => pages::summaries,
    "GET" "/api/v1/traces/{id}" READ => pages::trace,
    "GET" "/api/v1/ledgers/{id}" READ => pages::ledger,
    "GET" "/api/v1/conversations/{*id}" READ => pages::conversation,
    "HEAD" "/api/v1/blobs/{sha256}" Access::Token(None) => blobs::head,
    "POST" "/api/v1/blobs" WRITE => blobs::put,
    "GET" "/api/v1/blobs/{sha256}" READ => blobs::get,
    "GET" "/api/v2/caps" Access::Open => protocol::caps,
    "GET" "/api/v2/{org}/{project}/arrivals" READ => protocol::arrivals,
    "POST" "/api/v2/{org}/{project}/reconcile" READ => protocol::reconcile,
    "POST" "/api/v2/{org}/{project}/fetch" READ => protocol::fetch,
    "POST" "/api/v2/{org}/{project}/holds" READ => protocol::holds,
    "GET" "/api/v2/{org}/{project}/uploads/{segment}" WRITE => protocol::uploaded,
    "PUT" "/api/v2/{org}/{project}/uploads/{segment}" WRITE => protocol::upload,
    "POST" "/api/v2/{org}/{project}/commit" WRITE => protocol::commit,
    "GET" "/api/v2/{org}/{project}/pull" READ => protocol::pull,
    "GET" "/api/v2/{org}/{project}/objects/{id}" READ => protocol::object,
];

/// The row that counts requests to no route.
pub(super) const NO_ROUTE: usize = ROUTES.len();

const PREFIX: &str = "/at/{at_org}/{at_project}";

/// The routes and the row for everything else, as they are counted.
pub(super) fn counted() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.iter().map(|route| (route.path, route.method)).chain([("none", "any")])
}

/// The router over the table.
pub(super) fn router(state: &Arc<State>) -> Router {
    let mut router = Router::new();
    let mut paths: Vec<&'static str> = ROUTES.iter().map(|route| route.path).collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        let rows: Vec<usize> = (0..ROUTES.len()).filter(|row| ROUTES[*row].path == path).collect();
        let rows: Arc<[usize]> = rows.into();
        let handler = || {
            let (state, rows) = (state.clone(), rows.clone());
            any(move |request: Request<Body>| dispatch(state.clone(), rows.clone(), request))
        };
        router = router.route(path, handler());
        if path.starts_with("/api/") {
            router = router.route(&format!("{PREFIX}{path}"), handler());
        }
    }
    let state = state.clone();
    router.fallback(move |request: Request<Body>| dispatch(state.clone(), Arc::new([]), request))
}

/// Counts a request and writes its line of the log, also where the client goes before the answer.
struct Record {
    state: Arc<State>,
    row: usize,
    method: Method,
    id: String,
    began: Instant,
    is_done: bool,
}

/// The status that stands for a client that went before the answer.
const CLIENT_GONE: u16 = 499;

impl Record {
    fn end(&mut self, status: u16, cause: Option<&str>) {
        self.is_done = true;
        let took = self.began.elapsed();
        self.state.metrics.request(self.row, status, took);
        let (route, method) = (ROUTES.get(self.row).map_or("none", |route| route.path), self.method.as_str());
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let id = self.id.as_str();
        match status {
            500.. => tracing::error!(id, method, route, status, micros, cause, "request"),
            _ => tracing::info!(id, method, route, status, micros, cause, "request"),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.state.metrics.in_progress.fetch_sub(1, Ordering::Relaxed);
        if !self.is_done {
            self.end(CLIENT_GONE, None);
        }
    }
}

async fn dispatch(state: Arc<State>, rows: Arc<[usize]>, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let row = row(&rows, &parts.method);
    let mut record = Record {
        state: state.clone(),
        row: row.unwrap_or(NO_ROUTE),
        method: parts.method.clone(),
        id: request_id(&state, &parts),
        began: Instant::now(),
        is_done: false,
    };
    state.metrics.in_progress.fetch_add(1, Ordering::Relaxed);
    let mut body = Some(body);
    let answer = match row {
        Some(row) => answer(&state, &ROUTES[row], &mut parts, &mut body).await,
        None if rows.iter().all(|row| ROUTES[*row].access == Access::Hidden) => Err(no_route()),
        None => {
            let methods: Vec<_> = rows.iter().map(|row| ROUTES[*row].method).collect();
            Err(Refusal::new(405, "method", "no such method here").allow(methods.join(", ")))
        }
    };
    let mut response = match answer {
        Ok(response) => {
            record.end(response.status().as_u16(), None);
            response
        }
        Err(refusal) => {
            if let Some(body) = body.filter(|_| is_worth_reading(&parts)) {
                Incoming::new(body, "the body", REFUSED_BODY_BYTES_MAX, &state.waits).discard().await;
            }
            record.end(refusal.status(), refusal.cause.as_deref());
            refusal.into_response()
        }
    };
    if let Ok(id) = HeaderValue::from_str(&record.id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

/// The answer to a route that does not exist, or must not be known to.
fn no_route() -> Refusal {
    Refusal::new(404, "not_found", "no such route")
}

/// Whether a client sends its body without asking first, so that it comes to the answer only after that.
fn is_worth_reading(parts: &Parts) -> bool {
    !parts.headers.contains_key("expect")
        && super::body::length(&parts.headers).is_none_or(|length| length <= REFUSED_BODY_BYTES_MAX)
}

fn row(rows: &[usize], method: &Method) -> Option<usize> {
    let find = |wanted: &str| rows.iter().copied().find(|row| ROUTES[*row].method == wanted);
    find(method.as_str()).or_else(|| if method == Method::HEAD { find("GET") } else { None })
}

/// The id that the client sent, where it is one, or a new one.
fn request_id(state: &State, parts: &Parts) -> String {
    let given = parts.headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let fits = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    given.filter(fits).map_or_else(
        || {
            let mut id = [0; 16];
            state.env.entropy.fill(&mut id);
            encode_hex(&id)
        },
        str::to_owned,
    )
}

async fn answer(
    state: &Arc<State>,
    route: &'static Route,
    parts: &mut Parts,
    body: &mut Option<Body>,
) -> Result<Response<Body>, Refusal> {
    let _turn = state.turns.request()?;
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let headers: usize =
        parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if target + headers > HEADER_BYTES_MAX {
        let message = format!("headers are over {HEADER_BYTES_MAX} bytes");
        return Err(Refusal::new(431, "too_large", message));
    }
    let params = RawPathParams::from_request_parts(parts, &())
        .await
        .map_err(|_| Refusal::new(400, "invalid", "the path is not UTF-8"))?;
    let params = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let query = parts.uri.query().unwrap_or_default();
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let headers = parts.headers.clone();
    let mut call = Call {
        state: state.clone(),
        route,
        headers,
        query,
        params,
        body: Mutex::new(body.take()),
        grant: None,
    };
    let answer = admitted(&mut call).await;
    *body = call.take_body();
    answer
}

async fn admitted(call: &mut Call) -> Result<Response<Body>, Refusal> {
    match call.route.access {
        Access::Open | Access::AdminOrToken => {}
        Access::Token(scope) => {
            call.authenticate(scope).await?;
            // A client that asks who it is learns that it is elsewhere.
            if !call.route.path.ends_with("/auth/whoami") {
                call.check_prefix()?;
            }
        }
        Access::Admin => {
            if !call.is_admin().await? {
                return Err(Refusal::plain(403, "Admin secret required"));
            }
        }
        Access::Hidden => {
            if !call.is_admin().await? {
                return Err(no_route());
            }
        }
    }
    (call.route.handler)(call).await
}
