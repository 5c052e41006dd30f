//! How a run ended: exit statuses, and what is said of a failure.
//!
//! For people: the message, causes on their own lines, then `hint:`. For programs (`--json`): one object on stderr.

use std::error::Error as _;
use std::io::Write;

use agent_trace_store::{Error, ErrorKind};

use crate::args::Usage;
use crate::json;
use crate::sanitize;
use crate::ui::Ui;

/// The exit status of success.
pub(crate) const DONE: u8 = 0;
/// The exit status of a failure that nothing more is known of.
pub(crate) const FAILED: u8 = 1;
/// The exit status of wrong usage.
pub(crate) const INVALID: u8 = 2;

/// How a command that ran to its end has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// As it should.
    Well,
    /// Some items were skipped, and are listed.
    Partial,
    /// A log has forked; the logs are listed.
    Conflict,
    /// Damage was found, and is listed.
    Corrupt,
    /// Secrets were found, and are listed.
    Refused,
    /// Something else is wrong, and is listed.
    Failed,
}

impl Done {
    /// The exit status.
    pub(crate) fn status(self) -> u8 {
        match self {
            Done::Well => DONE,
            Done::Partial => 3,
            Done::Conflict => 6,
            Done::Corrupt => 7,
            Done::Refused => 8,
            Done::Failed => FAILED,
        }
    }

    /// The graver of two.
    pub(crate) fn and(self, other: Done) -> Done {
        if other.status() > self.status() { other } else { self }
    }
}

/// A failure, and what can be done about it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What failed.
    pub(crate) error: Error,
    /// The command to run next, or what to change.
    pub(crate) hint: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, hint: None }
    }
}

impl Failure {
    /// Makes a failure with a hint.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { error: Error::new(kind, message), hint: Some(hint.into()) }
    }

    /// Adds a hint, unless there is one.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    fn some_hint(&self) -> Option<String> {
        let by_kind = match self.error.kind() {
            ErrorKind::Corrupt => Some("agent-trace verify"),
            ErrorKind::Unsupported => Some("install a newer version of agent-trace"),
            ErrorKind::Locked => Some("agent-trace remote show NAME says where its secret is looked for"),
            ErrorKind::Unavailable => Some("run the same command again later"),
            ErrorKind::Full if self.error.message().contains("quota_exceeded") => {
                Some("ask the admin of the service for more room")
            }
            ErrorKind::Full => Some("free space on the disk and run the same command again"),
            _ => None,
        };
        self.hint.clone().or_else(|| by_kind.map(str::to_owned))
    }
}

/// The exit status and the name of an error's kind.
fn status_of(kind: ErrorKind) -> (u8, &'static str) {
    match kind {
        ErrorKind::Invalid => (INVALID, "invalid"),
        ErrorKind::Denied => (4, "denied"),
        ErrorKind::Unavailable => (5, "unavailable"),
        ErrorKind::Conflict => (6, "conflict"),
        ErrorKind::Corrupt => (7, "corrupt"),
        ErrorKind::Refused => (8, "refused"),
        ErrorKind::NotFound => (9, "not-found"),
        ErrorKind::Unsupported => (11, "unsupported"),
        ErrorKind::Locked => (12, "locked"),
        ErrorKind::Full => (13, "full"),
        _ => (FAILED, "failed"),
    }
}

/// Says what failed, and returns the exit status.
pub(crate) fn failed(ui: &Ui, failure: &Failure) -> u8 {
    let (exit, kind) = status_of(failure.error.kind());
    let hint = failure.some_hint();
    let causes = causes(&failure.error);
    // What was answered before the failure comes before it; that it cannot be printed is no further failure.
    let _ = ui.flush();
    if ui.is_json() {
        let message = failure.error.message();
        ui.error_json(&json::Failure {
            schema: json::ERROR,
            kind,
            message,
            causes: &causes,
            hint: hint.as_deref(),
            exit,
        });
        return exit;
    }
    ui.error(failure.error.message());
    for cause in &causes {
        ui.error_detail(cause);
    }
    if let Some(hint) = hint {
        ui.hint(&hint);
    }
    exit
}

fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes
}

/// Says what is wrong with the arguments, or gives the help that was asked for.
pub(crate) fn usage(usage: &Usage) -> u8 {
    let wanted = !usage.error.use_stderr();
    if usage.json && !wanted {
        let text = usage.error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let causes: Vec<String> =
            text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Ui::machine().error_json(&json::Failure {
            schema: json::ERROR,
            kind: "invalid",
            message: &message,
            causes: &causes,
            hint: Some("agent-trace help"),
            exit: INVALID,
        });
        return INVALID;
    }
    // A reader that has gone away wants no help.
    let _ = usage.error.print();
    if wanted { DONE } else { INVALID }
}

/// Says why a hook did nothing, where that could not be kept; nobody may be listening.
pub(crate) fn hook_failed(message: &str) {
    let _ = writeln!(std::io::stderr(), "agent-trace: {}", sanitize::block(message));
}

/// Says that the program itself is at fault.
pub(crate) fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("no message");
    let place =
        panic.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    // There is nobody left to tell if this fails.
    let _ = writeln!(
        std::io::stderr(),
        "error: agent-trace {} has met a mistake of its own{place}\n  {}\nhint: report it; what was acknowledged is safe, `agent-trace verify` checks it",
        env!("CARGO_PKG_VERSION"),
        sanitize::block(text)
    );
}
