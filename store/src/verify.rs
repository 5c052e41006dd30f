//! Checks every stored byte, id, chain and invariant; reports, and changes nothing.
//!
//! Every file is read from end to end and nothing is taken on the word of a table. Damage never ends the work: what
//! is wrong is noted, and what lies behind it is read. Takes no lock, so others may write meanwhile.

mod batch;
mod closure;
mod erased;
mod indexed;
mod logs;
mod survey;
mod tables;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::elsewhere::{self, Elsewhere};
use crate::env::LockMode;
use crate::erased::Erased;
use crate::error::Result;
use crate::id::ObjectId;
use crate::limits::{LOCK_WAIT_MICROS_MAX, VERIFY_AFFECTS_MAX, VERIFY_MISSING_MAX};
use crate::lock::lock;
use crate::progress::Progress;
use crate::store::Store;

pub use crate::reindex::{ReindexReport, reindex};

pub(crate) use closure::{Closure, each_events, events_of};
pub(crate) use erased::{back, erased_in};
pub(crate) use indexed::Indexed;
pub(crate) use logs::held;
pub(crate) use survey::{Fault, Name, Survey};

/// What was checked, and what is wrong.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Segment files read.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Objects hashed.
    pub objects: u64,
    /// Events whose id and chain were computed.
    pub events: u64,
    /// Events whose neighbour in their log is not here, so that the chain could not be compared.
    pub unconfirmed: u64,
    /// Objects that events list and that were left out on purpose: a remote is noted for each.
    pub elsewhere: u64,
    /// Objects that events list and that are erased.
    pub erased: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A stable code: `segment`, `frame`, `object`, `event`, `closure`, `fork`, `table`, `index`, `elsewhere`,
    /// `erased`.
    pub code: &'static str,
    /// What is damaged, by path and place, or by id.
    pub what: String,
    /// What is wrong with it.
    pub message: String,
    /// What refers to it: records by kind and key.
    pub affects: Vec<String>,
}

/// Checks a whole store.
pub fn verify(store: &Store, progress: &dyn Progress) -> Result<Report> {
    let mut problems = Vec::new();
    // Before the segments and after them: a note goes once its object has come, and comes before its event.
    let mut notes = elsewhere::look(store.env(), store.dir())?;
    let indexed = Indexed::read(store, &mut problems)?;
    let mut surveyed = Surveyed::read(store, &indexed, progress)?;
    read_again(store, &indexed, &mut surveyed.surveys, progress)?;
    let surveys = &surveyed.surveys;
    let mut report = Report {
        segments: surveys.len() as u64,
        bytes: surveys.iter().map(|survey| survey.source.bytes).sum(),
        objects: surveys.iter().map(|survey| survey.objects.len() as u64).sum(),
        events: surveys.iter().map(|survey| u64::from(survey.contents.events)).sum(),
        ..Report::default()
    };
    let mut affected = Affected::default();
    for fault in &surveyed.faults {
        affected.problem("the segments", fault);
    }
    let after = elsewhere::look(store.env(), store.dir())?;
    for bad in &after.bad {
        affected.push("elsewhere", bad.path.display().to_string(), survey::text(&bad.error));
    }
    notes.elsewhere.join(after.elsewhere);
    progress.start("objects", None);
    let erased = store.reload_erased()?;
    (report.elsewhere, report.erased) =
        check_objects(surveys, &notes.elsewhere, &erased, &mut affected, progress);
    progress.finish();
    let (chain, unconfirmed) = logs::check(surveys, store.writer());
    report.unconfirmed = unconfirmed;
    indexed.compare(surveys, &held(surveys), &mut problems);
    report.problems = affected.finish();
    report.problems.extend(chain);
    report.problems.extend(problems);
    Ok(report)
}

/// All segment files of a store, read.
pub(crate) struct Surveyed {
    /// The files.
    pub(crate) surveys: Vec<Survey>,
    /// What is wrong with files that are not even that.
    pub(crate) faults: Vec<Fault>,
}

impl Surveyed {
    /// Reads all segment files.
    pub(crate) fn read(store: &Store, indexed: &Indexed, progress: &dyn Progress) -> Result<Surveyed> {
        let (sources, faults) = survey::sources(store)?;
        progress.start("segments", Some(sources.iter().map(|source| source.bytes).sum()));
        let surveys = sources.into_iter().map(|source| {
            let hint = indexed.hint(source.name);
            survey::survey(store, source, hint, progress)
        });
        let surveys = surveys.collect();
        progress.finish();
        Ok(Surveyed { surveys, faults })
    }
}

/// Reads an open segment once more where something was wrong with it, while nobody appends: a process that died while it
/// wrote leaves a batch that the next one cuts and writes over, perhaps between two looks at the file.
fn read_again(
    store: &Store,
    indexed: &Indexed,
    surveys: &mut Vec<Survey>,
    progress: &dyn Progress,
) -> Result<()> {
    let is_doubtful =
        |survey: &Survey| matches!(survey.source.name, Name::Open(_)) && !survey.faults.is_empty();
    if !surveys.iter().any(is_doubtful) {
        return Ok(());
    }
    // Where the lock cannot be had, what was seen is told.
    let path = store.dir().join("lock");
    let Ok(_alone) = lock(store.env(), &path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX) else {
        return Ok(());
    };
    let (sources, _) = survey::sources(store)?;
    surveys.retain(|survey| !is_doubtful(survey));
    let known: Vec<Name> = surveys.iter().map(|survey| survey.source.name).collect();
    for source in sources.into_iter().filter(|source| !known.contains(&source.name)) {
        // What is sealed by now has its place in a file of another name.
        let hint = indexed.hint(source.name);
        surveys.push(survey::survey(store, source, hint, progress));
    }
    Ok(())
}

/// Problems, and the records that each of them concerns.
#[derive(Default)]
struct Affected {
    problems: Vec<Problem>,
    more: Vec<u64>,
}

impl Affected {
    fn problem(&mut self, file: &str, fault: &Fault) -> usize {
        let what = match fault.place {
            Some((start, _)) => format!("{file} at byte {start}"),
            None => file.to_owned(),
        };
        self.push(fault.code, what, fault.message.clone())
    }

    fn push(&mut self, code: &'static str, what: String, message: String) -> usize {
        self.problems.push(Problem { code, what, message, affects: Vec::new() });
        self.more.push(0);
        self.problems.len() - 1
    }

    fn add(&mut self, problem: usize, record: &str) {
        let affects = &mut self.problems[problem].affects;
        if affects.iter().any(|known| known == record) {
            return;
        }
        if affects.len() < VERIFY_AFFECTS_MAX {
            affects.push(record.to_owned());
        } else {
            self.more[problem] += 1;
        }
    }

    fn finish(mut self) -> Vec<Problem> {
        for (problem, more) in self.problems.iter_mut().zip(self.more) {
            if more > 0 {
                problem.affects.push(format!("and {more} more"));
            }
        }
        self.problems
    }
}

/// Checks recipes and closure, and finds out which records each damage concerns. Returns how many objects are elsewhere,
/// and how many are erased.
fn check_objects(
    surveys: &[Survey],
    elsewhere: &Elsewhere,
    known: &Arc<Erased>,
    affected: &mut Affected,
    progress: &dyn Progress,
) -> (u64, u64) {
    let closure = Closure::build(surveys, progress);
    let known = known.as_ref();
    let erased = &erased_in(surveys, &closure);
    for id in back(surveys, &closure, erased, known) {
        let message = "it is erased, but here: `agent-trace compact` removes it";
        affected.push("erased", format!("object `{id}`"), message.to_owned());
    }
    let mut causes: HashMap<ObjectId, Vec<usize>> = HashMap::new();
    for survey in surveys {
        let file = survey.source.path.display().to_string();
        let first = affected.problems.len();
        for fault in &survey.faults {
            affected.problem(&file, fault);
        }
        for (id, fault) in &survey.lost_ids {
            if !closure.holds(id) {
                causes.entry(*id).or_default().push(first + fault);
            }
        }
    }
    let mut named: HashMap<ObjectId, usize> = HashMap::new();
    for trouble in &closure.troubles {
        let problem =
            affected.push(trouble.code, format!("object `{}`", trouble.id), trouble.message.clone());
        named.insert(trouble.id, problem);
        causes.entry(trouble.id).or_default().push(problem);
    }
    let causes = closure.taints(causes);
    let touched = each_events(surveys, |_, events| {
        let mut touched: Vec<(String, ObjectId, bool)> = Vec::new();
        for (event, _) in &events {
            let fact = &event.fact;
            let objects = fact.objects.iter().enumerate();
            for (place, id) in objects.filter(|(_, id)| !closure.holds(id) || causes.contains_key(id)) {
                touched.push((format!("{} `{}`", fact.kind, fact.key), *id, place == 0));
            }
        }
        (!touched.is_empty()).then_some(touched)
    });
    let mut missing: BTreeMap<ObjectId, Vec<String>> = BTreeMap::new();
    let (mut left_out, mut gone) = (BTreeSet::<ObjectId>::new(), BTreeSet::<ObjectId>::new());
    for (record, id, is_record) in touched.into_iter().flatten() {
        for problem in causes.get(&id).into_iter().flatten() {
            affected.add(*problem, &record);
        }
        if closure.places(&id).is_empty() && !named.contains_key(&id) {
            if erased.contains(&id) {
                gone.insert(id);
            } else if !is_record && elsewhere.contains(&id) {
                left_out.insert(id);
            } else {
                missing.entry(id).or_default().push(record);
            }
        }
    }
    name_missing(missing, affected);
    (left_out.len() as u64, gone.len() as u64)
}

fn name_missing(missing: BTreeMap<ObjectId, Vec<String>>, affected: &mut Affected) {
    let count = missing.len();
    for (id, records) in missing.into_iter().take(VERIFY_MISSING_MAX) {
        let problem =
            affected.push("closure", format!("object `{id}`"), "it is missing, but listed".to_owned());
        for record in records {
            affected.add(problem, &record);
        }
    }
    if let Some(more) = count.checked_sub(VERIFY_MISSING_MAX).filter(|more| *more > 0) {
        affected.push("closure", format!("{more} more objects"), "they are missing, but listed".to_owned());
    }
}
