//! The keys of a remote where they lie: `keys/<epoch>`, one file for each epoch, written once.
//!
//! The newest file holds all keys. What was opened once is noted in `remotes/<id>/keys`, so that nobody can put an older
//! key back, or another one in its place, without being noticed.

use std::path::{Path, PathBuf};

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::env::Env;
use agent_trace_store::id::encode_hex;
use agent_trace_store::layout::{create_dir_durably, read_small, write_durably};
use agent_trace_store::{Error, ErrorKind, Result, Store};

use super::ring::{KeyId, Ring};
use super::secret::{Secret, recipient};
use crate::address::RemoteUrl;
use crate::head::RemoteId;
use crate::limits::{KEY_EPOCHS_MAX, KEY_MEMBERS_MAX, KEYS_BYTES_MAX};
use crate::state::State;
use crate::transport::Transport;

const MAGIC: &[u8; 8] = b"ATKEYSEN";
const VERSION: u32 = 1;
const NOTE_BYTES: u64 = 64 << 10;

/// What opens an encrypted remote, and where this store keeps what it knows of remotes.
pub struct Access {
    /// The secret.
    pub secret: Secret,
    /// `remotes` in the directory of the store.
    pub cache: PathBuf,
}

impl Access {
    /// Where something about a remote is kept.
    pub fn path(&self, remote: &RemoteId, name: &str) -> PathBuf {
        self.cache.join(encode_hex(remote)).join(name)
    }
}

fn key_of(epoch: u32) -> String {
    format!("keys/{epoch}")
}

/// The epochs for which there are keys.
fn epochs(transport: &dyn Transport) -> Result<Vec<u32>> {
    let names = transport.list("keys")?;
    let mut epochs: Vec<u32> = names
        .iter()
        .filter_map(|name| name.name.parse().ok().filter(|epoch: &u32| epoch.to_string() == name.name))
        .filter(|epoch| (1..=KEY_EPOCHS_MAX).contains(&(*epoch as usize)))
        .collect();
    epochs.sort_unstable();
    Ok(epochs)
}

/// Opens the newest keys of a remote; `None` where there are none yet.
pub fn load(
    env: &Env,
    transport: &dyn Transport,
    remote: &RemoteId,
    access: &Access,
) -> Result<Option<Ring>> {
    let note = access.path(remote, "keys");
    let seen = Seen::load(env, &note)?;
    let epochs = epochs(transport)?;
    let Some(newest) = epochs.last().copied() else {
        return if seen.0.is_empty() { Ok(None) } else { Err(gone_back("the keys of the remote are gone")) };
    };
    let sealed = transport
        .read(&key_of(newest), KEYS_BYTES_MAX)?
        .ok_or_else(|| Error::corrupt("the newest keys of the remote are listed, and not there"))?;
    let ring = access.secret.unwrap(&sealed).map_err(|error| {
        error.context(format!("cannot open the keys of `{}`, epoch {newest}", transport.place()))
    })?;
    if ring.remote() != *remote {
        return Err(Error::new(ErrorKind::Locked, "the keys of the remote are those of another one"));
    }
    if ring.epoch() != newest {
        return Err(Error::corrupt("the newest keys of the remote are of another epoch"));
    }
    let found = Seen::of(&ring);
    if !found.0.starts_with(&seen.0) {
        return Err(gone_back("the keys of the remote are not those that this store has seen there"));
    }
    if found != seen {
        // Whoever made them may have died before their name was durable; what is noted must not go again by itself.
        transport.keep(&key_of(newest))?;
        found.save(env, &note)?;
    }
    Ok(Some(ring))
}

/// The epoch of the key at an address as it was last seen there, without asking.
pub fn key_epoch(store: &Store, address: &RemoteUrl) -> Result<Option<u32>> {
    let Some(id) = State::remote_at(store, &address.name())? else { return Ok(None) };
    let path = store.dir().join("remotes").join(encode_hex(&id)).join("keys");
    let seen = Seen::load(store.env(), &path)?;
    Ok(Some(seen.epoch()).filter(|epoch| *epoch > 0))
}

fn gone_back(message: &str) -> Error {
    Error::new(ErrorKind::Conflict, message)
}

/// Makes the first key of a remote; whoever comes second takes what stands there.
pub fn create(env: &Env, transport: &dyn Transport, remote: &RemoteId, access: &Access) -> Result<Ring> {
    let own = access.secret.recipients().into_iter().take(1).collect();
    let ring = Ring::first(env, *remote, own);
    transport.write_once(&key_of(1), &access.secret.wrap(&ring)?)?;
    load(env, transport, remote, access)?.ok_or_else(|| Error::corrupt("the keys that were made are gone"))
}

/// Who may open a remote from the next epoch on.
#[derive(Default)]
pub struct Change {
    /// The own secret from then on, where it is to be another.
    pub secret: Option<Secret>,
    /// Recipients that are added.
    pub add: Vec<String>,
    /// Recipients that are left out.
    pub remove: Vec<String>,
}

/// Makes a new key for what is pushed from now on, sealed for those who are to have it.
pub fn rotate(
    env: &Env,
    transport: &dyn Transport,
    ring: &Ring,
    access: &Access,
    change: Change,
) -> Result<Ring> {
    let secret = change.secret.as_ref().unwrap_or(&access.secret);
    let next = ring.next(env, members(ring, access, secret, &change)?)?;
    let (key, sealed) = (key_of(next.epoch()), secret.wrap(&next)?);
    transport.write_once(&key, &sealed)?;
    if transport.read(&key, KEYS_BYTES_MAX)?.as_ref() != Some(&sealed) {
        let message = format!("somebody else has changed the key of `{}` meanwhile", transport.place());
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    Seen::of(&next).save(env, &access.path(&ring.remote(), "keys"))?;
    Ok(next)
}

/// Whom the next key is for.
fn members(ring: &Ring, access: &Access, secret: &Secret, change: &Change) -> Result<Vec<String>> {
    let Some(own) = secret.recipients().into_iter().next() else {
        if change.add.is_empty() && change.remove.is_empty() {
            return Ok(Vec::new());
        }
        return Err(Error::invalid("the key is opened by a passphrase: it has no recipients"));
    };
    let mut members = ring.members().to_vec();
    if change.secret.is_some() {
        let before = access.secret.recipients();
        members.retain(|member| !before.contains(member));
    }
    for added in change.add.iter().chain([&own]) {
        recipient(added)?;
        if !members.contains(added) {
            members.push(added.clone());
        }
    }
    for removed in &change.remove {
        if *removed == own {
            return Err(Error::invalid("the own key cannot be left out: give another by --key-file"));
        }
        if !members.contains(removed) {
            return Err(Error::new(ErrorKind::NotFound, format!("`{removed}` is no member")));
        }
        members.retain(|member| member != removed);
    }
    if members.len() > KEY_MEMBERS_MAX {
        return Err(Error::invalid(format!("a key is for at most {KEY_MEMBERS_MAX} members")));
    }
    Ok(members)
}

/// What tells the keys that this store has seen on a remote: an id for each epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(pub Vec<KeyId>);

impl Seen {
    fn of(ring: &Ring) -> Seen {
        Seen((1..=ring.epoch()).filter_map(|epoch| ring.key_id(epoch)).collect())
    }

    /// The newest epoch.
    pub fn epoch(&self) -> u32 {
        length_u32(self.0.len())
    }

    /// The bytes of the note.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.put(MAGIC).u32(VERSION).u32(length_u32(self.0.len()));
        for id in &self.0 {
            encoder.put(&id.0);
        }
        encoder.finish()
    }

    /// Reads the note back.
    pub fn decode(bytes: &[u8]) -> Result<Seen> {
        let mut decoder = Decoder::new("note of keys", bytes);
        decoder.format(MAGIC, VERSION)?;
        let mut ids = Vec::new();
        for _ in 0..decoder.count(16, KEY_EPOCHS_MAX)? {
            ids.push(KeyId(decoder.array()?));
        }
        decoder.finish()?;
        Ok(Seen(ids))
    }

    fn load(env: &Env, path: &Path) -> Result<Seen> {
        match read_small(env, path, NOTE_BYTES) {
            Ok(bytes) => Seen::decode(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Seen::default()),
            Err(error) => Err(Error::io(format!("cannot read `{}`", path.display()), error)),
        }
    }

    fn save(&self, env: &Env, path: &Path) -> Result<()> {
        let dir = path.parent().expect("it lies in the cache of a remote");
        create_dir_durably(env, dir)
            .map_err(|error| Error::io(format!("cannot create `{}`", dir.display()), error))?;
        write_durably(env, path, &self.encode(), true)
    }
}
