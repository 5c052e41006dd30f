//! Drives the peers on the same bytes: borg, restic, git and casync, as Debian packages them.
//!
//! Each gets an empty repository for each first run, its cache beside it, no encryption where that can be left out
//! (restic always encrypts), and its usual compression. Nothing of the user's configuration is read or written.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::files;
use crate::measure::{self, Job};
use crate::report::{Report, Result};

const PACKAGES: [(&str, &str); 4] =
    [("borg", "borgbackup"), ("restic", "restic"), ("git", "git"), ("casync", "casync")];

/// A peer that is installed, and the folder where it works.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    dir: PathBuf,
    corpus: PathBuf,
}

/// Installs what is missing from Debian's packages; needs the right to do so.
pub(crate) fn install() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| version(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(", "));
    measure::output(Command::new("apt-get").args(["update", "--quiet"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(missing);
    measure::output(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    Ok(())
}

/// The peers that are there, with their versions in the report.
pub(crate) fn present(report: &mut Report, work: &Path, corpus: &Path) -> Vec<Peer> {
    let (mut peers, mut versions) = (Vec::new(), Vec::new());
    for (name, _) in PACKAGES {
        let version = version(name);
        if version.is_some() {
            peers.push(Peer { name, dir: work.join(name), corpus: corpus.into() });
        }
        versions.push(version.unwrap_or_else(|| format!("{name} is not installed, left out")));
    }
    report.text(&format!(
        "Peers: {}. All take in the folder as it is, with warm files: borg without encryption and with zstd,3, restic \
         with its usual compression, git as `add` and one commit (loose objects, not packed), casync into a chunk store.",
        versions.join("; ")
    ));
    peers
}

fn version(program: &str) -> Option<String> {
    let flag = if program == "restic" { "version" } else { "--version" };
    let text = measure::output(Command::new(program).arg(flag)).ok()?;
    Some(text.lines().next().unwrap_or_default().to_string())
}

impl Peer {
    /// Taking in the whole corpus, into a new repository.
    pub(crate) fn first(&self) -> Job<'static> {
        let (before, now, after) = (self.clone(), self.clone(), self.clone());
        Job::new(self.name, move |_| Ok(now.take_in("first")))
            .prepare(move |_| before.init())
            .bytes(move |_| files::bytes_below(&after.dir.join("repository")))
    }

    /// Taking in the unchanged corpus again.
    pub(crate) fn again(&self) -> Job<'static> {
        let now = self.clone();
        Job::new(&format!("{}, again", self.name), move |_| Ok(now.take_in("second")))
    }

    /// Writing the files of the newest archive into an empty folder; restic only.
    pub(crate) fn restore(&self, target: &Path) -> Job<'static> {
        let (now, target, before) = (self.clone(), target.to_owned(), target.to_owned());
        Job::new(&format!("{}, restore", self.name), move |_| {
            let mut command = now.command();
            command.args(["restore", "--quiet", "latest", "--target"]).arg(&target);
            Ok(vec![command])
        })
        .prepare(move |_| files::renew(&before).map(drop))
    }

    fn init(&self) -> Result<()> {
        files::renew(&self.dir)?;
        match self.name {
            "borg" => {
                measure::output(self.command().args(["init", "-e", "none"]).arg(self.dir.join("repository")))?
            }
            "restic" => measure::output(self.command().arg("init"))?,
            "git" => measure::output(self.command().args(["init", "--quiet"]))?,
            _ => {
                std::fs::create_dir_all(self.dir.join("repository"))?;
                String::new()
            }
        };
        Ok(())
    }

    fn take_in(&self, archive: &str) -> Vec<Command> {
        let mut command = self.command();
        match self.name {
            "borg" => {
                let mut target = self.dir.join("repository").into_os_string();
                target.push(format!("::{archive}"));
                command.args(["create", "-C", "zstd,3"]).arg(target).arg(".");
            }
            "restic" => {
                command.args(["backup", "--quiet", "."]);
            }
            "git" => {
                command.args(["add", "--all"]);
                let mut commit = self.command();
                commit.args(["commit", "--quiet", "--allow-empty", "--message", archive]);
                return vec![command, commit];
            }
            _ => {
                let index = self.dir.join(format!("repository/{archive}.caidx"));
                let store = self.dir.join("repository/chunks.castr");
                command.args(["make", "--without=privileged"]).arg("--store").arg(store).arg(index).arg(".");
            }
        }
        vec![command]
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.name);
        let repository = self.dir.join("repository");
        command.current_dir(&self.corpus).env("HOME", &self.dir);
        match self.name {
            "borg" => command
                .env("BORG_BASE_DIR", self.dir.join("cache"))
                .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
                .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes"),
            "restic" => command
                .env("RESTIC_REPOSITORY", repository)
                .env("RESTIC_PASSWORD", "benchmark")
                .env("RESTIC_CACHE_DIR", self.dir.join("cache")),
            "git" => command
                .env("GIT_DIR", repository)
                .env("GIT_WORK_TREE", &self.corpus)
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .env("GIT_AUTHOR_NAME", "bench")
                .env("GIT_AUTHOR_EMAIL", "bench@localhost")
                .env("GIT_COMMITTER_NAME", "bench")
                .env("GIT_COMMITTER_EMAIL", "bench@localhost"),
            _ => &mut command,
        };
        command
    }
}
