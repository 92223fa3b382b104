//! Where a comparison takes place: CPUs, directories, programs, and the loads put to one server.

use super::questions::workload;
use crate::arguments::{CompareFlags, WorkloadFlags};
use crate::run::{measure, preload};
use anyhow::{Context, Result, ensure};
use delta_bench::measure::Measured;
use delta_bench::peers::{Grounds, Peer, on_cpus};
use delta_bench::{cpu, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Connections and requests in flight of each while keys are loaded.
const LOADERS: usize = 16;
const TMPFS: i64 = 0x0102_1994;

/// Everything in its place.
pub struct Stage<'a> {
    pub flags: &'a CompareFlags,
    pub grounds: Grounds,
    pub load_cpus: Vec<usize>,
}

impl<'a> Stage<'a> {
    /// Looks for the programs, chooses CPUs, and keeps this thread on those of the load.
    pub fn set(flags: &'a CompareFlags) -> Result<Self> {
        ensure!(flags.rounds > 0, "--rounds must be at least 1");
        let allowed = cpu::allowed_at_start();
        let beside = |name: &str| Some(std::env::current_exe().ok()?.parent()?.join(name));
        let delta = flags.server.clone().or_else(|| beside("deltadb")).unwrap_or_else(|| PathBuf::from("deltadb"));
        ensure!(
            delta.is_file(),
            "there is no server at {}; build it with --release, or name it with --server",
            delta.display()
        );
        let limits = beside("delta-limits").filter(|path| path.is_file());
        let parent = flags.directory.clone().unwrap_or_else(std::env::temp_dir);
        refuse_memory(&parent)?;
        let load_cpus = match &flags.load_cpus {
            Some(list) => cpu::parse_list(list)?,
            None => allowed.last().copied().into_iter().collect(),
        };
        let cpus = match &flags.server_cpus {
            Some(list) => cpu::parse_list(list)?,
            None => allowed.first().copied().into_iter().collect(),
        };
        // Two shards get a CPU each where there is one besides the load's.
        let others: Vec<usize> = allowed.iter().copied().filter(|one| !load_cpus.contains(one)).collect();
        let cpus_of_two = if others.len() > 1 { others[..2].to_vec() } else { cpus.clone() };
        cpu::pin(&load_cpus).context("choose CPUs with --server-cpus and --load-cpus")?;
        let grounds =
            Grounds { parent, cpus, cpus_of_two, delta, limits, value_bytes: flags.value_bytes, keys: flags.keys };
        Ok(Self { flags, grounds, load_cpus })
    }

    /// Writes `keys` keys to a server, once each.
    pub fn load(&self, peer: &Peer, keys: u64) -> Result<()> {
        let mut driver = peer.driver(LOADERS);
        driver.install().with_context(|| format!("cannot prepare {}", peer.name))?;
        let workload = WorkloadFlags { connections: LOADERS, keys, read_percent: 0, ..workload(self.flags) };
        let loaded = preload(&mut *driver, &workload)?;
        ensure!(loaded.is_clean(), "{}", output::table(&format!("loading {} failed", peer.name), &loaded));
        Ok(())
    }

    /// Puts one load to one server.
    pub fn measure(&self, peer: &Peer, workload: &WorkloadFlags) -> Result<Measured> {
        measure(&mut *peer.driver(workload.pipeline), workload, &[peer.process.pid()])
    }

    /// The same for a probe, which is worth nothing unless every reply is right.
    pub fn measure_strictly(&self, peer: &Peer, workload: &WorkloadFlags) -> Result<Measured> {
        let measured = self.measure(peer, workload)?;
        ensure!(measured.is_clean(), "{}", output::table("a load went wrong", &measured));
        Ok(measured)
    }

    /// Runs a loop of `delta-limits` on the servers' CPU.
    pub fn limit(&self, arguments: &[&str], directory: Option<&Path>) -> Result<Value> {
        let program = self.grounds.limits.as_ref();
        let program = program
            .context("delta-limits was not built beside this program: build delta-bench with all its binaries")?;
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(directory) = directory {
            command.arg("--directory").arg(directory);
        }
        let output = on_cpus(&self.grounds.cpus, || command.output())?
            .with_context(|| format!("cannot run {}", program.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "delta-limits {arguments:?} failed: {}", errors.trim());
        serde_json::from_slice(&output.stdout).context("delta-limits printed no JSON")
    }
}

/// A number of a JSON line.
pub fn number(line: &Value, name: &str) -> Result<f64> {
    line[name].as_f64().with_context(|| format!("'{name}' is missing in {line}"))
}

/// The middle of some numbers; the upper one of two.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

fn refuse_memory(parent: &Path) -> Result<()> {
    let file_system = rustix::fs::statfs(parent).with_context(|| format!("cannot look at {}", parent.display()))?;
    ensure!(
        file_system.f_type as i64 != TMPFS,
        "{} is in memory: nothing is durable there; name a directory on a disk with --directory",
        parent.display()
    );
    Ok(())
}
