//! Which sessions there are, which of them are this repository's, and which files of each have to be read.
//!
//! Looks at the head of each file. Of the states of one session that extend each other only the longest is read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use agent_trace_store::Timestamp;
use agent_trace_store::env::{Env, File};
use agent_trace_store::id::encode_hex;
use memchr::memmem;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::places::Candidate;
use super::tree::Tree;
use super::{Options, Skipped};
use crate::capture::adapters::Agent;
use crate::capture::repository;
use crate::import;

/// What is read of the head of a file.
const HEAD_BYTES: u64 = 1 << 20;
/// Folders and files that are remembered of a head.
const NAMED_MAX: usize = 256;
/// What is compared at once.
const COMPARED_BYTES: u64 = 1 << 20;

/// A session, or the part of one that a sub-agent wrote.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) agent: Agent,
    pub(super) session: String,
    pub(super) part: Option<String>,
    /// The top of the work tree, in which it was.
    pub(super) root: PathBuf,
    /// Where it was, if no line says so.
    pub(super) folder: PathBuf,
    /// The first time in it.
    pub(super) start: Timestamp,
    /// The files to read, by number, longest first; each is read.
    pub(super) read: Vec<usize>,
    /// The files that say nothing more.
    pub(super) covered: Vec<usize>,
}

impl Session {
    /// Our key for its transcripts.
    pub(super) fn conversation(&self) -> String {
        import::conversation(Some(self.agent.label()), &self.session, self.part.as_deref())
    }
}

/// What was chosen of the files.
#[derive(Default)]
pub(super) struct Chosen {
    pub(super) sessions: Vec<Session>,
    /// The files of sessions of other places, by number.
    pub(super) elsewhere: Vec<usize>,
    pub(super) old: u64,
    pub(super) skipped: Vec<Skipped>,
}

/// What the head of a file says.
#[derive(Clone, Debug, Default)]
struct Glance {
    agent: Option<Agent>,
    session: Option<String>,
    part: Option<String>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    folders: Vec<PathBuf>,
    paths: Vec<PathBuf>,
    /// The hash of the folder, where only that is said.
    folder_hash: Option<String>,
}

/// Chooses among files those of sessions of this repository.
pub(super) fn choose(
    env: &Env,
    tree: &Tree<'_>,
    options: &Options,
    candidates: &[Candidate],
    fresh: &[bool],
) -> Chosen {
    let looked: Vec<Option<io::Result<Glance>>> = candidates
        .par_iter()
        .zip(fresh)
        .map(|(candidate, fresh)| fresh.then(|| glance(env, candidate)))
        .collect();
    let mut chosen = Chosen::default();
    let mut groups: BTreeMap<(Agent, String, Option<String>), Session> = BTreeMap::new();
    for (number, (candidate, looked)) in candidates.iter().zip(looked).enumerate() {
        let glance = match looked {
            None => continue,
            Some(Ok(glance)) => glance,
            Some(Err(error)) => {
                let reason = format!("cannot read it: {error}");
                chosen.skipped.push(Skipped { file: candidate.path.clone(), line: None, reason });
                continue;
            }
        };
        let Some(agent) = glance.agent.filter(|agent| is_wanted(options, *agent)) else {
            // A file that lies among others and is no session is none of our business, unless it was asked for.
            if glance.agent.is_none() && candidate.is_given && options.paths.contains(&candidate.path) {
                let reason = "it is no transcript of an agent that is known".to_owned();
                chosen.skipped.push(Skipped { file: candidate.path.clone(), line: None, reason });
            }
            continue;
        };
        let Some(root) = root(env, tree, options, candidate, &glance) else {
            chosen.elsewhere.push(number);
            continue;
        };
        if options.since.is_some_and(|since| glance.last.unwrap_or(candidate.metadata.modified) < since) {
            chosen.old += 1;
            continue;
        }
        let stem = candidate.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let session = glance.session.unwrap_or(stem);
        let start = glance.first.or(glance.last).unwrap_or(candidate.metadata.modified);
        let folder = glance.folders.first().cloned().unwrap_or_else(|| root.clone());
        let group = groups.entry((agent, session.clone(), glance.part.clone())).or_insert_with(|| Session {
            agent,
            session,
            part: glance.part,
            root,
            folder,
            start,
            read: Vec::new(),
            covered: Vec::new(),
        });
        group.start = group.start.min(start);
        group.read.push(number);
    }
    let mut sessions: Vec<Session> = groups.into_values().collect();
    sessions.par_iter_mut().for_each(|session| keep_longest(env, candidates, session));
    // What a sub-agent says of itself comes before what its session says of it.
    let mut starts: BTreeMap<(Agent, String), Timestamp> = BTreeMap::new();
    for one in &sessions {
        let start = starts.entry((one.agent, one.session.clone())).or_insert(one.start);
        *start = one.start.min(*start);
    }
    sessions.sort_by_cached_key(|one| {
        let start = starts[&(one.agent, one.session.clone())];
        (start, one.agent, one.session.clone(), one.part.is_none(), one.part.clone())
    });
    chosen.sessions = sessions;
    chosen
}

fn is_wanted(options: &Options, agent: Agent) -> bool {
    options.agents.is_empty() || options.agents.contains(&agent)
}

/// Where a session was, if it was in this repository.
fn root(
    env: &Env,
    tree: &Tree<'_>,
    options: &Options,
    candidate: &Candidate,
    glance: &Glance,
) -> Option<PathBuf> {
    let inside = glance.folders.iter().find_map(|folder| tree.around(folder, &glance.paths));
    let by_hash = || {
        let hash = glance.folder_hash.as_ref()?;
        let same =
            |root: &&PathBuf| encode_hex(&Sha256::digest(root.as_os_str().as_encoded_bytes())) == *hash;
        tree.roots().iter().find(same).cloned()
    };
    if let Some(root) = inside.or_else(by_hash).or_else(|| by_cursor(tree, candidate, glance)) {
        return Some(root);
    }
    if !options.project {
        return None;
    }
    let folders = glance.folders.iter().flat_map(|folder| folder.ancestors());
    let around = glance.paths.iter().flat_map(|path| path.ancestors().skip(1));
    let best = tree.best(folders.chain(around), &glance.paths);
    match best {
        Some((root, _)) if candidate.is_given => Some(root),
        // Of all sessions on a machine only those whose place is gone and whose files are mostly ours.
        Some((root, score)) if score * 2 > glance.paths.len() && env.fs.metadata(&root).is_err() => {
            Some(root)
        }
        None if candidate.is_given => {
            glance.folders.iter().min_by_key(|folder| folder.as_os_str().len()).cloned()
        }
        _ => None,
    }
}

/// Cursor names its folders after the place, with `-` for everything that is no letter or digit.
fn by_cursor(tree: &Tree<'_>, candidate: &Candidate, glance: &Glance) -> Option<PathBuf> {
    if glance.agent != Some(Agent::Cursor) {
        return None;
    }
    let plain = |text: &str| -> String {
        let dashed = text.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
        dashed.collect::<String>().trim_matches('-').to_owned()
    };
    let mut parents = candidate.path.ancestors();
    let folder = parents.find(|folder| folder.file_name().is_some_and(|name| name == "agent-transcripts"))?;
    let name = plain(&folder.parent()?.file_name()?.to_string_lossy());
    tree.roots().iter().find(|root| plain(&root.to_string_lossy()) == name).cloned()
}

fn glance(env: &Env, candidate: &Candidate) -> io::Result<Glance> {
    let file = env.fs.open(&candidate.path)?;
    let head = repository::read(&*file, 0, HEAD_BYTES)?;
    let mut glance = Glance::default();
    if candidate.agent == Some(Agent::OpenCode) || is_opencode(&candidate.path, &head) {
        glance.agent = Some(Agent::OpenCode);
        glance.session = texts(&head, "\"id\"", 1).pop();
        glance.folders = texts(&head, "\"directory\"", 1).into_iter().map(PathBuf::from).collect();
        return Ok(glance);
    }
    let looked = import::look(env, &candidate.path, &candidate.metadata)?;
    glance.agent = looked.agent.and_then(Agent::labelled).or(candidate.agent);
    if glance.agent.is_none() && is_cursor(&candidate.path, &head) {
        glance.agent = Some(Agent::Cursor);
    }
    (glance.session, glance.part, glance.last) = (looked.session, looked.part, looked.time);
    glance.first = texts(&head, "\"timestamp\"", 1).pop().and_then(|text| Timestamp::parse(&text));
    glance.folders = texts(&head, "\"cwd\"", NAMED_MAX).into_iter().map(PathBuf::from).collect();
    glance.folder_hash = texts(&head, "\"projectHash\"", 1).pop();
    for name in ["\"file_path\"", "\"filePath\"", "\"absolute_path\""] {
        let named = texts(&head, name, NAMED_MAX).into_iter().map(PathBuf::from);
        glance.paths.extend(named.filter(|path| path.is_absolute()));
    }
    Ok(glance)
}

fn is_opencode(path: &Path, head: &[u8]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("ses_") && name.ends_with(".json") && memmem::find(head, b"\"directory\"").is_some()
}

fn is_cursor(path: &Path, head: &[u8]) -> bool {
    path.components().any(|part| part.as_os_str() == "agent-transcripts")
        && memmem::find(head, b"\"role\"").is_some()
}

/// The different texts under a quoted name, in order.
fn texts(bytes: &[u8], name: &str, most: usize) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for at in memmem::find_iter(bytes, name.as_bytes()) {
        let rest = bytes[at + name.len()..].trim_ascii_start();
        let Some(rest) = rest.strip_prefix(b":").map(<[u8]>::trim_ascii_start) else { continue };
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<String>();
        if !rest.starts_with(b"\"") {
            continue;
        }
        if let Some(Ok(text)) = values.next()
            && !text.is_empty()
            && !found.contains(&text)
        {
            found.push(text);
            if found.len() == most {
                break;
            }
        }
    }
    found
}

/// Leaves of the files of a session those that no longer one begins with.
fn keep_longest(env: &Env, candidates: &[Candidate], session: &mut Session) {
    let mut files = std::mem::take(&mut session.read);
    files.sort_by_key(|number| (std::cmp::Reverse(candidates[*number].metadata.bytes), *number));
    for number in files {
        let is_covered = session
            .read
            .iter()
            .any(|longer| begins(env, &candidates[*longer].path, &candidates[number]).unwrap_or(false));
        if is_covered { &mut session.covered } else { &mut session.read }.push(number);
    }
}

/// Whether a file begins with all of another.
fn begins(env: &Env, longer: &Path, shorter: &Candidate) -> io::Result<bool> {
    let (long, short) = (env.fs.open(longer)?, env.fs.open(&shorter.path)?);
    let bytes = shorter.metadata.bytes;
    // Where they differ, they mostly differ early or at the end.
    let tail = bytes.saturating_sub(4096);
    if !same(&*long, &*short, tail, bytes)? {
        return Ok(false);
    }
    let mut at = 0;
    while at < tail {
        let end = (at + COMPARED_BYTES).min(tail);
        if !same(&*long, &*short, at, end)? {
            return Ok(false);
        }
        at = end;
    }
    Ok(true)
}

fn same(one: &dyn File, two: &dyn File, from: u64, to: u64) -> io::Result<bool> {
    Ok(repository::read(one, from, to - from)? == repository::read(two, from, to - from)?)
}
