//! The background flusher: started by a hook where none runs, absorbs what the spool gathers, and goes.
//!
//! Detached from the agent and from git: its own session, no terminal, no pipes. One at a time for each project, by
//! `flush.lock`. After a failure it keeps the lock for a while, so that a store which is broken is not tried at each
//! event. Nothing depends on it: the next command absorbs what it leaves.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};

use agent_trace_store::env::{Env, Lock, LockMode, os_env, yield_to_others};
use agent_trace_store::progress::Silent;
use agent_trace_store::{Error, Result, Store};
use agent_trace_sync::gate::all_events;

use super::absorb::{self, Absorbed, Place};
use super::limits::{BACKOFF_MICROS, GATHER_MICROS, LINGER_MICROS, LOOK_MICROS, MARK_MICROS_MAX};
use super::spool::Spool;
use super::{commits, pushes};
use crate::privacy::gate;
use crate::privacy::policy::{Mode, Policy};
use crate::settings::{self, CaptureSettings};

/// The hidden command that a hook starts.
pub(crate) const COMMAND: &str = "flush-spool";

/// How much longer than absorbing itself a flusher rests, so that large transcripts do not keep it busy.
const REST_FACTOR: u64 = 4;
/// How long a flusher waits for a command that absorbs.
const WAIT_MICROS_MAX: u64 = 10_000_000;

/// Starts a flusher, unless one runs. That it cannot be started is noted: the entries wait for the next command.
pub(crate) fn start(env: &Env, data: &Path, spool: &Spool, settings: &CaptureSettings) {
    if !settings.flush || !matches!(try_lock(env, spool), Ok(Some(_))) {
        return;
    }
    let started = settings::program().and_then(|program| {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(data).current_dir(data);
        // What git says of its caller's repository is not meant for this process.
        settings::git_variables().into_iter().for_each(|name| {
            command.env_remove(name);
        });
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    });
    if let Err(error) = started {
        spool.note(env, &format!("cannot start the flusher: {error}"));
    }
}

/// Whether a flusher runs.
pub(crate) fn is_running(env: &Env, spool: &Spool) -> bool {
    env.fs.metadata(&spool.path("flush.lock")).is_ok() && matches!(try_lock(env, spool), Ok(None))
}

fn try_lock(env: &Env, spool: &Spool) -> std::io::Result<Option<Box<dyn Lock>>> {
    env.fs.try_lock(&spool.path("flush.lock"), LockMode::Exclusive)
}

/// The flusher itself.
pub(crate) fn run(args: &[OsString]) {
    let [data] = args else { return };
    std::panic::set_hook(Box::new(|_| {}));
    let env = os_env();
    let data = Path::new(data);
    let spool = Spool::of(data);
    let Ok(data) = data.canonicalize() else { return };
    // A terminal that is closed takes its session with it.
    let _ = rustix::process::setsid();
    yield_to_others();
    loop {
        let Ok(Some(_alone)) = try_lock(&env, &spool) else { return };
        let done = catch_unwind(AssertUnwindSafe(|| work(&env, &data, &spool)));
        let stay = match done {
            Ok(Ok(absorbed)) => absorbed.stay,
            Ok(Err(error)) => {
                spool.note(&env, &format!("cannot absorb: {}", with_cause(&error)));
                env.clock.sleep(BACKOFF_MICROS);
                return;
            }
            Err(_) => {
                spool.note(&env, "cannot absorb: a mistake of agent-trace");
                env.clock.sleep(BACKOFF_MICROS);
                return;
            }
        };
        drop(_alone);
        // A hook that came while the lock was still held has started nobody.
        let left = spool.list(&env).unwrap_or_default();
        if left.iter().all(|name| stay.contains(name)) {
            return;
        }
    }
}

/// Absorbs until nothing has come for a while.
fn work(env: &Env, data: &Path, spool: &Spool) -> Result<Absorbed> {
    env.clock.sleep(GATHER_MICROS);
    let store = Store::open(env, &data.join("store"))?;
    let place = Place { data, spool, store: &store };
    let mut all = Absorbed::default();
    let mut idle = 0;
    while idle < LINGER_MICROS {
        if spool.list(env)?.iter().all(|name| all.stay.contains(name)) {
            env.clock.sleep(LOOK_MICROS);
            idle += LOOK_MICROS;
            continue;
        }
        idle = 0;
        let began = env.clock.monotonic_micros();
        let absorbed = {
            let _alone = absorb::alone(env, spool, WAIT_MICROS_MAX)?;
            let absorbed = absorb::run(&place, None)?;
            commits::run(&place, usize::MAX)?;
            absorbed
        };
        pushes::run(&place);
        all.seen.extend(absorbed.seen);
        all.stay.extend(absorbed.stay);
        let took = env.clock.monotonic_micros().saturating_sub(began);
        env.clock.sleep(GATHER_MICROS.max(took.saturating_mul(REST_FACTOR)));
    }
    // A command may have absorbed what git told of a push.
    pushes::run(&place);
    let _alone = absorb::alone(env, spool, WAIT_MICROS_MAX)?;
    // Agents write the end of a transcript after the last event.
    absorb::refresh(&place, &std::mem::take(&mut all.seen))?;
    absorb::tidy(&place);
    store.catch_up()?;
    mark_secrets(env, data, spool, &store);
    Ok(all)
}

/// Looks for secrets in what is new, so that `status` can tell of them before anything is sent. A failure is noted: the
/// gate looks again before anything leaves.
fn mark_secrets(env: &Env, data: &Path, spool: &Spool, store: &Store) {
    let home = data.parent().and_then(Path::parent);
    let until = env.clock.monotonic_micros() + MARK_MICROS_MAX;
    let marked = Policy::read(env, home, data).and_then(|policy| {
        if policy.mode != Mode::Off {
            gate::scanned(store, &all_events(store)?, &policy, &Silent, Some(until))?;
        }
        Ok(())
    });
    if let Err(error) = marked {
        spool.note(env, &format!("cannot look for secrets: {}", with_cause(&error)));
    }
}

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
