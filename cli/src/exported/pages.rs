//! Conversations as pages to read, and an index of them, in Markdown or HTML.
//!
//! A page is whole in itself: no scripts, nothing that is fetched. All that was said is shown as text: in HTML escaped, in Markdown in
//! fences that it cannot close; control characters are made visible. File names are made of times and hashes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use agent_trace_store::record::TranscriptRecord;
use agent_trace_store::{Error, Kind, ObjectId, Store};
use agent_trace_sync::bundle::{ExportPlan, NewDir};

use super::Written;
use super::out::Out;
use crate::commands::Context;
use crate::report::Failure;
use crate::sanitize;
use crate::target::{self, Target};
use crate::transcript::{self, Role, Turn};

/// A transcript that is shown as a page.
const PAGE_BYTES_MAX: u64 = 256 << 20;
const PROMPT_CHARS_MAX: usize = 100;

/// What pages are written in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Markdown,
    Html,
}

/// A page, as the index tells of it.
struct Page {
    file: String,
    time: String,
    agent: String,
    session: String,
    prompt: String,
}

pub(super) fn write(
    context: &Context,
    store: &Store,
    plan: &ExportPlan,
    path: &Path,
    look: Look,
) -> Result<Written, Failure> {
    let mut conversations = BTreeSet::new();
    plan.each(&mut |event| {
        if event.fact.kind == Kind::TRANSCRIPT {
            conversations.insert(event.fact.key.clone());
        }
        Ok(())
    })?;
    let dir = NewDir::create(&context.env, path)?;
    let (mut pages, mut written) = (Vec::new(), Written::default());
    let progress = context.ui.progress();
    progress.start("exporting", None);
    for conversation in conversations {
        match page(store, dir.aside(), &conversation, look, &mut written)? {
            Some(page) => pages.push(page),
            None => written.skipped += 1,
        }
    }
    progress.finish();
    pages.sort_by(|one, two| (&two.time, &two.file).cmp(&(&one.time, &one.file)));
    let mut out = Out::create(&context.env, &dir.aside().join(format!("index.{}", look.ending())))?;
    out.put(look.index(&pages).as_bytes())?;
    written.bytes += out.finish()?;
    written.counts.insert(Kind::TRANSCRIPT, pages.len() as u64);
    dir.finish()?;
    Ok(written)
}

/// Writes the page of a conversation; none where its bytes are not here, or too many.
fn page(
    store: &Store,
    dir: &Path,
    conversation: &str,
    look: Look,
    written: &mut Written,
) -> Result<Option<Page>, Failure> {
    let snapshot = store.snapshot()?;
    let Target::Records(versions) = target::find(store, &snapshot, conversation)? else { return Ok(None) };
    let found =
        versions.iter().map(target::Versions::answer).find(|found| found.event.fact.kind == Kind::TRANSCRIPT);
    let Some((found, body)) = found.and_then(|found| Some((found, *found.event.fact.objects.get(1)?))) else {
        return Ok(None);
    };
    let Ok(record) = TranscriptRecord::decode(&store.read(&found.record())?) else { return Ok(None) };
    if record.size > PAGE_BYTES_MAX || store.locate(&body)?.is_none() {
        return Ok(None);
    }
    let bytes = store.read(&body)?;
    let turns: Vec<Turn> = transcript::turns(&bytes).collect();
    let time = found.event.fact.time.to_string();
    let prompt = turns.iter().find(|turn| turn.role == Role::User);
    let hash = ObjectId::of(conversation.as_bytes()).to_string();
    let page = Page {
        file: format!("{}-{}.{}", &time[..10.min(time.len())], &hash[..16], look.ending()),
        agent: record.agent.clone().unwrap_or_else(|| "an agent".to_owned()),
        session: record.session_id.clone().unwrap_or_else(|| conversation.to_owned()),
        prompt: prompt.map(|turn| transcript::short(&turn.text, PROMPT_CHARS_MAX)).unwrap_or_default(),
        time,
    };
    let text = look.page(&page, conversation, &turns)?;
    let mut out = Out::create(store.env(), &dir.join(&page.file))?;
    out.put(text.as_bytes())?;
    written.bytes += out.finish()?;
    Ok(Some(page))
}

impl Look {
    fn ending(self) -> &'static str {
        match self {
            Look::Markdown => "md",
            Look::Html => "html",
        }
    }

    fn page(self, page: &Page, conversation: &str, turns: &[Turn]) -> Result<String, Error> {
        let mut text = String::new();
        let wrote = match self {
            Look::Markdown => markdown_page(&mut text, page, conversation, turns),
            Look::Html => html_page(&mut text, page, conversation, turns),
        };
        wrote.map_err(|error| Error::invalid("cannot write a page").with_source(error))?;
        Ok(text)
    }

    fn index(self, pages: &[Page]) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = match self {
            Look::Markdown => markdown_index(&mut text, pages),
            Look::Html => html_index(&mut text, pages),
        };
        text
    }
}

/// Who spoke, when.
fn heading(turn: &Turn) -> String {
    let who = match (&turn.role, &turn.tool) {
        (Role::Tool, Some(tool)) => format!("tool {tool}"),
        _ => turn.role_name().to_owned(),
    };
    match turn.time {
        Some(time) => format!("{who}, {time}"),
        None => who,
    }
}

/// Text on one line of Markdown in which nothing means anything.
fn markdown_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for char in sanitize::line(text).chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            _ if char.is_ascii_punctuation() => out.extend(['\\', char]),
            _ => out.push(char),
        }
    }
    out
}

/// Text in a fence that is longer than any run of backticks in it.
fn fenced(out: &mut String, text: &str) -> std::fmt::Result {
    let text = sanitize::block(text);
    let longest = text.split(|char| char != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    writeln!(out, "{fence}text\n{}\n{fence}\n", text.trim_end_matches('\n'))
}

fn markdown_page(out: &mut String, page: &Page, conversation: &str, turns: &[Turn]) -> std::fmt::Result {
    writeln!(out, "# {} of {}\n", markdown_line(&page.session), markdown_line(&page.agent))?;
    writeln!(out, "Conversation {}, as of {}.\n", markdown_line(conversation), page.time)?;
    for turn in turns {
        writeln!(out, "## {}\n", markdown_line(&heading(turn)))?;
        fenced(out, &turn.text)?;
    }
    Ok(())
}

fn markdown_index(out: &mut String, pages: &[Page]) -> std::fmt::Result {
    writeln!(out, "# Conversations\n")?;
    for page in pages {
        let (agent, prompt) = (markdown_line(&page.agent), markdown_line(&page.prompt));
        writeln!(out, "- [{}]({}) {agent}: {prompt}", page.time, page.file)?;
    }
    Ok(())
}

/// What a page may do: nothing but show itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;\
background:#fff}pre{white-space:pre-wrap;overflow-wrap:anywhere;font:14px/1.45 ui-monospace,monospace;padding:.6rem .8rem;\
border-left:4px solid #bbb;background:#f6f6f6}h2{font-size:1rem;margin:1.2rem 0 .3rem}.user pre{border-color:#2a6;background:#f1faf4}\
.agent pre{border-color:#36c;background:#f2f5fd}li{margin:.3rem 0}";

fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char => out.push(char),
        }
    }
    out
}

fn html_start(out: &mut String, title: &str) -> std::fmt::Result {
    writeln!(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    writeln!(out, "<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width\">")?;
    writeln!(out, "<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>")
}

fn html_page(out: &mut String, page: &Page, conversation: &str, turns: &[Turn]) -> std::fmt::Result {
    let line = |text: &str| html(&sanitize::line(text));
    html_start(out, &format!("{} of {}", line(&page.session), line(&page.agent)))?;
    writeln!(out, "<p>Conversation {}, as of {}.</p>", line(conversation), line(&page.time))?;
    for turn in turns {
        let (role, said) = (turn.role_name(), html(&sanitize::block(&turn.text)));
        writeln!(
            out,
            "<section class=\"{role}\">\n<h2>{}</h2>\n<pre>{said}</pre>\n</section>",
            line(&heading(turn))
        )?;
    }
    writeln!(out, "</body>\n</html>")
}

fn html_index(out: &mut String, pages: &[Page]) -> std::fmt::Result {
    let line = |text: &str| html(&sanitize::line(text));
    html_start(out, "Conversations")?;
    writeln!(out, "<ul>")?;
    for page in pages {
        let (agent, prompt) = (line(&page.agent), line(&page.prompt));
        writeln!(
            out,
            "<li><a href=\"{}\">{}</a> {agent}: {prompt}</li>",
            line(&page.file),
            line(&page.time)
        )?;
    }
    writeln!(out, "</ul>\n</body>\n</html>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(text: &str) -> Turn {
        Turn { time: None, role: Role::User, text: text.to_owned(), tool: None, tool_use: None, offset: 0 }
    }

    fn shown(look: Look, text: &str) -> String {
        let word = || text.to_owned();
        let page = Page {
            file: "f".to_owned(),
            time: "t".to_owned(),
            agent: word(),
            session: word(),
            prompt: word(),
        };
        look.page(&page, text, &[turn(text)]).unwrap() + &look.index(&[page])
    }

    #[test]
    fn what_was_said_stays_text() {
        for text in
            ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'&lt;", "</pre><b>", "</title>"]
        {
            let page = shown(Look::Html, text);
            let without_ours = page.matches('<').count();
            assert_eq!(without_ours, shown(Look::Html, "x").matches('<').count(), "{text}");
            assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
        }
    }

    #[test]
    fn no_control_character_and_no_fence_gets_out() {
        for look in [Look::Html, Look::Markdown] {
            let page = shown(look, "a\u{1b}]52;c;AA\u{7}\u{202e}\u{0}b");
            assert!(page.chars().all(|char| char == '\n' || !char.is_control()), "{page}");
            assert!(page.contains("\\u{1b}]52") || page.contains("\\u{1b}"), "{page}");
        }
        let page = shown(Look::Markdown, "````\n# not a heading\n```");
        assert_eq!(page.matches("`````").count(), 2, "{page}");
        assert_eq!(
            markdown_line("[x](javascript:y) <b> `c`"),
            "\\[x\\]\\(javascript\\:y\\) &lt;b&gt; \\`c\\`"
        );
    }
}
