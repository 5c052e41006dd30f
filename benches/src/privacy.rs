//! The privacy gate: how fast it looks through real transcripts and a large store, what it finds of planted secrets, and
//! what it finds where there are none.
//!
//! Real transcripts have been looked through before they were published, so what is found there counts as false.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Options;
use crate::files;
use crate::measure::{self, Job};
use crate::ours::Ours;
use crate::planted::{FORMS, Form, KINDS, Planted, plant};
use crate::records;
use crate::report::{Report, Result, megabytes, megabytes_number, named};

/// Of each kind and form.
const EACH: usize = 30;
const EACH_QUICK: usize = 5;
/// Findings of one file that the program keeps are bounded, so planted ones go into several.
const PLANTED_PER_FILE: usize = 200;
const RATE_MIN: f64 = 120.0;

/// Runs the section.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Privacy");
    let work = files::renew(&options.work.join("privacy"))?;
    let ours = Ours::new(options.binary()?, &work, "store");
    ours.init()?;
    planted_secrets(options, &work, &ours, report)?;
    match &options.corpus {
        Some(corpus) => transcripts(options, corpus, &work, &ours, report)?,
        None => report.text("No real transcripts given (`AGENT_TRACE_CORPUS`), left out."),
    }
    store(options, &work, &ours, report)?;
    files::remove(&work)
}

/// The command as one that ends well where it finds something.
fn scan(ours: &Ours, args: &[&str]) -> Command {
    let inner = ours.command(["privacy", "scan"]);
    let mut command = Command::new("sh");
    command.args(["-c", "\"$0\" \"$@\" > /dev/null || [ $? -eq 8 ]"]);
    command.arg(inner.get_program()).args(inner.get_args()).args(args);
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// What the program finds in files.
fn findings(ours: &Ours, path: &Path) -> Result<Value> {
    let mut command = ours.command(["--json", "privacy", "scan"]);
    let output = command.arg(path).output()?;
    if !matches!(output.status.code(), Some(0 | 8)) {
        return Err(format!("`privacy scan` ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn planted_secrets(options: &Options, work: &Path, ours: &Ours, report: &mut Report) -> Result<()> {
    let each = if options.quick { EACH_QUICK } else { EACH };
    let planted = plant(options.seed, each);
    report.text(&format!(
        "Planted secrets: {} of {} kinds, {each} of each kind in each form, seed {}.",
        planted.len(),
        KINDS.len(),
        options.seed
    ));
    println!("| form | planted | found | % |");
    println!("|---|---|---|---|");
    let (mut plain, mut other) = ((0, 0), (0, 0));
    for form in FORMS {
        let of_form: Vec<&Planted> = planted.iter().filter(|one| one.form == form).collect();
        let mut found = 0;
        for part in of_form.chunks(PLANTED_PER_FILE) {
            found += found_of(part, work, ours)?;
        }
        println!("| {form:?} | {} | {found} | {:.1} |", of_form.len(), percent(found, of_form.len()));
        let sum =
            if matches!(form, Form::Plain | Form::Escaped | Form::Nested) { &mut plain } else { &mut other };
        *sum = (sum.0 + of_form.len(), sum.1 + found);
    }
    println!();
    report.at_least("planted secrets found, plain or in JSON, %", percent(plain.1, plain.0), 99.0);
    report.at_least("planted secrets found, in parts or encoded, %", percent(other.1, other.0), 90.0);
    Ok(())
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// On how many lines one was found.
fn found_of(planted: &[&Planted], work: &Path, ours: &Ours) -> Result<usize> {
    let path = work.join("planted.jsonl");
    let lines: Vec<&str> = planted.iter().map(|one| one.line.as_str()).collect();
    std::fs::write(&path, lines.join("\n"))?;
    let answer = findings(ours, &path)?;
    let mut is_found = vec![false; planted.len() + 1];
    for finding in answer["findings"].as_array().into_iter().flatten() {
        for place in finding["places"].as_array().into_iter().flatten() {
            let line = place["line"].as_u64().and_then(|line| usize::try_from(line).ok()).unwrap_or(0);
            if let Some(is_found) = is_found.get_mut(line) {
                *is_found = true;
            }
        }
    }
    debug_assert!(planted.iter().all(|one| !one.kind.is_empty() && !one.secret.is_empty()));
    Ok(is_found.iter().filter(|found| **found).count())
}

fn transcripts(
    options: &Options,
    corpus: &Path,
    work: &Path,
    ours: &Ours,
    report: &mut Report,
) -> Result<()> {
    let bytes = files::bytes_below(corpus)?;
    report.text(&format!("Real transcripts: {} MB.", megabytes(bytes)));
    let path = corpus.display().to_string();
    let mut jobs = [Job::new("scan of files", |_| Ok(vec![scan(ours, &[&path])])).bytes(|_| Ok(bytes))];
    let all = measure::alternate(&mut jobs, options.runs(), work);
    report.table(&all);
    let rate = megabytes_number(bytes) / named(&all, "scan of files").wall().median;
    report.at_least("scan of files, MB/s", rate, RATE_MIN);
    let answer = findings(ours, corpus)?;
    let found = |class: &str| -> f64 {
        let findings = answer["findings"].as_array().into_iter().flatten();
        findings.filter(|it| it["class"] == class).filter_map(|it| it["count"].as_f64()).sum()
    };
    let (certain, possible) = (found("certain"), found("possible"));
    report.text(&format!("Found there (secrets and files): {certain} certain, {possible} possible."));
    report.at_most("certain findings for each 100 MB", certain * 1e8 / bytes as f64, 1.0);
    report.at_most("possible findings for each MB", possible * 1e6 / bytes as f64, 1.0);
    Ok(())
}

fn store(options: &Options, work: &Path, ours: &Ours, report: &mut Report) -> Result<()> {
    let dir = records::folder(options, options.records(), options.seed)?;
    measure::run_once(&mut ours.import(&dir, &[]), work)?;
    report.text(&format!("A store of {} synthetic records.", options.records()));
    let notes = ours.store.join("privacy").join("scanned");
    let mut jobs = [
        Job::new("scan of the store, all", |_| Ok(vec![scan(ours, &["--all"])])),
        Job::new("scan of the store, again", |_| Ok(vec![scan(ours, &[])]))
            .bytes(|_| Ok(std::fs::metadata(&notes)?.len())),
    ];
    let all = measure::alternate(&mut jobs, options.runs(), work);
    report.table(&all);
    Ok(())
}
