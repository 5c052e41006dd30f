//! What clients append: records and transcripts, each offered once and remembered.

use std::collections::BTreeSet;
use std::rc::Rc;

use agent_trace_store::intake::{Base, Intake, Taken};
use agent_trace_store::record::{TranscriptRecord, facts};
use agent_trace_store::{Error, Kind, ObjectId, Store, Timestamp};
use agent_trace_tests::{MemoryFile, commit_link, ledger, lines, summary, trace};

use crate::steps::Durable;
use crate::world::World;

impl World {
    pub(crate) fn offer(&mut self, kind: Kind, bytes: Vec<u8>) -> ObjectId {
        let id = ObjectId::of(&bytes);
        self.offered.insert(id, facts(kind, &bytes).expect("a sound record").into_owned());
        self.contents.insert(id, Rc::new(bytes));
        id
    }

    pub(crate) fn draw_batch(&mut self) -> Vec<(Kind, ObjectId)> {
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

    pub(crate) fn append(
        &mut self,
        client: usize,
        process: usize,
        with_transcript: bool,
    ) -> Result<Durable, Error> {
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

    pub(crate) fn draw_transcript(&mut self, client: usize) -> (String, Vec<u8>, &'static str) {
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
}
