//! Which processors and how much memory this process may use: the affinity mask (the kernel has already cut it to
//! the cpuset), cgroup quotas and limits of either version, and where each shard goes.
//!
//! Online processors outside the mask are never used: a server started under `taskset` stays where it was put.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the process was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    cpus: Vec<usize>,
    cpu_quota: Option<f64>,
    memory_limit_bytes: u64,
}

impl Placement {
    /// Looks at the running process.
    pub fn detect() -> io::Result<Self> {
        let mask = rustix::thread::sched_getaffinity(None)?;
        let cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| mask.is_set(*cpu)).collect();
        Ok(Self::from_files(cpus, Path::new("/")))
    }

    /// The same from a tree of files, for tests: `proc/self/cgroup`, `proc/meminfo` and `sys/fs/cgroup` under `root`.
    fn from_files(cpus: Vec<usize>, root: &Path) -> Self {
        let groups = Groups::read(root);
        let memory_total = read(&root.join("proc/meminfo")).as_deref().and_then(memory_total_bytes);
        let memory_limit = groups.memory_limit_bytes();
        Self {
            cpus,
            cpu_quota: groups.cpu_quota(),
            memory_limit_bytes: memory_total.into_iter().chain(memory_limit).min().unwrap_or(u64::MAX),
        }
    }

    /// The processors of the affinity mask.
    pub fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Processors' worth of time per second that the cgroup allows, if it limits that.
    pub fn cpu_quota(&self) -> Option<f64> {
        self.cpu_quota
    }

    /// Processors worth a shard each: those of the mask, or fewer if the quota does not feed them. At least one.
    pub fn available_cpus(&self) -> usize {
        let fed = self.cpu_quota.map_or(usize::MAX, |quota| quota as usize);
        self.cpus.len().min(fed).max(1)
    }

    /// Physical memory, or the cgroup's limit if that is less.
    pub fn memory_limit_bytes(&self) -> u64 {
        self.memory_limit_bytes
    }

    /// The processor a shard is pinned to. Shards are pinned only when there is one for each processor of the mask;
    /// otherwise the scheduler spreads them within it.
    pub fn core_of(&self, shard: usize, shards: usize) -> Option<usize> {
        (shards == self.cpus.len()).then(|| self.cpus.get(shard).copied()).flatten()
    }
}

/// The cgroup directories of this process, from its own up to the root, by controller.
struct Groups {
    unified: Vec<PathBuf>,
    cpu: Vec<PathBuf>,
    memory: Vec<PathBuf>,
}

impl Groups {
    fn read(root: &Path) -> Self {
        let mut groups = Self { unified: Vec::new(), cpu: Vec::new(), memory: Vec::new() };
        let mounts = root.join("sys/fs/cgroup");
        for line in read(&root.join("proc/self/cgroup")).unwrap_or_default().lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            if controllers.is_empty() {
                // Beside version 1 controllers the unified tree is mounted one level down.
                groups.unified = ancestry(&mounts, path);
                groups.unified.extend(ancestry(&mounts.join("unified"), path));
                continue;
            }
            for controller in controllers.split(',') {
                let directory = |name: &str| ancestry(&mounts.join(name), path);
                match controller {
                    "cpu" => groups.cpu = [directory("cpu"), directory("cpu,cpuacct")].concat(),
                    "memory" => groups.memory = directory("memory"),
                    _ => {}
                }
            }
        }
        groups
    }

    /// The least quota on the way up.
    fn cpu_quota(&self) -> Option<f64> {
        let unified = self.unified.iter().filter_map(|group| {
            let text = read(&group.join("cpu.max"))?;
            let (quota, period) = text.trim().split_once(' ')?;
            ratio(quota, period)
        });
        let legacy = self.cpu.iter().filter_map(|group| {
            ratio(&read(&group.join("cpu.cfs_quota_us"))?, &read(&group.join("cpu.cfs_period_us"))?)
        });
        unified.chain(legacy).min_by(f64::total_cmp)
    }

    /// The least limit on the way up.
    fn memory_limit_bytes(&self) -> Option<u64> {
        let unified = self.unified.iter().map(|group| group.join("memory.max"));
        let legacy = self.memory.iter().map(|group| group.join("memory.limit_in_bytes"));
        unified.chain(legacy).filter_map(|file| read(&file)?.trim().parse().ok()).min()
    }
}

/// A group's directory and those above it, within the mount. In a container the path may not exist below the mount;
/// the mount's root, which does, is then what counts.
fn ancestry(mount: &Path, path: &str) -> Vec<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    relative.ancestors().map(|ancestor| mount.join(ancestor)).collect()
}

/// "max" and negative quotas mean no limit.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.trim().parse::<f64>().ok()?, period.trim().parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn memory_total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(cpus: usize, files: &[(&str, &str)]) -> Placement {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Placement::from_files((0..cpus).collect(), root.path())
    }

    #[test]
    fn the_running_process_has_a_place() {
        let placement = Placement::detect().unwrap();
        assert!(placement.available_cpus() >= 1 && placement.available_cpus() <= placement.cpus().len());
        assert!(placement.memory_limit_bytes() > 1 << 20);
    }

    #[test]
    fn version_2_limits_count_on_every_level() {
        let placement = placement(
            8,
            &[
                ("proc/meminfo", "MemFree: 1 kB\nMemTotal:    1000 kB\n"),
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/a/cpu.max", "250000 100000\n"),
                ("sys/fs/cgroup/a/memory.max", "512000\n"),
                ("sys/fs/cgroup/memory.max", "max\n"),
            ],
        );
        assert_eq!(placement.cpu_quota(), Some(2.5));
        assert_eq!(placement.available_cpus(), 2);
        assert_eq!(placement.memory_limit_bytes(), 512_000);
    }

    #[test]
    fn version_1_limits_count_and_absent_ones_do_not() {
        let cgroup = "4:memory:/job\n3:cpu,cpuacct:/\n0::/\n";
        let limited = placement(
            4,
            &[
                ("proc/meminfo", "MemTotal: 2000 kB\n"),
                ("proc/self/cgroup", cgroup),
                ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!((limited.available_cpus(), limited.memory_limit_bytes()), (1, 1000));
        let free = placement(
            4,
            &[
                ("proc/meminfo", "MemTotal: 2000 kB\n"),
                ("proc/self/cgroup", cgroup),
                ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!((free.available_cpus(), free.memory_limit_bytes()), (4, 2_048_000));
    }

    #[test]
    fn shards_are_pinned_only_one_to_a_processor() {
        let placement = Placement { cpus: vec![3, 5], cpu_quota: None, memory_limit_bytes: 0 };
        assert_eq!([placement.core_of(0, 2), placement.core_of(1, 2)], [Some(3), Some(5)]);
        assert_eq!([placement.core_of(0, 1), placement.core_of(2, 3)], [None, None]);
    }
}
