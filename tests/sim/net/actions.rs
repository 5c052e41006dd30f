//! What is done at the service and to it: restarts, copies that are restored, records by protocol 1, attacks.

use std::path::Path;
use std::rc::Rc;

use agent_trace_store::build::Builder;
use agent_trace_store::env::Env;
use agent_trace_store::event::{Event, Fact};
use agent_trace_store::frame::{Effort, Packer};
use agent_trace_store::id::encode_hex;
use agent_trace_store::log::Received;
use agent_trace_store::object::ObjectsBuilder;
use agent_trace_store::record::facts;
use agent_trace_store::scan::marks;
use agent_trace_store::segment::LogTail;
use agent_trace_store::writer::{Tip, WriterKey};
use agent_trace_store::{Error, ErrorKind, EventId, Kind, ObjectId, SegmentId, Seq};
use agent_trace_sync::client::Resource;
use agent_trace_sync::wire::CommitRequest;
use agent_trace_tests::{MemoryFile, trace};

use sha2::{Digest, Sha256};

use super::Who;
use crate::world::{World, explain};

/// What somebody sends who means harm.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// An event of a client's log, far beyond what it ever writes.
    Foreign,
    /// An event of a log that nobody signs.
    Unsigned,
    /// The same with a statement that is not signed by the log's key.
    BadTip,
    /// An event that is signed, and whose record is nowhere.
    NoObject,
    /// The same with other bytes under the name of its record.
    OtherBytes,
    /// A sound segment under another name.
    OtherName,
    /// No segment at all.
    Garbage,
}

const ATTACKS: [Attack; 7] = [
    Attack::Foreign,
    Attack::Unsigned,
    Attack::BadTip,
    Attack::NoObject,
    Attack::OtherBytes,
    Attack::OtherName,
    Attack::Garbage,
];

impl World {
    /// A step at the service instead of one of a client.
    pub(crate) fn net_step(&mut self, client: usize) {
        let odds = self.net().expect("there is a network").odds;
        let before = self.faults();
        match self.random.below(100) {
            0..12 => {
                self.say_more("sees the service restart");
                self.net().expect("there is a network").host.stop();
            }
            12..24 if odds.mix.power_cuts => {
                self.say_more("sees the service lose power");
                let mut net = self.net().expect("there is a network");
                net.counts.power_cuts += 1;
                net.host.cut_power();
            }
            24..32 if self.swarm.clock => {
                self.say_more("sees the service's clock jump");
                let micros = i64::try_from(self.random.below(200_000_000_000)).expect("small");
                let net = self.net().expect("there is a network");
                net.host.disk.shift_wall_clock(micros - 100_000_000_000);
            }
            32..50 if odds.copies => self.copy_service(),
            50..74 if odds.v1 => self.put_by_v1(client, before),
            74..90 => {
                self.say_more("sees an old message arrive");
                self.net().expect("there is a network").bring_late();
            }
            90..96 => self.look(),
            _ => {
                self.say_more("sees the service killed");
                self.net().expect("there is a network").host.kill();
            }
        }
        let told = self.net().expect("there is a network").told();
        self.say_more(&told);
        self.check_service();
    }

    /// Copies the service's data, or puts the copy in its place.
    fn copy_service(&mut self) {
        let line = self.net.clone().expect("there is a network");
        let mut net = line.hold();
        net.rest();
        net.host.ensure();
        if net.copied.is_none() {
            self.say_more("sees the service's data copied");
            net.host.back_up();
            net.copied = Some(net.by_v1.clone());
            return;
        }
        self.say_more("sees the service's data restored from the copy");
        net.host.restore();
        net.by_v1 = net.copied.clone().expect("a copy was made");
        net.counts.restored += 1;
        net.histories += 1;
        let listing = net.host.listing();
        assert!(!net.arrived.contains_key(&listing.epoch), "a restored project goes by the epoch of before");
        self.published.clear();
    }

    /// Somebody sends a transcript by protocol 1: its bytes in the pointer to it, or before.
    fn put_transcript_by_v1(&mut self, client: usize, faults_before: u64) {
        let (conversation, content, how) = self.draw_transcript(client);
        let body = ObjectId::of(&content);
        self.contents.insert(body, Rc::new(content.clone()));
        let is_blob = self.random.percent(50);
        self.say_more(&format!("sends {how} {conversation} by protocol 1, bytes apart: {is_blob}"));
        let line = self.net.clone().expect("there is a network");
        line.hold().has_made = true;
        let env = self.disk.process().1;
        let calls = line.client(&env, Who::Client(client));
        let put = || {
            let item = if is_blob {
                let sha256 = encode_hex(&Sha256::digest(&content));
                assert!(calls.put_blob(content.clone())?, "the service takes blobs");
                format!(r#"{{"conversation_id":"{conversation}","content_sha256":"{sha256}"}}"#)
            } else {
                let text: String = content.iter().map(|byte| format!("\\u{byte:04x}")).collect();
                format!(r#"{{"conversation_id":"{conversation}","content":"{text}"}}"#)
            };
            calls.put_items(Resource::Conversations, &[item.into_bytes()])
        };
        self.note_put(put(), [body], faults_before);
    }

    /// What was acknowledged by protocol 1.
    fn note_put(
        &mut self,
        put: Result<Option<Vec<(usize, String)>>, Error>,
        ids: impl IntoIterator<Item = ObjectId>,
        faults_before: u64,
    ) {
        match put {
            Ok(skipped) => {
                assert_eq!(skipped, Some(Vec::new()), "what is sound is taken");
                let mut net = self.net().expect("there is a network");
                net.by_v1.extend(ids);
                net.counts.by_v1 += 1;
            }
            Err(error) => {
                let faults = self.faults() - faults_before;
                assert!(faults > 0, "protocol 1 failed without a fault: {}", explain(&error));
            }
        }
    }

    /// Somebody sends records by protocol 1.
    fn put_by_v1(&mut self, client: usize, faults_before: u64) {
        if self.random.percent(30) {
            return self.put_transcript_by_v1(client, faults_before);
        }
        let batch = self.draw_batch();
        let kind = batch[0].0;
        let resource = match kind {
            Kind::TRACE => Resource::Traces,
            Kind::LEDGER => Resource::Ledgers,
            Kind::COMMIT_LINK => Resource::CommitLinks,
            _ => Resource::Summaries,
        };
        let ids: Vec<ObjectId> =
            batch.iter().filter(|(other, _)| *other == kind).map(|(_, id)| *id).collect();
        self.say_more(&format!("sends {} {resource:?} by protocol 1", ids.len()));
        let items: Vec<Vec<u8>> = ids.iter().map(|id| self.contents[id].to_vec()).collect();
        let line = self.net.clone().expect("there is a network");
        let env = self.disk.process().1;
        let put = line.client(&env, Who::Client(client)).put_items(resource, &items);
        self.note_put(put, ids, faults_before);
    }

    /// Somebody with a token sends what must not be taken.
    pub(crate) fn attack(&mut self) {
        let attack = ATTACKS[self.random.index(ATTACKS.len())];
        self.say_more(&format!(" by {attack:?}"));
        let env = self.disk.process().1;
        let (bytes, id, tips) = self.craft(&env, attack);
        let line = self.net.clone().expect("there is a network");
        line.hold().counts.attacks += 1;
        let client = line.client(&env, Who::Nobody);
        let file = MemoryFile(bytes.clone());
        let mut batch = [0; 16];
        env.entropy.fill(&mut batch);
        let sent = client.upload(&id, &file, bytes.len() as u64, &|_| ());
        let taken = sent.and_then(|_| client.commit(&CommitRequest { batch, segments: vec![id], tips }));
        match taken {
            Ok(taken) => assert_eq!(taken.taken, 0, "I7: the service takes what {attack:?} brings"),
            Err(error) => {
                let is_refused = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid);
                assert!(is_refused, "I7: the service fails at {attack:?}: {}", explain(&error));
            }
        }
        self.check_service();
    }

    /// A segment, its name, and statements to go with it.
    fn craft(&mut self, env: &Env, attack: Attack) -> (Vec<u8>, SegmentId, Vec<Tip>) {
        let key = WriterKey::generate(env.entropy.as_ref());
        let other = WriterKey::generate(env.entropy.as_ref());
        let record = trace(5_000 + self.random.below(1_000), "conversation-1");
        let about = facts(Kind::TRACE, &record).expect("a sound record");
        let object = ObjectId::of(&record);
        let time = about.time.expect("a trace has a time");
        let key_of = about.key.clone().into_owned();
        let fact = Fact { kind: Kind::TRACE, key: key_of, time, appended: time, objects: vec![object] };
        let victim = self.clients[self.random.index(self.clients.len())].writer;
        let (writer, seq, previous) = match (attack, victim) {
            (Attack::Foreign, Some(victim)) => {
                (victim, Seq::new(1_000_000).expect("not zero"), EventId::from_bytes([7; 32]))
            }
            _ => (key.id(), Seq::FIRST, EventId::NONE),
        };
        let event = Event { writer, seq, previous, fact };
        let forged = Received { id: event.id(), marks: marks(&event.fact, &record), event };
        let signed = key.tip(Seq::FIRST, forged.id);
        let tips = match attack {
            Attack::Foreign | Attack::Unsigned => Vec::new(),
            Attack::BadTip => vec![Tip { writer: key.id(), ..other.tip(Seq::FIRST, forged.id) }],
            Attack::NoObject | Attack::OtherBytes | Attack::OtherName | Attack::Garbage => vec![signed],
        };
        let dir = Path::new("/forger");
        env.fs.create_dir_all(dir).expect("nothing fails here");
        let mut builder = Builder::new(env, dir, LogTail::empty(other.id())).expect("nothing fails here");
        let mut objects = ObjectsBuilder::new();
        match attack {
            Attack::NoObject => {
                let unlisted = self.random.bytes(100);
                objects.add(ObjectId::of(&unlisted), &unlisted);
            }
            Attack::OtherBytes => objects.add(object, b"{}"),
            _ => objects.add(object, &record),
        }
        builder.objects(&objects.finish(&mut Packer::new(Effort::FAST))).expect("nothing fails here");
        builder.received(std::slice::from_ref(&forged)).expect("nothing fails here");
        let built = builder.finish().expect("nothing fails here");
        let bytes = self.disk.read_file(&built.path).expect("it was built");
        self.disk.remove_file(&built.path);
        match attack {
            Attack::OtherName => {
                let name = self.random.bytes(32);
                (bytes, SegmentId::from_bytes(*blake3::hash(&name).as_bytes()), tips)
            }
            Attack::Garbage => {
                let bytes = self.random.bytes(3_000);
                let id = SegmentId::from_bytes(*blake3::hash(&bytes).as_bytes());
                (bytes, id, tips)
            }
            _ => (bytes, built.id, tips),
        }
    }
}
