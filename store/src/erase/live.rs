//! What goes and what stays: erased objects, the parts that only they need, and recipes that start with an erased one.
//!
//! A plain part of a live object stays, whoever names it. A recipe that is erased always goes: a live one that has it as
//! its base is written anew first. Looks at segments wherever they lie, so a remote is gone through in the same way.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{IdSet, ObjectId};
use crate::kind::Kind;
use crate::limits::{RECIPE_DEPTH_MAX, RECIPE_PARTS_MAX};
use crate::object::{Part, Recipe, Stored};
use crate::segment::all_ids;
use crate::segments::Sealed;
use crate::store::{Handle, Location, Store, read_events};

/// What is to become of the objects of some segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Objects whose bytes go.
    pub gone: BTreeSet<ObjectId>,
    /// Live objects whose recipe is written anew, without an erased base.
    pub flat: BTreeMap<ObjectId, Recipe>,
    /// Erased objects that stay for now, since they are plain parts of live ones.
    pub kept: BTreeSet<ObjectId>,
}

impl Removal {
    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.flat.is_empty()
    }

    /// Whether something of a segment is to be changed.
    pub fn concerns(&self, sealed: &Sealed) -> Result<bool> {
        for id in self.gone.iter().chain(self.flat.keys()) {
            if sealed.find(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Which objects are erased.
pub struct Named<'a> {
    /// All of them.
    pub ids: &'a IdSet,
}

/// Where an object stands.
pub type Locate<'a> = &'a dyn Fn(&ObjectId) -> Result<Option<Location>>;

/// Finds out what goes. `segments` are those that are to be without it, `roots` others whose events make objects live;
/// `locate` says where recipes stand.
pub fn removal(
    store: &Store,
    locate: Locate<'_>,
    segments: &[Arc<Sealed>],
    roots: &[Arc<Sealed>],
    named: &Named<'_>,
) -> Result<Removal> {
    let present = present(segments, named)?;
    if present.is_empty() {
        return Ok(Removal::default());
    }
    let mut recipes = Recipes { store, locate, frames: HashMap::new() };
    let mut candidates = present.clone();
    let mut waiting: Vec<(ObjectId, usize)> = present.iter().map(|id| (*id, 0)).collect();
    while let Some((id, depth)) = waiting.pop() {
        let Some(recipe) = recipes.get(&id)? else { continue };
        too_deep(depth, &id)?;
        for part in recipe.parts {
            if candidates.insert(part.id) {
                waiting.push((part.id, depth + 1));
            }
        }
    }
    let (bodies, records) = listed(segments.iter().chain(roots), named, &mut candidates)?;
    let mut removal = Removal::default();
    // What is a record and nothing else is part of nothing.
    if candidates.iter().any(|id| !records.contains(id)) {
        let mut walk =
            Walk { recipes, named, seen: BTreeSet::new(), leaves: BTreeSet::new(), flat: BTreeMap::new() };
        for body in &bodies {
            walk.body(body)?;
        }
        removal.flat = std::mem::take(&mut walk.flat);
        removal.kept = candidates.intersection(&walk.leaves).copied().collect();
        // Recipes that something live is put together by stay with their parts.
        candidates.retain(|id| !walk.seen.contains(id));
        walk.add_orphans(segments, &mut candidates)?;
    }
    removal.gone = candidates;
    Ok(removal)
}

fn too_deep(depth: usize, id: &ObjectId) -> Result<()> {
    if depth > RECIPE_DEPTH_MAX {
        return Err(Error::corrupt(format!("the recipe of object `{}` is too deep", id.short())));
    }
    Ok(())
}

/// Erased objects that stand in some segments.
fn present(segments: &[Arc<Sealed>], named: &Named<'_>) -> Result<BTreeSet<ObjectId>> {
    let mut present = BTreeSet::new();
    for sealed in segments {
        // A look-up costs a page at most, the whole table costs all pages.
        if named.ids.len() < sealed.directory.objects as usize / 64 {
            for id in named.ids {
                if sealed.find(id)?.is_some() {
                    present.insert(*id);
                }
            }
        } else {
            let ids = all_ids(sealed.file.as_ref(), &sealed.key, &sealed.directory)?;
            present.extend(ids.into_iter().map(|entry| entry.id).filter(|id| named.ids.contains(id)));
        }
    }
    Ok(present)
}

/// The objects of an event that may have a recipe.
fn bodies_of(event: &Event) -> &[ObjectId] {
    match event.fact.kind {
        Kind::TRANSCRIPT => &event.fact.objects[1..],
        kind if kind.is_known() => &[],
        _ => &event.fact.objects,
    }
}

/// Goes through all events: live bodies, and erased records; what a live event lists is no candidate any more.
fn listed<'s>(
    segments: impl Iterator<Item = &'s Arc<Sealed>>,
    named: &Named<'_>,
    candidates: &mut BTreeSet<ObjectId>,
) -> Result<(BTreeSet<ObjectId>, BTreeSet<ObjectId>)> {
    let (mut bodies, mut records) = (BTreeSet::new(), BTreeSet::new());
    for sealed in segments {
        let handle = Handle::Sealed(Arc::clone(sealed));
        for place in &sealed.directory.events_frames {
            for (event, _) in read_events(&handle, place.offset)? {
                bodies.extend(bodies_of(&event).iter().filter(|id| !named.ids.contains(*id)));
                let record = event.fact.objects[0];
                if named.ids.contains(&record) && bodies_of(&event).first() != Some(&record) {
                    records.insert(record);
                }
                for id in event.fact.objects.iter().filter(|id| !named.ids.contains(*id)) {
                    candidates.remove(id);
                }
            }
        }
    }
    Ok((bodies, records))
}

/// The recipes of a frame, by slot.
type InFrame = Rc<HashMap<u32, Recipe>>;

/// Recipes by object; each frame is taken apart once.
struct Recipes<'a> {
    store: &'a Store,
    locate: Locate<'a>,
    frames: HashMap<([u8; 16], u32), InFrame>,
}

impl Recipes<'_> {
    /// The recipe of an object; nothing where it is plain, or not to be found.
    fn get(&mut self, id: &ObjectId) -> Result<Option<Recipe>> {
        let Some(location) = (self.locate)(id)? else { return Ok(None) };
        let key = (*location.handle.nonce(), location.frame);
        let known = match self.frames.get(&key) {
            Some(known) => Rc::clone(known),
            None => {
                let objects = self.store.objects(&location.handle, location.frame)?;
                let mut recipes = HashMap::new();
                for slot in 0..objects.len() {
                    if objects.laid(slot)?.is_recipe()
                        && let Stored::Recipe(recipe) = objects.get(slot)?
                    {
                        recipes.insert(crate::codec::length_u32(slot), recipe);
                    }
                }
                let recipes = Rc::new(recipes);
                self.frames.insert(key, Rc::clone(&recipes));
                recipes
            }
        };
        Ok(known.get(&location.slot).filter(|recipe| recipe.id == *id).cloned())
    }
}

struct Walk<'a> {
    recipes: Recipes<'a>,
    named: &'a Named<'a>,
    seen: BTreeSet<ObjectId>,
    /// Plain parts of live objects.
    leaves: BTreeSet<ObjectId>,
    flat: BTreeMap<ObjectId, Recipe>,
}

impl Walk<'_> {
    fn body(&mut self, id: &ObjectId) -> Result<()> {
        let mut waiting = vec![(*id, 0)];
        while let Some((id, depth)) = waiting.pop() {
            too_deep(depth, &id)?;
            if !self.seen.insert(id) {
                continue;
            }
            let Some(recipe) = self.recipes.get(&id)? else {
                self.leaves.insert(id);
                continue;
            };
            let mut parts = Vec::with_capacity(recipe.parts.len());
            let mut is_changed = false;
            for part in &recipe.parts {
                is_changed |= self.flatten(part, 0, &mut parts)?;
            }
            waiting.extend(parts.iter().map(|part| (part.id, depth + 1)));
            if is_changed {
                if parts.len() > RECIPE_PARTS_MAX {
                    return Err(Error::corrupt(format!("object `{}` has too many parts", id.short())));
                }
                self.flat.insert(id, Recipe { id, bytes: recipe.bytes, parts });
            }
        }
        Ok(())
    }

    /// Adds recipes that nothing live needs and that lose a part: they would put nothing together any more.
    fn add_orphans(&self, segments: &[Arc<Sealed>], gone: &mut BTreeSet<ObjectId>) -> Result<()> {
        let mut rest = Vec::new();
        for sealed in segments {
            let handle = Handle::Sealed(Arc::clone(sealed));
            for offset in &sealed.directory.objects_frames {
                let objects = self.recipes.store.objects(&handle, *offset)?;
                for slot in 0..objects.len() {
                    if objects.laid(slot)?.is_recipe()
                        && let Stored::Recipe(recipe) = objects.get(slot)?
                    {
                        rest.push(recipe);
                    }
                }
            }
        }
        rest.retain(|recipe| !self.seen.contains(&recipe.id));
        loop {
            let before = gone.len();
            let lose: Vec<ObjectId> = rest
                .iter()
                .filter(|recipe| recipe.parts.iter().any(|part| gone.contains(&part.id)))
                .map(|recipe| recipe.id)
                .collect();
            gone.extend(lose);
            if gone.len() == before {
                return Ok(());
            }
        }
    }

    /// Adds a part, or, where it is erased and has a recipe, what that comes down to.
    fn flatten(&mut self, part: &Part, depth: usize, parts: &mut Vec<Part>) -> Result<bool> {
        too_deep(depth, &part.id)?;
        if self.named.ids.contains(&part.id)
            && let Some(recipe) = self.recipes.get(&part.id)?
        {
            for part in &recipe.parts {
                self.flatten(part, depth + 1, parts)?;
            }
            return Ok(true);
        }
        parts.push(*part);
        Ok(false)
    }
}
