//! The gate itself: what would leave is looked through, and what is a secret stays.

use std::cell::RefCell;
use std::collections::BTreeMap;

use agent_trace_store::progress::Progress;
use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, ErrorKind, Result, Store};
use agent_trace_sync::gate::Gate;

use super::class::Class;
use super::document;
use super::finding::Finding;
use super::limits::LISTED_MAX;
use super::objects::{Cost, Objects};
use super::policy::{Mode, Policy};
use super::rules::RuleSet;
use super::scan::Scanner;
use super::scanned::{Place, Scanned};

/// What was found in what is about to leave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leaving {
    /// Secrets that stop it.
    pub(crate) stopped: u64,
    /// What may be secrets, and does not.
    pub(crate) possible: u64,
}

/// Looks through what leaves a store. The rules are read only where something was not looked through before.
pub(crate) struct PrivacyGate<'a> {
    policy: &'a Policy,
    progress: &'a dyn Progress,
    /// What was found when it was asked last.
    pub(crate) found: RefCell<Leaving>,
}

impl<'a> PrivacyGate<'a> {
    /// Prepares.
    pub(crate) fn new(policy: &'a Policy, progress: &'a dyn Progress) -> PrivacyGate<'a> {
        PrivacyGate { policy, progress, found: RefCell::default() }
    }
}

impl Policy {
    /// Whether a finding stops what would send it.
    pub(crate) fn stops(&self, finding: &Finding) -> bool {
        !self.allow.contains(&finding.fingerprint) && (self.strict || finding.class == Class::Certain)
    }
}

/// What is kept of a store that was looked through; what was not, of the events that are wanted, is now.
pub(crate) fn scanned(
    store: &Store,
    wanted: &EventSet,
    policy: &Policy,
    progress: &dyn Progress,
    until: Option<u64>,
) -> Result<(Scanned, Cost)> {
    let key = &policy.key;
    let mut scanned = Scanned::load(store, &policy.rules_id(store.env())?, &key.check());
    if wanted.minus(&scanned.events).is_empty() {
        return Ok((scanned, Cost::default()));
    }
    let rules = policy.rules(store.env())?;
    let cost = Objects { store, rules: &rules, key, progress, until }.scan(wanted, &mut scanned)?;
    if cost.events > 0 {
        // Where it cannot be kept, all is looked through again the next time.
        let _ = scanned.save(store);
    }
    Ok((scanned, cost))
}

impl Gate for PrivacyGate<'_> {
    fn ask(&self, store: &Store, leaving: &EventSet) -> Result<()> {
        if self.policy.mode == Mode::Off || leaving.is_empty() {
            return Ok(());
        }
        let (scanned, _) = scanned(store, leaving, self.policy, self.progress, None)?;
        let mut stopped: BTreeMap<u32, (&Place, u64)> = BTreeMap::new();
        let mut found = Leaving::default();
        for place in scanned.places().iter().filter(|place| leaving.contains(&place.writer, place.seq)) {
            let finding = &scanned.findings[place.finding as usize];
            if self.policy.stops(finding) {
                found.stopped += 1;
                stopped.entry(place.finding).or_insert((place, 0)).1 += 1;
            } else if !self.policy.allow.contains(&finding.fingerprint) {
                found.possible += 1;
            }
        }
        *self.found.borrow_mut() = found;
        let lines = stopped.iter().map(|(number, (place, places))| {
            let more = if *places > 1 { format!(" and {} more place(s)", places - 1) } else { String::new() };
            let where_ = format!("{} `{}`{more}", place.kind, place.key);
            line(&scanned.findings[*number as usize], &where_)
        });
        refuse(lines.collect())
    }
}

/// Refuses what holds secrets, and lists them.
pub(crate) fn refuse(lines: Vec<String>) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let count = lines.len();
    let mut shown: Vec<String> = lines.into_iter().take(LISTED_MAX).collect();
    if count > LISTED_MAX {
        shown.push(format!("and {} more; agent-trace privacy scan lists them", count - LISTED_MAX));
    }
    let message = format!("nothing was sent: it holds {count} secret(s)");
    Err(Error::new(ErrorKind::Refused, message).with_source(shown.join("\n")))
}

/// A finding in one line.
pub(crate) fn line(finding: &Finding, place: &str) -> String {
    format!("{} {} in {place}: {}", finding.fingerprint, finding.rule, finding.hint)
}

/// The secrets of a text that may not leave, each in one line.
pub(crate) fn stopped_in(policy: &Policy, rules: &RuleSet, name: &str, text: &[u8]) -> Vec<String> {
    let mut scanner = Scanner::new(rules);
    let mut lines = Vec::new();
    document::scan(&mut scanner, text, None, &mut |_, hit| {
        let finding = Finding::new(&rules.rules[hit.rule as usize], &hit.secret, &policy.key);
        if policy.stops(&finding) {
            lines.push(line(&finding, name));
        }
    });
    lines
}
