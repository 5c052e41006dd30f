//! A bundle that lies open: its heads, manifests and readable manifest have been read and fit each other.
//!
//! Nothing is passed over: what a pull would refuse and list, a bundle is refused for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use agent_trace_store::env::{Env, File};
use agent_trace_store::frame::{FRAME_HEADER_BYTES, FrameHeader};
use agent_trace_store::limits::SEGMENTS_MAX;
use agent_trace_store::segment::HEADER_BYTES;
use agent_trace_store::segments::Sealed;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, Result, SegmentId, WriterId};

use crate::bundle::container::unread;
use crate::bundle::info::{BundleInfo, INFO_KEY};
use crate::bundle::read::BundleFile;
use crate::head::{Head, RemoteId};
use crate::limits::{
    BUNDLE_DIRECTORIES_BYTES_MAX, BUNDLE_ENTRIES_MAX, BUNDLE_INFO_BYTES_MAX, BUNDLE_RAW_FACTOR_MAX,
    FORMAT_BYTES_MAX, HEAD_BYTES_MAX, HEADS_MAX, MANIFEST_BYTES_MAX, bundle_raw_bytes_free,
};
use crate::manifest::{Manifest, ManifestId, NO_MANIFEST, segment_key};
use crate::remote::{FORMAT_KEY, decode_format};
use crate::transport::{Folder, Transport};

/// An open bundle.
pub struct Bundle {
    transport: Box<dyn Transport>,
    /// Which one it is.
    pub id: RemoteId,
    /// What it says of itself; a folder that is used as a remote says nothing.
    pub info: Option<BundleInfo>,
    /// Its segments with their lengths, in the order of its manifests.
    pub segments: Vec<(SegmentId, u64)>,
    /// How far logs go, by its heads.
    pub tips: BTreeMap<WriterId, Tip>,
    /// Who has a head in it.
    pub heads: Vec<WriterId>,
}

impl Bundle {
    /// Opens a bundle in one file, in which there is nothing but the bundle.
    pub fn of_file(file: Arc<dyn File>, place: &str) -> Result<Bundle> {
        let file = BundleFile::open(file, place)?;
        Bundle::of_transport(Box::new(file), true)
    }

    /// Opens a bundle in a folder, which may also be used as a remote. Links, pipes and devices are refused.
    pub fn of_folder(env: &Env, dir: &Path) -> Result<Bundle> {
        check_plain(env, dir)?;
        Bundle::of_transport(Box::new(Folder::new(env, dir)), false)
    }

    /// Opens what is reached so; `is_strict` where nothing may be there that no head leads to.
    pub fn of_transport(transport: Box<dyn Transport>, is_strict: bool) -> Result<Bundle> {
        let place = transport.place();
        let format = transport.read(FORMAT_KEY, FORMAT_BYTES_MAX)?;
        let format = format.ok_or_else(|| Error::corrupt(format!("`{place}` has no `{FORMAT_KEY}`")))?;
        let id = decode_format(&format, &place)?;
        let info = transport.read(INFO_KEY, BUNDLE_INFO_BYTES_MAX)?;
        let info = info.map(|bytes| BundleInfo::decode(&bytes)).transpose()?;
        if let Some(info) = &info
            && info.remote()? != id
        {
            return Err(Error::corrupt("the manifest of the bundle is of another bundle"));
        }
        if is_strict && info.is_none() {
            return Err(Error::corrupt(format!("the bundle has no `{INFO_KEY}`")));
        }
        let mut bundle =
            Bundle { transport, id, info, segments: Vec::new(), tips: BTreeMap::new(), heads: Vec::new() };
        let mut manifests = BTreeSet::new();
        let (mut replaced, mut lengths) = (BTreeSet::new(), HashMap::new());
        for head in bundle.read_heads()? {
            bundle.read_manifests(&head, &mut manifests, &mut replaced, &mut lengths)?;
            for tip in head.tips {
                let known = bundle.tips.entry(tip.writer).or_insert(tip);
                if known.seq < tip.seq {
                    *known = tip;
                }
            }
            bundle.heads.push(head.writer);
        }
        if is_strict {
            bundle.check_nothing_else(&manifests, &lengths)?;
        }
        bundle.segments.retain(|(id, _)| !replaced.contains(id));
        Ok(bundle)
    }

    /// How it is reached.
    pub fn transport(&self) -> &dyn Transport {
        self.transport.as_ref()
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>> {
        Ok(self.transport.list(prefix)?.into_iter().map(|listed| listed.name).collect())
    }

    fn read_heads(&self) -> Result<Vec<Head>> {
        let names = self.names("heads")?;
        if names.len() > HEADS_MAX {
            return Err(Error::corrupt(format!("the bundle has more than {HEADS_MAX} heads")));
        }
        let mut heads = Vec::new();
        for name in names {
            let writer = WriterId::parse(&name).map_err(|error| {
                Error::corrupt(format!("head `{name}` of the bundle is no writer's")).with_source(error)
            })?;
            let bytes = self.transport.read(&Head::key(&writer), HEAD_BYTES_MAX)?;
            let bytes =
                bytes.ok_or_else(|| Error::corrupt(format!("head `{name}` of the bundle is not there")))?;
            let head = Head::decode(&bytes).map_err(|error| in_bundle(error, "a head"))?;
            if head.writer != writer || head.remote != self.id {
                return Err(Error::corrupt(format!(
                    "head `{}` is of another writer or bundle",
                    writer.short()
                )));
            }
            heads.push(head);
        }
        Ok(heads)
    }

    /// Reads the manifests that a head leads to, each once.
    fn read_manifests(
        &mut self,
        head: &Head,
        seen: &mut BTreeSet<ManifestId>,
        replaced: &mut BTreeSet<SegmentId>,
        lengths: &mut HashMap<SegmentId, u64>,
    ) -> Result<()> {
        let (mut next, mut chain, mut depth) = (head.manifest, Vec::new(), None);
        while next != NO_MANIFEST && seen.insert(next) {
            let bytes = self.transport.read(&Manifest::key(&next), MANIFEST_BYTES_MAX)?;
            let bytes =
                bytes.ok_or_else(|| Error::corrupt("a manifest that the bundle names is not in it"))?;
            let manifest = Manifest::decode(&next, &bytes).map_err(|error| in_bundle(error, "a manifest"))?;
            if depth.is_some_and(|depth| manifest.depth + 1 != depth) {
                return Err(Error::corrupt("a manifest of the bundle does not say how many stand before it"));
            }
            depth = Some(manifest.depth);
            next = manifest.previous;
            chain.push(manifest);
        }
        for manifest in chain.into_iter().rev() {
            replaced.extend(manifest.replaces);
            for (id, bytes) in manifest.added {
                match lengths.insert(id, bytes) {
                    None => self.segments.push((id, bytes)),
                    Some(before) if before == bytes => {}
                    Some(_) => {
                        return Err(Error::corrupt("two manifests of the bundle give a segment two lengths"));
                    }
                }
            }
            if self.segments.len() > SEGMENTS_MAX {
                return Err(Error::corrupt(format!("the bundle has more than {SEGMENTS_MAX} segments")));
            }
        }
        Ok(())
    }

    fn check_nothing_else(
        &self,
        manifests: &BTreeSet<ManifestId>,
        segments: &HashMap<SegmentId, u64>,
    ) -> Result<()> {
        let stray = |name: &str| {
            Err(Error::corrupt(format!("`{name}` is in the bundle, and nothing in it names it")))
        };
        for name in self.names("")? {
            if ![FORMAT_KEY, INFO_KEY, "heads", "manifests", "segments"].contains(&name.as_str()) {
                return stray(&name);
            }
        }
        for name in self.names("manifests")? {
            if !manifests.iter().any(|id| agent_trace_store::id::encode_hex(id) == name) {
                return stray(&name);
            }
        }
        for name in self.names("segments")? {
            if !SegmentId::parse(&name).is_ok_and(|id| segments.contains_key(&id)) {
                return stray(&name);
            }
        }
        Ok(())
    }

    /// Opens the file of a segment, which has the length that its manifest says.
    pub(crate) fn segment(&self, id: &SegmentId, bytes: u64) -> Result<Box<dyn File>> {
        let key = segment_key(id);
        let file = self.transport.open(&key)?;
        let file =
            file.ok_or_else(|| Error::corrupt(format!("`{key}` is named by the bundle and not in it")))?;
        let found = file.len().map_err(unread)?;
        if found != bytes {
            return Err(Error::corrupt(format!(
                "`{key}` of the bundle: expected {bytes} bytes, found {found}"
            )));
        }
        Ok(file)
    }

    /// Opens a segment where it lies.
    pub(crate) fn sealed(&self, id: &SegmentId, bytes: u64) -> Result<Sealed> {
        Sealed::from_file(self.segment(id, bytes)?, bytes, *id).map_err(|error| in_bundle(error, "a segment"))
    }

    /// Refuses what would grow without measure when it is decompressed: only the headers of frames are read.
    pub(crate) fn check_size(&self) -> Result<()> {
        let stored: u64 = self.segments.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let limit = stored.saturating_mul(BUNDLE_RAW_FACTOR_MAX).saturating_add(bundle_raw_bytes_free());
        let (mut raw, mut tables) = (0u64, 0u64);
        for (id, bytes) in &self.segments {
            let sealed = self.sealed(id, *bytes)?;
            tables = tables.saturating_add(directory_bytes(&sealed));
            if tables > BUNDLE_DIRECTORIES_BYTES_MAX {
                let limit = BUNDLE_DIRECTORIES_BYTES_MAX;
                return Err(Error::invalid(format!(
                    "the directories of the bundle's segments take more than {limit} bytes"
                )));
            }
            raw = raw.saturating_add(raw_bytes(&sealed)?);
            if raw > limit {
                return Err(Error::invalid(format!(
                    "the bundle would grow from {stored} bytes to more than {limit} when it is decompressed"
                )));
            }
        }
        Ok(())
    }
}

/// About how much memory the directory of a segment takes.
fn directory_bytes(sealed: &Sealed) -> u64 {
    let directory = &sealed.directory;
    let lists = directory.objects_frames.len() + directory.events_frames.len() + directory.tips_frames.len();
    (1024 + 128 * directory.runs.len() + 16 * lists) as u64 + sealed.bytes / 256
}

/// Bytes of the frames of a segment before compression, as their headers say.
fn raw_bytes(sealed: &Sealed) -> Result<u64> {
    let (mut at, mut raw) = (HEADER_BYTES as u64, 0u64);
    let mut header = [0; FRAME_HEADER_BYTES];
    while at + (FRAME_HEADER_BYTES as u64) <= sealed.bytes {
        sealed.file.read_exact_at(&mut header, at).map_err(unread)?;
        let frame = FrameHeader::decode(&header).map_err(|error| in_bundle(error, "a frame"))?;
        raw = raw.saturating_add(u64::from(frame.raw_bytes));
        at += frame.file_bytes();
    }
    Ok(raw)
}

/// Says of an error that it was found in a bundle; something that is newer stays that.
pub(crate) fn in_bundle(error: Error, what: &str) -> Error {
    match error.kind() {
        ErrorKind::Unsupported | ErrorKind::Failed | ErrorKind::Denied | ErrorKind::Full => error,
        _ => Error::corrupt(format!("{what} of the bundle cannot be read")).with_source(error),
    }
}

/// Refuses a folder with links, pipes or devices among what would be read.
fn check_plain(env: &Env, dir: &Path) -> Result<()> {
    let doing = |error| Error::io(format!("cannot look into `{}`", dir.display()), error);
    let mut count = 0;
    for folder in ["", "heads", "manifests", "segments"] {
        let at = if folder.is_empty() { dir.to_owned() } else { dir.join(folder) };
        let entries = match env.fs.list(&at) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !folder.is_empty() => continue,
            Err(error) => return Err(doing(error)),
        };
        count += entries.len();
        if count > BUNDLE_ENTRIES_MAX {
            return Err(Error::invalid(format!(
                "`{}` has more than {BUNDLE_ENTRIES_MAX} files",
                dir.display()
            )));
        }
        for entry in entries {
            let path = at.join(&entry.name);
            let is_ours = folder.is_empty()
                && ["heads", "manifests", "segments"].iter().any(|name| entry.name.as_os_str() == *name);
            if !env.fs.is_plain(&path).map_err(doing)? || entry.is_dir && !is_ours && !folder.is_empty() {
                return Err(Error::invalid(format!(
                    "`{}` is a link, or no file: a bundle holds files only",
                    path.display()
                )));
            }
        }
    }
    Ok(())
}
