//! One simulated file through time: what a reader sees, what stable storage holds, and the changes between the two.
//!
//! A change is stable only once a sync that was issued after it completes, or when it was written as synced. Changes
//! covered by a failed sync stay *doomed*: a later successful sync of the same process does not save them (the kernel
//! marks such pages clean), though a power loss may still find them on the device.

use super::pages::Pages;
use super::random::Random;
use std::rc::Rc;

/// What the device writes as a whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

/// What becomes of unsynced changes when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Each its own way: gone, whole, a torn prefix, or some of its sectors.
    Random,
    /// None survives.
    Nothing,
    /// All survive, whole.
    Everything,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Rc<[u8]> },
    Zeros { offset: u64, len: u64 },
    SetLen(u64),
}

#[derive(Clone)]
struct Pending {
    number: u64,
    change: Change,
    doomed: bool,
}

/// A file's bytes with their history since the last sync.
#[derive(Clone, Default)]
pub(super) struct Content {
    live: Pages,
    stable: Pages,
    pending: Vec<Pending>,
    next_number: u64,
}

impl Content {
    /// A file that already lies on stable storage.
    pub(super) fn stored(bytes: &[u8]) -> Self {
        let mut pages = Pages::default();
        pages.write(0, bytes);
        Self { live: pages.clone(), stable: pages, ..Self::default() }
    }

    /// What readers see.
    pub(super) fn live(&self) -> &Pages {
        &self.live
    }

    /// What a power cut would leave if nothing unsynced survived it.
    pub(super) fn stable(&self) -> &Pages {
        &self.stable
    }

    /// Changes both what readers see and what is stored: damage, or an operator's edit.
    pub(super) fn edit(&mut self, edit: impl Fn(&mut Pages)) {
        edit(&mut self.live);
        edit(&mut self.stable);
    }

    /// Flips a bit, counted from the start of the file, wherever it is stored.
    pub(super) fn rot_bit(&mut self, bit: u64) {
        self.edit(|pages| {
            let mut byte = [0];
            // Bytes that are not stored yet cannot rot.
            if pages.read(bit / 8, &mut byte) == 1 {
                byte[0] ^= 1 << (bit % 8);
                pages.write(bit / 8, &byte);
            }
        });
    }

    /// A write that is not synced.
    pub(super) fn write(&mut self, offset: u64, bytes: Rc<[u8]>) {
        self.live.write(offset, &bytes);
        self.push(Change::Write { offset, bytes }, false);
    }

    /// A write that failed after some of it went out: no later sync vouches for it.
    pub(super) fn write_doomed(&mut self, offset: u64, bytes: Rc<[u8]>) {
        self.live.write(offset, &bytes);
        self.push(Change::Write { offset, bytes }, true);
    }

    /// A write that is on stable storage when this returns, with the metadata needed to find it.
    pub(super) fn write_synced(&mut self, offset: u64, bytes: Rc<[u8]>) {
        self.live.write(offset, &bytes);
        while let Some(position) = self.pending.iter().position(|pending| matches!(pending.change, Change::SetLen(_))) {
            let pending = self.pending.remove(position);
            self.commit(pending.number, &pending.change);
        }
        self.commit(u64::MAX, &Change::Write { offset, bytes });
    }

    /// Zeros, not synced.
    pub(super) fn zero(&mut self, offset: u64, len: u64) {
        self.live.zero(offset, len);
        self.push(Change::Zeros { offset, len }, false);
    }

    /// A new length, not synced.
    pub(super) fn set_len(&mut self, len: u64) {
        self.live.set_len(len);
        self.push(Change::SetLen(len), false);
    }

    /// What a sync issued now will cover.
    pub(super) fn sync_mark(&self) -> u64 {
        self.next_number
    }

    /// A sync issued at `mark` has completed.
    pub(super) fn sync(&mut self, mark: u64) {
        while let Some(position) = self.pending.iter().position(|pending| pending.number < mark && !pending.doomed) {
            let pending = self.pending.remove(position);
            self.commit(pending.number, &pending.change);
        }
    }

    /// A sync issued at `mark` has failed.
    pub(super) fn sync_failed(&mut self, mark: u64) {
        for pending in &mut self.pending {
            pending.doomed |= pending.number < mark;
        }
    }

    /// A new process syncs in earnest what the one before failed to sync.
    pub(super) fn forgive(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.doomed = false);
    }

    /// What is found after a power loss, and how many writes survived in part.
    pub(super) fn after_power_loss(&self, survival: Survival, random: &mut Random) -> (Self, u64) {
        let (mut stable, mut torn) = (self.stable.clone(), 0);
        for pending in &self.pending {
            match survival {
                Survival::Nothing => {}
                Survival::Everything => apply(&mut stable, &pending.change),
                Survival::Random => torn += u64::from(apply_torn(&mut stable, &pending.change, random)),
            }
        }
        (Self { live: stable.clone(), stable, ..Self::default() }, torn)
    }

    fn push(&mut self, change: Change, doomed: bool) {
        let number = self.next_number;
        self.next_number += 1;
        self.pending.push(Pending { number, change, doomed });
    }

    /// Makes a change stable. Older changes still pending must not, after a power loss, undo it.
    fn commit(&mut self, number: u64, change: &Change) {
        apply(&mut self.stable, change);
        let older = std::mem::take(&mut self.pending);
        for pending in older {
            if pending.number >= number {
                self.pending.push(pending);
                continue;
            }
            let kept = match change {
                Change::Write { offset, bytes } => without(&pending.change, *offset, *offset + bytes.len() as u64),
                Change::Zeros { offset, len } => without(&pending.change, *offset, *offset + *len),
                Change::SetLen(len) => without(&pending.change, *len, u64::MAX),
            };
            self.pending.extend(kept.into_iter().map(|change| Pending { change, ..pending.clone() }));
        }
    }
}

fn apply(pages: &mut Pages, change: &Change) {
    match change {
        Change::Write { offset, bytes } => pages.write(*offset, bytes),
        Change::Zeros { offset, len } => pages.zero(*offset, *len),
        Change::SetLen(len) => pages.set_len(*len),
    }
}

/// Lets a change survive in whatever part chance decides; returns whether that was neither all of it nor nothing.
fn apply_torn(pages: &mut Pages, change: &Change, random: &mut Random) -> bool {
    let (offset, len) = match change {
        Change::SetLen(len) => {
            if random.below(2) == 0 {
                pages.set_len(*len);
            }
            return false;
        }
        Change::Write { offset, bytes } => (*offset, bytes.len() as u64),
        Change::Zeros { offset, len } => (*offset, *len),
    };
    let end = offset + len;
    let survives: Box<dyn Fn(u64) -> bool> = match random.below(8) {
        0..=2 => return false,
        3 | 4 => {
            apply(pages, change);
            return false;
        }
        5 | 6 => {
            let sectors = end.div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES;
            let first_lost = offset / SECTOR_BYTES + random.below(sectors + 1);
            Box::new(move |sector| sector < first_lost)
        }
        _ => {
            let salt = random.next_u64();
            // The length may reach the journal before the bytes reach their place.
            if end > pages.len() && random.below(2) == 0 {
                pages.set_len(end);
            }
            Box::new(move |sector| Random::new(salt ^ sector).below(2) == 0)
        }
    };
    let (mut position, mut survived, mut lost) = (offset, false, false);
    while position < end {
        let sector = position / SECTOR_BYTES;
        let piece_end = ((sector + 1) * SECTOR_BYTES).min(end);
        if survives(sector) {
            survived = true;
            match change {
                Change::Write { bytes, .. } => {
                    pages.write(position, &bytes[(position - offset) as usize..(piece_end - offset) as usize]);
                }
                Change::Zeros { .. } | Change::SetLen(_) => pages.zero(position, piece_end - position),
            }
        } else {
            lost = true;
        }
        position = piece_end;
    }
    survived && lost && matches!(change, Change::Write { .. })
}

/// What is left of a change outside `start..end`.
fn without(change: &Change, start: u64, end: u64) -> Vec<Change> {
    let (offset, len) = match change {
        Change::Write { offset, bytes } => (*offset, bytes.len() as u64),
        Change::Zeros { offset, len } => (*offset, *len),
        // The newer change is stable, so the length it was made under is history.
        Change::SetLen(_) => return Vec::new(),
    };
    let change_end = offset + len;
    if end <= offset || change_end <= start {
        return vec![change.clone()];
    }
    let mut left = Vec::new();
    for (from, to) in [(offset, start.min(change_end)), (end.max(offset), change_end)] {
        if from < to {
            left.push(match change {
                Change::Write { bytes, .. } => Change::Write {
                    offset: from,
                    bytes: Rc::from(&bytes[(from - offset) as usize..(to - offset) as usize]),
                },
                _ => Change::Zeros { offset: from, len: to - from },
            });
        }
    }
    left
}
