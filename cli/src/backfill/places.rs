//! Where agents leave their sessions, and which files lie there.
//!
//! Lists folders and reads nothing. A folder that is not there is no mistake; one that cannot be listed is said.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, Metadata};

use super::{Options, Skipped};
use crate::capture::adapters::Agent;

/// Folders inside folders.
const DEPTH_MAX: usize = 16;
/// Files that are looked at in one run; more are not, and that is said.
const FILES_MAX: usize = 1_000_000;

/// The folders in which agents keep what they keep.
#[derive(Clone, Debug, Default)]
pub(crate) struct Homes {
    /// The user's own.
    pub(crate) home: Option<PathBuf>,
    /// `CLAUDE_CONFIG_DIR`; may be several, with commas.
    pub(crate) claude: Option<PathBuf>,
    /// `CODEX_HOME`.
    pub(crate) codex: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub(crate) config: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub(crate) data: Option<PathBuf>,
}

/// A file that may be a session, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    /// Whose it is, where its place says so.
    pub(super) agent: Option<Agent>,
    /// Whether somebody named it, or its folder.
    pub(super) is_given: bool,
}

/// What was found, and what could not be looked at.
#[derive(Default)]
pub(super) struct Found {
    pub(super) candidates: Vec<Candidate>,
    pub(super) skipped: Vec<Skipped>,
}

/// Finds the files that are given, or else those of the agents.
pub(super) fn find(env: &Env, homes: &Homes, options: &Options) -> Found {
    let mut walk = Walk { env, found: Found::default(), agent: None, is_given: !options.paths.is_empty() };
    let wanted = |agent: Agent| options.agents.is_empty() || options.agents.contains(&agent);
    for path in &options.paths {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        match env.fs.metadata(&path) {
            Ok(metadata) if metadata.is_dir => walk.folder(&path, &|path| is_session_like(path), 0),
            Ok(_) => walk.file(&path),
            Err(error) => walk.skip(&path, format!("cannot look at it: {error}")),
        }
    }
    if options.paths.is_empty() {
        for (agent, folder, takes) in agent_folders(homes) {
            if wanted(agent) && env.fs.metadata(&folder).is_ok_and(|metadata| metadata.is_dir) {
                walk.agent = Some(agent);
                walk.folder(&folder, &takes, 0);
            }
        }
        if wanted(Agent::OpenCode) {
            walk.say_databases(homes);
        }
    }
    let mut found = walk.found;
    found.candidates.sort_by(|one, two| one.path.cmp(&two.path));
    found.candidates.dedup_by(|one, two| one.path == two.path);
    found
}

type Takes = fn(&Path) -> bool;

/// The folders that there may be, and which files in them are sessions.
fn agent_folders(homes: &Homes) -> Vec<(Agent, PathBuf, Takes)> {
    let mut folders: Vec<(Agent, PathBuf, Takes)> = Vec::new();
    let in_home = |path: &str| homes.home.as_ref().map(|home| home.join(path));
    let mut add = |agent: Agent, folder: Option<PathBuf>, takes: Takes| {
        if let Some(folder) = folder.filter(|folder| folders.iter().all(|(_, known, _)| known != folder)) {
            folders.push((agent, folder, takes));
        }
    };
    let claude = homes.claude.iter().flat_map(|list| {
        list.to_string_lossy().split(',').map(|one| PathBuf::from(one.trim())).collect::<Vec<_>>()
    });
    for folder in claude {
        add(Agent::Claude, Some(folder.join("projects")), is_lines);
    }
    add(Agent::Claude, in_home(".claude/projects"), is_lines);
    let config = homes.config.clone().or_else(|| in_home(".config"));
    add(Agent::Claude, config.map(|config| config.join("claude/projects")), is_lines);
    let codex = homes.codex.clone().or_else(|| in_home(".codex"));
    for name in ["sessions", "archived_sessions"] {
        add(Agent::Codex, codex.as_ref().map(|codex| codex.join(name)), is_lines);
    }
    add(Agent::Gemini, in_home(".gemini/tmp"), is_chat);
    add(Agent::Copilot, in_home(".copilot/session-state"), is_lines);
    add(Agent::Copilot, in_home(".copilot/history-session-state"), is_lines);
    add(Agent::Cursor, in_home(".cursor/projects"), is_cursor);
    let data = homes.data.clone().or_else(|| in_home(".local/share"));
    add(Agent::OpenCode, data.map(|data| data.join("opencode/storage/session")), is_opencode);
    folders
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(OsStr::to_str).unwrap_or_default()
}

fn is_lines(path: &Path) -> bool {
    ending(path) == "jsonl"
}

fn is_chat(path: &Path) -> bool {
    let in_chats = path.parent().and_then(Path::file_name) == Some(OsStr::new("chats"));
    in_chats && matches!(ending(path), "json" | "jsonl")
}

fn is_cursor(path: &Path) -> bool {
    is_lines(path) && path.components().any(|part| part.as_os_str() == "agent-transcripts")
}

fn is_opencode(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.starts_with("ses_") && ending(path) == "json"
}

/// What is taken from a folder that is given.
fn is_session_like(path: &Path) -> bool {
    matches!(ending(path), "jsonl" | "json") && path.file_name() != Some(OsStr::new("manifest.jsonl"))
}

struct Walk<'a> {
    env: &'a Env,
    found: Found,
    agent: Option<Agent>,
    is_given: bool,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, takes: &dyn Fn(&Path) -> bool, depth: usize) {
        if depth > DEPTH_MAX {
            return self.skip(folder, format!("folders are nested more than {DEPTH_MAX} deep"));
        }
        let entries = match self.env.fs.list(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.skip(folder, format!("cannot list it: {error}")),
        };
        for entry in entries {
            let path = folder.join(&entry.name);
            match entry.is_dir {
                // By a link a walk could run in circles.
                true if entry.name == ".git" || path.is_symlink() => {}
                true => self.folder(&path, takes, depth + 1),
                false if takes(&path) => self.file(&path),
                false => {}
            }
        }
    }

    fn file(&mut self, path: &Path) {
        if self.found.candidates.len() >= FILES_MAX {
            if self.found.candidates.len() == FILES_MAX {
                self.skip(path, format!("there are more than {FILES_MAX} files; give folders one by one"));
            }
            return;
        }
        match self.env.fs.metadata(path) {
            Ok(metadata) if metadata.bytes == 0 => {}
            Ok(metadata) => self.found.candidates.push(Candidate {
                path: path.to_owned(),
                metadata,
                agent: self.agent,
                is_given: self.is_given,
            }),
            // It has gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.skip(path, format!("cannot look at it: {error}")),
        }
    }

    /// Newer versions of OpenCode keep their sessions in a database.
    fn say_databases(&mut self, homes: &Homes) {
        let data = homes.data.clone().or_else(|| homes.home.as_ref().map(|home| home.join(".local/share")));
        let Some(path) = data.map(|data| data.join("opencode/opencode.db")) else { return };
        if self.env.fs.metadata(&path).is_ok() {
            self.skip(
                &path,
                "sessions of OpenCode in a database cannot be read; only those in files".to_owned(),
            );
        }
    }

    fn skip(&mut self, file: &Path, reason: String) {
        self.found.skipped.push(Skipped { file: file.to_owned(), line: None, reason });
    }
}
