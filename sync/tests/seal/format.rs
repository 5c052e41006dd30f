//! Sealed bytes: what was sealed comes back, and nothing else is taken.

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::env::{Env, File};
use agent_trace_sync::seal::Ring;
use agent_trace_sync::seal::file::SealedFile;
use agent_trace_sync::seal::frames::{
    self, DataKey, FRAME_BYTES, FileKind, HEADER_BYTES, Header, Place, SEALED_FRAME_BYTES, Sealer, Shape,
    frame_at, padded, sealed_bytes,
};
use proptest::prelude::*;

const REMOTE: [u8; 16] = [7; 16];
const NAME: [u8; 32] = [9; 32];
const PLACE: Place = Place { remote: REMOTE, kind: FileKind::Segment, name: [0; 32] };

struct Memory(Vec<u8>);

impl File for Memory {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<usize> {
        unreachable!()
    }

    fn set_len(&self, _: u64) -> std::io::Result<()> {
        unreachable!()
    }

    fn sync(&self) -> std::io::Result<()> {
        unreachable!()
    }
}

fn env() -> Env {
    SimDisk::new(1).env()
}

fn ring() -> Ring {
    Ring::from_keys(REMOTE, &[[1; 32], [2; 32]], Vec::new())
}

fn content(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

fn seal(env: &Env, bytes: &[u8]) -> Vec<u8> {
    frames::seal(env, &ring().data(2).unwrap(), 2, &PLACE, &NAME, bytes)
}

fn open(place: &Place, sealed: &[u8]) -> agent_trace_store::Result<Vec<u8>> {
    let key = ring().data(frames::header_of(sealed)?.epoch)?;
    let whole = frames::open(&key, place, sealed).map(|(name, content)| {
        assert_eq!(name, NAME);
        content
    });
    // What is read in parts is what is read whole, or refused where that is.
    let file = SealedFile::open(Box::new(Memory(sealed.to_vec())), &ring(), place);
    let parts = file.and_then(|file| {
        let mut content = vec![0; usize::try_from(file.trailer().bytes).unwrap()];
        let file: &dyn File = &file;
        file.read_exact_at(&mut content, 0).map_err(|error| agent_trace_store::Error::io("parts", error))?;
        Ok(content)
    });
    match (&whole, &parts) {
        (Ok(whole), Ok(parts)) => assert!(whole == parts),
        (Err(_), Err(_)) => {}
        // Padding is compared only where all of it is read.
        (whole, parts) => panic!("whole {:?}, in parts {:?}", whole.is_ok(), parts.is_ok()),
    }
    whole
}

const SIZES: [usize; 9] =
    [0, 1, 1023, 1024, 1025, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES + 77];

#[test]
fn what_was_sealed_comes_back() {
    let env = env();
    for size in SIZES {
        let content = content(size);
        let sealed = seal(&env, &content);
        assert_eq!(sealed.len() as u64, sealed_bytes(size as u64), "{size}");
        assert_eq!(Shape::of_sealed(sealed.len() as u64), Some(Shape::of_content(size as u64)), "{size}");
        assert!(open(&PLACE, &sealed).unwrap() == content, "{size}");
        assert_ne!(sealed, seal(&env, &content), "equal contents are sealed to different bytes");
    }
}

#[test]
fn lengths_are_padded_by_at_most_a_sixteenth() {
    for bytes in (0..5_000).chain([65_535, 65_536, 1 << 20, (1 << 20) + 1, (1 << 30) - 1]) {
        let padded = padded(bytes);
        assert!(padded >= bytes && padded >= 1024 && padded <= (bytes.max(1024)) * 17 / 16 + 1, "{bytes}");
        assert_eq!(frames::padded(padded), padded, "{bytes}");
    }
}

#[test]
fn each_bit_counts() {
    let env = env();
    let sealed = seal(&env, &content(1500));
    for bit in 0..sealed.len() * 8 {
        let mut other = sealed.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&PLACE, &other).is_err(), "bit {bit}");
    }
    // Of a long file the ends of each part.
    let sealed = seal(&env, &content(3 * FRAME_BYTES));
    for at in (0..sealed.len()).filter(|at| (at + 45) % SEALED_FRAME_BYTES < 90) {
        let mut other = sealed.clone();
        other[at] ^= 0x10;
        assert!(open(&PLACE, &other).is_err(), "byte {at}");
    }
}

#[test]
fn each_cut_and_each_tail_is_found() {
    let env = env();
    let sealed = seal(&env, &content(1500));
    for bytes in 0..sealed.len() {
        assert!(open(&PLACE, &sealed[..bytes]).is_err(), "{bytes}");
    }
    for more in [1, 40, SEALED_FRAME_BYTES] {
        let mut other = sealed.clone();
        other.resize(sealed.len() + more, 0);
        assert!(open(&PLACE, &other).is_err(), "{more}");
    }
    let sealed = seal(&env, &content(3 * FRAME_BYTES + 5));
    for frames in 0..3 {
        let end = usize::try_from(frame_at(frames)).unwrap();
        assert!(open(&PLACE, &sealed[..end]).is_err(), "{frames} frames");
        // Whole frames cut out of the middle.
        let mut other = sealed.clone();
        other.drain(end..end + SEALED_FRAME_BYTES);
        assert!(open(&PLACE, &other).is_err(), "without frame {frames}");
        // And put in twice.
        let mut other = sealed.clone();
        let frame = sealed[end..end + SEALED_FRAME_BYTES].to_vec();
        other.splice(end..end, frame);
        assert!(open(&PLACE, &other).is_err(), "frame {frames} twice");
    }
}

fn frame_of(sealed: &mut [u8], number: u64) -> &mut [u8] {
    let at = usize::try_from(frame_at(number)).unwrap();
    &mut sealed[at..at + SEALED_FRAME_BYTES]
}

#[test]
fn frames_do_not_move() {
    let env = env();
    let one = seal(&env, &content(3 * FRAME_BYTES + 5));
    let two = seal(&env, &content(3 * FRAME_BYTES + 5));
    let mut swapped = one.clone();
    let (first, second) = (frame_of(&mut one.clone(), 0).to_vec(), frame_of(&mut one.clone(), 1).to_vec());
    frame_of(&mut swapped, 0).copy_from_slice(&second);
    frame_of(&mut swapped, 1).copy_from_slice(&first);
    assert!(open(&PLACE, &swapped).is_err(), "within a file");
    // Between two files of the same content, as in a state that is put back in part.
    for number in 0..3 {
        let mut mixed = one.clone();
        frame_of(&mut mixed, number).copy_from_slice(frame_of(&mut two.clone(), number));
        assert!(open(&PLACE, &mixed).is_err(), "frame {number} of another file");
    }
    let last = usize::try_from(frame_at(3)).unwrap();
    let mixed = [&one[..last], &two[last..]].concat();
    assert!(open(&PLACE, &mixed).is_err(), "the last frame of another file");
    let mixed = [&two[..HEADER_BYTES], &one[HEADER_BYTES..]].concat();
    assert!(open(&PLACE, &mixed).is_err(), "the header of another file");
}

#[test]
fn a_file_belongs_to_its_place_and_epoch() {
    let sealed = seal(&env(), b"content");
    assert!(open(&PLACE, &sealed).is_ok());
    for place in [
        Place { remote: [8; 16], ..PLACE },
        Place { kind: FileKind::Head, ..PLACE },
        Place { kind: FileKind::Manifest, ..PLACE },
        Place { name: [1; 32], ..PLACE },
    ] {
        assert!(open(&place, &sealed).is_err(), "{place:?}");
    }
    for epoch in [0_u32, 1, 3, u32::MAX] {
        let mut other = sealed.clone();
        other[12..16].copy_from_slice(&epoch.to_le_bytes());
        let kind = open(&PLACE, &other).unwrap_err().kind();
        let known = ring().data(epoch).is_ok();
        let expected =
            if known { agent_trace_store::ErrorKind::Corrupt } else { agent_trace_store::ErrorKind::Locked };
        assert_eq!(kind, expected, "{epoch}");
    }
    assert!(frames::open(&DataKey::from_bytes([3; 32]), &PLACE, &sealed).is_err());
}

#[test]
fn false_lengths_are_found_by_whoever_has_the_key() {
    // Sealed by somebody who has the key and lies about the length, or pads with something.
    let env = env();
    let key = ring().data(2).unwrap();
    let header = Header { epoch: 2, nonce: [5; 16] };
    let frames = frames::Frames::new(&key, &header, &PLACE);
    let make = |length: u64, padded: &[u8]| {
        let mut sealed = header.encode().to_vec();
        let mut trailer = NAME.to_vec();
        trailer.extend_from_slice(&length.to_le_bytes());
        frames.seal(&[6; 24], 0, true, [&trailer, padded], &mut sealed);
        sealed
    };
    assert_eq!(open(&PLACE, &make(3, &[&b"abc"[..], &[0; 1021]].concat())).unwrap(), b"abc");
    for (length, padded) in [(1025, 1024), (u64::MAX, 1024), (2000, 1024), (1024, 2048), (3, 512)] {
        assert!(open(&PLACE, &make(length, &vec![0; padded])).is_err(), "{length} in {padded}");
    }
    let dirty = make(3, &[&b"abcd"[..], &[0; 1020]].concat());
    assert!(frames::open(&key, &PLACE, &dirty).is_err());
    drop(env);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_part_is_read(
        size in 0_usize..400_000,
        writes in prop::collection::vec(1_usize..90_000, 1..8),
        reads in prop::collection::vec((0_u64..450_000, 0_usize..200_000), 1..8),
    ) {
        let env = env();
        let content = content(size);
        let mut sealer = Sealer::new(&env, &ring().data(1).unwrap(), &Header::draw(&env, 1), &PLACE);
        let (mut sealed, mut at) = (Vec::new(), 0);
        for length in writes.iter().cycle() {
            let end = (at + length).min(size);
            sealer.write(&content[at..end]);
            sealed.append(sealer.sealed());
            at = end;
            if at == size {
                break;
            }
        }
        sealed.extend(sealer.end(&NAME));
        prop_assert_eq!(sealed.len() as u64, sealed_bytes(size as u64));
        let file = SealedFile::open(Box::new(Memory(sealed)), &ring(), &PLACE).unwrap();
        for (offset, length) in reads {
            let mut buffer = vec![0; length];
            let mut filled = 0;
            loop {
                let count = file.read_at(&mut buffer[filled..], offset + filled as u64).unwrap();
                if count == 0 {
                    break;
                }
                filled += count;
            }
            let start = usize::try_from(offset).unwrap().min(size);
            let expected = &content[start..(start + length).min(size)];
            prop_assert!(&buffer[..filled] == expected);
        }
    }
}
