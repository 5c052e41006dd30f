//! The steps of a world: what clients do, what goes wrong meanwhile, and what is checked after each.

use std::path::Path;
use std::sync::Arc;

use agent_trace_store::compact;
use agent_trace_store::log::Prepared;
use agent_trace_store::progress::Silent;
use agent_trace_store::{Error, Store};

use crate::trouble::{Trouble, arm};
use crate::world::{World, explain};

/// Whether all that a client holds is durable after a step that went well.
pub(crate) type Durable = bool;

impl World {
    /// One step, with or without trouble, and what is checked after it.
    pub(crate) fn step(&mut self) {
        self.counts.steps += 1;
        let client = self.random.index(self.clients.len());
        let process = self.random.index(self.clients[client].processes.len());
        self.say(format!("client {client}.{process} "));
        let mut action = self.random.below(100);
        if self.net.is_some() && action < 44 && self.random.percent(45) {
            // More is sent, and less is written.
            action = 53 + action * 27 / 44;
        } else if self.net.is_some() && (80..84).contains(&action) {
            action = 90;
        }
        if self.swarm.hostile && self.random.percent(8) && self.remote_exists() {
            self.say_more("is attacked");
            match self.net.is_some() {
                true => self.attack(),
                false => self.forge(),
            }
            return;
        }
        if self.net.is_some() && self.random.percent(14) {
            return self.net_step(client);
        }
        let trouble = if self.random.percent(self.swarm.trouble) {
            self.swarm.mix.draw(&mut self.random)
        } else {
            None
        };
        let faults_before = self.faults();
        if let Some(trouble) = trouble {
            let said = arm(&self.disk, &mut self.random, trouble);
            self.say_more(&said);
        }
        let result = match action {
            0..30 => self.append(client, process, false),
            30..44 => self.append(client, process, true),
            44..49 => self.seal(client, process),
            49..53 => self.catch_up(client, process),
            53..68 => self.push(client, process, faults_before),
            68..80 => self.pull(client, process, faults_before),
            84..86 if self.encrypted => self.rotate(client, process),
            80..86 => self.ask(client, process),
            86..89 => self.compact(client, process),
            89..92 if self.swarm.lost_index => self.lose_index(client, process),
            92..95 if self.swarm.mix.kills => {
                self.say_more("is killed");
                self.counts.kills += 1;
                self.restart(client, process);
                Ok(false)
            }
            95..97 if self.swarm.clock => {
                self.say_more("sees the clock jump");
                let micros = i64::try_from(self.random.below(200_000_000_000)).expect("small");
                self.disk.shift_wall_clock(micros - 100_000_000_000);
                Ok(false)
            }
            97..100 if self.swarm.mix.power_cuts => {
                self.say_more("sees the power go");
                self.disk.crash_at(0);
                // Whatever is next is cut; the directory may be there already.
                let _ =
                    self.clients[client].processes[process].env.fs.create_dir_all(Path::new("/nothing/here"));
                Ok(false)
            }
            _ => self.append(client, process, false),
        };
        self.aftermath(client, process, result, trouble, faults_before);
    }

    fn aftermath(
        &mut self,
        client: usize,
        process: usize,
        result: Result<Durable, Error>,
        trouble: Option<Trouble>,
        faults_before: u64,
    ) {
        let mut cut = !self.disk.is_powered();
        let hit = self.faults() - faults_before;
        let told = self.net().map(|mut net| net.told()).unwrap_or_default();
        self.say_more(&told);
        self.check_service();
        self.counts.faults += hit;
        self.disk.clear_faults();
        if cut {
            self.disk.restart();
        } else if matches!(trouble, Some(Trouble::PowerCut)) && self.random.percent(50) {
            self.disk.crash();
            cut = true;
        }
        if let Err(error) = &result {
            self.counts.failed += 1;
            self.say_more(&format!(" -> {}", explain(error)));
            assert!(cut || hit > 0, "a step failed without a fault: {}", explain(error));
        }
        self.note_writer(client, process);
        if cut {
            self.say_more(" POWER CUT");
            self.counts.power_cuts += 1;
            self.restart_all();
            let made: Vec<usize> =
                (0..self.clients.len()).filter(|number| self.clients[*number].writer.is_some()).collect();
            for number in &made {
                drop(self.clean_store(*number, 0));
                self.note_writer(*number, 0);
            }
            self.check_all(true);
            for number in made {
                let store = self.clean_store(number, 0);
                self.check_reading(number, &store, false);
            }
            return;
        }
        if let Err(error) = &result {
            self.check_refusal(client, process, error);
            self.clients[client].processes[process].store = None;
        }
        if matches!(trouble, Some(Trouble::Kill)) || result.is_err() && self.random.percent(30) {
            self.say_more(" (killed)");
            self.counts.kills += 1;
            self.restart(client, process);
        }
        let durable = matches!(result, Ok(true));
        let holding = self.check_client(client, durable);
        assert!(
            !durable || holding.clean,
            "I8: the open segment of client {client} does not end at a commit"
        );
        if self.random.percent(25) {
            self.check_all(false);
        }
        if let Some(store) = self.clients[client].processes[process].store.clone() {
            self.check_reading(client, &store, false);
            if self.random.percent(20) {
                self.check_answers(client, &store, false);
            }
        }
    }

    /// I9: after a failed write the same store value refuses.
    fn check_refusal(&mut self, client: usize, process: usize, error: &Error) {
        let Some(store) = &self.clients[client].processes[process].store else { return };
        let writing = ["cannot append to segment", "cannot sync segment"];
        if writing.iter().any(|text| error.message().starts_with(text)) {
            let again = store.append(Prepared::default());
            assert!(again.is_err(), "I9: client {client} goes on after a failed write");
        }
    }

    /// Opens a store where nothing fails.
    pub(crate) fn clean_store(&mut self, client: usize, process: usize) -> Arc<Store> {
        match self.store(client, process) {
            Ok(store) => store,
            Err(error) => panic!("client {client} cannot open its store: {}", explain(&error)),
        }
    }

    pub(crate) fn note_writer(&mut self, client: usize, process: usize) {
        let known = &mut self.clients[client];
        let Some(store) = &known.processes[process].store else { return };
        let writer = store.writer();
        if let Some(old) = known.writer.replace(writer).filter(|old| *old != writer) {
            known.writers.insert(old);
            self.counts.new_writers += 1;
            self.say_more(" (new writer)");
        }
    }

    // ---- what clients do

    fn seal(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("seals");
        self.store(client, process)?.seal()?;
        Ok(true)
    }

    fn catch_up(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("catches up");
        self.store(client, process)?.catch_up()?;
        Ok(false)
    }

    fn ask(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("asks");
        let store = self.store(client, process)?;
        self.answers(client, &store)?;
        Ok(false)
    }

    fn compact(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("compacts");
        let store = self.store(client, process)?;
        let plan = compact::plan(&store)?;
        compact::execute(&store, &plan, &Silent)?;
        Ok(false)
    }

    fn lose_index(&mut self, client: usize, process: usize) -> Result<Durable, Error> {
        self.say_more("loses its index");
        self.store(client, process)?.index().delete()?;
        Ok(false)
    }
}
