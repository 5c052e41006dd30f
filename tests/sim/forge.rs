//! Somebody who forges, in the folder that is the remote.

use std::path::Path;

use agent_trace_store::build::Builder;
use agent_trace_store::event::{Event, Fact};
use agent_trace_store::frame::{Effort, Packer};
use agent_trace_store::log::Received;
use agent_trace_store::object::ObjectsBuilder;
use agent_trace_store::record::facts;
use agent_trace_store::scan::marks;
use agent_trace_store::segment::LogTail;
use agent_trace_store::writer::WriterKey;
use agent_trace_store::{Error, EventId, Kind, ObjectId, Seq};
use agent_trace_sync::head::Head;
use agent_trace_sync::manifest::Manifest;
use agent_trace_sync::remote::Remote;
use agent_trace_sync::transport::{Folder, Outlet, Transport};
use agent_trace_tests::trace;

use crate::exchange::address;
use crate::world::{REMOTE, World};

impl World {
    /// Somebody else puts events on the remote that no writer has signed.
    pub(crate) fn forge(&mut self) {
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
