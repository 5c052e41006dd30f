//! Which events go into a bundle: what is asked for, all that it reaches, less what the base has.
//!
//! A trace reaches the transcripts and summaries of its conversations, and the ledgers and commit-links that name it; a ledger
//! or commit-link that is asked for reaches the traces that it names. Nothing is held back because no ledger names it: who
//! exports has said what is meant.

use std::collections::{BTreeSet, HashSet};

use agent_trace_store::question::{self, Found, Query};
use agent_trace_store::record::{Name, facts};
use agent_trace_store::seqs::EventSet;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Kind, Result, Seq, Store, Timestamp, WriterId};

use crate::collect::Source;
use crate::light::take;
use crate::named::conversation;
use crate::remote::events_of;
use crate::select::{sources, unsigned, without_bodies};
use crate::state::State;

/// What is asked for. Nothing named means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Sessions, as their agents name them, or conversations.
    pub sessions: Vec<String>,
    /// Commits, by their full names.
    pub commits: Option<Vec<String>>,
    /// Only what is not before this instant; what it reaches goes along all the same.
    pub since: Option<Timestamp>,
}

impl Wanted {
    fn is_everything(&self) -> bool {
        self.sessions.is_empty() && self.commits.is_none() && self.since.is_none()
    }
}

/// What goes.
#[derive(Default)]
pub(crate) struct Chosen {
    /// Events by their sorted numbers, by segment.
    pub picks: Vec<(Source, Vec<u32>)>,
    /// The events.
    pub events: EventSet,
    /// Events that cannot go, since bytes that they list are elsewhere.
    pub elsewhere: u64,
    /// Sessions that were asked for and of which nothing is here.
    pub unknown: Vec<String>,
}

/// Chooses.
pub(crate) fn choose(store: &Store, wanted: &Wanted, base: &EventSet) -> Result<Chosen> {
    loop {
        store.catch_up()?;
        let snapshot = store.snapshot()?;
        let chosen = choose_in(store, &snapshot, wanted, base);
        // Another process may have sealed or compacted between two looks at the index.
        if store.is_current(&snapshot)? {
            return chosen;
        }
    }
}

fn choose_in(store: &Store, snapshot: &Snapshot, wanted: &Wanted, base: &EventSet) -> Result<Chosen> {
    let mine = store.held(snapshot)?;
    let mine = mine.minus(&unsigned(store, &State::default(), &mine)?);
    let mut chosen = Chosen::default();
    let asked = match wanted.is_everything() {
        true => mine.clone(),
        false => {
            let mut reach = Reach { store, snapshot, seen: HashSet::new(), names: BTreeSet::new() };
            reach.start(wanted, &mut chosen.unknown)?;
            let places = reach.seen.iter().map(|(writer, seq)| (*writer, seq.get(), seq.get()));
            let asked = EventSet::from_ranges(places);
            asked.minus(&asked.minus(&mine))
        }
    };
    let rest = asked.minus(base);
    let sources = sources(store, snapshot)?;
    let away = without_bodies(store, &sources, &rest)?;
    chosen.elsewhere = away.len();
    let mut rest = rest.minus(&away);
    chosen.events = rest.clone();
    for source in sources {
        if let agent_trace_store::store::Handle::Sealed(sealed) = &source.handle
            && events_of(sealed).minus(&rest) == events_of(sealed)
        {
            continue;
        }
        let numbers = take(&source, &mut rest)?;
        if !numbers.is_empty() {
            chosen.picks.push((source, numbers));
        }
    }
    chosen.events = chosen.events.minus(&rest);
    Ok(chosen)
}

/// What is reached so far.
struct Reach<'a> {
    store: &'a Store,
    snapshot: &'a Snapshot,
    seen: HashSet<(WriterId, Seq)>,
    /// Names that have been looked up, with what for.
    names: BTreeSet<(u8, String)>,
}

/// What a record that is chosen brings along.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Brings {
    /// Traces: what ledgers and commit-links name.
    Traces,
    /// Transcripts and summaries.
    Conversations,
    /// Ledgers and commit-links that name it.
    Commits,
}

impl Reach<'_> {
    fn start(&mut self, wanted: &Wanted, unknown: &mut Vec<String>) -> Result<()> {
        let in_time = |found: &Found| wanted.since.is_none_or(|since| found.event.fact.time >= since);
        let mut waiting: Vec<(Found, bool)> = Vec::new();
        for session in &wanted.sessions {
            let found = self.of_session(session)?;
            if found.is_empty() {
                unknown.push(session.clone());
            }
            waiting.extend(found.into_iter().filter(in_time).map(|found| (found, true)));
        }
        for commit in wanted.commits.iter().flatten() {
            let found = question::named(self.store, self.snapshot, commit, false)?;
            let of_commit = |found: &Found| matches!(found.event.fact.kind, Kind::LEDGER | Kind::COMMIT_LINK);
            let found = found.into_iter().filter(|found| of_commit(found) && in_time(found));
            waiting.extend(found.map(|found| (found, true)));
        }
        if wanted.sessions.is_empty() && wanted.commits.is_none() {
            let query = Query { since: wanted.since, ..Query::default() };
            waiting.extend(self.every(&query)?.into_iter().map(|found| (found, true)));
        }
        // Other versions of a record stand in other logs, and go along: which one answers is the reader's to decide.
        while let Some((found, is_asked)) = waiting.pop() {
            if self.seen.insert((found.event.writer, found.event.seq)) {
                self.follow(&found, is_asked, &mut waiting)?;
            }
        }
        Ok(())
    }

    /// All events of a query, copies in several logs too.
    fn every(&self, query: &Query) -> Result<Vec<Found>> {
        question::list(self.store, self.snapshot, query)
    }

    /// The records of a session, or of a conversation.
    fn of_session(&self, session: &str) -> Result<Vec<Found>> {
        let query = Query { session: Some(session.to_owned()), ..Query::default() };
        let mut found = self.every(&query)?;
        let named = question::named(self.store, self.snapshot, session, false)?;
        found.extend(named.into_iter().filter(|found| found.event.fact.kind == Kind::TRANSCRIPT));
        Ok(found)
    }

    fn follow(&mut self, found: &Found, is_asked: bool, waiting: &mut Vec<(Found, bool)>) -> Result<()> {
        let fact = &found.event.fact;
        match fact.kind {
            Kind::TRACE => {
                self.bring_cited(found, Brings::Conversations, waiting)?;
                self.bring(&fact.key, Brings::Commits, waiting)
            }
            Kind::LEDGER | Kind::COMMIT_LINK if is_asked => self.bring_cited(found, Brings::Traces, waiting),
            Kind::TRANSCRIPT | Kind::SUMMARY => {
                let name = conversation(fact.kind, &fact.key).to_owned();
                self.bring(&name, Brings::Conversations, waiting)
            }
            _ => Ok(()),
        }
    }

    /// Brings what the names stand for that a record cites.
    fn bring_cited(&mut self, found: &Found, what: Brings, waiting: &mut Vec<(Found, bool)>) -> Result<()> {
        let record = self.store.read(&found.record())?;
        let Ok(facts) = facts(found.event.fact.kind, &record) else { return Ok(()) };
        for name in facts.names {
            if let Name::Cites(name) = name {
                self.bring(&name, what, waiting)?;
            }
        }
        Ok(())
    }

    fn bring(&mut self, name: &str, what: Brings, waiting: &mut Vec<(Found, bool)>) -> Result<()> {
        if !self.names.insert((what as u8, name.to_owned())) {
            return Ok(());
        }
        let find = |cites: bool| question::named(self.store, self.snapshot, name, cites);
        let (found, kinds): (Vec<Found>, &[Kind]) = match what {
            Brings::Traces => (find(false)?, &[Kind::TRACE]),
            Brings::Commits => (find(true)?, &[Kind::LEDGER, Kind::COMMIT_LINK]),
            Brings::Conversations => {
                let mut found = find(false)?;
                found.retain(|found| found.event.fact.kind == Kind::TRANSCRIPT);
                found.extend(find(true)?.into_iter().filter(|found| found.event.fact.kind == Kind::SUMMARY));
                (found, &[Kind::TRANSCRIPT, Kind::SUMMARY])
            }
        };
        let found = found.into_iter().filter(|found| kinds.contains(&found.event.fact.kind));
        waiting.extend(found.map(|found| (found, false)));
        Ok(())
    }
}
