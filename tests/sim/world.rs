//! The world of one seed: one disk, some clients with their processes, a folder remote, and what the test knows.
//!
//! What is known is kept outside the stores: the bytes of every record and body ever offered, what was acknowledged,
//! what was durable, what the remote was seen to hold. After each step it is compared with the raw bytes on the disk.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::{CrashOdds, Lies, ProcessId, SimDisk};
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Found, Query};
use agent_trace_store::record::{Facts, Name};
use agent_trace_store::switches::{self, Fault};
use agent_trace_store::verify::verify;
use agent_trace_store::{Error, EventId, ObjectId, Store, WriterId};
use agent_trace_tests::Random;

use crate::check::{Auditor, Holding, Seat};
use crate::net::{Line, NetCounts};
use crate::trouble::Mix;

/// Where the remote lies.
pub(crate) const REMOTE: &str = "/srv/team";

/// What is done to a world beside its seed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Plan {
    /// A fault planted in the store.
    pub(crate) planted: Option<Fault>,
    /// Lies of the disk.
    pub(crate) lies: Lies,
    /// Whether somebody puts forged events on the remote, whatever the seed says.
    pub(crate) hostile: bool,
    /// Whether bits are flipped at the end, whatever the seed says.
    pub(crate) rot: bool,
    /// Whether syncs fail and the power goes often, whatever the seed says.
    pub(crate) storm: bool,
    /// Whether the remote is a service, reached through a network.
    pub(crate) network: bool,
    /// Whether the remote is an encrypted folder.
    pub(crate) encrypted: bool,
}

/// What a seed has switched on: each world has its own mix of troubles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swarm {
    pub(crate) steps: u64,
    /// Steps in a hundred during which something fails.
    pub(crate) trouble: u64,
    pub(crate) mix: Mix,
    pub(crate) lost_index: bool,
    pub(crate) clock: bool,
    pub(crate) filters: bool,
    pub(crate) hostile: bool,
    pub(crate) rot: bool,
}

impl Swarm {
    fn draw(random: &mut Random, plan: &Plan) -> Swarm {
        let calm = random.percent(5);
        let mut on = |odds: u64| !calm && random.percent(odds);
        let (power_cuts, kills, eio, enospc, short) = (on(80), on(50), on(50), on(40), on(30));
        let (sync_fail, observed, rates, lost_index, clock) = (on(50), on(30), on(15), on(40), on(30));
        let (filters, hostile, rot) = (on(60), on(10), on(10));
        let storm = plan.storm;
        Swarm {
            steps: 10 + random.below(23),
            trouble: if calm { 0 } else { 20 + random.below(50) },
            mix: Mix {
                power_cuts: power_cuts || storm,
                kills: kills && !storm,
                eio: eio && !storm,
                enospc: enospc && !storm,
                short: short && !storm,
                sync_fail: sync_fail || storm,
                observed: observed && !storm,
                rates: rates && !storm,
            },
            lost_index,
            clock,
            filters,
            // Who forges there has the key; what others can do is tested with the format.
            hostile: (hostile || plan.hostile) && !plan.encrypted,
            rot: rot || plan.rot,
        }
    }
}

/// One process of a client.
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pub(crate) env: Env,
    pub(crate) store: Option<Arc<Store>>,
}

/// One machine's user: a store, processes that work on it, and what the test knows of it.
pub(crate) struct Client {
    pub(crate) dir: PathBuf,
    pub(crate) processes: Vec<Process>,
    /// Records that were acknowledged.
    pub(crate) acked: BTreeSet<ObjectId>,
    /// Events that were durable when they were last looked at.
    pub(crate) committed: BTreeMap<Seat, EventId>,
    /// All writers that the store has had.
    pub(crate) writers: BTreeSet<WriterId>,
    /// The store's writer now.
    pub(crate) writer: Option<WriterId>,
    /// Transcripts by conversation, as they were last offered.
    pub(crate) transcripts: Vec<(String, Vec<u8>)>,
    /// Records of the last batch that failed: all of them are there, or none.
    pub(crate) torn: Vec<ObjectId>,
    /// Whether a push was cut that had something prepared, which the next one to a service ends first.
    pub(crate) is_push_cut: bool,
}

/// What has happened, so that a suite can show that it is not asleep.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) steps: u64,
    pub(crate) records: u64,
    pub(crate) power_cuts: u64,
    pub(crate) kills: u64,
    pub(crate) faults: u64,
    pub(crate) failed: u64,
    pub(crate) pushes: u64,
    pub(crate) pulls: u64,
    pub(crate) rotations: u64,
    pub(crate) new_writers: u64,
    pub(crate) net: NetCounts,
    pub(crate) operations: u64,
    pub(crate) trace: u64,
}

impl Counts {
    /// Adds those of another world.
    pub(crate) fn add(&mut self, other: &Counts) {
        self.steps += other.steps;
        self.records += other.records;
        self.power_cuts += other.power_cuts;
        self.kills += other.kills;
        self.faults += other.faults;
        self.failed += other.failed;
        self.pushes += other.pushes;
        self.pulls += other.pulls;
        self.rotations += other.rotations;
        self.new_writers += other.new_writers;
        self.net.add(&other.net);
        self.operations += other.operations;
        self.trace ^= other.trace;
    }

    /// Whether everything has happened that is to be survived.
    pub(crate) fn is_lively(&self) -> bool {
        let counts =
            [self.records, self.power_cuts, self.kills, self.faults, self.failed, self.pushes, self.pulls];
        counts.iter().all(|count| *count * 100 > self.steps)
    }
}

/// The world.
pub(crate) struct World {
    pub(crate) disk: SimDisk,
    pub(crate) random: Random,
    pub(crate) swarm: Swarm,
    pub(crate) clients: Vec<Client>,
    /// The bytes of every record and body ever offered.
    pub(crate) contents: BTreeMap<ObjectId, Rc<Vec<u8>>>,
    /// Every record ever offered.
    pub(crate) offered: BTreeMap<ObjectId, Facts<'static>>,
    /// What the remote was durably seen to hold.
    pub(crate) published: BTreeMap<Seat, EventId>,
    /// Those who forge.
    pub(crate) forgers: BTreeSet<WriterId>,
    pub(crate) auditor: Auditor,
    /// Whether the remote is an encrypted folder.
    pub(crate) encrypted: bool,
    /// The network and the service behind it, where that is the remote.
    pub(crate) net: Option<Line>,
    pub(crate) counts: Counts,
    log: Rc<RefCell<Vec<String>>>,
}

/// A world that broke a rule.
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) message: String,
    pub(crate) steps: Vec<String>,
    /// The suite of worlds that it is of.
    pub(crate) suite: &'static str,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seed = self.seed;
        writeln!(f, "seed {seed}: {}", self.message)?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {number:>3} {step}")?;
        }
        let one = format!("{}one_seed", self.suite);
        write!(
            f,
            "repeat: AGENT_TRACE_SIM_SEED={seed} cargo test -p agent-trace-tests --test sim -- --exact {one} --nocapture"
        )
    }
}

/// Runs the world of a seed to its end, or to the first broken rule.
pub(crate) fn run(seed: u64, plan: &Plan) -> Result<Counts, Failure> {
    let log = Rc::new(RefCell::new(Vec::new()));
    let steps = Rc::clone(&log);
    let result = catch_unwind(AssertUnwindSafe(|| {
        switches::make_small(plan.network);
        let mut world = World::new(seed, plan, log);
        // From here on, so that all stores are there.
        switches::plant(plan.planted);
        world.disk.set_lies(plan.lies);
        if let Some(mut net) = world.net() {
            net.plant(plan);
        }
        for _ in 0..world.swarm.steps {
            world.step();
        }
        world.converge();
        world.rot();
        world.counted()
    }));
    switches::plant(None);
    switches::make_small(false);
    let suite = match (plan.network, plan.encrypted) {
        (true, _) => "network::",
        (false, true) => "encrypted::",
        (false, false) => "",
    };
    result.map_err(|payload| Failure { seed, message: text(&*payload), steps: steps.borrow().clone(), suite })
}

fn text(payload: &(dyn Any + Send)) -> String {
    let place = crate::last_panic();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    format!("{text} ({place})")
}

/// An error with its causes.
pub(crate) fn explain(error: &Error) -> String {
    let mut text = format!("{:?}: {error}", error.kind());
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

impl World {
    fn new(seed: u64, plan: &Plan, log: Rc<RefCell<Vec<String>>>) -> World {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(seed);
        let swarm = Swarm::draw(&mut random, plan);
        disk.set_crash_odds(CrashOdds {
            kept: 1_000 + u32::try_from(random.below(6_000)).expect("small"),
            torn: 1_000 + u32::try_from(random.below(5_000)).expect("small"),
            together: u32::try_from(random.below(8_000)).expect("small"),
            garbage: random.percent(30),
            ..CrashOdds::default()
        });
        log.borrow_mut().push(format!("{swarm:?}"));
        let clients = match plan.network {
            true => 2 + u64::from(random.percent(35)) + u64::from(random.percent(20)),
            false => 2 + random.below(2),
        };
        let mut world = World {
            disk,
            random,
            swarm,
            clients: Vec::new(),
            contents: BTreeMap::new(),
            offered: BTreeMap::new(),
            published: BTreeMap::new(),
            forgers: BTreeSet::new(),
            auditor: Auditor::new(plan.encrypted),
            encrypted: plan.encrypted,
            net: None,
            counts: Counts::default(),
            log,
        };
        for number in 0..clients {
            let count = 1 + world.random.below(2);
            let processes = (0..count).map(|_| new_process(&world.disk)).collect();
            world.clients.push(Client {
                dir: PathBuf::from(format!("/home/client{number}")),
                processes,
                acked: BTreeSet::new(),
                committed: BTreeMap::new(),
                writers: BTreeSet::new(),
                writer: None,
                transcripts: Vec::new(),
                torn: Vec::new(),
                is_push_cut: false,
            });
        }
        if plan.network {
            world.net = Some(Line::new(seed, &mut world.random, &world.swarm));
            let said = format!("{:?}", world.net().expect("it was made just now").odds);
            world.say(said);
        }
        world
    }

    /// Notes what happens.
    pub(crate) fn say(&self, text: impl Into<String>) {
        self.log.borrow_mut().push(text.into());
    }

    /// Adds to what was noted last.
    pub(crate) fn say_more(&self, text: &str) {
        if let Some(last) = self.log.borrow_mut().last_mut() {
            last.push_str(text);
        }
    }

    /// The store of a process, opened or made.
    pub(crate) fn store(&mut self, client: usize, process: usize) -> Result<Arc<Store>, Error> {
        let known = &mut self.clients[client];
        let dir = known.dir.clone();
        let process = &mut known.processes[process];
        if let Some(store) = &process.store {
            return Ok(Arc::clone(store));
        }
        let made = known.writer.is_some();
        let store =
            Arc::new(if made { Store::open(&process.env, &dir)? } else { Store::init(&process.env, &dir)? });
        process.store = Some(Arc::clone(&store));
        if !made {
            known.writer = Some(store.writer());
        }
        Ok(store)
    }

    /// Ends a process and starts another in its place.
    pub(crate) fn restart(&mut self, client: usize, process: usize) {
        let old = &mut self.clients[client].processes[process];
        self.disk.kill(old.id);
        *old = new_process(&self.disk);
    }

    /// Starts all processes anew, after a power cut.
    pub(crate) fn restart_all(&mut self) {
        for client in &mut self.clients {
            for process in &mut client.processes {
                *process = new_process(&self.disk);
            }
        }
    }

    pub(crate) fn holding(&mut self, client: usize) -> Holding {
        self.auditor.store(&self.disk, &self.clients[client].dir)
    }

    pub(crate) fn remote_holding(&mut self) -> Holding {
        if self.net.is_some() {
            return self.service_holding();
        }
        self.auditor.remote(&self.disk, Path::new(REMOTE), &self.forgers)
    }

    /// Whether a remote has been made.
    pub(crate) fn remote_exists(&self) -> bool {
        self.net.is_some() || self.disk.read_file(&Path::new(REMOTE).join("format")).is_some()
    }

    // ---- the rules

    /// Compares a client with what is known of it. `durable`: whether all that is there is durable now.
    pub(crate) fn check_client(&mut self, number: usize, durable: bool) -> Holding {
        if self.clients[number].writer.is_none() {
            return Holding::default();
        }
        let holding = self.holding(number);
        let records = holding.records();
        let client = &mut self.clients[number];
        for id in &client.acked {
            assert!(records.contains(id), "I2: client {number} lost acknowledged record `{}`", id.short());
        }
        let seats = holding.seats();
        for (seat, id) in &client.committed {
            let (writer, seq) = (seat.0.short(), seat.1);
            assert_eq!(seats.get(seat), Some(id), "I4: client {number} lost `{writer}` seq {seq}");
        }
        for record in &records {
            assert!(
                self.offered.contains_key(record),
                "I7: client {number} took a record that nobody offered"
            );
        }
        let torn = std::mem::take(&mut client.torn);
        let there = torn.iter().filter(|id| records.contains(*id)).count();
        assert!(
            there == 0 || there == torn.len(),
            "I2: {there} of {} records of a batch are there",
            torn.len()
        );
        for writer in client.writers.iter().chain(&client.writer) {
            let own: Vec<u64> = seats.keys().filter(|seat| seat.0 == *writer).map(|seat| seat.1).collect();
            let dense = own.iter().zip(1..).all(|(seq, expected)| *seq == expected);
            assert!(dense, "I3: the own log of client {number} has gaps");
        }
        if durable {
            client.committed = seats;
        }
        holding
    }

    /// Compares the remote with what it was seen to hold, and all logs with each other.
    pub(crate) fn check_all(&mut self, after_power_cut: bool) {
        let holdings: Vec<Holding> =
            (0..self.clients.len()).map(|number| self.check_client(number, after_power_cut)).collect();
        let remote = if self.remote_exists() { self.remote_holding() } else { Holding::default() };
        let there = remote.seats();
        for (seat, id) in &self.published {
            assert_eq!(
                there.get(seat),
                Some(id),
                "I4: the remote lost seq {} of `{}`",
                seat.1,
                seat.0.short()
            );
        }
        let mut world = there.clone();
        for (number, holding) in holdings.iter().enumerate() {
            for (seat, id) in holding.seats() {
                let known = *world.entry(seat).or_insert(id);
                assert_eq!(
                    known,
                    id,
                    "I3: client {number} has another seq {} of `{}`",
                    seat.1,
                    seat.0.short()
                );
            }
            let Some(writer) = self.clients[number].writer else { continue };
            let mine = holding.seats();
            for seat in there.keys().filter(|seat| seat.0 == writer) {
                assert!(
                    mine.contains_key(seat),
                    "I6: seq {} of client {number} left before it was safe",
                    seat.1
                );
            }
        }
        if after_power_cut && self.net.is_none() {
            self.published = there;
        }
    }

    /// Reads through the store: some records, or all.
    pub(crate) fn check_reading(&mut self, number: usize, store: &Store, all: bool) {
        let client = &self.clients[number];
        let ids: Vec<ObjectId> = client.acked.iter().copied().collect();
        let chosen: Vec<ObjectId> = match all {
            true => ids,
            false if ids.is_empty() => Vec::new(),
            false => (0..3).map(|_| ids[self.random.index(ids.len())]).collect(),
        };
        for id in chosen {
            let bytes = store.read(&id).unwrap_or_else(|error| {
                panic!("client {number} cannot read record `{}`: {}", id.short(), explain(&error))
            });
            assert!(bytes == **self.contents[&id], "client {number} reads `{}` wrong", id.short());
        }
    }

    /// Asks the store for everything; what it answers is what the raw segments hold, whatever fails meanwhile.
    pub(crate) fn answers(&mut self, number: usize, store: &Store) -> Result<Vec<Found>, Error> {
        let snapshot = store.snapshot()?;
        let found = question::list(store, &snapshot, &Query::default())?;
        let held = store.held(&snapshot)?;
        let holding = self.holding(number);
        let listed: BTreeSet<ObjectId> = found.iter().map(|found| found.record()).collect();
        let records = holding.records();
        assert_eq!(listed.len(), found.len(), "client {number} lists a record twice");
        let ghosts = listed.difference(&records).count();
        assert_eq!(ghosts, 0, "I8: client {number} lists {ghosts} records that are in no segment");
        let hidden = records.difference(&listed).count();
        // A segment that cannot be read just now is left out, and said to be.
        let said = !snapshot.segments.unreadable.is_empty();
        if said {
            return Ok(found);
        }
        assert_eq!(hidden, 0, "client {number} does not list {hidden} of {} records", records.len());
        assert_eq!(held.len(), holding.events.len() as u64, "client {number} counts its events");
        let session = format!("s{}", self.random.below(3));
        let query = Query { session: Some(session.clone()), ..Query::default() };
        let found_of = question::list(store, &snapshot, &query)?;
        let of_session = |id: &&ObjectId| self.offered[*id].session.as_deref() == Some(session.as_str());
        let expected = records.iter().filter(of_session).count();
        assert_eq!(found_of.len(), expected, "client {number} lists the records of session `{session}`");
        if !found.is_empty() {
            let one = &found[self.random.index(found.len())];
            let about = &self.offered[&one.record()];
            let cited = about.names.iter().filter_map(|name| match name {
                Name::Cites(name) => Some((name, true)),
                Name::Is(_) => None,
            });
            for (name, cites) in cited.chain([(&about.key, false)]) {
                let named = question::named(store, &snapshot, name, cites)?;
                let kind = one.event.fact.kind;
                assert!(
                    named.iter().any(|found| found.record() == one.record()),
                    "client {number} does not find a {kind} by `{name}`"
                );
            }
        }
        Ok(found)
    }

    /// The same where nothing fails; deeply: reads all of it, and verifies.
    pub(crate) fn check_answers(&mut self, number: usize, store: &Store, deep: bool) {
        let trouble = |error: Error| -> ! { panic!("client {number} cannot answer: {}", explain(&error)) };
        let found = self.answers(number, store).unwrap_or_else(|error| trouble(error));
        if !deep {
            return;
        }
        for found in &found {
            for object in &found.event.fact.objects {
                let bytes = store.read(object).unwrap_or_else(|error| trouble(error));
                assert!(bytes == **self.contents[object], "client {number} reads `{}` wrong", object.short());
            }
        }
        let report = verify(store, &Silent).unwrap_or_else(|error| trouble(error));
        assert_eq!(report.problems, Vec::new(), "client {number} does not verify");
    }
}

pub(crate) fn new_process(disk: &SimDisk) -> Process {
    let (id, env) = disk.process();
    Process { id, env, store: None }
}
