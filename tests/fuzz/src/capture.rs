//! The formats of the program itself, which is no library: its own files, read once more.
#![allow(dead_code, reason = "the fuzzer uses a part of them")]

#[path = "../../../cli/src/capture/entry.rs"]
pub(crate) mod entry;
#[path = "../../../cli/src/capture/limits.rs"]
pub(crate) mod limits;
