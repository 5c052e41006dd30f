//! What was said in a transcript: prompts, answers, tool calls and what came back, in order.
//!
//! Reads what Claude Code, Codex, Gemini CLI, Copilot CLI and Cursor write; the agent is told by each line itself. A
//! line that is no JSON, or of which nothing is known, is passed over, so that a damaged or newer transcript still
//! says what it says. Reads only; the bytes are kept elsewhere as they are.

mod lines;
mod render;

use std::collections::VecDeque;

use agent_trace_store::Timestamp;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A person: a prompt.
    User,
    /// The agent: an answer.
    Agent,
    /// A tool: the call where `tool` names it, else what came back.
    Tool,
    /// The agent's own machinery: notes, commands, summaries of what was said before.
    Other,
}

/// Something that was said or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// When.
    pub(crate) time: Option<Timestamp>,
    /// By whom.
    pub(crate) role: Role,
    /// What.
    pub(crate) text: String,
    /// The tool that is called.
    pub(crate) tool: Option<String>,
    /// The agent's id of the call.
    pub(crate) tool_use: Option<String>,
    /// Where its line starts in the transcript.
    pub(crate) offset: usize,
}

impl Turn {
    /// The role's name.
    pub(crate) fn role_name(&self) -> &'static str {
        match self.role {
            Role::User => "user",
            Role::Agent => "agent",
            Role::Tool if self.tool.is_some() => "tool",
            Role::Tool => "result",
            Role::Other => "other",
        }
    }
}

/// All turns of a transcript.
pub(crate) fn turns(bytes: &[u8]) -> Turns<'_> {
    let whole = lines::whole(bytes).unwrap_or_default();
    Turns { bytes, at: if whole.is_empty() { 0 } else { bytes.len() }, ready: whole, last: None }
}

/// See [`turns`].
pub(crate) struct Turns<'a> {
    bytes: &'a [u8],
    at: usize,
    ready: VecDeque<Turn>,
    /// What was said last: some agents write it down twice, one after the other.
    last: Option<(Role, String)>,
}

impl Iterator for Turns<'_> {
    type Item = Turn;

    fn next(&mut self) -> Option<Turn> {
        loop {
            while let Some(turn) = self.ready.pop_front() {
                if !turn.text.is_empty() && !self.is_said_again(&turn) {
                    return Some(turn);
                }
            }
            if self.at >= self.bytes.len() {
                return None;
            }
            let rest = &self.bytes[self.at..];
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            lines::read(&rest[..end], self.at, &mut self.ready);
            self.at += end + 1;
        }
    }
}

impl Turns<'_> {
    fn is_said_again(&mut self, turn: &Turn) -> bool {
        let is_call = turn.role == Role::Tool && turn.tool.is_some();
        if !is_call && !matches!(turn.role, Role::User | Role::Agent) {
            return false;
        }
        let said = (turn.role, turn.text.clone());
        let again = !is_call && self.last.as_ref() == Some(&said);
        self.last = Some(said);
        again
    }
}

/// The turns of one line, which starts at an offset.
pub(crate) fn turns_of_line(line: &[u8], offset: usize) -> Vec<Turn> {
    let mut turns = VecDeque::new();
    lines::read(line, offset, &mut turns);
    turns.into_iter().filter(|turn| !turn.text.is_empty()).collect()
}

/// The last prompt before an offset.
pub(crate) fn prompt_before(bytes: &[u8], offset: usize) -> Option<Turn> {
    let mut end = offset.min(bytes.len());
    while end > 0 {
        let start = memchr::memrchr(b'\n', &bytes[..end - 1]).map_or(0, |at| at + 1);
        let line = &bytes[start..end];
        // Most lines hold no prompt, and are told apart without parsing them.
        if memchr::memmem::find(line, b"user").is_some() {
            let prompt = turns_of_line(line, start).into_iter().rfind(|turn| turn.role == Role::User);
            if prompt.is_some() {
                return prompt;
            }
        }
        end = start;
    }
    None
}

/// Whether the file is one JSON value and not one to a line.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    lines::is_whole(bytes)
}

/// Which of the turns an edit is: the call with its id, else the last thing that the agent did until then.
pub(crate) fn find(turns: &[Turn], tool_use: Option<&str>, time: Option<Timestamp>) -> Option<usize> {
    let by_id =
        |turn: &Turn| turn.tool.is_some() && tool_use.is_some() && turn.tool_use.as_deref() == tool_use;
    if let Some(found) = turns.iter().position(by_id) {
        return Some(found);
    }
    let time = time?;
    let until = |turn: &Turn| turn.time.is_some_and(|at| at <= time);
    let acts = |turn: &Turn| turn.role == Role::Agent || turn.tool.is_some();
    turns
        .iter()
        .rposition(|turn| acts(turn) && until(turn))
        .or_else(|| turns.iter().rposition(|turn| turn.role == Role::User && until(turn)))
}

/// The prompt that a turn answers to.
pub(crate) fn prompt_of(turns: &[Turn], at: usize) -> Option<usize> {
    turns[..=at].iter().rposition(|turn| turn.role == Role::User)
}

/// One line of it, cut to so many characters.
pub(crate) fn short(text: &str, chars_max: usize) -> String {
    let words = text.split_whitespace().enumerate();
    let chars = words.flat_map(|(at, word)| (at > 0).then_some(' ').into_iter().chain(word.chars()));
    let mut short: String = chars.take(chars_max + 1).collect();
    if let Some((cut, _)) = short.char_indices().nth(chars_max) {
        short.truncate(cut);
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
