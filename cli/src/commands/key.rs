//! `key`: the keys of encrypted remotes. Shows ids and recipients, never a key or a secret.

use std::path::Path;

use agent_trace_store::layout::create_dir_durably;
use agent_trace_store::{Error, ErrorKind};
use agent_trace_sync::exchange::Exchange;
use agent_trace_sync::limits::HEAD_BYTES_MAX;
use agent_trace_sync::remote::Remote;
use agent_trace_sync::seal::{Change, Ring, Secret};

use super::Context;
use crate::args;
use crate::json;
use crate::remotes::{Files, Named, Remotes, SecretRef};
use crate::report::{Done, Failure};
use crate::sanitize;

pub(super) fn run(context: &Context, command: &args::Key) -> Result<Done, Failure> {
    if let args::Key::New { file } = command {
        return new(context, file);
    }
    let (place, store) = context.open()?;
    let files = context.files(&place, &store);
    match command {
        args::Key::Rotate(args) => rotate(context, &files, args),
        args::Key::ShowId(args) => {
            let (remote, opened) = open(context, &files, args)?;
            tell(context, &files, &remote, ring(&opened)?, None)
        }
        args::Key::Check(args) => {
            let (remote, opened) = open(context, &files, args)?;
            check(context, &files, &remote, &opened)
        }
        args::Key::New { .. } => unreachable!("it needs no store"),
    }
}

/// Opens an encrypted remote.
fn open(context: &Context, files: &Files<'_>, args: &args::KeyRemote) -> Result<(Named, Remote), Failure> {
    let remote = Remotes::read(files)?.pick(args.remote.as_deref())?;
    if remote.secret.is_none() {
        let message = format!("the remote `{}` is not encrypted", remote.name);
        let hint = "agent-trace remote add NAME URL --encrypt --key-file FILE";
        return Err(Failure::new(ErrorKind::Invalid, message, hint));
    }
    match context.reach(files, &remote, false)? {
        Exchange::Layout(opened) if opened.id().is_some() => Ok((remote, opened)),
        Exchange::Layout(_) => {
            let message = format!("there is nothing on the remote `{}` yet", remote.name);
            Err(Failure::new(
                ErrorKind::NotFound,
                message,
                format!("agent-trace push --remote {}", remote.name),
            ))
        }
        Exchange::Service(_) => Err(Error::invalid("a service has no keys").into()),
    }
}

fn ring(opened: &Remote) -> Result<&Ring, Failure> {
    opened.ring().ok_or_else(|| Error::invalid("the remote is not encrypted").into())
}

fn rotate(context: &Context, files: &Files<'_>, args: &args::KeyRotate) -> Result<Done, Failure> {
    let given = SecretRef::given(&args.secret, &context.settings.directory)?;
    let (remote, opened) = open(context, files, &args.remote)?;
    let _alone = opened.lock(files.store)?;
    let secret = given.as_ref().map(|given| given.resolve(&context.env)).transpose()?;
    let access = files.access(&remote)?.expect("it has just been opened with it");
    let change = Change { secret, add: args.add.clone(), remove: args.remove.clone() };
    let ring = opened.rotate(&context.env, &access, change)?;
    if let Some(given) = &given {
        files.set_secret(&remote.name, given)?;
    }
    let remote = Remotes::read(files)?.get(&remote.name)?;
    let done = tell(context, files, &remote, &ring, None)?;
    context.ui.hint(
        "what was pushed before stays as it is; compare `agent-trace key show-id` with the other members",
    );
    Ok(done)
}

/// Opens all heads.
fn check(context: &Context, files: &Files<'_>, remote: &Named, opened: &Remote) -> Result<Done, Failure> {
    let (mut heads, mut refused) = (0, Vec::new());
    for listed in opened.transport().list("heads")? {
        match opened.transport().read(&format!("heads/{}", listed.name), HEAD_BYTES_MAX) {
            Ok(Some(_)) => heads += 1,
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::Corrupt => refused.push(error.message().to_owned()),
            Err(error) => return Err(error.into()),
        }
    }
    let is_well = refused.is_empty();
    tell(context, files, remote, ring(opened)?, Some((heads, refused)))?;
    Ok(if is_well { Done::Well } else { Done::Partial })
}

fn tell(
    context: &Context,
    files: &Files<'_>,
    remote: &Named,
    ring: &Ring,
    checked: Option<(u64, Vec<String>)>,
) -> Result<Done, Failure> {
    let ui = &context.ui;
    let own = files.access(remote)?.map(|access| access.secret.recipients()).unwrap_or_default();
    let (heads, refused) = checked.map_or((None, Vec::new()), |(heads, refused)| (Some(heads), refused));
    let answer = json::Key {
        schema: json::KEY,
        remote: Some(remote.name.clone()),
        epoch: Some(ring.epoch()),
        key_id: ring.key_id(ring.epoch()).map(|id| id.to_string()),
        members: ring.members().to_vec(),
        own,
        heads,
        refused,
    };
    if ui.is_json() {
        ui.json(&answer)?;
        return Ok(Done::Well);
    }
    ui.line(format_args!("remote   {}", ui.name(sanitize::line(&remote.name))))?;
    ui.line(format_args!("epoch    {}", ring.epoch()))?;
    ui.line(format_args!("key id   {}", answer.key_id.as_deref().unwrap_or_default()))?;
    if answer.members.is_empty() {
        ui.line(format_args!("members  whoever has the passphrase"))?;
    }
    for (index, member) in answer.members.iter().enumerate() {
        let label = if index == 0 { "members" } else { "" };
        let own = if answer.own.contains(member) { "  (own)" } else { "" };
        ui.line(format_args!("{label:<7}  {}{own}", sanitize::line(member)))?;
    }
    if let Some(heads) = answer.heads {
        ui.line(format_args!("heads    {heads} opened"))?;
    }
    for refused in &answer.refused {
        ui.line(format_args!("{}  {}", ui.bad("refused"), sanitize::line(refused)))?;
    }
    Ok(Done::Well)
}

/// Makes a key file.
fn new(context: &Context, file: &Path) -> Result<Done, Failure> {
    let path = context.settings.directory.join(file);
    let doing = |error| Error::io(format!("cannot make the key file `{}`", path.display()), error);
    let (text, recipient) = Secret::generate();
    let made = context.env.fs.create(&path, true).map_err(doing)?;
    made.write_all_at(text.as_bytes(), 0).and_then(|()| made.sync()).map_err(doing)?;
    if let Some(directory) = path.parent() {
        create_dir_durably(&context.env, directory).map_err(doing)?;
        context.env.fs.sync_dir(directory).map_err(doing)?;
    }
    let ui = &context.ui;
    if ui.is_json() {
        ui.json(&json::Key {
            schema: json::KEY,
            remote: None,
            epoch: None,
            key_id: None,
            members: Vec::new(),
            own: vec![recipient],
            heads: None,
            refused: Vec::new(),
        })?;
        return Ok(Done::Well);
    }
    ui.line(format_args!("Made {}; whoever loses it cannot read what is sealed for it", path.display()))?;
    ui.line(format_args!("recipient  {recipient}"))?;
    ui.hint("a member lets you in: agent-trace key rotate --remote NAME --add RECIPIENT");
    Ok(Done::Well)
}
