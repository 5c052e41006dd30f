//! Work on many things of which each waits for the other side: several at once, handed over one by one in their order.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use agent_trace_store::Result;

/// What stands between those who work and the one who takes.
struct Table<R> {
    /// The next to work on.
    next: usize,
    /// How many have been handed over.
    taken: usize,
    done: Vec<Option<Result<R>>>,
    /// Whoever takes does not go on.
    stop: bool,
}

/// Works on all items, at most `at_once` of them ahead of the one that is handed over to `take`. Ends with the first error
/// that `take` returns. With one at a time all happens here, one after the other.
pub(crate) fn in_order<T: Sync, R: Send>(
    items: &[T],
    at_once: usize,
    work: &(dyn Fn(&T) -> Result<R> + Sync),
    take: &mut dyn FnMut(&T, Result<R>) -> Result<()>,
) -> Result<()> {
    if at_once <= 1 || items.len() <= 1 {
        return items.iter().try_for_each(|item| take(item, work(item)));
    }
    let done = items.iter().map(|_| None).collect();
    let table = Mutex::new(Table { next: 0, taken: 0, done, stop: false });
    let changed = Condvar::new();
    let lock = || -> MutexGuard<'_, Table<R>> { table.lock().unwrap_or_else(PoisonError::into_inner) };
    let wait = |guard| changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
    let work_on = || {
        loop {
            let mut guard = lock();
            while !guard.stop && guard.next < items.len() && guard.next >= guard.taken + at_once {
                guard = wait(guard);
            }
            let number = guard.next;
            if guard.stop || number >= items.len() {
                return;
            }
            guard.next += 1;
            drop(guard);
            let result = work(&items[number]);
            lock().done[number] = Some(result);
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        // Whatever happens here, nobody is left waiting.
        let _stop = Stop(&|| {
            lock().stop = true;
            changed.notify_all();
        });
        let threads: Vec<_> = (0..at_once.min(items.len())).map(|_| scope.spawn(work_on)).collect();
        for (number, item) in items.iter().enumerate() {
            let mut guard = lock();
            let result = loop {
                if let Some(result) = guard.done[number].take() {
                    break result;
                }
                // One that panicked brings no result; its panic goes on when the scope ends.
                if threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                    return Ok(());
                }
                let waited = changed.wait_timeout(guard, std::time::Duration::from_millis(100));
                guard = waited.unwrap_or_else(PoisonError::into_inner).0;
            };
            guard.taken = number + 1;
            drop(guard);
            changed.notify_all();
            take(item, result)?;
        }
        Ok(())
    })
}

struct Stop<'a>(&'a dyn Fn());

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use agent_trace_store::Error;

    use super::*;

    #[test]
    fn all_is_handed_over_in_order_and_not_too_far_ahead() {
        for at_once in [1, 2, 7, 200] {
            let items: Vec<usize> = (0..100).collect();
            let (started, mut taken) = (AtomicUsize::new(0), Vec::new());
            let work = |item: &usize| {
                started.fetch_add(1, Ordering::Relaxed);
                Ok(item * 2)
            };
            in_order(&items, at_once, &work, &mut |item, result| {
                assert_eq!(result?, item * 2);
                assert!(started.load(Ordering::Relaxed) <= item + 1 + at_once);
                taken.push(*item);
                Ok(())
            })
            .unwrap();
            assert_eq!(taken, items);
        }
    }

    #[test]
    fn an_error_ends_it() {
        let items: Vec<usize> = (0..1000).collect();
        let work = |item: &usize| if *item == 9 { Err(Error::invalid("nine")) } else { Ok(()) };
        let mut taken = 0;
        let ended = in_order(&items, 4, &work, &mut |_, result| {
            taken += 1;
            result
        });
        assert_eq!((ended.unwrap_err().message(), taken), ("nine", 10));
    }
}
