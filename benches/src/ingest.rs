//! Version 1 ingest: batches of 500 traces over one and over four connections, each answered when it is durable.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use crate::Options;
use crate::files;
use crate::records;
use crate::report::{Report, Result, megabytes, megabytes_number};
use crate::served::{self, Served};

const BATCH: usize = 500;
const CONNECTIONS: [usize; 2] = [1, 4];
const TRACES: u64 = 200_000;
const TRACES_QUICK: u64 = 5_000;
const RATE_MIN: f64 = 20_000.0;
const RSS_MB_MAX: f64 = 300.0;

/// Measures the ingest into empty projects.
pub(crate) fn run(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let traces = if options.quick { TRACES_QUICK } else { TRACES };
    // Half of the generated records are traces.
    let dir = records::folder(options, 2 * traces, options.seed)?;
    let file = dir.join("traces.jsonl");
    files::warm(&dir)?;
    report.text(&format!(
        "Version 1: {traces} traces ({} MB), 500 in a batch.",
        megabytes(files::bytes_below(&file)?)
    ));
    println!("| connections | records/s | wall s | service CPU s | service peak RSS MB |");
    println!("|---|---|---|---|---|");
    let (mut rates, mut rss_bytes) = (Vec::new(), 0);
    for connections in CONNECTIONS {
        let data = work.join("data-ingest");
        let token = served::found(options.binary()?, &data, 1)?.remove(0);
        let service = Served::start(options.binary()?, &data)?;
        let source = Mutex::new(BufReader::new(File::open(&file)?).lines());
        rustix::fs::sync();
        let begin = Instant::now();
        let taken = post_all(&source, connections, service.address, &token)?;
        let wall_s = begin.elapsed().as_secs_f64();
        let cost = service.stop()?;
        if taken != traces {
            return Err(format!("{taken} of {traces} traces were taken in").into());
        }
        println!(
            "| {connections} | {:.0} | {wall_s:.3} | {:.3} | {} |",
            taken as f64 / wall_s,
            cost.cpu_s,
            megabytes(cost.rss_bytes)
        );
        rates.push((connections, taken as f64 / wall_s));
        rss_bytes = rss_bytes.max(cost.rss_bytes);
        files::remove(&data)?;
    }
    println!();
    for (connections, rate) in rates {
        report.at_least(&format!("version 1 ingest, records/s, {connections} connection(s)"), rate, RATE_MIN);
    }
    report.at_most("peak RSS of the service, MB", megabytes_number(rss_bytes), RSS_MB_MAX);
    Ok(())
}

type Source = Mutex<Lines<BufReader<File>>>;

/// Sends all traces, and gives how many the service says it took in.
fn post_all(source: &Source, connections: usize, address: SocketAddr, token: &str) -> Result<u64> {
    let sent = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| post(source, address, token).map_err(|error| error.to_string())))
            .collect();
        handles.into_iter().map(|handle| handle.join().map_err(|_| "a thread panicked".to_owned())?).sum()
    });
    let sent: std::result::Result<u64, String> = sent;
    Ok(sent?)
}

fn post(source: &Source, address: SocketAddr, token: &str) -> Result<u64> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let (mut taken, mut message) = (0, Vec::new());
    while let Some(body) = body(source)? {
        message.clear();
        write!(
            message,
            "POST /api/v1/sync/traces HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        stream.write_all(&message)?;
        taken += answer(&mut answers)?;
    }
    Ok(taken)
}

/// The next batch, or none.
fn body(source: &Source) -> Result<Option<String>> {
    let mut lines = source.lock().map_err(|_| "a thread panicked")?;
    let mut body = String::from("{\"project_id\": \"web\", \"items\": [");
    let mut count = 0;
    for line in lines.by_ref().take(BATCH) {
        body.push_str(if count == 0 { "" } else { ", " });
        body.push_str(&line?);
        count += 1;
    }
    body.push_str("]}");
    Ok((count > 0).then_some(body))
}

/// Reads one answer, which must be a success, and gives how many it says were taken in.
pub(crate) fn answer(from: &mut BufReader<TcpStream>) -> Result<u64> {
    let (mut status, mut length) = (String::new(), 0);
    from.read_line(&mut status)?;
    loop {
        let mut header = String::new();
        from.read_line(&mut header)?;
        let header = header.trim_end().to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if header.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    if !status.contains(" 200 ") {
        return Err(format!("{}: {}", status.trim_end(), String::from_utf8_lossy(&body)).into());
    }
    let said: serde_json::Value = serde_json::from_slice(&body)?;
    let skipped = said["skipped_count"].as_u64().unwrap_or(0);
    Ok(said["count"].as_u64().ok_or("no count")? - skipped)
}
