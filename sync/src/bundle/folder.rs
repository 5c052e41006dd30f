//! A bundle as a folder that is being written: it gets its name when all of it is there.

use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, Lock, LockMode};
use agent_trace_store::layout::create_dir_durably;
use agent_trace_store::{Error, Result};

use crate::bundle::write::{MARK, aside, parent};
use crate::transport::{Folder, Transport};

/// A directory that is written aside.
pub struct NewDir {
    env: Env,
    aside: PathBuf,
    path: PathBuf,
    named: bool,
    _mark: Option<Box<dyn Lock>>,
}

impl NewDir {
    /// Starts a directory, where there is none or an empty one.
    pub fn create(env: &Env, path: &Path) -> Result<NewDir> {
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        match env.fs.list(path) {
            Ok(entries) if !entries.is_empty() => {
                return Err(Error::invalid(format!("`{}` is not empty", path.display())));
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(doing(error)),
            _ => {}
        }
        let aside = aside(env, path)?;
        create_dir_durably(env, &aside).map_err(doing)?;
        let mark = env.fs.try_lock(&aside.join(MARK), LockMode::Exclusive).map_err(doing)?;
        Ok(NewDir { env: env.clone(), aside, path: path.to_owned(), named: false, _mark: mark })
    }

    /// Where its files are written.
    pub fn aside(&self) -> &Path {
        &self.aside
    }

    /// Gives it its name; durable when this returns, as far as what is in it is.
    pub fn finish(mut self) -> Result<()> {
        let doing = |error| Error::io(format!("cannot write `{}`", self.path.display()), error);
        for name in [MARK, ".format.lock"] {
            match self.env.fs.remove(&self.aside.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(doing(error)),
                _ => {}
            }
        }
        self.env.fs.sync_dir(&self.aside).map_err(doing)?;
        self.env.fs.rename(&self.aside, &self.path).map_err(doing)?;
        self.named = true;
        self.env.fs.sync_dir(parent(&self.path)).map_err(doing)
    }
}

impl Drop for NewDir {
    fn drop(&mut self) {
        if !self.named {
            // A directory without a name that counts; the next run removes it.
            let _ = self.env.fs.remove_dir_all(&self.aside);
        }
    }
}

/// A bundle as a folder that is written aside.
pub struct NewFolder {
    dir: NewDir,
    folder: Folder,
}

impl NewFolder {
    /// Starts a folder, where there is none or an empty one.
    pub fn create(env: &Env, path: &Path) -> Result<NewFolder> {
        let dir = NewDir::create(env, path)?;
        let folder = Folder::new(env, dir.aside());
        folder.make()?;
        Ok(NewFolder { dir, folder })
    }

    /// How it is written.
    pub fn transport(&self) -> &dyn Transport {
        &self.folder
    }

    /// The same for what wraps a transport and owns it.
    pub fn owned(&self) -> Box<dyn Transport> {
        Box::new(Folder::new(&self.dir.env, &self.dir.aside))
    }

    /// Gives the folder its name; durable when this returns.
    pub fn finish(self) -> Result<()> {
        self.dir.finish()
    }
}
