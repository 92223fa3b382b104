//! The whole server below the sockets, on a simulated machine, against a map: dispatch, mailboxes, engines, caches and
//! logs of one to four shards carry out the commands that the bytes spell, through stops, kills and power cuts.
//!
//! Holds: every answer is the one that the map gives, to the version and the byte; versions of a shard rise and are
//! never given out twice; commands on different keys do not disturb each other, whatever is under way together; short
//! and slow disk operations change no answer; a store opens after any crash, undamaged, and holds what was acknowledged
//! and of each write that was not answered all or nothing, which another crash does not change; a listing in pages of
//! any size is the map.

mod book;

use super::input::Input;
use crate::sim::server::{PATIENCE, Server, StartOptions};
use crate::sim::setup::{Setup, Weather};
use book::{Book, Call, SCHEMAS, name};
use deltadb::command::{Command, Outcome};
use deltadb::runtime::platform::{Clock, Platform, Spawn, TaskClass};
use deltadb::runtime::signal::Signal;
use deltadb::runtime::sim::{DiskImage, Effect, Fault, Halt, Operation, PowerCut, Sim, Survival};
use futures_lite::future::or;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Lives and events of one input: more would only make it slow.
const LIVES_MAX: u64 = 12;
const EVENTS_MAX: u32 = 400;
/// Pages of one listing after which it is taken not to end.
const PAGES_MAX: usize = 100;

/// Tries one input: a setting, then events.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut history = History::new(&mut input);
    while !input.is_empty() && history.lives < LIVES_MAX && history.events < EVENTS_MAX {
        history.live(&mut input);
    }
    // What the last life left is there, and stays there.
    history.live(&mut Input::new(&[]));
    history.live(&mut Input::new(&[]));
}

/// Every kind of event, alone and amid crashes, in several settings.
pub fn seeds() -> Vec<Vec<u8>> {
    let puts: Vec<u8> = (0..12).flat_map(|key| [0, key, 0, key * 7, key]).collect();
    let changed: Vec<u8> =
        (0..12).flat_map(|key| [[0, key, key % 5, 9, 1], [1, key, key % 5, 0, 2]].concat()).collect();
    let many = [2, 0, 5, 1, 20, 2, 30, 3, 40, 4, 50, 5, 255, 3, 1, 4, 1, 2, 3, 9, 4, 1, 1, 2, 0, 5, 0];
    let stops = [[8, 0], [8, 1], [8, 2], [8, 3], [8, 4], [8, 7]];
    let cuts = [[9, 0, 3], [9, 1, 2], [9, 2, 2], [9, 3, 9], [9, 4, 2], [9, 5, 2]];
    let reads = [3, 0, 6, 0, 1, 2, 3, 4, 5, 4, 0, 0, 3, 4, 1, 2, 1, 5, 6];
    let mut seeds = Vec::new();
    for setting in 0..8u8 {
        let begin = [setting, setting, 1];
        seeds.push([&begin[..], &puts, &many, &reads, &changed, &[7, 200], &reads].concat());
        let stop = &stops[usize::from(setting) % stops.len()];
        seeds.push([&begin[..], &puts, stop, &changed, &[10, 1, 2], &reads, &many, stop, &reads].concat());
        let cut = &cuts[usize::from(setting) % cuts.len()];
        seeds
            .push([&begin[..], &puts, cut, &many, &changed, &puts, &[6, 10, 3, 1], &reads, cut, &many, &puts].concat());
    }
    seeds
}

/// How a life ended by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Stopped,
    Killed,
    PowerLost,
}

/// Lives of one store.
struct History {
    setup: Setup,
    image: DiskImage,
    book: Rc<RefCell<Book>>,
    seed: u64,
    lives: u64,
    events: u32,
    shards_wanted: Option<u16>,
    /// Arranged for the next start: when, and whether the process alone dies.
    cut: Option<(PowerCut, bool)>,
}

impl History {
    fn new(input: &mut Input<'_>) -> Self {
        let (setting, seed) = (u64::from(input.byte()), u64::from(input.u16()));
        Self {
            // Its book knows no answer that depends on how much waits.
            setup: Setup { tight: false, ..Setup::of_seed(setting).in_weather(Weather::Calm) },
            image: DiskImage::default(),
            book: Rc::default(),
            seed,
            lives: 0,
            events: 0,
            shards_wanted: None,
            cut: None,
        }
    }

    /// One life of the process, and what it leaves of the disk.
    fn live(&mut self, input: &mut Input<'_>) {
        self.lives += 1;
        let sim = Sim::on_disk(self.seed << 8 | self.lives, std::mem::take(&mut self.image));
        sim.set_direct_alignment(self.setup.direct_alignment);
        let options = StartOptions { shards: self.shards_wanted.take(), salvage: false };
        let dies_alone = Cell::new(false);
        if let Some((cut, alone)) = self.cut.take() {
            dies_alone.set(alone);
            sim.cut_power(cut);
        }
        let ended = sim.run_until(async {
            let server = Server::start(&sim, &self.setup, options).await;
            let server = server.unwrap_or_else(|failure| panic!("the store does not open: {failure:?}"));
            for report in server.reports() {
                assert!(report.damage.is_empty(), "damaged by itself: {}", report.damage[0]);
            }
            self.book.borrow_mut().enter(server.generation(), server.shards());
            let mut life = Life { sim: &sim, server, book: &self.book, dies_alone: &dies_alone };
            life.look_around().await;
            while !input.is_empty() && self.events < EVENTS_MAX {
                self.events += 1;
                match input.byte() % 12 {
                    8 => {
                        let ending = life.stop(input, &mut self.shards_wanted, &mut self.cut).await;
                        if let Some(ending) = ending {
                            return ending;
                        }
                    }
                    event => life.event(event, input).await,
                }
            }
            Ending::PowerLost
        });
        let ending = match ended {
            Ok(ending) => ending,
            Err(Halt::PowerLost) if dies_alone.get() => Ending::Killed,
            Err(Halt::PowerLost) => Ending::PowerLost,
            Err(halt) => panic!("the machine stands still: {halt:?}"),
        };
        self.image = match ending {
            Ending::Killed => sim.kill(),
            Ending::Stopped => sim.power_loss_image().after_power_loss(Survival::Nothing, 0),
            Ending::PowerLost => sim.crash(),
        };
    }
}

struct Life<'a> {
    sim: &'a Sim,
    server: Rc<Server>,
    book: &'a Rc<RefCell<Book>>,
    dies_alone: &'a Cell<bool>,
}

impl Life<'_> {
    async fn event(&mut self, kind: u8, input: &mut Input<'_>) {
        match kind {
            0..=3 | 11 => self.together(&[kind], input).await,
            4 => {
                let (schema, limit) = (input.below(SCHEMAS.len()), input.below(20) + 1);
                let prefix = ["", "k", "1", "key-"][input.below(4)];
                self.list(SCHEMAS[schema], prefix, limit, limit % 2 == 0, false).await;
            }
            5 => self.count().await,
            6 => {
                // Several commands at once.
                let kinds: Vec<u8> = (0..=input.below(8)).map(|_| [0, 1, 2, 3, 0, 11][input.below(6)]).collect();
                self.together(&kinds, input).await;
            }
            7 => self.pause(Duration::from_millis(5 * u64::from(input.byte()))).await,
            9 => self.arrange(input),
            10 => self.disturb(input),
            _ => unreachable!("a stop ends the life"),
        }
    }

    /// Commands that are under way together. Each touches keys of its own, so that every answer is known beforehand.
    async fn together(&self, kinds: &[u8], input: &mut Input<'_>) {
        let (owed, answered) = (Rc::new(Cell::new(0)), Rc::new(Signal::default()));
        for kind in kinds {
            let shard = input.below(self.server.shards());
            let call = self.book.borrow_mut().next_call(*kind, input);
            let Some((command, call)) = call else { continue };
            owed.set(owed.get() + 1);
            let (server, book) = (self.server.clone(), self.book.clone());
            let (owed, answered) = (owed.clone(), answered.clone());
            self.sim.platform().spawn().spawn(TaskClass::Foreground, async move {
                let outcome = server.call(shard, command).await;
                judge(&server, &book, &call, outcome);
                owed.set(owed.get() - 1);
                answered.raise();
            });
        }
        let all = async {
            while owed.get() > 0 {
                answered.wait().await;
            }
            true
        };
        assert!(self.in_time(all).await, "{} answers never came", owed.get());
        self.book.borrow_mut().all_answered();
    }

    async fn in_time(&self, done: impl Future<Output = bool>) -> bool {
        or(done, async {
            self.pause(PATIENCE).await;
            false
        })
        .await
    }

    async fn pause(&self, duration: Duration) {
        self.sim.platform().clock().sleep(duration).await;
    }

    /// After a start: everything is read, and each write that was not answered turns out to be there or not.
    async fn look_around(&self) {
        for schema in SCHEMAS {
            self.list(schema, "", 7, true, true).await;
        }
        self.book.borrow_mut().settle();
        self.count().await;
    }

    /// A listing to its end is what the book says, or what it may find after a start.
    async fn list(&self, schema: &'static str, prefix: &'static str, limit: usize, documents: bool, settles: bool) {
        let (mut after, mut found) = (None::<String>, Vec::new());
        for page_number in 0.. {
            assert!(page_number < PAGES_MAX, "a listing has no end");
            let command = Command::List {
                schema: Cow::Borrowed(schema),
                prefix: Cow::Borrowed(prefix),
                after: after.clone().map(Cow::Owned),
                limit,
                documents,
            };
            let outcome = self.server.call(page_number % self.server.shards(), command).await;
            let Outcome::Page(page) = outcome else { panic!("a listing was answered by {outcome:?}") };
            assert!(page.entries.len() <= limit, "a page of {limit} has {} entries", page.entries.len());
            for entry in page.entries {
                assert_eq!(entry.document.is_some(), documents);
                let body: Option<Rc<[u8]>> = entry.document.map(|document| Rc::from(document.body()));
                found.push((entry.key, entry.version, body));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(found.is_sorted_by(|left, right| left.0 < right.0), "a listing is not in order");
        let owner_of = |key: &str| self.server.owner_of(&(schema.into(), key.into()));
        match settles {
            true => self.book.borrow_mut().adopt(schema, found, owner_of),
            false => self.book.borrow().judge_listing(schema, prefix, &found),
        }
    }

    async fn count(&self) {
        let outcome = self.server.call(0, Command::Schemas).await;
        let Outcome::Schemas(counts) = outcome else { panic!("schemas were answered by {outcome:?}") };
        assert_eq!(counts, self.book.borrow().counts());
    }

    /// A crash is arranged for the polls or sync points to come; commands go on until it strikes.
    fn arrange(&self, input: &mut Input<'_>) {
        let (cut, alone) = cut_of(input, self.sim.steps(), self.sim.sync_points());
        self.dies_alone.set(alone);
        self.sim.cut_power(cut);
    }

    /// What no client may notice: operations that move less than they were asked to, or take their time.
    fn disturb(&self, input: &mut Input<'_>) {
        // A short write that promised to be durable would be an error: see `disk_faults.rs`.
        let (operations, effect): (&'static [Operation], _) = match (input.below(6), u64::from(input.byte())) {
            (0, _) => (&[Operation::Read, Operation::Write], Effect::Short),
            (1, ms) => (&[Operation::Read], Effect::Delay(Duration::from_millis(ms))),
            (2, ms) => (Operation::WRITING, Effect::Delay(Duration::from_millis(ms))),
            (3, ms) => (&[Operation::Write, Operation::Sync], Effect::Delay(Duration::from_millis(ms))),
            (4, ms) => (&[Operation::SyncDir, Operation::Rename], Effect::Delay(Duration::from_millis(ms))),
            (_, ms) => (Operation::MAKING_DURABLE, Effect::Delay(Duration::from_millis(ms))),
        };
        self.server.clear_caches();
        self.sim.inject(Fault::next(operations, effect).after(input.below(4) as u64));
    }

    /// Ends the life: by force, or cleanly, perhaps with another shard count, amid which a crash may be arranged.
    async fn stop(
        &self,
        input: &mut Input<'_>,
        shards: &mut Option<u16>,
        cut: &mut Option<(PowerCut, bool)>,
    ) -> Option<Ending> {
        let how = input.byte() % 8;
        match how {
            0 => return Some(Ending::Killed),
            1 => return Some(Ending::PowerLost),
            2 => {}
            _ => {
                *shards = Some(u16::from(how) % 4 + 1);
                if how == 7 {
                    *cut = Some(cut_of(input, 0, 0));
                    *shards = Some(input.byte() as u16 % 4 + 1);
                }
            }
        }
        if let Err(error) = self.server.stop().await {
            panic!("a clean stop fails: {error}");
        }
        Some(Ending::Stopped)
    }
}

fn cut_of(input: &mut Input<'_>, steps: u64, sync_points: u64) -> (PowerCut, bool) {
    let (kind, count) = (input.byte(), u64::from(input.byte()) + 1);
    let cut = match kind % 3 {
        0 => PowerCut::AtStep(steps + 3 * count),
        1 => PowerCut::DuringSync(sync_points + count % 16 + 1),
        _ => PowerCut::AfterSync(sync_points + count % 16 + 1),
    };
    (cut, kind % 6 >= 3)
}

/// An answer came: it must be the one that was due, and the index must hold it already.
fn judge(server: &Server, book: &RefCell<Book>, call: &Call, outcome: Outcome) {
    let owner_of = |key: &str| server.owner_of(&name(call.schema(), key));
    let written = book.borrow_mut().judge(call, outcome, owner_of);
    for (key, version) in written {
        assert_eq!(server.durable_version(&name(call.schema(), &key)), version, "an answer left before its commit");
    }
}
