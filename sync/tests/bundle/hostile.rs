//! Bundles that somebody has made to do harm, or that a disk has damaged: refused, and nothing changed.

use agent_trace_store::writer::WriterKey;
use agent_trace_store::{Error, ErrorKind, Kind, Seq};
use agent_trace_sync::bundle::{
    Entry, HEADER_BYTES, encode_directory, encode_entry, encode_header, encode_trailer, read_places,
};
use agent_trace_sync::head::Head;

use crate::world::{Memory, World, add, files, open, sound, trace};

fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid)
}

fn small(world: &World) -> (agent_trace_store::Store, Vec<u8>) {
    let one = world.store("/one");
    add(&one, Kind::TRACE, (0..3).map(trace));
    world.snapshot(&one, "conversation-1", b"some bytes of a transcript", 1);
    let bytes = world.all(&one);
    (one, bytes)
}

/// Puts a bundle together of entries as they are given, with hashes that fit.
fn put_together(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = encode_header();
    let mut listed = Vec::new();
    for (key, content) in entries {
        bytes.extend(encode_entry(key, content.len() as u64));
        let hash = *blake3::hash(content).as_bytes();
        listed.push(Entry {
            key: key.clone(),
            offset: bytes.len() as u64,
            bytes: content.len() as u64,
            hash,
        });
        bytes.extend_from_slice(content);
    }
    close(bytes, &listed)
}

fn close(mut bytes: Vec<u8>, listed: &[Entry]) -> Vec<u8> {
    let (at, directory) = (bytes.len() as u64, encode_directory(listed));
    bytes.extend_from_slice(&directory);
    bytes.extend(encode_trailer(at, &directory));
    bytes
}

fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let places = read_places(&Memory(bytes.to_vec())).unwrap();
    let content = |entry: &Entry| {
        let start = usize::try_from(entry.offset).unwrap();
        bytes[start..start + usize::try_from(entry.bytes).unwrap()].to_vec()
    };
    places.iter().map(|entry| (entry.key.clone(), content(entry))).collect()
}

fn refused(world: &World, what: &str, bytes: &[u8]) {
    let two = world.store(&format!("/refused {what}"));
    let before = files(world, &two);
    match world.try_import(&two, bytes) {
        Err(error) => assert!(is_refusal(&error), "{what}: {error:?}"),
        Ok(report) => panic!("{what}: {report:?}"),
    }
    assert_eq!(files(world, &two), before, "{what}");
}

#[test]
fn a_bundle_that_is_cut_at_any_byte_is_refused() {
    let world = World::new();
    let (_one, bytes) = small(&world);
    let two = world.store("/two");
    let before = files(&world, &two);
    for length in 0..bytes.len() {
        let error = world.try_import(&two, &bytes[..length]).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut at {length}: {error:?}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(is_refusal(&world.try_import(&two, &longer).unwrap_err()));
    assert_eq!(files(&world, &two), before);
    world.import(&two, &bytes);
}

#[test]
fn a_bit_that_flips_anywhere_is_seen() {
    let world = World::new();
    let (_one, bytes) = small(&world);
    let two = world.store("/two");
    let before = files(&world, &two);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let error = world.try_import(&two, &flipped).map(|_| ()).unwrap_err();
        assert!(is_refusal(&error), "bit of byte {at}: {error:?}");
    }
    assert_eq!(files(&world, &two), before);
}

#[test]
fn entries_that_are_not_where_they_say_are_refused() {
    let world = World::new();
    let (_one, bytes) = small(&world);
    let good = read_places(&Memory(bytes.clone())).unwrap();
    let end = usize::try_from(good.last().map(|entry| entry.offset + entry.bytes).unwrap()).unwrap();
    let with = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut listed = good.clone();
        change(&mut listed);
        close(bytes[..end].to_vec(), &listed)
    };
    refused(&world, "overlap", &with(&|listed| listed[1].offset -= 1));
    refused(&world, "gap", &with(&|listed| listed[1].offset += 1));
    refused(&world, "longer", &with(&|listed| listed[0].bytes += 1));
    refused(&world, "huge", &with(&|listed| listed.last_mut().unwrap().bytes = u64::MAX));
    refused(&world, "far", &with(&|listed| listed[0].offset = u64::MAX - 3));
    refused(&world, "missing", &with(&|listed| drop(listed.pop())));
    refused(&world, "swapped", &with(&|listed| listed.swap(0, 1)));
    refused(&world, "hash", &with(&|listed| listed[0].hash[0] ^= 1));
    refused(&world, "other key", &with(&|listed| listed[0].key = "formaz".to_owned()));
    refused(&world, "nothing", &close(encode_header(), &[]));
    refused(&world, "bytes between", &{
        let mut longer = bytes[..end].to_vec();
        longer.extend_from_slice(b"hidden");
        close(longer, &good)
    });
    refused(&world, "no end", &bytes[..HEADER_BYTES]);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let world = World::new();
    let (_one, bytes) = small(&world);
    let good = read_places(&Memory(bytes.clone())).unwrap();
    for name in
        ["..", "../x", "/etc/passwd", "segments/../x", "heads/.x", "a/b", "", "segments/", "C:x", "X", "a\0b"]
    {
        // Such a key cannot be encoded by our own means, so it is put there by hand.
        let mut forged = bytes[..HEADER_BYTES].to_vec();
        forged.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        forged.extend(1u64.to_le_bytes());
        forged.extend_from_slice(name.as_bytes());
        let hash = *blake3::hash(b"x").as_bytes();
        let entry = Entry { key: name.to_owned(), offset: forged.len() as u64, bytes: 1, hash };
        forged.push(b'x');
        refused(
            &world,
            &format!("name {}", name.escape_debug()).replace(['/', '.'], "_"),
            &close(forged, &[entry]),
        );
    }
    let mut double = good.clone();
    double.push(good[0].clone());
    let end = good.iter().map(|entry| entry.offset + entry.bytes).max().unwrap();
    refused(&world, "double", &close(bytes[..usize::try_from(end).unwrap()].to_vec(), &double));
}

#[test]
fn what_no_head_leads_to_and_what_is_not_there_is_refused() {
    let world = World::new();
    let (_one, bytes) = small(&world);
    let good = entries(&bytes);
    let without = |start: &str| {
        let kept: Vec<_> = good.iter().filter(|(key, _)| !key.starts_with(start)).cloned().collect();
        put_together(&kept)
    };
    assert_eq!(put_together(&good), bytes, "the parts make the whole");
    for part in ["format", "bundle.json", "manifests/", "segments/", "heads/"] {
        refused(&world, &format!("without {}", part.replace('/', "")), &without(part));
    }
    let with = |key: &str, content: &[u8]| {
        let mut more = good.clone();
        more.push((key.to_owned(), content.to_vec()));
        put_together(&more)
    };
    refused(&world, "stray file", &with("readme", b"hello"));
    refused(&world, "stray segment", &with(&format!("segments/{:064x}", 1), b"x"));
    refused(&world, "stray manifest", &with(&format!("manifests/{:064x}", 1), b"x"));
    refused(&world, "head of nobody", &with("heads/nobody", b"x"));
    let changed = |start: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut parts = good.clone();
        for (key, content) in &mut parts {
            if key.starts_with(start) {
                change(content);
            }
        }
        put_together(&parts)
    };
    refused(&world, "forged head", &changed("heads/", &|bytes| bytes[60] ^= 1));
    refused(&world, "forged manifest", &changed("manifests/", &|bytes| bytes[50] ^= 1));
    refused(&world, "longer segment", &changed("segments/", &|bytes| bytes.push(0)));
    refused(&world, "empty segment", &changed("segments/", &Vec::clear));
    refused(
        &world,
        "other id",
        &changed("format", &|bytes| bytes[25] = if bytes[25] == b'0' { b'1' } else { b'0' }),
    );
    let said = |from: &str, to: &str| {
        changed("bundle.json", &|bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{text}");
            *bytes = text.replacen(from, to, 1).into_bytes();
        })
    };
    refused(&world, "false count", &said("\"trace\": 3", "\"trace\": 30"));
    refused(&world, "false objects", &said("\"objects\": ", "\"objects\": 1"));
    refused(&world, "false bytes", &said("\"segment_bytes\": ", "\"segment_bytes\": 1"));
    refused(&world, "false cursor", &said("\"cursor\": \"atc1-", "\"cursor\": \"atc2-"));
    refused(&world, "deep json", &changed("bundle.json", &|bytes| *bytes = b"[".repeat(100_000)));
}

#[test]
fn a_bit_in_a_part_whose_hashes_fit_is_seen_too() {
    let world = World::new();
    let (_one, bytes) = small(&world);
    let good = entries(&bytes);
    let two = world.store("/two");
    let before = files(&world, &two);
    for (number, (key, content)) in good.iter().enumerate() {
        if key == "bundle.json" || key == "format" {
            // What people read of the one, such as the name of the program, is believed in nothing; of the other, large
            // digits mean the same as small ones.
            continue;
        }
        for at in (0..content.len()).step_by(1 + content.len() / 400) {
            let mut parts = good.clone();
            parts[number].1[at] ^= 1 << (at % 8);
            let error = match world.try_import(&two, &put_together(&parts)) {
                Err(error) => error,
                Ok(report) => panic!("`{key}` at {at}: {report:?}"),
            };
            assert!(
                is_refusal(&error) || error.kind() == ErrorKind::Unsupported,
                "`{key}` at {at}: {error:?}"
            );
        }
    }
    assert_eq!(files(&world, &two), before);
    world.import(&two, &bytes);
    sound(&two);
}

#[test]
fn a_newer_bundle_is_told_from_a_damaged_one() {
    let mut newer = b"ATBUNDLE\x02\0\0\0".to_vec();
    let check = blake3::hash(&newer);
    newer.extend_from_slice(&check.as_bytes()[..4]);
    newer.extend_from_slice(&[0; 100]);
    assert_eq!(open(&newer).map(|_| ()).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// Where limits can be made small: the usual one would take gigabytes.
#[cfg(feature = "sim")]
#[test]
fn what_grows_without_measure_is_refused_before_it_is_decompressed() {
    let world = World::new();
    let one = world.store("/one");
    let zeros = "0".repeat(200_000);
    let text: String = (0..40).map(|number| format!("{number:08}{zeros}")).collect();
    world.snapshot(&one, "zeros", text.as_bytes(), 1);
    let bytes = world.all(&one);
    assert!(bytes.len() < 7_000, "{}", bytes.len());
    agent_trace_store::switches::make_small(true);
    refused(&world, "bomb", &bytes);
    agent_trace_store::switches::make_small(false);
    world.import(&world.store("/two"), &bytes);
}

#[test]
fn events_that_their_writer_has_not_signed_are_refused() {
    let world = World::new();
    let (_one, bytes) = small(&world);
    let attacker = WriterKey::from_secret(&[9; 32]);
    let forged = |change: &dyn Fn(&mut Head)| {
        let parts = entries(&bytes).into_iter().map(|(key, content)| {
            if !key.starts_with("heads/") {
                return (key, content);
            }
            let mut head = Head::decode(&content).unwrap();
            head.writer = attacker.id();
            change(&mut head);
            (Head::key(&attacker.id()), head.encode(&attacker))
        });
        put_together(&parts.collect::<Vec<_>>())
    };
    refused(&world, "no tips", &forged(&|head| head.tips.clear()));
    refused(&world, "tip of another log", &forged(&|head| head.tips[0].writer = attacker.id()));
    refused(&world, "longer tip", &forged(&|head| head.tips[0].seq = Seq::new(99).unwrap()));
    let shorter = attacker.tip(Seq::new(4).unwrap(), entries_tip(&bytes));
    refused(&world, "tip signed by another", &forged(&|head| head.tips = vec![shorter]));
    refused(&world, "of another bundle", &forged(&|head| head.remote = [7; 16]));
    refused(&world, "manifest of nowhere", &forged(&|head| head.manifest = [7; 32]));
    // Whoever relays a bundle may put it under his own head.
    world.import(&world.store("/two"), &forged(&|_| {}));
}

fn entries_tip(bytes: &[u8]) -> agent_trace_store::EventId {
    let head = entries(bytes).into_iter().find(|(key, _)| key.starts_with("heads/")).unwrap();
    Head::decode(&head.1).unwrap().tips[0].event
}
