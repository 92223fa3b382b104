//! A small file system of its own, where the tests may mount one.

use crate::skips::skip;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A mounted tmpfs, unmounted on drop.
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// A tmpfs of this size; where mounting is not permitted the test is skipped, and there is none.
    pub fn mount(size_mib: usize) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = format!("size={size_mib}m,mode=0700");
        let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()));
        if mounted {
            return Some(Self { directory });
        }
        skip("mounting a tmpfs is not permitted here; run as root to test full and read-only disks");
        None
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes it read-only.
    pub fn make_read_only(&self) {
        assert!(run(Command::new("mount").args(["-o", "remount,ro"]).arg(self.path())), "remounting read-only");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, for a server that is just going may still hold files open.
        run(Command::new("umount").arg("--lazy").arg(self.directory.path()));
    }
}

fn run(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
