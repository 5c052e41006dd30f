//! The example of `docs/remotes.md`: made anew from its own numbers, and compared byte for byte.

use std::fmt::Write;

use agent_trace_store::id::encode_hex;
use agent_trace_store::{SegmentId, WriterId};
use agent_trace_sync::seal::Ring;
use agent_trace_sync::seal::encrypted::encode_manifest;
use agent_trace_sync::seal::frames::{self, FileKind, Frames, Header, Place};
use agent_trace_sync::seal::names::There;

fn example() -> String {
    let remote: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let keys: [[u8; 32]; 2] = [[0x11; 32], [0x22; 32]];
    let ring = Ring::from_keys(remote, &keys, Vec::new());
    let writer = WriterId::from_bytes([0x33; 32]);
    let name = ring.head_name(&writer);
    let place = Place { remote, kind: FileKind::Head, name };
    let header = Header { epoch: 2, nonce: [0x44; 16] };
    let key = ring.data(2).unwrap();
    let mut sealed = header.encode().to_vec();
    let content = b"hello, remote";
    let mut trailer = writer.as_bytes().to_vec();
    trailer.extend_from_slice(&(content.len() as u64).to_le_bytes());
    let mut padded = content.to_vec();
    padded.resize(1024, 0);
    Frames::new(&key, &header, &place).seal(&[0x55; 24], 0, true, [&trailer, &padded], &mut sealed);
    assert_eq!(frames::open(&key, &place, &sealed).unwrap(), (*writer.as_bytes(), content.to_vec()));
    let mut text = String::new();
    let mut line = |what: &str, bytes: &[u8]| writeln!(text, "{what:<28}{}", encode_hex(bytes)).unwrap();
    line("remote", &remote);
    line("key of epoch 1", &keys[0]);
    line("key of epoch 2", &keys[1]);
    line("id of key 1", &ring.key_id(1).unwrap().0);
    line("id of key 2", &ring.key_id(2).unwrap().0);
    line("data key of epoch 2", &blake3::derive_key("agent-trace sealed remote data v1", &keys[1]));
    line("writer", writer.as_bytes());
    line("name of its head", &name);
    line("manifest", &[0x66; 32]);
    line("name of the manifest", &ring.manifest_name(&[0x66; 32]));
    line("content of the head", content);
    line("nonce of the file", &header.nonce);
    line("nonce of its frame", &[0x55; 24]);
    line("sealed, bytes 0 to 55", &sealed[..56]);
    line("sealed, bytes 56 to 87", &sealed[56..88]);
    line("sealed, bytes 1120 to 1135", &sealed[1120..]);
    line("BLAKE3 of all 1136 bytes", blake3::hash(&sealed).as_bytes());
    text
}

#[test]
fn the_example_is_made_anew() {
    let example = example();
    let docs = include_str!("../../../docs/remotes.md");
    assert!(docs.contains(&example), "docs/remotes.md has another example than\n{example}");
}

#[test]
fn rings_and_tables_come_back_and_are_bounded() {
    let ring = Ring::from_keys([1; 16], &[[2; 32], [3; 32]], vec!["one".into(), "two".into()]);
    let bytes = ring.encode();
    let again = Ring::decode(&bytes).unwrap();
    assert_eq!((again.epoch(), again.members(), again.remote()), (2, ring.members(), [1; 16]));
    assert_eq!(again.encode(), bytes);
    for end in 0..bytes.len() {
        assert!(Ring::decode(&bytes[..end]).is_err(), "{end}");
    }
    assert!(Ring::decode(&Ring::from_keys([1; 16], &[], Vec::new()).encode()).is_err(), "no key");
    let names = [There { name: SegmentId::from_bytes([4; 32]), bytes: 5 }];
    let table = encode_manifest(b"manifest", &names);
    let (manifest, found) = agent_trace_sync::seal::encrypted::decode_manifest(&table).unwrap();
    assert_eq!((manifest, found.as_slice()), (b"manifest".as_slice(), names.as_slice()));
}
