//! What the surroundings say: variables, home, working directory, time zone. Nothing else reads them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use agent_trace_store::Error;
use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::args::Global;
use crate::backfill::Homes;
use crate::report::Failure;

/// What the surroundings say, read once.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// A store outside git.
    pub(crate) store: Option<PathBuf>,
    /// The user's home.
    pub(crate) user_home: Option<PathBuf>,
    /// Where the data of all projects lies.
    pub(crate) home: Option<PathBuf>,
    /// The working directory.
    pub(crate) directory: PathBuf,
    /// Where temporary files go.
    pub(crate) temporary: PathBuf,
}

impl Settings {
    /// Reads them; `-C` takes effect here, before anything looks at a path.
    pub(crate) fn read(global: &Global) -> Result<Settings, Failure> {
        if let Some(directory) = &global.directory {
            std::env::set_current_dir(directory).map_err(|error| {
                let message = format!("cannot change to directory `{}`", directory.display());
                Error::invalid(message).with_source(error)
            })?;
        }
        let directory = std::env::current_dir()
            .map_err(|error| Error::invalid("cannot find the working directory").with_source(error))?;
        // Components are normalised, so that each path but the root has a parent.
        let absolute = |path: PathBuf| directory.join(path).components().collect::<PathBuf>();
        let store = global.store.clone().or_else(|| variable("AGENT_TRACE_STORE")).map(absolute);
        let user_home = variable("HOME");
        let home = variable("AGENT_TRACE_HOME")
            .map(absolute)
            .or_else(|| user_home.as_ref().map(|home| home.join(".agent-trace")));
        Ok(Settings { store, user_home, home, directory: directory.clone(), temporary: std::env::temp_dir() })
    }
}

/// What the surroundings of a hook say; a hook takes what there is and never complains.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// Where the data of all projects lies.
    pub(crate) home: Option<PathBuf>,
    /// The user's own directory.
    pub(crate) user: Option<PathBuf>,
    /// The working directory.
    pub(crate) directory: PathBuf,
    /// The project as Claude Code or Cursor names it.
    pub(crate) project: Option<PathBuf>,
    /// The repository as git names it.
    pub(crate) git_dir: Option<PathBuf>,
    /// The transcript as Cursor names it.
    pub(crate) transcript: Option<PathBuf>,
}

impl Surroundings {
    /// Reads them.
    pub(crate) fn read() -> Surroundings {
        let directory = std::env::current_dir().unwrap_or_default();
        let user = variable("HOME");
        let home = variable("AGENT_TRACE_HOME").map(|home| directory.join(home));
        Surroundings {
            home: home.or_else(|| user.as_ref().map(|user| user.join(".agent-trace"))),
            user,
            project: variable("CLAUDE_PROJECT_DIR").or_else(|| variable("CURSOR_PROJECT_DIR")),
            git_dir: variable("GIT_DIR"),
            transcript: variable("CURSOR_TRANSCRIPT_PATH"),
            directory,
        }
    }
}

/// This program, to be started once more.
pub(crate) fn program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// The variables by which git tells a child of its repository.
pub(crate) fn git_variables() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.as_encoded_bytes().starts_with(b"GIT_")).collect()
}

/// How hooks behave; what is not set, or cannot be read, is as it is by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CaptureSettings {
    /// `hooks.fsync`: whether an event survives a power cut too before the hook ends.
    pub(crate) fsync: bool,
    /// `capture.flush`: whether a hook starts what absorbs in the background.
    pub(crate) flush: bool,
}

/// Reads how hooks behave in a project: its own settings, then the user's.
pub(crate) fn capture(env: &Env, home: &Path, data: &Path) -> CaptureSettings {
    let files = [data.join("project-config.json"), home.join("config.json")];
    let read = |path: &PathBuf| -> Option<Value> {
        let bytes = read_small(env, path, crate::capture::limits::SETTINGS_BYTES_MAX).ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    let values: Vec<Value> = files.iter().filter_map(read).collect();
    let get = |section: &str, name: &str| values.iter().find_map(|value| value.get(section)?.get(name));
    CaptureSettings {
        fsync: get("hooks", "fsync").and_then(Value::as_bool).unwrap_or(false),
        flush: get("capture", "flush").and_then(Value::as_str) != Some("manual"),
    }
}

/// Where agents keep their sessions.
pub(crate) fn agent_homes() -> Homes {
    Homes {
        home: variable("HOME"),
        claude: variable("CLAUDE_CONFIG_DIR"),
        codex: variable("CODEX_HOME"),
        config: variable("XDG_CONFIG_HOME"),
        data: variable("XDG_DATA_HOME"),
    }
}

/// The variable that creates projects on a service; it is used for nothing else.
pub(crate) const ADMIN_SECRET: &str = "AGENT_TRACE_ADMIN_SECRET";

/// The secret in a variable; one that is not set or empty is none.
pub(crate) fn secret(name: &str) -> Result<Option<String>, Failure> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    // What it is not is not shown.
    value
        .into_string()
        .map(Some)
        .map_err(|_| Error::invalid(format!("the variable `{name}` is no text")).into())
}

/// The zone in which times are read and shown.
pub(crate) fn time_zone() -> TimeZone {
    TimeZone::system()
}

/// Whether the user wants no colour whatever the terminal can.
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|value| value == "dumb")
}

/// Where a variable says that a folder lies; only an absolute path says it.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    variable(name).filter(|path| path.is_absolute())
}

/// The directories in which commands are looked for; a relative one depends on where it is asked from, and is left out.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|directory| directory.is_absolute()).collect()
}

/// Whether the surroundings say which repository git works on.
pub(crate) fn git_dir_is_given() -> bool {
    std::env::var_os("GIT_DIR").is_some()
}

/// The command that shows long answers; nothing where none is wanted.
pub(crate) fn pager() -> Option<OsString> {
    let chosen = ["AGENT_TRACE_PAGER", "PAGER"].into_iter().find_map(std::env::var_os);
    chosen
        .map_or_else(|| Some("less".into()), |chosen| Some(chosen).filter(|it| !it.is_empty() && it != "cat"))
}

/// What `less` is told where the user does not say otherwise.
pub(crate) fn less_options() -> Option<(&'static str, &'static str)> {
    std::env::var_os("LESS").is_none().then_some(("LESS", "FRX"))
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
