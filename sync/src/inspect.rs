//! Reading all that a remote holds, and checking it, without taking anything in.
//!
//! Heads by their signatures, manifests and segments by the hashes that are their names, footers by their checksums, and
//! whether events go beyond what their writers signed. Nothing is remembered of it, and memory is bounded by what is
//! known of a remote anyway.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_trace_store::progress::Progress;
use agent_trace_store::segments::Sealed;
use agent_trace_store::{Error, ErrorKind, Result, SegmentId, Store, WriterId};

use crate::ahead::in_order;
use crate::manifest::segment_key;
use crate::remote::{Remote, replay};
use crate::state::State;
use crate::tables::{ABSENT, remote_segment};

/// What was found on a remote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Heads.
    pub heads: u64,
    /// Segments that count.
    pub segments: u64,
    /// Their bytes, all of which were read.
    pub bytes: u64,
    /// Events in them.
    pub events: u64,
    /// Requests made.
    pub requests: u64,
    /// What is not as it should be.
    pub problems: Vec<String>,
}

/// Reads and checks a remote.
pub fn inspect(store: &Store, remote: &Remote, progress: &dyn Progress) -> Result<Inspected> {
    let Some(id) = remote.id() else {
        let place = remote.transport().place();
        return Err(Error::new(ErrorKind::NotFound, format!("there is no remote in `{place}` yet")));
    };
    let _lock = remote.lock(store)?;
    // As somebody who has never seen it.
    let mut state = State::default();
    let replayed = replay(store, remote, &mut state)?;
    let mut inspected = Inspected {
        heads: state.heads.len() as u64,
        events: state.has.len(),
        problems: replayed.refused,
        ..Inspected::default()
    };
    let live: Vec<(SegmentId, u64)> =
        state.live_segments().map(|(segment, bytes)| (*segment, *bytes)).collect();
    progress.start("checking", Some(live.iter().map(|(_, bytes)| bytes).sum()));
    let transport = remote.transport();
    let check = |(segment, bytes): &(SegmentId, u64)| -> Result<Arc<Sealed>> {
        let mut hasher = blake3::Hasher::new();
        let is_there = transport.fetch(&segment_key(segment), *bytes, &mut |part| {
            hasher.update(part);
            progress.advance(part.len() as u64);
            Ok(())
        })?;
        if !is_there {
            return Err(Error::corrupt(ABSENT));
        }
        if hasher.finalize().as_bytes() != segment.as_bytes() {
            return Err(Error::corrupt("its bytes do not have its hash"));
        }
        remote_segment(store, transport, &id, segment, *bytes)
    };
    let mut lasts: BTreeMap<WriterId, u64> = BTreeMap::new();
    in_order(&live, transport.fetches_at_once(), &check, &mut |(segment, bytes), checked| {
        match checked {
            Ok(sealed) => {
                inspected.segments += 1;
                inspected.bytes += bytes;
                for run in &sealed.directory.runs {
                    let last = lasts.entry(run.writer).or_default();
                    *last = run.seq_last().max(*last);
                }
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                inspected.problems.push(format!("`{}`: {error}", segment_key(segment)));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    progress.finish();
    for (writer, last) in lasts {
        let signed = state.tips.get(&writer).map_or(0, |tip| tip.seq.get());
        if last > signed {
            let short = writer.short();
            inspected.problems.push(format!(
                "the log of writer `{short}` goes to {last} there, and is signed up to {signed} only"
            ));
        }
    }
    inspected.requests = transport.requests();
    Ok(inspected)
}
