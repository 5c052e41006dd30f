//! Waiting for an advisory lock, with a limit; released by drop or death, so never cleaned up by hand.

use std::path::Path;

use crate::env::{Env, Lock, LockMode};
use crate::error::{Error, ErrorKind, Result};

const WAIT_MICROS_FIRST: u64 = 200;
const WAIT_MICROS_LAST: u64 = 20_000;

/// Takes a lock, waiting with growing, jittered pauses up to a limit.
pub fn lock(env: &Env, path: &Path, mode: LockMode, wait_micros_max: u64) -> Result<Box<dyn Lock>> {
    let start = env.clock.monotonic_micros();
    let mut pause = WAIT_MICROS_FIRST;
    loop {
        let taken = env
            .fs
            .try_lock(path, mode)
            .map_err(|error| Error::io(format!("cannot lock `{}`", path.display()), error))?;
        if let Some(lock) = taken {
            return Ok(lock);
        }
        if env.clock.monotonic_micros().saturating_sub(start) >= wait_micros_max {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("another process has held `{}` for too long", path.display()),
            ));
        }
        let mut jitter = [0; 1];
        env.entropy.fill(&mut jitter);
        env.clock.sleep(pause / 2 + pause * u64::from(jitter[0]) / 512);
        pause = (pause * 2).min(WAIT_MICROS_LAST);
    }
}
