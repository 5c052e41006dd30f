//! A service on a loopback port, and machines with a repository and a home of their own, on which either program runs.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PROGRAM, command};

/// The variable in which both programs take the admin's secret, and its value here.
pub(crate) const ADMIN: (&str, &str) = ("AGENT_TRACE_ADMIN_SECRET", ADMIN_SECRET);
const ADMIN_SECRET: &str = "a-secret-of-this-test-only-0123456789";
/// A command that takes longer hangs: the peer's pull from its own service never ends.
const WAIT: Duration = Duration::from_secs(300);

/// A running service that goes with its data.
pub(crate) struct Service {
    child: Child,
    port: u16,
    _data: TempDir,
}

impl Service {
    /// Starts one, and waits until it answers.
    pub(crate) fn start() -> Service {
        let data = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(data.path().join("log")).unwrap();
        let child = command(PROGRAM, data.path(), data.path())
            .args(["serve", "--data", "data", "--listen", &format!("127.0.0.1:{port}")])
            .env(ADMIN.0, ADMIN.1)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut service = Service { child, port, _data: data };
        let start = Instant::now();
        while service.try_request("GET", "/health", b"").is_none_or(|(status, _)| status != 200) {
            let ended = service.child.try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < WAIT, "no service: {ended:?}\n{}", service.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        service
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self._data.path().join("log")).unwrap_or_default()
    }

    /// Makes a project in the organisation `acme` and a token for it; returns its URL and the token.
    pub(crate) fn project(&self, slug: &str) -> (String, String) {
        self.admin("/api/v1/orgs", &json!({"slug": "acme", "name": "Acme"}));
        self.admin("/api/v1/projects", &json!({"project_id": slug, "org_slug": "acme"}));
        (self.url(&format!("acme/{slug}")), self.token(&json!(slug), &["read", "write"]))
    }

    /// Makes a token in the organisation `acme`, for a project or for `null`.
    pub(crate) fn token(&self, project: &Value, scopes: &[&str]) -> String {
        let org = self.admin("/api/v1/orgs", &json!({"slug": "acme"}));
        let token = json!({"org_id": org["id"], "project_id": project, "scopes": scopes, "name": "test"});
        self.admin("/api/v1/tokens", &token)["token"].as_str().unwrap().to_owned()
    }

    /// A URL of this service.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    fn admin(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.try_request("POST", path, body.to_string().as_bytes()).unwrap();
        assert!(status == 200 || status == 201, "{path}: {status} {}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).unwrap()
    }

    /// One request with the admin secret; HTTP 1.0, so that the answer is not cut into chunks.
    fn try_request(&self, method: &str, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nX-Admin-Secret: {ADMIN_SECRET}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        Some((head.split(' ').nth(1)?.parse().ok()?, answer[end + 4..].to_vec()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(4_000);
            eprintln!("the service said: {}", String::from_utf8_lossy(&log.as_bytes()[from..]));
        }
    }
}

/// Somebody's machine: a repository that is initialised, with the service as its remote.
pub(crate) struct Machine {
    root: TempDir,
    program: String,
}

impl Machine {
    /// A machine where this program runs.
    pub(crate) fn new(program: &str, remote: &(String, String)) -> Machine {
        let machine = Machine { root: tempfile::tempdir().unwrap(), program: program.to_owned() };
        fs::create_dir(machine.path("r")).unwrap();
        let git = |arguments: &[&str]| {
            let mut git = machine.command("git");
            git.args(["-c", "user.name=a", "-c", "user.email=a@localhost"]).args(arguments);
            finish(git)
        };
        git(&["init", "-q", "."]);
        git(&["commit", "-q", "--allow-empty", "-m", "first"]);
        machine.run(&["init"]);
        machine.run(&["remote", "add", "origin", &remote.0, "--token", &remote.1]);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(program, &self.path("r"), &self.path("nobody"));
        command.env("AGENT_TRACE_HOME", self.path("home")).env("AGENT_TRACE_TELEMETRY", "off");
        command
    }

    /// Runs a command that must succeed, and returns what it said. The peer ends with 0 also where it failed, and says so.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let mut command = self.command(&self.program);
        command.args(arguments);
        let output = finish(command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("Error:") && !errors.contains("failed"), "{arguments:?}: {text}\n{errors}");
        text
    }

    /// Runs a command with a variable, and returns its status and all that it said.
    pub(crate) fn outcome(&self, variable: (&str, &str), arguments: &[&str]) -> (i32, String) {
        let mut command = self.command(&self.program);
        command.env(variable.0, variable.1).args(arguments);
        let output = wait(&mut command);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }

    /// The answer of our program.
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.run(&[arguments, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The bytes that our program writes of an id.
    pub(crate) fn cat(&self, id: &str) -> Vec<u8> {
        let mut command = self.command(&self.program);
        command.args(["cat", id]);
        finish(command).stdout
    }

    /// Where the program keeps this project.
    pub(crate) fn data(&self) -> PathBuf {
        let projects: Vec<PathBuf> =
            fs::read_dir(self.path("home/projects")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(projects.len(), 1);
        projects.into_iter().next().unwrap()
    }

    /// A folder on this machine.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

/// The path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits for a command, which must succeed.
fn finish(mut command: Command) -> Output {
    let output = wait(&mut command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    output
}

/// Waits for a command, and kills one that hangs.
fn wait(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id().to_string();
    let (done, waits) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if waits.recv_timeout(WAIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-9", &id]).status();
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    guard.join().unwrap();
    output
}
