//! `remote`: which remotes there are, and which tokens they are given.
//!
//! What is given is read and checked before anything is written. A token goes into a file that only its user reads, and
//! is never printed.

use agent_trace_store::{Error, ErrorKind, Store};
use agent_trace_sync::address::{Plaintext, RemoteUrl, ServiceUrl};
use agent_trace_sync::client::{Client, ProjectRow, Scope};
use agent_trace_sync::remote::Remote;
use agent_trace_sync::seal::Access;
use agent_trace_sync::token::Token;

use super::{Context, push, status};
use crate::args;
use crate::json;
use crate::remotes::{self, BucketEntry, Files, Given, Named, Remotes, SecretRef, TokenRef, Tokens};
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::settings;
use crate::ui::{self, Ui};

pub(super) fn run(context: &Context, command: &args::Remote) -> Result<Done, Failure> {
    let (place, store) = context.open()?;
    let files = context.files(&place, &store);
    match command {
        args::Remote::Add(args) => add(context, &files, args)?,
        args::Remote::List => {
            let remotes = Remotes::read(&files)?;
            warn_of_hidden(&context.ui, &remotes);
            list(context, &files, &remotes.list())?;
        }
        args::Remote::Show { name } => show(context, &files, &Remotes::read(&files)?.get(name)?)?,
        args::Remote::SetUrl(args) => set_url(context, &files, args)?,
        args::Remote::SetToken(args) => set_token(context, &files, args)?,
        args::Remote::Remove { name } => remove(context, &files, name)?,
        args::Remote::Rename { old, new } => {
            files.rename(old, new)?;
            tell(context, &files, new, "Renamed")?;
        }
        args::Remote::Default { name } => {
            files.set_default(name)?;
            tell(context, &files, name, "Default is")?;
        }
    }
    Ok(Done::Well)
}

fn add(context: &Context, files: &Files<'_>, args: &args::RemoteAdd) -> Result<(), Failure> {
    let bucket = BucketEntry::given(&args.bucket)?;
    let secret = secret(context, args)?;
    let access = secret.as_ref().map(|secret| files.access_by(secret)).transpose()?;
    let mut address = read_url(context, &args.url, args.insecure_http, &bucket, access.as_ref())?;
    if let (RemoteUrl::Service(_), Some(_)) = (&address, &access) {
        return Err(Error::invalid("a service is not encrypted from here: it reads what it serves").into());
    }
    Remotes::read(files)?.check_new(&args.name, &args.url)?;
    let given = Given::read(&context.env, &context.ui, &args.token)?;
    if let (RemoteUrl::Folder(_) | RemoteUrl::Bucket(_), Some(_)) = (&address, &given) {
        return Err(no_token(&args.name));
    }
    if let RemoteUrl::Bucket(_) = &address {
        let no_check = args.no_check && !args.create;
        check_bucket(context, &args.name, &mut address, &bucket, access.as_ref(), no_check)?;
    }
    if let RemoteUrl::Service(service) = &address {
        warn(&context.ui, &check(context, service, given.as_ref(), args.no_check)?);
    }
    if args.create {
        create(context, &address, given.as_ref(), args, access.as_ref())?;
    }
    files.add(&args.name, &address, &args.url, given.as_ref(), Some(&bucket), secret.as_ref())?;
    if secret.is_some_and(|secret| secret.is_open_to_others(&context.env)) {
        context.ui.warn("others on this machine may read the key file; chmod 600 it");
    }
    tell(context, files, &args.name, "Added")?;
    if matches!(address, RemoteUrl::Service(_)) && given.is_none() {
        context.ui.hint(&format!("agent-trace remote set-token {} --token-stdin", args.name));
    }
    Ok(())
}

/// Where the secret is, where all is to be sealed.
fn secret(context: &Context, args: &args::RemoteAdd) -> Result<Option<SecretRef>, Failure> {
    let secret = SecretRef::given(&args.secret, &context.settings.directory)?;
    match (args.encrypt, secret.is_some()) {
        (true, false) => {
            let hint = "agent-trace key new FILE makes a key file for --key-file";
            Err(Failure::new(ErrorKind::Invalid, "--encrypt needs --secret-env or --key-file", hint))
        }
        (false, true) => Err(Error::invalid("a secret is given, and --encrypt is not").into()),
        _ => Ok(secret),
    }
}

fn set_url(context: &Context, files: &Files<'_>, args: &args::RemoteSetUrl) -> Result<(), Failure> {
    let remote = Remotes::read(files)?.get(&args.name)?;
    let given = BucketEntry::given(&args.bucket)?;
    // Without options those stay that are there.
    let bucket = if args.bucket.is_given() { given } else { remote.bucket.clone() };
    let access = files.access(&remote)?;
    let mut address = read_url(context, &args.url, args.insecure_http, &bucket, access.as_ref())?;
    if let (RemoteUrl::Service(_), Some(_)) = (&address, &access) {
        return Err(Error::invalid("a service is not encrypted from here: add it as another remote").into());
    }
    if let RemoteUrl::Bucket(_) = &address {
        check_bucket(context, &args.name, &mut address, &bucket, access.as_ref(), args.no_check)?;
    }
    if let (RemoteUrl::Service(service), Some(reference)) = (&address, &remote.token) {
        let given = match reference {
            TokenRef::Variable(name) => Some(Given::Variable(name.clone())),
            _ => files.tokens().resolve(reference)?.map(Given::Token),
        };
        warn(&context.ui, &check(context, service, given.as_ref(), args.no_check)?);
        let before = remote.address().ok();
        if !matches!(&before, Some(RemoteUrl::Service(before)) if before.host_url() == service.host_url()) {
            context.ui.warn(&format!(
                "the token of `{}` goes to `{}` from now on",
                args.name,
                service.host_url()
            ));
        }
    }
    files.set_url(&args.name, &address, &args.url, Some(&bucket))?;
    tell(context, files, &args.name, "Changed")
}

fn set_token(context: &Context, files: &Files<'_>, args: &args::RemoteSetToken) -> Result<(), Failure> {
    let remote = Remotes::read(files)?.get(&args.name)?;
    let RemoteUrl::Service(service) = remote.address()? else {
        return Err(no_token(&args.name));
    };
    let given = Given::read(&context.env, &context.ui, &args.token)?
        .ok_or_else(|| Error::invalid("no token is given"))?;
    warn(&context.ui, &check(context, &service, Some(&given), args.no_check)?);
    files.set_token(&args.name, &given)?;
    tell(context, files, &args.name, "Changed the token of")
}

fn remove(context: &Context, files: &Files<'_>, name: &str) -> Result<(), Failure> {
    let remote = Remotes::read(files)?.get(name)?;
    files.remove(name)?;
    if !context.ui.is_json() {
        let (name, url) = (sanitize::line(name), sanitize::line(&remote.url));
        context.ui.line(format_args!("Removed remote {name}; {url} is as it was"))?;
    }
    Ok(())
}

/// Reads where a remote lies, and refuses a folder that holds something else.
pub(super) fn read_url(
    context: &Context,
    url: &str,
    insecure_http: bool,
    bucket: &BucketEntry,
    access: Option<&Access>,
) -> Result<RemoteUrl, Failure> {
    let plaintext = if insecure_http { Plaintext::Anywhere } else { Plaintext::Loopback };
    let address = match remotes::read_url(url, plaintext)? {
        RemoteUrl::Bucket(url) => RemoteUrl::Bucket(Box::new(bucket.complete(*url, plaintext)?)),
        _ if bucket != &BucketEntry::default() => {
            return Err(Error::invalid("options of a bucket say nothing of a service or a folder").into());
        }
        address => address,
    };
    match &address {
        RemoteUrl::Folder(_) if insecure_http => {
            return Err(Error::invalid("--insecure-http says nothing of a folder").into());
        }
        RemoteUrl::Folder(folder) => remotes::check_folder(&context.env, folder, access)?,
        RemoteUrl::Service(_) | RemoteUrl::Bucket(_) => {}
    }
    Ok(address)
}

/// Signs the address of a bucket, and looks at it before it is stored: refuses what cannot work.
fn check_bucket(
    context: &Context,
    name: &str,
    address: &mut RemoteUrl,
    bucket: &BucketEntry,
    access: Option<&Access>,
    no_check: bool,
) -> Result<(), Failure> {
    let RemoteUrl::Bucket(url) = address else { return Ok(()) };
    if url.is_insecure() {
        context.ui.warn("insecure http: whoever is on the way can read and change all");
    }
    if let Err(failure) = bucket.sign(&context.env, context.settings.user_home.as_deref(), url) {
        // They may be there when they are needed.
        if failure.error.kind() == ErrorKind::Denied && !no_check {
            context.ui.warn(failure.error.message());
            return Ok(());
        }
        return if no_check { Ok(()) } else { Err(failure) };
    }
    if no_check {
        return Ok(());
    }
    match Remote::open_with(&context.env, address, false, access) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            context.ui.warn(&format!("the bucket was not looked at: {}", error.message()));
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::Denied => {
            let hint = "look at the variables or the profile with its credentials, or add --no-check";
            Err(Failure::from(error).hint(hint))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let hint =
                format!("create the bucket with the tools of its cloud, then add the remote `{name}` again");
            Err(Failure::from(error).hint(hint))
        }
        Err(error) => Err(error.into()),
    }
}

/// Looks at a service before it is stored: refuses what cannot work, and returns what may be a mistake.
fn check(
    context: &Context,
    service: &ServiceUrl,
    given: Option<&Given>,
    no_check: bool,
) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    if service.is_insecure() {
        let host = service.host_url();
        warnings.push(format!("insecure http: whoever is on the way to `{host}` can read and change all"));
    }
    let token = given.map(Given::token).transpose()?.flatten();
    match (given, token) {
        (Some(Given::Variable(name)), None) => {
            warnings.push(format!("the variable `{name}` is not set now"));
        }
        (_, Some(token)) if !no_check => {
            match Client::open(&context.env, service, Some(token))?.without_retries().check_scope() {
                Ok(Scope::Fits(_)) => {}
                Ok(Scope::Unsupported) => warnings.push(push::UNSUPPORTED.to_owned()),
                // It may be reachable from elsewhere, or later; every push asks again.
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    warnings.push(format!("the token was not checked: {}", error.message()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        _ => {}
    }
    Ok(warnings)
}

fn warn(ui: &Ui, warnings: &[String]) {
    warnings.iter().for_each(|warning| ui.warn(warning));
}

/// Makes what a remote is to be.
fn create(
    context: &Context,
    address: &RemoteUrl,
    given: Option<&Given>,
    args: &args::RemoteAdd,
    access: Option<&Access>,
) -> Result<(), Failure> {
    match address {
        RemoteUrl::Folder(_) if args.title.is_some() || args.description.is_some() => {
            return Err(Error::invalid("a folder has no name and no description").into());
        }
        RemoteUrl::Bucket(_) if args.title.is_some() || args.description.is_some() => {
            return Err(Error::invalid("a bucket has no name and no description here").into());
        }
        RemoteUrl::Folder(_) | RemoteUrl::Bucket(_) => {}
        RemoteUrl::Service(service) => {
            let token = given.map(Given::token).transpose()?.flatten();
            let texts = (args.title.as_deref(), args.description.as_deref());
            return match create_project(context, service, token, texts) {
                Err(failure) if failure.error.kind() == ErrorKind::Conflict => {
                    context.ui.warn(&format!("the project `{}` is there already", service.project()));
                    Ok(())
                }
                created => created.map(|_| ()),
            };
        }
    }
    Remote::open_with(&context.env, address, true, access)?;
    Ok(())
}

/// Makes a project on a service, as its admin where the secret is given, else by the token.
pub(super) fn create_project(
    context: &Context,
    service: &ServiceUrl,
    token: Option<Token>,
    (name, description): (Option<&str>, Option<&str>),
) -> Result<ProjectRow, Failure> {
    let admin = settings::secret(settings::ADMIN_SECRET)?;
    if token.is_none() && admin.is_none() {
        let message = "cannot create a project on a service without a token or the admin's secret";
        let hint = format!("give --token-stdin, or set {}", settings::ADMIN_SECRET);
        return Err(Failure::new(ErrorKind::Invalid, message, hint));
    }
    let admin = admin.map(|text| Token::parse(&text)).transpose().map_err(|error| {
        error.context(format!("the variable `{}` holds no secret", settings::ADMIN_SECRET))
    })?;
    let client = Client::open(&context.env, service, token)?;
    Ok(client.create_project(admin.as_ref(), name, description)?)
}

fn no_token(name: &str) -> Failure {
    let message = format!("the remote `{name}` is no service: it takes no token");
    Error::invalid(message).into()
}

/// Says which folders are passed over.
pub(super) fn warn_of_hidden(ui: &Ui, remotes: &Remotes) {
    for name in remotes.hidden() {
        ui.warn(&format!(
            "a folder goes by the name `{name}` too and is passed over; `remote rename` tells them apart"
        ));
    }
}

/// Says what became of a remote.
fn tell(context: &Context, files: &Files<'_>, name: &str, what: &str) -> Result<(), Failure> {
    let remote = Remotes::read(files)?.get(name)?;
    if context.ui.is_json() {
        return list(context, files, &[remote]);
    }
    let (name, url) = (context.ui.name(sanitize::line(&remote.name)), sanitize::line(&remote.url));
    context.ui.line(format_args!("{what} remote {name} at {url}"))?;
    Ok(())
}

fn list(context: &Context, files: &Files<'_>, remotes: &[Named]) -> Result<(), Failure> {
    let ui = &context.ui;
    if remotes.is_empty() {
        ui.hint("agent-trace remote add NAME URL");
    }
    for remote in remotes {
        if ui.is_json() {
            ui.json(&to_json(files.store, &files.tokens(), remote)?)?;
        } else {
            let default = if remote.is_default { "  (default)" } else { "" };
            let (name, url) = (ui.name(sanitize::line(&remote.name)), sanitize::line(&remote.url));
            ui.line(format_args!("{name}  {url}{default}"))?;
        }
    }
    Ok(())
}

fn show(context: &Context, files: &Files<'_>, remote: &Named) -> Result<(), Failure> {
    let ui = &context.ui;
    let shown = to_json(files.store, &files.tokens(), remote)?;
    if ui.is_json() {
        return Ok(ui.json(&shown)?);
    }
    ui.line(format_args!("remote   {}", ui.name(sanitize::line(&remote.name))))?;
    ui.line(format_args!("url      {}", sanitize::line(&remote.url)))?;
    if let Some(service) = &shown.service {
        let gateway = if service.gateway { ", behind a gateway" } else { "" };
        ui.line(format_args!("service  {}{gateway}", service.base_url))?;
        ui.line(format_args!("project  {} of {}", service.project, service.org))?;
        ui.line(format_args!("token    {}", sanitize::line(&token_words(shown.token.as_ref()))))?;
    }
    if let Some(bucket) = &shown.bucket {
        if let Some(endpoint) = &bucket.endpoint {
            ui.line(format_args!("endpoint {}", sanitize::line(endpoint)))?;
        }
        if let Some(region) = &bucket.region {
            ui.line(format_args!("region   {}", sanitize::line(region)))?;
        }
        ui.line(format_args!("keys     {}", sanitize::line(&bucket.credentials)))?;
        if let Some(rate) = bucket.limit_rate {
            ui.line(format_args!("rate     at most {}/s", ui::bytes(rate)))?;
        }
    }
    if let Some(secret) = &remote.secret {
        ui.line(format_args!("sealed   {}", sanitize::line(&secret.words())))?;
    }
    ui.line(format_args!("default  {}", if remote.is_default { "yes" } else { "no" }))?;
    let (insecure, words) =
        (status::insecure_words(ui, &shown.remote), status::unpushed_words(&shown.remote));
    ui.line(format_args!("state    {insecure}{words}"))?;
    Ok(())
}

fn to_json(store: &Store, tokens: &Tokens<'_>, remote: &Named) -> Result<json::Remote, Failure> {
    let service = match remote.address() {
        Ok(RemoteUrl::Service(service)) => Some(json::Service {
            base_url: service.base_url(),
            org: service.org().to_string(),
            project: service.project().to_string(),
            gateway: service.is_gateway(),
        }),
        _ => None,
    };
    let token = match &remote.token {
        Some(reference) => Some(token_to_json(tokens, reference)?),
        None => None,
    };
    let secret = remote.secret.as_ref().map(json::SecretPlace::of);
    let bucket = match remote.address() {
        Ok(RemoteUrl::Bucket(url)) => Some(json::Bucket {
            endpoint: url.options().endpoint.clone(),
            region: url.options().region.clone(),
            virtual_host: url.options().virtual_host,
            credentials: remote.bucket.words(url.cloud),
            limit_rate: url.options().rate_bytes,
        }),
        _ => None,
    };
    let remote = status::remote_status(store, remote)?;
    Ok(json::Remote { schema: json::REMOTE, remote, service, token, bucket, secret })
}

fn token_to_json(tokens: &Tokens<'_>, reference: &TokenRef) -> Result<json::Token, Failure> {
    let (from, variable) = match reference {
        TokenRef::Stored(_) => ("config", None),
        TokenRef::Variable(name) => ("variable", Some(name.clone())),
        TokenRef::Inline(_) => ("remotes", None),
        TokenRef::Unknown => ("unknown", None),
    };
    let masked = tokens.resolve(reference)?.map(|token| token.masked());
    Ok(json::Token { from, variable, masked })
}

fn token_words(token: Option<&json::Token>) -> String {
    let Some(token) = token else { return "none".to_owned() };
    let place = match (token.from, &token.variable) {
        ("variable", Some(name)) => format!("in the variable {name}"),
        ("config", _) => "in config.json".to_owned(),
        ("remotes", _) => "in remotes.json".to_owned(),
        _ => return "kept where this version does not look".to_owned(),
    };
    match &token.masked {
        Some(masked) => format!("{masked}, {place}"),
        None => format!("missing {place}"),
    }
}
