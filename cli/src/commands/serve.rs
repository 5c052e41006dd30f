//! `serve`: the service, over a data folder that this process owns.
//!
//! Says where it listens on stdout, and once, where it made one, the admin's secret. The log goes to stderr: as text to a
//! terminal, else as JSON, one line for each request. No secret and no body is in it.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;

use agent_trace_store::Error;
use agent_trace_sync::service::embedded::{AdminSecret, Embedded};
use agent_trace_sync::service::http::limits::ADMIN_SECRET_BYTES_MAX;
use agent_trace_sync::service::http::{Backend, Config, Server, TlsFiles, serve};

use super::Context;
use crate::args;
use crate::json;
use crate::report::{Done, Failure};
use crate::settings::{self, ADMIN_SECRET};

/// Where bodies lie that have no room in memory.
const SPOOL: &str = "spool";

pub(super) fn run(context: &Context, args: &args::Serve) -> Result<Done, Failure> {
    let dir = context.settings.directory.join(&args.data);
    let given = admin_secret(context, args.admin_secret_file.as_deref())?;
    let given = given.map(|text| AdminSecret::parse(text.trim())).transpose()?;
    let (accounts, staging) = Embedded::open(&context.env, &dir)?;
    let made = accounts.book().admit_admin(given.as_ref())?;
    let place = |path: &Path| context.settings.directory.join(path);
    let tls = args.tls_cert.as_deref().zip(args.tls_key.as_deref());
    let config = Config {
        listen: args.listen,
        metrics: args.metrics,
        tls: tls.map(|(chain, key)| TlsFiles { chain: place(chain), key: place(key) }),
        spool: dir.join(SPOOL),
        requests_per_second: args.requests_per_second,
    };
    let backend = Backend { env: context.env.clone(), accounts: Arc::new(accounts), staging };
    log();
    let mut said = Ok(());
    serve(&config, backend, |server| said = say(context, server, config.tls.is_some(), made.as_ref()))?;
    said?;
    Ok(Done::Well)
}

/// The admin's secret that a file gives, else the variable.
pub(super) fn admin_secret(context: &Context, file: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = file else { return settings::secret(ADMIN_SECRET) };
    let path = context.settings.directory.join(path);
    let failed = |error| Error::io(format!("cannot read `{}`", path.display()), error);
    let file = context.env.fs.open(&path).map_err(failed)?;
    let length = file.len().map_err(failed)?;
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= ADMIN_SECRET_BYTES_MAX) else {
        let message = format!("`{}` is over {ADMIN_SECRET_BYTES_MAX} bytes", path.display());
        return Err(Error::invalid(message).into());
    };
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    let text =
        String::from_utf8(bytes).map_err(|_| Error::invalid(format!("`{}` is no text", path.display())))?;
    Ok(Some(text))
}

fn say(context: &Context, server: &Server, is_tls: bool, made: Option<&AdminSecret>) -> Result<(), Failure> {
    let ui = &context.ui;
    let url = format!("{}://{}", if is_tls { "https" } else { "http" }, server.address());
    let metrics = server.metrics_address().map(|address| format!("http://{address}/metrics"));
    if ui.is_json() {
        ui.json(&json::Serve {
            schema: json::SERVE,
            url,
            metrics,
            admin_secret: made.map(|made| made.expose().to_owned()),
        })?;
    } else {
        if let Some(made) = made {
            ui.line(format_args!("Admin's secret, shown only now: {}", made.expose()))?;
        }
        ui.line(format_args!("Listening at {url}"))?;
        if let Some(metrics) = metrics {
            ui.line(format_args!("Counters at {metrics}"))?;
        }
    }
    Ok(ui.flush()?)
}

fn log() {
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    // Only this command logs, and it does so once in a process.
    if is_terminal {
        builder.with_ansi(false).init();
    } else {
        builder.json().flatten_event(true).with_current_span(false).init();
    }
}
