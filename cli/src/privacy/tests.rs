//! What the scanner finds and what it costs: planted secrets, hostile texts, borders of pieces.
#![allow(clippy::unwrap_used)]

use super::document::{self, Stream};
use super::limits::{PIECE_BYTES, STREAM_BYTES, STREAM_LINE_BYTES};
use super::rules::RuleSet;
use super::scan::{Hit, Scanner, Work, entropy};

const TOKEN: &str = "ghp_f4Kz9Qw81LmXf2Nz7Qc81LmXa4Kz9Qw83LpX";

fn found(text: &[u8]) -> Vec<(String, String)> {
    let set = RuleSet::read(&[]).unwrap();
    let mut found = Vec::new();
    document::scan(&mut Scanner::new(&set), text, None, &mut |_, hit| {
        let rule = set.rules[hit.rule as usize].id.clone();
        found.push((rule, String::from_utf8_lossy(&hit.secret).into_owned()));
    });
    found
}

fn check(text: &str, rule: &str) {
    let found = found(text.as_bytes());
    assert!(found.iter().any(|(id, _)| id == rule), "{rule} in {text}: {found:?}");
}

#[test]
fn secrets_are_found_however_they_are_written() {
    let (one, two) = TOKEN.split_at(17);
    for text in [
        TOKEN.to_owned(),
        format!("token: {TOKEN}."),
        format!("https://h/?a={TOKEN}&b=1"),
        format!(r#"{{"content":"line\n{TOKEN}\nline"}}"#),
        format!(r#"{{"content":"{{\"a\":\"x\\n{TOKEN}\\n\"}}"}}"#),
        format!(r#"{{"content":"\u0067hp_{}"}}"#, &TOKEN[4..]),
        format!("const A = '{one}' + '{two}';"),
        format!("a = \"{one}\" \\\n    \"{two}\""),
        format!(r#"{{"content":"a = \"{one}\"\n  \"{two}\""}}"#),
        format!("{one}\n    {two}\nend"),
        format!("a=gh%70_{}", &TOKEN[4..]).replace("%70", "p"),
        format!("a={}", TOKEN.replace('_', "%5F")),
        "data Z2hwX2Y0S3o5UXc4MUxtWGYyTno3UWM4MUxtWGE0S3o5UXc4M0xwWA==".to_owned(),
    ] {
        check(&text, "github-pat");
    }
    check("postgres://app:f8Kz4q9Qw1@db.internal:5432/x", "url-credentials");
    check("at_0123456789abcdf0_f4Kz9Qw81LmXf2Nz7Qc81LmXa4Kz9Qw83LpXf4Kz9Qw_Ab3dE9", "agent-trace-token");
}

#[test]
fn what_is_no_secret_is_not_found() {
    for text in [
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "AKIAIOSFODNN7EXAMPLE",
        "postgres://postgres:postgres@localhost/x",
        "https://user:${PASSWORD}@host/",
        "https://user:password@example.com/",
        r#"{"usage":{"input_tokens":3,"cache_read":12},"id":"msg_01YDfMFwWHcNYSbyW5R1JJAz"}"#,
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "\u{2039}redacted:github-pat:0123456789abcdef\u{203a}",
    ] {
        assert_eq!(found(text.as_bytes()), [], "{text}");
    }
}

#[test]
fn the_parts_of_a_secret_are_where_it_stands() {
    let set = RuleSet::read(&[]).unwrap();
    let mut scanner = Scanner::new(&set);
    let (one, two) = TOKEN.split_at(20);
    for line in [
        format!(r#"{{"a":"\n\"{TOKEN}\"\n"}}"#),
        format!(r#"{{"a":"x = \"{one}\" + \"{two}\";"}}"#),
        format!(r#"{{"a":"{{\"b\":\"\\n{TOKEN}\\n\"}}"}}"#),
        format!("{one}\n  {two}\n"),
    ] {
        let mut hits = Vec::new();
        document::scan(&mut scanner, line.as_bytes(), None, &mut |_, hit| hits.push(hit.clone()));
        assert_eq!(hits.len(), 1, "{line}");
        let parts: Vec<&str> = hits[0].parts.iter().map(|part| &line[part.clone()]).collect();
        assert_eq!(parts.concat(), TOKEN, "{line}");
        assert_eq!(hits[0].secret, TOKEN.as_bytes());
    }
}

#[test]
fn borders_of_pieces_hide_nothing() {
    let set = RuleSet::read(&[]).unwrap();
    let json =
        |fill: usize| format!("{{\"a\":\"{}\\n{TOKEN}\\n{}\"}}\n", "x ".repeat(fill / 2), "y".repeat(40));
    let text = |fill: usize| format!("{}\n{TOKEN}\n{}\n", "x ".repeat(fill / 2), "y".repeat(40));
    for border in [PIECE_BYTES, STREAM_BYTES, STREAM_LINE_BYTES] {
        for shift in [0, 7, 31, 44, 60, 17 << 10] {
            for document in [json(border - shift), text(border - shift)] {
                let mut places = Vec::new();
                let mut scanner = Scanner::new(&set);
                let mut stream = Stream::new(&mut scanner, None, 0);
                let mut tell = |at: u64, hit: &Hit| places.push((at, hit.secret.clone()));
                document.as_bytes().chunks(70_001).for_each(|part| stream.feed(part, &mut tell));
                stream.finish(&mut tell);
                let at = document.find(TOKEN).unwrap() as u64;
                assert_eq!(places, [(at, TOKEN.as_bytes().to_vec())], "{border} {shift}");
            }
        }
    }
}

/// What looking through a text costs.
fn work(text: &[u8]) -> Work {
    let set = RuleSet::read(&[]).unwrap();
    let mut scanner = Scanner::new(&set);
    document::scan(&mut scanner, text, None, &mut |_, _| {});
    scanner.work
}

#[test]
fn no_text_costs_more_than_linear() {
    let long = "A".repeat(300);
    let hostile: Vec<(&str, String)> = vec![
        ("keywords", "api_key=token secret password ".to_owned()),
        ("prefixes", "ghp_ghp_ghp_AKIA sk_live_ xoxb-1 glpat-".to_owned()),
        ("prefixes with runs", format!("ghp_{long} AKIA{long} ")),
        ("assignments", "twitter_key = 'aaaaaaaa1' facebook_secret: \"bbbbbbbb2\" ".to_owned()),
        ("joints", "'a1b2c3d4' + 'e5f6' + ".to_owned()),
        ("breaks", "ghp_aaaaaaaaaaaaaaaa\n".to_owned()),
        ("percent", "%2f%2f%40".to_owned()),
        ("percent with spaces", "%2f ".to_owned()),
        ("base64", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB ".to_owned()),
        ("base64 of prefixes", "Z2hwX2docF9naHBfZ2hwX2docF9naHBfZ2hwXw== ".to_owned()),
        ("one run", "QUFB".to_owned()),
        ("urls", "https://a:b@c ".to_owned()),
        ("urls without end", "a://a:".to_owned()),
        ("curl", "curl -H curl -u ".to_owned()),
        ("keys", "-----BEGIN PRIVATE KEY-----\nMIIE".to_owned()),
        ("quotes", "\"\"\"'''```".to_owned()),
        ("backslashes", "\\\\\\\\".to_owned()),
        ("escapes", "\\n\\u0041\\\"".to_owned()),
        ("zeros", "\0\0\0\0".to_owned()),
    ];
    for (name, unit) in hostile {
        for frame in [("", ""), ("{\"a\":\"", "\"}")] {
            let make = |bytes: usize| format!("{}{}{}", frame.0, unit.repeat(bytes / unit.len()), frame.1);
            let (small, large) = (work(make(100_000).as_bytes()), work(make(200_000).as_bytes()));
            let all = |work: Work| work.searched + work.matched;
            assert!(all(large) <= 400 * 200_000, "{name}: {large:?}");
            assert!(all(large) <= all(small) * 5 / 2 + 100_000, "{name}: {small:?} {large:?}");
        }
    }
}

#[test]
fn bytes_that_are_no_text_are_looked_through() {
    let mut random = 7u64;
    let mut bytes: Vec<u8> = (0..300_000)
        .map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random & 0xff) as u8
        })
        .collect();
    found(&bytes);
    bytes.extend_from_slice(b"\n\xff\xfe ");
    bytes.extend_from_slice(TOKEN.as_bytes());
    assert_eq!(found(&bytes).last().map(|(rule, _)| rule.as_str()), Some("github-pat"));
    for broken in ["{\"a\":\"", "{\"a\":\"\\", "{\"a\":\"\\u12", "[[[[[[", "{\"", "{\"a\":\"\\ud800\\"] {
        found(broken.as_bytes());
        found(format!("{broken}{TOKEN}").as_bytes());
    }
}

#[test]
fn entropy_is_that_of_shannon() {
    assert!(entropy(b"aaaa").abs() < 1e-9);
    assert!((entropy(b"abcd") - 2.0).abs() < 1e-9);
}
