//! Runs simulations from the command line: one seed, a batch of seeds, or every sync point of one seed's history.
//!
//! ```sh
//! cargo run -p delta-tests --release --bin simulate -- --seed 7 --steps 400
//! cargo run -p delta-tests --release --bin simulate -- --seeds 10000
//! cargo run -p delta-tests --release --bin simulate -- --seed 7 --steps 60 --exhaustive
//! ```
//! Built with `--features deliberate-faults`, `--rates --seeds 60` says how many of the seeds catch each fault, and
//! `--catches` which seed and rule to write down for each.
//!
//! A seed that fails is made short and printed with the command that runs the short history again. The exit status is
//! 0 when no rule was broken, 1 when one was, 2 when the command line is wrong.

use clap::Parser;
use delta_tests::sim::plan::parse_ranges;
use delta_tests::sim::{
    Coverage, Failure, Keep, MET_AT_SYNC_POINTS, Plan, Report, disks_a_sync_point, exhaust, run, shrink,
};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Deterministic simulation of the server.
#[derive(Parser)]
struct Arguments {
    /// The seed; the first one of a batch.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Steps of each history.
    #[arg(long, default_value_t = 400)]
    steps: u32,
    /// Only these steps of the history, such as 1-4,9.
    #[arg(long)]
    keep: Option<String>,
    /// Cut the power at every sync point of the history in turn, instead of where chance does.
    #[arg(long)]
    exhaustive: bool,
    /// Print every event, not only the operations.
    #[arg(long)]
    trace: bool,
    /// Print what clients did and were told.
    #[arg(long)]
    history: bool,
    /// Stop a batch at its first failure, and do not make that short.
    #[arg(long)]
    first: bool,
    /// Threads for a batch; 0: as many as there are CPUs.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// A deliberate fault to switch on.
    #[cfg(feature = "deliberate-faults")]
    #[arg(long, value_parser = fault_named)]
    fault: Option<deltadb::sabotage::Sabotage>,
    /// For each deliberate fault, how many of the seeds catch it.
    #[cfg(feature = "deliberate-faults")]
    #[arg(long)]
    rates: bool,
    /// For each deliberate fault, the row of the table of catches as it should be.
    #[cfg(feature = "deliberate-faults")]
    #[arg(long)]
    catches: bool,
}

/// A batch of so many seeds, of so many steps, must meet everything there is to be met.
const SEEDS_THAT_MEET_ALL: u64 = 200;
const STEPS_THAT_MEET_ALL: u32 = 300;

/// The same for seeds whose every sync point is tried.
const SEEDS_THAT_MEET_ALL_AT_SYNC_POINTS: u64 = 8;
const OUTCOMES: u64 = 4;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "deliberate-faults")]
    if arguments.rates {
        return print_rates(&arguments);
    }
    #[cfg(feature = "deliberate-faults")]
    if arguments.catches {
        return print_catches();
    }
    if arguments.exhaustive {
        return try_every_sync_point(&arguments);
    }
    match (arguments.seeds, plan_of(&arguments, arguments.seed)) {
        (_, Err(error)) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
        (1, Ok(plan)) => run_one(&arguments, &plan),
        _ => run_batch(&arguments),
    }
}

fn plan_of(arguments: &Arguments, seed: u64) -> Result<Plan, String> {
    let plan = Plan::new(seed, arguments.steps);
    let Some(keep) = &arguments.keep else { return Ok(plan) };
    let ranges = parse_ranges(keep)?;
    Ok(plan.keeping(|number| ranges.iter().any(|(first, last)| (*first..=*last).contains(&number))))
}

fn run_one(arguments: &Arguments, plan: &Plan) -> ExitCode {
    let _switched = switch(arguments);
    announce(plan.setup.seed);
    let keep = match (arguments.trace, arguments.history) {
        (true, _) => Keep::Trace,
        (_, true) => Keep::History,
        _ => Keep::Verdict,
    };
    let report = run(plan, keep);
    report.lines.iter().for_each(|line| println!("{line}"));
    match &report.failure {
        Some(failure) if arguments.keep.is_none() => explain(arguments, plan, failure),
        Some(failure) => println!("step {}: {}: {}", failure.step, failure.broken.rule, failure.broken.detail),
        None => println!("seed {}: trace {:016x}\n{}", plan.setup.seed, report.trace_hash, report.coverage),
    }
    verdict(report.failure.is_none())
}

/// Makes the history short and prints it.
fn explain(arguments: &Arguments, plan: &Plan, failure: &Failure) {
    let seed = plan.setup.seed;
    println!("seed {seed}, step {}: {}: {}", failure.step, failure.broken.rule, failure.broken.detail);
    let (short, Report { lines, failure, .. }) = shrink(plan, failure.broken.rule);
    println!("{:?}\na history of {} steps breaks the same rule:", short.setup, short.steps.len());
    short.steps.iter().for_each(|step| println!("{step}"));
    println!("what happened:");
    lines.iter().for_each(|line| println!("{line}"));
    if let Some(failure) = failure {
        println!("step {}: {}: {}", failure.step, failure.broken.rule, failure.broken.detail);
    }
    println!(
        "again: {} --seed {seed} --steps {} --keep {} --history",
        command(arguments),
        plan.steps_total,
        short.kept()
    );
}

fn run_batch(arguments: &Arguments) -> ExitCode {
    let begun = Instant::now();
    let (next, failed) = (AtomicU64::new(arguments.seed), Mutex::new(Vec::new()));
    let coverage = Mutex::new(Coverage::default());
    let end = arguments.seed + arguments.seeds;
    let threads = match arguments.threads {
        0 => std::thread::available_parallelism().map_or(1, |count| count.get()),
        count => count,
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let _switched = switch(arguments);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || (arguments.first && !failed.lock().expect("no panic holds it").is_empty()) {
                        return;
                    }
                    announce(seed);
                    let report = run(&Plan::new(seed, arguments.steps), Keep::Verdict);
                    coverage.lock().expect("no panic holds it").merge(&report.coverage);
                    if let Some(failure) = report.failure {
                        println!(
                            "seed {seed}, step {}: {}: {}",
                            failure.step, failure.broken.rule, failure.broken.detail
                        );
                        failed.lock().expect("no panic holds it").push((seed, failure));
                    }
                }
            });
        }
    });
    let coverage = coverage.into_inner().expect("no panic holds it");
    let mut failed = failed.into_inner().expect("no panic holds it");
    println!("{coverage}");
    println!(
        "{} seeds of {} steps in {:.1} s, {} failed",
        arguments.seeds,
        arguments.steps,
        begun.elapsed().as_secs_f64(),
        failed.len()
    );
    failed.sort_by_key(|(seed, _)| *seed);
    if let Some((seed, failure)) = failed.first().filter(|_| !arguments.first) {
        let _switched = switch(arguments);
        explain(arguments, &Plan::new(*seed, arguments.steps), failure);
    }
    let meets_all = arguments.seeds >= SEEDS_THAT_MEET_ALL && arguments.steps >= STEPS_THAT_MEET_ALL;
    verdict(failed.is_empty() && (!meets_all || all_met(&coverage.missing())))
}

/// Says what a batch should have met.
fn all_met(missing: &[&str]) -> bool {
    missing.iter().for_each(|name| println!("never met: {name}"));
    missing.is_empty()
}

fn try_every_sync_point(arguments: &Arguments) -> ExitCode {
    let _switched = switch(arguments);
    let mut coverage = Coverage::default();
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        announce(seed);
        let exhausted = exhaust(&Plan::for_every_sync_point(seed, arguments.steps), OUTCOMES);
        println!("seed {seed}: {} sync points, {} disks", exhausted.sync_points, exhausted.disks);
        if let Some((failure, cut)) = exhausted.failure {
            println!(
                "with the power cut {cut:?}, step {}: {}: {}\nagain: {} --exhaustive --seed {seed} --steps {}",
                failure.step,
                failure.broken.rule,
                failure.broken.detail,
                command(arguments),
                arguments.steps
            );
            return verdict(false);
        }
        if exhausted.disks != exhausted.sync_points * disks_a_sync_point(OUTCOMES) {
            println!("seed {seed}: some disks were not tried");
            return verdict(false);
        }
        coverage.merge(&exhausted.coverage);
    }
    println!("{coverage}");
    let meets_all = arguments.seeds >= SEEDS_THAT_MEET_ALL_AT_SYNC_POINTS;
    let missing: Vec<&str> = MET_AT_SYNC_POINTS.iter().copied().filter(|name| coverage.of(name) == 0).collect();
    verdict(!meets_all || all_met(&missing))
}

fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A panic that ends the process would not say which seed it was.
fn announce(seed: u64) {
    thread_local! {
        static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }
    static HOOK: std::sync::Once = std::sync::Once::new();
    SEED.set(seed);
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| eprintln!("seed {}: {panic}", SEED.get())));
    });
}

/// How often each fault is caught by histories of the kind that its row in the table names.
#[cfg(feature = "deliberate-faults")]
fn print_rates(arguments: &Arguments) -> ExitCode {
    use delta_tests::sim::faults::{CATCHES, Catch};
    // Many faults are caught by a panic.
    std::panic::set_hook(Box::new(|_| {}));
    let seeds = arguments.seed..arguments.seed + arguments.seeds;
    let rate = |catch: &Catch| {
        let _switched = deltadb::sabotage::Switched::on(catch.fault);
        let caught = seeds.clone().filter(|seed| run(&catch.plan(*seed), Keep::Verdict).failure.is_some());
        caught.count()
    };
    let (next, rates) = (AtomicU64::new(0), Mutex::new(vec![0; CATCHES.len()]));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                while let Some(catch) = CATCHES.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let rate = rate(catch);
                    let row = CATCHES.iter().position(|other| other.fault == catch.fault);
                    rates.lock().expect("no panic holds it")[row.unwrap_or(0)] = rate;
                }
            });
        }
    });
    let rates = rates.into_inner().expect("no panic holds it");
    for (catch, rate) in CATCHES.iter().zip(&rates) {
        println!("{rate:>6} of {:<6} {}", arguments.seeds, catch.fault.name());
    }
    verdict(rates.iter().all(|rate| *rate > 0))
}

/// The table of catches as it should be, for the source and for the README.
#[cfg(feature = "deliberate-faults")]
fn print_catches() -> ExitCode {
    use delta_tests::sim::faults::CATCHES;
    std::panic::set_hook(Box::new(|_| {}));
    let found: Vec<_> = CATCHES.iter().map(|catch| (catch, catch.found_anew())).collect();
    for (catch, found) in &found {
        match found {
            Some(found) => println!("{found}"),
            None => println!("{}: no seed catches it", catch.fault.name()),
        }
    }
    found.iter().filter_map(|(_, found)| *found).for_each(|found| println!("{}", found.row()));
    verdict(found.iter().all(|(_, found)| found.is_some()))
}

#[cfg(feature = "deliberate-faults")]
fn fault_named(name: &str) -> Result<deltadb::sabotage::Sabotage, String> {
    use deltadb::sabotage::Sabotage;
    let names = || Sabotage::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ");
    let found = Sabotage::ALL.iter().find(|fault| fault.name() == name).copied();
    found.ok_or_else(|| format!("there are {}", names()))
}

#[cfg(feature = "deliberate-faults")]
fn switch(arguments: &Arguments) -> Option<deltadb::sabotage::Switched> {
    arguments.fault.map(deltadb::sabotage::Switched::on)
}

#[cfg(not(feature = "deliberate-faults"))]
fn switch(_: &Arguments) -> Option<()> {
    None
}

#[cfg(feature = "deliberate-faults")]
fn command(arguments: &Arguments) -> String {
    let fault = arguments.fault.map_or(String::new(), |fault| format!(" --fault {}", fault.name()));
    format!("cargo run -p delta-tests --release --features deliberate-faults --bin simulate --{fault}")
}

#[cfg(not(feature = "deliberate-faults"))]
fn command(_: &Arguments) -> String {
    "cargo run -p delta-tests --release --bin simulate --".to_owned()
}
