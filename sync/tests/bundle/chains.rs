//! Bundles that build on others: they hold what is new, and without their base they are refused whole.

use agent_trace_store::{ErrorKind, Kind};
use agent_trace_sync::bundle::{Base, ExportOptions, decode_cursor};

use crate::world::{World, add, files, open, same, trace};

fn on(base: Base) -> ExportOptions {
    ExportOptions { base: Some(base), ..ExportOptions::default() }
}

#[test]
fn a_chain_brings_the_new_only_and_needs_what_it_builds_on() {
    let world = World::new();
    let (one, two) = (world.store("/one"), world.store("/two"));
    let text: Vec<u8> = (0..60_000u32)
        .flat_map(|line| format!("{}\n", line.wrapping_mul(2_654_435_761)).into_bytes())
        .collect();
    add(&one, Kind::TRACE, (0..200).map(trace));
    world.snapshot(&one, "conversation-1", &text[..text.len() - 1000], 1);
    let (first, told) = world.export(&one, &ExportOptions::default());
    add(&one, Kind::TRACE, (200..210).map(trace));
    world.snapshot(&one, "conversation-1", &text, 2);
    let base = Base::of_bundle(open(&first).unwrap().transport()).unwrap();
    assert_eq!((base.id.as_deref(), base.events.len()), (Some(told.id.as_str()), 201));
    let (second, info) = world.export(&one, &on(base));
    assert_eq!(info.counts.values().sum::<u64>(), 11);
    assert!(second.len() * 4 < first.len(), "{} of {}", second.len(), first.len());

    let before = files(&world, &two);
    let error = world.try_import(&two, &second).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.message().contains(&told.id) && error.message().contains("201 of 201"),
        "{}",
        error.message()
    );
    assert_eq!(files(&world, &two), before, "a bundle that is refused changes nothing");

    world.import(&two, &first);
    assert_eq!(world.import(&two, &second).taken.values().sum::<u64>(), 11);
    same(&one, &two);

    // A third, on the cursor of the second: the bundle itself is not needed.
    add(&one, Kind::TRACE, (300..303).map(trace));
    let (third, info) = world.export(&one, &on(Base::of_cursor(&info.cursor).unwrap()));
    assert_eq!((info.counts.values().sum::<u64>(), info.base.as_ref().unwrap().events), (3, 212));
    world.import(&two, &third);
    same(&one, &two);
    assert_eq!(decode_cursor(&info.cursor).unwrap().len(), 215);
}

#[test]
fn an_empty_difference_is_a_bundle_too() {
    let world = World::new();
    let (one, two) = (world.store("/one"), world.store("/two"));
    add(&one, Kind::TRACE, (0..5).map(trace));
    let (first, info) = world.export(&one, &ExportOptions::default());
    let (second, empty) = world.export(&one, &on(Base::of_cursor(&info.cursor).unwrap()));
    assert_eq!(empty.segments, 0);
    world.import(&two, &first);
    let report = world.import(&two, &second);
    assert_eq!((report.taken.len(), report.segments), (0, 0));
}
