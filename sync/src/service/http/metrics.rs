//! What the service counts, and how Prometheus reads it.
//!
//! Labels are routes, methods, statuses and kinds only: nothing names an organisation, a project or a token, so the page
//! tells nothing of tenants and its size is bounded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the latency buckets, in milliseconds.
const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000, 120_000];

#[derive(Debug, Default)]
struct Latency {
    buckets: [AtomicU64; BUCKETS_MS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// A limit of a token or an organisation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// Requests of a token.
    TokenRequests,
    /// Requests of an organisation.
    OrgRequests,
    /// Uploads of an organisation.
    Uploads,
    /// Bytes of an organisation.
    Quota,
}

/// Names of the limits, in their order.
const LIMITS: [&str; 4] = ["token_requests", "org_requests", "org_uploads", "org_bytes"];

/// Counters of one service.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Route and method of each row, and its latencies.
    routes: Vec<(&'static str, &'static str, Latency)>,
    /// Requests by row and status.
    requests: Mutex<BTreeMap<(usize, u16), u64>>,
    /// Bytes of connections, both ways.
    pub(super) bytes_in: AtomicU64,
    /// Bytes of connections, both ways.
    pub(super) bytes_out: AtomicU64,
    /// Connections that are open.
    pub(super) connections: AtomicI64,
    /// Requests in progress.
    pub(super) in_progress: AtomicI64,
    /// Events that arrived by commits.
    pub(super) arrivals: AtomicU64,
    /// Commits that were taken in.
    pub(super) commits: AtomicU64,
    /// Commits that did not check.
    pub(super) refused: AtomicU64,
    /// Requests that were refused by a limit of their token or organisation.
    limits: [AtomicU64; LIMITS.len()],
    /// Items of v1 uploads: stored, known already, skipped.
    pub(super) items: [AtomicU64; 3],
}

impl Metrics {
    /// Starts to count for these routes and methods.
    pub(super) fn new(routes: impl Iterator<Item = (&'static str, &'static str)>) -> Metrics {
        Metrics {
            routes: routes.map(|(route, method)| (route, method, Latency::default())).collect(),
            requests: Mutex::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            connections: AtomicI64::new(0),
            in_progress: AtomicI64::new(0),
            arrivals: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            limits: Default::default(),
            items: Default::default(),
        }
    }

    /// Counts a request that a limit refuses.
    pub(super) fn limited(&self, limit: Limit) {
        self.limits[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that has ended.
    pub(super) fn request(&self, row: usize, status: u16, took: Duration) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((row, status)).or_default() += 1;
        let latency = &self.routes[row].2;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for (bucket, end) in latency.buckets.iter().zip(BUCKETS_MS) {
            if micros <= end * 1000 {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        latency.count.fetch_add(1, Ordering::Relaxed);
        latency.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The page.
    pub(super) fn page(&self) -> String {
        let mut page = Page(String::new());
        page.head("agent_trace_requests_total", "counter", "Requests by route, method and status");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ((row, status), count) in requests {
            let (route, method, _) = &self.routes[row];
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            page.row("agent_trace_requests_total", &labels, count);
        }
        let name = "agent_trace_request_seconds";
        page.head(name, "histogram", "Time until an answer began");
        for (route, method, latency) in &self.routes {
            let count = latency.count.load(Ordering::Relaxed);
            if count == 0 {
                continue;
            }
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            for (bucket, end) in latency.buckets.iter().zip(BUCKETS_MS) {
                let end = format!("{}.{:03}", end / 1000, end % 1000);
                let labels = format!("{labels},le=\"{end}\"");
                page.row(&format!("{name}_bucket"), &labels, bucket.load(Ordering::Relaxed));
            }
            page.row(&format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), count);
            let micros = latency.micros.load(Ordering::Relaxed);
            let seconds = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            page.row(&format!("{name}_sum"), &labels, seconds);
            page.row(&format!("{name}_count"), &labels, count);
        }
        let counters = [
            ("agent_trace_received_bytes_total", "Bytes that clients sent", &self.bytes_in),
            ("agent_trace_sent_bytes_total", "Bytes that clients were sent", &self.bytes_out),
            ("agent_trace_arrivals_total", "Events that commits brought", &self.arrivals),
            ("agent_trace_commits_total", "Commits that were taken in", &self.commits),
            ("agent_trace_commits_refused_total", "Commits that did not check", &self.refused),
        ];
        for (name, help, value) in counters {
            page.head(name, "counter", help);
            page.row(name, "", value.load(Ordering::Relaxed));
        }
        let name = "agent_trace_items_total";
        page.head(name, "counter", "Items of version 1 by what became of them");
        for (kind, value) in ["stored", "known", "skipped"].iter().zip(&self.items) {
            page.row(name, &format!("kind=\"{kind}\""), value.load(Ordering::Relaxed));
        }
        let name = "agent_trace_limited_total";
        page.head(name, "counter", "Requests refused by a limit of their token or organisation");
        for (limit, value) in LIMITS.iter().zip(&self.limits) {
            page.row(name, &format!("limit=\"{limit}\""), value.load(Ordering::Relaxed));
        }
        let gauges = [
            ("agent_trace_connections", "Connections that are open", &self.connections),
            ("agent_trace_requests_in_progress", "Requests in progress", &self.in_progress),
        ];
        for (name, help, value) in gauges {
            page.head(name, "gauge", help);
            page.row(name, "", value.load(Ordering::Relaxed));
        }
        page.0
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes all");
    }

    fn row(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        writeln!(self.0, "{name}{labels} {value}").expect("a string takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_counts_by_route_and_adds_up() {
        let metrics = Metrics::new([("/", "GET"), ("/health", "GET")].into_iter());
        metrics.request(1, 200, Duration::from_micros(1_500));
        metrics.request(1, 200, Duration::from_secs(200));
        metrics.commits.fetch_add(3, Ordering::Relaxed);
        metrics.limited(Limit::Quota);
        let page = metrics.page();
        for line in [
            "agent_trace_requests_total{method=\"GET\",route=\"/health\",status=\"200\"} 2",
            "agent_trace_request_seconds_bucket{method=\"GET\",route=\"/health\",le=\"0.001\"} 0",
            "agent_trace_request_seconds_bucket{method=\"GET\",route=\"/health\",le=\"0.002\"} 1",
            "agent_trace_request_seconds_bucket{method=\"GET\",route=\"/health\",le=\"+Inf\"} 2",
            "agent_trace_request_seconds_sum{method=\"GET\",route=\"/health\"} 200.001500",
            "agent_trace_commits_total 3",
            "agent_trace_limited_total{limit=\"org_uploads\"} 0",
            "agent_trace_limited_total{limit=\"org_bytes\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("route=\"/\""));
    }
}
