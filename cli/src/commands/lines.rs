//! Lines of agents, counted from ledgers: by agent, model, person, folder or month. A commit that git no longer has on
//! a branch does not count, so that a rewritten one is not counted twice; outside git all count.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use agent_trace_store::question::{self, Found, Query};
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Kind, Result, Store, Timestamp};
use jiff::tz::TimeZone;
use rayon::prelude::*;

use crate::args::LinesBy;
use crate::blame::traces;
use crate::git::process::Git;
use crate::link::ledger::Ledger;
use crate::time;

/// Ledgers that are read at once.
const LEDGERS_TOGETHER: usize = 1024;

/// Lines by name.
pub(super) type Lines = BTreeMap<String, u64>;

/// A commit that git has.
struct Known {
    author: String,
    authored: Timestamp,
}

/// Counts the lines of all ledgers in each of some ways.
pub(super) fn count(
    store: &Store,
    snapshot: &Snapshot,
    directory: Option<&Path>,
    ways: &[LinesBy],
    zone: &TimeZone,
) -> Result<BTreeMap<LinesBy, Lines>> {
    let commits = directory.map(commits).transpose()?;
    let mut chosen: HashMap<String, Found> = HashMap::new();
    let query = Query { kind: Some(Kind::LEDGER), ..Query::default() };
    for found in question::list(store, snapshot, &query)? {
        let key = &found.event.fact.key;
        if commits.as_ref().is_some_and(|commits| !commits.contains_key(key)) {
            continue;
        }
        let order = |found: &Found| (found.event.fact.time, found.record());
        if chosen.get(key).is_none_or(|known| order(known) < order(&found)) {
            chosen.insert(key.clone(), found);
        }
    }
    let chosen: Vec<Found> = chosen.into_values().collect();
    let mut counts: BTreeMap<LinesBy, Lines> = ways.iter().map(|way| (*way, Lines::new())).collect();
    let mut agents: HashMap<String, String> = HashMap::new();
    for some in chosen.chunks(LEDGERS_TOGETHER) {
        let ledgers = some.par_iter().map(|found| Ok(Ledger::decode(&store.read(&found.record())?).ok()));
        let ledgers: Vec<Ledger> = ledgers.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        if ways.contains(&LinesBy::Agent) {
            learn_agents(store, snapshot, &ledgers, &mut agents)?;
        }
        for ledger in &ledgers {
            let commit = commits.as_ref().and_then(|commits| commits.get(&ledger.commit_sha));
            add(ledger, commit, &agents, zone, &mut counts);
        }
    }
    Ok(counts)
}

fn learn_agents(
    store: &Store,
    snapshot: &Snapshot,
    ledgers: &[Ledger],
    agents: &mut HashMap<String, String>,
) -> Result<()> {
    let ids: HashSet<&str> = ledgers
        .iter()
        .flat_map(|ledger| ledger.files.values())
        .flat_map(|file| &file.line_attributions)
        .filter_map(|run| run.trace_id.as_deref())
        .filter(|id| !agents.contains_key(*id))
        .collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    for (id, facts) in traces::read(store, snapshot, &ids)? {
        agents.insert(id, facts.agent);
    }
    Ok(())
}

fn add(
    ledger: &Ledger,
    commit: Option<&Known>,
    agents: &HashMap<String, String>,
    zone: &TimeZone,
    counts: &mut BTreeMap<LinesBy, Lines>,
) {
    const UNKNOWN: &str = "unknown";
    let authored = commit.map(|commit| commit.authored).or_else(|| Timestamp::parse(&ledger.committed_at));
    for (path, file) in &ledger.files {
        for run in &file.line_attributions {
            for (way, counts) in counts.iter_mut() {
                let name = match way {
                    LinesBy::Agent => {
                        let agent = run.trace_id.as_ref().and_then(|id| agents.get(id));
                        agent.map_or(UNKNOWN, String::as_str).to_owned()
                    }
                    LinesBy::Model => run.model_id.as_deref().unwrap_or(UNKNOWN).to_owned(),
                    LinesBy::Person => commit.map_or(UNKNOWN, |commit| &commit.author).to_owned(),
                    LinesBy::Folder => folder(path),
                    LinesBy::Month => {
                        authored.map_or_else(|| UNKNOWN.to_owned(), |authored| time::month(authored, zone))
                    }
                };
                *counts.entry(name).or_default() += run.lines();
            }
        }
    }
}

/// The first folder of a path.
fn folder(path: &str) -> String {
    match path.split_once('/') {
        Some((folder, _)) => format!("{folder}/"),
        None => "./".to_owned(),
    }
}

/// All commits of all branches, with who wrote them and when.
fn commits(directory: &Path) -> Result<HashMap<String, Known>> {
    let git = Git::from(directory);
    let printed = git.ask(&["log", "--all", "HEAD", "--format=%H %at %aN"]);
    // A repository without a commit has none.
    let printed = printed.or_else(|_| git.ask(&["log", "--all", "--format=%H %at %aN"]))?;
    let text = String::from_utf8_lossy(&printed);
    let line = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (id, seconds, author) = (words.next()?, words.next()?, words.next().unwrap_or_default());
        let authored = Timestamp::from_micros(seconds.parse::<i64>().ok()?.saturating_mul(1_000_000));
        Some((id.to_owned(), Known { author: author.to_owned(), authored }))
    };
    Ok(text.lines().filter_map(line).collect())
}
