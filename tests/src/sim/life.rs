//! One life of the server: from its start through the steps of the plan to its end, whatever that is.

use super::admin::settle_templates;
use super::branch;
use super::checks;
use super::client::Client;
use super::model::{Broken, broken};
use super::plan::{Action, Operation, Plan, Step, Stream, When, stream};
use super::provoke::{LONG_PATIENCE, Stalled};
use super::rot;
use super::server::{PATIENCE, Server, StartFailure, StartOptions};
use super::setup::Weather;
use super::world::{Licence, World};
use deltadb::runtime::platform::{Clock, Platform, Spawn, TaskClass};
use deltadb::runtime::sim::{Effect, Fault, FaultRates, Operation as DiskOperation, PowerCut, Random, Sim};
use futures_lite::future::or;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// How a life ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Cleanly; the next start may be told another shard count.
    Stopped {
        /// That count.
        shards: Option<u16>,
    },
    /// The server did not start; the disk was allowed to fail.
    NotStarted,
    /// The process is killed now.
    Killed,
    /// The power goes now.
    PowerCut,
}

/// What a life begins with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beginning {
    /// Its number.
    pub number: u32,
    /// The shard count to ask for.
    pub shards: Option<u16>,
    /// The last life ended cleanly.
    pub after_clean_stop: bool,
    /// Nothing may fail: the last start did.
    pub spared: bool,
    /// Where the power is cut, for trying every sync point.
    pub cut: Option<PowerCut>,
}

/// A life.
pub struct Life<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The first step that was not taken yet.
    pub cursor: &'a Cell<usize>,
    /// The machine.
    pub sim: &'a Sim,
    /// The shared state.
    pub world: &'a Rc<World>,
    /// How it begins.
    pub beginning: Beginning,
    /// A kill is arranged, not a power cut.
    pub kill_arranged: &'a Cell<bool>,
    /// Checkpoints that it is known to have written.
    pub checkpoints: Cell<u64>,
    /// The server, once it has started, so that its figures can be read after its end.
    pub server: &'a RefCell<Option<Rc<Server>>>,
}

impl Life<'_> {
    /// Lives it.
    pub async fn run(&self) -> Result<Ending, Broken> {
        self.world.tell(|| format!("      life {} begins", self.beginning.number));
        self.prepare_machine();
        let options = StartOptions { shards: self.beginning.shards, salvage: false };
        self.world
            .licence
            .set(Licence { space: self.sim.poke(|image| image.free_bytes()) < 1 << 40, ..self.world.licence.get() });
        let stalls = self.start_may_stall();
        let server = match Server::start(self.sim, &self.world.setup, options).await {
            Ok(server) => server,
            Err(failure) => return self.did_not_start(failure),
        };
        if stalls {
            self.let_disk_recover().await;
            self.world.licence.set(Licence { stalls: false, ..self.world.licence.get() });
        }
        *self.server.borrow_mut() = Some(server.clone());
        self.look_around(&server).await?;
        while let Some(step) = self.next_step() {
            if let Some(ending) = self.take(step, &server).await? {
                return Ok(ending);
            }
            if let Some((_, broken)) = self.world.broken() {
                return Err(broken);
            }
            checks::at_every_step(self.world, &server)?;
        }
        self.end_of_plan(&server).await
    }

    fn next_step(&self) -> Option<Step> {
        let step = self.plan.steps.get(self.cursor.get()).copied();
        self.cursor.set(self.cursor.get() + 1);
        step
    }

    /// Faults of the whole life, and crashes arranged before the start.
    fn prepare_machine(&self) {
        let setup = &self.world.setup;
        self.sim.set_direct_alignment(setup.direct_alignment);
        self.sim.set_step_limit(30_000_000);
        self.world.watch(self.sim);
        let mut random = Random::for_purpose(setup.seed, 500 + u64::from(self.beginning.number));
        let mut rates = FaultRates::default();
        let mut licence = Licence::default();
        if setup.weather != Weather::Calm {
            // Short reads and slow disks are nothing to tell anybody about.
            rates.short_read_ppm = 20_000;
            rates.slow_ppm = [0, 2_000, 20_000][random.below(3) as usize];
        }
        let fails = if setup.has(Weather::Failing) && !self.beginning.spared { random.below(6) } else { 5 };
        if fails < 2 {
            let ppm = [300, 3_000][random.below(2) as usize];
            rates.write_error_ppm = ppm;
            rates.sync_error_ppm = ppm;
            rates.read_error_ppm = ppm;
            rates.short_write_ppm = ppm;
            rates.other_error_ppm = ppm / 3;
            licence = Licence { writes: true, reads: true, ..licence };
        } else if fails == 2 {
            rates.short_write_ppm = [10_000, 100_000][random.below(2) as usize];
            licence = Licence { writes: true, ..licence };
        }
        self.sim.set_fault_rates(rates);
        self.world.licence.set(licence);
        if let Some(cut) = self.beginning.cut {
            self.sim.cut_power(cut);
        }
        self.arrange_crash_in_resize();
        while let Some(step) = self.plan.steps.get(self.cursor.get()) {
            match step.action {
                Action::PowerCut(when) => self.arrange(when, false),
                Action::Kill(when) => self.arrange(when, true),
                _ => break,
            }
            self.cursor.set(self.cursor.get() + 1);
        }
    }

    /// In one start of three, where disks stall, it does so during the start: that takes long, and nothing else.
    fn start_may_stall(&self) -> bool {
        let setup = &self.world.setup;
        let mut random = Random::for_purpose(setup.seed, 1_000_000 + u64::from(self.beginning.number));
        let stalls = setup.stalls && random.below(3) == 0;
        if stalls {
            self.let_disk_stall(&mut random, 30);
            self.world.hit("stalls in a start");
        }
        stalls
    }

    /// The step that ended the last life asks for a crash in this start.
    fn arrange_crash_in_resize(&self) {
        let asked = self.cursor.get().checked_sub(1).and_then(|last| self.plan.steps.get(last));
        if let (Some(Step { action: Action::CrashInResize { when, kill, .. }, .. }), Some(_)) =
            (asked, self.beginning.shards)
        {
            self.arrange(*when, *kill);
        }
    }

    fn arrange(&self, when: When, kill: bool) {
        if self.beginning.cut.is_some() {
            return;
        }
        self.world.tell(|| format!("      {} arranged: {when:?}", if kill { "a kill" } else { "a power cut" }));
        self.kill_arranged.set(kill);
        self.sim.cut_power(match when {
            When::Polls(polls) => PowerCut::AtStep(self.sim.steps() + polls),
            When::DuringSync(count) => PowerCut::DuringSync(self.sim.sync_points() + count),
            When::AfterSync(count) => PowerCut::AfterSync(self.sim.sync_points() + count),
        });
    }

    fn did_not_start(&self, failure: StartFailure) -> Result<Ending, Broken> {
        self.world.tell(|| format!("      did not start: {failure:?}"));
        let licence = self.world.licence.get();
        let excused = match &failure {
            // An unreadable file is as good as a damaged one.
            StartFailure::Damaged(_) => licence.reads,
            StartFailure::OutOfSpace(_) => licence.space,
            StartFailure::Io(_) | StartFailure::Other(_) => licence.covers_starts(),
        };
        if !excused {
            return broken("the store opens", format!("{failure:?}"));
        }
        self.world.hit("starts that failed");
        Ok(Ending::NotStarted)
    }

    /// The end oracle of the last life: what is found is what may be found.
    async fn look_around(&self, server: &Rc<Server>) -> Result<(), Broken> {
        self.count_start(server)?;
        let found = checks::whole(server).await?;
        settle_templates(self.world, server).await?;
        let mut model = self.world.model.borrow_mut();
        if server.resized {
            self.world.hit("resizes");
        }
        let (there, gone) = model.adopt(&found)?;
        model.enter_generation(server.generation(), server.shards());
        self.world.coverage.borrow_mut().add("unknown writes found there", there);
        self.world.coverage.borrow_mut().add("unknown writes found gone", gone);
        Ok(())
    }

    fn count_start(&self, server: &Server) -> Result<(), Broken> {
        let clean = server.reports().iter().filter(|report| report.clean).count() as u64;
        let mut coverage = self.world.coverage.borrow_mut();
        coverage.add("clean starts", clean);
        coverage.add("recoveries", server.shards() as u64 - clean);
        for report in server.reports() {
            coverage.add("records replayed", report.records_replayed);
            // Nobody has damaged anything, so there is nothing to report. A disk that fails to read may look damaged.
            if !report.damage.is_empty() && !self.world.licence.get().reads {
                return broken("nothing is damaged by itself", report.damage[0].to_string());
            }
        }
        if self.beginning.after_clean_stop && clean < server.shards() as u64 {
            return broken("a clean stop is one", "a shard recovers as after a crash");
        }
        Ok(())
    }

    async fn take(&self, step: Step, server: &Rc<Server>) -> Result<Option<Ending>, Broken> {
        let mut random = stream(self.world.setup.seed, step.number, Stream::Act);
        match step.action {
            Action::Client(operation) => {
                self.await_room().await?;
                self.begin(Client::new(self.world.clone(), server.clone(), step.number), operation);
                if random.below(3) == 0 {
                    self.pause(Duration::from_micros(random.below(400))).await;
                }
            }
            Action::Pause(duration_ms) => self.pause(Duration::from_millis(duration_ms)).await,
            Action::Settle => self.settle(server).await?,
            Action::Fork => branch::what_if_the_power_went(self.world, self.sim, step.number)?,
            Action::Damage => {
                self.settle(server).await?;
                if self.world.licence.get() == Licence::default() {
                    branch::what_if_files_were_damaged(self.world, self.sim, step.number)?;
                }
            }
            Action::Rot => {
                self.settle(server).await?;
                if self.world.licence.get() == Licence::default() {
                    rot::what_if_sectors_rotted(self.world, self.sim, step.number)?;
                }
            }
            Action::Flood => self.flood(step, server, &mut random).await?,
            Action::ClearCache => server.clear_caches(),
            Action::WallClock => {
                let by_ms = random.below(20_000_000) as i64 - 10_000_000;
                self.sim.shift_wall_clock(by_ms);
            }
            Action::DiskFault => self.inject_fault(&mut random),
            Action::SlowDisk => self.slow_disk_down(&mut random),
            Action::Stall => {
                if self.stall(step, server, &mut random).await? == Stalled::Poisoned {
                    return Ok(Some(Ending::Killed));
                }
            }
            Action::Race => self.race(step, server, &mut random).await?,
            Action::RotateAndFork => self.rotate_and_fork(step, server, &mut random).await?,
            Action::Full => self.fill_disk(&mut random),
            Action::Room => self.make_room(server).await?,
            Action::PowerCut(when) => self.arrange(when, false),
            Action::Kill(when) => self.arrange(when, true),
            Action::Restart => return self.stop(server, None, &mut random).await.map(Some),
            Action::Resize(shards) => return self.stop(server, Some(shards), &mut random).await.map(Some),
            Action::CrashInResize { shards, .. } => {
                let another = if usize::from(shards) == server.shards() { shards % 4 + 1 } else { shards };
                return self.stop(server, Some(another), &mut random).await.map(Some);
            }
        }
        self.count_figures_of_poisoned(server);
        self.fork_after_checkpoint(step, server, &mut random)?;
        // A poisoned shard is of little use: an operator would restart it.
        let poisoned = self.world.licence.get().writes && server.refuses_writes().is_some();
        Ok((poisoned && random.below(12) == 0).then_some(Ending::Killed))
    }

    /// A client begins an operation.
    pub(super) fn begin(&self, client: Client, operation: Operation) {
        let world = self.world.clone();
        world.in_flight.set(world.in_flight.get() + 1);
        self.sim.platform().spawn().spawn(TaskClass::Foreground, async move {
            client.run(operation).await;
            world.in_flight.set(world.in_flight.get() - 1);
            world.answered.raise();
        });
    }

    fn count_figures_of_poisoned(&self, server: &Server) {
        if self.world.licence.get().writes && server.refuses_writes().is_some() {
            self.world.hit("poisoned shards");
        }
    }

    pub(super) async fn pause(&self, duration: Duration) {
        self.sim.platform().clock().sleep(duration).await;
    }

    /// Waits until another operation may begin.
    pub(super) async fn await_room(&self) -> Result<(), Broken> {
        let clients = self.world.setup.clients;
        self.await_answers(clients - 1).await
    }

    pub(super) async fn await_answers(&self, in_flight_max: usize) -> Result<(), Broken> {
        self.await_answers_for(PATIENCE, in_flight_max).await
    }

    pub(super) async fn await_answers_for(&self, patience: Duration, in_flight_max: usize) -> Result<(), Broken> {
        let answered = async {
            while self.world.in_flight.get() > in_flight_max {
                self.world.answered.wait().await;
            }
            true
        };
        let too_late = async {
            self.pause(patience).await;
            false
        };
        match or(answered, too_late).await {
            true => Ok(()),
            false => broken("one answer a request", format!("{} answers never came", self.world.in_flight.get())),
        }
    }

    /// Lets everybody be answered and background work be done, then checks everything.
    pub(super) async fn settle(&self, server: &Rc<Server>) -> Result<(), Broken> {
        self.await_answers(0).await?;
        self.pause(Duration::from_millis(600)).await;
        if let Some((_, broken)) = self.world.broken() {
            return Err(broken);
        }
        checks::when_quiet(self.world, server, self.sim).await
    }

    fn inject_fault(&self, random: &mut Random) {
        const KINDS: [&[DiskOperation]; 9] = [
            DiskOperation::WRITING,
            DiskOperation::WRITING,
            DiskOperation::MAKING_DURABLE,
            &[DiskOperation::SyncDir],
            &[DiskOperation::Rename],
            &[DiskOperation::Create],
            &[DiskOperation::SetLen, DiskOperation::WriteZeros],
            &[DiskOperation::Read],
            &[DiskOperation::Remove, DiskOperation::Open, DiskOperation::Stamp],
        ];
        let operations = KINDS[random.below(KINDS.len() as u64) as usize];
        let effect = match random.below(4) {
            0 => Effect::Short,
            1 => Effect::Delay(Duration::from_millis(random.between(1, 500))),
            _ => Effect::Error(5),
        };
        let fault = Fault::next(operations, effect).after(random.below(6));
        self.world.tell(|| format!("      a fault: {operations:?} {effect:?} after {}", fault.skip));
        if !matches!(effect, Effect::Delay(_)) {
            let reads = operations.contains(&DiskOperation::Read) || operations.contains(&DiskOperation::Open);
            let licence = self.world.licence.get();
            self.world.licence.set(Licence { writes: true, reads: licence.reads || reads, ..licence });
        }
        self.sim.inject(fault);
        self.world.hit("disk faults");
    }

    fn fill_disk(&self, random: &mut Random) {
        let left = random.below(3 * self.world.setup.sizes.segment_bytes_max);
        self.sim.poke(|image| {
            let used = image.used_bytes();
            image.set_capacity_bytes(Some(used + left));
        });
        self.world.licence.set(Licence { space: true, ..self.world.licence.get() });
        self.world.tell(|| format!("      the disk has {left} bytes left"));
    }

    /// The disk has room again: after a while writes must be taken, by themselves.
    async fn make_room(&self, server: &Rc<Server>) -> Result<(), Broken> {
        let licence = self.world.licence.get();
        self.sim.set_capacity_bytes(None);
        if !licence.space {
            return Ok(());
        }
        self.await_answers(0).await?;
        self.pause(Duration::from_secs(5)).await;
        if let Some(reason) = server.refuses_writes().filter(|_| !licence.writes) {
            return broken("writes resume", format!("five seconds after there was room again: {reason}"));
        }
        self.world.licence.set(Licence { space: false, ..licence });
        self.world.hit("writes resumed after a full disk");
        Ok(())
    }

    async fn stop(&self, server: &Rc<Server>, shards: Option<u16>, random: &mut Random) -> Result<Ending, Broken> {
        if random.below(2) == 0 {
            self.settle(server).await?;
        }
        let licence = self.world.licence.get();
        self.world.licence.set(Licence { draining: true, ..licence });
        let stalls = self.world.setup.stalls && random.below(3) == 0;
        if stalls {
            self.let_disk_stall(random, 12);
            self.world.hit("stalls in a stop");
        }
        let patience = if stalls { LONG_PATIENCE } else { PATIENCE };
        let stopped = server.stop_within(patience).await;
        self.await_answers_for(patience, 0).await?;
        match stopped {
            Ok(()) => Ok(Ending::Stopped { shards }),
            Err(_) if licence.writes || licence.space => Ok(Ending::Killed),
            Err(error) => broken("a clean stop is one", error),
        }
    }

    /// The last step was taken: once more everything is checked, then the power goes.
    async fn end_of_plan(&self, server: &Rc<Server>) -> Result<Ending, Broken> {
        self.settle(server).await?;
        Ok(Ending::PowerCut)
    }
}
