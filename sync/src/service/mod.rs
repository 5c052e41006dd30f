//! The service: what `agent-trace serve` answers with.
//!
//! ```text
//! request ─► http ─► grant ─► archive ─► store, arrivals
//! ```
//!
//! Everything that is kept stands behind the traits of `archive`; only `http` is asynchronous.

pub mod grant;
pub mod archive;
pub mod quota;
pub mod embedded;
pub mod http;
