//! Pushes and pulls through a proxy that refuses, cuts, stalls, half-closes, puts garbage in between and sends requests
//! twice: they end well or say that another try may help, and in the end all is there once.

use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use crate::held::assert_holds;
use crate::layout::{Layout, Size};
use crate::peer_world;
use crate::proxy::{Fault, Proxy, Way, mixed};
use crate::world::{Machine, Service, import};

/// What each round brings: about a megabyte.
const PART: Size = Size {
    commits: 60,
    unattributed: 9,
    transcripts: &[1, 5_000, 70_001, 262_144, 262_145, 400_000],
    summaries: 5,
};
const ROUNDS: u64 = 3;
/// Runs of one command until it is done.
const RUNS_MAX: usize = 60;

struct World {
    _dir: TempDir,
    service: Service,
    proxy: Proxy,
    token: String,
    store: PathBuf,
}

impl World {
    fn new() -> World {
        let dir = TempDir::new().unwrap();
        let service = Service::start(&dir.path().join("data"));
        let store = service.store(&service.project("web"));
        let token = service.token("acme", &json!("web"), &["read", "write"]);
        let proxy = Proxy::start(service.address);
        World { _dir: dir, service, proxy, token, store }
    }

    fn machine(&self) -> Machine {
        Machine::with_remote(&self.proxy.url("acme/web"), &self.token)
    }

    /// Runs a command until it is done; what is not done says how, and is worth another try where only the way was bad.
    fn until_done(&self, machine: &Machine, arguments: &[&str], statuses: &[i32]) {
        for _ in 0..RUNS_MAX {
            let answer = machine.run(arguments);
            if answer.status == 0 {
                return;
            }
            assert!(statuses.contains(&answer.status), "{arguments:?}: {answer:?}");
        }
        panic!("{arguments:?} is never done");
    }
}

fn seed() -> u64 {
    let seed = std::env::var("AGENT_TRACE_SERVICE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    eprintln!("AGENT_TRACE_SERVICE_SEED={seed}");
    seed
}

/// Two stores push to each other through the proxy; in the end they, a new one and the service hold the same.
fn exchange(world: &World, seed: u64, statuses: &[i32], compares_pushers: bool) -> Layout {
    let (one, other) = (world.machine(), world.machine());
    let mut all = Layout::default();
    for round in 0..ROUNDS {
        let bytes_max = [2_000, 60_000, 1_000_000][usize::try_from(round).unwrap()];
        for (number, (from, to)) in [(&one, &other), (&other, &one)].into_iter().enumerate() {
            let part = Layout::generate(1_000 * seed + 2 * round + number as u64, PART);
            import(from, &part);
            all.merge(&part);
            world.proxy.set_faults(mixed(seed + 10 * round + number as u64, bytes_max));
            world.until_done(from, &["push", "--full"], statuses);
            world.until_done(to, &["pull"], statuses);
        }
    }
    assert!(world.proxy.hits() > 10, "something was done: {}", world.proxy.hits());
    world.proxy.spare();
    for machine in [&one, &other] {
        machine.run(&["pull"]).well();
        if compares_pushers {
            assert_holds(&machine.path("store"), &all, "a store that pushed and pulled");
        }
        let sent = machine.run(&["push", "--full", "--json"]).well().json();
        assert!(sent["sent"].as_object().unwrap().values().all(|count| count == 0), "{sent}");
    }
    let fresh = world.machine();
    fresh.run(&["pull"]).well();
    assert_holds(&fresh.path("store"), &all, "a new store");
    all
}

#[test]
fn a_bad_way_loses_and_doubles_nothing() {
    let mut world = World::new();
    // Garbage instead of an answer may look like a mistake of the service.
    let all = exchange(&world, seed(), &[1, 5, 7], true);
    world.service.kill();
    assert_holds(&world.store, &all, "the project's store");
}

#[test]
fn a_bad_way_loses_and_doubles_nothing_by_protocol_1() {
    let mut world = World::new();
    world.proxy.hide_protocol_2();
    let all = exchange(&world, seed() + 100, &[1, 5, 7], true);
    world.service.kill();
    assert_holds(&world.store, &all, "the project's store");
}

#[test]
fn each_fault_alone_ends_well_or_with_status_5() {
    let faults = [
        Fault::Refuse,
        Fault::Cut(Way::Up, 0),
        Fault::Cut(Way::Up, 300),
        Fault::Cut(Way::Up, 8_000),
        Fault::Cut(Way::Down, 0),
        Fault::Cut(Way::Down, 100),
        Fault::Stall(Way::Up, 6_000, 50),
        Fault::Stall(Way::Down, 0, 50),
        Fault::HalfClose(Way::Up, 5_000),
        Fault::HalfClose(Way::Down, 0),
        Fault::Garbage(Way::Down, 0),
        Fault::Double,
    ];
    // Most of the time is waiting before another try, so several go through it at once.
    std::thread::scope(|scope| {
        for faults in faults.chunks(3) {
            scope.spawn(|| meet(faults));
        }
    });
}

fn meet(faults: &[Fault]) {
    let mut world = World::new();
    let mut all = Layout::default();
    let from = world.machine();
    for (number, fault) in faults.iter().copied().enumerate() {
        let part = Layout::generate(number as u64, Size { commits: 5, transcripts: &[70_000, 9], ..PART });
        import(&from, &part);
        all.merge(&part);
        // Two connections of three have it, so that it is met in all places and got over in the end.
        let some = || {
            let mut count = 0;
            move || {
                count += 1;
                if count % 3 == 0 { Fault::Spare } else { fault }
            }
        };
        let before = world.proxy.hits();
        world.proxy.set_faults(some());
        world.until_done(&from, &["push", "--full"], &[5]);
        let fresh = world.machine();
        world.proxy.set_faults(some());
        world.until_done(&fresh, &["pull"], &[5]);
        assert!(world.proxy.hits() > before, "{fault:?} is met");
        assert_holds(&fresh.path("store"), &all, &format!("a new store after {fault:?}"));
    }
    world.service.kill();
    assert_holds(&world.store, &all, "the project's store");
}

#[test]
fn the_client_from_pypi_loses_and_doubles_nothing_on_a_bad_way() {
    let Ok(peer) = std::env::var("AGENT_TRACE_PEER") else {
        eprintln!("skipped: peer not given");
        return;
    };
    let seed = seed();
    let mut world = World::new();
    let remote = (world.proxy.url("acme/web"), world.token.clone());
    let (from, to) = (peer_world::Machine::new(&peer, &remote), peer_world::Machine::new(&peer, &remote));
    let mut all = Layout::default();
    for round in 0..2 {
        all.merge(&Layout::generate(9_000 + 10 * seed + round, PART));
        all.write(&from.data());
        world.proxy.set_faults(mixed(seed + round, 400_000));
        // It tries nothing again, and may say 0 of what failed; what it leaves behind must be sound.
        for _ in 0..4 {
            from.outcome(("NOTHING", ""), &["push", "--full"]);
            to.outcome(("NOTHING", ""), &["pull"]);
        }
    }
    world.proxy.spare();
    from.run(&["push", "--full"]);
    let fresh = peer_world::Machine::new(&peer, &remote);
    fresh.run(&["pull"]);
    Layout::read(&fresh.data()).assert_is(&all, "a new home of that client");
    let ours = world.machine();
    ours.run(&["pull"]).well();
    assert_holds(&ours.path("store"), &all, "our store");
    world.service.kill();
    assert_holds(&world.store, &all, "the project's store");
}
