//! What must hold at the service after each step: read from the raw bytes on its disk, and asked for by somebody new.

use std::collections::BTreeSet;
use std::path::Path;

use agent_trace_store::env::sim::SimDisk;
use agent_trace_store::progress::Silent;
use agent_trace_store::verify::verify;
use agent_trace_store::{EventId, Kind, ObjectId, Store, WriterId};
use agent_trace_sync::pull::PullOptions;

use super::Who;
use crate::check::{Auditor, Holding, Seat};
use crate::world::{World, explain};

impl World {
    /// What has arrived at the service, as it lies there.
    pub(crate) fn service_holding(&mut self) -> Holding {
        let line = self.net.clone().expect("there is a network");
        let mut net = line.hold();
        net.rest();
        let listing = net.host.listing();
        let dir = net.host.store_dir();
        let mut holding = self.auditor.store(&net.host.disk, &dir);
        let arrived: BTreeSet<Seat> = listing.seats.into_iter().collect();
        holding.events.retain(|seat, _| arrived.contains(seat));
        holding
    }

    /// Compares the service with what it has acknowledged and shown.
    pub(crate) fn check_service(&mut self) {
        let Some(line) = self.net.clone() else { return };
        let mut net = line.hold();
        // Whoever is down may stay so for a while.
        if !net.host.is_running() && !net.is_calm && !net.has_made && self.random.percent(50) {
            return;
        }
        let dir = net.host.store_dir();
        if net.host.disk.read_file(&dir.join("format")).is_some() {
            // What is wrong there should be named before the service stumbles over it.
            drop(self.auditor.store(&net.host.disk, &dir));
        }
        net.rest();
        let listing = net.host.listing();
        let raw = self.auditor.store(&net.host.disk, &dir);
        let mut seen: Vec<(Seat, EventId)> = Vec::with_capacity(listing.seats.len());
        for seat in &listing.seats {
            let found = raw.events.get(seat);
            let found = found.unwrap_or_else(|| panic!("I2: the service lost seq {}", seat.1));
            seen.push((*seat, found.1));
        }
        let places: BTreeSet<&Seat> = listing.seats.iter().collect();
        assert_eq!(places.len(), listing.seats.len(), "I3: an event has arrived twice at the service");
        let is_new = !net.arrived.contains_key(&listing.epoch);
        assert!(!is_new || net.arrived.len() < net.histories, "the service tells another history");
        let known = net.arrived.insert(listing.epoch, seen.clone()).unwrap_or_default();
        let fits = seen.len() >= known.len() && seen[..known.len()] == known;
        assert!(fits, "I4: {} of {} positions of the service changed or went", known.len(), seen.len());
        let acked = net.acked.get(&listing.epoch).copied().unwrap_or_default();
        assert!(
            acked <= seen.len() as u64,
            "I2: the service lost what it acknowledged: {acked} of {}",
            seen.len()
        );
        net.has_made = false;
        for (event, _) in raw.events.values() {
            let (record, body) = (event.fact.objects[0], event.fact.objects.get(1));
            if self.offered.contains_key(&record) {
                continue;
            }
            // The service makes the records of transcripts that come by protocol 1.
            let is_made = event.fact.kind == Kind::TRANSCRIPT && !self.is_of_client(&event.writer);
            let is_offered = body.is_some_and(|body| self.contents.contains_key(body));
            assert!(is_made && is_offered, "I7: the service holds a record that nobody offered");
            let bytes = net.host.object(record).unwrap_or_else(|error| panic!("{}", explain(&error)));
            let made = self.offer(Kind::TRANSCRIPT, bytes);
            assert_eq!(made, record, "I5: the service reads a record wrong");
        }
        let objects: BTreeSet<ObjectId> =
            raw.events.values().flat_map(|(event, _)| event.fact.objects.iter().copied()).collect();
        let lost = net.by_v1.difference(&objects).count();
        assert_eq!(lost, 0, "I2: the service lost {lost} records that it acknowledged by protocol 1");
        let (panics, place) = net.host.take_panics();
        assert_eq!(panics, 0, "the service panicked ({place})");
        self.published = seen.into_iter().collect();
    }

    /// Whether a client has ever written under this name.
    fn is_of_client(&self, writer: &WriterId) -> bool {
        self.clients.iter().any(|client| client.writer == Some(*writer) || client.writers.contains(writer))
    }

    /// Somebody new pulls: all that has arrived is there, whole, and nothing else.
    pub(crate) fn look(&mut self) {
        self.say_more("sees somebody new pull");
        let line = self.net.clone().expect("there is a network");
        let there = self.service_holding().seats();
        line.hold().counts.looked += 1;
        let disk = SimDisk::new(self.random.draw());
        let env = disk.env();
        let dir = Path::new("/home/new");
        let store = Store::init(&env, dir).expect("nothing fails here");
        let pulled = line.service(&env, Who::Nobody).pull(&store, &PullOptions::default(), &Silent);
        let pulled = pulled.unwrap_or_else(|error| panic!("somebody new cannot pull: {}", explain(&error)));
        assert_eq!(pulled.refused, Vec::<String>::new(), "I1: somebody new refuses what the service holds");
        let mine = Auditor::default().store(&disk, dir).seats();
        assert!(mine == there, "somebody new pulls {} events of {}", mine.len(), there.len());
        let report = verify(&store, &Silent).unwrap_or_else(|error| panic!("{}", explain(&error)));
        assert_eq!(report.problems, Vec::new(), "what somebody new has pulled does not verify");
    }

    /// The store of the project verifies, and somebody new can pull all of it.
    pub(crate) fn check_archive(&mut self) {
        let Some(line) = self.net.clone() else { return };
        let mut net = line.hold();
        net.host.stop();
        let env = net.host.disk.env();
        let store = Store::open(&env, &net.host.store_dir());
        let store = store.unwrap_or_else(|error| panic!("no archive: {}", explain(&error)));
        let report = verify(&store, &Silent).unwrap_or_else(|error| panic!("{}", explain(&error)));
        assert_eq!(report.problems, Vec::new(), "the archive does not verify");
        drop((store, env));
        net.host.ensure();
        drop(net);
        self.say("at the end ");
        self.look();
    }

    /// The world's counts at its end.
    pub(crate) fn counted(&self) -> crate::world::Counts {
        let mut counts = self.counts;
        counts.operations = self.disk.operations();
        counts.trace = self.disk.trace_hash();
        if let Some(net) = self.net() {
            counts.net = net.counts;
            counts.operations += net.host.disk.operations();
            counts.trace ^= net.host.disk.trace_hash().rotate_left(7);
        }
        counts
    }
}
