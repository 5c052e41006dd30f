//! `export` in forms that others read: the layout of agent-trace-cli, Agent Trace records, pages for people.
//!
//! What is chosen is what a bundle would hold. A folder or file gets its name when all of it is written. What a form cannot say
//! stays out and is counted.

mod agent_trace;
mod jsonl;
mod out;
mod pages;

use std::collections::BTreeMap;
use std::path::Path;

use agent_trace_store::{Kind, Store};
use agent_trace_sync::bundle::ExportPlan;

use crate::args;
use crate::commands::Context;
use crate::import::RECORDS_OF_TRANSCRIPTS;
use crate::report::Failure;

/// A form, and where it goes.
#[derive(Clone, Copy)]
pub(crate) enum Form<'a> {
    Jsonl(&'a Path),
    AgentTrace(&'a Path),
    Markdown(&'a Path),
    Html(&'a Path),
}

impl<'a> Form<'a> {
    /// The form that is asked for, if it is not a bundle.
    pub(crate) fn of(args: &'a args::Export) -> Option<Form<'a>> {
        let jsonl = args.jsonl.as_deref().map(Form::Jsonl);
        let agent_trace = args.agent_trace.as_deref().map(Form::AgentTrace);
        let markdown = args.markdown.as_deref().map(Form::Markdown);
        jsonl.or(agent_trace).or(markdown).or(args.html.as_deref().map(Form::Html))
    }

    /// Where it goes.
    pub(crate) fn path(&self) -> &'a Path {
        match self {
            Form::Jsonl(path) | Form::AgentTrace(path) | Form::Markdown(path) | Form::Html(path) => path,
        }
    }

    /// What programs call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Form::Jsonl(_) => "jsonl",
            Form::AgentTrace(_) => "agent-trace",
            Form::Markdown(_) => "markdown",
            Form::Html(_) => "html",
        }
    }
}

/// What has been written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// Records, by kind; of pages the conversations.
    pub(crate) counts: BTreeMap<Kind, u64>,
    /// Records that the form cannot say, or whose bytes are not here.
    pub(crate) skipped: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

/// Writes what was chosen.
pub(crate) fn write(
    context: &Context,
    store: &Store,
    plan: &ExportPlan,
    form: &Form<'_>,
) -> Result<Written, Failure> {
    match form {
        Form::Jsonl(path) => Ok(jsonl::write(store, plan, path)?),
        Form::AgentTrace(path) => Ok(agent_trace::write(store, plan, path)?),
        Form::Markdown(path) => pages::write(context, store, plan, path, pages::Look::Markdown),
        Form::Html(path) => pages::write(context, store, plan, path, pages::Look::Html),
    }
}
