//! `cat`: the bytes of a transcript, a record or an object, exactly.
//!
//! Objects up to a bound are verified whole before the first byte is written; larger ones part by part. On a terminal
//! they are shown sanitised, since nobody compares bytes there. Bytes that a pull left out are fetched.

use agent_trace_store::question::Found;
use agent_trace_store::{ErrorKind, Kind, ObjectId};

use super::Context;
use crate::args;
use crate::bodies::{self, Network};
use crate::report::{Done, Failure};
use crate::sanitize;
use crate::target::{self, Target, Versions};

/// Objects up to this are held in memory.
const WHOLE_BYTES_MAX: u64 = 64 << 20;

pub(super) fn run(context: &Context, args: &args::Cat) -> Result<Done, Failure> {
    let (place, store) = context.open_current()?;
    let snapshot = store.snapshot()?;
    let id = match target::find(&store, &snapshot, &args.id)? {
        Target::Object(id) => id,
        Target::Records(records) => bytes_of(&args.id, &records)?,
    };
    let network = if args.offline { Network::Never } else { Network::IfNeeded };
    bodies::ensure(context, &place, &store, &[id], network)?;
    if context.ui.out_is_terminal() {
        let text = store.read(&id)?;
        context.ui.bytes(sanitize::block(&String::from_utf8_lossy(&text)).as_bytes())?;
        context.ui.note("shown without control characters; write to a file or a pipe for the exact bytes");
    } else if target::object_bytes(&store, &id)? <= WHOLE_BYTES_MAX {
        context.ui.bytes(&store.read(&id)?)?;
    } else {
        store.copy(&id, &mut |part| context.ui.bytes(part))?;
    }
    Ok(Done::Well)
}

/// The object that is meant by records: the same for all of them, or a choice for the user.
fn bytes_of(text: &str, records: &[Versions]) -> Result<ObjectId, Failure> {
    let first = content(records[0].answer())?;
    for versions in &records[1..] {
        if content(versions.answer())? != first {
            let message = format!("`{}` stands for {} records", sanitize::line(text), records.len());
            let lines: Vec<String> = records
                .iter()
                .map(|versions| {
                    format!("{} {}", versions.answer().event.fact.kind, versions.answer().record())
                })
                .collect();
            let mut failure = Failure::new(ErrorKind::Invalid, message, "give the id of one of them");
            failure.error = failure.error.with_source(lines.join("\n"));
            return Err(failure);
        }
    }
    Ok(first)
}

/// A transcript's bytes; of any other record the record itself.
fn content(found: &Found) -> Result<ObjectId, Failure> {
    if found.event.fact.kind != Kind::TRANSCRIPT {
        return Ok(found.record());
    }
    found.event.fact.objects.get(1).copied().ok_or_else(|| {
        let message = format!(
            "the bytes of the transcript of conversation `{}` never came with its record",
            sanitize::line(&found.event.fact.key)
        );
        Failure::new(ErrorKind::NotFound, message, format!("agent-trace show {}", found.record().short()))
    })
}
