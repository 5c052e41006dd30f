//! Two sets find their difference at a cost that follows the difference, and hostile symbols end in an error.
#![allow(clippy::unwrap_used, missing_docs)]

use agent_trace_store::{ErrorKind, EventId};
use agent_trace_sync::limits::SYMBOLS_MAX;
use agent_trace_sync::reconcile::{CheckKey, Difference, Progress, Reconciliation, Sketch, Steps, answer};
use agent_trace_sync::wire::{Cursor, ReconcileRequest, Symbol, SymbolsBody};
use proptest::prelude::*;

const AT: Cursor = Cursor { epoch: [7; 16], position: 99 };

fn id(number: u64) -> EventId {
    EventId::of(&number.to_le_bytes())
}

fn ids(numbers: impl Iterator<Item = u64>) -> Vec<EventId> {
    numbers.map(id).collect()
}

struct Outcome {
    progress: Progress,
    symbols: usize,
    round_trips: usize,
}

/// Reconciles until something other than `More` comes.
fn reconcile(own: &[EventId], theirs: &[EventId]) -> Outcome {
    let mut reconciliation = Reconciliation::new();
    let (mut symbols, mut round_trips) = (0, 0);
    loop {
        let request = reconciliation.request();
        let body = answer(&request, AT, theirs.iter().copied());
        symbols += body.symbols.len();
        round_trips += 1;
        let progress = reconciliation.take(&body, own.iter().copied()).unwrap();
        if progress != Progress::More {
            return Outcome { progress, symbols, round_trips };
        }
    }
}

/// Sets of `all` ids of which `there` and `here` are only on one side.
fn check(all: u64, there: u64, here: u64) -> Outcome {
    let own = ids(0..all - there);
    let theirs = ids((0..all - there - here).chain(all..all + there));
    let outcome = reconcile(&own, &theirs);
    let mut expected =
        Difference { only_there: ids(all..all + there), only_here: ids(all - there - here..all - there) };
    expected.only_there.sort();
    expected.only_here.sort();
    assert!(outcome.progress == Progress::Done(expected), "{all} {there} {here}");
    outcome
}

#[test]
fn differences_of_all_sizes_are_found() {
    for (all, there, here) in [
        (0, 0, 0),
        (1, 1, 0),
        (1, 0, 1),
        (2, 1, 1),
        (1_000, 0, 0),
        (1_000, 1, 0),
        (1_000, 0, 1),
        (1_000, 5, 5),
        (1_000, 1_000, 0),
        (1_000, 0, 1_000),
        (100_000, 0, 0),
        (100_000, 3, 7),
        (100_000, 500, 500),
        (100_000, 9_000, 1_000),
    ] {
        check(all, there, here);
    }
}

#[test]
fn the_cost_follows_the_difference() {
    assert_eq!(check(20_000, 0, 0).symbols, 256);
    assert_eq!(check(20_000, 50, 50).round_trips, 1);
    for (there, here) in [(1_000, 0), (0, 1_000), (500, 500), (2_000, 3_000)] {
        let outcome = check(20_000, there, here);
        let difference = usize::try_from(there + here).unwrap();
        assert!(outcome.symbols < 2 * difference, "{there} {here}: {} symbols", outcome.symbols);
        assert!(outcome.round_trips <= 3, "{there} {here}: {} round trips", outcome.round_trips);
    }
}

#[test]
fn sets_that_differ_too_much_are_found_out_early() {
    let outcome = reconcile(&ids(0..400_000), &[]);
    assert_eq!(outcome.progress, Progress::TooDifferent);
    assert_eq!(outcome.round_trips, 1);
}

#[test]
fn shorter_answers_than_asked_for_do_too() {
    let (own, theirs) = (ids(0..500), ids(100..800));
    let mut reconciliation = Reconciliation::new();
    for _ in 0..1_000 {
        let request =
            ReconcileRequest { count: reconciliation.request().count.min(10), ..reconciliation.request() };
        let body = answer(&request, AT, theirs.iter().copied());
        if let Progress::Done(found) = reconciliation.take(&body, own.iter().copied()).unwrap() {
            assert_eq!((found.only_there.len(), found.only_here.len()), (300, 100));
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn a_sketch_is_a_part_of_one_endless_sequence() {
    let sketch = |first, count| {
        let mut sketch = Sketch::new(&AT.epoch, &ReconcileRequest { first, count, position: 0 });
        ids(0..500).iter().for_each(|id| sketch.add(id));
        sketch.symbols().to_vec()
    };
    let whole = sketch(0, 1_000);
    assert_eq!(sketch(0, 10), whole[..10]);
    assert_eq!(sketch(300, 700), whole[300..]);
    assert_eq!(sketch(0, u32::MAX).len(), SYMBOLS_MAX);
    assert_eq!(sketch(u64::MAX, 1).len(), 0);
    assert_eq!(whole[0].count, 500);
}

/// Each symbol `j` holds an id with a chance of `2 / (j + 2)`.
#[test]
fn symbols_hold_ids_as_often_as_they_should() {
    const IDS: u64 = 200_000;
    let key = CheckKey::new(&AT.epoch);
    let mut counts = [0u64; 1_000];
    for number in 0..IDS {
        for at in Steps::new(key.check(&id(number))).take_while(|at| *at < 1_000) {
            counts[at] += 1;
        }
    }
    for at in [0, 1, 2, 3, 5, 10, 30, 100, 300, 999] {
        let expected = 2 * IDS / (at as u64 + 2);
        let off = counts[at].abs_diff(expected);
        assert!(off * off <= 25 * expected, "symbol {at}: expected {expected}, found {}", counts[at]);
    }
}

#[test]
fn steps_rise_and_end() {
    for check in [0, 1, u64::MAX, 0x8000_0000_0000_0000, 0xffff_ffff] {
        let steps: Vec<usize> = Steps::new(check).collect();
        assert_eq!(steps[0], 0);
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(steps.iter().all(|at| *at < SYMBOLS_MAX));
    }
}

/// The first symbols of a set, as every machine has them.
#[test]
fn symbols_are_the_same_everywhere() {
    let request = ReconcileRequest { first: 0, count: 64, position: 0 };
    let body = answer(&request, AT, ids(0..1_000).into_iter());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/symbols.bin");
    check_golden(path, &body.encode());
}

#[expect(clippy::disallowed_methods, reason = "golden files lie beside the test")]
fn check_golden(path: &str, bytes: &[u8]) {
    if std::env::var_os("AGENT_TRACE_GOLDEN_WRITE").is_some() {
        std::fs::write(path, bytes).unwrap();
    }
    assert!(std::fs::read(path).unwrap() == bytes, "`{path}` has other bytes");
}

fn body(symbols: Vec<Symbol>, size: u64) -> SymbolsBody {
    SymbolsBody { taken_at: AT, size, first: 0, symbols }
}

fn alone(number: u64, count: i64) -> Symbol {
    Symbol { sum: *id(number).as_bytes(), checks: CheckKey::new(&AT.epoch).check(&id(number)), count }
}

fn error(answer: &SymbolsBody) -> ErrorKind {
    Reconciliation::new().take(answer, std::iter::empty()).unwrap_err().kind()
}

#[test]
fn symbols_that_contradict_each_other_are_refused() {
    let honest = answer(&Reconciliation::new().request(), AT, ids(0..3).into_iter());
    assert!(matches!(Reconciliation::new().take(&honest, std::iter::empty()), Ok(Progress::Done(_))));
    let mut wrong_size = honest.clone();
    wrong_size.size = 4;
    assert_eq!(error(&wrong_size), ErrorKind::Corrupt);
    // The same id alone everywhere, also where it does not belong, and with both signs.
    assert_eq!(error(&body(vec![alone(1, 1); 200], 1)), ErrorKind::Corrupt);
    let both = (0..200).map(|at| alone(1, if at % 2 == 0 { 1 } else { -1 })).collect();
    assert_eq!(error(&body(both, 1)), ErrorKind::Corrupt);
    // Nothing but symbol 0 is empty.
    let mut leftover = body(vec![Symbol::default(); 256], 0);
    leftover.symbols[9] = Symbol { count: 5, ..Symbol::default() };
    assert_eq!(error(&leftover), ErrorKind::Corrupt);
    assert_eq!(error(&body(vec![], 0)), ErrorKind::Corrupt);
    assert_eq!(error(&body(vec![Symbol::default(); 257], 0)), ErrorKind::Corrupt);
    assert_eq!(error(&SymbolsBody { first: 1, ..body(vec![Symbol::default()], 0) }), ErrorKind::Corrupt);
}

/// As many ids alone as there are symbols, each in its last symbol: the most work that symbols can make.
#[test]
fn work_on_hostile_symbols_is_bounded() {
    let symbols: Vec<Symbol> = (0..256).map(|at| alone(at, 1)).collect();
    let _ = Reconciliation::new().take(&body(symbols, 256), std::iter::empty());
    let extreme = Symbol { sum: [255; 32], checks: u64::MAX, count: i64::MIN };
    let outcome = Reconciliation::new().take(&body(vec![extreme; 256], u64::MAX), std::iter::empty());
    assert_eq!(outcome.unwrap(), Progress::TooDifferent);
}

#[test]
fn another_history_is_another_set() {
    let mut reconciliation = Reconciliation::new();
    let theirs = ids(0..2_000);
    let request = reconciliation.request();
    let first = answer(&request, AT, theirs.iter().copied());
    assert_eq!(reconciliation.take(&first, std::iter::empty()).unwrap(), Progress::More);
    assert_eq!(reconciliation.request().position, AT.position);
    let moved = Cursor { position: 100, ..AT };
    let second = answer(&reconciliation.request(), moved, theirs.iter().copied());
    let error = reconciliation.take(&second, std::iter::empty()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_two_sets(common in 0u64..2_000, there in 0u64..300, here in 0u64..300, salt in any::<u32>()) {
        let base = u64::from(salt) << 20;
        let own = ids((0..common + here).map(|at| base + at));
        let theirs = ids((0..common).chain(5_000..5_000 + there).map(|at| base + at));
        let outcome = reconcile(&own, &theirs);
        let Progress::Done(found) = outcome.progress else { panic!("not found") };
        prop_assert_eq!(found.only_there.len() as u64, there);
        prop_assert_eq!(found.only_here.len() as u64, here);
        prop_assert!(found.only_there.iter().all(|id| theirs.contains(id) && !own.contains(id)));
        prop_assert!(found.only_here.iter().all(|id| own.contains(id) && !theirs.contains(id)));
    }
}
