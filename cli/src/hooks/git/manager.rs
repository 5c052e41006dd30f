//! Hooks directories that belong to somebody else: husky, lefthook, pre-commit, or a team's own.
//!
//! Their files are read by other people's machines too, so our lines name the program by its name only. They are told to
//! the user, and added only on request, between marks or as one line, so that they can be taken out again. YAML is
//! changed by whole lines, and only where its shape is the plain one.

use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::{Error, Result};

use super::{Event, GIT, Owner, State, chain};
use crate::hooks::command::{self, Program};
use crate::hooks::files::{self, Note, Notes};
use crate::hooks::{Change, Kind, diff};
use crate::report::Failure;

const BEGIN: &str = "# agent-trace begin";
const END: &str = "# agent-trace end";
const LEFTHOOK: [&str; 4] = ["lefthook.yml", ".lefthook.yml", "lefthook.yaml", ".lefthook.yaml"];
const PRE_COMMIT: &str = ".pre-commit-config.yaml";

/// Who owns the directory that `core.hooksPath` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    /// Its scripts lie in this directory.
    Husky(PathBuf),
    /// Its settings are this file.
    Lefthook(PathBuf),
    /// Its settings are this file.
    PreCommit(PathBuf),
    /// Nobody that is known: the scripts lie in the directory itself.
    Directory(PathBuf),
}

impl Manager {
    /// Who owns a hooks directory; `root` is the working tree that it lies in.
    pub(super) fn of(env: &Env, hooks: &Path, root: Option<&Path>) -> Manager {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let is_inner = name(hooks).as_deref() == Some("_");
        let outer = if is_inner { hooks.parent().unwrap_or(hooks) } else { hooks };
        if is_inner || name(outer).as_deref() == Some(".husky") {
            return Manager::Husky(outer.to_owned());
        }
        let there =
            |file: &str| root.map(|root| root.join(file)).filter(|path| env.fs.metadata(path).is_ok());
        if let Some(file) = LEFTHOOK.iter().find_map(|file| there(file)) {
            return Manager::Lefthook(file);
        }
        there(PRE_COMMIT).map_or_else(|| Manager::Directory(hooks.to_owned()), Manager::PreCommit)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Manager::Husky(_) => "husky",
            Manager::Lefthook(_) => "lefthook",
            Manager::PreCommit(_) => "pre-commit",
            Manager::Directory(_) => "hooks-path",
        }
    }

    /// The file that an event's lines belong in.
    fn file(&self, event: Event) -> PathBuf {
        match self {
            Manager::Husky(directory) | Manager::Directory(directory) => directory.join(event.name()),
            Manager::Lefthook(file) | Manager::PreCommit(file) => file.clone(),
        }
    }

    /// The lines for an event.
    fn lines(&self, event: Event) -> String {
        let name = event.name();
        match self {
            Manager::Husky(_) | Manager::Directory(_) => {
                format!("{}\n", Program::named().hook(name, " \"$@\""))
            }
            Manager::Lefthook(_) => {
                let arguments = if event == Event::PostCommit { "" } else { " {0}" };
                let stdin = if event == Event::PostCommit { "" } else { "      use_stdin: true\n" };
                let run = Program::named().hook(name, arguments);
                format!("{name}:\n  commands:\n    agent-trace:\n      run: {run}\n{stdin}")
            }
            Manager::PreCommit(_) => format!(
                "- repo: local\n  hooks:\n    - id: agent-trace-{name}\n      name: agent-trace\n      \
                 entry: sh -c '{}'\n      language: system\n      always_run: true\n      \
                 pass_filenames: false\n      stages: [{name}]\n",
                Program::named().hook(name, "")
            ),
        }
    }

    /// What is to be done besides.
    fn besides(&self, event: Event) -> Option<String> {
        match self {
            Manager::PreCommit(_) => Some(format!("pre-commit install --hook-type {}", event.name())),
            Manager::Lefthook(_) => Some("lefthook install".to_owned()),
            _ => None,
        }
    }

    /// The text with an event's lines in it; `None` where its shape is not the plain one.
    fn with_lines(&self, text: &str, event: Event) -> Option<String> {
        let lines = self.lines(event);
        let block = |lines: &str| format!("{} {}\n{lines}{} {}\n", BEGIN, event.name(), END, event.name());
        match self {
            Manager::Husky(_) | Manager::Directory(_) => {
                let start = if text.is_empty() { "#!/bin/sh\n" } else { text };
                let end = if start.ends_with('\n') { "" } else { "\n" };
                Some(format!("{start}{end}{lines}"))
            }
            Manager::Lefthook(_) => {
                let key = format!("{}:", event.name());
                let is_taken = text.lines().any(|line| line.starts_with(&key) || line.starts_with('{'));
                let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
                (!is_taken).then(|| format!("{text}{end}{}", block(&lines)))
            }
            Manager::PreCommit(_) => {
                let (at, indent) = end_of_repos(text)?;
                let indented: String =
                    block(&lines).lines().map(|line| format!("{indent}{line}\n")).collect();
                let end = if text[..at].ends_with('\n') { "" } else { "\n" };
                Some(format!("{}{end}{indented}{}", &text[..at], &text[at..]))
            }
        }
    }

    /// The text without an event's lines.
    fn without_lines(&self, text: &str, event: Event) -> String {
        match self {
            Manager::Husky(_) | Manager::Directory(_) => text.replace(&self.lines(event), ""),
            Manager::Lefthook(_) | Manager::PreCommit(_) => {
                let mark = |line: &str, mark: &str| line.trim() == format!("{mark} {}", event.name());
                let mut inside = false;
                let kept = text.split_inclusive('\n').filter(|line| {
                    inside |= mark(line, BEGIN);
                    let is_kept = !inside;
                    inside &= !mark(line, END);
                    is_kept
                });
                kept.collect()
            }
        }
    }

    fn holds(text: &str, event: Event) -> bool {
        text.contains(&format!("agent-trace hook {}", event.name()))
    }
}

/// Where the list under `repos:` ends, and how its items are indented.
fn end_of_repos(text: &str) -> Option<(usize, String)> {
    let (mut at, mut end, mut indent) = (0, None, None);
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        if inside {
            let is_item = content.trim_start().starts_with("- ");
            if is_item && indent.is_none() {
                indent = Some(content[..content.len() - content.trim_start().len()].to_owned());
            }
            let is_outside = !content.is_empty() && !content.starts_with([' ', '#']) && !is_item;
            if is_outside {
                break;
            }
            if !content.is_empty() && !content.starts_with('#') {
                end = Some(at + line.len());
            }
        }
        inside |= content == "repos:";
        at += line.len();
    }
    end.zip(indent)
}

pub(super) fn install(
    env: &Env,
    notes: &mut Notes,
    owner: &Owner,
    event: Event,
    write: bool,
    dry: bool,
) -> Result<Change, Failure> {
    let manager = &owner.manager;
    let path = manager.file(event);
    let mut change = change(owner, event);
    // A directory of nobody in particular may hold a file of ours from before, or get one on request.
    if let Manager::Directory(hooks) = manager
        && (chain::is_installed(env, hooks, event) || (write && owner.is_here))
    {
        return chain::install(env, notes, hooks, event, &Program::named(), dry);
    }
    let found = files::read(env, &path)?;
    let text = files::text(&path, &found)?;
    if Manager::holds(text, event) {
        return Ok(change);
    }
    let by_hand = |mut change: Change, why: &str| {
        change.kind = Kind::ByHand;
        change.lines = Some(manager.lines(event));
        change.say = Some(match manager.besides(event) {
            Some(command) => format!("{why}, then run: {command}"),
            None => why.to_owned(),
        });
        change
    };
    if !owner.is_here {
        let why =
            format!("`core.hooksPath` ({}) leads out of this repository: add the lines by hand", owner.scope);
        return Ok(by_hand(change, &why));
    }
    if !write {
        return Ok(by_hand(change, "add the lines, or let --write add them"));
    }
    let Some(after) = manager.with_lines(text, event) else {
        return Ok(by_hand(change, "the file is not of the plain shape: add the lines by hand"));
    };
    change.kind = if found.bytes.is_some() { Kind::Changed } else { Kind::Created };
    change.diff = Some(diff(&path, found.bytes.as_deref(), Some(after.as_bytes())));
    change.say = manager.besides(event).map(|command| format!("run: {command}"));
    if dry {
        return Ok(change);
    }
    if found.bytes.is_some() {
        files::replace(env, &found, after.as_bytes())?;
    } else {
        let directories = files::make_directories(env, &path)?;
        let note = Note { after: files::digest(after.as_bytes()), created: true, directories };
        notes.set(&path, &note)?;
        notes.write(env)?;
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        files::put_program(env, &path, after.as_bytes(), 0o755).map_err(doing)?;
    }
    Ok(change)
}

pub(super) fn remove(
    env: &Env,
    notes: &mut Notes,
    owner: &Owner,
    event: Event,
    dry: bool,
) -> Result<Option<Change>, Failure> {
    let manager = &owner.manager;
    if let Manager::Directory(hooks) = manager {
        return chain::remove(env, notes, hooks, event, dry);
    }
    let path = manager.file(event);
    let found = files::read(env, &path)?;
    let text = files::text(&path, &found)?;
    if !Manager::holds(text, event) {
        return Ok(None);
    }
    let without = manager.without_lines(text, event);
    let mut change = change(owner, event);
    if without == text {
        change.kind = Kind::ByHand;
        change.say = Some("the lines are not as they were added: take them out by hand".to_owned());
        return Ok(Some(change));
    }
    let note = notes.get(&path);
    let is_made =
        note.as_ref().is_some_and(|note| note.created && note.after == files::digest(text.as_bytes()));
    change.kind = if is_made { Kind::Removed } else { Kind::Cleaned };
    let after = (!is_made).then_some(without.as_bytes());
    change.diff = Some(diff(&path, Some(text.as_bytes()), after));
    if dry {
        return Ok(Some(change));
    }
    match after {
        Some(after) => files::replace(env, &found, after)?,
        None => files::remove(env, &found)?,
    }
    if let Some(note) = note {
        if is_made {
            files::remove_directories(&note.directories);
        }
        notes.forget(&path)?;
        notes.write(env)?;
    }
    Ok(Some(change))
}

pub(super) fn state(env: &Env, owner: &Owner, event: Event) -> Option<State> {
    if let Manager::Directory(hooks) = &owner.manager
        && let Some(state) = chain::state(env, hooks, event)
    {
        return Some(state);
    }
    let path = owner.manager.file(event);
    let found = files::read(env, &path).ok()?;
    let text = files::text(&path, &found).ok()?;
    Manager::holds(text, event).then(|| State {
        event,
        mechanism: Some(owner.manager.name()),
        place: Some(path.clone()),
        runs: command::is_on_path(env),
        command: text.lines().find(|line| Manager::holds(line, event)).map(|line| line.trim().to_owned()),
        chained: false,
        problem: None,
    })
}

fn change(owner: &Owner, event: Event) -> Change {
    let mut change = Change::of(GIT, "project", &owner.manager.file(event), owner.manager.name());
    change.events = vec![event.name()];
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manager: &Manager, text: &str, event: Event, expected: &str) {
        let after = manager.with_lines(text, event).unwrap();
        assert_eq!(after, expected);
        assert!(Manager::holds(&after, event));
        assert_eq!(manager.without_lines(&after, event), text);
    }

    #[test]
    fn husky_gets_one_line() {
        let line = "agent-trace hook post-commit \"$@\" >/dev/null 2>&1 || true\n";
        let husky = Manager::Husky(PathBuf::from(".husky"));
        check(&husky, "npm test\n", Event::PostCommit, &format!("npm test\n{line}"));
        assert_eq!(husky.with_lines("", Event::PostCommit).unwrap(), format!("#!/bin/sh\n{line}"));
        assert_eq!(husky.with_lines("npm test", Event::PostCommit).unwrap(), format!("npm test\n{line}"));
    }

    #[test]
    fn lefthook_gets_a_section_unless_it_has_one() {
        let lefthook = Manager::Lefthook(PathBuf::from("lefthook.yml"));
        check(
            &lefthook,
            "pre-commit:\n  jobs: []\n",
            Event::PrePush,
            "pre-commit:\n  jobs: []\n# agent-trace begin pre-push\npre-push:\n  commands:\n    agent-trace:\n      run: agent-trace hook pre-push {0} >/dev/null 2>&1 || true\n      use_stdin: true\n# agent-trace end pre-push\n",
        );
        assert!(lefthook.with_lines("pre-push:\n  jobs: []\n", Event::PrePush).is_none());
    }

    #[test]
    fn pre_commit_gets_an_item_at_the_end_of_its_repositories() {
        let manager = Manager::PreCommit(PathBuf::from(PRE_COMMIT));
        let item = |indent: &str| -> String {
            let lines = "# agent-trace begin post-commit\n- repo: local\n  hooks:\n    - id: agent-trace-post-commit\n      name: agent-trace\n      entry: sh -c 'agent-trace hook post-commit >/dev/null 2>&1 || true'\n      language: system\n      always_run: true\n      pass_filenames: false\n      stages: [post-commit]\n# agent-trace end post-commit\n";
            lines.lines().map(|line| format!("{indent}{line}\n")).collect()
        };
        for indent in ["", "  "] {
            let head = format!("# c\nrepos:\n{indent}- repo: x\n{indent}  hooks:\n{indent}    - id: y\n");
            let tail = "\nci:\n  skip: [y]\n";
            let expected = format!("{head}{}{tail}", item(indent));
            check(&manager, &format!("{head}{tail}"), Event::PostCommit, &expected);
            check(&manager, &head, Event::PostCommit, &format!("{head}{}", item(indent)));
        }
        assert!(manager.with_lines("repos: []\n", Event::PostCommit).is_none());
        assert!(manager.with_lines("", Event::PostCommit).is_none());
    }
}
