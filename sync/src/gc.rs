//! Clearing up a remote: many small segments become few large ones, and what nothing refers to goes after a grace.
//!
//! Whoever clears up writes only what is its own, like a push: new segments, a manifest that says what they replace, its
//! head. So it may run beside pushes and pulls, and beside another that clears up. What is removed has been dead for the
//! whole grace by the clock of the remote: a push that knew it alive has long replaced its head, or looks again first.
//! Where anything on the remote cannot be read nothing is removed, since it might refer to anything.

use std::collections::{BTreeMap, BTreeSet};

use agent_trace_store::id::encode_hex;
use agent_trace_store::limits::SEGMENT_BYTES_TARGET;
use agent_trace_store::progress::Progress;
use agent_trace_store::{Error, ErrorKind, Result, SegmentId, Store, Timestamp};

use crate::head::{Head, RemoteId};
use crate::limits::{GC_SMALL_BYTES_MAX, GRACE_MICROS, HEAD_BYTES_MAX, MANIFEST_SEGMENTS_MAX, MERGED_MIN};
use crate::manifest::{Manifest, ManifestId, NO_MANIFEST};
use crate::publish::{claim_writer, publish};
use crate::push::sweep;
use crate::remote::{Remote, Replayed, events_of, read_chain, replay_and};
use crate::replace::merge;
use crate::state::State;
use crate::tables::remote_segment;
use crate::transport::Standing;

/// What clearing up has done, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Segments that counted before.
    pub segments: u64,
    /// Segments that were merged, and their bytes.
    pub merged: u64,
    /// Bytes of those.
    pub merged_bytes: u64,
    /// Segments that were made of them; unknown without doing it.
    pub made: u64,
    /// Bytes of those.
    pub made_bytes: u64,
    /// Small segments that were left, since this store has not taken in what they hold.
    pub not_held: u64,
    /// Files that were removed.
    pub removed: u64,
    /// Bytes of those.
    pub removed_bytes: u64,
    /// Files that nothing refers to, and that wait until their grace is over.
    pub waiting: u64,
    /// Bytes of those.
    pub waiting_bytes: u64,
    /// Requests made.
    pub requests: u64,
    /// Whether the store had to take a new writer.
    pub new_writer: bool,
    /// What on the remote cannot be read; nothing is removed then.
    pub refused: Vec<String>,
}

/// Clears up a remote.
pub fn gc(store: &Store, remote: &Remote, dry_run: bool, progress: &dyn Progress) -> Result<GcReport> {
    let Some(id) = remote.id() else {
        let place = remote.transport().place();
        return Err(Error::new(ErrorKind::NotFound, format!("there is no remote in `{place}` yet")));
    };
    let _busy = store.busy()?;
    let _lock = remote.lock(store)?;
    if !dry_run {
        sweep(store, remote, &id)?;
    }
    store.settle()?;
    let mut state = remote.state(store)?;
    if let Some(seen) = state.heads.get_mut(&store.writer()) {
        // The own head is to be replaced, so it is read, whatever a list says of it.
        seen.version = None;
    }
    let mut replayed = replay_and(store, remote, &mut state, Some(store.writer()))?;
    let mut report = GcReport { segments: state.live_segments().count() as u64, ..GcReport::default() };
    report.refused.append(&mut replayed.refused);
    report.refused.append(&mut replayed.gone_back);
    let groups = plan(store, remote, &id, &state, &mut report)?;
    if !dry_run {
        report.new_writer = claim_writer(store, &id, replayed.own.map(|(hash, _)| hash))?;
        merge_all(store, remote, &id, &mut state, &replayed, &groups, progress, &mut report)?;
        remote.remember(store, &state)?;
    }
    remove_dead(remote, &id, &state, dry_run, &mut report)?;
    report.requests = remote.transport().requests();
    Ok(report)
}

/// Which segments are merged: small ones, in the order in which they were made, up to the usual size.
fn plan(
    store: &Store,
    remote: &Remote,
    id: &RemoteId,
    state: &State,
    report: &mut GcReport,
) -> Result<Vec<Vec<(SegmentId, u64)>>> {
    store.catch_up()?;
    let held = store.held(&store.snapshot()?)?;
    let mut small = Vec::new();
    for (segment, bytes) in state.live_segments().filter(|(_, bytes)| **bytes < GC_SMALL_BYTES_MAX) {
        let sealed = remote_segment(store, remote.transport(), id, segment, *bytes)?;
        if events_of(&sealed).minus(&held).is_empty() {
            small.push((sealed.header.created, *segment, *bytes));
        } else {
            report.not_held += 1;
        }
    }
    small.sort_unstable();
    // One manifest may have to name all that was ever replaced.
    small.truncate(MANIFEST_SEGMENTS_MAX.saturating_sub(state.replaced.len()));
    let (mut groups, mut group, mut sum) = (Vec::new(), Vec::new(), 0);
    for (_, segment, bytes) in small {
        group.push((segment, bytes));
        sum += bytes;
        if sum >= SEGMENT_BYTES_TARGET {
            groups.push(std::mem::take(&mut group));
            sum = 0;
        }
    }
    groups.push(group);
    // A few small ones are not worth it: the next push would leave a few again.
    groups.retain(|group| group.len() >= MERGED_MIN);
    let merged = groups.iter().flatten();
    (report.merged, report.merged_bytes) =
        merged.fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + bytes));
    Ok(groups)
}

#[expect(clippy::too_many_arguments, reason = "one step of one work, split for its length")]
fn merge_all(
    store: &Store,
    remote: &Remote,
    id: &RemoteId,
    state: &mut State,
    replayed: &Replayed,
    groups: &[Vec<(SegmentId, u64)>],
    progress: &dyn Progress,
    report: &mut GcReport,
) -> Result<()> {
    if groups.is_empty() {
        return Ok(());
    }
    progress.start("merging", Some(report.merged_bytes));
    let (mut added, mut replaces) = (Vec::new(), Vec::new());
    for group in groups {
        added.push(merge(store, remote, id, group)?);
        replaces.extend(group.iter().map(|(segment, _)| *segment));
        progress.advance(group.iter().map(|(_, bytes)| bytes).sum());
    }
    progress.finish();
    report.made = added.len() as u64;
    report.made_bytes = added.iter().map(|(_, bytes)| bytes).sum();
    let there = replayed.own.map(|(hash, _)| hash).filter(|_| !report.new_writer);
    publish(store, remote, state, id, added.clone(), replaces.clone(), there)?;
    state.segments.extend(added);
    state.replaced.extend(replaces);
    Ok(())
}

/// What all heads of a remote refer to.
#[derive(Default)]
struct References {
    manifests: BTreeSet<ManifestId>,
    added: BTreeSet<SegmentId>,
    /// By which manifests a segment is replaced.
    replaced: BTreeMap<SegmentId, Vec<ManifestId>>,
}

/// Reads all heads and all that they refer to; `None` where something of it cannot be read.
fn references(
    remote: &Remote,
    id: &RemoteId,
    state: &State,
    report: &mut GcReport,
) -> Result<Option<References>> {
    let transport = remote.transport();
    let mut keys: BTreeSet<String> = state.heads.keys().map(Head::key).collect();
    keys.extend(transport.list("heads")?.into_iter().map(|listed| format!("heads/{}", listed.name)));
    let mut references = References::default();
    let mut replayed = Replayed::default();
    for key in keys.into_iter().filter(|key| !key.starts_with("heads/.")) {
        let bytes = transport.read(&key, HEAD_BYTES_MAX)?;
        let head = bytes.ok_or_else(|| Error::corrupt("it is gone")).and_then(|bytes| Head::decode(&bytes));
        let head = match head {
            Ok(head) if head.remote == *id => head,
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
            Err(error) => {
                report.refused.push(format!("`{key}`: {error}"));
                return Ok(None);
            }
        };
        let (manifests, complete) = read_chain(remote, &head, NO_MANIFEST, &mut replayed)?;
        if !complete {
            report.refused.append(&mut replayed.refused);
            return Ok(None);
        }
        for manifest in manifests {
            let name = Manifest::id(&manifest.encode());
            references.manifests.insert(name);
            references.added.extend(manifest.added.iter().map(|(segment, _)| *segment));
            for segment in manifest.replaces {
                references.replaced.entry(segment).or_default().push(name);
            }
        }
    }
    Ok(Some(references))
}

/// Removes what has been dead for the whole grace.
fn remove_dead(
    remote: &Remote,
    id: &RemoteId,
    state: &State,
    dry_run: bool,
    report: &mut GcReport,
) -> Result<()> {
    if !report.refused.is_empty() {
        return Ok(());
    }
    let transport = remote.transport();
    // What stands there is listed before the references are read: what comes later is referred to later.
    let manifests = transport.survey("manifests")?;
    let segments = transport.survey("segments")?;
    let Some(references) = references(remote, id, state, report)? else { return Ok(()) };
    // Where nobody says what time it is nothing is old.
    let now = clock(remote)?.unwrap_or(Timestamp::from_micros(i64::MIN));
    let written: BTreeMap<String, Timestamp> =
        manifests.iter().map(|standing| (standing.name.clone(), standing.modified)).collect();
    let mut dead = Vec::new();
    for standing in segments {
        let name = SegmentId::parse(&standing.name).ok();
        let replaced = name.and_then(|name| references.replaced.get(&name));
        let since = match (name, replaced) {
            (Some(name), None) if references.added.contains(&name) => continue,
            // The newest statement counts, and a manifest whose time is not known has just been written.
            (_, Some(by)) => by.iter().map(|by| written.get(&encode_hex(by)).copied().unwrap_or(now)).max(),
            _ => None,
        };
        let since = since.unwrap_or(standing.modified).max(standing.modified);
        dead.push(("segments", since, standing));
    }
    let is_dead = |standing: &Standing| {
        let reached = references.manifests.iter().any(|reached| encode_hex(reached) == standing.name);
        !reached
    };
    let manifests = manifests.into_iter().filter(is_dead);
    dead.extend(manifests.map(|standing| ("manifests", standing.modified, standing)));
    for (place, since, standing) in dead {
        if now.micros().saturating_sub(since.micros()) <= GRACE_MICROS {
            report.waiting += 1;
            report.waiting_bytes += standing.bytes;
            continue;
        }
        if !dry_run {
            transport.remove(&format!("{place}/{}", standing.name))?;
        }
        report.removed += 1;
        report.removed_bytes += standing.bytes;
    }
    Ok(())
}

/// What time it is by the clock that says how old files there are: that of a file that is written now. `None` where lists
/// are too late to show it.
fn clock(remote: &Remote) -> Result<Option<Timestamp>> {
    let transport = remote.transport();
    let name = format!(".clock-{}", encode_hex(&remote.draw()));
    let key = format!("heads/{name}");
    transport.write(&key, b"now\n")?;
    let standing = transport.survey("heads")?.into_iter().find(|standing| standing.name == name);
    transport.remove(&key)?;
    Ok(standing.map(|standing| standing.modified))
}
