//! Loops over one file with direct I/O and nothing else: what the device gives before any server is in the way.
//!
//! The writing loop is the one of a log: one write in flight, durable when it completes, the next at the place that
//! follows. The reading loop is that of cache misses: so many reads in flight, each at a place of its own.

use super::Memory;
use crate::random::Random;
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use rustix::fs::{Mode, OFlags, open};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Reads in flight at most.
pub const DEPTH_MAX: usize = 1024;
/// The kernel's flag for a write that is durable when it completes.
const RWF_DSYNC: i32 = 2;
/// Zeros written at once when a file is prepared.
const ZEROS_BYTES: usize = 1 << 20;
/// A paced loop does not sleep for less.
const SLEEP_MIN: Duration = Duration::from_micros(60);

/// A file of written zeros, open for direct I/O.
pub struct DirectFile {
    fd: OwnedFd,
    size_bytes: u64,
}

/// What a loop did.
pub struct Done {
    pub operations: u64,
    pub elapsed: Duration,
    pub latencies_ns: Histogram<u64>,
}

impl Done {
    fn new() -> Result<Self> {
        let latencies_ns = Histogram::new_with_bounds(1, 100_000_000_000, 3)?;
        Ok(Self { operations: 0, elapsed: Duration::ZERO, latencies_ns })
    }

    /// Operations per second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl DirectFile {
    /// Makes a file of so many bytes, all written, so that writes into it change no metadata.
    pub fn create(path: &Path, size_bytes: u64) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::DIRECT | OFlags::CLOEXEC;
        let fd = open(path, flags, Mode::from_raw_mode(0o600))
            .with_context(|| format!("cannot make {} with direct I/O", path.display()))?;
        let zeros = Memory::new(ZEROS_BYTES)?;
        let size_bytes = size_bytes.next_multiple_of(ZEROS_BYTES as u64);
        let mut written = 0;
        while written < size_bytes {
            written += rustix::io::pwrite(&fd, &zeros, written)? as u64;
            ensure!(written % 512 == 0, "a write of zeros was cut short at {written}");
        }
        rustix::fs::fsync(&fd)?;
        Ok(Self { fd, size_bytes })
    }

    /// The one that an earlier call made, if it has the size; otherwise a new one.
    pub fn open_or_create(path: &Path, size_bytes: u64) -> Result<Self> {
        let size_bytes = size_bytes.next_multiple_of(ZEROS_BYTES as u64);
        if std::fs::metadata(path).is_ok_and(|status| status.len() == size_bytes) {
            let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
            let fd = open(path, flags, Mode::empty())
                .with_context(|| format!("cannot open {} with direct I/O", path.display()))?;
            return Ok(Self { fd, size_bytes });
        }
        Self::create(path, size_bytes)
    }

    /// Writes of `write_bytes`, one after another, each durable before the next.
    pub fn write_durably(&self, write_bytes: usize, duration: Duration) -> Result<Done> {
        let mut uring = ring()?;
        let memory = Memory::new(write_bytes)?;
        let (mut done, begun) = (Done::new()?, Instant::now());
        let mut offset = 0;
        while begun.elapsed() < duration {
            let started = Instant::now();
            let entry = opcode::Write::new(Fd(self.fd.as_raw_fd()), memory.as_ptr(), write_bytes as u32)
                .offset(offset)
                .rw_flags(RWF_DSYNC)
                .build();
            // SAFETY: `memory` is neither changed nor freed before the completion, which is awaited below.
            unsafe { push(&mut uring, &entry)? };
            uring.submit_and_wait(1)?;
            let written = uring.completion().next().context("a write without a completion")?.result();
            ensure!(written == write_bytes as i32, "a durable write of {write_bytes} bytes gave {written}");
            done.latencies_ns.saturating_record(started.elapsed().as_nanos() as u64);
            done.operations += 1;
            offset = self.next(offset, write_bytes);
        }
        done.elapsed = begun.elapsed();
        Ok(done)
    }

    /// The same with the two calls that everyone knows: `pwrite`, then `fdatasync`.
    pub fn write_and_sync(&self, write_bytes: usize, duration: Duration) -> Result<Done> {
        let memory = Memory::new(write_bytes)?;
        let (mut done, begun) = (Done::new()?, Instant::now());
        let mut offset = 0;
        while begun.elapsed() < duration {
            let started = Instant::now();
            let written = rustix::io::pwrite(&self.fd, &memory, offset)?;
            ensure!(written == write_bytes, "a write of {write_bytes} bytes gave {written}");
            rustix::fs::fdatasync(&self.fd)?;
            done.latencies_ns.saturating_record(started.elapsed().as_nanos() as u64);
            done.operations += 1;
            offset = self.next(offset, write_bytes);
        }
        done.elapsed = begun.elapsed();
        Ok(done)
    }

    fn next(&self, offset: u64, bytes: usize) -> u64 {
        let next = offset + bytes as u64;
        if next + bytes as u64 <= self.size_bytes { next } else { 0 }
    }

    /// Reads of `read_bytes` at random places, `depth` in flight; with a rate, as many as are due and no more.
    pub fn read(&self, read_bytes: usize, depth: usize, rate: Option<f64>, duration: Duration) -> Result<Done> {
        ensure!((1..=DEPTH_MAX).contains(&depth), "1 to {DEPTH_MAX} reads may be in flight");
        ensure!(read_bytes > 0 && (read_bytes as u64) < self.size_bytes, "{read_bytes} bytes cannot be read here");
        let mut uring = ring()?;
        let memory = Memory::new(read_bytes * depth)?;
        let places = (self.size_bytes - read_bytes as u64) / read_bytes as u64 + 1;
        let mut random = Random::new(7);
        let mut started = vec![Instant::now(); depth];
        let mut free: Vec<usize> = (0..depth).collect();
        let (mut done, begun) = (Done::new()?, Instant::now());
        let mut issued = 0u64;
        loop {
            let elapsed = begun.elapsed();
            let is_over = elapsed >= duration;
            let due = rate.map_or(u64::MAX, |rate| (elapsed.as_secs_f64() * rate) as u64);
            while !is_over && issued < due {
                let Some(slot) = free.pop() else { break };
                // SAFETY: the slot's part of `memory` is inside it and left alone until its completion was reaped.
                let target = unsafe { memory.pointer().add(slot * read_bytes) };
                let entry = opcode::Read::new(Fd(self.fd.as_raw_fd()), target, read_bytes as u32)
                    .offset(random.below(places) * read_bytes as u64)
                    .build()
                    .user_data(slot as u64);
                started[slot] = Instant::now();
                // SAFETY: as above; the loop ends only when nothing is in flight.
                unsafe { push(&mut uring, &entry)? };
                issued += 1;
            }
            if is_over && free.len() == depth {
                break;
            }
            match rate {
                Some(rate) if !is_over => {
                    let next = Duration::from_secs_f64((issued + 1) as f64 / rate).saturating_sub(begun.elapsed());
                    wait(&uring, next.max(SLEEP_MIN))?;
                }
                _ => drop(uring.submit_and_wait(1)?),
            }
            while let Some(completion) = uring.completion().next() {
                let slot = completion.user_data() as usize;
                ensure!(completion.result() == read_bytes as i32, "a read gave {}", completion.result());
                done.latencies_ns.saturating_record(started[slot].elapsed().as_nanos() as u64);
                done.operations += 1;
                free.push(slot);
            }
        }
        done.elapsed = begun.elapsed();
        Ok(done)
    }
}

fn ring() -> Result<IoUring> {
    Ok(IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(DEPTH_MAX as u32)?)
}

/// # Safety
/// What the entry points to is valid until its completion was reaped.
unsafe fn push(uring: &mut IoUring, entry: &squeue::Entry) -> Result<()> {
    // SAFETY: the caller's promise is the very one asked for here.
    unsafe { uring.submission().push(entry) }.context("the submission queue is full")
}

/// Submits, and waits for a completion or so long.
fn wait(uring: &IoUring, time: Duration) -> Result<()> {
    let time = Timespec::from(time);
    match uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time)) {
        Err(error) if !super::is_harmless(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_do_what_they_count() {
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let Ok(file) = DirectFile::create(&directory.path().join("file"), 4 << 20) else {
            println!("skipped: no direct I/O on the file system of the sources");
            return;
        };
        let short = Duration::from_millis(30);
        for done in [
            file.write_durably(8192, short).unwrap(),
            file.write_and_sync(4096, short).unwrap(),
            file.read(4096, 8, None, short).unwrap(),
        ] {
            assert!(done.operations > 0 && done.latencies_ns.len() == done.operations && done.elapsed >= short);
        }
        let paced = file.read(4096, 8, Some(200.0), Duration::from_millis(100)).unwrap();
        assert!(paced.operations <= 20, "{} reads were made where 20 were due", paced.operations);
        assert!(file.read(4096, 0, None, short).is_err());
    }
}
