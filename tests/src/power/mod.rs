//! Power cuts and disk faults under the real server, below a real file system.
//!
//! From the bottom up: a [`Device`] that keeps what was not flushed apart and drops it; a FUSE file system of one
//! file over it; a loop device over the file, which turns the block layer's flushes into FSYNC; ext4 on the loop
//! device, mounted; the server's data directory in it. So the server's O_DIRECT and RWF_DSYNC meet the kernel's own
//! ext4, journal and block layer, and a power cut loses exactly what no flush covered, the file system's own metadata
//! included. After a cut the same image is mounted anew, and ext4 replays its journal.
//!
//! It is honest because nothing in between acknowledges for it: FUSE runs without write-back caching, on a file opened
//! for direct I/O, and the loop device completes a flush only when FSYNC was answered. `power_cuts.rs` shows both
//! directions: unsynced data is lost here, synced data is kept, and a disk that lies about flushes is found out.
//!
//! It needs root, `/dev/fuse`, a loop device and `mkfs.ext4`. Everything is mounted in a mount namespace of its own,
//! which goes with the thread, however that ends.

mod device;
mod fuse;

pub use device::{Counts, Device, Faults, SECTOR_BYTES, Survivors};

use crate::skips::skip;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use tempfile::TempDir;

/// A mounted disk that can lose its power.
pub struct PoweredDisk {
    device: Arc<Device>,
    scratch: TempDir,
    /// How often it was mounted; each time at places of its own.
    boots: usize,
    server: Option<JoinHandle<()>>,
}

/// Runs a test with an empty disk of this size, in a mount namespace of its own; says why when that cannot be had.
pub fn with_disk(size_mib: u64, test: impl FnOnce(&mut PoweredDisk) + Send) {
    std::thread::scope(|scope| {
        let name = std::thread::current().name().unwrap_or("disk").to_owned();
        let run = move || match PoweredDisk::new(size_mib << 20) {
            Ok(mut disk) => test(&mut disk),
            Err(reason) => {
                skip(&format!("power cuts and disk faults need root, FUSE, a loop device and mkfs.ext4: {reason}"));
            }
        };
        let ran = std::thread::Builder::new().name(name).spawn_scoped(scope, run).expect("a thread").join();
        if let Err(panic) = ran {
            std::panic::resume_unwind(panic);
        }
    });
}

impl PoweredDisk {
    fn new(size_bytes: u64) -> Result<Self, String> {
        // Of all that can be unshared only descriptors can break the promises of safe code.
        #[allow(deprecated)]
        let unshared = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS);
        unshared.map_err(|error| format!("a mount namespace cannot be made: {error}"))?;
        run(Command::new("mount").args(["--make-rprivate", "/"]))?;
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let device = Arc::new(Device::new(size_bytes).map_err(|error| error.to_string())?);
        let mut disk = Self { device, scratch, boots: 0, server: None };
        disk.attach()?;
        // Nothing is left for the kernel to initialise later: what writes come are ours.
        let options = ["-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"];
        run(Command::new("mkfs.ext4").args(options).arg(disk.image()))?;
        disk.mount()?;
        run(Command::new("sync").arg("--file-system").arg(disk.path()))?;
        Ok(disk)
    }

    /// Where it is mounted; another place after each power cut.
    pub fn path(&self) -> PathBuf {
        self.place("disk")
    }

    /// The device below.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// After a power cut (or a fault), once whoever used the disk is gone: takes it off, lets the device forget what
    /// does not survive, and mounts it anew.
    pub fn reboot(&mut self, survivors: Survivors) {
        self.device.cut();
        self.detach();
        self.device.power_on(survivors).expect("memory for the disk");
        let attached = self.attach().and_then(|()| self.mount());
        attached.unwrap_or_else(|reason| panic!("the disk cannot be mounted after a power cut: {reason}"));
    }

    /// Where on the device a file of its file system lies.
    pub fn extents(&self, file: &Path) -> Vec<Range<u64>> {
        const UNIT_BYTES: u64 = 1024;
        let output = Command::new("filefrag").args(["-v", "-b1024"]).arg(file).output().expect("filefrag runs");
        let text = String::from_utf8_lossy(&output.stdout);
        // An extent a line: its number, where it lies in the file, where on the device, its length, flags.
        let extent = |line: &str| {
            let mut columns = line.split(':');
            columns.next()?.trim().parse::<u64>().ok()?;
            let (first, last) = columns.nth(1)?.trim().split_once("..")?;
            let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            Some(first * UNIT_BYTES..(last + 1) * UNIT_BYTES)
        };
        text.lines().filter_map(extent).collect()
    }

    /// What `e2fsck` says of the file system as a power cut now would leave it, journal replayed. Nothing is changed.
    pub fn examine(&self) -> Result<(), String> {
        run(Command::new("e2fsck").args(["-f", "-n"]).arg(self.image()))
    }

    fn place(&self, what: &str) -> PathBuf {
        self.scratch.path().join(format!("{what}-{}", self.boots))
    }

    fn image(&self) -> PathBuf {
        self.place("fuse").join(fuse::FILE_NAME)
    }

    fn attach(&mut self) -> Result<(), String> {
        self.boots += 1;
        for what in ["fuse", "disk"] {
            std::fs::create_dir(self.place(what)).map_err(|error| error.to_string())?;
        }
        self.server = Some(fuse::mount(&self.device, &self.place("fuse"))?);
        Ok(())
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(self.image()).arg(self.path()))
    }

    /// Lazily: the last descriptors of a killed server are closed a moment after its end. The device serves nobody
    /// who was connected before, so that none of them can still write.
    fn detach(&mut self) {
        for place in [self.path(), self.place("fuse")] {
            // Whatever it says: a disk without power is taken off in any case.
            let _ = run(Command::new("umount").arg("--lazy").arg(place));
        }
        drop(self.server.take());
    }
}

impl Drop for PoweredDisk {
    fn drop(&mut self) {
        self.device.cut();
        self.detach();
    }
}

/// Runs a command to its end; the error is what it said.
fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{}: {}", command.get_program().display(), String::from_utf8_lossy(&said).trim()))
}

/// Whether a directory lies on the kernel's ext4.
pub fn is_ext4(path: &Path) -> bool {
    const EXT4_MAGIC: i64 = 0xef53;
    rustix::fs::statfs(path).is_ok_and(|status| status.f_type == EXT4_MAGIC)
}
