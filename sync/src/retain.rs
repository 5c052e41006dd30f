//! What a remote verifiably holds: asked before bytes go from here that only it would have then.
//!
//! Of a folder or bucket all that a body is put together of is read there and hashed. A service is asked for the body
//! and all its parts; it keeps no object whose hash it has not compared.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use agent_trace_store::limits::RECIPE_DEPTH_MAX;
use agent_trace_store::object::Stored;
use agent_trace_store::progress::Progress;
use agent_trace_store::segments::Sealed;
use agent_trace_store::store::Handle;
use agent_trace_store::{Error, ErrorKind, ObjectId, Result, Store};

use crate::bodies::open;
use crate::exchange::Exchange;
use crate::remote::{Remote, replay};
use crate::tables::remote_segment;

impl Exchange {
    /// Those of some bodies that the remote holds whole.
    pub fn holds(
        &self,
        store: &Store,
        bodies: &[ObjectId],
        progress: &dyn Progress,
    ) -> Result<BTreeSet<ObjectId>> {
        match self {
            Exchange::Layout(remote) => held_in_layout(store, remote, bodies, progress),
            Exchange::Service(service) => {
                let mut asked = BTreeSet::new();
                let mut parts = Vec::with_capacity(bodies.len());
                for body in bodies {
                    let leaves: Vec<ObjectId> =
                        store.leaves(body)?.0.into_iter().map(|part| part.id).collect();
                    asked.insert(*body);
                    asked.extend(&leaves);
                    parts.push(leaves);
                }
                let held = service.client().holds(&asked.into_iter().collect::<Vec<_>>())?;
                let whole = bodies.iter().zip(&parts).filter(|(body, parts)| {
                    held.contains(*body) && parts.iter().all(|part| held.contains(part))
                });
                Ok(whole.map(|(body, _)| *body).collect())
            }
        }
    }
}

fn held_in_layout(
    store: &Store,
    remote: &Remote,
    bodies: &[ObjectId],
    progress: &dyn Progress,
) -> Result<BTreeSet<ObjectId>> {
    let Some(id) = remote.id() else {
        let place = remote.transport().place();
        return Err(Error::new(ErrorKind::NotFound, format!("there is no remote in `{place}` yet")));
    };
    let _lock = remote.lock(store)?;
    let mut state = remote.state(store)?;
    let before = state.clone();
    replay(store, remote, &mut state)?;
    if state != before {
        remote.remember(store, &state)?;
    }
    let listed = state.live_segments();
    let listed =
        listed.map(|(segment, bytes)| remote_segment(store, remote.transport(), &id, segment, *bytes));
    let mut reading = Reading {
        store,
        remote,
        listed: listed.collect::<Result<_>>()?,
        opened: Vec::new(),
        good: HashSet::new(),
    };
    let mut held = BTreeSet::new();
    for body in bodies {
        if reading.is_whole(body, progress)? {
            held.insert(*body);
        }
    }
    Ok(held)
}

/// A remote that is read to compare hashes.
struct Reading<'a> {
    store: &'a Store,
    remote: &'a Remote,
    /// By their footers.
    listed: Vec<Arc<Sealed>>,
    /// Where they lie on the remote.
    opened: Vec<Arc<Sealed>>,
    /// Objects that have been read there.
    good: HashSet<ObjectId>,
}

impl Reading<'_> {
    /// Whether all that an object is put together of is there. What is damaged there is not there.
    fn is_whole(&mut self, id: &ObjectId, progress: &dyn Progress) -> Result<bool> {
        let mut waiting = vec![(*id, 0)];
        let mut seen = Vec::new();
        while let Some((id, depth)) = waiting.pop() {
            if self.good.contains(&id) {
                continue;
            }
            let found = match self.parts(&id, progress) {
                Err(error) if error.kind() == ErrorKind::Corrupt => None,
                found => found?,
            };
            let Some(parts) = found.filter(|_| depth <= RECIPE_DEPTH_MAX) else { return Ok(false) };
            seen.push(id);
            waiting.extend(parts.into_iter().map(|part| (part, depth + 1)));
        }
        self.good.extend(seen);
        Ok(true)
    }

    /// The parts of an object as it stands there; none where it is plain and has its hash.
    fn parts(&mut self, id: &ObjectId, progress: &dyn Progress) -> Result<Option<Vec<ObjectId>>> {
        for listed in &self.listed {
            let Some(entry) = listed.find(id)? else { continue };
            let sealed = match self.opened.iter().find(|sealed| sealed.id == listed.id) {
                Some(sealed) => Arc::clone(sealed),
                None => {
                    let sealed = open(self.remote, listed)?;
                    self.opened.push(Arc::clone(&sealed));
                    sealed
                }
            };
            let objects = self.store.objects(&Handle::Sealed(sealed), entry.frame)?;
            return Ok(match objects.get(entry.slot as usize)? {
                Stored::Plain(bytes) => {
                    progress.advance(bytes.len() as u64);
                    (ObjectId::of(bytes) == *id).then(Vec::new)
                }
                Stored::Recipe(recipe) => {
                    (recipe.id == *id).then(|| recipe.parts.iter().map(|part| part.id).collect())
                }
            });
        }
        Ok(None)
    }
}
