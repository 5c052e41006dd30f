//! When a request is tried again, and how long to wait before: longer each time, and by chance, so that many clients
//! that were turned away together do not come back together.

use agent_trace_store::env::Env;

use crate::limits::{BACKOFF_MICROS_LEAST, BACKOFF_MICROS_MOST, RETRY_AFTER_MICROS_MAX};

/// The tries of one request.
pub(super) struct Tries<'a> {
    env: &'a Env,
    left: u32,
    backoff_micros: u64,
}

impl<'a> Tries<'a> {
    /// Starts; a request that may not be repeated has one try.
    pub(super) fn new(env: &'a Env, tries_max: u32) -> Tries<'a> {
        Tries { env, left: tries_max, backoff_micros: BACKOFF_MICROS_LEAST }
    }

    /// Waits for the next try, if there is one. `asked_micros` is what the service asks for.
    pub(super) fn wait(&mut self, asked_micros: Option<u64>) -> bool {
        self.left = self.left.saturating_sub(1);
        // Whoever asks for more is not waited for: the user decides.
        if self.left == 0 || asked_micros.is_some_and(|asked| asked > RETRY_AFTER_MICROS_MAX) {
            return false;
        }
        let mut random = [0; 8];
        self.env.entropy.fill(&mut random);
        let half = self.backoff_micros / 2;
        let wait = half + u64::from_le_bytes(random) % (half + 1);
        self.backoff_micros = (self.backoff_micros * 2).min(BACKOFF_MICROS_MOST);
        self.env.clock.sleep(asked_micros.unwrap_or(0) + wait);
        true
    }
}

/// Whether a service that answers so may answer otherwise later.
pub(super) fn passes(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

const _: () = assert!(BACKOFF_MICROS_LEAST >= 2 && BACKOFF_MICROS_LEAST <= BACKOFF_MICROS_MOST);
