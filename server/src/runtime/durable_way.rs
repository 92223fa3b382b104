//! How a durable direct write is asked for: the quicker of two ways, as measured.
//!
//! *Flagged*: one RWF_DSYNC write. Where the device has a volatile cache, the kernel finishes it in a worker thread
//! bound to the CPU that takes the disk's interrupts. That is the quickest way while that CPU has time; while it is
//! busy, every commit waits there for a scheduler tick (measured: 4 ms instead of 0.08). *Linked*: a write and,
//! linked to it, an fdatasync in an io_uring worker, which runs wherever there is room; it costs this thread one more
//! hand-over to the device. Which is better changes with the load, so the other way is tried now and then.
//!
//! Both promise the same: see [`super::platform::Durability::Synced`].

use std::cell::Cell;

/// One way to a durable write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DurableWay {
    /// One RWF_DSYNC write.
    Flagged,
    /// A write with an fdatasync linked to it.
    Linked,
}

/// Durable writes between two trials of the way that is not in use.
const TRIAL_EVERY: u32 = 256;
/// Linked writes are taken up when they take less than this many eighths of the time of flagged ones, and given up when
/// flagged ones take less than that many eighths of theirs. Between the two, flagged ones cost less CPU here.
const TAKE_UP_EIGHTHS: u64 = 4;
const GIVE_UP_EIGHTHS: u64 = 9;
const _: () = assert!(TAKE_UP_EIGHTHS * GIVE_UP_EIGHTHS < 64, "what is given up must not be taken up at once");

/// A write counts as at most so many times its mean: one that was held up by chance decides nothing, several do.
const OUTLIER_TIMES: u64 = 3;

/// Running means of both ways, and which is in use.
pub(super) struct DurableWays {
    in_use: Cell<DurableWay>,
    flagged_ns: Cell<u64>,
    linked_ns: Cell<u64>,
    until_trial: Cell<u32>,
}

impl DurableWays {
    /// Nothing is known yet: the second write tries the other way.
    pub fn new() -> Self {
        Self {
            in_use: Cell::new(DurableWay::Flagged),
            flagged_ns: Cell::new(0),
            linked_ns: Cell::new(0),
            until_trial: Cell::new(1),
        }
    }

    /// The way for the next durable write.
    pub fn choose(&self) -> DurableWay {
        match self.until_trial.get() {
            0 => {
                self.until_trial.set(TRIAL_EVERY);
                other(self.in_use.get())
            }
            left => {
                self.until_trial.set(left - 1);
                self.in_use.get()
            }
        }
    }

    /// How long a durable write took. A trial weighs half, so that a few of them tell when times have changed.
    pub fn took(&self, way: DurableWay, ns: u64) {
        let mean = self.mean(way);
        let known = mean.get();
        let ns = if known == 0 { ns } else { ns.min(known * OUTLIER_TIMES) };
        mean.set(match known {
            0 => ns,
            known if way == self.in_use.get() => known - known / 8 + ns / 8,
            known => known / 2 + ns / 2,
        });
        let (flagged, linked) = (self.flagged_ns.get(), self.linked_ns.get());
        if flagged == 0 || linked == 0 {
            return;
        }
        self.in_use.set(match self.in_use.get() {
            DurableWay::Flagged if linked < flagged / 8 * TAKE_UP_EIGHTHS => DurableWay::Linked,
            DurableWay::Linked if flagged < linked / 8 * GIVE_UP_EIGHTHS => DurableWay::Flagged,
            unchanged => unchanged,
        });
    }

    fn mean(&self, way: DurableWay) -> &Cell<u64> {
        match way {
            DurableWay::Flagged => &self.flagged_ns,
            DurableWay::Linked => &self.linked_ns,
        }
    }
}

fn other(way: DurableWay) -> DurableWay {
    match way {
        DurableWay::Flagged => DurableWay::Linked,
        DurableWay::Linked => DurableWay::Flagged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs so many writes of which each way takes so long; answers how many went each way.
    fn run(ways: &DurableWays, writes: u32, flagged_ns: u64, linked_ns: u64) -> (u32, u32) {
        let (mut flagged, mut linked) = (0, 0);
        for _ in 0..writes {
            let way = ways.choose();
            match way {
                DurableWay::Flagged => flagged += 1,
                DurableWay::Linked => linked += 1,
            }
            ways.took(way, if way == DurableWay::Flagged { flagged_ns } else { linked_ns });
        }
        (flagged, linked)
    }

    #[test]
    fn the_quicker_way_is_used_and_the_other_tried_now_and_then() {
        let ways = DurableWays::new();
        let (flagged, linked) = run(&ways, 10_000, 80_000, 110_000);
        assert!(flagged > 9_900 && linked >= 10, "{flagged} {linked}");
    }

    #[test]
    fn a_way_that_has_become_slow_is_left_at_once_and_taken_again_when_it_has_recovered() {
        let ways = DurableWays::new();
        run(&ways, 1_000, 80_000, 110_000);
        let (flagged, _) = run(&ways, 1_000, 4_000_000, 110_000);
        assert!(flagged <= 10, "{flagged}");
        let (_, linked) = run(&ways, 20_000, 80_000, 110_000);
        assert!(linked < 6_000, "{linked}");
    }

    #[test]
    fn one_write_held_up_by_chance_decides_nothing() {
        let ways = DurableWays::new();
        run(&ways, 1_000, 80_000, 90_000);
        ways.took(DurableWay::Flagged, 20_000_000);
        assert_eq!(ways.in_use.get(), DurableWay::Flagged);
    }

    #[test]
    fn among_equals_the_cheaper_one_stays() {
        let ways = DurableWays::new();
        for (flagged_ns, linked_ns) in [(100_000, 98_000), (100_000, 120_000), (115_000, 100_000)] {
            run(&ways, 5_000, flagged_ns, linked_ns);
            assert_eq!(ways.in_use.get(), DurableWay::Flagged);
        }
    }
}
