//! `sync`: pushes, then pulls.

use agent_trace_sync::pull::PullOptions;
use agent_trace_sync::push::PushOptions;

use super::{Context, pull, push};
use crate::args;
use crate::json;
use crate::report::{Done, Failure};

pub(super) fn run(context: &Context, args: &args::Sync) -> Result<Done, Failure> {
    let (place, store) = context.open_current()?;
    let ui = &context.ui;
    let files = context.files(&place, &store);
    let remote = context.pick(&files, args.remote.as_deref(), args.limit_rate.as_deref())?;
    let pushed = push::send(context, &files, &remote, &PushOptions::default(), args.allow_sensitive)?;
    if !ui.is_json() {
        push::print(ui, false, &pushed)?;
        push::hint_elsewhere(context, &files, &pushed.report)?;
    }
    let pulled = pull::take(context, &files, &remote, &PullOptions::default())?;
    if ui.is_json() {
        ui.json(&json::Sync {
            schema: json::SYNC,
            push: push::to_json(&remote, false, &pushed),
            pull: pull::to_json(&remote, false, &pulled),
        })?;
    } else {
        pull::print(ui, false, &pulled)?;
    }
    Ok(push::done(&pushed.report).and(pull::done(&pulled)))
}
