//! Push to S3, against `rclone copy` of the same segments and `restic backup` of the same files, to the same server.
//!
//! The server is given by AGENT_TRACE_S3_ENDPOINT, _BUCKET, _ACCESS_KEY and _SECRET_KEY (`tests/ceph.sh` starts one), rclone
//! by AGENT_TRACE_RCLONE. Every run goes under a prefix of its own, and nothing is removed.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Options;
use crate::files;
use crate::measure::{self, Job};
use crate::ours::Ours;
use crate::records;
use crate::report::{Report, Result, named, ratio};

const RUNS_SHORT: u32 = 20;

/// A server that speaks S3.
struct Server {
    endpoint: String,
    bucket: String,
    key: String,
    secret: String,
    /// What tells this run from others on the same server.
    run: u32,
}

impl Server {
    fn given() -> Option<Server> {
        let get = |name: &str| std::env::var(format!("AGENT_TRACE_S3_{name}")).ok();
        Some(Server {
            endpoint: get("ENDPOINT")?,
            bucket: get("BUCKET").unwrap_or_else(|| "agent-trace-tests".into()),
            key: get("ACCESS_KEY").unwrap_or_else(|| "testaccess".into()),
            secret: get("SECRET_KEY").unwrap_or_else(|| "testsecret1234567890".into()),
            run: std::process::id(),
        })
    }

    fn prefix(&self, name: &str) -> String {
        format!("bench-{}/{name}", self.run)
    }

    /// The variables by which all three programs get their keys.
    fn sign<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("AWS_ACCESS_KEY_ID", &self.key).env("AWS_SECRET_ACCESS_KEY", &self.secret)
    }
}

/// Measures pushes to a bucket.
pub(crate) fn run(options: &Options, report: &mut Report) -> Result<()> {
    report.heading("Bucket");
    let Some(server) = Server::given() else {
        report.text("skipped: S3 server not given");
        return Ok(());
    };
    let work = files::renew(&options.work.join("bucket"))?;
    let dir = records::folder(options, options.records(), options.seed)?;
    let ours = Ours::new(options.binary()?, &work, "store");
    ours.fill(&dir)?;
    let mut inputs = vec![dir];
    if let Some(corpus) = &options.corpus {
        measure::output(&mut ours.import(corpus, &[])).map(drop)?;
        inputs.push(corpus.clone());
    }
    report.text(&format!(
        "A store of {} records{}, pushed to an S3 server on the same machine.",
        options.records(),
        if inputs.len() > 1 { " and the real transcripts" } else { "" }
    ));
    let remotes = Remotes { ours: &ours, server: &server, run: RefCell::new(0) };
    let mut jobs = vec![remotes.first_push()];
    let rclone = std::env::var_os("AGENT_TRACE_RCLONE").unwrap_or_else(|| "rclone".into());
    if is_there(Path::new(&rclone), "version") {
        jobs.push(rclone_job(&server, PathBuf::from(rclone), ours.store.join("segments")));
    }
    if is_there(Path::new("restic"), "version") {
        jobs.push(restic_job(&server, &work, inputs));
    }
    let all = measure::alternate(&mut jobs, options.runs(), &work);
    report.table(&all);
    drop(jobs);
    let wall =
        |name: &str| all.iter().find(|samples| samples.name == name).map(|samples| samples.wall().median);
    let pushed = named(&all, "push --full, first").wall().median;
    if let Some(copied) = wall("rclone copy of the segments") {
        report.at_most("first `push --full` to S3 / rclone copy", ratio(pushed, copied), 1.3);
    }
    if let Some(saved) = wall("restic backup of the files") {
        report.at_most("first `push --full` to S3 / restic backup", ratio(pushed, saved), 1.0);
    }
    unchanged(options, report, &remotes, &work)?;
    files::remove(&work)
}

fn unchanged(options: &Options, report: &mut Report, remotes: &Remotes<'_>, work: &Path) -> Result<()> {
    let name = remotes.name();
    let runs = if options.quick { options.runs() } else { RUNS_SHORT };
    let push = |_| Ok(vec![remotes.command(&["push", "--full", "--remote", &name])]);
    let seed = options.seed + 3_000;
    let mut jobs = vec![
        Job::new("push, unchanged", push),
        Job::new("push of one new record", push).prepare(|run| {
            let one = records::folder(options, 1, seed + u64::from(run))?;
            measure::output(&mut remotes.ours.import(&one, &[])).map(drop)
        }),
    ];
    report.table_ms(&measure::alternate(&mut jobs, runs, work));
    Ok(())
}

/// The remotes of one store, a new prefix for each run.
struct Remotes<'a> {
    ours: &'a Ours,
    server: &'a Server,
    run: RefCell<u32>,
}

impl Remotes<'_> {
    fn name(&self) -> String {
        format!("bucket{}", self.run.borrow())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.ours.command(arguments);
        self.server.sign(&mut command);
        command
    }

    fn first_push(&self) -> Job<'_> {
        Job::new("push --full, first", move |_| {
            Ok(vec![self.command(&["push", "--full", "--remote", &self.name()])])
        })
        .prepare(move |run| {
            *self.run.borrow_mut() = run;
            let url = format!("s3://{}/{}", self.server.bucket, self.server.prefix(&self.name()));
            let endpoint = self.server.endpoint.as_str();
            let mut add = self.command(&[
                "remote",
                "add",
                &self.name(),
                &url,
                "--endpoint",
                endpoint,
                "--insecure-http",
            ]);
            measure::output(&mut add).map(drop)
        })
        .bytes(move |_| files::bytes_below(&self.ours.store.join("segments")))
    }
}

fn rclone_job(server: &Server, program: PathBuf, segments: PathBuf) -> Job<'_> {
    let counted = segments.clone();
    Job::new("rclone copy of the segments", move |run| {
        let mut command = Command::new(&program);
        let target = format!(":s3:{}/{}", server.bucket, server.prefix(&format!("rclone{run}")));
        command.args([
            "copy",
            "--config",
            "/dev/null",
            "--s3-provider",
            "Ceph",
            "--s3-env-auth",
            "--s3-endpoint",
        ]);
        command.arg(&server.endpoint).arg(&segments).arg(target);
        server.sign(&mut command);
        Ok(vec![command])
    })
    .bytes(move |_| files::bytes_below(&counted))
}

fn restic_job<'a>(server: &'a Server, work: &Path, inputs: Vec<PathBuf>) -> Job<'a> {
    let cache = work.join("restic-cache");
    let restic = move |run: u32| {
        let mut command = Command::new("restic");
        let repository =
            format!("s3:{}/{}/{}", server.endpoint, server.bucket, server.prefix(&format!("restic{run}")));
        command.arg("--repo").arg(repository).arg("--cache-dir").arg(&cache).arg("--quiet");
        server.sign(&mut command).env("RESTIC_PASSWORD", "benchmark");
        command
    };
    let (init, count) = (restic.clone(), restic.clone());
    Job::new("restic backup of the files", move |run| {
        let mut command = restic(run);
        command.arg("backup").args(&inputs);
        Ok(vec![command])
    })
    .prepare(move |run| measure::output(init(run).arg("init")).map(drop))
    .bytes(move |run| {
        let said = measure::output(count(run).args(["stats", "--json", "--mode", "raw-data"]))?;
        let said: serde_json::Value = serde_json::from_str(said.trim())?;
        Ok(said["total_size"].as_u64().ok_or("restic did not say how much it stores")?)
    })
}

fn is_there(program: &Path, question: &str) -> bool {
    measure::output(Command::new(program).arg(question)).is_ok()
}
