//! The service is killed in the middle of pushes, pulls and uploads by protocol 1, at bytes that a seed chooses, and
//! started again over the same folder at the same port. What was acknowledged is there, and nothing is there twice.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::held::assert_holds;
use crate::layout::{Layout, Size, sha256};
use crate::proxy::Proxy;
use crate::support::Random;
use crate::world::{Machine, Service, ask, import};

/// How often it is killed; `AGENT_TRACE_SERVICE_KILLS` gives another number.
const KILLS: usize = 50;
/// What each push and each upload brings.
const PART: Size =
    Size { commits: 12, unattributed: 5, transcripts: &[40, 5_000, 70_001, 280_003], summaries: 3 };
/// Runs of one command until it is done; each is cut by at most a few kills.
const RUNS_MAX: usize = 20;
/// Tries of one upload; between two of them a busy machine may need long to start the service again.
const TRIES_MAX: usize = 600;

struct World {
    _dir: TempDir,
    service: Arc<Mutex<Service>>,
    proxy: Proxy,
    token: String,
    store: PathBuf,
    kills: Arc<AtomicUsize>,
    /// What was acknowledged.
    all: Layout,
    random: Random,
    parts: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let dir = TempDir::new().unwrap();
        let service = Service::start(&dir.path().join("data"));
        let store = service.store(&service.project("web"));
        let token = service.token("acme", &json!("web"), &["read", "write"]);
        let proxy = Proxy::start(service.address);
        World {
            _dir: dir,
            service: Arc::new(Mutex::new(service)),
            proxy,
            token,
            store,
            kills: Arc::default(),
            all: Layout::default(),
            random: Random(seed),
            parts: 1_000 * seed,
        }
    }

    fn machine(&self) -> Machine {
        Machine::with_remote(&self.proxy.url("acme/web"), &self.token)
    }

    fn part(&mut self) -> Layout {
        self.parts += 1;
        Layout::generate(self.parts, PART)
    }

    /// Kills the service once, after some of the next bytes.
    fn arm(&mut self, bytes_max: u64) {
        let (service, kills) = (self.service.clone(), self.kills.clone());
        let after = self.random.next() % bytes_max;
        // What the service has got may be on its way through it.
        let pause = Duration::from_micros(self.random.next() % 5_000);
        self.proxy.after(after, move || {
            std::thread::sleep(pause);
            service.lock().unwrap().restart();
            kills.fetch_add(1, Ordering::Relaxed);
        });
    }

    fn kills(&self) -> usize {
        self.kills.load(Ordering::Relaxed)
    }

    /// Does something in the middle of which the service is killed; `bytes` is what it takes on the way, which is learnt.
    fn under_fire(&mut self, bytes: &mut u64, mut work: impl FnMut(&mut World)) {
        let before = self.kills();
        while self.kills() == before {
            self.arm(*bytes);
            let passed = self.proxy.passed();
            work(self);
            self.proxy.disarm();
            if self.kills() == before {
                // It was done before the place came.
                *bytes = self.proxy.passed() - passed;
            }
        }
    }

    /// The same batches again until each is acknowledged, as a client of protocol 1 sends them.
    fn upload(&self, part: &Layout) {
        let blobs: Vec<&Vec<u8>> = part.transcripts.values().collect();
        for body in blobs {
            // A body that is no text goes as well, so this one is put together by hand.
            self.until_acknowledged("/api/v1/blobs", body, |answer| answer["sha256"] == json!(sha256(body)));
        }
        let pointers: Vec<Value> = part
            .transcripts
            .iter()
            .map(|(id, body)| json!({"conversation_id": id, "content_sha256": sha256(body), "size": body.len()}))
            .collect();
        for (resource, items) in [
            ("traces", &part.traces),
            ("ledgers", &part.ledgers),
            ("commit-links", &part.links),
            ("conversations", &pointers),
            ("summaries", &part.summaries),
        ] {
            let body = json!({"project_id": "web", "items": items}).to_string();
            self.until_acknowledged(&format!("/api/v1/sync/{resource}"), body.as_bytes(), |answer| {
                answer["count"] == json!(items.len()) && answer.get("skipped").is_none()
            });
        }
    }

    /// All that was acknowledged is everywhere, once.
    fn compare(&self, pusher: &Machine) {
        until_done(pusher, &["pull"]);
        assert_holds(&pusher.path("store"), &self.all, "the store that pushed");
        let sent = pusher.run(&["push", "--full", "--json"]).well().json();
        assert!(sent["sent"].as_object().unwrap().values().all(|count| count == 0), "{sent}");
        let fresh = self.machine();
        until_done(&fresh, &["pull"]);
        assert_holds(&fresh.path("store"), &self.all, "a new store");
        self.service.lock().unwrap().kill();
        assert_holds(&self.store, &self.all, "the project's store");
    }

    fn until_acknowledged(&self, path: &str, body: &[u8], is_done: impl Fn(&Value) -> bool) {
        let header = format!("Authorization: Bearer {}", self.token);
        for _ in 0..TRIES_MAX {
            if let Some((status, answer)) = ask(self.proxy.address, "POST", path, &header, body) {
                assert!(status == 200 || status == 201, "{path}: {status} {answer}");
                let answer = serde_json::from_str(&answer).unwrap();
                assert!(is_done(&answer), "{path}: {answer}");
                return;
            }
            // Nobody is there for a moment.
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{path} is never acknowledged");
    }
}

/// Runs a command until it is done; what is not done is said to be worth another try.
fn until_done(machine: &Machine, arguments: &[&str]) {
    for _ in 0..RUNS_MAX {
        let answer = machine.run(arguments);
        match answer.status {
            0 => return,
            5 => {}
            _ => panic!("{arguments:?}: {answer:?}"),
        }
    }
    panic!("{arguments:?} is never done");
}

#[test]
fn what_was_acknowledged_survives_fifty_kills() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let kills =
        number("AGENT_TRACE_SERVICE_KILLS").map_or(KILLS, |kills: u64| usize::try_from(kills).unwrap());
    let seed = number("AGENT_TRACE_SERVICE_SEED").unwrap_or(1);
    eprintln!("AGENT_TRACE_SERVICE_SEED={seed}");
    // Most of the time is waiting before another try, so two services go through it at once.
    std::thread::scope(|scope| {
        for world in [2 * seed, 2 * seed + 1] {
            scope.spawn(move || survive(world, kills.div_ceil(2)));
        }
    });
}

fn survive(seed: u64, kills: usize) {
    let mut world = World::new(seed);
    let pusher = world.machine();
    // First guesses, which are corrected by what passes.
    let (mut push_bytes, mut pull_bytes, mut upload_bytes, mut all_bytes) =
        (100_000, 100_000, 400_000, 600_000);
    // In each order, so that each kind of work comes after each other.
    for round in usize::try_from(seed).unwrap().. {
        if world.kills() >= kills {
            break;
        }
        match round % 4 {
            0 => world.under_fire(&mut push_bytes, |world| {
                let part = world.part();
                import(&pusher, &part);
                until_done(&pusher, &["push", "--full"]);
                world.all.merge(&part);
            }),
            1 => world.under_fire(&mut upload_bytes, |world| {
                let part = world.part();
                world.upload(&part);
                world.all.merge(&part);
            }),
            2 => world.under_fire(&mut pull_bytes, |world| {
                let fresh = world.machine();
                until_done(&fresh, &["pull"]);
                assert_holds(&fresh.path("store"), &world.all, "a store that pulled");
            }),
            // All at once.
            _ => world.under_fire(&mut all_bytes, |world| {
                let (pushed, uploaded, fresh) = (world.part(), world.part(), world.machine());
                import(&pusher, &pushed);
                std::thread::scope(|scope| {
                    scope.spawn(|| until_done(&pusher, &["push", "--full"]));
                    scope.spawn(|| until_done(&fresh, &["pull"]));
                    world.upload(&uploaded);
                });
                world.all.merge(&pushed);
                world.all.merge(&uploaded);
                until_done(&fresh, &["pull"]);
                assert_holds(&fresh.path("store"), &world.all, "a store that pulled meanwhile");
            }),
        }
    }
    world.compare(&pusher);
}
