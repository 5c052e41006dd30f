//! Fetching what is elsewhere from a service: a few objects one by one, many of them in segments, compressed.

use std::collections::HashSet;

use agent_trace_store::progress::Progress;
use agent_trace_store::{ErrorKind, ObjectId, Result, Store};

use super::known::Protocol;
use super::pull::take_stream;
use super::{Memory, Service};
use crate::bodies::{Bringing, Brought};
use crate::collect::Bodies;
use crate::limits::{BRING_TOGETHER_MIN, RUNS_MAX};
use crate::select::{sources, without_bodies};
use crate::take::{PullOptions, PullReport, Taking};
use crate::wire::ArrivalRun;

impl Service {
    /// Fetches objects that are elsewhere.
    pub fn bring(&self, store: &Store, ids: &[ObjectId], progress: &dyn Progress) -> Result<Brought> {
        let _lock = self.lock(store)?;
        let mut together = Brought::default();
        let mut rest = ids.to_vec();
        if ids.len() >= BRING_TOGETHER_MIN {
            let memory = self.remembered(store)?;
            if memory.known.protocol == Some(Protocol::Two) {
                together = self.bring_together(store, &memory, ids, progress)?;
                rest.clone_from(&together.not_there);
            }
        }
        let mut bringing = Bringing::start(store, &self.id)?;
        for id in &rest {
            bringing.object(id, |take| {
                self.client.object(id, &mut |part| {
                    progress.advance(part.len() as u64);
                    take(part)
                })
            })?;
        }
        let alone = bringing.end()?;
        let (objects, bytes) = (together.objects + alone.objects, together.bytes + alone.bytes);
        Ok(Brought { objects, bytes, not_there: alone.not_there })
    }

    /// Asks for the events that list these objects, with all that they need, and keeps the objects. Those that do not come
    /// are listed as not there.
    fn bring_together(
        &self,
        store: &Store,
        memory: &Memory,
        ids: &[ObjectId],
        progress: &dyn Progress,
    ) -> Result<Brought> {
        let snapshot = store.snapshot()?;
        let away = without_bodies(store, &sources(store, &snapshot)?, &store.held(&snapshot)?)?;
        let there = away.minus(&away.minus(&memory.state.has));
        let runs: Vec<ArrivalRun> = there
            .logs()
            .flat_map(|(writer, log)| log.ranges().iter().map(move |range| (*writer, *range)))
            .map(|(writer, (first, last))| ArrivalRun { writer, seq_first: first, count: last - first + 1 })
            .collect();
        let tips = memory.state.tips.clone();
        let (options, report) = (PullOptions::default(), PullReport::default());
        let mut taking = Taking::start(store, &self.id, &options, tips, &[], report)?;
        taking.wanted_bodies = Some(ids.iter().copied().collect::<HashSet<_>>());
        taking.clear()?;
        for runs in runs.chunks(RUNS_MAX) {
            let stream = self.client.fetch(runs, &[], Bodies::Along)?;
            match take_stream(stream, &mut taking, false, progress) {
                // What has come counts, and the rest is asked for one by one.
                Err(error) if error.kind() == ErrorKind::Unavailable => break,
                taken => taken?,
            }
        }
        let report = taking.end()?;
        store.tidy_elsewhere()?;
        let here = store.contains_all(ids)?;
        let not_there: Vec<ObjectId> =
            ids.iter().zip(here).filter(|(_, here)| !here).map(|(id, _)| *id).collect();
        let objects = (ids.len() - not_there.len()) as u64;
        Ok(Brought { objects, bytes: report.bytes, not_there })
    }
}
