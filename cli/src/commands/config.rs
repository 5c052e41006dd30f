//! `config`: settings of the project and of the user, in the files and under the keys of agent-trace-cli.
//!
//! All of them lie below the home of agent-trace. What a repository holds is no setting.

use std::path::PathBuf;

use agent_trace_store::env::LockMode;
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, ErrorKind};
use serde_json::{Map, Value, json};

use super::Context;
use crate::args;
use crate::document::Document;
use crate::json as shapes;
use crate::privacy::finding::is_fingerprint;
use crate::privacy::policy::MODES;
use crate::project::{self, Place};
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::summarize::TIMEOUT_SECONDS;

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Yes or no.
    Switch(bool),
    /// A number that is not 0.
    Number(u64),
    /// One of these words; the first is the default.
    Choice(&'static [&'static str]),
    /// Texts, by default none; given with commas between them.
    List,
    /// Text, by default none.
    Text,
    /// Text that is not shown.
    Secret,
}

/// A setting.
struct Field {
    name: &'static str,
    /// The object in the file; none where the setting stands alone, in the user's file.
    section: Option<&'static str>,
    member: &'static str,
    kind: Kind,
}

const fn field(name: &'static str, section: &'static str, member: &'static str, kind: Kind) -> Field {
    Field { name, section: Some(section), member, kind }
}

const FIELDS: [Field; 19] = [
    field("notes.enabled", "notes", "enabled", Kind::Switch(false)),
    field("notes.include-ledger", "notes", "include_ledger", Kind::Switch(false)),
    field("notes.include-summary", "notes", "include_summary", Kind::Switch(true)),
    field("notes.include-prompts", "notes", "include_prompts", Kind::Switch(false)),
    field("notes.all-session-conversations", "notes", "all_session_conversations", Kind::Switch(false)),
    field("notes.push", "notes", "push", Kind::Switch(false)),
    field("hooks.fsync", "hooks", "fsync", Kind::Switch(false)),
    field("privacy.mode", "privacy", "mode", Kind::Choice(&MODES)),
    field("privacy.strict", "privacy", "strict", Kind::Switch(false)),
    field("privacy.rules", "privacy", "rules", Kind::Text),
    field("privacy.allow", "privacy", "allow", Kind::List),
    field("summary.enabled", "summary", "enabled", Kind::Switch(true)),
    field("summary.command", "summary", "command", Kind::Text),
    field("summary.timeout-seconds", "summary", "timeout_seconds", Kind::Number(TIMEOUT_SECONDS)),
    field("retention.age", "retention", "age", Kind::Text),
    field("retention.bytes", "retention", "bytes", Kind::Text),
    field("remote.default", "remote", "default", Kind::Text),
    Field { name: "global.auth-token", section: None, member: "auth_token", kind: Kind::Secret },
    Field {
        name: "global.capture-detached-edits",
        section: None,
        member: "capture_detached_edits",
        kind: Kind::Switch(false),
    },
];

/// Groups that are reset together.
const GROUPS: [&str; 5] = ["notes", "hooks", "privacy", "summary", "retention"];

pub(super) fn run(context: &Context, args: &args::Config) -> Result<Done, Failure> {
    match args {
        args::Config::Show => show(context)?,
        args::Config::Set { field, value } => set(context, field, value)?,
        args::Config::Reset { field, .. } => reset(context, field)?,
    }
    Ok(Done::Well)
}

impl Field {
    fn find(name: &str) -> Result<&'static Field, Failure> {
        FIELDS.iter().find(|field| field.name == name).ok_or_else(|| {
            let message = format!("there is no setting `{}`", sanitize::line(name));
            Failure::new(ErrorKind::Invalid, message, "agent-trace config show lists them")
        })
    }

    fn default(&self) -> Value {
        match self.kind {
            Kind::Switch(value) => json!(value),
            Kind::Number(value) => json!(value),
            Kind::Choice(words) => json!(words.first()),
            Kind::List => json!([]),
            Kind::Text | Kind::Secret => Value::Null,
        }
    }

    fn parse(&self, text: &str) -> Result<Value, Failure> {
        let refused = |expected: &str| {
            let message =
                format!("cannot take `{}` as `{}`: expected {expected}", sanitize::line(text), self.name);
            Failure::from(Error::invalid(message))
        };
        match self.kind {
            Kind::Switch(_) => match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "y" | "on" | "enable" | "enabled" => Ok(json!(true)),
                "0" | "false" | "no" | "n" | "off" | "disable" | "disabled" => Ok(json!(false)),
                _ => Err(refused("true or false")),
            },
            Kind::Number(_) => {
                let number = text.parse::<u64>().ok().filter(|number| *number > 0);
                number.map(|number| json!(number)).ok_or_else(|| refused("a number above 0"))
            }
            Kind::Choice(words) => match words.iter().find(|word| **word == text) {
                Some(word) => Ok(json!(word)),
                None => Err(refused(&words.join(", "))),
            },
            Kind::List => {
                let texts: Vec<&str> =
                    text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
                if self.name == "privacy.allow" && !texts.iter().all(|text| is_fingerprint(text)) {
                    return Err(refused("fingerprints as `privacy scan` lists them"));
                }
                Ok(json!(texts))
            }
            Kind::Text if text.trim().is_empty() => Err(refused("text that is not empty")),
            // What it is not is not shown.
            Kind::Secret if text.trim().is_empty() => {
                Err(Error::invalid(format!("cannot take an empty `{}`", self.name)).into())
            }
            Kind::Text | Kind::Secret => Ok(json!(text)),
        }
    }

    /// What a file says of it.
    fn value<'a>(&self, document: &'a Document) -> Result<Option<&'a Value>, Failure> {
        let found = match self.section {
            Some(section) => document.section(section)?.and_then(|section| section.get(self.member)),
            None => document.members().get(self.member),
        };
        Ok(found.filter(|value| !value.is_null()))
    }
}

/// The user's file.
fn user_file(context: &Context) -> Result<PathBuf, Failure> {
    let home = context.settings.home.as_ref().ok_or_else(|| {
        let message = "cannot find the home of agent-trace: neither AGENT_TRACE_HOME nor HOME is set";
        Failure::new(ErrorKind::Invalid, message, "set AGENT_TRACE_HOME")
    })?;
    Ok(home.join("config.json"))
}

/// Changes the file of a setting, one process at a time.
pub(super) fn change(
    context: &Context,
    is_project: bool,
    work: impl FnOnce(&mut Document) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let env = &context.env;
    let (path, lock_path) = if is_project {
        let (place, store) = context.open()?;
        (place.data.join("project-config.json"), store.dir().join("remotes.lock"))
    } else {
        let path = user_file(context)?;
        let home = path.parent().map(PathBuf::from).unwrap_or_default();
        let doing = |error| Error::io(format!("cannot create `{}`", home.display()), error);
        env.fs.create_dir_all(&home).map_err(doing)?;
        (path.clone(), home.join(".config.lock"))
    };
    let _alone = lock(env, &lock_path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
    let mut document = Document::read(env, &path)?;
    work(&mut document)?;
    document.write(env)
}

pub(super) fn set(context: &Context, name: &str, text: &str) -> Result<(), Failure> {
    let field = Field::find(name)?;
    let value = field.parse(text)?;
    if field.name == "remote.default" {
        // Only a remote that there is.
        let (place, store) = context.open()?;
        context.files(&place, &store).set_default(text)?;
    } else {
        change(context, field.section.is_some(), |document| {
            let members = match field.section {
                Some(section) => document.section_mut(section)?,
                None => document.members_mut(),
            };
            members.insert(field.member.to_owned(), value.clone());
            Ok(())
        })?;
    }
    told(context, field)
}

pub(super) fn reset(context: &Context, name: &str) -> Result<(), Failure> {
    let fields: Vec<&Field> = if GROUPS.contains(&name) {
        FIELDS.iter().filter(|field| field.section == Some(name)).collect()
    } else {
        vec![Field::find(name)?]
    };
    let is_project = fields.iter().any(|field| field.section.is_some());
    change(context, is_project, |document| {
        for field in &fields {
            match field.section {
                Some(section) => document.remove(section, field.member)?,
                None => drop(document.members_mut().shift_remove(field.member)),
            }
        }
        Ok(())
    })?;
    fields.into_iter().try_for_each(|field| told(context, field))
}

/// The settings of a project that `reset` gives their defaults again: of its remotes nothing.
fn resettable() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let fields = FIELDS.iter().filter(|field| field.name != "remote.default");
    let fields = fields.filter_map(|field| Some((field.name, field.section?, field.member)));
    // Hooks read it, and it is set by hand only.
    fields.chain([("capture.flush", "capture", "flush")])
}

/// What a project's settings say by themselves.
pub(super) fn own(context: &Context, place: &Place) -> Result<Vec<(&'static str, Value)>, Failure> {
    let document = Document::read(&context.env, &place.data.join("project-config.json"))?;
    let mut found = Vec::new();
    for (name, section, member) in resettable() {
        let value = document.section(section)?.and_then(|section| section.get(member));
        found.extend(value.map(|value| (name, value.clone())));
    }
    Ok(found)
}

/// Gives all settings of a project their defaults again; members that nobody here knows stay.
pub(super) fn reset_all(context: &Context) -> Result<(), Failure> {
    change(context, true, |document| {
        resettable().try_for_each(|(_, section, member)| document.remove(section, member))
    })
}

/// Says what a setting is now.
fn told(context: &Context, field: &Field) -> Result<(), Failure> {
    if context.ui.is_json() {
        return show(context);
    }
    let settings = settings(context)?;
    for setting in settings.iter().filter(|setting| setting.field == field.name) {
        print(context, setting)?;
    }
    Ok(())
}

/// All settings, and where each comes from.
fn settings(context: &Context) -> Result<Vec<shapes::Setting>, Failure> {
    let user = Document::read(&context.env, &user_file(context)?)?;
    let place = project::find(&context.env, &context.settings).ok();
    let own = place.map(|place| Document::read(&context.env, &place.data.join("project-config.json")));
    let own = own.transpose()?;
    let mut settings = Vec::new();
    for field in &FIELDS {
        let document = if field.section.is_some() { own.as_ref() } else { Some(&user) };
        let found = match document {
            Some(document) => field.value(document)?.cloned(),
            None => None,
        };
        let mut origin = match (&found, field.section) {
            (None, _) => "default",
            (Some(_), Some(_)) => "project",
            (Some(_), None) => "global",
        };
        let mut found = found;
        if found.is_none() && field.section == Some("privacy") {
            // Privacy may be set for all projects in the user's own file.
            found = field.value(&user)?.cloned();
            origin = if found.is_some() { "global" } else { origin };
        }
        let value = match (&found, field.kind) {
            (Some(_), Kind::Secret) => json!("(set)"),
            (found, _) => found.clone().unwrap_or_else(|| field.default()),
        };
        settings.push(shapes::Setting { field: field.name, value, origin, default: field.default() });
    }
    Ok(settings)
}

fn show(context: &Context) -> Result<(), Failure> {
    let settings = settings(context)?;
    if !context.ui.is_json() {
        return settings.iter().try_for_each(|setting| print(context, setting));
    }
    let env = &context.env;
    let user = Document::read(env, &user_file(context)?)?;
    let project = match project::find(env, &context.settings) {
        Ok(place) => Some(shapes::ConfigProject {
            id: place.project.as_ref().map(ToString::to_string),
            data_dir: place.data.display().to_string(),
            config: Document::read(env, &place.data.join("project-config.json"))?.members().clone(),
            remotes: masked(Document::read(env, &place.data.join("remotes.json"))?.members()),
        }),
        Err(_) => None,
    };
    let global = shapes::ConfigGlobal { config: masked(user.members()) };
    context.ui.json(&shapes::Config { schema: shapes::CONFIG, global, project, settings })?;
    Ok(())
}

/// Without the values of members that hold secrets.
fn masked(members: &Map<String, Value>) -> Map<String, Value> {
    fn mask(name: &str, value: &Value) -> Value {
        let is_secret = ["token", "secret", "password"].iter().any(|word| name.contains(word));
        // The name of a variable is no secret, and `global:` names an entry.
        let is_name = |text: &str| text.starts_with("env:") || text.starts_with("global:");
        match value {
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(inner, value)| {
                        // In `tokens` each member is one.
                        let inner_name = if is_secret { name } else { inner.as_str() };
                        (inner.clone(), mask(inner_name, value))
                    })
                    .collect(),
            ),
            Value::String(text) if is_secret && !is_name(text) => json!("(set)"),
            value => value.clone(),
        }
    }
    members.iter().map(|(name, value)| (name.clone(), mask(name, value))).collect()
}

fn print(context: &Context, setting: &shapes::Setting) -> Result<(), Failure> {
    let value = match &setting.value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        value => value.to_string(),
    };
    let ui = &context.ui;
    ui.line(format_args!(
        "{:<34} {:<8} {}",
        setting.field,
        ui.faint(format!("{:<8}", setting.origin)),
        sanitize::line(&value)
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        let members = json!({"tokens": {"a::b": "secret1"}, "auth_token": "secret2", "telemetry": {"enabled": false},
            "origin": {"url": "https://h/o/p", "auth": {"type": "bearer", "token_ref": "at_secret3"}},
            "other": {"auth": {"token_ref": "env:VAR"}}});
        let shown = Value::Object(masked(members.as_object().unwrap())).to_string();
        assert!(
            !shown.contains("secret1") && !shown.contains("secret2") && !shown.contains("secret3"),
            "{shown}"
        );
        assert!(shown.contains("env:VAR") && shown.contains("https://h/o/p"), "{shown}");
    }
}
