//! Every request of a small workload fails, in each way; afterwards the same work comes to its end and nothing is lost.

use agent_trace_store::progress::Silent;
use agent_trace_store::verify::verify;
use agent_trace_store::{Error, ErrorKind};
use agent_trace_sync::bucket::fake::{Ask, Fault, Plan};
use agent_trace_tests::Random;

use super::world::World;

const ONCE: [Fault; 11] = [
    Fault::LostRequest,
    Fault::LostAnswer,
    Fault::Refused(500, "InternalError"),
    Fault::Refused(503, "SlowDown"),
    Fault::Refused(429, "TooManyRequests"),
    Fault::Refused(403, "ExpiredToken"),
    Fault::ErrorBody,
    Fault::CutBody,
    Fault::BrokenBody,
    Fault::NotKept,
    Fault::LateList,
];

/// What a command may say where one request fails and the rest does not.
fn is_fair(fault: Fault, error: &Error) -> bool {
    match fault {
        Fault::Refused(403, _) => error.kind() == ErrorKind::Denied,
        Fault::FlippedBit => matches!(
            error.kind(),
            ErrorKind::Corrupt
                | ErrorKind::Failed
                | ErrorKind::Unavailable
                | ErrorKind::Unsupported
                | ErrorKind::Invalid
        ),
        _ => false,
    }
}

/// Two stores push, one of them twice, and pull from each other; `plan` fails what it wants.
fn work(seed: u64, plan: Plan) -> (World, Vec<Error>, u64) {
    let world = World::new(seed);
    let (a, b) = (world.store("/a"), world.store("/b"));
    world.add(&a, 0..200);
    a.seal().unwrap();
    world.add(&b, 150..160);
    world.bucket.plan(Some(plan));
    let mut errors = Vec::new();
    errors.extend(world.push(&a).err());
    errors.extend(world.push(&b).err());
    world.add(&a, 300..310);
    errors.extend(world.push(&a).err());
    errors.extend(world.pull(&b).err());
    errors.extend(world.pull(&a).err());
    let requests = world.bucket.asked().len() as u64;
    world.bucket.plan(None);
    // A clone that went wrong at its last step must not keep others from ending.
    for _ in 0..2 {
        for store in [&a, &b] {
            world.push(store).unwrap();
            world.pull(store).unwrap();
        }
    }
    let all = world.records(&a);
    assert_eq!(all.len(), 210);
    assert!(all == world.records(&b));
    let new = world.store("/new");
    let report = world.pull(&new).unwrap();
    assert_eq!((report.refused, report.forks), (Vec::new(), Vec::new()));
    assert!(all == world.records(&new));
    for store in [&a, &b, &new] {
        assert_eq!(verify(store, &Silent).unwrap().problems.len(), 0);
    }
    (world, errors, requests)
}

fn once(at: u64, fault: Fault) -> Plan {
    Box::new(move |ask: &Ask<'_>| (ask.number == at).then_some(fault))
}

fn stride() -> u64 {
    std::env::var("AGENT_TRACE_SIM_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(8)
}

#[test]
fn each_request_fails_once_in_each_way() {
    let (_, errors, requests) = work(7, Box::new(|_| None));
    assert!(errors.is_empty(), "{errors:?}");
    assert!(requests > 25, "{requests}");
    for (number, fault) in (0..).zip(ONCE) {
        // Each request with some of the faults, and with all of them where one asks for it.
        for at in (0..requests).filter(|at| (at + number) % stride() == 0) {
            let (_, errors, _) = work(7, once(at, fault));
            let unfair: Vec<&Error> = errors.iter().filter(|error| !is_fair(fault, error)).collect();
            assert!(unfair.is_empty(), "{fault:?} at request {at}: {unfair:?}");
        }
    }
}

#[test]
fn each_answer_has_a_flipped_bit() {
    let (_, _, requests) = work(7, Box::new(|_| None));
    for at in (0..requests).step_by(3) {
        // The `format` file is text for people and proves nothing by itself.
        let plan = move |ask: &Ask<'_>| {
            (ask.number == at && !ask.key.ends_with("/format")).then_some(Fault::FlippedBit)
        };
        let (_, errors, _) = work(7, Box::new(plan));
        let unfair: Vec<&Error> = errors.iter().filter(|error| !is_fair(Fault::FlippedBit, error)).collect();
        assert!(unfair.is_empty(), "at request {at}: {unfair:?}");
    }
}

#[test]
fn all_goes_down_from_a_request_on() {
    let (_, _, requests) = work(7, Box::new(|_| None));
    for at in (0..requests).step_by(5) {
        for fault in [Fault::LostAnswer, Fault::NotKept, Fault::Refused(503, "SlowDown")] {
            let (_, errors, _) = work(7, Box::new(move |ask| (ask.number >= at).then_some(fault)));
            for error in &errors {
                let fits = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotFound);
                assert!(fits, "{fault:?} from request {at} on: {error:?}");
            }
        }
    }
}

#[test]
fn many_requests_fail_by_chance() {
    let seeds =
        std::env::var("AGENT_TRACE_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(25u64);
    for seed in 0..seeds.min(300) {
        let mut random = Random::new(seed);
        let odds = 5 + random.below(30);
        work(
            seed,
            Box::new(move |_| {
                let fault = ONCE[random.index(ONCE.len())];
                random.percent(odds).then_some(fault)
            }),
        );
    }
}
