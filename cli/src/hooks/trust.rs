//! Whether an agent may run our hooks: Codex skips those that its user has not reviewed.
//!
//! Read from what Codex itself has written to its `config.toml`; never written here. The file is looked at line by
//! line, so a spelling of TOML that Codex does not use itself says nothing.

use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;

use super::agents::{Agent, Scope};
use crate::settings::Settings;

const FILE_BYTES_MAX: u64 = 4 << 20;

/// What the agent says of our hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It asks nobody.
    NotAsked,
    /// Its user has reviewed hooks of that file; a changed command has to be reviewed again.
    Reviewed,
    /// Its user has not reviewed them: it runs none.
    NotReviewed,
    /// Hooks are turned off.
    Off,
}

impl Trust {
    /// As programs read it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Trust::NotAsked => "not-asked",
            Trust::Reviewed => "reviewed",
            Trust::NotReviewed => "not-reviewed",
            Trust::Off => "off",
        }
    }
}

/// Whether an agent may run the hooks of a file.
pub(crate) fn of(env: &Env, settings: &Settings, agent: Agent, scope: Scope, file: &Path) -> Trust {
    let read = |path: &Path| {
        let bytes = read_small(env, path, FILE_BYTES_MAX).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    match agent {
        Agent::Codex => {
            let config = agent.folder(settings).map(|folder| read(&folder.join("config.toml")));
            codex(&config.unwrap_or_default(), file)
        }
        Agent::ClaudeCode | Agent::GeminiCli => {
            let text = if scope == Scope::Global { read(file) } else { String::new() };
            if is_turned_off(agent, &text) { Trust::Off } else { Trust::NotAsked }
        }
        _ => Trust::NotAsked,
    }
}

fn is_turned_off(agent: Agent, text: &str) -> bool {
    let Ok(value) = super::jsonc::read(text) else { return false };
    match agent {
        Agent::ClaudeCode => value["disableAllHooks"] == true,
        _ => value["tools"]["enableHooks"] == false || value["hooksConfig"]["enabled"] == false,
    }
}

fn codex(config: &str, file: &Path) -> Trust {
    let (mut section, mut reviewed, mut off) = (String::new(), false, false);
    let ours = format!("hooks.state.\"{}:", file.display());
    for line in config.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim().to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim(), value.trim());
            off |=
                section == "features" && matches!(key, "hooks" | "codex_hooks") && value.starts_with("false");
            reviewed |= section.starts_with(&ours) && key == "trusted_hash";
        }
    }
    match (off, reviewed) {
        (true, _) => Trust::Off,
        (false, true) => Trust::Reviewed,
        (false, false) => Trust::NotReviewed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codex_says_which_hooks_were_reviewed() {
        let check = |config: &str, expected| {
            assert_eq!(codex(config, Path::new("/h/hooks.json")), expected, "{config}")
        };
        check("", Trust::NotReviewed);
        check("[hooks.state.\"/h/hooks.json:stop:0:0\"]\ntrusted_hash = \"sha256:ab\"\n", Trust::Reviewed);
        check(
            "[hooks.state.\"/other/hooks.json:stop:0:0\"]\ntrusted_hash = \"sha256:ab\"\n",
            Trust::NotReviewed,
        );
        check("[features]\nhooks = false\n", Trust::Off);
        check("[other]\nhooks = false\n", Trust::NotReviewed);
    }
}
