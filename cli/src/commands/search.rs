//! `search`: words in what was said, over the newest state of every transcript. There is no index: transcripts are
//! read in parallel, and only lines that may hold the words are parsed.

use std::collections::HashSet;

use agent_trace_store::question::{self, Found, Query};
use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::{Kind, ObjectId, Result, Store, Timestamp};
use memchr::memmem;
use rayon::prelude::*;

use super::{Context, zone};
use crate::args;
use crate::json;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::time::{self, Edge};
use crate::transcript::{self, Role, Turn, short};

const LIMIT: usize = 20;
/// Places of one transcript that are looked at.
const HITS_MAX: usize = 10_000;
const PROMPT_CHARS: usize = 120;
/// The same text so soon after is the same turn.
const AGAIN_MICROS: u64 = 5_000_000;
/// What is shown around the first of the words.
const EXCERPT_CHARS: usize = 160;

/// A turn in which all words occur.
struct Hit {
    time: Timestamp,
    /// The transcript's number in the list.
    transcript: usize,
    turn: Turn,
    prompt: Option<String>,
}

/// What is looked for.
struct Wanted {
    /// In lower case.
    words: Vec<String>,
    /// Those that stand in the bytes of a transcript as they are, whatever its spelling of JSON.
    plain: Vec<memmem::Finder<'static>>,
    since: Option<Timestamp>,
    path: Option<String>,
}

pub(super) fn run(context: &Context, args: &args::Search) -> std::result::Result<Done, Failure> {
    let wanted = Wanted::new(args, context.time(args.since.as_deref(), Edge::First)?);
    let (_, store) = context.open_current()?;
    let mut transcripts = newest(&store, args, wanted.since)?;
    let bodies: Vec<ObjectId> = transcripts.iter().map(|(_, found)| found.event.fact.objects[1]).collect();
    let mut here = store.contains_all(&bodies)?.into_iter();
    transcripts.retain(|_| here.next().unwrap_or(false));
    let left_out = bodies.len() - transcripts.len();
    if left_out > 0 {
        context.ui.note(&format!("{left_out} conversation(s) that a pull left out are not looked through"));
        context.ui.hint("agent-trace pull --transcripts");
    }
    let limit = args.limit.unwrap_or(LIMIT);
    let found = transcripts
        .par_iter()
        .enumerate()
        .map(|(number, (_, found))| look(&store, number, found, &wanted))
        .collect::<Result<Vec<_>>>()?;
    let mut hits: Vec<Hit> = found.into_iter().flatten().collect();
    hits.sort_by(|one, two| {
        (two.time, one.transcript, one.turn.offset).cmp(&(one.time, two.transcript, two.turn.offset))
    });
    let total = hits.len();
    hits.truncate(limit);
    for hit in &mut hits {
        // A transcript is read again for the few that are shown only.
        let bytes = store.read(&transcripts[hit.transcript].1.event.fact.objects[1])?;
        hit.prompt = prompt(&bytes, &hit.turn);
    }
    print(context, &wanted, &transcripts, &hits)?;
    if total > hits.len() {
        context.ui.hint(&format!("{total} places hold these words; -n N shows more, more words find fewer"));
    } else if total == 0 {
        context.ui.note("no transcript in this store holds these words");
    }
    Ok(Done::Well)
}

impl Wanted {
    fn new(args: &args::Search, since: Option<Timestamp>) -> Wanted {
        let words: Vec<String> = args.words.iter().map(|word| word.to_lowercase()).collect();
        // Letters and digits are never escaped; others may be.
        let is_plain =
            |word: &&String| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-. ".contains(&byte));
        let plain =
            words.iter().filter(is_plain).map(|word| memmem::Finder::new(word.as_bytes()).into_owned());
        Wanted { plain: plain.collect(), words, since, path: args.path.clone() }
    }

    /// Whether bytes in lower case may hold all words.
    fn may_be_in(&self, lower: &[u8]) -> bool {
        self.plain.iter().all(|word| word.find(lower).is_some())
    }

    fn is_in(&self, turn: &Turn) -> bool {
        // Nearly all text is ASCII, for which this is many times faster.
        let is_ascii = turn.text.is_ascii();
        let text = if is_ascii { turn.text.to_ascii_lowercase() } else { turn.text.to_lowercase() };
        self.words.iter().all(|word| text.contains(word.as_str()))
            && self.since.is_none_or(|since| turn.time.is_none_or(|time| time >= since))
            && self.path.as_ref().is_none_or(|path| turn.tool.is_some() && turn.text.contains(path.as_str()))
    }
}

/// The newest state of each transcript.
fn newest(
    store: &Store,
    args: &args::Search,
    since: Option<Timestamp>,
) -> std::result::Result<Vec<(TranscriptRecord, Found)>, Failure> {
    let snapshot = store.snapshot()?;
    let query = Query { kind: Some(Kind::TRANSCRIPT), since, ..Query::default() };
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    let agent = args.agent.as_ref().map(|agent| agent.to_lowercase());
    for found in question::list(store, &snapshot, &query)? {
        let fact = &found.event.fact;
        if fact.objects.len() < 2 || !seen.insert(fact.key.clone()) {
            continue;
        }
        let Ok(record) = TranscriptRecord::decode(&store.read(&found.record())?) else { continue };
        let name = record.agent.as_deref().unwrap_or_default().to_lowercase();
        // `claude-code` is `Claude Code`.
        let fits =
            |agent: &String| name.contains(agent.as_str()) || name.replace(' ', "-").contains(agent.as_str());
        if agent.as_ref().is_none_or(fits) {
            all.push((record, found));
        }
    }
    Ok(all)
}

/// The turns of one transcript in which all words occur.
fn look(store: &Store, number: usize, found: &Found, wanted: &Wanted) -> Result<Vec<Hit>> {
    let bytes = store.read(&found.event.fact.objects[1])?;
    let lower = bytes.to_ascii_lowercase();
    if !wanted.may_be_in(&lower) {
        return Ok(Vec::new());
    }
    let mut hits: Vec<Hit> = Vec::new();
    let mut take = |turn: Turn| {
        let again = hits.last().is_some_and(|last| is_again(&last.turn, &turn));
        if !again && turn.role != Role::Other && hits.len() < HITS_MAX && wanted.is_in(&turn) {
            let time = turn.time.unwrap_or(found.event.fact.time);
            hits.push(Hit { time, transcript: number, turn, prompt: None });
        }
    };
    if transcript::is_whole(&bytes) {
        transcript::turns(&bytes).for_each(&mut take);
        return Ok(hits);
    }
    let mut at = 0;
    while at < bytes.len() {
        // From one line with the first word to the next.
        if let Some(first) = wanted.plain.first() {
            let Some(next) = first.find(&lower[at..]) else { break };
            at = memchr::memrchr(b'\n', &lower[..at + next]).map_or(0, |end| end + 1).max(at);
        }
        let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
        if wanted.may_be_in(&lower[at..end]) {
            transcript::turns_of_line(&bytes[at..end], at).into_iter().for_each(&mut take);
        }
        at = end + 1;
    }
    Ok(hits)
}

/// Whether two turns are one: some agents write down twice what is said.
fn is_again(one: &Turn, two: &Turn) -> bool {
    let apart = one.time.zip(two.time).map(|(one, two)| one.micros().abs_diff(two.micros()));
    one.role == two.role && one.text == two.text && apart.is_some_and(|apart| apart < AGAIN_MICROS)
}

/// The prompt that a turn answers to.
fn prompt(bytes: &[u8], turn: &Turn) -> Option<String> {
    if turn.role == Role::User {
        return None;
    }
    if transcript::is_whole(bytes) {
        let turns: Vec<Turn> = transcript::turns(bytes).collect();
        let at = turns.iter().position(|other| other == turn)?;
        return transcript::prompt_of(&turns, at).map(|at| turns[at].text.clone());
    }
    transcript::prompt_before(bytes, turn.offset).map(|turn| turn.text)
}

fn print(
    context: &Context,
    wanted: &Wanted,
    transcripts: &[(TranscriptRecord, Found)],
    hits: &[Hit],
) -> std::result::Result<(), Failure> {
    let ui = &context.ui;
    let zone = zone();
    if !ui.is_json() {
        ui.page();
    }
    for hit in hits {
        let (record, _) = &transcripts[hit.transcript];
        let turn = &hit.turn;
        if ui.is_json() {
            ui.json(&json::SearchHit {
                schema: json::SEARCH,
                conversation_id: &record.conversation_id,
                session_id: record.session_id.as_deref(),
                agent: record.agent.as_deref(),
                time: turn.time.map(|time| time.to_string()),
                role: turn.role_name(),
                tool: turn.tool.as_deref(),
                tool_use_id: turn.tool_use.as_deref(),
                text: turn.text.clone(),
                prompt: hit.prompt.clone(),
                offset: turn.offset as u64,
            })?;
            continue;
        }
        let session = record.session_id.as_deref().unwrap_or(&record.conversation_id);
        let tool = turn.tool.as_deref().map(|tool| format!(" {tool}")).unwrap_or_default();
        ui.line(format_args!(
            "{}  {}  {}  {}{}",
            ui.faint(time::show(hit.time, &zone)),
            ui.name(sanitize::line(&short(session, 36))),
            ui.agent(sanitize::line(record.agent.as_deref().unwrap_or("-"))),
            turn.role_name(),
            sanitize::line(&tool)
        ))?;
        ui.line(format_args!("  {}", sanitize::line(&excerpt(&turn.text, &wanted.words))))?;
        if let Some(prompt) = &hit.prompt {
            ui.line(format_args!(
                "  {} {}",
                ui.faint("asked:"),
                sanitize::line(&short(prompt, PROMPT_CHARS))
            ))?;
        }
    }
    Ok(())
}

/// What stands around the first place of a word, on one line.
fn excerpt(text: &str, words: &[String]) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let lower = flat.to_lowercase();
    let at = words.iter().filter_map(|word| lower.find(word.as_str())).min().unwrap_or(0);
    // In characters: lower case may have other bytes.
    let before = lower[..at].chars().count().saturating_sub(EXCERPT_CHARS / 4);
    let rest: String = flat.chars().skip(before).take(EXCERPT_CHARS * 8).collect();
    let start = if before > 0 { "…" } else { "" };
    format!("{start}{}", short(&rest, EXCERPT_CHARS))
}

#[cfg(test)]
mod tests {
    use super::excerpt;

    #[test]
    fn an_excerpt_shows_the_word() {
        let text = format!("{} needle {}", "hay ".repeat(100), "straw ".repeat(100));
        let shown = excerpt(&text, &["needle".to_owned()]);
        assert!(shown.starts_with('…') && shown.ends_with('…') && shown.contains(" needle "), "{shown}");
        assert_eq!(excerpt("İstanbul\n ok", &["ok".to_owned()]), "İstanbul ok");
    }
}
