//! The real service and real clients: killed, cut off from each other, misconfigured, over TLS.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr, missing_docs)]

mod asked;
mod cut;
mod held;
mod killed;
#[allow(dead_code, reason = "its other tests use the rest")]
#[path = "../peer/layout.rs"]
mod layout;
#[allow(dead_code, reason = "its other tests use the rest")]
#[path = "../peer/world.rs"]
mod peer_world;
mod proxy;
mod scripted;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod world;
