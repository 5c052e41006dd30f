//! When each agent and each git hook was last heard of, as the capture notes it beside the store.
//!
//! `projects/<id>/capture/last.json` is an object from the name of an agent, or `git/<event>`, to `{"event", "time"}`. What
//! is not there, or not so, is not known.

use std::path::Path;

use agent_trace_store::env::Env;
use agent_trace_store::layout::read_small;
use serde_json::Value;

const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is known of the last events of a project.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fired(Value);

/// An event, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) event: String,
    pub(crate) time: String,
}

impl Fired {
    /// Reads it from a project's data.
    pub(crate) fn read(env: &Env, data: &Path) -> Fired {
        let bytes = read_small(env, &data.join("capture/last.json"), FILE_BYTES_MAX).unwrap_or_default();
        Fired(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// The last event of an agent.
    pub(crate) fn agent(&self, name: &str) -> Option<Last> {
        let entry = self.0.get(name)?;
        let text = |name: &str| Some(entry.get(name)?.as_str()?.to_owned());
        Some(Last { event: text("event")?, time: text("time")? })
    }

    /// When a git hook last fired.
    pub(crate) fn git(&self, event: &str) -> Option<String> {
        self.agent(&format!("git/{event}")).map(|last| last.time)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_as_it_should_be_is_not_known() {
        let fired = Fired(json!({
            "codex": {"event": "Stop", "time": "2026-01-01T00:00:00Z"},
            "git/pre-push": {"event": "pre-push", "time": "2026-01-02T00:00:00Z"},
            "cursor": 7,
        }));
        assert_eq!(fired.agent("codex").unwrap().event, "Stop");
        assert_eq!(fired.git("pre-push").as_deref(), Some("2026-01-02T00:00:00Z"));
        assert_eq!((fired.git("post-rewrite"), fired.agent("cursor"), fired.agent("x")), (None, None, None));
        assert_eq!(Fired::default().agent("codex"), None);
    }
}
