//! A service on a loopback port, as a process of its own, and stores that have it as their remote.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::layout::Layout;
use crate::support::{PROGRAM, Random, command};

pub(crate) const SECRET: &str = "the-admin-secret-of-the-tests";
/// What waits longer for a socket hangs.
const HANGS: Duration = Duration::from_secs(60);

/// A running service over a data folder.
pub(crate) struct Service {
    child: Child,
    data: PathBuf,
    pub(crate) address: SocketAddr,
    arguments: Vec<String>,
}

impl Service {
    /// Starts one at any port.
    pub(crate) fn start(data: &Path) -> Service {
        Service::start_with(data, &[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(data: &Path, arguments: &[&str]) -> Service {
        // Below the ports that the system hands out by itself, so that nobody takes it between two starts.
        let mut random = Random(std::process::id().into());
        for _ in 0..100 {
            let port = u16::try_from(20_000 + random.below(12_000)).unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            if TcpListener::bind(address).is_err() {
                continue;
            }
            let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
            if let Some(service) = Service::start_at(data, address, arguments) {
                return service;
            }
        }
        panic!("no port is free");
    }

    fn start_at(data: &Path, address: SocketAddr, arguments: Vec<String>) -> Option<Service> {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("AGENT_TRACE_ADMIN_SECRET", SECRET);
        command.args(["--json", "serve", "--listen", &address.to_string(), "--data"]).arg(data);
        let log = fs::OpenOptions::new().create(true).append(true).open(data.with_extension("log")).unwrap();
        let mut child = command.args(&arguments).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let _ = child.wait();
            return None;
        }
        let said: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(said["schema"], "agent-trace/serve/1");
        Some(Service { child, data: data.to_owned(), address, arguments })
    }

    /// Kills it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it and starts it again over the same folder at the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        for _ in 0..100 {
            if let Some(service) = Service::start_at(&self.data, self.address, self.arguments.clone()) {
                *self = service;
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the service does not start again: {}", self.log());
    }

    /// What it has logged, all starts together.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    /// The URL of something at this service.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Makes the organisation `acme` and a project there; returns the project's id.
    pub(crate) fn project(&self, slug: &str) -> String {
        self.admin("/api/v1/orgs", &json!({"slug": "acme"}));
        let project = self.admin("/api/v1/projects", &json!({"project_id": slug, "org_slug": "acme"}));
        project["id"].as_str().unwrap().to_owned()
    }

    /// Makes a token in an organisation, for a project or for `null`.
    pub(crate) fn token(&self, org: &str, project: &Value, scopes: &[&str]) -> String {
        let org = self.admin("/api/v1/orgs", &json!({"slug": org}));
        let new = json!({"org_id": org["id"], "project_id": project, "scopes": scopes});
        self.admin("/api/v1/tokens", &new)["token"].as_str().unwrap().to_owned()
    }

    /// A request of the admin, which must succeed.
    pub(crate) fn admin(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = ask(
            self.address,
            "POST",
            path,
            &format!("X-Admin-Secret: {SECRET}"),
            body.to_string().as_bytes(),
        )
        .unwrap();
        assert!(status == 200 || status == 201, "{path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// The folder of a project's store.
    pub(crate) fn store(&self, project_id: &str) -> PathBuf {
        self.data.join("projects").join(project_id).join("store")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            eprintln!(
                "the service said: {}",
                &log[log.floor_char_boundary(log.len().saturating_sub(3_000))..]
            );
        }
    }
}

/// One request; nothing where its answer did not come whole.
pub(crate) fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    header: &str,
    body: &[u8],
) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(HANGS)).unwrap();
    let length = body.len();
    // By HTTP 1.0 the answer does not come in chunks.
    let head = format!("{method} {path} HTTP/1.0\r\nHost: x\r\n{header}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let told = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let is_whole = told.is_none_or(|length: usize| body.len() == length);
    is_whole.then_some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn well(self) -> Answer {
        self.ends(0, &[])
    }

    /// Compares the status and looks for words in both outputs.
    #[track_caller]
    pub(crate) fn ends(self, status: i32, words: &[&str]) -> Answer {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.out, self.err);
        for word in words {
            let is_said = self.out.contains(word) || self.err.contains(word);
            assert!(is_said, "expected `{word}` in\nstdout: {}\nstderr: {}", self.out, self.err);
        }
        self
    }

    /// The one document that was printed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A store in a folder of its own, with a home of its own.
pub(crate) struct Machine {
    root: TempDir,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let machine = Machine { root: tempfile::tempdir().unwrap() };
        machine.run(&["init"]).well();
        machine
    }

    /// One whose `origin` is this.
    pub(crate) fn with_remote(url: &str, token: &str) -> Machine {
        let machine = Machine::new();
        machine.input(&["remote", "add", "origin", url, "--token-stdin", "--no-check"], token).well();
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = command(PROGRAM, self.root.path(), &self.path("nobody"));
        command.env("AGENT_TRACE_HOME", self.path("home")).env("AGENT_TRACE_STORE", self.path("store"));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        answer(self.command().args(arguments).output().unwrap())
    }

    /// Runs a command with variables.
    pub(crate) fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Answer {
        answer(self.command().envs(variables.iter().copied()).args(arguments).output().unwrap())
    }

    /// Runs a command with something on its stdin.
    pub(crate) fn input(&self, arguments: &[&str], text: &str) -> Answer {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        answer(child.wait_with_output().unwrap())
    }
}

fn answer(output: Output) -> Answer {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { status: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// Takes a part into a store.
pub(crate) fn import(machine: &Machine, part: &Layout) {
    let folder = machine.path("part");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    part.write(&folder);
    machine.run(&["import", folder.to_str().unwrap()]).well();
}
