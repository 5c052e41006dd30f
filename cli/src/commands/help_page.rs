//! `help-page`: writes `docs/cli.md`, which a test compares with the file.

use std::fmt::Write as _;

use clap::builder::PossibleValue;
use clap::{Arg, Command, CommandFactory};

use super::Context;
use crate::args::Cli;
use crate::report::{Done, Failure};

const HEAD: &str = "\
# The command line

Made by `agent-trace help-page`; a test compares it. The JSON forms and the exit statuses are in [json.md](json.md).

stdout is the answer, stderr the conversation: hints, warnings, progress (on a terminal only). Ids may be shortened to
any beginning of at least 4 digits that fits one thing.

A command finds its store by `--store`, else by the variable `AGENT_TRACE_STORE`, else by the git repository around it:
the file `agent-trace-id` in the directory that all worktrees share (`git rev-parse --git-common-dir`) holds the project's
id, and the store is `$AGENT_TRACE_HOME/projects/<id>/store` (`AGENT_TRACE_HOME` is `~/.agent-trace` where it is not set).

A remote is a folder (`file:///path`), a bucket (`s3://bucket/prefix`, `gs://`, `az://`) or a project of a service (`https://host/org/project`, behind a gateway
`https://host/at/org/project`). Where a command is given none, it takes the only one, else the one of `remote default`, else
`origin`.

On a terminal `blame`, `context` and `search` answer through a pager: `$AGENT_TRACE_PAGER`, else `$PAGER`, else `less` (with
`LESS=FRX` where `LESS` is not set); an empty one or `cat` is none.

Times (`--since`, `--until`) are RFC 3339, a date, or counted back from now: `45min`, `12h`, `30d`, `2w`. A date is its
local midnight, for `--until` the end of that day; a time without an offset is local.
";

pub(super) fn run(context: &Context) -> Result<Done, Failure> {
    context.ui.bytes(page().as_bytes())?;
    Ok(Done::Well)
}

fn page() -> String {
    let mut command = Cli::command();
    command.build();
    let mut page = HEAD.to_owned();
    page.push_str("\n## Options of every command\n\n");
    for arg in command.get_arguments().filter(|arg| !is_built_in(arg)) {
        option(&mut page, arg);
    }
    section(&mut page, &command, "agent-trace");
    page
}

fn section(page: &mut String, command: &Command, path: &str) {
    for subcommand in command.get_subcommands() {
        if subcommand.is_hide_set() || subcommand.get_name() == "help" {
            continue;
        }
        let path = format!("{path} {}", subcommand.get_name());
        if subcommand.has_subcommands() && subcommand.is_subcommand_required_set() {
            section(page, subcommand, &path);
            continue;
        }
        let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## `{path}{}`\n\n{about}.\n", usage(subcommand));
        let own: Vec<&Arg> =
            subcommand.get_arguments().filter(|arg| !is_built_in(arg) && !arg.is_global_set()).collect();
        if !own.is_empty() {
            page.push('\n');
        }
        for arg in own {
            option(page, arg);
        }
        section(page, subcommand, &path);
    }
}

fn is_built_in(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

fn usage(command: &Command) -> String {
    let mut usage = String::new();
    for arg in command.get_positionals() {
        let name = value_name(arg);
        let many = if arg.get_num_args().is_some_and(|count| count.max_values() > 1) { "..." } else { "" };
        let _ = if arg.is_required_set() {
            write!(usage, " {name}{many}")
        } else {
            write!(usage, " [{name}]{many}")
        };
    }
    usage
}

fn value_name(arg: &Arg) -> String {
    arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default()
}

fn option(page: &mut String, arg: &Arg) {
    let mut names = Vec::new();
    names.extend(arg.get_short().map(|short| format!("-{short}")));
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    let mut name = if names.is_empty() { value_name(arg) } else { names.join(", ") };
    if !names.is_empty() && arg.get_action().takes_values() {
        name = format!("{name} {}", value_name(arg));
    }
    let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let _ = write!(page, "- `{name}`: {about}");
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(PossibleValue::get_name)
        .map(|value| format!("`{value}`"))
        .collect();
    if !values.is_empty() && arg.get_action().takes_values() {
        let _ = write!(page, ": {}", values.join(", "));
    }
    page.push('\n');
}
