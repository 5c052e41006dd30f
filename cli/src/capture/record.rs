//! The hot path: `record` and `hook`, called by agents and by git, which wait for it.
//!
//! Always ends with status 0 and prints nothing on stdout, whatever happens: agents read stdout as an answer and
//! status 2 as a refusal. Reads and writes a bounded number of bytes. Where the repository has no store of ours,
//! nothing is written at all. What fails is kept in the spool and shown by `status` and `doctor`.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, Fs, os_env};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::entry::{EntryKind, EntryWriter, Facts, FileState};
use super::flush;
use super::limits::{
    FILE_BYTES_MAX, FILE_HASHED_BYTES_MAX, FILES_MAX, PAYLOAD_BYTES_MAX, PROJECTS_MAX, STDIN_WAIT_MILLIS_MAX,
    TAILS_MAX,
};
use super::payload::{self, Object};
use super::repository::{self, Repository, read};
use super::spool::Spool;
use super::tail;
use crate::project;
use crate::report;
use crate::settings::{self, CaptureSettings, Surroundings};

/// The git hooks that are recorded.
pub(crate) const GIT_HOOKS: [&str; 3] = ["post-commit", "post-rewrite", "pre-push"];

/// Runs a hook, if that is what the arguments ask for; they begin with the program's name. Says whether they did.
pub(crate) fn dispatch(args: &[OsString]) -> bool {
    let Some(command) = args.get(1).and_then(|arg| arg.to_str()) else { return false };
    // A person who asks for help is answered as with any command.
    let asks_for_help = args[2..].iter().any(|arg| arg == "--help" || arg == "-h");
    let (kind, rest) = match command {
        "record" if !asks_for_help => (EntryKind::Agent, &args[2..]),
        "hook" if !asks_for_help => (EntryKind::Git, &args[2..]),
        flush::COMMAND => {
            flush::run(&args[2..]);
            return true;
        }
        _ => return false,
    };
    run(kind, rest);
    true
}

/// Runs a hook whatever comes; there is nobody who would act on a failure now.
pub(crate) fn run(kind: EntryKind, args: &[OsString]) {
    std::panic::set_hook(Box::new(|_| {}));
    let mut spools = Vec::new();
    let done = catch_unwind(AssertUnwindSafe(|| match kind {
        EntryKind::Agent => record(args, &mut spools),
        EntryKind::Git => git_hook(args, &mut spools),
    }));
    let message = match done {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("a mistake of agent-trace: {}", text.unwrap_or_default())
        }
    };
    let kept = catch_unwind(|| {
        let env = os_env();
        spools.iter().for_each(|spool| spool.note(&env, &message));
    });
    if kept.is_err() || spools.is_empty() {
        report::hook_failed(&message);
    }
}

/// What of the command line concerns an agent's event.
#[derive(Default)]
struct Arguments {
    agent: String,
    event: String,
    /// What Codex's `notify` gives in place of stdin.
    payload: Option<Vec<u8>>,
}

impl Arguments {
    /// Reads them; what is not known is passed over, since a newer version may have installed the hook.
    fn read(args: &[OsString]) -> Arguments {
        let mut read = Arguments::default();
        let mut args = args.iter().map(|arg| arg.to_string_lossy());
        while let Some(arg) = args.next() {
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (arg.clone().into_owned(), None),
            };
            let mut value = || value.clone().or_else(|| args.next().map(String::from)).unwrap_or_default();
            match name.as_str() {
                "--agent" => read.agent = value(),
                "--event" => read.event = value(),
                _ if arg.starts_with('{') => read.payload = Some(arg.into_owned().into_bytes()),
                _ => {}
            }
        }
        read
    }
}

fn record(args: &[OsString], spools: &mut Vec<Spool>) -> io::Result<()> {
    let arguments = Arguments::read(args);
    let surroundings = Surroundings::read();
    let env = os_env();
    let (bytes, is_cut) = match arguments.payload {
        Some(bytes) => (bytes, false),
        None => read_stdin()?,
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(());
    }
    let bytes = payload::without_addresses(bytes);
    let seen = Seen::read(&bytes, &arguments.event, &surroundings);
    for target in targets(&env, &seen, &surroundings) {
        spools.push(target.spool.clone());
        let facts = Facts {
            kind: EntryKind::Agent,
            is_cut,
            arrived: env.clock.now(),
            name: arguments.agent.clone(),
            argument: arguments.event.clone(),
            directory: seen.directory.clone(),
            ..target.facts(env.fs.as_ref())
        };
        write(&env, &target, &facts, &bytes, &seen)?;
        flush::start(&env, &target.data, &target.spool, &target.settings);
        spools.pop();
    }
    Ok(())
}

fn git_hook(args: &[OsString], spools: &mut Vec<Spool>) -> io::Result<()> {
    let name = args.first().and_then(|arg| arg.to_str()).unwrap_or_default();
    if !GIT_HOOKS.contains(&name) {
        return Err(io::Error::other(format!("no git hook called `{name}` is recorded")));
    }
    let surroundings = Surroundings::read();
    let env = os_env();
    let fs = env.fs.as_ref();
    let repository = match &surroundings.git_dir {
        // Git sets it for hooks in a linked work tree, and where its caller had set it.
        Some(git_dir) => {
            let git_dir = surroundings.directory.join(git_dir);
            let root = Repository::around(fs, &surroundings.directory).and_then(|found| found.root);
            Some(Repository::of_git_dir(fs, &git_dir, root.as_deref()))
        }
        None => Repository::around(fs, &surroundings.directory)
            .or_else(|| Some(Repository::of_git_dir(fs, &surroundings.directory, None))),
    };
    let Some(target) = repository.and_then(|repository| Target::of(&env, repository, &surroundings)) else {
        return Ok(());
    };
    spools.push(target.spool.clone());
    // After a commit nobody writes to stdin, and it may be the terminal.
    let (bytes, is_cut) = if name == "post-commit" { (Vec::new(), false) } else { read_stdin()? };
    let facts = Facts {
        kind: EntryKind::Git,
        is_cut,
        arrived: env.clock.now(),
        name: name.to_owned(),
        argument: argument(name, args.get(1)),
        directory: surroundings.directory.clone(),
        ..target.facts(fs)
    };
    write(&env, &target, &facts, &bytes, &Seen::default())?;
    flush::start(&env, &target.data, &target.spool, &target.settings);
    spools.pop();
    Ok(())
}

/// What is kept of a git hook's first argument: where a push names no remote, it is a URL, which may hold a password.
fn argument(name: &str, given: Option<&OsString>) -> String {
    let given = given.map(|given| given.to_string_lossy().into_owned()).unwrap_or_default();
    if name == "pre-push" && given.contains([':', '@']) { String::new() } else { given }
}

/// Reads stdin up to the bound, and says whether there was more. A terminal gives nothing, and neither does a pipe on
/// which nobody writes for a while: then what came so far has to do.
fn read_stdin() -> io::Result<(Vec<u8>, bool)> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok((Vec::new(), false));
    }
    let mut lock = stdin.lock();
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while bytes.len() <= PAYLOAD_BYTES_MAX {
        let (seconds, millis) = (STDIN_WAIT_MILLIS_MAX / 1000, STDIN_WAIT_MILLIS_MAX % 1000);
        let wait = Timespec { tv_sec: seconds, tv_nsec: millis * 1_000_000 };
        let fd = io::stdin();
        let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&wait)) {
            Ok(0) => break,
            Err(rustix::io::Errno::INTR) => continue,
            // What cannot be waited for can still be read.
            Ok(_) | Err(_) => {}
        }
        match lock.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A closed stdin is an empty one.
            Err(_) => break,
        }
    }
    let is_cut = bytes.len() > PAYLOAD_BYTES_MAX;
    bytes.truncate(PAYLOAD_BYTES_MAX);
    Ok((bytes, is_cut))
}

/// What the hot path looks for in a payload.
#[derive(Default)]
struct Seen {
    directory: PathBuf,
    /// Where else a repository may be, in this order.
    places: Vec<PathBuf>,
    /// Edited files, absolute.
    files: Vec<PathBuf>,
    transcripts: Vec<PathBuf>,
}

impl Seen {
    fn read(bytes: &[u8], event: &str, surroundings: &Surroundings) -> Seen {
        let text = payload::readable(bytes);
        let object = Object::read(&text);
        let nested = object.nested("toolinfo");
        let info = nested.as_deref().map(Object::read).unwrap_or_default();
        let event = payload::event_name(&object, event);
        let directory = object.first(&["cwd", "directory", "workdir"]).or_else(|| info.text("cwd"));
        let directory = directory.map_or_else(|| surroundings.directory.clone(), PathBuf::from);
        let directory = surroundings.directory.join(directory);
        let mut places = vec![directory.clone()];
        places.extend(surroundings.project.clone());
        for root in object.items("workspaceroots") {
            places.extend(payload::text(root).map(|root| directory.join(root)));
        }
        let files = payload::edited_paths(&object, &event).into_iter();
        let files = files.map(|path| repository::normalised(&directory.join(path))).collect();
        Seen { transcripts: transcripts(&object, &info, surroundings, &directory), directory, places, files }
    }
}

/// Where the transcripts of an event's session are: the session's own, then a sub-agent's.
fn transcripts(
    object: &Object<'_>,
    info: &Object<'_>,
    surroundings: &Surroundings,
    directory: &Path,
) -> Vec<PathBuf> {
    let main = object.text("transcriptpath").or_else(|| info.text("transcriptpath")).map(PathBuf::from);
    let main = main.or_else(|| surroundings.transcript.clone()).or_else(|| {
        // Copilot says the session only; its file has a fixed place.
        let session = object.text("sessionid").filter(|session| is_plain_name(session))?;
        let is_copilot = object.has("toolargs") || object.number("timestamp").is_some();
        let user = surroundings.user.as_ref().filter(|_| is_copilot)?;
        Some(user.join(".copilot/session-state").join(session).join("events.jsonl"))
    });
    let sub = object.text("agenttranscriptpath").map(PathBuf::from).or_else(|| {
        let agent = object.text("agentid").filter(|agent| is_plain_name(agent))?;
        let main = main.as_ref()?;
        Some(main.with_extension("").join("subagents").join(format!("agent-{agent}.jsonl")))
    });
    let home = |path: PathBuf| match (path.strip_prefix("~"), &surroundings.user) {
        (Ok(rest), Some(user)) => user.join(rest),
        _ => directory.join(path),
    };
    main.into_iter().chain(sub).map(home).take(TAILS_MAX).collect()
}

/// Whether a name is one part of a path and nothing else.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 128 && name.bytes().all(plain) && !name.starts_with('.')
}

/// A project into whose spool an event goes.
struct Target {
    repository: Repository,
    data: PathBuf,
    spool: Spool,
    settings: CaptureSettings,
}

impl Target {
    /// The project of a repository that has one here.
    fn of(env: &Env, repository: Repository, surroundings: &Surroundings) -> Option<Target> {
        let home = surroundings.home.as_deref()?;
        let data = project::data_of(env, &repository.common_dir, home)?;
        let settings = settings::capture(env, home, &data);
        Some(Target { spool: Spool::of(&data), repository, data, settings })
    }

    /// What is the same for agents and git.
    fn facts(&self, fs: &dyn Fs) -> Facts {
        let head = self.repository.head(fs);
        Facts {
            kind: EntryKind::Agent,
            is_cut: false,
            arrived: agent_trace_store::Timestamp::from_micros(0),
            name: String::new(),
            argument: String::new(),
            directory: PathBuf::new(),
            root: self.repository.root.clone().unwrap_or_default(),
            git_dir: self.repository.git_dir.clone(),
            revision: head.revision,
            branch: head.branch,
        }
    }
}

/// The projects that an event concerns: those of the edited files, else the one around the session.
fn targets(env: &Env, seen: &Seen, surroundings: &Surroundings) -> Vec<Target> {
    let fs = env.fs.as_ref();
    let mut repositories: Vec<Repository> = Vec::new();
    for file in seen.files.iter().take(FILES_MAX) {
        // The directory, so that a file called `.git` is no repository.
        let around = file.parent().and_then(|directory| Repository::around(fs, directory));
        repositories.extend(around.filter(|found| !repositories.contains(found)));
    }
    if repositories.is_empty() {
        repositories.extend(seen.places.iter().find_map(|place| Repository::around(fs, place)));
    }
    repositories.truncate(PROJECTS_MAX);
    repositories.into_iter().filter_map(|found| Target::of(env, found, surroundings)).collect()
}

fn write(env: &Env, target: &Target, facts: &Facts, payload: &[u8], seen: &Seen) -> io::Result<()> {
    let fs = env.fs.as_ref();
    let root = target.repository.root.as_deref();
    let mut marks = Vec::new();
    target.spool.put(env, facts.arrived, target.settings.fsync, |file| {
        let mut writer = EntryWriter::start(file, facts, payload)?;
        let files = seen.files.iter().filter(|path| root.is_some_and(|root| path.starts_with(root)));
        for path in files.take(FILES_MAX) {
            writer.file(path, &look_at(fs, path))?;
        }
        for path in &seen.transcripts {
            // That a transcript cannot be read is the transcript's misfortune, not the event's.
            match tail::take(env, &target.spool, path) {
                Ok(Some(tail)) => {
                    writer.tail(&tail)?;
                    if !tail.content.is_empty() {
                        marks.push((path, tail::mark_after(env, &tail)?));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    target.spool.note(env, &format!("cannot read transcript `{}`: {error}", path.display()));
                }
            }
        }
        writer.finish()
    })?;
    // Only now is what the marks promise true.
    for (path, mark) in marks {
        mark.write(env, &target.spool, path)?;
    }
    Ok(())
}

/// What a file is at this moment.
fn look_at(fs: &dyn Fs, path: &Path) -> FileState {
    let bytes = match fs.metadata(path) {
        Ok(metadata) if metadata.is_dir => return FileState::Unreadable,
        Ok(metadata) => metadata.bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return FileState::Absent,
        Err(_) => return FileState::Unreadable,
    };
    // Pipes and devices have no length, and opening one may wait for ever.
    if bytes == 0 {
        return FileState::Whole(Vec::new());
    }
    if bytes > FILE_HASHED_BYTES_MAX {
        return FileState::Sized(bytes);
    }
    let content = fs.open(path).and_then(|file| read(&*file, 0, FILE_HASHED_BYTES_MAX));
    match content {
        Ok(content) if content.len() as u64 <= FILE_BYTES_MAX => FileState::Whole(content),
        Ok(content) => FileState::Hashed(content.len() as u64, tail::hash(&content)),
        Err(_) => FileState::Unreadable,
    }
}
