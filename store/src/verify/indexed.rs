//! The index against the segments: rows, postings and the tables of the open segment.
//!
//! The index is looked at first and the segments after it, so that whatever it says must be there by then, unless it was
//! compacted away. What it has not seen yet is no problem; nor is its absence.

use std::collections::{BTreeMap, HashMap};

use super::Problem;
use super::survey::{Hint, Name, Survey, text};
use crate::error::{ErrorKind, Result};
use crate::id::WriterId;
use crate::index::{SegmentRow, View};
use crate::scan::Term;
use crate::segment::{EventsPlace, Run};
use crate::seqs::EventSet;
use crate::store::Store;
use crate::table::{IdEntry, NameEntry};
use crate::writer::Tip;

const CURE: &str = "run `agent-trace reindex`";

/// What the index says.
#[derive(Debug, Default)]
pub(crate) struct Indexed {
    rows: BTreeMap<u32, SegmentRow>,
    runs: Vec<(u32, Run)>,
    /// The newest tips it has seen.
    pub(crate) tips: Vec<Tip>,
    postings: HashMap<u32, Vec<(u32, i64)>>,
    open_ids: Vec<IdEntry>,
    open_names: Vec<NameEntry>,
    open_frames: Vec<EventsPlace>,
    /// The segment that these three are of.
    open_number: Option<u32>,
    /// Whether its pages are what redb wrote.
    sound: bool,
}

fn problem(message: impl Into<String>) -> Problem {
    let message = format!("{}: {CURE}", message.into());
    Problem { code: "index", what: "the index".to_owned(), message, affects: Vec::new() }
}

fn read_view(view: &View) -> Result<Indexed> {
    let mut postings: HashMap<u32, Vec<(u32, i64)>> = HashMap::new();
    view.postings(Term::ALL, &mut |events, _| {
        for (time, place) in events {
            postings.entry(place.segment).or_default().push((place.event, time.micros()));
        }
        true
    })?;
    Ok(Indexed {
        rows: view.segments()?,
        runs: view.runs()?,
        tips: view.tips()?,
        postings,
        open_ids: view.open_ids(&[0; 32], &[255; 32])?,
        open_names: view.open_names(&[0; 8], &[255; 8])?,
        open_frames: view.open_frames()?,
        open_number: view.open_number()?,
        sound: true,
    })
}

impl Indexed {
    /// Lets redb check itself, and reads what is to be compared.
    pub(crate) fn read(store: &Store, problems: &mut Vec<Problem>) -> Result<Indexed> {
        if !store.index().exists()? {
            return Ok(Indexed::default());
        }
        let sound = match store.index().check() {
            Ok(true) => true,
            Ok(false) => {
                problems.push(problem("its pages were damaged"));
                false
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => {
                problems.push(problem(text(&error)));
                false
            }
        };
        match store.index().read(read_view) {
            Ok(Some(indexed)) => Ok(Indexed { sound, ..indexed }),
            Ok(None) => {
                problems.push(problem("it has no version that this program knows"));
                Ok(Indexed::default())
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
            Err(error) => {
                if sound {
                    problems.push(problem(text(&error)));
                }
                Ok(Indexed::default())
            }
        }
    }

    /// What is known here of a segment file.
    pub(crate) fn hint(&self, name: Name) -> Hint {
        let row = match name {
            Name::Sealed(id) => self.rows.values().find(|row| row.id == Some(id)),
            Name::Open(nonce) => self.rows.values().find(|row| row.nonce == nonce),
        };
        let end = row.filter(|_| self.sound).map_or(0, |row| row.end);
        Hint { nonce: row.map(|row| row.nonce), end }
    }

    /// The highest seq of a log that the index has seen.
    pub(crate) fn seq_last(&self, writer: &WriterId) -> u64 {
        let runs = self.runs.iter().map(|(_, run)| run).filter(|run| run.writer == *writer);
        let tails = self.rows.values().map(|row| row.tail).filter(|tail| tail.writer == *writer);
        runs.map(Run::seq_last).chain(tails.map(|tail| tail.seq)).max().unwrap_or(0)
    }

    /// Compares everything with the segments.
    pub(crate) fn compare(&self, surveys: &[Survey], held: &EventSet, problems: &mut Vec<Problem>) {
        if !self.sound {
            return;
        }
        for (number, row) in &self.rows {
            let survey = surveys.iter().find(|survey| {
                survey.nonce == Some(row.nonce) && (row.id.is_none() || row.id == named(survey))
            });
            let survey = survey.or_else(|| surveys.iter().find(|survey| survey.nonce == Some(row.nonce)));
            match survey {
                None => problems.extend(self.gone(*number, row, surveys, held)),
                // What is wrong with such a segment is not the index's fault.
                Some(survey) if survey.lost || !survey.faults.is_empty() => {}
                Some(survey) => {
                    let mut messages = Vec::new();
                    self.compare_row(*number, row, survey, &mut messages);
                    let path = survey.source.path.display();
                    problems.extend(
                        messages.into_iter().map(|message| problem(format!("of segment `{path}` {message}"))),
                    );
                }
            }
        }
        for tip in &self.tips {
            if let Err(error) = tip.verify() {
                problems.push(problem(text(&error)));
            }
        }
    }

    /// A segment that the index has seen and that is gone: compacted, unless events of it are missing.
    fn gone(&self, number: u32, row: &SegmentRow, surveys: &[Survey], held: &EventSet) -> Option<Problem> {
        let runs = self.runs.iter().filter(|(segment, _)| *segment == number).map(|(_, run)| run);
        let seen = EventSet::from_ranges(runs.map(|run| (run.writer, run.seq_first.get(), run.seq_last())));
        let lost = seen.minus(held).len();
        let known = row.id.is_some_and(|id| surveys.iter().any(|survey| named(survey) == Some(id)));
        if lost == 0 || known {
            return None;
        }
        let what = match row.id {
            Some(id) => format!("segment `{id}`"),
            None => format!("open segment `{}`", crate::id::encode_hex(&row.nonce)),
        };
        let message = format!("it is gone, and {lost} events with it");
        Some(Problem { code: "segment", what, message, affects: Vec::new() })
    }

    fn compare_row(&self, number: u32, row: &SegmentRow, survey: &Survey, messages: &mut Vec<String>) {
        let mut check = |what: &str, same: bool| {
            if !same {
                messages.push(format!("{what} differ"));
            }
        };
        let contents = &survey.contents;
        let commit = survey.commits.iter().find(|(end, _)| *end == row.end).map(|(_, commit)| commit);
        check(
            "the numbers",
            commit.is_some_and(|commit| {
                commit.batch == row.batch && commit.events == row.events && commit.tail == row.tail
            }),
        );
        if row.end == survey.end {
            check("the kinds", row.kinds == contents.kinds && row.raw_bytes == contents.raw_bytes);
        }
        check("the postings", self.postings_fit(number, row, survey));
        let runs = self.runs.iter().filter(|(segment, _)| *segment == number).map(|(_, run)| run);
        if row.id.is_some() {
            let mut runs: Vec<Run> = runs.copied().collect();
            runs.sort_by_key(|run| run.first_event);
            check("the runs", runs == contents.runs);
        } else {
            let indexed = ranges(runs, u32::MAX);
            check("the runs", indexed == ranges(contents.runs.iter(), row.events));
            if named(survey).is_some() && self.open_number != Some(number) {
                // Sealed, but its row not told yet, while the tables have gone on to the next open segment.
                return;
            }
            check("the ids", self.ids_fit(row, survey));
            // Sealed just now: the names of the open segment are those of its table, which is checked with it.
            check("the names", named(survey).is_some() || self.names_fit(row, survey));
            let frames = contents.events_frames.iter().filter(|place| place.first_event < row.events);
            check("the events frames", frames.eq(self.open_frames.iter()));
        }
    }

    /// Each event is listed once, with its time.
    fn postings_fit(&self, number: u32, row: &SegmentRow, survey: &Survey) -> bool {
        let Some(times) = survey.times.get(..row.events as usize) else { return false };
        let mut listed = self.postings.get(&number).cloned().unwrap_or_default();
        listed.sort_unstable();
        listed.len() == times.len()
            && listed.iter().zip(0u32..).zip(times).all(|((listed, event), time)| *listed == (event, *time))
    }

    fn ids_fit(&self, row: &SegmentRow, survey: &Survey) -> bool {
        let within = |frame: u32| u64::from(frame) < row.end;
        let mut ids: Vec<_> =
            survey.objects.iter().filter(|object| within(object.frame)).map(|object| object.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let at = |entry: &IdEntry| (entry.id, entry.frame, entry.slot);
        let mut places: Vec<_> =
            survey.objects.iter().map(|object| (object.id, object.frame, object.slot)).collect();
        places.sort_unstable();
        self.open_ids.iter().map(|entry| entry.id).eq(ids)
            && self.open_ids.iter().all(|entry| places.binary_search(&at(entry)).is_ok())
    }

    fn names_fit(&self, row: &SegmentRow, survey: &Survey) -> bool {
        let mut listed = self.open_names.clone();
        listed.sort_unstable();
        let mut must: Vec<NameEntry> =
            survey.names.iter().filter(|name| name.event < row.events).copied().collect();
        must.sort_unstable();
        must.dedup();
        let mut may = survey.loose_names.clone();
        may.sort_unstable();
        must.iter().all(|name| listed.binary_search(name).is_ok())
            && listed.iter().all(|name| must.binary_search(name).is_ok() || may.binary_search(name).is_ok())
    }
}

fn named(survey: &Survey) -> Option<crate::id::SegmentId> {
    match survey.source.name {
        Name::Sealed(id) => Some(id),
        Name::Open(_) => None,
    }
}

/// The events of runs among the first so many of a segment.
fn ranges<'a>(runs: impl Iterator<Item = &'a Run>, events: u32) -> EventSet {
    let cut = runs.filter(|run| run.first_event < events).map(|run| {
        let count = run.count.min(events - run.first_event);
        (run.writer, run.seq_first.get(), run.seq_first.get() + u64::from(count) - 1)
    });
    EventSet::from_ranges(cut)
}
