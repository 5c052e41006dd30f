//! How much each organisation has stored, and whether more may come.
//!
//! What is there is measured when that is needed; what requests add since then is counted on top, before it is written.
//! So what is counted is never less than what is there, and requests that come at once cannot go over a quota together.
//! It may be more: what is measured anew is exact again. That is done before a request is refused, and when much was
//! added near the quota, but not more often than once a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_trace_store::Result;
use agent_trace_store::env::Env;

use crate::limits::{
    ORG_UPLOADS_MAX, QUOTA_MEASURED_AFTER_BYTES, QUOTA_MEASURED_MICROS_MIN, QUOTA_REQUEST_BYTES,
};

/// What an organisation has stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all its files: archives, uploads, staged blobs.
    pub bytes: u64,
    /// Uploads that wait for their commit.
    pub uploads: u64,
}

impl Usage {
    fn plus(self, other: Usage) -> Usage {
        Usage {
            bytes: self.bytes.saturating_add(other.bytes),
            uploads: self.uploads.saturating_add(other.uploads),
        }
    }

    fn less(self, other: Usage) -> Usage {
        Usage {
            bytes: self.bytes.saturating_sub(other.bytes),
            uploads: self.uploads.saturating_sub(other.uploads),
        }
    }
}

/// Whether more may come.
#[derive(Debug)]
pub enum Reserved {
    /// Yes; it is counted from now on.
    Room(Room),
    /// The organisation's bytes would go over its quota.
    OverQuota {
        /// What is counted now.
        bytes: u64,
        /// What it may have.
        quota_bytes: u64,
    },
    /// The organisation has too many uploads that wait for their commit.
    TooManyUploads,
}

/// What one request may add. It counts for as long as the request writes, and then until the next measurement.
#[derive(Debug)]
pub struct Room {
    of: Option<Arc<Counted>>,
    added: Usage,
}

impl Room {
    /// Room where nobody counts.
    pub fn uncounted() -> Room {
        Room { of: None, added: Usage::default() }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(of) = &self.of {
            let mut counts = of.counts();
            counts.writing = counts.writing.less(self.added);
            counts.written = counts.written.plus(self.added);
        }
    }
}

/// The counts of all organisations of one service.
#[derive(Default)]
pub struct Quotas {
    orgs: Mutex<HashMap<String, Arc<Counted>>>,
}

#[derive(Debug, Default)]
struct Counted {
    counts: Mutex<Counts>,
    /// Held by the one that measures; the others that need it wait.
    measuring: Mutex<()>,
}

#[derive(Debug, Default)]
struct Counts {
    /// What was there at the last measurement.
    measured: Usage,
    /// What was added since then.
    written: Usage,
    /// What requests are adding now.
    writing: Usage,
    /// When that measurement began.
    measured_at_micros: Option<u64>,
}

impl Counts {
    fn all(&self) -> Usage {
        self.measured.plus(self.written).plus(self.writing)
    }

    /// Whether what is counted may be far from what is there.
    fn is_stale(&self, quota_bytes: Option<u64>) -> bool {
        let Some(quota) = quota_bytes else { return false };
        let after = (quota / 16).min(QUOTA_MEASURED_AFTER_BYTES);
        self.measured_at_micros.is_none() || self.written.bytes > after
    }
}

fn fits(usage: Usage, quota_bytes: Option<u64>) -> bool {
    quota_bytes.is_none_or(|quota| usage.bytes <= quota) && usage.uploads <= ORG_UPLOADS_MAX
}

impl Counted {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measure(&self, env: &Env, measure: &dyn Fn() -> Result<Usage>) -> Result<()> {
        let began = env.clock.monotonic_micros();
        let _alone = self.measuring.lock().unwrap_or_else(PoisonError::into_inner);
        let before = {
            let mut counts = self.counts();
            let now = env.clock.monotonic_micros();
            // Somebody may have measured while this one waited.
            let is_new = counts
                .measured_at_micros
                .is_some_and(|at| at >= began || now.saturating_sub(at) < QUOTA_MEASURED_MICROS_MIN);
            if is_new {
                return Ok(());
            }
            counts.measured_at_micros = Some(now);
            counts.written
        };
        let found = measure();
        let mut counts = self.counts();
        match found {
            Ok(found) => {
                counts.measured = found;
                // What was added meanwhile may have been seen or not: it is counted.
                counts.written = counts.written.less(before);
                Ok(())
            }
            Err(error) => {
                counts.measured_at_micros = None;
                Err(error)
            }
        }
    }
}

impl Quotas {
    fn of(&self, org_id: &str) -> Arc<Counted> {
        let mut orgs = self.orgs.lock().unwrap_or_else(PoisonError::into_inner);
        orgs.entry(org_id.to_owned()).or_default().clone()
    }

    /// Reserves room for bytes and uploads; `measure` finds what is there.
    pub fn reserve(
        &self,
        env: &Env,
        org_id: &str,
        quota_bytes: Option<u64>,
        added: Usage,
        measure: &dyn Fn() -> Result<Usage>,
    ) -> Result<Reserved> {
        let counted = self.of(org_id);
        // Beside what is sent a little is written: places, times, names.
        let added = added.plus(Usage { bytes: QUOTA_REQUEST_BYTES, uploads: 0 });
        let is_due = {
            let counts = counted.counts();
            counts.is_stale(quota_bytes) || !fits(counts.all().plus(added), quota_bytes)
        };
        if is_due {
            counted.measure(env, measure)?;
        }
        let mut counts = counted.counts();
        let all = counts.all().plus(added);
        if fits(all, quota_bytes) {
            counts.writing = counts.writing.plus(added);
            drop(counts);
            return Ok(Reserved::Room(Room { of: Some(counted), added }));
        }
        Ok(match quota_bytes {
            Some(quota_bytes) if all.bytes > quota_bytes => {
                Reserved::OverQuota { bytes: counts.all().bytes, quota_bytes }
            }
            _ => Reserved::TooManyUploads,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU64, Ordering};

    use agent_trace_store::env::os_env;
    use agent_trace_store::env::sim::SimDisk;

    use super::*;

    const KIB: u64 = 1 << 10;

    fn bytes(bytes: u64) -> Usage {
        Usage { bytes, uploads: 0 }
    }

    fn is_room(reserved: Result<Reserved>) -> bool {
        matches!(reserved.unwrap(), Reserved::Room(_))
    }

    #[test]
    fn what_is_there_counts_and_what_is_gone_does_not() {
        let disk = SimDisk::new(1);
        let env = disk.env();
        let (quotas, there) = (Quotas::default(), AtomicU64::new(900 * KIB));
        let measure = || Ok(bytes(there.load(Ordering::Relaxed)));
        let reserve = |added| quotas.reserve(&env, "org", Some(1024 * KIB), bytes(added), &measure);
        assert!(!is_room(reserve(200 * KIB)));
        assert!(is_room(reserve(50 * KIB)));
        there.store(100 * KIB, Ordering::Relaxed);
        assert!(!is_room(reserve(200 * KIB)), "it is not measured at every request");
        disk.advance(2_000_000);
        assert!(is_room(reserve(200 * KIB)));
        assert!(is_room(quotas.reserve(&env, "org", None, bytes(1 << 60), &measure)));
    }

    #[test]
    fn requests_at_once_do_not_go_over_together() {
        let env = os_env();
        let (quotas, there) = (Quotas::default(), AtomicU64::new(0));
        let measure = || Ok(bytes(there.load(Ordering::SeqCst)));
        let quota = 4096 * KIB;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let reserved = quotas.reserve(&env, "org", Some(quota), bytes(60 * KIB), &measure);
                        if let Reserved::Room(room) = reserved.unwrap() {
                            std::thread::yield_now();
                            there.fetch_add(60 * KIB, Ordering::SeqCst);
                            drop(room);
                        }
                    }
                });
            }
        });
        let there = there.load(Ordering::SeqCst);
        assert!(there <= quota && there + 500 * KIB >= quota, "{there}");
    }

    #[test]
    fn uploads_are_bounded_without_a_quota() {
        let disk = SimDisk::new(1);
        let quotas = Quotas::default();
        let one = Usage { bytes: 1, uploads: 1 };
        let measure = || Ok(Usage { bytes: 0, uploads: ORG_UPLOADS_MAX });
        for _ in 0..ORG_UPLOADS_MAX {
            assert!(is_room(quotas.reserve(&disk.env(), "org", None, one, &measure)));
        }
        let refused = quotas.reserve(&disk.env(), "org", None, one, &measure).unwrap();
        assert!(matches!(refused, Reserved::TooManyUploads));
        assert!(is_room(quotas.reserve(&disk.env(), "other", None, one, &measure)));
        assert!(is_room(quotas.reserve(&disk.env(), "org", None, bytes(1), &measure)));
    }
}
