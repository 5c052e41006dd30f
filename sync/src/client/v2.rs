//! The calls of protocol 2, see `docs/protocol.md`.

use std::collections::HashSet;

use agent_trace_store::env::File;
use agent_trace_store::{Error, ErrorKind, EventId, ObjectId, Result, SegmentId};
use bytes::Bytes;
use reqwest::Method;

use super::http::{Answer, Reply, Request, Who, cut};
use super::{Client, nonsense};
use crate::collect::Bodies;
use crate::limits::{ANSWER_BYTES_MAX, QUESTION_IDS_MAX, RUNS_MAX, upload_chunk_bytes};
use crate::wire::{
    ArrivalRun, ArrivalsBody, Caps, CommitRequest, CommittedBody, Cursor, FetchRequest, HoldsBody,
    HoldsRequest, OffsetBody, PartReader, ReconcileRequest, SymbolsBody,
};

const BINARY: &str = "application/octet-stream";

/// What came after a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Arrivals.
    Some(ArrivalsBody),
    /// The cursor is of another history.
    OtherHistory,
    /// The service does not know protocol 2.
    Unknown,
}

/// What is added to the query of a stream from which bodies are to be left out.
fn query_of(bodies: Bodies) -> Option<&'static str> {
    match bodies {
        Bodies::Along => None,
        Bodies::LeftOut => Some("transcripts=no"),
    }
}

impl Client {
    /// Asks which protocols a service speaks; nothing for one that knows only the first.
    pub fn caps(&self) -> Result<Option<Caps>> {
        let request = Request::new(Method::GET, self.at("/api/v2/caps"), Who::Nobody);
        let doing = |error| self.doing("ask what the service speaks", error);
        match self.http.ask(&request).map_err(doing)? {
            Reply::Bad(refusal) if matches!(refusal.status, 404 | 405) => Ok(None),
            // Some gateways ask for a token before they look at the path.
            Reply::Bad(refusal) if matches!(refusal.status, 401 | 403) && !refusal.is_known => Ok(None),
            reply => {
                let body = reply.good().map_err(doing)?.bytes(ANSWER_BYTES_MAX).map_err(doing)?;
                Ok(serde_json::from_slice(&body).ok())
            }
        }
    }

    fn v2(&self, method: Method, path: &str) -> Request<'_> {
        Request::new(method, self.project(path), Who::Token(self.token.as_ref()))
    }

    /// What arrived after a cursor, or only how far arrivals go.
    pub fn arrivals(&self, after: Option<&Cursor>) -> Result<Arrived> {
        let query = after.map(|cursor| format!("?{}", cursor.query())).unwrap_or_default();
        let request = self.v2(Method::GET, &format!("arrivals{query}"));
        let doing = |error| self.doing("ask what has arrived", error);
        match self.http.ask(&request).map_err(doing)? {
            Reply::Bad(refusal) if refusal.status == 409 && refusal.is("epoch") => Ok(Arrived::OtherHistory),
            // A page of a server that has never heard of the path, and not a project that is not there.
            Reply::Bad(refusal) if refusal.status == 404 && refusal.code.is_none() => Ok(Arrived::Unknown),
            reply => {
                let answer = reply.good().map_err(doing)?;
                let body = answer.bytes(ArrivalsBody::BYTES_MAX as u64).map_err(doing)?;
                ArrivalsBody::decode(&body).map(Arrived::Some).map_err(doing)
            }
        }
    }

    /// Some of the symbols of the set of events that the project holds.
    pub fn symbols(&self, wanted: &ReconcileRequest) -> Result<SymbolsBody> {
        let mut request = self.v2(Method::POST, "reconcile").with(BINARY, wanted.encode());
        request.is_work = true;
        let doing = |error| self.doing("compare what the project holds", error);
        let answer = self.http.ask(&request).map_err(doing)?.good().map_err(doing)?;
        let body = answer.bytes(SymbolsBody::BYTES_MAX as u64).map_err(doing)?;
        SymbolsBody::decode(&body).map_err(doing)
    }

    /// Those of some objects that the project holds.
    pub fn holds(&self, ids: &[ObjectId]) -> Result<HashSet<ObjectId>> {
        let doing = |error| self.doing("ask what the project holds", error);
        let mut held = HashSet::new();
        for ids in ids.chunks(QUESTION_IDS_MAX) {
            let question = HoldsRequest { ids: ids.to_vec() };
            let request = self.v2(Method::POST, "holds").with(BINARY, question.encode());
            let answer = self.http.ask(&request).map_err(doing)?.good().map_err(doing)?;
            let body = answer.bytes(HoldsBody::BYTES_MAX as u64).map_err(doing)?;
            let answer = HoldsBody::decode(&body, ids.len()).map_err(doing)?;
            held.extend(ids.iter().zip(answer.held).filter(|(_, held)| *held).map(|(id, _)| *id));
        }
        Ok(held)
    }

    /// Sends a segment in chunks, from where an earlier try stopped; `sent` hears of each. Returns the bytes sent.
    pub fn upload(&self, id: &SegmentId, file: &dyn File, bytes: u64, sent: &dyn Fn(u64)) -> Result<u64> {
        self.upload_from(0, id, file, bytes, sent)
    }

    /// The same for one of which much may be there.
    pub fn upload_rest(
        &self,
        id: &SegmentId,
        file: &dyn File,
        bytes: u64,
        sent: &dyn Fn(u64),
    ) -> Result<u64> {
        let doing = |error| self.doing(&format!("send segment `{}`", id.short()), error);
        let request = self.v2(Method::GET, &format!("uploads/{id}"));
        let answer = self.http.ask(&request).map_err(doing)?.good().map_err(doing)?;
        let there: OffsetBody = answer.json(ANSWER_BYTES_MAX, "an offset").map_err(doing)?;
        if there.offset > bytes {
            return Err(doing(nonsense("an offset within the segment")));
        }
        sent(there.offset);
        self.upload_from(there.offset, id, file, bytes, sent)
    }

    fn upload_from(
        &self,
        start: u64,
        id: &SegmentId,
        file: &dyn File,
        bytes: u64,
        sent: &dyn Fn(u64),
    ) -> Result<u64> {
        let doing = |error| self.doing(&format!("send segment `{}`", id.short()), error);
        let (mut at, mut total) = (start, 0);
        let mut turns = 0;
        while at < bytes {
            let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(upload_chunk_bytes());
            let mut chunk = vec![0; length];
            file.read_exact_at(&mut chunk, at)
                .map_err(|error| Error::io(format!("cannot read segment `{}`", id.short()), error))?;
            let mut request = self.v2(Method::PUT, &format!("uploads/{id}?offset={at}"));
            request.headers.push(("x-chunk-blake3", blake3::hash(&chunk).to_hex().to_string()));
            request.is_work = true;
            let request = request.with(BINARY, Bytes::from(chunk));
            let there = match self.http.ask(&request).map_err(doing)? {
                Reply::Bad(refusal) if refusal.status == 409 && refusal.offset.is_some() => {
                    turns += 1;
                    refusal.offset.unwrap_or_default()
                }
                reply => {
                    let answer = reply.good().map_err(doing)?;
                    let body: OffsetBody = answer.json(ANSWER_BYTES_MAX, "an offset").map_err(doing)?;
                    total += length as u64;
                    body.offset
                }
            };
            // A service that sends back and forth would never end; one upload at a time may meet another of the same.
            if there > bytes || turns > 16 || there == at {
                return Err(doing(nonsense("an offset within the segment")));
            }
            sent(there.saturating_sub(at));
            at = there;
        }
        Ok(total)
    }

    /// Commits uploaded segments; the same batch again gives the same answer.
    pub fn commit(&self, commit: &CommitRequest) -> Result<CommittedBody> {
        let mut request = self.v2(Method::POST, "commit").with(BINARY, commit.encode());
        request.is_work = true;
        let doing = |error| self.doing("commit", error);
        let answer = self.http.ask(&request).map_err(doing)?.good().map_err(doing)?;
        answer.json(ANSWER_BYTES_MAX, "a commit").map_err(doing)
    }

    /// The stream of what arrived after a cursor. Only a service that says so in its caps leaves bodies out.
    pub fn pull(&self, after: &Cursor, bodies: Bodies) -> Result<PartReader<Answer<'_>>> {
        let query = query_of(bodies).map(|query| format!("&{query}")).unwrap_or_default();
        let mut request = self.v2(Method::GET, &format!("pull?{}{query}", after.query()));
        request.is_work = true;
        let doing = |error| self.doing("pull", error);
        let answer = self.http.ask(&request).map_err(doing)?.good().map_err(doing)?;
        Ok(PartReader::new(answer))
    }

    /// The stream of events by place, and of events by id; bodies as for a pull.
    pub fn fetch(
        &self,
        runs: &[ArrivalRun],
        ids: &[EventId],
        bodies: Bodies,
    ) -> Result<PartReader<Answer<'_>>> {
        assert!(runs.len().max(ids.len()) <= RUNS_MAX, "I10: whoever asks has counted them");
        let question = FetchRequest { runs: runs.to_vec(), ids: ids.to_vec() };
        let query = query_of(bodies).map(|query| format!("?{query}")).unwrap_or_default();
        let mut request = self.v2(Method::POST, &format!("fetch{query}")).with(BINARY, question.encode());
        request.is_work = true;
        let doing = |error| self.doing("pull", error);
        let answer = self.http.ask(&request).map_err(doing)?.good().map_err(doing)?;
        Ok(PartReader::new(answer))
    }

    /// Hands the bytes of an object over in parts; they are its own only if their hash is. False where the project does
    /// not hold it.
    pub fn object(&self, id: &ObjectId, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<bool> {
        let request = self.v2(Method::GET, &format!("objects/{id}"));
        let doing = |error: Error| self.doing(&format!("fetch object `{}`", id.short()), error);
        let mut answer = match self.http.ask(&request).map_err(doing)? {
            Reply::Bad(refusal) if refusal.status == 404 && refusal.is("not_found") => return Ok(false),
            reply => reply.good().map_err(doing)?,
        };
        let mut hasher = blake3::Hasher::new();
        let mut total = 0u64;
        while let Some(part) = answer.part().map_err(|error| doing(cut(error)))? {
            total += part.len() as u64;
            if total > agent_trace_store::limits::OBJECT_BYTES_MAX {
                return Err(doing(nonsense("an object within its limit")));
            }
            hasher.update(&part);
            each(&part)?;
        }
        if hasher.finalize().as_bytes() != id.as_bytes() {
            return Err(doing(Error::new(ErrorKind::Corrupt, "its bytes do not have its hash")));
        }
        Ok(true)
    }
}
