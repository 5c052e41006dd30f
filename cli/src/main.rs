//! The command `agent-trace`: reads the arguments, makes the environment, runs one command, says how it went.
//!
//! Everything else is below: `args` is plain data, `commands` act, `ui` prints, `report` tells of failures. Knows
//! nothing about stores.

mod args;
mod attribution;
mod backfill;
mod bodies;
mod bundles;
mod capture;
mod blame;
mod commands;
mod document;
mod edit;
mod exported;
mod git;
mod glob;
mod hooks;
#[allow(unreachable_pub, reason = "written as a crate would be")]
mod import;
mod json;
mod link;
mod notes;
mod pager;
mod privacy;
mod project;
mod remotes;
mod report;
mod sample;
mod sanitize;
mod settings;
mod summarize;
mod target;
mod time;
mod transcript;
mod ui;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use crate::settings::Settings;
use crate::ui::Ui;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Agents and git wait for these: they are done before anything else is set up.
    if capture::record::dispatch(&arguments) {
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(report::panicked));
    match catch_unwind(AssertUnwindSafe(|| run(arguments))) {
        Ok(code) => ExitCode::from(code),
        Err(_) => ExitCode::from(report::FAILED),
    }
}

fn run(arguments: Vec<OsString>) -> u8 {
    let cli = match args::parse(arguments) {
        Ok(cli) => cli,
        Err(error) => return report::usage(&error),
    };
    let ui = Ui::terminal(&cli.global);
    let done = Settings::read(&cli.global).and_then(|settings| {
        let context = commands::Context { env: agent_trace_store::env::os_env(), settings, ui: ui.clone() };
        let done = commands::run(&context, &cli.command)?;
        context.ui.flush()?;
        Ok(done)
    });
    match done {
        Ok(done) => done.status(),
        Err(_) if ui.is_closed() => report::DONE,
        Err(failure) => report::failed(&ui, &failure),
    }
}
