//! Servers that are not quite S3: the exchange holds on each of them.

use agent_trace_sync::bucket::fake::{Manners, Tags};

use super::world::World;

fn exchange(manners: Manners) {
    let world = World::new(11);
    world.bucket.behave(manners);
    let (a, b) = (world.store("/a"), world.store("/b"));
    world.add(&a, 0..900);
    a.seal().unwrap();
    for round in 0..3 {
        world.add(&b, 2000 + round * 10..2005 + round * 10);
        for store in [&a, &b] {
            world.push(store).unwrap();
            let report = world.pull(store).unwrap();
            assert_eq!((report.refused, report.forks), (Vec::new(), Vec::new()), "{manners:?}");
        }
    }
    world.pull(&a).unwrap();
    assert!(world.records(&a) == world.records(&b), "{manners:?}");
    assert_eq!(world.records(&a).len(), 915, "{manners:?}");
}

#[test]
fn conditions_may_be_ignored() {
    exchange(Manners { ignores_conditions: true, ..Manners::default() });
}

#[test]
fn ranges_may_be_answered_with_the_whole() {
    exchange(Manners { breaks_ranges: true, ..Manners::default() });
}

#[test]
fn lists_may_come_in_pages_of_one() {
    exchange(Manners { page: 1, ..Manners::default() });
}

#[test]
fn tags_may_say_nothing() {
    exchange(Manners { tags: Tags::Nothing, ..Manners::default() });
}
