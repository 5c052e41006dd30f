//! Sets of events as ranges of seqs per writer: what a store holds, what a remote holds, what is held back.
//!
//! Logs are dense where they are written, so such a set is small whatever the size of the store. Set operations
//! are linear in the number of ranges.

use std::collections::BTreeMap;

use crate::codec::{Decoder, Encoder, length_u32};
use crate::error::Result;
use crate::id::{Seq, WriterId};
use crate::limits::WRITERS_MAX;

/// Seqs of one log: disjoint ranges in order, both ends included, never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqSet {
    ranges: Vec<(u64, u64)>,
}

impl SeqSet {
    /// Makes a set of any ranges in any order.
    pub fn from_ranges(mut ranges: Vec<(u64, u64)>) -> SeqSet {
        ranges.sort_unstable();
        let mut set = SeqSet::default();
        for (first, last) in ranges {
            match set.ranges.last_mut() {
                Some(range) if first <= range.1.saturating_add(1) => range.1 = range.1.max(last),
                _ => set.ranges.push((first, last)),
            }
        }
        set
    }

    /// The ranges.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many seqs there are.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The largest seq.
    pub fn last(&self) -> Option<Seq> {
        self.ranges.last().and_then(|range| Seq::new(range.1))
    }

    /// Whether a seq is in the set.
    pub fn contains(&self, seq: Seq) -> bool {
        let after = self.ranges.partition_point(|range| range.0 <= seq.get());
        after > 0 && self.ranges[after - 1].1 >= seq.get()
    }

    /// Whether a whole range is in the set.
    pub fn contains_range(&self, first: u64, last: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.0 <= first);
        after > 0 && self.ranges[after - 1].1 >= last
    }

    /// Whether any seq of a range is in the set.
    pub fn meets(&self, first: u64, last: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.0 <= last);
        after > 0 && self.ranges[after - 1].1 >= first
    }

    /// All seqs of both.
    #[must_use]
    pub fn union(&self, other: &SeqSet) -> SeqSet {
        SeqSet::from_ranges(self.ranges.iter().chain(&other.ranges).copied().collect())
    }

    /// The seqs that the other does not have.
    #[must_use]
    pub fn minus(&self, other: &SeqSet) -> SeqSet {
        let mut ranges = Vec::new();
        let mut cuts = other.ranges.iter().peekable();
        for &(mut first, last) in &self.ranges {
            while cuts.peek().is_some_and(|cut| cut.1 < first) {
                cuts.next();
            }
            let mut here = cuts.clone();
            let mut open = true;
            while let Some(cut) = here.peek().filter(|cut| cut.0 <= last) {
                if cut.0 > first {
                    ranges.push((first, cut.0 - 1));
                }
                if cut.1 >= last {
                    open = false;
                    break;
                }
                first = first.max(cut.1 + 1);
                here.next();
            }
            if open && first <= last {
                ranges.push((first, last));
            }
        }
        SeqSet { ranges }
    }
}

/// Events of any number of logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSet {
    logs: BTreeMap<WriterId, SeqSet>,
}

impl EventSet {
    /// Makes a set of ranges of logs, in any order.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (WriterId, u64, u64)>) -> EventSet {
        let mut by_writer: BTreeMap<WriterId, Vec<(u64, u64)>> = BTreeMap::new();
        for (writer, first, last) in ranges {
            by_writer.entry(writer).or_default().push((first, last));
        }
        let logs =
            by_writer.into_iter().map(|(writer, ranges)| (writer, SeqSet::from_ranges(ranges))).collect();
        EventSet { logs }
    }

    /// Each log's set; none is empty.
    pub fn logs(&self) -> impl Iterator<Item = (&WriterId, &SeqSet)> {
        self.logs.iter()
    }

    /// The set of one log.
    pub fn log(&self, writer: &WriterId) -> Option<&SeqSet> {
        self.logs.get(writer)
    }

    /// Whether an event is in the set.
    pub fn contains(&self, writer: &WriterId, seq: Seq) -> bool {
        self.logs.get(writer).is_some_and(|set| set.contains(seq))
    }

    /// How many events there are, or the largest number where there cannot be so many.
    pub fn len(&self) -> u64 {
        self.logs.values().fold(0, |sum, set| sum.saturating_add(set.len()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// All events of both.
    #[must_use]
    pub fn union(&self, other: &EventSet) -> EventSet {
        let mut logs = self.logs.clone();
        for (writer, set) in &other.logs {
            let merged = logs.get(writer).map_or_else(|| set.clone(), |mine| mine.union(set));
            logs.insert(*writer, merged);
        }
        EventSet { logs }
    }

    /// The events that the other does not have.
    #[must_use]
    pub fn minus(&self, other: &EventSet) -> EventSet {
        let mut logs = BTreeMap::new();
        for (writer, set) in &self.logs {
            let rest = other.logs.get(writer).map_or_else(|| set.clone(), |cut| set.minus(cut));
            if !rest.is_empty() {
                logs.insert(*writer, rest);
            }
        }
        EventSet { logs }
    }

    /// The set as bytes: a count of logs, then writer (32), a count of ranges, first and last (8 each).
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.u32(length_u32(self.logs.len()));
        for (writer, set) in &self.logs {
            encoder.put(writer.as_bytes()).u32(length_u32(set.ranges.len()));
            for (first, last) in &set.ranges {
                encoder.u64(*first).u64(*last);
            }
        }
        encoder.finish()
    }

    /// Reads a set back.
    pub fn decode(bytes: &[u8]) -> Result<EventSet> {
        let mut decoder = Decoder::new("event set", bytes);
        let mut ranges = Vec::new();
        for _ in 0..decoder.count(36, WRITERS_MAX)? {
            let writer = WriterId::from_bytes(decoder.array()?);
            for _ in 0..decoder.count(16, usize::MAX)? {
                let (first, last) = (decoder.u64()?, decoder.u64()?);
                if first == 0 || first > last {
                    return Err(decoder.error("a range is upside down"));
                }
                ranges.push((writer, first, last));
            }
        }
        decoder.finish()?;
        Ok(EventSet::from_ranges(ranges))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn numbers(set: &SeqSet) -> BTreeSet<u64> {
        set.ranges().iter().flat_map(|(first, last)| *first..=*last).collect()
    }

    fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((1u64..60, 0u64..8).prop_map(|(first, more)| (first, first + more)), 0..12)
    }

    proptest! {
        #[test]
        fn sets_of_ranges_behave_as_sets_of_numbers(a in ranges(), b in ranges()) {
            let (a, b) = (SeqSet::from_ranges(a), SeqSet::from_ranges(b));
            let (x, y) = (numbers(&a), numbers(&b));
            prop_assert_eq!(numbers(&a.union(&b)), x.union(&y).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(numbers(&a.minus(&b)), x.difference(&y).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(a.len(), x.len() as u64);
            for number in 1..70 {
                prop_assert_eq!(a.contains(Seq::new(number).unwrap()), x.contains(&number));
                prop_assert_eq!(a.meets(number, number + 3), (number..=number + 3).any(|n| x.contains(&n)));
                prop_assert_eq!(a.contains_range(number, number + 3), (number..=number + 3).all(|n| x.contains(&n)));
            }
        }

        #[test]
        fn an_event_set_comes_back_from_its_bytes(a in ranges(), b in ranges()) {
            let writer = |n| WriterId::from_bytes([n; 32]);
            let set = EventSet::from_ranges(
                a.into_iter().map(|(f, l)| (writer(1), f, l)).chain(b.into_iter().map(|(f, l)| (writer(2), f, l))),
            );
            prop_assert_eq!(EventSet::decode(&set.encode()).unwrap(), set);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = EventSet::decode(&bytes);
        }
    }
}
