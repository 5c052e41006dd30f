//! `man`: the manual pages, made from the same text as `--help`.

use agent_trace_store::layout::write_durably;
use agent_trace_store::{Error, Result};
use clap::CommandFactory;

use super::Context;
use crate::args::{self, Cli};
use crate::report::{Done, Failure};
use crate::sanitize;

pub(super) fn run(context: &Context, args: &args::Man) -> Result<Done, Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(directory) = &args.pages else {
        context.ui.bytes(&page(&command, "agent-trace")?)?;
        return Ok(Done::Well);
    };
    let doing = |error| Error::io(format!("cannot create `{}`", directory.display()), error);
    context.env.fs.create_dir_all(directory).map_err(doing)?;
    for (name, page) in pages(&command, "agent-trace")? {
        let path = directory.join(format!("{name}.1"));
        write_durably(&context.env, &path, &page, false)?;
        context.ui.line(sanitize::line(&path.display().to_string()))?;
    }
    Ok(Done::Well)
}

/// The page of a command and those of its subcommands, by name.
fn pages(command: &clap::Command, name: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = vec![(name.to_owned(), page(command, name)?)];
    for subcommand in command.get_subcommands() {
        if !subcommand.is_hide_set() && subcommand.get_name() != "help" {
            all.extend(pages(subcommand, &format!("{name}-{}", subcommand.get_name()))?);
        }
    }
    Ok(all)
}

fn page(command: &clap::Command, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let man = clap_mangen::Man::new(command.clone().display_name(name.to_owned())).title(name.to_uppercase());
    man.render(&mut bytes).map_err(|error| Error::io("cannot write the manual page", error))?;
    Ok(bytes)
}
