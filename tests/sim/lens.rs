//! How the auditor reads an encrypted remote: past `Encrypted`, with the keys and the format alone.

use std::collections::HashMap;
use std::path::Path;

use agent_trace_store::WriterId;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::id::{decode_hex, encode_hex};
use agent_trace_sync::manifest::{Manifest, ManifestId};
use agent_trace_sync::seal::encrypted::decode_manifest;
use agent_trace_sync::seal::frames::{FileKind, Place, header_of, open};
use agent_trace_sync::seal::names::There;
use agent_trace_sync::seal::{Ring, Secret};

/// The secret that all clients share.
pub(crate) const SECRET: &str = "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZ9K4CN";

/// The secret, as a program has it.
pub(crate) fn secret() -> Secret {
    Secret::parse(SECRET).expect("it is one")
}

/// Opens what lies on an encrypted remote.
#[derive(Default)]
pub(crate) struct Lens {
    /// By the bytes of a file of keys.
    rings: HashMap<Vec<u8>, Ring>,
    ring: Option<Ring>,
    /// Plain names of segments by their names there.
    plain: HashMap<[u8; 32], [u8; 32]>,
}

impl Lens {
    /// Takes the newest keys.
    pub(crate) fn turn(&mut self, disk: &SimDisk, remote: &Path) {
        let keys = remote.join("keys");
        let epoch = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
        let files = disk.files().into_iter().filter(|path| path.starts_with(&keys));
        let newest = files.filter_map(|path| Some((epoch(&path)?, path))).max();
        self.ring = newest.map(|(epoch, path)| {
            let sealed = disk.read_file(&path).expect("it is listed");
            let ring = self.rings.entry(sealed).or_insert_with_key(|sealed| {
                secret().unwrap(sealed).unwrap_or_else(|error| panic!("keys of epoch {epoch}: {error}"))
            });
            assert_eq!(ring.epoch(), epoch, "keys lie under their epoch");
            ring.clone()
        });
    }

    fn ring(&self) -> &Ring {
        self.ring.as_ref().expect("there are heads, so there are keys")
    }

    fn open(&self, kind: FileKind, name: [u8; 32], sealed: &[u8]) -> ([u8; 32], Vec<u8>) {
        let ring = self.ring();
        let place = Place { remote: ring.remote(), kind, name };
        let key = header_of(sealed).and_then(|header| ring.data(header.epoch));
        let opened = key.and_then(|key| open(&key, &place, sealed));
        opened.unwrap_or_else(|error| panic!("{kind:?} `{}`: {error}", encode_hex(&name)))
    }

    /// A head, by its name there: the name that it has in plain, and its bytes.
    pub(crate) fn head(&self, name: &str, sealed: &[u8]) -> (String, Vec<u8>) {
        let mut there = [0; 32];
        assert!(decode_hex(name, &mut there), "`{name}` is no name of a head");
        let (writer, content) = self.open(FileKind::Head, there, sealed);
        let writer = WriterId::from_bytes(writer);
        assert_eq!(self.ring().head_name(&writer), there, "a head lies under its writer's keyed name");
        (writer.to_string(), content)
    }

    /// The key of a manifest there.
    pub(crate) fn manifest_key(&self, id: &ManifestId) -> String {
        Manifest::key(&self.ring().manifest_name(id))
    }

    /// A manifest: its bytes, and where its segments lie.
    pub(crate) fn manifest(&self, id: &ManifestId, sealed: &[u8]) -> (Vec<u8>, Vec<There>) {
        let (name, content) = self.open(FileKind::Manifest, self.ring().manifest_name(id), sealed);
        assert_eq!(name, *id, "a manifest is sealed under its own name");
        let (plain, names) = decode_manifest(&content).unwrap_or_else(|error| panic!("{error}"));
        (plain.to_vec(), names)
    }

    /// A segment: its bytes; nothing where it has been read before.
    pub(crate) fn segment(&mut self, id: &[u8; 32], there: &There, sealed: &[u8]) -> Option<Vec<u8>> {
        assert_eq!(sealed.len() as u64, there.bytes, "a segment has the length its manifest says");
        let hash = *blake3::hash(sealed).as_bytes();
        assert_eq!(&hash, there.name.as_bytes(), "a segment lies under the hash of its sealed bytes");
        if let Some(plain) = self.plain.get(&hash) {
            assert_eq!(plain, id, "a segment has one plain name");
            return None;
        }
        let (plain, content) = self.open(FileKind::Segment, [0; 32], sealed);
        assert_eq!(plain, *id, "a segment is sealed under its own name");
        self.plain.insert(hash, plain);
        Some(content)
    }
}
