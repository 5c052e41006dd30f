//! Who is asking, whether the service is well, and what its admin may do.

use agent_trace_store::{ErrorKind, Result};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Client;
use super::http::{Reply, Request, Who};
use crate::limits::ANSWER_BYTES_MAX;
use crate::token::Token;

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Whoami {
    /// The organisation's id.
    #[serde(default)]
    pub org_id: Option<String>,
    /// The organisation.
    pub org_slug: String,
    /// The only project that it may reach.
    #[serde(default)]
    pub project_id_scope: Option<String>,
    /// What it may do.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// A project that was made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ProjectRow {
    /// The service's id of it.
    pub id: String,
    /// The organisation's id.
    pub org_id: String,
    /// Its name in URLs.
    pub project_id: String,
    /// Its name for people.
    #[serde(default)]
    pub name: Option<String>,
    /// What it is about.
    #[serde(default)]
    pub description: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it last changed.
    #[serde(default)]
    pub updated_at: Option<String>,
}

/// Whether a service is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The status that it answers with.
    pub status: u16,
    /// What its clock says.
    pub date: Option<String>,
}

impl Client {
    /// Asks who the token speaks for; `None` where the service is too old to say.
    pub fn whoami(&self) -> Result<Option<Whoami>> {
        let url = self.at("/api/v1/auth/whoami");
        let request = Request::new(Method::GET, url, Who::Token(self.token.as_ref()));
        let doing = |error| self.doing("ask who the token is for", error);
        match self.http.ask(&request).map_err(doing)? {
            Reply::Bad(refusal) if refusal.status == 404 => Ok(None),
            reply => {
                let answer = reply.good().map_err(doing)?;
                answer.json(ANSWER_BYTES_MAX, "who the token is for").map(Some).map_err(doing)
            }
        }
    }

    /// Asks how the service is, without a token.
    pub fn health(&self) -> Result<Health> {
        let request = Request::new(Method::GET, format!("{}/health", self.url.host_url()), Who::Nobody);
        match self.http.ask(&request)? {
            Reply::Good(answer) => Ok(Health { status: 200, date: answer.header("date") }),
            Reply::Bad(refusal) => Ok(Health { status: refusal.status, date: refusal.date }),
        }
    }

    /// Makes the project of the URL, as the admin or by the token. `Conflict` where there is one.
    pub fn create_project(
        &self,
        admin: Option<&Token>,
        name: Option<&str>,
        description: Option<&str>,
    ) -> Result<ProjectRow> {
        let mut body = json!({"project_id": self.url.project().as_str()});
        for (member, text) in [("name", name), ("description", description)] {
            if let Some(text) = text {
                body[member] = json!(text);
            }
        }
        let who = match admin {
            Some(admin) => Who::Admin(admin),
            None => Who::Token(self.token.as_ref()),
        };
        body["org_slug"] = json!(self.url.org().as_str());
        let doing = |error| self.doing("create the project", error);
        let mut request = Request::new(Method::POST, self.at("/api/v1/projects"), who)
            .with("application/json", body.to_string());
        // The answer of a first try that was lost would look like a project that was there before.
        request.repeatable = false;
        let answer = self.http.ask(&request).map_err(doing)?.good().map_err(doing)?;
        answer.json(ANSWER_BYTES_MAX, "a project").map_err(doing)
    }
}

/// What a token is for, compared with what a remote says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It fits.
    Fits(Whoami),
    /// The service is too old to say.
    Unsupported,
}

impl Client {
    /// Makes sure that the token is for this org and project (`Denied` otherwise).
    pub fn check_scope(&self) -> Result<Scope> {
        let failed = |error: agent_trace_store::Error| match error.kind() {
            ErrorKind::Denied => coded("whoami_unauthorized", error),
            ErrorKind::Failed | ErrorKind::Invalid => coded("whoami_failed", error),
            _ => error,
        };
        let Some(whoami) = self.whoami().map_err(failed)? else { return Ok(Scope::Unsupported) };
        let denied = |code: &str, what: String| {
            let message = format!("the token of `{}` is for {what} (`{code}`)", self.url);
            Err(agent_trace_store::Error::new(ErrorKind::Denied, message))
        };
        if whoami.org_slug != self.url.org().as_str() {
            return denied("org_slug_mismatch", format!("the org `{}`", visible(&whoami.org_slug)));
        }
        match &whoami.project_id_scope {
            Some(only) if only != self.url.project().as_str() => {
                denied("project_scope_mismatch", format!("the project `{}`", visible(only)))
            }
            _ => Ok(Scope::Fits(whoami)),
        }
    }
}

fn coded(code: &str, error: agent_trace_store::Error) -> agent_trace_store::Error {
    let message = format!("{} (`{code}`)", error.message());
    let outer = agent_trace_store::Error::new(error.kind(), message);
    match std::error::Error::source(&error) {
        Some(source) => outer.with_source(source.to_string()),
        None => outer,
    }
}

fn visible(text: &str) -> String {
    text.chars().take(64).map(|char| if char.is_control() { ' ' } else { char }).collect()
}
