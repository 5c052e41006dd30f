//! What only the admin may ask: all organisations, and the projects and tokens of each. Secrets are not kept, so no
//! answer has them.
//!
//! Lists come in pages: `after` is the id of the last row that is known, `next` in an answer is what to ask after.

use axum::body::Body;
use axum::http::Response;

use super::accounts::{org_members, orgs_of, project_json, token_json};
use super::answer::{Json, Refusal, json};
use super::blocking;
use super::call::Call;
use super::limits::ADMIN_ROWS_MAX;
use crate::service::archive::Org;

type Answer = Result<Response<Body>, Refusal>;

/// `GET /api/admin/orgs`
pub(super) async fn orgs(call: &mut Call) -> Answer {
    let orgs = orgs_of(call).await?;
    page(call, &orgs, |org| &org.id, |org| Json::Object(org_members(org)))
}

/// `GET /api/admin/orgs/<org>`
pub(super) async fn org(call: &mut Call) -> Answer {
    let org = named(call).await?;
    shown(call, org).await
}

/// `PATCH /api/admin/orgs/<org>`
pub(super) async fn change_org(call: &mut Call) -> Answer {
    let org = named(call).await?;
    let form = call.form().await?;
    let Some(quota_bytes) = form.number("quota_bytes")? else {
        return Err(Refusal::new(
            400,
            "invalid",
            "quota_bytes is required: a whole number, or null for no quota",
        ));
    };
    let (state, id) = (call.state.clone(), org.id.clone());
    let changed = blocking(move || state.accounts.set_quota(&id, quota_bytes)).await?;
    shown(call, changed.ok_or_else(|| no_org(&org.slug))?).await
}

/// An organisation with what it has stored.
async fn shown(call: &Call, org: Org) -> Answer {
    let (state, id) = (call.state.clone(), org.id.clone());
    let usage = blocking(move || state.accounts.usage(&id)).await?;
    let mut members = org_members(&org);
    members.push(("used_bytes", Json::Number(usage.bytes)));
    members.push(("uploads", Json::Number(usage.uploads)));
    Ok(json(200, Json::Object(members)))
}

fn no_org(name: &str) -> Refusal {
    Refusal::new(404, "org_not_found", format!("Org '{name}' does not exist"))
}

/// `GET /api/admin/orgs/<org>/projects`
pub(super) async fn projects(call: &mut Call) -> Answer {
    let (state, org) = (call.state.clone(), named(call).await?);
    let projects = blocking(move || state.accounts.projects(&org.id)).await?;
    page(call, &projects, |project| &project.id, project_json)
}

/// `GET /api/admin/orgs/<org>/tokens`
pub(super) async fn tokens(call: &mut Call) -> Answer {
    let (state, org) = (call.state.clone(), named(call).await?);
    let rows = blocking(move || state.accounts.tokens(Some(&org.id))).await?;
    page(call, &rows, |row| row.id.as_str(), token_json)
}

/// The organisation of the path, by its id or slug.
async fn named(call: &Call) -> Result<Org, Refusal> {
    let name = call.param("org");
    let found = orgs_of(call).await?.into_iter().find(|org| org.id == name || org.slug == name);
    found.ok_or_else(|| no_org(name))
}

fn page<T>(call: &Call, rows: &[T], id: impl Fn(&T) -> &str, show: impl Fn(&T) -> Json) -> Answer {
    let Some((shown, next)) = cut(rows, call.query("after"), &id, ADMIN_ROWS_MAX) else {
        return Err(Refusal::new(409, "after", "what to list after is not there any more"));
    };
    let items = Json::List(shown.iter().map(show).collect());
    Ok(json(200, Json::Object(vec![("items", items), ("next", Json::option(next))])))
}

/// The rows after one, and the last of them where there are more; `None` where that one is not there.
fn cut<'a, T>(
    rows: &'a [T],
    after: Option<&str>,
    id: &impl Fn(&T) -> &str,
    rows_max: usize,
) -> Option<(&'a [T], Option<String>)> {
    let from = match after {
        None => 0,
        Some(after) => rows.iter().position(|row| id(row) == after)? + 1,
    };
    let rest = &rows[from..];
    let shown = &rest[..rest.len().min(rows_max)];
    let next = shown.last().filter(|_| shown.len() < rest.len()).map(|row| id(row).to_owned());
    Some((shown, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let rows: Vec<String> = (0..7).map(|number| number.to_string()).collect();
        for rows_max in 1..9 {
            let (mut seen, mut after) = (Vec::new(), None::<String>);
            loop {
                let (shown, next) = cut(&rows, after.as_deref(), &|row: &String| row, rows_max).unwrap();
                seen.extend(shown.iter().cloned());
                match next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, rows, "{rows_max}");
        }
        assert_eq!(cut(&rows, Some("none"), &|row: &String| row, 3), None);
    }
}
