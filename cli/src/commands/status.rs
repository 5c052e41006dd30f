//! `status`: what the store holds, and what its remotes have not got. Reads no record.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_trace_store::store::{Handle, Snapshot};
use agent_trace_store::{ErrorKind, Kind, Result, Store};
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::seal::keys::key_epoch;
use agent_trace_sync::unpushed::{Unpushed, unpushed};

use super::Context;
use crate::capture;
use crate::json;
use crate::remotes::{Named, Remotes};
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::ui::{self, Ui};

pub(super) fn run(context: &Context) -> Result<Done, Failure> {
    let (place, store) = context.open()?;
    let mut damaged = Vec::new();
    let snapshot = look(&store, &mut damaged)?;
    let held = held(&store, &snapshot)?;
    let elsewhere = match store.elsewhere() {
        Ok(elsewhere) => elsewhere.len() as u64,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let path = store.dir().join("elsewhere").display().to_string();
            damaged.push(json::Damaged { path, reason: error.message().to_owned() });
            0
        }
        Err(error) => return Err(error.into()),
    };
    let remotes = Remotes::read(&context.files(&place, &store))?;
    super::remote::warn_of_hidden(&context.ui, &remotes);
    let remotes = remotes.list();
    let remotes =
        remotes.iter().map(|remote| remote_status(&store, remote)).collect::<Result<Vec<_>, Failure>>()?;
    let done = if damaged.is_empty() { Done::Well } else { Done::Corrupt };
    let status = json::Status {
        schema: json::STATUS,
        project: place.project.as_ref().map(ToString::to_string),
        store: place.store.display().to_string(),
        writer: store.writer().to_string(),
        events: held.kinds.values().sum(),
        kinds: json::counts(&held.kinds),
        objects: held.objects,
        elsewhere,
        segments: json::Segments {
            sealed: snapshot.segments.sealed.len() as u64,
            open: u64::from(snapshot.segments.open.is_some()),
        },
        bytes: held.bytes,
        not_indexed: held.not_indexed,
        damaged,
        remotes,
        capture: match place.project {
            Some(_) => Some(capture::shown::shown(&context.env, &place.data)?),
            None => None,
        },
        privacy: super::privacy::status(context, &place, &store)?,
    };
    if context.ui.is_json() {
        context.ui.json(&status)?;
    } else {
        print(&context.ui, &status, &store.writer().short())?;
    }
    Ok(done)
}

/// What there is; damage is listed, and what can be read is counted.
fn look(store: &Store, damaged: &mut Vec<json::Damaged>) -> Result<Snapshot, Failure> {
    let snapshot = match store.snapshot() {
        Ok(snapshot) => snapshot,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            damaged.push(json::Damaged {
                path: store.dir().display().to_string(),
                reason: error.message().to_owned(),
            });
            let segments = store.refresh()?;
            let rows = store.index().read(|view| view.segments()).ok().flatten().unwrap_or_default();
            Snapshot { segments, rows, unindexed: Arc::default(), born: Vec::new() }
        }
        Err(error) => return Err(error.into()),
    };
    for unreadable in snapshot.segments.unreadable.iter() {
        damaged.push(json::Damaged {
            path: unreadable.path.display().to_string(),
            reason: unreadable.error.message().to_owned(),
        });
    }
    Ok(snapshot)
}

/// How many records a store holds; of one that is damaged, as far as it can be read.
pub(super) fn records(store: &Store) -> Result<u64> {
    let snapshot = look(store, &mut Vec::new()).map_err(|failure| failure.error)?;
    Ok(held(store, &snapshot)?.kinds.values().sum())
}

/// What a store holds, by what its segments say of themselves.
struct Held {
    kinds: BTreeMap<Kind, u64>,
    objects: u64,
    not_indexed: u64,
    bytes: json::Bytes,
}

fn held(store: &Store, snapshot: &Snapshot) -> Result<Held> {
    let mut kinds: BTreeMap<Kind, u64> = BTreeMap::new();
    let (mut objects, mut raw) = (0u64, 0u64);
    for sealed in &snapshot.segments.sealed {
        for (kind, events) in &sealed.directory.kinds {
            *kinds.entry(*kind).or_default() += u64::from(*events);
        }
        objects += u64::from(sealed.directory.objects);
        raw += sealed.directory.raw_bytes;
    }
    let open_nonce = snapshot.segments.open.as_ref().map(|open| open.header.nonce);
    for row in snapshot.rows.values().filter(|row| row.id.is_none() && Some(row.nonce) == open_nonce) {
        for (kind, events) in &row.kinds {
            *kinds.entry(*kind).or_default() += u64::from(*events);
        }
        objects += u64::from(row.objects);
        raw += row.raw_bytes;
    }
    let mut not_indexed = 0;
    for part in snapshot.unindexed.iter() {
        not_indexed += part.events.len() as u64;
        // A sealed segment has counted its own.
        if let Handle::Open(_) = part.handle {
            for (event, _, _) in &part.events {
                *kinds.entry(event.fact.kind).or_default() += 1;
            }
            for frame in &part.objects_frames {
                objects += store.objects(&part.handle, *frame)?.len() as u64;
            }
        }
    }
    Ok(Held { kinds, objects, not_indexed, bytes: bytes_of(store, snapshot, raw)? })
}

/// What the files take.
pub(super) fn bytes_of(store: &Store, snapshot: &Snapshot, raw: u64) -> Result<json::Bytes> {
    let sealed: u64 = snapshot.segments.sealed.iter().map(|sealed| sealed.bytes).sum();
    let open = match &snapshot.segments.open {
        Some(open) => open
            .file
            .len()
            .map_err(|error| agent_trace_store::Error::io("cannot look at the open segment", error))?,
        None => 0,
    };
    Ok(json::Bytes { segments: sealed + open, index: store.index().bytes(), raw })
}

/// A remote, and what it has not got.
pub(super) fn remote_status(store: &Store, remote: &Named) -> Result<json::RemoteStatus, Failure> {
    let (unpushed, insecure_http, problem) = match remote.address() {
        Ok(address) => {
            let insecure = match &address {
                RemoteUrl::Service(service) => service.is_insecure(),
                RemoteUrl::Bucket(bucket) => bucket.is_insecure(),
                RemoteUrl::Folder(_) => false,
            };
            (unpushed(store, &address)?, insecure, None)
        }
        Err(failure) => (Unpushed::default(), false, Some(failure.error.message().to_owned())),
    };
    let epoch = match (&remote.secret, remote.address()) {
        (Some(_), Ok(address)) => key_epoch(store, &address)?,
        _ => None,
    };
    Ok(json::RemoteStatus {
        encrypted: remote.secret.is_some(),
        epoch,
        name: remote.name.clone(),
        url: remote.url.clone(),
        default: remote.is_default,
        known: unpushed.known,
        unpushed: unpushed.new,
        held_back: unpushed.held_back,
        elsewhere: unpushed.elsewhere,
        insecure_http,
        problem,
    })
}

/// What a remote has not got, in words.
pub(super) fn unpushed_words(remote: &json::RemoteStatus) -> String {
    let mut words = match (remote.known, remote.unpushed) {
        (false, _) => "not compared with this store yet".to_owned(),
        (true, 0) => "nothing new to push".to_owned(),
        (true, new) => format!("{} unpushed", ui::number(new)),
    };
    if remote.held_back > 0 {
        words.push_str(&format!(", {} held back", ui::number(remote.held_back)));
    }
    if remote.elsewhere > 0 {
        words.push_str(&format!(", {} elsewhere", ui::number(remote.elsewhere)));
    }
    if remote.encrypted {
        let epoch = remote.epoch.map(|epoch| format!(", key of epoch {epoch}")).unwrap_or_default();
        words.push_str(&format!(", encrypted{epoch}"));
    }
    if let Some(problem) = &remote.problem {
        words = sanitize::line(problem).into_owned();
    }
    words
}

/// A word of warning in front of others.
pub(super) fn insecure_words(ui: &Ui, remote: &json::RemoteStatus) -> String {
    if remote.insecure_http { format!("{}  ", ui.bad("insecure http")) } else { String::new() }
}

fn print(ui: &Ui, status: &json::Status, writer: &str) -> Result<()> {
    if let Some(project) = &status.project {
        ui.line(format_args!("project   {}", ui.name(project)))?;
    }
    ui.line(format_args!("store     {}", sanitize::line(&status.store)))?;
    ui.line(format_args!("writer    {writer}"))?;
    ui.line(format_args!("records   {}", ui::number(status.events)))?;
    for kind in Kind::KNOWN.into_iter().chain([Kind::UNKNOWN]) {
        let count = status.kinds.get(kind.name()).copied().unwrap_or(0);
        if count > 0 {
            ui.line(format_args!("          {:>9} {kind}", ui::number(count)))?;
        }
    }
    let open = if status.segments.open > 0 { " and an open one" } else { "" };
    let (objects, sealed) = (ui::number(status.objects), status.segments.sealed);
    ui.line(format_args!("objects   {objects} in {sealed} sealed segment(s){open}"))?;
    if status.elsewhere > 0 {
        ui.line(format_args!(
            "elsewhere {} object(s), to be fetched on demand",
            ui::number(status.elsewhere)
        ))?;
    }
    let bytes = &status.bytes;
    ui.line(format_args!("on disk   {} + {} index", ui::bytes(bytes.segments), ui::bytes(bytes.index)))?;
    if status.remotes.is_empty() {
        ui.line("remotes   none")?;
    }
    for (index, remote) in status.remotes.iter().enumerate() {
        let label = if index == 0 { "remotes" } else { "" };
        let words = unpushed_words(remote);
        let (name, url) = (sanitize::line(&remote.name), sanitize::line(&remote.url));
        let insecure = insecure_words(ui, remote);
        ui.line(format_args!("{label:<9} {}  {url}  {insecure}{words}", ui.name(name)))?;
    }
    if let Some(capture) = &status.capture {
        print_capture(ui, capture)?;
    }
    print_privacy(ui, &status.privacy)?;
    for damaged in &status.damaged {
        let label = ui.bad("damaged");
        ui.line(format_args!(
            "{label}   {}: {}",
            sanitize::line(&damaged.path),
            sanitize::line(&damaged.reason)
        ))?;
    }
    if !status.damaged.is_empty() {
        ui.hint("agent-trace verify");
    }
    Ok(())
}

fn print_privacy(ui: &Ui, privacy: &json::PrivacyStatus) -> Result<()> {
    if privacy.mode == "off" {
        return ui.line("privacy   off");
    }
    let count = |count: u64, what: &str| (count > 0).then(|| format!("{} {what}", ui::number(count)));
    let words = [
        count(privacy.certain, "secret(s)"),
        count(privacy.possible, "possible secret(s)"),
        count(privacy.not_scanned, "record(s) not looked through yet"),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    if !words.is_empty() {
        ui.line(format_args!("privacy   {}", words.join(", ")))?;
    }
    if privacy.certain > 0 {
        ui.hint("agent-trace privacy scan");
    }
    Ok(())
}

/// Failures that are shown; `doctor` counts them, `--json` lists all.
const FAILURES_SHOWN_MAX: usize = 5;

fn print_capture(ui: &Ui, capture: &json::Capture) -> Result<()> {
    let mut words = match capture.waiting {
        0 => "nothing waits".to_owned(),
        waiting => format!("{} event(s) wait, {}", ui::number(waiting), ui::bytes(capture.bytes)),
    };
    for (count, what) in [
        (capture.calls, "call(s) not ended"),
        (capture.commits, "commit(s) to be linked"),
        (capture.odd, "event(s) not understood"),
    ] {
        if count > 0 {
            words.push_str(&format!(", {} {what}", ui::number(count)));
        }
    }
    if capture.flusher {
        words.push_str(", the flusher runs");
    }
    ui.line(format_args!("capture   {words}"))?;
    for (name, heard) in &capture.last {
        let (name, event) = (sanitize::line(name), sanitize::line(&heard.event));
        ui.line(format_args!("          {:<16} {event}, {}", ui.name(name), heard.time))?;
    }
    let hidden = capture.failures.len().saturating_sub(FAILURES_SHOWN_MAX);
    for failed in capture.failures.iter().skip(hidden) {
        let label = ui.bad("failed");
        ui.line(format_args!("{label}    {}: {}", failed.time, sanitize::line(&failed.message)))?;
    }
    if hidden > 0 {
        ui.line(format_args!("          and {hidden} more; --json lists them"))?;
    }
    Ok(())
}
