//! What the user wants of the privacy gate: settings of the project and of the user, the allow-list, the key.
//!
//! All of it lies below the home of agent-trace. What a repository holds is no setting, so no repository that is cloned
//! can turn the gate off or allow a secret.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, LockMode};
use agent_trace_store::id::{decode_hex, encode_hex};
use agent_trace_store::layout::{create_dir_durably, read_small, write_durably};
use agent_trace_store::limits::LOCK_WAIT_MICROS_MAX;
use agent_trace_store::lock::lock;
use agent_trace_store::{Error, Result};
use serde_json::{Map, Value};

use super::finding::{FingerprintKey, is_fingerprint};
use super::limits::{RULES_BYTES_MAX, SETTINGS_BYTES_MAX};
use super::rules::RuleSet;

/// The key of fingerprints, below the home of agent-trace; 0600.
pub(crate) const KEY_FILE: &str = "privacy.key";

/// What happens at capture and before anything leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Secrets are marked when they are captured, and stop what would send them.
    #[default]
    Warn,
    /// They are replaced before anything is stored, too.
    Redact,
    /// Nothing looks.
    Off,
}

impl Mode {
    /// Its name, as in settings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Warn => "warn",
            Mode::Redact => "redact",
            Mode::Off => "off",
        }
    }
}

/// Names of modes, for settings.
pub(crate) const MODES: [&str; 3] = ["warn", "redact", "off"];

/// What the user wants.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) mode: Mode,
    /// Whether what is only possible counts as much as what is certain.
    pub(crate) strict: bool,
    /// Files of rules beside those of the program.
    pub(crate) rules: Vec<PathBuf>,
    /// Fingerprints that are no secrets.
    pub(crate) allow: BTreeSet<String>,
    pub(crate) key: FingerprintKey,
}

impl Policy {
    /// Reads it; makes the key where there is none. `home` is that of agent-trace, `data` that of the project or store.
    pub(crate) fn read(env: &Env, home: Option<&Path>, data: &Path) -> Result<Policy> {
        let mut policy = Policy::look(env, home, data)?;
        policy.key = read_key(env, home.unwrap_or(data))?;
        Ok(policy)
    }

    /// Reads it and writes nothing: where there is no key yet, it has one that fits nothing that is kept.
    pub(crate) fn look(env: &Env, home: Option<&Path>, data: &Path) -> Result<Policy> {
        let own = section(env, &data.join("project-config.json"))?;
        let user = match home {
            Some(home) => section(env, &home.join("config.json"))?,
            None => Map::new(),
        };
        let first = |name: &str| own.get(name).or_else(|| user.get(name)).filter(|value| !value.is_null());
        let mode = match first("mode").map(|mode| mode.as_str()) {
            None => Mode::Warn,
            Some(Some("warn")) => Mode::Warn,
            Some(Some("redact")) => Mode::Redact,
            Some(Some("off")) => Mode::Off,
            // To guess could let out what the user wants to keep.
            Some(_) => {
                return Err(Error::invalid("cannot read `privacy.mode`: expected warn, redact or off"));
            }
        };
        let strict = match first("strict") {
            None => false,
            Some(Value::Bool(strict)) => *strict,
            Some(_) => return Err(Error::invalid("cannot read `privacy.strict`: expected true or false")),
        };
        let base = home.unwrap_or(data);
        let mut rules = Vec::new();
        for place in [&own, &user] {
            for text in texts(place, "rules")? {
                let path = base.join(text);
                if !rules.contains(&path) {
                    rules.push(path);
                }
            }
        }
        let mut allow = BTreeSet::new();
        for place in [&own, &user] {
            allow.extend(texts(place, "allow")?.into_iter().filter(|text| is_fingerprint(text)));
        }
        allow.extend(allow_file(env, base)?);
        let key = existing_key(env, &base.join(KEY_FILE))?.unwrap_or_else(|| FingerprintKey::new([0; 32]));
        Ok(Policy { mode, strict, rules, allow, key })
    }

    /// Reads the rules.
    pub(crate) fn rules(&self, env: &Env) -> Result<RuleSet> {
        RuleSet::read(&self.files(env)?)
    }

    /// The id of the rules.
    pub(crate) fn rules_id(&self, env: &Env) -> Result<String> {
        Ok(RuleSet::id_of(&self.files(env)?))
    }

    fn files(&self, env: &Env) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        for path in &self.rules {
            let shown = path.display().to_string();
            let bytes = read_small(env, path, RULES_BYTES_MAX).map_err(|error| {
                Error::invalid(format!("cannot read the rules in `{shown}`")).with_source(error)
            })?;
            files.push((shown, bytes));
        }
        Ok(files)
    }
}

/// The settings of privacy in a file; one that is not there says nothing.
fn section(env: &Env, path: &Path) -> Result<Map<String, Value>> {
    let bad = |why: &str| Error::invalid(format!("cannot read `{}`: {why}", path.display()));
    let bytes = match read_small(env, path, SETTINGS_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(Error::io(format!("cannot read `{}`", path.display()), error)),
    };
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| bad("expected JSON"))?;
    match value.get("privacy") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(section)) => Ok(section.clone()),
        Some(_) => Err(bad("expected `privacy` to be an object")),
    }
}

/// A text or a list of them; what has a `fingerprint` stands for it.
fn texts(section: &Map<String, Value>, name: &str) -> Result<Vec<String>> {
    let bad = || Error::invalid(format!("cannot read `privacy.{name}`: expected texts"));
    let text = |value: &Value| -> Result<String> {
        let text = value.as_str().or_else(|| value.get("fingerprint")?.as_str());
        text.map(str::to_owned).ok_or_else(bad)
    };
    match section.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(text).collect(),
        Some(value) => Ok(vec![text(value)?]),
    }
}

/// The fingerprints of the user's file `privacy-allow`, one in each line; `#` begins a remark.
fn allow_file(env: &Env, base: &Path) -> Result<Vec<String>> {
    let path = base.join("privacy-allow");
    match read_small(env, &path, SETTINGS_BYTES_MAX) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
            Ok(lines.filter(|line| is_fingerprint(line)).map(str::to_owned).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io(format!("cannot read `{}`", path.display()), error)),
    }
}

/// The key of fingerprints, made where there is none.
fn read_key(env: &Env, base: &Path) -> Result<FingerprintKey> {
    let path = base.join(KEY_FILE);
    if let Some(key) = existing_key(env, &path)? {
        return Ok(key);
    }
    create_dir_durably(env, base)
        .map_err(|error| Error::io(format!("cannot create `{}`", base.display()), error))?;
    // Of two that make one only the first does.
    let _alone = lock(env, &base.join(".privacy.lock"), LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
    if let Some(key) = existing_key(env, &path)? {
        return Ok(key);
    }
    let mut bytes = [0; 32];
    env.entropy.fill(&mut bytes);
    write_durably(env, &path, format!("{}\n", encode_hex(&bytes)).as_bytes(), true)?;
    Ok(FingerprintKey::new(bytes))
}

fn existing_key(env: &Env, path: &Path) -> Result<Option<FingerprintKey>> {
    match read_small(env, path, 128) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            let mut key = [0; 32];
            if !decode_hex(&text, &mut key) {
                let message = format!("cannot read `{}`: expected 64 hex digits", path.display());
                return Err(Error::invalid(message));
            }
            Ok(Some(FingerprintKey::new(key)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("cannot read `{}`", path.display()), error)),
    }
}
