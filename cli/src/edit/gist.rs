//! The gist of a call: a short hash of what it was told to do to which files.
//!
//! Hooks of some agents do not name the call that they tell of, though the session does. A call that a hook has told of
//! so is recognised in the session by its gist and its time. The gist does not depend on what the files held.

use agent_trace_store::id::encode_hex;

use super::{Change, PatchSide};

/// The gist of a call: 16 hex digits. Paths are from the root of the repository, in the order of the call.
pub(crate) fn gist<'a>(files: impl IntoIterator<Item = (&'a str, &'a Change)>) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("agent-trace 2026 gist of a call");
    for (path, change) in files {
        part(&mut hasher, path.as_bytes());
        self::change(&mut hasher, change);
    }
    encode_hex(hasher.finalize().as_bytes().first_chunk::<8>().expect("a hash is longer"))
}

fn change(hasher: &mut blake3::Hasher, change: &Change) {
    match change {
        Change::Write(content) => {
            hasher.update(b"w");
            part(hasher, content);
        }
        Change::Replace(replacements) => {
            for one in replacements {
                hasher.update(if one.all { b"R" } else { b"r" });
                part(hasher, &one.old);
                part(hasher, &one.new);
            }
        }
        Change::Patch(hunks) => {
            for hunk in hunks {
                hasher.update(b"p");
                for (side, line) in &hunk.lines {
                    hasher.update(match side {
                        PatchSide::Context => b" ",
                        PatchSide::Removed => b"-",
                        PatchSide::Added => b"+",
                    });
                    part(hasher, line);
                }
            }
        }
        Change::Cell { cell, new } => {
            hasher.update(b"c");
            part(hasher, cell.as_deref().unwrap_or_default().as_bytes());
            part(hasher, new);
        }
        Change::Delete => {
            hasher.update(b"d");
        }
    }
}

fn part(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

#[cfg(test)]
mod tests {
    use super::super::Replacement;
    use super::*;

    #[test]
    fn what_differs_in_anything_has_another_gist() {
        let replace = |old: &str, new: &str, all| {
            Change::Replace(vec![Replacement { old: old.into(), new: new.into(), all }])
        };
        let calls = [
            ("a", replace("x", "y", false)),
            ("b", replace("x", "y", false)),
            ("a", replace("x", "y", true)),
            ("a", replace("xy", "", false)),
            ("a", Change::Write(b"xy".to_vec())),
            ("a", Change::Write(b"".to_vec())),
            ("a", Change::Cell { cell: None, new: b"xy".to_vec() }),
            ("a", Change::Delete),
        ];
        let gists: Vec<String> = calls.iter().map(|(path, change)| gist([(*path, change)])).collect();
        let distinct: std::collections::HashSet<&String> = gists.iter().collect();
        assert_eq!(distinct.len(), calls.len(), "{gists:?}");
        assert_eq!(gists[0], gist([("a", &replace("x", "y", false))]));
        assert_eq!(gists[0].len(), 16);
    }
}
