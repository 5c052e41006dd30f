//! `blame`: whose the lines of a file are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::rc::Rc;

use agent_trace_store::store::Snapshot;
use agent_trace_store::{Error, Store};
use jiff::tz::TimeZone;

use super::{Context, zone};
use crate::args;
use crate::blame::prompts::Conversations;
use crate::blame::traces::TraceFacts;
use crate::blame::unlinked::Unlinked;
use crate::blame::{self, Annotated, Line, Run, place, porcelain};
use crate::git::commits::{self, spelled};
use crate::json;
use crate::link::known::Known;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::settings::Settings;
use crate::time;
use crate::transcript::short;
use crate::ui;

/// Conversations that are looked into without being asked for, and their bytes.
const CONVERSATIONS_MAX: usize = 16;
const CONVERSATION_BYTES_MAX: u64 = 32 << 20;
const PROMPT_CHARS: usize = 200;
const WHO_CHARS: usize = 28;

pub(super) fn run(context: &Context, args: &args::Blame) -> Result<Done, Failure> {
    let range = range(args.line.as_deref().or(args.range.as_deref()))?;
    let settings = &context.settings;
    let project = args.project.as_deref();
    let spot = place::locate(&context.env, settings, &args.file, project, args.revision.as_deref())?;
    let revision = match (&args.revision, &spot.root) {
        (Some(name), _) => Some(commits::resolve(&spot.git, name)?),
        (None, None) => Some("HEAD".to_owned()),
        (None, Some(_)) => None,
    };
    let asked = blame::start(&spot, revision.as_deref(), range.clone())?;
    let there = Settings { directory: spot.directory.clone(), ..settings.clone() };
    let (_, store) = Context { settings: there, ..context.clone() }.open_current()?;
    let mut known = Known::of(&store)?;
    let annotated = asked.finish(&store, &mut known)?;
    let ui = &context.ui;
    tell_unlinked(context, annotated.unlinked);
    if args.porcelain || args.line_porcelain {
        let bytes = porcelain::encode(&annotated, args.line_porcelain);
        if ui.out_is_terminal() {
            // Nobody parses it there.
            ui.bytes(sanitize::block(&String::from_utf8_lossy(&bytes)).as_bytes())?;
        } else {
            ui.bytes(&bytes)?;
        }
        return Ok(required(context, args, &annotated));
    }
    let forced = args.prompts || range.is_some();
    let said = Said::look_up(&store, known.snapshot(), &annotated, forced)?;
    if ui.is_json() {
        ui.json(&document(args, &annotated, &said))?;
    } else {
        print(context, &annotated, &said)?;
    }
    Ok(required(context, args, &annotated))
}

/// Lines as they are asked for: A, A-B or A,B.
pub(super) fn range(text: Option<&str>) -> Result<Option<Range<usize>>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let refused = || {
        Failure::from(Error::invalid(format!(
            "cannot read lines `{text}`: expected A or A-B, counted from 1, B not before A"
        )))
    };
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
        // git counts lines in less.
        text.parse::<u32>().ok().filter(|number| is_plain && *number > 0 && *number < u32::MAX / 2)
    };
    let (first, last) = text.split_once(['-', ',']).unwrap_or((text, text));
    let (first, last) = (number(first.trim()).ok_or_else(refused)?, number(last.trim()).ok_or_else(refused)?);
    if last < first {
        return Err(refused());
    }
    Ok(Some(first as usize..last as usize + 1))
}

/// Says what was linked for this answer only, and what was not.
pub(super) fn tell_unlinked(context: &Context, unlinked: Unlinked) {
    let number = |count: usize| ui::number(count as u64);
    if unlinked.left > 0 {
        let left = number(unlinked.left);
        context.ui.warn(&format!(
            "{left} commit(s) that may hold lines of agents are not linked, nor in the answer"
        ));
    }
    if unlinked.left > 0 || unlinked.linked > 0 {
        let linked = number(unlinked.linked + unlinked.left);
        context.ui.hint(&format!("agent-trace link --all links {linked} commit(s) once for all"));
    }
}

/// How it ends where lines must be attributed.
fn required(context: &Context, args: &args::Blame, annotated: &Annotated) -> Done {
    let open: Vec<usize> =
        annotated.lines.iter().filter(|line| line.by.is_none()).map(|line| line.blamed.line).collect();
    let Some(first) = open.first().filter(|_| args.require_attribution) else { return Done::Well };
    let message = format!("{} line(s) of `{}` are not attributed, first {first}", open.len(), annotated.file);
    if !context.ui.is_json() {
        context.ui.warn(&message);
    }
    Done::Failed
}

/// What was said about the traces of a file.
#[derive(Default)]
struct Said {
    prompts: HashMap<String, String>,
    summaries: HashMap<String, String>,
    previews: HashMap<String, String>,
    /// Conversations that were not looked into, because there are many.
    skipped: usize,
}

impl Said {
    fn look_up(
        store: &Store,
        snapshot: &Snapshot,
        annotated: &Annotated,
        forced: bool,
    ) -> Result<Said, Failure> {
        let mut said = Said::default();
        let mut conversations = Conversations::new(store, snapshot);
        let mut runs: BTreeMap<&str, (&Rc<Run>, Option<&TraceFacts>)> = BTreeMap::new();
        for run in annotated.lines.iter().filter_map(|line| line.by.as_ref()) {
            let Some(trace) = run.trace.as_deref() else { continue };
            runs.insert(trace, (run, annotated.traces.get(trace)));
        }
        let mut distinct: BTreeSet<(Option<&str>, Option<&str>)> = BTreeSet::new();
        for (run, facts) in runs.values() {
            distinct.insert((run.conversation.as_deref(), facts.and_then(|facts| facts.session.as_deref())));
        }
        if distinct.len() > CONVERSATIONS_MAX && !forced {
            said.skipped = distinct.len();
            return Ok(said);
        }
        let mut bytes = 0;
        for (conversation, session) in &distinct {
            let held = conversations.held(*conversation, *session)?;
            bytes += held.iter().map(|held| held.record.size).sum::<u64>();
        }
        if bytes > CONVERSATION_BYTES_MAX && !forced {
            said.skipped = distinct.len();
            return Ok(said);
        }
        for (trace, (run, facts)) in runs {
            let conversation = run.conversation.as_deref();
            if let Some(id) = conversation
                && let Some(summary) = conversations.summary(id)?
            {
                said.summaries.insert(id.to_owned(), summary);
            }
            let Some(facts) = facts else { continue };
            let Some(found) = conversations.said(facts, conversation)? else { continue };
            if let Some(prompt) = found.prompt() {
                said.prompts.insert(trace.to_owned(), short(prompt, PROMPT_CHARS));
            }
            if let (Some(id), Some(first)) = (conversation, Conversations::first_prompt(&found.transcript)) {
                said.previews.entry(id.to_owned()).or_insert_with(|| short(first, PROMPT_CHARS));
            }
        }
        Ok(said)
    }
}

/// Lines that are told of together: of one commit, and of one trace if they are an agent's.
pub(super) fn groups(lines: &[Line]) -> impl Iterator<Item = &[Line]> {
    lines.chunk_by(|one, two| {
        let same_run = match (&one.by, &two.by) {
            (Some(one), Some(two)) => Rc::ptr_eq(one, two) || one == two,
            (None, None) => true,
            _ => false,
        };
        same_run
            && one.blamed.commit.id == two.blamed.commit.id
            && one.blamed.path == two.blamed.path
            && one.blamed.line + 1 == two.blamed.line
            && one.blamed.line_original + 1 == two.blamed.line_original
    })
}

fn document<'a>(args: &'a args::Blame, annotated: &'a Annotated, said: &Said) -> json::Blame<'a> {
    let mut attributions = Vec::new();
    for group in groups(&annotated.lines) {
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let commit = &first.blamed.commit;
        let common = json::BlameRun {
            start_line: first.blamed.line as u64,
            end_line: last.blamed.line as u64,
            kind: "NO_ATTRIBUTION",
            attribution_label: "No attribution",
            commit_sha: commit.is_committed().then_some(commit.id.as_str()),
            author: &commit.author,
            original_path: spelled(&first.blamed.path),
            original_line: first.blamed.line_original as u64,
            ..json::BlameRun::default()
        };
        match &first.by {
            Some(run) => attributions.push(attributed(common, annotated, run, group, said)),
            None if args.show_no_attribution => attributions.push(common),
            None => {}
        }
    }
    let lines_ai = annotated.lines.iter().filter(|line| line.by.is_some()).count() as u64;
    json::Blame {
        schema: json::BLAME,
        file: &annotated.file,
        revision: args.revision.as_deref(),
        attributions,
        lines: annotated.lines.len() as u64,
        lines_ai,
    }
}

fn attributed<'a>(
    common: json::BlameRun<'a>,
    annotated: &'a Annotated,
    run: &'a Run,
    group: &'a [Line],
    said: &Said,
) -> json::BlameRun<'a> {
    let trace = run.trace.as_deref();
    let conversation = run.conversation.as_deref();
    let facts = trace.and_then(|trace| annotated.traces.get(trace));
    let evidence = group.iter().filter_map(|line| {
        Some(json::BlameEvidence {
            line: line.blamed.line as u64,
            hash: line.hash.as_deref()?,
            content: String::from_utf8_lossy(&line.blamed.bytes).into_owned(),
        })
    });
    let is_committed = common.commit_sha.is_some();
    json::BlameRun {
        kind: "AI",
        attribution_label: "AI",
        contributor_type: Some("ai"),
        trace_id: trace,
        model_id: run.model.as_deref(),
        tool: facts
            .map(|facts| json::BlameTool { name: &facts.agent, version: facts.agent_version.as_deref() }),
        timestamp: facts.map(|facts| facts.timestamp.as_str()),
        conversation_id: conversation,
        conversation_summary: conversation.and_then(|id| said.summaries.get(id).cloned()),
        conversation_preview: conversation.and_then(|id| said.previews.get(id).cloned()),
        signals: vec![if is_committed { "ledger" } else { "trace" }],
        source: Some(if is_committed { "ledger" } else { "work-tree" }),
        evidence: evidence.collect(),
        agent: facts.map(|facts| facts.agent.as_str()),
        session_id: facts.and_then(|facts| facts.session.as_deref()),
        tool_name: facts.and_then(|facts| facts.tool.as_deref()),
        tool_use_id: facts.and_then(|facts| facts.tool_use.as_deref()),
        how: run.how.as_deref(),
        prompt: trace.and_then(|trace| said.prompts.get(trace).cloned()),
        ..common
    }
}

fn print(context: &Context, annotated: &Annotated, said: &Said) -> Result<(), Failure> {
    let ui = &context.ui;
    ui.page();
    let zone = zone();
    let numbers = annotated.lines.last().map_or(1, |line| line.blamed.line.to_string().len());
    let widest = annotated.lines.iter().map(|line| who(annotated, line).chars().count()).max();
    let who_width = widest.unwrap_or(0).min(WHO_CHARS);
    for line in &annotated.lines {
        let facts = line.by.as_ref().and_then(|run| annotated.traces.get(run.trace.as_deref()?));
        let commit = &line.blamed.commit;
        let when = facts.and_then(|facts| facts.time).unwrap_or(commit.authored);
        let name = short(&who(annotated, line), who_width);
        let name = format!("{:<who_width$}", sanitize::line(&name));
        let kind = if line.by.is_some() { "AI" } else { "  " };
        let content = String::from_utf8_lossy(&line.blamed.bytes);
        let content = content.strip_suffix('\r').unwrap_or(&content);
        let id = &commit.id[..8.min(commit.id.len())];
        let when = minutes(when, &zone);
        let number = line.blamed.line;
        let content = sanitize::block(content);
        if line.by.is_some() {
            ui.line(format_args!(
                "{} {} {} {} {:>numbers$}) {content}",
                ui.name(id),
                ui.agent(kind),
                ui.agent(name),
                ui.faint(when),
                number
            ))?;
        } else {
            ui.line(format_args!(
                "{} {kind} {} {} {:>numbers$}) {content}",
                ui.name(id),
                ui.faint(name),
                ui.faint(when),
                number
            ))?;
        }
    }
    legend(context, annotated, said, &zone)
}

/// A local time to the minute.
fn minutes(time: agent_trace_store::Timestamp, zone: &TimeZone) -> String {
    let mut shown = time::show(time, zone);
    shown.truncate(16);
    shown
}

/// Who a line is from: the agent and its model, or git's author.
fn who(annotated: &Annotated, line: &Line) -> String {
    let Some(run) = &line.by else { return line.blamed.commit.author.clone() };
    let facts = run.trace.as_ref().and_then(|trace| annotated.traces.get(trace));
    let agent = facts.map_or("agent", |facts| facts.agent.as_str());
    match run.model.as_deref().and_then(|model| model.rsplit('/').next()) {
        Some(model) => format!("{agent} {model}"),
        None => agent.to_owned(),
    }
}

/// Below the lines: what each trace was asked for.
fn legend(context: &Context, annotated: &Annotated, said: &Said, zone: &TimeZone) -> Result<(), Failure> {
    let ui = &context.ui;
    if said.skipped > 0 {
        ui.hint(&format!(
            "the lines come from {} conversations; --prompts, or -l N, shows what was asked for",
            said.skipped
        ));
        return Ok(());
    }
    let mut ranges: Vec<(&Run, Vec<(usize, usize)>)> = Vec::new();
    for group in groups(&annotated.lines) {
        let Some(run) = &group[0].by else { continue };
        let lines = (group[0].blamed.line, group[group.len() - 1].blamed.line);
        match ranges.iter_mut().find(|(known, _)| known.trace == run.trace) {
            Some((_, ranges)) => match ranges.last_mut() {
                Some(last) if last.1 + 1 == lines.0 => last.1 = lines.1,
                _ => ranges.push(lines),
            },
            None => ranges.push((run, vec![lines])),
        }
    }
    for (run, ranges) in ranges {
        let facts = run.trace.as_ref().and_then(|trace| annotated.traces.get(trace));
        let ranges: Vec<String> = ranges
            .iter()
            .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
            .collect();
        ui.line("")?;
        ui.line(format_args!("{} {}", ui.strong("lines"), ranges.join(", ")))?;
        let agent = facts.map_or("unknown", |facts| facts.agent.as_str());
        let model = run.model.as_deref().unwrap_or("an unknown model");
        ui.line(format_args!("  agent    {}, {}", ui.agent(sanitize::line(agent)), sanitize::line(model)))?;
        let session = facts.and_then(|facts| facts.session.as_deref());
        let when = facts.and_then(|facts| facts.time).map(|time| time::show(time, zone));
        let fields = [
            ("session", session.map(str::to_owned)),
            ("time", when),
            ("trace", run.trace.clone()),
            ("how", run.how.clone()),
            ("asked", run.trace.as_ref().and_then(|trace| said.prompts.get(trace).cloned())),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                ui.line(format_args!("  {name:<8} {}", sanitize::line(&value)))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn lines_are_read_as_people_give_them() {
        let check = |text: &str, expected: Option<std::ops::Range<usize>>| {
            assert_eq!(range(Some(text)).ok().flatten(), expected, "{text}");
        };
        check("5", Some(5..6));
        check("5-5", Some(5..6));
        check("2-10", Some(2..11));
        check("2,10", Some(2..11));
        for bad in ["", "0", "-1", "3-2", "a", "1-", "+1", "1-2-3", "99999999999", "4294967295"] {
            check(bad, None);
        }
    }
}
