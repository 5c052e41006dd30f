//! Bundles: a remote in one file or folder, for stores that never meet.
//!
//! ```text
//! export   choose ─► collect ─► segments ─► manifest, bundle.json ─► head     into a file, a pipe or a folder
//! import   quarantine ─► check all of it ─► take all of it, or nothing
//! ```
//!
//! The layout is that of every remote; `container` puts it into one file. docs/bundle.md gives every byte. Knows nothing of
//! the command line, and of encryption only that names may stand for others.

mod container;
mod info;
mod write;
mod folder;
mod read;
mod opened;
mod base;
mod choose;
mod export;
mod check;
mod conflicts;
mod import;

pub use base::Base;
pub use check::{Found, verify};
pub use choose::Wanted;
pub use conflicts::KeyConflict;
pub use container::{
    Entry, HEADER_BYTES, MAGIC, decode_directory, decode_header, encode_directory, encode_entry,
    encode_header, encode_trailer, is_key, read_places,
};
pub use export::{ExportOptions, ExportPlan, execute, plan};
pub use folder::{NewDir, NewFolder};
pub use import::{ImportReport, import};
pub use info::{BundleBase, BundleInfo, INFO_KEY, decode_cursor, encode_cursor, is_cursor};
pub use opened::Bundle;
pub use read::BundleFile;
pub use write::{BundleWriter, Flow, NewFile, Pipe};
