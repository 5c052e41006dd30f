//! `admin` from outside: what it answers and writes, that a token is shown once, and what it refuses.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use agent_trace_store::env::os_env;
use agent_trace_sync::service::embedded::{AccountBook, Missing};
use serde_json::{Value, json};
use tempfile::TempDir;

const DEFAULT_ORG: &str = "00000000-0000-0000-0000-000000000001";

struct World {
    root: TempDir,
}

struct Answer {
    status: i32,
    out: String,
    err: String,
}

impl Answer {
    fn well(self) -> Answer {
        assert_eq!(self.status, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    fn fails(self, status: i32, words: &[&str]) -> Answer {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.out, self.err);
        assert_eq!(self.out, "");
        for word in words {
            assert!(self.err.contains(word), "expected `{word}` in: {}", self.err);
        }
        self
    }

    fn says(self, words: &[&str]) -> Answer {
        for word in words {
            assert!(self.out.contains(word), "expected `{word}` in: {}", self.out);
        }
        self
    }
}

impl World {
    fn new() -> World {
        World { root: tempfile::tempdir().unwrap() }
    }

    /// With the default org in it.
    fn made() -> World {
        let world = World::new();
        world.admin(&["org", "create", "acme", "--name", "Acme"]).well();
        world
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn command(&self) -> Command {
        support::command(support::PROGRAM, self.root.path(), self.root.path())
    }

    fn run(&self, args: &[&str]) -> Answer {
        answer(self.command().args(args).output().unwrap())
    }

    fn admin(&self, args: &[&str]) -> Answer {
        self.run(&[&["admin"], args, &["--data", "data"]].concat())
    }

    /// The lines of an answer for a program.
    fn json(&self, args: &[&str]) -> Vec<Value> {
        let answer = self.admin(&[&["--json"], args].concat()).well();
        answer.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn one(&self, args: &[&str]) -> Value {
        let mut lines = self.json(args);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    fn error(&self, args: &[&str]) -> Value {
        let answer = self.admin(&[&["--json"], args].concat());
        assert_eq!(answer.out, "");
        serde_json::from_str(answer.err.lines().last().unwrap()).unwrap()
    }

    fn book(&self) -> AccountBook {
        AccountBook::open(&os_env(), &self.data(), Missing::Refuse).unwrap()
    }
}

fn answer(output: Output) -> Answer {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn orgs_are_made_once_and_listed() {
    let world = World::new();
    world.admin(&["org", "create", "acme", "--name", "Acme"]).well().says(&["Made org acme"]);
    world.admin(&["org", "create", "acme"]).well().says(&["already"]);
    world.admin(&["org", "list"]).well().says(&["default", DEFAULT_ORG, "acme", "Acme"]);
    let again = world.one(&["org", "create", "acme"]);
    assert_eq!((&again["schema"], &again["new"]), (&json!("agent-trace/admin-org/1"), &json!(false)));
    assert_eq!((&again["slug"], &again["name"]), (&json!("acme"), &json!("Acme")));
    let id = "11111111-2222-4333-8444-555555555555";
    let other = world.one(&["org", "create", "other", "--id", id]);
    assert_eq!((&other["id"], &other["new"]), (&json!(id), &json!(true)));
    let slugs: Vec<Value> = world.json(&["org", "list"]).iter().map(|org| org["slug"].clone()).collect();
    assert_eq!(slugs, ["default", "acme", "other"]);
    world
        .admin(&["org", "create", "acme", "--id", DEFAULT_ORG.replace('1', "2").as_str()])
        .fails(6, &["acme"]);
}

#[test]
fn projects_are_made_listed_and_removed() {
    let world = World::made();
    world.admin(&["project", "create", "web", "--name", "Web"]).well().says(&["Made project web of default"]);
    let project = world.one(&["project", "create", "app", "--org", "acme", "--description", "The app"]);
    assert_eq!(
        (&project["schema"], &project["org"]),
        (&json!("agent-trace/admin-project/1"), &json!("acme"))
    );
    assert_eq!((&project["slug"], &project["description"]), (&json!("app"), &json!("The app")));
    assert_eq!(project["name"], Value::Null);
    world.admin(&["project", "list"]).well().says(&["default/web", "Web", "acme/app"]);
    assert_eq!(world.json(&["project", "list", "--org", "acme"]), std::slice::from_ref(&project));
    assert_eq!(world.json(&["project", "list", "--org", project["org_id"].as_str().unwrap()]), [project]);
    world.admin(&["project", "create", "web"]).fails(6, &["web"]);
    world.admin(&["project", "create", "web", "--org", "none"]).fails(9, &["no org `none`", "default, acme"]);
    world.admin(&["project", "create", "We b"]).fails(2, &["lower-case"]);
    world.admin(&["project", "remove", "web"]).fails(2, &["--yes"]);
    assert_eq!(world.json(&["project", "list"]).len(), 2, "nothing was removed without an answer");
    world.admin(&["project", "remove", "web", "--yes"]).well().says(&["Removed project web"]);
    world.admin(&["project", "remove", "web", "--yes"]).fails(9, &["no project `web`", "project list"]);
    assert!(
        world.admin(&["project", "remove", "app", "--org", "acme", "--yes", "--json"]).well().out.is_empty()
    );
    assert_eq!(world.json(&["project", "list"]), Vec::<Value>::new());
}

#[test]
fn a_removed_project_leaves_no_bytes() {
    let world = World::made();
    let project = world.one(&["project", "create", "web"]);
    let dir = world.data().join("projects").join(project["id"].as_str().unwrap());
    fs::create_dir_all(dir.join("store")).unwrap();
    fs::write(dir.join("store/segment"), "bytes").unwrap();
    world.admin(&["project", "remove", "web", "-y"]).well();
    assert!(!dir.exists());
    assert_eq!(fs::read_dir(world.data().join("removed")).unwrap().count(), 0);
}

#[test]
fn a_token_is_shown_once_and_lets_in() {
    let world = World::made();
    world.admin(&["project", "create", "web"]).well();
    let made = world.admin(&["token", "create", "--project", "web", "--name", "ci"]).well();
    let token = made.out.trim_end().to_owned();
    assert!(made.out.lines().count() == 1 && token.starts_with("at_") && token.len() == 70, "{token}");
    assert!(made.err.contains("default/web") && made.err.contains("read,write"), "{}", made.err);
    assert!(!made.err.contains(&token));
    let grant = world.book().authenticate(&token).unwrap();
    assert_eq!((grant.org_slug.as_str(), grant.project.as_deref()), ("default", Some("web")));

    let row = world.one(&["token", "create", "--org", "acme", "--scope", "admin", "--expires", "30d"]);
    assert_eq!(row["schema"], "agent-trace/admin-token/1");
    assert_eq!(
        (&row["org"], &row["project"], &row["scopes"]),
        (&json!("acme"), &Value::Null, &json!(["admin"]))
    );
    assert_eq!((&row["state"], &row["last_used_at"]), (&json!("valid"), &Value::Null));
    assert!(row["expires_at"].is_string());
    let second = row["token"].as_str().unwrap().to_owned();
    assert!(world.book().authenticate(&second).is_some());

    // Neither an answer nor a file shows them again.
    let listed = world.json(&["token", "list"]);
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|row| row["token"].is_null()));
    assert!(listed[0]["last_used_at"].is_string(), "a use is noted");
    let answers = [world.admin(&["token", "list"]).well().out, format!("{listed:?}")];
    let secrets = [&token, &second].map(|token| token.split('_').nth(2).unwrap().to_owned());
    for secret in &secrets {
        assert!(answers.iter().all(|answer| !answer.contains(secret)));
        for entry in fs::read_dir(world.data()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let bytes = fs::read(&path).unwrap();
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{}", path.display());
            }
        }
    }
}

#[test]
fn a_revoked_token_lets_nobody_in() {
    let world = World::made();
    let tokens: Vec<String> =
        (0..3).map(|_| world.admin(&["token", "create"]).well().out.trim_end().to_owned()).collect();
    let id = |token: &str| token.split('_').nth(1).unwrap().to_owned();
    // By its id, by its prefix, and whole as somebody may have found it.
    world.admin(&["token", "revoke", &id(&tokens[0])]).well().says(&["Revoked token", &id(&tokens[0])]);
    world.admin(&["token", "revoke", &format!("at_{}", id(&tokens[1]))]).well();
    let whole = world.admin(&["token", "revoke", &tokens[2]]).well();
    assert!(!whole.out.contains(&tokens[2]));
    world.admin(&["token", "revoke", &id(&tokens[0])]).well();
    for token in &tokens {
        assert!(world.book().authenticate(token).is_none());
    }
    assert!(world.json(&["token", "list"]).iter().all(|row| row["state"] == "revoked"));
    world.admin(&["token", "list"]).well().says(&["revoked"]);
    world.admin(&["token", "revoke", "0123456789abcdef"]).fails(9, &["0123456789abcdef", "token list"]);
    assert_eq!(world.json(&["token", "list", "--org", "acme"]), Vec::<Value>::new());
}

#[test]
fn tokens_that_make_no_sense_are_refused() {
    let world = World::made();
    world.admin(&["token", "create", "--scope", "root"]).fails(2, &["projects:write", "root"]);
    world.admin(&["token", "create", "--expires", "soon"]).fails(2, &["soon"]);
    world.admin(&["token", "create", "--expires", "2020-01-01"]).fails(2, &["expired"]);
    world.admin(&["token", "create", "--org", "none"]).fails(9, &["none"]);
    world.admin(&["token", "create", "--project", "Web"]).fails(2, &["lower-case"]);
    assert_eq!(world.json(&["token", "list"]), Vec::<Value>::new());
    let warned = world.admin(&["token", "create", "--project", "later"]).well();
    assert!(warned.err.contains("no project `later`"), "{}", warned.err);
}

#[test]
fn files_are_for_their_owner_only() {
    let world = World::made();
    world.admin(&["token", "create"]).well();
    for name in ["pepper", "accounts.redb", "lock"] {
        assert_eq!(mode(&world.data().join(name)), 0o600, "{name}");
    }
    for name in ["", "projects", "removed"] {
        assert_eq!(mode(&world.data().join(name)), 0o700, "{name}");
    }
}

#[test]
fn a_folder_in_use_is_refused_and_its_user_named() {
    let world = World::made();
    let book = world.book();
    let holder = format!("process {}", std::process::id());
    world.admin(&["org", "list"]).fails(5, &["data", &holder, "hint: ", "--url URL"]);
    assert_eq!(world.error(&["token", "create"])["kind"], "unavailable");
    drop(book);
    world.admin(&["org", "list"]).well();
}

#[test]
fn a_folder_that_is_none_of_a_service_is_refused() {
    let world = World::new();
    for args in [["org", "list"], ["project", "list"], ["token", "list"]] {
        world.admin(&args).fails(9, &["data", "hint:"]);
    }
    world.admin(&["token", "revoke", "0123456789abcdef"]).fails(9, &["data"]);
    assert!(!world.data().exists(), "asking makes nothing");
    fs::create_dir(world.data()).unwrap();
    fs::write(world.data().join("mine"), "").unwrap();
    world.admin(&["org", "create", "acme"]).fails(2, &["`mine`"]);
    assert_eq!(fs::read_dir(world.data()).unwrap().count(), 1);
    world.run(&["admin", "org", "list"]).fails(2, &["--data"]);
    world.run(&["admin", "org"]).fails(2, &["create"]);
}

#[test]
fn a_lost_pepper_is_named() {
    let world = World::made();
    fs::remove_file(world.data().join("pepper")).unwrap();
    world.admin(&["token", "list"]).fails(7, &["pepper", "hint: restore"]);
    assert!(!world.data().join("pepper").exists());
    fs::write(world.data().join("format"), "agent-trace service 9\n").unwrap();
    world.admin(&["token", "list"]).fails(11, &["version 9"]);
}

#[test]
fn names_of_others_are_shown_harmless() {
    let world = World::made();
    world.admin(&["project", "create", "web", "--name", "a\u{1b}[31mb"]).well();
    let listed = world.admin(&["project", "list"]).well();
    assert!(!listed.out.contains('\u{1b}') && listed.out.contains("\\u{1b}"), "{}", listed.out);
}
