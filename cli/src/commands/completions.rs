//! `completions`: a script with which a shell completes commands and options.

use clap::CommandFactory;

use super::Context;
use crate::args::{self, Cli};
use crate::report::{Done, Failure};

pub(super) fn run(context: &Context, args: &args::Completions) -> Result<Done, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "agent-trace", &mut script);
    context.ui.bytes(&script)?;
    Ok(Done::Well)
}
