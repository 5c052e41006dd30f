//! `admin`: the orgs, projects and tokens of a service, in its data folder or over HTTP.
//!
//! A token is printed when it is made and never again: only its hash is kept.

use std::path::Path;

use agent_trace_store::{Error, ErrorKind, Timestamp};
use agent_trace_sync::service::archive::{NewToken, Org, Project, TokenRow};
use agent_trace_sync::service::embedded::Missing;
use agent_trace_sync::service::grant::{Scope, TokenId};
use agent_trace_sync::service::quota::Usage;
use agent_trace_sync::token::Token;
use jiff::tz::TimeZone;

use super::book::Book;
use super::{Context, zone};
use crate::args;
use crate::json;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::time;
use crate::ui::Ui;

pub(super) fn run(context: &Context, command: &args::Admin) -> Result<Done, Failure> {
    match command {
        args::Admin::Org(args::AdminOrg::Create(args)) => create_org(context, args)?,
        args::Admin::Org(args::AdminOrg::List { service }) => {
            let book = Book::open(context, service, Missing::Refuse)?;
            book.orgs()?.iter().try_for_each(|org| show_org(&context.ui, org, None, None))?;
        }
        args::Admin::Org(args::AdminOrg::Set(args)) => set_org(context, args)?,
        args::Admin::Org(args::AdminOrg::Show { org, service }) => {
            let book = Book::open(context, service, Missing::Refuse)?;
            let org = find_org(&book, org)?;
            show_org(&context.ui, &org, None, Some(book.usage(&org.id)?))?;
        }
        args::Admin::Project(args::AdminProject::Create(args)) => create_project(context, args)?,
        args::Admin::Project(args::AdminProject::List { service, org }) => {
            list_projects(context, service, org.as_deref())?;
        }
        args::Admin::Project(args::AdminProject::Remove(args)) => remove_project(context, args)?,
        args::Admin::Token(args::AdminToken::Create(args)) => create_token(context, args)?,
        args::Admin::Token(args::AdminToken::List { service, org }) => {
            list_tokens(context, service, org.as_deref())?;
        }
        args::Admin::Token(args::AdminToken::Revoke { id, service }) => revoke_token(context, id, service)?,
    }
    Ok(Done::Well)
}

/// The option that names the service, for a hint.
fn place(service: &args::Service) -> String {
    match (&service.url, &service.data) {
        (Some(url), _) => format!("--url {}", agent_trace_sync::address::shown(url)),
        (None, data) => format!("--data {}", data.as_deref().unwrap_or(Path::new("")).display()),
    }
}

fn find_org(book: &Book, name: &str) -> Result<Org, Failure> {
    let orgs = book.orgs()?;
    let found = orgs.iter().find(|org| org.slug == name || org.id.eq_ignore_ascii_case(name));
    found.cloned().ok_or_else(|| {
        let slugs: Vec<&str> = orgs.iter().map(|org| org.slug.as_str()).take(10).collect();
        let message = format!("there is no org `{name}`");
        Failure::new(ErrorKind::NotFound, message, format!("use one of: {}", slugs.join(", ")))
    })
}

// ---- orgs

fn create_org(context: &Context, args: &args::OrgCreate) -> Result<(), Failure> {
    let book = Book::open(context, &args.service, Missing::Create)?;
    let (org, is_new) = book.put_org(&args.slug, args.name.as_deref(), args.id.as_deref())?;
    let org = match args.quota_bytes {
        None => org,
        Some(quota) => with_quota(&book, &org, quota)?,
    };
    show_org(&context.ui, &org, Some(is_new), None)
}

fn set_org(context: &Context, args: &args::OrgSet) -> Result<(), Failure> {
    let book = Book::open(context, &args.service, Missing::Refuse)?;
    let org = with_quota(&book, &find_org(&book, &args.org)?, args.quota_bytes)?;
    show_org(&context.ui, &org, None, Some(book.usage(&org.id)?))
}

fn with_quota(book: &Book, org: &Org, quota: args::Quota) -> Result<Org, Failure> {
    let changed = book.set_quota(&org.id, quota.0)?;
    changed.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no org `{}`", org.slug)).into())
}

fn show_org(ui: &Ui, org: &Org, is_new: Option<bool>, usage: Option<Usage>) -> Result<(), Failure> {
    if ui.is_json() {
        return Ok(ui.json(&json::AdminOrg {
            schema: json::ADMIN_ORG,
            id: org.id.clone(),
            slug: org.slug.clone(),
            name: org.name.clone(),
            created_at: org.created_at.to_string(),
            new: is_new.unwrap_or_default(),
            quota_bytes: org.quota_bytes,
            used_bytes: usage.map(|usage| usage.bytes),
            uploads: usage.map(|usage| usage.uploads),
        })?);
    }
    let (slug, name) = (ui.name(&org.slug), sanitize::line(&org.name));
    let room = match (usage, org.quota_bytes) {
        (None, None) => String::new(),
        (None, Some(quota)) => format!("  at most {quota} bytes"),
        (Some(usage), None) => format!("  {} bytes", usage.bytes),
        (Some(usage), Some(quota)) => format!("  {} of {quota} bytes", usage.bytes),
    };
    match is_new {
        Some(true) => ui.line(format_args!("Made org {slug}  {}{room}", org.id))?,
        Some(false) => ui.line(format_args!("There is an org {slug} already  {}{room}", org.id))?,
        None => ui.line(format_args!("{slug}  {}  {name}{room}", org.id))?,
    }
    Ok(())
}

// ---- projects

fn create_project(context: &Context, args: &args::AdminProjectCreate) -> Result<(), Failure> {
    let book = Book::open(context, &args.service, Missing::Create)?;
    let org = find_org(&book, &args.org)?;
    let (name, description) = (args.name.as_deref(), args.description.as_deref());
    let project = book.create_project(&org.id, &args.slug, name, description)?;
    if context.ui.is_json() {
        return show_project(&context.ui, &org, &project);
    }
    let slug = context.ui.name(&project.slug);
    Ok(context.ui.line(format_args!("Made project {slug} of {}", org.slug))?)
}

fn list_projects(context: &Context, service: &args::Service, org: Option<&str>) -> Result<(), Failure> {
    let book = Book::open(context, service, Missing::Refuse)?;
    let orgs = match org {
        Some(name) => vec![find_org(&book, name)?],
        None => book.orgs()?,
    };
    for org in &orgs {
        for project in book.projects(&org.id)? {
            show_project(&context.ui, org, &project)?;
        }
    }
    Ok(())
}

fn show_project(ui: &Ui, org: &Org, project: &Project) -> Result<(), Failure> {
    if ui.is_json() {
        return Ok(ui.json(&json::AdminProject {
            schema: json::ADMIN_PROJECT,
            id: project.id.clone(),
            org: org.slug.clone(),
            org_id: org.id.clone(),
            slug: project.slug.clone(),
            name: project.name.clone(),
            description: project.description.clone(),
            created_at: project.created_at.to_string(),
            updated_at: project.updated_at.to_string(),
        })?);
    }
    let made = time::show(project.created_at, &zone());
    let name = project.name.as_deref().map(|name| format!("  {}", sanitize::line(name))).unwrap_or_default();
    Ok(ui.line(format_args!("{}/{}  made {made}{name}", org.slug, ui.name(&project.slug)))?)
}

fn remove_project(context: &Context, args: &args::ProjectRemove) -> Result<(), Failure> {
    let ui = &context.ui;
    let book = Book::open(context, &args.service, Missing::Refuse)?;
    let org = find_org(&book, &args.org)?;
    let absent = || {
        let message = format!("there is no project `{}` in `{}`", args.slug, org.slug);
        let hint = format!("agent-trace admin project list {}", place(&args.service));
        Failure::new(ErrorKind::NotFound, message, hint)
    };
    if book.project(&org.id, &args.slug)?.is_none() {
        return Err(absent());
    }
    if !args.yes {
        let question = format!("Remove {}/{} with all that it holds?", org.slug, args.slug);
        match ui.confirm(&question)? {
            Some(true) => {}
            Some(false) => {
                ui.note("nothing was removed");
                return Ok(());
            }
            None => {
                let message = "cannot ask whether to remove: there is no terminal";
                let hint = "agent-trace admin project remove --yes";
                return Err(Failure::new(ErrorKind::Invalid, message, hint));
            }
        }
    }
    if !book.delete_project(&org.id, &args.slug)? {
        return Err(absent());
    }
    if !ui.is_json() {
        let slug = ui.name(&args.slug);
        ui.line(format_args!("Removed project {slug} of {} with all that it held", org.slug))?;
    }
    Ok(())
}

// ---- tokens

fn create_token(context: &Context, args: &args::TokenCreate) -> Result<(), Failure> {
    let (ui, zone) = (&context.ui, zone());
    let scopes = match &args.scopes[..] {
        [] => vec![Scope::Read, Scope::Write],
        scopes => scopes.iter().map(|scope| Scope::parse(scope)).collect::<Result<_, Error>>()?,
    };
    let now = context.env.clock.now();
    let expires = args.expires.as_deref();
    let expires_at = expires.map(|text| time::parse_ahead(text, now, &zone)).transpose()?;
    let book = Book::open(context, &args.service, Missing::Create)?;
    let org = find_org(&book, &args.org)?;
    let new = NewToken {
        org_id: org.id.clone(),
        project: args.project.clone(),
        scopes,
        name: args.name.clone(),
        expires_at,
    };
    let (row, token) = book.create_token(&new)?;
    // The token is there and must be shown, whatever this answers.
    let is_absent = |slug: &&str| book.project(&org.id, slug).is_ok_and(|found| found.is_none());
    if let Some(project) = row.project.as_deref().filter(is_absent) {
        ui.warn(&format!("there is no project `{project}` in `{}` yet", org.slug));
    }
    if ui.is_json() {
        return show_token(ui, &org, &row, Some(&token), now, &zone);
    }
    ui.note(&format!("token of {}; it is shown this once", words(&org, &row, now, &zone)));
    Ok(ui.line(token.expose())?)
}

fn list_tokens(context: &Context, service: &args::Service, org: Option<&str>) -> Result<(), Failure> {
    let book = Book::open(context, service, Missing::Refuse)?;
    let only = org.map(|name| find_org(&book, name)).transpose()?;
    let (orgs, now, zone) = (book.orgs()?, context.env.clock.now(), zone());
    for row in book.tokens(only.as_ref(), &orgs)? {
        let org = orgs.iter().find(|org| org.id == row.org_id);
        let org =
            org.ok_or_else(|| Error::corrupt(format!("the token `{}` is of no org", row.id.as_str())))?;
        show_token(&context.ui, org, &row, None, now, &zone)?;
    }
    Ok(())
}

fn revoke_token(context: &Context, id: &str, service: &args::Service) -> Result<(), Failure> {
    // Who has found a whole token somewhere may give just that.
    let id = id.trim().trim_start_matches("at_").split('_').next().unwrap_or_default();
    let book = Book::open(context, service, Missing::Refuse)?;
    if !book.revoke_token(&TokenId::new(id))? {
        let shown: String = id.chars().take(16).collect();
        let hint = format!("agent-trace admin token list {}", place(service));
        return Err(Failure::new(ErrorKind::NotFound, format!("there is no token `{shown}`"), hint));
    }
    if !context.ui.is_json() {
        context.ui.line(format_args!("Revoked token {}", context.ui.name(id)))?;
    }
    Ok(())
}

fn show_token(
    ui: &Ui,
    org: &Org,
    row: &TokenRow,
    token: Option<&Token>,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<(), Failure> {
    if !ui.is_json() {
        return Ok(ui.line(format_args!("{}  {}", ui.name(row.id.as_str()), words(org, row, now, zone)))?);
    }
    let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
    Ok(ui.json(&json::AdminToken {
        schema: json::ADMIN_TOKEN,
        id: row.id.as_str().to_owned(),
        org: org.slug.clone(),
        org_id: org.id.clone(),
        project: row.project.clone(),
        scopes: row.scopes.iter().map(|scope| scope.name()).collect(),
        prefix: row.prefix.clone(),
        name: row.name.clone(),
        state: state(row, now),
        created_at: row.created_at.to_string(),
        expires_at: text(row.expires_at),
        last_used_at: text(row.last_used_at),
        revoked_at: text(row.revoked_at),
        token: token.map(|token| token.expose().to_owned()),
    })?)
}

fn state(row: &TokenRow, now: Timestamp) -> &'static str {
    match (row.revoked_at, row.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        _ => "valid",
    }
}

fn words(org: &Org, row: &TokenRow, now: Timestamp, zone: &TimeZone) -> String {
    let scopes: Vec<&str> = row.scopes.iter().map(|scope| scope.name()).collect();
    let mut words = format!("{}/{}  {}", org.slug, row.project.as_deref().unwrap_or("*"), scopes.join(","));
    for (what, time) in [("ends", row.expires_at), ("used", row.last_used_at), ("revoked", row.revoked_at)] {
        if let Some(time) = time {
            words = format!("{words}  {what} {}", time::show(time, zone));
        }
    }
    if state(row, now) == "expired" {
        words.push_str(" (expired)");
    }
    if let Some(name) = &row.name {
        words = format!("{words}  {}", sanitize::line(name));
    }
    words
}
