//! A redb file that one process owns and keeps open: made aside and renamed, two-phase commits, damage as an error.
//!
//! redb asserts what it reads, so damage may show as a panic; none passes from here. After a failed operation redb
//! refuses everything until it is opened again (I9). Knows no tables.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use agent_trace_store::env::{Env, File};
use agent_trace_store::index::Backend;
use agent_trace_store::{Error, ErrorKind, Result};
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

/// An open database.
pub(super) struct Opened {
    database: Option<Database>,
    name: String,
}

impl Opened {
    /// Opens a database that is there.
    pub(super) fn open(env: &Env, path: &Path, cache_bytes: usize) -> Result<Opened> {
        let file = env
            .fs
            .open_write(path)
            .map_err(|error| Error::io(format!("cannot open the database `{}`", path.display()), error))?;
        Opened::on(path, file, cache_bytes)
    }

    /// Makes a database aside, lets `fill` write into it, and puts it in the place of what may be there. It is durable
    /// when this returns.
    pub(super) fn create(
        env: &Env,
        path: &Path,
        cache_bytes: usize,
        fill: impl FnOnce(&Opened, &WriteTransaction) -> Result<()>,
    ) -> Result<Opened> {
        let fs = &env.fs;
        let aside = path.with_extension("redb.new");
        let doing = |error| Error::io(format!("cannot make the database `{}`", path.display()), error);
        if fs.metadata(&aside).is_ok() {
            fs.remove(&aside).map_err(doing)?;
        }
        let made = Opened::on(path, fs.create(&aside, true).map_err(doing)?, cache_bytes)?;
        made.write(|transaction| fill(&made, transaction))?;
        // It stays open while it is renamed: what is open is the file, not its name.
        fs.rename(&aside, path).map_err(doing)?;
        fs.sync_dir(path.parent().expect("a database lies in a directory")).map_err(doing)?;
        Ok(made)
    }

    fn on(path: &Path, file: Box<dyn File>, cache_bytes: usize) -> Result<Opened> {
        let backend = Backend::new(file);
        let name = path.display().to_string();
        let database = guarded(&name, || {
            let mut builder = Database::builder();
            builder.set_cache_size(cache_bytes);
            builder.create_with_backend(backend).map_err(|error| damaged(&name, error))
        })?;
        Ok(Opened { database: Some(database), name })
    }

    /// Runs `work` on one read transaction.
    pub(super) fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        guarded(&self.name, || {
            let transaction = self.database().begin_read().map_err(|error| self.error(error))?;
            work(&transaction)
        })
    }

    /// Runs `work` in one write transaction, which is durable when this returns; nothing of it is where it fails.
    pub(super) fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T>) -> Result<T> {
        guarded(&self.name, || {
            let mut transaction = self.database().begin_write().map_err(|error| self.error(error))?;
            transaction.set_two_phase_commit(true);
            transaction.set_quick_repair(true);
            let answer = work(&transaction)?;
            transaction.commit().map_err(|error| self.error(error))?;
            Ok(answer)
        })
    }

    /// An error of redb about this database.
    pub(super) fn error(&self, error: impl Into<redb::Error>) -> Error {
        damaged(&self.name, error)
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("it is there until it is closed")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let database = self.database.take();
        // What it fails to write when it closes, it repairs when it is opened.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

fn damaged(name: &str, error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableDoesNotExist(_) => ErrorKind::Corrupt,
        redb::Error::UpgradeRequired(_) => ErrorKind::Unsupported,
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => ErrorKind::Full,
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, format!("cannot use the database `{name}`")).with_source(error)
}

fn guarded<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::corrupt(format!("the database `{name}` is damaged"))))
}
