//! The archives that are open: opened at first use, each once, the longest unused closed first.
//!
//! A folder is never open twice, not even for a moment: who opens or closes one holds its slot. One that somebody
//! uses is not closed, so that there may be more than the limit for as long as more are used at once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_trace_store::Result;
use agent_trace_store::env::Env;

use crate::service::archive::Archive;

/// Opens the archive in a folder, which is made where it is missing.
pub type OpenArchive = dyn Fn(&Env, &Path) -> Result<Arc<dyn Archive>> + Send + Sync;

/// The archives of one service, by the ids of their projects.
pub(super) struct Archives {
    open: Box<OpenArchive>,
    open_max: usize,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    by_project: HashMap<String, (Arc<Slot>, u64)>,
    uses: u64,
}

#[derive(Default)]
struct Slot {
    archive: Mutex<Option<Arc<dyn Archive>>>,
}

impl Slot {
    fn hold(&self) -> MutexGuard<'_, Option<Arc<dyn Archive>>> {
        self.archive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody has what is in it.
    fn is_idle(&self) -> bool {
        let archive = self.archive.try_lock();
        archive.is_ok_and(|archive| archive.as_ref().is_none_or(|archive| Arc::strong_count(archive) == 1))
    }
}

impl Archives {
    pub(super) fn new(open: Box<OpenArchive>, open_max: usize) -> Archives {
        Archives { open, open_max, slots: Mutex::default() }
    }

    /// The archive of a project. `place` says where it lies, or that it is gone; it is asked while nobody can forget it.
    pub(super) fn get(
        &self,
        env: &Env,
        project: &str,
        place: impl FnOnce() -> Result<std::path::PathBuf>,
    ) -> Result<Arc<dyn Archive>> {
        let slot = self.slot(project);
        let mut archive = slot.hold();
        let dir = place()?;
        if let Some(archive) = &*archive {
            return Ok(Arc::clone(archive));
        }
        let opened = (self.open)(env, &dir)?;
        *archive = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// The archive of a project, if it is open. That is no use of it: a search does not decide what stays open.
    pub(super) fn at_hand(&self, project: &str) -> Option<Arc<dyn Archive>> {
        let slot = self.hold().by_project.get(project).map(|(slot, _)| Arc::clone(slot))?;
        let archive = slot.hold();
        archive.clone()
    }

    /// Lets go of the archive of a project that is gone. Who still has it may finish.
    pub(super) fn forget(&self, project: &str) {
        let slot = self.hold().by_project.remove(project);
        if let Some((slot, _)) = slot {
            *slot.hold() = None;
        }
    }

    fn hold(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, project: &str) -> Arc<Slot> {
        let mut slots = self.hold();
        slots.uses += 1;
        let now = slots.uses;
        let (slot, used) = slots.by_project.entry(project.to_owned()).or_default();
        *used = now;
        let slot = Arc::clone(slot);
        if slots.by_project.len() > self.open_max {
            close_idle(&mut slots, self.open_max);
        }
        slot
    }
}

/// Closes the longest unused of those that nobody uses. They are closed before anybody can open them again, since that
/// takes the lock that is held here.
fn close_idle(slots: &mut Slots, open_max: usize) {
    let mut idle: Vec<(u64, String)> = slots
        .by_project
        .iter()
        .filter(|(_, (slot, _))| Arc::strong_count(slot) == 1 && slot.is_idle())
        .map(|(project, (_, used))| (*used, project.clone()))
        .collect();
    idle.sort_unstable();
    for (_, project) in idle {
        if slots.by_project.len() <= open_max {
            break;
        }
        slots.by_project.remove(&project);
    }
}
