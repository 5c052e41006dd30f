//! Hooks: what makes agents and git tell agent-trace of what they do, put into their settings and taken out again.
//!
//! Nothing of the user's is replaced, and `remove` leaves what was there before, byte for byte where nothing else has
//! changed since. Knows nothing of what the hooks say: that is `record` and `hook`. Only `commands/hooks` and
//! `commands/init` come here.

pub(crate) mod command;
pub(crate) mod agents;
mod jsonc;
pub(crate) mod files;
pub(crate) mod install;
pub(crate) mod trust;
pub(crate) mod git;
pub(crate) mod fired;

use std::path::{Path, PathBuf};

use similar::TextDiff;

/// What has happened to one place, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// There was nothing, and now there is.
    Created,
    /// It has got our entries, or other ones.
    Changed,
    /// It was as it should be.
    Unchanged,
    /// It is byte for byte what it was before.
    Restored,
    /// Our entries are gone, and the rest is as it was.
    Cleaned,
    /// It was our own, and is gone.
    Removed,
    /// There is something to do by hand.
    ByHand,
    /// It could not be done.
    Skipped,
}

impl Kind {
    /// As programs read it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Created => "created",
            Kind::Changed => "changed",
            Kind::Unchanged => "unchanged",
            Kind::Restored => "restored",
            Kind::Cleaned => "cleaned",
            Kind::Removed => "removed",
            Kind::ByHand => "by-hand",
            Kind::Skipped => "skipped",
        }
    }
}

/// One place of hooks, and what has happened to it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Whose hooks: an agent, or `git`.
    pub(crate) of: &'static str,
    /// `global` or `project`.
    pub(crate) scope: &'static str,
    /// The file.
    pub(crate) place: PathBuf,
    /// The events that are told of there.
    pub(crate) events: Vec<&'static str>,
    /// How: `file`, `config`, or the name of a manager.
    pub(crate) mechanism: &'static str,
    pub(crate) kind: Kind,
    /// What was there before, put aside.
    pub(crate) backup: Option<PathBuf>,
    /// The change as a unified diff.
    pub(crate) diff: Option<String>,
    /// What is left to do, or why it was not done.
    pub(crate) say: Option<String>,
    /// The lines to add by hand.
    pub(crate) lines: Option<String>,
}

impl Change {
    /// A change of which nothing is known yet but where.
    pub(crate) fn of(of: &'static str, scope: &'static str, place: &Path, mechanism: &'static str) -> Change {
        Change {
            of,
            scope,
            place: place.to_owned(),
            events: Vec::new(),
            mechanism,
            kind: Kind::Unchanged,
            backup: None,
            diff: None,
            say: None,
            lines: None,
        }
    }

    /// Whether something is different now.
    pub(crate) fn is_change(&self) -> bool {
        !matches!(self.kind, Kind::Unchanged | Kind::ByHand | Kind::Skipped)
    }
}

/// A change of a file as a unified diff.
fn diff(path: &Path, before: Option<&[u8]>, after: Option<&[u8]>) -> String {
    const NONE: &str = "/dev/null";
    let shown = path.display().to_string();
    let name = |side: Option<&[u8]>| if side.is_some() { shown.clone() } else { NONE.to_owned() };
    let text = |side: Option<&[u8]>| String::from_utf8_lossy(side.unwrap_or_default()).into_owned();
    let (old, new) = (text(before), text(after));
    TextDiff::from_lines(old.as_str(), new.as_str())
        .unified_diff()
        .header(&name(before), &name(after))
        .to_string()
}
