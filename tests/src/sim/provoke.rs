//! Steps that bring about what chance alone seldom does: operations that overtake each other on a slow disk, and a
//! crash just when an old key may go. They only ask and wait; what comes of it is judged like everything else.

use super::branch;
use super::checks;
use super::client::Client;
use super::life::Life;
use super::model::{Broken, Name, broken};
use super::plan::{FLOOD, Operation, Step, number_in_flood, pick};
use super::server::Server;
use super::world::Licence;
use deltadb::runtime::sim::{Effect, Fault, Operation as DiskOperation, Random};
use std::rc::Rc;
use std::time::Duration;

/// What came of a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stalled {
    /// Everything is known again.
    Over,
    /// A shard was poisoned meanwhile: what became of the writes, the next start will say.
    Poisoned,
}

/// Operations that stall; a commit's most of all, since it has everybody wait.
const STALLING: [(&[DiskOperation], &str); 8] = [
    (&[DiskOperation::SyncedWrite], ".seg"),
    (&[DiskOperation::SyncedWrite], ".seg"),
    (DiskOperation::MAKING_DURABLE, ".seg"),
    (DiskOperation::WRITING, ""),
    (&[DiskOperation::Read], ".seg"),
    (&[DiskOperation::Read], ""),
    (&[DiskOperation::SyncDir, DiskOperation::Rename], ""),
    (&[DiskOperation::Create, DiskOperation::Open, DiskOperation::Remove, DiskOperation::SetLen], ""),
];

const WHILE_STALLED: [(u64, Operation); 10] = [
    (9, Operation::Put),
    (4, Operation::Delete),
    (4, Operation::MultiPut),
    (6, Operation::Get),
    (2, Operation::MultiGet),
    (1, Operation::List),
    (1, Operation::PutTemplate),
    (1, Operation::DeleteTemplate),
    (1, Operation::ReadTemplates),
    (1, Operation::RotateKey),
];

/// Operations begun during a stall.
const STALLED_OPERATIONS: u32 = 24;
/// Nobody waits longer for an answer, whatever stalls.
pub(super) const LONG_PATIENCE: Duration = Duration::from_secs(300);
/// What takes longer stalls.
const LONG_OPERATION: Duration = Duration::from_secs(1);
/// Time for whatever had to wait.
const AFTER_STALL: Duration = Duration::from_secs(2);

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

    /// One or two operations of the disk will take longer than anybody waits, after less than `skip` others.
    pub(super) fn let_disk_stall(&self, random: &mut Random, skip: u64) {
        let (operations, path) = STALLING[random.below(STALLING.len() as u64) as usize];
        let delay = Duration::from_millis(random.between(10_000, 40_000));
        let (skip, times) = (random.below(skip), random.between(1, 2));
        self.world.tell(|| format!("      a stall: {times} of {operations:?} '{path}' after {skip} take {delay:?}"));
        self.sim.inject(Fault::next(operations, Effect::Delay(delay)).on_path(path).after(skip).times(times));
        self.world.licence.set(Licence { stalls: true, ..self.world.licence.get() });
    }

    /// What was not struck until now is spared, and whatever had to wait has its time.
    pub(super) async fn let_disk_recover(&self) {
        self.sim.clear_faults();
        while let Some(left) = self.sim.busy_for().filter(|left| *left > LONG_OPERATION) {
            self.pause(left).await;
        }
        self.pause(AFTER_STALL).await;
    }

    /// An operation of the disk takes longer than anybody waits, while clients go on asking. Everybody is answered all
    /// the same; what was called unknown is there or not when the disk answers again, and stays so.
    pub(super) async fn stall(&self, step: Step, server: &Rc<Server>, random: &mut Random) -> Result<Stalled, Broken> {
        self.settle(server).await?;
        if random.below(3) == 0 {
            server.clear_caches();
        }
        let before = self.world.licence.get();
        self.let_disk_stall(random, 4);
        for operation in 0..STALLED_OPERATIONS {
            let client = Client::new(self.world.clone(), server.clone(), number_in_flood(step.number, operation));
            self.begin(client, pick(&WHILE_STALLED, random));
            if random.below(4) == 0 {
                self.pause(Duration::from_millis(random.below(4_000))).await;
                checks::at_every_step(self.world, server)?;
            }
            if random.below(STALLED_OPERATIONS.into()) == 0 {
                branch::what_if_the_power_went(self.world, self.sim, number_in_flood(step.number, operation))?;
            }
        }
        self.await_answers_for(LONG_PATIENCE, 0).await?;
        self.let_disk_recover().await;
        self.world.hit("stalls");
        if let Some((_, broken)) = self.world.broken() {
            return Err(broken);
        }
        if server.refuses_writes().is_some() && self.world.model.borrow().has_late_writes() {
            return Ok(Stalled::Poisoned);
        }
        if server.is_stalled() {
            return broken("writes resume", "the disk answers again, and a shard still begins none");
        }
        self.settle_late_writes(server).await?;
        self.world.licence.set(before);
        Ok(Stalled::Over)
    }

    /// The disk answers again: what was called unknown has happened or never will.
    async fn settle_late_writes(&self, server: &Rc<Server>) -> Result<(), Broken> {
        self.world.model.borrow_mut().judge_conditions()?;
        if !self.world.model.borrow().has_late_writes() {
            return Ok(());
        }
        let found = checks::whole(server).await?;
        let (there, gone) = self.world.model.borrow_mut().adopt(&found)?;
        self.world.coverage.borrow_mut().add("late writes found there", there);
        self.world.coverage.borrow_mut().add("late writes found gone", gone);
        Ok(())
    }

    fn client_on(&self, name: &Name, step: Step, server: &Rc<Server>) -> Client {
        let client = Client::new(self.world.clone(), server.clone(), step.number);
        Client { name: Some(name.clone()), ..client }
    }
}
