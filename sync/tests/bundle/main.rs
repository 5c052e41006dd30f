//! Bundles between stores that never meet: what goes in comes out, all of it or nothing, and what is forged is refused.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod chains;
mod crash;
mod hostile;
mod round;
mod world;
