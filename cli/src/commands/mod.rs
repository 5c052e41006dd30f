//! One command, one file; each takes the context and its arguments, prints its answer, and says how it ended.

mod admin;
mod backfill;
mod blame;
mod book;
mod bundle;
mod cat;
mod commit;
mod compact;
mod completions;
mod config;
mod context;
mod doctor;
mod export;
mod gc;
mod erase;
mod help_page;
mod hooks;
mod import;
mod init;
mod key;
mod lines;
mod link;
mod log;
mod man;
mod notes;
mod privacy;
mod project;
mod projects;
mod pull;
mod push;
mod reindex;
mod remote;
mod reset;
mod retention;
mod rule;
mod search;
mod serve;
mod show;
mod stats;
mod status;
mod summary;
mod survey;
mod sync;
mod tour;
mod verify;

use std::sync::Arc;

use agent_trace_store::env::Env;
use agent_trace_store::question::Found;
use agent_trace_store::{Error, ErrorKind, Kind, Store, Timestamp};
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::exchange::Exchange;
use jiff::tz::TimeZone;

use crate::args::Command;
use crate::capture::absorb;
use crate::capture::commits;
use crate::capture::entry::EntryKind;
use crate::capture::limits::{ABSORB_MICROS_MAX, ABSORB_WAIT_MICROS_MAX, COMMITS_MAX};
use crate::capture::record;
use crate::capture::spool::Spool;
use crate::json;
use crate::privacy::policy::Policy;
use crate::privacy::redact::Redaction;
use crate::project::{self as place, Place};
use crate::remotes::{self, Files, Named, Remotes};
use crate::report::{Done, Failure};
use crate::settings::{self, Settings};
use crate::time::{self, Edge};
use crate::ui::Ui;

/// What every command is given.
#[derive(Clone)]
pub(crate) struct Context {
    /// Files, time and randomness.
    pub(crate) env: Env,
    /// What the surroundings say.
    pub(crate) settings: Settings,
    /// Where to print.
    pub(crate) ui: Ui,
}

impl Context {
    /// Finds and opens the store.
    fn open(&self) -> Result<(Place, Store), Failure> {
        let place = place::find(&self.env, &self.settings)?;
        let store = Store::open(&self.env, &place.store)?;
        // What cannot be read is left out of answers, so it is said beside each.
        for unreadable in store.segments().unreadable.iter() {
            let path = unreadable.path.display();
            self.ui.warn(&format!("segment `{path}` cannot be read: {}", unreadable.error));
        }
        Ok((place, store))
    }

    /// The same, with what hooks have brought in the meantime; where that takes too long, it is said.
    fn open_current(&self) -> Result<(Place, Store), Failure> {
        let (place, store) = self.open()?;
        let spool = Spool::of(&place.data);
        let is_empty = || -> Result<bool, Failure> {
            Ok(spool.list(&self.env)?.is_empty() && commits::waiting(&self.env, &spool).is_empty())
        };
        if place.project.is_none() || is_empty()? {
            return Ok((place, store));
        }
        let absorbed = absorb::alone(&self.env, &spool, ABSORB_WAIT_MICROS_MAX).and_then(|_alone| {
            let until = self.env.clock.monotonic_micros() + ABSORB_MICROS_MAX;
            let at = absorb::Place { data: &place.data, spool: &spool, store: &store };
            let absorbed = absorb::run(&at, Some(until))?;
            if commits::run(&at, COMMITS_MAX)? > 0 {
                self.ui.warn("commits that git told of are not all in the answer yet");
            }
            Ok(absorbed)
        });
        let left = spool.list(&self.env)?.len();
        match absorbed {
            Ok(absorbed) if absorbed.is_cut_short => {
                self.ui.warn(&format!("{left} captured event(s) are not in the answer yet"));
            }
            Ok(_) => {}
            // The answer is what the store holds; why it is not more is said beside it.
            Err(error) => {
                self.ui.warn(&format!("{left} captured event(s) are not in the answer: {error}"));
            }
        }
        Ok((place, store))
    }

    /// Where the remotes of a store are kept.
    pub(crate) fn files<'a>(&'a self, place: &'a Place, store: &'a Store) -> Files<'a> {
        Files { store, place, home: self.settings.home.as_deref() }
    }

    /// Opens a remote with its token; `create` makes a folder's layout where there is none.
    pub(crate) fn reach(&self, files: &Files<'_>, remote: &Named, create: bool) -> Result<Exchange, Failure> {
        let token = match &remote.token {
            Some(reference) => files.tokens().resolve(reference)?,
            None => None,
        };
        let mut address = remote.address()?;
        self.sign(remote, &mut address)?;
        let access = files.access(remote)?;
        Exchange::open_with(&self.env, &address, token, create, access.as_ref())
            .map_err(|error| hinted(remote, error))
    }

    /// Adds the credentials of a bucket to its address.
    pub(crate) fn sign(&self, remote: &Named, address: &mut RemoteUrl) -> Result<(), Failure> {
        match address {
            RemoteUrl::Bucket(url) => remote.bucket.sign(&self.env, self.settings.user_home.as_deref(), url),
            RemoteUrl::Folder(_) | RemoteUrl::Service(_) => Ok(()),
        }
    }

    /// Finds the remote that a command means, with the rate that it is given.
    pub(crate) fn pick(
        &self,
        files: &Files<'_>,
        name: Option<&str>,
        limit_rate: Option<&str>,
    ) -> Result<Named, Failure> {
        let mut remote = Remotes::read(files)?.pick(name)?;
        if let Some(text) = limit_rate {
            if !matches!(remote.address(), Ok(RemoteUrl::Bucket(_))) {
                let message =
                    format!("the remote `{}` is no bucket: its rate cannot be limited", remote.name);
                return Err(Error::invalid(message).into());
            }
            remote.bucket.options.rate_bytes = Some(remotes::rate(text)?);
        }
        Ok(remote)
    }

    /// What the user wants of the privacy gate.
    pub(crate) fn policy(&self, place: &Place) -> Result<Policy, Failure> {
        Ok(Policy::read(&self.env, self.settings.home.as_deref(), &place.data)?)
    }

    /// What replaces secrets before they are stored, where the user wants that.
    pub(crate) fn redaction(&self, place: &Place) -> Result<Option<Arc<Redaction>>, Failure> {
        Ok(Redaction::of(&self.env, self.settings.home.as_deref(), &place.data)?.map(Arc::new))
    }

    /// Reads a time, if one is given.
    fn time(&self, text: Option<&str>, edge: Edge) -> Result<Option<Timestamp>, Failure> {
        let zone = settings::time_zone();
        let now = self.env.clock.now();
        Ok(text.map(|text| time::parse(text, edge, now, &zone)).transpose()?)
    }
}

/// What can be done where the privacy gate refuses.
pub(crate) const SENSITIVE: &str =
    "agent-trace privacy allow FINGERPRINT says that one is no secret; --allow-sensitive sends all of it";

/// What can be done where a remote does not do what it was asked.
pub(crate) fn hinted(remote: &Named, error: Error) -> Failure {
    if error.kind() == ErrorKind::Refused {
        return Failure::from(error).hint(SENSITIVE);
    }
    if let Ok(RemoteUrl::Bucket(_)) = remote.address() {
        return hinted_bucket(remote, error);
    }
    let hint = match error.kind() {
        ErrorKind::Denied => format!("agent-trace remote set-token {} --token-stdin", remote.name),
        ErrorKind::NotFound => format!("agent-trace project create {}", remote.url),
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

/// What can be done where a bucket does not do what it was asked.
fn hinted_bucket(remote: &Named, error: Error) -> Failure {
    let name = &remote.name;
    let hint = match error.kind() {
        ErrorKind::Denied => {
            format!(
                "agent-trace remote show {name} says where its credentials are; agent-trace doctor tries them"
            )
        }
        ErrorKind::NotFound => {
            format!("create the bucket, or correct its name: agent-trace remote set-url {name} URL")
        }
        ErrorKind::Invalid if error.message().contains("another region") => {
            format!("agent-trace remote set-url {name} {} --region REGION", remote.url)
        }
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

/// Runs a command.
pub(crate) fn run(context: &Context, command: &Command) -> Result<Done, Failure> {
    match command {
        Command::Init(args) => init::run(context, args),
        Command::Record(args) => {
            record::run(EntryKind::Agent, &args.words);
            Ok(Done::Well)
        }
        Command::Hook(args) => {
            record::run(EntryKind::Git, &args.words);
            Ok(Done::Well)
        }
        Command::Import(args) => import::run(context, args),
        Command::Backfill(args) => backfill::run(context, args),
        Command::Blame(args) => blame::run(context, args),
        Command::Context(args) => context::run(context, args),
        Command::Search(args) => search::run(context, args),
        Command::Log(args) => log::run(context, args),
        Command::Show(args) => show::run(context, args),
        Command::Cat(args) => cat::run(context, args),
        Command::Status => status::run(context),
        Command::Stats(args) => stats::run(context, args),
        Command::CommitLink(args) => link::commit(context, args),
        Command::RewriteLedger => link::rewrite(context),
        Command::Link(args) => link::link(context, args),
        Command::Notes(args) => notes::run(context, args),
        Command::Rule(args) => rule::run(context, args),
        Command::Summary(args) => summary::run(context, args),
        Command::Config(args) => config::run(context, args),
        Command::Reset(args) => reset::run(context, args),
        Command::Projects { command } => projects::run(context, command.as_ref()),
        Command::Adopt { path } => projects::adopt(context, path.as_deref()),
        Command::Remote(args) => remote::run(context, args),
        Command::Key(command) => key::run(context, command),
        Command::Project(args) => project::run(context, args),
        Command::Push(args) => push::run(context, args),
        Command::Pull(args) => pull::run(context, args),
        Command::Sync(args) => sync::run(context, args),
        Command::Export(args) => export::run(context, args),
        Command::Bundle(args) => bundle::run(context, args),
        Command::Privacy(args) => privacy::run(context, args),
        Command::Hooks(args) => hooks::run(context, args),
        Command::Doctor(args) => doctor::run(context, args),
        Command::Admin(args) => admin::run(context, args),
        Command::Serve(args) => serve::run(context, args),
        Command::Verify(args) => verify::run(context, args),
        Command::Reindex => reindex::run(context),
        Command::Gc(args) => gc::run(context, args),
        Command::Compact(args) => compact::run(context, args),
        Command::Erase(args) => erase::run(context, args),
        Command::Retention(args) => retention::run(context, args),
        Command::Tour(args) => tour::run(context, args),
        Command::Completions(args) => completions::run(context, args),
        Command::Man(args) => man::run(context, args),
        Command::HelpPage => help_page::run(context),
    }
}

/// Reads a kind as people write it.
fn kind(text: &str) -> Result<Kind, Failure> {
    Kind::parse(text).ok_or_else(|| {
        let names = "trace, ledger, commit-link, transcript (or conversation), summary, unknown";
        Error::invalid(format!("cannot read kind `{text}`: expected {names}")).into()
    })
}

/// What is known of a record without reading it, for a program.
fn head(found: &Found) -> json::Head {
    let fact = &found.event.fact;
    json::Head {
        id: found.record().to_string(),
        event: found.id.to_string(),
        kind: fact.kind.name(),
        key: fact.key.clone(),
        time: fact.time.to_string(),
        appended: fact.appended.to_string(),
        writer: found.event.writer.to_string(),
        seq: found.event.seq.get(),
        objects: fact.objects.iter().map(ToString::to_string).collect(),
    }
}

/// The time zone in which times are shown.
fn zone() -> TimeZone {
    settings::time_zone()
}
