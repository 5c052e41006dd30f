//! What the surroundings say: variables, home, working directory, time zone. Nothing else reads them.

use std::path::PathBuf;

use agent_trace_store::Error;
use jiff::tz::TimeZone;

use crate::args::Global;
use crate::report::Failure;

/// What the surroundings say, read once.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// A store outside git.
    pub(crate) store: Option<PathBuf>,
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
        let home = variable("AGENT_TRACE_HOME")
            .map(absolute)
            .or_else(|| variable("HOME").map(|home| home.join(".agent-trace")));
        Ok(Settings { store, home, directory: directory.clone(), temporary: std::env::temp_dir() })
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

/// Whether the surroundings say which repository git works on.
pub(crate) fn git_dir_is_given() -> bool {
    std::env::var_os("GIT_DIR").is_some()
}

/// The command that shows long answers; nothing where none is wanted.
pub(crate) fn pager() -> Option<std::ffi::OsString> {
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
