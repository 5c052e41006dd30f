//! Data in motion: remotes, push and pull.
//!
//! ```text
//! push   replay ─► select ─► collect ─► segments ─► manifest ─► own head
//! pull   replay ─► fetch ─► check ─► take in
//! ```
//!
//! A remote is a set of immutable segments, immutable manifests that list them, and one small signed head per writer
//! that names its newest manifest. Only a head's writer replaces it, after what it names is there, so two pushers never
//! meet and nothing needs compare-and-swap. A store that has replayed the heads knows every event and object the
//! remote holds, and computes the difference itself.
//!
//! Deliberately absent: encryption, sockets and services, which come behind the same `Transport`.

pub mod limits;
pub mod address;
pub mod token;
pub mod head;
pub mod manifest;
pub mod transport;
pub mod state;
pub mod tables;
pub mod remote;
pub mod collect;
pub mod cut;
pub mod light;
pub mod named;
pub mod select;
pub mod publish;
pub mod sending;
pub mod push;
pub mod receive;
pub mod accept;
pub mod pull;
pub mod wire;
pub mod reconcile;
pub mod service;
