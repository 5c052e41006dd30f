//! Secrets and epochs: who opens what, and that nothing is written where a secret does not fit.

use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::progress::Silent;
use agent_trace_store::{ErrorKind, Kind, Result, Store};
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::pull::{PullOptions, pull};
use agent_trace_sync::push::{PushOptions, push};
use agent_trace_sync::remote::{Format, Remote};
use agent_trace_sync::seal::{Access, Change, Ring, Secret};

use crate::support::{add, ledger};
use crate::{KEYS, access, remote};

fn share(env: &Env, store: &Store, access: &Access) -> Result<u64> {
    let report = push(store, &remote(env, access, true)?, &PushOptions::default(), &Silent)?;
    Ok(report.sent.values().sum())
}

fn take(env: &Env, store: &Store, access: &Access) -> Result<u64> {
    let report = pull(store, &remote(env, access, false)?, &PullOptions::default(), &Silent)?;
    assert_eq!(report.refused, Vec::<String>::new());
    Ok(report.taken.values().sum())
}

fn ledgers(store: &Store, numbers: std::ops::Range<u32>) {
    add(store, Kind::LEDGER, numbers.map(|number| ledger(number, [number])));
}

fn recipient(person: usize) -> String {
    Secret::parse(KEYS[person]).unwrap().recipients().remove(0)
}

fn passphrase(text: &str, store: &str) -> Access {
    Access { secret: Secret::parse(text).unwrap(), cache: Path::new(store).join("remotes") }
}

fn tree(disk: &SimDisk) -> Vec<(std::path::PathBuf, Option<Vec<u8>>)> {
    disk.files().into_iter().map(|path| (path.clone(), disk.read_file(&path))).collect()
}

#[test]
fn a_wrong_secret_opens_nothing_and_writes_nothing() {
    let disk = SimDisk::new(1);
    let env = disk.env();
    let (a, b) = (Store::init(&env, Path::new("/a")).unwrap(), Store::init(&env, Path::new("/b")).unwrap());
    ledgers(&a, 0..10);
    ledgers(&b, 10..20);
    assert_eq!(share(&env, &a, &access("/a", 0)).unwrap(), 10);
    let before = tree(&disk);
    for wrong in [access("/b", 1), passphrase("a passphrase of others", "/b")] {
        assert_eq!(share(&env, &b, &wrong).unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(take(&env, &b, &wrong).unwrap_err().kind(), ErrorKind::Locked);
    }
    let address = RemoteUrl::Folder("/remote".into());
    for create in [false, true] {
        let error = Remote::open(&env, &address, create).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Locked, "without a secret: {error}");
    }
    assert!(before == tree(&disk), "something was written");
    assert_eq!(take(&env, &b, &access("/b", 0)).unwrap(), 10);
}

#[test]
fn a_remote_that_lost_its_encryption_is_not_written_to() {
    let disk = SimDisk::new(1);
    let env = disk.env();
    let a = Store::init(&env, Path::new("/a")).unwrap();
    ledgers(&a, 0..10);
    share(&env, &a, &access("/a", 0)).unwrap();
    let format = disk.read_file(Path::new("/remote/format")).unwrap();
    let marked = Format::decode(&format, "/remote").unwrap();
    assert!(marked.is_encrypted);
    disk.write_file(
        Path::new("/remote/format"),
        Format { is_encrypted: false, ..marked }.encode().as_bytes(),
    );
    ledgers(&a, 10..20);
    assert_eq!(share(&env, &a, &access("/a", 0)).unwrap_err().kind(), ErrorKind::Locked);
    disk.write_file(
        Path::new("/remote/format"),
        b"agent-trace remote 2\n00112233445566778899aabbccddeeff\nencrypted 2\n",
    );
    assert_eq!(share(&env, &a, &access("/a", 0)).unwrap_err().kind(), ErrorKind::Unsupported);
    // Without its keys it is not made anew.
    disk.write_file(Path::new("/remote/format"), &format);
    let keys = disk.read_file(Path::new("/remote/keys/1")).unwrap();
    disk.remove_file(Path::new("/remote/keys/1"));
    assert_eq!(share(&env, &a, &access("/a", 0)).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(share(&env, &a, &access("/c", 0)).unwrap_err().kind(), ErrorKind::Locked);
    disk.write_file(Path::new("/remote/keys/1"), &keys);
    assert_eq!(share(&env, &a, &access("/a", 0)).unwrap(), 10);
}

#[test]
fn a_key_is_changed_for_what_comes_then() {
    let disk = SimDisk::new(1);
    let env = disk.env();
    let stores: Vec<Store> =
        ["/a", "/b", "/c"].iter().map(|dir| Store::init(&env, Path::new(dir)).unwrap()).collect();
    let people = [access("/a", 0), access("/b", 1), access("/c", 2)];
    ledgers(&stores[0], 0..10);
    share(&env, &stores[0], &people[0]).unwrap();
    assert!(take(&env, &stores[1], &people[1]).is_err());
    // Two others come in, and read what was there before.
    let change = Change { add: vec![recipient(1), recipient(2)], ..Change::default() };
    let ring = remote(&env, &people[0], false).unwrap().rotate(&env, &people[0], change).unwrap();
    assert_eq!((ring.epoch(), ring.members().len()), (2, 3));
    assert_eq!(take(&env, &stores[1], &people[1]).unwrap(), 10);
    assert_eq!(take(&env, &stores[2], &people[2]).unwrap(), 10);
    ledgers(&stores[1], 10..20);
    share(&env, &stores[1], &people[1]).unwrap();
    assert_eq!(take(&env, &stores[0], &people[0]).unwrap(), 10);
    // One goes: what is pushed from then on is not for them, what was there before is with the old key.
    let old_keys = disk.read_file(Path::new("/remote/keys/2")).unwrap();
    let change = Change { remove: vec![recipient(2)], ..Change::default() };
    remote(&env, &people[1], false).unwrap().rotate(&env, &people[1], change).unwrap();
    ledgers(&stores[0], 20..30);
    share(&env, &stores[0], &people[0]).unwrap();
    assert_eq!(take(&env, &stores[2], &people[2]).unwrap_err().kind(), ErrorKind::Locked);
    let keys = people[2].secret.unwrap(&old_keys).unwrap();
    let newest = disk.files().into_iter().filter(|path| path.starts_with("/remote/heads"));
    let epochs: Vec<u32> = newest
        .map(|path| agent_trace_sync::seal::frames::header_of(&disk.read_file(&path).unwrap()).unwrap().epoch)
        .collect();
    assert!(epochs.contains(&3), "{epochs:?}");
    assert_eq!(keys.data(3).err().unwrap().kind(), ErrorKind::Locked);
    assert_eq!(take(&env, &stores[1], &people[1]).unwrap(), 10);
    // Nobody puts the old key back unnoticed, nor another one in the place of the new one.
    let newest = disk.read_file(Path::new("/remote/keys/3")).unwrap();
    disk.remove_file(Path::new("/remote/keys/3"));
    assert_eq!(share(&env, &stores[0], &people[0]).unwrap_err().kind(), ErrorKind::Conflict);
    let forged = keys.next(&SimDisk::new(77).env(), vec![recipient(0), recipient(1)]).unwrap();
    disk.write_file(Path::new("/remote/keys/3"), &people[2].secret.wrap(&forged).unwrap());
    assert_eq!(share(&env, &stores[0], &people[0]).unwrap_err().kind(), ErrorKind::Conflict);
    disk.write_file(Path::new("/remote/keys/3"), &newest);
    ledgers(&stores[0], 30..31);
    assert_eq!(share(&env, &stores[0], &people[0]).unwrap(), 1);
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let disk = SimDisk::new(1);
    let env = disk.env();
    let a = Store::init(&env, Path::new("/a")).unwrap();
    ledgers(&a, 0..1);
    let own = access("/a", 0);
    share(&env, &a, &own).unwrap();
    let before = tree(&disk);
    let opened = || remote(&env, &own, false).unwrap();
    let change = |add: &[&str], remove: &[String]| Change {
        add: add.iter().map(|it| (*it).to_owned()).collect(),
        remove: remove.to_vec(),
        secret: None,
    };
    let rotate = |change| opened().rotate(&env, &own, change).err().map(|error| error.kind());
    assert_eq!(rotate(change(&["age1nonsense"], &[])), Some(ErrorKind::Invalid));
    assert_eq!(rotate(change(&[], &[recipient(1)])), Some(ErrorKind::NotFound));
    assert_eq!(rotate(change(&[], &[recipient(0)])), Some(ErrorKind::Invalid));
    let mut to_passphrase = change(&[&recipient(1)], &[]);
    to_passphrase.secret = Some(Secret::parse("correct horse battery").unwrap());
    assert_eq!(rotate(to_passphrase), Some(ErrorKind::Invalid));
    assert!(before == tree(&disk));
}

#[test]
fn a_passphrase_opens_and_is_exchanged() {
    let disk = SimDisk::new(1);
    let env = disk.env();
    let (a, b) = (Store::init(&env, Path::new("/a")).unwrap(), Store::init(&env, Path::new("/b")).unwrap());
    ledgers(&a, 0..3);
    let old = passphrase("correct horse battery\n", "/a");
    assert_eq!(share(&env, &a, &old).unwrap(), 3);
    let change =
        Change { secret: Some(Secret::parse("another long passphrase").unwrap()), ..Change::default() };
    remote(&env, &old, false).unwrap().rotate(&env, &old, change).unwrap();
    assert_eq!(share(&env, &a, &old).unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(take(&env, &b, &passphrase("another long passphrase", "/b")).unwrap(), 3);
    // To recipients, of whom each has a key of their own.
    let new = passphrase("another long passphrase", "/b");
    let change = Change {
        secret: Some(Secret::parse(KEYS[1]).unwrap()),
        add: vec![recipient(2)],
        ..Change::default()
    };
    let ring = remote(&env, &new, false).unwrap().rotate(&env, &new, change).unwrap();
    assert_eq!((ring.epoch(), ring.members().len()), (3, 2));
    ledgers(&a, 3..4);
    assert_eq!(share(&env, &a, &access("/a", 2)).unwrap(), 1);
    assert_eq!(take(&env, &b, &access("/b", 1)).unwrap(), 1);
}

#[test]
fn secrets_are_read_or_refused_without_showing_them() {
    for text in
        ["", "short", "two lines of\na passphrase", "AGE-SECRET-KEY-1QQQQ", &format!("{}\nnonsense", KEYS[0])]
    {
        let error = Secret::parse(text).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        for word in ["short", "nonsense", "passphrase\n", "QQQQ"] {
            assert!(!error.message().contains(word) || !text.contains(word), "{error}");
        }
    }
    let (text, recipient) = Secret::generate();
    assert_eq!(Secret::parse(&text).unwrap().recipients(), [recipient]);
    let both = Secret::parse(&format!("# mine\n{}\n\n{}\n", KEYS[0], KEYS[1])).unwrap();
    assert_eq!(both.recipients().len(), 2);
}

/// `AGENT_TRACE_BLESS=1` seals it anew, with other random bytes.
#[test]
fn a_file_of_keys_that_was_sealed_once_opens_for_ever() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keys");
    let ring = Ring::from_keys([7; 16], &[[1; 32], [2; 32]], vec![recipient(0), recipient(1)]);
    if std::env::var_os("AGENT_TRACE_BLESS").is_some() {
        std::fs::write(&path, Secret::parse(KEYS[2]).unwrap().wrap(&ring).unwrap()).unwrap();
    }
    let sealed = std::fs::read(&path).unwrap();
    for person in [0, 1] {
        let opened = Secret::parse(KEYS[person]).unwrap().unwrap(&sealed).unwrap();
        assert_eq!(opened.encode(), ring.encode());
    }
    let error = Secret::parse(KEYS[2]).unwrap().unwrap(&sealed).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Locked, "whoever seals it need not be a member");
}

#[test]
fn each_bit_of_the_keys_counts() {
    let disk = SimDisk::new(1);
    let env = disk.env();
    let a = Store::init(&env, Path::new("/a")).unwrap();
    ledgers(&a, 0..1);
    share(&env, &a, &access("/a", 0)).unwrap();
    let sealed = disk.read_file(Path::new("/remote/keys/1")).unwrap();
    let secret = Secret::parse(KEYS[0]).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut other = sealed.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(secret.unwrap(&other).is_err(), "bit {bit}");
    }
    for bytes in 0..sealed.len() {
        assert!(secret.unwrap(&sealed[..bytes]).is_err(), "{bytes}");
    }
}
