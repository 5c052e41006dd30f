//! The kinds of record.

use std::fmt;

/// What a record is. Unknown numbers are carried, never dropped (I11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(u8);

impl Kind {
    /// One edit by an agent; its natural key is its `id`.
    pub const TRACE: Kind = Kind(1);
    /// Whose lines a commit holds; its natural key is the commit.
    pub const LEDGER: Kind = Kind(2);
    /// Which traces a commit holds; its natural key is the commit.
    pub const COMMIT_LINK: Kind = Kind(3);
    /// An agent's session file at one moment; its natural key is the conversation.
    pub const TRANSCRIPT: Kind = Kind(4);
    /// Prose about a conversation; its natural key is the conversation and the time.
    pub const SUMMARY: Kind = Kind(5);
    /// What is erased, by ids; its natural key is the id of its own record.
    pub const ERASE: Kind = Kind(6);
    /// Bytes as they came, of which nothing is known but that they were meant as a record; the natural key is their
    /// BLAKE3. No version gives this number to a kind that it knows.
    pub const UNKNOWN: Kind = Kind(u8::MAX);

    /// The kinds that this version knows, in the order in which they are shown.
    pub const KNOWN: [Kind; 6] =
        [Kind::TRACE, Kind::LEDGER, Kind::COMMIT_LINK, Kind::TRANSCRIPT, Kind::SUMMARY, Kind::ERASE];

    /// The kind with this number, known or not.
    pub const fn from_number(number: u8) -> Kind {
        Kind(number)
    }

    /// Whether this version knows what such a record says.
    pub fn is_known(self) -> bool {
        Kind::KNOWN.contains(&self)
    }

    /// Whether a question about `wanted` is about this kind; one about [`Kind::UNKNOWN`] is about all unknown ones.
    pub fn answers(self, wanted: Kind) -> bool {
        self == wanted || (wanted == Kind::UNKNOWN && !self.is_known())
    }

    /// The number that stands in an event.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The word that people and programs use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::TRACE => "trace",
            Kind::LEDGER => "ledger",
            Kind::COMMIT_LINK => "commit-link",
            Kind::TRANSCRIPT => "transcript",
            Kind::SUMMARY => "summary",
            Kind::ERASE => "erase",
            _ => "unknown",
        }
    }

    /// The kind with this name, in singular or plural; `conversations` are transcripts.
    pub fn parse(name: &str) -> Option<Kind> {
        match name {
            "trace" | "traces" => Some(Kind::TRACE),
            "ledger" | "ledgers" => Some(Kind::LEDGER),
            "commit-link" | "commit-links" => Some(Kind::COMMIT_LINK),
            "transcript" | "transcripts" | "conversation" | "conversations" => Some(Kind::TRANSCRIPT),
            "summary" | "summaries" => Some(Kind::SUMMARY),
            "erase" | "erases" => Some(Kind::ERASE),
            "unknown" => Some(Kind::UNKNOWN),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({} {})", self.0, self.name())
    }
}
