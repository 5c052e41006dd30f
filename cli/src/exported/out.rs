//! A file that is written in one go, in parts that are large enough.

use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, File};
use agent_trace_store::{Error, Result};

const BUFFER_BYTES: usize = 1 << 20;

/// A new file.
pub(super) struct Out {
    path: PathBuf,
    file: Box<dyn File>,
    buffer: Vec<u8>,
    written: u64,
}

impl Out {
    pub(super) fn create(env: &Env, path: &Path) -> Result<Out> {
        let doing = |error| Error::io(format!("cannot create `{}`", path.display()), error);
        let file = env.fs.create(path, true).map_err(doing)?;
        Ok(Out { path: path.to_owned(), file, buffer: Vec::new(), written: 0 })
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let doing = |error| Error::io(format!("cannot write `{}`", self.path.display()), error);
        self.file.write_all_at(&self.buffer, self.written).map_err(doing)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes it durable, and says how long it is.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.flush()?;
        let doing = |error| Error::io(format!("cannot sync `{}`", self.path.display()), error);
        self.file.sync().map_err(doing)?;
        Ok(self.written)
    }
}
