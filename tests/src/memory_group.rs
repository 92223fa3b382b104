//! A control group with a memory limit, where the tests may make one: below their own group, version 1 or 2.

use crate::skips::skip;
use std::fs;
use std::path::{Path, PathBuf};

/// A group, removed on drop. Whoever was in it must have ended.
pub struct MemoryGroup {
    directory: PathBuf,
    is_unified: bool,
}

impl MemoryGroup {
    /// With this limit; where it cannot be made the test is skipped, and there is none.
    pub fn new(limit_bytes: u64) -> Option<Self> {
        Self::make(limit_bytes)
            .inspect_err(|reason| skip(&format!("no control group with a memory limit can be made: {reason}")))
            .ok()
    }

    fn make(limit_bytes: u64) -> Result<Self, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = |controllers: &str| {
            groups.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (names, path) = rest.split_once(':')?;
                names.split(',').any(|name| name == controllers).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let (parent, is_unified) = match (own("memory"), own("")) {
            (Some(path), _) => (Path::new("/sys/fs/cgroup/memory").join(path), false),
            (None, Some(path)) => (Path::new("/sys/fs/cgroup").join(path), true),
            (None, None) => return Err("there is no memory controller".to_owned()),
        };
        let name = format!("delta-tests-{}", std::process::id());
        let group = Self { directory: parent.join(name), is_unified };
        let named = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        fs::create_dir(&group.directory).map_err(|error| named(&group.directory, error))?;
        // A unified group has the file only where its parent hands the controller down.
        let limit = group.directory.join(if is_unified { "memory.max" } else { "memory.limit_in_bytes" });
        fs::write(&limit, limit_bytes.to_string()).map_err(|error| named(&limit, error))?;
        Ok(group)
    }

    /// A command line that enters the group and becomes the command that follows it.
    pub fn launcher(&self) -> Vec<String> {
        let procs = self.directory.join("cgroup.procs");
        let script = format!("echo $$ > '{}' && exec \"$@\"", procs.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).into()
    }

    /// How often the kernel had to kill somebody in it.
    pub fn kills(&self) -> u64 {
        let file = self.directory.join(if self.is_unified { "memory.events" } else { "memory.oom_control" });
        let text = fs::read_to_string(file).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).expect("the group counts kills")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that has just ended may still be counted for a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.directory).is_ok() || !self.directory.exists() {
                return;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    }
}
