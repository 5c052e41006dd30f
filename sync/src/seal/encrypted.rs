//! An encrypted remote as if it were a plain one: whoever uses it says and hears plain names, lengths and bytes.
//!
//! | said | there |
//! |---|---|
//! | `heads/<writer>` | `heads/<keyed hash of it>`, sealed |
//! | `manifests/<id>` | `manifests/<keyed hash of it>`, sealed, with the names of the segments that it adds |
//! | `segments/<id>` | `segments/<BLAKE3 of the sealed bytes>`, by what manifests and `names` say |
//! | all else | as it is |
//!
//! What nobody with the key has sealed is not believed: plain bytes are refused as locked, all else as damaged.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_trace_store::codec::{Decoder, Encoder, length_u32};
use agent_trace_store::env::{Env, File};
use agent_trace_store::id::{decode_hex, encode_hex};
use agent_trace_store::{Error, ErrorKind, Result, SegmentId, WriterId};

use super::book::Book;
use super::file::SealedFile;
use super::frames::{self, FileKind, Frames, HEADER_BYTES, Header, Opener, Place, Shape, sealed_bytes};
use super::names::There;
use super::ring::Ring;
use super::upload::SealedUpload;
use crate::head::Head;
use crate::limits::{
    FRESH_HEADS_BYTES_MAX, HEAD_BYTES_MAX, HEADS_MAX, MANIFEST_BYTES_MAX, MANIFEST_DEPTH_MAX,
    MANIFEST_SEGMENTS_MAX,
};
use crate::manifest::{Manifest, ManifestId, NO_MANIFEST, segment_key};
use crate::transport::{Listed, Outlet, Standing, Transport, Upload, Version};

const COPY_BYTES: usize = 1 << 20;
/// What a sealed manifest holds beside the manifest.
const TABLE_BYTES_MAX: u64 = 8 + 40 * MANIFEST_SEGMENTS_MAX as u64;

/// A remote behind its encryption.
pub struct Encrypted {
    inner: Box<dyn Transport>,
    env: Env,
    ring: Arc<Ring>,
    book: Arc<Book>,
    seen: Mutex<Seen>,
}

/// What was seen of small files.
#[derive(Default)]
struct Seen {
    /// Heads that had to be read to learn whose they are, until somebody reads them.
    fresh: HashMap<WriterId, (Vec<u8>, Option<Version>)>,
    /// Heads that cannot be opened, by their names there.
    damaged: HashMap<WriterId, String>,
    /// Manifests by their names there.
    manifests: BTreeMap<[u8; 32], ManifestId>,
}

/// What a key means.
enum Key {
    Head(WriterId),
    Manifest(ManifestId),
    Segment(SegmentId),
    Other,
}

impl Key {
    fn of(key: &str) -> Key {
        match key.split_once('/') {
            Some(("heads", name)) => WriterId::parse(name).map_or(Key::Other, Key::Head),
            Some(("manifests", name)) => hex(name).map_or(Key::Other, Key::Manifest),
            Some(("segments", name)) => SegmentId::parse(name).map_or(Key::Other, Key::Segment),
            _ => Key::Other,
        }
    }
}

fn hex(name: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    decode_hex(name, &mut bytes).then_some(bytes)
}

impl Encrypted {
    /// Puts a remote behind its encryption; `names` is the file in which the names of its segments are kept here.
    pub fn new(env: &Env, inner: Box<dyn Transport>, ring: Arc<Ring>, names: &Path) -> Encrypted {
        let book = Arc::new(Book::new(env, names));
        Encrypted { inner, env: env.clone(), ring, book, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, kind: FileKind, name: [u8; 32]) -> Place {
        Place { remote: self.ring.remote(), kind, name }
    }

    fn segment_place(&self) -> Place {
        self.place(FileKind::Segment, [0; 32])
    }

    fn seal(&self, place: &Place, name: &[u8; 32], content: &[u8]) -> Result<Vec<u8>> {
        let epoch = self.ring.epoch();
        Ok(frames::seal(&self.env, &self.ring.data(epoch)?, epoch, place, name, content))
    }

    /// Reads a small sealed file: its plain name and its content.
    #[expect(
        clippy::type_complexity,
        reason = "name, content and version are told apart where they are taken"
    )]
    fn read_sealed(
        &self,
        place: &Place,
        bytes_max: u64,
    ) -> Result<Option<([u8; 32], Vec<u8>, Option<Version>)>> {
        let key = key_there(place);
        let Some((sealed, version)) = self.inner.read_version(&key, sealed_bytes(bytes_max))? else {
            return Ok(None);
        };
        let opened = frames::header_of(&sealed)
            .and_then(|header| frames::open(&self.ring.data(header.epoch)?, place, &sealed))
            .map_err(|error| error.context(format!("cannot open `{key}` of the remote")))?;
        Ok(Some((opened.0, opened.1, version)))
    }

    fn read_head(&self, writer: &WriterId, bytes_max: u64) -> Result<Option<(Vec<u8>, Option<Version>)>> {
        if let Some(fresh) = self.seen().fresh.remove(writer) {
            return Ok(Some(fresh));
        }
        let place = self.place(FileKind::Head, self.ring.head_name(writer));
        match self.read_sealed(&place, bytes_max)? {
            Some((name, content, version)) if name == *writer.as_bytes() => Ok(Some((content, version))),
            Some(_) => Err(Error::corrupt("a head is sealed for another writer")),
            None => match self.seen().damaged.get(writer) {
                Some(why) => Err(Error::corrupt(why.clone())),
                None => Ok(None),
            },
        }
    }

    fn read_manifest(&self, id: &ManifestId, bytes_max: u64) -> Result<Option<(Vec<u8>, Option<Version>)>> {
        let place = self.place(FileKind::Manifest, self.ring.manifest_name(id));
        let Some((name, content, version)) = self.read_sealed(&place, bytes_max + TABLE_BYTES_MAX)? else {
            return Ok(None);
        };
        if name != *id {
            return Err(Error::corrupt("a manifest is sealed under another name"));
        }
        let (plain, names) = decode_manifest(&content)?;
        let added = Manifest::decode(id, plain)?.added;
        if added.len() != names.len() {
            return Err(Error::corrupt("a sealed manifest does not name all its segments"));
        }
        self.book.learn(added.into_iter().map(|(id, _)| id).zip(names));
        self.seen().manifests.insert(place.name, *id);
        Ok(Some((plain.to_vec(), version)))
    }

    fn write_manifest(&self, id: &ManifestId, content: &[u8]) -> Result<()> {
        let added = Manifest::decode(id, content)?.added;
        let mut names = Vec::new();
        for (segment, _) in &added {
            names.push(self.likeliest(segment)?);
        }
        let place = self.place(FileKind::Manifest, self.ring.manifest_name(id));
        let sealed = self.seal(&place, id, &encode_manifest(content, &names))?;
        self.inner.write(&key_there(&place), &sealed)?;
        self.seen().manifests.insert(place.name, *id);
        Ok(())
    }

    /// Where a segment stands there, as far as it is known.
    fn likeliest(&self, id: &SegmentId) -> Result<There> {
        if self.book.of(id).is_empty() {
            self.learn_again(false)?;
        }
        let first = self.book.of(id).first().copied();
        first.ok_or_else(|| {
            Error::corrupt(format!("no manifest says under which name segment `{}` stands there", id.short()))
        })
    }

    /// Reads all manifests, where what was known of them is lost. With `all`, nothing may be left out.
    fn learn_again(&self, all: bool) -> Result<()> {
        let mut known = HashSet::new();
        for listed in self.inner.list("heads")? {
            let Some(name) = hex(&listed.name) else { continue };
            let read = self.read_sealed(&self.place(FileKind::Head, name), HEAD_BYTES_MAX);
            let head = match read {
                Ok(Some((_, content, _))) => Head::decode(&content),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            let mut next = match head {
                Ok(head) => head.manifest,
                Err(error) if all || error.kind() != ErrorKind::Corrupt => return Err(error),
                Err(_) => continue,
            };
            for _ in 0..=MANIFEST_DEPTH_MAX {
                if next == NO_MANIFEST || !known.insert(next) {
                    break;
                }
                let manifest = match self.read_manifest(&next, MANIFEST_BYTES_MAX) {
                    Ok(Some((content, _))) => Manifest::decode(&next, &content),
                    Ok(None) => Err(Error::corrupt("a manifest is not there")),
                    Err(error) => Err(error),
                };
                match manifest {
                    Ok(manifest) => next = manifest.previous,
                    Err(error) if all || error.kind() != ErrorKind::Corrupt => return Err(error),
                    Err(_) => break,
                }
            }
        }
        Ok(())
    }

    /// The heads, by the writers that they are of; those that are new here are read for that.
    fn list_heads(&self) -> Result<Vec<Listed>> {
        let known: HashMap<[u8; 32], WriterId> =
            self.book.writers().into_iter().map(|writer| (self.ring.head_name(&writer), writer)).collect();
        let mut heads = Vec::new();
        let mut fresh_bytes = 0;
        let (mut fresh, mut damaged, mut met) = (HashMap::new(), HashMap::new(), Vec::new());
        let listed = self.inner.list("heads")?;
        if listed.len() > HEADS_MAX {
            return Err(Error::invalid(format!("the remote has more than {HEADS_MAX} heads")));
        }
        for Listed { name, version } in listed {
            let Some(there) = hex(&name) else { continue };
            let writer = match known.get(&there) {
                Some(writer) => *writer,
                None => match self.read_sealed(&self.place(FileKind::Head, there), HEAD_BYTES_MAX) {
                    Ok(Some((name, content, version))) => {
                        let writer = WriterId::from_bytes(name);
                        met.push(writer);
                        fresh_bytes += content.len();
                        if fresh_bytes <= FRESH_HEADS_BYTES_MAX {
                            fresh.insert(writer, (content, version));
                        }
                        writer
                    }
                    Ok(None) => continue,
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        let writer = WriterId::from_bytes(there);
                        damaged.insert(writer, error.message().to_owned());
                        writer
                    }
                    Err(error) => return Err(error),
                },
            };
            heads.push(Listed { name: writer.to_string(), version });
        }
        self.book.learn_writers(met);
        let mut seen = self.seen();
        (seen.fresh, seen.damaged) = (fresh, damaged);
        Ok(heads)
    }

    /// Puts plain names in the place of those that are known; others stay. Of segments and manifests all must be known that
    /// any head names, since whoever clears up takes what nobody names for garbage.
    fn plain_names(&self, prefix: &str, names: &mut [&mut String]) -> Result<()> {
        self.learn_again(true)?;
        let by_name: HashMap<String, String> = match prefix {
            "segments" => {
                self.book.by_name().iter().map(|(there, id)| (there.to_string(), id.to_string())).collect()
            }
            "manifests" => {
                let seen = self.seen();
                seen.manifests.iter().map(|(there, id)| (encode_hex(there), encode_hex(id))).collect()
            }
            "heads" => {
                let writers = self.book.writers();
                writers.iter().map(|it| (encode_hex(&self.ring.head_name(it)), it.to_string())).collect()
            }
            _ => return Ok(()),
        };
        for name in names {
            if let Some(plain) = by_name.get(*name) {
                name.clone_from(plain);
            }
        }
        Ok(())
    }

    /// The keys there that a key stands for.
    fn keys_there(&self, key: &str) -> Vec<String> {
        match Key::of(key) {
            Key::Head(writer) => vec![format!("heads/{}", encode_hex(&self.ring.head_name(&writer)))],
            Key::Manifest(id) => {
                let is_there = self.seen().manifests.contains_key(&id);
                // What nobody names is listed, and removed, by its name there.
                let name = if is_there { id } else { self.ring.manifest_name(&id) };
                vec![format!("manifests/{}", encode_hex(&name))]
            }
            Key::Segment(id) => {
                let there = self.book.of(&id);
                if there.is_empty() {
                    return vec![key.to_owned()];
                }
                there.iter().map(|there| segment_key(&there.name)).collect()
            }
            Key::Other => vec![key.to_owned()],
        }
    }

    fn upload(&self) -> Result<SealedUpload> {
        let epoch = self.ring.epoch();
        let header = Header::draw(&self.env, epoch);
        let frames = (self.ring.data(epoch)?, header, self.segment_place());
        Ok(SealedUpload::new(&self.env, self.inner.create()?, &frames, Arc::clone(&self.book)))
    }

    fn fetch_sealed(
        &self,
        id: &SegmentId,
        there: &There,
        bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        let shape = Shape::of_sealed(there.bytes)
            .filter(|shape| *shape == Shape::of_content(bytes))
            .ok_or_else(|| Error::corrupt("a sealed segment is not as long as its manifest says"))?;
        let (mut start, mut opener) = (Vec::with_capacity(HEADER_BYTES), None);
        let mut hasher = blake3::Hasher::new();
        let mut left = bytes;
        let mut hand_on = |opener: &mut Opener| -> Result<()> {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(opener.content.len());
            left -= part as u64;
            take(&opener.content[..part])?;
            opener.content.clear();
            Ok(())
        };
        let is_there = self.inner.fetch(&segment_key(&there.name), there.bytes, &mut |mut part| {
            hasher.update(part);
            if start.len() < HEADER_BYTES {
                let (now, later) = part.split_at(part.len().min(HEADER_BYTES - start.len()));
                start.extend_from_slice(now);
                part = later;
            }
            if opener.is_none()
                && let Some(header) = start.first_chunk()
            {
                let header = Header::decode(header)?;
                let frames = Frames::new(&self.ring.data(header.epoch)?, &header, &self.segment_place());
                opener = Some(Opener::new(frames, shape));
            }
            if let Some(opener) = &mut opener {
                opener.write(part)?;
                hand_on(opener)?;
            }
            Ok(())
        })?;
        if !is_there {
            return Ok(false);
        }
        let mut opener = opener.ok_or_else(|| Error::corrupt("a sealed segment ends early"))?;
        let trailer = opener.end()?;
        hand_on(&mut opener)?;
        if trailer.name != *id.as_bytes() || trailer.bytes != bytes {
            return Err(Error::corrupt("a sealed segment is not the one that its manifest says"));
        }
        if hasher.finalize().as_bytes() != there.name.as_bytes() {
            return Err(Error::corrupt("a sealed segment does not have its hash"));
        }
        Ok(true)
    }
}

fn key_there(place: &Place) -> String {
    let prefix = if place.kind == FileKind::Head { "heads" } else { "manifests" };
    format!("{prefix}/{}", encode_hex(&place.name))
}

/// What is sealed of a manifest: its bytes, and the name and length of each segment that it adds.
pub fn encode_manifest(manifest: &[u8], names: &[There]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.prefixed(manifest).u32(length_u32(names.len()));
    for there in names {
        encoder.put(there.name.as_bytes()).u64(there.bytes);
    }
    encoder.finish()
}

/// Takes it apart.
pub fn decode_manifest(content: &[u8]) -> Result<(&[u8], Vec<There>)> {
    let mut decoder = Decoder::new("sealed manifest", content);
    let manifest = decoder.prefixed(usize::try_from(MANIFEST_BYTES_MAX).expect("small"))?;
    let mut names = Vec::new();
    for _ in 0..decoder.count(40, MANIFEST_SEGMENTS_MAX)? {
        names.push(There { name: SegmentId::from_bytes(decoder.array()?), bytes: decoder.u64()? });
    }
    decoder.finish()?;
    Ok((manifest, names))
}

impl Outlet for Encrypted {
    fn sends_at_once(&self) -> usize {
        self.inner.sends_at_once()
    }

    fn send(&self, id: &SegmentId, source: &dyn File, bytes: u64, sent: &dyn Fn(u64)) -> Result<()> {
        let mut upload = self.upload()?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        while at < bytes {
            let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(COPY_BYTES);
            source.read_exact_at(&mut buffer[..length], at).map_err(|error| {
                Error::io(format!("cannot read what is to be sent as `{}`", segment_key(id)), error)
            })?;
            hasher.update(&buffer[..length]);
            upload.write(&buffer[..length])?;
            at += length as u64;
            sent(length as u64);
        }
        if hasher.finalize().as_bytes() != id.as_bytes() {
            let short = id.short();
            return Err(Error::corrupt(format!(
                "segment `{short}` is damaged here: run `agent-trace verify`"
            )));
        }
        Box::new(upload).name(id)
    }

    fn create(&self) -> Result<Box<dyn Upload>> {
        Ok(Box::new(self.upload()?))
    }

    fn keep_segment(&self, id: &SegmentId, bytes: u64) -> Result<bool> {
        for there in self.book.of(id) {
            if there.bytes == sealed_bytes(bytes) && self.inner.keep_segment(&there.name, there.bytes)? {
                self.book.learn([(*id, there)]);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Transport for Encrypted {
    fn make(&self) -> Result<()> {
        self.inner.make()
    }

    fn read(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.read_version(key, bytes_max)?.map(|(content, _)| content))
    }

    fn read_version(&self, key: &str, bytes_max: u64) -> Result<Option<(Vec<u8>, Option<Version>)>> {
        let read = match Key::of(key) {
            Key::Head(writer) => self.read_head(&writer, bytes_max)?,
            Key::Manifest(id) => self.read_manifest(&id, bytes_max)?,
            _ => return self.inner.read_version(key, bytes_max),
        };
        if read.as_ref().is_some_and(|(content, _)| content.len() as u64 > bytes_max) {
            return Err(Error::corrupt(format!("`{key}` on the remote is over its limit")));
        }
        Ok(read)
    }

    fn open(&self, key: &str) -> Result<Option<Box<dyn File>>> {
        let Key::Segment(id) = Key::of(key) else { return self.inner.open(key) };
        if self.book.of(&id).is_empty() {
            self.learn_again(false)?;
        }
        let mut refused = None;
        for there in self.book.of(&id) {
            let Some(file) = self.inner.open(&segment_key(&there.name))? else { continue };
            match SealedFile::open(file, &self.ring, &self.segment_place()) {
                Ok(file) if file.trailer().name == *id.as_bytes() => return Ok(Some(Box::new(file))),
                Ok(_) => {
                    refused = Some(Error::corrupt("a sealed segment is not the one that its manifest says"))
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        if prefix == "heads" {
            return self.list_heads();
        }
        let mut listed = self.inner.list(prefix)?;
        if matches!(prefix, "segments" | "manifests") {
            let mut names: Vec<&mut String> = listed.iter_mut().map(|listed| &mut listed.name).collect();
            self.plain_names(prefix, &mut names)?;
        }
        Ok(listed)
    }

    fn survey(&self, prefix: &str) -> Result<Vec<Standing>> {
        let mut standing = self.inner.survey(prefix)?;
        let mut names: Vec<&mut String> = standing.iter_mut().map(|standing| &mut standing.name).collect();
        self.plain_names(prefix, &mut names)?;
        Ok(standing)
    }

    fn fetch(&self, key: &str, bytes: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let Key::Segment(id) = Key::of(key) else { return self.inner.fetch(key, bytes, take) };
        if self.book.of(&id).is_empty() {
            self.learn_again(false)?;
        }
        for there in self.book.of(&id) {
            if self.fetch_sealed(&id, &there, bytes, take)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn fetches_at_once(&self) -> usize {
        self.inner.fetches_at_once()
    }

    fn write(&self, key: &str, content: &[u8]) -> Result<()> {
        match Key::of(key) {
            Key::Head(writer) => {
                let place = self.place(FileKind::Head, self.ring.head_name(&writer));
                self.seen().fresh.remove(&writer);
                self.inner.write(&key_there(&place), &self.seal(&place, writer.as_bytes(), content)?)?;
                self.book.learn_writers([writer]);
                Ok(())
            }
            Key::Manifest(id) => self.write_manifest(&id, content),
            Key::Segment(_) => Err(Error::invalid("a segment is sent, and not written")),
            Key::Other => self.inner.write(key, content),
        }
    }

    fn write_once(&self, key: &str, content: &[u8]) -> Result<()> {
        match Key::of(key) {
            Key::Other => self.inner.write_once(key, content),
            _ => Err(Error::invalid(format!("`{key}` is written by its owner alone"))),
        }
    }

    fn keep(&self, key: &str) -> Result<()> {
        self.keys_there(key).iter().try_for_each(|key| self.inner.keep(key))
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.keys_there(key).iter().try_for_each(|key| self.inner.remove(key))?;
        if let Key::Segment(id) = Key::of(key) {
            self.book.forget(&id);
        }
        Ok(())
    }

    fn spool(&self, dir: &Path) {
        self.inner.spool(dir);
    }

    fn claim(&self, owner: &str) {
        self.inner.claim(&self.ring.owner_name(owner));
    }

    fn sweep(&self) -> Result<()> {
        self.inner.sweep()
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    fn requests(&self) -> u64 {
        self.inner.requests()
    }
}
