//! A remote: where it lies, which one it is, and what stands there.
//!
//! Opening reads the `format` file; replaying reads the heads that changed, their new manifests and the footers of
//! new segments, never the segments themselves.

use std::collections::{BTreeSet, HashSet};

use agent_trace_store::env::{Env, Lock, LockMode};
use agent_trace_store::id::{decode_hex, encode_hex};
use agent_trace_store::lock::lock;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, Result, SegmentId, Store, WriterId};

use crate::address::RemoteUrl;
use crate::head::{Head, RemoteId, head_hash};
use crate::limits::{
    EXCHANGE_WAIT_MICROS_MAX, FORMAT_BYTES_MAX, HEAD_BYTES_MAX, HEADS_MAX, MANIFEST_BYTES_MAX,
    MANIFEST_DEPTH_MAX,
};
use crate::manifest::{Manifest, ManifestId, NO_MANIFEST, segment_key};
use crate::state::{SeenHead, State, cache_dir};
use crate::tables;
use crate::transport::{Folder, Transport, Version};

/// The file that says which remote it is.
pub(crate) const FORMAT_KEY: &str = "format";
const FORMAT_FIRST: &str = "agent-trace remote 1";

/// A remote, reachable.
pub struct Remote {
    transport: Box<dyn Transport>,
    name: String,
    id: Option<RemoteId>,
}

impl Remote {
    /// Opens a remote; `create` makes its layout in an empty or absent folder. Without `create` such a folder opens
    /// as a remote that holds nothing.
    pub fn open(env: &Env, address: &RemoteUrl, create: bool) -> Result<Remote> {
        let transport = match address {
            RemoteUrl::Folder(dir) => Box::new(Folder::new(env, dir)),
            RemoteUrl::Service(service) => {
                return Err(Error::invalid(format!("expected a folder, found the service `{service}`")));
            }
        };
        Remote::over(env, transport, &address.name(), create)
    }

    /// The same for whatever carries the bytes; what is learned is remembered under `name`.
    pub fn over(env: &Env, transport: Box<dyn Transport>, name: &str, create: bool) -> Result<Remote> {
        let mut id = read_format(transport.as_ref())?;
        if id.is_none() {
            let ours = ["heads", "keys", "manifests", "segments", FORMAT_KEY];
            if transport.list("")?.iter().any(|listed| !ours.contains(&listed.name.as_str())) {
                let place = transport.place();
                return Err(Error::invalid(format!("`{place}` holds other files and no remote")));
            }
            if create {
                transport.make()?;
                let mut random = [0; 16];
                env.entropy.fill(&mut random);
                transport.write_once(FORMAT_KEY, encode_format(&random).as_bytes())?;
                id = read_format(transport.as_ref())?;
            }
        }
        Ok(Remote { transport, name: name.to_owned(), id })
    }

    /// How the bytes are reached.
    pub fn transport(&self) -> &dyn Transport {
        self.transport.as_ref()
    }

    /// Which remote it is; `None` where nothing has been made there yet.
    pub fn id(&self) -> Option<RemoteId> {
        self.id
    }

    /// Keeps other processes of this store from exchanging with this remote at the same time: the tables, the inbox
    /// and the own head are one each.
    pub fn lock(&self, store: &Store) -> Result<Option<Box<dyn Lock>>> {
        let Some(id) = self.id else { return Ok(None) };
        let path = cache_dir(store, &id)?.join("lock");
        lock(store.env(), &path, LockMode::Exclusive, EXCHANGE_WAIT_MICROS_MAX).map(Some)
    }

    /// What a store remembers of this remote.
    pub fn state(&self, store: &Store) -> Result<State> {
        let Some(id) = self.id else { return Ok(State::default()) };
        State::load(store, &id)
    }

    /// Remembers what has been learned.
    pub fn remember(&self, store: &Store, state: &State) -> Result<()> {
        let Some(id) = self.id else { return Ok(()) };
        State::note_address(store, &self.name, &id)?;
        state.save(store, &id)
    }
}

fn read_format(transport: &dyn Transport) -> Result<Option<RemoteId>> {
    let bytes = transport.read(FORMAT_KEY, FORMAT_BYTES_MAX)?;
    bytes.map(|bytes| decode_format(&bytes, &transport.place())).transpose()
}

/// The text of the `format` file of a remote.
pub fn encode_format(id: &RemoteId) -> String {
    format!("{FORMAT_FIRST}\n{}\n", encode_hex(id))
}

/// Reads the `format` file of the remote at `place`; further lines are for later versions.
pub fn decode_format(bytes: &[u8], place: &str) -> Result<RemoteId> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    if first != FORMAT_FIRST {
        return Err(if first.starts_with("agent-trace remote ") {
            Error::new(ErrorKind::Unsupported, format!("the remote `{place}` is newer than this program"))
        } else {
            Error::invalid(format!("`{place}` is not a remote: its `format` file says something else"))
        });
    }
    let mut id = [0; 16];
    if !lines.next().is_some_and(|line| decode_hex(line, &mut id)) {
        return Err(Error::corrupt(format!("the `format` file of `{place}` has no id")));
    }
    Ok(id)
}

/// What replaying has found out beside the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Segments that are new here.
    pub new: Vec<SegmentId>,
    /// Heads that went back or vanished: the remote, or a writer's store, was restored from a copy.
    pub gone_back: Vec<String>,
    /// Heads and segments that cannot be read, with reasons.
    pub refused: Vec<String>,
    /// The tips in heads that have changed: a log that has forked shows by them.
    pub tips: Vec<Tip>,
    /// The own head as it stands there.
    pub own: Option<([u8; 32], u64)>,
    /// Whether that was read, or is only said to be as it was.
    pub own_is_read: bool,
}

/// Replays what is new on a remote into the state; brings no record in.
pub fn replay(store: &Store, remote: &Remote, state: &mut State) -> Result<Replayed> {
    replay_and(store, remote, state, None)
}

/// The same, with a head that is asked for even where the list of them has it not.
pub(crate) fn replay_and(
    store: &Store,
    remote: &Remote,
    state: &mut State,
    asked: Option<WriterId>,
) -> Result<Replayed> {
    let Some(id) = remote.id() else { return Ok(Replayed::default()) };
    let mut replayed = Replayed::default();
    let changed = changed_heads(store, remote, &id, state, asked, &mut replayed)?;
    if !replayed.gone_back.is_empty() {
        // What was known of the remote may not stand there any more: everything is learned anew.
        let (held, held_kinds) = (state.held.clone(), state.held_kinds.clone());
        let evaluated = state.evaluated.clone();
        *state = State { held, held_kinds, evaluated, ..State::default() };
        let mut again = Replayed::default();
        let changed = changed_heads(store, remote, &id, state, asked, &mut again)?;
        again.gone_back = replayed.gone_back;
        read_manifests(store, remote, &id, state, changed, &mut again)?;
        return Ok(again);
    }
    read_manifests(store, remote, &id, state, changed, &mut replayed)?;
    Ok(replayed)
}

/// A head that is not the one that was seen.
struct Changed {
    head: Head,
    hash: [u8; 32],
    version: Option<Version>,
}

/// Reads the heads that may have changed, and returns those that are not the ones that were seen.
fn changed_heads(
    store: &Store,
    remote: &Remote,
    id: &RemoteId,
    state: &mut State,
    asked: Option<WriterId>,
    replayed: &mut Replayed,
) -> Result<Vec<Changed>> {
    let transport = remote.transport();
    let mut heads = Vec::new();
    for listed in transport.list("heads")? {
        heads.extend(WriterId::parse(&listed.name).ok().map(|writer| (writer, listed.version)));
    }
    if heads.len() > HEADS_MAX {
        return Err(Error::invalid(format!("the remote has more than {HEADS_MAX} heads")));
    }
    // A list may be older than what can be read: what it leaves out is asked for by name.
    let listed: HashSet<WriterId> = heads.iter().map(|(writer, _)| *writer).collect();
    let known: BTreeSet<WriterId> = state.heads.keys().copied().chain(asked).collect();
    heads.extend(known.into_iter().filter(|writer| !listed.contains(writer)).map(|writer| (writer, None)));
    let mut changed = Vec::new();
    for (writer, version) in heads {
        let is_own = writer == store.writer();
        let seen = state.heads.get(&writer).copied();
        if let Some(seen) = seen.filter(|seen| version.is_some() && seen.version == version) {
            if is_own {
                replayed.own = Some((seen.hash, seen.generation));
            }
            continue;
        }
        replayed.own_is_read |= is_own;
        let Some((bytes, version)) = transport.read_version(&Head::key(&writer), HEAD_BYTES_MAX)? else {
            if seen.is_some() {
                replayed.gone_back.push(format!("the head of writer `{}` is gone", writer.short()));
            }
            continue;
        };
        let hash = head_hash(&bytes);
        if is_own {
            replayed.own = Some((hash, seen.map_or(0, |seen| seen.generation)));
        }
        if let Some(seen) = state.heads.get_mut(&writer).filter(|seen| seen.hash == hash) {
            seen.version = version;
            continue;
        }
        let head = match Head::decode(&bytes) {
            Ok(head) if head.writer == writer && head.remote == *id => head,
            Ok(_) => {
                replayed
                    .refused
                    .push(format!("the head of writer `{}` is of another remote", writer.short()));
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
            Err(error) => {
                replayed.refused.push(format!("the head of writer `{}`: {error}", writer.short()));
                continue;
            }
        };
        if is_own {
            replayed.own = Some((hash, head.generation));
        }
        if let Some(seen) = seen.filter(|seen| head.generation <= seen.generation) {
            let message = format!(
                "the head of writer `{}` went back from generation {} to {}",
                writer.short(),
                seen.generation,
                head.generation
            );
            replayed.gone_back.push(message);
        }
        changed.push(Changed { head, hash, version });
    }
    Ok(changed)
}

fn read_manifests(
    store: &Store,
    remote: &Remote,
    id: &RemoteId,
    state: &mut State,
    changed: Vec<Changed>,
    replayed: &mut Replayed,
) -> Result<()> {
    let mut read = Vec::new();
    for changed in changed {
        let known = state.heads.get(&changed.head.writer).map_or(NO_MANIFEST, |seen| seen.manifest);
        let (manifests, complete) = read_chain(remote, &changed.head, known, replayed)?;
        // Any of them may say that segments of another are replaced, which may be gone already.
        state.replaced.extend(manifests.iter().flat_map(|manifest| &manifest.replaces).copied());
        read.push((changed, manifests, complete));
    }
    for (Changed { head, hash, version }, manifests, mut complete) in read {
        for (segment, bytes) in manifests.iter().rev().flat_map(|manifest| &manifest.added) {
            if !state.segments.contains_key(segment) && !state.replaced.contains(segment) {
                complete &= learn_segment(store, remote, id, state, segment, *bytes, replayed)?;
            }
        }
        head.tips.iter().for_each(|tip| state.note_tip(tip));
        replayed.tips.extend_from_slice(&head.tips);
        // A head of which a part could not be read is looked at again the next time.
        if complete {
            let (generation, manifest) = (head.generation, head.manifest);
            let seen = SeenHead { generation, hash, manifest, version };
            state.heads.insert(head.writer, seen);
        }
    }
    Ok(())
}

/// The manifests that a head names, newest first, up to the one that is known; and whether all could be read.
fn read_chain(
    remote: &Remote,
    head: &Head,
    known: ManifestId,
    replayed: &mut Replayed,
) -> Result<(Vec<Manifest>, bool)> {
    let mut manifests = Vec::new();
    let mut next = head.manifest;
    while next != NO_MANIFEST && next != known {
        let bytes = remote.transport().read(&Manifest::key(&next), MANIFEST_BYTES_MAX)?;
        let manifest = bytes.ok_or_else(|| Error::corrupt("it is not there"));
        match manifest.and_then(|bytes| Manifest::decode(&next, &bytes)) {
            Ok(manifest) if manifests.len() <= MANIFEST_DEPTH_MAX as usize => {
                next = manifest.previous;
                manifests.push(manifest);
            }
            Ok(_) => return Err(Error::corrupt("a chain of manifests is too long")),
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
            Err(error) => {
                let writer = head.writer.short();
                replayed.refused.push(format!("a manifest of writer `{writer}`: {error}"));
                return Ok((manifests, false));
            }
        }
    }
    Ok((manifests, true))
}

/// Reads the footer of a segment, and notes which events it holds.
fn learn_segment(
    store: &Store,
    remote: &Remote,
    id: &RemoteId,
    state: &mut State,
    segment: &SegmentId,
    bytes: u64,
    replayed: &mut Replayed,
) -> Result<bool> {
    match tables::remote_segment(store, remote.transport(), id, segment, bytes) {
        Ok(sealed) => {
            state.segments.insert(*segment, bytes);
            state.has = state.has.union(&events_of(&sealed));
            replayed.new.push(*segment);
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let key = segment_key(segment);
            replayed.refused.push(format!("`{key}`: {error}"));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The events that a segment says it holds.
pub fn events_of(sealed: &Sealed) -> EventSet {
    let runs = sealed.directory.runs.iter();
    EventSet::from_ranges(runs.map(|run| (run.writer, run.seq_first.get(), run.seq_last())))
}
