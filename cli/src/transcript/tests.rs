use agent_trace_store::env::os_env;

use super::*;

fn check(text: &str, expected: &[(&str, &str, Option<&str>, Option<&str>)]) {
    let turns: Vec<Turn> = turns(text.as_bytes()).collect();
    let seen: Vec<_> = turns
        .iter()
        .map(|turn| (turn.role_name(), turn.text.as_str(), turn.tool.as_deref(), turn.tool_use.as_deref()))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn claude_code() {
    let text = concat!(
        r#"{"type":"file-history-snapshot","messageId":"m","snapshot":{}}"#,
        "\n",
        r#"{"type":"user","isMeta":true,"message":{"role":"user","content":"Caveat: not said"},"timestamp":"2026-01-01T00:00:00Z"}"#,
        "\n",
        r#"{"type":"user","message":{"role":"user","content":"add a test"},"timestamp":"2026-01-01T00:00:01Z"}"#,
        "\n",
        "no json at all {\n",
        r#"{"type":"assistant","message":{"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"\n\nI will."},{"type":"tool_use","id":"t1","name":"Edit","input":{"file_path":"/a.rs","new_string":"x\ny"}}]}}{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"run together"}]}}"#,
        "\n",
        r#"{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"done"}]}]},"toolUseResult":{"stdout":"done"}}"#,
        "\n",
        r#"{"type":"user","isSidechain":true,"message":{"role":"user","content":"look for it"}}"#,
    );
    check(
        text,
        &[
            ("other", "Caveat: not said", None, None),
            ("user", "add a test", None, None),
            ("agent", "I will.", None, None),
            ("tool", "file_path: /a.rs\nnew_string:\nx\ny", Some("Edit"), Some("t1")),
            ("agent", "run together", None, None),
            ("result", "done", None, Some("t1")),
            ("other", "look for it", None, None),
        ],
    );
    let all: Vec<Turn> = turns(text.as_bytes()).collect();
    assert_eq!(all[1].time, Timestamp::parse("2026-01-01T00:00:01Z"));
    assert_eq!(find(&all, Some("t1"), None), Some(3));
    assert_eq!(prompt_of(&all, 3), Some(1));
    assert_eq!(find(&all, Some("unknown"), None), None);
    assert_eq!(
        find(&all, None, Timestamp::parse("2026-01-01T00:00:02Z")),
        Some(1),
        "the prompt is the last with a time"
    );
}

#[test]
fn codex() {
    let text = concat!(
        r#"{"timestamp":"2026-01-01T00:00:00Z","type":"session_meta","payload":{"id":"s"}}"#,
        "\n",
        r#"{"timestamp":"2026-01-01T00:00:01Z","type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"<environment_context>\n"}]}}"#,
        "\n",
        r#"{"timestamp":"2026-01-01T00:00:02Z","type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"fix it"}]}}"#,
        "\n",
        r#"{"timestamp":"2026-01-01T00:00:02Z","type":"event_msg","payload":{"type":"user_message","message":"fix it"}}"#,
        "\n",
        r#"{"timestamp":"2026-01-01T00:00:03Z","type":"response_item","payload":{"type":"custom_tool_call","call_id":"c1","name":"apply_patch","input":"*** Begin Patch\n"}}"#,
        "\n",
        r#"{"timestamp":"2026-01-01T00:00:04Z","type":"response_item","payload":{"type":"function_call","call_id":"c2","name":"exec_command","arguments":"{\"cmd\":\"ls\"}"}}"#,
        "\n",
        r#"{"timestamp":"2026-01-01T00:00:05Z","type":"response_item","payload":{"type":"function_call_output","call_id":"c2","output":"a b"}}"#,
        "\n",
    );
    check(
        text,
        &[
            ("other", "<environment_context>", None, None),
            ("user", "fix it", None, None),
            ("tool", "*** Begin Patch\n", Some("apply_patch"), Some("c1")),
            ("tool", "cmd: ls", Some("exec_command"), Some("c2")),
            ("result", "a b", None, Some("c2")),
        ],
    );
}

#[test]
fn copilot_and_cursor() {
    check(
        concat!(
            r#"{"type":"session.start","data":{"sessionId":"s"},"timestamp":"2026-01-01T00:00:00Z"}"#,
            "\n",
            r#"{"type":"user.message","data":{"content":"why"},"timestamp":"2026-01-01T00:00:00Z"}"#,
            "\n",
            r#"{"type":"assistant.message","data":{"content":"","toolRequests":[{"toolCallId":"t","name":"bash"}]}}"#,
            "\n",
            r#"{"type":"tool.execution_start","data":{"toolCallId":"t","toolName":"bash","arguments":{}}}"#,
            "\n",
            r#"{"type":"tool.execution_complete","data":{"toolCallId":"t","success":true,"result":{"content":"out"}}}"#,
        ),
        &[
            ("user", "why", None, None),
            ("tool", "()", Some("bash"), Some("t")),
            ("result", "out", None, Some("t")),
        ],
    );
    check(
        concat!(
            r#"{"role":"user","message":{"content":[{"type":"text","text":"<user_query>\nadd it\n</user_query>"}]}}"#,
            "\n",
            r#"{"role":"assistant","message":{"content":[{"type":"text","text":"Added."}]}}"#,
        ),
        &[("user", "add it", None, None), ("agent", "Added.", None, None)],
    );
}

#[test]
fn gemini_in_one_value_and_in_lines() {
    let messages = [
        r#"{"id":"1","timestamp":"2026-01-01T00:00:00Z","type":"user","content":"write"}"#,
        r#"{"id":"2","type":"gemini","content":"","toolCalls":[{"id":"w1","name":"write_file","args":{"file_path":"a"},"result":[{"functionResponse":{"response":{"output":"ok"}}}],"timestamp":"2026-01-01T00:00:02Z"}]}"#,
    ];
    let expected = [
        ("user", "write", None, None),
        ("tool", "file_path: a", Some("write_file"), Some("w1")),
        ("result", r#"[{"functionResponse":{"response":{"output":"ok"}}}]"#, None, Some("w1")),
    ];
    check(
        &format!("{{\n \"sessionId\": \"s\",\n \"messages\": [{},\n{}]\n}}", messages[0], messages[1]),
        &expected,
    );
    check(&format!("{{\"sessionId\":\"s\",\"messages\":[{},{}]}}\n", messages[0], messages[1]), &expected);
    check(&messages.join("\n"), &expected);
}

#[test]
fn a_command_that_stands_for_a_prompt_is_one() {
    let own = "<command-name>/exit</command-name>\\n<command-message>exit</command-message>";
    let said = "<command-message>review</command-message>\\n<command-name>/review</command-name>\\n<command-args>all of it</command-args>";
    let line = |text: &str| format!("{{\"type\":\"user\",\"message\":{{\"content\":\"{text}\"}}}}");
    check(
        &[line(own), line(said)].join("\n"),
        &[
            ("other", own.replace("\\n", "\n").as_str(), None, None),
            ("user", "/review all of it", None, None),
        ],
    );
}

#[test]
fn what_is_said_again_later_is_said() {
    let user = r#"{"type":"user","message":{"content":"go on"}}"#;
    let agent = r#"{"type":"assistant","message":{"content":"Done."}}"#;
    let (said, done) = (("user", "go on", None, None), ("agent", "Done.", None, None));
    check(&[user, agent, user, agent].join("\n"), &[said, done, said, done]);
}

#[test]
fn nothing_breaks_it() {
    for text in [
        "",
        "\n\n",
        "{",
        "{}",
        "[]",
        "null",
        "{\"type\":5}",
        "{\"type\":\"user\",\"message\":7}",
        "\u{0}\u{1}",
    ] {
        check(text, &[]);
    }
    assert_eq!(turns(&[0xff, b'{', 0xfe, b'\n']).count(), 0);
    assert_eq!(short("  a\n b  c ", 20), "a b c");
    assert_eq!(
        (short("abcdef", 4), short("abcd", 4), short("ab cd", 5)),
        ("abc…".into(), "abcd".into(), "ab cd".into())
    );
}

/// Real transcripts, where they are given: each agent's prompts and calls are found.
#[test]
fn real_transcripts_say_something() {
    let Some(corpus) = std::env::var_os("AGENT_TRACE_CORPUS") else {
        eprintln!("skipped: corpus not given");
        return;
    };
    let mut silent = Vec::new();
    for entry in std::fs::read_dir(std::path::Path::new(&corpus).join("agentv")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() == "manifest.jsonl" {
            continue;
        }
        let bytes = agent_trace_store::layout::read_small(&os_env(), &path, 1 << 30).unwrap();
        let turns: Vec<Turn> = turns(&bytes).collect();
        if !turns.iter().any(|turn| turn.role == Role::User) {
            silent.push(path);
        }
    }
    assert!(silent.is_empty(), "{silent:?}");
}
