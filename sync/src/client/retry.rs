//! When a request is tried again, and how long to wait before: longer each time, and by chance, so that many clients
//! that were turned away together do not come back together.

use agent_trace_store::env::Env;

use crate::limits::{BACKOFF_MICROS_LEAST, BACKOFF_MICROS_MOST, RETRY_AFTER_MICROS_MAX};

/// The tries of one request.
pub(crate) struct Tries<'a> {
    env: &'a Env,
    left: u32,
    backoff_micros: u64,
}

impl<'a> Tries<'a> {
    /// Starts; a request that may not be repeated has one try.
    pub(crate) fn new(env: &'a Env, tries_max: u32) -> Tries<'a> {
        Tries { env, left: tries_max, backoff_micros: BACKOFF_MICROS_LEAST }
    }

    /// Waits for the next try, if there is one. `asked_micros` is what the service asks for.
    pub(crate) fn wait(&mut self, asked_micros: Option<u64>) -> bool {
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
    matches!(status, 408 | 429 | 502 | 503 | 504)
}

/// How long a `Retry-After` asks to wait: a number of seconds, or a date.
///
/// A date is compared with the `Date` of the same answer and never with a clock of this machine, since the two may
/// differ; without one it says nothing. One that has passed asks for no wait.
pub(crate) fn asked_micros(retry_after: &str, date: Option<&str>) -> Option<u64> {
    let text = retry_after.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // What does not fit is longer than anybody waits.
        return Some(text.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1_000_000));
    }
    let then = httpdate::parse_http_date(text).ok()?;
    let now = httpdate::parse_http_date(date?.trim()).ok()?;
    let wait = then.duration_since(now).unwrap_or_default();
    Some(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX))
}

const _: () = assert!(BACKOFF_MICROS_LEAST >= 2 && BACKOFF_MICROS_LEAST <= BACKOFF_MICROS_MOST);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_number_or_a_date_beside_the_date_of_the_answer() {
        const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        let check = |text: &str, date: Option<&str>, expected: Option<u64>| {
            assert_eq!(asked_micros(text, date), expected, "{text} {date:?}");
        };
        check("7", None, Some(7_000_000));
        check(" 0 ", Some(NOW), Some(0));
        check("99999999999999999999999", None, Some(u64::MAX));
        check("Sun, 06 Nov 1994 08:49:49 GMT", Some(NOW), Some(12_000_000));
        check("Sunday, 06-Nov-94 08:49:49 GMT", Some(NOW), Some(12_000_000));
        check("Sun Nov  6 08:49:49 1994", Some(NOW), Some(12_000_000));
        check("Mon, 07 Nov 1994 08:49:37 GMT", Some(NOW), Some(86_400_000_000));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(NOW), Some(0));
        check("Sat, 05 Nov 1994 08:49:37 GMT", Some(NOW), Some(0));
        check("Sun, 06 Nov 1994 08:49:49 GMT", None, None);
        check("Sun, 06 Nov 1994 08:49:49 GMT", Some("now"), None);
        for odd in ["", "-1", "1.5", "+7", "soon", "Sun, 99 Nov 1994 08:49:49 GMT"] {
            check(odd, Some(NOW), None);
        }
    }
}
