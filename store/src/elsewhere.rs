//! Notes of objects that were left out on purpose, and of the remote that holds them: the files in `elsewhere/`.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `ATELSEW` and a zero byte |
//! | 4 | version, 1 |
//! | 16 | the remote |
//! | 4, then 32 each | objects: at least one, sorted, each once |
//!
//! A note never changes; its name is the BLAKE3 of its bytes. It is durable before an event that lists one of its objects
//! is appended, so an event is never here with neither the object nor a note of it. That an object is here goes before
//! what a note says: a note that is behind costs a look, and is dropped by `tidy`. Takes no lock: notes are only ever
//! added, and one is removed only after what it says is durable in another, or needs no saying any more.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::codec::{Decoder, Encoder, length_u32};
use crate::env::Env;
use crate::erased::Act;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ObjectId, decode_hex, encode_hex};
use crate::layout::{read_small, write_durably};
use crate::limits::{ELSEWHERE_FILES_MAX, ELSEWHERE_FILES_TARGET, ELSEWHERE_IDS_MAX};

const MAGIC: &[u8; 8] = b"ATELSEW\0";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 32;
/// Looks at a folder from which another process removes notes meanwhile.
const LOOKS_MAX: usize = 16;

/// Names a remote. The store knows nothing of it but that it holds an object.
pub type RemoteId = [u8; 16];

/// Whether an object that an event lists can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is here.
    Present,
    /// It was left out on purpose; these remotes hold it.
    Elsewhere(Vec<RemoteId>),
    /// An erase event names it: it is gone, wherever it was.
    Erased(Act),
    /// It is neither here nor noted: damage, where an event lists it.
    Missing,
}

/// What the notes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    by_object: BTreeMap<ObjectId, Vec<RemoteId>>,
}

impl Elsewhere {
    /// Whether no object is elsewhere.
    pub fn is_empty(&self) -> bool {
        self.by_object.is_empty()
    }

    /// How many objects are elsewhere.
    pub fn len(&self) -> usize {
        self.by_object.len()
    }

    /// Whether an object is noted.
    pub fn contains(&self, id: &ObjectId) -> bool {
        self.by_object.contains_key(id)
    }

    /// The remotes that hold an object; none where it is not noted.
    pub fn remotes(&self, id: &ObjectId) -> &[RemoteId] {
        self.by_object.get(id).map_or(&[], Vec::as_slice)
    }

    /// The objects, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &ObjectId> {
        self.by_object.keys()
    }

    /// Adds what other notes say.
    pub(crate) fn join(&mut self, other: Elsewhere) {
        other.by_remote().into_iter().for_each(|(remote, ids)| self.add(remote, ids));
    }

    /// Keeps only some of the objects.
    pub(crate) fn retain(&mut self, mut wanted: impl FnMut(&ObjectId) -> bool) {
        self.by_object.retain(|id, _| wanted(id));
    }

    fn add(&mut self, remote: RemoteId, ids: Vec<ObjectId>) {
        for id in ids {
            let remotes = self.by_object.entry(id).or_default();
            if !remotes.contains(&remote) {
                remotes.push(remote);
                remotes.sort_unstable();
            }
        }
    }

    fn by_remote(&self) -> BTreeMap<RemoteId, Vec<ObjectId>> {
        let mut by_remote: BTreeMap<RemoteId, Vec<ObjectId>> = BTreeMap::new();
        for (id, remotes) in &self.by_object {
            for remote in remotes {
                by_remote.entry(*remote).or_default().push(*id);
            }
        }
        by_remote
    }
}

/// A file that is no note, or a damaged one.
pub(crate) struct BadNote {
    pub(crate) path: PathBuf,
    pub(crate) error: Error,
}

/// All notes of a store, as they lie there.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) elsewhere: Elsewhere,
    pub(crate) bad: Vec<BadNote>,
    names: Vec<String>,
}

/// Where the notes of a store lie.
fn notes_dir(store: &Path) -> PathBuf {
    store.join("elsewhere")
}

/// The bytes of a note; the objects are sorted, each once.
pub fn encode(remote: &RemoteId, ids: &[ObjectId]) -> Vec<u8> {
    let mut encoder = Encoder::onto(Vec::with_capacity(FIXED_BYTES + 32 * ids.len()));
    encoder.put(MAGIC).u32(VERSION).put(remote).u32(length_u32(ids.len()));
    for id in ids {
        encoder.put(id.as_bytes());
    }
    encoder.finish()
}

/// Reads a note.
pub fn decode(bytes: &[u8]) -> Result<(RemoteId, Vec<ObjectId>)> {
    let mut decoder = Decoder::new("note of objects elsewhere", bytes);
    decoder.format(MAGIC, VERSION)?;
    let remote = decoder.array()?;
    let count = decoder.count(32, ELSEWHERE_IDS_MAX)?;
    let ids: Vec<ObjectId> =
        (0..count).map(|_| Ok(ObjectId::from_bytes(decoder.array()?))).collect::<Result<_>>()?;
    if ids.is_empty() || !ids.is_sorted_by(|one, next| one < next) {
        return Err(decoder.error("its objects are not in order"));
    }
    decoder.finish()?;
    Ok((remote, ids))
}

/// Reads all notes, the good ones and what is wrong with others. That one is of a newer version is an error.
pub(crate) fn look(env: &Env, store: &Path) -> Result<Notes> {
    let dir = notes_dir(store);
    let mut looks = 0;
    'look: loop {
        looks += 1;
        let entries = match env.fs.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Notes::default()),
            Err(error) => return Err(Error::io(format!("cannot list `{}`", dir.display()), error)),
        };
        let mut names: Vec<String> =
            entries.into_iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort_unstable();
        if names.len() > ELSEWHERE_FILES_MAX {
            let (found, dir) = (names.len(), dir.display());
            return Err(Error::invalid(format!(
                "expected at most {ELSEWHERE_FILES_MAX} notes in `{dir}`, found {found}"
            )));
        }
        let mut notes = Notes::default();
        for name in names {
            let path = dir.join(&name);
            match read_note(env, &path, &name) {
                Ok(Some((remote, ids))) => {
                    notes.elsewhere.add(remote, ids);
                    notes.names.push(name);
                }
                // What it says stands in another by now.
                Ok(None) if looks < LOOKS_MAX => continue 'look,
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => notes.bad.push(BadNote { path, error }),
                Err(error) => return Err(error),
            }
        }
        return Ok(notes);
    }
}

/// Reads one note; nothing where it is gone.
fn read_note(env: &Env, path: &Path, name: &str) -> Result<Option<(RemoteId, Vec<ObjectId>)>> {
    let doing = || format!("cannot read `{}`", path.display());
    let bytes = match read_small(env, path, (FIXED_BYTES + 32 * ELSEWHERE_IDS_MAX) as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(Error::corrupt(doing()).with_source(error));
        }
        Err(error) => return Err(Error::io(doing(), error)),
    };
    let mut hash = [0; 32];
    if !decode_hex(name, &mut hash) || blake3::hash(&bytes) != blake3::Hash::from_bytes(hash) {
        return Err(Error::corrupt(format!("{}: its bytes do not have the hash that names it", doing())));
    }
    decode(&bytes).map(Some).map_err(|error| error.context(doing()))
}

/// Notes that a remote holds these objects; durable when this returns.
pub(crate) fn note(env: &Env, store: &Path, remote: &RemoteId, ids: &[ObjectId]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let dir = notes_dir(store);
    let doing = |error| Error::io(format!("cannot create `{}`", dir.display()), error);
    env.fs.create_dir_all(&dir).map_err(doing)?;
    // Also where it exists: whoever made it may have died before its name was durable.
    env.fs.sync_dir(store).map_err(doing)?;
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    for ids in ids.chunks(ELSEWHERE_IDS_MAX) {
        write_note(env, &dir, &encode(remote, ids))?;
    }
    Ok(())
}

fn write_note(env: &Env, dir: &Path, bytes: &[u8]) -> Result<String> {
    let name = encode_hex(blake3::hash(bytes).as_bytes());
    write_durably(env, &dir.join(&name), bytes, true)?;
    Ok(name)
}

/// Drops notes of objects that are here, and joins the others where they are many. `is_here` says which are.
pub(crate) fn tidy(
    env: &Env,
    store: &Path,
    is_here: &mut dyn FnMut(&[ObjectId]) -> Result<Vec<bool>>,
) -> Result<()> {
    let notes = look(env, store)?;
    let ids: Vec<ObjectId> = notes.elsewhere.ids().copied().collect();
    let here = is_here(&ids)?;
    let is_behind = here.contains(&true);
    if !is_behind && notes.names.len() <= ELSEWHERE_FILES_TARGET {
        return Ok(());
    }
    let mut rest = notes.elsewhere;
    let mut flags = here.into_iter();
    // Both are in the order of the objects.
    rest.retain(|_| flags.next() == Some(false));
    let dir = notes_dir(store);
    let mut kept = Vec::new();
    for (remote, ids) in rest.by_remote() {
        for ids in ids.chunks(ELSEWHERE_IDS_MAX) {
            kept.push(write_note(env, &dir, &encode(&remote, ids))?);
        }
    }
    for name in notes.names.iter().filter(|name| !kept.contains(name)) {
        let path = dir.join(name);
        match env.fs.remove(&path) {
            Ok(()) => {}
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(format!("cannot remove `{}`", path.display()), error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ids(texts: &[&str]) -> Vec<ObjectId> {
        let mut ids: Vec<ObjectId> = texts.iter().map(|text| ObjectId::of(text.as_bytes())).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_note_is_read_back_and_every_other_encoding_is_refused() {
        let ids = ids(&["a", "b", "c"]);
        let bytes = encode(&[7; 16], &ids);
        assert_eq!(decode(&bytes).unwrap(), ([7; 16], ids.clone()));
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err());
        }
        assert!(decode(&[&bytes[..], &[0]].concat()).is_err(), "bytes behind it");
        assert!(decode(&encode(&[7; 16], &[])).is_err(), "nothing in it");
        assert!(decode(&encode(&[7; 16], &[ids[1], ids[0]])).is_err(), "out of order");
        assert!(decode(&encode(&[7; 16], &[ids[0], ids[0]])).is_err(), "twice");
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(decode(&newer).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_false_count_is_refused_before_anything_is_allocated() {
        let mut bytes = encode(&[7; 16], &ids(&["a"]));
        bytes[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
