//! What opens an encrypted remote: a passphrase, or secret keys of `age`. Kept nowhere, wiped when dropped, never shown.
//!
//! `age` seals one file for one passphrase or for any number of recipients, never for both. It draws the random bytes of
//! its own envelope from the operating system; the keys inside come from `Env`, like all other randomness (I12).

use std::io::{Read, Write};

use age::secrecy::{ExposeSecret, SecretString};
use age::{DecryptError, Decryptor, Encryptor, Identity, Recipient, scrypt, x25519};
use agent_trace_store::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

use super::ring::Ring;
use crate::limits::{KEYS_BYTES_MAX, PASSPHRASE_BYTES_MIN, SCRYPT_LOG_N, SCRYPT_LOG_N_MAX};

const IDENTITY_START: &str = "AGE-SECRET-KEY-1";

/// What opens an encrypted remote.
pub enum Secret {
    /// A passphrase.
    Passphrase(SecretString),
    /// Secret keys; the first one is the own one, others open what is older.
    Identities(Vec<x25519::Identity>),
}

impl Secret {
    /// Reads a secret: secret keys of `age`, one a line with `#` before comments, or else a passphrase on one line.
    /// What it is not is not shown.
    pub fn parse(text: &str) -> Result<Secret> {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        if lines().any(|line| line.starts_with(IDENTITY_START)) {
            let identities = lines().map(str::parse::<x25519::Identity>);
            let identities = identities.collect::<Result<Vec<_>, _>>().map_err(|why| {
                Error::invalid(format!("cannot take the secret: a line is no secret key of age ({why})"))
            })?;
            return Ok(Secret::Identities(identities));
        }
        let passphrase = text.trim_end_matches(['\n', '\r']);
        if passphrase.contains(['\n', '\r']) {
            return Err(Error::invalid("cannot take the secret: a passphrase is one line"));
        }
        if passphrase.len() < PASSPHRASE_BYTES_MIN {
            return Err(Error::invalid(format!(
                "cannot take the secret: a passphrase has at least {PASSPHRASE_BYTES_MIN} bytes, since whoever sees the remote can try as many as he likes"
            )));
        }
        Ok(Secret::Passphrase(SecretString::from(passphrase.to_owned())))
    }

    /// Makes a new secret key: the text of a key file, and the recipient that others are told.
    pub fn generate() -> (Zeroizing<String>, String) {
        let identity = x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        let text = format!("# public key: {recipient}\n{}\n", identity.to_string().expose_secret());
        (Zeroizing::new(text), recipient)
    }

    /// The recipients that this secret opens for; none for a passphrase.
    pub fn recipients(&self) -> Vec<String> {
        match self {
            Secret::Passphrase(_) => Vec::new(),
            Secret::Identities(identities) => {
                identities.iter().map(|identity| identity.to_public().to_string()).collect()
            }
        }
    }

    /// Seals a ring for its members, or for this passphrase where it has none.
    pub fn wrap(&self, ring: &Ring) -> Result<Vec<u8>> {
        #[cfg(feature = "sim")]
        if !ring.members().is_empty() {
            return sealed_once(ring, || self.seal(ring));
        }
        self.seal(ring)
    }

    fn seal(&self, ring: &Ring) -> Result<Vec<u8>> {
        let doing = |error| Error::io("cannot seal the keys of the remote", error);
        let members = ring.members().iter().map(|member| recipient(member)).collect::<Result<Vec<_>>>()?;
        let passphrase;
        let recipients: Vec<&dyn Recipient> = match self {
            Secret::Passphrase(secret) if members.is_empty() => {
                let mut recipient = scrypt::Recipient::new(secret.clone());
                recipient.set_work_factor(SCRYPT_LOG_N);
                passphrase = recipient;
                vec![&passphrase]
            }
            _ => members.iter().map(|member| member as &dyn Recipient).collect(),
        };
        let encryptor = Encryptor::with_recipients(recipients.into_iter())
            .map_err(|_| Error::invalid("the keys of a remote are for a passphrase or for recipients"))?;
        let mut sealed = Vec::new();
        let mut writer = encryptor.wrap_output(&mut sealed).map_err(doing)?;
        writer.write_all(&ring.encode()).map_err(doing)?;
        writer.finish().map_err(doing)?;
        Ok(sealed)
    }

    /// Opens a ring.
    pub fn unwrap(&self, sealed: &[u8]) -> Result<Ring> {
        let decryptor = Decryptor::new_buffered(sealed).map_err(|error| refused(&error))?;
        let passphrase;
        let identities: Vec<&dyn Identity> = match self {
            Secret::Passphrase(secret) => {
                let mut identity = scrypt::Identity::new(secret.clone());
                identity.set_max_work_factor(SCRYPT_LOG_N_MAX);
                passphrase = identity;
                vec![&passphrase]
            }
            Secret::Identities(identities) => identities.iter().map(|one| one as &dyn Identity).collect(),
        };
        let reader = decryptor.decrypt(identities.into_iter()).map_err(|error| refused(&error))?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
        let damaged = |_| Error::corrupt("the file of keys has been damaged");
        reader.take(KEYS_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 > KEYS_BYTES_MAX {
            return Err(Error::corrupt("the file of keys is over its limit"));
        }
        Ring::decode(&bytes)
    }
}

/// In a simulation a ring is sealed for its members once: the random bytes of `age` do not come from the seed, and one
/// seed gives one trace.
#[cfg(feature = "sim")]
fn sealed_once(ring: &Ring, seal: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};
    static SEALED: Mutex<BTreeMap<Vec<u8>, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let content = ring.encode().to_vec();
    let mut known = SEALED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sealed) = known.get(&content) {
        return Ok(sealed.clone());
    }
    let sealed = seal()?;
    known.insert(content, sealed.clone());
    Ok(sealed)
}

/// Reads a recipient.
pub fn recipient(text: &str) -> Result<x25519::Recipient> {
    text.parse().map_err(|why| {
        Error::invalid(format!("cannot take a recipient: expected `age1` and 58 letters and digits ({why})"))
    })
}

fn refused(error: &DecryptError) -> Error {
    match error {
        DecryptError::NoMatchingKeys
        | DecryptError::DecryptionFailed
        | DecryptError::KeyDecryptionFailed
        | DecryptError::InvalidMac => {
            Error::new(ErrorKind::Locked, "the secret does not open the keys of the remote")
        }
        DecryptError::ExcessiveWork { .. } => Error::corrupt("the file of keys asks for too much work"),
        _ => Error::corrupt("the file of keys is none that this program can read"),
    }
}
