//! `project`: projects of a service.

use agent_trace_store::Error;
use agent_trace_sync::address::RemoteUrl;

use super::{Context, remote};
use crate::args;
use crate::json;
use crate::remotes::{BucketEntry, Given};
use crate::report::{Done, Failure};
use crate::sanitize;

pub(super) fn run(context: &Context, command: &args::Project) -> Result<Done, Failure> {
    let args::Project::Create(args) = command;
    let RemoteUrl::Service(service) =
        remote::read_url(context, &args.url, args.insecure_http, &BucketEntry::default(), None)?
    else {
        return Err(Error::invalid("a folder needs no project: the first push makes it").into());
    };
    let given = Given::read(&context.env, &context.ui, &args.token)?;
    let token = given.as_ref().map(Given::token).transpose()?.flatten();
    let texts = (args.title.as_deref(), args.description.as_deref());
    let project = remote::create_project(context, &service, token, texts)?;
    let ui = &context.ui;
    if ui.is_json() {
        ui.json(&json::Project { schema: json::PROJECT, url: service.to_string(), project })?;
    } else {
        let (name, id) = (ui.name(sanitize::line(&project.project_id)), sanitize::line(&project.id));
        ui.line(format_args!("Created project {name} of {} ({id})", service.org()))?;
        ui.hint(&format!("agent-trace remote add origin {service} --token-stdin"));
    }
    Ok(Done::Well)
}
