//! What may happen on the way in a world, and what has.

use agent_trace_tests::Random;

use crate::trouble::Mix;
use crate::world::Swarm;

/// What may happen to messages and to the service, drawn by the seed. Numbers are messages in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Odds {
    pub(crate) lost: u64,
    pub(crate) unanswered: u64,
    pub(crate) doubled: u64,
    pub(crate) cut: u64,
    pub(crate) answer_cut: u64,
    pub(crate) corrupted: u64,
    pub(crate) answer_corrupted: u64,
    pub(crate) late: u64,
    /// Messages during which something fails at the service.
    pub(crate) trouble: u64,
    pub(crate) mix: Mix,
    pub(crate) copies: bool,
    pub(crate) v1: bool,
    /// Whether the service may be down for days.
    pub(crate) days: bool,
}

impl Odds {
    pub(crate) fn draw(random: &mut Random, swarm: &Swarm) -> Odds {
        let calm = swarm.trouble == 0;
        let mut some = |odds: u64, most: u64| {
            let (on, much) = (random.percent(odds), 1 + random.below(most));
            if on && !calm { much } else { 0 }
        };
        let (lost, unanswered, doubled, cut) = (some(60, 250), some(60, 250), some(50, 300), some(40, 200));
        let (answer_cut, corrupted, answer_corrupted) = (some(40, 200), some(40, 150), some(40, 150));
        let (late, trouble) = (some(50, 400), some(75, 400));
        let mut on = |odds: u64| some(odds, 1) > 0;
        let mix = Mix {
            power_cuts: on(70),
            kills: on(60),
            eio: on(40),
            enospc: on(40),
            short: on(25),
            sync_fail: on(40),
            observed: on(25),
            rates: on(10),
        };
        let copies = on(60);
        let v1 = random.percent(40);
        let days = swarm.clock && random.percent(50);
        Odds {
            lost,
            unanswered,
            doubled,
            cut,
            answer_cut,
            corrupted,
            answer_corrupted,
            late,
            trouble,
            mix,
            copies,
            v1,
            days,
        }
    }
}

/// What has happened on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NetCounts {
    pub(crate) messages: u64,
    pub(crate) lost: u64,
    pub(crate) unanswered: u64,
    pub(crate) doubled: u64,
    pub(crate) cut: u64,
    pub(crate) corrupted: u64,
    pub(crate) late: u64,
    pub(crate) refused: u64,
    pub(crate) kills: u64,
    pub(crate) power_cuts: u64,
    pub(crate) failures: u64,
    pub(crate) commits: u64,
    pub(crate) compared: u64,
    pub(crate) restored: u64,
    pub(crate) attacks: u64,
    pub(crate) by_v1: u64,
    pub(crate) looked: u64,
}

impl NetCounts {
    fn all(&mut self) -> [&mut u64; 17] {
        [
            &mut self.messages,
            &mut self.lost,
            &mut self.unanswered,
            &mut self.doubled,
            &mut self.cut,
            &mut self.corrupted,
            &mut self.late,
            &mut self.refused,
            &mut self.kills,
            &mut self.power_cuts,
            &mut self.failures,
            &mut self.commits,
            &mut self.compared,
            &mut self.restored,
            &mut self.attacks,
            &mut self.by_v1,
            &mut self.looked,
        ]
    }

    /// Adds those of another world.
    pub(crate) fn add(&mut self, other: &NetCounts) {
        let mut other = *other;
        self.all().into_iter().zip(other.all()).for_each(|(sum, count)| *sum += *count);
    }

    /// Whether everything has happened that is to be survived, at least so often.
    pub(crate) fn is_lively(mut self, least: u64) -> bool {
        self.all().into_iter().all(|count| *count >= least)
    }
}
