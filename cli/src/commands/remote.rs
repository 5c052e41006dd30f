//! `remote`: which remotes there are.

use agent_trace_store::Store;

use super::{Context, status};
use crate::args;
use crate::json;
use crate::remotes::{self, Named, Remotes};
use crate::report::{Done, Failure};
use crate::sanitize;

pub(super) fn run(context: &Context, command: &args::Remote) -> Result<Done, Failure> {
    let (_, store) = context.open()?;
    match command {
        args::Remote::Add { name, url } => {
            remotes::check_url(&context.env, url)?;
            Remotes::change(&store, |remotes| remotes.add(name, url))?;
            tell(context, &store, name, "Added")?;
        }
        args::Remote::List => list(context, &store, &Remotes::read(&store)?.list())?,
        args::Remote::Show { name } => show(context, &store, &Remotes::read(&store)?.get(name)?)?,
        args::Remote::SetUrl { name, url } => {
            Remotes::read(&store)?.get(name)?;
            remotes::check_url(&context.env, url)?;
            Remotes::change(&store, |remotes| remotes.set_url(name, url))?;
            tell(context, &store, name, "Changed")?;
        }
        args::Remote::Remove { name } => {
            let remote = Remotes::read(&store)?.get(name)?;
            Remotes::change(&store, |remotes| remotes.remove(name))?;
            if !context.ui.is_json() {
                let url = sanitize::line(&remote.url).into_owned();
                context.ui.line(format_args!("Removed remote {name}; {url} is as it was"))?;
            }
        }
        args::Remote::Rename { old, new } => {
            Remotes::change(&store, |remotes| remotes.rename(old, new))?;
            tell(context, &store, new, "Renamed")?;
        }
        args::Remote::Default { name } => {
            Remotes::change(&store, |remotes| remotes.set_default(name))?;
            tell(context, &store, name, "Default is")?;
        }
    }
    Ok(Done::Well)
}

/// Says what became of a remote.
fn tell(context: &Context, store: &Store, name: &str, what: &str) -> Result<(), Failure> {
    let remote = Remotes::read(store)?.get(name)?;
    if context.ui.is_json() {
        return list(context, store, &[remote]);
    }
    let (name, url) = (context.ui.name(&remote.name), sanitize::line(&remote.url));
    context.ui.line(format_args!("{what} remote {name} at {url}"))?;
    Ok(())
}

fn list(context: &Context, store: &Store, remotes: &[Named]) -> Result<(), Failure> {
    let ui = &context.ui;
    if remotes.is_empty() {
        ui.hint("agent-trace remote add NAME file:///path");
    }
    for remote in remotes {
        if ui.is_json() {
            ui.json(&json::Remote { schema: json::REMOTE, remote: status::remote_status(store, remote)? })?;
        } else {
            let default = if remote.is_default { "  (default)" } else { "" };
            ui.line(format_args!("{}  {}{default}", ui.name(&remote.name), sanitize::line(&remote.url)))?;
        }
    }
    Ok(())
}

fn show(context: &Context, store: &Store, remote: &Named) -> Result<(), Failure> {
    let ui = &context.ui;
    if ui.is_json() {
        return list(context, store, std::slice::from_ref(remote));
    }
    let status = status::remote_status(store, remote)?;
    ui.line(format_args!("remote   {}", ui.name(&remote.name)))?;
    ui.line(format_args!("url      {}", sanitize::line(&remote.url)))?;
    ui.line(format_args!("default  {}", if remote.is_default { "yes" } else { "no" }))?;
    ui.line(format_args!("state    {}", status::unpushed_words(&status)))?;
    Ok(())
}
