//! The description of the service says what the service does.

use std::collections::BTreeSet;

use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::service::http::{Access, ROUTES};
use serde_json::Value;

use crate::client::Ask;
use crate::service::{ADMIN, Service};

fn description() -> Value {
    serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap()
}

#[test]
fn every_route_is_described_and_no_other() {
    let description = description();
    let routes: BTreeSet<(String, String)> = ROUTES
        .iter()
        .map(|route| (route.path.replace("{*", "{"), route.method.to_ascii_lowercase()))
        .collect();
    let described: BTreeSet<(String, String)> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone()))
        })
        .collect();
    assert_eq!(described, routes);
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let described = &description["paths"][&path][route.method.to_ascii_lowercase()];
        let security = match route.access {
            Access::Open => serde_json::json!([]),
            Access::Token(_) => serde_json::json!([{"token": []}]),
            Access::Admin | Access::Hidden => serde_json::json!([{"admin": []}]),
            Access::AdminOrToken => serde_json::json!([{"admin": []}, {"token": []}]),
        };
        assert_eq!(described["security"], security, "{} {path}", route.method);
        let parts = path.split('/').filter(|part| part.starts_with('{')).count();
        let params = described["parameters"]
            .as_array()
            .map_or(0, |params| params.iter().filter(|param| param["in"] == "path").count());
        assert_eq!(params, parts, "{} {path}", route.method);
    }
}

/// Whether a value fits a schema, as far as the description uses them.
fn fits(all: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return fits(all, &all["components"]["schemas"][name], value).map_err(|why| format!("{name}: {why}"));
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.contains(&kind) {
        return Err(format!("expected {kinds:?}, found {kind}"));
    }
    for item in value.as_array().into_iter().flatten() {
        fits(all, &schema["items"], item)?;
    }
    let Some(members) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        members.get(name.as_str().unwrap()).ok_or(format!("no {name}"))?;
    }
    if let Some(properties) = schema["properties"].as_object() {
        for (name, value) in members {
            let schema = properties.get(name).ok_or(format!("`{name}` is not described"))?;
            fits(all, schema, value).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    Ok(())
}

#[test]
fn answers_fit_their_schemas() {
    let service = Service::start();
    let description = description();
    let token = service.token(0, None, &[Scope::Read, Scope::Write, Scope::ProjectsWrite]);
    let segment = "ab".repeat(32);
    let asks = [
        ("GET", "/", "/", ""),
        ("GET", "/health", "/health", ""),
        ("GET", "/api/openapi.json", "/api/openapi.json", ""),
        ("GET", "/api/v1/version", "/api/v1/version", ""),
        ("POST", "/api/v1/orgs", "/api/v1/orgs", r#"{"slug":"new"}"#),
        ("POST", "/api/v1/orgs", "/api/v1/orgs", r#"{}"#),
        ("POST", "/api/v1/tokens", "/api/v1/tokens", r#"{"expires_at":"2999-01-01T00:00:00Z"}"#),
        ("GET", "/api/v1/tokens", "/api/v1/tokens", ""),
        ("GET", "/api/admin/orgs", "/api/admin/orgs", ""),
        ("GET", "/api/admin/orgs", "/api/admin/orgs?after=none", ""),
        ("GET", "/api/admin/orgs/{org}", "/api/admin/orgs/acme", ""),
        ("PATCH", "/api/admin/orgs/{org}", "/api/admin/orgs/acme", r#"{"quota_bytes":1000000}"#),
        ("PATCH", "/api/admin/orgs/{org}", "/api/admin/orgs/acme", r#"{"quota_bytes":-1}"#),
        ("GET", "/api/admin/orgs", "/api/admin/orgs", ""),
        ("GET", "/api/admin/orgs/{org}/projects", "/api/admin/orgs/acme/projects", ""),
        ("GET", "/api/admin/orgs/{org}/tokens", "/api/admin/orgs/acme/tokens", ""),
        ("GET", "/api/admin/orgs/{org}/tokens", "/api/admin/orgs/none/tokens", ""),
        ("GET", "/api/v1/auth/whoami", "/api/v1/auth/whoami", ""),
        ("POST", "/api/v1/tokens/verify", "/api/v1/tokens/verify", &format!(r#"{{"token":"{token}"}}"#)),
        ("POST", "/api/v1/projects", "/api/v1/projects", r#"{"project_id":"new","org_slug":"acme"}"#),
        ("GET", "/api/v1/projects", "/api/v1/projects", ""),
        ("GET", "/api/v1/projects/{project}", "/api/v1/projects/web", ""),
        (
            "POST",
            "/api/v1/sync/traces",
            "/api/v1/sync/traces",
            r#"{"project_id":"web","items":[1,{"id":"a"}]}"#,
        ),
        ("GET", "/api/v1/sync/traces", "/api/v1/sync/traces?project_id=web", ""),
        ("GET", "/api/v1/traces/{id}", "/api/v1/traces/a?project_id=web", ""),
        (
            "POST",
            "/api/v1/sync/conversations",
            "/api/v1/sync/conversations",
            r#"{"project_id":"web","items":[{"conversation_id":"c","content":"x"}]}"#,
        ),
        ("GET", "/api/v1/conversations/{id}", "/api/v1/conversations/c?project_id=web", ""),
        ("GET", "/api/v1/conversations/{id}", "/api/v1/conversations/none?project_id=web", ""),
        ("POST", "/api/v1/blobs", "/api/v1/blobs", "bytes"),
        ("GET", "/api/v2/caps", "/api/v2/caps", ""),
        (
            "GET",
            "/api/v2/{org}/{project}/uploads/{segment}",
            &format!("/api/v2/acme/web/uploads/{segment}"),
            "",
        ),
        ("POST", "/api/v2/{org}/{project}/commit", "/api/v2/acme/web/commit", "x"),
        ("GET", "/api/v2/{org}/{project}/pull", "/api/v2/acme/web/pull", ""),
    ];
    for (method, path, target, body) in asks {
        let ask = Ask::new(method, target).body(body);
        let by_admin = path == "/api/v1/orgs" || path == "/api/v1/tokens" || path.starts_with("/api/admin/");
        let ask = if by_admin { ask.header("X-Admin-Secret", ADMIN) } else { ask.token(&token) };
        let answer = service.ask(&ask);
        let responses = &description["paths"][path][method.to_ascii_lowercase()]["responses"];
        let response = responses.get(answer.status.to_string()).unwrap_or(&responses["default"]);
        let schema = &response["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path}: {answer:?}");
        assert_eq!(answer.status >= 400, response == &responses["default"], "{method} {path}: {answer:?}");
        if let Err(why) = fits(&description, schema, &answer.json()) {
            panic!("{method} {path}: {why} in {}", answer.text());
        }
    }
}
