//! The privacy gate: secrets are found before anything leaves, and, where the user wants it, before it is stored.
//!
//! ```text
//! text ─► keywords ─► checks ─► regexes ─► allow-lists ─► hits ─┬─► findings ─► scanned ─► gate ─► push, export, notes
//!   ▲ escapes, joints, base64, percent                         └─► redact ─► what is stored instead
//! ```
//!
//! `rules` says what a secret looks like, `class` what a finding means, `scan` finds, `objects` looks through a store
//! once for each rule set, `gate` refuses. No secret is ever printed or kept: only rule, place, fingerprint and hint.
//! See docs/privacy.md.

pub(crate) mod limits;
pub(crate) mod class;
pub(crate) mod text;
pub(crate) mod rules;
mod plain;
mod joints;
pub(crate) mod scan;
pub(crate) mod document;
pub(crate) mod finding;
pub(crate) mod policy;
pub(crate) mod scanned;
pub(crate) mod objects;
pub(crate) mod gate;
pub(crate) mod redact;

#[cfg(test)]
#[path = "../../../benches/src/planted.rs"]
mod planted;
#[cfg(test)]
mod tests;
