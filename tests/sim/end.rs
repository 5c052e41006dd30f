//! The end of a world: nothing fails any more, and all must come to agree; then, in some worlds, bits rot.

use std::collections::BTreeMap;

use agent_trace_store::progress::Silent;
use agent_trace_store::question::{self, Query};
use agent_trace_sync::pull::PullOptions;
use agent_trace_sync::push::PushOptions;

use crate::world::{World, explain};

impl World {
    /// Nothing fails any more: all push and pull until nothing moves, and then all hold the same.
    pub(crate) fn converge(&mut self) {
        self.say("all come to rest ");
        self.restart_all();
        self.calm();
        let full = PushOptions { full: true, ..PushOptions::default() };
        for round in 0.. {
            assert!(round < 5, "pushing and pulling does not come to rest");
            let mut moved = 0;
            let before = if self.net.is_some() { self.service_holding().events.len() } else { 0 };
            for client in 0..self.clients.len() {
                let store = self.clean_store(client, 0);
                let remote = self.remote(client, 0, true);
                let remote = remote.unwrap_or_else(|error| panic!("no remote: {}", explain(&error)));
                let remote = remote.expect("it is made");
                let pushed = remote.push(&store, &full, &Silent);
                if pushed.is_err() {
                    // It may say better what is wrong.
                    self.check_service();
                }
                let pushed = pushed.unwrap_or_else(|error| panic!("push at the end: {}", explain(&error)));
                let pulled = remote.pull(&store, &PullOptions::default(), &Silent);
                let pulled = pulled.unwrap_or_else(|error| panic!("pull at the end: {}", explain(&error)));
                self.note_writer(client, 0);
                let (sent, came): (u64, u64) = (pushed.sent.values().sum(), pulled.taken.values().sum());
                let new = if pushed.new_writer { " as a new writer" } else { "" };
                self.say_more(&format!("({client}: {sent} sent{new}, {came} taken) "));
                assert!(!pulled.new_writer, "I6: client {client} finds events of its own at the end");
                let taken: u64 = pulled.taken.values().sum();
                moved += pushed.sent.values().sum::<u64>() + pushed.segments + taken;
            }
            // A push that ends one that was cut sends nothing new.
            let after = if self.net.is_some() { self.service_holding().events.len() } else { 0 };
            if moved == 0 && before == after {
                break;
            }
        }
        self.check_service();
        self.check_all(false);
        let there = self.remote_holding().seats();
        for client in 0..self.clients.len() {
            let mine = self.holding(client).seats();
            assert_eq!(mine.len(), there.len(), "client {client} holds what the remote holds");
            assert!(mine == there, "client {client} holds the events that the remote holds");
            let store = self.clean_store(client, 0);
            self.check_reading(client, &store, true);
            self.check_answers(client, &store, true);
        }
        self.check_archive();
    }

    /// Bits flip at rest: what is read is right, or is an error.
    pub(crate) fn rot(&mut self) {
        if !self.swarm.rot {
            return;
        }
        let sound: BTreeMap<_, _> = self.holding(0).seats();
        for _ in 0..8 {
            let client = self.random.index(self.clients.len());
            let segments = self.clients[client].dir.join("segments");
            let files: Vec<_> =
                self.disk.files().into_iter().filter(|path| path.starts_with(&segments)).collect();
            if files.is_empty() {
                continue;
            }
            let path = &files[self.random.index(files.len())];
            let bytes = self.disk.read_file(path).expect("it is listed").len();
            let (byte, bit) = (self.random.index(bytes), u32::try_from(self.random.below(8)).expect("small"));
            self.say(format!("bit {bit} of byte {byte} of {bytes} flips in {}", path.display()));
            self.disk.flip_bit(path, byte, bit);
            self.restart_all();
            if let Ok(store) = self.store(client, 0) {
                for id in self.contents.keys() {
                    if let Ok(read) = store.read(id) {
                        assert!(read == **self.contents[id], "I5: `{}` is read wrong", id.short());
                    }
                }
                let query = Query::default();
                let answer = store.snapshot().and_then(|snapshot| question::list(&store, &snapshot, &query));
                for found in answer.into_iter().flatten() {
                    let seat = (found.event.writer, found.event.seq.get());
                    assert_eq!(sound.get(&seat), Some(&found.id), "I5: an event is read wrong");
                    assert_eq!(found.event.id(), found.id, "I5: an event does not have its id");
                }
            }
            self.disk.flip_bit(path, byte, bit);
        }
    }
}
