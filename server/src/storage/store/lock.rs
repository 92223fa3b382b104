//! One process a data directory: `LOCK` is held with flock, which a killed process cannot leave behind.
//!
//! Production only, before any executor: it uses the file system directly and waits by sleeping.

use super::{Layout, StoreError};
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// A process id has at most ten digits.
const LOCK_BYTES_MAX: u64 = 16;

/// The right to use a data directory; given up when dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    layout: Layout,
    /// Closing it unlocks.
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock of a data directory, which is made (mode 0700) when it is not there. While another process
    /// holds it, tries again for as long as `patience` lasts, since a killed process may linger; then names its pid.
    pub fn acquire(directory: &Path, patience: Duration) -> Result<Self, StoreError> {
        let layout = Layout::new(directory);
        let path = layout.lock();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(StoreError::io("create the data directory", directory))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let deadline = Instant::now() + patience;
        while !try_lock(&file).map_err(StoreError::io("lock", &path))? {
            if Instant::now() >= deadline {
                return Err(StoreError::Locked { directory: directory.to_owned(), pid: holder(&mut file) });
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
        write_pid(&mut file).map_err(StoreError::io("write", &path))?;
        Ok(Self { layout, _file: file })
    }

    /// The directory it locks.
    pub fn directory(&self) -> &Path {
        self.layout.directory()
    }

    /// What lies where in the directory.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// Makes every file this process creates from now on private to its user (umask 077). Called once, at start, before
/// any thread: nothing in a data directory is for others to read.
pub fn restrict_file_modes() {
    rustix::process::umask(Mode::from_raw_mode(0o077));
}

/// A sentence for each secret file, and for the directory, that other users may read or write.
pub fn open_to_others(directory: &Path) -> Vec<String> {
    let layout = Layout::new(directory);
    let mode = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777);
    let secrets = [layout.master_key(), layout.admin_key(), layout.keyring()];
    let mut warnings = Vec::new();
    for path in secrets {
        match mode(&path) {
            Ok(mode) if mode & 0o077 != 0 => {
                warnings.push(format!("{} is open to other users (mode {mode:03o}): chmod 600 it", path.display()));
            }
            _ => {}
        }
    }
    match mode(directory) {
        Ok(mode) if mode & 0o022 != 0 => warnings.push(format!(
            "other users may write to the data directory {} (mode {mode:03o}): chmod 700 it",
            directory.display()
        )),
        _ => {}
    }
    warnings
}

fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// What the holder wrote; nothing when it has not come to that yet.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(LOCK_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_pid_until_the_first_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let lock = DirectoryLock::acquire(&directory, Duration::ZERO).unwrap();
        assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(directory.join("LOCK")).unwrap().permissions().mode() & 0o777, 0o600);
        let refusal = DirectoryLock::acquire(&directory, Duration::ZERO).unwrap_err().to_string();
        assert!(refusal.contains(&format!("in use by process {}", std::process::id())), "{refusal}");
        drop(lock);
        DirectoryLock::acquire(&directory, Duration::ZERO).unwrap();
    }

    #[test]
    fn a_holder_without_a_pid_and_a_stale_pid_do_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("LOCK");
        std::fs::write(&path, "4000000000\n").unwrap();
        drop(DirectoryLock::acquire(directory.path(), Duration::ZERO).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        let silent = File::open(&path).unwrap();
        assert!(try_lock(&silent).unwrap());
        std::fs::write(&path, "").unwrap();
        let refusal = DirectoryLock::acquire(directory.path(), Duration::ZERO).unwrap_err();
        assert!(matches!(refusal, StoreError::Locked { pid: None, .. }), "{refusal}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refusal = DirectoryLock::acquire(&file.join("data"), Duration::ZERO).unwrap_err().to_string();
        assert!(refusal.contains("file/data"), "{refusal}");
    }

    #[test]
    fn secrets_open_to_others_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("master.key");
        std::fs::write(&path, "").unwrap();
        for (mode, warnings) in [(0o600, 0), (0o640, 1), (0o604, 1)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_to_others(directory.path()).len(), warnings, "mode {mode:o}");
        }
    }
}
