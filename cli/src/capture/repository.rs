//! A git repository as a hook sees it: found and read without starting git, in a bounded number of reads.
//!
//! Understands `.git` files, `commondir`, loose and packed refs. What it does not understand, such as a reftable, it
//! leaves unknown; it never guesses. Changes nothing.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use agent_trace_store::env::{File, Fs};

use super::limits::{NAME_BYTES_MAX, PACKED_REFS_BYTES_MAX, PARENTS_MAX, PATH_BYTES_MAX, REF_DEPTH_MAX};

/// What is read of a sorted file at once while a line is looked for.
const BLOCK_BYTES: u64 = 4096;

/// Where a repository lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    /// The top of the work tree; nothing in a bare repository.
    pub(crate) root: Option<PathBuf>,
    /// Where HEAD is.
    pub(crate) git_dir: PathBuf,
    /// What all work trees share.
    pub(crate) common_dir: PathBuf,
}

/// What is checked out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The commit, in hex.
    pub(crate) revision: Option<String>,
    /// The branch, without `refs/heads/`.
    pub(crate) branch: Option<String>,
}

/// A path without `.` and `..`, by its letters alone.
pub(crate) fn normalised(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

impl Repository {
    /// The innermost repository around an absolute path, which need not exist.
    pub(crate) fn around(fs: &dyn Fs, path: &Path) -> Option<Repository> {
        let path = normalised(path);
        path.ancestors().take(PARENTS_MAX).find_map(|directory| Repository::at(fs, directory))
    }

    /// The repository whose work tree begins here, or which is bare and here.
    fn at(fs: &dyn Fs, directory: &Path) -> Option<Repository> {
        let dot_git = directory.join(".git");
        let git_dir = match fs.metadata(&dot_git) {
            Ok(metadata) if metadata.is_dir => dot_git,
            Ok(_) => {
                let content = read_start(fs, &dot_git, PATH_BYTES_MAX as u64).ok()?;
                directory.join(OsStr::from_bytes(content.strip_prefix(b"gitdir: ")?.trim_ascii_end()))
            }
            Err(_) => {
                let is_bare = directory.extension() == Some(OsStr::new("git"))
                    && fs.metadata(&directory.join("HEAD")).is_ok()
                    && fs.metadata(&directory.join("objects")).is_ok();
                return is_bare.then(|| Repository::of_git_dir(fs, directory, None));
            }
        };
        // A directory called `.git` without a HEAD is none, and git looks further up too.
        fs.metadata(&git_dir.join("HEAD")).ok()?;
        Some(Repository::of_git_dir(fs, &git_dir, Some(directory)))
    }

    /// The repository of a git directory that is known.
    pub(crate) fn of_git_dir(fs: &dyn Fs, git_dir: &Path, root: Option<&Path>) -> Repository {
        let common_dir = match read_start(fs, &git_dir.join("commondir"), PATH_BYTES_MAX as u64) {
            Ok(content) => git_dir.join(OsStr::from_bytes(content.trim_ascii_end())),
            Err(_) => git_dir.to_owned(),
        };
        Repository {
            root: root.map(Path::to_owned),
            git_dir: normalised(git_dir),
            common_dir: normalised(&common_dir),
        }
    }

    /// What is checked out, as far as it can be told.
    pub(crate) fn head(&self, fs: &dyn Fs) -> Head {
        let mut head = Head::default();
        let mut name = "HEAD".to_owned();
        for _ in 0..REF_DEPTH_MAX {
            let directory = if name == "HEAD" { &self.git_dir } else { &self.common_dir };
            let content = match read_start(fs, &directory.join(&name), NAME_BYTES_MAX as u64) {
                Ok(content) => content,
                Err(_) => {
                    head.revision = self.packed(fs, &name).ok().flatten();
                    break;
                }
            };
            let Ok(text) = std::str::from_utf8(&content) else { break };
            match text.strip_prefix("ref:") {
                Some(target) => name = target.trim().to_owned(),
                None => {
                    head.revision = object_name(text);
                    break;
                }
            }
            // What a reftable repository writes into HEAD for the sake of old programs.
            if name == "refs/heads/.invalid" || name.split('/').any(|part| part == ".." || part.is_empty()) {
                return Head::default();
            }
            if head.branch.is_none() {
                head.branch = name.strip_prefix("refs/heads/").map(str::to_owned);
            }
        }
        head
    }

    /// A ref that has no file of its own.
    fn packed(&self, fs: &dyn Fs, name: &str) -> io::Result<Option<String>> {
        let file = fs.open(&self.common_dir.join("packed-refs"))?;
        let bytes = file.len()?;
        let start = read(&*file, 0, BLOCK_BYTES)?;
        let header = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if header.starts_with(b"# pack-refs") && header.windows(7).any(|word| word == b" sorted") {
            return find_sorted(&*file, header.len() as u64 + 1, bytes, name.as_bytes());
        }
        if bytes > PACKED_REFS_BYTES_MAX {
            return Ok(None);
        }
        let content = read(&*file, 0, bytes)?;
        let line = content.split(|byte| *byte == b'\n').find(|line| ref_of(line) == Some(name.as_bytes()));
        Ok(line.and_then(value_of))
    }
}

/// Finds the line of a ref by halves, in a file whose lines are sorted by it.
fn find_sorted(file: &dyn File, mut low: u64, mut high: u64, name: &[u8]) -> io::Result<Option<String>> {
    // `low` is the beginning of a line; the line looked for, if there is one, begins in `low..high`.
    while low < high {
        let middle = low + (high - low) / 2;
        let (start, line) = line_around(file, low, middle)?;
        let next = start + line.len() as u64 + 1;
        match ref_of(&line) {
            Some(found) if found == name => return Ok(value_of(&line)),
            Some(found) if found < name => low = next,
            Some(_) => high = start,
            // The commit that an annotated tag names belongs to the line before.
            None if line.starts_with(b"^") && next < high => {
                let (_, after) = line_around(file, next, next)?;
                match ref_of(&after) {
                    Some(found) if found <= name => low = next,
                    _ => high = start,
                }
            }
            None if line.starts_with(b"^") => high = start,
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// The line in which an offset lies, and where it begins; no line begins before `least`.
fn line_around(file: &dyn File, least: u64, at: u64) -> io::Result<(u64, Vec<u8>)> {
    let from = at.saturating_sub(BLOCK_BYTES).max(least);
    let block = read(file, from, at - from + BLOCK_BYTES)?;
    let offset = usize::try_from(at - from).unwrap_or_default();
    let before = block.get(..offset).unwrap_or(&block);
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let length = block[start..].iter().position(|byte| *byte == b'\n').unwrap_or(block.len() - start);
    Ok((from + start as u64, block[start..start + length].to_vec()))
}

fn ref_of(line: &[u8]) -> Option<&[u8]> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    matches!(space, 40 | 64).then(|| &line[space + 1..])
}

fn value_of(line: &[u8]) -> Option<String> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    object_name(std::str::from_utf8(&line[..space]).ok()?)
}

/// A whole SHA-1 or SHA-256 in hex.
fn object_name(text: &str) -> Option<String> {
    let text = text.trim();
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (matches!(text.len(), 40 | 64) && is_hex).then(|| text.to_owned())
}

/// A small file, or the beginning of one.
pub(crate) fn read_start(fs: &dyn Fs, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read(&*fs.open(path)?, 0, bytes_max)
}

/// As many bytes as there are at an offset, up to a bound.
pub(crate) fn read(file: &dyn File, offset: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(bytes_max).unwrap_or(usize::MAX)];
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_trace_store::env::OsFs;
    use agent_trace_store::layout::write_durably;

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    fn put(path: &Path, content: &str) {
        let env = agent_trace_store::env::os_env();
        env.fs.create_dir_all(path.parent().unwrap()).unwrap();
        write_durably(&env, path, content.as_bytes(), false).unwrap();
    }

    fn head(root: &Path) -> (Option<String>, Option<String>) {
        let head = Repository::around(&OsFs, root).unwrap().head(&OsFs);
        (head.revision, head.branch)
    }

    #[test]
    fn head_is_read_from_files_as_git_writes_them() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let some = |text: &str| Some(text.to_owned());
        put(&root.join(".git/HEAD"), "ref: refs/heads/a/b\n");
        assert_eq!(head(root), (None, some("a/b")), "no commit yet");
        put(&root.join(".git/refs/heads/a/b"), &format!("{SHA}\n"));
        assert_eq!(head(root), (some(SHA), some("a/b")));
        put(&root.join(".git/HEAD"), &format!("{SHA}{}\n", &SHA[..24]));
        assert_eq!(head(root), (Some(format!("{SHA}{}", &SHA[..24])), None), "detached, SHA-256");
        put(&root.join(".git/HEAD"), "ref: refs/heads/.invalid\n");
        assert_eq!(head(root), (None, None), "a reftable");
        put(&root.join(".git/HEAD"), "ref: refs/heads/../../x\n");
        assert_eq!(head(root), (None, None));
        put(&root.join(".git/HEAD"), "ref: HEAD\n");
        assert_eq!(head(root).0, None, "a ref that names itself ends");
        put(&root.join(".git/HEAD"), "0123\n");
        assert_eq!(head(root), (None, None));
    }

    #[test]
    fn packed_refs_are_searched_whatever_their_number() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for count in [1usize, 2, 3, 100, 2_000] {
            for header in
                ["# pack-refs with: peeled fully-peeled sorted \n", "# pack-refs with: peeled\n", ""]
            {
                let mut text = header.to_owned();
                for number in 0..count {
                    text.push_str(&format!("{number:040x} refs/heads/n{number:05}\n"));
                    if number % 3 == 0 {
                        text.push_str(&format!("^{SHA}\n"));
                    }
                }
                put(&root.join(".git/packed-refs"), &text);
                for number in (0..count).step_by(1 + count / 50) {
                    put(&root.join(".git/HEAD"), &format!("ref: refs/heads/n{number:05}"));
                    assert_eq!(head(root).0, Some(format!("{number:040x}")), "{number} of {count} {header}");
                }
                for absent in ["a", "n", "n00000x", "z"] {
                    put(&root.join(".git/HEAD"), &format!("ref: refs/heads/{absent}"));
                    assert_eq!(head(root), (None, Some(absent.to_owned())));
                }
            }
        }
    }

    #[test]
    fn the_innermost_repository_is_found_for_files_that_do_not_exist() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        put(&root.join(".git/HEAD"), "ref: refs/heads/m");
        put(&root.join("inner/.git/HEAD"), "ref: refs/heads/m");
        put(&root.join("no/.git/config"), "");
        let found = |path: &str| Repository::around(&OsFs, &root.join(path)).unwrap().root.unwrap();
        assert_eq!(found("a/b/c"), root);
        assert_eq!(found("inner/x/y"), root.join("inner"));
        assert_eq!(found("inner/../z"), root);
        assert_eq!(found("no/x"), root, "a `.git` without HEAD is passed over");
    }

    #[test]
    fn a_work_tree_shares_anchor_and_refs_but_not_head() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        put(&root.join("main/.git/HEAD"), "ref: refs/heads/m");
        put(&root.join("main/.git/refs/heads/w"), SHA);
        put(&root.join("main/.git/worktrees/w/HEAD"), "ref: refs/heads/w");
        put(&root.join("main/.git/worktrees/w/commondir"), "../..\n");
        put(&root.join("w/.git"), &format!("gitdir: {}\n", root.join("main/.git/worktrees/w").display()));
        let found = Repository::around(&OsFs, &root.join("w/src/x.rs")).unwrap();
        assert_eq!(found.common_dir, root.join("main/.git"));
        assert_eq!(found.root, Some(root.join("w")));
        assert_eq!(head(&root.join("w")), (Some(SHA.to_owned()), Some("w".to_owned())));
    }
}
