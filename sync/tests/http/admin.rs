//! What only the admin may ask: what it lists, and that the routes are not there for others.

use agent_trace_sync::service::archive::Accounts as _;
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::service::http::{Access, ROUTES};
use serde_json::Value;

use crate::client::{Answer, Ask};
use crate::service::{ADMIN, Service};

fn list(service: &Service, path: &str) -> Value {
    let answer = service.ask(&Ask::new("GET", path).header("X-Admin-Secret", ADMIN));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn column(page: &Value, name: &str) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
}

/// What may differ: the date and the id of the request.
fn comparable(mut answer: Answer) -> Answer {
    answer.headers.retain(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()));
    answer
}

#[test]
fn hidden_routes_are_not_there_for_others_than_the_admin() {
    let service = Service::start();
    let token = service.token(0, None, &[Scope::Admin]);
    let nowhere = comparable(service.ask(&Ask::new("GET", "/api/none")));
    assert_eq!(
        (nowhere.status, nowhere.text()),
        (404, "{\"code\":\"not_found\",\"error\":\"no such route\"}\n")
    );
    let hidden: Vec<_> = ROUTES.iter().filter(|route| route.access == Access::Hidden).collect();
    assert!(!hidden.is_empty());
    for route in hidden {
        for org in ["acme", "other", "none"] {
            let path = route.path.replace("{org}", org);
            for ask in [
                Ask::new(route.method, &path),
                Ask::new(route.method, format!("/at/acme/web{path}")),
                Ask::new("DELETE", &path),
                Ask::new(route.method, &path).token(&token),
                Ask::new(route.method, &path).token("at_none"),
                Ask::new(route.method, &path).header("X-Admin-Secret", ""),
                Ask::new(route.method, &path).header("X-Admin-Secret", &ADMIN[1..]),
                Ask::new(route.method, &path).header("X-Admin-Secret", token.clone()),
            ] {
                assert_eq!(comparable(service.ask(&ask)), nowhere, "{ask:?}");
            }
        }
    }
}

#[test]
fn the_admin_lists_orgs_and_the_projects_and_tokens_of_each() {
    let service = Service::start();
    let secret = service.token(0, Some("web"), &[Scope::Read, Scope::Write]);
    let _used = service.get("/api/v1/auth/whoami", &secret);
    let other = service.token(1, None, &[Scope::Admin]);
    let orgs = list(&service, "/api/admin/orgs");
    assert_eq!(
        (column(&orgs, "slug"), &orgs["next"]),
        (vec!["default".into(), "acme".into(), "other".into()], &Value::Null)
    );
    let rest = list(&service, &format!("/api/admin/orgs?after={}", column(&orgs, "id")[0]));
    assert_eq!(column(&rest, "slug"), ["acme", "other"]);
    // By slug and by id, newest first.
    for org in ["acme", &service.orgs[0]] {
        let projects = list(&service, &format!("/api/admin/orgs/{org}/projects"));
        assert_eq!(column(&projects, "project_id"), ["ops", "web"]);
        let tokens = list(&service, &format!("/api/admin/orgs/{org}/tokens"));
        let items = tokens["items"].as_array().unwrap();
        assert_eq!(items.len(), 1);
        assert_eq!(
            (&items[0]["project_id"], &items[0]["scopes"]),
            (&"web".into(), &serde_json::json!(["read", "write"]))
        );
        assert!(items[0]["last_used_at"].is_string() && items[0]["expires_at"].is_null(), "{tokens}");
        for secret in [&secret, &other] {
            assert!(!tokens.to_string().contains(secret.rsplit('_').nth(1).unwrap()), "{tokens}");
        }
    }
    let id = service.accounts.tokens(Some(&service.orgs[1])).unwrap()[0].id.clone();
    let ask = Ask::new("DELETE", format!("/api/v1/tokens/{}", id.as_str())).header("X-Admin-Secret", ADMIN);
    assert_eq!(service.ask(&ask).status, 200);
    let tokens = list(&service, "/api/admin/orgs/other/tokens");
    assert!(tokens["items"][0]["revoked_at"].is_string(), "{tokens}");
}
