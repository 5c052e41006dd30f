//! Our entries in an agent's settings: planned first, for all agents, then written.
//!
//! A file that cannot be read as what it should be stops everything before anything is written. Entries of others,
//! hooks of types that are unknown here included, stay as they are.

use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::{Error, ErrorKind, Result};
use serde_json::Value;

use super::agents::{Agent, Form, Scope};
use super::command::{Program, is_ours};
use super::files::{self, Found, Note, Notes};
use super::jsonc::{self, Step};
use super::{Change, Kind, diff};
use crate::report::Failure;
use crate::settings::Settings;

const HOOKS: &str = "hooks";
/// From the outermost object to a group: `hooks`, the event, the number.
const GROUP_STEPS: usize = 3;
/// Where an entry of an agent keeps its command.
const COMMANDS: [&str; 2] = ["command", "bash"];
const PLUGIN: &str = include_str!("opencode.js");
const PLUGIN_MARK: &str = "made by `agent-trace hooks install`";
const PLUGIN_PROGRAMS: &str = "\"%PROGRAMS%\"";

/// Where the hooks of an agent lie.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) agent: Agent,
    pub(crate) scope: Scope,
    pub(crate) path: PathBuf,
}

impl Place {
    /// The place of an agent's hooks; `None` where it has none.
    pub(crate) fn of(agent: Agent, scope: Scope, settings: &Settings, root: Option<&Path>) -> Option<Place> {
        let folder = match scope {
            Scope::Global => agent.folder(settings)?,
            Scope::Project => agent.project_folder(root?),
        };
        Some(Place { agent, scope, path: folder.join(agent.file()) })
    }
}

/// What is to become of a place.
pub(crate) struct Plan {
    place: Place,
    found: Found,
    /// What it holds then; `None` where it goes.
    after: Option<Vec<u8>>,
    /// What it holds without us.
    without: Option<Vec<u8>>,
    kind: Kind,
}

/// Which of our entries stand in a place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Installed {
    /// The events with an entry of ours.
    pub(crate) events: Vec<String>,
    /// The events that we would have, and that have none.
    pub(crate) missing: Vec<&'static str>,
    /// The commands.
    pub(crate) commands: Vec<String>,
}

/// Plans to put our entries in.
pub(crate) fn plan_install(
    env: &Env,
    notes: &Notes,
    place: Place,
    program: &Program,
) -> Result<Plan, Failure> {
    let found = files::read(env, &place.path)?;
    let text = files::text(&place.path, &found)?;
    let (after, stripped) = if place.agent.form() == Form::Plugin {
        check_plugin(&place.path, text)?;
        (plugin(program), None)
    } else {
        let stripped = refused(&place.path, strip(text))?;
        let after = match is_as_wanted(text, place.agent, program) {
            true => text.to_owned(),
            false => refused(&place.path, with_entries(&stripped, place.agent, program))?,
        };
        (after, Some(stripped))
    };
    let kind = match &found.bytes {
        None => Kind::Created,
        Some(bytes) if *bytes == after.as_bytes() => Kind::Unchanged,
        Some(_) => Kind::Changed,
    };
    let without = match (&found.bytes, stripped) {
        (None, _) | (_, None) => None,
        (Some(bytes), Some(stripped)) if stripped.as_bytes() == bytes => Some(bytes.clone()),
        (Some(bytes), Some(stripped)) => match before(env, notes, &place.path, bytes) {
            Before::Created => None,
            Before::Bytes(before) => Some(before),
            Before::Unknown => Some(stripped.into_bytes()),
        },
    };
    Ok(Plan { place, found, after: Some(after.into_bytes()), without, kind })
}

/// Plans to take our entries out.
pub(crate) fn plan_remove(env: &Env, notes: &Notes, place: Place) -> Result<Plan, Failure> {
    let found = files::read(env, &place.path)?;
    let (kind, after) = match &found.bytes {
        None => (Kind::Unchanged, None),
        // What is wrong with a file that has nothing of ours is no concern of ours.
        Some(bytes) if !mentions_us(bytes) => (Kind::Unchanged, Some(bytes.clone())),
        Some(bytes) => removed(env, notes, &place, bytes, files::text(&place.path, &found)?)?,
    };
    Ok(Plan { place, found, without: after.clone(), after, kind })
}

fn mentions_us(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    is_ours(&text) || text.contains(PLUGIN_MARK)
}

fn removed(
    env: &Env,
    notes: &Notes,
    place: &Place,
    bytes: &[u8],
    text: &str,
) -> Result<(Kind, Option<Vec<u8>>), Failure> {
    let unchanged = (Kind::Unchanged, Some(bytes.to_vec()));
    if place.agent.form() == Form::Plugin {
        return Ok(if text.contains(PLUGIN_MARK) { (Kind::Removed, None) } else { unchanged });
    }
    let stripped = refused(&place.path, strip(text))?;
    if stripped == text {
        return Ok(unchanged);
    }
    Ok(match before(env, notes, &place.path, bytes) {
        Before::Created => (Kind::Removed, None),
        Before::Bytes(before) => (Kind::Restored, Some(before)),
        Before::Unknown => {
            let is_bare = jsonc::read(&stripped).is_ok_and(|value| {
                value.as_object().is_some_and(|all| all.keys().all(|key| key == "version"))
            });
            let was_created = notes.get(&place.path).is_some_and(|note| note.created);
            match is_bare && was_created {
                true => (Kind::Removed, None),
                false => (Kind::Cleaned, Some(stripped.into_bytes())),
            }
        }
    })
}

impl Plan {
    /// The change as it is told.
    pub(crate) fn change(&self) -> Change {
        let mut change =
            Change::of(self.place.agent.name(), self.place.scope.name(), &self.place.path, "settings");
        change.kind = self.kind;
        change.events = self.place.agent.events().iter().map(|event| event.name).collect();
        if change.is_change() {
            change.say = self.say();
            change.diff = Some(diff(&self.place.path, self.found.bytes.as_deref(), self.after.as_deref()));
        }
        change
    }

    /// What its user has to do so that new hooks run.
    fn say(&self) -> Option<String> {
        let is_installed = matches!(self.kind, Kind::Created | Kind::Changed);
        self.place.agent.to_do(self.place.scope).filter(|_| is_installed).map(str::to_owned)
    }

    /// Puts our entries in.
    pub(crate) fn install(&self, env: &Env, notes: &mut Notes) -> Result<Change, Failure> {
        let mut change = self.change();
        let (Some(after), true) = (&self.after, change.is_change()) else { return Ok(change) };
        let path = &self.place.path;
        let made = files::make_directories(env, path)?;
        let earlier = notes.get(path).unwrap_or_default();
        let directories = if made.is_empty() { earlier.directories } else { made };
        if let Some(without) = &self.without {
            put_beside(env, &self.found, path, without)?;
            change.backup = Some(files::before(path));
        }
        let note = Note { after: files::digest(after), created: self.without.is_none(), directories };
        notes.set(path, &note)?;
        // Before the file: a note that does not fit its file counts for nothing.
        notes.write(env)?;
        files::replace(env, &self.found, after)?;
        Ok(change)
    }

    /// Takes our entries out.
    pub(crate) fn remove(&self, env: &Env, notes: &mut Notes) -> Result<Change, Failure> {
        let mut change = self.change();
        let path = &self.place.path;
        let note = notes.get(path);
        if change.is_change() {
            match &self.after {
                Some(after) => files::replace(env, &self.found, after)?,
                None => files::remove(env, &self.found)?,
            }
        }
        let beside = files::before(path);
        let kept = files::read(env, &beside)?;
        if kept.bytes.is_some() && (kept.bytes == self.after || self.after.is_none()) {
            files::remove(env, &kept)?;
        } else if kept.bytes.is_some() && change.is_change() {
            change.backup = Some(beside);
        }
        if let Some(note) = note {
            if self.after.is_none() {
                files::remove_directories(&note.directories);
            }
            notes.forget(path)?;
            notes.write(env)?;
        }
        Ok(change)
    }
}

/// Which of our entries stand in a place; `None` where it holds nothing of ours.
pub(crate) fn installed(env: &Env, place: &Place) -> Result<Option<Installed>> {
    let found = files::read(env, &place.path)?;
    if !found.bytes.as_deref().is_some_and(mentions_us) {
        return Ok(None);
    }
    let text = files::text(&place.path, &found)?;
    let wanted = place.agent.events().iter().map(|event| event.name);
    if place.agent.form() == Form::Plugin {
        let programs = text.lines().find_map(|line| line.strip_prefix("const PROGRAMS = "));
        return Ok(text.contains(PLUGIN_MARK).then(|| Installed {
            events: wanted.map(str::to_owned).collect(),
            missing: Vec::new(),
            commands: programs.and_then(|all| serde_json::from_str(all).ok()).unwrap_or_default(),
        }));
    }
    let value = jsonc::read(text).map_err(|error| {
        let message = format!("cannot read `{}`: {}", place.path.display(), error.message());
        Error::new(ErrorKind::Invalid, message)
    })?;
    let mut installed = Installed::default();
    for path in our_entries(&value) {
        if let [_, Step::Member(event), ..] = &path[..]
            && !installed.events.contains(event)
        {
            installed.events.push(event.clone());
        }
        if let Some(line) = at(&value, &path).and_then(command)
            && !installed.commands.iter().any(|known| known == line)
        {
            installed.commands.push(line.to_owned());
        }
    }
    installed.missing = wanted.filter(|name| !installed.events.iter().any(|event| event == name)).collect();
    Ok((!installed.events.is_empty()).then_some(installed))
}

// ---- what was there before

enum Before {
    /// There was nothing.
    Created,
    Bytes(Vec<u8>),
    /// Others have changed the file since, or nothing is noted.
    Unknown,
}

fn before(env: &Env, notes: &Notes, path: &Path, bytes: &[u8]) -> Before {
    let Some(note) = notes.get(path).filter(|note| note.after == files::digest(bytes)) else {
        return Before::Unknown;
    };
    if note.created {
        return Before::Created;
    }
    match files::read(env, &files::before(path)).ok().and_then(|found| found.bytes) {
        // A backup that somebody has changed is no backup.
        Some(before) if std::str::from_utf8(&before).is_ok_and(|text| strip(text).is_ok()) => {
            Before::Bytes(before)
        }
        _ => Before::Unknown,
    }
}

/// Puts what a file holds without us beside it, with the rights that the file has.
fn put_beside(env: &Env, found: &Found, path: &Path, without: &[u8]) -> Result<()> {
    let beside = files::before(path);
    let mode = std::fs::metadata(&found.target)
        .map(|metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()))
        .unwrap_or(0o600);
    files::put_program(env, &beside, without, mode)
        .map_err(|error| Error::io(format!("cannot write `{}`", beside.display()), error))
}

fn refused<T>(path: &Path, done: Result<T>) -> Result<T, Failure> {
    done.map_err(|error| {
        let message = format!("cannot change `{}`: {}", path.display(), error.message());
        let mut refused = Error::new(ErrorKind::Invalid, message);
        if let Some(cause) = std::error::Error::source(&error) {
            refused = refused.with_source(cause.to_string());
        }
        Failure::from(refused).hint("correct the file, or leave its agent out; nothing was written")
    })
}

// ---- entries

fn command(entry: &Value) -> Option<&str> {
    COMMANDS.iter().find_map(|name| entry.get(name)?.as_str())
}

fn is_our_entry(entry: &Value) -> bool {
    command(entry).is_some_and(is_ours)
}

/// The ways to all entries of ours, in the order of the text.
fn our_entries(value: &Value) -> Vec<Vec<Step>> {
    let mut ways = Vec::new();
    for (event, list) in value.get(HOOKS).and_then(Value::as_object).into_iter().flatten() {
        for (index, element) in list.as_array().into_iter().flatten().enumerate() {
            let way = vec![Step::Member(HOOKS.to_owned()), Step::Member(event.clone()), Step::Element(index)];
            if is_our_entry(element) {
                ways.push(way);
                continue;
            }
            let inner = element.get(HOOKS).and_then(Value::as_array).into_iter().flatten().enumerate();
            for (index, _) in inner.filter(|(_, entry)| is_our_entry(entry)) {
                let mut way = way.clone();
                way.extend([Step::Member(HOOKS.to_owned()), Step::Element(index)]);
                ways.push(way);
            }
        }
    }
    ways
}

fn at<'a>(value: &'a Value, way: &[Step]) -> Option<&'a Value> {
    way.iter().try_fold(value, |value, step| match step {
        Step::Member(name) => value.get(name),
        Step::Element(index) => value.get(index),
    })
}

/// The text without our entries, and without what they leave empty.
fn strip(text: &str) -> Result<String> {
    let mut text = text.to_owned();
    loop {
        let value = jsonc::read(&text)?;
        let Some(entry) = our_entries(&value).pop() else { return Ok(text) };
        let mut way = entry.clone();
        // Upwards as long as nothing else is there.
        while let Some((_, up)) = way.split_last().filter(|(_, up)| !up.is_empty()) {
            let Some(container) = at(&value, up) else { break };
            let alone = match container {
                Value::Array(elements) => elements.len() == 1,
                // A group is its matcher and its hooks.
                Value::Object(members) => {
                    members.len() == 1
                        || (up.len() == GROUP_STEPS
                            && members.keys().all(|key| key == "matcher" || key == HOOKS))
                }
                _ => false,
            };
            if !alone || jsonc::holds_comment(&text, up) {
                break;
            }
            way.pop();
        }
        if way.len() == GROUP_STEPS + 1 {
            // The group says more than we know: it stays, with no hooks.
            way = entry;
        }
        text = jsonc::remove(&text, &way)?;
    }
}

fn with_entries(stripped: &str, agent: Agent, program: &Program) -> Result<String> {
    let mut text = stripped.to_owned();
    if let Some(version) = agent.file_version() {
        text = jsonc::ensure(&text, "version", &Value::from(version))?;
    }
    for event in agent.events() {
        text = jsonc::append(&text, HOOKS, event.name, &agent.entry(*event, program))?;
    }
    if !text.ends_with('\n') && stripped.is_empty() {
        text.push('\n');
    }
    Ok(text)
}

/// Whether each entry stands there once, as it should be, and no other of ours.
fn is_as_wanted(text: &str, agent: Agent, program: &Program) -> bool {
    let Ok(value) = jsonc::read(text) else { return false };
    let ways = our_entries(&value);
    let elements: Vec<(&Step, &Value)> =
        ways.iter().filter_map(|way| Some((way.get(1)?, at(&value, way.get(..3)?)?))).collect();
    elements.len() == agent.events().len()
        && agent.events().iter().all(|event| {
            let name = Step::Member(event.name.to_owned());
            elements.contains(&(&name, &agent.entry(*event, program)))
        })
}

// ---- the plugin

fn plugin(program: &Program) -> String {
    let programs: Vec<&str> =
        program.path().filter(|_| !program.is_passing()).into_iter().chain(["agent-trace"]).collect();
    PLUGIN.replace(PLUGIN_PROGRAMS, &Value::from(programs).to_string())
}

fn check_plugin(path: &Path, text: &str) -> Result<(), Failure> {
    if text.is_empty() || text.contains(PLUGIN_MARK) {
        return Ok(());
    }
    let message = format!("cannot change `{}`: expected a plugin of ours", path.display());
    Err(Failure::new(ErrorKind::Invalid, message, "move the file away; nothing was written"))
}
