//! The embedded implementation: redb files and stores in one folder that the service owns alone.

mod database;
mod arrivals;
mod winners;
mod places;
mod uploads;
mod staging;
mod items;
mod archive;
mod commit;
mod outgoing;
mod legacy;

pub use archive::ProjectArchive;
pub use staging::StagedFiles;
