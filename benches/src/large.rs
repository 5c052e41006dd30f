//! Memory of the service while large bodies come in beside many small ones, by version 1.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use crate::Options;
use crate::ingest::answer;
use crate::report::{Report, Result, megabytes, megabytes_number};
use crate::served::{self, Served};

const CLIENTS: usize = 200;
const BATCHES: usize = 5;
const RECORDS: usize = 8;
const LARGE: usize = 4;
/// Transcripts of one large body, of 7.2 MB and of 15 MB, so that it has about 100 MB.
const PARTS: [(usize, usize); 2] = [(13, 7_200_000), (6, 15_000_000)];
const RSS_MB_MAX: f64 = 300.0;

/// Measures the peak.
pub(crate) fn run(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let data = work.join("data-large");
    let token = served::found(options.binary()?, &data, 1)?.remove(0);
    let service = Served::start(options.binary()?, &data)?;
    let (address, token) = (service.address, token.as_str());
    let bodies: Vec<String> = (0..LARGE).map(large).collect();
    let bytes: usize = bodies.iter().map(String::len).sum();
    std::thread::scope(|scope| -> Result<()> {
        let large = bodies.iter().map(|body| {
            scope
                .spawn(move || send(address, token, "conversations", body).map_err(|error| error.to_string()))
        });
        let mut handles: Vec<_> = large.collect();
        handles.extend((0..CLIENTS).map(|client| {
            scope.spawn(move || {
                let batches = (0..BATCHES).map(|batch| small(client, batch));
                let sent =
                    batches.map(|body| send(address, token, "traces", &body)).collect::<Result<Vec<_>>>();
                sent.map(|counts| counts.iter().sum()).map_err(|error| error.to_string())
            })
        }));
        let mut taken = 0;
        for handle in handles {
            taken += handle.join().map_err(|_| "a thread panicked")??;
        }
        let sent = CLIENTS * BATCHES * RECORDS + (0..LARGE).map(|number| PARTS[number % 2].0).sum::<usize>();
        if taken != sent as u64 {
            return Err(format!("{taken} of {sent} items were taken in").into());
        }
        Ok(())
    })?;
    let cost = service.stop()?;
    report.text(&format!(
        "{LARGE} bodies of version 1, {} MB in all, beside {CLIENTS} clients with {BATCHES} batches of {RECORDS} traces each: all taken in; \
         service: peak RSS {} MB, CPU {:.2} s.",
        megabytes(bytes as u64),
        megabytes(cost.rss_bytes),
        cost.cpu_s
    ));
    report.at_most("peak RSS with large bodies, MB", megabytes_number(cost.rss_bytes), RSS_MB_MAX);
    crate::files::remove(&data)
}

fn large(number: usize) -> String {
    let (count, bytes) = PARTS[number % 2];
    let items: Vec<String> = (0..count)
        .map(|item| {
            let line = format!("{number} {item} the quick brown fox jumps over the lazy dog ");
            let text = line.repeat(bytes / line.len());
            format!(r#"{{"conversation_id":"c{number}-{item}","content":"{text}"}}"#)
        })
        .collect();
    format!(r#"{{"project_id":"web","items":[{}]}}"#, items.join(","))
}

fn small(client: usize, batch: usize) -> String {
    let items: Vec<String> = (0..RECORDS)
        .map(|item| {
            format!(
                r#"{{"version":"2.0","id":"t{client}-{batch}-{item}","timestamp":"2026-01-01T00:00:00Z","files":[]}}"#
            )
        })
        .collect();
    format!(r#"{{"project_id":"web","items":[{}]}}"#, items.join(","))
}

/// Sends one body on a connection of its own, and gives how many items the service says it took in.
fn send(address: SocketAddr, token: &str, resource: &str, body: &str) -> Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    write!(
        stream,
        "POST /api/v1/sync/{resource} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    answer(&mut answers)
}
