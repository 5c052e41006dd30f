//! Push by protocol 2: the difference goes there in segments, then one commit makes it count (I2).

use std::collections::{BTreeSet, HashSet};

use agent_trace_store::object::Stored;
use agent_trace_store::progress::Progress;
use agent_trace_store::writer::Tip;
use agent_trace_store::{Error, ErrorKind, Kind, ObjectId, Result, Store};

use super::outbox::{Outbox, Pending};
use super::{Memory, Service};
use crate::gate::Gate;
use crate::light::walk;
use crate::limits::COMMIT_SEGMENTS_MAX;
use crate::publish::note_own_tip;
use crate::push::{PushOptions, PushReport, choose};
use crate::select::Selection;
use crate::sending::Sending;
use crate::state::State;
use crate::tables::Tables;
use crate::wire::{CommitRequest, CommittedBody};

impl Service {
    /// Sends what the project has not got.
    pub(super) fn push_segments(
        &self,
        store: &Store,
        memory: &mut Memory,
        options: &PushOptions,
        gate: &dyn Gate,
        progress: &dyn Progress,
    ) -> Result<PushReport> {
        let mut learned = self.replay(store, memory)?;
        if !memory.known.missing.is_empty() {
            self.look_for_missing(store, memory, &mut learned)?;
        }
        let mut report = PushReport::default();
        if learned.is_other_history {
            report.gone_back.push("the project's history is another than before".to_owned());
        }
        if !options.dry_run {
            report.new_writer = self.claim(store, &learned)?;
            self.finish_cut(store, memory, progress, &mut report)?;
        }
        let selection = choose(store, &memory.state, options)?;
        report.sent = selection.sent.clone();
        report.held_back = selection.held_back.clone();
        report.elsewhere = selection.elsewhere;
        if options.dry_run {
            return Ok(report);
        }
        gate.ask(store, &selection.events)?;
        if !selection.picks.is_empty() {
            self.transfer(store, memory, &selection, progress, &mut report)?;
        }
        memory.state.held = selection.held;
        memory.state.held_kinds = selection.held_back;
        memory.state.evaluated = selection.evaluated;
        self.remember(store, memory)?;
        Ok(report)
    }

    fn transfer(
        &self,
        store: &Store,
        memory: &mut Memory,
        selection: &Selection,
        progress: &dyn Progress,
        report: &mut PushReport,
    ) -> Result<()> {
        let outbox = Outbox::open(store, &self.client, &self.id)?;
        let is_empty = memory.state.has.is_empty();
        let tables = || match is_empty {
            true => Ok(Tables::empty()),
            false => Ok(Tables::told(self.client.holds(&bodies(store, selection)?)?)),
        };
        let work = Sending::prepare(store, &outbox, &self.id, &memory.state, selection, &tables)?;
        progress.start("pushing", Some(work.bytes()));
        let outgoing = work.run(true, progress)?;
        progress.finish();
        if outgoing.len() > COMMIT_SEGMENTS_MAX {
            let message = format!("cannot push more than {COMMIT_SEGMENTS_MAX} segments at once");
            return Err(Error::invalid(message));
        }
        report.segments += outgoing.iter().filter(|segment| segment.sent > 0).count() as u64;
        report.bytes += outgoing.iter().map(|segment| segment.sent).sum::<u64>();
        note_own_tip(store, &mut memory.state)?;
        let tips = memory.state.tips.iter();
        let tips = tips.filter(|(writer, _)| selection.events.log(writer).is_some());
        let mut batch = [0; 16];
        store.env().entropy.fill(&mut batch);
        let pending = Pending {
            batch,
            segments: outgoing.iter().map(|segment| (segment.id, segment.bytes)).collect(),
            after: State {
                has: selection.events.clone(),
                held: selection.held.clone(),
                held_kinds: selection.held_back.clone(),
                evaluated: selection.evaluated.clone(),
                tips: tips.map(|(writer, tip)| (*writer, *tip)).collect(),
                ..State::default()
            },
        };
        outbox.keep_commit(&pending)?;
        let committed = self.commit(store, &outbox, &pending)?;
        note_committed(memory, &pending, &committed);
        report.forks.extend(committed.forks);
        // What is remembered must be durable before what could repeat the commit goes.
        self.remember(store, memory)?;
        outbox.clear(store, &self.id)
    }

    /// Ends a push that was cut: sends what is missing and repeats the commit that it had prepared.
    fn finish_cut(
        &self,
        store: &Store,
        memory: &mut Memory,
        progress: &dyn Progress,
        report: &mut PushReport,
    ) -> Result<()> {
        let outbox = Outbox::open(store, &self.client, &self.id)?;
        let Some(pending) = outbox.commit() else { return Ok(()) };
        if pending.after.has.minus(&memory.state.has).is_empty() {
            // It arrived, and only its answer was lost.
            take_over(memory, &pending);
            self.remember(store, memory)?;
            return outbox.clear(store, &self.id);
        }
        progress.start("pushing", Some(pending.segments.iter().map(|(_, bytes)| bytes).sum()));
        let advance = |bytes| progress.advance(bytes);
        for (id, bytes) in &pending.segments {
            let sealed = store.segments().get(id).cloned();
            let sent = match (&sealed, outbox.segment(id, *bytes)?) {
                (_, Some(file)) => self.client.upload_rest(id, file.as_ref(), *bytes, &advance)?,
                (Some(sealed), None) => {
                    self.client.upload_rest(id, sealed.file.as_ref(), sealed.bytes, &advance)?
                }
                (None, None) => {
                    // It was compacted since: what it held is chosen and sent again.
                    progress.finish();
                    return outbox.clear(store, &self.id);
                }
            };
            report.segments += u64::from(sent > 0);
            report.bytes += sent;
        }
        progress.finish();
        match self.commit(store, &outbox, &pending) {
            Ok(committed) => {
                note_committed(memory, &pending, &committed);
                report.forks.extend(committed.forks);
                self.remember(store, memory)?;
                outbox.clear(store, &self.id)
            }
            // Refused for good: what it held is chosen and sent again.
            Err(error) if is_final(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a commit. Where it is refused for good, nothing of it is kept.
    fn commit(&self, store: &Store, outbox: &Outbox, pending: &Pending) -> Result<CommittedBody> {
        let tips: Vec<Tip> = pending.after.tips.values().copied().collect();
        let segments = pending.segments.iter().map(|(id, _)| *id).collect();
        let committed = self.client.commit(&CommitRequest { batch: pending.batch, segments, tips });
        if committed.as_ref().is_err_and(is_final) {
            outbox.clear(store, &self.id)?;
        }
        committed
    }
}

/// Whether repeating a commit would end the same.
fn is_final(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Conflict
    )
}

/// Notes what stands there after a commit.
fn note_committed(memory: &mut Memory, pending: &Pending, committed: &CommittedBody) {
    if let Some(cursor) = &mut memory.known.cursor {
        // Where nobody else came in between, all up to there is known.
        let is_next = committed.taken == pending.after.has.minus(&memory.state.has).len()
            && committed.position == cursor.position.saturating_add(committed.taken);
        if is_next {
            if memory.known.pulled == cursor.position {
                memory.known.pulled = committed.position;
            }
            cursor.position = committed.position;
        }
    }
    take_over(memory, pending);
}

fn take_over(memory: &mut Memory, pending: &Pending) {
    let after = &pending.after;
    memory.state.has = memory.state.has.union(&after.has);
    memory.state.held.clone_from(&after.held);
    memory.state.held_kinds.clone_from(&after.held_kinds);
    memory.state.evaluated.clone_from(&after.evaluated);
    after.tips.values().for_each(|tip| memory.state.note_tip(tip));
}

/// The bodies that the chosen events list, with all that they are put together of: what is worth asking for.
fn bodies(store: &Store, selection: &Selection) -> Result<Vec<ObjectId>> {
    let mut waiting: Vec<ObjectId> = Vec::new();
    for pick in &selection.picks {
        // A sealed segment that goes whole goes with all that is in it.
        let Some(numbers) = &pick.numbers else { continue };
        walk(&pick.source, numbers, |_, laid| {
            if laid.kind == Kind::TRANSCRIPT || !Kind::KNOWN.contains(&laid.kind) {
                waiting.extend(laid.objects().skip(1));
            }
            Ok(())
        })?;
    }
    let (mut ids, mut seen) = (BTreeSet::new(), HashSet::new());
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        ids.insert(id);
        let Some(location) = store.locate(&id)? else { continue };
        let objects = store.objects(&location.handle, location.frame)?;
        if let Stored::Recipe(recipe) = objects.get(location.slot as usize)? {
            waiting.extend(recipe.parts.iter().map(|part| part.id));
        }
    }
    Ok(ids.into_iter().collect())
}
