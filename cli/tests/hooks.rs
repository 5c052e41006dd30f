//! `hooks` and the agents from outside: what is written into their settings, and that nothing else changes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use support::hooks::{World, put, text, tree};

mod support;

/// Each agent: its name, its folder in the home, its file there, its folder in a working tree.
const AGENTS: [(&str, &str, &str, &str); 7] = [
    ("claude-code", ".claude", "settings.json", ".claude"),
    ("codex", ".codex", "hooks.json", ".codex"),
    ("cursor", ".cursor", "hooks.json", ".cursor"),
    ("gemini-cli", ".gemini", "settings.json", ".gemini"),
    ("copilot-cli", ".copilot", "hooks/agent-trace.json", ".github"),
    ("opencode", ".config/opencode", "plugins/agent-trace.js", ".opencode"),
    ("windsurf", ".codeium/windsurf", "hooks.json", ".windsurf"),
];
const CLAUDE: &str = "home/.claude/settings.json";

impl World {
    fn with_agents() -> World {
        let world = World::new();
        for (_, folder, _, _) in AGENTS {
            fs::create_dir_all(world.path("home").join(folder)).unwrap();
        }
        world
    }

    fn with_claude(settings: &str) -> World {
        let world = World::new();
        put(&world.path(CLAUDE), settings);
        world
    }

    fn status(&self, agent: &str) -> Value {
        self.json_in(&self.path(""), &["hooks", "status", "--agent", agent])["agents"][0].clone()
    }
}

/// All commands in a JSON document.
fn commands(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match value.as_str() {
                Some(text) if name == "command" || name == "bash" => vec![text.to_owned()],
                _ => commands(value),
            })
            .collect(),
        Value::Array(elements) => elements.iter().flat_map(commands).collect(),
        _ => Vec::new(),
    }
}

// ---- what is written

#[test]
fn each_agent_gets_the_entries_that_its_fixture_shows() {
    let world = World::with_agents();
    let said = world.run(&["hooks", "install"]).well();
    for (name, folder, file, _) in AGENTS {
        assert!(said.out.contains(name), "{}", said.out);
        let written = text(&world.path("home").join(folder).join(file));
        let made = written.replace(world.program().to_str().unwrap(), "/usr/local/bin/agent-trace");
        let extension = if name == "opencode" { "js" } else { "json" };
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/hooks/{name}.{extension}"));
        if std::env::var_os("AGENT_TRACE_WRITE_FIXTURES").is_some() {
            put(&fixture, &made);
        }
        assert_eq!(made, text(&fixture), "{name}");
    }
}

#[test]
fn the_commands_tell_the_program_and_end_well_without_it() {
    let world = World::with_agents();
    world.run(&["hooks", "install"]).well();
    world.put_stub();
    for (name, folder, file, _) in AGENTS.into_iter().filter(|agent| agent.0 != "opencode") {
        let document: Value =
            serde_json::from_str(&text(&world.path("home").join(folder).join(file))).unwrap();
        let commands = commands(&document);
        assert!(commands.len() >= 4, "{document}");
        for command in &commands {
            let said = world.shell(command, "{\"a\": 1}").well();
            assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
            let told = world.told();
            assert!(told[0].starts_with(&format!("record --agent {name}")), "{told:?}");
            assert!(told[0].ends_with("<{\"a\": 1}>"), "{told:?}");
        }
    }
    // It has moved to PATH, and then it has gone.
    fs::create_dir_all(world.path("path")).unwrap();
    fs::rename(world.program(), world.path("path/agent-trace")).unwrap();
    let command = &commands(&serde_json::from_str(&text(&world.path(CLAUDE))).unwrap())[0];
    let with_path = format!("PATH='{}':$PATH; {command}", world.path("path").display());
    world.shell(&with_path, "x").well();
    assert_eq!(world.told(), ["record --agent claude-code<x>"]);
    let said = world.shell(command, "x").well();
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
    assert!(world.told().is_empty());
}

#[test]
fn the_plugin_tells_the_program_and_never_throws() {
    let world = World::with_agents();
    if world.command("node", &world.path("")).arg("--version").output().is_err() {
        eprintln!("skipped: node not given");
        return;
    }
    world.run(&["hooks", "install", "--agent", "opencode"]).well();
    world.put_stub();
    let plugin = world.path("home/.config/opencode/plugins/agent-trace.js");
    fs::copy(plugin, world.path("plugin.mjs")).unwrap();
    let test = "import { AgentTrace } from './plugin.mjs'
const hooks = await AgentTrace({ directory: '/d', worktree: '/w' })
await hooks['tool.execute.before']({ sessionID: 'ses_1', callID: 'c', tool: 'edit' }, { args: { filePath: 'f' } })
await hooks['tool.execute.after']({ sessionID: 'ses_1', callID: 'c', tool: 'edit', args: { filePath: 'f' } }, { metadata: { filediff: { after: 'x' } } })
await hooks.event({ event: { type: 'session.idle', properties: { sessionID: 'ses_1' } } })
await hooks.event({ event: { type: 'message.updated' } })
const loop = {}; loop.loop = loop
await hooks['tool.execute.before'](undefined, { args: loop })
await hooks['tool.execute.after'](undefined, undefined)
";
    put(&world.path("test.mjs"), test);
    let said = world.command("node", &world.path("")).arg("test.mjs").output().unwrap();
    assert!(said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}");
    let told = world.told();
    assert_eq!(told.len(), 4, "{told:?}");
    for (line, event) in told.iter().zip(["tool.execute.before", "tool.execute.after", "session.idle"]) {
        let payload = line.strip_prefix("record --agent opencode<").unwrap().strip_suffix('>').unwrap();
        let payload: Value = serde_json::from_str(payload).unwrap();
        assert_eq!((&payload["hook_event_name"], &payload["sessionID"]), (&json!(event), &json!("ses_1")));
        assert_eq!(payload["cwd"], json!("/d"));
    }
    fs::remove_file(world.program()).unwrap();
    let said = world.command("node", &world.path("")).arg("test.mjs").output().unwrap();
    assert!(said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}");
}

// ---- what stays

#[test]
fn comments_order_and_indentation_stay_and_come_back_byte_for_byte() {
    for settings in [
        "{\n\t// mine\n\t\"z\": 1, /* why */\n\t\"a\": [1,2 , 3],\n}\n",
        "{\r\n    \"model\": \"opus\"\r\n}",
        "{\"permissions\":{\"allow\":[\"Bash(ls)\"]}}",
        "{ }",
        "",
        "// nothing yet\n",
        "{\n  \"hooks\": {}\n}\n",
        "{\n  \"hooks\": {\n    \"Stop\": [\n      // keep\n    ]\n  }\n}\n",
        "{\n  \"hooks\": {\n    \"Stop\": [\n      {\"hooks\": [{\"type\": \"http\", \"url\": \"https://x.example\"}]},\n      {\"hooks\": [{\"type\": \"command\", \"command\": \"agent-trace record\"}]}\n    ]\n  },\n  \"big\": 12345678901234567890.10\n}\n",
    ] {
        let world = World::with_claude(settings);
        let before = tree(&world.path("home"));
        world.run(&["hooks", "install"]).well();
        let installed = text(&world.path(CLAUDE));
        assert_eq!(installed.matches("record --agent claude-code").count(), 16, "{installed}");
        for line in settings.lines().filter(|line| line.len() > 3 && !settings.starts_with("{\"")) {
            let line = line.trim_end_matches([',', '}']);
            assert!(installed.contains(line), "`{line}` in {installed}");
        }
        world.run(&["hooks", "remove"]).well();
        let after: Vec<_> =
            tree(&world.path("home")).into_iter().filter(|(path, _)| !is_of_home(path)).collect();
        assert_eq!(after, before.into_iter().collect::<Vec<_>>());
    }
}

/// What agent-trace keeps for itself.
fn is_of_home(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == ".agent-trace")
}

#[test]
fn only_our_entries_go_where_others_have_changed_the_file() {
    let world = World::with_claude("{\n  \"model\": \"opus\"\n}\n");
    world.run(&["hooks", "install"]).well();
    let installed = text(&world.path(CLAUDE));
    let mine = installed.replace("\"opus\",", "\"sonnet\", // since today").replace(
        "\"Stop\": [\n",
        "\"Stop\": [\n      {\"hooks\": [{\"type\": \"command\", \"command\": \"say done\"}]},\n",
    );
    assert_ne!(mine, installed);
    put(&world.path(CLAUDE), &mine);
    let said = world.run(&["hooks", "remove"]).well();
    assert!(said.out.contains("cleaned"), "{}", said.out);
    assert_eq!(
        text(&world.path(CLAUDE)),
        "{\n  \"model\": \"sonnet\", // since today\n  \"hooks\": {\n    \"Stop\": [\n      {\"hooks\": [{\"type\": \"command\", \"command\": \"say done\"}]}\n    ]\n  }\n}\n"
    );
    // The same without the notes: nothing is known of what was there, and nothing but ours goes.
    put(&world.path(CLAUDE), &installed);
    fs::remove_file(world.path("home/.agent-trace/hooks.json")).unwrap();
    world.run(&["hooks", "remove"]).well();
    assert_eq!(text(&world.path(CLAUDE)), "{\n  \"model\": \"opus\"\n}\n");
}

#[test]
fn installing_again_changes_nothing_and_a_moved_program_is_followed() {
    let settings = "{\n  \"model\": \"opus\"\n}\n";
    let world = World::with_claude(settings);
    world.run(&["hooks", "install"]).well();
    let (before, inode) = (text(&world.path(CLAUDE)), fs::metadata(world.path(CLAUDE)).unwrap().ino());
    let again = world.run(&["hooks", "install"]).well();
    assert!(again.out.contains("unchanged"), "{}", again.out);
    assert_eq!((text(&world.path(CLAUDE)), fs::metadata(world.path(CLAUDE)).unwrap().ino()), (before, inode));
    let moved = world.real_in(&world.path(""), &["hooks", "install"]).well();
    assert!(moved.out.contains("changed"), "{}", moved.out);
    let installed = text(&world.path(CLAUDE));
    assert!(
        installed.contains("/real/agent-trace") && !installed.contains("/bin/agent-trace"),
        "{installed}"
    );
    assert_eq!(installed.matches("record --agent claude-code").count(), 16);
    world.run(&["hooks", "remove"]).well();
    assert_eq!(text(&world.path(CLAUDE)), settings);
    assert!(!world.path("home/.claude/settings.json.pre-agent-trace").exists());
}

#[test]
fn rights_and_links_stay() {
    let world = World::new();
    put(&world.path("dotfiles/claude.json"), "{}\n");
    fs::set_permissions(world.path("dotfiles/claude.json"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(world.path("home/.claude")).unwrap();
    symlink("../../dotfiles/claude.json", world.path(CLAUDE)).unwrap();
    world.run(&["hooks", "install"]).well();
    for _ in 0..2 {
        assert!(fs::symlink_metadata(world.path(CLAUDE)).unwrap().is_symlink());
        assert_eq!(fs::metadata(world.path("dotfiles/claude.json")).unwrap().mode() & 0o777, 0o600);
        world.run(&["hooks", "remove"]).well();
    }
    assert_eq!(text(&world.path("dotfiles/claude.json")), "{}\n");
}

#[test]
fn the_file_before_the_first_change_lies_beside() {
    let settings = "{\n  \"model\": \"opus\"\n}\n";
    let world = World::with_claude(settings);
    fs::set_permissions(world.path(CLAUDE), fs::Permissions::from_mode(0o640)).unwrap();
    let document = world.json_in(&world.path(""), &["hooks", "install"]);
    let backup = PathBuf::from(document["changes"][0]["backup"].as_str().unwrap());
    assert_eq!(text(&backup), settings);
    assert_eq!(fs::metadata(&backup).unwrap().mode() & 0o777, 0o640);
}

// ---- what is refused

#[test]
fn a_file_that_is_not_json_stops_everything_before_anything_is_written() {
    for broken in
        ["{\"hooks\": ", "[]", "{\"hooks\": []}", "{\"hooks\": {\"Stop\": 1}}", "{} trailing", "\u{0}\u{1}"]
    {
        let world = World::with_claude("{}");
        put(&world.path("home/.cursor/hooks.json"), &broken.replace("Stop", "stop"));
        let before = tree(&world.path("home"));
        let said = world.run(&["hooks", "install"]).fails(2, &[".cursor/hooks.json", "nothing was written"]);
        assert_eq!(said.out, "");
        let after: Vec<_> =
            tree(&world.path("home")).into_iter().filter(|(path, _)| !is_of_home(path)).collect();
        assert_eq!(after, before.into_iter().collect::<Vec<_>>(), "{broken}");
        // The others can be had without it, and are rid of it without it.
        world.run(&["hooks", "install", "--agent", "claude"]).well();
        world.run(&["hooks", "status"]).well();
        world.run(&["hooks", "remove"]).well();
        assert_eq!(text(&world.path(CLAUDE)), "{}");
    }
    let world = World::with_claude("{}");
    fs::write(world.path(CLAUDE), b"{\"a\": \"\xff\"}").unwrap();
    world.run(&["hooks", "install"]).fails(2, &["settings.json", "as text"]);
}

#[test]
fn a_plugin_of_somebody_else_is_left_alone() {
    let world = World::with_agents();
    let plugin = world.path("home/.config/opencode/plugins/agent-trace.js");
    put(&plugin, "export const Mine = 1\n");
    world.run(&["hooks", "install", "--agent", "opencode"]).fails(2, &["expected a plugin of ours"]);
    world.run(&["hooks", "remove"]).well();
    assert_eq!(text(&plugin), "export const Mine = 1\n");
}

#[test]
fn names_and_places_that_do_not_fit_are_refused() {
    let world = World::new();
    world.run(&["hooks", "install", "--agent", "clippy"]).fails(2, &["clippy", "claude-code", "git"]);
    world.run(&["hooks", "install", "--project"]).fails(2, &["no working tree", "--global"]);
    world.run(&["hooks", "install", "--agent", "git"]).fails(9, &["agent-trace init"]);
    world.run(&["hooks", "install", "--project", "--global"]).fails(2, &[]);
    let said = world.run(&["hooks", "install"]).well();
    assert!(said.err.contains("--agent claude-code"), "{}", said.err);
    assert!(!world.path("home/.claude").exists());
}

// ---- scopes and names

#[test]
fn only_agents_that_are_there_are_asked_unless_named() {
    let world = World::with_claude("{}");
    let document = world.json_in(&world.path(""), &["hooks", "install"]);
    assert_eq!(document["changes"].as_array().unwrap().len(), 1);
    assert_eq!(document["changes"][0]["agent"], "claude-code");
    world.run(&["hooks", "install", "--agent", "codex", "--agent", "gemini"]).well();
    assert!(
        world.path("home/.codex/hooks.json").exists() && world.path("home/.gemini/settings.json").exists()
    );
    world.run(&["hooks", "remove", "--agent", "codex"]).well();
    assert!(!world.path("home/.codex").exists() && world.path("home/.gemini/settings.json").exists());
}

#[test]
fn variables_of_agents_lead_to_their_folders() {
    let world = World::new();
    let mut command = world.command(world.program(), &world.path(""));
    command.env("CODEX_HOME", world.path("elsewhere")).env("XDG_CONFIG_HOME", world.path("config"));
    let done = command.args(["hooks", "install", "-t", "codex", "-t", "opencode"]).output().unwrap();
    assert!(done.status.success());
    assert!(world.path("elsewhere/hooks.json").exists());
    assert!(world.path("config/opencode/plugins/agent-trace.js").exists());
}

#[test]
fn files_in_the_working_tree_name_the_program_only_and_go_without_a_trace() {
    let world = World::new();
    let repository = world.repository("r");
    let names: Vec<&str> = AGENTS.iter().flat_map(|agent| ["--agent", agent.0]).collect();
    let said = world.run_in(&repository, &[&["hooks", "install", "--project"], &names[..]].concat()).well();
    assert!(said.err.contains("commit them"), "{}", said.err);
    for (name, _, file, folder) in AGENTS {
        let written = text(&repository.join(folder).join(file));
        assert!(!written.contains(world.path("").to_str().unwrap()), "{name}: {written}");
        assert!(written.contains("agent-trace"), "{name}: {written}");
    }
    assert!(fs::read_dir(world.path("home")).unwrap().all(|entry| is_of_home(&entry.unwrap().path())));
    // From a subdirectory the same place is meant.
    fs::create_dir_all(repository.join("a/b")).unwrap();
    let document = world.json_in(&repository.join("a/b"), &["hooks", "remove", "--project"]);
    assert_eq!(document["changes"].as_array().unwrap().len(), AGENTS.len(), "{document}");
    fs::remove_dir_all(repository.join("a")).unwrap();
    let left: Vec<_> = fs::read_dir(&repository).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn names_of_agent_trace_cli_are_taken() {
    let world = World::with_claude("{}");
    fs::create_dir_all(world.path("home/.cursor")).unwrap();
    world.run(&["hooks", "setup-global", "-t", "claude", "-t", "cursor"]).well();
    assert!(text(&world.path(CLAUDE)).contains("record --agent claude-code"));
    world.run(&["hooks", "remove-global", "-t", "claude"]).well();
    assert_eq!(text(&world.path(CLAUDE)), "{}");
    assert!(world.path("home/.cursor/hooks.json").exists());
    world.run(&["hooks", "remove-global"]).well();
    assert!(!world.path("home/.cursor/hooks.json").exists());
}

// ---- dry runs, states, kills

#[test]
fn a_dry_run_shows_a_diff_that_applies_and_changes_nothing() {
    let world = World::with_claude("{\n  \"model\": \"opus\"\n}\n");
    let before = tree(&world.path("home"));
    let diff = world.run(&["hooks", "install", "--dry-run"]).well().out;
    assert_eq!(tree(&world.path("home")), before);
    assert!(diff.contains("+  \"hooks\": {") && diff.contains("@@"), "{diff}");
    put(&world.path("a/f"), "{\n  \"model\": \"opus\"\n}\n");
    let repository = world.repository("a");
    let name = world.path(CLAUDE).display().to_string();
    put(
        &world.path("patch"),
        &diff.replace(&format!("--- {name}"), "--- a/f").replace(&format!("+++ {name}"), "+++ b/f"),
    );
    world.git(&repository, &["apply", "../patch"]);
    world.run(&["hooks", "install"]).well();
    assert_eq!(text(&world.path("a/f")), text(&world.path(CLAUDE)));
    let installed = tree(&world.path("home/.claude"));
    let document = world.json_in(&world.path(""), &["hooks", "remove", "--dry-run"]);
    assert_eq!((&document["dry_run"], &document["changes"][0]["change"]), (&json!(true), &json!("restored")));
    assert_eq!(tree(&world.path("home/.claude")), installed);
}

#[test]
fn status_says_what_is_there_and_what_is_missing() {
    let world = World::with_agents();
    assert_eq!(
        world.status("claude-code"),
        json!({"agent": "claude-code", "found": true, "places": [], "last": null})
    );
    assert!(world.run(&["hooks", "status"]).well().err.contains("agent-trace hooks install"));
    world.run(&["hooks", "install"]).well();
    for (name, folder, file, _) in AGENTS {
        let place = world.status(name)["places"][0].clone();
        assert_eq!(place["place"], json!(world.path("home").join(folder).join(file)), "{name}");
        assert_eq!((&place["runs"], &place["missing"]), (&json!(true), &json!([])), "{name}: {place}");
    }
    assert_eq!(world.status("codex")["places"][0]["trust"], "not-reviewed");
    let hooks = world.path("home/.codex/hooks.json");
    put(
        &world.path("home/.codex/config.toml"),
        &format!(
            "model = \"x\"\n[hooks.state.\"{}:stop:0:0\"]\ntrusted_hash = \"sha256:0\"\n",
            hooks.display()
        ),
    );
    assert_eq!(world.status("codex")["places"][0]["trust"], "reviewed");
    // Others take an entry out, and the program goes.
    let without = text(&world.path(CLAUDE)).replace("\"SubagentStop\"", "\"Other\"");
    put(&world.path(CLAUDE), &without);
    fs::remove_file(world.program()).unwrap();
    let said = world.real_in(&world.path(""), &["hooks", "status"]).well().out;
    assert!(said.contains("without SubagentStop") && said.contains("the program is not found"), "{said}");
}

#[test]
fn status_says_when_each_agent_was_last_heard_of() {
    let world = World::with_claude("{}");
    let repository = world.repository("r");
    let project = world.json_in(&repository, &["init"])["data"].as_str().unwrap().to_owned();
    world.run_in(&repository, &["hooks", "install"]).well();
    put(
        &Path::new(&project).join("capture/last.json"),
        "{\"claude-code\": {\"event\": \"Stop\", \"time\": \"2026-03-01T10:00:00Z\"},
          \"git/post-commit\": {\"event\": \"post-commit\", \"time\": \"2026-03-02T10:00:00Z\"}}",
    );
    let document = world.json_in(&repository, &["hooks", "status"]);
    assert_eq!(document["agents"][0]["last"], json!({"event": "Stop", "time": "2026-03-01T10:00:00Z"}));
    assert_eq!(document["git"]["events"][0]["last"], "2026-03-02T10:00:00Z");
    assert_eq!(document["git"]["events"][1]["last"], json!(null));
}

#[test]
fn doctor_finds_hooks_whose_program_has_gone() {
    let world = World::with_claude("{}");
    let repository = world.repository("r");
    world.run_in(&repository, &["init"]).well();
    world.run_in(&repository, &["hooks", "install"]).well();
    world.run_in(&repository, &["doctor"]).well();
    fs::remove_file(world.program()).unwrap();
    let said = world.real_in(&repository, &["doctor"]);
    assert_eq!(said.status, 1, "{}", said.out);
    assert!(
        said.out.contains("claude-code: the program") && said.out.contains("git post-commit"),
        "{}",
        said.out
    );
    // The hooks themselves harm nobody meanwhile.
    world.commit(&repository, "second");
}

#[test]
fn an_install_that_is_killed_anywhere_can_be_run_again() {
    let settings = "{\n  // mine\n  \"model\": \"opus\"\n}\n";
    let probe = World::new();
    if probe.command("strace", &probe.path("")).arg("-V").output().is_err() {
        eprintln!("skipped: strace not given");
        return;
    }
    let calls = "mkdir,pwrite64,rename,unlink,chmod,fchown,chown";
    for command in ["install", "remove"] {
        let fresh = || {
            let world = World::with_claude(settings);
            fs::create_dir_all(world.path("home/.codex")).unwrap();
            if command == "remove" {
                world.run(&["hooks", "install"]).well();
            }
            world
        };
        let world = fresh();
        let points = world.kill_points(&world.path(""), calls, &["hooks", command]);
        let mut kills = 0;
        for point in &points {
            let world = fresh();
            kills += usize::from(world.kill(&world.path(""), point, &["hooks", command]));
            let found = text(&world.path(CLAUDE));
            let is_whole = found == settings || found.matches("record --agent claude-code").count() == 16;
            assert!(is_whole, "{command} at {point:?}: {found}");
            world.run(&["hooks", command]).well();
            world.run(&["hooks", "remove"]).well();
            assert_eq!(text(&world.path(CLAUDE)), settings, "{command} at {point:?}");
            let left: Vec<_> = fs::read_dir(world.path("home/.codex")).unwrap().collect();
            assert!(left.len() <= 1, "{command} at {point:?}: {left:?}");
        }
        assert!(kills > 5, "too few calls were met: {kills} of {points:?}");
    }
}
