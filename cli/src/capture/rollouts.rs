//! Sessions of Codex whose hooks do not say where their transcript lies: found by their name below Codex's own folder.
//!
//! Codex names them `sessions/<year>/<month>/<day>/rollout-<time>-<session>.jsonl`, by the day on which the session
//! began. Only names are looked at, of the newest days. No work for a hook.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;

use crate::settings;

/// The newest days that are looked at.
const DAYS_MAX: usize = 62;
const SESSION_CHARS_MAX: usize = 128;

/// The transcript of a session, if it is there.
pub(super) fn find(env: &Env, session: &str) -> Option<PathBuf> {
    let homes = settings::agent_homes();
    let folder = homes.codex.or_else(|| Some(homes.home?.join(".codex")))?;
    find_below(env, &folder.join("sessions"), session)
}

fn find_below(env: &Env, sessions: &Path, session: &str) -> Option<PathBuf> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    if session.is_empty() || session.len() > SESSION_CHARS_MAX || !session.chars().all(is_plain) {
        return None;
    }
    let ending = format!("-{session}.jsonl");
    let folders =
        |path: &Path| names(env, path, true).into_iter().map(|name| path.join(name)).collect::<Vec<_>>();
    let months = folders(sessions).into_iter().flat_map(|year| folders(&year));
    let days = months.flat_map(|month| folders(&month)).take(DAYS_MAX);
    let mut files = days.flat_map(|day| names(env, &day, false).into_iter().map(move |name| day.join(name)));
    files.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("rollout-") && name.ends_with(&ending)
    })
}

/// Names in a folder, the last first.
fn names(env: &Env, folder: &Path, is_dir: bool) -> Vec<OsString> {
    let entries = env.fs.list(folder).unwrap_or_default().into_iter();
    let mut names: Vec<OsString> =
        entries.filter(|entry| entry.is_dir == is_dir).map(|entry| entry.name).collect();
    names.sort_unstable_by(|one, two| two.cmp(one));
    names
}

#[cfg(test)]
mod tests {
    use agent_trace_store::env::os_env;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test's own files")]
    fn the_newest_days_are_looked_at_for_the_whole_name() {
        let dir = tempfile::tempdir().unwrap();
        let put = |day: &str, name: &str| {
            let path = dir.path().join(day).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let env = os_env();
        let find = |session: &str| find_below(&env, dir.path(), session);
        assert_eq!(find("a1"), None);
        let old = put("2025/12/31", "rollout-2025-12-31T10-00-00-a1.jsonl");
        assert_eq!(find("a1"), Some(old));
        let new = put("2026/01/02", "rollout-2026-01-02T10-00-00-a1.jsonl");
        put("2026/01/02", "rollout-2026-01-02T10-00-00-ba1.txt");
        assert_eq!(find("a1"), Some(new));
        for session in ["1", "", "../a1", "a1.jsonl", &"a".repeat(129)] {
            assert_eq!(find(session), None, "{session}");
        }
    }
}
