//! Lines that a commit has in common with one that was linked before: rewritten, picked, squashed, or on a branch that
//! nobody merged. Their authors are those of the older commit.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use agent_trace_store::Result;

use super::ledger::{Attribution, Ledger};
use super::{File, Linker, Source, number_of};
use crate::attribution::{By, How};
use crate::edit::diff::{self, Manner};
use crate::edit::line::{self, LineHash};
use crate::git::commits::Commit;
use crate::git::objects::Object;

/// Older commits that are looked at for one file.
const OLDER_MAX: usize = 32;

impl Linker<'_> {
    /// Attributes lines of a file that are still open, by ledgers of the file that speak of such lines.
    pub(super) fn by_older(
        &mut self,
        commit: &Commit,
        file: &File,
        open: &HashSet<usize>,
        sources: &mut Vec<Source>,
        authors: &mut [Option<By>],
    ) -> Result<()> {
        let telling: HashSet<u64> =
            open.iter().filter(|at| file.lines[**at].weight > 2).map(|at| file.lines[*at].strict).collect();
        if telling.is_empty() {
            return Ok(());
        }
        let mut candidates: Vec<(Rc<Ledger>, String)> = Vec::new();
        for old in self.rewritten.get(&commit.id).cloned().unwrap_or_default() {
            if let Some(ledger) = self.known.ledger(&old)? {
                candidates.extend(ledger.files.keys().map(|path| (ledger.clone(), path.clone())));
            }
        }
        for path in &file.paths {
            let ledgers = self.known.ledgers_of(path)?;
            candidates.extend(ledgers.iter().map(|ledger| (ledger.clone(), path.clone())));
        }
        candidates
            .retain(|(ledger, path)| ledger.commit_sha != commit.id && speaks_of(ledger, path, &telling));
        let mut seen = HashSet::new();
        candidates.retain(|(ledger, path)| seen.insert((ledger.commit_sha.clone(), path.clone())));
        candidates.truncate(OLDER_MAX);
        for (ledger, path) in candidates {
            self.by_one(&ledger, &path, file, open, sources, authors)?;
        }
        Ok(())
    }

    fn by_one(
        &mut self,
        ledger: &Ledger,
        path: &str,
        file: &File,
        open: &HashSet<usize>,
        sources: &mut Vec<Source>,
        authors: &mut [Option<By>],
    ) -> Result<()> {
        let Object::Bytes(bytes) = self.objects.read(&format!("{}:{path}", ledger.commit_sha))? else {
            return Ok(());
        };
        let older = line::lines(&bytes);
        let changes = diff::changes(&older, &file.lines, Manner::Rare);
        let pairs = diff::pairs(&changes, older.len(), file.lines.len());
        let runs = by_line(ledger, path);
        let mut found: Vec<(usize, &Attribution)> = Vec::new();
        for (at, pair) in pairs.iter().enumerate() {
            let run = pair.filter(|_| open.contains(&at)).and_then(|old| runs.get(&(old as u64 + 1)));
            found.extend(run.map(|run| (at, *run)));
        }
        // A few lines that say little may be equal by chance.
        let weight: usize = found.iter().map(|(at, _)| usize::from(file.lines[*at].weight)).sum();
        if weight < 8 {
            return Ok(());
        }
        for (at, run) in found {
            let Some(source) = Source::of(run) else { continue };
            let by = By { source: number_of(sources, source), how: How::parse(run.how.as_deref()) };
            authors[at].get_or_insert(by);
        }
        Ok(())
    }
}

/// Whether a ledger has evidence of one of these lines.
fn speaks_of(ledger: &Ledger, path: &str, telling: &HashSet<u64>) -> bool {
    let runs = ledger.files.get(path).map(|file| file.line_attributions.as_slice()).unwrap_or_default();
    let mut evidence = runs.iter().flat_map(|run| &run.evidence);
    evidence.any(|line| LineHash::parse(&line.hash).is_some_and(|hash| telling.contains(&hash.short())))
}

fn by_line<'a>(ledger: &'a Ledger, path: &str) -> HashMap<u64, &'a Attribution> {
    let runs = ledger.files.get(path).map(|file| file.line_attributions.as_slice()).unwrap_or_default();
    let mut lines = HashMap::new();
    for run in runs {
        // A hostile ledger may claim lines without end.
        for line in run.start_line..=run.end_line.min(run.start_line.saturating_add(1 << 20)) {
            lines.insert(line, run);
        }
    }
    lines
}
