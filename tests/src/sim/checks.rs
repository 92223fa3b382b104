//! Invariants: those that hold at every step, and those of a server that owes nothing.

use super::model::{Body, Broken, Name, broken};
use super::server::Server;
use super::world::World;
use deltadb::command::Version;
use deltadb::limits::RETIRED_KEPT_MAX;
use deltadb::runtime::sim::Sim;
use deltadb::storage::{ReadError, Storage};
use std::collections::BTreeMap;

/// Bytes an index may take beyond its keys: a hundred an entity, and tables that are never smaller.
const INDEX_BYTES_MIN: u64 = 256 << 10;

const ONE_OWNER: &str = "one owner a key";

/// What holds after every step.
pub fn at_every_step(world: &World, server: &Server) -> Result<(), Broken> {
    if let Some(broken) = world.watch.borrow().broken.clone() {
        return Err(broken);
    }
    let model = world.model.borrow();
    for name in model.names() {
        let (owner, holders) = (server.owner_of(&name), server.holders_of(&name));
        if holders.iter().any(|holder| *holder != owner) {
            return broken(ONE_OWNER, format!("{name:?} of shard {owner} lies in shards {holders:?}"));
        }
        model.judge_index(&name, server.durable_version(&name))?;
    }
    drop(model);
    nothing_is_damaged(world, server)?;
    within_bounds(world, server)
}

/// Nobody has damaged anything, so neither the scrub nor compaction nor a reader finds damage. A disk that fails to read
/// may look damaged.
fn nothing_is_damaged(world: &World, server: &Server) -> Result<(), Broken> {
    if world.licence.get().reads || world.has_rot.get() {
        return Ok(());
    }
    match (0..server.shards()).find_map(|shard| server.storage(shard).status().damage.into_iter().next()) {
        Some(damage) => broken("nothing is damaged by itself", damage),
        None => Ok(()),
    }
}

/// Memory: queues hold no more than was asked for, the cache and the index no more than they may.
fn within_bounds(world: &World, server: &Server) -> Result<(), Broken> {
    const RULE: &str = "memory is bounded";
    // Ten keys a command at most, one errand a shard for each, and the housekeeping's own.
    let owed_max = (world.setup.clients.max(world.in_flight.get()) + 2) * 12 * server.shards();
    let waiting_max = world.setup.mailbox_bounds(server.shards()).waiting;
    for shard in 0..server.shards() {
        let owed = server.outstanding(shard);
        if owed > owed_max {
            return broken(RULE, format!("shard {shard} owes {owed} answers, {owed_max} can have been asked for"));
        }
        let waiting = server.waiting_for_room(shard);
        if waiting > waiting_max {
            return broken(RULE, format!("shard {shard} keeps {waiting} errands waiting, {waiting_max} may wait"));
        }
        let figures = server.figures(shard);
        if figures.cache_bytes.value() > world.setup.cache_bytes as u64 {
            return broken(RULE, format!("the cache of shard {shard} holds {} bytes", figures.cache_bytes.value()));
        }
        let status = server.storage(shard).status();
        let index_max = INDEX_BYTES_MIN + status.entities * 200;
        if status.index_bytes > index_max {
            return broken(RULE, format!("the index of shard {shard} takes {} bytes", status.index_bytes));
        }
    }
    Ok(())
}

/// What holds once every answer came and background work had its time.
pub async fn when_quiet(world: &World, server: &Server, sim: &Sim) -> Result<(), Broken> {
    world.model.borrow_mut().judge_conditions()?;
    for shard in 0..server.shards() {
        let owed = server.outstanding(shard);
        // Housekeeping asks the other shards for their keys now and then.
        if owed > 2 {
            return broken(
                "one answer a request",
                format!("shard {shard} still owes {owed} answers that nobody waits for"),
            );
        }
    }
    let found = whole(server).await?;
    let expected = world.model.borrow().expected();
    if found != expected {
        return broken("the index is the model", difference(&expected, &found));
    }
    little_is_left_over(world, server, sim)
}

/// All entities of a store, each held by its owner alone and readable.
pub async fn whole(server: &Server) -> Result<BTreeMap<Name, (Version, Body)>, Broken> {
    let mut found = BTreeMap::new();
    for (name, mut reads) in server.observe().await {
        let holders: Vec<usize> = reads.iter().map(|(shard, _)| *shard).collect();
        if holders != [server.owner_of(&name)] {
            return broken(ONE_OWNER, format!("{name:?} lies in shards {holders:?}"));
        }
        match reads.pop().map(|(_, read)| read) {
            Some(Ok(read)) => {
                found.insert(name, read);
            }
            Some(Err(error @ ReadError::Corrupted { .. })) => {
                return broken("what is stored can be read", format!("{name:?}: {error}"));
            }
            Some(Err(error)) => return broken("nothing fails without a reason", format!("{name:?}: {error}")),
            None => {}
        }
    }
    Ok(found)
}

/// Files: no segment, checkpoint or temporary file stays behind that nobody needs.
fn little_is_left_over(world: &World, server: &Server, sim: &Sim) -> Result<(), Broken> {
    const RULE: &str = "disk space is bounded";
    if world.licence.get() != super::world::Licence::default() {
        return Ok(());
    }
    let files = sim.poke(|image| image.list_files());
    let count = |suffix: &str| files.iter().filter(|(path, _)| path.to_string_lossy().ends_with(suffix)).count();
    let listed: u64 = (0..server.shards()).map(|shard| server.storage(shard).status().segments).sum();
    // A shard keeps a spare, retired segments for reuse, one planned ahead, and may be writing a compacted one.
    let segments_max = listed as usize + (RETIRED_KEPT_MAX + 3) * server.shards();
    let checkpoints_max = 2 * server.shards();
    let temporary_max = 3 * server.shards() + 2;
    for (suffix, max) in [(".seg", segments_max), (".ckpt", checkpoints_max), (".tmp", temporary_max)] {
        if count(suffix) > max {
            let names: Vec<_> = files.iter().map(|(path, _)| path.display().to_string()).collect();
            return broken(RULE, format!("{} files end in {suffix}: {}", count(suffix), names.join(" ")));
        }
    }
    Ok(())
}

/// The first difference in words.
pub fn difference(expected: &BTreeMap<Name, (Version, Body)>, found: &BTreeMap<Name, (Version, Body)>) -> String {
    let names = expected.keys().chain(found.keys());
    let Some(name) = names.into_iter().find(|name| expected.get(*name) != found.get(*name)) else {
        return "no difference".to_owned();
    };
    let words = |entry: Option<&(Version, Body)>| match entry {
        Some((version, body)) => format!("version {version} with {} bytes", body.len()),
        None => "nothing".to_owned(),
    };
    format!("{name:?}: {} was expected, {} was found", words(expected.get(name)), words(found.get(name)))
}
