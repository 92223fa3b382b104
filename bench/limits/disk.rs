//! The device alone, from one thread: durable writes, and reads at random places.

use crate::{CommitFlags, ReadFlags};
use anyhow::{Context, Result};
use delta_bench::ring::disk::{DirectFile, Done};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::time::Duration;

const BLOCK_BYTES: usize = 512;
/// Room the writing loop goes round in.
const LOG_BYTES: u64 = 128 << 20;

/// Durable writes of one size.
pub fn commit(flags: &CommitFlags) -> Result<()> {
    let bytes = flags.bytes.max(1).next_multiple_of(BLOCK_BYTES);
    let directory = directory(&flags.directory)?;
    let file = DirectFile::create(&directory.path().join("log"), LOG_BYTES.max(bytes as u64 * 4))?;
    let duration = Duration::try_from_secs_f64(flags.seconds)?;
    let before = cpu_us();
    let done = match flags.two_calls {
        true => file.write_and_sync(bytes, duration)?,
        false => file.write_durably(bytes, duration)?,
    };
    print(if flags.two_calls { "pwrite and fdatasync" } else { "durable write" }, bytes, &done, cpu_us() - before);
    Ok(())
}

/// Reads of one size.
pub fn read(flags: &ReadFlags) -> Result<()> {
    let bytes = flags.bytes.max(1).next_multiple_of(BLOCK_BYTES);
    let directory = directory(&flags.directory)?;
    let file = match flags.keep {
        true => DirectFile::open_or_create(&flags.directory.join("delta-limits-data"), flags.file_bytes)?,
        false => DirectFile::create(&directory.path().join("data"), flags.file_bytes)?,
    };
    let before = cpu_us();
    let done = file.read(bytes, flags.depth, flags.rate, Duration::try_from_secs_f64(flags.seconds)?)?;
    print("read", bytes, &done, cpu_us() - before);
    Ok(())
}

fn directory(parent: &std::path::Path) -> Result<tempfile::TempDir> {
    let made = tempfile::Builder::new().prefix("delta-limits-").tempdir_in(parent);
    made.with_context(|| format!("cannot make a directory in {}", parent.display()))
}

/// CPU time of this process, the kernel's workers for it included.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn print(what: &str, bytes: usize, done: &Done, cpu_us: f64) {
    let line = json!({
        "limit": what,
        "bytes": bytes,
        "operations_per_second": done.rate(),
        "p50_us": done.latencies_ns.value_at_quantile(0.5) as f64 / 1e3,
        "p99_us": done.latencies_ns.value_at_quantile(0.99) as f64 / 1e3,
        "mean_us": done.latencies_ns.mean() / 1e3,
        "cpu_us_per_operation": cpu_us / done.operations.max(1) as f64,
    });
    println!("{line}");
}
