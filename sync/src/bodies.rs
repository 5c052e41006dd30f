//! Fetching what is elsewhere: objects that were left out come into the store as objects of its own.
//!
//! Bytes are believed only by their hash (I7). What is here afterwards is durable; the note that it is elsewhere is then
//! behind, and goes. Knows of remotes only folders; a service hands its bytes over itself.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use agent_trace_store::env::File;
use agent_trace_store::intake::Intake;
use agent_trace_store::limits::RECIPE_DEPTH_MAX;
use agent_trace_store::object::Stored;
use agent_trace_store::progress::Progress;
use agent_trace_store::segments::Sealed;
use agent_trace_store::{Error, ErrorKind, ObjectId, Result, Store};

use crate::head::RemoteId;
use crate::manifest::segment_key;
use crate::remote::{Remote, replay};
use crate::state::{State, cache_dir};
use crate::tables::{ABSENT, remote_segment};

/// What has been fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Objects that are here now.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that the remote does not hold.
    pub not_there: Vec<ObjectId>,
}

/// Whoever is handed the bytes of an object in parts.
pub(crate) type Take<'t> = &'t mut dyn FnMut(&[u8]) -> Result<()>;

/// Takes objects into a store, one after the other.
pub(crate) struct Bringing<'a> {
    store: &'a Store,
    intake: Intake<'a>,
    inbox: PathBuf,
    brought: Brought,
}

impl<'a> Bringing<'a> {
    /// Starts; bytes lie in the inbox of the remote until they are part of the store.
    pub(crate) fn start(store: &'a Store, remote: &RemoteId) -> Result<Bringing<'a>> {
        let inbox = cache_dir(store, remote)?.join("inbox");
        Ok(Bringing { store, intake: Intake::new(store), inbox, brought: Brought::default() })
    }

    /// Takes an object in; `hand_over` gives its bytes, or says that they are not there.
    pub(crate) fn object(
        &mut self,
        id: &ObjectId,
        hand_over: impl FnOnce(Take<'_>) -> Result<bool>,
    ) -> Result<()> {
        let path = self.inbox.join(format!("{id}.body"));
        let fs = &self.store.env().fs;
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        let file = fs.create(&path, true).map_err(doing)?;
        let mut bytes = 0;
        let is_there = hand_over(&mut |part| {
            file.write_all_at(part, bytes).map_err(doing)?;
            bytes += part.len() as u64;
            Ok(())
        });
        let taken = is_there.and_then(|is_there| {
            if !is_there {
                self.brought.not_there.push(*id);
                return Ok(());
            }
            self.take(id, file.as_ref(), bytes)
        });
        // Nothing of it needs to last; what is left of a cut process is removed by the next pull.
        let _ = fs.remove(&path);
        taken
    }

    fn take(&mut self, id: &ObjectId, file: &dyn File, bytes: u64) -> Result<()> {
        // A part of something live is needed, even where it is erased by itself.
        let taken = match self.store.erased().contains(id) {
            true => self.intake.part(file, bytes)?,
            false => self.intake.body(file, bytes, None)?.id,
        };
        if taken != *id {
            return Err(Error::corrupt(format!("the bytes of object `{}` do not have its hash", id.short())));
        }
        self.brought.objects += 1;
        self.brought.bytes += bytes;
        self.intake.append_if_large()
    }

    /// Ends; what was taken in is durable when this returns.
    pub(crate) fn end(mut self) -> Result<Brought> {
        if self.brought.objects > 0 {
            self.intake.append()?;
            self.store.catch_up()?;
            self.store.tidy_elsewhere()?;
        }
        Ok(self.brought)
    }
}

/// Fetches objects from a folder.
pub fn bring(store: &Store, remote: &Remote, ids: &[ObjectId], progress: &dyn Progress) -> Result<Brought> {
    let Some(id) = remote.id() else {
        let place = remote.transport().place();
        return Err(Error::new(ErrorKind::NotFound, format!("there is no remote in `{place}` yet")));
    };
    let _lock = remote.lock(store)?;
    let mut state = remote.state(store)?;
    let before = state.clone();
    replay(store, remote, &mut state)?;
    let brought = bring_from(store, remote, &id, &state, ids, progress)?;
    if state != before {
        remote.remember(store, &state)?;
    }
    Ok(brought)
}

/// The same by whoever holds the remote's lock and has replayed it.
pub(crate) fn bring_from(
    store: &Store,
    remote: &Remote,
    id: &RemoteId,
    state: &State,
    ids: &[ObjectId],
    progress: &dyn Progress,
) -> Result<Brought> {
    let mut shelf = Shelf::of(store, remote, id, state)?;
    let mut bringing = Bringing::start(store, id)?;
    for object in ids {
        bringing.object(object, |take| {
            if !shelf.reach(object)? {
                return Ok(false);
            }
            store.copy_part_with(&shelf.opened, object, &mut |part| {
                progress.advance(part.len() as u64);
                take(part)
            })?;
            Ok(true)
        })?;
    }
    bringing.end()
}

/// The segments of a folder, opened as they are needed.
struct Shelf<'a> {
    store: &'a Store,
    remote: &'a Remote,
    /// By their footers.
    listed: Vec<Arc<Sealed>>,
    /// To be read.
    opened: Vec<Arc<Sealed>>,
}

impl<'a> Shelf<'a> {
    fn of(store: &'a Store, remote: &'a Remote, id: &RemoteId, state: &State) -> Result<Shelf<'a>> {
        let listed = state.live_segments();
        let listed = listed
            .map(|(segment, bytes)| remote_segment(store, remote.transport(), id, segment, *bytes))
            .collect::<Result<_>>()?;
        Ok(Shelf { store, remote, listed, opened: Vec::new() })
    }

    /// Opens the segments in which an object stands and all that it is put together of; false where something of it
    /// stands nowhere.
    fn reach(&mut self, id: &ObjectId) -> Result<bool> {
        let (mut seen, mut waiting) = (HashSet::new(), vec![(*id, 0)]);
        while let Some((id, depth)) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            let mut place = self.store.locate_with(&self.opened, &id)?;
            if place.is_none() && self.open_with(&id)? {
                place = self.store.locate_with(&self.opened, &id)?;
            }
            let Some(place) = place else { return Ok(false) };
            let objects = self.store.objects(&place.handle, place.frame)?;
            if let Stored::Recipe(recipe) = objects.get(place.slot as usize)? {
                if depth >= RECIPE_DEPTH_MAX {
                    return Err(Error::corrupt(format!("the recipe of object `{}` is too deep", id.short())));
                }
                waiting.extend(recipe.parts.iter().map(|part| (part.id, depth + 1)));
            }
        }
        Ok(true)
    }

    /// Opens a segment that holds an object, if there is one.
    fn open_with(&mut self, id: &ObjectId) -> Result<bool> {
        for listed in &self.listed {
            if listed.find(id)?.is_some() {
                self.opened.push(open(self.remote, listed)?);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Opens a segment where it lies on the remote, to read parts of it; its footer is read there.
pub(crate) fn open(remote: &Remote, listed: &Sealed) -> Result<Arc<Sealed>> {
    let file = remote.transport().open(&segment_key(&listed.id))?.ok_or_else(|| Error::corrupt(ABSENT))?;
    Sealed::from_file(file, listed.bytes, listed.id).map(Arc::new)
}
