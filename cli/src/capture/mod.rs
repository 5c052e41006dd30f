//! Capture: what agents tell of their tool calls. The hot path and the spool come with their own change.

pub(crate) mod limits;
pub(crate) mod payload;
pub(crate) mod repository;
pub(crate) mod adapters;
