//! Who names what: whether a ledger names a trace, and a trace a conversation, asked one by one or all at once.
//!
//! Asked all at once, names are compared by their first eight bytes; where two names of what is to be decided share
//! those, they are compared in full, one by one.

use std::collections::{HashMap, HashSet};

use agent_trace_store::question;
use agent_trace_store::record::name_prefix;
use agent_trace_store::segment::all_names;
use agent_trace_store::store::{Handle, Snapshot};
use agent_trace_store::table::NameEntry;
use agent_trace_store::{Kind, Result, Seq, Store, WriterId};
use rayon::prelude::*;

use crate::collect::Source;
use crate::light::{Candidate, walk};

/// A name by which an event is known to others.
pub type Prefix = [u8; 8];

/// The conversation that a transcript or summary belongs to; the key of anything else.
pub fn conversation(kind: Kind, key: &str) -> &str {
    // A summary's key is the conversation and a time, with a colon between.
    match kind {
        Kind::SUMMARY => key.split_once(':').map_or(key, |(conversation, _)| conversation),
        _ => key,
    }
}

/// The prefix by which a record of this kind is looked up when it is decided on; zero where it is not.
pub fn prefix(kind: Kind, key: &str) -> Prefix {
    match kind {
        Kind::TRACE | Kind::TRANSCRIPT | Kind::SUMMARY => name_prefix(conversation(kind, key)),
        _ => [0; 8],
    }
}

/// Whether records of this kind go with the traces that name their conversation.
pub fn is_body(kind: Kind) -> bool {
    matches!(kind, Kind::TRANSCRIPT | Kind::SUMMARY)
}

/// Who names what.
pub struct Names<'a> {
    /// The store.
    pub store: &'a Store,
    /// What of it is looked at.
    pub snapshot: &'a Snapshot,
    /// All names, where much is decided.
    pub bulk: Option<BulkNames>,
}

/// The names that ledgers and traces cite, all at once.
pub struct BulkNames {
    /// Sorted.
    by_ledgers: Vec<Prefix>,
    /// Sorted; of conversations that are to be decided on alone.
    by_traces: Vec<(Prefix, WriterId, Seq)>,
    /// Prefixes that several of the names to be decided on have.
    shared: HashSet<Prefix>,
}

impl BulkNames {
    /// Reads what the store's ledgers and traces cite, as far as the candidates, by segment, may need it.
    pub fn read(store: &Store, sources: &[Source], candidates: &[Vec<Candidate>]) -> Result<BulkNames> {
        let of = |wanted: fn(Kind) -> bool| {
            let all = candidates.iter().flatten();
            all.filter(move |candidate| wanted(candidate.kind)).map(|candidate| candidate.prefix)
        };
        let mut bodies: Vec<Prefix> = of(is_body).collect();
        bodies.sort_unstable();
        bodies.dedup();
        let mut looked_up: Vec<Prefix> = of(|kind| kind == Kind::TRACE || is_body(kind)).collect();
        looked_up.sort_unstable();
        let twice: HashSet<Prefix> =
            looked_up.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        drop(looked_up);
        let shared = shared_prefixes(sources, candidates, &twice)?;
        let cited: Vec<_> =
            sources.par_iter().map(|source| citations(store, source, &bodies)).collect::<Result<_>>()?;
        let mut names = BulkNames { by_ledgers: Vec::new(), by_traces: Vec::new(), shared };
        for (by_ledgers, by_traces) in cited {
            names.by_ledgers.extend(by_ledgers);
            names.by_traces.extend(by_traces);
        }
        names.by_ledgers.par_sort_unstable();
        names.by_ledgers.dedup();
        names.by_traces.sort_unstable();
        Ok(names)
    }
}

/// What the ledgers and the traces of a segment cite.
type Citations = (Vec<Prefix>, Vec<(Prefix, WriterId, Seq)>);

/// What a segment's ledgers cite, and which of its traces cite some conversations, whose prefixes are sorted.
fn citations(store: &Store, source: &Source, conversations: &[Prefix]) -> Result<Citations> {
    let (mut by_ledgers, mut by_traces) = (Vec::new(), Vec::new());
    if let Handle::Sealed(sealed) = &source.handle {
        let kinds = &sealed.directory.kinds;
        let traces = kinds.contains_key(&Kind::TRACE) && !conversations.is_empty();
        if !traces && !kinds.contains_key(&Kind::LEDGER) {
            return Ok((by_ledgers, by_traces));
        }
        if kinds.len() == 1 && kinds.contains_key(&Kind::LEDGER) {
            let names = source_names(store, source)?.into_iter();
            by_ledgers.extend(names.filter(|entry| entry.cites).map(|entry| entry.prefix));
            return Ok((by_ledgers, by_traces));
        }
    }
    let mut names = source_names(store, source)?;
    names.retain(|entry| entry.cites);
    names.sort_unstable_by_key(|entry| entry.event);
    let mut numbers: Vec<u32> = names.iter().map(|entry| entry.event).collect();
    numbers.dedup();
    // The index may know more of an open segment than was looked at.
    numbers.retain(|number| *number < source.events);
    let mut names = names.into_iter().peekable();
    walk(source, &numbers, |number, laid| {
        while let Some(entry) = names.next_if(|entry| entry.event <= number) {
            match laid.kind {
                Kind::LEDGER => by_ledgers.push(entry.prefix),
                Kind::TRACE if conversations.binary_search(&entry.prefix).is_ok() => {
                    by_traces.push((entry.prefix, laid.writer, laid.seq));
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok((by_ledgers, by_traces))
}

fn source_names(store: &Store, source: &Source) -> Result<Vec<NameEntry>> {
    match &source.handle {
        Handle::Sealed(sealed) => all_names(sealed.file.as_ref(), &sealed.key, &sealed.directory),
        Handle::Open(_) => {
            Ok(store.index().read(|view| view.open_names(&[0; 8], &[255; 8]))?.unwrap_or_default())
        }
    }
}

/// Prefixes of names that differ later, among those that were found more than once.
fn shared_prefixes(
    sources: &[Source],
    candidates: &[Vec<Candidate>],
    twice: &HashSet<Prefix>,
) -> Result<HashSet<Prefix>> {
    let mut shared = HashSet::new();
    if twice.is_empty() {
        return Ok(shared);
    }
    let mut first: HashMap<Prefix, String> = HashMap::new();
    for (source, candidates) in sources.iter().zip(candidates) {
        let doubtful = |candidate: &&Candidate| {
            (candidate.kind == Kind::TRACE || is_body(candidate.kind)) && twice.contains(&candidate.prefix)
        };
        let mut numbers: Vec<u32> =
            candidates.iter().filter(doubtful).map(|candidate| candidate.number).collect();
        numbers.sort_unstable();
        walk(source, &numbers, |_, laid| {
            let name = conversation(laid.kind, laid.key);
            let prefix = name_prefix(name);
            match first.get(&prefix) {
                Some(first) if first == name => {}
                Some(_) => {
                    shared.insert(prefix);
                }
                None => {
                    first.insert(prefix, name.to_owned());
                }
            }
            Ok(())
        })?;
    }
    Ok(shared)
}

impl Names<'_> {
    /// The names all at once, where they are known so and this name cannot be taken for another.
    fn bulk(&self, prefix: &Prefix) -> Option<&BulkNames> {
        self.bulk.as_ref().filter(|names| !names.shared.contains(prefix))
    }

    /// Whether a ledger names a trace.
    pub fn ledger_names(&self, prefix: &Prefix, trace: &dyn Fn() -> Result<String>) -> Result<bool> {
        if let Some(names) = self.bulk(prefix) {
            return Ok(names.by_ledgers.binary_search(prefix).is_ok());
        }
        let citing = question::named(self.store, self.snapshot, &trace()?, true)?;
        Ok(citing.iter().any(|found| found.event.fact.kind == Kind::LEDGER))
    }

    /// Whether one of some traces names a conversation.
    pub fn trace_names(
        &self,
        prefix: &Prefix,
        conversation: &dyn Fn() -> Result<String>,
        traces: &dyn Fn(&WriterId, Seq) -> bool,
    ) -> Result<bool> {
        if let Some(names) = self.bulk(prefix) {
            let from = names.by_traces.partition_point(|citing| citing.0 < *prefix);
            let mut citing = names.by_traces[from..].iter().take_while(|citing| citing.0 == *prefix);
            return Ok(citing.any(|(_, writer, seq)| traces(writer, *seq)));
        }
        let citing = question::named(self.store, self.snapshot, &conversation()?, true)?;
        Ok(citing.iter().any(|found| {
            found.event.fact.kind == Kind::TRACE && traces(&found.event.writer, found.event.seq)
        }))
    }
}
