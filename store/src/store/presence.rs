//! Which objects are here, which were left out on purpose, and which are missing.

use super::Store;
use crate::elsewhere::{self, Elsewhere, Presence, RemoteId};
use crate::error::Result;
use crate::id::ObjectId;

impl Store {
    /// Notes that a remote holds objects that are left out here; durable when this returns.
    ///
    /// To be called before an event that lists one of them is appended.
    pub fn note_elsewhere(&self, remote: &RemoteId, ids: &[ObjectId]) -> Result<()> {
        elsewhere::note(self.env(), self.dir(), remote, ids)
    }

    /// The objects that are elsewhere and not here. A damaged note is an error.
    pub fn elsewhere(&self) -> Result<Elsewhere> {
        let notes = elsewhere::look(self.env(), self.dir())?;
        if let Some(bad) = notes.bad.into_iter().next() {
            return Err(bad.error);
        }
        let mut elsewhere = notes.elsewhere;
        let erased = self.erased();
        elsewhere.retain(|id| !erased.contains(id));
        if !elsewhere.is_empty() {
            let ids: Vec<ObjectId> = elsewhere.ids().copied().collect();
            let mut here = self.here(&ids)?.into_iter();
            elsewhere.retain(|_| here.next() == Some(false));
        }
        Ok(elsewhere)
    }

    /// Whether an object can be had, and where.
    pub fn presence(&self, id: &ObjectId) -> Result<Presence> {
        if let Some(act) = self.erased().act(id) {
            return Ok(Presence::Erased(*act));
        }
        if self.locate(id)?.is_some() {
            return Ok(Presence::Present);
        }
        Ok(match self.elsewhere()?.remotes(id) {
            [] => Presence::Missing,
            remotes => Presence::Elsewhere(remotes.to_vec()),
        })
    }

    /// Drops notes of objects that are here by now, and joins the others where they are many.
    pub fn tidy_elsewhere(&self) -> Result<()> {
        let erased = self.erased();
        elsewhere::tidy(self.env(), self.dir(), &mut |ids| {
            let mut here = self.here(ids)?;
            for (id, here) in ids.iter().zip(&mut here) {
                // What is erased is nowhere, and needs no note.
                *here = *here || erased.contains(id);
            }
            if here.contains(&true) {
                // What a note is dropped for must not be lost by a power cut.
                self.settle()?;
            }
            Ok(here)
        })
    }

    fn here(&self, ids: &[ObjectId]) -> Result<Vec<bool>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.refresh()?;
        self.contains_all(ids)
    }
}
