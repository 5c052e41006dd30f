//! How much at once: requests by token, and turns for work that needs memory or a thread.
//!
//! Turns are given in the order in which they were asked for, so that nobody waits for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Refusal;
use super::limits::{
    COUNTED_TOKENS_MAX, RECEIVE_BYTES_MAX, REQUESTS_MAX, STAGERS_MAX, STREAMS_MAX, TOKEN_BURST_SECONDS,
    TURN_WAIT_SECONDS_MAX, WORK_BYTES_MAX, WORKERS_MAX,
};

const MICROS: u64 = 1_000_000;

/// Counts requests of each token, or of each organisation.
#[derive(Debug)]
pub(super) struct Rates {
    per_second: u64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Requests that may come now, in millionths.
    credit: u64,
    /// When that was so.
    at_micros: u64,
}

impl Rates {
    /// Lets so many requests of each through every second on average.
    pub(super) fn new(per_second: u32) -> Rates {
        Rates { per_second: u64::from(per_second.max(1)), buckets: Mutex::default() }
    }

    /// Counts a request, or says how many seconds later it may come.
    pub(super) fn take(&self, who: &str, now_micros: u64) -> Result<(), u64> {
        let full = self.per_second * u64::from(TOKEN_BURST_SECONDS) * MICROS;
        let refilled = |bucket: &Bucket| {
            let passed = now_micros.saturating_sub(bucket.at_micros);
            passed.saturating_mul(self.per_second).saturating_add(bucket.credit).min(full)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= COUNTED_TOKENS_MAX && !buckets.contains_key(who) {
            // Who is full again is as good as forgotten; where nobody is, all begin anew.
            buckets.retain(|_, bucket| refilled(bucket) < full);
            if buckets.len() >= COUNTED_TOKENS_MAX {
                buckets.clear();
            }
        }
        let new = Bucket { credit: full, at_micros: now_micros };
        if !buckets.contains_key(who) {
            buckets.insert(who.to_owned(), new);
        }
        let bucket = buckets.get_mut(who).expect("it has just been put there");
        let credit = refilled(bucket);
        *bucket = Bucket { credit: credit.saturating_sub(MICROS), at_micros: now_micros };
        if credit >= MICROS {
            return Ok(());
        }
        bucket.credit = credit;
        Err((MICROS - credit).div_ceil(self.per_second).div_ceil(MICROS).max(1))
    }
}

/// Turns for what is scarce.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// Requests in progress.
    requests: Arc<Semaphore>,
    /// Work on archives.
    workers: Arc<Semaphore>,
    /// Answers that are streamed.
    streams: Arc<Semaphore>,
    /// Blobs that come in.
    stagers: Arc<Semaphore>,
    /// Bytes of bodies that come in.
    receive: Arc<Semaphore>,
    /// Bytes of bodies that are worked on.
    work: Arc<Semaphore>,
}

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Turns {
    /// All turns are free.
    pub(super) fn new() -> Turns {
        let turns = |count| Arc::new(Semaphore::new(count));
        Turns {
            requests: turns(REQUESTS_MAX),
            workers: turns(WORKERS_MAX),
            streams: turns(STREAMS_MAX),
            stagers: turns(STAGERS_MAX),
            receive: turns(RECEIVE_BYTES_MAX),
            work: turns(WORK_BYTES_MAX),
        }
    }

    /// A place among the requests in progress, if there is one.
    pub(super) fn request(&self) -> Result<Turn, Refusal> {
        match self.requests.clone().try_acquire_owned() {
            Ok(permit) => Ok(Turn { _permits: [Some(permit), None] }),
            Err(_) => Err(Refusal::new(503, "unavailable", "too many requests at once").retry_after(1)),
        }
    }

    /// Waits for a turn to work on an archive, with so many bytes in memory.
    pub(super) async fn work(&self, bytes: usize) -> Result<Turn, Refusal> {
        let worker = waited(self.workers.clone().acquire_owned()).await?;
        let bytes = u32::try_from(bytes.min(WORK_BYTES_MAX)).expect("the limit fits");
        let memory = match bytes {
            0 => None,
            _ => Some(waited(self.work.clone().acquire_many_owned(bytes)).await?),
        };
        Ok(Turn { _permits: [Some(worker), memory] })
    }

    /// Waits for a turn to stream an answer.
    pub(super) async fn stream(&self) -> Result<Turn, Refusal> {
        Ok(Turn { _permits: [Some(waited(self.streams.clone().acquire_owned()).await?), None] })
    }

    /// Waits for a turn to take a blob in.
    pub(super) async fn stage(&self) -> Result<Turn, Refusal> {
        Ok(Turn { _permits: [Some(waited(self.stagers.clone().acquire_owned()).await?), None] })
    }

    /// Memory for bytes that come in, if there is some.
    pub(super) fn receive(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        self.receive.clone().try_acquire_many_owned(bytes).ok()
    }
}

async fn waited<T, E>(turn: impl Future<Output = Result<T, E>>) -> Result<T, Refusal> {
    match tokio::time::timeout(Duration::from_secs(TURN_WAIT_SECONDS_MAX), turn).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(Refusal::busy("too much at once")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_a_token_are_bounded_and_come_back() {
        let rates = Rates::new(10);
        let (one, other) = ("one", "other");
        for _ in 0..10 * TOKEN_BURST_SECONDS {
            assert_eq!(rates.take(one, 1_000), Ok(()));
        }
        assert_eq!(rates.take(one, 1_000), Err(1));
        assert_eq!(rates.take(other, 1_000), Ok(()));
        assert_eq!(rates.take(one, 1_000 + MICROS / 10), Ok(()));
        assert_eq!(rates.take(one, 1_000 + MICROS / 10), Err(1));
    }

    #[test]
    fn tokens_beyond_the_limit_are_forgotten() {
        let rates = Rates::new(1);
        for number in 0..COUNTED_TOKENS_MAX + 10 {
            assert_eq!(rates.take(&number.to_string(), 0), Ok(()));
        }
        assert!(rates.buckets.lock().unwrap().len() <= COUNTED_TOKENS_MAX);
    }
}
