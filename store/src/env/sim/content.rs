//! The bytes of one simulated file: what readers see, and how to take back what is not durable.
//!
//! Only the visible bytes are held; each unsynced change remembers what it overwrote, so an append costs its
//! own length and a sync costs nothing. Knows nothing about names, handles or faults.

use super::random::Random;
use super::{CrashOdds, SECTOR_BYTES};

/// A file's visible bytes and its changes since the last full sync, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    visible: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Change {
    state: State,
    undo: Undo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Written, not synced.
    Pending,
    /// Was pending when a sync failed; no later sync saves it.
    Doomed,
    /// Synced, but kept here because something before it is doomed.
    Durable,
}

#[derive(Clone, Debug)]
enum Undo {
    Write { offset: usize, bytes: usize, old: Vec<u8>, bytes_before: usize },
    Length { bytes_before: usize, bytes_after: usize, cut: Vec<u8> },
}

enum Redo {
    Write { offset: usize, bytes: Vec<u8> },
    Length { bytes_after: usize },
}

enum Fate {
    Kept,
    Torn,
    /// Only the new length was kept.
    Extended,
    Lost,
}

impl Content {
    pub(super) fn new(bytes: Vec<u8>) -> Content {
        Content { visible: bytes, changes: Vec::new() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.visible
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let (bytes_before, end) = (self.visible.len(), offset + bytes.len());
        let old = self.visible.get(offset..end.min(bytes_before)).unwrap_or_default().to_vec();
        self.changes.push(Change {
            state: State::Pending,
            undo: Undo::Write { offset, bytes: bytes.len(), old, bytes_before },
        });
        put(&mut self.visible, offset, bytes);
    }

    pub(super) fn set_len(&mut self, bytes: usize) {
        let bytes_before = self.visible.len();
        let cut = self.visible.get(bytes..).unwrap_or_default().to_vec();
        self.visible.resize(bytes, 0);
        self.changes.push(Change {
            state: State::Pending,
            undo: Undo::Length { bytes_before, bytes_after: bytes, cut },
        });
    }

    /// Makes everything durable that no failed sync has doomed.
    pub(super) fn sync(&mut self) {
        for change in &mut self.changes {
            if change.state == State::Pending {
                change.state = State::Durable;
            }
        }
        let durable = self.changes.iter().take_while(|change| change.state == State::Durable).count();
        self.changes.drain(..durable);
    }

    /// Marks what is pending as beyond saving: the system forgot that it was never written.
    pub(super) fn doom(&mut self) {
        for change in &mut self.changes {
            if change.state == State::Pending {
                change.state = State::Doomed;
            }
        }
    }

    /// Makes everything durable, doomed or not.
    pub(super) fn settle(&mut self) {
        self.changes.clear();
    }

    /// Flips one bit; false if the file is too short. Only for content that is settled.
    pub(super) fn flip_bit(&mut self, at: usize, bit: u32) -> bool {
        self.visible.get_mut(at).map(|byte| *byte ^= 1 << (bit % 8)).is_some()
    }

    /// Decides for each change whether it reached the disk; the outcome is durable.
    pub(super) fn crash(&mut self, odds: &CrashOdds, random: &mut Random) {
        let mut redo: Vec<(State, Redo)> = Vec::with_capacity(self.changes.len());
        while let Some(change) = self.changes.pop() {
            redo.push((change.state, self.undo(change.undo)));
        }
        let together = random.chance(odds.together).then(|| random.coin());
        for (state, step) in redo.into_iter().rev() {
            let fate = match state {
                State::Durable => Fate::Kept,
                State::Doomed if !random.chance(odds.doomed_kept) => Fate::Lost,
                State::Pending | State::Doomed => match together {
                    Some(true) => Fate::Kept,
                    Some(false) => Fate::Lost,
                    None => draw_fate(odds, random),
                },
            };
            self.redo(step, &fate, odds.garbage, random);
        }
    }

    fn undo(&mut self, undo: Undo) -> Redo {
        match undo {
            Undo::Write { offset, bytes, old, bytes_before } => {
                let written = self.visible[offset..offset + bytes].to_vec();
                self.visible[offset..offset + old.len()].copy_from_slice(&old);
                self.visible.truncate(bytes_before);
                Redo::Write { offset, bytes: written }
            }
            Undo::Length { bytes_before, bytes_after, cut } => {
                self.visible.truncate(bytes_before);
                self.visible.extend_from_slice(&cut);
                Redo::Length { bytes_after }
            }
        }
    }

    fn redo(&mut self, step: Redo, fate: &Fate, garbage: bool, random: &mut Random) {
        match (step, fate) {
            (_, Fate::Lost) => {}
            (Redo::Write { offset, bytes }, Fate::Kept) => put(&mut self.visible, offset, &bytes),
            (Redo::Write { offset, bytes }, Fate::Extended) => {
                self.extend(offset + bytes.len(), garbage, random);
            }
            (Redo::Write { offset, bytes }, Fate::Torn) => {
                if random.coin() {
                    self.extend(offset + bytes.len(), garbage, random);
                }
                let mut start = 0;
                while start < bytes.len() {
                    let sector_end = ((offset + start) / SECTOR_BYTES + 1) * SECTOR_BYTES;
                    let end = bytes.len().min(sector_end - offset);
                    if random.coin() {
                        self.extend(offset + start, garbage, random);
                        put(&mut self.visible, offset + start, &bytes[start..end]);
                    }
                    start = end;
                }
            }
            (Redo::Length { bytes_after }, Fate::Kept | Fate::Torn) => self.visible.resize(bytes_after, 0),
            (Redo::Length { .. }, Fate::Extended) => {}
        }
    }

    /// Makes the file at least that long, with what the disk had there before.
    fn extend(&mut self, bytes: usize, garbage: bool, random: &mut Random) {
        let bytes_before = self.visible.len();
        if bytes > bytes_before {
            self.visible.resize(bytes, 0);
            if garbage {
                random.fill(&mut self.visible[bytes_before..]);
            }
        }
    }
}

fn put(target: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if offset > target.len() {
        target.resize(offset, 0);
    }
    let overlap = bytes.len().min(target.len() - offset);
    target[offset..offset + overlap].copy_from_slice(&bytes[..overlap]);
    target.extend_from_slice(&bytes[overlap..]);
}

fn draw_fate(odds: &CrashOdds, random: &mut Random) -> Fate {
    if random.chance(odds.kept) {
        Fate::Kept
    } else if random.chance(odds.torn) {
        Fate::Torn
    } else if random.chance(odds.extended) {
        Fate::Extended
    } else {
        Fate::Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn crash_odds(kept: u32) -> CrashOdds {
        CrashOdds { kept, torn: 0, extended: 0, together: 0, ..CrashOdds::default() }
    }

    proptest! {
        /// Against the plain model: undoing everything gives what was synced, redoing it what was seen.
        #[test]
        fn a_crash_that_keeps_all_or_nothing_is_exact(
            steps in prop::collection::vec((0u8..8, 0usize..3_000, 0usize..1_500, any::<u8>()), 0..30),
        ) {
            let (mut content, mut durable, mut visible) = (Content::default(), Vec::new(), Vec::new());
            for (step, offset, bytes, fill) in steps {
                match step {
                    0 => {
                        content.sync();
                        durable.clone_from(&visible);
                    }
                    1 | 2 => {
                        content.set_len(offset);
                        visible.resize(offset, 0);
                    }
                    _ => {
                        content.write(&vec![fill; bytes], offset);
                        if visible.len() < offset + bytes {
                            visible.resize(offset + bytes, 0);
                        }
                        visible[offset..offset + bytes].fill(fill);
                    }
                }
                prop_assert_eq!(content.bytes(), &visible);
            }
            let mut lost = content.clone();
            lost.crash(&crash_odds(0), &mut Random::new(0, 0));
            prop_assert_eq!(lost.bytes(), &durable);
            content.crash(&crash_odds(10_000), &mut Random::new(0, 0));
            prop_assert_eq!(content.bytes(), &visible);
        }
    }
}
