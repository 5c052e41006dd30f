//! One request on its way to the code that answers it: who asks, for what, and what may be done.
//!
//! The tenant rule is kept here: whether something exists that the token may not reach is never looked up, so that
//! neither answer nor time can tell. A token learns of its own organisation only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use agent_trace_store::json::{Reader, Shape, canonicalize};
use axum::body::Body;
use axum::http::HeaderMap;

use super::answer::Refusal;
use super::body::Incoming;
use super::limits::{ADMIN_SECRET_BYTES_MAX, FORM_BYTES_MAX};
use super::routes::Route;
use super::{State, blocking};
use crate::limits::TOKEN_BYTES_MAX;
use crate::service::archive::{Archive, Project};
use crate::service::grant::{Grant, Scope};
use crate::service::quota::{Room, Usage};

/// A request.
pub(super) struct Call {
    pub(super) state: Arc<State>,
    pub(super) route: &'static Route,
    pub(super) headers: HeaderMap,
    /// Members of the query, as they come.
    pub(super) query: Vec<(String, String)>,
    /// Parts of the path by name.
    pub(super) params: Vec<(String, String)>,
    /// The body, until somebody takes it; the lock is there only because a body cannot be looked at by two threads.
    pub(super) body: Mutex<Option<Body>>,
    /// What the token may do, where one was asked for.
    pub(super) grant: Option<Grant>,
}

/// The only answer to a project that is not there, or not this token's.
fn no_project(project: &str) -> Refusal {
    let message = format!(
        "Project '{project}' is not registered. Call POST /api/v1/projects (or `agent-trace project create <url>`) first."
    );
    Refusal::new(404, "project_not_found", message)
}

impl Call {
    /// The first member of the query that has this name.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A part of the path.
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// What the token may do.
    pub(super) fn grant(&self) -> &Grant {
        self.grant.as_ref().expect("routes that need a token have one by now")
    }

    /// Whether the request came below `/at/<org>/<project>/`.
    fn is_at(&self) -> bool {
        !self.param("at_org").is_empty()
    }

    /// The project of the prefix.
    pub(super) fn at_project(&self) -> Option<&str> {
        self.is_at().then(|| self.param("at_project"))
    }

    /// The organisation of the prefix.
    pub(super) fn at_org(&self) -> Option<&str> {
        self.is_at().then(|| self.param("at_org"))
    }

    /// Finds out who asks, and whether they may do that at all.
    pub(super) async fn authenticate(&mut self, scope: Option<Scope>) -> Result<(), Refusal> {
        let denied = |text: &str| match self.route.is_v2() {
            true => Refusal::new(401, "unauthorized", text),
            false => Refusal::plain(401, text),
        };
        let Some(header) = self.headers.get("authorization") else {
            return Err(denied("Missing or invalid Authorization header"));
        };
        let Some(secret) = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")) else {
            return Err(denied("Missing or invalid Authorization header"));
        };
        let invalid = denied("Invalid or revoked token");
        if secret.len() > TOKEN_BYTES_MAX {
            return Err(invalid);
        }
        let (state, secret) = (self.state.clone(), secret.to_owned());
        let found = blocking(move || state.accounts.authenticate(&secret)).await?;
        let grant = found.ok_or(invalid)?;
        self.state.admit(&grant)?;
        if let Some(scope) = scope.filter(|scope| !grant.allows(*scope)) {
            return Err(Refusal::new(403, "scope", format!("Token lacks the scope '{scope}'")));
        }
        self.grant = Some(grant);
        Ok(())
    }

    /// Whether the admin asks.
    pub(super) async fn is_admin(&self) -> Result<bool, Refusal> {
        let Some(secret) = self.headers.get("x-admin-secret").and_then(|value| value.to_str().ok()) else {
            return Ok(false);
        };
        if secret.is_empty() || secret.len() > ADMIN_SECRET_BYTES_MAX {
            return Ok(false);
        }
        let (state, secret) = (self.state.clone(), secret.to_owned());
        blocking(move || Ok(state.accounts.is_admin(&secret))).await
    }

    /// Checks the prefix against the token. What is done there is checked again by the route.
    pub(super) fn check_prefix(&self) -> Result<(), Refusal> {
        let (Some(org), Some(project)) = (self.at_org(), self.at_project()) else { return Ok(()) };
        let grant = self.grant();
        if org != grant.org_slug {
            return Err(no_project(project));
        }
        if grant.reaches(project) { Ok(()) } else { Err(out_of_scope(self.route)) }
    }

    /// Checks that the token may reach the project that a version 1 request names.
    pub(super) async fn project(&self, named: Option<&str>) -> Result<Project, Refusal> {
        let named = named.or(self.at_project()).filter(|named| !named.is_empty());
        let Some(named) = named else {
            return Err(Refusal::plain(400, "project_id is required"));
        };
        let grant = self.grant();
        if !grant.reaches(named) || self.at_project().is_some_and(|at| at != named) {
            return Err(out_of_scope(self.route));
        }
        self.registered(named).await
    }

    /// The archive of a project that a version 1 request names.
    pub(super) async fn archive(&self, named: Option<&str>) -> Result<Arc<dyn Archive>, Refusal> {
        let project = self.project(named).await?;
        self.open(project).await
    }

    /// The archive of the project in the path of a version 2 request.
    pub(super) async fn archive_v2(&self) -> Result<Arc<dyn Archive>, Refusal> {
        let (org, project) = (self.param("org"), self.param("project"));
        let grant = self.grant();
        let is_other = self.at_org().is_some_and(|at| at != org);
        if org != grant.org_slug || is_other {
            return Err(no_project(project));
        }
        if !grant.reaches(project) || self.at_project().is_some_and(|at| at != project) {
            return Err(out_of_scope(self.route));
        }
        let project = self.registered(project).await?;
        self.open(project).await
    }

    async fn registered(&self, slug: &str) -> Result<Project, Refusal> {
        let (state, org, name) = (self.state.clone(), self.grant().org_id.clone(), slug.to_owned());
        let found = blocking(move || state.accounts.project(&org, &name)).await?;
        found.ok_or_else(|| no_project(slug))
    }

    /// Opens an archive. A project that was removed since is one that is not there.
    async fn open(&self, project: Project) -> Result<Arc<dyn Archive>, Refusal> {
        let state = self.state.clone();
        let slug = project.slug.clone();
        let opened = tokio::task::spawn_blocking(move || state.accounts.archive(&project)).await;
        match opened {
            Ok(Ok(archive)) => Ok(archive),
            Ok(Err(error)) if error.kind() == agent_trace_store::ErrorKind::NotFound => {
                Err(no_project(&slug))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(error) => Err(super::panicked(&error)),
        }
    }

    /// Reserves room of the token's organisation for what is about to be written.
    pub(super) async fn reserve(&self, bytes: u64, uploads: u64) -> Result<Room, Refusal> {
        let (state, org) = (self.state.clone(), self.grant().org_id.clone());
        let work = tokio::task::spawn_blocking(move || state.reserve(&org, Usage { bytes, uploads }));
        work.await.map_err(|error| super::panicked(&error))?
    }

    /// What is left of the request: its body, where nobody has taken it.
    pub(super) fn take_body(&mut self) -> Option<Body> {
        self.body.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the body, of at most so many bytes.
    pub(super) fn incoming(&mut self, what: &'static str, bytes_max: u64) -> Result<Incoming, Refusal> {
        super::body::check(&self.headers, what, bytes_max)?;
        let body = self.take_body().unwrap_or_default();
        Ok(Incoming::new(body, what, bytes_max, &self.state.waits))
    }

    /// Reads a small JSON object; anything else counts as an empty one, as it does in version 1.
    pub(super) async fn form(&mut self) -> Result<Form, Refusal> {
        let bytes = self.incoming("the body", FORM_BYTES_MAX)?.small().await?;
        Ok(Form::parse(&bytes))
    }
}

fn out_of_scope(route: &Route) -> Refusal {
    match route.is_v2() {
        true => Refusal::new(403, "project_scope", "Token is not scoped to this project"),
        false => Refusal::plain(403, "Token is not scoped to this project"),
    }
}

/// The members of a small JSON object.
#[derive(Debug, Default)]
pub(super) struct Form(BTreeMap<String, Field>);

#[derive(Debug)]
enum Field {
    Text(String),
    Texts(Vec<String>),
    Number(u64),
    Null,
    Other,
}

impl Form {
    fn parse(bytes: &[u8]) -> Form {
        let mut canonical = Vec::new();
        if canonicalize(bytes, &mut canonical).is_err() {
            return Form::default();
        }
        Form::read(&canonical).unwrap_or_default()
    }

    fn read(canonical: &[u8]) -> Option<Form> {
        let mut reader = Reader::new(canonical);
        let mut form = Form::default();
        if reader.shape()? != Shape::Object || !reader.enter_object().ok()? {
            return None;
        }
        while let Some(key) = reader.next_key().ok()? {
            let field = match reader.shape()? {
                Shape::String => Field::Text(reader.string().ok()??.into_owned()),
                Shape::Array => texts(&mut reader)?,
                Shape::Token => match reader.token().ok()? {
                    Some("null") => Field::Null,
                    token => token.and_then(|token| token.parse().ok()).map_or(Field::Other, Field::Number),
                },
                Shape::Object => {
                    reader.skip().ok()?;
                    Field::Other
                }
            };
            form.0.insert(agent_trace_store::json::decode_string(key).into_owned(), field);
        }
        Some(form)
    }

    /// A member that is a string; an empty one, `null` and none are the same.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.0.get(name) {
            None | Some(Field::Null) => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(Refusal::new(400, "invalid", format!("{name} must be a string"))),
        }
    }

    /// A member that is a whole number or `null`; `None` where it is not there.
    pub(super) fn number(&self, name: &str) -> Result<Option<Option<u64>>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Field::Null) => Ok(Some(None)),
            Some(Field::Number(number)) => Ok(Some(Some(*number))),
            Some(_) => Err(Refusal::new(400, "invalid", format!("{name} must be a whole number or null"))),
        }
    }

    /// A member that is a list of strings.
    pub(super) fn texts(&self, name: &str) -> Result<Option<&[String]>, Refusal> {
        match self.0.get(name) {
            None | Some(Field::Null) => Ok(None),
            Some(Field::Texts(texts)) => Ok(Some(texts)),
            Some(_) => Err(Refusal::plain(400, format!("{name} must be a list of strings"))),
        }
    }
}

fn texts(reader: &mut Reader<'_>) -> Option<Field> {
    let (mut texts, mut is_texts) = (Vec::new(), true);
    reader.enter_array().ok()?;
    while reader.next_item().ok()? {
        match reader.string().ok()? {
            Some(text) => texts.push(text.into_owned()),
            None => is_texts = false,
        }
    }
    Some(if is_texts { Field::Texts(texts) } else { Field::Other })
}
