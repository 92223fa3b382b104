//! A disk with a volatile cache: what was written is read back at once, but survives a power cut only if a flush came
//! after it. Of the rest any part survives, in sectors of 512 bytes.
//!
//! It can also fail: refuse reads, writes or flushes with an I/O error, answer nothing more, lose its power at the n-th write or flush from
//! now, or, to prove that a test would see it, acknowledge flushes that it does not carry out.

use crate::recorded_crowd::Dice;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard};

/// What a power cut leaves whole.
pub const SECTOR_BYTES: usize = 512;

/// What the disk does wrong, each until it is told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Reads fail.
    pub reads_fail: bool,
    /// Writes fail, and nothing of them is kept.
    pub writes_fail: bool,
    /// Flushes fail, and nothing becomes durable by them.
    pub flushes_fail: bool,
    /// Flushes are acknowledged without anything becoming durable.
    pub flushes_lie: bool,
    /// Writes and flushes are not answered until this is over; with them everything that comes after.
    pub writes_hang: bool,
}

/// How much of what was not flushed survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Every sector for itself, as dice of this seed decide.
    Some(u64),
    /// Everything.
    All,
}

/// How often the disk was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that were carried out.
    pub writes: u64,
    /// Flushes that were carried out.
    pub flushes: u64,
    /// Requests that failed.
    pub failed: u64,
}

/// The disk.
pub struct Device {
    size_bytes: u64,
    state: Mutex<State>,
    /// Faults or power have changed.
    changed: Condvar,
}

struct State {
    /// What reads see.
    current: File,
    /// What has been flushed.
    stable: File,
    /// What was written since the last flush, in order.
    unflushed: Vec<(u64, Vec<u8>)>,
    faults: Faults,
    /// Bytes that cannot be read.
    unreadable: Vec<Range<u64>>,
    /// Requests until the power goes, if it is to.
    requests_left: Option<u64>,
    has_power: bool,
    /// Who is connected: whoever was connected before a power cut is not any more.
    connection: u64,
    counts: Counts,
}

impl Device {
    /// An empty disk. It lies in memory, and takes what was written only.
    pub fn new(size_bytes: u64) -> io::Result<Self> {
        let file = || -> io::Result<File> {
            let file = File::from(memfd_create("delta-tests-disk", MemfdFlags::CLOEXEC)?);
            file.set_len(size_bytes)?;
            Ok(file)
        };
        let state = State {
            current: file()?,
            stable: file()?,
            unflushed: Vec::new(),
            faults: Faults::default(),
            unreadable: Vec::new(),
            requests_left: None,
            has_power: true,
            connection: 0,
            counts: Counts::default(),
        };
        Ok(Self { size_bytes, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Its size.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// From now on it does these things wrong, and no others.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
        self.changed.notify_all();
    }

    /// From now on these bytes cannot be read, and all others can: whoever asks for one of them gets none.
    pub fn set_unreadable(&self, bytes: Vec<Range<u64>>) {
        self.state().unreadable = bytes;
    }

    /// Loses its power now.
    pub fn cut(&self) {
        self.state().has_power = false;
        self.changed.notify_all();
    }

    /// Loses its power when it has carried out so many more writes and flushes.
    pub fn cut_after(&self, requests: u64) {
        self.state().requests_left = Some(requests);
    }

    /// Whether it has power.
    pub fn has_power(&self) -> bool {
        self.state().has_power
    }

    /// What it was asked so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Bytes written since the last flush.
    pub fn unflushed_bytes(&self) -> usize {
        self.state().unflushed.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Has power again, with what survived, and without faults.
    pub fn power_on(&self, survivors: Survivors) -> io::Result<()> {
        let mut state = self.state();
        let unflushed = std::mem::take(&mut state.unflushed);
        let mut dice = match survivors {
            Survivors::Some(seed) => Dice::new(seed, 1),
            Survivors::None | Survivors::All => Dice::new(0, 0),
        };
        for (offset, bytes) in &unflushed {
            for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                let survives = match survivors {
                    Survivors::None => false,
                    Survivors::Some(_) => dice.below(2) == 0,
                    Survivors::All => true,
                };
                if survives {
                    state.stable.write_all_at(sector, offset + (number * SECTOR_BYTES) as u64)?;
                }
            }
        }
        for (offset, bytes) in &unflushed {
            let mut survived = vec![0; bytes.len()];
            state.stable.read_exact_at(&mut survived, *offset)?;
            state.current.write_all_at(&survived, *offset)?;
        }
        state.faults = Faults::default();
        state.unreadable.clear();
        state.requests_left = None;
        state.has_power = true;
        state.connection += 1;
        Ok(())
    }

    /// The number of the connection that is served now.
    pub(super) fn connection(&self) -> u64 {
        self.state().connection
    }

    pub(super) fn read(&self, connection: u64, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        let end = offset + buffer.len() as u64;
        let meets = |bytes: &Range<u64>| bytes.start < end && offset < bytes.end;
        let fails = state.faults.reads_fail || state.unreadable.iter().any(meets);
        state.admit(connection, fails)?;
        state.current.read_exact_at(buffer, offset)
    }

    pub(super) fn write(&self, connection: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state_when_it_answers();
        state.count_down();
        let fails = state.faults.writes_fail;
        state.admit(connection, fails)?;
        state.current.write_all_at(bytes, offset)?;
        state.unflushed.push((offset, bytes.to_vec()));
        state.counts.writes += 1;
        Ok(())
    }

    pub(super) fn flush(&self, connection: u64) -> io::Result<()> {
        let mut state = self.state_when_it_answers();
        state.count_down();
        let fails = state.faults.flushes_fail;
        state.admit(connection, fails)?;
        state.counts.flushes += 1;
        if !state.faults.flushes_lie {
            for (offset, bytes) in std::mem::take(&mut state.unflushed) {
                state.stable.write_all_at(&bytes, offset)?;
            }
        }
        Ok(())
    }

    fn state_when_it_answers(&self) -> MutexGuard<'_, State> {
        let hangs = |state: &mut State| state.faults.writes_hang && state.has_power;
        self.changed.wait_while(self.state(), hangs).expect("nothing panics while it holds the disk")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the disk")
    }
}

impl State {
    fn admit(&mut self, connection: u64, fails: bool) -> io::Result<()> {
        if fails || !self.has_power || connection != self.connection {
            self.counts.failed += 1;
            return Err(rustix::io::Errno::IO.into());
        }
        Ok(())
    }

    fn count_down(&mut self) {
        match &mut self.requests_left {
            Some(0) => self.has_power = false,
            Some(left) => *left -= 1,
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device::new(1 << 20).unwrap()
    }

    fn read(device: &Device, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        device.read(device.connection(), offset, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_flushed_survives_and_nothing_else_need() {
        let device = device();
        device.write(0, 0, &[1; 4096]).unwrap();
        device.flush(0).unwrap();
        device.write(0, 0, &[2; 4096]).unwrap();
        device.write(0, 8192, &[3; 512]).unwrap();
        assert_eq!((read(&device, 0, 1), read(&device, 8192, 1)), (vec![2], vec![3]), "reads see what was written");
        assert_eq!(device.unflushed_bytes(), 4096 + 512);
        device.power_on(Survivors::None).unwrap();
        assert_eq!((read(&device, 0, 4096), read(&device, 8192, 1)), (vec![1; 4096], vec![0]));
    }

    #[test]
    fn of_what_was_not_flushed_any_sector_may_survive() {
        let device = device();
        device.write(0, 0, &[1; 16 * SECTOR_BYTES]).unwrap();
        device.power_on(Survivors::Some(7)).unwrap();
        let bytes = read(&device, 0, 16 * SECTOR_BYTES);
        let sectors: Vec<u8> = bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(SECTOR_BYTES).zip(&sectors).all(|(sector, first)| sector == [*first; SECTOR_BYTES]));
        assert!(sectors.contains(&0) && sectors.contains(&1), "{sectors:?}");
        device.write(1, 0, &[2; 512]).unwrap();
        device.power_on(Survivors::All).unwrap();
        assert_eq!(read(&device, 0, 1), [2]);
    }

    #[test]
    fn without_power_nothing_is_served_and_old_connections_stay_dead() {
        let device = device();
        device.cut_after(1);
        device.write(0, 0, &[1; 512]).unwrap();
        device.flush(0).unwrap_err();
        assert!(!device.has_power());
        device.read(0, 0, &mut [0]).unwrap_err();
        device.power_on(Survivors::All).unwrap();
        device.write(0, 0, &[9; 512]).unwrap_err();
        assert_eq!(read(&device, 0, 1), [1]);
    }

    #[test]
    fn bytes_become_unreadable_and_readable_again() {
        let device = device();
        device.write(0, 0, &[1; 4096]).unwrap();
        device.set_unreadable(vec![512..1024, 2048..2560]);
        device.read(0, 500, &mut [0; 13]).unwrap_err();
        device.read(0, 0, &mut [0; 4096]).unwrap_err();
        assert_eq!((read(&device, 0, 512), read(&device, 1024, 1024)), (vec![1; 512], vec![1; 1024]));
        device.write(0, 600, &[2]).unwrap();
        device.set_unreadable(Vec::new());
        assert_eq!(read(&device, 600, 1), [2]);
    }

    #[test]
    fn it_fails_and_lies_as_told() {
        let device = device();
        let faults = Faults { writes_fail: true, flushes_fail: true, reads_fail: true, ..Faults::default() };
        device.set_faults(faults);
        device.write(0, 0, &[1; 512]).unwrap_err();
        device.flush(0).unwrap_err();
        device.read(0, 0, &mut [0]).unwrap_err();
        assert_eq!(device.counts(), Counts { failed: 3, ..Counts::default() });
        device.set_faults(Faults { flushes_lie: true, ..Faults::default() });
        device.write(0, 0, &[1; 512]).unwrap();
        device.flush(0).unwrap();
        device.power_on(Survivors::None).unwrap();
        assert_eq!(read(&device, 0, 1), [0]);
    }
}
