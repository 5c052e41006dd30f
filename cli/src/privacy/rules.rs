//! The rules by which secrets are known: those of gitleaks, our own, and files that the user names.
//!
//! The form is that of gitleaks, and so is what it means: keywords choose candidates, the regex and the entropy decide,
//! allow-lists take back. What a rule set finds follows from its id alone, so that results can be kept under it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use agent_trace_store::id::encode_hex;
use agent_trace_store::{Error, Result};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use super::class::{Class, PREFIX, PREFIX_PARTS, certain, certain_ids};
use super::limits::{
    AFTER_BYTES, AFTER_LONG_BYTES, BEFORE_BYTES, REGEX_BYTES_MAX, RULES_BYTES_MAX, RULES_MAX,
};

/// The rules of gitleaks.
const GITLEAKS: &str = include_str!("rules/gitleaks.toml");
/// Our own.
const OWN: &str = include_str!("rules/own.toml");
/// Goes up when the scanner finds other things by the same rules.
const SCANNER_VERSION: u32 = 1;

/// Keywords that say more than those of gitleaks.
const KEYWORDS: [(&str, &[&str]); 1] = [
    // A header is an object, and begins with a bracket and a quote.
    ("jwt", &["eyj"]),
];

/// Rules of gitleaks whose keyword may stand far from the secret, or apart from it.
const APART: [&str; 11] = [
    "private-key",
    "curl-auth-header",
    "curl-auth-user",
    "kubernetes-secret-yaml",
    "nuget-config-password",
    "maxmind-license-key",
    "sidekiq-sensitive-url",
    "facebook-access-token",
    "freemius-secret-key",
    "sourcegraph-access-token",
    "hashicorp-tf-password",
];

/// How rules of gitleaks end, and how ours do: a token in a query, in brackets or at the end of a sentence ends too.
const END: &str = r#"(?:[\x60'"\s;]|\\[nr]|$)"#;
const END_ANYWHERE: &str = r#"(?:[\x60'"\s;,&)<>\]}|@\\]|\.[\s"'\\]|$)"#;

/// What all rules of gitleaks that know a secret by the name before it have between the two.
const ASSIGNMENT: &str = r#"(?:[ \t\w.-]{0,20})[\s'"]{0,3}"#;

#[derive(Deserialize)]
struct File {
    allowlist: Option<RawAllow>,
    #[serde(default)]
    rules: Vec<RawRule>,
}

#[derive(Deserialize)]
struct RawRule {
    id: String,
    regex: Option<String>,
    #[serde(default)]
    entropy: f64,
    #[serde(default)]
    keywords: Vec<String>,
    #[serde(rename = "secretGroup")]
    group: Option<usize>,
    path: Option<String>,
    class: Option<String>,
    #[serde(default)]
    allowlists: Vec<RawAllow>,
}

#[derive(Default, Deserialize)]
struct RawAllow {
    #[serde(default)]
    regexes: Vec<String>,
    #[serde(default)]
    stopwords: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(rename = "regexTarget")]
    target: Option<String>,
    condition: Option<String>,
}

/// A regex that is compiled when it is first asked: most never are.
struct Lazy {
    text: String,
    regex: OnceLock<Option<Regex>>,
}

impl Lazy {
    fn new(text: &str) -> Lazy {
        Lazy { text: text.to_owned(), regex: OnceLock::new() }
    }

    /// Nothing if it cannot be compiled, which a test or the reading of its file has ruled out.
    fn get(&self) -> Option<&Regex> {
        self.regex.get_or_init(|| compile(&self.text).ok()).as_ref()
    }
}

/// Compiles what Go takes too.
fn compile(text: &str) -> std::result::Result<Regex, regex::Error> {
    build(text).or_else(|error| build(&without_loose_brackets(text)).map_err(|_| error))
}

/// The same regex, where brackets that begin no repetition, which Go takes as they are, stand behind backslashes.
fn without_loose_brackets(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_repetition = |at: usize| {
        let rest = &text[at + 1..];
        rest.find('}').is_some_and(|end| {
            let inner = &rest[..end];
            inner.starts_with(|it: char| it.is_ascii_digit())
                && inner.bytes().all(|it| it.is_ascii_digit() || it == b',')
        })
    };
    let mut out = String::new();
    let (mut in_class, mut at) = (false, 0);
    let mut class_start = 0;
    while let Some(letter) = text[at..].chars().next() {
        let next = at + letter.len_utf8();
        match letter {
            '\\' => {
                out.push('\\');
                let escaped = text[next..].chars().next();
                out.extend(escaped);
                at = next + escaped.map_or(0, char::len_utf8);
                continue;
            }
            '[' if !in_class => {
                in_class = true;
                class_start = if bytes.get(next) == Some(&b'^') { next + 1 } else { next };
                out.push('[');
            }
            ']' if in_class && at == class_start => out.push_str(r"\]"),
            ']' => {
                in_class = false;
                out.push(']');
            }
            '{' if !in_class && is_repetition(at) => {
                let end = at + text[at..].find('}').unwrap_or(0) + 1;
                out.push_str(&text[at..end]);
                at = end;
                continue;
            }
            '{' | '}' if !in_class => {
                out.push('\\');
                out.push(letter);
            }
            letter => out.push(letter),
        }
        at = next;
    }
    out
}

fn build(text: &str) -> std::result::Result<Regex, regex::Error> {
    RegexBuilder::new(text).unicode(false).size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX).build()
}

/// What an allow-list looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Secret,
    Match,
    Line,
}

/// What takes a finding back.
struct Allow {
    regexes: Vec<Lazy>,
    stopwords: Option<AhoCorasick>,
    paths: Vec<Lazy>,
    target: Target,
    /// Whether all of it must hold, and not any.
    is_all: bool,
}

impl Allow {
    fn new(raw: &RawAllow) -> Result<Allow> {
        let lazy = |texts: &[String]| texts.iter().map(|text| Lazy::new(text)).collect();
        let stopwords = (!raw.stopwords.is_empty()).then(|| {
            AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .build(&raw.stopwords)
                .map_err(|error| Error::invalid("cannot read the stopwords of a rule").with_source(error))
        });
        Ok(Allow {
            regexes: lazy(&raw.regexes),
            stopwords: stopwords.transpose()?,
            paths: lazy(&raw.paths),
            target: match raw.target.as_deref() {
                Some("match") => Target::Match,
                Some("line") => Target::Line,
                _ => Target::Secret,
            },
            is_all: raw.condition.as_deref() == Some("AND"),
        })
    }

    fn covers(&self, place: &Found<'_>) -> bool {
        let text = match self.target {
            Target::Secret => place.secret,
            Target::Match => place.whole,
            Target::Line => place.line,
        };
        let any = |lazies: &[Lazy], text: &[u8]| {
            lazies.iter().any(|lazy| lazy.get().is_some_and(|regex| regex.is_match(text)))
        };
        let regex = any(&self.regexes, text);
        let stop = self.stopwords.as_ref().is_some_and(|stop| stop.is_match(place.secret));
        let path = place.name.is_some_and(|name| any(&self.paths, name.as_bytes()));
        if self.is_all {
            (self.regexes.is_empty() || regex)
                && (self.stopwords.is_none() || stop)
                && (self.paths.is_empty() || path)
        } else {
            regex || stop || path
        }
    }
}

/// What a regex has matched.
pub(crate) struct Found<'t> {
    /// The secret itself.
    pub(crate) secret: &'t [u8],
    /// All that the rule has matched.
    pub(crate) whole: &'t [u8],
    /// The line that it stands in, or much of it.
    pub(crate) line: &'t [u8],
    /// The name of the file, where there is one.
    pub(crate) name: Option<&'t str>,
}

/// What is asked of the text round a keyword before a regex is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Nothing.
    None,
    /// The letters of a token go on behind it; the beginning is exactly this, and stands at the border of a word.
    Token { exact: Option<Vec<u8>>, is_border: bool },
    /// An operator and a value come behind it.
    Assigned,
    /// Either of the two.
    Either,
    /// A password stands in the URL.
    Url,
}

/// A keyword, and who wants to know of it.
pub(crate) enum Trigger {
    Rules(Vec<(u16, Check)>),
    /// The end of a string, behind which it may go on.
    Joint,
    /// A character that is written as `%XX`.
    Percent,
}

/// A rule.
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) class: Class,
    regex: Option<Lazy>,
    pub(crate) entropy: f64,
    pub(crate) group: Option<usize>,
    allow: Vec<Allow>,
    path: Option<Lazy>,
    /// Whether a secret must be a whole word.
    pub(crate) is_word: bool,
    /// Whether it must hold a digit.
    pub(crate) needs_digit: bool,
    /// Whether its secrets begin with a prefix that says nothing but whose they are.
    pub(crate) has_prefix: bool,
    /// What it sees round a keyword.
    pub(crate) before: usize,
    pub(crate) after: usize,
}

impl Rule {
    fn new(raw: &RawRule, class: Class) -> Result<Rule> {
        let is_long = ["private-key", "private-key-cut-off", "putty-private-key"].contains(&raw.id.as_str());
        Ok(Rule {
            id: raw.id.clone(),
            class,
            regex: raw.regex.as_deref().map(|regex| match class {
                Class::Possible if raw.id != "jwt" => Lazy::new(regex),
                _ => Lazy::new(&regex.replace(END, END_ANYWHERE)),
            }),
            entropy: raw.entropy,
            group: raw.group.filter(|group| *group > 0),
            allow: raw.allowlists.iter().map(Allow::new).collect::<Result<_>>()?,
            path: raw.path.as_deref().map(Lazy::new),
            is_word: class == Class::Certain && !is_long,
            needs_digit: raw.id.starts_with("generic"),
            has_prefix: matches!(certain(&raw.id), Some(PREFIX | PREFIX_PARTS)),
            before: BEFORE_BYTES,
            after: if is_long { AFTER_LONG_BYTES } else { AFTER_BYTES },
        })
    }

    /// The regex; none for rules that look at names of files only.
    pub(crate) fn regex(&self) -> Option<&Regex> {
        self.regex.as_ref()?.get()
    }

    /// Whether it is for a file of this name, or for text without one.
    pub(crate) fn is_for(&self, name: Option<&str>) -> bool {
        match (&self.path, name) {
            (None, _) => true,
            (Some(path), Some(name)) => path.get().is_some_and(|path| path.is_match(name.as_bytes())),
            (Some(_), None) => false,
        }
    }

    /// Whether it looks at names of files only.
    pub(crate) fn is_of_names(&self) -> bool {
        self.regex.is_none() && self.path.is_some()
    }
}

/// Rules, and what finds their keywords all at once.
pub(crate) struct RuleSet {
    pub(crate) rules: Vec<Rule>,
    pub(crate) keywords: AhoCorasick,
    pub(crate) triggers: Vec<Trigger>,
    global: Allow,
    /// The hash of all of it.
    id: String,
}

impl RuleSet {
    /// The rules of the program, and those of files, given with their names.
    pub(crate) fn read(extra: &[(String, Vec<u8>)]) -> Result<RuleSet> {
        let gitleaks = parse("gitleaks.toml", GITLEAKS)?;
        let global = Allow::new(gitleaks.allowlist.as_ref().unwrap_or(&RawAllow::default()))?;
        let mut taken = Vec::new();
        for raw in gitleaks.rules {
            let class = if certain(&raw.id).is_some() { Class::Certain } else { Class::Possible };
            taken.push((raw, class));
        }
        for raw in parse("own.toml", OWN)?.rules {
            let class = class_of(&raw, "own.toml")?;
            taken.push((raw, class));
        }
        let own_until = taken.len();
        for (name, bytes) in extra {
            for raw in read_extra(name, bytes)? {
                if taken.iter().any(|(known, _)| known.id == raw.id) {
                    return Err(bad(name, &format!("there is a rule `{}` already", raw.id)));
                }
                let class = class_of(&raw, name)?;
                taken.push((raw, class));
            }
        }
        RuleSet::build(&taken, own_until, global, RuleSet::id_of(extra))
    }

    /// The id that the rules will have, without reading them.
    pub(crate) fn id_of(extra: &[(String, Vec<u8>)]) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("agent-trace 2026 privacy rules");
        hasher.update(&SCANNER_VERSION.to_le_bytes());
        for text in
            [GITLEAKS.as_bytes(), OWN.as_bytes()].into_iter().chain(extra.iter().map(|(_, bytes)| &bytes[..]))
        {
            hasher.update(blake3::hash(text).as_bytes());
        }
        for id in certain_ids() {
            hasher.update(id.as_bytes()).update(b"\0");
        }
        encode_hex(&hasher.finalize().as_bytes()[..16])
    }

    /// Of rules beyond `own_until` nothing is known but what they say.
    fn build(taken: &[(RawRule, Class)], own_until: usize, global: Allow, id: String) -> Result<RuleSet> {
        let mut words: BTreeMap<String, Vec<(u16, Check)>> = BTreeMap::new();
        let mut rules = Vec::new();
        for (raw, class) in taken {
            let number =
                u16::try_from(rules.len()).map_err(|_| Error::invalid("there are too many rules"))?;
            rules.push(Rule::new(raw, *class)?);
            let better = KEYWORDS.iter().find(|(id, _)| *id == raw.id);
            let own: Vec<String> = match better {
                Some((_, words)) => words.iter().map(|word| (*word).to_owned()).collect(),
                None => raw.keywords.iter().map(|word| word.to_lowercase()).collect(),
            };
            for word in own {
                let is_known = (number as usize) < own_until;
                let check = if is_known { check_of(raw, &word) } else { Check::None };
                words.entry(word).or_default().push((number, check));
            }
        }
        let mut patterns: Vec<String> = Vec::new();
        let mut triggers = Vec::new();
        for (word, rules) in words {
            patterns.push(word);
            triggers.push(Trigger::Rules(rules));
        }
        for quote in ['"', '\'', '`'] {
            for next in [' ', '\n', '+', '\r', '\t', '\\'] {
                patterns.push(format!("{quote}{next}"));
                triggers.push(Trigger::Joint);
            }
        }
        for code in ["%5f", "%2d", "%2b", "%2f", "%3d", "%3a", "%40", "%2e"] {
            patterns.push(code.to_owned());
            triggers.push(Trigger::Percent);
        }
        let keywords = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&patterns)
            .map_err(|error| Error::invalid("cannot prepare the keywords of the rules").with_source(error))?;
        Ok(RuleSet { rules, keywords, triggers, global, id })
    }

    /// The hash of all rules and of how they are applied.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether an allow-list of the rules takes a finding back.
    pub(crate) fn is_allowed(&self, rule: &Rule, found: &Found<'_>) -> bool {
        self.global.covers(found) || rule.allow.iter().any(|allow| allow.covers(found))
    }
}

fn bad(name: &str, why: &str) -> Error {
    Error::invalid(format!("cannot read the rules in `{name}`: {why}"))
}

fn parse(name: &str, text: &str) -> Result<File> {
    // What stands there is shown by place only.
    toml::from_str(text).map_err(|error| bad(name, error.message()))
}

/// Reads a file of the user, all of whose regexes must compile.
fn read_extra(name: &str, bytes: &[u8]) -> Result<Vec<RawRule>> {
    if bytes.len() as u64 > RULES_BYTES_MAX {
        return Err(bad(name, &format!("expected at most {RULES_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| bad(name, "it is no text"))?;
    let file = parse(name, text)?;
    if file.rules.len() > RULES_MAX {
        return Err(bad(name, &format!("expected at most {RULES_MAX} rules")));
    }
    if file.allowlist.is_some() {
        return Err(bad(name, "an allow-list for all rules stands in the settings, as `privacy.allow`"));
    }
    for rule in &file.rules {
        if rule.keywords.is_empty() && rule.regex.is_some() {
            return Err(bad(name, &format!("rule `{}` has no keywords", rule.id)));
        }
        if rule.regex.is_none() && rule.path.is_none() {
            return Err(bad(name, &format!("rule `{}` has no regex", rule.id)));
        }
        if !rule.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(bad(name, "an id has other characters than letters, digits and `-_.`"));
        }
        let allowed = rule.allowlists.iter().flat_map(|allow| allow.regexes.iter().chain(&allow.paths));
        for regex in rule.regex.iter().chain(&rule.path).chain(allowed) {
            compile(regex).map_err(|_| bad(name, &format!("a regex of rule `{}` is none", rule.id)))?;
        }
    }
    Ok(file.rules)
}

fn class_of(raw: &RawRule, name: &str) -> Result<Class> {
    match raw.class.as_deref() {
        Some("certain") => Ok(Class::Certain),
        None | Some("possible") => Ok(Class::Possible),
        Some(_) => Err(bad(name, &format!("rule `{}`: expected class certain or possible", raw.id))),
    }
}

/// What can be asked before a regex is.
fn check_of(raw: &RawRule, word: &str) -> Check {
    if word == "://" {
        return Check::Url;
    }
    let Some(regex) = raw.regex.as_deref() else { return Check::None };
    if APART.contains(&raw.id.as_str()) {
        return Check::None;
    }
    if let Some(at) = regex.find(ASSIGNMENT) {
        let is_name = regex[..at].to_lowercase().contains(word);
        return if is_name { Check::Assigned } else { Check::Either };
    }
    let is_any_case = regex.starts_with("(?i)");
    let inner = regex.trim_start_matches("(?i)");
    let is_border = inner.starts_with(r"\b");
    let inner = inner.trim_start_matches(r"\b").trim_start_matches('(');
    let plain: String = inner.chars().filter(|letter| *letter != '\\').take(word.len()).collect();
    if plain.to_lowercase() == word {
        let exact = (!is_any_case).then(|| plain.into_bytes());
        return Check::Token { exact, is_border };
    }
    if raw.class.is_some() {
        // One of ours, whose keyword may stand apart from the secret.
        return Check::None;
    }
    Check::Token { exact: None, is_border: false }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_rule_compiles_and_every_certain_one_exists() {
        let set = RuleSet::read(&[]).unwrap();
        let ids: HashSet<&str> = set.rules.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!(ids.len(), set.rules.len(), "ids are unique");
        assert!(ids.len() > 240, "{}", ids.len());
        for id in certain_ids() {
            assert!(ids.contains(id), "{id} is in the table and in no file");
        }
        for rule in &set.rules {
            assert!(rule.is_of_names() || rule.regex().is_some(), "{}", rule.id);
            let lazies = rule.allow.iter().flat_map(|allow| allow.regexes.iter().chain(&allow.paths));
            assert!(lazies.chain(&rule.path).all(|lazy| lazy.get().is_some()), "{}", rule.id);
        }
        assert!(set.global.regexes.iter().chain(&set.global.paths).all(|lazy| lazy.get().is_some()));
    }

    #[test]
    fn the_rules_of_gitleaks_are_those_of_the_notice() {
        use sha2::{Digest, Sha256};
        let notice = include_str!("rules/LICENSE");
        assert!(notice.contains(&encode_hex(&Sha256::digest(GITLEAKS.as_bytes()))));
    }

    #[test]
    fn files_of_rules_are_checked_and_change_the_id() {
        let rule = "[[rules]]\nid = \"ours\"\nregex = '''ours-[0-9]{9}'''\nkeywords = [\"ours-\"]\n";
        let read = |text: &str| RuleSet::read(&[("rules.toml".to_owned(), text.as_bytes().to_vec())]);
        let plain = RuleSet::read(&[]).unwrap();
        let set = read(rule).unwrap();
        assert_ne!(plain.id(), set.id());
        assert_eq!(set.rules.last().unwrap().class, Class::Possible);
        let certain = read(&format!("{rule}class = \"certain\"\n")).unwrap();
        assert_eq!(certain.rules.last().unwrap().class, Class::Certain);
        for (bad, why) in [
            ("nonsense", "rules.toml"),
            (&rule.replace("ours-[", "ours-[["), "is none"),
            (&rule.replace("keywords = [\"ours-\"]", ""), "no keywords"),
            (&rule.replace("\"ours\"", "\"github-pat\""), "already"),
            (&rule.replace("\"ours\"", "\"a b\""), "other characters"),
            (&format!("{rule}class = \"sure\""), "certain or possible"),
            ("[allowlist]\nregexes = [\".*\"]", "privacy.allow"),
        ] {
            let error = read(bad).err().unwrap();
            assert!(error.message().contains(why), "{error}");
        }
    }
}
