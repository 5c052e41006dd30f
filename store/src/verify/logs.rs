//! The logs across segments: neighbours that fit, forks, and what writers have signed (I3, I7).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Problem;
use super::closure::events_of;
use super::survey::Survey;
use crate::id::{EventId, WriterId};
use crate::segment::Run;
use crate::seqs::{EventSet, SeqSet};
use crate::writer::Tip;

/// The runs of one log: the segment's number with each, in order of the seqs.
type Log<'a> = Vec<(usize, &'a Run)>;

/// What is wrong with the logs, and how many events stand behind a gap.
pub(crate) fn check(surveys: &[Survey], own: WriterId) -> (Vec<Problem>, u64) {
    let logs = by_writer(surveys);
    let mut problems = Vec::new();
    let mut unconfirmed = 0;
    for (writer, log) in &logs {
        unconfirmed += check_chain(surveys, writer, log, &mut problems);
    }
    check_own(surveys, own, logs.get(&own), &mut problems);
    check_tips(surveys, own, &logs, &mut problems);
    (problems, unconfirmed)
}

/// The events that good frames hold.
pub(crate) fn held(surveys: &[Survey]) -> EventSet {
    let runs = surveys.iter().flat_map(|survey| &survey.contents.runs);
    EventSet::from_ranges(runs.map(|run| (run.writer, run.seq_first.get(), run.seq_last())))
}

fn by_writer(surveys: &[Survey]) -> BTreeMap<WriterId, Log<'_>> {
    let mut logs: BTreeMap<WriterId, Log<'_>> = BTreeMap::new();
    for (number, survey) in surveys.iter().enumerate() {
        for run in &survey.contents.runs {
            logs.entry(run.writer).or_default().push((number, run));
        }
    }
    for log in logs.values_mut() {
        log.sort_by_key(|(_, run)| (run.seq_first, run.seq_last()));
    }
    logs
}

fn check_chain(surveys: &[Survey], writer: &WriterId, log: &Log<'_>, problems: &mut Vec<Problem>) -> u64 {
    let mut ends: HashMap<u64, Vec<(usize, EventId)>> = HashMap::new();
    for (segment, run) in log {
        ends.entry(run.seq_last()).or_default().push((*segment, run.last));
    }
    let ranges = log.iter().map(|(_, run)| (run.seq_first.get(), run.seq_last()));
    let held = SeqSet::from_ranges(ranges.collect());
    let mut unconfirmed = 0;
    let mut widest: Option<(usize, &Run)> = None;
    for (segment, run) in log {
        if let Some((other, before)) = widest.filter(|(_, before)| before.seq_last() >= run.seq_first.get()) {
            problems.extend(overlap(surveys, writer, (other, before), (*segment, run)));
        }
        if widest.is_none_or(|(_, before)| run.seq_last() > before.seq_last()) {
            widest = Some((*segment, run));
        }
        let Some(previous) = run.seq_first.previous() else { continue };
        for (other, last) in ends.get(&previous.get()).into_iter().flatten() {
            if *last != run.previous {
                let what = place(surveys, *segment, writer, run.seq_first.get());
                let message = format!(
                    "the event before it is `{}`, but `{}` is named there by `{}`",
                    last.short(),
                    run.previous.short(),
                    surveys[*other].source.path.display()
                );
                problems.push(Problem { code: "fork", what, message, affects: Vec::new() });
            }
        }
        if !held.contains(previous) {
            unconfirmed += 1;
        }
    }
    unconfirmed
}

fn place(surveys: &[Survey], segment: usize, writer: &WriterId, seq: u64) -> String {
    format!("event {seq} of writer `{}` in `{}`", writer.short(), surveys[segment].source.path.display())
}

/// Two runs that share seqs hold the same events, or the log has forked. Ids are chained, so the last shared one
/// tells.
fn overlap(surveys: &[Survey], writer: &WriterId, a: (usize, &Run), b: (usize, &Run)) -> Option<Problem> {
    let last = a.1.seq_last().min(b.1.seq_last());
    let of = |(segment, run): (usize, &Run), seq: u64| id_at(&surveys[segment], run, seq);
    if of(a, last)? == of(b, last)? {
        return None;
    }
    let first = a.1.seq_first.max(b.1.seq_first).get();
    let seq = (first..=last).find(|seq| of(a, *seq) != of(b, *seq)).unwrap_or(last);
    let message = format!("another event has its place in `{}`", surveys[a.0].source.path.display());
    Some(Problem { code: "fork", what: place(surveys, b.0, writer, seq), message, affects: Vec::new() })
}

/// The id of an event of a run.
fn id_at(survey: &Survey, run: &Run, seq: u64) -> Option<EventId> {
    if seq == run.seq_last() {
        return Some(run.last);
    }
    let number = run.first_event + u32::try_from(seq - run.seq_first.get()).ok()?;
    let (offset, slot) = crate::segment::locate_event(&survey.contents.events_frames, number)?;
    events_of(survey, offset).ok()?.get(slot).map(|(_, id)| *id)
}

/// The own log is dense where it is written, up to where the segments say it stands.
fn check_own(surveys: &[Survey], own: WriterId, log: Option<&Log<'_>>, problems: &mut Vec<Problem>) {
    let tails = surveys.iter().flat_map(Survey::tails).filter(|tail| tail.writer == own);
    let newest = tails.map(|tail| tail.seq).max().unwrap_or(0);
    let ranges = log.into_iter().flatten().map(|(_, run)| (run.seq_first.get(), run.seq_last()));
    let held = SeqSet::from_ranges(ranges.collect());
    let newest = newest.max(held.last().map_or(0, crate::Seq::get));
    if newest == 0 {
        return;
    }
    for (first, last) in SeqSet::from_ranges(vec![(1, newest)]).minus(&held).ranges() {
        let what = format!("events {first} to {last} of the own writer `{}`", own.short());
        let message = "they were written here and are missing".to_owned();
        problems.push(Problem { code: "event", what, message, affects: Vec::new() });
    }
}

/// What writers have signed: every signature holds, a signed event that is here is that one, and no event of a
/// foreign log lies beyond what its writer has signed. Logs that were once written here need no signature.
fn check_tips(
    surveys: &[Survey],
    own: WriterId,
    logs: &BTreeMap<WriterId, Log<'_>>,
    problems: &mut Vec<Problem>,
) {
    let mut newest: BTreeMap<WriterId, u64> = BTreeMap::new();
    let mut seen: BTreeSet<(WriterId, u64, EventId)> = BTreeSet::new();
    for survey in surveys {
        for (frame, tip) in &survey.tips {
            let what = format!(
                "tip of writer `{}` in `{}` at byte {frame}",
                tip.writer.short(),
                survey.source.path.display()
            );
            if let Err(error) = tip.verify() {
                problems.push(Problem {
                    code: "event",
                    what,
                    message: error.message().to_owned(),
                    affects: Vec::new(),
                });
                continue;
            }
            let known = newest.entry(tip.writer).or_default();
            *known = (*known).max(tip.seq.get());
            if seen.insert((tip.writer, tip.seq.get(), tip.event))
                && !tip_fits(surveys, tip, logs.get(&tip.writer))
            {
                let message = format!("its writer signed another event at seq {}", tip.seq);
                problems.push(Problem { code: "fork", what, message, affects: Vec::new() });
            }
        }
    }
    let here: BTreeSet<WriterId> = surveys.iter().flat_map(Survey::tails).map(|tail| tail.writer).collect();
    for (writer, log) in logs {
        let last = log.iter().map(|(_, run)| run.seq_last()).max().unwrap_or(0);
        let signed = newest.get(writer).copied();
        if *writer != own && !here.contains(writer) && last > signed.unwrap_or(0) {
            let what = format!("events of writer `{}` up to {last}", writer.short());
            let message = format!("the writer has signed its log only up to {}", signed.unwrap_or(0));
            problems.push(Problem { code: "event", what, message, affects: Vec::new() });
        }
    }
}

fn tip_fits(surveys: &[Survey], tip: &Tip, log: Option<&Log<'_>>) -> bool {
    let seq = tip.seq.get();
    let covers = |run: &Run| run.seq_first.get() <= seq && seq <= run.seq_last();
    let mut runs = log.into_iter().flatten().filter(|(_, run)| covers(run));
    runs.all(|(segment, run)| id_at(&surveys[*segment], run, seq).is_none_or(|id| id == tip.event))
}
