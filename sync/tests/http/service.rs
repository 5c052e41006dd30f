//! A running service with real accounts, archives in memory, and the tokens that tests ask with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use agent_trace_store::Timestamp;
use agent_trace_store::env::os_env;
use agent_trace_sync::service::archive::{Accounts, NewToken};
use agent_trace_sync::service::embedded::{AdminSecret, Embedded};
use agent_trace_sync::service::grant::Scope;
use agent_trace_sync::service::http::{Backend, Config, Server, Stopper, Waits};

use crate::client::{Answer, Ask};
use crate::fake::World;

pub(crate) const ADMIN: &str = "the-admin-secret-of-the-tests";

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) world: Arc<World>,
    pub(crate) accounts: Arc<Embedded>,
    pub(crate) stopper: Stopper,
    /// Ids of the organisations `acme` and `other`.
    pub(crate) orgs: [String; 2],
    run: Option<JoinHandle<agent_trace_store::Result<()>>>,
    pub(crate) dir: tempfile::TempDir,
}

impl Service {
    pub(crate) fn start() -> Service {
        Service::start_with(100_000)
    }

    /// `acme` has the projects `web` and `ops`, `other` has `web` and `theirs`.
    pub(crate) fn start_with(requests_per_second: u32) -> Service {
        Service::start_waiting(requests_per_second, Waits::default())
    }

    /// One that waits for clients as long as this.
    pub(crate) fn start_waiting(requests_per_second: u32, waits: Waits) -> Service {
        let dir = tempfile::tempdir().unwrap();
        let (env, world) = (os_env(), Arc::new(World::default()));
        let accounts = Arc::new(Embedded::open_with(&env, &dir.path().join("data"), world.opener()).unwrap());
        accounts.book().admit_admin(Some(&AdminSecret::parse(ADMIN).unwrap())).unwrap();
        let orgs = ["acme", "other"].map(|slug| accounts.put_org(slug, None, None).unwrap().0.id);
        for (org, slug) in [(0, "web"), (0, "ops"), (1, "web"), (1, "theirs")] {
            accounts.create_project(&orgs[org], slug, None, None).unwrap();
        }
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            metrics: Some("127.0.0.1:0".parse().unwrap()),
            tls: None,
            spool: dir.path().join("spool"),
            requests_per_second,
        };
        let backend = Backend { env, accounts: accounts.clone(), staging: world.clone() };
        let server = Server::bind_with(&config, backend, waits).unwrap();
        let (address, metrics) = (server.address(), server.metrics_address().unwrap());
        let stopper = server.stopper();
        let run = Some(std::thread::spawn(move || server.run()));
        Service { address, metrics, world, accounts, stopper, orgs, run, dir }
    }

    pub(crate) fn token(&self, org: usize, project: Option<&str>, scopes: &[Scope]) -> String {
        self.token_until(org, project, scopes, None).1
    }

    /// The id and the secret of a new token.
    pub(crate) fn token_until(
        &self,
        org: usize,
        project: Option<&str>,
        scopes: &[Scope],
        expires_at: Option<Timestamp>,
    ) -> (agent_trace_sync::service::grant::TokenId, String) {
        let new = NewToken {
            org_id: self.orgs[org].clone(),
            project: project.map(str::to_owned),
            scopes: scopes.to_owned(),
            name: None,
            expires_at,
        };
        let (row, token) = self.accounts.create_token(&new).unwrap();
        (row.id, token.expose().to_owned())
    }

    pub(crate) fn ask(&self, ask: &Ask) -> Answer {
        ask.send(self.address)
    }

    pub(crate) fn get(&self, path: &str, token: &str) -> Answer {
        self.ask(&Ask::new("GET", path).token(token))
    }

    pub(crate) fn post(&self, path: &str, token: &str, body: &str) -> Answer {
        self.ask(&Ask::new("POST", path).token(token).body(body))
    }

    /// Waits until the service has ended by itself.
    pub(crate) fn wait(&mut self) {
        self.run.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(run) = self.run.take() {
            run.join().unwrap().unwrap();
        }
    }
}
