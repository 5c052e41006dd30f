//! The command that hooks run: by its absolute path, else as found on PATH, else nothing.
//!
//! A hook never fails, prints or blocks: whatever the command does, the shell ends with 0, also where the program has
//! gone, or where PATH names another program of that name. The lines are for `sh`, and read the same by bash, zsh and fish.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;

use crate::settings::{self, Settings};

const NAME: &str = "agent-trace";
/// Parts of a path below which programs come and go.
const PASSING: [&str; 3] = ["node_modules", "_npx", ".cache"];
/// How a line starts that runs only what its user owns.
const OWNED: &str = "[ -O ";
/// What each of our lines for agents contains, and no other program's.
const RECORD: &str = "agent-trace record --agent ";

/// The program as hooks name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Where it lies.
    path: Option<String>,
    /// Whether it may be gone tomorrow, and its name anybody's: then it is run only where its user owns it.
    is_passing: bool,
}

impl Program {
    /// This program.
    pub(crate) fn find(settings: &Settings) -> Program {
        let Ok(running) = settings::program() else { return Program::named() };
        // A link on PATH outlives the version that it leads to.
        let same = |path: &PathBuf| std::fs::canonicalize(path).is_ok_and(|path| path == running);
        let on_path = settings::search_path().into_iter().map(|directory| directory.join(NAME)).find(same);
        let path = on_path.unwrap_or(running);
        let temporary =
            std::fs::canonicalize(&settings.temporary).unwrap_or_else(|_| settings.temporary.clone());
        let is_passing = path.starts_with(&settings.temporary)
            || path.starts_with(&temporary)
            || path.components().any(|part| PASSING.iter().any(|name| part.as_os_str() == *name));
        Program { path: path.to_str().map(str::to_owned), is_passing }
    }

    /// Only the name, for files that other people's machines read too.
    pub(crate) fn named() -> Program {
        Program { path: None, is_passing: false }
    }

    /// Whether hooks will stop once a temporary place is cleared.
    pub(crate) fn may_vanish(&self, env: &Env) -> bool {
        (self.is_passing || self.path.is_none()) && !is_on_path(env)
    }

    /// Whether it lies where anybody may take its place.
    pub(crate) fn is_passing(&self) -> bool {
        self.is_passing
    }

    /// Where it lies, if that is said.
    pub(crate) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The line that an agent runs.
    pub(crate) fn record(&self, agent: &str, event: Option<&str>) -> String {
        let event = event.map(|event| format!(" --event {event}")).unwrap_or_default();
        self.line(&format!("record --agent {agent}{event}"))
    }

    /// The line that git or a manager of its hooks runs; `arguments` is how the line names those that git gives.
    pub(crate) fn hook(&self, event: &str, arguments: &str) -> String {
        self.line(&format!("hook {event}{arguments}"))
    }

    fn line(&self, what: &str) -> String {
        let by_name = format!("{NAME} {what} >/dev/null 2>&1 || true");
        match &self.path {
            Some(path) => {
                let path = quote(path);
                let owned = if self.is_passing { format!("{OWNED}{path} ] && ") } else { String::new() };
                format!("{owned}{path} {what} >/dev/null 2>&1 || {by_name}")
            }
            None => by_name,
        }
    }
}

/// Whether a line is one of ours for agents.
pub(crate) fn is_ours(line: &str) -> bool {
    line.contains(RECORD)
}

/// Whether the program that a line names can be run.
pub(crate) fn runs(env: &Env, line: &str) -> bool {
    // A plug-in keeps the bare path.
    let path = quoted_path(line).or_else(|| line.starts_with('/').then(|| line.to_owned()));
    path.is_some_and(|path| is_executable(env, Path::new(&path))) || is_on_path(env)
}

/// Whether PATH leads to a program of our name.
pub(crate) fn is_on_path(env: &Env) -> bool {
    settings::search_path().iter().any(|directory| is_executable(env, &directory.join(NAME)))
}

fn is_executable(env: &Env, path: &Path) -> bool {
    let is_file = env.fs.metadata(path).is_ok_and(|metadata| !metadata.is_dir);
    is_file && env.fs.mode(path).is_ok_and(|mode| mode.is_none_or(|mode| mode & 0o111 != 0))
}

/// Quotes a word for a shell.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The path that a line of ours starts with.
fn quoted_path(line: &str) -> Option<String> {
    let mut rest = line.strip_prefix(OWNED).unwrap_or(line).strip_prefix('\'')?;
    let mut path = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        path.push_str(part);
        match after.strip_prefix("\\''") {
            Some(more) => {
                path.push('\'');
                rest = more;
            }
            None => return Path::new(&path).as_os_str().as_bytes().starts_with(b"/").then_some(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_the_program_twice_and_end_well() {
        let program = Program { path: Some("/opt/it's here/agent-trace".to_owned()), is_passing: false };
        let line = program.record("codex", None);
        assert_eq!(
            line,
            "'/opt/it'\\''s here/agent-trace' record --agent codex >/dev/null 2>&1 || agent-trace record --agent codex >/dev/null 2>&1 || true"
        );
        assert_eq!(quoted_path(&line).as_deref(), Some("/opt/it's here/agent-trace"));
        let line = Program::named().record("copilot-cli", Some("preToolUse"));
        assert_eq!(line, "agent-trace record --agent copilot-cli --event preToolUse >/dev/null 2>&1 || true");
        assert!(is_ours(&line) && quoted_path(&line).is_none());
        assert!(!is_ours("agent-trace record") && !is_ours("my-agent-trace"));
    }

    #[test]
    fn lines_end_with_0_whatever_the_program_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a program's");
        let run = |line: &str| {
            let shell = std::process::Command::new("/bin/sh")
                .arg("-c")
                .arg(line)
                .env("PATH", "/nowhere")
                .output()
                .unwrap();
            assert!(shell.stdout.is_empty() && shell.stderr.is_empty(), "{shell:?}");
            shell.status.code()
        };
        let path_text = path.to_str().unwrap().to_owned();
        let program = Program { path: Some(path_text.clone()), is_passing: false };
        let passing = Program { path: Some(path_text.clone()), is_passing: true };
        assert_eq!(quoted_path(&passing.record("codex", None)), Some(path_text));
        assert_eq!(run(&program.record("codex", None)), Some(0));
        assert_eq!(run(&passing.record("codex", None)), Some(0));
        #[expect(clippy::disallowed_methods, reason = "a program for the test")]
        std::fs::write(&path, "#!/bin/sh\necho out; echo err >&2; exit 2\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(run(&program.record("codex", None)), Some(0));
        assert_eq!(run(&passing.record("codex", None)), Some(0));
        assert_eq!(run(&Program::named().hook("pre-push", " \"$@\"")), Some(0));
    }
}
