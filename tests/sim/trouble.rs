//! What goes wrong with a disk while somebody works: drawn, and set on the disk.

use agent_trace_store::env::sim::{FaultKind, Faults, Repeat, SimDisk};
use agent_trace_tests::Random;

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    PowerCut,
    Kill,
    Fail(FaultKind, Repeat),
    Observe(FaultKind),
    Rates,
}

/// What may go wrong in a world.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mix {
    pub(crate) power_cuts: bool,
    pub(crate) kills: bool,
    pub(crate) eio: bool,
    pub(crate) enospc: bool,
    pub(crate) short: bool,
    pub(crate) sync_fail: bool,
    pub(crate) observed: bool,
    pub(crate) rates: bool,
}

impl Mix {
    /// Draws what goes wrong, if anything may.
    pub(crate) fn draw(&self, random: &mut Random) -> Option<Trouble> {
        use FaultKind::{Eio, Emfile, Enospc, Interrupted, ShortRead, ShortWrite, SyncFail};
        let repeat = if random.percent(60) { Repeat::Once } else { Repeat::FromThenOn };
        let observed = [Eio, Emfile, Interrupted, ShortRead][random.index(4)];
        let kinds = [
            (self.power_cuts, Trouble::PowerCut),
            (self.power_cuts, Trouble::PowerCut),
            (self.kills, Trouble::Kill),
            (self.eio, Trouble::Fail(Eio, repeat)),
            (self.enospc, Trouble::Fail(Enospc, repeat)),
            (self.short, Trouble::Fail(ShortWrite, repeat)),
            (self.sync_fail, Trouble::Fail(SyncFail, repeat)),
            (self.observed, Trouble::Observe(observed)),
            (self.rates, Trouble::Rates),
        ];
        let on: Vec<Trouble> = kinds.iter().filter(|(on, _)| *on).map(|(_, trouble)| *trouble).collect();
        if on.is_empty() { None } else { Some(on[random.index(on.len())]) }
    }
}

/// Lets it happen at one of the next operations; says what and when.
pub(crate) fn arm(disk: &SimDisk, random: &mut Random, trouble: Trouble) -> String {
    let ahead = match random.below(10) {
        0..5 => random.below(8),
        5..8 => random.below(40),
        _ => random.below(200),
    };
    arm_in(disk, trouble, ahead)
}

/// The same after so many operations.
pub(crate) fn arm_in(disk: &SimDisk, trouble: Trouble, ahead: u64) -> String {
    let at = disk.operations() + ahead;
    match trouble {
        Trouble::PowerCut => disk.crash_at(at),
        Trouble::Kill => disk.fail_at(at, FaultKind::Eio, Repeat::FromThenOn),
        Trouble::Fail(kind, repeat) => disk.fail_at(at, kind, repeat),
        Trouble::Observe(kind) => {
            disk.fail_observation_at(disk.observations() + ahead, kind, Repeat::Once);
        }
        Trouble::Rates => {
            let rate = 20 + u32::try_from(ahead).expect("small");
            disk.set_faults(Faults {
                read_eio: rate / 4,
                short_read: rate,
                write_eio: rate,
                short_write: rate,
                enospc: rate / 2,
                interrupted: rate,
                emfile: rate / 4,
                sync_fail: rate,
                sync_dir_fail: rate,
                create_fail: rate,
                rename_fail: rate,
                remove_fail: rate,
            });
        }
    }
    format!("[{trouble:?} in {ahead}] ")
}
