//! Small worlds of one seed each: some clients and a folder, cut at any operation. In the end nothing that was erased is
//! anywhere, nothing else is lost, and all hold the same events.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use agent_trace_store::compact;
use agent_trace_store::env::sim::{CrashOdds, SimDisk};
use agent_trace_store::erase::{self, Wanted};
use agent_trace_store::intake::{Base, Intake};
use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::switches::{self, Fault};
use agent_trace_store::verify::verify;
use agent_trace_store::{Error, Kind, ObjectId, Result, Store, Timestamp};
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::pull::{PullOptions, pull};
use agent_trace_sync::push::{PushOptions, push};
use agent_trace_sync::remote::Remote;

use crate::{content, found_in, trace};

const SEEDS: u64 = 64;
const REMOTE: &str = "/remote";

/// A small generator: the same numbers for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}

struct World {
    disk: SimDisk,
    draw: Draw,
    dirs: Vec<PathBuf>,
    stores: Vec<Option<Store>>,
    /// Records that were acknowledged, with their bytes, and bodies.
    acked: BTreeMap<ObjectId, Vec<u8>>,
    /// By conversation, how far its transcript goes: first and last number.
    grown: BTreeMap<String, (u32, u32)>,
    next: u32,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> World {
        let disk = SimDisk::new(seed);
        disk.set_crash_odds(CrashOdds { kept: 3_000, torn: 2_000, together: 4_000, ..CrashOdds::default() });
        let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
        let count = 2 + draw.index(2);
        let dirs: Vec<PathBuf> = (0..count).map(|number| PathBuf::from(format!("/home/{number}"))).collect();
        let stores = dirs.iter().map(|dir| Some(Store::init(&disk.env(), dir).unwrap())).collect();
        World {
            disk,
            draw,
            dirs,
            stores,
            acked: BTreeMap::new(),
            grown: BTreeMap::new(),
            next: 0,
            log: Vec::new(),
        }
    }

    fn store(&mut self, client: usize) -> Result<Store> {
        match self.stores[client].take() {
            Some(store) => Ok(store),
            None => Store::open(&self.disk.env(), &self.dirs[client]),
        }
    }

    fn remote(&self) -> Result<Remote> {
        Remote::open(&self.disk.env(), &RemoteUrl::Folder(REMOTE.into()), true)
    }

    fn step(&mut self) {
        let client = self.draw.index(self.stores.len());
        let cut = self.draw.below(100) < 30;
        let action = self.draw.below(100);
        if cut {
            let operation = self.draw.below(120);
            self.disk.crash_at(self.disk.operations() + operation);
            self.log.push(format!("a power cut comes after {operation} operations"));
        }
        let done = self.store(client).and_then(|store| {
            let done = self.act(client, &store, action);
            self.stores[client] = Some(store);
            done
        });
        if let Err(error) = &done {
            self.log.push(format!("client {client}: {error}"));
            assert!(!self.disk.is_powered(), "a step failed without a fault: {error}");
        }
        if !self.disk.is_powered() {
            self.disk.restart();
            self.stores.iter_mut().for_each(|store| *store = None);
        }
        self.disk.clear_faults();
    }

    fn act(&mut self, client: usize, store: &Store, action: u64) -> Result<()> {
        self.log.push(format!("client {client} does {action}"));
        match action {
            0..25 => self.add_traces(store),
            25..45 => self.add_transcript(store),
            45..60 => self.push(store, false).map(|_| ()),
            60..75 => self.pull(store).map(|_| ()),
            75..90 => self.erase(store),
            90..95 => store.seal(),
            _ => {
                let plan = compact::plan(store)?;
                compact::execute(store, &plan, &Silent).map(|_| ())
            }
        }
    }

    fn conversation(&mut self) -> String {
        format!("conversation-{}", self.draw.below(5))
    }

    fn add_traces(&mut self, store: &Store) -> Result<()> {
        let mut intake = Intake::new(store);
        let mut new = Vec::new();
        for _ in 0..1 + self.draw.below(4) {
            let conversation = self.conversation();
            let bytes = trace(self.next, &conversation);
            self.next += 1;
            let facts = facts(Kind::TRACE, &bytes)?;
            intake.record(Kind::TRACE, &bytes, &facts, facts.time.unwrap(), &[])?;
            new.push(bytes);
        }
        let taken = intake.finish()?;
        if taken.erased == 0 {
            self.acked.extend(new.into_iter().map(|bytes| (ObjectId::of(&bytes), bytes)));
        }
        Ok(())
    }

    /// A transcript that is new or has grown, by numbers of lines.
    fn add_transcript(&mut self, store: &Store) -> Result<()> {
        let conversation = self.conversation();
        let (first, end) = match self.grown.get(&conversation) {
            Some(known) if self.draw.below(4) > 0 => *known,
            _ => (self.next, self.next),
        };
        let more = 5 + u32::try_from(self.draw.below(120)).unwrap();
        // What two clients add to one conversation is not the same.
        self.next = self.next.max(end) + more;
        let (before, now) = (content(first..end), content(first..end + more));
        let base = match before.is_empty() {
            true => None,
            false => Base::of(store, ObjectId::of(&before)).ok(),
        };
        let path = Path::new("/t.jsonl");
        self.disk.write_file(path, &now);
        let open = store.env().fs.open(path).map_err(|error| Error::io("open", error));
        let mut intake = Intake::new(store);
        let body = intake.body(open?.as_ref(), now.len() as u64, base.as_ref())?;
        let said = TranscriptRecord {
            conversation_id: conversation.clone(),
            session_id: None,
            agent: None,
            content_sha256: body.sha256.clone(),
            size: body.bytes,
            created_at: Timestamp::from_micros(i64::from(self.next)),
            source: None,
        };
        let bytes = said.encode();
        let facts = facts(Kind::TRANSCRIPT, &bytes)?;
        intake.record(Kind::TRANSCRIPT, &bytes, &facts, said.created_at, &[body.id])?;
        if intake.finish()?.erased == 0 {
            self.acked.insert(ObjectId::of(&bytes), bytes);
            self.acked.insert(body.id, now);
            self.grown.insert(conversation, (first, end + more));
        }
        Ok(())
    }

    fn push(&mut self, store: &Store, full: bool) -> Result<u64> {
        let options = PushOptions { full: full || self.draw.below(2) == 0, ..PushOptions::default() };
        let report = push(store, &self.remote()?, &options, &Silent)?;
        assert_eq!((&report.refused, &report.forks), (&Vec::new(), &Vec::new()), "a push refuses nothing");
        Ok(report.sent.values().sum::<u64>() + report.segments + report.withdrawn)
    }

    fn pull(&mut self, store: &Store) -> Result<u64> {
        let report = pull(store, &self.remote()?, &PullOptions::default(), &Silent)?;
        assert_eq!((&report.refused, &report.forks), (&Vec::new(), &Vec::new()), "a pull refuses nothing");
        Ok(report.taken.values().sum::<u64>() + report.dropped)
    }

    fn erase(&mut self, store: &Store) -> Result<()> {
        let snapshot = store.snapshot()?;
        let mut wanted = Wanted::default();
        if self.draw.below(2) == 0 {
            let conversation = self.conversation();
            wanted.add_conversation(store, &snapshot, &conversation)?;
        } else {
            let all = question::list(store, &snapshot, &Query::default())?;
            if all.is_empty() {
                return Ok(());
            }
            let event = &all[self.draw.index(all.len())].event;
            wanted.named.insert(*event.fact.objects.last().unwrap());
        }
        let plan = erase::plan(store, &wanted)?;
        self.log.push(format!("erases {} objects of {:?}", plan.objects.len(), plan.conversations));
        erase::execute(store, &plan, None, &Silent).map(|_| ())
    }

    /// Nothing fails any more: all push and pull until nothing moves.
    fn converge(&mut self) -> Vec<Store> {
        self.stores.iter_mut().for_each(|store| *store = None);
        let stores: Vec<Store> = (0..self.dirs.len()).map(|client| self.store(client).unwrap()).collect();
        for round in 0.. {
            assert!(round < 12, "pushing and pulling does not come to rest");
            let mut moved = 0;
            for store in &stores {
                moved += self.push(store, true).unwrap() + self.pull(store).unwrap();
            }
            if moved == 0 {
                return stores;
            }
        }
        unreachable!("it comes to rest")
    }

    fn check(&mut self) {
        let stores = self.converge();
        let held = |store: &Store| store.held(&store.snapshot().unwrap()).unwrap();
        let erased = stores[0].erased();
        let mut live = BTreeSet::new();
        for store in &stores {
            let report = verify(store, &Silent).unwrap();
            assert_eq!(report.problems, [], "{} does not verify", store.dir().display());
            assert_eq!(held(store), held(&stores[0]), "all hold the same events");
            assert_eq!(store.erased().acts(), erased.acts(), "all know of the same erases");
            assert!(store.erased().swept || erased.is_empty(), "{} is done", store.dir().display());
            let query = Query { erased: true, ..Query::default() };
            for found in question::list(store, &store.snapshot().unwrap(), &query).unwrap() {
                for id in &found.event.fact.objects {
                    match erased.contains(id) {
                        true => assert!(store.read(id).is_err(), "an erased object is given out"),
                        false => live.extend(found_in(&store.read(id).unwrap())),
                    }
                }
            }
            for (id, bytes) in self.acked.iter().filter(|(id, _)| !erased.contains(id)) {
                assert_eq!(&store.read(id).unwrap(), bytes, "what is not erased is there");
            }
        }
        let mut all: BTreeSet<u32> = BTreeSet::new();
        let state = self.remote().unwrap().state(&stores[0]).unwrap();
        let named: BTreeSet<String> = state.live_segments().map(|(id, _)| id.to_string()).collect();
        for path in self.disk.files() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // What a push that was cut has left there is in no manifest, and nobody reads it.
            let is_read = path != Path::new("/t.jsonl")
                && !path.starts_with(Path::new(REMOTE).join("segments"))
                || named.contains(&name);
            if is_read {
                let found = found_in(&self.disk.read_file(&path).unwrap());
                if let Some(one) = found.difference(&live).next() {
                    self.log.push(format!("{one} stands in {}", path.display()));
                }
                all.extend(found);
            }
        }
        // What was never acknowledged may lie behind the end of an open segment, until something is appended there.
        let acked: BTreeSet<u32> = self.acked.values().flat_map(|bytes| found_in(bytes)).collect();
        let back: Vec<u32> = all.difference(&live).copied().filter(|number| acked.contains(number)).collect();
        assert_eq!(back, Vec::<u32>::new(), "erased bytes are still there");
        for id in &state.replaced {
            assert!(self.disk.read_file(&Path::new(REMOTE).join(format!("segments/{id}"))).is_none());
        }
    }
}

fn run(seed: u64, fault: Option<Fault>) -> std::result::Result<usize, String> {
    let mut world = World::new(seed);
    switches::plant(fault);
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..25 {
            world.step();
        }
        world.check();
    }));
    switches::plant(None);
    let erases = world.log.iter().filter(|line| line.starts_with("erases")).count();
    ran.map(|()| erases).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("seed {seed}: {}\n  {}", text.unwrap_or_default(), world.log.join("\n  "))
    })
}

/// One thread, so that one seed is one world, and the planted fault is in it.
fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(work)
}

#[test]
fn many_worlds() {
    let erases: usize =
        alone(|| (0..SEEDS).map(|seed| run(seed, None).unwrap_or_else(|text| panic!("{text}"))).sum());
    assert!(erases as u64 > SEEDS, "worlds erase something");
}

#[test]
fn a_pull_that_takes_what_is_erased_is_found() {
    let found = alone(|| (0..SEEDS).find_map(|seed| run(seed, Some(Fault::TakeErased)).err()));
    let found = found.expect("some world finds it");
    assert!(
        ["still there", "does not verify", "given out", "is not in this store"]
            .iter()
            .any(|text| found.contains(text)),
        "{found}"
    );
}
