//! Secrets that stand in parts: strings that are put together, lines that are broken.
//!
//! A *joint* is what stands between two parts: a quote, an operator or nothing, white space, a quote; or the break of a
//! line, with what white space comes behind it. Prose is full of breaks, so a broken line counts only behind a prefix.

use super::limits::{JOINED_BYTES_MAX, JOINT_BYTES_MAX};
use super::scan::is_token;
use super::text::Map;

/// A text that was put together.
pub(super) struct Joined {
    pub(super) text: Vec<u8>,
    pub(super) map: Map,
    /// Where the last part of it ends.
    pub(super) end: usize,
    /// Lengths of the text at which it may end as well, since what comes behind a break may be something else.
    pub(super) ends: Vec<usize>,
}

/// Breaks behind which the end of a secret is looked for one by one.
const ENDS_MAX: usize = 8;

/// Letters of a token on both sides of a joint together.
const TOGETHER_MIN: usize = 16;
/// What is taken along of what stands before the first part.
const NAME_BYTES_MAX: usize = 64;
/// What is looked at before the first part.
const LEFT_BYTES_MAX: usize = 200;

/// Whether a token may go on behind what ends here.
pub(super) fn may_go_on(text: &[u8], at: usize) -> bool {
    matches!(text.get(at), Some(b'"' | b'\'' | b'`' | b'\\' | b'\n' | b'\r'))
}

fn is_quote(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b'"' | b'\'' | b'`'))
}

/// The end of a joint of two strings, whose first quote stands here, perhaps behind a backslash.
fn behind_quotes(text: &[u8], at: usize, with_comma: bool) -> Option<usize> {
    let mut next = at;
    if text.get(next) == Some(&b'\\') {
        next += 1;
    }
    if !is_quote(text.get(next)) {
        return None;
    }
    next += 1;
    let mut operators = 0;
    let limit = text.len().min(at + JOINT_BYTES_MAX);
    while next < limit {
        match text[next] {
            b' ' | b'\t' | b'\n' | b'\r' => next += 1,
            // The end of a line in JSON within JSON, or one that goes on.
            b'\\' if matches!(text.get(next + 1), Some(b'n' | b'r' | b't' | b'\n' | b'\r')) => next += 2,
            b'\\' if is_quote(text.get(next + 1)) => next += 1,
            b'+' | b'&' if operators == 0 => {
                operators += 1;
                next += 1;
            }
            b'.' if operators < 2 => {
                operators += 1;
                next += 1;
            }
            b',' if with_comma && operators == 0 => {
                operators += 1;
                next += 1;
            }
            b'f' | b'r' | b'b' | b'u' if is_quote(text.get(next + 1)) => next += 1,
            b'"' | b'\'' | b'`' => {
                next += 1;
                // An empty string, or the end of one: it is not known which.
                return (next > at + 2 || operators > 0).then_some(next);
            }
            _ => return None,
        }
    }
    None
}

/// The end of a broken line's break.
fn behind_break(text: &[u8], at: usize) -> Option<usize> {
    let mut next = at;
    match text.get(next)? {
        b'\\' if matches!(text.get(next + 1), Some(b'n' | b'r' | b'\n' | b'\r')) => next += 2,
        b'\n' | b'\r' => next += 1,
        _ => return None,
    }
    let limit = text.len().min(at + JOINT_BYTES_MAX);
    while next < limit {
        match text[next] {
            b' ' | b'\t' | b'\n' | b'\r' => next += 1,
            b'\\' if matches!(text.get(next + 1), Some(b'n' | b'r' | b't')) => next += 2,
            _ => return Some(next),
        }
    }
    None
}

/// What stands behind a prefix, over all joints and breaks; nothing if there are none.
pub(super) fn from_prefix(text: &[u8], at: usize) -> Option<Joined> {
    join(text, at, at, |text, at| behind_quotes(text, at, true).or_else(|| behind_break(text, at)))
}

/// What stands round a joint whose first quote is here; not what ends before `from`.
pub(super) fn at_quote(text: &[u8], quote: usize, from: usize) -> Option<Joined> {
    let end = if text.get(quote.wrapping_sub(1)) == Some(&b'\\') { quote - 1 } else { quote };
    let right = behind_quotes(text, end, false)?;
    let low = end.saturating_sub(LEFT_BYTES_MAX).max(from);
    if low > end {
        return None;
    }
    let left = text[low..end].iter().rev().take_while(|byte| is_token(**byte)).count();
    let length = text[right..].iter().take(TOGETHER_MIN).take_while(|byte| is_token(**byte)).count();
    if left == 0 || length < 4 || left + length < TOGETHER_MIN {
        return None;
    }
    // What stands before is the border of a word, and often a name.
    join(text, (end - left).saturating_sub(NAME_BYTES_MAX).max(low), end, |text, at| {
        behind_quotes(text, at, false)
    })
}

/// Puts the tokens together that follow each other from `start` on; up to `sure` nothing is asked.
fn join(
    text: &[u8],
    start: usize,
    sure: usize,
    behind: impl Fn(&[u8], usize) -> Option<usize>,
) -> Option<Joined> {
    let mut joined =
        Joined { text: text[start..sure].to_vec(), map: Map::default(), end: sure, ends: Vec::new() };
    joined.map.step(0, start);
    let mut at = sure;
    let mut joints = 0;
    loop {
        let most = JOINED_BYTES_MAX.saturating_sub(joined.text.len());
        let length = text[at..].iter().take(most).take_while(|byte| is_token(**byte)).count();
        joined.text.extend_from_slice(&text[at..at + length]);
        at += length;
        joined.end = at;
        if length == most {
            break;
        }
        match behind(text, at).filter(|next| text.get(*next).is_some_and(|byte| is_token(*byte))) {
            Some(next) => {
                joints += 1;
                if joints > 1 && joined.ends.len() < ENDS_MAX {
                    joined.ends.push(joined.text.len());
                }
                joined.map.step(joined.text.len(), next);
                at = next;
            }
            None => break,
        }
    }
    // What comes behind is a border again.
    joined.text.push(b'\n');
    joined.map.step(joined.text.len() - 1, joined.end);
    (joints > 0).then_some(joined)
}
