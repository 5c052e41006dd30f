//! `doctor`: looks for what keeps remotes and hooks from working, and says of each what was found.

use std::net::ToSocketAddrs;
use std::path::Path;

use agent_trace_store::{ErrorKind, Store};
use agent_trace_sync::address::{RemoteUrl, ServiceUrl};
use agent_trace_sync::bucket::{Bucket, BucketUrl};
use agent_trace_sync::client::{Client, Scope};
use agent_trace_sync::remote::Remote;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::survey::Survey;
use super::{Context, push};
use crate::args;
use crate::capture;
use crate::git::ask;
use crate::hooks::agents::Agent;
use crate::json;
use crate::remotes::{Files, Named, Remotes};
use crate::report::{Done, Failure};
use crate::sanitize;

/// A clock that differs by less is no reason to worry.
const SKEW_SECONDS_MAX: i64 = 60;
/// Rights that a file with secrets must not give.
const OTHERS: u32 = 0o077;

/// What a remote fetches and pushes.
const REFSPECS: &str = r"^remote\..*\.(fetch|push)$";
/// Where agent-trace-cli keeps its notes.
const PEER_NOTES: &str = "refs/notes/agent-trace";
/// An event that waits longer than this is waited for by nobody.
const WAITING_SECONDS_MAX: i64 = 600;

const OK: &str = "ok";
const WARNING: &str = "warning";
const BAD: &str = "bad";
const FIXED: &str = "fixed";

/// What has been found so far.
#[derive(Default)]
struct Findings(Vec<json::Check>);

impl Findings {
    fn add(&mut self, check: &'static str, remote: Option<&Named>, state: &'static str, message: String) {
        let remote = remote.map(|remote| remote.name.clone());
        self.0.push(json::Check { check, remote, state, message });
    }
}

pub(super) fn run(context: &Context, args: &args::Doctor) -> Result<Done, Failure> {
    let (place, store) = context.open()?;
    let files = context.files(&place, &store);
    let mut findings = Findings::default();
    check_store(&store, &mut findings);
    if let Some(home) = &context.settings.home {
        check_modes(context, &home.join("config.json"), args.fix, &mut findings);
    }
    check_modes(context, &place.store.join("writer.key"), args.fix, &mut findings);
    let home = context.settings.home.as_deref().unwrap_or(&place.data);
    check_modes(context, &home.join(crate::privacy::policy::KEY_FILE), args.fix, &mut findings);
    check_hooks(context, &place.data, &mut findings);
    check_privacy(context, &place, &store, &mut findings)?;
    if place.project.is_some() {
        check_refspecs(context, &mut findings);
        check_capture(context, &place.data, &mut findings);
    }
    let remotes = Remotes::read(&files)?;
    for remote in remotes.list() {
        check_remote(context, &files, &remote, &mut findings);
    }
    let is_bad = findings.0.iter().any(|check| check.state == BAD);
    print(context, findings, !is_bad)?;
    Ok(if is_bad { Done::Failed } else { Done::Well })
}

/// Whether something can be written beside the store's data.
fn check_store(store: &Store, findings: &mut Findings) {
    let path = store.dir().join("doctor.new");
    let fs = &store.env().fs;
    // One that was left behind by a doctor that was killed.
    let _ = fs.remove(&path);
    let tried =
        fs.create(&path, true).and_then(|file| file.write_all_at(b"doctor", 0).and_then(|()| file.sync()));
    let removed = fs.remove(&path);
    let shown = store.dir().display();
    match tried.and(removed) {
        Ok(()) => findings.add("store", None, OK, format!("`{shown}` can be written")),
        Err(error) => findings.add("store", None, BAD, format!("`{shown}` cannot be written: {error}")),
    }
}

/// Whether the privacy gate works, and what it has found.
fn check_privacy(
    context: &Context,
    place: &crate::project::Place,
    store: &Store,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let told = super::privacy::status(context, place, store);
    let rules = context.policy(place).and_then(|policy| Ok(policy.rules(&context.env)?));
    let (state, message) = match (told, rules) {
        (Err(failure), _) | (_, Err(failure)) => (BAD, failure.error.message().to_owned()),
        (Ok(told), _) if told.mode == "off" => (WARNING, "off: secrets leave unseen".to_owned()),
        (Ok(told), _) if told.certain > 0 => {
            (WARNING, format!("{} secret(s) in the store; agent-trace privacy scan lists them", told.certain))
        }
        (Ok(told), Ok(rules)) => {
            let waiting = match told.not_scanned {
                0 => String::new(),
                count => format!(", {count} record(s) not looked through yet"),
            };
            (OK, format!("{}, {} rules{waiting}", told.mode, rules.rules.len()))
        }
    };
    findings.add("privacy", None, state, message);
    Ok(())
}

/// Whether the hooks that are installed find the program, and may run.
fn check_hooks(context: &Context, data: &Path, findings: &mut Findings) {
    let survey = Survey::make(&context.env, &context.settings, Some(data), &Agent::ALL, true);
    for agent in &survey.agents {
        for place in &agent.places {
            let (name, path) = (agent.agent, &place.place);
            let (state, message) = if let Some(problem) = &place.problem {
                (BAD, format!("{name}: {problem}"))
            } else if !place.runs {
                (
                    BAD,
                    format!(
                        "{name}: the program that `{path}` names is not found; run: agent-trace hooks install"
                    ),
                )
            } else if place.trust == Some("off") {
                (WARNING, format!("{name}: its settings turn hooks off"))
            } else if place.trust == Some("not-reviewed") {
                (
                    WARNING,
                    format!("{name}: the hooks in `{path}` wait for your review: start it and enter /hooks"),
                )
            } else if !place.missing.is_empty() {
                let missing = place.missing.join(", ");
                (WARNING, format!("{name}: `{path}` is without {missing}; run: agent-trace hooks install"))
            } else {
                (OK, format!("{name}: `{path}` tells of {} event(s)", place.events.len()))
            };
            findings.add("hooks", None, state, message);
        }
    }
    for hook in survey.git.iter().flat_map(|git| &git.events) {
        let event = hook.event;
        let (state, message) = match (&hook.place, &hook.problem) {
            (_, Some(problem)) => (BAD, format!("git {event}: {problem}")),
            (Some(place), None) if !hook.runs => (
                BAD,
                format!("git {event}: the program that `{place}` names is not found; run: agent-trace init"),
            ),
            (Some(place), None) => (OK, format!("git {event}: told of by `{place}`")),
            (None, None) => (WARNING, format!("git {event}: not told of; run: agent-trace init")),
        };
        findings.add("hooks", None, state, message);
    }
}

/// Whether agent-trace-cli has left refspecs that change what git does: with one for pushes, a plain push sends no branch;
/// a forced one for fetches overwrites notes.
fn check_refspecs(context: &Context, findings: &mut Findings) {
    for (key, value) in ask::local_matching(&context.settings.directory, REFSPECS) {
        if value.contains(PEER_NOTES) {
            let does = if key.ends_with(".push") {
                "keeps a plain push from sending branches"
            } else {
                "overwrites notes on each fetch"
            };
            let message =
                format!("`{key}` of agent-trace-cli {does}; run: git config --unset-all {key} {PEER_NOTES}");
            findings.add("refspecs", None, WARNING, message);
        }
    }
}

/// Whether hooks get through, and what they bring gets into the store.
fn check_capture(context: &Context, data: &Path, findings: &mut Findings) {
    let shown = match capture::shown::shown(&context.env, data) {
        Ok(shown) => shown,
        Err(error) => return findings.add("capture", None, BAD, words(&error)),
    };
    let now = context.env.clock.now().micros();
    let oldest = shown.oldest.as_deref().and_then(agent_trace_store::Timestamp::parse);
    let age = oldest.map_or(0, |oldest| now.saturating_sub(oldest.micros()) / 1_000_000);
    let waiting = shown.waiting;
    if waiting > 0 && age > WAITING_SECONDS_MAX && !shown.flusher {
        let message =
            format!("{waiting} event(s) wait, the first for {age} s; `agent-trace log` takes them in");
        findings.add("capture", None, WARNING, message);
    } else {
        findings.add("capture", None, OK, format!("{waiting} event(s) wait to be taken in"));
    }
    if shown.odd > 0 {
        let message = format!("{} event(s) could not be understood; they are in `spool/odd`", shown.odd);
        findings.add("capture", None, WARNING, message);
    }
    if let Some(last) = shown.failures.last() {
        let message =
            format!("{} failure(s); the last at {}: {}", shown.failures.len(), last.time, last.message);
        findings.add("capture", None, WARNING, message);
    }
}

/// Whether only their user reads files with secrets.
fn check_modes(context: &Context, path: &Path, fix: bool, findings: &mut Findings) {
    let fs = &context.env.fs;
    let Ok(Some(mode)) = fs.mode(path) else { return };
    let shown = path.display();
    if mode & OTHERS == 0 {
        findings.add("modes", None, OK, format!("`{shown}` is read by you only"));
    } else if !fix {
        findings.add(
            "modes",
            None,
            BAD,
            format!("`{shown}` can be read by others (mode {mode:o}); --fix changes that"),
        );
    } else {
        match fs.make_private(path) {
            Ok(()) => {
                findings.add("modes", None, FIXED, format!("`{shown}` is read by you only, from now on"))
            }
            Err(error) => {
                findings.add("modes", None, BAD, format!("cannot change the rights of `{shown}`: {error}"))
            }
        }
    }
}

/// Whether a bucket can be reached, and what it keeps of what S3 promises.
fn check_bucket(
    context: &Context,
    files: &Files<'_>,
    url: &BucketUrl,
    remote: &Named,
    findings: &mut Findings,
) {
    if url.is_insecure() {
        let message = "insecure http: all records can be read and changed on the way";
        findings.add("tls", Some(remote), WARNING, message.to_owned());
    }
    let mut address = RemoteUrl::Bucket(Box::new(url.clone()));
    if let Err(failure) = context.sign(remote, &mut address) {
        return findings.add("credentials", Some(remote), BAD, failure.error.message().to_owned());
    }
    if !check_layout(context, files, &address, remote, "bucket", findings) {
        return;
    }
    let RemoteUrl::Bucket(signed) = &address else { return };
    match Bucket::open(&context.env, signed).and_then(|bucket| bucket.probe()) {
        // Whoever may only read can pull.
        Err(error) if error.kind() == ErrorKind::Denied => {
            let message = format!("nothing can be written there, so only pulls work: {}", words(&error));
            findings.add("keeps", Some(remote), WARNING, message);
        }
        Err(error) => findings.add("keeps", Some(remote), BAD, words(&error)),
        Ok(promises) => {
            for promise in promises {
                let state = match (promise.is_kept, promise.matters) {
                    (true, _) => OK,
                    (false, false) => WARNING,
                    (false, true) => BAD,
                };
                findings.add("keeps", Some(remote), state, format!("{}: {}", promise.name, promise.words));
            }
        }
    }
}

fn check_remote(context: &Context, files: &Files<'_>, remote: &Named, findings: &mut Findings) {
    let address = match remote.address() {
        Ok(address) => address,
        Err(failure) => {
            return findings.add("url", Some(remote), BAD, failure.error.message().to_owned());
        }
    };
    findings.add("url", Some(remote), OK, format!("`{}` can be read", remote.url));
    if let RemoteUrl::Service(service) = &address {
        if service.is_insecure() {
            let message = "insecure http: the token and all records can be read and changed on the way";
            findings.add("tls", Some(remote), WARNING, message.to_owned());
        }
        if !check_name(service, remote, findings) {
            return;
        }
        match client(context, files, remote, service) {
            Err(failure) => findings.add("reach", Some(remote), BAD, failure.error.message().to_owned()),
            Ok(client) => check_service(context, &client, remote, findings),
        }
        return;
    }
    if let RemoteUrl::Bucket(url) = &address {
        return check_bucket(context, files, url, remote, findings);
    }
    check_layout(context, files, &address, remote, "folder", findings);
}

/// Whether a folder or bucket can be read, with its secret where it is encrypted.
fn check_layout(
    context: &Context,
    files: &Files<'_>,
    address: &RemoteUrl,
    remote: &Named,
    what: &str,
    findings: &mut Findings,
) -> bool {
    if remote.secret.as_ref().is_some_and(|secret| secret.is_open_to_others(&context.env)) {
        let message = "others on this machine may read the key file; chmod 600 it";
        findings.add("secret", Some(remote), WARNING, message.to_owned());
    }
    let access = match files.access(remote) {
        Ok(access) => access,
        Err(failure) => {
            findings.add("reach", Some(remote), BAD, failure.error.message().to_owned());
            return false;
        }
    };
    let layout = match Remote::open_with(&context.env, address, false, access.as_ref()) {
        Ok(layout) => layout,
        Err(error) => {
            findings.add("reach", Some(remote), BAD, words(&error));
            return false;
        }
    };
    let message = match (layout.id(), layout.ring()) {
        (Some(_), Some(ring)) => format!("the {what} is a remote, encrypted, key of epoch {}", ring.epoch()),
        (Some(_), None) => format!("the {what} is a remote"),
        (None, _) => "there is nothing yet; the first push makes it".to_owned(),
    };
    findings.add("reach", Some(remote), OK, message);
    true
}

/// How a service is asked: once, since what counts is how it is now.
fn client(
    context: &Context,
    files: &Files<'_>,
    remote: &Named,
    service: &ServiceUrl,
) -> Result<Client, Failure> {
    let token = match &remote.token {
        Some(reference) => files.tokens().resolve(reference)?,
        None => None,
    };
    Ok(Client::open(&context.env, service, token)?.without_retries())
}

/// Whether the host's name can be resolved.
fn check_name(service: &ServiceUrl, remote: &Named, findings: &mut Findings) -> bool {
    let Some((scheme, host)) = service.host_url().split_once("://") else { return true };
    let has_port =
        host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = if scheme == "https" { ":443" } else { ":80" };
    let name = if has_port { host.to_owned() } else { format!("{host}{port}") };
    match name.to_socket_addrs().map(Iterator::count) {
        Ok(count) if count > 0 => {
            findings.add("dns", Some(remote), OK, format!("`{host}` has {count} address(es)"));
            true
        }
        Ok(_) => {
            findings.add("dns", Some(remote), BAD, format!("`{host}` has no address"));
            false
        }
        // A proxy may resolve what this machine cannot.
        Err(error) => {
            findings.add("dns", Some(remote), WARNING, format!("`{host}` cannot be resolved: {error}"));
            true
        }
    }
}

fn check_service(context: &Context, client: &Client, remote: &Named, findings: &mut Findings) {
    match client.health() {
        Err(error) => return findings.add("reach", Some(remote), BAD, words(&error)),
        Ok(health) => {
            let state = if health.status < 500 { OK } else { BAD };
            let message = format!("`{}` answers (status {})", client.url().host_url(), health.status);
            findings.add("reach", Some(remote), state, message);
            if let Some(date) = health.date {
                check_clock(context, &date, remote, findings);
            }
        }
    }
    match client.check_scope() {
        Ok(Scope::Fits(whoami)) => {
            let scopes = whoami.scopes.join(", ");
            findings.add("scope", Some(remote), OK, format!("the token is for this project: {scopes}"));
        }
        Ok(Scope::Unsupported) => findings.add("scope", Some(remote), WARNING, push::UNSUPPORTED.to_owned()),
        Err(error) => {
            let state = if error.kind() == ErrorKind::Unavailable { WARNING } else { BAD };
            findings.add("scope", Some(remote), state, words(&error));
        }
    }
}

fn words(error: &agent_trace_store::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{}: {cause}", error.message()),
        None => error.message().to_owned(),
    }
}

/// How far this clock and that of the service are apart.
fn check_clock(context: &Context, date: &str, remote: &Named, findings: &mut Findings) {
    let Some(theirs) = rfc2822::parse(date).ok().map(|date| date.timestamp()) else { return };
    let Ok(ours) = Timestamp::from_microsecond(context.env.clock.now().micros()) else { return };
    let apart = ours.as_second().saturating_sub(theirs.as_second());
    let direction = if apart > 0 { "ahead of" } else { "behind" };
    if apart.abs() <= SKEW_SECONDS_MAX {
        findings.add("clock", Some(remote), OK, "this clock agrees with the service's".to_owned());
    } else {
        let message = format!("this clock is {} s {direction} the service's", apart.abs());
        findings.add("clock", Some(remote), WARNING, message);
    }
}

fn print(context: &Context, findings: Findings, ok: bool) -> Result<(), Failure> {
    let ui = &context.ui;
    if ui.is_json() {
        return Ok(ui.json(&json::Doctor { schema: json::DOCTOR, ok, checks: findings.0 })?);
    }
    for check in &findings.0 {
        let remote =
            check.remote.as_deref().map(|name| format!("{}: ", sanitize::line(name))).unwrap_or_default();
        let message = sanitize::line(&check.message);
        let mark = match check.state {
            BAD => "XX",
            WARNING => "!!",
            _ => "OK",
        };
        if check.state == BAD {
            ui.line(format_args!("  {}  {remote}{}: {message}", ui.bad(mark), check.check))?;
        } else {
            ui.line(format_args!("  {mark}  {remote}{}: {message}", check.check))?;
        }
    }
    Ok(())
}
