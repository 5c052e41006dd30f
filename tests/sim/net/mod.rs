//! The network: every message between clients and service, and what may happen to it.
//!
//! ```text
//! client: push, pull, retries ─► Wire ─► Net: lost, doubled, cut, corrupted, late ─► Host: the service, its disk fails
//! ```

mod actions;
mod audit;
mod host;
mod odds;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_trace_store::env::Env;
use agent_trace_store::env::sim::CrashOdds;
use agent_trace_store::{Error, ErrorKind, EventId, ObjectId};
use agent_trace_sync::address::{Plaintext, RemoteUrl, ServiceUrl};
use agent_trace_sync::client::Client;
use agent_trace_sync::client::carrier::{Came, Carrier, Lost, Method, Parts, Sent};
use agent_trace_sync::service::http::local::{Answered, Handed};
use agent_trace_sync::service_remote::Service;
use agent_trace_tests::Random;
use bytes::Bytes;

use crate::check::Seat;
use crate::trouble::{Mix, Trouble, arm_in};
use crate::world::{Plan, Swarm, World, explain};

pub(crate) use host::note_panic;
use host::{Host, ORG, PROJECT};
pub(crate) use odds::NetCounts;
use odds::Odds;

const HOST: &str = "http://127.0.0.1:7";
/// An answer comes in parts of this length.
const PART_BYTES: usize = 1_400;
/// Clients of a world.
const CLIENTS_MAX: usize = 4;
/// Old messages that may still arrive.
const LATE_MAX: usize = 6;

/// What happens to a message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    Cut,
    Corrupted,
    Doubled,
    Unanswered,
    AnswerCut,
    AnswerCorrupted,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A client, whose messages go through everything.
    Client(usize),
    /// Somebody to whom nothing happens.
    Nobody,
}

/// The way to the service, and the service.
pub(crate) struct Net {
    pub(crate) odds: Odds,
    pub(crate) counts: NetCounts,
    pub(crate) host: Host,
    random: Random,
    /// The only thing that happens on the way, and to which message, where that is not left to chance.
    pub(crate) fated: Option<(u64, Fate)>,
    /// Nothing happens any more.
    pub(crate) is_calm: bool,
    /// Messages that may arrive once more.
    late: Vec<Handed>,
    /// Messages that find nobody before the service starts again.
    down: u64,
    /// What fails at the service soon, or goes on failing.
    armed: Option<(Trouble, u64)>,
    /// The same while the service is looked at.
    waiting: Option<(Trouble, u64)>,
    faults: u64,
    told: String,
    /// Arrivals of each epoch, as they were seen.
    pub(crate) arrived: BTreeMap<[u8; 16], Vec<(Seat, EventId)>>,
    /// Up to where the service has acknowledged that events had arrived.
    pub(crate) acked: BTreeMap<[u8; 16], u64>,
    /// Histories that there may have been: one, and one for each copy that was restored.
    pub(crate) histories: usize,
    /// Records and transcripts that were acknowledged by protocol 1.
    pub(crate) by_v1: BTreeSet<ObjectId>,
    /// Whether the service may have made records of transcripts that nobody has looked at yet.
    pub(crate) has_made: bool,
    /// The same when the service's data were copied.
    pub(crate) copied: Option<BTreeSet<ObjectId>>,
}

/// Everybody's end of the network.
#[derive(Clone)]
pub(crate) struct Line(Arc<Mutex<Net>>);

fn url() -> ServiceUrl {
    let url = format!("{HOST}/{ORG}/{PROJECT}");
    match RemoteUrl::parse(&url, Plaintext::Loopback).expect("it is a URL") {
        RemoteUrl::Service(url) => url,
        RemoteUrl::Folder(_) | RemoteUrl::Bucket(_) => unreachable!("it is a service"),
    }
}

impl Line {
    /// The network of a world, with the service behind it.
    pub(crate) fn new(seed: u64, random: &mut Random, swarm: &Swarm) -> Line {
        let odds = Odds::draw(random, swarm);
        Line::with(odds, seed, random)
    }

    /// A network where nothing happens by chance.
    pub(crate) fn plain(seed: u64) -> Line {
        Line::with(Odds::default(), seed, &mut Random::new(seed))
    }

    fn with(odds: Odds, seed: u64, random: &mut Random) -> Line {
        let crash = CrashOdds {
            kept: 1_000 + u32::try_from(random.below(6_000)).expect("small"),
            torn: 1_000 + u32::try_from(random.below(5_000)).expect("small"),
            together: u32::try_from(random.below(8_000)).expect("small"),
            garbage: random.percent(30),
            ..CrashOdds::default()
        };
        Line(Arc::new(Mutex::new(Net {
            odds,
            counts: NetCounts::default(),
            host: Host::new(seed, crash, CLIENTS_MAX + 1),
            random: Random::new(random.draw()),
            fated: None,
            is_calm: false,
            late: Vec::new(),
            down: 0,
            armed: None,
            waiting: None,
            faults: 0,
            told: String::new(),
            arrived: BTreeMap::new(),
            acked: BTreeMap::new(),
            histories: 1,
            by_v1: BTreeSet::new(),
            has_made: false,
            copied: None,
        })))
    }

    pub(crate) fn hold(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls of the service, for a process.
    pub(crate) fn client(&self, env: &Env, who: Who) -> Client {
        let number = match who {
            Who::Client(number) => number,
            // It may write all the same.
            Who::Nobody => CLIENTS_MAX,
        };
        let token = self.hold().host.token(number).clone();
        Client::over(env, &url(), Some(token), Box::new(Wire { line: self.clone(), who }))
    }

    /// The service as a remote, for a process.
    pub(crate) fn service(&self, env: &Env, who: Who) -> Service {
        Service::over(self.client(env, who))
    }
}

impl World {
    /// The network, where there is one. Nobody sends anything while it is held.
    pub(crate) fn net(&self) -> Option<MutexGuard<'_, Net>> {
        self.net.as_ref().map(Line::hold)
    }

    /// What has failed so far, on the clients' disk, at the service and on the way.
    pub(crate) fn faults(&self) -> u64 {
        self.disk.faults_hit() + self.net().map_or(0, |net| net.faults)
    }

    /// Nothing happens to messages any more.
    pub(crate) fn calm(&mut self) {
        if let Some(mut net) = self.net() {
            net.is_calm = true;
            net.host.ensure();
        }
    }
}

impl Net {
    /// Does to the service what is done to the world.
    pub(crate) fn plant(&mut self, plan: &Plan) {
        self.host.plant(plan.planted);
        self.host.disk.set_lies(plan.lies);
        if plan.storm {
            self.odds.mix = Mix { power_cuts: true, sync_fail: true, ..Mix::default() };
            self.odds.trouble = 150;
        }
    }

    /// What has happened since this was last asked.
    pub(crate) fn told(&mut self) -> String {
        std::mem::take(&mut self.told)
    }

    fn tell(&mut self, text: &str) {
        self.told.push_str(" {");
        self.told.push_str(text);
        self.told.push('}');
    }

    /// Something happened that a client may fail for.
    fn fault(&mut self, text: &str) {
        self.faults += 1;
        self.tell(text);
    }

    /// Whether this happens to the message that is sent now.
    fn happens(&mut self, fate: Fate, odds: u64) -> bool {
        match self.fated {
            Some((message, fated)) => message == self.counts.messages && fated == fate,
            None => self.drawn(odds),
        }
    }

    fn drawn(&mut self, odds: u64) -> bool {
        odds > 0 && self.random.below(1_000) < odds
    }

    /// Carries a message there and its answer back; without an answer, says what the client sees.
    fn send(&mut self, mut handed: Handed, who: Who) -> Result<Answered, &'static str> {
        self.counts.messages += 1;
        if self.is_calm || who == Who::Nobody {
            self.rest();
            self.host.ensure();
            return Ok(self.deliver(handed));
        }
        if !self.late.is_empty() && self.random.percent(20) {
            self.bring_late();
        }
        let odds = self.odds;
        if self.happens(Fate::Lost, odds.lost) {
            self.counts.lost += 1;
            self.fault("lost");
            self.keep(&handed, 40);
            return Err("the connection was lost");
        }
        if self.drawn(odds.late) {
            self.keep(&handed, 100);
        }
        if self.happens(Fate::Cut, odds.cut) {
            self.counts.cut += 1;
            let at = self.random.index(handed.body.len() + 1);
            self.fault(&format!("cut at {at} of {}", handed.body.len()));
            handed.body.truncate(at);
            handed.is_cut = true;
            let _ = self.reach(handed);
            return Err("the connection was lost");
        }
        if self.happens(Fate::Corrupted, odds.corrupted) && is_binary(&handed) {
            self.counts.corrupted += 1;
            self.fault("corrupted");
            let mut body = handed.body.to_vec();
            self.flip(&mut body);
            handed.body = body.into();
        }
        let mut answered = self.reach(handed.clone())?;
        if self.happens(Fate::Doubled, odds.doubled) {
            self.counts.doubled += 1;
            self.tell("doubled");
            let again = self.reach(handed.clone());
            if self.random.percent(50) {
                answered = again?;
            }
        }
        if self.happens(Fate::Unanswered, odds.unanswered) {
            self.counts.unanswered += 1;
            self.fault("unanswered");
            return Err("the connection was lost");
        }
        if self.happens(Fate::AnswerCut, odds.answer_cut) {
            self.counts.cut += 1;
            let at = self.random.index(answered.body.len() + 1);
            self.fault(&format!("answer cut at {at} of {}", answered.body.len()));
            answered.body.truncate(at);
            answered.is_cut = true;
        }
        // What the service speaks is said in plain JSON: nothing but TLS protects it.
        if self.happens(Fate::AnswerCorrupted, odds.answer_corrupted) && !handed.target.ends_with("/caps") {
            self.counts.corrupted += 1;
            self.fault("answer corrupted");
            self.flip(&mut answered.body);
        }
        Ok(answered)
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let at = self.random.index(bytes.len());
            bytes[at] ^= 1 << self.random.below(8);
        }
    }

    /// A message stays on the way, so many times in a hundred.
    fn keep(&mut self, handed: &Handed, odds: u64) {
        if self.random.percent(odds) && self.late.len() < LATE_MAX {
            self.late.push(handed.clone());
        }
    }

    /// A message of before arrives; nobody waits for its answer any more.
    pub(crate) fn bring_late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let at = self.random.index(self.late.len());
        let handed = self.late.swap_remove(at);
        self.counts.late += 1;
        let path = handed.target.split('?').next().unwrap_or_default();
        let what = path.rsplit('/').nth(usize::from(path.contains("/uploads/"))).unwrap_or_default();
        self.tell(&format!("late {what}"));
        let _ = self.reach(handed);
    }

    /// Brings a message to the service, where something may fail meanwhile.
    fn reach(&mut self, handed: Handed) -> Result<Answered, &'static str> {
        if let Some((trouble, ahead)) = self.waiting.take() {
            self.arm(trouble, ahead);
        } else if self.armed.is_none()
            && self.drawn(self.odds.trouble)
            && let Some(trouble) = self.odds.mix.draw(&mut self.random)
        {
            let ahead = match self.random.below(3) {
                0 => self.random.below(8),
                1 => self.random.below(25),
                _ => self.random.below(70),
            };
            let said = self.arm(trouble, ahead);
            self.tell(&format!("service {}", said.trim()));
        }
        let before = self.host.disk.faults_hit();
        let answered = if self.is_up() { Some(self.deliver(handed)) } else { None };
        let hit = self.host.disk.faults_hit() - before;
        self.faults += hit;
        self.counts.failures += u64::from(hit > 0);
        if !self.host.disk.is_powered() {
            self.fault("service loses power");
            self.counts.power_cuts += 1;
            self.host.cut_power();
            self.stay_down();
            return Err("the connection was lost");
        }
        if hit > 0 && matches!(self.armed, Some((Trouble::Kill, _))) {
            self.fault("service killed");
            self.counts.kills += 1;
            self.host.kill();
            self.stay_down();
            return Err("the connection was lost");
        }
        // What fails goes on failing for a while, if it is of that kind.
        if hit > 0 && self.random.percent(50) {
            self.disarm();
        }
        match answered {
            Some(answered) => Ok(answered),
            None => {
                self.counts.refused += 1;
                self.fault("nobody there");
                Err("nobody listens there")
            }
        }
    }

    /// Nobody answers for a while, which may be days.
    fn stay_down(&mut self) {
        self.disarm();
        self.down = self.random.below(4);
        if self.odds.days && self.random.percent(30) {
            self.tell("for two days");
            self.host.disk.advance(2 * 86_400_000_000);
        }
    }

    fn arm(&mut self, trouble: Trouble, ahead: u64) -> String {
        self.armed = Some((trouble, self.operations_for(trouble) + ahead));
        arm_in(&self.host.disk, trouble, ahead)
    }

    /// What a trouble is counted by.
    fn operations_for(&self, trouble: Trouble) -> u64 {
        match trouble {
            Trouble::Observe(_) => self.host.disk.observations(),
            _ => self.host.disk.operations(),
        }
    }

    /// Nothing fails at the service while it is looked at; what lies in wait goes on lying there.
    pub(crate) fn rest(&mut self) {
        if let Some((trouble, at)) = self.armed {
            let now = self.operations_for(trouble);
            self.disarm();
            self.waiting = at.checked_sub(now).map(|ahead| (trouble, ahead));
        }
    }

    /// Nothing fails at the service any more, for now.
    pub(crate) fn disarm(&mut self) {
        (self.armed, self.waiting) = (None, None);
        self.host.disk.clear_faults();
    }

    /// Whether the service runs, or starts now.
    fn is_up(&mut self) -> bool {
        if self.host.is_running() {
            return true;
        }
        if self.down > 0 {
            self.down -= 1;
            return false;
        }
        match self.host.start() {
            Ok(()) => true,
            Err(error) => {
                self.tell(&format!("service does not start: {}", explain(&error)));
                false
            }
        }
    }

    /// Hands a message to a service that runs, and notes what it acknowledges.
    fn deliver(&mut self, handed: Handed) -> Answered {
        let is_commit = handed.target.ends_with("/commit");
        let is_compared = handed.target.ends_with("/reconcile");
        let answered = self.host.answer(handed).expect("it runs");
        if answered.status >= 500 {
            self.tell(&format!("{}: {}", answered.status, String::from_utf8_lossy(&answered.body).trim()));
        }
        if answered.status == 200 && is_compared {
            self.counts.compared += 1;
        }
        if answered.status == 200 && is_commit {
            self.counts.commits += 1;
            // The epoch of the answer is the one of now: nobody else has written meanwhile.
            if let (Ok((epoch, _)), Some(position)) = (self.host.reach(), position_in(&answered.body)) {
                let acked = self.acked.entry(epoch).or_default();
                *acked = position.max(*acked);
            }
        }
        answered
    }
}

/// Whether a request says that its bytes are checked.
fn is_binary(handed: &Handed) -> bool {
    handed.headers.get("content-type").is_some_and(|kind| kind.as_bytes() == b"application/octet-stream")
        && !handed.target.contains("/v1/")
}

/// The position that the answer to a commit names.
fn position_in(body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("\"position\":")?;
    let end = rest.find(|char: char| !char.is_ascii_digit())?;
    rest[..end].parse().ok()
}

/// A client's end.
struct Wire {
    line: Line,
    who: Who,
}

impl Carrier for Wire {
    fn carry(&self, request: Sent<'_>) -> Result<Came<'_>, Lost> {
        let target = request.url.strip_prefix(HOST).expect("a client asks its own service").to_owned();
        let is_head = request.method == Method::HEAD;
        let handed = Handed {
            method: request.method,
            target,
            headers: request.headers,
            body: request.body.unwrap_or_default(),
            is_cut: false,
        };
        let answered = self
            .line
            .hold()
            .send(handed, self.who)
            .map_err(|what| Lost { error: Error::new(ErrorKind::Unavailable, what), is_final: false })?;
        let stated = answered.headers.get("content-length").and_then(|text| text.to_str().ok()?.parse().ok());
        let bytes: Bytes = if is_head { Bytes::new() } else { answered.body.into() };
        let body = Box::new(Coming { bytes, is_cut: answered.is_cut });
        Ok(Came { status: answered.status, headers: answered.headers, bytes: stated, body })
    }
}

/// The body of an answer.
struct Coming {
    bytes: Bytes,
    is_cut: bool,
}

impl Parts for Coming {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.bytes.is_empty() {
            return if self.is_cut { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(None) };
        }
        let length = self.bytes.len().min(PART_BYTES);
        Ok(Some(self.bytes.split_to(length)))
    }
}
