//! Disks that fail: errors of write and sync, short transfers, no space, rot. Whatever was acknowledged stays.

use super::contract::must;
use super::crash::{Life, check_outcomes, live};
use super::oracle::{History, Session, entity, put};
use super::workload::{Ending, Load, random_writes, work};
use super::{Checked, Effort, StorageUnderTest, Violation, machine, seeds};
use crate::runtime::platform::{Clock, Platform};
use crate::runtime::sim::{DiskImage, Effect, Fault, FaultRates, Operation, Random, Sim, SimPlatform};
use crate::storage::{CommitError, Refusal, Storage};
use futures_lite::future::zip;
use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

/// Checks all of it.
pub(super) fn check<T>(under_test: &T, effort: Effort) -> Result<(), Violation>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    for seed in seeds(effort) {
        let violation = |check| move |detail| Violation { check, seed, detail };
        for operations in [Operation::MAKING_DURABLE, Operation::WRITING] {
            failure_poisons(under_test, effort, seed, operations).map_err(violation("failure_poisons"))?;
        }
        for skip in 0..effort.batches as u64 {
            let result = short_writes_lose_nothing(under_test, effort, seed, skip);
            result.map_err(violation("short_writes_lose_nothing"))?;
        }
        out_of_space_ends(under_test, effort, seed).map_err(violation("out_of_space_ends"))?;
        faults_by_chance(under_test, effort, seed).map_err(violation("faults_by_chance"))?;
        bad_reads_are_never_served(under_test, seed).map_err(violation("bad_reads_are_never_served"))?;
    }
    Ok(())
}

/// Runs `body` on a store in a fresh machine, then lets the power go, with several outcomes.
fn in_store<T>(
    under_test: &T,
    effort: Effort,
    seed: u64,
    body: impl AsyncFnOnce(&Sim, &Session<'_, T::Storage>, &mut Random) -> Checked,
) -> Checked
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let sim = machine(Sim::new(seed));
    let mut random = Random::new(seed);
    let history = RefCell::new(History::default());
    let platform = sim.platform();
    let run = async {
        let session = Session::begin(under_test.open(&platform, Path::new("/data")).await?, &history).await?;
        let ending = work(&session, &platform, &mut random, Load::SMALL, effort.batches).await?;
        must(ending == Ending::Done, "work was refused though nothing failed")?;
        body(&sim, &session, &mut random).await
    };
    sim.run_until(run).map_err(|halt| format!("the machine halted: {halt:?}"))??;
    sim.clear_faults();
    check_outcomes(under_test, sim, &history.into_inner(), effort, random)
}

fn failure_poisons<T>(under_test: &T, effort: Effort, seed: u64, operations: &'static [Operation]) -> Checked
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    in_store(under_test, effort, seed, async |sim, session, random| {
        session.must_append(&random_writes(random))?;
        sim.inject(Fault::eio(operations).times(u64::MAX));
        let next = random_writes(random);
        let (committed, appended) =
            zip(session.commit(), async { session.append(&next).map(|answer| answer.is_ok()) }).await;
        match committed {
            Err(CommitError::OutcomeUnknown { reason }) => must(!reason.is_empty(), "OutcomeUnknown without a reason")?,
            other => return Err(format!("while all of {operations:?} fail, commit answered {other:?}")),
        }
        session.verify().await.map_err(|error| format!("after a failed commit, {error}"))?;
        if appended? {
            must(session.commit().await.is_err(), "the batch behind a failed one was acknowledged")?;
        }
        must_be_poisoned(session, random)?;
        sim.clear_faults();
        sim.platform().clock().sleep(Duration::from_secs(5)).await;
        must_be_poisoned(session, random).map_err(|error| format!("when the disk is well again, {error}"))?;
        session.verify().await
    })
}

fn must_be_poisoned<S: Storage>(session: &Session<'_, S>, random: &mut Random) -> Checked {
    match session.append(&random_writes(random))? {
        Err(Refusal::Poisoned { reason }) => must(!reason.is_empty(), "Poisoned without a reason")?,
        other => return Err(format!("a poisoned store answers an append with {other:?}")),
    }
    let reason = session.storage.status().refuses_writes;
    must(reason.is_some_and(|reason| !reason.is_empty()), "a poisoned store's status does not say so")
}

/// A backend may carry on after a short write or poison itself: what it acknowledged must be there.
fn short_writes_lose_nothing<T>(under_test: &T, effort: Effort, seed: u64, skip: u64) -> Checked
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    in_store(under_test, effort, seed, async |sim, session, random| {
        sim.inject(Fault::next(Operation::WRITING, Effect::Short).after(skip));
        sim.inject(Fault::next(&[Operation::Read], Effect::Short).after(skip));
        work(session, &sim.platform(), random, Load::SMALL, effort.batches).await?;
        session.verify().await
    })
}

fn out_of_space_ends<T>(under_test: &T, effort: Effort, seed: u64) -> Checked
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    const BODY_BYTES: u64 = 128 << 10;
    in_store(under_test, effort, seed, async |sim, session, random| {
        let capacity_bytes = sim.poke(|image| image.used_bytes()) + (512 << 10);
        sim.set_capacity_bytes(Some(capacity_bytes));
        let mut body = vec![0; BODY_BYTES as usize];
        let mut number = 0;
        let mut write = async || {
            number += 1;
            random.fill(&mut body);
            if let Err(refusal) = session.append(&[put("full", &number.to_string(), &body)])? {
                return Ok(Err(CommitError::Refused(refusal)));
            }
            Checked::Ok(session.commit().await)
        };
        let mut refused = None;
        for _ in 0..=capacity_bytes / BODY_BYTES {
            if let Err(error) = write().await? {
                refused = Some(error);
                break;
            }
        }
        match refused {
            Some(CommitError::Refused(Refusal::OutOfSpace)) => {}
            other => return Err(format!("a full disk is answered with {other:?}")),
        }
        session.verify().await.map_err(|error| format!("on a full disk, {error}"))?;
        sim.set_capacity_bytes(None);
        let mut seconds = 0;
        while write().await?.is_err() {
            seconds += 1;
            must(seconds < 120, "writes do not resume within two minutes of space returning")?;
            sim.platform().clock().sleep(Duration::from_secs(1)).await;
        }
        session.verify().await
    })
}

/// Lives with failures by chance, in which a store may refuse anything but reads, and lives without between them.
fn faults_by_chance<T>(under_test: &T, effort: Effort, seed: u64) -> Checked
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let mut random = Random::new(seed);
    let mut history = History::default();
    let mut image = DiskImage::default();
    for number in 0..8 {
        let mut life = Life::quiet(random.next_u64(), effort.batches * 2);
        if number % 2 == 0 {
            life.rates = FaultRates {
                write_error_ppm: random.below(60_000) as u32,
                sync_error_ppm: random.below(60_000) as u32,
                short_write_ppm: random.below(60_000) as u32,
                short_read_ppm: 200_000,
                ..FaultRates::default()
            };
            life.may_fail = true;
        }
        let sim = Sim::on_disk(random.next_u64(), image);
        let in_life = |detail| format!("in life {number} with {:?}: {detail}", life.rates);
        let (sim, _) = live(under_test, sim, &mut history, life).map_err(in_life)?;
        image = if random.below(2) == 0 { sim.kill() } else { sim.crash() };
    }
    Ok(())
}

/// Reads that fail, and bits that rot: a read gives the right document or an error.
fn bad_reads_are_never_served<T>(under_test: &T, seed: u64) -> Checked
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let sim = machine(Sim::new(seed));
    let history = RefCell::new(History::default());
    let platform = sim.platform();
    let run = async {
        let session = Session::begin(under_test.open(&platform, Path::new("/data")).await?, &history).await?;
        work(&session, &platform, &mut Random::new(seed), Load::SMALL, 8).await?;
        let expected = session.history.borrow().visible();
        for (read_error_ppm, rot_ppm) in [(300_000, 0), (0, 300_000)] {
            sim.set_fault_rates(FaultRates { read_error_ppm, rot_ppm, ..FaultRates::default() });
            let mut errors = 0;
            for (name, (version, body)) in expected.iter().cycle().take(200) {
                match session.storage.read(entity(name)).await {
                    Err(_) => errors += 1,
                    Ok(Some((found, document))) if found == *version && document.body() == &body[..] => {}
                    Ok(_) => return Err(format!("{name:?} was read wrong and served")),
                }
            }
            must(errors > 0, "no read failed though many should: does it read the disk?")?;
        }
        Checked::Ok(())
    };
    sim.run_until(run).map_err(|halt| format!("the machine halted: {halt:?}"))?
}
