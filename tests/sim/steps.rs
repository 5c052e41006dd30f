//! The steps of a world: what clients do, what goes wrong meanwhile, and what is checked after each.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use agent_trace_store::build::Builder;
use agent_trace_store::compact;
use agent_trace_store::env::sim::{FaultKind, Faults, Repeat};
use agent_trace_store::event::{Event, Fact};
use agent_trace_store::frame::{Effort, Packer};
use agent_trace_store::intake::{Base, Intake, Taken};
use agent_trace_store::log::{Prepared, Received};
use agent_trace_store::object::ObjectsBuilder;
use agent_trace_store::progress::Silent;
use agent_trace_store::record::{Name, TranscriptRecord, facts};
use agent_trace_store::scan::marks;
use agent_trace_store::segment::LogTail;
use agent_trace_store::writer::WriterKey;
use agent_trace_store::{Error, EventId, Kind, ObjectId, Seq, Store, Timestamp};
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::head::Head;
use agent_trace_sync::manifest::Manifest;
use agent_trace_sync::pull::{PullOptions, pull};
use agent_trace_sync::push::{PushOptions, PushReport, push};
use agent_trace_sync::remote::Remote;
use agent_trace_sync::transport::{Folder, Outlet, Transport};
use agent_trace_tests::{MemoryFile, commit_link, ledger, lines, summary, trace};

use crate::check::Holding;
use crate::world::{REMOTE, World, explain};

/// What goes wrong during a step.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    PowerCut,
    Kill,
    Fail(FaultKind, Repeat),
    Observe(FaultKind),
    Rates,
}

/// Whether all that a client holds is durable after a step that went well.
type Durable = bool;

/// The remote, as everybody names it.
pub(crate) fn address() -> RemoteUrl {
    RemoteUrl::Folder(REMOTE.into())
}

impl World {
    /// One step, with or without trouble, and what is checked after it.
    pub(crate) fn step(&mut self) {
        self.counts.steps += 1;
        let client = self.random.index(self.clients.len());
        let process = self.random.index(self.clients[client].processes.len());
        self.say(format!("client {client}.{process} "));
        let action = self.random.below(100);
        if self.swarm.hostile && self.random.percent(8) && self.remote_exists() {
            self.say_more("is attacked");
            self.forge();
            return;
        }
        let trouble = if self.random.percent(self.swarm.trouble) { self.draw_trouble() } else { None };
        let faults_before = self.disk.faults_hit();
        if let Some(trouble) = trouble {
            self.arm(trouble);
        }
        let result = match action {
            0..30 => self.append(client, process, false),
            30..44 => self.append(client, process, true),
            44..49 => self.seal(client, process),
            49..53 => self.catch_up(client, process),
            53..68 => self.push(client, process, faults_before),
            68..80 => self.pull(client, process, faults_before),
            80..86 => self.ask(client, process),
            86..89 => self.compact(client, process),
            89..92 if self.swarm.lost_index => self.lose_index(client, process),
            92..95 if self.swarm.kills => {
                self.say_more("is killed");
                self.counts.kills += 1;
                self.restart(client, process);
                Ok(false)
            }
            95..97 if self.swarm.clock => {
                self.say_more("sees the clock jump");
                let micros = i64::try_from(self.random.below(200_000_000_000)).expect("small");
                self.disk.shift_wall_clock(micros - 100_000_000_000);
                Ok(false)
            }
            97..100 if self.swarm.power_cuts => {
                self.say_more("sees the power go");
                self.disk.crash_at(0);
                // Whatever is next is cut; the directory may be there already.
                let _ =
                    self.clients[client].processes[process].env.fs.create_dir_all(Path::new("/nothing/here"));
                Ok(false)
            }
            _ => self.append(client, process, false),
        };
        self.aftermath(client, process, result, trouble, faults_before);
    }

    fn draw_trouble(&mut self) -> Option<Trouble> {
        use FaultKind::{Eio, Emfile, Enospc, Interrupted, ShortRead, ShortWrite, SyncFail};
        let swarm = self.swarm;
        let repeat = if self.random.percent(60) { Repeat::Once } else { Repeat::FromThenOn };
        let observed = [Eio, Emfile, Interrupted, ShortRead][self.random.index(4)];
        let kinds = [
            (swarm.power_cuts, Trouble::PowerCut),
            (swarm.power_cuts, Trouble::PowerCut),
            (swarm.kills, Trouble::Kill),
            (swarm.eio, Trouble::Fail(Eio, repeat)),
            (swarm.enospc, Trouble::Fail(Enospc, repeat)),
            (swarm.short, Trouble::Fail(ShortWrite, repeat)),
            (swarm.sync_fail, Trouble::Fail(SyncFail, repeat)),
            (swarm.observed, Trouble::Observe(observed)),
            (swarm.rates, Trouble::Rates),
        ];
        let on: Vec<Trouble> = kinds.iter().filter(|(on, _)| *on).map(|(_, trouble)| *trouble).collect();
        if on.is_empty() { None } else { Some(on[self.random.index(on.len())]) }
    }

    fn arm(&mut self, trouble: Trouble) {
        let ahead = match self.random.below(10) {
            0..5 => self.random.below(8),
            5..8 => self.random.below(40),
            _ => self.random.below(200),
        };
        self.say_more(&format!("[{trouble:?} in {ahead}] "));
        let at = self.disk.operations() + ahead;
        match trouble {
            Trouble::PowerCut => self.disk.crash_at(at),
            Trouble::Kill => self.disk.fail_at(at, FaultKind::Eio, Repeat::FromThenOn),
            Trouble::Fail(kind, repeat) => self.disk.fail_at(at, kind, repeat),
            Trouble::Observe(kind) => {
                self.disk.fail_observation_at(self.disk.observations() + ahead, kind, Repeat::Once);
            }
            Trouble::Rates => {
                let rate = 20 + u32::try_from(ahead).expect("small");
                self.disk.set_faults(Faults {
                    read_eio: rate / 4,
                    short_read: rate,
                    write_eio: rate,
                    short_write: rate,
                    enospc: rate / 2,
                    interrupted: rate,
                    emfile: rate / 4,
                    sync_fail: rate,
                    sync_dir_fail: rate,
                    create_fail: rate,
                    rename_fail: rate,
                    remove_fail: rate,
                });
            }
        }
    }

    fn aftermath(
        &mut self,
        client: usize,
        process: usize,
        result: Result<Durable, Error>,
        trouble: Option<Trouble>,
        faults_before: u64,
    ) {
        let mut cut = !self.disk.is_powered();
        let hit = self.disk.faults_hit() - faults_before;
        self.counts.faults += hit;
        self.disk.clear_faults();
        if cut {
            self.disk.restart();
        } else if matches!(trouble, Some(Trouble::PowerCut)) && self.random.percent(50) {
            self.disk.crash();
            cut = true;
        }
        if let Err(error) = &result {
            self.counts.failed += 1;
            self.say_more(&format!(" -> {}", explain(error)));
            assert!(cut || hit > 0, "a step failed without a fault: {}", explain(error));
        }
        self.note_writer(client, process);
        if cut {
            self.say_more(" POWER CUT");
            self.counts.power_cuts += 1;
            self.restart_all();
            let made: Vec<usize> =
                (0..self.clients.len()).filter(|number| self.clients[*number].writer.is_some()).collect();
            for number in &made {
                drop(self.clean_store(*number, 0));
                self.note_writer(*number, 0);
            }
            self.check_all(true);
            for number in made {
                let store = self.clean_store(number, 0);
                self.check_reading(number, &store, false);
            }
            return;
        }
        if let Err(error) = &result {
            self.check_refusal(client, process, error);
            self.clients[client].processes[process].store = None;
        }
        if matches!(trouble, Some(Trouble::Kill)) || result.is_err() && self.random.percent(30) {
            self.say_more(" (killed)");
            self.counts.kills += 1;
            self.restart(client, process);
        }
        let durable = matches!(result, Ok(true));
        let holding = self.check_client(client, durable);
        assert!(
            !durable || holding.clean,
            "I8: the open segment of client {client} does not end at a commit"
        );
        if self.random.percent(25) {
            self.check_all(false);
        }
        if let Some(store) = self.clients[client].processes[process].store.clone() {
            self.check_reading(client, &store, false);
            if self.random.percent(20) {
                self.check_answers(client, &store, false);
            }
        }
    }

    /// I9: after a failed write the same store value refuses.
    fn check_refusal(&mut self, client: usize, process: usize, error: &Error) {
        let Some(store) = &self.clients[client].processes[process].store else { return };
        let writing = ["cannot append to segment", "cannot sync segment"];
        if writing.iter().any(|text| error.message().starts_with(text)) {
            let again = store.append(Prepared::default());
            assert!(again.is_err(), "I9: client {client} goes on after a failed write");
        }
    }

    /// Opens a store where nothing fails.
    pub(crate) fn clean_store(&mut self, client: usize, process: usize) -> Arc<Store> {
        match self.store(client, process) {
            Ok(store) => store,
            Err(error) => panic!("client {client} cannot open its store: {}", explain(&error)),
        }
    }

    pub(crate) fn note_writer(&mut self, client: usize, process: usize) {
        let known = &mut self.clients[client];
        let Some(store) = &known.processes[process].store else { return };
        let writer = store.writer();
        if let Some(old) = known.writer.replace(writer).filter(|old| *old != writer) {
            known.writers.insert(old);
            self.counts.new_writers += 1;
            self.say_more(" (new writer)");
        }
    }

    // ---- what clients do

    fn offer(&mut self, kind: Kind, bytes: Vec<u8>) -> ObjectId {
        let id = ObjectId::of(&bytes);
        self.offered.insert(id, facts(kind, &bytes).expect("a sound record").into_owned());
        self.contents.insert(id, Rc::new(bytes));
        id
    }

    fn draw_batch(&mut self) -> Vec<(Kind, ObjectId)> {
        let most = if self.random.percent(75) { 5 } else { 40 };
        let count = 1 + self.random.below(most);
        let first = self.random.below(300);
        (0..count)
            .map(|step| {
                let number = first + step;
                let conversation = format!("conversation-{}", number % 6);
                let (kind, bytes) = match self.random.below(20) {
                    0..12 => (Kind::TRACE, trace(number, &conversation)),
                    12..16 => {
                        let count = 1 + self.random.below(4);
                        let traces: Vec<u64> = (0..count).map(|step| first + step * 2).collect();
                        (Kind::LEDGER, ledger(number, &traces))
                    }
                    16..18 => (Kind::COMMIT_LINK, commit_link(number)),
                    _ => (Kind::SUMMARY, summary(number, &conversation)),
                };
                (kind, self.offer(kind, bytes))
            })
            .collect()
    }

    fn append(&mut self, client: usize, process: usize, with_transcript: bool) -> Result<Durable, Error> {
        let batch = self.draw_batch();
        let transcript = with_transcript.then(|| self.draw_transcript(client));
        let text = transcript.as_ref().map_or_else(String::new, |(key, bytes, how)| {
            format!(" and {how} {key} of {} bytes", bytes.len())
        });
        self.say_more(&format!("appends {} records{text}", batch.len()));
        let before = self.holding(client).records();
        let store = self.store(client, process)?;
        let mut intake = Intake::new(&store);
        let mut ids: BTreeSet<ObjectId> = batch.iter().map(|(_, id)| *id).collect();
        let mut taken = Taken::default();
        let result = self.take_in(client, &store, &mut intake, &batch, transcript, &mut ids).and_then(|()| {
            let new = ids.iter().filter(|id| !before.contains(*id));
            self.clients[client].torn = new.copied().collect();
            taken = intake.finish()?;
            Ok(())
        });
        result?;
        let new = std::mem::take(&mut self.clients[client].torn).len();
        assert_eq!(taken.events, new as u64, "client {client} says how much it has taken in");
        self.counts.records += taken.events;
        self.clients[client].acked.extend(ids);
        if self.random.percent(40) {
            store.catch_up()?;
        }
        Ok(taken.events > 0)
    }

    fn take_in(
        &mut self,
        client: usize,
        store: &Store,
        intake: &mut Intake<'_>,
        batch: &[(Kind, ObjectId)],
        transcript: Option<(String, Vec<u8>, &'static str)>,
        ids: &mut BTreeSet<ObjectId>,
    ) -> Result<(), Error> {
        if let Some((conversation, content, _)) = transcript {
            // The version before, if it was acknowledged here, may be what the new one extends.
            let last = self.clients[client].transcripts.iter().find(|(key, _)| *key == conversation);
            let last = last.map(|(_, content)| ObjectId::of(content));
            let base = match last.filter(|_| self.random.percent(80)) {
                Some(id) if store.contains(&id)? => Some(Base::of(store, id)?),
                _ => None,
            };
            let file = MemoryFile(content.clone());
            let body = intake.body(&file, content.len() as u64, base.as_ref())?;
            assert_eq!(body.id, ObjectId::of(&content), "a body has the hash of its bytes");
            self.contents.insert(body.id, Rc::new(content.clone()));
            let record = TranscriptRecord {
                conversation_id: conversation.clone(),
                session_id: None,
                agent: None,
                content_sha256: body.sha256.clone(),
                size: body.bytes,
                created_at: Timestamp::from_micros(
                    1_770_000_000_000_000 + i64::try_from(body.bytes).expect("small"),
                ),
                source: None,
            };
            let bytes = record.encode();
            let about = facts(Kind::TRANSCRIPT, &bytes)?;
            intake.record(Kind::TRANSCRIPT, &bytes, &about, record.created_at, &[body.id])?;
            ids.insert(self.offer(Kind::TRANSCRIPT, bytes));
            let known = &mut self.clients[client].transcripts;
            known.retain(|(key, _)| *key != conversation);
            known.push((conversation, content));
        }
        for (kind, id) in batch {
            let bytes = &self.contents[id];
            let about = &self.offered[id];
            intake.record(*kind, bytes, about, about.time.expect("records have times"), &[])?;
        }
        Ok(())
    }

    fn draw_transcript(&mut self, client: usize) -> (String, Vec<u8>, &'static str) {
        let random = &mut self.random;
        let bytes = 500 + random.index(20_000);
        let known = &self.clients[client].transcripts;
        if known.is_empty() || random.percent(25) {
            let key = format!("conversation-{}", random.below(6));
            return (key, lines(random, bytes), "new");
        }
        let (key, mut content) = known[random.index(known.len())].clone();
        if content.len() < 120_000 && random.percent(75) {
            content.extend(lines(random, bytes / 2));
            return (key, content, "grown");
        }
        let at = random.index(content.len());
        content[at] ^= 1;
        (key, content, "rewritten")
    }

    fn seal(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("seals");
        self.store(client, process)?.seal()?;
        Ok(true)
    }

    fn catch_up(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("catches up");
        self.store(client, process)?.catch_up()?;
        Ok(false)
    }

    fn ask(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("asks");
        let store = self.store(client, process)?;
        self.answers(client, &store)?;
        Ok(false)
    }

    fn compact(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("compacts");
        let store = self.store(client, process)?;
        let plan = compact::plan(&store)?;
        compact::execute(&store, &plan, &Silent)?;
        Ok(false)
    }

    fn lose_index(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("loses its index");
        self.store(client, process)?.index().delete()?;
        Ok(false)
    }

    fn draw_options(&mut self) -> PushOptions {
        let mut options = PushOptions { full: self.random.percent(50), ..PushOptions::default() };
        if self.swarm.filters && self.random.percent(30) {
            options.only = vec![Kind::KNOWN[self.random.index(Kind::KNOWN.len())]];
        }
        if self.swarm.filters && self.random.percent(15) {
            let day = 86_400_000_000 * i64::try_from(self.random.below(28)).expect("small");
            options.since = Some(Timestamp::from_micros(1_767_225_600_000_000 + day));
        }
        options
    }

    fn push(&mut self, client: usize, process: usize, faults_before: u64) -> Result<Durable, Error> {
        let options = self.draw_options();
        self.say_more(&format!("pushes {options:?}"));
        let store = self.store(client, process)?;
        let env = self.clients[client].processes[process].env.clone();
        let remote = Remote::open(&env, &address(), true)?;
        let before = self.remote_holding();
        let report = push(&store, &remote, &options, &Silent)?;
        self.counts.pushes += 1;
        let sent: u64 = report.sent.values().sum();
        self.say_more(&format!(" ({sent} events in {} segments)", report.segments));
        self.check_push(client, &options, &report, &before, faults_before);
        Ok(true)
    }

    fn check_push(
        &mut self,
        client: usize,
        options: &PushOptions,
        report: &PushReport,
        before: &Holding,
        faults_before: u64,
    ) {
        if self.disk.faults_hit() == faults_before && !self.swarm.hostile {
            assert_eq!(report.refused, Vec::<String>::new(), "a push refuses nothing that is sound");
        }
        let (mine, there) = (self.holding(client), self.remote_holding());
        if report.segments > 0 {
            // All that stands there was made durable by the same syncs.
            self.published = there.seats();
        }
        if !options.only.is_empty() || options.since.is_some() {
            return;
        }
        let names = Named::of(&mine, self);
        for (seat, (event, id)) in &mine.events {
            let due = options.full || names.due(event, &there);
            let stands = there.events.get(seat).map(|(_, id)| *id);
            let key = &event.fact.key;
            assert!(!due || stands == Some(*id), "I5: {} `{key}` was not pushed", event.fact.kind);
            let new = stands.is_some() && !before.events.contains_key(seat);
            let due = options.full || names.due(event, &there);
            assert!(due || !new, "{} `{key}` was pushed, but nothing names it", event.fact.kind);
        }
    }

    fn pull(&mut self, client: usize, process: usize, faults_before: u64) -> Result<Durable, Error> {
        self.say_more("pulls");
        let store = self.store(client, process)?;
        let env = self.clients[client].processes[process].env.clone();
        let remote = Remote::open(&env, &address(), false)?;
        if remote.id().is_none() {
            return Ok(false);
        }
        let there = self.remote_holding();
        let report = pull(&store, &remote, &PullOptions::default(), &Silent)?;
        self.counts.pulls += 1;
        let taken: u64 = report.taken.values().sum();
        self.say_more(&format!(" ({taken} events)"));
        assert!(!report.new_writer, "I6: client {client} found events of its own that it does not have");
        let forks: Vec<&String> = report.forks.iter().filter(|fork| fork.contains("forked")).collect();
        assert!(forks.is_empty(), "I3: {forks:?}");
        if self.disk.faults_hit() == faults_before && !self.swarm.hostile {
            assert_eq!(report.refused, Vec::<String>::new(), "a pull refuses nothing that is sound");
        }
        if report.refused.is_empty() {
            let mine = self.holding(client).seats();
            for (seat, id) in there.seats() {
                assert_eq!(mine.get(&seat), Some(&id), "I5: client {client} did not pull seq {}", seat.1);
            }
        }
        Ok(taken > 0)
    }

    /// Somebody else puts events on the remote that no writer has signed.
    fn forge(&mut self) {
        let env = self.disk.process().1;
        let key = WriterKey::generate(env.entropy.as_ref());
        let victim = self.clients[self.random.index(self.clients.len())].writer;
        let victim = victim.filter(|_| self.random.percent(50));
        let record = trace(5_000 + self.random.below(1_000), "conversation-1");
        let about = facts(Kind::TRACE, &record).expect("a sound record");
        let object = ObjectId::of(&record);
        let time = about.time.expect("a trace has a time");
        let fact = Fact {
            kind: Kind::TRACE,
            key: about.key.into_owned(),
            time,
            appended: time,
            objects: vec![object],
        };
        let (writer, seq, previous) = match victim {
            // Far beyond what the victim ever writes here.
            Some(writer) => (writer, Seq::new(1_000_000).expect("not zero"), EventId::from_bytes([7; 32])),
            None => (WriterKey::generate(env.entropy.as_ref()).id(), Seq::FIRST, EventId::NONE),
        };
        let event = Event { writer, seq, previous, fact };
        let forged = Received { id: event.id(), marks: marks(&event.fact, &record), event };
        self.put_on_remote(&env, &key, &forged, &record).expect("nothing fails here");
        self.forgers.insert(key.id());
    }

    fn put_on_remote(
        &self,
        env: &agent_trace_store::env::Env,
        key: &WriterKey,
        forged: &Received,
        record: &[u8],
    ) -> Result<(), Error> {
        let dir = Path::new("/forger");
        env.fs.create_dir_all(dir).expect("nothing fails here");
        let mut builder = Builder::new(env, dir, LogTail::empty(key.id()))?;
        let mut objects = ObjectsBuilder::new();
        objects.add(ObjectId::of(record), record);
        builder.objects(&objects.finish(&mut Packer::new(Effort::FAST)))?;
        builder.received(std::slice::from_ref(forged))?;
        let built = builder.finish()?;
        let folder = Folder::new(env, Path::new(REMOTE));
        let file = env.fs.open(&built.path).expect("it was built");
        folder.send(&built.id, file.as_ref(), built.bytes, &|_| ())?;
        let manifest = Manifest { added: vec![(built.id, built.bytes)], ..Manifest::default() }.encode();
        let manifest_id = Manifest::id(&manifest);
        folder.write(&Manifest::key(&manifest_id), &manifest)?;
        let remote = Remote::open(env, &address(), false)?.id().expect("it has been made");
        let head = Head {
            remote,
            writer: key.id(),
            generation: 1,
            previous: [0; 32],
            manifest: manifest_id,
            time: env.clock.now(),
            tips: Vec::new(),
        };
        folder.write(&Head::key(&key.id()), &head.encode(key))
    }
}

/// Which traces the ledgers of a store name, and which conversations its traces.
struct Named {
    traces: BTreeSet<String>,
    conversations: Vec<(String, crate::check::Seat)>,
}

impl Named {
    fn of(mine: &Holding, world: &World) -> Named {
        let mut named = Named { traces: BTreeSet::new(), conversations: Vec::new() };
        for (seat, (event, _)) in &mine.events {
            let kind = event.fact.kind;
            if kind != Kind::LEDGER && kind != Kind::TRACE {
                continue;
            }
            for name in world.offered[&event.fact.objects[0]].names.clone() {
                match name {
                    Name::Cites(name) if kind == Kind::LEDGER => {
                        named.traces.insert(name.into_owned());
                    }
                    Name::Cites(name) => named.conversations.push((name.into_owned(), *seat)),
                    Name::Is(_) => {}
                }
            }
        }
        named
    }

    /// Whether a plain push sends an event, where these stand on the remote afterwards.
    fn due(&self, event: &Event, there: &Holding) -> bool {
        let key = event.fact.key.as_str();
        match event.fact.kind {
            Kind::TRACE => self.traces.contains(key),
            Kind::TRANSCRIPT | Kind::SUMMARY => {
                let key = key.split_once(':').map_or(key, |(key, _)| key);
                self.conversations.iter().any(|(name, seat)| name == key && there.events.contains_key(seat))
            }
            _ => true,
        }
    }
}
