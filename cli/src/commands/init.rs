//! `init`: gives the repository, or a directory, a store.

use agent_trace_store::Store;

use super::Context;
use crate::json;
use crate::project;
use crate::report::{Done, Failure};
use crate::sanitize;

pub(super) fn run(context: &Context) -> Result<Done, Failure> {
    let ui = &context.ui;
    let (place, was_there) = project::init(&context.env, &context.settings)?;
    let store = Store::open(&context.env, &place.store)?;
    let peer_data = project::peer_data(&context.env, &place);
    let show = |path: &std::path::Path| path.display().to_string();
    if ui.is_json() {
        ui.json(&json::Init {
            schema: json::INIT,
            project: place.project.as_ref().map(ToString::to_string),
            data: show(&place.data),
            store: show(&place.store),
            writer: store.writer().to_string(),
            created: !was_there,
            peer_data: peer_data.as_deref().map(show),
        })?;
        return Ok(Done::Well);
    }
    let said = if was_there { "Already initialised" } else { "Initialised" };
    let data = show(&place.data);
    match &place.project {
        Some(project) => {
            ui.line(format_args!("{said} project {}", ui.name(project)))?;
            ui.line(format_args!("  data  {}", sanitize::line(&data)))?;
        }
        None => ui.line(format_args!("{said} store {}", ui.name(sanitize::line(&data))))?,
    }
    if let Some(peer) = peer_data {
        ui.hint(&format!("agent-trace import {}", peer.display()));
    } else if !was_there {
        ui.hint("agent-trace import DIR brings in transcripts; agent-trace status shows what is there");
    }
    Ok(Done::Well)
}
