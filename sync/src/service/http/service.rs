//! What the service says of itself.

use axum::body::Body;
use axum::http::Response;

use super::answer::{Json, Refusal, bytes, chain, json};
use super::blocking;
use super::call::Call;

/// The version of agent-trace-service whose protocol version 1 is.
const PEER_VERSION: &str = "1.1.0";
/// What that calls its tables; there are none here, but clients may show it.
const SCHEMA_VERSION: &str = "agent-trace-2";
const DESCRIPTION: &str = include_str!("../../../../docs/openapi.json");

/// What can be asked, as agent-trace-service names it.
const ENDPOINTS: [(&str, &str); 22] = [
    ("auth_whoami", "GET /api/v1/auth/whoami"),
    ("blob_get", "GET /api/v1/blobs/<sha256>"),
    ("blob_head", "HEAD /api/v1/blobs/<sha256>"),
    ("blob_post", "POST /api/v1/blobs"),
    ("caps", "GET /api/v2/caps"),
    ("get_conversation", "GET /api/v1/conversations/<conversation_id>?project_id="),
    ("get_ledger", "GET /api/v1/ledgers/<commit_sha>?project_id="),
    ("get_trace", "GET /api/v1/traces/<id>?project_id="),
    ("health", "GET /health"),
    ("orgs_create", "POST /api/v1/orgs (X-Admin-Secret; optional id)"),
    ("projects_create", "POST /api/v1/projects (org-scoped + projects:write, or X-Admin-Secret)"),
    (
        "projects_delete",
        "DELETE /api/v1/projects/<project_id> (org-scoped + projects:write, or X-Admin-Secret)",
    ),
    ("projects_get", "GET /api/v1/projects/<project_id>"),
    ("projects_list", "GET /api/v1/projects"),
    ("sync_commit_links", "POST/GET /api/v1/sync/commit-links"),
    ("sync_conversations", "POST/GET /api/v1/sync/conversations"),
    ("sync_ledgers", "POST/GET /api/v1/sync/ledgers"),
    ("sync_summaries", "POST/GET /api/v1/sync/summaries"),
    ("sync_traces", "POST/GET /api/v1/sync/traces"),
    ("tokens_admin", "POST/GET /api/v1/tokens, DELETE /api/v1/tokens/<id> (X-Admin-Secret)"),
    ("tokens_verify", "POST /api/v1/tokens/verify"),
    ("version", "GET /api/v1/version"),
];

type Answer = Result<Response<Body>, Refusal>;

/// `GET /`
pub(super) async fn root(_: &mut Call) -> Answer {
    let endpoints = ENDPOINTS.iter().map(|(name, text)| (*name, Json::text(*text))).collect();
    let body = Json::Object(vec![
        ("name", Json::text("agent-trace-service")),
        ("version", Json::text(PEER_VERSION)),
        ("schema_version", Json::text(SCHEMA_VERSION)),
        ("description", Json::text("Keeps which agent wrote a line, in which conversation, and why.")),
        ("endpoints", Json::Object(endpoints)),
    ]);
    Ok(json(200, body))
}

/// `GET /health`
pub(super) async fn health(call: &mut Call) -> Answer {
    let state = call.state.clone();
    let now = state.env.clock.now();
    match blocking(move || state.accounts.orgs()).await {
        Ok(_) => Ok(json(
            200,
            Json::Object(vec![
                ("status", Json::text("ok")),
                ("db", Json::text("connected")),
                ("schema_version", Json::text(SCHEMA_VERSION)),
                ("build", Json::text(env!("CARGO_PKG_VERSION"))),
                ("timestamp", Json::time(now)),
            ]),
        )),
        Err(refusal) => {
            let members = vec![("status", Json::text("error")), ("db", Json::text("disconnected"))];
            let cause = refusal.cause.clone().unwrap_or_default();
            Err(Refusal::with(503, refusal.told().0, members).because(cause))
        }
    }
}

/// `GET /healthz`: the process answers.
pub(super) async fn alive(_: &mut Call) -> Answer {
    Ok(bytes(200, "text/plain", b"ok\n".to_vec()))
}

/// `GET /readyz`: the service can work, and is not about to stop.
pub(super) async fn ready(call: &mut Call) -> Answer {
    if *call.state.draining.borrow() {
        return Err(Refusal::draining());
    }
    let state = call.state.clone();
    let looked = tokio::task::spawn_blocking(move || state.accounts.orgs()).await;
    match looked {
        Ok(Ok(_)) => Ok(bytes(200, "text/plain", b"ready\n".to_vec())),
        Ok(Err(error)) => {
            Err(Refusal::new(503, "unavailable", "accounts cannot be read").because(chain(&error)))
        }
        Err(error) => Err(super::panicked(&error)),
    }
}

/// `GET /api/v1/version`
pub(super) async fn version(_: &mut Call) -> Answer {
    let body = Json::Object(vec![
        ("schema_version", Json::text(SCHEMA_VERSION)),
        ("build", Json::text(env!("CARGO_PKG_VERSION"))),
        ("name", Json::text("agent-trace-service")),
    ]);
    Ok(json(200, body))
}

/// `GET /api/openapi.json`
pub(super) async fn description(_: &mut Call) -> Answer {
    Ok(bytes(200, "application/json", DESCRIPTION.as_bytes().to_vec()))
}
