//! Data at rest: objects, events, segments and the index over them.
//!
//! ```text
//! record ──► object ──► event ──► segment ──► index ──► store
//! ```
//!
//! A *store* is a directory. What is in it is an append-only set of segments; each holds objects, named by the hash
//! of their bytes, and events, chained by hash into one log per writer. Appending a batch to the open segment and
//! syncing it is the only commit (I2); the redb index can be deleted at any time. The modules below stand in the
//! order in which data passes them, and each uses only those above it.
//!
//! Deliberately absent: network, terminal, git, agents, async, hidden threads.

// ground
pub mod error;
pub mod limits;
pub mod id;
pub mod kind;
pub mod time;
#[cfg(feature = "sim")]
pub mod switches;
pub mod env;
pub mod progress;
pub mod lock;
pub mod codec;
// the data path
pub mod json;
pub mod record;
pub mod frame;
pub mod object;
pub mod event;
pub mod table;
pub mod writer;
pub mod segment;
pub mod segments;
pub mod scan;
pub mod seqs;
pub mod index;
pub mod open_ids;
pub mod log;
pub mod build;
pub mod cache;
pub mod layout;
pub mod erased;
pub mod elsewhere;
pub mod store;
pub mod adoption;
pub mod question;
pub mod intake;
// care
pub mod verify;
pub mod reindex;
mod replace;
pub mod compact;
pub mod erase;

pub use elsewhere::{Elsewhere, Presence};
pub use erased::Erased;
pub use error::{Error, ErrorKind, Result};
pub use id::{EventId, ObjectId, SegmentId, Seq, WriterId};
pub use kind::Kind;
pub use store::Store;
pub use time::Timestamp;
