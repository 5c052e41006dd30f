//! Rateless set reconciliation: two sides that hold nearly the same event ids find the difference, at a cost that
//! follows the difference and not the sets.
//!
//! After Yang, Gilad and Alizadeh, *Practical Rateless Set Reconciliation* (SIGCOMM 2024). A set is coded into an
//! endless sequence of symbols, each a sum over some of its ids; the difference of two sides' symbols is the code of
//! the difference of their sets, and about 1.4 symbols for each id of it suffice to find them all: a symbol that
//! holds a single id gives it away, which is then taken out of the others.
//!
//! Which symbols an id is part of follows from its check value by integers alone ([`Steps`]), so that any two machines
//! agree; `docs/protocol.md` has the formula. The check value is keyed by the epoch. What a peer's symbols say is bounded
//! in work and memory, and otherwise as true as the peer: whoever acts on it looks the ids up.

use std::collections::HashSet;

use agent_trace_store::{Error, ErrorKind, EventId, Result};

use crate::limits::{SYMBOLS_MAX, symbols_first};
use crate::wire::{Cursor, Epoch, ReconcileRequest, Symbol, SymbolsBody};

const KEY_CONTEXT: &str = "agent-trace reconcile v1";

/// The key of check values, of one epoch.
#[derive(Clone)]
pub struct CheckKey([u8; 32]);

impl CheckKey {
    /// The key of an epoch.
    pub fn new(epoch: &Epoch) -> CheckKey {
        CheckKey(blake3::derive_key(KEY_CONTEXT, epoch))
    }

    /// The check value of an id.
    pub fn check(&self, id: &EventId) -> u64 {
        let hash = blake3::keyed_hash(&self.0, id.as_bytes());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash is longer"))
    }
}

/// The symbols that an id is part of, in rising order, below [`SYMBOLS_MAX`]; the first is 0.
///
/// After symbol `i`, none of `i + 1 ..= j` comes with a chance of `(i + 1) (i + 2) / ((j + 1) (j + 2))`, which is what
/// it takes that each symbol `j` comes with a chance of `2 / (j + 2)`, whatever came before. That chance is the product
/// of two, for each of which one half of a random number is drawn.
pub struct Steps {
    state: u64,
    next: u64,
}

impl Steps {
    /// The symbols of an id with this check value.
    pub fn new(check: u64) -> Steps {
        Steps { state: check, next: 0 }
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Iterator for Steps {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let at = self.next;
        if at >= SYMBOLS_MAX as u64 {
            return None;
        }
        let drawn = self.draw();
        // Odd numbers below 2^33 stand for numbers between 0 and 1, both excluded.
        let (low, high) = ((drawn & 0xffff_ffff) << 1 | 1, drawn >> 32 << 1 | 1);
        let by_low = ((at + 1) << 33).div_ceil(low) - 1;
        let by_high = ((at + 2) << 33).div_ceil(high) - 2;
        self.next = by_low.min(by_high);
        Some(usize::try_from(at).expect("below `SYMBOLS_MAX`"))
    }
}

// A place of a symbol, shifted as `Steps` shifts it, fits a number.
const _: () = assert!((SYMBOLS_MAX as u64 + 2) << 33 >> 33 == SYMBOLS_MAX as u64 + 2);

impl Symbol {
    fn add(&mut self, id: &EventId, check: u64, count: i64) {
        self.sum.iter_mut().zip(id.as_bytes()).for_each(|(sum, byte)| *sum ^= byte);
        self.checks ^= check;
        self.count = self.count.wrapping_add(count);
    }

    fn subtract(&mut self, other: &Symbol) {
        self.add(&EventId::from_bytes(other.sum), other.checks, other.count.wrapping_neg());
    }

    fn is_empty(&self) -> bool {
        *self == Symbol::default()
    }
}

/// Some symbols of a set, made by adding its ids one by one, in any order.
///
/// Costs 48 bytes for each symbol and nothing for an id. A service may keep the first few symbols of a project and add
/// what arrives.
#[derive(Clone)]
pub struct Sketch {
    key: CheckKey,
    first: usize,
    symbols: Vec<Symbol>,
}

impl Sketch {
    /// The symbols that a request asks for, of the empty set.
    pub fn new(epoch: &Epoch, request: &ReconcileRequest) -> Sketch {
        let first = usize::try_from(request.first).unwrap_or(SYMBOLS_MAX).min(SYMBOLS_MAX);
        let count = (request.count as usize).min(SYMBOLS_MAX - first);
        Sketch { key: CheckKey::new(epoch), first, symbols: vec![Symbol::default(); count] }
    }

    /// Adds an id that is not in the set.
    pub fn add(&mut self, id: &EventId) {
        let check = self.key.check(id);
        let end = self.first + self.symbols.len();
        for at in Steps::new(check).take_while(|at| *at < end) {
            if let Some(at) = at.checked_sub(self.first) {
                self.symbols[at].add(id, check, 1);
            }
        }
    }

    /// The symbols.
    pub fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }
}

/// The answer of a side that holds these ids to a request.
pub fn answer(
    request: &ReconcileRequest,
    taken_at: Cursor,
    ids: impl Iterator<Item = EventId>,
) -> SymbolsBody {
    let mut sketch = Sketch::new(&taken_at.epoch, request);
    let mut size = 0;
    for id in ids {
        size += 1;
        sketch.add(&id);
    }
    SymbolsBody { taken_at, size, first: request.first, symbols: sketch.symbols }
}

/// What one side holds and the other does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Ids that only the peer holds, in order.
    pub only_there: Vec<EventId>,
    /// Ids that only this side holds, in order.
    pub only_here: Vec<EventId>,
}

/// Where a reconciliation stands after an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More symbols are needed: ask again.
    More,
    /// This is the difference.
    Done(Difference),
    /// The sets differ by more than symbols may be asked for; list them instead.
    TooDifferent,
}

/// Finds the difference between the own ids and a peer's: asks for symbols until they tell.
#[derive(Default)]
pub struct Reconciliation {
    taken_at: Option<Cursor>,
    size: u64,
    wanted: usize,
    /// The peer's symbols less the own, less the ids that are found.
    rest: Vec<Symbol>,
    found: Difference,
    seen: HashSet<EventId>,
}

impl Reconciliation {
    /// Starts without knowing anything of the peer.
    pub fn new() -> Reconciliation {
        Reconciliation { wanted: symbols_first(), ..Reconciliation::default() }
    }

    /// What to ask for next.
    pub fn request(&self) -> ReconcileRequest {
        let count = u32::try_from(self.wanted - self.rest.len()).expect("bounded by `SYMBOLS_MAX`");
        let position = self.taken_at.map_or(0, |cursor| cursor.position);
        ReconcileRequest { first: self.rest.len() as u64, count, position }
    }

    /// Which history of the peer, and up to where; known after the first answer.
    pub fn taken_at(&self) -> Option<Cursor> {
        self.taken_at
    }

    /// Takes the answer to [`request`](Self::request) and the own ids, the same each time.
    pub fn take(&mut self, answer: &SymbolsBody, own: impl Iterator<Item = EventId>) -> Result<Progress> {
        let request = self.request();
        self.check_answer(&request, answer)?;
        let mut sketch =
            Sketch::new(&answer.taken_at.epoch, &ReconcileRequest { count: count_of(answer), ..request });
        let mut own_size = 0;
        for id in own {
            own_size += 1;
            sketch.add(&id);
        }
        let known = self.rest.len();
        self.rest.extend_from_slice(&answer.symbols);
        for (symbol, own) in self.rest[known..].iter_mut().zip(sketch.symbols()) {
            symbol.subtract(own);
        }
        let key = sketch.key;
        self.take_out_found(&key, known);
        self.peel(&key, known)?;
        self.progress(own_size)
    }

    fn check_answer(&mut self, request: &ReconcileRequest, answer: &SymbolsBody) -> Result<()> {
        if *self.taken_at.get_or_insert(answer.taken_at) != answer.taken_at {
            return Err(Error::new(ErrorKind::Conflict, "the set changed while it was reconciled"));
        }
        self.size = answer.size;
        let count = answer.symbols.len();
        if answer.first != request.first || count == 0 || count > request.count as usize {
            return Err(Error::corrupt("cannot reconcile: other symbols came than were asked for"));
        }
        Ok(())
    }

    /// Takes what is found already out of symbols that are new.
    fn take_out_found(&mut self, key: &CheckKey, known: usize) {
        let found = &self.found;
        let signed = |ids: &[EventId], sign: i64| ids.iter().map(|id| (*id, sign)).collect::<Vec<_>>();
        let (there, here) = (signed(&found.only_there, -1), signed(&found.only_here, 1));
        for (id, sign) in there.into_iter().chain(here) {
            let check = key.check(&id);
            let end = self.rest.len();
            for at in Steps::new(check).take_while(|at| *at < end).filter(|at| *at >= known) {
                self.rest[at].add(&id, check, sign);
            }
        }
    }

    /// Finds ids that stand alone in a symbol and takes them out of all, until none does. Each id is found once, and no
    /// more of them than there are symbols, so that it ends whatever the symbols are.
    fn peel(&mut self, key: &CheckKey, known: usize) -> Result<()> {
        let mut alone: Vec<usize> = (known..self.rest.len()).collect();
        while let Some(at) = alone.pop() {
            let symbol = self.rest[at];
            let id = EventId::from_bytes(symbol.sum);
            if symbol.count.unsigned_abs() != 1 || key.check(&id) != symbol.checks {
                continue;
            }
            if !self.seen.insert(id) || self.seen.len() > self.rest.len() {
                return Err(contradiction());
            }
            match symbol.count {
                1 => self.found.only_there.push(id),
                _ => self.found.only_here.push(id),
            }
            let end = self.rest.len();
            for part in Steps::new(symbol.checks).take_while(|part| *part < end) {
                self.rest[part].add(&id, symbol.checks, symbol.count.wrapping_neg());
                if self.rest[part].count.unsigned_abs() == 1 {
                    alone.push(part);
                }
            }
            if !self.rest[at].is_empty() {
                return Err(contradiction());
            }
        }
        Ok(())
    }

    /// Every id is part of symbol 0, so all are found when that is empty.
    fn progress(&mut self, own_size: u64) -> Result<Progress> {
        if !self.rest[0].is_empty() {
            return Ok(self.ask_for_more());
        }
        let found = &mut self.found;
        let (there, here) = (found.only_there.len() as u64, found.only_here.len() as u64);
        let size_fits = (own_size + there).checked_sub(here) == Some(self.size);
        if !size_fits || !self.rest.iter().all(Symbol::is_empty) {
            return Err(contradiction());
        }
        found.only_there.sort_unstable();
        found.only_here.sort_unstable();
        Ok(Progress::Done(std::mem::take(found)))
    }

    /// Chooses how many symbols will do, with some to spare: each round trip costs more than a few symbols.
    fn ask_for_more(&mut self) -> Progress {
        let known = self.rest.len();
        let left = usize::try_from(estimate(&self.rest)).unwrap_or(usize::MAX);
        let all = left.saturating_add(self.seen.len());
        if known == SYMBOLS_MAX || all > SYMBOLS_MAX {
            return Progress::TooDifferent;
        }
        let enough = all + all / 8 * 5 + 32;
        self.wanted = enough.max(known + known / 8 + 1).min(SYMBOLS_MAX);
        Progress::More
    }
}

fn contradiction() -> Error {
    Error::corrupt("cannot reconcile: the symbols contradict each other")
}

fn count_of(answer: &SymbolsBody) -> u32 {
    u32::try_from(answer.symbols.len()).expect("not more than were asked for")
}

/// About how many ids the symbols of a difference hold: an id is part of symbol `i` with a chance of `p = 2 / (i + 2)`,
/// so the square of what a count differs from its mean is about the number of ids times `p (1 - p)`, on average over
/// the symbols. Only how much is asked for depends on it.
fn estimate(rest: &[Symbol]) -> u64 {
    let bounded = |count: i64| i128::from(count.clamp(-(1 << 32), 1 << 32));
    let balance = bounded(rest[0].count);
    let mut squares = 0u128;
    for (at, symbol) in rest.iter().enumerate().skip(1) {
        let off = (bounded(symbol.count) * (at as i128 + 2) - 2 * balance).unsigned_abs();
        squares += off * off / (2 * at as u128);
    }
    let average = squares / (rest.len() as u128 - 1).max(1);
    u64::try_from(average.max(balance.unsigned_abs())).unwrap_or(u64::MAX)
}
