//! The keys of a remote: one for each epoch, and what is derived from them.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `ATKEYRNG` |
//! | 4 | version, 1 |
//! | 16 | id of the remote |
//! | 4, then 32 each | keys, that of epoch 1 first |
//! | 4, then 4, n each | members: recipients as `age` writes them; none where a passphrase opens it |
//!
//! That is what lies in `keys/<epoch>`, sealed by `age`. Names on a remote come from the key of the first epoch, so they
//! stay when the key is changed. Keys are wiped when they are dropped, and nothing here can be printed.

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::env::Env;
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, ErrorKind, Result, WriterId};
use zeroize::Zeroizing;

use super::frames::DataKey;
use crate::head::RemoteId;
use crate::limits::{KEY_EPOCHS_MAX, KEY_MEMBER_BYTES_MAX, KEY_MEMBERS_MAX};
use crate::manifest::ManifestId;

const MAGIC: &[u8; 8] = b"ATKEYRNG";
const VERSION: u32 = 1;
const DATA: &str = "agent-trace sealed remote data v1";
const HEADS: &str = "agent-trace sealed remote heads v1";
const NAMES: &str = "agent-trace sealed remote names v1";
const KEY_ID: &str = "agent-trace sealed remote key id v1";

/// What people compare to see that they have the same key; says nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId(pub [u8; 16]);

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

/// The keys of a remote.
#[derive(Clone)]
pub struct Ring {
    remote: RemoteId,
    keys: Vec<Zeroizing<[u8; 32]>>,
    members: Vec<String>,
}

impl Ring {
    /// The ring of a new remote, with one random key.
    pub fn first(env: &Env, remote: RemoteId, members: Vec<String>) -> Ring {
        Ring { remote, keys: vec![draw(env)], members }
    }

    /// The same with one more random key, for others.
    pub fn next(&self, env: &Env, members: Vec<String>) -> Result<Ring> {
        if self.keys.len() >= KEY_EPOCHS_MAX {
            return Err(Error::invalid(format!("the key has been changed {KEY_EPOCHS_MAX} times")));
        }
        let mut next = Ring { members, ..self.clone() };
        next.keys.push(draw(env));
        Ok(next)
    }

    /// A ring of given keys, for tests of the format.
    pub fn from_keys(remote: RemoteId, keys: &[[u8; 32]], members: Vec<String>) -> Ring {
        Ring { remote, keys: keys.iter().map(|key| Zeroizing::new(*key)).collect(), members }
    }

    /// Which remote it is for.
    pub fn remote(&self) -> RemoteId {
        self.remote
    }

    /// The newest epoch.
    pub fn epoch(&self) -> u32 {
        length_u32(self.keys.len())
    }

    /// Whom the newest key is for; nobody where a passphrase opens it.
    pub fn members(&self) -> &[String] {
        &self.members
    }

    fn key(&self, epoch: u32) -> Option<&Zeroizing<[u8; 32]>> {
        self.keys.get((epoch as usize).checked_sub(1)?)
    }

    /// The key under which files of an epoch are sealed.
    pub fn data(&self, epoch: u32) -> Result<DataKey> {
        match self.key(epoch) {
            Some(key) => Ok(DataKey(Zeroizing::new(blake3::derive_key(DATA, &**key)))),
            None => {
                let newest = self.epoch();
                let message = format!(
                    "it is sealed with the key of epoch {epoch}, and the newest that is known is {newest}"
                );
                Err(Error::new(ErrorKind::Locked, message))
            }
        }
    }

    /// What tells the key of an epoch from others.
    pub fn key_id(&self, epoch: u32) -> Option<KeyId> {
        let key = self.key(epoch)?;
        let id = blake3::derive_key(KEY_ID, &**key);
        Some(KeyId(id[..16].try_into().expect("half of it")))
    }

    fn name(&self, context: &str, what: &[u8]) -> [u8; 32] {
        let key = Zeroizing::new(blake3::derive_key(context, &**self.key(1).expect("there is a first key")));
        *blake3::Hasher::new_keyed(&key).update(&self.remote).update(what).finalize().as_bytes()
    }

    /// The name of a writer's head.
    pub fn head_name(&self, writer: &WriterId) -> [u8; 32] {
        self.name(HEADS, writer.as_bytes())
    }

    /// The name of a manifest.
    pub fn manifest_name(&self, id: &ManifestId) -> [u8; 32] {
        self.name(NAMES, id)
    }

    /// What stands for an owner in the names of files that are written aside.
    pub fn owner_name(&self, owner: &str) -> String {
        let mut name = encode_hex(&self.name(NAMES, owner.as_bytes()));
        name.truncate(12);
        name
    }

    /// The bytes.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut encoder = Encoder::onto(Vec::with_capacity(64 << 10));
        encoder.put(MAGIC).u32(VERSION).put(&self.remote).u32(length_u32(self.keys.len()));
        for key in &self.keys {
            encoder.put(&**key);
        }
        encoder.u32(length_u32(self.members.len()));
        for member in &self.members {
            encoder.prefixed(member.as_bytes());
        }
        Zeroizing::new(encoder.finish())
    }

    /// Reads a ring.
    pub fn decode(bytes: &[u8]) -> Result<Ring> {
        let mut decoder = Decoder::new("keys of a remote", bytes);
        decoder.format(MAGIC, VERSION)?;
        let remote = decoder.array()?;
        let mut keys = Vec::new();
        for _ in 0..decoder.count(32, KEY_EPOCHS_MAX)? {
            keys.push(Zeroizing::new(decoder.array()?));
        }
        if keys.is_empty() {
            return Err(decoder.error("there is no key"));
        }
        let mut members = Vec::new();
        for _ in 0..decoder.count(4, KEY_MEMBERS_MAX)? {
            let member = std::str::from_utf8(decoder.prefixed(KEY_MEMBER_BYTES_MAX)?);
            members.push(member.map_err(|_| decoder.error("a member is no text"))?.to_owned());
        }
        decoder.finish()?;
        Ok(Ring { remote, keys, members })
    }
}

fn draw(env: &Env) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    env.entropy.fill(&mut *key);
    key
}
