//! Heads and manifests from anywhere: whatever the bytes, an answer or an error, and what is valid comes back.
#![allow(clippy::unwrap_used, missing_docs)]

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::writer::WriterKey;
use agent_trace_store::{EventId, SegmentId, Seq, Timestamp};
use agent_trace_sync::head::Head;
use agent_trace_sync::limits::{MANIFEST_DEPTH_MAX, MANIFEST_SEGMENTS_MAX};
use agent_trace_sync::manifest::{Manifest, NO_MANIFEST};
use proptest::prelude::*;

fn head() -> (WriterKey, Head) {
    let key = WriterKey::generate(SimDisk::new(5).env().entropy.as_ref());
    let tip = key.tip(Seq::new(7).unwrap(), EventId::of(b"event"));
    let head = Head {
        remote: [1; 16],
        writer: key.id(),
        generation: 3,
        previous: [2; 32],
        manifest: [3; 32],
        time: Timestamp::from_micros(9),
        tips: vec![tip],
    };
    (key, head)
}

#[test]
fn a_head_comes_back_and_no_changed_byte_passes() {
    let (key, head) = head();
    let bytes = head.encode(&key);
    assert_eq!(Head::decode(&bytes).unwrap(), head);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(Head::decode(&changed).is_err(), "byte {at}");
        assert!(Head::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_head_signed_by_another_is_refused() {
    let (_, head) = head();
    let other = WriterKey::generate(SimDisk::new(6).env().entropy.as_ref());
    let bytes = Head { writer: other.id(), ..head.clone() }.encode(&other);
    let mut forged = bytes.clone();
    forged[28..60].copy_from_slice(head.writer.as_bytes());
    assert!(Head::decode(&bytes).is_ok());
    assert!(Head::decode(&forged).is_err());
}

#[test]
fn a_manifest_comes_back_at_its_limits_and_not_beyond() {
    let segment = (SegmentId::from_bytes([4; 32]), 9);
    let check = |manifest: &Manifest, fits: bool| {
        let bytes = manifest.encode();
        let read = Manifest::decode(&Manifest::id(&bytes), &bytes);
        assert_eq!(
            read.is_ok_and(|read| read == *manifest),
            fits,
            "{} {}",
            manifest.depth,
            manifest.added.len()
        );
    };
    check(&Manifest::default(), true);
    check(&Manifest { added: vec![segment; MANIFEST_SEGMENTS_MAX], ..Manifest::default() }, true);
    let chained = |depth| Manifest { previous: [5; 32], depth, ..Manifest::default() };
    check(&chained(MANIFEST_DEPTH_MAX), true);
    check(&chained(MANIFEST_DEPTH_MAX + 1), false);
    check(&chained(0), false);
    check(&Manifest { previous: NO_MANIFEST, depth: 1, ..Manifest::default() }, false);
    let many = vec![segment.0; MANIFEST_SEGMENTS_MAX + 1];
    check(&Manifest { replaces: many, ..Manifest::default() }, false);
    let bytes = Manifest { added: vec![segment], ..Manifest::default() }.encode();
    assert!(Manifest::decode(&[0; 32], &bytes).is_err(), "under another name");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Head::decode(&bytes);
        let _ = Manifest::decode(&Manifest::id(&bytes), &bytes);
    }

    #[test]
    fn no_damaged_manifest_panics(at in 0usize..120, value in any::<u8>(), cut in 0usize..200) {
        let segment = (SegmentId::from_bytes([4; 32]), 9);
        let mut bytes = Manifest { added: vec![segment; 2], replaces: vec![segment.0], ..Manifest::default() }.encode();
        let length = bytes.len();
        bytes[at % length] = value;
        bytes.truncate(cut.max(1));
        let _ = Manifest::decode(&Manifest::id(&bytes), &bytes);
    }
}
