//! Our service as a process of its own on a loopback port, over a data folder; and a proxy that counts bytes.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use wait4::Wait4 as _;

use crate::files;
use crate::measure::{self, Cost};
use crate::report::Result;

const ADMIN_SECRET: &str = "a-secret-of-the-benchmark-only-0123456789";
const ORG: &str = "acme";
const PROJECT: &str = "web";

/// A service that runs.
pub(crate) struct Served {
    /// None after `stop`.
    child: Option<Child>,
    begin: Instant,
    pub(crate) address: SocketAddr,
    metrics: SocketAddr,
}

/// What a service counted of its requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) requests: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// Makes a new data folder with one project, and so many tokens for it.
pub(crate) fn found(binary: &Path, data: &Path, tokens: u32) -> Result<Vec<String>> {
    files::renew(data)?;
    let admin = |arguments: &[&str]| {
        let mut command = Command::new(binary);
        command.args(["admin"]).args(arguments).arg("--data").arg(data);
        measure::output(command.arg("--json"))
    };
    admin(&["org", "create", ORG])?;
    admin(&["project", "create", PROJECT, "--org", ORG])?;
    let token = |_| -> Result<String> {
        let said = admin(&["token", "create", "--org", ORG, "--project", PROJECT])?;
        let said: serde_json::Value = serde_json::from_str(said.trim())?;
        Ok(said["token"].as_str().ok_or("no token was made")?.to_owned())
    };
    (0..tokens).map(token).collect()
}

/// The URL of the project at an address.
pub(crate) fn url(address: SocketAddr) -> String {
    format!("http://{address}/{ORG}/{PROJECT}")
}

impl Served {
    /// Starts one over a data folder that `found` made.
    pub(crate) fn start(binary: &Path, data: &Path) -> Result<Served> {
        let log = std::fs::File::create(data.with_extension("log"))?;
        let mut command = Command::new(binary);
        command.args(["serve", "--json", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data"]);
        command.arg(data).env("AGENT_TRACE_ADMIN_SECRET", ADMIN_SECRET);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let begin = Instant::now();
        let mut child = command.spawn()?;
        let said = child.stdout.take();
        let none = SocketAddr::from(([0, 0, 0, 0], 0));
        // From here on a failure ends the process too.
        let mut served = Served { child: Some(child), begin, address: none, metrics: none };
        let mut line = String::new();
        BufReader::new(said.ok_or("no pipe")?).read_line(&mut line)?;
        let said: serde_json::Value = serde_json::from_str(&line)
            .map_err(|error| format!("the service did not say where it listens: {error}"))?;
        let address = |member: &str| -> Result<SocketAddr> {
            let url = said[member].as_str().ok_or("no address")?;
            let host = url.trim_start_matches("http://").trim_end_matches("/metrics");
            Ok(host.parse()?)
        };
        (served.address, served.metrics) = (address("url")?, address("metrics")?);
        Ok(served)
    }

    /// The requests so far, and the bytes that went through its sockets, headers too.
    pub(crate) fn traffic(&self) -> Result<Traffic> {
        let mut stream = TcpStream::connect(self.metrics)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let sum = |name: &str| -> u64 {
            let rows = text.lines().filter(|line| line.starts_with(name));
            rows.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        Ok(Traffic {
            requests: sum("agent_trace_requests_total"),
            bytes_in: sum("agent_trace_received_bytes_total"),
            bytes_out: sum("agent_trace_sent_bytes_total"),
        })
    }

    /// Ends it as an operator does, and tells what it took; a service that does not end well is an error.
    pub(crate) fn stop(mut self) -> Result<Cost> {
        let child = self.child.take().ok_or("the service was stopped before")?;
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        let used = child.wait4()?;
        if !used.status.success() {
            return Err(format!("the service ended with {}", used.status).into());
        }
        Ok(Cost {
            wall_s: self.begin.elapsed().as_secs_f64(),
            cpu_s: (used.rusage.utime + used.rusage.stime).as_secs_f64(),
            rss_bytes: used.rusage.maxrss,
        })
    }
}

impl Drop for Served {
    /// One that an error left behind must not go on.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Passes connections on to the service and counts what goes through, headers too.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts one; it goes with this process.
    pub(crate) fn start(to: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&bytes);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client whose service is gone sees a connection that ends.
                let Ok(service) = TcpStream::connect(to) else { continue };
                let (Ok(client2), Ok(service2)) = (client.try_clone(), service.try_clone()) else { continue };
                pass(client, service, Arc::clone(&counter));
                pass(service2, client2, Arc::clone(&counter));
            }
        });
        Ok(Proxy { address, bytes })
    }

    /// Bytes in both directions since the last call.
    pub(crate) fn take(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, bytes: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            bytes.fetch_add(length as u64, Ordering::Relaxed);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
