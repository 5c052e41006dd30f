//! Bytes that a pull left out, and where they are: fetched when a command needs them, from the remote that holds them.
//!
//! What is fetched stays. Nothing is asked of the network where all is here.

use std::collections::{BTreeMap, BTreeSet};

use agent_trace_store::elsewhere::RemoteId;
use agent_trace_store::id::encode_hex;
use agent_trace_store::{Elsewhere, ErrorKind, ObjectId, Store};
use agent_trace_sync::exchange::Exchange;

use crate::commands::{Context, hinted};
use crate::project::Place;
use crate::remotes::{Files, Named, Remotes};
use crate::report::Failure;
use crate::ui;

/// Whether the network may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// Where bytes are elsewhere.
    IfNeeded,
    /// Not at all (`--offline`).
    Never,
}

/// Sees to it that these objects are here. What is neither here nor elsewhere is left to whoever reads it.
pub(crate) fn ensure(
    context: &Context,
    place: &Place,
    store: &Store,
    ids: &[ObjectId],
    network: Network,
) -> Result<(), Failure> {
    let here = store.contains_all(ids)?;
    let absent: Vec<ObjectId> = ids.iter().zip(here).filter(|(_, here)| !here).map(|(id, _)| *id).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let elsewhere = store.elsewhere()?;
    let absent: Vec<ObjectId> = absent.into_iter().filter(|id| elsewhere.contains(id)).collect();
    let Some(first) = absent.first() else { return Ok(()) };
    let files = context.files(place, store);
    let holders = Holders::of(&files)?;
    if network == Network::Never {
        let message = format!("{} are elsewhere: {}", words(first), holders.names(elsewhere.remotes(first)));
        let hint = "the same command without --offline fetches them";
        return Err(Failure::new(ErrorKind::Unavailable, message, hint));
    }
    let mut wanted: BTreeMap<&str, Vec<ObjectId>> = BTreeMap::new();
    for id in &absent {
        let holder = holders.first(elsewhere.remotes(id)).ok_or_else(|| homeless(id))?;
        wanted.entry(&holder.name).or_default().push(*id);
    }
    for (name, ids) in wanted {
        let remote = holders.named(name);
        fetch(context, &files, remote, &elsewhere, &ids)?;
    }
    Ok(())
}

fn fetch(
    context: &Context,
    files: &Files<'_>,
    remote: &Named,
    elsewhere: &Elsewhere,
    ids: &[ObjectId],
) -> Result<(), Failure> {
    let exchange = context.reach(files, remote, false)?;
    let is_it = |id: RemoteId| ids.iter().any(|wanted| elsewhere.remotes(wanted).contains(&id));
    if !exchange.id().is_some_and(is_it) {
        let message =
            format!("cannot fetch bytes from `{}`: nothing of it is at `{}`", remote.name, remote.url);
        return Err(Failure::new(
            ErrorKind::Unavailable,
            message,
            "see that the folder is there, and try again",
        ));
    }
    let progress = context.ui.progress();
    progress.start("fetching", None);
    let brought = exchange.bring(files.store, ids, progress.as_ref());
    progress.finish();
    let brought = brought.map_err(|error| hinted(remote, error))?;
    if let Some(id) = brought.not_there.first() {
        let message = format!("{} were left with `{}`, which does not hold them", words(id), remote.name);
        let hint = "agent-trace pull --transcripts --remote NAME asks another remote";
        return Err(Failure::new(ErrorKind::NotFound, message, hint));
    }
    context.ui.note(&format!("fetched {} from `{}`", ui::bytes(brought.bytes), remote.name));
    Ok(())
}

fn words(id: &ObjectId) -> String {
    format!("the bytes of `{}`", id.short())
}

fn homeless(id: &ObjectId) -> Failure {
    let message = format!("{} are elsewhere, on a remote that is not in the settings any more", words(id));
    let hint = "agent-trace remote add NAME URL names it again; agent-trace pull --transcripts --remote NAME asks another";
    Failure::new(ErrorKind::NotFound, message, hint)
}

/// The remotes of a store, by which remote they are.
pub(crate) struct Holders {
    remotes: Vec<(RemoteId, Named)>,
}

impl Holders {
    /// Reads the settings; asks no remote.
    pub(crate) fn of(files: &Files<'_>) -> Result<Holders, Failure> {
        let mut remotes = Vec::new();
        for named in Remotes::read(files)?.list() {
            // One that cannot be used as it is written holds nothing that could be fetched.
            let Ok(address) = named.address() else { continue };
            let known = Exchange::remote_at(files.store, &address)?;
            // Where the index was lost, the folder says itself which it is.
            let opened = || {
                let access = files.access(&named).ok()?;
                let env = files.store.env();
                Exchange::open_with(env, &address, None, false, access.as_ref()).ok()?.id()
            };
            if let Some(id) = known.or_else(opened) {
                remotes.push((id, named));
            }
        }
        Ok(Holders { remotes })
    }

    /// The first of these remotes that has a name.
    fn first(&self, ids: &[RemoteId]) -> Option<&Named> {
        self.remotes.iter().find(|(id, _)| ids.contains(id)).map(|(_, named)| named)
    }

    fn named(&self, name: &str) -> &Named {
        let found = self.remotes.iter().find(|(_, named)| named.name == name);
        &found.expect("it was found by its id").1
    }

    /// What these remotes are called, for people.
    pub(crate) fn names(&self, ids: &[RemoteId]) -> String {
        let name = |id: &RemoteId| match self.first(std::slice::from_ref(id)) {
            Some(named) => format!("`{}`", named.name),
            None => format!("a remote `{}` that is not in the settings", &encode_hex(id)[..12]),
        };
        ids.iter().map(name).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    }

    /// The name of a remote that holds something of this, to be put into a hint.
    pub(crate) fn for_hint(&self, elsewhere: &Elsewhere) -> String {
        let found = elsewhere.ids().find_map(|id| self.first(elsewhere.remotes(id)));
        found.map_or_else(|| "NAME".to_owned(), |named| named.name.clone())
    }
}
