//! The service with its own certificate: who trusts its issuer and finds the right name gets in, everybody else says why
//! not and tries no second time.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use serde_json::json;
use tempfile::TempDir;

use crate::held::assert_holds;
use crate::layout::{Layout, Size};
use crate::world::{Answer, Machine, Service, import};

const PART: Size = Size { commits: 6, unattributed: 2, transcripts: &[100, 90_000], summaries: 2 };

/// Somebody who signs certificates.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// The arguments of a service with a certificate for a name that ends in a year.
    fn certify(&self, dir: &Path, name: &str, until: i32) -> [String; 4] {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let [chain, secret] =
            ["chain.pem", "key.pem"].map(|file| dir.join(file).to_str().unwrap().to_owned());
        fs::write(&chain, certificate.pem()).unwrap();
        fs::write(&secret, key.serialize_pem()).unwrap();
        ["--tls-cert".to_owned(), chain, "--tls-key".to_owned(), secret]
    }

    fn file(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, &self.pem).unwrap();
        path
    }
}

/// Passes connections on and counts them.
fn counted(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counts = count.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            counts.fetch_add(1, Ordering::Relaxed);
            let service = TcpStream::connect(to).unwrap();
            for (mut from, mut to) in [(&client, &service), (&service, &client)]
                .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    (address, count)
}

struct World {
    dir: TempDir,
    service: Service,
    token: String,
    store: PathBuf,
}

impl World {
    /// A service with a certificate.
    fn new(authority: &Authority, name: &str, until: i32) -> World {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        // Made in the open, where the test can ask without TLS.
        let open = Service::start(&data);
        let store = open.store(&open.project("web"));
        let token = open.token("acme", &json!("web"), &["read", "write"]);
        drop(open);
        let arguments = authority.certify(dir.path(), name, until);
        let service = Service::start_with(&data, &arguments.each_ref().map(String::as_str));
        World { dir, service, token, store }
    }

    fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}/acme/web", self.service.address.port())
    }
}

/// Runs a command that trusts only what is in a file.
fn trusting(machine: &Machine, authority: &Path, arguments: &[&str]) -> Answer {
    machine.run_with(&[("SSL_CERT_FILE", authority.to_str().unwrap())], arguments)
}

#[test]
fn who_trusts_the_issuer_pushes_and_pulls() {
    let authority = Authority::new("ours");
    let mut world = World::new(&authority, "localhost", 2999);
    let trusted = authority.file(world.dir.path(), "ca.pem");
    let url = world.url("https", "localhost");
    let (one, other) = (Machine::with_remote(&url, &world.token), Machine::with_remote(&url, &world.token));
    let doctor = trusting(&one, &trusted, &["doctor"]).well();
    assert!(!doctor.out.contains("XX") && !doctor.out.contains("!!"), "{}", doctor.out);
    let all = Layout::generate(1, PART);
    import(&one, &all);
    trusting(&one, &trusted, &["push", "--full"]).well();
    trusting(&other, &trusted, &["pull"]).well();
    assert_holds(&other.path("store"), &all, "a store that pulled");
    // Killed and started again it has the same certificate, or another that is put in its place.
    let renewed = Authority::new("the next");
    renewed.certify(world.dir.path(), "localhost", 2999);
    world.service.restart();
    trusting(&other, &trusted, &["pull"]).ends(5, &["cannot be trusted"]);
    let trusted = renewed.file(world.dir.path(), "ca.pem");
    trusting(&other, &trusted, &["sync"]).well();
    world.service.kill();
    assert_holds(&world.store, &all, "the project's store");
}

#[test]
fn a_certificate_that_does_not_fit_is_refused_once_and_the_token_stays_here() {
    let authority = Authority::new("ours");
    let check = |name: &str, until: i32, host: &str, trusted: &Authority, words: &str| {
        let world = World::new(&authority, name, until);
        let (address, count) = counted(world.service.address);
        let file = trusted.file(world.dir.path(), "ca.pem");
        let url = format!("https://{host}:{}/acme/web", address.port());
        let machine = Machine::with_remote(&url, &world.token);
        import(&machine, &Layout::generate(2, PART));
        for arguments in [&["push", "--full"][..], &["pull"]] {
            let before = count.load(Ordering::Relaxed);
            let said =
                trusting(&machine, &file, arguments).ends(5, &["certificate", "cannot be trusted", words]);
            assert!(!said.err.contains(&world.token));
            assert_eq!(count.load(Ordering::Relaxed) - before, 1, "{words}: {arguments:?} tries once");
        }
        let doctor = trusting(&machine, &file, &["doctor"]).ends(1, &["XX", "cannot be trusted"]);
        assert!(!doctor.out.contains(&world.token));
        assert!(!world.service.log().contains("\"route\":\"/api/v2"), "no request came through");
    };
    let stranger = Authority::new("a stranger");
    check("localhost", 2999, "localhost", &stranger, "UnknownIssuer");
    check("elsewhere.example", 2999, "localhost", &authority, "elsewhere.example");
    check("localhost", 2999, "127.0.0.1", &authority, "localhost");
    check("localhost", 2002, "localhost", &authority, "expired");
}

#[test]
fn http_and_https_do_not_meet() {
    let authority = Authority::new("ours");
    let world = World::new(&authority, "localhost", 2999);
    let trusted = authority.file(world.dir.path(), "ca.pem");
    let plain = Machine::with_remote(&world.url("http", "localhost"), &world.token);
    trusting(&plain, &trusted, &["pull"]).ends(5, &["http://localhost"]);
    let dir = TempDir::new().unwrap();
    let open = Service::start(&dir.path().join("data"));
    open.project("web");
    let url = format!("https://localhost:{}/acme/web", open.address.port());
    let machine = Machine::with_remote(&url, "at_x");
    trusting(&machine, &trusted, &["pull"]).ends(5, &["cannot connect to `https://localhost"]);
}

#[test]
fn files_that_are_no_certificate_and_key_are_refused_at_the_start() {
    let (authority, dir) = (Authority::new("ours"), TempDir::new().unwrap());
    let [_, chain, _, key] = authority.certify(dir.path(), "localhost", 2999);
    let other = dir.path().join("other.pem");
    fs::write(&other, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let (none, empty) = (dir.path().join("none.pem"), dir.path().join("empty.pem"));
    fs::write(&empty, "").unwrap();
    let machine = Machine::new();
    let check = |chain: &str, key: &str, status: i32, words: &[&str]| {
        machine
            .run(&[
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--data",
                "data",
                "--tls-cert",
                chain,
                "--tls-key",
                key,
            ])
            .ends(status, words);
    };
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    check(&text(&none), &key, 9, &["none.pem"]);
    check(&chain, &text(&none), 9, &["none.pem"]);
    check(&text(&empty), &key, 2, &["certificate"]);
    check(&chain, &text(&empty), 2, &["a private key", "empty.pem", "PEM"]);
    check(&key, &chain, 2, &["PEM"]);
    check(&chain, &text(&other), 2, &["cannot use the certificate and its key"]);
}
