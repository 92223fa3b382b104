//! Branches in which sectors rot under a server that runs, on a copy of the disk: what was synced is not what is read any
//! more, and reads, the scrub, compaction, a rotation, a restart or a resize meet it.
//!
//! The rule: an entity whose newest record rotted may be answered by the error that says so, and never by other bytes;
//! every other entity is served as ever, writes are taken, and a write of a rotten entity heals it. A start may refuse
//! the damage; then nothing wrong is salvaged either.

use super::admin::settle_templates;
use super::branch::{BRANCH_STEPS, finished, start};
use super::checks;
use super::client::Client;
use super::damage::{FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, any, frames, is_sealed, number};
use super::model::{Broken, Name, broken};
use super::plan::{Operation, Stream, pick, stream};
use super::server::{Server, StartFailure, StartOptions};
use super::world::{Layout, World};
use deltadb::runtime::platform::{Clock, Platform};
use deltadb::runtime::sim::{DiskImage, Random, Sim, Survival};
use deltadb::storage::{ReadError, Storage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Operations while the server runs.
const OPERATIONS: u32 = 48;

/// Flipped bits a branch at most.
const FLIPS_MAX: u64 = 6;

/// How the server that met the rot ends, and what the next start is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    AfterPowerCut,
    AfterStop,
    Resize(u16),
}

/// Sectors rot right now and for a while, and the server goes on.
pub fn what_if_sectors_rotted(world: &Rc<World>, sim: &Sim, step: u32) -> Result<(), Broken> {
    let mut random = stream(world.setup.seed, step, Stream::Machine);
    let image = sim.disk_image();
    world.hit("branch: sectors rotted");
    let branch = world.branch();
    branch.model.borrow_mut().lose_server();
    let result = lives_with_rot(&branch, image, &mut random);
    let counted = branch.coverage.borrow();
    // What its clients were told is no part of the history that the batch is judged by.
    let rot = counted.beginning_with("rot: ");
    world.coverage.borrow_mut().merge(&rot);
    result
}

fn lives_with_rot(world: &Rc<World>, image: DiskImage, random: &mut Random) -> Result<(), Broken> {
    let next = [Next::AfterPowerCut, Next::AfterStop, Next::Resize(random.between(1, 4) as u16)];
    let next = next[random.below(3) as usize];
    let sim = machine(world, image, random);
    let life = async {
        let server = start(&sim, world, StartOptions::default()).await?;
        let found = checks::whole(&server).await?;
        settle_templates(world, &server).await?;
        world.model.borrow_mut().adopt(&found)?;
        work_while_it_rots(world, &sim, &server, random).await?;
        let rotates = random.below(2) == 0;
        if rotates {
            // All that lies under the old key is to be rewritten.
            let client = Client::new(world.clone(), server.clone(), BRANCH_STEPS + OPERATIONS);
            client.run(Operation::RotateKey).await;
        }
        sim.platform().clock().sleep(Duration::from_millis(1_000)).await;
        count_what_was_met(world, &server, rotates);
        let found = what_is_served(world, &server).await?;
        judge_whole(world, &found)?;
        match next {
            Next::AfterPowerCut => Ok(()),
            _ => server.stop().await.or_else(|error| broken("a clean stop is one", error)),
        }
    };
    finished(sim.run_until(life))?;
    let image = match next {
        Next::AfterPowerCut => sim.power_loss_image().after_power_loss(Survival::Nothing, random.next_u64()),
        _ => sim.kill(),
    };
    let shards = if let Next::Resize(shards) = next { Some(shards) } else { None };
    restarts_with_rot(world, &image, shards, random)
}

fn machine(world: &Rc<World>, image: DiskImage, random: &mut Random) -> Sim {
    let sim = Sim::on_disk(random.next_u64(), image);
    sim.set_direct_alignment(world.setup.direct_alignment);
    world.watch(&sim);
    sim
}

async fn work_while_it_rots(
    world: &Rc<World>,
    sim: &Sim,
    server: &Rc<Server>,
    random: &mut Random,
) -> Result<(), Broken> {
    const MIX: [(u64, Operation); 8] = [
        (7, Operation::Put),
        (2, Operation::Delete),
        (2, Operation::MultiPut),
        (9, Operation::Get),
        (2, Operation::MultiGet),
        (2, Operation::List),
        (1, Operation::RotateKey),
        (1, Operation::Schemas),
    ];
    let mut flips = 0;
    for operation in 0..OPERATIONS {
        if flips < FLIPS_MAX && random.below(6) == 0 {
            flips += 1;
            rot(world, sim, server, random);
            server.clear_caches();
        }
        let mut client = Client::new(world.clone(), server.clone(), BRANCH_STEPS + operation);
        let rotten: Vec<Name> = world.rotten.borrow().keys().cloned().collect();
        if random.below(3) == 0 {
            client.name = any(&rotten, random);
        }
        client.run(pick(&MIX, random)).await;
        forget_what_healed(world, server);
        if let Some((_, broken)) = world.broken() {
            return Err(broken);
        }
        checks::at_every_step(world, server)?;
    }
    Ok(())
}

/// A bit flips: mostly in the newest record of some entity, at times anywhere in the shards' files.
fn rot(world: &World, sim: &Sim, server: &Server, random: &mut Random) {
    let files = sim.poke(|image| image.list_files());
    let ending = |suffix: &str| -> Vec<PathBuf> {
        let matching = files.iter().filter(|(path, _)| path.to_string_lossy().ends_with(suffix));
        matching.map(|(path, _)| path.clone()).collect()
    };
    match random.below(10) {
        0 => flip_anywhere(world, sim, &ending(".ckpt"), random),
        1 => flip_anywhere(world, sim, &ending("MANIFEST"), random),
        _ => {
            let Some(path) = any(&ending(".seg"), random) else { return };
            flip_in_segment(world, sim, server, &path, random);
        }
    }
}

fn flip_anywhere(world: &World, sim: &Sim, files: &[PathBuf], random: &mut Random) {
    let Some(path) = any(files, random) else { return };
    sim.poke(|image| {
        let bits = image.peek(&path).map_or(0, |bytes| bytes.len() as u64 * 8);
        if bits > 0 && image.flip_bit(&path, random.below(bits)).is_ok() {
            world.has_rot.set(true);
        }
    });
}

/// Never in the last frame of an open segment: before another frame follows, damage there is a torn write after a crash.
fn flip_in_segment(world: &World, sim: &Sim, server: &Server, path: &Path, random: &mut Random) {
    let Ok(segment) = sim.poke(|image| image.peek(path)) else { return };
    let mut all = frames(&segment);
    if !is_sealed(&segment) {
        all.pop();
    }
    let Some((at, padded)) = any(&all, random) else { return };
    // A length that rotted tells nothing of where records are.
    let mut layouts = world.layouts.borrow_mut();
    let records = layouts.entry((path.to_owned(), at)).or_insert_with(|| records_of(&segment, at)).clone();
    let chosen = any(&records, random).filter(|_| random.below(5) > 0);
    let bit = match chosen {
        Some((from, to, _)) => random.between(from as u64 * 8, to as u64 * 8 - 1),
        None => random.between(at as u64 * 8, (at + padded) as u64 * 8 - 1),
    };
    let hit = records.into_iter().find(|(from, to, _)| (*from as u64 * 8..*to as u64 * 8).contains(&bit));
    if sim.poke(|image| image.flip_bit(path, bit)).is_err() {
        return;
    }
    world.has_rot.set(true);
    let Some((_, _, version)) = hit else { return };
    let shard = (0..server.shards()).find(|shard| path.starts_with(server.shard_directory(*shard)));
    let names = world.model.borrow().names();
    let lies_there =
        |name: &&Name| shard == Some(server.owner_of(name)) && server.durable_version(name) == Some(version);
    // Several, where a resize put shards together: then it is one of them.
    world.rotten.borrow_mut().extend(names.iter().filter(lies_there).map(|name| (name.clone(), version)));
}

/// Where the records of a frame begin and end, and their versions.
fn records_of(segment: &[u8], frame: usize) -> Layout {
    let end = frame + number(&segment[frame..], 44, 4) as usize;
    let (mut at, mut found) = (frame + FRAME_HEADER_BYTES, Vec::new());
    while at + RECORD_HEADER_BYTES <= end.min(segment.len()) {
        let record_end = at + RECORD_HEADER_BYTES + number(&segment[at..], 4, 4) as usize;
        if record_end > end {
            break;
        }
        found.push((at, record_end, number(&segment[at..], 8, 8)));
        at = record_end;
    }
    found
}

/// A newer version lies elsewhere.
fn forget_what_healed(world: &World, server: &Server) {
    let healed = |name: &Name, version: &u64| server.durable_version(name) != Some(*version);
    world.rotten.borrow_mut().retain(|name, version| {
        let healed = healed(name, version);
        if healed {
            world.hit("rot: healed by a write");
        }
        !healed
    });
}

fn count_what_was_met(world: &World, server: &Server, rotated: bool) {
    for shard in 0..server.shards() {
        if server.figures(shard).scrub_damage.value() > 0 {
            world.hit("rot: met by the scrub");
        } else if rotated && world.has_rot.get() && server.storage(shard).status().segments_on_old_keys > 0 {
            world.hit("rot: left alone by compaction");
        }
    }
}

/// All that a server holds, where what rotted counts as it was when it says so.
async fn what_is_served(world: &World, server: &Server) -> Result<BTreeMap<Name, (u64, Rc<[u8]>)>, Broken> {
    let mut found = BTreeMap::new();
    for (name, mut reads) in server.observe().await {
        let holders: Vec<usize> = reads.iter().map(|(shard, _)| *shard).collect();
        if holders != [server.owner_of(&name)] {
            return broken("one owner a key", format!("{name:?} lies in shards {holders:?}"));
        }
        let known = world.model.borrow().expected().remove(&name);
        let read = match (reads.pop().map(|(_, read)| read), known) {
            (Some(Ok(read)), _) => read,
            (Some(Err(ReadError::Corrupted { .. })), Some(known)) if is_rotten(world, &name) => known,
            (Some(Err(error)), _) => return broken("damage does not spread", format!("{name:?}: {error}")),
            (None, _) => continue,
        };
        found.insert(name, read);
    }
    Ok(found)
}

fn is_rotten(world: &World, name: &Name) -> bool {
    world.rotten.borrow().contains_key(name)
}

fn judge_whole(world: &World, found: &BTreeMap<Name, (u64, Rc<[u8]>)>) -> Result<(), Broken> {
    let expected = world.model.borrow().expected();
    match *found == expected {
        true => Ok(()),
        false => broken("damage does not spread", checks::difference(&expected, found)),
    }
}

/// The next start serves what did not rot, or refuses what did.
fn restarts_with_rot(
    world: &Rc<World>,
    image: &DiskImage,
    shards: Option<u16>,
    random: &mut Random,
) -> Result<(), Broken> {
    world.model.borrow_mut().lose_server();
    let refusal = match try_start(world, image, StartOptions { shards, salvage: false }, random)? {
        None => return Ok(()),
        Some(refusal) => refusal,
    };
    if !world.has_rot.get() {
        return broken("the store opens", refusal);
    }
    if shards.is_some() {
        world.hit("rot: resizes refused");
        // What there was is still there, as it was.
        if try_start(world, image, StartOptions::default(), random)?.is_none() {
            return Ok(());
        }
    }
    world.hit("rot: restarts refused");
    salvages_nothing_wrong(world, image, random)
}

/// Starts and judges what is served; the reason when it refuses.
fn try_start(
    world: &Rc<World>,
    image: &DiskImage,
    options: StartOptions,
    random: &mut Random,
) -> Result<Option<String>, Broken> {
    let sim = machine(world, image.clone(), random);
    let run = async {
        let server = match Server::start(&sim, &world.setup, options).await {
            Ok(server) => server,
            Err(StartFailure::Damaged(reason)) => return Ok(Some(reason)),
            Err(failure) => return broken("damage is reported", format!("{failure:?}")),
        };
        let found = what_is_served(world, &server).await?;
        judge_whole(world, &found)?;
        let serves_rot = !world.rotten.borrow().is_empty();
        world.hit(if serves_rot { "rot: restarts that serve the rest" } else { "rot: restarts without any" });
        Ok(None)
    };
    world.hit("rot: met by a restart");
    finished(sim.run_until(run))
}

fn salvages_nothing_wrong(world: &Rc<World>, image: &DiskImage, random: &mut Random) -> Result<(), Broken> {
    let sim = machine(world, image.clone(), random);
    let run = async {
        let options = StartOptions { salvage: true, ..StartOptions::default() };
        let Ok(server) = Server::start(&sim, &world.setup, options).await else { return Ok(()) };
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
