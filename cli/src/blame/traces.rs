//! What a trace says of itself: who, when, in which call.

use std::borrow::Cow;
use std::collections::HashMap;

use agent_trace_store::question;
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Kind, Result, Store, Timestamp};
use rayon::prelude::*;
use serde::Deserialize;

/// Who made an edit, when, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TraceFacts {
    /// The agent.
    pub(crate) agent: String,
    /// Its version.
    pub(crate) agent_version: Option<String>,
    /// The agent's id of the session.
    pub(crate) session: Option<String>,
    /// When.
    pub(crate) time: Option<Timestamp>,
    /// The time as it stands in the record.
    pub(crate) timestamp: String,
    /// The tool.
    pub(crate) tool: Option<String>,
    /// The agent's id of the call.
    pub(crate) tool_use: Option<String>,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(default, borrow)]
    timestamp: Cow<'a, str>,
    #[serde(default, borrow)]
    tool: Tool<'a>,
    #[serde(default, borrow)]
    metadata: Metadata<'a>,
}

#[derive(Default, Deserialize)]
struct Tool<'a> {
    #[serde(default, borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    version: Option<String>,
}

#[derive(Default, Deserialize)]
struct Metadata<'a> {
    #[serde(default, borrow)]
    session_id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    tool_name: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    tool_use_id: Option<Cow<'a, str>>,
}

impl TraceFacts {
    /// Reads a trace record, ours or another program's; nothing if it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<TraceFacts> {
        let record: Record<'_> = serde_json::from_slice(bytes).ok()?;
        let own = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        Some(TraceFacts {
            agent: record.tool.name.into_owned(),
            agent_version: record.tool.version,
            session: own(record.metadata.session_id),
            time: Timestamp::parse(&record.timestamp),
            timestamp: record.timestamp.into_owned(),
            tool: own(record.metadata.tool_name),
            tool_use: own(record.metadata.tool_use_id),
        })
    }
}

/// Reads what traces say, all at once; those that are not here are left out.
pub(crate) fn read(store: &Store, snapshot: &Snapshot, ids: &[&str]) -> Result<HashMap<String, TraceFacts>> {
    let found = question::keyed(store, snapshot, Kind::TRACE, ids)?;
    let read = ids.par_iter().zip(&found).map(|(id, versions)| {
        let Some(chosen) = question::choose(Kind::TRACE, versions) else { return Ok(None) };
        let facts = TraceFacts::decode(&store.read(&chosen.record())?);
        Ok(facts.map(|facts| ((*id).to_owned(), facts)))
    });
    Ok(read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
