//! The JSON shapes of what is erased.

use agent_trace_store::erased::Act;
use serde::Serialize;

/// When something was erased, and by whom.
#[derive(Serialize)]
pub(crate) struct Erased {
    pub(crate) time: String,
    pub(crate) writer: String,
    pub(crate) event: String,
}

impl Erased {
    /// What an erase event says.
    pub(crate) fn of(act: &Act) -> Erased {
        Erased { time: act.time.to_string(), writer: act.writer.to_string(), event: act.event.to_string() }
    }
}
