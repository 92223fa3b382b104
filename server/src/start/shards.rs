//! Another shard count: every live entity is written into a new generation, which is then published.

use crate::routing::Topology;
use crate::runtime::platform::Platform;
use crate::storage::log::{LogSizes, RewriteError, RewriteOptions, RewriteReport, rewrite_generation};
use crate::storage::store::{Store, StoreError};

/// Why the shard count was not changed. The store is as it was, unless `store.json` could not be published: then it is
/// the one or the other, whole.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The new generation was not written.
    #[error("the shard count was not changed, the store is as it was: {0}")]
    Rewrite(#[from] RewriteError),
    /// It was not published.
    #[error(transparent)]
    Publish(#[from] StoreError),
}

/// Writes every live entity into a new generation with another shard count and publishes it. The old generation is
/// removed once every shard of the new one is open.
pub async fn change_shards<P: Platform>(
    platform: &P,
    store: &Store,
    shards: u16,
    sizes: LogSizes,
) -> Result<RewriteReport, ChangeError> {
    let (from, to) = (store.generation(), store.generation() + 1);
    let topology = Topology::new(store.hash_seed(), usize::from(shards));
    let options = RewriteOptions {
        directory: store.layout().shards(),
        store_id: store.id(),
        generation_old: from as u32,
        shards_old: store.shards(),
        complete_old: store.is_complete(),
        generation_new: to as u32,
        shards_new: shards,
        keyring: store.keyring(),
        sizes,
    };
    let owner_of = |schema: &str, key: &str| topology.owner_of(schema, key);
    let report = rewrite_generation(platform.clone(), options, owner_of).await?;
    store.publish_generation(platform, shards, to).await?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::EntityRef;
    use crate::metrics::Metrics;
    use crate::runtime::sim::{DiskImage, Halt, PowerCut, Sim, SimPlatform, Survival};
    use crate::storage::log::{LogIdentity, LogOptions, LogStorage};
    use crate::storage::store::{RootKeyInput, StoreOptions};
    use crate::storage::{Change, Mutation, Storage};
    use std::cell::RefCell;
    use std::error::Error;

    /// Keys whose writes were acknowledged.
    type Acknowledged = RefCell<Vec<&'static str>>;

    fn sizes() -> LogSizes {
        LogSizes {
            segment_bytes_first: 32 << 10,
            segment_bytes_max: 64 << 10,
            batch_bytes: 16 << 10,
            batch_records: 64,
            records_in_flight: 128,
            window_bytes: 16 << 10,
            space_kept_bytes: 16 << 10,
            ..LogSizes::default()
        }
    }

    /// A start as the server's, which then finds all that was acknowledged and acknowledges one write more.
    async fn live(
        platform: &SimPlatform,
        shards: u16,
        key: &'static str,
        acknowledged: &Acknowledged,
    ) -> Result<(), Box<dyn Error>> {
        let options = StoreOptions {
            directory: "/data".into(),
            root_key: RootKeyInput::None,
            expected_key_id: None,
            shards_wanted: Some(shards),
            default_shards: 1,
        };
        let opened = Store::open_or_create(platform, options).await?;
        let store = opened.store;
        if let Some(shards) = opened.shards_wanted {
            change_shards(platform, &store, shards, sizes()).await?;
        }
        assert_eq!(store.shards(), shards);
        let mut logs = Vec::new();
        for shard in 0..shards {
            let options = LogOptions {
                create: !store.is_complete(),
                directory: store.shard_directory(shard.into()),
                identity: LogIdentity { store_id: store.id(), generation: store.generation() as u32, shard },
                keyring: store.keyring(),
                salvage: false,
                metrics: Metrics::new(shards.into()),
                sizes: sizes(),
            };
            logs.push(LogStorage::open(platform.clone(), options).await?);
        }
        store.complete_creation(platform).await?;
        store.remove_other_generations(platform).await?;
        let topology = Topology::new(store.hash_seed(), shards.into());
        let owner_of = |key| &logs[topology.owner_of("s", key)];
        let known = acknowledged.borrow().clone();
        for key in known {
            let found = owner_of(key).read(EntityRef { schema: "s", key }).await?;
            assert_eq!(found.expect("what was acknowledged").1.body(), key.as_bytes());
        }
        let change = Change { entity: EntityRef { schema: "s", key }, mutation: Mutation::Put(key.as_bytes()) };
        owner_of(key).append(&[change], &mut Vec::new())?;
        owner_of(key).commit().await?;
        acknowledged.borrow_mut().push(key);
        Ok(())
    }

    /// One life on a disk, ended by a cut or by itself: what it leaves, and whether it was cut.
    fn end(
        sim: Sim,
        shards: u16,
        key: &'static str,
        cut: PowerCut,
        acknowledged: &Acknowledged,
        place: &str,
    ) -> (Sim, bool) {
        sim.cut_power(cut);
        let platform = sim.platform();
        match sim.run_until(live(&platform, shards, key, acknowledged)) {
            Ok(outcome) => outcome.unwrap_or_else(|error| panic!("{place}: {error}")),
            Err(halt) => {
                assert!(matches!(halt, Halt::PowerLost), "{place}: {halt:?}");
                return (sim, true);
            }
        }
        (sim, false)
    }

    /// Then a start works, whatever the count, and finds what was acknowledged.
    fn goes_on(image: DiskImage, number: u64, acknowledged: &Acknowledged, place: &str) {
        let shards = 1 + (number % 3) as u16;
        end(Sim::on_disk(number, image), shards, "third", PowerCut::AtStep(u64::MAX), acknowledged, place);
    }

    /// The first start is cut short anywhere, and so is the second one, which asks for another count.
    #[test]
    fn a_creation_cut_short_anywhere_goes_on_with_any_shard_count_and_is_cut_short_again() {
        let (mut tried, mut completed) = (0, 0);
        for first in 1.. {
            let acknowledged = Acknowledged::default();
            let cut = PowerCut::DuringSync(first);
            let place = format!("first cut {first}");
            let (sim, was_cut) = end(Sim::new(first), 3, "first", cut, &acknowledged, &place);
            if !was_cut {
                break;
            }
            // The process alone dies, or the machine.
            let left = match first % 3 {
                0 => sim.kill(),
                1 => sim.power_loss_image().after_power_loss(Survival::Nothing, 0),
                _ => sim.power_loss_image().after_power_loss(Survival::Random, first),
            };
            for second in 1.. {
                let acknowledged = acknowledged.clone();
                let place = format!("first cut {first}, second cut {second}");
                let cut = PowerCut::DuringSync(second);
                let (sim, was_cut) = end(Sim::on_disk(second, left.clone()), 1, "second", cut, &acknowledged, &place);
                tried += 1;
                if !was_cut {
                    completed += 1;
                    goes_on(sim.kill(), first, &acknowledged, &place);
                    break;
                }
                let survival = if second % 2 == 0 { Survival::Nothing } else { Survival::Random };
                goes_on(
                    sim.power_loss_image().after_power_loss(survival, second),
                    first + second,
                    &acknowledged,
                    &place,
                );
            }
        }
        assert!(completed > 20 && tried > 400, "only {completed} creations and {tried} cuts were tried");
    }
}
