//! A proxy on a loopback port between a client and the service, which does to connections what networks do: refuses them,
//! cuts them at a byte, lets them stall, closes one way, puts bytes in between, and sends requests a second time.
//!
//! It reads requests by their `Content-Length`, as both clients send them, and knows nothing else of HTTP.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::Random;

/// What waits longer for a socket hangs.
const HANGS: Duration = Duration::from_secs(60);
/// What is moved at once.
const PIECE_BYTES: usize = 16 << 10;
/// Requests that are longer are not sent twice.
const DOUBLED_BYTES_MAX: usize = 16 << 20;

/// The way that bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the service.
    Up,
    /// To the client.
    Down,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    Spare,
    /// It is closed as soon as it is taken.
    Refuse,
    /// It is closed once so many bytes have gone one way.
    Cut(Way, u64),
    /// There nothing moves for some milliseconds; then it is closed.
    Stall(Way, u64, u64),
    /// There only this way is closed.
    HalfClose(Way, u64),
    /// There come bytes that nobody sent, and it is closed.
    Garbage(Way, u64),
    /// Each of its requests goes to the service a second time, on a connection of its own; that answer goes nowhere.
    Double,
}

/// What is done when enough bytes have passed.
struct Trigger {
    left: u64,
    act: Box<dyn FnOnce() + Send>,
}

struct Shared {
    to: SocketAddr,
    faults: Mutex<Box<dyn FnMut() -> Fault + Send>>,
    trigger: Mutex<Option<Trigger>>,
    passed: AtomicU64,
    hits: AtomicU64,
    /// Whether protocol 2 is hidden, as behind a service that does not know it.
    hides: AtomicBool,
}

/// The proxy; it lives as long as the test's process.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens at any port and leads to a service.
    pub(crate) fn start(to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            to,
            faults: Mutex::new(Box::new(|| Fault::Spare)),
            trigger: Mutex::default(),
            passed: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            hides: AtomicBool::new(false),
        });
        let of_threads = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = of_threads.clone();
                // How a connection ends is what the test is about.
                std::thread::spawn(move || drop(lead(client, &shared)));
            }
        });
        Proxy { address, shared }
    }

    /// The URL of something behind it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Chooses what becomes of each further connection.
    pub(crate) fn set_faults(&self, faults: impl FnMut() -> Fault + Send + 'static) {
        *self.shared.faults.lock().unwrap() = Box::new(faults);
    }

    /// Does nothing to connections from now on.
    pub(crate) fn spare(&self) {
        self.set_faults(|| Fault::Spare);
    }

    /// Hides protocol 2.
    pub(crate) fn hide_protocol_2(&self) {
        self.shared.hides.store(true, Ordering::Relaxed);
    }

    /// Does something once, as soon as so many further bytes have passed, whichever way; what comes behind them waits.
    pub(crate) fn after(&self, bytes: u64, act: impl FnOnce() + Send + 'static) {
        *self.shared.trigger.lock().unwrap() = Some(Trigger { left: bytes, act: Box::new(act) });
    }

    /// Forgets what was to be done, if it was not.
    pub(crate) fn disarm(&self) {
        self.shared.trigger.lock().unwrap().take();
    }

    /// Bytes that have passed.
    pub(crate) fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// Connections that something was done to.
    pub(crate) fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::Relaxed)
    }
}

/// A mix of all faults, of a seed: half of the connections are spared.
pub(crate) fn mixed(seed: u64, bytes_max: u64) -> impl FnMut() -> Fault + Send + 'static {
    let mut random = Random(seed);
    move || {
        // Small places are as likely as large ones: heads are there, and the ends of small answers.
        let bits = random.below(u64::BITS as usize - bytes_max.leading_zeros() as usize) + 1;
        let at = random.next() & ((1 << bits) - 1);
        let way = if random.below(2) == 0 { Way::Up } else { Way::Down };
        match random.below(12) {
            0 => Fault::Refuse,
            1 | 2 => Fault::Cut(way, at),
            3 => Fault::Stall(way, at, 20 + random.next() % 200),
            4 => Fault::HalfClose(way, at),
            5 => Fault::Garbage(Way::Down, at),
            6 | 7 => Fault::Double,
            _ => Fault::Spare,
        }
    }
}

/// One connection.
struct Link {
    client: TcpStream,
    service: TcpStream,
    fault: Fault,
    up: AtomicU64,
    down: AtomicU64,
    shared: Arc<Shared>,
}

fn lead(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let fault = (shared.faults.lock().unwrap())();
    if fault == Fault::Refuse {
        shared.hits.fetch_add(1, Ordering::Relaxed);
        return client.shutdown(Shutdown::Both);
    }
    let service = TcpStream::connect(shared.to)?;
    for stream in [&client, &service] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANGS))?;
        stream.set_write_timeout(Some(HANGS))?;
    }
    let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
    let link = Link { client, service, fault, up, down, shared: shared.clone() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if link.answers().is_err() {
                link.close();
            }
            let _ = link.client.shutdown(Shutdown::Write);
        });
        if link.requests().is_err() {
            link.close();
        }
        let _ = link.service.shutdown(Shutdown::Write);
    });
    Ok(())
}

impl Link {
    fn close(&self) {
        for stream in [&self.client, &self.service] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes requests to the service, one after the other.
    fn requests(&self) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(PIECE_BYTES, &self.client);
        loop {
            let Some((head, length)) = read_head(&mut reader)? else { return Ok(()) };
            let mut body = (&mut reader).take(length);
            let is_hidden = self.shared.hides.load(Ordering::Relaxed)
                && head.split(|byte| *byte == b'\r').next().is_some_and(|line| has(line, b" /api/v2/"));
            if is_hidden {
                io::copy(&mut body, &mut io::sink())?;
                let answer =
                    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
                (&self.client).write_all(answer)?;
                continue;
            }
            let mut copy = (self.fault == Fault::Double).then(|| head.clone());
            self.pass(Way::Up, &head)?;
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                let count = body.read(&mut piece)?;
                if count == 0 {
                    break;
                }
                self.pass(Way::Up, &piece[..count])?;
                if let Some(copy) = copy.as_mut().filter(|copy| copy.len() <= DOUBLED_BYTES_MAX) {
                    copy.extend_from_slice(&piece[..count]);
                }
            }
            if body.limit() > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(copy) = copy.filter(|copy| copy.len() <= DOUBLED_BYTES_MAX) {
                self.shared.hits.fetch_add(1, Ordering::Relaxed);
                let to = self.shared.to;
                std::thread::spawn(move || drop(double(to, &copy)));
            }
        }
    }

    /// Takes answers to the client.
    fn answers(&self) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match (&self.service).read(&mut piece)? {
                0 => return Ok(()),
                count => self.pass(Way::Down, &piece[..count])?,
            }
        }
    }

    /// Passes bytes on, up to where something is to happen.
    fn pass(&self, way: Way, bytes: &[u8]) -> io::Result<()> {
        let (mut to, counter) = match way {
            Way::Up => (&self.service, &self.up),
            Way::Down => (&self.client, &self.down),
        };
        let before = counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let at = match self.fault {
            Fault::Cut(its, at)
            | Fault::Stall(its, at, _)
            | Fault::HalfClose(its, at)
            | Fault::Garbage(its, at)
                if its == way =>
            {
                Some(at)
            }
            _ => None,
        };
        let reached =
            at.and_then(|at| usize::try_from(at.checked_sub(before)?).ok()).filter(|at| *at < bytes.len());
        let Some(at) = reached else { return self.counted(to, bytes) };
        self.counted(to, &bytes[..at])?;
        self.shared.hits.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Stall(_, _, millis) => std::thread::sleep(Duration::from_millis(millis)),
            Fault::Garbage(_, at) => {
                let mut random = Random(at);
                let garbage: Vec<u8> = (0..64).flat_map(|_| random.next().to_le_bytes()).collect();
                to.write_all(&garbage)?;
            }
            Fault::HalfClose(..) => {
                to.shutdown(Shutdown::Write)?;
                // The rest of this way is taken and thrown away.
                let mut from = if way == Way::Up { &self.client } else { &self.service };
                return io::copy(&mut from, &mut io::sink()).map(|_| ());
            }
            _ => {}
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Writes bytes, and does what is to be done where enough have passed.
    fn counted(&self, mut to: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        self.shared.passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut trigger = self.shared.trigger.lock().unwrap();
        let Some(armed) = trigger.as_mut() else {
            drop(trigger);
            return to.write_all(bytes);
        };
        let count = bytes.len() as u64;
        if armed.left >= count {
            armed.left -= count;
            drop(trigger);
            return to.write_all(bytes);
        }
        let (first, rest) = bytes.split_at(usize::try_from(armed.left).unwrap());
        let armed = trigger.take().unwrap();
        let written = to.write_all(first);
        // Nothing else passes meanwhile, since all wait for the lock.
        (armed.act)();
        drop(trigger);
        written?;
        to.write_all(rest)
    }
}

/// A request's head and the length of its body; nothing at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(Vec<u8>, u64)>> {
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let from = head.len();
        if reader.read_until(b'\n', &mut head)? == 0 {
            return if head.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let line = String::from_utf8_lossy(&head[from..]).trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some((head, length)));
        }
        assert!(!line.starts_with("transfer-encoding"), "clients say how long their bodies are");
        length =
            line.strip_prefix("content-length:").and_then(|text| text.trim().parse().ok()).unwrap_or(length);
    }
}

/// Sends a request again and throws the answer away.
fn double(to: SocketAddr, request: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    // The service keeps the connection for another request; when nothing more comes, the answer was whole.
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(request)?;
    io::copy(&mut stream, &mut io::sink()).map(|_| ())
}

fn has(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}
