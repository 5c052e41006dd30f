//! `privacy`: finds secrets in the store or in files, says what is none, and lists the rules.

mod files;

use std::collections::BTreeMap;

use agent_trace_store::seqs::EventSet;
use agent_trace_store::{Error, ErrorKind, Store, Timestamp};
use agent_trace_sync::gate::{all_events, each_event};
use serde_json::{Value, json};

use super::{Context, config};
use crate::args;
use crate::json as shapes;
use crate::privacy::class::{Class, certain};
use crate::privacy::finding::{Finding, is_fingerprint};
use crate::privacy::gate;
use crate::privacy::policy::Policy;
use crate::privacy::scanned::{self, Place, Scanned};
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::time::Edge;
use crate::ui;

/// Places of one secret that are shown.
const PLACES_MAX: usize = 20;

pub(super) fn run(context: &Context, args: &args::Privacy) -> Result<Done, Failure> {
    match args {
        args::Privacy::Scan(args) if args.paths.is_empty() => scan_store(context, args),
        args::Privacy::Scan(args) => scan_files(context, args),
        args::Privacy::Allow { fingerprint, reason } => allow(context, fingerprint, reason.as_deref()),
        args::Privacy::Rules => rules(context),
    }
}

fn scan_store(context: &Context, args: &args::PrivacyScan) -> Result<Done, Failure> {
    let since = context.time(args.since.as_deref(), Edge::First)?;
    let (place, store) = context.open_current()?;
    let policy = context.policy(&place)?;
    if args.all {
        // What is kept may be deleted at any time.
        let _ = context.env.fs.remove(&scanned::file(store.dir()));
    }
    let wanted = match since {
        None => all_events(&store)?,
        Some(since) => events_since(&store, since)?,
    };
    let progress = context.ui.progress();
    let (found, cost) = gate::scanned(&store, &wanted, &policy, progress.as_ref(), None)?;
    let looked = shapes::PrivacyScanned { events: cost.events, files: 0, bytes: cost.bytes };
    let findings = of_store(&store, &found, &wanted, &policy)?;
    answer(context, &policy, looked, findings, Vec::new())
}

/// The events of records that are not older.
fn events_since(store: &Store, since: Timestamp) -> Result<EventSet, Failure> {
    let mut ranges = Vec::new();
    each_event(store, &all_events(store)?, &mut |laid, _| {
        if laid.time >= since {
            ranges.push((laid.writer, laid.seq.get(), laid.seq.get()));
        }
        Ok(())
    })?;
    Ok(EventSet::from_ranges(ranges))
}

/// What was found in the records that are asked for, the graver first.
fn of_store(
    store: &Store,
    scanned: &Scanned,
    wanted: &EventSet,
    policy: &Policy,
) -> Result<Vec<shapes::PrivacyFinding>, Failure> {
    let mut by_finding: BTreeMap<u32, Vec<&Place>> = BTreeMap::new();
    for place in scanned.places().iter().filter(|place| wanted.contains(&place.writer, place.seq)) {
        by_finding.entry(place.finding).or_default().push(place);
    }
    let mut findings = Vec::new();
    for (number, places) in by_finding {
        let mut shown = Vec::new();
        for place in places.iter().take(PLACES_MAX) {
            shown.push(shapes::PrivacyPlace {
                kind: place.kind.name().to_owned(),
                key: place.key.clone(),
                object: Some(place.object.to_string()),
                line: line_of(store, place)?,
                count: place.count,
            });
        }
        let count = places.len() as u64;
        findings.push(told(&scanned.findings[number as usize], policy, count, shown));
    }
    Ok(sorted(findings))
}

/// The line in which a place stands.
fn line_of(store: &Store, place: &Place) -> Result<u64, Failure> {
    let (parts, _) = store.leaves(&place.object)?;
    let (mut at, mut line) = (0, 1);
    for part in parts {
        if at >= place.offset {
            break;
        }
        let bytes = store.read(&part.id)?;
        let end = usize::try_from(place.offset - at).unwrap_or(usize::MAX).min(bytes.len());
        line += memchr::memchr_iter(b'\n', &bytes[..end]).count() as u64;
        at += part.bytes;
    }
    Ok(line)
}

fn told(
    finding: &Finding,
    policy: &Policy,
    count: u64,
    places: Vec<shapes::PrivacyPlace>,
) -> shapes::PrivacyFinding {
    shapes::PrivacyFinding {
        rule: finding.rule.clone(),
        class: finding.class.name(),
        fingerprint: finding.fingerprint.clone(),
        hint: finding.hint.clone(),
        allowed: policy.allow.contains(&finding.fingerprint),
        count,
        places,
    }
}

fn sorted(mut findings: Vec<shapes::PrivacyFinding>) -> Vec<shapes::PrivacyFinding> {
    findings.sort_by(|one, other| {
        let key =
            |it: &shapes::PrivacyFinding| (it.allowed, it.class != Class::Certain.name(), it.rule.clone());
        key(one).cmp(&key(other)).then_with(|| one.fingerprint.cmp(&other.fingerprint))
    });
    findings
}

fn scan_files(context: &Context, args: &args::PrivacyScan) -> Result<Done, Failure> {
    let policy = match crate::project::find(&context.env, &context.settings) {
        Ok(place) => context.policy(&place)?,
        // Files can be looked through where there is no store, by the user's settings.
        Err(_) => {
            let home = context.settings.home.as_deref().ok_or_else(|| {
                let message = "cannot find the home of agent-trace: neither AGENT_TRACE_HOME nor HOME is set";
                Failure::new(ErrorKind::Invalid, message, "set AGENT_TRACE_HOME")
            })?;
            Policy::read(&context.env, Some(home), home)?
        }
    };
    let rules = policy.rules(&context.env)?;
    let progress = context.ui.progress();
    let looked = files::scan(&context.env, &args.paths, &rules, &policy.key, progress.as_ref());
    let mut findings = Vec::new();
    for (finding, places) in looked.found {
        let count = places.len() as u64;
        findings.push(told(&finding, &policy, count, places.into_iter().take(PLACES_MAX).collect()));
    }
    let scanned = shapes::PrivacyScanned { events: 0, files: looked.files, bytes: looked.bytes };
    answer(context, &policy, scanned, sorted(findings), looked.skipped)
}

fn answer(
    context: &Context,
    policy: &Policy,
    scanned: shapes::PrivacyScanned,
    findings: Vec<shapes::PrivacyFinding>,
    skipped: Vec<shapes::PrivacySkipped>,
) -> Result<Done, Failure> {
    let count =
        |class: Class| findings.iter().filter(|it| !it.allowed && it.class == class.name()).count() as u64;
    let (certain, possible) = (count(Class::Certain), count(Class::Possible));
    let is_partial = !skipped.is_empty();
    let answer = shapes::PrivacyScan {
        schema: shapes::PRIVACY_SCAN,
        rules: policy.rules_id(&context.env)?,
        strict: policy.strict,
        scanned,
        certain,
        possible,
        allowed: findings.iter().filter(|it| it.allowed).count() as u64,
        findings,
        skipped,
    };
    if context.ui.is_json() {
        context.ui.json(&answer)?;
    } else {
        print(context, &answer)?;
    }
    let is_found = certain > 0 || (policy.strict && possible > 0);
    let done = if is_partial { Done::Partial } else { Done::Well };
    Ok(if is_found { Done::Refused } else { done })
}

fn print(context: &Context, answer: &shapes::PrivacyScan) -> Result<(), Failure> {
    let ui = &context.ui;
    for finding in &answer.findings {
        let class = if finding.allowed { "allowed" } else { finding.class };
        let class = format!("{class:<8}");
        let class = if finding.allowed || finding.class == Class::Possible.name() {
            ui.faint(class)
        } else {
            ui.bad(class)
        };
        let rule = format!("{:<28}", finding.rule);
        ui.line(format_args!("{class} {} {} {}", finding.fingerprint, ui.name(rule), finding.hint))?;
        for place in &finding.places {
            let key = sanitize::line(&place.key);
            let times = if place.count > 1 { format!(", {} times", place.count) } else { String::new() };
            ui.line(format_args!("         {} {key} line {}{times}", place.kind, place.line))?;
        }
        let hidden = finding.count.saturating_sub(finding.places.len() as u64);
        if hidden > 0 {
            ui.line(format_args!("         and {} more", ui::number(hidden)))?;
        }
    }
    for skipped in &answer.skipped {
        ui.warn(&format!("{}: {}", sanitize::line(&skipped.path), sanitize::line(&skipped.reason)));
    }
    let scanned = &answer.scanned;
    let what = match scanned.files {
        0 => format!("{} new record(s)", ui::number(scanned.events)),
        files => format!("{} file(s)", ui::number(files)),
    };
    ui.line(format_args!(
        "{} certain, {} possible, {} allowed secret(s); looked through {what}, {}",
        ui::number(answer.certain),
        ui::number(answer.possible),
        ui::number(answer.allowed),
        ui::bytes(scanned.bytes)
    ))?;
    if answer.certain > 0 {
        ui.hint("agent-trace privacy allow FINGERPRINT says that one is no secret");
    }
    Ok(())
}

fn allow(context: &Context, fingerprint: &str, reason: Option<&str>) -> Result<Done, Failure> {
    if !is_fingerprint(fingerprint) {
        let message = "cannot take that as a fingerprint: expected 16 hex digits";
        return Err(Failure::new(ErrorKind::Invalid, message, "agent-trace privacy scan lists them"));
    }
    let time = context.env.clock.now().to_string();
    config::change(context, true, |document| {
        let section = document.section_mut("privacy")?;
        let list = section.entry("allow").or_insert_with(|| json!([]));
        if list.is_string() {
            *list = json!([list.take()]);
        }
        let Value::Array(list) = list else {
            return Err(Error::invalid("cannot change `privacy.allow`: expected a list").into());
        };
        let is_same = |value: &Value| {
            value.as_str() == Some(fingerprint) || value["fingerprint"].as_str() == Some(fingerprint)
        };
        list.retain(|value| !is_same(value));
        list.push(json!({"fingerprint": fingerprint, "reason": reason, "time": time}));
        Ok(())
    })?;
    if context.ui.is_json() {
        let reason = reason.map(str::to_owned);
        let fingerprint = fingerprint.to_owned();
        context.ui.json(&shapes::PrivacyAllow { schema: shapes::PRIVACY_ALLOW, fingerprint, reason })?;
    } else {
        context.ui.line(format_args!("{fingerprint} counts as no secret from now on"))?;
    }
    Ok(Done::Well)
}

fn rules(context: &Context) -> Result<Done, Failure> {
    let home = context.settings.home.as_deref();
    let data = crate::project::find(&context.env, &context.settings).map(|place| place.data).ok();
    let here = data.as_deref().or(home).unwrap_or(&context.settings.directory);
    let policy = Policy::look(&context.env, home, here)?;
    let set = policy.rules(&context.env)?;
    let rules = set.rules.iter().map(|rule| shapes::PrivacyRule {
        id: rule.id.clone(),
        class: rule.class.name(),
        reason: certain(&rule.id),
    });
    let answer = shapes::PrivacyRules {
        schema: shapes::PRIVACY_RULES,
        id: set.id().to_owned(),
        rules: rules.collect(),
    };
    if context.ui.is_json() {
        context.ui.json(&answer)?;
        return Ok(Done::Well);
    }
    for rule in &answer.rules {
        let reason = rule.reason.unwrap_or_default();
        context.ui.line(format_args!("{:<8} {:<46} {reason}", rule.class, sanitize::line(&rule.id)))?;
    }
    context.ui.line(format_args!("{} rules, set {}", answer.rules.len(), answer.id))?;
    Ok(Done::Well)
}

/// What `status` says: what is kept of scans, without looking at anything anew.
pub(super) fn status(
    context: &Context,
    place: &crate::project::Place,
    store: &Store,
) -> Result<shapes::PrivacyStatus, Failure> {
    let policy = Policy::look(&context.env, context.settings.home.as_deref(), &place.data)?;
    let scanned = Scanned::load(store, &policy.rules_id(&context.env)?, &policy.key.check());
    let held = store.held(&store.snapshot()?)?;
    let mut counts = [0; 2];
    let mut seen = vec![false; scanned.findings.len()];
    scanned.places().iter().filter(|place| held.contains(&place.writer, place.seq)).for_each(|place| {
        seen[place.finding as usize] = true;
    });
    for (finding, seen) in scanned.findings.iter().zip(seen) {
        if seen && !policy.allow.contains(&finding.fingerprint) {
            counts[usize::from(finding.class == Class::Certain)] += 1;
        }
    }
    Ok(shapes::PrivacyStatus {
        mode: policy.mode.name(),
        not_scanned: held.minus(&scanned.events).len(),
        certain: counts[1],
        possible: counts[0],
    })
}
