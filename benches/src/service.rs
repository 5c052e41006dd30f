//! The service on loopback: push by our client and by the peer's, push of nothing, pull, version 1 ingest, many clients
//! at once, and a session that grew.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use crate::Options;
use crate::crowd;
use crate::files;
use crate::ingest;
use crate::large;
use crate::layout;
use crate::measure::{self, Cost, Job, Samples};
use crate::ours::Ours;
use crate::python::{self, Peer};
use crate::records;
use crate::report::{Report, Result, megabytes, named, ratio};
use crate::served::{self, Proxy, Served, Traffic};

const RUNS_SHORT: u32 = 20;
const PUSH_S_MAX: f64 = 12.0;
const NOTHING_MS_MAX: f64 = 60.0;
const GROWN_PERCENT_MAX: f64 = 1.3;
/// The mean of the transcripts, and a long session.
const SESSIONS_BYTES: [u64; 2] = [670_000, 10_000_000];
const OURS: &str = "push --full";
const THEIRS: &str = "push --full of the peer";

/// Measures the service.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Service");
    let work = files::renew(&options.work.join("service"))?;
    report.text("Loopback without TLS, client and service on the same cores.");
    first_push(options, &work, report)?;
    // A part that cannot go on does not stop the next.
    if let Err(error) = nothing_new(options, &work, report) {
        report.fail("push, nothing new", &error);
    }
    ingest::run(options, &work, report)?;
    crowd::run(options, &work, report)?;
    large::run(options, &work, report)?;
    grown(options, &work, report)?;
    files::remove(&work)
}

/// A service with an empty data folder for each run, and what it took.
struct Fresh<'a> {
    binary: &'a Path,
    data: PathBuf,
    running: RefCell<Option<Served>>,
    token: RefCell<String>,
    costs: RefCell<Vec<Cost>>,
}

impl<'a> Fresh<'a> {
    fn new(binary: &'a Path, work: &Path, name: &str) -> Fresh<'a> {
        let data = work.join(format!("data-{name}"));
        Fresh {
            binary,
            data,
            running: RefCell::new(None),
            token: RefCell::default(),
            costs: RefCell::default(),
        }
    }

    /// Starts one; gives the project's URL and a token.
    fn start(&self) -> Result<(String, String)> {
        self.running.take();
        let token = served::found(self.binary, &self.data, 1)?.remove(0);
        let service = Served::start(self.binary, &self.data)?;
        let url = served::url(service.address);
        *self.running.borrow_mut() = Some(service);
        self.token.borrow_mut().clone_from(&token);
        Ok((url, token))
    }

    /// Ends it, and gives the bytes that it received and sent.
    fn stop(&self) -> Result<u64> {
        let service = self.running.take().ok_or("no service runs")?;
        let traffic = service.traffic()?;
        self.costs.borrow_mut().push(service.stop()?);
        Ok(traffic.bytes_in + traffic.bytes_out)
    }

    /// Goes on with the data of the last run.
    fn again(&self) -> Result<Served> {
        Served::start(self.binary, &self.data)
    }

    fn samples(&self, name: &str) -> Samples {
        Samples { name: name.into(), costs: self.costs.borrow().clone(), ..Samples::default() }
    }
}

fn first_push(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let (dir, (traces, commits)) = (layout::folder(options)?, layout::counts(options));
    let bytes = files::bytes_below(&dir)?;
    report.text(&format!(
        "{traces} traces, {commits} ledgers, {commits} commit-links, {} transcripts; {} MB.",
        options.transcripts(),
        megabytes(bytes)
    ));
    let ours = Ours::new(options.binary()?, work, "store");
    ours.fill(&dir)?;
    files::warm(&dir)?;
    let fresh = Fresh::new(options.binary()?, work, "ours");
    let fresh_peer = Fresh::new(options.binary()?, work, "peer");
    let peer = Peer { program: python::program(options), work: files::renew(&work.join("peer"))? };
    let mut jobs = vec![
        Job::new(OURS, |run| Ok(vec![ours.command(["push", "--full", "--remote", &format!("r{run}")])]))
            .prepare(|run| {
                let (url, token) = fresh.start()?;
                ours.run(&["remote", "add", &format!("r{run}"), &url, "--token", &token])
            })
            .bytes(|_| fresh.stop()),
    ];
    if peer.program.is_file() {
        jobs.push(
            Job::new(THEIRS, |_| Ok(vec![peer.command(&["push", "--full"])]))
                .prepare(|_| {
                    peer.fill(&dir)?;
                    let (url, token) = fresh_peer.start()?;
                    let mut add = peer.command(&["remote", "add", "origin", &url, "--token", &token]);
                    measure::output(&mut add).map(drop)
                })
                .bytes(|_| {
                    // It ends with 0 also where it failed.
                    let said = std::fs::read_to_string(work.join("stderr.txt"))?;
                    if said.contains("Error:") || said.contains("failed") {
                        return Err(format!("the peer said: {said}").into());
                    }
                    fresh_peer.stop()
                }),
        );
    } else {
        report.text("The peer's client is not given (AGENT_TRACE_PEER, or `bench setup`): left out.");
    }
    let mut all = measure::alternate(&mut jobs, options.runs(), work);
    drop(jobs);
    all.insert(1, fresh.samples("- the service meanwhile (wall: from start to stop)"));
    if let Some(place) = all.iter().position(|samples| samples.name == THEIRS) {
        all.insert(place + 1, fresh_peer.samples("- the service meanwhile"));
    }
    report.table(&all);
    let pushed = named(&all, OURS).wall().median;
    report.at_most("first push, s", pushed, PUSH_S_MAX);
    report.at_most(
        "first push / the same by the peer",
        ratio(pushed, named(&all, THEIRS).wall().median),
        0.334,
    );
    drop(all);
    pull(options, &ours, &fresh, report)
}

/// A pull of what was pushed last, against `reindex` of the same.
fn pull(options: &Options, ours: &Ours, fresh: &Fresh<'_>, report: &mut Report) -> Result<()> {
    let service = fresh.again()?;
    let (url, work) = (served::url(service.address), fresh.data.parent().ok_or("no folder above")?);
    let (clone, token) = (ours.other("clone"), fresh.token.borrow());
    let mut jobs = vec![
        Job::new("pull into an empty store", |_| Ok(vec![clone.command(["pull", "--remote", "team"])]))
            .prepare(|_| {
                clone.init()?;
                clone.run(&["remote", "add", "team", &url, "--token", &token])
            }),
        clone.job("reindex", &["reindex"]),
    ];
    let mut all = measure::alternate(&mut jobs, options.runs(), work);
    drop(jobs);
    let cost = service.stop()?;
    all.push(Samples {
        name: "- the service meanwhile, all pulls".into(),
        costs: vec![cost],
        ..Samples::default()
    });
    report.table(&all);
    let (pulled, reindexed) =
        (named(&all, "pull into an empty store").wall().median, named(&all, "reindex").wall().median);
    report.at_most("pull into an empty store / reindex", ratio(pulled, reindexed), 1.5);
    files::remove(&clone.store)
}

/// A push of a large store when there is nothing new.
fn nothing_new(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let dir = records::folder(options, options.records(), options.seed)?;
    let ours = Ours::new(options.binary()?, work, "large");
    ours.fill(&dir)?;
    let fresh = Fresh::new(options.binary()?, work, "large");
    let (url, token) = fresh.start()?;
    ours.run(&["remote", "add", "origin", &url, "--token", &token])?;
    let mut first = [Job::new("first push --full", |_| Ok(vec![ours.command(["push", "--full"])]))];
    let first = measure::alternate(&mut first, 1, work);
    report.text(&format!("A store of {} records:", options.records()));
    report.table(&first);
    if first.iter().any(|samples| samples.failed.is_some()) {
        fresh.stop()?;
        return Err("what comes after a first push that failed is not measured".into());
    }
    let before = traffic(&fresh)?;
    let runs = if options.quick { options.runs() } else { RUNS_SHORT };
    let mut jobs = [Job::new("push, nothing new", |_| Ok(vec![ours.command(["push", "--full"])]))];
    let all = measure::alternate(&mut jobs, runs, work);
    drop(jobs);
    let after = traffic(&fresh)?;
    report.table_ms(&all);
    let each = |total: u64| total / u64::from(runs);
    report.text(&format!(
        "Each push of nothing new: {} requests, {} bytes in, {} bytes out.",
        each(after.requests - before.requests),
        each(after.bytes_in - before.bytes_in),
        each(after.bytes_out - before.bytes_out)
    ));
    report.at_most(
        "push, nothing new, ms",
        named(&all, "push, nothing new").wall().median * 1e3,
        NOTHING_MS_MAX,
    );
    fresh.stop()?;
    files::remove(&ours.store)?;
    files::remove(&fresh.data)
}

fn traffic(fresh: &Fresh<'_>) -> Result<Traffic> {
    fresh.running.borrow().as_ref().ok_or("no service runs")?.traffic()
}

/// The bytes on the wire for sessions that grew by 1 %, counted between client and service.
fn grown(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let fresh = Fresh::new(options.binary()?, work, "grown");
    for bytes in SESSIONS_BYTES {
        let (url, token) = fresh.start()?;
        let address = fresh.running.borrow().as_ref().ok_or("no service runs")?.address;
        let proxy = Proxy::start(address)?;
        let dir = work.join("session");
        let text = layout::session(&dir, options.seed, bytes)?;
        let ours = Ours::new(options.binary()?, work, "grown");
        ours.fill(&dir)?;
        let url = url.replace(&address.to_string(), &proxy.address.to_string());
        ours.run(&["remote", "add", "origin", &url, "--token", &token])?;
        proxy.take();
        ours.run(&["push", "--full"])?;
        let first = proxy.take();
        layout::grow(&dir, options.seed + 1, &text, bytes / 100)?;
        measure::output(&mut ours.import(&dir, &[]))?;
        ours.run(&["push", "--full"])?;
        let more = proxy.take();
        report.text(&format!(
            "A session of {} bytes: {first} bytes on the wire; grown by 1 %: {more} bytes, headers and answers too.",
            text.len()
        ));
        let percent = more as f64 * 100.0 / text.len() as f64;
        report.at_most(
            &format!("wire bytes / transcript of {} MB, percent", megabytes(bytes)),
            percent,
            GROWN_PERCENT_MAX,
        );
        fresh.stop()?;
    }
    Ok(())
}
