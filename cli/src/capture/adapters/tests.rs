//! What each agent's payloads come to, as they are kept in `tests/fixtures/payloads`, one file for each form.

use std::path::PathBuf;

use agent_trace_store::env::os_env;
use agent_trace_store::layout::read_small;

use super::{Agent, Event, read};
use crate::capture::payload::{self, Object};
use crate::edit::{Change, PatchSide, ToolEdit};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/payloads")
}

fn event_as(name: &str, said: &str) -> Event {
    let bytes = read_small(&os_env(), &fixtures().join(format!("{name}.json")), 1 << 20).unwrap();
    let bytes = payload::without_addresses(bytes);
    let text = payload::readable(&bytes);
    assert!(!text.contains("@example.com"), "{name}");
    let object = Object::read(&text);
    assert!(object.is_complete, "{name}");
    read(&object, said, "").unwrap_or_else(|| panic!("{name} is not understood"))
}

fn event(name: &str) -> Event {
    event_as(name, "")
}

/// The edits of a payload, in short: path, before, after, what.
fn edits(name: &str) -> Vec<String> {
    let show = |bytes: &Option<Vec<u8>>| {
        bytes.as_ref().map_or("?".to_owned(), |bytes| format!("{:?}", String::from_utf8_lossy(bytes)))
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let one = |edit: &ToolEdit| {
        let what = match &edit.change {
            Change::Write(content) => format!("write {:?}", text(content)),
            Change::Replace(all) => {
                let each = all.iter().map(|one| {
                    format!("{:?}>{:?}{}", text(&one.old), text(&one.new), if one.all { " all" } else { "" })
                });
                each.collect::<Vec<_>>().join(", ")
            }
            Change::Patch(hunks) => {
                let hunk = |hunk: &crate::edit::PatchHunk| {
                    let lines = hunk.lines.iter().map(|(side, line)| {
                        let side = match side {
                            PatchSide::Context => ' ',
                            PatchSide::Removed => '-',
                            PatchSide::Added => '+',
                        };
                        format!("{side}{}", text(line))
                    });
                    let start = hunk.old_start.map(|start| format!("{start}:")).unwrap_or_default();
                    format!("{start}{}", lines.collect::<Vec<_>>().join("|"))
                };
                hunks.iter().map(hunk).collect::<Vec<_>>().join(" @@ ")
            }
            Change::Cell { cell, new } => format!("cell {cell:?} {:?}", text(new)),
            Change::Delete => "delete".to_owned(),
        };
        format!("{} {} {} {what}", edit.path.display(), show(&edit.before), show(&edit.after))
    };
    event(name).edits.iter().map(one).collect()
}

#[test]
fn each_payload_is_known_for_its_agent_s_whatever_hook_it_came_through() {
    let mut count = 0;
    for entry in os_env().fs.list(&fixtures()).unwrap() {
        let name = entry.name.to_string_lossy().trim_end_matches(".json").to_owned();
        let agent = match name.split('-').next().unwrap() {
            "copilot" => Agent::Copilot,
            other => Agent::named(other).unwrap(),
        };
        for said in ["", "claude-code", "codex", agent.name()] {
            // What begins a session of Claude Code or Gemini looks the same; then the installer's word counts.
            let is_open = matches!(name.as_str(), "claude-code-session-start");
            if !is_open || said.is_empty() || said == agent.name() {
                assert_eq!(event_as(&name, said).agent, agent, "{name} through the hook of `{said}`");
            }
        }
        count += 1;
    }
    assert!(count >= 37, "{count} fixtures");
}

#[test]
fn claude_code() {
    assert_eq!(edits("claude-code-write-create"), ["/w/a.py \"\" ? write \"a = 1\\n\""]);
    assert_eq!(edits("claude-code-edit"), ["/w/a.py \"a = 1\\nb = 1\\n\" ? \"a = 1\">\"a = 2\""]);
    assert_eq!(
        edits("claude-code-edit-changed-by-user"),
        ["/w/a.py \"a = 1\\nb = 1\\n\" ? 0:-a = 1|+a = 3| b = 1"]
    );
    assert_eq!(edits("claude-code-multi-edit"), ["/w/a.py \"a c a\" ? \"a\">\"b\" all, \"c\">\"\""]);
    assert_eq!(edits("claude-code-notebook-edit"), ["/w/n.ipynb ? ? cell Some(\"c1\") \"print(1)\""]);
    for name in ["pre-tool-use", "bash", "stop", "session-start", "unknown-event"] {
        assert!(edits(&format!("claude-code-{name}")).is_empty(), "{name}");
    }
    let sub = event("claude-code-subagent-edit");
    assert_eq!((sub.agent_id.as_deref(), sub.tool_use.as_deref()), (Some("a1b2c3d"), Some("toolu_01G")));
    assert_eq!(sub.session, event("claude-code-stop").session);
}

#[test]
fn codex() {
    assert_eq!(
        edits("codex-apply-patch"),
        [
            "new.py \"\" ? write \"x = 1\\ny = 2\\n\"",
            "a.py ? ?  a = 1|-b = 1|+b = 2 @@ -c|+d",
            "old.py ? ? delete",
            "moved.py ? ? -m|+n",
            "gone.py ? ? delete",
        ]
    );
    assert_eq!(edits("codex-apply-patch-by-shell"), ["a.py ? ? -a|+b"]);
    assert!(edits("codex-exec-command").is_empty());
    let patch = event("codex-apply-patch");
    assert_eq!(patch.model.as_deref(), Some("gpt-5.1-codex"));
    assert_eq!(patch.session, event("codex-notify").session, "a thread is a session");
}

#[test]
fn cursor() {
    assert_eq!(edits("cursor-after-file-edit"), ["/w/a.py ? ? \"a = 1\">\"a = 2\""]);
    assert_eq!(edits("cursor-after-file-edit-of-a-new-file"), ["/w/new.py ? ? write \"a = 1\\n\""]);
    assert_eq!(event("cursor-after-file-edit-of-a-new-file").model, None);
    assert_eq!(edits("cursor-post-tool-use"), ["/w/a.py ? ? write \"a = 2\\n\""]);
    let (own, other) = (event("cursor-post-tool-use"), event("cursor-through-claude-hooks"));
    assert_eq!((&own.session, &own.tool_use), (&other.session, &other.tool_use), "one call");
    assert_eq!(own.agent_version.as_deref(), Some("2.1.0"));
    assert!(event("cursor-after-file-edit").is_second_telling);
    assert!(edits("cursor-after-shell-execution").is_empty());
}

#[test]
fn gemini_cli() {
    assert_eq!(edits("gemini-cli-write-file"), ["/w/a.py ? ? write \"a = 1\\n\""]);
    assert_eq!(edits("gemini-cli-replace"), ["a.py ? ? \"a\">\"b\" all"]);
    assert!(edits("gemini-cli-failed").is_empty());
}

#[test]
fn copilot() {
    assert_eq!(edits("copilot-cli-create"), ["/w/a.py ? ? write \"a = 1\\n\""]);
    assert_eq!(edits("copilot-cli-edit"), ["/w/a.py ? ? \"a\">\"b\""]);
    assert!(edits("copilot-cli-failed").is_empty());
    assert_eq!(edits("copilot-vscode-through-claude-hooks"), ["/w/a.py ? ? \"a\">\"b\""]);
    assert_eq!(event("copilot-cli-create").session, event("copilot-cli-edit").session, "both spellings");
}

#[test]
fn opencode() {
    assert_eq!(edits("opencode-edit"), ["/w/a.py \"a\\n\" \"b\\n\" \"a\">\"b\""]);
    assert_eq!(edits("opencode-write"), ["/w/b.py ? ? write \"b\\n\""]);
    assert_eq!(edits("opencode-patch"), ["a.py ? ? -a|+b"]);
    assert_eq!(event("opencode-edit").tool_use.as_deref(), Some("call_o1"));
}

#[test]
fn windsurf() {
    assert_eq!(edits("windsurf-post-write-code"), ["/w/a.py ? ? \"a\\n\\tb\">\"a\\n\\tc\""]);
    assert_eq!(edits("windsurf-post-write-code-of-a-new-file"), ["/w/new.py ? ? write \"a = 1\\n\""]);
    assert!(edits("windsurf-post-run-command").is_empty());
    assert_eq!(event("windsurf-post-write-code").session.as_deref(), Some("tr-1"));
    assert_eq!(event("windsurf-post-write-code").model.as_deref(), Some("SWE-1"));
}

#[test]
fn payloads_that_are_cut_or_changed_anywhere_never_panic() {
    for entry in os_env().fs.list(&fixtures()).unwrap() {
        let bytes = read_small(&os_env(), &fixtures().join(&entry.name), 1 << 20).unwrap();
        for at in (0..bytes.len()).step_by(3) {
            let cut = payload::without_addresses(bytes[..at].to_vec());
            let mut changed = bytes.clone();
            changed[at] = changed[at].wrapping_mul(31).wrapping_add(7);
            for bytes in [cut, payload::without_addresses(changed)] {
                let text = payload::readable(&bytes);
                let object = Object::read(&text);
                let event = payload::event_name(&object, "");
                let _ = (payload::edited_paths(&object, &event), read(&object, "codex", ""));
            }
        }
    }
}
