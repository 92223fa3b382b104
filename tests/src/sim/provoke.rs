//! Steps that bring about what chance alone seldom does: operations that overtake each other on a slow disk, and a
//! crash just when an old key may go. They only ask and wait; what comes of it is judged like everything else.

use super::branch;
use super::checks;
use super::client::Client;
use super::life::Life;
use super::model::{Broken, Name};
use super::plan::{FLOOD, Operation, Step, number_in_flood, pick};
use super::server::Server;
use deltadb::runtime::sim::{Effect, Fault, Operation as DiskOperation, Random};
use std::rc::Rc;
use std::time::Duration;

impl Life<'_> {
    /// Some of the next operations take long.
    pub(super) fn slow_disk_down(&self, random: &mut Random) {
        const KINDS: [(&[DiskOperation], &str); 7] = [
            (&[DiskOperation::Read], ""),
            (&[DiskOperation::Write, DiskOperation::Sync], ".ckpt"),
            (&[DiskOperation::Write, DiskOperation::Sync], ".ckpt"),
            (DiskOperation::WRITING, ".seg"),
            (DiskOperation::MAKING_DURABLE, ""),
            (&[DiskOperation::SyncDir, DiskOperation::Rename], ""),
            (&[DiskOperation::Remove, DiskOperation::Create, DiskOperation::Open], ""),
        ];
        let (operations, path) = KINDS[random.below(KINDS.len() as u64) as usize];
        let delay = Duration::from_millis(random.between(1, 60));
        let (skip, times) = (random.below(4), random.between(1, 6));
        self.world.tell(|| format!("      slow: {times} of {operations:?} '{path}' after {skip} take {delay:?}"));
        self.sim.inject(Fault::next(operations, Effect::Delay(delay)).on_path(path).after(skip).times(times));
    }

    /// Right after a checkpoint, which recoveries will begin with from now on: what if the power went?
    pub(super) fn fork_after_checkpoint(&self, step: Step, server: &Server, random: &mut Random) -> Result<(), Broken> {
        let checkpoints = (0..server.shards()).map(|shard| server.figures(shard).checkpoints.value()).sum();
        if self.checkpoints.replace(checkpoints) < checkpoints && random.below(3) == 0 {
            self.world.hit("branch: fork after a checkpoint");
            branch::what_if_the_power_went(self.world, self.sim, step.number)?;
        }
        Ok(())
    }

    /// A read that the disk keeps waiting, a write of the same entity meanwhile, then a read by one who knows of both.
    pub(super) async fn race(&self, step: Step, server: &Rc<Server>, random: &mut Random) -> Result<(), Broken> {
        self.await_room().await?;
        let living = self.world.model.borrow().living_names();
        let Some(name) = living.get(random.below(living.len() as u64) as usize) else { return Ok(()) };
        server.clear_caches();
        let delay = Duration::from_millis(random.between(1, 20));
        self.sim.inject(Fault::next(&[DiskOperation::Read], Effect::Delay(delay)));
        self.begin(self.client_on(name, step, server), Operation::Get);
        self.pause(Duration::from_micros(random.below(100))).await;
        let change = if random.below(3) == 0 { Operation::Put } else { Operation::Delete };
        self.begin(self.client_on(name, step, server), change);
        self.await_answers(0).await?;
        self.begin(self.client_on(name, step, server), Operation::Get);
        self.world.hit("races");
        Ok(())
    }

    /// A new data key; then, at a moment when the old one may have been dropped: what if the power went?
    pub(super) async fn rotate_and_fork(
        &self,
        step: Step,
        server: &Rc<Server>,
        random: &mut Random,
    ) -> Result<(), Broken> {
        self.await_room().await?;
        // What is still to be rewritten keeps the old key in use.
        let slow =
            Fault::next(&[DiskOperation::Read], Effect::Delay(Duration::from_millis(self.world.setup.drop_keys_ms)));
        self.sim.inject(slow.on_path(".seg"));
        self.begin(Client::new(self.world.clone(), server.clone(), step.number), Operation::RotateKey);
        self.await_answers(0).await?;
        self.pause(Duration::from_micros(random.below(1_500 * self.world.setup.drop_keys_ms))).await;
        branch::what_if_the_power_went(self.world, self.sim, step.number)
    }

    /// More at once than may wait, on a disk that is slow: what is refused was not done, the rest is done.
    pub(super) async fn flood(&self, step: Step, server: &Rc<Server>, random: &mut Random) -> Result<(), Broken> {
        const OPERATIONS: [(u64, Operation); 6] = [
            (6, Operation::Put),
            (2, Operation::Delete),
            (3, Operation::MultiPut),
            (6, Operation::Get),
            (2, Operation::MultiGet),
            (1, Operation::List),
        ];
        self.await_answers(0).await?;
        if random.below(2) == 0 {
            server.clear_caches();
        }
        let delay = Effect::Delay(Duration::from_millis(random.between(1, 20)));
        for operations in [DiskOperation::MAKING_DURABLE, &[DiskOperation::Read]] {
            self.sim.inject(Fault::next(operations, delay).on_path(".seg").times(random.between(1, 4)));
        }
        for operation in 0..FLOOD {
            let number = number_in_flood(step.number, operation);
            self.begin(Client::new(self.world.clone(), server.clone(), number), pick(&OPERATIONS, random));
        }
        self.pause(Duration::from_micros(random.between(10, 2_000))).await;
        checks::at_every_step(self.world, server)?;
        self.await_answers(0).await?;
        self.world.hit("floods");
        Ok(())
    }

    fn client_on(&self, name: &Name, step: Step, server: &Rc<Server>) -> Client {
        let client = Client::new(self.world.clone(), server.clone(), step.number);
        Client { name: Some(name.clone()), ..client }
    }
}
