//! Data in motion: remotes, push and pull.

pub mod pull;
pub mod push;
pub mod remote;
