//! Branches: what a crash or damage at this moment would come to, tried on a copy of the disk while the history itself
//! goes on as if nothing had happened.

use super::admin::settle_templates;
use super::checks;
use super::client::Client;
use super::damage::{Damage, inflict};
use super::model::{Broken, broken};
use super::plan::{Operation, Stream, stream};
use super::server::{Server, StartFailure, StartOptions};
use super::world::World;
use deltadb::runtime::sim::{DiskImage, Halt, PowerCut, Random, Sim, Survival};
use deltadb::storage::ReadError;
use std::rc::Rc;

/// Steps of branches are numbered from here.
pub(super) const BRANCH_STEPS: u32 = 1 << 30;

/// The power goes right now: what is left must open, hold what it may, be of use, and hold it again.
pub fn what_if_the_power_went(world: &Rc<World>, sim: &Sim, step: u32) -> Result<(), Broken> {
    world.hit("branch: fork");
    let mut random = stream(world.setup.seed, step, Stream::Machine);
    let survival = [Survival::Nothing, Survival::Everything, Survival::Random, Survival::Random];
    let survival = survival[random.below(4) as usize];
    let image = sim.poke(|image| image.after_power_loss(survival, random.next_u64()));
    outlives_a_crash(world, image, &mut random)
}

/// The same in the very moment of an acknowledgement, and nothing survives that is not stable.
pub fn what_if_the_power_went_now(world: &Rc<World>, disk: &DiskImage, random: &mut Random) -> Result<(), Broken> {
    world.hit("branch: fork at an acknowledgement");
    let image = disk.after_power_loss(Survival::Nothing, random.next_u64());
    outlives_a_crash(world, image, random)
}

/// A process was killed and left this disk: the power goes at some of the sync points of the start that follows. What
/// that start has already built upon must be durable.
pub fn what_if_the_power_went_in_the_start(
    world: &Rc<World>,
    image: &DiskImage,
    random: &mut Random,
) -> Result<(), Broken> {
    const CUTS: u64 = 10;
    world.hit("branch: crash in a start after a kill");
    let mut sync_points = 1;
    // The first start is left alone, to count them.
    for cut in 0..=CUTS {
        let mut image = image.clone();
        image.set_capacity_bytes(None);
        let sim = Sim::on_disk(random.next_u64(), image);
        sim.set_direct_alignment(world.setup.direct_alignment);
        let number = random.between(1, sync_points);
        match (cut, random.below(2)) {
            (0, _) => {}
            (_, 0) => sim.cut_power(PowerCut::DuringSync(number)),
            _ => sim.cut_power(PowerCut::AfterSync(number)),
        }
        match sim.run_until(start(&sim, world, StartOptions::default())) {
            Ok(started) => drop(started?),
            Err(Halt::PowerLost) => {}
            Err(halt) => return broken("the machine goes on", format!("{halt:?}")),
        }
        sync_points = sync_points.max(sim.sync_points());
        let survival = if random.below(4) == 0 { Survival::Random } else { Survival::Nothing };
        let left = sim.power_loss_image().after_power_loss(survival, random.next_u64());
        outlives_a_crash(world, left, random)?;
    }
    Ok(())
}

/// A disk after a crash, in the world that led to it: the next life is a good one, and so is the one after another
/// crash.
pub fn outlives_a_crash(world: &Rc<World>, mut image: DiskImage, random: &mut Random) -> Result<(), Broken> {
    let world = world.branch();
    image.set_capacity_bytes(None);
    for round in 0..2 {
        world.model.borrow_mut().lose_server();
        let sim = Sim::on_disk(random.next_u64(), image);
        sim.set_direct_alignment(world.setup.direct_alignment);
        world.watch(&sim);
        let run = async {
            let server = start(&sim, &world, StartOptions::default()).await?;
            let found = checks::whole(&server).await?;
            settle_templates(&world, &server).await?;
            world.model.borrow_mut().adopt(&found)?;
            world.model.borrow_mut().enter_generation(server.generation(), server.shards());
            if round == 0 {
                for (number, operation) in
                    [Operation::MultiPut, Operation::Put, Operation::Delete].into_iter().enumerate()
                {
                    let step = BRANCH_STEPS + number as u32;
                    Client::new(world.clone(), server.clone(), step).run(operation).await;
                }
            }
            checks::at_every_step(&world, &server)?;
            world.broken().map_or(Ok(()), |(_, broken)| Err(broken))
        };
        finished(sim.run_until(run))?;
        image = sim.power_loss_image().after_power_loss(Survival::Nothing, random.next_u64());
    }
    Ok(())
}

/// Files are damaged right now, and the server is started on them: it refuses, or says what is damaged, or nothing
/// that matters was hit. It never serves what nobody wrote, and never forgets in silence.
pub fn what_if_files_were_damaged(world: &Rc<World>, sim: &Sim, step: u32) -> Result<(), Broken> {
    let mut random = stream(world.setup.seed, step, Stream::Machine);
    let mut image = sim.disk_image();
    let Some((damage, path)) = inflict(&mut image, &mut random) else { return Ok(()) };
    world.hit("branch: damage");
    world.tell(|| format!("{step:>5} damage: {damage:?} of {}", path.display()));
    let told = |judged: Result<(), Broken>| {
        judged
            .map_err(|found| Broken { detail: format!("{damage:?} of {}: {}", path.display(), found.detail), ..found })
    };
    let branch = world.branch();
    branch.model.borrow_mut().lose_server();
    let result = told(starts_or_refuses(&branch, &image, damage, &mut random));
    world.coverage.borrow_mut().merge(&branch.coverage.borrow());
    result
}

fn starts_or_refuses(world: &Rc<World>, image: &DiskImage, damage: Damage, random: &mut Random) -> Result<(), Broken> {
    let sim = Sim::on_disk(random.next_u64(), image.clone());
    sim.set_direct_alignment(world.setup.direct_alignment);
    let run = async {
        match Server::start(&sim, &world.setup, StartOptions::default()).await {
            Ok(server) => judge_server(world, &server, damage).await.map(|()| true),
            Err(StartFailure::Damaged(_)) if damage != Damage::LostCheckpoint => Ok(false),
            Err(failure) => broken("damage is reported", format!("{failure:?}")),
        }
    };
    if finished(sim.run_until(run))? {
        return Ok(());
    }
    world.hit("branch: refused as damaged");
    match damage {
        Damage::Forged => world.hit("branch: forged frame refused"),
        Damage::LastFrame => world.hit("branch: damaged last frame refused"),
        _ => {}
    }
    let sim = Sim::on_disk(random.next_u64(), image.clone());
    sim.set_direct_alignment(world.setup.direct_alignment);
    let run = async {
        let options = StartOptions { salvage: true, ..StartOptions::default() };
        // Where the store itself is damaged, nothing can be salvaged without a backup.
        let Ok(server) = Server::start(&sim, &world.setup, options).await else { return Ok(()) };
        world.hit("branch: salvaged");
        let observed = server.observe().await;
        let model = world.model.borrow();
        for (name, reads) in observed {
            for (version, body) in reads.into_iter().filter_map(|(_, read)| read.ok()) {
                model.judge_salvaged(&name, version, &body)?;
            }
        }
        Ok(())
    };
    finished(sim.run_until(run))
}

/// The server runs on damaged files.
async fn judge_server(world: &Rc<World>, server: &Rc<Server>, damage: Damage) -> Result<(), Broken> {
    let reported = server.reports().iter().any(|report| !report.damage.is_empty());
    let mut corrupted = false;
    let mut found = std::collections::BTreeMap::new();
    for (name, reads) in server.observe().await {
        for (shard, read) in reads {
            if shard != server.owner_of(&name) {
                return broken("one owner a key", format!("{name:?} lies in shard {shard}"));
            }
            match read {
                Ok(read) => {
                    found.insert(name.clone(), read);
                }
                Err(ReadError::Corrupted { .. }) => {
                    corrupted = true;
                    // It is there and says what is wrong: that is not a loss.
                    if let Some(known) = world.model.borrow().expected().remove(&name) {
                        found.insert(name.clone(), known);
                    }
                }
                Err(error) => return broken("damage is reported", format!("{name:?}: {error}")),
            }
        }
    }
    let adopted = world.model.borrow_mut().adopt(&found);
    adopted.map_err(|broken| Broken { rule: "damage is never served", ..broken })?;
    if corrupted && damage == Damage::LostCheckpoint {
        return broken("a checkpoint can be lost", "records cannot be read without it");
    }
    match damage {
        Damage::LostCheckpoint if reported => world.hit("branch: lost checkpoint, all found"),
        Damage::Forged if corrupted => world.hit("branch: forged frame refused"),
        _ => {}
    }
    if corrupted {
        world.hit("branch: corrupted reads refused");
    }
    Ok(())
}

pub(super) async fn start(sim: &Sim, world: &World, options: StartOptions) -> Result<Rc<Server>, Broken> {
    match Server::start(sim, &world.setup, options).await {
        Ok(server) => match server.reports().iter().find_map(|report| report.damage.first()) {
            Some(damage) => broken("nothing is damaged by itself", damage.to_string()),
            None => Ok(server),
        },
        Err(failure) => broken("the store opens", format!("after a crash: {failure:?}")),
    }
}

pub(super) fn finished<T>(ended: Result<Result<T, Broken>, Halt>) -> Result<T, Broken> {
    match ended {
        Ok(result) => result,
        Err(halt) => broken("the machine goes on", format!("{halt:?}")),
    }
}
