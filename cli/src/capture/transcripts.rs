//! Transcripts into the store: one snapshot of each session and flush, and nothing that was held is ever given up.
//!
//! What is on the disk is taken where it continues what is held. Where the file was cut short, replaced or deleted,
//! the tails in the entries bridge what vanished. A file that neither continues nor begins what is held is kept
//! beside it: as another version where it is longer (some agents rewrite the whole file), as a conversation of its own,
//! `replaced-<n>`, where it is shorter. Reads whole files, so it is no work for a hook.

use std::io;
use std::path::{Path, PathBuf};

use agent_trace_store::env::{Env, File};
use agent_trace_store::id::encode_hex;
use agent_trace_store::intake::{Base, Body, Intake};
use agent_trace_store::question;
use agent_trace_store::record::{self, TranscriptRecord};
use agent_trace_store::store::Snapshot;
use agent_trace_store::{Error, Kind, ObjectId, Result, Store, Timestamp};

use super::adapters::Agent;
use super::entry::Tail;
use super::limits::{LOOK_BACK_BYTES_MAX, REPLACED_MAX};
use super::payload::Object;
use super::repository::read;
use super::spool::Spool;
use super::tail::{self, Mark};
use crate::import;
use crate::privacy::redact::{Redaction, remark};

const READ_BYTES: u64 = 1 << 20;

/// Whose transcript it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conversation {
    pub(crate) agent: Agent,
    pub(crate) session: String,
    /// The sub-agent.
    pub(crate) part: Option<String>,
}

impl Conversation {
    /// Our key for it.
    pub(crate) fn key(&self) -> String {
        self.key_of(0)
    }

    /// The key of the file that came after so many others.
    fn key_of(&self, replaced: usize) -> String {
        let part = match (&self.part, replaced) {
            (part, 0) => part.clone(),
            (Some(part), _) => Some(format!("{part} replaced-{replaced}")),
            (None, _) => Some(format!("replaced-{replaced}")),
        };
        import::conversation(Some(self.agent.label()), &self.session, part.as_deref())
    }
}

/// A transcript to be brought up to date.
pub(crate) struct Source<'e> {
    pub(crate) conversation: Conversation,
    pub(crate) path: PathBuf,
    /// What entries took of it, in order of arrival.
    pub(crate) tails: Vec<&'e Tail>,
    /// When it was last heard of.
    pub(crate) time: Timestamp,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Outcome {
    /// How far the file on the disk is taken now.
    pub(crate) mark: Option<Mark>,
    /// What happened to the file, if it is worth telling.
    pub(crate) said: Option<String>,
}

/// A state that the store holds.
struct Held {
    id: ObjectId,
    bytes: u64,
    /// What the next one may extend, if it has just been taken in.
    base: Option<Base>,
}

/// Brings a transcript up to date; what was taken in waits in the intake.
pub(crate) fn take(
    store: &Store,
    snapshot: &Snapshot,
    spool: &Spool,
    intake: &mut Intake<'_>,
    redaction: Option<&Redaction>,
    source: &Source<'_>,
) -> Result<Outcome> {
    let mut work =
        Work { store, spool, intake, redaction, source, held: Vec::new(), said: None, remark: None };
    for replaced in 0..REPLACED_MAX {
        match held(store, snapshot, &source.conversation.key_of(replaced))? {
            Some(held) => work.held.push(held),
            None => break,
        }
    }
    let disk = Disk::open(store.env(), &source.path)?;
    match work.redaction {
        None => work.bridge(disk.as_ref())?,
        Some(redaction) => work.bridge_redacted(disk.as_ref(), redaction)?,
    }
    let mark = match &disk {
        Some(disk) => work.take_disk(disk)?,
        None => {
            if !work.held.is_empty() {
                work.said = Some("is gone; what was held of it stays".to_owned());
            }
            None
        }
    };
    let said = work.said.map(|said| format!("transcript `{}` {said}", source.path.display()));
    Ok(Outcome { mark, said })
}

/// The file as it is now.
struct Disk {
    file: Box<dyn File>,
    bytes: u64,
    device: u64,
    inode: u64,
}

impl Disk {
    /// Opens it; nothing if it is gone, empty, or cannot be read.
    fn open(env: &Env, path: &Path) -> Result<Option<Disk>> {
        let Ok(metadata) = env.fs.metadata(path) else { return Ok(None) };
        if metadata.is_dir || metadata.bytes == 0 {
            return Ok(None);
        }
        let Ok(file) = env.fs.open(path) else { return Ok(None) };
        let (device, inode) = (metadata.device, metadata.inode);
        Ok(Some(Disk { file, bytes: metadata.bytes, device, inode }))
    }

    /// That it was taken up to an offset.
    fn mark(&self, offset: u64) -> Result<Mark> {
        let check = tail::check_at(&*self.file, offset).map_err(unreadable)?;
        Ok(Mark { device: self.device, inode: self.inode, offset, check })
    }

    /// The hash of its beginning.
    fn hash(&self, bytes: u64) -> Result<ObjectId> {
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < bytes {
            let part = read(&*self.file, at, READ_BYTES.min(bytes - at)).map_err(unreadable)?;
            if part.is_empty() {
                break;
            }
            hasher.update(&part);
            at += part.len() as u64;
        }
        Ok(ObjectId::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// Whether a tail still stands in the file where it was; numbers of files are used again.
    fn covers(&self, tail: &Tail) -> bool {
        let there = read(&*self.file, tail.offset, tail.content.len() as u64);
        there.is_ok_and(|there| there == tail.content)
    }
}

struct Work<'w, 'i, 's, 'e> {
    store: &'w Store,
    spool: &'w Spool,
    intake: &'w mut Intake<'i>,
    redaction: Option<&'s Redaction>,
    source: &'s Source<'e>,
    /// What was replaced in the state that is taken.
    remark: Option<String>,
    /// The longest state of the conversation, then of each that replaced the one before.
    held: Vec<Held>,
    said: Option<String>,
}

impl Work<'_, '_, '_, '_> {
    /// Puts tails behind what is held, where the file no longer has them.
    fn bridge(&mut self, disk: Option<&Disk>) -> Result<()> {
        let is_whole = |tail: &&&Tail| !disk.is_some_and(|disk| disk.covers(tail));
        let gone: Vec<&Tail> = self
            .source
            .tails
            .iter()
            .filter(|tail| !tail.content.is_empty())
            .filter(is_whole)
            .copied()
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        // Everything that was taken of a file, and not only what is beyond its end now, tells its story.
        let mut lines: Vec<Vec<&Tail>> = Vec::new();
        for tail in self.source.tails.iter().filter(|tail| !tail.content.is_empty()) {
            let is_of = |line: &Vec<&Tail>| line[0].device == tail.device && line[0].inode == tail.inode;
            match lines.iter_mut().find(|line| is_of(line)).filter(|_| tail.offset > 0) {
                Some(line) => line.push(tail),
                None => lines.push(vec![tail]),
            }
        }
        for line in lines.iter().filter(|line| line.iter().any(|tail| gone.contains(tail))) {
            self.bridge_line(line)?;
        }
        Ok(())
    }

    /// Puts the tails of one file behind the first held state that they continue, or behind nothing.
    fn bridge_line(&mut self, line: &[&Tail]) -> Result<()> {
        for number in 0..=self.held.len() {
            let before = self.held.get(number);
            if before.is_none() && line[0].offset > 0 {
                break;
            }
            let Some((path, bytes)) = self.write_bridge(before, line)? else {
                return Ok(());
            };
            let before_bytes = before.map_or(0, |held| held.bytes);
            if bytes > before_bytes {
                let file = self.store.env().fs.open(&path).map_err(unreadable)?;
                let taken = self.add(number, &*file, bytes, "from events; the file has lost it");
                // It was written for this moment only.
                let _ = self.store.env().fs.remove(&path);
                // What comes next compares with it.
                return taken.and_then(|()| self.intake.append());
            }
            let _ = self.store.env().fs.remove(&path);
        }
        Ok(())
    }

    /// Writes a held state and the tails that continue it into a file; nothing if it holds them all already.
    fn write_bridge(&self, held: Option<&Held>, line: &[&Tail]) -> Result<Option<(PathBuf, u64)>> {
        let env = self.store.env();
        let mut random = [0; 8];
        env.entropy.fill(&mut random);
        let path = self.spool.path(&format!(".bridge-{}.new", encode_hex(&random)));
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        let file = env.fs.create(&path, true).map_err(doing)?;
        let mut bytes = 0u64;
        if let Some(held) = held {
            self.store.copy(&held.id, &mut |part| {
                file.write_all_at(part, bytes).map_err(doing)?;
                bytes += part.len() as u64;
                Ok(())
            })?;
        }
        let start = bytes;
        let mut all_there = true;
        for tail in line {
            let end = tail.offset + tail.content.len() as u64;
            if tail.offset > bytes {
                all_there = false;
                continue;
            }
            let shared = bytes.min(end) - tail.offset;
            let known = read(&*file, tail.offset, shared).map_err(doing)?;
            let fits = tail::check_at(&*file, tail.offset).map_err(doing)? == tail.check
                && tail.content.starts_with(&known);
            if !fits {
                all_there = false;
            } else if end > bytes {
                let new = usize::try_from(shared).unwrap_or_default();
                file.write_all_at(&tail.content[new..], bytes).map_err(doing)?;
                bytes = end;
            }
        }
        if all_there && bytes == start {
            let _ = env.fs.remove(&path);
            return Ok(None);
        }
        Ok(Some((path, bytes)))
    }

    /// Takes what is on the disk now, and says how far.
    fn take_disk(&mut self, disk: &Disk) -> Result<Option<Mark>> {
        let Some(redaction) = self.redaction else {
            let mark = disk.mark(disk.bytes)?;
            self.take_state(disk)?;
            return Ok(Some(mark));
        };
        let redacted = redaction.file(self.store.env(), &*disk.file, disk.bytes, self.spool.dir())?;
        let mark = disk.mark(redacted.taken)?;
        self.remark = redacted.remark();
        let bytes = redacted.bytes;
        if bytes > 0 {
            self.take_state(&Disk { file: Box::new(redacted), bytes, ..*disk })?;
        }
        Ok(Some(mark))
    }

    /// Takes a state of the file, as what it is beside those that are held.
    fn take_state(&mut self, disk: &Disk) -> Result<()> {
        for number in 0..self.held.len() {
            let held = &self.held[number];
            if held.bytes <= disk.bytes {
                if disk.hash(held.bytes)? == held.id {
                    if disk.bytes > held.bytes {
                        self.add(number, &*disk.file, disk.bytes, "")?;
                    }
                    return Ok(());
                }
            } else if disk.hash(disk.bytes)? == self.beginning(held, disk.bytes)? {
                self.said = Some(format!("was cut short; the {} bytes that were held stay", held.bytes));
                return Ok(());
            }
        }
        match self.held.first() {
            None => self.add(0, &*disk.file, disk.bytes, "")?,
            Some(held) if disk.bytes > held.bytes => {
                self.said = Some("was rewritten; both versions are kept".to_owned());
                self.add(0, &*disk.file, disk.bytes, "rewritten")?;
            }
            Some(held) => {
                let said = "was replaced by a shorter one; both are kept, and the shorter one is a conversation of its own";
                self.said = Some(format!("of {} bytes {said}", held.bytes));
                self.add(self.held.len(), &*disk.file, disk.bytes, "in place of a longer one")?;
            }
        }
        Ok(())
    }

    /// Takes what events brought of a file that has lost it: behind the state that was taken last, if nothing is
    /// missing between, else from the file's beginning.
    fn bridge_redacted(&mut self, disk: Option<&Disk>, redaction: &Redaction) -> Result<()> {
        let mut tails = self.source.tails.iter().filter(|tail| !tail.content.is_empty());
        if tails.clone().all(|tail| disk.is_some_and(|disk| disk.covers(tail))) {
            return Ok(());
        }
        let env = self.store.env();
        let last =
            Mark::read(env, self.spool, &redacted_name(&self.source.path)).filter(|_| !self.held.is_empty());
        let Some(first) = tails.next() else { return Ok(()) };
        let follows = last.is_some_and(|last| {
            (last.device, last.inode) == (first.device, first.inode)
                && (last.offset, last.check) == (first.offset, first.check)
        });
        if !follows && first.offset > 0 {
            self.said =
                Some("has lost lines that cannot be put behind what is held without secrets".to_owned());
            return Ok(());
        }
        let (mut lines, mut end) = (first.content.clone(), first.offset + first.content.len() as u64);
        for tail in tails.filter(|tail| (tail.device, tail.inode) == (first.device, first.inode)) {
            let known = usize::try_from(end.saturating_sub(tail.offset)).unwrap_or(usize::MAX);
            if tail.offset > end || known >= tail.content.len() {
                continue;
            }
            lines.extend_from_slice(&tail.content[known..]);
            end = tail.offset + tail.content.len() as u64;
        }
        let whole = memchr::memrchr(b'\n', &lines).map_or(0, |found| found + 1);
        lines.truncate(whole);
        if lines.is_empty() {
            return Ok(());
        }
        let redacted = redaction.bytes(&lines);
        self.remark = redacted.as_ref().and_then(|(_, tally)| remark(tally));
        let lines = redacted.map_or(lines, |(redacted, _)| redacted);
        self.take_lines(follows, &lines)
    }

    /// Puts lines behind the longest state that is held, or takes them as a state of their own.
    fn take_lines(&mut self, follows: bool, lines: &[u8]) -> Result<()> {
        let env = self.store.env().clone();
        let mut random = [0; 8];
        env.entropy.fill(&mut random);
        let path = self.spool.path(&format!(".bridge-{}.new", encode_hex(&random)));
        let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
        let file = env.fs.create(&path, true).map_err(doing)?;
        let mut bytes = 0u64;
        if let Some(held) = self.held.first().filter(|_| follows) {
            self.store.copy(&held.id, &mut |part| {
                file.write_all_at(part, bytes).map_err(doing)?;
                bytes += part.len() as u64;
                Ok(())
            })?;
        }
        file.write_all_at(lines, bytes).map_err(doing)?;
        let disk = Disk { file, bytes: bytes + lines.len() as u64, device: 0, inode: 0 };
        let taken = self.take_state(&disk);
        let _ = env.fs.remove(&path);
        taken.and_then(|()| self.intake.append())
    }

    /// The hash of the beginning of a held state.
    fn beginning(&self, held: &Held, bytes: u64) -> Result<ObjectId> {
        let mut hasher = blake3::Hasher::new();
        let mut left = bytes;
        self.store.copy(&held.id, &mut |part| {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(part.len());
            hasher.update(&part[..wanted]);
            left -= wanted as u64;
            Ok(())
        })?;
        Ok(ObjectId::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// Takes a state in, as one of the conversation or of one that replaced it.
    fn add(&mut self, number: usize, file: &dyn File, bytes: u64, how: &str) -> Result<()> {
        let base = match self.held.get(number) {
            Some(Held { base: Some(base), .. }) => Some(base.clone()),
            Some(held) => Some(Base::of(self.store, held.id)?),
            None => None,
        };
        let body = self.intake.body(file, bytes, base.as_ref())?;
        self.record(number, &body, how)?;
        let held = Held { id: body.id, bytes, base: Some(body.base) };
        if number < self.held.len() {
            self.held[number] = held;
        } else {
            self.held.push(held);
        }
        Ok(())
    }

    fn record(&mut self, number: usize, body: &Body, how: &str) -> Result<()> {
        let conversation = &self.source.conversation;
        let name = self.source.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let how: Vec<&str> =
            [Some(how).filter(|how| !how.is_empty()), self.remark.as_deref()].into_iter().flatten().collect();
        let source =
            if how.is_empty() { name } else { name.map(|name| format!("{name} ({})", how.join("; "))) };
        let transcript = TranscriptRecord {
            conversation_id: conversation.key_of(number),
            session_id: Some(conversation.session.clone()),
            agent: Some(conversation.agent.label().to_owned()),
            content_sha256: body.sha256.clone(),
            size: body.bytes,
            created_at: self.source.time,
            source,
        };
        let canonical = transcript.encode();
        let facts = record::facts(Kind::TRANSCRIPT, &canonical)?;
        self.intake.record(Kind::TRANSCRIPT, &canonical, &facts, self.source.time, &[body.id])
    }
}

/// Under which name it is kept how far a transcript was taken without its secrets.
pub(super) fn redacted_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".redacted");
    PathBuf::from(name)
}

fn unreadable(error: io::Error) -> Error {
    Error::io("cannot read a transcript", error)
}

/// The longest state that the store holds of a conversation.
fn held(store: &Store, snapshot: &Snapshot, key: &str) -> Result<Option<Held>> {
    let mut longest: Option<(u64, Timestamp, ObjectId)> = None;
    for found in question::named(store, snapshot, key, false)? {
        let fact = &found.event.fact;
        let (Kind::TRANSCRIPT, true, Some(content)) = (fact.kind, fact.key == key, fact.objects.get(1))
        else {
            continue;
        };
        let Ok(record) = TranscriptRecord::decode(&store.read(&found.record())?) else { continue };
        let state = (record.size, fact.time, *content);
        longest = longest.max(Some(state));
    }
    Ok(longest.map(|(bytes, _, id)| Held { id, bytes, base: None }))
}

/// What the transcript says of the call of a tool: the model and the agent's version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) model: Option<String>,
    pub(crate) version: Option<String>,
}

/// Looks a call up at the end of a transcript; else takes the last model there.
pub(crate) fn look_back(env: &Env, path: &Path, tool_use: Option<&str>) -> Said {
    let Ok(metadata) = env.fs.metadata(path) else { return Said::default() };
    if metadata.bytes == 0 || metadata.is_dir {
        return Said::default();
    }
    let start = metadata.bytes.saturating_sub(LOOK_BACK_BYTES_MAX);
    let Ok(bytes) = env.fs.open(path).and_then(|file| read(&*file, start, LOOK_BACK_BYTES_MAX)) else {
        return Said::default();
    };
    let mut last = Said::default();
    for line in bytes.rsplit(|byte| *byte == b'\n') {
        let names_call = tool_use.is_some_and(|id| memchr::memmem::find(line, id.as_bytes()).is_some());
        if !(names_call || last.model.is_none()) || memchr::memmem::find(line, b"\"model\"").is_none() {
            continue;
        }
        let Ok(text) = std::str::from_utf8(line) else { continue };
        let object = Object::read(text);
        let message = object.nested("message");
        let model = message.as_deref().and_then(|message| Object::read(message).text("model"));
        let Some(model) = model.filter(|model| !model.starts_with('<')) else { continue };
        let said = Said { model: Some(model), version: object.text("version") };
        if names_call {
            return said;
        }
        if last.model.is_none() {
            last = said;
        }
    }
    last
}
