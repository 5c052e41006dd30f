//! When each agent and each git hook was last heard of, as the capture notes it beside the store.
//!
//! `projects/<id>/capture/last.json` is an object from the name of an agent, or `git`, to `{"event", "time"}`, or to an
//! object from an event to a time. What is not there, or not so, is not known.

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
        match (text("event"), text("time")) {
            (Some(event), Some(time)) => Some(Last { event, time }),
            _ => {
                let all = entry.as_object()?.iter();
                let all = all.filter_map(|(event, time)| Some((time.as_str()?, event)));
                let (time, event) = all.max()?;
                Some(Last { event: event.clone(), time: time.to_owned() })
            }
        }
    }

    /// When a git hook last fired.
    pub(crate) fn git(&self, event: &str) -> Option<String> {
        let entry = self.0.get("git")?;
        let same = entry.get("event").and_then(Value::as_str) == Some(event);
        let time = entry.get(event).or_else(|| entry.get("time").filter(|_| same))?;
        time.as_str().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        let fired = Fired(json!({
            "codex": {"event": "Stop", "time": "2026-01-01T00:00:00Z"},
            "git": {"post-commit": "2026-01-02T00:00:00Z", "pre-push": "2026-01-01T00:00:00Z"},
            "cursor": 7,
        }));
        assert_eq!(fired.agent("codex").unwrap().event, "Stop");
        assert_eq!(fired.agent("git").unwrap().event, "post-commit");
        assert_eq!(fired.git("pre-push").as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!((fired.git("post-rewrite"), fired.agent("cursor"), fired.agent("x")), (None, None, None));
    }
}
