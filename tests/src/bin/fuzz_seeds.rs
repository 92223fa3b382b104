//! Writes the seeds of a fuzz target into a directory: `fuzz_seeds TARGET DIRECTORY`.

use delta_tests::fuzz::TARGETS;
use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(name), Some(directory)) = (arguments.next(), arguments.next().map(PathBuf::from)) else {
        anyhow::bail!("usage: fuzz_seeds TARGET DIRECTORY");
    };
    let target = TARGETS.iter().find(|target| name == target.name);
    let target = target.ok_or_else(|| anyhow::anyhow!("there is no fuzz target {}", name.display()))?;
    std::fs::create_dir_all(&directory)?;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(directory.join(format!("seed-{number:02}")), seed)?;
    }
    Ok(())
}
