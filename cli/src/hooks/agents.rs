//! The agents: where each keeps its settings, which events it offers, and how an entry of its hooks is written.
//!
//! Knows nothing about payloads. Where the facts come from is in `docs/hooks.md`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::command::Program;
use crate::settings::{self, Settings};

/// The tools of Claude Code that write files.
const CLAUDE_WRITES: &str = "Write|Edit|MultiEdit|NotebookEdit";
/// The tools of Gemini CLI that write files.
const GEMINI_WRITES: &str = "write_file|replace";
/// After so long an agent goes on without us.
const TIMEOUT_SECONDS: u64 = 10;
/// The file of our own, where an agent takes several.
const OWN_FILE: &str = "agent-trace";

/// An agent whose hooks can be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Agent {
    ClaudeCode,
    Codex,
    Cursor,
    GeminiCli,
    CopilotCli,
    OpenCode,
    Windsurf,
}

/// Whose settings are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The user's own, for all repositories.
    Global,
    /// Those in the working tree.
    Project,
}

impl Scope {
    /// As people write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scope::Global => "global",
            Scope::Project => "project",
        }
    }
}

/// How an agent writes its hooks down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `hooks.<Event>[].hooks[]`, grouped by what matches.
    Groups,
    /// `hooks.<event>[]`.
    List,
    /// A program of ours that the agent loads.
    Plugin,
}

/// An event to be told of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) name: &'static str,
    /// Only for tools whose names match.
    matcher: Option<&'static str>,
}

const fn any(name: &'static str) -> Event {
    Event { name, matcher: None }
}

const fn only(name: &'static str, matcher: &'static str) -> Event {
    Event { name, matcher: Some(matcher) }
}

const CLAUDE_CODE: [Event; 8] = [
    any("SessionStart"),
    any("UserPromptSubmit"),
    only("PreToolUse", CLAUDE_WRITES),
    only("PostToolUse", CLAUDE_WRITES),
    any("PreCompact"),
    any("SubagentStop"),
    any("Stop"),
    any("SessionEnd"),
];
// `apply_patch` may also come through a shell tool, so tools are not told apart here. Newer events are left out: an
// older Codex may refuse the whole file for one.
const CODEX: [Event; 5] =
    [any("SessionStart"), any("UserPromptSubmit"), any("PreToolUse"), any("PostToolUse"), any("Stop")];
const CURSOR: [Event; 8] = [
    any("sessionStart"),
    any("beforeSubmitPrompt"),
    any("preToolUse"),
    any("postToolUse"),
    any("afterFileEdit"),
    any("afterTabFileEdit"),
    any("stop"),
    any("sessionEnd"),
];
const GEMINI_CLI: [Event; 7] = [
    any("SessionStart"),
    any("BeforeAgent"),
    only("BeforeTool", GEMINI_WRITES),
    only("AfterTool", GEMINI_WRITES),
    any("AfterAgent"),
    any("PreCompress"),
    any("SessionEnd"),
];
const COPILOT_CLI: [Event; 6] = [
    any("sessionStart"),
    any("userPromptSubmitted"),
    any("preToolUse"),
    any("postToolUse"),
    any("agentStop"),
    any("sessionEnd"),
];
const OPENCODE: [Event; 4] =
    [any("tool.execute.before"), any("tool.execute.after"), any("session.idle"), any("session.compacted")];
const WINDSURF: [Event; 4] = [
    any("pre_user_prompt"),
    any("pre_write_code"),
    any("post_write_code"),
    any("post_cascade_response_with_transcript"),
];

impl Agent {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Agent; 7] = [
        Agent::ClaudeCode,
        Agent::Codex,
        Agent::Cursor,
        Agent::GeminiCli,
        Agent::CopilotCli,
        Agent::OpenCode,
        Agent::Windsurf,
    ];

    /// As `record --agent` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Agent::ClaudeCode => "claude-code",
            Agent::Codex => "codex",
            Agent::Cursor => "cursor",
            Agent::GeminiCli => "gemini-cli",
            Agent::CopilotCli => "copilot-cli",
            Agent::OpenCode => "opencode",
            Agent::Windsurf => "windsurf",
        }
    }

    /// Reads a name as people write it; agent-trace-cli says `claude`.
    pub(crate) fn parse(text: &str) -> Option<Agent> {
        let short = match text {
            "claude" => Some(Agent::ClaudeCode),
            "gemini" => Some(Agent::GeminiCli),
            "copilot" => Some(Agent::CopilotCli),
            _ => None,
        };
        short.or_else(|| Agent::ALL.into_iter().find(|agent| agent.name() == text))
    }

    /// The events that are asked for.
    pub(crate) fn events(self) -> &'static [Event] {
        match self {
            Agent::ClaudeCode => &CLAUDE_CODE,
            Agent::Codex => &CODEX,
            Agent::Cursor => &CURSOR,
            Agent::GeminiCli => &GEMINI_CLI,
            Agent::CopilotCli => &COPILOT_CLI,
            Agent::OpenCode => &OPENCODE,
            Agent::Windsurf => &WINDSURF,
        }
    }

    /// How its hooks are written down.
    pub(crate) fn form(self) -> Form {
        match self {
            Agent::ClaudeCode | Agent::Codex | Agent::GeminiCli => Form::Groups,
            Agent::Cursor | Agent::CopilotCli | Agent::Windsurf => Form::List,
            Agent::OpenCode => Form::Plugin,
        }
    }

    /// The version that its file must state.
    pub(crate) fn file_version(self) -> Option<u64> {
        matches!(self, Agent::Cursor | Agent::CopilotCli).then_some(1)
    }

    /// The folder with the user's settings of the agent, as its own variables say.
    pub(crate) fn folder(self, settings: &Settings) -> Option<PathBuf> {
        let home = settings.user_home.as_deref();
        let below = |name: &str| home.map(|home| home.join(name));
        match self {
            Agent::ClaudeCode => settings::folder("CLAUDE_CONFIG_DIR").or_else(|| below(".claude")),
            Agent::Codex => settings::folder("CODEX_HOME").or_else(|| below(".codex")),
            Agent::Cursor => below(".cursor"),
            Agent::GeminiCli => below(".gemini"),
            Agent::CopilotCli => settings::folder("COPILOT_HOME").or_else(|| below(".copilot")),
            Agent::OpenCode => settings::folder("OPENCODE_CONFIG_DIR").or_else(|| {
                let config = settings::folder("XDG_CONFIG_HOME").or_else(|| below(".config"));
                config.map(|config| config.join("opencode"))
            }),
            Agent::Windsurf => below(".codeium/windsurf"),
        }
    }

    /// The folder for the agent in a working tree.
    pub(crate) fn project_folder(self, root: &Path) -> PathBuf {
        root.join(match self {
            Agent::ClaudeCode => ".claude",
            Agent::Codex => ".codex",
            Agent::Cursor => ".cursor",
            Agent::GeminiCli => ".gemini",
            Agent::CopilotCli => ".github",
            Agent::OpenCode => ".opencode",
            Agent::Windsurf => ".windsurf",
        })
    }

    /// The file with its hooks, below one of those folders.
    pub(crate) fn file(self) -> PathBuf {
        match self {
            Agent::ClaudeCode | Agent::GeminiCli => PathBuf::from("settings.json"),
            Agent::Codex | Agent::Cursor | Agent::Windsurf => PathBuf::from("hooks.json"),
            Agent::CopilotCli => Path::new("hooks").join(format!("{OWN_FILE}.json")),
            Agent::OpenCode => Path::new("plugins").join(format!("{OWN_FILE}.js")),
        }
    }

    /// The entry for an event.
    pub(crate) fn entry(self, event: Event, program: &Program) -> Value {
        let line = program.record(self.name(), None);
        let group = |hook: Value| match event.matcher {
            Some(matcher) => json!({"matcher": matcher, "hooks": [hook]}),
            None => json!({"hooks": [hook]}),
        };
        match self {
            Agent::ClaudeCode | Agent::Codex => {
                group(json!({"type": "command", "command": line, "timeout": TIMEOUT_SECONDS}))
            }
            Agent::GeminiCli => group(json!({"name": OWN_FILE, "type": "command", "command": line,
                "timeout": TIMEOUT_SECONDS * 1000})),
            Agent::Cursor => json!({"command": line}),
            Agent::Windsurf => json!({"command": line, "show_output": false}),
            // Its payloads do not name their event.
            Agent::CopilotCli => json!({"type": "command",
                "bash": program.record(self.name(), Some(event.name)), "timeoutSec": TIMEOUT_SECONDS}),
            Agent::OpenCode => json!(null),
        }
    }

    /// What its user has to do so that the hooks run.
    pub(crate) fn to_do(self, scope: Scope) -> Option<&'static str> {
        match (self, scope) {
            (Agent::Codex, Scope::Global) => {
                Some("Codex runs hooks only once you have reviewed them: start codex and enter /hooks")
            }
            (Agent::Codex, Scope::Project) => Some(
                "Codex runs hooks of a repository only where you trust it and have reviewed them: start codex and enter /hooks",
            ),
            (Agent::GeminiCli, Scope::Project) => {
                Some("Gemini CLI asks once whether it may run the hooks of a repository")
            }
            (Agent::CopilotCli, Scope::Project) => {
                Some("files in .github/hooks are read by Copilot's cloud agent too, once they are pushed")
            }
            _ => None,
        }
    }
}
