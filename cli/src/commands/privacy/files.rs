//! Looking through files: all threads, each a file at a time, with bounded memory.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::progress::Progress;
use rayon::prelude::*;

use crate::json as shapes;
use crate::privacy::document::Stream;
use crate::privacy::finding::{Finding, FingerprintKey};
use crate::privacy::limits::{FILE_BYTES_MAX, FINDINGS_MAX};
use crate::privacy::rules::RuleSet;
use crate::privacy::scan::{Hit, Scanner};

/// Bytes that are read at once.
const READ_BYTES: u64 = 1 << 20;
/// Directories below directories.
const DEPTH_MAX: usize = 64;

/// What was found in files.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) found: BTreeMap<Finding, Vec<shapes::PrivacyPlace>>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) skipped: Vec<shapes::PrivacySkipped>,
}

/// Looks through files, and through all files of directories.
pub(super) fn scan(
    env: &Env,
    paths: &[PathBuf],
    rules: &RuleSet,
    key: &FingerprintKey,
    progress: &dyn Progress,
) -> Looked {
    let mut looked = Looked::default();
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        walk(env, path, 0, &mut seen, &mut files, &mut looked.skipped);
    }
    progress.start("looking for secrets", Some(files.iter().map(|(_, bytes)| bytes).sum()));
    type One = Result<(u64, BTreeMap<Finding, shapes::PrivacyPlace>), String>;
    let each: Vec<(&PathBuf, One)> = files
        .par_iter()
        .map_init(
            || Scanner::new(rules),
            |scanner, (path, bytes)| {
                let one = scan_file(env, path, scanner, rules, key).map_err(|error| error.to_string());
                progress.advance(*bytes);
                (path, one)
            },
        )
        .collect();
    progress.finish();
    for (path, one) in each {
        match one {
            Ok((bytes, found)) => {
                looked.files += 1;
                looked.bytes += bytes;
                for (finding, place) in found {
                    looked.found.entry(finding).or_default().push(place);
                }
            }
            Err(reason) => skip(&mut looked.skipped, path, reason),
        }
    }
    looked
}

fn skip(skipped: &mut Vec<shapes::PrivacySkipped>, path: &Path, reason: String) {
    skipped.push(shapes::PrivacySkipped { path: path.display().to_string(), reason });
}

/// Lists the files below a path, with their lengths; what git keeps for itself is left out.
fn walk(
    env: &Env,
    path: &Path,
    depth: usize,
    seen: &mut HashSet<(u64, u64)>,
    files: &mut Vec<(PathBuf, u64)>,
    skipped: &mut Vec<shapes::PrivacySkipped>,
) {
    let metadata = match env.fs.metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return skip(skipped, path, error.to_string()),
    };
    if !metadata.is_dir {
        if metadata.bytes > FILE_BYTES_MAX {
            return skip(skipped, path, format!("expected at most {FILE_BYTES_MAX} bytes"));
        }
        files.push((path.to_owned(), metadata.bytes));
        return;
    }
    // Links may lead round in circles.
    if !seen.insert((metadata.device, metadata.inode)) {
        return;
    }
    if depth > DEPTH_MAX {
        return skip(skipped, path, format!("more than {DEPTH_MAX} directories deep"));
    }
    match env.fs.list(path) {
        Ok(mut entries) => {
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            for entry in entries {
                if entry.name != ".git" {
                    walk(env, &path.join(&entry.name), depth + 1, seen, files, skipped);
                }
            }
        }
        Err(error) => skip(skipped, path, error.to_string()),
    }
}

fn scan_file(
    env: &Env,
    path: &Path,
    scanner: &mut Scanner<'_>,
    rules: &RuleSet,
    key: &FingerprintKey,
) -> std::io::Result<(u64, BTreeMap<Finding, shapes::PrivacyPlace>)> {
    let name = path.display().to_string();
    // By offset; the line is known later.
    let mut found: BTreeMap<Finding, (u64, u64)> = BTreeMap::new();
    let mut tell = |at: u64, hit: &Hit| {
        let finding = Finding::new(&rules.rules[hit.rule as usize], &hit.secret, key);
        if found.len() < FINDINGS_MAX || found.contains_key(&finding) {
            found.entry(finding).or_insert((at, 0)).1 += 1;
        }
    };
    for hit in scanner.name(&name) {
        tell(0, &hit);
    }
    let file = env.fs.open(path)?;
    let bytes = file.len()?;
    let mut part = Vec::new();
    let mut stream = Stream::new(scanner, Some(&name), 0);
    let mut at = 0;
    while at < bytes {
        part.resize(usize::try_from(READ_BYTES.min(bytes - at)).unwrap_or(0), 0);
        file.read_exact_at(&mut part, at)?;
        at += part.len() as u64;
        stream.feed(&part, &mut tell);
    }
    stream.finish(&mut tell);
    let mut places = BTreeMap::new();
    for (finding, (offset, count)) in found {
        let line = 1 + lines_before(file.as_ref(), offset)?;
        let (kind, key) = ("file".to_owned(), name.clone());
        places.insert(finding, shapes::PrivacyPlace { kind, key, object: None, line, count });
    }
    Ok((bytes, places))
}

fn lines_before(file: &dyn agent_trace_store::env::File, offset: u64) -> std::io::Result<u64> {
    let (mut at, mut lines) = (0, 0);
    let mut part = Vec::new();
    while at < offset {
        part.resize(usize::try_from(READ_BYTES.min(offset - at)).unwrap_or(0), 0);
        file.read_exact_at(&mut part, at)?;
        lines += memchr::memchr_iter(b'\n', &part).count() as u64;
        at += part.len() as u64;
    }
    Ok(lines)
}
