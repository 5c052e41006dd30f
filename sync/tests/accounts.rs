//! The accounts of a service on a simulated disk: who is let in and who is not, and what is there after power cuts and
//! failing writes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use agent_trace_store::env::sim::{FaultKind, Lies, Repeat, SimDisk};
use agent_trace_store::env::{Clock, Env};
use agent_trace_store::{Error, ErrorKind, Timestamp};
use agent_trace_sync::service::archive::{Accounts, NewToken};
use agent_trace_sync::service::embedded::{
    AccountBook, AdminSecret, DEFAULT_ORG_ID, DEFAULT_ORG_SLUG, Embedded, Missing,
};
use agent_trace_sync::service::grant::{Scope, TokenId};
use proptest::prelude::*;

const DATA: &str = "/srv/data";
const OTHER_ORG: &str = "11111111-2222-4333-8444-555555555555";

fn open(env: &Env) -> AccountBook {
    AccountBook::open(env, Path::new(DATA), Missing::Create).unwrap()
}

fn book() -> (SimDisk, AccountBook) {
    let disk = SimDisk::new(1);
    let book = open(&disk.env());
    (disk, book)
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DATA).join(name)
}

fn new_token() -> NewToken {
    NewToken {
        org_id: DEFAULT_ORG_ID.to_owned(),
        scopes: vec![Scope::Read, Scope::Write],
        ..NewToken::default()
    }
}

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    result.map(drop).unwrap_err().kind()
}

/// The error with its causes.
fn explain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

// ---- orgs, projects

#[test]
fn the_default_org_is_there_from_the_start() {
    let (_, book) = book();
    let orgs = book.orgs();
    assert_eq!(orgs.len(), 1);
    assert_eq!((orgs[0].id.as_str(), orgs[0].slug.as_str()), (DEFAULT_ORG_ID, DEFAULT_ORG_SLUG));
}

#[test]
fn an_org_is_found_by_id_then_by_slug() {
    let (disk, book) = book();
    disk.advance(1);
    let (acme, is_new) = book.put_org("acme", None, Some(&OTHER_ORG.to_uppercase())).unwrap();
    assert_eq!((acme.id.as_str(), acme.name.as_str(), is_new), (OTHER_ORG, "acme", true));
    assert_eq!(book.put_org("acme", Some("Acme"), None).unwrap(), (acme.clone(), false));
    assert_eq!(book.put_org("else", None, Some(OTHER_ORG)).unwrap(), (acme.clone(), false));
    assert_eq!(
        kind(book.put_org("acme", None, Some(DEFAULT_ORG_ID.replace('1', "2").as_str()))),
        ErrorKind::Conflict
    );
    assert_eq!(kind(book.put_org("acme", None, Some("7"))), ErrorKind::Invalid);
    for slug in ["", "Acme", "a/b", "..", "é", &"a".repeat(65)] {
        assert_eq!(kind(book.put_org(slug, None, None)), ErrorKind::Invalid, "{slug}");
    }
    assert_eq!(kind(book.put_org("long", Some(&"a".repeat(257)), None)), ErrorKind::Invalid);
    let slugs: Vec<String> = book.orgs().into_iter().map(|org| org.slug).collect();
    assert_eq!(slugs, ["default", "acme"]);
}

#[test]
fn projects_are_unique_in_their_org_and_listed_newest_first() {
    let (disk, book) = book();
    let (acme, _) = book.put_org("acme", None, None).unwrap();
    let web = book.create_project(DEFAULT_ORG_ID, "web", Some("Web"), Some("The site")).unwrap();
    disk.advance(1);
    let app = book.create_project(DEFAULT_ORG_ID, "app", None, None).unwrap();
    assert_eq!(kind(book.create_project(DEFAULT_ORG_ID, "web", None, None)), ErrorKind::Conflict);
    let other = book.create_project(&acme.id, "web", None, None).unwrap();
    assert_ne!(other.id, web.id);
    assert_eq!(book.projects(DEFAULT_ORG_ID), [app, web.clone()]);
    assert_eq!(book.projects(&acme.id), [other]);
    assert_eq!(book.projects(OTHER_ORG), []);
    assert_eq!(book.project(DEFAULT_ORG_ID, "web"), Some(web));
    assert_eq!(book.project(DEFAULT_ORG_ID, "none"), None);
    assert_eq!(book.project("none", "web"), None);
    assert_eq!(kind(book.create_project(OTHER_ORG, "web", None, None)), ErrorKind::NotFound);
    assert_eq!(kind(book.create_project(DEFAULT_ORG_ID, "We b", None, None)), ErrorKind::Invalid);
    assert_eq!(
        kind(book.create_project(DEFAULT_ORG_ID, "w", None, Some(&"d".repeat(4097)))),
        ErrorKind::Invalid
    );
}

#[test]
fn a_quota_is_set_and_taken_away() {
    let (disk, book) = book();
    assert_eq!(book.orgs()[0].quota_bytes, None);
    let changed = book.set_quota(DEFAULT_ORG_ID, Some(7)).unwrap().unwrap();
    assert_eq!((changed.slug.as_str(), changed.quota_bytes), (DEFAULT_ORG_SLUG, Some(7)));
    assert_eq!(book.set_quota(OTHER_ORG, Some(7)).unwrap(), None);
    assert_eq!(book.set_quota("none", Some(7)).unwrap(), None);
    drop(book);
    disk.crash();
    let book = open(&disk.env());
    assert_eq!(book.orgs()[0].quota_bytes, Some(7));
    book.set_quota(DEFAULT_ORG_ID, None).unwrap();
    drop(book);
    assert_eq!(open(&disk.env()).orgs()[0].quota_bytes, None);
}

#[test]
fn what_an_org_has_stored_is_all_its_files() {
    let (disk, book) = book();
    let (acme, _) = book.put_org("acme", None, None).unwrap();
    let web = book.create_project(DEFAULT_ORG_ID, "web", None, None).unwrap();
    let other = book.create_project(&acme.id, "web", None, None).unwrap();
    let fs = disk.env().fs;
    for (project, bytes) in [(&web.id, 5), (&other.id, 1000)] {
        let uploads = path("projects").join(project).join("uploads").join("t");
        fs.create_dir_all(&uploads).unwrap();
        for name in ["ab".repeat(32), format!("{}.len", "ab".repeat(32))] {
            fs.create(&uploads.join(name), true).unwrap().write_all_at(&vec![0; bytes], 0).unwrap();
        }
    }
    let usage = book.usage(DEFAULT_ORG_ID).unwrap();
    assert_eq!((usage.bytes, usage.uploads), (10, 1));
    assert_eq!(book.usage(&acme.id).unwrap().bytes, 2000);
    assert_eq!(book.usage("none").unwrap().bytes, 0);
}

// ---- tokens

#[test]
fn a_token_grants_what_it_was_made_for() {
    let (_, book) = book();
    let new = NewToken { project: Some("web".to_owned()), name: Some("ci".to_owned()), ..new_token() };
    let (row, token) = book.create_token(&new).unwrap();
    let grant = book.authenticate(token.expose()).unwrap();
    assert_eq!((grant.token, grant.org_slug.as_str()), (row.id.clone(), "default"));
    assert_eq!((grant.org_id.as_str(), grant.project.as_deref()), (DEFAULT_ORG_ID, Some("web")));
    assert_eq!(grant.scopes, [Scope::Read, Scope::Write]);
    assert!(token.expose().starts_with(&row.prefix) && row.prefix.ends_with(row.id.as_str()));
    assert_eq!(book.tokens(None), book.tokens(Some(DEFAULT_ORG_ID)));
    assert_eq!(book.tokens(Some(OTHER_ORG)), []);
    assert_eq!(book.tokens(Some("none")), []);
}

#[test]
fn tokens_that_make_no_sense_are_not_made() {
    let (disk, book) = book();
    let scopes = vec![];
    assert_eq!(kind(book.create_token(&NewToken { scopes, ..new_token() })), ErrorKind::Invalid);
    let org_id = OTHER_ORG.to_owned();
    assert_eq!(kind(book.create_token(&NewToken { org_id, ..new_token() })), ErrorKind::NotFound);
    let project = Some("A".to_owned());
    assert_eq!(kind(book.create_token(&NewToken { project, ..new_token() })), ErrorKind::Invalid);
    let expires_at = Some(disk.now());
    assert_eq!(kind(book.create_token(&NewToken { expires_at, ..new_token() })), ErrorKind::Invalid);
    assert_eq!(book.tokens(None), []);
}

/// A clock that stands until it is set.
struct Standing(AtomicI64);

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
    fn monotonic_micros(&self) -> u64 {
        0
    }
    fn sleep(&self, _: u64) {}
}

#[test]
fn a_token_ends_at_its_instant() {
    let clock = Arc::new(Standing(AtomicI64::new(1_000)));
    let book = open(&Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..SimDisk::new(1).env() });
    let end = Timestamp::from_micros(2_000);
    let (_, token) = book.create_token(&NewToken { expires_at: Some(end), ..new_token() }).unwrap();
    for (now, lets_in) in [(1_000, true), (1_999, true), (2_000, false), (2_001, false), (1_999, true)] {
        clock.0.store(now, Ordering::Relaxed);
        assert_eq!(book.authenticate(token.expose()).is_some(), lets_in, "at {now}");
    }
}

#[test]
fn a_revoked_token_grants_nothing_at_once_and_for_good() {
    let (disk, book) = book();
    let (row, token) = book.create_token(&new_token()).unwrap();
    let (_, other) = book.create_token(&new_token()).unwrap();
    assert!(book.revoke_token(&row.id).unwrap());
    assert!(book.authenticate(token.expose()).is_none());
    assert!(book.authenticate(other.expose()).is_some());
    let revoked_at = book.tokens(None)[0].revoked_at;
    assert!(revoked_at.is_some());
    disk.advance(1_000);
    assert!(book.revoke_token(&row.id).unwrap(), "again is well");
    assert_eq!(book.tokens(None)[0].revoked_at, revoked_at, "the first time stays");
    assert!(!book.revoke_token(&TokenId::new("0000000000000000")).unwrap());
    drop(book);
    let book = open(&disk.env());
    assert!(book.authenticate(token.expose()).is_none());
    assert!(book.authenticate(other.expose()).is_some());
}

#[test]
fn when_a_token_was_used_is_written_later() {
    let (disk, book) = book();
    let (_, token) = book.create_token(&new_token()).unwrap();
    let before = disk.operations();
    for _ in 0..100 {
        assert!(book.authenticate(token.expose()).is_some());
    }
    assert_eq!(disk.operations(), before, "authentication writes nothing");
    let used = book.tokens(None)[0].last_used_at.unwrap();
    assert_eq!(used.micros() % 60_000_000, 0);
    book.tend().unwrap();
    let after = disk.operations();
    assert!(after > before);
    book.authenticate(token.expose());
    book.tend().unwrap();
    assert_eq!(disk.operations(), after, "at most once a minute");
    disk.crash();
    assert_eq!(open(&disk.env()).tokens(None)[0].last_used_at, Some(used));
}

#[test]
fn no_secret_is_on_the_disk() {
    let (disk, book) = book();
    let secret = book.admit_admin(None).unwrap().unwrap();
    let (_, token) = book.create_token(&new_token()).unwrap();
    book.authenticate(token.expose());
    drop(book);
    let random = |text: &str| text.split('_').nth(2).unwrap().as_bytes().to_vec();
    for needle in [random(token.expose()), random(secret.expose())] {
        for file in disk.files() {
            let bytes = disk.read_file(&file).unwrap();
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "a secret is in `{}`", file.display());
        }
    }
    for name in ["pepper", "accounts.redb"] {
        assert_eq!(disk.is_private(&path(name)), Some(true), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn a_tampered_token_grants_nothing(edits in prop::collection::vec((0usize..70, 0x21u8..0x7f), 1..4)) {
        let (_, book) = book();
        let (_, token) = book.create_token(&new_token()).unwrap();
        let mut text = token.expose().as_bytes().to_vec();
        for (at, byte) in edits {
            text[at] = byte;
        }
        let text = String::from_utf8(text).unwrap();
        prop_assert_eq!(book.authenticate(&text).is_some(), text == token.expose());
    }
}

#[test]
fn a_well_formed_token_with_another_secret_grants_nothing() {
    let (_, book) = book();
    let disk = SimDisk::new(2);
    let elsewhere = open(&disk.env());
    let (row, token) = elsewhere.create_token(&new_token()).unwrap();
    assert!(elsewhere.authenticate(token.expose()).is_some());
    assert!(book.tokens(None).iter().all(|mine| mine.id != row.id));
    assert!(book.authenticate(token.expose()).is_none());
    for text in ["", "at_", token.masked().as_str(), &token.expose()[..69]] {
        assert!(elsewhere.authenticate(text).is_none());
    }
}

#[test]
fn many_change_and_ask_at_once() {
    let (_, book) = book();
    let made = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (book, made) = (&book, &made);
            scope.spawn(move || {
                for step in 0..20 {
                    if book.create_project(DEFAULT_ORG_ID, &format!("p{step}"), None, None).is_ok() {
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                    let (row, token) = book.create_token(&new_token()).unwrap();
                    assert!(book.authenticate(token.expose()).is_some());
                    if (thread + step) % 2 == 0 {
                        assert!(book.revoke_token(&row.id).unwrap());
                        assert!(book.authenticate(token.expose()).is_none());
                    } else {
                        book.tend().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!((made.into_inner(), book.projects(DEFAULT_ORG_ID).len()), (20, 20), "each slug goes to one");
    let revoked = book.tokens(None).iter().filter(|row| row.revoked_at.is_some()).count();
    assert_eq!((book.tokens(None).len(), revoked), (160, 80));
}

// ---- the admin

#[test]
fn the_secret_of_the_admin_is_made_once_or_given() {
    let (disk, book) = book();
    assert!(!book.is_admin(""));
    let made = book.admit_admin(None).unwrap().unwrap();
    assert!(book.is_admin(made.expose()));
    assert!(!book.is_admin("dev-admin-secret"));
    assert!(book.admit_admin(None).unwrap().is_none(), "it is shown once");
    drop(book);
    let book = open(&disk.env());
    assert!(book.is_admin(made.expose()));
    let given = AdminSecret::parse("chosen").unwrap();
    assert!(book.admit_admin(Some(&given)).unwrap().is_none());
    assert!(book.is_admin("chosen") && !book.is_admin(made.expose()));
    let before = disk.operations();
    book.admit_admin(Some(&given)).unwrap();
    assert_eq!(disk.operations(), before, "the same again changes nothing");
    assert!(book.authenticate("chosen").is_none());
}

// ---- the folder

#[test]
fn a_folder_has_one_user_at_a_time() {
    let disk = SimDisk::new(1);
    let (first, env) = disk.process();
    let book = open(&env);
    let error = AccountBook::open(&disk.env(), Path::new(DATA), Missing::Create).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let holder = format!("process {}", std::process::id());
    assert!(error.message().contains(&holder) && error.message().contains(DATA), "{error}");
    disk.kill(first);
    open(&disk.env());
    drop(book);
}

#[test]
fn only_an_empty_folder_becomes_one_of_a_service() {
    let disk = SimDisk::new(1);
    let env = disk.env();
    let open = |missing| AccountBook::open(&env, Path::new(DATA), missing);
    assert_eq!(kind(open(Missing::Refuse)), ErrorKind::NotFound);
    assert_eq!(disk.files(), Vec::<std::path::PathBuf>::new(), "asking leaves nothing");
    disk.write_file(&path("notes.txt"), b"mine");
    let error = open(Missing::Create).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("notes.txt"), "{error}");
    assert_eq!(disk.files(), [path("notes.txt")]);
    disk.remove_file(&path("notes.txt"));
    open(Missing::Create).unwrap();
    open(Missing::Refuse).unwrap();
    disk.write_file(&path("format"), b"agent-trace service 2\n");
    assert_eq!(kind(open(Missing::Create)), ErrorKind::Unsupported);
    disk.write_file(&path("format"), b"agent-trace store 1\n");
    assert_eq!(kind(open(Missing::Create)), ErrorKind::Invalid);
}

#[test]
fn what_is_lost_is_named_and_not_made_anew() {
    let (disk, book) = book();
    book.create_token(&new_token()).unwrap();
    drop(book);
    let pepper = disk.read_file(&path("pepper")).unwrap();
    let open = || AccountBook::open(&disk.env(), Path::new(DATA), Missing::Create);
    disk.remove_file(&path("pepper"));
    let error = open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("pepper"));
    for wrong in [vec![7; 32], vec![7; 31]] {
        disk.write_file(&path("pepper"), &wrong);
        assert_eq!(kind(open()), ErrorKind::Corrupt);
    }
    disk.write_file(&path("pepper"), &pepper);
    open().unwrap();
    let accounts = disk.read_file(&path("accounts.redb")).unwrap();
    disk.remove_file(&path("accounts.redb"));
    assert_eq!(kind(open()), ErrorKind::Corrupt);
    disk.write_file(&path("accounts.redb"), &accounts);
    assert_eq!(open().unwrap().tokens(None).len(), 1);
    disk.write_file(&path("accounts.redb"), &accounts[..accounts.len() / 2]);
    assert!(open().is_err());
    disk.write_file(&path("accounts.redb"), &[0x5a; 8192]);
    assert!(open().is_err());
}

// ---- projects go

#[test]
fn a_removed_project_is_gone_with_its_bytes_and_tokens() {
    let (disk, book) = book();
    let web = book.create_project(DEFAULT_ORG_ID, "web", None, None).unwrap();
    let app = book.create_project(DEFAULT_ORG_ID, "app", None, None).unwrap();
    let bound = NewToken { project: Some("web".to_owned()), ..new_token() };
    let (_, bound) = book.create_token(&bound).unwrap();
    let (_, free) = book.create_token(&new_token()).unwrap();
    for project in [&web, &app] {
        disk.write_file(&path("projects").join(&project.id).join("store/format"), b"x");
    }
    assert!(book.delete_project(DEFAULT_ORG_ID, "web").unwrap());
    assert!(!book.delete_project(DEFAULT_ORG_ID, "web").unwrap());
    assert!(!book.delete_project(OTHER_ORG, "web").unwrap());
    let left = |disk: &SimDisk| -> Vec<String> {
        let files = disk
            .files()
            .into_iter()
            .filter(|file| file.starts_with(path("projects")) || file.starts_with(path("removed")));
        files.map(|file| file.strip_prefix(path("projects")).unwrap().display().to_string()).collect()
    };
    let kept = format!("{}/store/format", app.id);
    assert_eq!(left(&disk), std::slice::from_ref(&kept));
    assert_eq!(book.project(DEFAULT_ORG_ID, "web"), None);
    assert!(book.authenticate(bound.expose()).is_none());
    assert!(book.authenticate(free.expose()).is_some());
    // Somebody who still worked in it has written after it went.
    disk.write_file(&path("projects").join(&web.id).join("late"), b"x");
    let again = book.create_project(DEFAULT_ORG_ID, "web", None, None).unwrap();
    assert_ne!(again.id, web.id);
    assert!(book.authenticate(bound.expose()).is_none(), "the old token does not reach the new project");
    drop(book);
    let book = open(&disk.env());
    assert_eq!(left(&disk), [kept]);
    assert_eq!(book.project(DEFAULT_ORG_ID, "web"), Some(again));
}

// ---- every operation may fail

/// What was acknowledged.
#[derive(Default)]
struct Known {
    orgs: BTreeSet<String>,
    /// Slugs, and whether the project is there.
    projects: BTreeMap<String, bool>,
    /// Secrets, and whether they let in.
    tokens: BTreeMap<String, bool>,
    admin: Option<AdminSecret>,
    /// The quota of the default org, where it is certain.
    quota: Option<Option<u64>>,
}

/// Does it, and once more where a fault was in the way.
fn twice<T>(disk: &SimDisk, mut work: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    work().or_else(|error| if disk.faults_hit() > 0 { work() } else { Err(error) })
}

fn workload(disk: &SimDisk, known: &mut Known) -> Result<(), Error> {
    let env = disk.env();
    let book = twice(disk, || AccountBook::open(&env, Path::new(DATA), Missing::Create))?;
    known.orgs.insert(DEFAULT_ORG_SLUG.to_owned());
    known.admin = twice(disk, || book.admit_admin(None))?.or(known.admin.take());
    twice(disk, || book.put_org("acme", None, None))?;
    known.orgs.insert("acme".to_owned());
    for quota in [Some(1 << 30), None, Some(1 << 20)] {
        known.quota = None;
        twice(disk, || book.set_quota(DEFAULT_ORG_ID, quota))?;
        known.quota = Some(quota);
    }
    for slug in ["web", "app"] {
        if !known.projects.contains_key(slug) && book.project(DEFAULT_ORG_ID, slug).is_none() {
            let project = twice(disk, || book.create_project(DEFAULT_ORG_ID, slug, None, None))?;
            let file = path("projects").join(&project.id);
            env.fs
                .create_dir_all(&file)
                .map_err(|error| Error::io("cannot make a project's folder", error))?;
        }
        known.projects.entry(slug.to_owned()).or_insert(true);
    }
    let (row, token) = twice(disk, || book.create_token(&new_token()))?;
    known.tokens.insert(token.expose().to_owned(), true);
    let (_, stays) = twice(disk, || book.create_token(&new_token()))?;
    known.tokens.insert(stays.expose().to_owned(), true);
    // From here on either may be seen, until the answer comes.
    known.tokens.remove(token.expose());
    twice(disk, || book.revoke_token(&row.id))?;
    known.tokens.insert(token.expose().to_owned(), false);
    known.projects.remove("web");
    let removed = book.delete_project(DEFAULT_ORG_ID, "web");
    if removed.is_ok() || twice(disk, || book.delete_project(DEFAULT_ORG_ID, "web")).is_ok() {
        known.projects.insert("web".to_owned(), false);
    }
    removed?;
    book.authenticate(stays.expose());
    book.tend()
}

fn check(disk: &SimDisk, known: &Known, case: &str) {
    let book = AccountBook::open(&disk.env(), Path::new(DATA), Missing::Create)
        .unwrap_or_else(|error| panic!("{case}: {}", explain(&error)));
    let orgs: BTreeSet<String> = book.orgs().into_iter().map(|org| org.slug).collect();
    assert!(known.orgs.is_subset(&orgs), "{case}: an org is lost");
    for (slug, is_there) in &known.projects {
        assert_eq!(book.project(DEFAULT_ORG_ID, slug).is_some(), *is_there, "{case}: project `{slug}`");
    }
    for (secret, lets_in) in &known.tokens {
        assert_eq!(book.authenticate(secret).is_some(), *lets_in, "{case}: a token");
    }
    if let Some(quota) = known.quota {
        let found = book.orgs().into_iter().find(|org| org.id == DEFAULT_ORG_ID).unwrap().quota_bytes;
        assert_eq!(found, quota, "{case}: the quota of an org");
    }
    if let Some(secret) = &known.admin {
        assert!(book.is_admin(secret.expose()), "{case}: the admin is shut out");
    }
    let removed = path("removed");
    assert!(
        disk.files().iter().all(|file| !file.starts_with(&removed)),
        "{case}: bytes of a removed project"
    );
}

fn run_case(case: &str, plant: impl FnOnce(&SimDisk), seed: u64) -> bool {
    let disk = SimDisk::new(seed);
    plant(&disk);
    let mut known = Known::default();
    let result = workload(&disk, &mut known);
    let hit = disk.faults_hit() > 0 || !disk.is_powered();
    if let Err(error) = &result {
        assert!(hit, "{case}: it failed without a fault: {}", explain(error));
    }
    disk.clear_faults();
    if !disk.is_powered() {
        disk.restart();
    }
    check(&disk, &known, case);
    if seed % 2 == 1 {
        // What the failed process wrote may be visible and yet be lost; nothing may be built on it.
        workload(&disk, &mut known).unwrap_or_else(|error| panic!("{case}, soon: {}", explain(&error)));
    }
    // What was acknowledged after the fault must survive a power cut too.
    disk.crash();
    check(&disk, &known, case);
    workload(&disk, &mut known).unwrap_or_else(|error| panic!("{case}, again: {}", explain(&error)));
    disk.crash();
    check(&disk, &known, case);
    hit
}

#[test]
fn every_operation_may_fail() {
    let disk = SimDisk::new(0);
    workload(&disk, &mut Known::default()).unwrap();
    let (operations, observations) = (disk.operations(), disk.observations());
    let mut hits = 0;
    let mut cases = 0;
    let mut run = |case: String, seed: u64, plant: &dyn Fn(&SimDisk)| {
        cases += 1;
        hits += usize::from(run_case(&case, plant, seed));
    };
    for at in 0..operations {
        run(format!("power cut at operation {at}"), at, &|disk| disk.crash_at(at));
        let kinds = [FaultKind::Eio, FaultKind::Enospc, FaultKind::ShortWrite, FaultKind::SyncFail];
        // Another kind at each operation, once or from then on.
        let kind = kinds[usize::try_from(at % 4).unwrap()];
        let repeat = if at / 4 % 2 == 0 { Repeat::Once } else { Repeat::FromThenOn };
        run(format!("{kind:?} {repeat:?} at operation {at}"), at, &|disk| disk.fail_at(at, kind, repeat));
        for seed in [2 * at, 2 * at + 1] {
            run(format!("failed syncs from operation {at} on, seed {seed}"), seed, &|disk| {
                disk.fail_at(at, FaultKind::SyncFail, Repeat::FromThenOn);
            });
        }
    }
    for at in (0..observations).step_by(7) {
        run(format!("failed reading at {at}"), at, &|disk| {
            disk.fail_observation_at(at, FaultKind::Eio, Repeat::Once);
        });
    }
    assert!(hits * 3 > cases, "most faults must hit: {hits} of {cases}");
}

#[test]
fn after_a_failed_write_the_same_process_goes_on() {
    for at in 0.. {
        let disk = SimDisk::new(at);
        let book = open(&disk.env());
        let (_, before) = book.create_token(&new_token()).unwrap();
        disk.fail_at(disk.operations() + at, FaultKind::Enospc, Repeat::FromThenOn);
        let failed = book.create_token(&new_token());
        if disk.faults_hit() == 0 {
            assert!(at > 3 && failed.is_ok(), "all operations have failed once");
            break;
        }
        if let Err(error) = failed {
            assert_eq!(error.kind(), ErrorKind::Full, "at {at}: {}", explain(&error));
            assert_eq!(book.tokens(None).len(), 1, "at {at}: what failed is not seen");
        }
        assert!(book.authenticate(before.expose()).is_some(), "at {at}: reading goes on");
        disk.clear_faults();
        let (_, after) =
            book.create_token(&new_token()).unwrap_or_else(|error| panic!("at {at}: {}", explain(&error)));
        disk.crash();
        let book = open(&disk.env());
        for token in [before, after] {
            assert!(book.authenticate(token.expose()).is_some(), "at {at}: a token is lost");
        }
    }
}

#[test]
fn a_disk_that_lies_is_found() {
    let lies =
        [Lies { drop_file_sync: true, ..Lies::default() }, Lies { drop_dir_sync: true, ..Lies::default() }];
    std::panic::set_hook(Box::new(|_| {}));
    for lies in lies {
        let plant = |disk: &SimDisk| disk.set_lies(lies);
        let is_found =
            (0..20).any(|seed| std::panic::catch_unwind(|| run_case("lies", plant, seed)).is_err());
        assert!(is_found, "{lies:?}");
    }
}

// ---- archives

mod archives {
    use super::*;
    use agent_trace_store::seqs::EventSet;
    use agent_trace_store::writer::Tip;
    use agent_trace_store::{EventId, ObjectId, Result, SegmentId, Seq, WriterId};
    use agent_trace_sync::limits::ARCHIVES_OPEN_MAX;
    use agent_trace_sync::service::archive::{
        Archive, ArrivalRun, Arrivals, Bodies, Committed, Item, PageRow, Part, Reach, Resource, Stored,
    };

    /// Which folders are open; one may not be twice.
    type Open = Arc<Mutex<BTreeSet<std::path::PathBuf>>>;

    struct Fake {
        dir: std::path::PathBuf,
        open: Open,
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            self.open.lock().unwrap().remove(&self.dir);
        }
    }

    /// Stands for an archive of which only opening and closing counts.
    impl Archive for Fake {
        fn reach(&self) -> Result<Reach> {
            Ok(Reach { epoch: [0; 16], position: 0 })
        }
        fn arrivals(&self, _: u64) -> Result<Arrivals> {
            unreachable!()
        }
        fn holds(&self, _: &[ObjectId]) -> Result<Vec<bool>> {
            unreachable!()
        }
        fn events(&self) -> Result<EventSet> {
            unreachable!()
        }
        fn event_ids(&self, _: u64, _: &mut dyn FnMut(&EventId, &WriterId, Seq) -> Result<()>) -> Result<()> {
            unreachable!()
        }
        fn fetch(
            &self,
            _: &[ArrivalRun],
            _: &[EventId],
            _: Bodies,
            _: &mut dyn FnMut(Part<'_>) -> Result<()>,
        ) -> Result<()> {
            unreachable!()
        }
        fn uploaded(&self, _: &TokenId, _: &SegmentId) -> Result<u64> {
            unreachable!()
        }
        fn upload(&self, _: &TokenId, _: &SegmentId, _: u64, _: &[u8]) -> Result<u64> {
            unreachable!()
        }
        fn commit(&self, _: &TokenId, _: &[u8; 16], _: &[SegmentId], _: &[Tip]) -> Result<Committed> {
            unreachable!()
        }
        fn pull(&self, _: u64, _: Bodies, _: &mut dyn FnMut(Part<'_>) -> Result<()>) -> Result<()> {
            unreachable!()
        }
        fn object(&self, _: &ObjectId, _: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
            unreachable!()
        }
        fn put(&self, _: &TokenId, _: Resource, _: &[Item]) -> Result<Stored> {
            unreachable!()
        }
        fn page(&self, _: Resource, _: Option<Timestamp>, _: usize) -> Result<Vec<PageRow>> {
            unreachable!()
        }
        fn one(&self, _: Resource, _: &str) -> Result<Option<PageRow>> {
            unreachable!()
        }
        fn blob(&self, _: &[u8; 32]) -> Result<Option<(ObjectId, u64)>> {
            unreachable!()
        }
    }

    fn embedded(disk: &SimDisk) -> (Embedded, Open) {
        let open = Open::default();
        let opened = Arc::clone(&open);
        let opener = move |env: &Env, dir: &Path| -> Result<Arc<dyn Archive>> {
            env.fs.create_dir_all(dir).map_err(|error| Error::io("cannot make a folder", error))?;
            assert!(opened.lock().unwrap().insert(dir.to_owned()), "`{}` is open twice", dir.display());
            Ok(Arc::new(Fake { dir: dir.to_owned(), open: Arc::clone(&opened) }))
        };
        let embedded = Embedded::open_with(&disk.env(), Path::new(DATA), Box::new(opener)).unwrap();
        (embedded, open)
    }

    #[test]
    fn an_archive_is_opened_once_and_the_longest_unused_is_closed() {
        let (embedded, open) = embedded(&SimDisk::new(1));
        let make = |number: usize| {
            embedded.create_project(DEFAULT_ORG_ID, &format!("p{number}"), None, None).unwrap()
        };
        let projects: Vec<_> = (0..ARCHIVES_OPEN_MAX + 2).map(make).collect();
        let first = embedded.archive(&projects[0]).unwrap();
        assert!(Arc::ptr_eq(&first, &embedded.archive(&projects[0]).unwrap()));
        for project in &projects[1..] {
            embedded.archive(project).unwrap();
        }
        let open_now = || open.lock().unwrap().clone();
        assert_eq!(open_now().len(), ARCHIVES_OPEN_MAX);
        let dir = |number: usize| path("projects").join(&projects[number].id);
        assert!(open_now().contains(&dir(0)), "one that is used stays");
        assert!(!open_now().contains(&dir(1)) && !open_now().contains(&dir(2)));
        assert!(open_now().contains(&dir(3)));
        let all: Vec<_> = projects.iter().map(|project| embedded.archive(project).unwrap()).collect();
        assert_eq!(open_now().len(), projects.len(), "none that is used is closed");
        drop(all);
        embedded.archive(&projects[5]).unwrap();
        assert_eq!(open_now().len(), ARCHIVES_OPEN_MAX);
    }

    #[test]
    fn archives_are_opened_and_closed_by_many_at_once() {
        let (embedded, open) = embedded(&SimDisk::new(1));
        let make = |number: usize| {
            embedded.create_project(DEFAULT_ORG_ID, &format!("p{number}"), None, None).unwrap()
        };
        let projects: Vec<_> = (0..ARCHIVES_OPEN_MAX * 2).map(make).collect();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (projects, embedded) = (&projects, &embedded);
                scope.spawn(move || {
                    for step in 0..400 {
                        let project = &projects[(step * 31 + thread * 17) % projects.len()];
                        assert_eq!(embedded.archive(project).unwrap().reach().unwrap().position, 0);
                    }
                });
            }
        });
        embedded.archive(&projects[0]).unwrap();
        assert!(open.lock().unwrap().len() <= ARCHIVES_OPEN_MAX);
    }

    #[test]
    fn a_removed_project_has_no_archive() {
        let disk = SimDisk::new(1);
        let (embedded, open) = embedded(&disk);
        let web = embedded.create_project(DEFAULT_ORG_ID, "web", None, None).unwrap();
        let held = embedded.archive(&web).unwrap();
        assert!(embedded.delete_project(DEFAULT_ORG_ID, "web").unwrap());
        assert_eq!(kind(embedded.archive(&web)), ErrorKind::NotFound);
        drop(held);
        assert_eq!(open.lock().unwrap().len(), 0);
        let again = embedded.create_project(DEFAULT_ORG_ID, "web", None, None).unwrap();
        embedded.archive(&again).unwrap();
        assert_eq!(
            kind(embedded.archive(&web)),
            ErrorKind::NotFound,
            "an old row does not open the new project"
        );
    }
}
