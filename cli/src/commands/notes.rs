//! `notes`: what readers of the repository may know of its commits, as git notes.

use agent_trace_store::{Error, ErrorKind};
use serde_json::Value;

use super::Context;
use crate::args;
use crate::document::Document;
use crate::git::commits;
use crate::git::objects::Objects;
use crate::git::process::Git;
use crate::json;
use crate::link::{Linked, Linker};
use crate::notes::attach::{self, NoteSettings, Present};
use crate::notes::exchange::{self, Pushed};
use crate::notes::payload::Include;
use crate::notes::tree::{self, Notes};
use crate::notes::{NOTES, payload::strip};
use crate::privacy::gate;
use crate::privacy::policy::Mode;
use crate::project::Place;
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::time::Edge;
use crate::ui;

const CONFIG: &str = "project-config.json";

pub(super) fn run(context: &Context, command: &args::Notes) -> Result<Done, Failure> {
    let git = Git::from(&context.settings.directory);
    let head = |revision: &Option<String>| revision.clone().unwrap_or_else(|| "HEAD".into());
    match command {
        args::Notes::Show { revision } => show(context, &git, &head(revision)),
        args::Notes::Attach { revision, include } => {
            let id = commits::resolve(&git, &head(revision))?;
            put(context, &git, vec![id], include, Which::All)
        }
        args::Notes::Rebuild { range, include } => {
            if range.starts_with('-') {
                return Err(Error::invalid(format!("cannot read range `{range}`: expected commits")).into());
            }
            let ids = commits::list(&git, &[range])?;
            put(context, &git, ids, include, Which::All)
        }
        args::Notes::Backfill { since, include } => {
            let since = context.time(since.as_deref(), Edge::First)?;
            let since = since.map(|since| format!("--since={}", since.micros().div_euclid(1_000_000)));
            let mut list: Vec<&str> = since.as_deref().into_iter().collect();
            list.extend(["--branches", "--remotes", "HEAD"]);
            let ids = commits::list(&git, &list)?;
            put(context, &git, ids, include, Which::WithoutNote)
        }
        args::Notes::Strip { revision, ledger, summary, prompts, all_session_conversations } => {
            let gone = Include {
                ledger: *ledger,
                summary: *summary,
                prompts: *prompts,
                conversations: *all_session_conversations,
            };
            take_away(context, &git, &head(revision), gone)
        }
        args::Notes::Push { remote, allow_sensitive } => {
            if !allow_sensitive {
                ask_gate(context, &git)?;
            }
            push(context, &git, remote)
        }
        args::Notes::Pull { remote } => {
            let changed = exchange::pull(&context.env, &git, remote)?;
            tell(context, "pull", changed)?;
            Ok(Done::Well)
        }
    }
}

fn show(context: &Context, git: &Git, revision: &str) -> Result<Done, Failure> {
    let id = commits::resolve(git, revision)?;
    let notes = Notes::read(git, NOTES)?;
    let Some(note) = notes.note(&mut Objects::open(git)?, &id)? else {
        let message = format!("there is no note on commit `{}`", &id[..12]);
        return Err(Failure::new(
            ErrorKind::NotFound,
            message,
            format!("agent-trace notes attach {}", &id[..12]),
        ));
    };
    let value = serde_json::from_slice::<Value>(&note);
    if context.ui.is_json() {
        let note = value.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&note).into_owned()));
        context.ui.json(&json::Note { schema: json::NOTE, commit: id, note })?;
        return Ok(Done::Well);
    }
    let text = match value.as_ref().map(serde_json::to_string_pretty) {
        Ok(Ok(text)) => text,
        _ => String::from_utf8_lossy(&note).trim_end().to_owned(),
    };
    context.ui.line(sanitize::block(&text))?;
    Ok(Done::Well)
}

/// Which commits get a note.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    WithoutNote,
}

fn put(
    context: &Context,
    git: &Git,
    mut ids: Vec<String>,
    include: &args::Include,
    which: Which,
) -> Result<Done, Failure> {
    let (place, store) = context.open()?;
    let include = included(context, &place, include)?;
    if which == Which::WithoutNote {
        attach::without_note(git, &mut ids)?;
    }
    let mut linker = Linker::open(&store, git)?;
    let mut linked: Vec<Linked> = Vec::new();
    linker.link(&ids, &mut |one| linked.push(one.clone()))?;
    store.catch_up()?;
    let changed = attach::attach(&store, git, &linked, include, Present::Replace)?;
    tell(context, "attach", changed)?;
    Ok(Done::Well)
}

fn take_away(context: &Context, git: &Git, revision: &str, gone: Include) -> Result<Done, Failure> {
    if gone == Include::default() {
        let names = "--ledger, --summary, --prompts, --all-session-conversations";
        return Err(Error::invalid(format!("nothing to take away: give one of {names}")).into());
    }
    let id = commits::resolve(git, revision)?;
    let mut is_there = false;
    let changed = tree::update(
        &context.env,
        git,
        NOTES,
        None,
        "Less in a note of agent-trace",
        &mut |notes, objects| {
            let note = notes.note(objects, &id)?;
            is_there = note.is_some();
            let stripped =
                note.as_ref().and_then(|note| strip(note, gone)).filter(|less| Some(less) != note.as_ref());
            Ok(stripped.map(|note| (id.clone(), note)).into_iter().collect())
        },
    )?;
    if !is_there {
        return Err(
            Error::new(ErrorKind::NotFound, format!("there is no note on commit `{}`", &id[..12])).into()
        );
    }
    tell(context, "strip", u64::from(changed))?;
    Ok(Done::Well)
}

/// Asks the privacy gate whether the notes may leave.
fn ask_gate(context: &Context, git: &Git) -> Result<(), Failure> {
    let Ok(place) = crate::project::find(&context.env, &context.settings) else { return Ok(()) };
    let policy = context.policy(&place)?;
    let notes = Notes::read(git, NOTES)?;
    if policy.mode == Mode::Off || notes.entries.is_empty() {
        return Ok(());
    }
    let rules = policy.rules(&context.env)?;
    let mut objects = Objects::open(git)?;
    let mut lines = Vec::new();
    let mut commits: Vec<&String> = notes.entries.keys().collect();
    commits.sort();
    for commit in commits {
        if let Some(note) = notes.note(&mut objects, commit)? {
            lines.extend(gate::stopped_in(
                &policy,
                &rules,
                &format!("the note of commit `{}`", &commit[..12]),
                &note,
            ));
        }
    }
    gate::refuse(lines).map_err(|error| Failure::from(error).hint(super::SENSITIVE))
}

fn push(context: &Context, git: &Git, remote: &str) -> Result<Done, Failure> {
    match exchange::push(&context.env, git, remote)? {
        Pushed::Done => tell(context, "push", 1)?,
        Pushed::Nothing => tell(context, "push", 0)?,
        Pushed::Refused(said) => {
            let error =
                Error::new(ErrorKind::Denied, format!("`{remote}` does not take notes")).with_source(said);
            return Err(Failure::from(error)
                .hint("push them to a remote that you may write to: agent-trace notes push --remote NAME"));
        }
    }
    Ok(Done::Well)
}

fn tell(context: &Context, what: &'static str, changed: u64) -> Result<(), Failure> {
    if context.ui.is_json() {
        context.ui.json(&json::Notes { schema: json::NOTES, what, changed })?;
        return Ok(());
    }
    let changed = match (what, changed) {
        ("push", 0) => "The remote has all notes".to_owned(),
        ("push", _) => "Pushed the notes".to_owned(),
        (_, count) => format!("Changed {} note(s)", ui::number(count)),
    };
    context.ui.line(changed)?;
    Ok(())
}

/// What notes say: by the options, else by the project's settings, else summaries only.
fn included(context: &Context, place: &Place, args: &args::Include) -> Result<Include, Failure> {
    let config = Document::read(&context.env, &place.data.join(CONFIG))?;
    let set = NoteSettings::of(config.section("notes")?).include;
    let chosen = |yes: bool, no: bool, set: bool| if yes || no { yes } else { set };
    Ok(Include {
        ledger: chosen(args.include_ledger, args.no_include_ledger, set.ledger),
        summary: chosen(args.include_summary, args.no_include_summary, set.summary),
        prompts: chosen(args.include_prompts, args.no_include_prompts, set.prompts),
        conversations: chosen(
            args.include_all_session_conversations,
            args.no_include_all_session_conversations,
            set.conversations,
        ),
    })
}
