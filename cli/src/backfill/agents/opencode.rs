//! OpenCode: a session, its messages and their parts are files of their own, below `storage`.

use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;

use super::{Done, Told, edits, time};
use crate::capture::adapters::Agent;
use crate::capture::payload::{self, Object};
use crate::capture::repository;

/// A file of a message or part; what is longer is passed over.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads all calls of a session from the files around its own.
pub(in super::super) fn read(env: &Env, file: &Path, told: &mut Told) -> std::io::Result<()> {
    // storage/session/<project>/<session>.json
    let Some(storage) = file.ancestors().nth(3) else { return Ok(()) };
    let id = file.file_stem().unwrap_or_default();
    let session = id.to_string_lossy().into_owned();
    let version = json(env, file)?.and_then(|text| Object::read(&text).text("version"));
    for (message, text) in folder(env, &storage.join("message").join(id))? {
        let said = Object::read(&text);
        let place = said.nested("path");
        let folder_of = place.as_deref().map(Object::read).and_then(|place| place.text("cwd"));
        let message = message.file_stem().unwrap_or_default().to_owned();
        for (_, text) in folder(env, &storage.join("part").join(message))? {
            let part = Object::read(&text);
            let Some(tool) = part.text("tool").filter(|tool| payload::is_writing(tool)) else { continue };
            let Some(state) = part.nested("state") else { continue };
            let state = Object::read(&state);
            match state.text("status").as_deref() {
                Some("completed") => {}
                Some("error") => {
                    told.failed += 1;
                    continue;
                }
                _ => continue,
            }
            let Some(input) = state.raw("input") else { continue };
            let metadata =
                state.raw("metadata").map(|metadata| format!("{{\"metadata\":{}}}", metadata.get()));
            let when = state.nested("time");
            told.done.push(Done {
                edits: edits(Agent::OpenCode, &tool, input.get(), metadata.as_deref()),
                tool,
                tool_use: part.text("callid"),
                session: Some(session.clone()),
                model: said.text("modelid"),
                version: version.clone(),
                time: when.as_deref().and_then(|when| time(&Object::read(when), "end")),
                folder: folder_of.clone().map(PathBuf::from),
                ..Done::default()
            });
        }
    }
    Ok(())
}

/// The files of a folder in order of their names, which is that of time.
fn folder(env: &Env, path: &Path) -> std::io::Result<Vec<(PathBuf, String)>> {
    let entries = match env.fs.list(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        let path = path.join(&entry.name);
        if let Some(text) = json(env, &path)? {
            files.push((path, text));
        }
    }
    Ok(files)
}

fn json(env: &Env, path: &Path) -> std::io::Result<Option<String>> {
    if path.extension().is_none_or(|ending| ending != "json") {
        return Ok(None);
    }
    Ok(String::from_utf8(repository::read_start(env.fs.as_ref(), path, FILE_BYTES_MAX)?).ok())
}
