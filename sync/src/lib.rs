//! Data in motion: remotes, push and pull, the service and its client.
//!
//! ```text
//! push   replay ─► select ─► collect ─► segments ─► manifest ─► own head      (a folder)
//!                                               └─► uploads ─► commit         (a service)
//! pull   replay ─► fetch ─► check ─► take in
//! ```
//!
//! A folder is a set of immutable segments, immutable manifests that list them, and one small signed head per writer
//! that names its newest manifest. Only a head's writer replaces it, after what it names is there, so two pushers never
//! meet and nothing needs compare-and-swap. A store that has replayed the heads knows every event and object the
//! remote holds, and computes the difference itself. A service gives every arrival one position instead, so one number
//! stands for all heads; both kinds of remote meet in `exchange`.
//!
//! Asynchronous only in `service::http` and inside `client` and `bucket`.

pub mod limits;
pub(crate) mod ahead;
pub mod address;
pub mod token;
pub mod head;
pub mod manifest;
pub mod transport;
pub mod bucket;
pub mod seal;
pub mod state;
pub mod tables;
pub mod remote;
pub mod inspect;
pub mod collect;
pub mod cut;
pub mod light;
pub mod named;
pub mod select;
pub mod gate;
pub mod unpushed;
pub mod publish;
pub mod sending;
pub mod withdraw;
pub mod push;
pub mod replace;
pub mod gc;
pub mod receive;
pub mod accept;
pub mod take;
pub mod bodies;
pub mod pull;
pub mod bundle;
pub mod wire;
pub mod reconcile;
pub mod service;
pub mod client;
pub mod service_remote;
pub mod exchange;
pub mod retain;
