//! A bundle that is read: a remote in one file, opened once, read at any place. Nothing can be written to it.
//!
//! Opening reads both ends and compares the directory with what each entry says of itself; contents are compared with their
//! hashes where they are read whole.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use agent_trace_store::env::File;
use agent_trace_store::{Error, ErrorKind, Result, SegmentId};

use crate::bundle::container::{Entry, check_entry, copy_entry, read_places};
use crate::bundle::write::{files_below, names_below};
use crate::transport::{Listed, Outlet, Standing, Transport, Upload};

/// A bundle in one file.
pub struct BundleFile {
    file: Arc<dyn File>,
    entries: BTreeMap<String, Entry>,
    place: String,
}

/// An entry of a bundle as a file of its own.
pub(crate) struct Window {
    file: Arc<dyn File>,
    start: u64,
    bytes: u64,
}

impl File for Window {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buffer.len().min(rest);
        if length == 0 {
            return Ok(0);
        }
        self.file.read_at(&mut buffer[..length], self.start + offset)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl BundleFile {
    /// Opens a bundle; `place` is where it is, for people.
    pub fn open(file: Arc<dyn File>, place: &str) -> Result<BundleFile> {
        let entries = read_places(file.as_ref())?;
        entries.iter().try_for_each(|entry| check_entry(file.as_ref(), entry))?;
        let entries = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        Ok(BundleFile { file, entries, place: place.to_owned() })
    }

    /// What is in it.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Compares all contents with their hashes.
    pub fn check(&self, read: &dyn Fn(u64)) -> Result<()> {
        for entry in self.entries.values() {
            copy_entry(self.file.as_ref(), entry, &mut |part| {
                read(part.len() as u64);
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn sealed() -> Error {
    Error::new(ErrorKind::Denied, "a bundle is written once, by `agent-trace export`, and never changed")
}

impl Outlet for BundleFile {
    fn send(&self, _id: &SegmentId, _file: &dyn File, _bytes: u64, _sent: &dyn Fn(u64)) -> Result<()> {
        Err(sealed())
    }

    fn create(&self) -> Result<Box<dyn Upload>> {
        Err(sealed())
    }

    fn keep_segment(&self, _id: &SegmentId, _bytes: u64) -> Result<bool> {
        Err(sealed())
    }
}

impl Transport for BundleFile {
    fn read(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.entries.get(key) else { return Ok(None) };
        if entry.bytes > bytes_max {
            return Err(Error::corrupt(format!(
                "`{key}` of the bundle is over its limit of {bytes_max} bytes"
            )));
        }
        let mut content = Vec::with_capacity(usize::try_from(entry.bytes).unwrap_or_default());
        copy_entry(self.file.as_ref(), entry, &mut |part| {
            content.extend_from_slice(part);
            Ok(())
        })?;
        Ok(Some(content))
    }

    fn open(&self, key: &str) -> Result<Option<Box<dyn File>>> {
        let window = |entry: &Entry| {
            let file = Arc::clone(&self.file);
            Box::new(Window { file, start: entry.offset, bytes: entry.bytes }) as Box<dyn File>
        };
        Ok(self.entries.get(key).map(window))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        Ok(names_below(self.entries.values(), prefix))
    }

    fn survey(&self, prefix: &str) -> Result<Vec<Standing>> {
        Ok(files_below(self.entries.values(), prefix))
    }

    fn write(&self, _key: &str, _content: &[u8]) -> Result<()> {
        Err(sealed())
    }

    fn write_once(&self, _key: &str, _content: &[u8]) -> Result<()> {
        Err(sealed())
    }

    fn keep(&self, _key: &str) -> Result<()> {
        Err(sealed())
    }

    fn remove(&self, _key: &str) -> Result<()> {
        Err(sealed())
    }

    fn claim(&self, _owner: &str) {}

    fn sweep(&self) -> Result<()> {
        Ok(())
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn requests(&self) -> u64 {
        0
    }
}
