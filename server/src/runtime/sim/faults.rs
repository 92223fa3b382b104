//! What goes wrong on the simulated disk: by chance, or because a test asked for it.

use super::image::EIO;
use super::random::Random;
use std::time::Duration;

/// A kind of disk operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Opening a file that exists.
    Open,
    /// Creating a file.
    Create,
    /// Reading a file.
    Read,
    /// A write that promises nothing yet.
    Write,
    /// A write that is durable when it completes.
    SyncedWrite,
    /// fdatasync.
    Sync,
    /// Allocating zeros.
    WriteZeros,
    /// Cutting or extending.
    SetLen,
    /// Asking for the length.
    Size,
    /// Creating directories.
    CreateDir,
    /// Listing a directory.
    ReadDir,
    /// Renaming.
    Rename,
    /// Removing a file or directory.
    Remove,
    /// Syncing a directory.
    SyncDir,
    /// Asking for stamp or free space.
    Stamp,
}

impl Operation {
    /// What makes bytes of a file durable.
    pub const MAKING_DURABLE: &'static [Operation] = &[Operation::Sync, Operation::SyncedWrite];
    /// What puts bytes into a file.
    pub const WRITING: &'static [Operation] = &[Operation::Write, Operation::SyncedWrite];

    /// Whether completion is a promise that survives power loss.
    pub fn is_sync_point(self) -> bool {
        matches!(self, Self::Sync | Self::SyncedWrite | Self::SyncDir)
    }

    /// Whether a read-only disk refuses it.
    pub(super) fn changes_disk(self) -> bool {
        use Operation::*;
        matches!(self, Create | Write | SyncedWrite | WriteZeros | SetLen | CreateDir | Rename | Remove)
    }
}

/// What an injected fault does to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails with this error number. A failed write may have gone out in part; a failed sync saved nothing for sure,
    /// nor will the next one.
    Error(i32),
    /// A read or write moves fewer bytes than asked (never none, and whole blocks on a direct file).
    Short,
    /// It takes this long.
    Delay(Duration),
    /// It never completes.
    Hang,
}

/// A fault on demand: the operations that match, after the first `skip`, for `times`.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Any of these kinds.
    pub operations: &'static [Operation],
    /// Only paths that contain this; empty for all.
    pub path_contains: String,
    /// Matching operations that still go well first.
    pub skip: u64,
    /// Matching operations that it then strikes.
    pub times: u64,
    /// What happens to them.
    pub effect: Effect,
}

impl Fault {
    /// Strikes the next matching operation, on any path.
    pub fn next(operations: &'static [Operation], effect: Effect) -> Self {
        Self { operations, path_contains: String::new(), skip: 0, times: 1, effect }
    }

    /// Strikes the next matching operation with EIO.
    pub fn eio(operations: &'static [Operation]) -> Self {
        Self::next(operations, Effect::Error(EIO))
    }

    /// Only paths that contain this.
    pub fn on_path(mut self, part: &str) -> Self {
        part.clone_into(&mut self.path_contains);
        self
    }

    /// Strikes that many operations.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Lets that many matching operations go well first.
    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }
}

/// Chances of faults nobody asked for, in parts per million of operations, and the range of delays.
#[derive(Clone, Copy, Debug)]
pub struct FaultRates {
    /// Reads that fail with EIO.
    pub read_error_ppm: u32,
    /// Writes that fail with EIO.
    pub write_error_ppm: u32,
    /// Syncs of files and directories that fail with EIO.
    pub sync_error_ppm: u32,
    /// Reads that are short.
    pub short_read_ppm: u32,
    /// Writes that are short.
    pub short_write_ppm: u32,
    /// Reads before which a bit of what they read rots on the device.
    pub rot_ppm: u32,
    /// Other operations (opening, naming, sizing, listing) that fail with EIO.
    pub other_error_ppm: u32,
    /// Operations that take as long as `slow_ns`, instead of within the range below.
    pub slow_ppm: u32,
    /// How long a slow one takes, in nanoseconds.
    pub slow_ns: u64,
    /// Shortest time an operation takes, in nanoseconds.
    pub delay_ns_min: u64,
    /// Longest time an operation takes, in nanoseconds.
    pub delay_ns_max: u64,
}

impl Default for FaultRates {
    fn default() -> Self {
        Self {
            read_error_ppm: 0,
            write_error_ppm: 0,
            sync_error_ppm: 0,
            short_read_ppm: 0,
            short_write_ppm: 0,
            rot_ppm: 0,
            other_error_ppm: 0,
            slow_ppm: 0,
            slow_ns: 50_000_000,
            delay_ns_min: 5_000,
            delay_ns_max: 200_000,
        }
    }
}

/// What is to happen to one operation.
pub(super) struct Verdict {
    pub(super) delay_ns: u64,
    pub(super) error: Option<i32>,
    pub(super) hang: bool,
    /// Bytes it moves: all that were asked for, or fewer. Of a failed write, those that went out all the same.
    pub(super) len: usize,
    /// A random number for whoever carries it out; `Some` when a bit is to rot.
    pub(super) rot: Option<u64>,
}

/// Faults of one simulated machine.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) rates: FaultRates,
    pub(super) injected: Vec<Fault>,
}

impl Faults {
    pub(super) fn judge(
        &mut self,
        operation: Operation,
        path: &str,
        len: usize,
        unit: usize,
        random: &mut Random,
    ) -> Verdict {
        let rates = self.rates;
        let mut verdict = Verdict {
            delay_ns: random.between(rates.delay_ns_min, rates.delay_ns_max),
            error: None,
            hang: false,
            len,
            rot: None,
        };
        let (error_ppm, short_ppm) = match operation {
            Operation::Read => (rates.read_error_ppm, rates.short_read_ppm),
            Operation::Write | Operation::SyncedWrite => (rates.write_error_ppm, rates.short_write_ppm),
            Operation::Sync | Operation::SyncDir => (rates.sync_error_ppm, 0),
            _ => (rates.other_error_ppm, 0),
        };
        if random.chance_ppm(rates.slow_ppm) {
            verdict.delay_ns = rates.slow_ns;
        }
        if random.chance_ppm(error_ppm) {
            verdict.error = Some(EIO);
        }
        let mut short = random.chance_ppm(short_ppm);
        if operation == Operation::Read && random.chance_ppm(rates.rot_ppm) {
            verdict.rot = Some(random.next_u64());
        }
        match self.strike(operation, path) {
            Some(Effect::Error(number)) => verdict.error = Some(number),
            Some(Effect::Short) => short = true,
            Some(Effect::Delay(delay)) => verdict.delay_ns = delay.as_nanos() as u64,
            Some(Effect::Hang) => verdict.hang = true,
            None => {}
        }
        let units = (len / unit) as u64;
        if verdict.error.is_some() && operation != Operation::Read {
            verdict.len = random.below(len as u64 / 512 + 1) as usize * 512;
        } else if short && units > 1 {
            verdict.len = random.between(1, units - 1) as usize * unit;
        }
        verdict
    }

    fn strike(&mut self, operation: Operation, path: &str) -> Option<Effect> {
        let matches = |fault: &&mut Fault| {
            fault.times > 0 && fault.operations.contains(&operation) && path.contains(&fault.path_contains)
        };
        for fault in self.injected.iter_mut().filter(matches) {
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times -= 1;
            return Some(fault.effect);
        }
        None
    }
}
