//! The segment files of one store: which there are, opened once, and looked up in together.
//!
//! A sealed segment is `segments/<id>.seg`, an open one `segments/open-<nonce>.seg`. Reading needs no lock: sealed
//! files never change, and a file that has been replaced meanwhile shows as missing, upon which the caller looks
//! again.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::env::{DirEntry, Env, File};
use crate::error::{Error, Result};
use crate::frame::FrameKey;
use crate::id::{ObjectId, SegmentId, decode_hex, encode_hex};
use crate::limits::SEGMENTS_MAX;
use crate::segment::{Directory, Filter, SegmentHeader, find_ids, read_footer};
use crate::table::IdEntry;

/// A sealed segment, opened.
pub struct Sealed {
    /// Its name.
    pub id: SegmentId,
    /// Its header.
    pub header: SegmentHeader,
    /// The key of its checksums.
    pub key: FrameKey,
    /// The file.
    pub file: Box<dyn File>,
    /// Its length.
    pub bytes: u64,
    /// Where everything stands in it.
    pub directory: Directory,
    filter: OnceLock<Filter>,
    searched: AtomicU32,
}

/// Searches of one segment after which its filter is read: from then on most absent objects cost no page.
const FILTER_AFTER_SEARCHES: u32 = 32;

/// Listings of the directory until two say the same.
const LISTINGS_MAX: u32 = 16;

/// A segment file whose header or footer cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: Error,
}

/// The segment that is being written, as a reader finds it.
pub struct OpenFile {
    /// The file's path.
    pub path: PathBuf,
    /// Its header.
    pub header: SegmentHeader,
    /// The key of its checksums.
    pub key: FrameKey,
    /// The file.
    pub file: Box<dyn File>,
}

/// All segments of a store at one moment.
#[derive(Clone, Default)]
pub struct SegmentSet {
    /// Sealed segments, in order of their creation.
    pub sealed: Vec<Arc<Sealed>>,
    /// The open one, if there is one.
    pub open: Option<Arc<OpenFile>>,
    /// Files that cannot be read.
    pub unreadable: Arc<Vec<Unreadable>>,
}

/// The directory of a store's segments.
pub fn segments_dir(store: &Path) -> PathBuf {
    store.join("segments")
}

/// The file of a sealed segment.
pub fn sealed_path(store: &Path, id: &SegmentId) -> PathBuf {
    segments_dir(store).join(format!("{id}.seg"))
}

/// The file of an open segment.
pub fn open_path(store: &Path, nonce: &[u8; 16]) -> PathBuf {
    segments_dir(store).join(format!("open-{}.seg", encode_hex(nonce)))
}

impl Sealed {
    /// Opens a sealed segment's file; its name is compared with its content by `verify` alone.
    pub fn open(env: &Env, path: &Path, id: SegmentId) -> Result<Sealed> {
        let doing = || format!("cannot open segment `{}`", path.display());
        let file = env.fs.open(path).map_err(|error| Error::io(doing(), error))?;
        let bytes = file.len().map_err(|error| Error::io(doing(), error))?;
        Sealed::from_file(file, bytes, id).map_err(|error| error.context(doing()))
    }

    /// Takes a file as a sealed segment, wherever it lies.
    pub fn from_file(file: Box<dyn File>, bytes: u64, id: SegmentId) -> Result<Sealed> {
        let header = SegmentHeader::read(file.as_ref())?;
        let key = FrameKey::new(&header.nonce);
        let footer = read_footer(file.as_ref(), &key, bytes)?;
        let Some(footer) = footer else { return Err(Error::corrupt("the segment has no trailer")) };
        Ok(Sealed {
            id,
            header,
            key,
            file,
            bytes,
            directory: footer.directory,
            filter: OnceLock::new(),
            searched: AtomicU32::new(0),
        })
    }

    /// Looks an object up.
    pub fn find(&self, id: &ObjectId) -> Result<Option<IdEntry>> {
        if self.filter.get().is_none()
            && self.searched.fetch_add(1, Ordering::Relaxed) >= FILTER_AFTER_SEARCHES
        {
            self.load_filter()?;
        }
        if self.filter.get().is_some_and(|filter| !filter.admits(id)) {
            return Ok(None);
        }
        let found = find_ids(self.file.as_ref(), &self.key, &self.directory, id.as_bytes(), id.as_bytes())?;
        Ok(found.into_iter().next())
    }

    /// Reads the filter into memory, so that most look-ups of absent objects cost nothing.
    pub fn load_filter(&self) -> Result<()> {
        if self.filter.get().is_none() {
            let filter = Filter::read(self.file.as_ref(), &self.key, &self.directory)?;
            // Another thread may have been first; both read the same.
            let _ = self.filter.set(filter);
        }
        Ok(())
    }
}

impl SegmentSet {
    /// Lists the directory and opens what the previous set did not have open. A file that gets another name while the
    /// directory is read may show under neither, so it is read until it says the same twice.
    pub fn load(env: &Env, store: &Path, previous: &SegmentSet) -> Result<SegmentSet> {
        let mut entries = list(env, store)?;
        for _ in 0..LISTINGS_MAX {
            let set = SegmentSet::load_listed(env, store, previous, &entries)?;
            let again = list(env, store)?;
            if again == entries {
                return Ok(set);
            }
            entries = again;
        }
        SegmentSet::load_listed(env, store, previous, &entries)
    }

    fn load_listed(
        env: &Env,
        store: &Path,
        previous: &SegmentSet,
        entries: &[DirEntry],
    ) -> Result<SegmentSet> {
        let dir = segments_dir(store);
        let mut known: HashMap<SegmentId, Arc<Sealed>> =
            previous.sealed.iter().map(|sealed| (sealed.id, Arc::clone(sealed))).collect();
        let mut set = SegmentSet::default();
        let mut unreadable = Vec::new();
        for entry in entries {
            let path = dir.join(&entry.name);
            let Some(stem) = entry.name.to_str().and_then(|name| name.strip_suffix(".seg")) else { continue };
            if let Some(nonce) = stem.strip_prefix("open-") {
                match open_file(env, &path, nonce, previous) {
                    Ok(open) => set.open = Some(open),
                    // Sealed between the listing and now.
                    Err(error) if error.kind() == crate::ErrorKind::NotFound => {}
                    Err(error) => unreadable.push(Unreadable { path, error }),
                }
            } else if let Ok(id) = SegmentId::parse(stem) {
                match known.remove(&id).map_or_else(|| Sealed::open(env, &path, id).map(Arc::new), Ok) {
                    Ok(sealed) => set.sealed.push(sealed),
                    // Compacted away between the listing and now.
                    Err(error) if error.kind() == crate::ErrorKind::NotFound => {}
                    Err(error) => unreadable.push(Unreadable { path, error }),
                }
            }
        }
        set.sealed.sort_by_key(|sealed| (sealed.header.created, sealed.id));
        set.unreadable = Arc::new(unreadable);
        Ok(set)
    }

    /// Whether the segment with this nonce is in the set, open or sealed.
    pub fn holds(&self, nonce: &[u8; 16]) -> bool {
        self.open.as_ref().is_some_and(|open| open.header.nonce == *nonce)
            || self.sealed.iter().any(|sealed| sealed.header.nonce == *nonce)
    }

    /// The sealed segment with this name.
    pub fn get(&self, id: &SegmentId) -> Option<&Arc<Sealed>> {
        self.sealed.iter().find(|sealed| sealed.id == *id)
    }

    /// Looks an object up in all sealed segments, newest first. Damage in one of them does not hide what another holds.
    pub fn find(&self, id: &ObjectId) -> Result<Option<(Arc<Sealed>, IdEntry)>> {
        let mut damage = None;
        for sealed in self.sealed.iter().rev() {
            match sealed.find(id) {
                Ok(Some(entry)) => return Ok(Some((Arc::clone(sealed), entry))),
                Ok(None) => {}
                Err(error) => {
                    damage.get_or_insert(error);
                }
            }
        }
        damage.map_or(Ok(None), Err)
    }
}

/// The names in the directory of a store's segments.
fn list(env: &Env, store: &Path) -> Result<Vec<DirEntry>> {
    let dir = segments_dir(store);
    let entries = env
        .fs
        .list(&dir)
        .map_err(|error| Error::io(format!("cannot list segments in `{}`", dir.display()), error))?;
    if entries.len() > SEGMENTS_MAX {
        return Err(Error::invalid(format!("`{}` holds more than {SEGMENTS_MAX} files", dir.display())));
    }
    Ok(entries)
}

fn open_file(env: &Env, path: &Path, nonce: &str, previous: &SegmentSet) -> Result<Arc<OpenFile>> {
    let mut expected = [0; 16];
    if !decode_hex(nonce, &mut expected) {
        return Err(Error::corrupt(format!("`{}` has no segment's name", path.display())));
    }
    if let Some(open) = previous.open.as_ref().filter(|open| open.header.nonce == expected) {
        // The name may be gone while the handle still works; then it has been sealed.
        match env.fs.metadata(path) {
            Ok(_) => return Ok(Arc::clone(open)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(format!("cannot open segment `{}`", path.display()), error)),
        }
    }
    let doing = || format!("cannot open segment `{}`", path.display());
    let file = env.fs.open(path).map_err(|error| Error::io(doing(), error))?;
    let header = SegmentHeader::read(file.as_ref()).map_err(|error| error.context(doing()))?;
    if header.nonce != expected {
        return Err(Error::corrupt(format!("`{}` has the header of another segment", path.display())));
    }
    let key = FrameKey::new(&header.nonce);
    Ok(Arc::new(OpenFile { path: path.to_owned(), header, key, file }))
}
