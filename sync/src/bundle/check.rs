//! Checking all of a bundle before anything of it counts: each segment as a pull would, and that what the bundle says of itself
//! is true.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_trace_store::log::hash_file;
use agent_trace_store::progress::Progress;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Result, Store};

use crate::accept::{fork, runs_of, set_of};
use crate::bundle::info::{decode_cursor, named_counts};
use crate::bundle::opened::{Bundle, in_bundle};
use crate::collect::Bodies;
use crate::receive::{Checked, For, Neighbours, Verdict, check_with};
use crate::remote::events_of;

/// What has been found in a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Events by kind.
    pub counts: BTreeMap<Kind, u64>,
    /// The events.
    pub events: EventSet,
    /// Objects.
    pub objects: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// Bytes of the segments.
    pub segment_bytes: u64,
    /// Logs that have forked.
    pub forks: Vec<String>,
    /// Objects that it needs and that are neither in it nor in the store: those of what it builds on.
    pub missing: Vec<ObjectId>,
}

/// Checks a bundle where it lies; what it may build on is looked for in a store. Nothing is written.
pub fn verify(store: &Store, bundle: &Bundle, progress: &dyn Progress) -> Result<Found> {
    bundle.check_size()?;
    let sealed = bundle.segments.iter().map(|(id, bytes)| bundle.sealed(id, *bytes).map(Arc::new));
    let sealed: Vec<Arc<Sealed>> = sealed.collect::<Result<_>>()?;
    check_all(store, bundle, &sealed, progress, &mut |_, _| Ok(()))
}

/// Compares the hashes of all segments, and nothing else.
pub(crate) fn check_hashes(bundle: &Bundle, sealed: &[Arc<Sealed>], progress: &dyn Progress) -> Result<()> {
    for sealed in sealed {
        if hash_file(sealed.file.as_ref(), sealed.bytes)? != sealed.id {
            let (short, place) = (sealed.id.short(), bundle.transport().place());
            return Err(Error::corrupt(format!("segment `{short}` of `{place}` does not have its hash")));
        }
        progress.advance(sealed.bytes);
    }
    Ok(())
}

/// Checks all segments, which are open here, and hands over each with its place in the list.
pub(crate) fn check_all(
    store: &Store,
    bundle: &Bundle,
    sealed: &[Arc<Sealed>],
    progress: &dyn Progress,
    each: &mut dyn FnMut(usize, Checked) -> Result<()>,
) -> Result<Found> {
    let mut found = Found::default();
    let mut neighbours = Neighbours::of(store.index())?;
    for (place, one) in sealed.iter().enumerate() {
        let short = one.id.short();
        let doing = |error: Error| in_bundle(error, &format!("segment `{short}`"));
        let verdict = check_with(
            store,
            one,
            sealed,
            &store.erased(),
            &bundle.tips,
            &neighbours,
            Bodies::Along,
            For::Index,
        );
        let checked = match verdict.map_err(doing)? {
            Verdict::Good(checked) => *checked,
            Verdict::Incomplete(missing) => {
                found.missing.extend(missing);
                found.events = found.events.union(&events_of(one));
                continue;
            }
        };
        if !checked.footer_holds {
            return Err(Error::corrupt(format!(
                "segment `{short}` of the bundle does not say what is in it"
            )));
        }
        if !checked.unsigned.is_empty() {
            let count = checked.unsigned.len();
            return Err(Error::corrupt(format!(
                "segment `{short}` of the bundle has {count} event(s) that their writer has not signed"
            )));
        }
        for (event, _, _) in &checked.events {
            *found.counts.entry(event.fact.kind).or_default() += 1;
        }
        let runs = runs_of(&checked.events);
        runs.iter().for_each(|run| neighbours.add(run));
        found.events = found.events.union(&set_of(&runs));
        found.forks.extend(checked.forks.iter().map(|(writer, seq)| fork(writer, *seq)));
        found.objects += u64::from(one.directory.objects);
        found.raw_bytes += one.directory.raw_bytes;
        found.segment_bytes += one.bytes;
        progress.advance(one.bytes);
        each(place, checked)?;
    }
    found.missing.sort_unstable();
    found.missing.dedup();
    if found.missing.is_empty() {
        check_info(bundle, &found)?;
    }
    Ok(found)
}

/// Compares what a bundle says of itself with what is in it.
fn check_info(bundle: &Bundle, found: &Found) -> Result<()> {
    let Some(info) = &bundle.info else { return Ok(()) };
    let said = [info.objects, info.raw_bytes, info.segment_bytes, info.segments];
    let is = [found.objects, found.raw_bytes, found.segment_bytes, bundle.segments.len() as u64];
    let all = info.base_events()?.union(&found.events);
    if said != is || info.counts != named_counts(&found.counts) || decode_cursor(&info.cursor)? != all {
        return Err(Error::corrupt("the bundle does not hold what its manifest says"));
    }
    Ok(())
}

/// Fails where what a bundle builds on is not in a store.
pub(crate) fn check_base(bundle: &Bundle, held: &EventSet) -> Result<()> {
    let Some((info, base)) = bundle.info.as_ref().and_then(|info| Some((info, info.base.as_ref()?))) else {
        return Ok(());
    };
    let missing = info.base_events()?.minus(held).len();
    if missing == 0 {
        return Ok(());
    }
    let on = base.id.as_ref().map_or_else(|| "another".to_owned(), |id| format!("bundle `{id}`"));
    Err(Error::new(
        ErrorKind::NotFound,
        format!(
            "the bundle builds on {on}, of which {missing} of {} event(s) are not in this store",
            base.events
        ),
    ))
}
