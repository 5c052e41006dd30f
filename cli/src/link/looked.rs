//! What commits would be given that nobody has linked: worked out for an answer, and not written down.

use std::collections::BTreeSet;
use std::rc::Rc;

use agent_trace_store::Result;

use super::ledger::Ledger;
use super::{Linker, spelled};
use crate::git::commits::{self, Changed, Commit};

/// A commit that changes more files is looked at in the asked ones only: what came from its other files is left open.
const FILES_MAX: usize = 64;

impl Linker<'_> {
    /// The ledgers that commits would have, parents before children, until a time of the monotonic clock; where a commit
    /// changes many files, only these paths of it. Says for how many there was time.
    pub(crate) fn look(
        &mut self,
        ids: &[String],
        paths: &BTreeSet<String>,
        until: u64,
    ) -> Result<(Vec<Rc<Ledger>>, usize)> {
        self.dry_run(true);
        let changes = commits::changes(&self.git, ids)?;
        let mut ledgers = Vec::new();
        for (number, id) in ids.iter().enumerate() {
            if self.store.env().clock.monotonic_micros() >= until {
                return Ok((ledgers, number));
            }
            let Some(commit) = Commit::read(&mut self.objects, id)? else { continue };
            let all = changes.get(id).map(Vec::as_slice).unwrap_or_default();
            let changed: Vec<Changed> = all
                .iter()
                .filter(|change| all.len() <= FILES_MAX || paths.contains(&spelled(&change.path)))
                .cloned()
                .collect();
            self.link_one(commit, &changed)?;
            ledgers.extend(self.known.ledger(id)?);
        }
        Ok((ledgers, ids.len()))
    }
}
