//! Replacing secrets before anything is hashed or stored.
//!
//! A secret becomes `‹redacted:RULE:FINGERPRINT›`, which stays within the JSON string that the secret stood in: a line
//! that was JSON is JSON afterwards, and the same secret has the same placeholder everywhere. What comes of a line
//! follows from the line alone, so a transcript that grows goes on where it was. A last line that has no end yet waits
//! until it has one.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, File};
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, Result};

use super::class::Class;
use super::document;
use super::limits::{REDACT_PASSES_MAX, REDACTED_LINE_BYTES_MAX, STREAM_BYTES};
use super::policy::{Mode, Policy};
use super::rules::RuleSet;
use super::scan::{Hit, Scanner};

/// How many secrets were replaced, by rule.
pub(crate) type Tally = BTreeMap<String, u64>;

/// What replaces secrets.
pub(crate) struct Redaction {
    policy: Policy,
    rules: RuleSet,
}

/// Says nothing of rules and keys.
impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redaction")
    }
}

impl Redaction {
    /// What the user wants; nothing unless the mode is `redact`. `home` is that of agent-trace.
    pub(crate) fn of(env: &Env, home: Option<&Path>, data: &Path) -> Result<Option<Redaction>> {
        let policy = Policy::look(env, home, data)?;
        if policy.mode != Mode::Redact {
            return Ok(None);
        }
        let policy = Policy::read(env, home, data)?;
        let rules = policy.rules(env)?;
        Ok(Some(Redaction { policy, rules }))
    }

    /// The same for the data of a project, which lies in the home of agent-trace.
    pub(crate) fn of_project(env: &Env, data: &Path) -> Result<Option<Redaction>> {
        let home = data.parent().filter(|parent| parent.ends_with("projects")).and_then(Path::parent);
        Redaction::of(env, home, data)
    }

    /// Replaces the secrets of whole lines; nothing where there are none.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Option<(Vec<u8>, Tally)> {
        self.lines(&mut Scanner::new(&self.rules), bytes)
    }

    fn lines(&self, scanner: &mut Scanner<'_>, bytes: &[u8]) -> Option<(Vec<u8>, Tally)> {
        let mut tally = Tally::new();
        let mut redacted = self.once(scanner, bytes, &mut tally)?;
        // What is gone may have stood across another secret.
        for _ in 1..REDACT_PASSES_MAX {
            match self.once(scanner, &redacted, &mut tally) {
                Some(again) => redacted = again,
                None => break,
            }
        }
        Some((redacted, tally))
    }

    fn once(&self, scanner: &mut Scanner<'_>, bytes: &[u8], tally: &mut Tally) -> Option<Vec<u8>> {
        let mut gone: Vec<(Range<usize>, String)> = Vec::new();
        document::scan(scanner, bytes, None, &mut |_, hit| {
            if let Some(placeholder) = self.placeholder(hit) {
                *tally.entry(self.rules.rules[hit.rule as usize].id.clone()).or_default() += 1;
                for part in &hit.parts {
                    within_strings(bytes, part, &mut |part| gone.push((part, placeholder.clone())));
                }
            }
        });
        gone.sort_by_key(|(part, _)| (part.start, part.end));
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        for (part, placeholder) in gone {
            if part.start < at {
                // It shares bytes with the one before: what is left of it goes too.
                at = at.max(part.end);
                continue;
            }
            out.extend_from_slice(&bytes[at..part.start]);
            out.extend_from_slice(placeholder.as_bytes());
            at = part.end;
        }
        out.extend_from_slice(&bytes[at..]);
        (at > 0).then_some(out)
    }

    /// What stands in a secret's place; nothing where it may stay.
    fn placeholder(&self, hit: &Hit) -> Option<String> {
        let rule = &self.rules.rules[hit.rule as usize];
        let fingerprint = self.policy.key.fingerprint(&hit.secret);
        let counts = rule.class == Class::Certain || self.policy.strict;
        (counts && !self.policy.allow.contains(&fingerprint))
            .then(|| format!("\u{2039}redacted:{}:{fingerprint}\u{203a}", rule.id))
    }

    /// Replaces the secrets of a file, in another one that goes with what is returned.
    pub(crate) fn file(&self, env: &Env, source: &dyn File, bytes: u64, dir: &Path) -> Result<RedactedFile> {
        let mut random = [0; 8];
        env.entropy.fill(&mut random);
        let path = dir.join(format!(".redacted-{}.new", encode_hex(&random)));
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        let file = env.fs.create(&path, true).map_err(doing)?;
        let mut made = RedactedFile {
            file,
            bytes: 0,
            taken: 0,
            tally: Tally::new(),
            env: env.clone(),
            path: path.clone(),
        };
        let mut scanner = Scanner::new(&self.rules);
        let mut pending = Vec::new();
        let (mut at, mut is_of_values) = (0, false);
        while at < bytes {
            let start = pending.len();
            let count = usize::try_from((bytes - at).min(STREAM_BYTES as u64)).unwrap_or(STREAM_BYTES);
            pending.resize(start + count, 0);
            read_exact(source, &mut pending[start..], at)?;
            at += count as u64;
            let end = memchr::memrchr(b'\n', &pending[start..]).map(|found| start + found + 1);
            let end = match end {
                Some(end) => end,
                None if at == bytes => 0,
                None if pending.len() as u64 > REDACTED_LINE_BYTES_MAX => {
                    let message = format!("a line has more than {REDACTED_LINE_BYTES_MAX} bytes");
                    return Err(Error::invalid(message));
                }
                None => continue,
            };
            if made.taken == 0 && end > 0 {
                let first = memchr::memchr(b'\n', &pending).unwrap_or(end);
                is_of_values = document::is_json(&pending[..first]) && is_value(&pending[..first]);
            }
            // Where each line is a value, the last one is whole if it is one too. Other files are taken as they are.
            let is_whole = at == bytes && (!is_of_values || is_value(&pending[end..]));
            let end = if is_whole { pending.len() } else { end };
            let lines = &pending[..end];
            let redacted = self.lines(&mut scanner, lines);
            let out = redacted.as_ref().map_or(lines, |(out, _)| out);
            made.file.write_all_at(out, made.bytes).map_err(doing)?;
            made.bytes += out.len() as u64;
            made.taken += end as u64;
            for (rule, count) in redacted.into_iter().flat_map(|(_, tally)| tally) {
                *made.tally.entry(rule).or_default() += count;
            }
            pending.drain(..end);
        }
        Ok(made)
    }
}

fn read_exact(source: &dyn File, buffer: &mut [u8], at: u64) -> Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => return Err(Error::invalid("it became shorter while it was read")),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("cannot read it", error)),
        }
    }
    Ok(())
}

/// Whether a line is a whole value of JSON.
fn is_value(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line.is_empty()
        || (document::is_json(line) && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok())
}

/// The parts of a range that stand in strings, where its line is JSON; else all of it.
fn within_strings(bytes: &[u8], part: &Range<usize>, each: &mut dyn FnMut(Range<usize>)) {
    let start = memchr::memrchr(b'\n', &bytes[..part.start]).map_or(0, |found| found + 1);
    let end = memchr::memchr(b'\n', &bytes[part.end..]).map_or(bytes.len(), |found| part.end + found);
    let line = &bytes[start..end];
    if !is_value(line) {
        return each(part.clone());
    }
    let mut at = 0;
    while let Some(quote) = memchr::memchr(b'"', &line[at..]) {
        let open = at + quote + 1;
        let mut close = open;
        while let Some(found) = memchr::memchr2(b'"', b'\\', &line[close..]) {
            close += found;
            if line[close] == b'"' {
                break;
            }
            close += 2;
        }
        let inside = (start + open).max(part.start)..(start + close).min(part.end);
        if inside.start < inside.end {
            each(inside);
        }
        if start + close >= part.end {
            return;
        }
        at = close + 1;
    }
}

/// A file without secrets; it goes when this does.
pub(crate) struct RedactedFile {
    file: Box<dyn File>,
    /// Its length.
    pub(crate) bytes: u64,
    /// How much of the source it stands for.
    pub(crate) taken: u64,
    pub(crate) tally: Tally,
    env: Env,
    path: PathBuf,
}

impl RedactedFile {
    /// What was replaced, as a remark for people; nothing where nothing was.
    pub(crate) fn remark(&self) -> Option<String> {
        remark(&self.tally)
    }
}

/// What was replaced, as a remark for people; nothing where nothing was.
pub(crate) fn remark(tally: &Tally) -> Option<String> {
    let words: Vec<String> = tally.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    (!words.is_empty()).then(|| format!("redacted: {}", words.join(", ")))
}

impl Drop for RedactedFile {
    fn drop(&mut self) {
        // What is left behind holds no secret, and the next sweep takes it.
        let _ = self.env.fs.remove(&self.path);
    }
}

impl File for RedactedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::finding::FingerprintKey;
    use super::super::planted::{FORMS, plant};
    use super::*;

    fn redaction(strict: bool) -> Redaction {
        let key = FingerprintKey::new([7; 32]);
        let policy = Policy { mode: Mode::Redact, strict, rules: Vec::new(), allow: BTreeSet::new(), key };
        Redaction { policy, rules: RuleSet::read(&[]).unwrap() }
    }

    #[test]
    fn what_was_redacted_holds_no_secret_and_is_json_as_before() {
        let redaction = redaction(true);
        let (mut gone, mut all) = (0, 0);
        for one in plant(3, 6) {
            assert!(FORMS.contains(&one.form));
            all += 1;
            let was_json = serde_json::from_str::<Value>(&one.line).is_ok();
            let Some((redacted, tally)) = redaction.bytes(one.line.as_bytes()) else { continue };
            gone += 1;
            let text = String::from_utf8(redacted.clone()).unwrap();
            assert!(!text.contains(&one.secret), "{} {:?}: {text}", one.kind, one.form);
            assert!(text.contains("\u{2039}redacted:"), "{text}");
            assert_eq!(
                serde_json::from_str::<Value>(&text).is_ok(),
                was_json,
                "{} {:?}: {text}",
                one.kind,
                one.form
            );
            assert!(tally.values().sum::<u64>() > 0);
            assert!(redaction.bytes(&redacted).is_none(), "once is enough: {text}");
        }
        assert!(gone * 100 >= all * 97, "{gone} of {all}");
    }

    #[test]
    fn what_stands_round_a_secret_stays() {
        let token = "ghp_f4Kz9Qw81LmXf2Nz7Qc81LmXa4Kz9Qw83LpX";
        let redaction = redaction(false);
        let line = format!(r#"{{"a":"x \"{token}\" y","n":12345678901234567890,"b":["{token}\n",null]}}"#);
        let (redacted, tally) = redaction.bytes(line.as_bytes()).unwrap();
        let placeholder = format!(
            "\u{2039}redacted:github-pat:{}\u{203a}",
            redaction.policy.key.fingerprint(token.as_bytes())
        );
        assert_eq!(String::from_utf8(redacted).unwrap(), line.replace(token, &placeholder));
        assert_eq!(tally["github-pat"], 2);
        assert!(redaction.bytes(b"{\"a\":\"nothing\"}").is_none());
    }

    /// What becomes of a file.
    fn file(content: &str) -> (String, u64) {
        let dir = tempfile::tempdir().unwrap();
        let env = agent_trace_store::env::os_env();
        let source = env.fs.create(&dir.path().join("t"), true).unwrap();
        source.write_all_at(content.as_bytes(), 0).unwrap();
        let redacted = redaction(false).file(&env, &*source, content.len() as u64, dir.path()).unwrap();
        let mut bytes = vec![0; usize::try_from(redacted.bytes).unwrap()];
        (&redacted as &dyn File).read_exact_at(&mut bytes, 0).unwrap();
        let taken = redacted.taken;
        drop(redacted);
        assert_eq!(env.fs.list(dir.path()).unwrap().len(), 1, "it has gone");
        (String::from_utf8(bytes).unwrap(), taken)
    }

    #[test]
    fn a_line_without_an_end_waits_only_where_lines_are_values() {
        for (content, taken) in [
            ("", ""),
            ("{\"a\":1}\n{\"b\":", "{\"a\":1}\n"),
            ("{\"a\":1}\n{\"b\":2}", "{\"a\":1}\n{\"b\":2}"),
            ("{\"a\":1}\n", "{\"a\":1}\n"),
            ("{\n \"a\": 1\n}", "{\n \"a\": 1\n}"),
            ("{\"a\":", "{\"a\":"),
            ("text\nand more", "text\nand more"),
        ] {
            assert_eq!(file(content), (taken.to_owned(), taken.len() as u64), "{content}");
        }
        let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(STREAM_BYTES * 5 / 2));
        let content = format!("{long}{{\"t\":\"ghp_f4Kz9Qw81LmXf2Nz7Qc81LmXa4Kz9Qw83LpX\"}}\n{{\"cut");
        let (redacted, taken) = file(&content);
        assert!(redacted.starts_with(&long) && redacted.contains("redacted:github-pat"));
        assert_eq!(taken, content.len() as u64 - 5);
    }

    #[test]
    fn secrets_side_by_side_and_across_each_other_all_go() {
        let token = "ghp_f4Kz9Qw81LmXf2Nz7Qc81LmXa4Kz9Qw83LpX";
        let redaction = redaction(true);
        for line in [
            format!("{token} {token}"),
            format!("https://u:{token}@h.io/ token={token}&key={token}"),
            format!("curl -H \"Authorization: Bearer {token}\" https://a:{token}@b.io"),
            format!("password: \"{token}\" api_key='{token}'"),
        ] {
            let (redacted, _) = redaction.bytes(line.as_bytes()).unwrap();
            let text = String::from_utf8(redacted).unwrap();
            assert!(!text.contains(&token[4..]), "{text}");
        }
    }
}
