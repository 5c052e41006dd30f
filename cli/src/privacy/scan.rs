//! Finding secrets in text: keywords first, then regexes in small windows round them.
//!
//! The cost is linear in the text, whatever it is: each byte is looked at by each rule a bounded number of times, and
//! `Work` counts how often. What is found is handed over with its place and is never printed here.

use std::ops::Range;

use super::class::Class;
use super::joints;
use super::limits::{
    BASE64_CHARS_MAX, BASE64_CHARS_MIN, PERCENT_AFTER_BYTES, PERCENT_BEFORE_BYTES, REGION_BYTES_MAX,
};
use super::rules::{Check, Found, Rule, RuleSet, Trigger};
use super::text::{Map, unbase64, unescape, unpercent};

/// A secret in a text.
#[derive(Clone)]
pub(crate) struct Hit {
    /// The number of its rule.
    pub(crate) rule: u16,
    /// Its bytes, without escapes, put together.
    pub(crate) secret: Vec<u8>,
    /// Where it stands, in parts if it does.
    pub(crate) parts: Vec<Range<usize>>,
}

/// Says where, and not what.
impl std::fmt::Debug for Hit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hit({}, {:?})", self.rule, self.parts)
    }
}

/// What looking has cost, so that a test can bound it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Bytes given to the search for keywords.
    pub(crate) searched: u64,
    /// Bytes given to regexes.
    pub(crate) matched: u64,
}

/// What looks through texts, one after the other.
pub(crate) struct Scanner<'r> {
    set: &'r RuleSet,
    candidates: Vec<(u16, u32)>,
    /// Places at which something must be decoded first.
    odd: Vec<(Odd, usize)>,
    buffer: Vec<u8>,
    map: Map,
    pub(crate) work: Work,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Odd {
    Joint,
    Percent,
}

/// How a text that is looked at was made of another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// It is the text.
    Itself,
    /// Parts of it stand apart there.
    Joined,
    /// It is written in another way there.
    Decoded,
}

const TOKEN: u8 = 1;
const NAME: u8 = 2;
const OPERATOR: u8 = 4;
const BASE64: u8 = 8;
const WORD: u8 = 16;

/// What each byte may be part of.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte: u8 = 0;
    loop {
        let mut class = 0;
        if byte.is_ascii_alphanumeric() {
            class |= TOKEN | NAME | BASE64 | WORD;
        }
        if matches!(byte, b'_' | b'+' | b'/' | b'=' | b'.' | b'~' | b':' | b'-' | b'%' | b'|') {
            class |= TOKEN;
        }
        if matches!(byte, b'_' | b'+' | b'/' | b'-') {
            class |= BASE64;
        }
        if byte == b'_' {
            class |= WORD;
        }
        // A backslash stands before quotes and letters in JSON within JSON.
        if matches!(byte, b'_' | b'.' | b'-' | b' ' | b'\t' | b'\n' | b'\r' | b'\'' | b'"' | b'\\') {
            class |= NAME;
        }
        if matches!(byte, b'=' | b'>' | b':' | b'|' | b'?' | b',') {
            class |= OPERATOR;
        }
        table[byte as usize] = class;
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

pub(super) fn is_token(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

fn is(byte: Option<&u8>, class: u8) -> bool {
    byte.is_some_and(|byte| CLASSES[*byte as usize] & class != 0)
}

/// How many bytes of a class there are from a place on, at most so many.
fn run(text: &[u8], from: usize, class: u8, most: usize) -> usize {
    let end = from.saturating_add(most).min(text.len());
    text[from.min(end)..end].iter().take_while(|byte| CLASSES[**byte as usize] & class != 0).count()
}

/// Letters of a token that must follow a prefix.
const RUN_MIN: usize = 10;
/// Prefixes from which one text that goes on over breaks is looked at.
const TRIES_MAX: usize = 4;
/// Letters of a value that must follow an operator.
const VALUE_MIN: usize = 8;

impl<'r> Scanner<'r> {
    /// Prepares for the rules of a set.
    pub(crate) fn new(set: &'r RuleSet) -> Scanner<'r> {
        Scanner {
            set,
            candidates: Vec::new(),
            odd: Vec::new(),
            buffer: Vec::new(),
            map: Map::default(),
            work: Work::default(),
        }
    }

    /// Finds the secrets of a text without escapes.
    pub(crate) fn text(&mut self, text: &[u8], name: Option<&str>) -> Vec<Hit> {
        let mut hits = Vec::new();
        self.search(text, true);
        let odd = std::mem::take(&mut self.odd);
        self.decide(text, name, Made::Itself, &mut hits);
        self.look_at_odd(text, name, &odd, &mut hits);
        self.odd = odd;
        self.look_at_base64(text, name, &mut hits);
        best(self.set, hits)
    }

    /// Finds the secrets of JSON, or of a part of it.
    pub(crate) fn json(&mut self, raw: &[u8], name: Option<&str>) -> Vec<Hit> {
        if memchr::memchr(b'\\', raw).is_none() {
            return self.text(raw, name);
        }
        let (mut text, mut map) = (std::mem::take(&mut self.buffer), std::mem::take(&mut self.map));
        unescape(raw, &mut text, &mut map);
        let mut hits = self.text(&text, name);
        for hit in &mut hits {
            let parts = hit.parts.iter();
            // What is escaped within a part belongs to it.
            hit.parts = parts.map(|part| map.source(part.start)..map.source(part.end)).collect();
        }
        (self.buffer, self.map) = (text, map);
        hits
    }

    /// Finds what the name of a file says: that it is one of keys, or a secret in the name itself.
    pub(crate) fn name(&mut self, name: &str) -> Vec<Hit> {
        let mut hits = self.text(name.as_bytes(), None);
        for (number, rule) in self.set.rules.iter().enumerate() {
            if rule.is_of_names() && rule.is_for(Some(name)) {
                let rule = u16::try_from(number).unwrap_or(u16::MAX);
                hits.push(Hit {
                    rule,
                    secret: name.as_bytes().to_vec(),
                    parts: std::iter::once(0..name.len()).collect(),
                });
            }
        }
        hits
    }

    /// Finds keywords, and drops those that nothing can come of.
    fn search(&mut self, text: &[u8], with_odd: bool) {
        self.candidates.clear();
        self.odd.clear();
        self.work.searched += text.len() as u64;
        for found in self.set.keywords.find_overlapping_iter(text) {
            let (start, end) = (found.start(), found.end());
            match &self.set.triggers[found.pattern().as_usize()] {
                Trigger::Rules(rules) => {
                    let mut assigned = None;
                    for (rule, check) in rules {
                        let passes = match check {
                            Check::None => true,
                            Check::Token { exact, is_border } => {
                                is_token_at(text, start, end, exact.as_deref(), *is_border)
                            }
                            Check::Assigned => *assigned.get_or_insert_with(|| is_assigned(text, end)),
                            Check::Either => {
                                *assigned.get_or_insert_with(|| is_assigned(text, end))
                                    || is_token_at(text, start, end, None, false)
                            }
                            Check::Url => has_password(text, end),
                        };
                        if passes {
                            self.candidates.push((*rule, u32::try_from(start).unwrap_or(u32::MAX)));
                        }
                    }
                }
                Trigger::Joint if with_odd => self.odd.push((Odd::Joint, start)),
                Trigger::Percent if with_odd => self.odd.push((Odd::Percent, start)),
                Trigger::Joint | Trigger::Percent => {}
            }
        }
    }

    /// Asks the regexes of the candidates.
    fn decide(&mut self, text: &[u8], name: Option<&str>, made: Made, hits: &mut Vec<Hit>) {
        if self.candidates.is_empty() {
            return;
        }
        self.candidates.sort_unstable();
        self.candidates.dedup();
        let candidates = std::mem::take(&mut self.candidates);
        for group in candidates.chunk_by(|one, other| one.0 == other.0) {
            let number = group[0].0;
            let rule = &self.set.rules[number as usize];
            if !rule.is_for(name) {
                continue;
            }
            let mut first = 0;
            while first < group.len() {
                let start = (group[first].1 as usize).saturating_sub(rule.before);
                let mut end = group[first].1 as usize + rule.after;
                let mut last = first;
                // Windows that meet are one region, as far as it goes.
                while let Some((_, next)) = group.get(last + 1) {
                    let next = *next as usize;
                    if next.saturating_sub(rule.before) > end || next + rule.after - start > REGION_BYTES_MAX
                    {
                        break;
                    }
                    end = next + rule.after;
                    last += 1;
                }
                let region = start..end.min(text.len());
                self.ask(text, region.clone(), number, rule, name, hits);
                if made == Made::Itself {
                    self.ask_again(text, region, group, first..last + 1, rule, name, hits);
                }
                first = last + 1;
            }
        }
        self.candidates = candidates;
    }

    /// Asks one regex about one region.
    fn ask(
        &mut self,
        text: &[u8],
        region: Range<usize>,
        number: u16,
        rule: &Rule,
        name: Option<&str>,
        hits: &mut Vec<Hit>,
    ) {
        let Some(regex) = rule.regex() else { return };
        self.work.matched += region.len() as u64;
        let seen = &text[..region.end];
        let mut at = region.start;
        while let Some(captures) = (at < region.end).then(|| regex.captures_at(seen, at)).flatten() {
            let Some(whole) = captures.get(0) else { break };
            at = whole.end().max(at + 1);
            let secret = match rule.group {
                Some(group) => captures.get(group),
                None => captures.iter().skip(1).flatten().find(|group| !group.is_empty()).or(Some(whole)),
            };
            let Some(secret) = secret.map(|secret| secret.range()).filter(|secret| !secret.is_empty()) else {
                continue;
            };
            // The end of what is seen is not the end of the text.
            let is_cut = secret.end == seen.len() && text.get(secret.end).is_some_and(|byte| is_token(*byte));
            if is_cut || !self.is_secret(text, whole.range(), secret.clone(), rule, name) {
                continue;
            }
            hits.push(Hit { rule: number, secret: text[secret.clone()].to_vec(), parts: vec![secret] });
        }
    }

    fn is_secret(
        &self,
        text: &[u8],
        whole: Range<usize>,
        secret: Range<usize>,
        rule: &Rule,
        name: Option<&str>,
    ) -> bool {
        let bytes = &text[secret.clone()];
        if rule.is_word && !is_whole_word(text, &secret) {
            return false;
        }
        if rule.needs_digit && !bytes.iter().any(u8::is_ascii_digit) {
            return false;
        }
        if rule.entropy > 0.0 && entropy(bytes) <= rule.entropy {
            return false;
        }
        let line_start = memchr::memrchr(b'\n', &text[whole.start.saturating_sub(1024)..whole.start])
            .map_or(whole.start.saturating_sub(1024), |at| whole.start.saturating_sub(1024) + at + 1);
        let rest = &text[whole.end..text.len().min(whole.end + 1024)];
        let line_end = whole.end + memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let found = Found { secret: bytes, whole: &text[whole], line: &text[line_start..line_end], name };
        !self.set.is_allowed(rule, &found) && !super::plain::is_placeholder(rule, &found)
    }

    /// Asks once more about what is written in JSON within JSON, or goes on behind a break.
    #[allow(clippy::too_many_arguments, reason = "all of it belongs to one question")]
    fn ask_again(
        &mut self,
        text: &[u8],
        region: Range<usize>,
        group: &[(u16, u32)],
        members: Range<usize>,
        rule: &Rule,
        name: Option<&str>,
        hits: &mut Vec<Hit>,
    ) {
        let number = group[0].0;
        if memchr::memchr(b'\\', &text[region.clone()]).is_some() {
            let (mut plain, mut map) = (Vec::new(), Map::default());
            unescape(&text[region.clone()], &mut plain, &mut map);
            let mut found = Vec::new();
            self.ask(&plain, 0..plain.len(), number, rule, name, &mut found);
            hits.extend(found.into_iter().map(|hit| moved(hit, &map, region.start, Made::Decoded)));
        }
        if rule.class != Class::Certain {
            return;
        }
        let (mut until, mut tries) = (0, 0);
        for (_, at) in &group[members] {
            let at = *at as usize;
            if at < until && tries >= TRIES_MAX {
                continue;
            }
            let Some(joined) = joints::from_prefix(text, at) else { continue };
            // A name that looks like a prefix may stand before the secret: so not only the first is tried.
            tries = if at < until { tries + 1 } else { 1 };
            until = until.max(joined.end);
            let mut found = Vec::new();
            for end in joined.ends.iter().copied().chain([joined.text.len()]) {
                self.ask(&joined.text[..end], 0..end, number, rule, name, &mut found);
                if !found.is_empty() {
                    break;
                }
            }
            hits.extend(found.into_iter().map(|hit| moved(hit, &joined.map, 0, Made::Joined)));
        }
    }

    /// Looks at what must be put together or decoded before keywords show.
    fn look_at_odd(&mut self, text: &[u8], name: Option<&str>, odd: &[(Odd, usize)], hits: &mut Vec<Hit>) {
        let (mut joined_until, mut percent_until) = (0, 0);
        for (odd, at) in odd {
            match odd {
                Odd::Joint if *at >= joined_until => {
                    let Some(joined) = joints::at_quote(text, *at, joined_until) else { continue };
                    joined_until = joined.end;
                    self.look_at_made(&joined.text, &joined.map, 0, name, Made::Joined, hits);
                }
                Odd::Percent if *at >= percent_until => {
                    let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\"'<>`".contains(byte);
                    let low = at.saturating_sub(PERCENT_BEFORE_BYTES).max(percent_until);
                    let start = text[low..*at].iter().rposition(is_end).map_or(low, |found| low + found + 1);
                    let high = text.len().min(at + PERCENT_AFTER_BYTES);
                    let end = text[*at..high].iter().position(is_end).map_or(high, |found| at + found);
                    percent_until = end;
                    let (mut plain, mut map) = (Vec::new(), Map::default());
                    unpercent(&text[start..end], &mut plain, &mut map);
                    self.look_at_made(&plain, &map, start, name, Made::Decoded, hits);
                }
                _ => {}
            }
        }
    }

    fn look_at_made(
        &mut self,
        made_text: &[u8],
        map: &Map,
        offset: usize,
        name: Option<&str>,
        made: Made,
        hits: &mut Vec<Hit>,
    ) {
        self.search(made_text, false);
        let mut found = Vec::new();
        self.decide(made_text, name, made, &mut found);
        // Across a joint only what is certain counts: prose joins to anything.
        found.retain(|hit| made != Made::Joined || self.set.rules[hit.rule as usize].class == Class::Certain);
        hits.extend(found.into_iter().map(|hit| moved(hit, map, offset, made)));
    }

    /// Decodes runs of base64 that say something in letters.
    fn look_at_base64(&mut self, text: &[u8], name: Option<&str>, hits: &mut Vec<Hit>) {
        let mut at = BASE64_CHARS_MIN - 1;
        let mut done = 0;
        let mut plain = Vec::new();
        while at < text.len() {
            if !is(Some(&text[at]), BASE64) {
                at += BASE64_CHARS_MIN;
                continue;
            }
            let low = done.max(at.saturating_sub(BASE64_CHARS_MAX));
            let before = text[low..at].iter().rev().take_while(|byte| is(Some(byte), BASE64)).count();
            let start = at - before;
            let length = before + run(text, at, BASE64, BASE64_CHARS_MAX);
            let end = start + length;
            done = end;
            at = end + BASE64_CHARS_MIN;
            if length < BASE64_CHARS_MIN {
                continue;
            }
            for shift in 0..4 {
                let first = &text[start + shift..(start + shift + BASE64_CHARS_MIN).min(end)];
                unbase64(first, &mut plain);
                if plain.len() < 12 || !plain.iter().all(|byte| is_writing(*byte)) {
                    continue;
                }
                unbase64(&text[start + shift..end], &mut plain);
                let length = plain.iter().take_while(|byte| is_writing(**byte)).count();
                plain.truncate(length);
                self.search(&plain, false);
                let mut found = Vec::new();
                self.decide(&plain, name, Made::Decoded, &mut found);
                hits.extend(
                    found.into_iter().map(|hit| Hit { parts: std::iter::once(start..end).collect(), ..hit }),
                );
                break;
            }
        }
    }
}

fn is_writing(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t')
}

/// Whether the letters of a token go on behind a prefix, in whatever way.
fn is_token_at(text: &[u8], start: usize, end: usize, exact: Option<&[u8]>, is_border: bool) -> bool {
    if exact.is_some_and(|exact| !text[start..].starts_with(exact)) {
        return false;
    }
    if is_border && is(text.get(start.wrapping_sub(1)), WORD) {
        // In JSON within JSON a line break is a backslash and a letter; so is what was written as `%XX`.
        let before = |back: usize| start.checked_sub(back).and_then(|at| text.get(at));
        let is_escape = before(2) == Some(&b'\\') || before(3) == Some(&b'%');
        if !is_escape {
            return false;
        }
    }
    let length = run(text, end, TOKEN, RUN_MIN);
    length >= RUN_MIN || joints::may_go_on(text, end + length)
}

/// Whether an operator and a value come behind a name.
fn is_assigned(text: &[u8], end: usize) -> bool {
    let mut at = end + run(text, end, NAME, 28);
    let operator = run(text, at, OPERATOR, 4);
    if operator == 0 {
        return false;
    }
    at += operator;
    at += text[at..].iter().take(12).take_while(|byte| b"`'\"\\ \t\r\n=".contains(byte)).count();
    run(text, at, TOKEN, VALUE_MIN) >= VALUE_MIN
}

/// Whether a password stands behind `://`.
fn has_password(text: &[u8], end: usize) -> bool {
    let rest = &text[end..text.len().min(end + 400)];
    let mut colon = false;
    for byte in rest {
        match byte {
            b'@' => return colon,
            b':' => colon = true,
            b'/' | b'"' | b'\'' | b'<' | b'>' | b'`' | b' ' | b'\n' | b'\r' | b'\t' => return false,
            _ => {}
        }
    }
    false
}

/// Whether no letter or digit stands right before or behind.
fn is_whole_word(text: &[u8], secret: &Range<usize>) -> bool {
    let is_letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let goes_on = is_letter(text.get(secret.end)) && is_letter(text.get(secret.end.wrapping_sub(1)));
    let begins = is_letter(text.get(secret.start.wrapping_sub(1))) && is_letter(text.get(secret.start));
    let before = |back: usize| secret.start.checked_sub(back).and_then(|at| text.get(at));
    !goes_on && (!begins || before(2) == Some(&b'\\'))
}

/// The disorder of bytes, in bits for each.
pub(crate) fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    bytes.iter().for_each(|byte| counts[*byte as usize] += 1);
    let all = bytes.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / all)
        .map(|share| -share * share.log2())
        .sum()
}

/// A hit in a text that was made of another, as one in that.
fn moved(hit: Hit, map: &Map, offset: usize, made: Made) -> Hit {
    let mut parts = Vec::new();
    for part in &hit.parts {
        match made {
            Made::Joined => parts.extend(map.parts(part.clone())),
            Made::Itself | Made::Decoded => parts.push(map.source(part.start)..map.source(part.end)),
        }
    }
    for part in &mut parts {
        *part = part.start + offset..part.end + offset;
    }
    Hit { parts, ..hit }
}

/// Of hits that share bytes the one that says most: the more certain, then the longer, then the first rule.
fn best(set: &RuleSet, mut hits: Vec<Hit>) -> Vec<Hit> {
    if hits.len() < 2 {
        return hits;
    }
    let start = |hit: &Hit| hit.parts.first().map_or(0, |part| part.start);
    let end = |hit: &Hit| hit.parts.last().map_or(0, |part| part.end);
    let rank = |hit: &Hit| {
        let rule = &set.rules[hit.rule as usize];
        (rule.class, !rule.needs_digit, hit.secret.len(), u16::MAX - hit.rule)
    };
    hits.sort_by_key(|hit| (start(hit), end(hit)));
    let mut kept: Vec<Hit> = Vec::new();
    for hit in hits {
        match kept.last_mut() {
            Some(last) if start(&hit) < end(last) => {
                if rank(&hit) > rank(last) {
                    *last = hit;
                }
            }
            _ => kept.push(hit),
        }
    }
    kept
}
