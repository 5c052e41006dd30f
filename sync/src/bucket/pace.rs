//! No more than so many bytes a second: whoever passes bytes on waits for its turn first.
//!
//! One pace for all that goes at once. Half a second may be passed at once, so that small requests do not wait.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The largest part that is passed on at once.
pub(super) const PART_BYTES: usize = 64 << 10;
const AHEAD: Duration = Duration::from_millis(500);

/// A pace that many keep together.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When all that was passed on so far will have been paid for.
    paid_until: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most so many bytes a second.
    pub(super) fn new(bytes_per_second: u64) -> Pace {
        Pace { bytes_per_second: bytes_per_second.max(1), paid_until: Mutex::new(None) }
    }

    /// Waits until so many bytes may be passed on.
    pub(super) async fn wait(&self, bytes: usize) {
        let until = self.book(bytes, Instant::now());
        if let Some(at) = until.checked_sub(AHEAD) {
            tokio::time::sleep_until(at).await;
        }
    }

    /// Books bytes behind those that were booked before; returns when all of it is paid for.
    fn book(&self, bytes: usize, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let until = paid_until.map_or(now, |until| until.max(now)) + cost;
        *paid_until = Some(until);
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_for_one_after_the_other() {
        let pace = Pace::new(1000);
        let now = Instant::now();
        assert_eq!(pace.book(500, now), now + Duration::from_millis(500));
        assert_eq!(pace.book(1000, now), now + Duration::from_millis(1500));
        // Time that passed without bytes is not saved up.
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.book(1000, later), later + Duration::from_secs(1));
    }
}
