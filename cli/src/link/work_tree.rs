//! Lines that are not committed yet: attributed as if they were committed now.

use std::collections::BTreeSet;
use std::ffi::OsString;

use agent_trace_store::Result;

use super::ledger::Ledger;
use super::{CLOCK_MICROS, File, Linker, entries, spelled};
use crate::git::commits::Commit;

impl Linker<'_> {
    /// The ledger that a commit of this file, as it is now, would have; `before` is the commit that is checked out and
    /// the file's path there.
    pub(crate) fn work_tree(
        &mut self,
        path: &str,
        after: Vec<u8>,
        before: Option<(String, OsString)>,
    ) -> Result<Ledger> {
        let now = self.store.env().clock.now();
        let mut paths = BTreeSet::from([path.to_owned()]);
        let mut parents = Vec::new();
        if let Some((commit, path)) = &before {
            let name = spelled(path);
            parents.push(self.lines(&format!("{commit}:{name}"))?);
            paths.insert(name);
        }
        let traces = self.known.traces_of(&paths, now.plus_micros(CLOCK_MICROS))?;
        let commit = Commit {
            id: String::new(),
            parents: before.iter().map(|(commit, _)| commit.clone()).collect(),
            author: String::new(),
            authored: now,
            committed: now,
            message: String::new(),
        };
        let before = before.map(|(_, path)| path);
        let files = [File::of(path.to_owned(), before, paths, after, parents, traces)];
        let mut sources = Vec::new();
        let (_, authors) = self.authors(&commit, &files, &mut sources)?;
        Ok(Ledger { files: entries(&files, &authors, &sources), ..Ledger::default() })
    }
}
