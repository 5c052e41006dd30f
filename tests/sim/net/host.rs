//! The machine of the service: its disk, its process, and what it holds.
//!
//! The service is the real one, over its real files on a simulated disk of its own; only sockets are missing. All its
//! work is done by one thread, which has the same switches as the world.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use agent_trace_store::env::sim::{CrashOdds, ProcessId, SimDisk};
use agent_trace_store::switches::{self, Fault};
use agent_trace_store::{Error, ObjectId, WriterId};
use agent_trace_sync::service::archive::{Accounts, Archive, NewToken, Project};
use agent_trace_sync::service::embedded::Embedded;
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::service::http::Backend;
use agent_trace_sync::service::http::local::{Answered, Handed, Local, Worker};
use agent_trace_sync::token::Token;

use crate::check::Seat;
use crate::world::explain;

/// The data folder of the service.
pub(crate) const DATA: &str = "/srv/data";
/// Where a copy of it is kept.
const COPY: &str = "/srv/copy";

/// The organisation and the project that the clients share.
pub(crate) const ORG: &str = "acme";
pub(crate) const PROJECT: &str = "web";

thread_local! {
    static WORKER: Arc<Worker> = Arc::new(Worker::new(begin).expect("a thread can be started"));
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Makes the thread of the service a pool of its own, so that the order of all operations is one.
fn begin() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    // As long as the thread lives.
    std::mem::forget(pool.expect("a pool of one thread can be made"));
}

/// Notes that code of ours panicked in this thread. Damage shows as panics of redb, which are expected.
pub(crate) fn note_panic(place: &str) {
    if !place.contains("redb-") {
        PANICS.set(PANICS.get() + 1);
    }
}

/// A service that runs.
struct Running {
    process: ProcessId,
    local: Local,
    accounts: Arc<Embedded>,
}

/// In which order events have arrived, as the service says.
pub(crate) struct Listing {
    pub(crate) epoch: [u8; 16],
    pub(crate) seats: Vec<Seat>,
}

/// The machine.
pub(crate) struct Host {
    pub(crate) disk: SimDisk,
    worker: Arc<Worker>,
    running: Option<Running>,
    project: Option<Project>,
    tokens: Vec<Token>,
}

impl Host {
    /// A machine where the service runs, with a project and tokens for it.
    pub(crate) fn new(seed: u64, odds: CrashOdds, tokens: usize) -> Host {
        let disk = SimDisk::new(seed ^ 0x5e7_51de);
        disk.set_crash_odds(odds);
        let worker = WORKER.with(Arc::clone);
        worker.run(|| switches::make_small(true));
        let mut host = Host { disk, worker, running: None, project: None, tokens: Vec::new() };
        host.plant(None);
        host.ensure();
        let accounts = Arc::clone(&host.running.as_ref().expect("it was started").accounts);
        let (project, tokens) = host.worker.run(move || {
            let org = accounts.put_org(ORG, None, None).expect("nothing fails yet").0;
            let project = accounts.create_project(&org.id, PROJECT, None, None).expect("nothing fails yet");
            let new = NewToken {
                org_id: org.id,
                project: Some(PROJECT.to_owned()),
                scopes: vec![Scope::Read, Scope::Write],
                ..NewToken::default()
            };
            let made = (0..tokens).map(|_| accounts.create_token(&new).expect("nothing fails yet").1);
            (project, made.collect::<Vec<Token>>())
        });
        (host.project, host.tokens) = (Some(project), tokens);
        host
    }

    /// The token of a client.
    pub(crate) fn token(&self, client: usize) -> &Token {
        &self.tokens[client]
    }

    /// Plants a fault in the thread of the service.
    pub(crate) fn plant(&self, fault: Option<Fault>) {
        self.worker.run(move || switches::plant(fault));
    }

    /// How often code of ours has panicked in this world's service.
    pub(crate) fn take_panics(&self) -> (u64, String) {
        self.worker.run(|| (PANICS.replace(0), crate::last_panic()))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts the service, as its machine does by itself.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        assert!(self.running.is_none(), "one process at a time");
        let (process, env) = self.disk.process();
        let started = self.worker.run(move || -> Result<_, Error> {
            let (accounts, staging) = Embedded::open(&env, Path::new(DATA))?;
            let accounts = Arc::new(accounts);
            let backend = Backend { env, accounts: Arc::clone(&accounts) as _, staging };
            Ok((Local::open(backend, &Path::new(DATA).join("spool"), u32::MAX)?, accounts))
        });
        match started {
            Ok((local, accounts)) => {
                self.running = Some(Running { process, local, accounts });
                Ok(())
            }
            Err(error) => {
                self.disk.kill(process);
                Err(error)
            }
        }
    }

    /// Sees to it that the service runs, where nothing fails.
    pub(crate) fn ensure(&mut self) {
        self.disk.clear_faults();
        if !self.disk.is_powered() {
            self.cut_power();
        }
        if self.running.is_none()
            && let Err(error) = self.start()
        {
            panic!("I8: the service does not start by itself: {}", explain(&error));
        }
    }

    /// Ends the service in order.
    pub(crate) fn stop(&mut self) {
        if let Some(Running { process, local, accounts }) = self.running.take() {
            self.worker.run(move || drop((local, accounts)));
            self.disk.kill(process);
        }
    }

    /// Kills the service.
    pub(crate) fn kill(&mut self) {
        if let Some(running) = &self.running {
            self.disk.kill(running.process);
        }
        self.stop();
    }

    /// Cuts the power of the machine.
    pub(crate) fn cut_power(&mut self) {
        self.disk.crash();
        self.kill();
    }

    /// Copies the data folder while the service is down.
    pub(crate) fn back_up(&mut self) {
        self.stop();
        self.disk.remove_file(Path::new(COPY));
        self.disk.copy_tree(Path::new(DATA), Path::new(COPY)).expect("the data folder is there");
    }

    /// Puts the copy in the place of the data folder.
    pub(crate) fn restore(&mut self) {
        self.stop();
        self.disk.remove_file(Path::new(DATA));
        self.disk.copy_tree(Path::new(COPY), Path::new(DATA)).expect("a copy has been made");
    }

    /// Answers a request, if the service runs.
    pub(crate) fn answer(&self, handed: Handed) -> Option<Answered> {
        let running = self.running.as_ref()?;
        Some(running.local.answer(&self.worker, handed))
    }

    /// Does something with the archive of the project, in the thread of the service.
    fn with_archive<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Archive) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let running = self.running.as_ref().expect("whoever asks has started it");
        let (accounts, project) = (Arc::clone(&running.accounts), self.project.clone());
        self.worker.run(move || work(&*accounts.archive(&project.expect("it was made"))?))
    }

    /// How far arrivals go.
    pub(crate) fn reach(&self) -> Result<([u8; 16], u64), Error> {
        self.with_archive(|archive| archive.reach().map(|reach| (reach.epoch, reach.position)))
    }

    /// The bytes of an object.
    pub(crate) fn object(&self, id: ObjectId) -> Result<Vec<u8>, Error> {
        self.with_archive(move |archive| {
            let mut bytes = Vec::new();
            archive.object(&id, &mut |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })?;
            Ok(bytes)
        })
    }

    /// All that has arrived, in order, asked for where nothing fails.
    pub(crate) fn listing(&mut self) -> Listing {
        self.ensure();
        let listing = self.with_archive(|archive| {
            let (mut seats, mut after) = (Vec::new(), 0);
            loop {
                let found = archive.arrivals(after)?;
                let of = |writer: WriterId, first: u64, count: u64| {
                    (first..first + count).map(move |seq| (writer, seq))
                };
                seats.extend(found.runs.iter().flat_map(|run| of(run.writer, run.seq_first, run.count)));
                assert_eq!(seats.len() as u64, found.reach.position, "positions are dense");
                after = found.reach.position;
                if after == found.newest {
                    return Ok(Listing { epoch: found.reach.epoch, seats });
                }
            }
        });
        listing.unwrap_or_else(|error| panic!("the service cannot say what has arrived: {}", explain(&error)))
    }

    /// Where the store of the project lies.
    pub(crate) fn store_dir(&self) -> std::path::PathBuf {
        let project = self.project.as_ref().expect("it was made");
        Path::new(DATA).join("projects").join(&project.id).join("store")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        self.worker.run(|| {
            switches::plant(None);
            switches::make_small(false);
        });
    }
}
