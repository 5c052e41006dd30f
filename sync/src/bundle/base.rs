//! What a bundle builds on: the events that the reader has, from an earlier bundle, its readable manifest or its cursor, and
//! the objects that come with them.

use std::collections::{BTreeSet, HashSet};

use agent_trace_store::limits::RECIPE_DEPTH_MAX;
use agent_trace_store::object::Stored;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, ErrorKind, ObjectId, Result, Store};

use crate::bundle::info::{BundleBase, BundleInfo, INFO_KEY, decode_cursor, encode_cursor};
use crate::collect::{Source, chosen_events};
use crate::light::{take, walk};
use crate::limits::BUNDLE_INFO_BYTES_MAX;
use crate::transport::Transport;

/// What a bundle builds on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The bundle, where it is known.
    pub id: Option<String>,
    /// The events that the reader has.
    pub events: EventSet,
}

impl Base {
    /// The events of a cursor.
    pub fn of_cursor(text: &str) -> Result<Base> {
        Ok(Base { id: None, events: decode_cursor(text.trim())? })
    }

    /// What is there once a bundle has been taken.
    pub fn of_bundle(transport: &dyn Transport) -> Result<Base> {
        let place = transport.place();
        let bytes = transport.read(INFO_KEY, BUNDLE_INFO_BYTES_MAX)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("`{place}` has no `{INFO_KEY}`, so it is no base of a bundle"),
            )
        })?;
        let info = BundleInfo::decode(&bytes)?;
        Ok(Base { events: decode_cursor(&info.cursor)?, id: Some(info.id) })
    }

    /// What the manifest of the new bundle says of it.
    pub fn said(&self) -> BundleBase {
        BundleBase { id: self.id.clone(), events: self.events.len(), cursor: encode_cursor(&self.events) }
    }
}

/// The bytes of transcripts that come with the base's events of some conversations: they need not go again.
pub(crate) fn bodies_of_base(
    store: &Store,
    sources: &[Source],
    base: &EventSet,
    conversations: &HashSet<String>,
) -> Result<HashSet<ObjectId>> {
    let (mut known, mut rest) = (HashSet::new(), base.clone());
    let away = store.elsewhere()?;
    for source in sources {
        let mut numbers = Vec::new();
        walk(source, &take(source, &mut rest)?, |number, laid| {
            if laid.objects().count() > 1 && conversations.contains(laid.key) {
                numbers.push(number);
            }
            Ok(())
        })?;
        for (event, _, _) in chosen_events(source, &numbers)? {
            for body in event.fact.objects[1..].iter().filter(|body| !away.contains(body)) {
                add_parts(store, body, &mut known)?;
            }
        }
    }
    Ok(known)
}

/// Adds an object and all that it is put together of.
fn add_parts(store: &Store, id: &ObjectId, known: &mut HashSet<ObjectId>) -> Result<()> {
    let mut waiting: Vec<(ObjectId, usize)> = vec![(*id, 0)];
    while let Some((id, depth)) = waiting.pop() {
        if !known.insert(id) {
            continue;
        }
        // What has gone here since is none that the new bundle could need.
        let Some(location) = store.locate(&id)? else { continue };
        let objects = store.objects(&location.handle, location.frame)?;
        if let Stored::Recipe(recipe) = objects.get(location.slot as usize)? {
            if depth >= RECIPE_DEPTH_MAX {
                return Err(Error::corrupt(format!("the recipe of object `{}` is too deep", id.short())));
            }
            waiting.extend(recipe.parts.iter().map(|part| (part.id, depth + 1)));
        }
    }
    Ok(())
}

/// The names of the logs of a set, for people and programs.
pub(crate) fn writers_of(events: &EventSet) -> Vec<String> {
    let writers: BTreeSet<String> = events.logs().map(|(writer, _)| writer.to_string()).collect();
    writers.into_iter().collect()
}
