//! Pushing and pulling, and what must hold after each.

use std::collections::BTreeSet;

use agent_trace_store::event::Event;
use agent_trace_store::progress::Silent;
use agent_trace_store::record::Name;
use agent_trace_store::{Error, Kind, Timestamp};
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::exchange::Exchange;
use agent_trace_sync::pull::PullOptions;
use agent_trace_sync::push::{PushOptions, PushReport};
use agent_trace_sync::remote::Remote;
use agent_trace_sync::seal::{Access, Change};

use crate::check::Holding;
use crate::lens::secret;
use crate::net::Who;
use crate::steps::Durable;
use crate::world::{REMOTE, World};

/// The remote, as everybody names it.
pub(crate) fn address() -> RemoteUrl {
    RemoteUrl::Folder(REMOTE.into())
}

impl World {
    /// The remote as a process of a client reaches it; nothing where it has not been made.
    pub(crate) fn remote(
        &self,
        client: usize,
        process: usize,
        create: bool,
    ) -> Result<Option<Exchange>, Error> {
        let env = &self.clients[client].processes[process].env;
        if let Some(net) = &self.net {
            return Ok(Some(Exchange::Service(net.service(env, Who::Client(client)))));
        }
        let remote = Remote::open_with(env, &address(), create, self.access(client).as_ref())?;
        Ok(remote.id().is_some().then_some(Exchange::Layout(remote)))
    }

    /// What a client opens an encrypted remote with.
    pub(crate) fn access(&self, client: usize) -> Option<Access> {
        self.encrypted.then(|| Access { secret: secret(), cache: self.clients[client].dir.join("remotes") })
    }

    /// A client changes the key of an encrypted remote.
    pub(crate) fn rotate(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("changes the key");
        let store = self.store(client, process)?;
        let Some(Exchange::Layout(remote)) = self.remote(client, process, false)? else { return Ok(false) };
        let access = self.access(client).expect("only encrypted remotes have keys");
        let _alone = remote.lock(&store)?;
        let ring = remote.rotate(store.env(), &access, Change::default())?;
        self.counts.rotations += 1;
        self.say_more(&format!(" (epoch {})", ring.epoch()));
        Ok(false)
    }

    fn draw_options(&mut self) -> PushOptions {
        let mut options = PushOptions { full: self.random.percent(50), ..PushOptions::default() };
        if self.swarm.filters && self.random.percent(30) {
            options.only = vec![Kind::KNOWN[self.random.index(Kind::KNOWN.len())]];
        }
        if self.swarm.filters && self.random.percent(15) {
            let day = 86_400_000_000 * i64::try_from(self.random.below(28)).expect("small");
            options.since = Some(Timestamp::from_micros(1_767_225_600_000_000 + day));
        }
        options
    }

    pub(crate) fn push(
        &mut self,
        client: usize,
        process: usize,
        faults_before: u64,
    ) -> Result<Durable, Error> {
        let options = self.draw_options();
        self.say_more(&format!("pushes {options:?}"));
        let store = self.store(client, process)?;
        let remote = self.remote(client, process, true)?.expect("it is made");
        let before = self.remote_holding();
        let was_cut = std::mem::replace(&mut self.clients[client].is_push_cut, self.net.is_some());
        let report = remote.push(&store, &options, &Silent)?;
        self.counts.pushes += 1;
        let sent: u64 = report.sent.values().sum();
        self.say_more(&format!(" ({sent} events in {} segments)", report.segments));
        self.check_push(client, &options, &report, &before, faults_before, was_cut);
        self.clients[client].is_push_cut = false;
        Ok(true)
    }

    fn check_push(
        &mut self,
        client: usize,
        options: &PushOptions,
        report: &PushReport,
        before: &Holding,
        faults_before: u64,
        was_cut: bool,
    ) {
        if self.faults() == faults_before && !self.swarm.hostile {
            assert_eq!(report.refused, Vec::<String>::new(), "a push refuses nothing that is sound");
        }
        let (mine, there) = (self.holding(client), self.remote_holding());
        if report.segments > 0 && self.net.is_none() {
            // All that stands there was made durable by the same syncs.
            self.published = there.seats();
        }
        if !options.only.is_empty() || options.since.is_some() {
            return;
        }
        let names = Named::of(&mine, self);
        for (seat, (event, id)) in &mine.events {
            let due = options.full || names.due(event, &there);
            let stands = there.events.get(seat).map(|(_, id)| *id);
            let key = &event.fact.key;
            assert!(!due || stands == Some(*id), "I5: {} `{key}` was not pushed", event.fact.kind);
            let new = stands.is_some() && !before.events.contains_key(seat);
            let due = options.full || names.due(event, &there);
            assert!(due || !new || was_cut, "{} `{key}` was pushed, but nothing names it", event.fact.kind);
        }
    }

    pub(crate) fn pull(
        &mut self,
        client: usize,
        process: usize,
        faults_before: u64,
    ) -> Result<Durable, Error> {
        self.say_more("pulls");
        let store = self.store(client, process)?;
        let Some(remote) = self.remote(client, process, false)? else { return Ok(false) };
        let there = self.remote_holding();
        let report = remote.pull(&store, &PullOptions::default(), &Silent)?;
        self.counts.pulls += 1;
        let taken: u64 = report.taken.values().sum();
        self.say_more(&format!(" ({taken} events)"));
        assert!(!report.new_writer, "I6: client {client} found events of its own that it does not have");
        let forks: Vec<&String> = report.forks.iter().filter(|fork| fork.contains("forked")).collect();
        assert!(forks.is_empty(), "I3: {forks:?}");
        if self.faults() == faults_before && !self.swarm.hostile {
            assert_eq!(report.refused, Vec::<String>::new(), "a pull refuses nothing that is sound");
        }
        if report.refused.is_empty() {
            let mine = self.holding(client).seats();
            for (seat, id) in there.seats() {
                assert_eq!(mine.get(&seat), Some(&id), "I5: client {client} did not pull seq {}", seat.1);
            }
        }
        Ok(taken > 0)
    }
}

/// Which traces the ledgers of a store name, and which conversations its traces.
struct Named {
    traces: BTreeSet<String>,
    conversations: Vec<(String, crate::check::Seat)>,
}

impl Named {
    fn of(mine: &Holding, world: &World) -> Named {
        let mut named = Named { traces: BTreeSet::new(), conversations: Vec::new() };
        for (seat, (event, _)) in &mine.events {
            let kind = event.fact.kind;
            if kind != Kind::LEDGER && kind != Kind::TRACE {
                continue;
            }
            for name in world.offered[&event.fact.objects[0]].names.clone() {
                match name {
                    Name::Cites(name) if kind == Kind::LEDGER => {
                        named.traces.insert(name.into_owned());
                    }
                    Name::Cites(name) => named.conversations.push((name.into_owned(), *seat)),
                    Name::Is(_) => {}
                }
            }
        }
        named
    }

    /// Whether a plain push sends an event, where these stand on the remote afterwards.
    fn due(&self, event: &Event, there: &Holding) -> bool {
        let key = event.fact.key.as_str();
        match event.fact.kind {
            Kind::TRACE => self.traces.contains(key),
            Kind::TRANSCRIPT | Kind::SUMMARY => {
                let key = key.split_once(':').map_or(key, |(key, _)| key);
                self.conversations.iter().any(|(name, seat)| name == key && there.events.contains_key(seat))
            }
            _ => true,
        }
    }
}
