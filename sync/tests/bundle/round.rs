//! Round trips: what was exported is there after an import, once, and a second import changes nothing.

use std::path::Path;

use agent_trace_store::progress::Silent;
use agent_trace_store::{Kind, Timestamp, compact};
use agent_trace_sync::address::RemoteUrl;
use agent_trace_sync::bundle::{Bundle, ExportOptions, Wanted, execute, import, plan, verify};
use agent_trace_sync::pull::{PullOptions, pull};
use agent_trace_sync::remote::Remote;
use agent_trace_sync::transport::{Folder, Transport};

use crate::world::{World, add, events, files, ledger, open, same, sessions, sound, trace, trace_of};

fn text(lines: usize, seed: usize) -> Vec<u8> {
    (0..lines).flat_map(|line| format!("{seed} line {line} {}\n", line * 7919 + seed).into_bytes()).collect()
}

/// A store with all kinds of records, transcripts that grow, and one that is large.
fn filled(world: &World, name: &str) -> agent_trace_store::Store {
    let store = world.store(name);
    add(&store, Kind::TRACE, (0..300).map(trace));
    add(&store, Kind::LEDGER, (0..20).map(|number| ledger(number, [number, number + 1])));
    let whole = text(40_000, 1);
    for (step, time) in [(10_000, 1), (300_000, 2), (whole.len(), 3)] {
        world.snapshot(&store, "conversation-1", &whole[..step], time);
    }
    world.snapshot(&store, "conversation-2", b"small", 4);
    store
}

#[test]
fn what_goes_in_comes_out_and_only_once() {
    let world = World::new();
    let one = filled(&world, "/one");
    let bytes = world.all(&one);
    let two = world.store("/two");
    let report = world.import(&two, &bytes);
    assert_eq!((report.taken.values().sum::<u64>(), report.known), (324, 0), "{report:?}");
    assert_eq!((report.forks.len(), report.conflicts.len(), report.new_writer), (0, 0, false));
    same(&one, &two);
    let before = files(&world, &two);
    let again = world.import(&two, &bytes);
    assert_eq!((again.taken.len(), again.known), (0, 324));
    assert_eq!(files(&world, &two), before, "an import of what is here changes nothing");
}

#[test]
fn a_compacted_store_goes_too_and_a_third_relays_it() {
    let world = World::new();
    let one = filled(&world, "/one");
    let plan = compact::plan(&one).unwrap();
    compact::execute(&one, &plan, &Silent).unwrap();
    let two = world.store("/two");
    world.import(&two, &world.all(&one));
    same(&one, &two);
    add(&two, Kind::TRACE, (1000..1010).map(trace));
    let three = world.store("/three");
    let report = world.import(&three, &world.all(&two));
    assert_eq!(report.taken.values().sum::<u64>(), 334);
    same(&two, &three);
    // And back: only what is new is taken.
    let report = world.import(&one, &world.all(&three));
    assert_eq!((report.taken.values().sum::<u64>(), report.known), (10, 324));
    same(&three, &one);
}

#[test]
fn what_a_bundle_says_of_itself_is_true() {
    let world = World::new();
    let one = filled(&world, "/one");
    let (bytes, info) = world.export(&one, &ExportOptions::default());
    let bundle = open(&bytes).unwrap();
    assert_eq!(bundle.info.as_ref(), Some(&info));
    assert_eq!(info.counts.values().sum::<u64>(), 324);
    assert_eq!((info.counts["trace"], info.counts["ledger"], info.counts["transcript"]), (300, 20, 4));
    assert_eq!(info.writers, [one.writer().to_string()]);
    assert_eq!((info.base.as_ref(), info.sessions), (None, 300));
    let empty = world.store("/empty");
    let found = verify(&empty, &bundle, &Silent).unwrap();
    assert_eq!((found.objects, found.raw_bytes), (info.objects, info.raw_bytes));
    assert!(found.missing.is_empty() && found.forks.is_empty());
    assert!(events(&empty).is_empty(), "looking takes nothing in");
}

#[test]
fn a_session_goes_with_all_that_it_reaches() {
    let world = World::new();
    let one = filled(&world, "/one");
    let (bytes, info) = world.export(&one, &sessions(&["session of conversation-2"]));
    // The trace, its conversation, and the two ledgers that name it.
    assert_eq!((info.counts["trace"], info.counts["transcript"], info.counts["ledger"]), (1, 1, 2));
    let two = world.store("/two");
    world.import(&two, &bytes);
    assert_eq!(events(&two).len(), 4);
    sound(&two);
    let (_, info) = world.export(&one, &sessions(&["conversation-1"]));
    assert_eq!(info.counts["transcript"], 3, "a conversation may be named too");
    let nobody = plan(&one, &sessions(&["nobody"])).unwrap();
    assert_eq!((nobody.events().len(), nobody.unknown()), (0, &["nobody".to_owned()][..]));
}

#[test]
fn commits_go_with_their_traces_and_conversations() {
    let world = World::new();
    let one = filled(&world, "/one");
    let commits = vec![format!("{:040x}", 1), format!("{:040x}", 999)];
    let wanted = Wanted { commits: Some(commits), ..Wanted::default() };
    let (_, info) = world.export(&one, &ExportOptions { wanted, ..ExportOptions::default() });
    // The ledger of commit 1 names traces 1 and 2; other ledgers name those too.
    assert_eq!((info.counts["trace"], info.counts["transcript"], info.counts["ledger"]), (2, 4, 3));
}

#[test]
fn a_time_chooses_records_and_what_they_reach_goes_along() {
    let world = World::new();
    let one = world.store("/one");
    add(&one, Kind::TRACE, (0..60).map(trace));
    world.snapshot(&one, "conversation-59", b"old bytes", 1);
    let since = Timestamp::parse("2026-01-01T00:00:58Z");
    let wanted = Wanted { since, ..Wanted::default() };
    let (_, info) = world.export(&one, &ExportOptions { wanted, ..ExportOptions::default() });
    assert_eq!((info.counts["trace"], info.counts["transcript"]), (2, 1));
}

#[test]
fn a_folder_is_a_bundle_and_a_remote() {
    let world = World::new();
    let one = filled(&world, "/one");
    let folder = Folder::new(&world.env, Path::new("/folder"));
    folder.make().unwrap();
    let options = ExportOptions::default();
    let info = execute(&one, &plan(&one, &options).unwrap(), &options, &folder, &Silent).unwrap();
    assert_eq!(info.counts.values().sum::<u64>(), 324);
    let (two, three) = (world.store("/two"), world.store("/three"));
    let bundle = Bundle::of_folder(&world.env, Path::new("/folder")).unwrap();
    import(&two, &bundle, false, false, &Silent).unwrap();
    same(&one, &two);
    let remote = Remote::open(&world.env, &RemoteUrl::Folder("/folder".into()), false).unwrap();
    let report = pull(&three, &remote, &PullOptions::default(), &Silent).unwrap();
    assert_eq!((report.refused.len(), report.forks.len()), (0, 0), "{:?}", report.refused);
    same(&one, &three);
}

#[test]
fn records_under_one_key_are_told_of_and_both_kept() {
    let world = World::new();
    let (one, two) = (world.store("/one"), world.store("/two"));
    add(&one, Kind::TRACE, [trace_of(1, 1), trace_of(2, 2)]);
    add(&two, Kind::TRACE, [trace_of(1, 77), trace_of(2, 2)]);
    world.snapshot(&one, "grown", b"a transcript that", 1);
    world.snapshot(&two, "grown", b"a transcript that has grown", 2);
    world.snapshot(&one, "differs", b"these bytes", 1);
    world.snapshot(&two, "differs", b"other bytes, no beginning of those", 2);
    let report = world.import(&two, &world.all(&one));
    let told: Vec<_> = report.conflicts.iter().map(|one| (one.kind, one.key.clone())).collect();
    assert_eq!(
        told,
        [(Kind::TRACE, crate::world::trace_id(1)), (Kind::TRANSCRIPT, "differs".to_owned())],
        "a transcript that has grown is no conflict, nor is the same record twice"
    );
    assert_eq!(report.conflicts_count, 2);
    sound(&two);
    assert_eq!(events(&two).iter().filter(|event| event.3 == crate::world::trace_id(1)).count(), 2);
}
