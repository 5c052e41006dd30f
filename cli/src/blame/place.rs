//! Which repository a file lies in, and under which path: the file decides, wherever the command is run.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;
use agent_trace_store::{Error, ErrorKind};
use serde::Deserialize;

use crate::git::process::Git;
use crate::report::Failure;
use crate::settings::{self, Settings};

/// What agent-trace-cli writes down of all projects, at most.
const REGISTRY_BYTES_MAX: u64 = 64 << 20;

/// A file in a repository.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    /// The repository.
    pub(crate) git: Git,
    /// The root of the work tree; a bare repository has none.
    pub(crate) root: Option<PathBuf>,
    /// From the root of the repository.
    pub(crate) path: OsString,
    /// A directory in the repository.
    pub(crate) directory: PathBuf,
}

impl Spot {
    /// Where the file lies in the work tree.
    pub(crate) fn on_disk(&self) -> Option<PathBuf> {
        self.root.as_ref().map(|root| root.join(&self.path))
    }
}

/// Finds the repository of a file.
pub(crate) fn locate(
    env: &Env,
    settings: &Settings,
    file: &Path,
    project: Option<&str>,
    revision: Option<&str>,
) -> Result<Spot, Failure> {
    let mut absolute = settings.directory.join(file);
    if let Some(project) = project {
        let root = project_root(env, settings, project)?;
        if file.is_relative() {
            absolute = root.join(file);
        }
    }
    let metadata = env.fs.metadata(&absolute).ok();
    if metadata.as_ref().is_some_and(|metadata| metadata.is_dir) {
        let message = format!("`{}` is a directory: expected a file", file.display());
        return Err(Error::invalid(message).into());
    }
    // A file of an older commit may have lain in a directory that is gone.
    let mut directory = absolute.parent().unwrap_or(&absolute).to_owned();
    while !env.fs.metadata(&directory).is_ok_and(|metadata| metadata.is_dir) {
        let Some(above) = directory.parent() else { break };
        directory = above.to_owned();
    }
    let rest = absolute.strip_prefix(&directory).unwrap_or(file).to_owned();
    let spot = match given(settings, &absolute) {
        Some(spot) => spot,
        None => in_work_tree(&directory, &rest).or_else(|failure| bare(&directory, &rest).ok_or(failure))?,
    };
    if metadata.is_none() && revision.is_none() && spot.root.is_some() {
        let message = format!("there is no file `{}`", file.display());
        return Err(Failure::new(
            ErrorKind::NotFound,
            message,
            "give a commit too, if it was there then: agent-trace blame FILE REV",
        ));
    }
    Ok(spot)
}

/// The repository that the surroundings name, if the file lies in its work tree: without a word of where that is, git
/// takes the working directory for it.
fn given(settings: &Settings, absolute: &Path) -> Option<Spot> {
    if !settings::git_dir_is_given() {
        return None;
    }
    let here = in_work_tree(&settings.directory, Path::new("")).ok()?;
    let mut plain = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    let path = plain.strip_prefix(here.root.as_ref()?).ok()?.as_os_str().to_owned();
    Some(Spot { path, ..here })
}

fn in_work_tree(directory: &Path, rest: &Path) -> Result<Spot, Failure> {
    let git = Git::from(directory);
    let printed = git.ask(&["rev-parse", "--show-toplevel", "--is-inside-work-tree", "--show-prefix"]);
    let printed = printed.map_err(|error| {
        let message = format!("no git repository at `{}`", directory.display());
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        Failure::from(Error::invalid(message).with_source(cause)).hint("run it inside a git repository")
    })?;
    // Either path may hold line feeds; the answer between them tells them apart.
    const BETWEEN: &[u8] = b"\ntrue\n";
    let at = memchr::memmem::find(&printed, BETWEEN).ok_or_else(|| {
        Error::invalid(format!("`{}` is not in the work tree of a git repository", directory.display()))
    })?;
    let prefix = &printed[at + BETWEEN.len()..];
    let prefix = prefix.strip_suffix(b"\n").unwrap_or(prefix);
    let root = PathBuf::from(OsStr::from_bytes(&printed[..at]));
    let mut path = prefix.to_vec();
    path.extend_from_slice(rest.as_os_str().as_bytes());
    Ok(Spot {
        git: Git::from(&root),
        root: Some(root),
        path: OsString::from_vec(path),
        directory: directory.to_owned(),
    })
}

/// A repository without a work tree: paths are from its root.
fn bare(directory: &Path, rest: &Path) -> Option<Spot> {
    let git = Git::from(directory);
    let printed = git.ask(&["rev-parse", "--is-bare-repository"]).ok()?;
    let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    (printed == b"true\n" && plain).then(|| Spot {
        git,
        root: None,
        path: rest.as_os_str().to_owned(),
        directory: directory.to_owned(),
    })
}

/// What agent-trace-cli writes down of all projects.
#[derive(Deserialize)]
struct Registry {
    #[serde(default)]
    projects: BTreeMap<String, Registered>,
}

#[derive(Deserialize)]
struct Registered {
    #[serde(default)]
    canonical_root: Option<PathBuf>,
    #[serde(default)]
    known_roots: Vec<PathBuf>,
}

/// The directory of a project, given by its path or its id.
fn project_root(env: &Env, settings: &Settings, project: &str) -> Result<PathBuf, Failure> {
    let is_dir = |path: &Path| env.fs.metadata(path).is_ok_and(|metadata| metadata.is_dir);
    let path = settings.directory.join(project);
    if is_dir(&path) {
        return Ok(path);
    }
    let registry = settings.home.as_ref().map(|home| home.join("projects.json"));
    let registry = registry
        .and_then(|path| read_small(env, &path, REGISTRY_BYTES_MAX).ok())
        .and_then(|bytes| serde_json::from_slice::<Registry>(&bytes).ok());
    let registered = registry.and_then(|mut registry| registry.projects.remove(project));
    let roots = registered.map(|found| found.canonical_root.into_iter().chain(found.known_roots));
    roots.and_then(|mut roots| roots.find(|root| is_dir(root))).ok_or_else(|| {
        let message = format!("there is no project `{project}`");
        Failure::new(ErrorKind::NotFound, message, "give the directory of its repository")
    })
}
