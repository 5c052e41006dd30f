//! Whole imports of small made-up files of each format and layout.

use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, os_env};
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::{Kind, Store, Timestamp};

use super::{Options, Report, run};

const SHA_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A folder with a store and files to import.
struct World {
    dir: tempfile::TempDir,
    env: Env,
    store: Store,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let env = os_env();
        let store = Store::init(&env, &dir.path().join("store")).unwrap();
        World { dir, env, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("in").join(name)
    }

    /// Writes a file of which the last change lies an hour back.
    #[expect(clippy::disallowed_methods, reason = "`Fs` cannot set times")]
    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        self.env.fs.create_dir_all(path.parent().unwrap()).unwrap();
        let _ = self.env.fs.remove(&path);
        self.env.fs.create(&path, false).unwrap().write_all_at(bytes.as_ref(), 0).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600)).unwrap();
        path
    }

    fn options(&self) -> Options {
        Options {
            paths: vec![self.dir.path().join("in")],
            since: None,
            dry_run: false,
            index: true,
            redaction: None,
        }
    }

    fn import(&self) -> Report {
        run(&self.store, &self.options(), &Silent).unwrap()
    }

    /// Imports without what is remembered of unchanged files.
    fn import_afresh(&self) -> Report {
        self.store.index().delete().unwrap();
        self.store.catch_up().unwrap();
        self.import()
    }

    /// All transcripts with their bytes, oldest first.
    fn transcripts(&self) -> Vec<(TranscriptRecord, Vec<u8>)> {
        let snapshot = self.store.snapshot().unwrap();
        let query = Query { kind: Some(Kind::TRANSCRIPT), ..Query::default() };
        let mut found = question::list(&self.store, &snapshot, &query).unwrap();
        found.reverse();
        let read = |found: question::Found| {
            let record = TranscriptRecord::decode(&self.store.read(&found.record()).unwrap()).unwrap();
            (record, self.store.read(&found.event.fact.objects[1]).unwrap())
        };
        found.into_iter().map(read).collect()
    }

    fn segment_bytes(&self) -> u64 {
        let segments = self.store.dir().join("segments");
        let names = self.env.fs.list(&segments).unwrap();
        names.iter().map(|entry| self.env.fs.metadata(&segments.join(&entry.name)).unwrap().bytes).sum()
    }
}

fn bad_of(report: &Report) -> Vec<(String, Option<u64>)> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    report.bad.iter().map(|bad| (name(&bad.file), bad.line)).collect()
}

fn trace(id: u32, time: &str) -> String {
    format!(
        r#"{{"version":"2.0","id":"t{id}","timestamp":"{time}","files":[{{"path":"a","conversations":[]}}]}}"#
    )
}

const LEDGER: &str =
    r#"{"commit_sha":"c1","created_at":"2026-01-02T00:00:00Z","trace_ids":["t1"],"files":{"a":{}}}"#;
const LINK: &str =
    r#"{"commit_sha":"c1","created_at":"2026-01-02T00:00:00Z","trace_ids":["t1"],"files_changed":["a"]}"#;
const SUMMARY: &str = r#"{"conversation_id":"x","summary":"did it","created_at":"2026-01-03T00:00:00Z"}"#;

#[test]
fn agents_are_known_by_content() {
    let check = |name: &str, text: &str, agent: Option<&str>, session: &str, time: Option<&str>| {
        let world = World::new();
        world.put(name, text);
        let report = world.import();
        assert_eq!((report.added, report.bad.len()), (1, 0), "{name}");
        let (record, bytes) = world.transcripts().remove(0);
        assert_eq!(bytes, text.as_bytes(), "{name}");
        assert_eq!((record.agent.as_deref(), record.session_id.as_deref()), (agent, Some(session)), "{name}");
        if let Some(time) = time {
            assert_eq!(Some(record.created_at), Timestamp::parse(time), "{name}");
        }
        let again = world.import_afresh();
        assert_eq!((again.added, again.known), (0, 1), "{name}");
    };
    let claude = "{\"type\":\"summary\",\"summary\":\"s\",\"leafUuid\":\"l\"}\n\
        {\"type\":\"user\",\"uuid\":\"u\",\"sessionId\":\"s1\",\"timestamp\":\"2026-01-01T10:00:00Z\"}\n\
        {\"type\":\"file-history-snapshot\",\"messageId\":\"m\",\"snapshot\":{\"timestamp\":\"2027-01-01T00:00:00Z\"}}\n";
    check("x.jsonl", claude, Some("Claude Code"), "s1", Some("2026-01-01T10:00:00Z"));
    let codex = "{\"timestamp\":\"2026-01-01T10:00:00Z\",\"type\":\"session_meta\",\"payload\":{\"id\":\"s2\"}}\r\n\
        {\"timestamp\":\"2026-01-01T10:00:01.5Z\",\"type\":\"event_msg\",\"payload\":{\"id\":\"no\"}}\r\n";
    check("rollout.jsonl", codex, Some("Codex"), "s2", Some("2026-01-01T10:00:01.5Z"));
    let copilot =
        r#"{"type":"session.start","data":{"sessionId":"s3"},"id":"e","timestamp":"2026-01-01T10:00:00Z"}"#;
    check("events.jsonl", copilot, Some("Copilot CLI"), "s3", Some("2026-01-01T10:00:00Z"));
    let gemini = "{\n  \"sessionId\": \"s4\",\n  \"projectHash\": \"h\",\n  \"messages\": [\n    {\"timestamp\": \"2026-01-01T10:00:00Z\"}\n  ]\n}";
    check("g.json", gemini, Some("Gemini CLI"), "s4", Some("2026-01-01T10:00:00Z"));
    check("g.jsonl", gemini, Some("Gemini CLI"), "s4", Some("2026-01-01T10:00:00Z"));
    let cut_off = &gemini[..gemini.len() - 3];
    check("g.jsonl", cut_off, Some("Gemini CLI"), "s4", Some("2026-01-01T10:00:00Z"));
    check("notes.md", "# no JSON", None, "notes", None);
    check("empty.jsonl", "", None, "empty", None);
    check("other.json", "[1, 2", None, "other", None);
}

#[test]
fn bytes_that_are_no_text_come_back_as_they_were() {
    let world = World::new();
    let mut bytes: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    bytes.extend_from_slice(b"\xff\xfe no line end");
    let path = world.put("elsewhere/raw.bin", &bytes);
    assert_eq!(world.import().found.len(), 0, "in a folder only known endings are taken");
    let options = Options { paths: vec![path], ..world.options() };
    assert_eq!(run(&world.store, &options, &Silent).unwrap().added, 1);
    assert_eq!(world.transcripts()[0].1, bytes);
}

#[test]
fn bad_lines_are_named_and_kept_out_or_raw() {
    let world = World::new();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let no_key = r#"{"version":"2.0","id":"","timestamp":"x","files":[]}"#;
    let lines = [
        &trace(1, "2026-01-01T00:00:00Z"),
        "{\"a\":1,\"a\":2}\r",
        LEDGER,
        "",
        "{torn",
        LINK,
        &deep,
        r#"{"hello":"world"}"#,
        no_key,
        SUMMARY,
    ];
    world.put("mixed.jsonl", lines.join("\n"));
    let report = world.import();
    assert_eq!(bad_of(&report), [2, 5, 7, 8, 9].map(|line| ("mixed.jsonl".to_owned(), Some(line))));
    let found: Vec<(Kind, u64)> = report.found.into_iter().collect();
    let raw: Vec<Option<u64>> = report.bad.iter().filter(|bad| bad.kept).map(|bad| bad.line).collect();
    assert_eq!(raw, [Some(2)], "an object with a key twice is kept as it came, an array is no record");
    let kinds = [Kind::TRACE, Kind::LEDGER, Kind::COMMIT_LINK, Kind::SUMMARY, Kind::UNKNOWN];
    assert_eq!(found, kinds.map(|kind| (kind, 1)));
    let again = world.import();
    assert_eq!((again.added, again.known, again.bad.len()), (0, 5, 5), "a file with bad lines is read again");
}

#[test]
fn line_numbers_hold_over_many_pieces() {
    let world = World::new();
    let padding = "x".repeat(700);
    let mut text = String::new();
    for id in 0..5_000 {
        text += &trace(id, "2026-01-01T00:00:00Z").replace("2.0", &padding);
        text += "\n";
        if id % 1_000 == 999 {
            text += "{bad\n";
        }
    }
    world.put("traces.jsonl", text);
    let report = world.import();
    assert_eq!(report.added, 5_000);
    let lines: Vec<u64> = report.bad.iter().filter_map(|bad| bad.line).collect();
    assert_eq!(lines, [1_001, 2_002, 3_003, 4_004, 5_005]);
}

#[test]
fn a_line_over_the_limit_is_bad_and_the_next_is_read() {
    let world = World::new();
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(agent_trace_store::limits::RECORD_BYTES_MAX + 3));
    let (first, last) = (trace(1, "2026-01-01T00:00:00Z"), trace(2, "2026-01-01T00:00:00Z"));
    world.put("traces.jsonl", format!("{first}\n{long}\n{last}\n{{no\n"));
    let report = world.import();
    assert_eq!((report.added, report.bad.iter().filter_map(|bad| bad.line).collect()), (2, vec![2, 4]));
}

#[test]
fn records_in_json_files_are_found() {
    let check = |name: &str, text: String, added: u64, bad: &[u64]| {
        let world = World::new();
        world.put(name, &text);
        let report = world.import();
        assert_eq!(report.found.get(&Kind::TRANSCRIPT), None, "{text}");
        assert_eq!(report.added, added, "{text}");
        assert_eq!(report.bad.iter().filter_map(|bad| bad.line).collect::<Vec<_>>(), bad, "{text}");
    };
    let (one, two) = (trace(1, "2026-01-01T00:00:00Z"), trace(2, "2026-01-01T00:00:00Z"));
    check("one.json", one.replace(',', ",\n"), 1, &[]);
    check("array.json", format!("[\n{one},\n{{\"a\":1}},\n{two}\n]\n"), 2, &[3]);
    check("array.json", format!("[{one},\n{{\"id\":\"cut"), 1, &[2]);
}

#[test]
fn since_is_inclusive_and_counts_what_it_leaves_out() {
    let world = World::new();
    let times = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T01:00:00+02:00"];
    let lines: Vec<String> = times.iter().zip(0..).map(|(time, id)| trace(id, time)).collect();
    world.put("some.jsonl", lines.join("\n"));
    world
        .put("old.jsonl", r#"{"type":"user","uuid":"u","sessionId":"s","timestamp":"2025-01-01T00:00:00Z"}"#);
    let options = Options { since: Timestamp::parse("2026-01-02T00:00:00Z"), ..world.options() };
    let report = run(&world.store, &options, &Silent).unwrap();
    assert_eq!((report.added, report.known, report.skipped_since), (2, 0, 2));
    let report = world.import();
    assert_eq!((report.added, report.known, report.skipped_since), (2, 2, 0), "the rest comes without it");
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let world = World::new();
    world.put("a.jsonl", trace(1, "2026-01-01T00:00:00Z"));
    world.put("b.txt", "raw");
    let options = Options { dry_run: true, ..world.options() };
    let before = world.segment_bytes();
    let report = run(&world.store, &options, &Silent).unwrap();
    assert_eq!((report.added, report.known, world.segment_bytes()), (2, 0, before));
    world.import();
    let report = run(&world.store, &options, &Silent).unwrap();
    assert_eq!((report.added, report.known), (0, 2));
}

#[test]
fn a_manifest_gives_order_time_session_and_agent() {
    let world = World::new();
    let first = "{\"type\":\"user\",\"uuid\":\"u\",\"sessionId\":\"inner\"}\n".repeat(10_000);
    let second = format!("{first}more\n");
    world.put("1.jsonl", &second);
    world.put("2.jsonl", &first);
    world.put("3.jsonl", &second);
    world.put("abc.jsonl", "abc");
    let lines = [
        r#"{"file":"2.jsonl","session_id":"s","agent":"","created_at":"2026-01-01T00:00:00Z","checkpoint":"c1"}"#.to_owned(),
        r#"{"file":"1.jsonl","session_id":"s","agent":"","created_at":"2026-01-02T00:00:00Z","checkpoint":"c2"}"#.to_owned(),
        // The same bytes at another time are known by then.
        r#"{"file":"3.jsonl","session_id":"s","agent":"","created_at":"2026-01-03T00:00:00Z","checkpoint":"c3"}"#.to_owned(),
        format!(r#"{{"file":"abc.jsonl","session_id":"t","agent":"Own","sha":"{SHA_OF_ABC}","created_at":"2026-01-04T00:00:00Z"}}"#),
    ];
    world.put("manifest.jsonl", lines.join("\n"));
    let report = world.import();
    assert_eq!((report.added, report.known, report.files), (3, 1, 5), "{:?}", report.bad);
    let transcripts = world.transcripts();
    let labels: Vec<_> = transcripts.iter().map(|(record, _)| record.source.as_deref()).collect();
    assert_eq!(labels, [Some("c1"), Some("c2"), None]);
    assert_eq!(transcripts[0].0.agent.as_deref(), Some("Claude Code"));
    assert_eq!(transcripts[0].0.session_id.as_deref(), Some("s"));
    assert_eq!(transcripts[0].0.conversation_id, transcripts[1].0.conversation_id);
    assert_eq!(transcripts[1].1, second.as_bytes());
    assert_eq!(transcripts[2].0.agent.as_deref(), Some("Own"));
    let stored = world.segment_bytes();
    assert!(stored < 20_000, "an extension stores its tail only, found {stored}");
    let again = world.import();
    assert_eq!((again.added, again.known, &again.found), (0, 4, &report.found));
    let afresh = world.import_afresh();
    assert_eq!((afresh.added, afresh.known, world.segment_bytes()), (0, 4, stored), "nothing is added");
}

#[test]
fn a_manifest_is_not_believed() {
    let world = World::new();
    world.put("abc.jsonl", "abd");
    world.put("long.jsonl", "abcd");
    let line = |file: &str| format!(r#"{{"file":"{file}","session_id":"s","sha":"{SHA_OF_ABC}","bytes":3}}"#);
    let lines = ["../x", "/etc/passwd", "abc.jsonl", "absent.jsonl", "long.jsonl"].map(line);
    world.put("manifest.jsonl", format!("{}\n{{\"session_id\":\"s\"}}\n{{", lines.join("\n")));
    let report = world.import();
    assert_eq!((report.added, world.transcripts().len()), (0, 0));
    let manifest: Vec<_> = bad_of(&report).into_iter().filter(|(file, _)| file == "manifest.jsonl").collect();
    let at = |line| ("manifest.jsonl".to_owned(), Some(line));
    assert_eq!(manifest, [at(1), at(2), at(4), at(6), at(7)]);
    let others: Vec<String> = bad_of(&report).into_iter().map(|(file, _)| file).collect();
    for file in ["abc.jsonl", "long.jsonl", "absent.jsonl"] {
        assert!(others.iter().any(|other| other == file), "{file}: {others:?}");
    }
}

#[test]
fn the_layout_of_agent_trace_cli_is_read() {
    let world = World::new();
    let blob = |text: &str| {
        // The SHA-256 of what was taken in is what names the file.
        let other = World::new();
        other.put("x.txt", text);
        other.import();
        other.transcripts()[0].0.content_sha256.clone()
    };
    let project = "home/.agent-trace/projects/at-0";
    let (latest, pinned, unnamed) = (blob("latest"), blob("pinned"), blob("unnamed"));
    for (sha, text) in [(&latest, "latest"), (&pinned, "pinned"), (&unnamed, "unnamed")] {
        world.put(&format!("{project}/conversations/{}/{sha}", &sha[..2]), text);
    }
    world.put(&format!("{project}/conversations/00/{}", "0".repeat(64)), "not its name");
    world.put(&format!("{project}/conversations/_index.json"), format!(r#"{{"conv":"{latest}"}}"#));
    let trace = format!(
        r#"{{"version":"2.0","id":"t1","timestamp":"2026-01-01T00:00:00Z","files":[{{"path":"a",
        "conversations":[{{"id":"conv","content_sha256":"{pinned}"}}]}}],"metadata":{{"session_id":"s1"}}}}"#
    );
    world.put(&format!("{project}/traces.jsonl"), trace.replace('\n', ""));
    world.put(&format!("{project}/ledgers.jsonl"), LEDGER);
    world.put(&format!("{project}/commit-links.jsonl"), LINK);
    world.put(&format!("{project}/session-summaries.jsonl"), SUMMARY);
    for secret in ["config.json", "sessions/s.json", "projects/at-0/remotes.json"] {
        world.put(&format!("home/.agent-trace/{secret}"), r#"{"token":"secret"}"#);
    }
    let report = world.import();
    assert_eq!((report.added, report.bad.len()), (7, 1), "{:?}", report.bad);
    assert!(report.bad[0].reason.contains("SHA-256"), "{}", report.bad[0].reason);
    let of = |sha: &String| {
        let transcripts = world.transcripts();
        let (record, _) = transcripts.into_iter().find(|(record, _)| record.content_sha256 == *sha).unwrap();
        (record.conversation_id, record.session_id)
    };
    assert_eq!(of(&latest), ("conv".to_owned(), Some("s1".to_owned())));
    assert_eq!(of(&pinned), ("conv".to_owned(), Some("s1".to_owned())));
    assert_eq!(of(&unnamed).1, Some(unnamed.clone()));
    let again = world.import();
    assert_eq!((again.added, again.known, again.bad.len()), (0, 7, 1));
}

#[test]
fn a_session_that_goes_on_is_extended() {
    let world = World::new();
    let line =
        "{\"type\":\"user\",\"uuid\":\"u\",\"sessionId\":\"s\",\"timestamp\":\"2026-01-01T00:00:00Z\"}\n";
    // Of a kind that does not shrink, so that storing it twice would show.
    let noise: String =
        (0u64..20_000).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    world.put("s.jsonl", format!("{line}{noise}\n"));
    assert_eq!(world.import().added, 1);
    let stored = world.segment_bytes();
    world.put("s.jsonl", format!("{line}{noise}\n{line}"));
    assert_eq!(world.import().added, 1);
    assert!(world.segment_bytes() < stored + 4_096, "{stored} grew to {}", world.segment_bytes());
    assert_eq!(world.transcripts().len(), 2);
}

#[test]
fn a_sub_agent_has_a_conversation_of_its_own() {
    let world = World::new();
    let line = r#"{"type":"user","uuid":"u","sessionId":"s","timestamp":"2026-01-01T00:00:00Z"}"#;
    world.put("s.jsonl", line);
    world.put(
        "s/subagents/agent-1.jsonl",
        line.replace("\"uuid\"", "\"isSidechain\":true,\"agentId\":\"1\",\"uuid\""),
    );
    world.import();
    let transcripts = world.transcripts();
    assert_eq!(transcripts.len(), 2);
    assert_ne!(transcripts[0].0.conversation_id, transcripts[1].0.conversation_id);
    assert_eq!(transcripts[0].0.session_id, transcripts[1].0.session_id);
}

#[test]
fn what_is_none_of_our_business_is_passed_over() {
    let world = World::new();
    world.put("repo/.git/notes.txt", "git");
    world.put("repo/code.rs", "code");
    let target = world.put("target/t.txt", "linked");
    std::os::unix::fs::symlink(target.parent().unwrap(), world.path("repo/link")).unwrap();
    let options = Options { paths: vec![world.path("repo"), world.path("absent")], ..world.options() };
    let report = run(&world.store, &options, &Silent).unwrap();
    assert_eq!((report.files, report.added, report.bad.len()), (0, 0, 1));
    let linked = world.path("linked.txt");
    std::os::unix::fs::symlink(&target, &linked).unwrap();
    let options = Options { paths: vec![linked.clone(), linked], ..world.options() };
    assert_eq!(run(&world.store, &options, &Silent).unwrap().added, 1, "a named file may be a link");
}

#[test]
fn the_own_store_is_not_imported() {
    let world = World::new();
    world.put("a.txt", "a");
    let options = Options { paths: vec![world.dir.path().to_owned()], ..world.options() };
    let report = run(&world.store, &options, &Silent).unwrap();
    assert_eq!(report.files, 1);
}
