//! The embedded implementation: redb files and stores in one folder that the service owns alone.

mod database;
