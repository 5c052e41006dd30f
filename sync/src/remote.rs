//! A remote: where it lies, which one it is, and what stands there.
//!
//! Opening reads the `format` file; replaying reads the heads that changed, their new manifests and the footers of
//! new segments, never the segments themselves.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use agent_trace_store::env::{Env, Lock, LockMode};
use agent_trace_store::id::{decode_hex, encode_hex};
use agent_trace_store::lock::lock;
use agent_trace_store::segments::Sealed;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, Result, SegmentId, Store, WriterId};

use crate::address::RemoteUrl;
use crate::ahead::in_order;
use crate::bucket::Bucket;
use crate::head::{Head, RemoteId, head_hash};
use crate::limits::{
    EXCHANGE_WAIT_MICROS_MAX, FORMAT_BYTES_MAX, HEAD_BYTES_MAX, HEADS_MAX, MANIFEST_BYTES_MAX,
    MANIFEST_DEPTH_MAX,
};
use crate::manifest::{Manifest, ManifestId, NO_MANIFEST, segment_key};
use crate::seal::{Access, Change, Encrypted, Ring, keys};
use crate::state::{SeenHead, State, cache_dir};
use crate::tables;
use crate::transport::{Folder, Transport, Version};

/// The file that says which remote it is.
pub(crate) const FORMAT_KEY: &str = "format";
const FORMAT_FIRST: &str = "agent-trace remote 1";
/// Of a remote whose third line must be understood: programs that know of no encryption refuse it.
const FORMAT_FIRST_ENCRYPTED: &str = "agent-trace remote 2";
const FORMAT_ENCRYPTED: &str = "encrypted 1";

/// A remote, reachable.
pub struct Remote {
    env: Env,
    transport: Box<dyn Transport>,
    name: String,
    id: Option<RemoteId>,
    ring: Option<Arc<Ring>>,
}

impl Remote {
    /// Opens a remote; `create` makes its layout in an empty or absent folder. Without `create` such a folder opens
    /// as a remote that holds nothing.
    pub fn open(env: &Env, address: &RemoteUrl, create: bool) -> Result<Remote> {
        Remote::open_with(env, address, create, None)
    }

    /// The same for one that may be encrypted: with `access` it must be, without it must not.
    pub fn open_with(
        env: &Env,
        address: &RemoteUrl,
        create: bool,
        access: Option<&Access>,
    ) -> Result<Remote> {
        let transport: Box<dyn Transport> = match address {
            RemoteUrl::Folder(dir) => Box::new(Folder::new(env, dir)),
            RemoteUrl::Bucket(bucket) => Box::new(Bucket::open(env, bucket)?),
            RemoteUrl::Service(service) => {
                return Err(Error::invalid(format!("expected a folder, found the service `{service}`")));
            }
        };
        Remote::over_with(env, transport, &address.name(), create, access)
    }

    /// The same for whatever carries the bytes; what is learned is remembered under `name`.
    pub fn over(env: &Env, transport: Box<dyn Transport>, name: &str, create: bool) -> Result<Remote> {
        Remote::over_with(env, transport, name, create, None)
    }

    /// The same for whatever carries the bytes of one that may be encrypted.
    pub fn over_with(
        env: &Env,
        transport: Box<dyn Transport>,
        name: &str,
        create: bool,
        access: Option<&Access>,
    ) -> Result<Remote> {
        let mut format = read_format(transport.as_ref())?;
        if format.is_none() {
            let ours = ["heads", "keys", "manifests", "probes", "segments", FORMAT_KEY];
            if transport.list("")?.iter().any(|listed| !ours.contains(&listed.name.as_str())) {
                let place = transport.place();
                return Err(Error::invalid(format!("`{place}` holds other files and no remote")));
            }
            if create {
                transport.make()?;
                let mut id = [0; 16];
                env.entropy.fill(&mut id);
                let made = Format { id, is_encrypted: access.is_some() };
                transport.write_once(FORMAT_KEY, made.encode().as_bytes())?;
                format = read_format(transport.as_ref())?;
            }
        }
        let name = name.to_owned();
        let Some(format) = format else {
            return Ok(Remote { env: env.clone(), transport, name, id: None, ring: None });
        };
        match (access, format.is_encrypted) {
            (None, false) => {
                Ok(Remote { env: env.clone(), transport, name, id: Some(format.id), ring: None })
            }
            (Some(access), true) => Remote::unlock(env, transport, name, &format.id, create, access),
            (None, true) => Err(locked(transport.as_ref(), "is encrypted, and no secret is given")),
            // Whoever can write to a remote could have made this of one that is encrypted.
            (Some(_), false) => Err(locked(transport.as_ref(), "is not encrypted, and is expected to be")),
        }
    }

    fn unlock(
        env: &Env,
        transport: Box<dyn Transport>,
        name: String,
        id: &RemoteId,
        create: bool,
        access: &Access,
    ) -> Result<Remote> {
        let ring = match keys::load(env, transport.as_ref(), id, access)? {
            Some(ring) => ring,
            None if !transport.list("heads")?.is_empty() => {
                return Err(locked(transport.as_ref(), "holds heads, and no keys"));
            }
            None if create => keys::create(env, transport.as_ref(), id, access)?,
            None => return Ok(Remote { env: env.clone(), transport, name, id: None, ring: None }),
        };
        let ring = Arc::new(ring);
        let names = access.path(id, "names");
        let transport = Box::new(Encrypted::new(env, transport, Arc::clone(&ring), &names));
        Ok(Remote { env: env.clone(), transport, name, id: Some(*id), ring: Some(ring) })
    }

    /// The keys of an encrypted remote.
    pub fn ring(&self) -> Option<&Ring> {
        self.ring.as_deref()
    }

    /// Makes a new key of an encrypted remote, for what is pushed from now on.
    pub fn rotate(&self, env: &Env, access: &Access, change: Change) -> Result<Ring> {
        match &self.ring {
            Some(ring) => keys::rotate(env, self.transport(), ring, access, change),
            None => Err(Error::invalid(format!("`{}` is not encrypted", self.transport.place()))),
        }
    }

    /// How the bytes are reached.
    pub fn transport(&self) -> &dyn Transport {
        self.transport.as_ref()
    }

    /// Random bytes for a name that nobody else has.
    pub(crate) fn draw(&self) -> [u8; 8] {
        let mut random = [0; 8];
        self.env.entropy.fill(&mut random);
        random
    }

    /// Which remote it is; `None` where nothing has been made there yet.
    pub fn id(&self) -> Option<RemoteId> {
        self.id
    }

    /// Keeps other processes of this store from exchanging with this remote at the same time: the tables, the inbox
    /// and the own head are one each.
    pub fn lock(&self, store: &Store) -> Result<Option<Box<dyn Lock>>> {
        let Some(id) = self.id else { return Ok(None) };
        let dir = cache_dir(store, &id)?;
        self.transport.spool(&dir);
        let path = dir.join("lock");
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

fn locked(transport: &dyn Transport, why: &str) -> Error {
    Error::new(ErrorKind::Locked, format!("the remote `{}` {why}", transport.place()))
}

fn read_format(transport: &dyn Transport) -> Result<Option<Format>> {
    let bytes = transport.read(FORMAT_KEY, FORMAT_BYTES_MAX)?;
    bytes.map(|bytes| Format::decode(&bytes, &transport.place())).transpose()
}

/// What the `format` file of a remote says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Which remote it is.
    pub id: RemoteId,
    /// Whether all that it holds is sealed.
    pub is_encrypted: bool,
}

impl Format {
    /// The text of the file.
    pub fn encode(&self) -> String {
        let id = encode_hex(&self.id);
        if self.is_encrypted {
            format!("{FORMAT_FIRST_ENCRYPTED}\n{id}\n{FORMAT_ENCRYPTED}\n")
        } else {
            format!("{FORMAT_FIRST}\n{id}\n")
        }
    }

    /// Reads the file of the remote at `place`; further lines are for later versions.
    pub fn decode(bytes: &[u8], place: &str) -> Result<Format> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let newer =
            || Error::new(ErrorKind::Unsupported, format!("the remote `{place}` is newer than this program"));
        let is_encrypted = first == FORMAT_FIRST_ENCRYPTED;
        if first != FORMAT_FIRST && !is_encrypted {
            return Err(if first.starts_with("agent-trace remote ") {
                newer()
            } else {
                Error::invalid(format!("`{place}` is not a remote: its `format` file says something else"))
            });
        }
        let mut id = [0; 16];
        if !lines.next().is_some_and(|line| decode_hex(line, &mut id)) {
            return Err(Error::corrupt(format!("the `format` file of `{place}` has no id")));
        }
        if is_encrypted && lines.next() != Some(FORMAT_ENCRYPTED) {
            return Err(newer());
        }
        Ok(Format { id, is_encrypted })
    }
}

/// The text of the `format` file of a remote that is not encrypted.
pub fn encode_format(id: &RemoteId) -> String {
    Format { id: *id, is_encrypted: false }.encode()
}

/// Which remote a `format` file is of.
pub fn decode_format(bytes: &[u8], place: &str) -> Result<RemoteId> {
    Ok(Format::decode(bytes, place)?.id)
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
    let own = store.writer();
    let is_as_it_was = |writer: &WriterId, version: &Option<Version>| {
        state.heads.get(writer).is_some_and(|seen| version.is_some() && seen.version == *version)
    };
    let (same, asked): (Vec<_>, Vec<_>) =
        heads.into_iter().partition(|(writer, version)| is_as_it_was(writer, version));
    if same.iter().any(|(writer, _)| *writer == own) {
        replayed.own = state.heads.get(&own).map(|seen| (seen.hash, seen.generation));
    }
    replayed.own_is_read = asked.iter().any(|(writer, _)| *writer == own);
    let read = |(writer, _): &(WriterId, Option<Version>)| {
        transport.read_version(&Head::key(writer), HEAD_BYTES_MAX)
    };
    let mut changed = Vec::new();
    in_order(&asked, transport.fetches_at_once(), &read, &mut |(writer, _), found| {
        let found = match found {
            // Of an encrypted remote: nobody with the key has written it, or it has been damaged.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                replayed.refused.push(format!("the head of writer `{}`: {error}", writer.short()));
                return Ok(());
            }
            found => found?,
        };
        match found {
            Some((bytes, version)) => {
                changed.extend(look_at_head(*writer == own, writer, &bytes, version, id, state, replayed)?);
            }
            None if state.heads.contains_key(writer) => {
                replayed.gone_back.push(format!("the head of writer `{}` is gone", writer.short()));
            }
            None => {}
        }
        Ok(())
    })?;
    Ok(changed)
}

/// Looks at a head that was read; returns it if it is not the one that was seen.
fn look_at_head(
    is_own: bool,
    writer: &WriterId,
    bytes: &[u8],
    version: Option<Version>,
    id: &RemoteId,
    state: &mut State,
    replayed: &mut Replayed,
) -> Result<Option<Changed>> {
    let hash = head_hash(bytes);
    let seen = state.heads.get(writer).copied();
    if is_own {
        replayed.own = Some((hash, seen.map_or(0, |seen| seen.generation)));
    }
    if let Some(seen) = state.heads.get_mut(writer).filter(|seen| seen.hash == hash) {
        seen.version = version;
        return Ok(None);
    }
    let head = match Head::decode(bytes) {
        Ok(head) if head.writer == *writer && head.remote == *id => head,
        Ok(_) => {
            replayed.refused.push(format!("the head of writer `{}` is of another remote", writer.short()));
            return Ok(None);
        }
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
        Err(error) => {
            replayed.refused.push(format!("the head of writer `{}`: {error}", writer.short()));
            return Ok(None);
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
    Ok(Some(Changed { head, hash, version }))
}

/// Reads what the heads name: first all manifests, since any of them may say that segments of another are replaced,
/// then the footers of segments that count.
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
        state.replaced.extend(manifests.iter().flat_map(|manifest| &manifest.replaces).copied());
        read.push((changed, manifests, complete));
    }
    let named = read.iter().flat_map(|(_, manifests, _)| manifests).flat_map(|manifest| &manifest.added);
    let is_new = |(segment, _): &&(SegmentId, u64)| {
        !state.segments.contains_key(segment) && !state.replaced.contains(segment)
    };
    let new: BTreeMap<SegmentId, u64> = named.filter(is_new).copied().collect();
    let unread = learn_segments(store, remote, id, state, &new, replayed)?;
    for (Changed { head, hash, version }, manifests, complete) in read {
        head.tips.iter().for_each(|tip| state.note_tip(tip));
        replayed.tips.extend_from_slice(&head.tips);
        let mut added = manifests.iter().flat_map(|manifest| &manifest.added);
        // A head of which a part could not be read is looked at again the next time.
        if complete && !added.any(|(segment, _)| unread.contains(segment)) {
            let (generation, manifest) = (head.generation, head.manifest);
            let seen = SeenHead { generation, hash, manifest, version };
            state.heads.insert(head.writer, seen);
        }
    }
    Ok(())
}

/// The manifests that a head names, newest first, up to the one that is known; and whether all could be read.
pub(crate) fn read_chain(
    remote: &Remote,
    head: &Head,
    known: ManifestId,
    replayed: &mut Replayed,
) -> Result<(Vec<Manifest>, bool)> {
    let mut manifests = Vec::new();
    let mut next = head.manifest;
    while next != NO_MANIFEST && next != known {
        let read = remote.transport().read(&Manifest::key(&next), MANIFEST_BYTES_MAX);
        let manifest = read.and_then(|bytes| bytes.ok_or_else(|| Error::corrupt("it is not there")));
        match manifest.and_then(|bytes| Manifest::decode(&next, &bytes)) {
            Ok(manifest) if manifests.len() <= MANIFEST_DEPTH_MAX as usize => {
                next = manifest.previous;
                manifests.push(manifest);
            }
            Ok(_) => return Err(Error::corrupt("a chain of manifests is too long")),
            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
            Err(error) => {
                let writer = head.writer.short();
                replayed.refused.push(format!("a manifest of writer `{writer}`: {error}"));
                return Ok((manifests, false));
            }
        }
    }
    Ok((manifests, true))
}

/// Reads the footers of segments, and notes which events they hold; returns those that could not be read.
fn learn_segments(
    store: &Store,
    remote: &Remote,
    id: &RemoteId,
    state: &mut State,
    new: &BTreeMap<SegmentId, u64>,
    replayed: &mut Replayed,
) -> Result<BTreeSet<SegmentId>> {
    let transport = remote.transport();
    let new: Vec<(SegmentId, u64)> = new.iter().map(|(segment, bytes)| (*segment, *bytes)).collect();
    let read = |(segment, bytes): &(SegmentId, u64)| {
        tables::remote_segment(store, transport, id, segment, *bytes).map(|sealed| events_of(&sealed))
    };
    let (mut unread, mut ranges) = (BTreeSet::new(), Vec::new());
    in_order(&new, transport.fetches_at_once(), &read, &mut |(segment, bytes), events| {
        match events {
            Ok(events) => {
                state.segments.insert(*segment, *bytes);
                ranges.push(events);
                replayed.new.push(*segment);
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                replayed.refused.push(format!("`{}`: {error}", segment_key(segment)));
                unread.insert(*segment);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    for events in ranges {
        state.has = state.has.union(&events);
    }
    Ok(unread)
}

/// The events that a segment says it holds.
pub fn events_of(sealed: &Sealed) -> EventSet {
    let runs = sealed.directory.runs.iter();
    EventSet::from_ranges(runs.map(|run| (run.writer, run.seq_first.get(), run.seq_last())))
}
