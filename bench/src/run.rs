//! `delta-bench run`: from flags to a driver, a workload and a result.

use crate::arguments::{Protocol, RunFlags, WorkloadFlags};
use anyhow::{Context, Result, ensure};
use delta_bench::document::{Documents, Key};
use delta_bench::driver::{Address, Driver, Http, Postgres, Redis, Wire};
use delta_bench::load::{DRAIN, Plan, Setup, run as run_load};
use delta_bench::measure::Measured;
use delta_bench::random::Distribution;
use delta_bench::report::{Contender, Scenario, page};
use delta_bench::workload::{Draws, Lanes, Mix, Preload};
use delta_bench::{cpu, output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Requests in flight while keys are loaded, on each connection.
const PRELOAD_PIPELINE: usize = 16;

/// Whether everything was answered as it should be.
pub fn run(flags: &RunFlags) -> Result<bool> {
    if let Some(cpus) = &flags.workload.cpus {
        cpu::pin(&cpu::parse_list(cpus)?)?;
    }
    let mut driver = driver_of(flags)?;
    if flags.install_template {
        driver.install()?;
    }
    if flags.preload {
        let loaded = preload(&mut *driver, &flags.workload)?;
        if !loaded.is_clean() {
            print!("{}", output::table("loading the keys failed", &loaded));
            return Ok(false);
        }
    }
    let measured = measure(&mut *driver, &flags.workload, &flags.server_pid)?;
    let title = title(driver.name(), &flags.workload);
    if flags.json {
        println!("{}", output::json(&title, &measured));
    } else {
        print!("{}", output::table(&title, &measured));
    }
    let is_clean = measured.is_clean();
    if let Some(path) = &flags.report {
        let contenders = vec![Contender::new(driver.name().to_owned(), &[measured])];
        let scenario = Scenario { title: title.clone(), contenders };
        let report = page("delta-bench", &format!("load on {}", flags.address), &[], &[&scenario]);
        std::fs::write(path, report).with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    Ok(is_clean)
}

/// Writes every key once.
pub fn preload(driver: &mut dyn Driver, flags: &WorkloadFlags) -> Result<Measured> {
    walk(driver, flags, Preload::new(flags.keys))
}

/// Reads every key once, all of which must be there.
pub fn read_every_key(driver: &mut dyn Driver, flags: &WorkloadFlags) -> Result<()> {
    let measured = walk(driver, flags, Preload::reading(flags.keys))?;
    ensure!(measured.is_clean(), "{}", output::table("reading every key failed", &measured));
    Ok(())
}

fn walk(driver: &mut dyn Driver, flags: &WorkloadFlags, mut source: Preload) -> Result<Measured> {
    let plan = Plan {
        pipeline: PRELOAD_PIPELINE,
        rate: None,
        warmup: Duration::ZERO,
        duration: None,
        server_pids: Vec::new(),
        drain: DRAIN,
        first_revision: first_revision()?,
    };
    let documents = Documents::new(flags.value_bytes)?;
    let connections = driver.connect(flags.connections)?;
    let lanes = lanes_of(driver, flags.keys);
    run_load(&plan, Setup { driver, source: &mut source, documents: &documents, lanes: &lanes }, connections)
}

/// Runs the load that the flags ask for.
pub fn measure(driver: &mut dyn Driver, flags: &WorkloadFlags, server_pids: &[u32]) -> Result<Measured> {
    ensure!(flags.keys > 0, "--keys must be at least 1");
    ensure!(flags.rate.is_none_or(|rate| rate > 0.0), "--rate must be above 0");
    let (mix, distribution) = mix_of(flags)?;
    let plan = Plan {
        pipeline: flags.pipeline,
        rate: flags.rate,
        warmup: Duration::try_from_secs_f64(flags.warmup).context("--warmup is no time")?,
        duration: Some(Duration::try_from_secs_f64(flags.seconds).context("--seconds is no time")?),
        server_pids: server_pids.to_vec(),
        drain: DRAIN,
        first_revision: first_revision()?,
    };
    let documents = Documents::new(flags.value_bytes)?;
    let connections = driver.connect(flags.connections)?;
    let lanes = lanes_of(driver, flags.keys);
    let distribution = Distribution::by_name(&distribution, flags.keys)?;
    let mut source = Draws::new(flags.seed, mix, distribution, flags.keys);
    run_load(&plan, Setup { driver, source: &mut source, documents: &documents, lanes: &lanes }, connections)
}

fn mix_of(flags: &WorkloadFlags) -> Result<(Mix, String)> {
    let (mix, usual) = match &flags.mix {
        Some(letter) => Mix::ycsb(letter)?,
        None => (Mix::reading(flags.read_percent)?, "uniform"),
    };
    Ok((mix, flags.distribution.clone().unwrap_or_else(|| usual.to_owned())))
}

fn lanes_of(driver: &dyn Driver, keys: u64) -> Lanes {
    match driver.lane_of(Key::new(0).as_str()) {
        Some(_) => Lanes::new(keys, |key| driver.lane_of(Key::new(key).as_str()).unwrap_or_default()),
        None => Lanes::default(),
    }
}

/// Revisions of a later run are higher, so that its documents are not those of an earlier one.
fn first_revision() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64 % 1_000_000 * 100_000)
}

fn driver_of(flags: &RunFlags) -> Result<Box<dyn Driver>> {
    let address = Address::from(flags.address.as_str());
    let schema = flags.schema.clone();
    let credential = match &flags.credential_file {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the credential in {}", path.display()))?,
        None => flags.credential.clone().unwrap_or_default(),
    };
    let credential = credential.trim();
    Ok(match flags.protocol {
        Protocol::Wire => {
            let in_flight = flags.workload.pipeline.max(PRELOAD_PIPELINE);
            Box::new(Wire::new(address, schema, credential, !flags.one_address, in_flight))
        }
        Protocol::Http => Box::new(Http::new(address, schema, credential)),
        Protocol::Redis => Box::new(Redis::new(address)),
        Protocol::Postgres => Box::new(Postgres::new(address, flags.user.clone(), schema)),
    })
}

fn title(protocol: &str, flags: &WorkloadFlags) -> String {
    let mix = match &flags.mix {
        Some(letter) => format!("YCSB {}", letter.to_uppercase()),
        None => format!("{} % reads", flags.read_percent),
    };
    let loop_kind = match flags.rate {
        Some(rate) => format!("open loop at {rate}/s"),
        None => "closed loop".to_owned(),
    };
    format!(
        "{protocol}: {mix}, {} × {} in flight, {} bytes, {} keys, {loop_kind}",
        flags.connections, flags.pipeline, flags.value_bytes, flags.keys
    )
}
