//! Encryption on this side: a remote that sees ciphertext only. Its bytes are described in `docs/remotes.md`.
//!
//! ```text
//! secret ─► age ─► ring (a key for each epoch) ─► frames ─► sealed files     names ◄─► manifests
//! ```
//!
//! `Encrypted` stands between those who know segments, manifests and heads and whatever carries their bytes; both sides know
//! nothing of it. A wrong or missing secret is status 12, and then nothing has been written, here or there.

mod book;
mod upload;

pub mod file;
pub mod frames;
pub mod keys;
pub mod names;
pub mod ring;
pub mod encrypted;
pub mod secret;

pub use encrypted::Encrypted;
pub use keys::{Access, Change};
pub use ring::{KeyId, Ring};
pub use secret::Secret;
