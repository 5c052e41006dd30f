//! A writer: the key that signs a log, and signed statements about where the log stands.
//!
//! A *tip* is a writer's statement "event `id` is the `seq`-th and newest of my log"; it travels with the log, so
//! that nobody can add to a foreign log. Not covered: a stolen key, and who is behind a key.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::codec::{Decoder, Encoder, length_u32};
use crate::env::Entropy;
use crate::error::{Error, Result};
use crate::id::{EventId, Seq, WriterId};
use crate::limits::WRITERS_MAX;

/// Bytes of a tip as stored.
pub const TIP_BYTES: usize = 136;
const TIP_DOMAIN: &[u8] = b"agent-trace tip v1";

/// The private key of a writer; never printed, never exported.
pub struct WriterKey(SigningKey);

impl WriterKey {
    /// Draws a new key.
    pub fn generate(entropy: &dyn Entropy) -> WriterKey {
        let mut seed = [0; 32];
        entropy.fill(&mut seed);
        WriterKey(SigningKey::from_bytes(&seed))
    }

    /// Takes a key from its 32 secret bytes.
    pub fn from_secret(secret: &[u8; 32]) -> WriterKey {
        WriterKey(SigningKey::from_bytes(secret))
    }

    /// The 32 secret bytes, to be written to a private file.
    pub fn secret(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public name.
    pub fn id(&self) -> WriterId {
        WriterId::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// States where this writer's log stands.
    pub fn tip(&self, seq: Seq, event: EventId) -> Tip {
        let writer = self.id();
        let signature = self.sign(&tip_message(&writer, seq, &event));
        Tip { writer, seq, event, signature }
    }
}

impl std::fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WriterKey({})", self.id().short())
    }
}

/// Checks a signature by a writer.
pub fn verify_signature(writer: &WriterId, message: &[u8], signature: &[u8; 64]) -> Result<()> {
    VerifyingKey::from_bytes(writer.as_bytes())
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .map_err(|error| {
            Error::corrupt(format!("the signature of writer `{}` does not verify", writer.short()))
                .with_source(error)
        })
}

/// A writer's signed statement about the newest event of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Whose log.
    pub writer: WriterId,
    /// The position of its newest event.
    pub seq: Seq,
    /// The id of that event.
    pub event: EventId,
    /// The writer's signature.
    pub signature: [u8; 64],
}

fn tip_message(writer: &WriterId, seq: Seq, event: &EventId) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.put(TIP_DOMAIN).put(writer.as_bytes()).u64(seq.get()).put(event.as_bytes());
    encoder.finish()
}

impl Tip {
    /// Checks the signature.
    pub fn verify(&self) -> Result<()> {
        verify_signature(&self.writer, &tip_message(&self.writer, self.seq, &self.event), &self.signature)
    }
}

/// Encodes tips: a count, then writer (32), seq (8), event (32), signature (64) each.
pub fn encode_tips(tips: &[Tip]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.u32(length_u32(tips.len()));
    for tip in tips {
        encoder.put(tip.writer.as_bytes()).u64(tip.seq.get());
        encoder.put(tip.event.as_bytes()).put(&tip.signature);
    }
    encoder.finish()
}

/// Reads tips; the signatures are not compared here.
pub fn decode_tips(decoder: &mut Decoder<'_>) -> Result<Vec<Tip>> {
    let count = decoder.count(TIP_BYTES, WRITERS_MAX)?;
    let mut tips = Vec::with_capacity(count);
    for _ in 0..count {
        tips.push(Tip {
            writer: WriterId::from_bytes(decoder.array()?),
            seq: Seq::new(decoder.u64()?).ok_or_else(|| decoder.error("seq is zero"))?,
            event: EventId::from_bytes(decoder.array()?),
            signature: decoder.array()?,
        });
    }
    Ok(tips)
}
