//! `context`: the conversations behind the lines of a file, as much of them as explains the lines.

use std::collections::BTreeSet;

use agent_trace_store::{ObjectId, Store};

use super::blame::{range, tell_unlinked};
use super::{Context, zone};
use crate::args;
use crate::blame::prompts::{Conversations, Said, Transcript};
use crate::blame::traces::TraceFacts;
use crate::blame::{self, Annotated, Line, Run, place};
use crate::bodies::{self, Network};
use crate::json;
use crate::link::known::Known;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::settings::Settings;
use crate::time;
use crate::transcript::{Role, Turn, short};

/// What is shown of all conversations together, unless all is wanted.
const CONTEXT_BYTES: usize = 16 << 10;
/// What is shown of one turn then.
const PROMPT_CHARS: usize = 2000;
const TURN_CHARS: usize = 1000;
const PREVIEW_CHARS: usize = 200;
/// Turns with the words of a query that are shown of one conversation.
const QUERY_TURNS: usize = 5;

pub(super) fn run(context: &Context, args: &args::Context) -> Result<Done, Failure> {
    let range = range(args.lines.as_deref())?;
    let settings = &context.settings;
    let spot = place::locate(&context.env, settings, &args.file, args.project.as_deref(), None)?;
    let revision = spot.root.is_none().then_some("HEAD");
    let asked = blame::start(&spot, revision, range)?;
    let there = Settings { directory: spot.directory.clone(), ..settings.clone() };
    let (place, store) = Context { settings: there, ..context.clone() }.open_current()?;
    let mut known = Known::of(&store)?;
    let annotated = asked.finish(&store, &mut known)?;
    tell_unlinked(context, annotated.unlinked);
    let fetch = |id: &ObjectId| {
        bodies::ensure(context, &place, &store, &[*id], Network::IfNeeded).map_err(|failure| failure.error)
    };
    let mut conversations = Conversations::new(&store, known.snapshot()).fetching(&fetch);
    let mut maker = Maker {
        store: &store,
        args,
        words: args.query.iter().flat_map(|query| query.split_whitespace().map(str::to_lowercase)).collect(),
        rest: if args.full { usize::MAX } else { CONTEXT_BYTES },
        told: BTreeSet::new(),
    };
    let mut segments = Vec::new();
    for lines in segments_of(&annotated.lines) {
        segments.extend(maker.segment(&annotated, lines, &mut conversations)?);
    }
    if context.ui.is_json() {
        context.ui.json(&json::Context { schema: json::CONTEXT, file: &annotated.file, segments })?;
    } else {
        print(context, args, &annotated, &segments)?;
    }
    Ok(Done::Well)
}

/// Neighbouring lines of one trace, whatever commit they came with.
fn segments_of(lines: &[Line]) -> impl Iterator<Item = &[Line]> {
    lines.chunk_by(|one, two| {
        let trace = |line: &Line| line.by.as_ref().map(|run| (run.trace.clone(), run.conversation.clone()));
        one.blamed.line + 1 == two.blamed.line && trace(one) == trace(two)
    })
}

struct Maker<'a> {
    store: &'a Store,
    args: &'a args::Context,
    words: Vec<String>,
    /// Bytes that may still be shown.
    rest: usize,
    /// Conversations that have been shown whole.
    told: BTreeSet<String>,
}

impl<'a> Maker<'a> {
    fn segment(
        &mut self,
        annotated: &'a Annotated,
        lines: &'a [Line],
        conversations: &mut Conversations<'_>,
    ) -> Result<Option<json::Segment<'a>>, Failure> {
        let (first, last) = (&lines[0], &lines[lines.len() - 1]);
        let commit = &first.blamed.commit;
        let common = json::Segment {
            start_line: first.blamed.line as u64,
            end_line: last.blamed.line as u64,
            attribution: "no_attribution",
            query: self.args.query.as_deref(),
            commit_sha: commit.is_committed().then_some(commit.id.as_str()),
            ..json::Segment::default()
        };
        let Some(run) = &first.by else { return Ok(self.words.is_empty().then_some(common)) };
        let facts = run.trace.as_ref().and_then(|trace| annotated.traces.get(trace));
        let said = match facts {
            Some(facts) => conversations.said(facts, run.conversation.as_deref())?,
            None => None,
        };
        let mut segment = attributed(common, run, facts);
        if let Some(conversation) = &run.conversation {
            segment.summary = conversations.summary(conversation)?;
        }
        let Some(said) = said else { return Ok(self.words.is_empty().then_some(segment)) };
        let hits = self.hits(&said.transcript);
        if !self.words.is_empty() && hits.is_empty() {
            return Ok(None);
        }
        self.tell(&mut segment, &said, hits)?;
        Ok(Some(segment))
    }

    /// The turns in which all words occur.
    fn hits(&self, transcript: &Transcript) -> Vec<usize> {
        if self.words.is_empty() {
            return Vec::new();
        }
        let has_all = |turn: &Turn| {
            let text = turn.text.to_lowercase();
            self.words.iter().all(|word| text.contains(word.as_str()))
        };
        (0..transcript.turns.len()).filter(|at| has_all(&transcript.turns[*at])).collect()
    }

    /// Puts what was said into a segment.
    fn tell(
        &mut self,
        segment: &mut json::Segment<'a>,
        said: &Said,
        hits: Vec<usize>,
    ) -> Result<(), Failure> {
        let transcript = &said.transcript;
        let turns = &transcript.turns;
        let spoken = turns.iter().filter(|turn| matches!(turn.role, Role::User | Role::Agent));
        segment.conversation_size = Some(json::ConversationSize {
            characters: transcript.characters,
            lines: transcript.lines,
            turns: spoken.count() as u64,
        });
        segment.prompt = said.prompt().map(str::to_owned);
        segment.preview = said.prompt().map(|prompt| short(prompt, PREVIEW_CHARS));
        if self.args.full {
            // Once is enough, however many of its lines there are.
            let is_new = self.told.insert(transcript.held.body.to_string());
            if is_new {
                let bytes = self.store.read(&transcript.held.body)?;
                segment.conversation_content = Some(String::from_utf8_lossy(&bytes).into_owned());
                segment.turns = (0..turns.len()).map(|at| shown(turns, at, said.at, usize::MAX)).collect();
            }
            segment.cut = !is_new;
            return Ok(());
        }
        let wanted = if hits.is_empty() {
            around(turns, said)
        } else {
            said.prompt.into_iter().chain(hits.into_iter().take(QUERY_TURNS)).collect()
        };
        segment.cut = wanted.len() < turns.len();
        for at in wanted {
            let chars_max = if turns[at].role == Role::User { PROMPT_CHARS } else { TURN_CHARS };
            let turn = shown(turns, at, said.at, chars_max);
            if turn.text.len() > self.rest {
                break;
            }
            self.rest -= turn.text.len();
            segment.turns.push(turn);
        }
        Ok(())
    }
}

fn attributed<'a>(
    common: json::Segment<'a>,
    run: &'a Run,
    facts: Option<&'a TraceFacts>,
) -> json::Segment<'a> {
    json::Segment {
        attribution: "ai",
        model_id: run.model.as_deref(),
        tool: facts.map(|facts| facts.agent.as_str()),
        trace_id: run.trace.as_deref(),
        conversation_id: run.conversation.as_deref(),
        session_id: facts.and_then(|facts| facts.session.as_deref()),
        timestamp: facts.map(|facts| facts.timestamp.as_str()),
        how: run.how.as_deref(),
        ..common
    }
}

/// What explains an edit: the prompt, the answer before it, the call, the answer after it.
fn around(turns: &[Turn], said: &Said) -> BTreeSet<usize> {
    let from = said.prompt.unwrap_or(0);
    let until = (said.at + 1..turns.len()).find(|at| turns[*at].role == Role::User).unwrap_or(turns.len());
    let is_answer = |at: &usize| turns[*at].role == Role::Agent;
    let before = (from..said.at).rev().find(is_answer);
    let after = (said.at + 1..until).find(is_answer);
    [said.prompt, before, Some(said.at), after].into_iter().flatten().collect()
}

fn shown(turns: &[Turn], at: usize, edit: usize, chars_max: usize) -> json::SaidTurn {
    let turn = &turns[at];
    json::SaidTurn {
        role: turn.role_name(),
        time: turn.time.map(|time| time.to_string()),
        tool: turn.tool.clone(),
        tool_use_id: turn.tool_use.clone(),
        text: cut(&turn.text, chars_max),
        edit: at == edit,
    }
}

/// The beginning of a text, with its lines.
fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

fn print(
    context: &Context,
    args: &args::Context,
    annotated: &Annotated,
    segments: &[json::Segment<'_>],
) -> Result<(), Failure> {
    let ui = &context.ui;
    ui.page();
    let zone = zone();
    let mut is_first = true;
    for segment in segments.iter().filter(|segment| segment.attribution == "ai") {
        if !std::mem::take(&mut is_first) {
            ui.line("")?;
        }
        let lines = match (segment.start_line, segment.end_line) {
            (first, last) if first == last => format!("line {first}"),
            (first, last) => format!("lines {first}-{last}"),
        };
        let facts = segment.trace_id.and_then(|trace| annotated.traces.get(trace));
        let when = facts.and_then(|facts| facts.time).map(|time| time::show(time, &zone));
        let session = segment.session_id.map(|session| format!("session {session}"));
        let words = [segment.tool.map(str::to_owned), segment.model_id.map(str::to_owned), session, when];
        let words: Vec<String> = words.into_iter().flatten().collect();
        let file = sanitize::line(&annotated.file).into_owned();
        ui.line(format_args!("{} {lines}", ui.strong(file)))?;
        ui.line(format_args!("{}", ui.agent(sanitize::line(&words.join(", ")))))?;
        if let Some(summary) = &segment.summary {
            ui.line(format_args!("summary: {}", sanitize::block(&cut(summary, TURN_CHARS))))?;
        }
        if segment.conversation_size.is_none() {
            ui.line(ui.faint("the transcript of its conversation is not in this store"))?;
        }
        for turn in &segment.turns {
            let tool = turn.tool.as_deref().map(|tool| format!(" {tool}")).unwrap_or_default();
            let mark = if turn.edit { " (these lines)" } else { "" };
            let title = format!("{}{tool}{mark}", turn.role);
            ui.line(format_args!("  {}", ui.name(sanitize::line(&title))))?;
            for line in turn.text.lines() {
                ui.line(format_args!("    {}", sanitize::block(line)))?;
            }
        }
        if segment.turns.is_empty()
            && let Some(preview) = &segment.preview
        {
            ui.line(format_args!("  {} {}", ui.name("user"), sanitize::line(preview)))?;
        }
    }
    if is_first {
        ui.note(match args.query {
            Some(_) => "no conversation behind these lines has these words",
            None => "none of these lines is an agent's, as far as traces say",
        });
    } else if !args.full && segments.iter().any(|segment| segment.cut) {
        ui.hint("this is a part of what was said; --full shows all, -l A-B less lines");
    }
    Ok(())
}
