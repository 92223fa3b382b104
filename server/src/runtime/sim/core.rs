//! The heart of a simulated machine: tasks, events in simulated time, and the order in which they happen.
//!
//! One step is the poll of one task, chosen by the seed among those that are ready. Time passes a little with every
//! poll and jumps to the next event when nothing is ready. Disk operations are events: they take effect when their
//! time comes, whether or not anybody still waits for them, so delays drawn from the seed reorder completions.

use super::faults::{Faults, Operation, Verdict};
use super::image::{DiskImage, LateWrite};
use super::random::Random;
use super::trace::Trace;
use super::watch::{DiskRequest, Watcher};
use crate::runtime::platform::TaskClass;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

/// Polls after which tasks that yielded get their turn even if others are still ready.
const ROUND_POLLS_MAX: u32 = 1000;

/// Why a simulation stopped before what was waited for came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The power was cut, as asked for. Nothing runs any more; take the disk with `Sim::crash`.
    PowerLost,
    /// Nothing is ready and no event is due, ever. What waits: tasks with the place that spawned them, and hung disk
    /// operations.
    Deadlock(Vec<String>),
    /// So many steps without an end are taken for a livelock.
    StepLimit(u64),
}

/// When the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// While sync point `number` (from 1) is under way: what it was to make durable may survive or not.
    DuringSync(u64),
    /// Right after sync point `number` reached the device, before anybody is told.
    AfterSync(u64),
    /// Before step `number` (from 1).
    AtStep(u64),
}

/// What completion means for an effect: its promise holds, or it was caught in the middle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Landing {
    Completed,
    Interrupted,
}

/// Says which operation an event belongs to.
#[derive(Clone)]
pub(super) struct Label {
    pub(super) operation: Operation,
    pub(super) path: Rc<str>,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl std::fmt::Display for Label {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?} {} at {} for {} bytes", self.operation, self.path, self.offset, self.len)
    }
}

pub(super) type EffectOnDisk = Box<dyn FnOnce(&mut DiskImage, Landing)>;

/// A disk operation on its way.
pub(super) struct Flight {
    pub(super) label: Label,
    pub(super) effect: EffectOnDisk,
    /// What a killed process leaves behind.
    pub(super) late_write: Option<LateWrite>,
}

enum Event {
    Wake(Waker),
    Disk(Flight),
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    class: TaskClass,
    spawned_at: &'static Location<'static>,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    task: u64,
    queued: AtomicBool,
    /// The core's list. It holds wakers, so they must not keep it.
    ready: Weak<Mutex<Vec<Arc<TaskWaker>>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        // Without its machine there is nothing left to wake.
        let Some(ready) = self.ready.upgrade() else { return };
        if !self.queued.swap(true, Ordering::Relaxed) {
            // Single-threaded: the lock is there because wakers must be Sync, and poisoning says nothing here.
            ready.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&self));
        }
    }
}

pub(super) struct Core {
    pub(super) now_ns: Cell<u64>,
    pub(super) image: RefCell<DiskImage>,
    pub(super) faults: RefCell<Faults>,
    pub(super) disk_random: RefCell<Random>,
    pub(super) entropy: RefCell<Random>,
    pub(super) trace: RefCell<Trace>,
    pub(super) direct_alignment: Cell<Option<usize>>,
    pub(super) sync_points: Cell<u64>,
    pub(super) steps: Cell<u64>,
    pub(super) step_limit: Cell<u64>,
    pub(super) cut: Cell<Option<PowerCut>>,
    pub(super) halted: RefCell<Option<Halt>>,
    pub(super) doorbells: RefCell<BTreeMap<usize, (bool, Option<Waker>)>>,
    pub(super) watcher: RefCell<Option<Watcher>>,
    pub(super) wall_shift_ms: Cell<i64>,
    schedule: RefCell<Random>,
    tasks: RefCell<BTreeMap<u64, Option<Task>>>,
    next_task: Cell<u64>,
    ready: Arc<Mutex<Vec<Arc<TaskWaker>>>>,
    yielded: RefCell<Vec<Waker>>,
    round_polls: Cell<u32>,
    events: RefCell<BTreeMap<(u64, u64), Event>>,
    next_event: Cell<u64>,
    hung: RefCell<Vec<Flight>>,
}

/// How far to let a simulation run.
#[derive(Clone, Copy)]
pub(super) enum Until {
    /// The future is ready.
    Done,
    /// Nothing is ready and no disk operation is under way.
    Idle,
    /// Simulated time has come.
    Time(u64),
}

enum Step {
    Poll(Arc<TaskWaker>),
    Nothing,
}

impl Core {
    pub(super) fn new(seed: u64, mut image: DiskImage) -> Self {
        let late_writes = std::mem::take(&mut image.late_writes);
        let core = Self {
            now_ns: Cell::new(image.clock_ns + 1_000_000_000),
            image: RefCell::new(image),
            faults: RefCell::default(),
            disk_random: RefCell::new(Random::for_purpose(seed, 1)),
            entropy: RefCell::new(Random::for_purpose(seed, 2)),
            trace: RefCell::new(Trace::new()),
            direct_alignment: Cell::new(Some(512)),
            sync_points: Cell::new(0),
            steps: Cell::new(0),
            step_limit: Cell::new(20_000_000),
            cut: Cell::new(None),
            halted: RefCell::new(None),
            doorbells: RefCell::default(),
            watcher: RefCell::new(None),
            wall_shift_ms: Cell::new(0),
            schedule: RefCell::new(Random::for_purpose(seed, 3)),
            tasks: RefCell::default(),
            next_task: Cell::new(0),
            ready: Arc::default(),
            yielded: RefCell::default(),
            round_polls: Cell::new(0),
            events: RefCell::default(),
            next_event: Cell::new(0),
            hung: RefCell::default(),
        };
        core.release_late_writes(late_writes);
        core
    }

    #[track_caller]
    pub(super) fn spawn(&self, class: TaskClass, future: Pin<Box<dyn Future<Output = ()>>>) {
        let waker = self.new_waker();
        let task = Task { future, class, spawned_at: Location::caller(), waker: Arc::clone(&waker) };
        self.tasks.borrow_mut().insert(waker.task, Some(task));
        waker.wake();
    }

    /// The waker runs at the end of the round.
    pub(super) fn wake_after_others(&self, waker: Waker) {
        self.yielded.borrow_mut().push(waker);
    }

    pub(super) fn wake_at(&self, time_ns: u64, waker: Waker) {
        self.add_event(time_ns, Event::Wake(waker));
    }

    /// Shows a request to whoever watches.
    pub(super) fn show(&self, request: &DiskRequest<'_>) {
        let watcher = self.watcher.borrow().clone();
        if let Some(watcher) = watcher {
            watcher(request);
        }
    }

    pub(super) fn flip_coin(&self, sides: u64) -> bool {
        self.schedule.borrow_mut().below(sides) == 0
    }

    pub(super) fn launch(&self, flight: Flight, verdict: &Verdict, content_hash: u64) {
        let label = &flight.label;
        let numbers = [label.operation as u64, label.offset, label.len, content_hash, verdict.delay_ns];
        self.trace.borrow_mut().add(&numbers, || format!("{:>12} submit {label}", self.now_ns.get()));
        if verdict.hang {
            self.hung.borrow_mut().push(flight);
        } else {
            self.add_event(self.now_ns.get() + verdict.delay_ns, Event::Disk(flight));
        }
    }

    /// Runs until the main future is done (its value), or as `until` says (`None`).
    pub(super) fn run<T>(&self, mut main: Pin<&mut dyn Future<Output = T>>, until: Until) -> Result<Option<T>, Halt> {
        let main_waker = self.new_waker();
        if matches!(until, Until::Done) {
            Arc::clone(&main_waker).wake();
        }
        loop {
            match self.next_step(until)? {
                Step::Nothing if matches!(until, Until::Done) => {
                    return Err(Halt::Deadlock(self.describe_waiting()));
                }
                Step::Nothing => return Ok(None),
                Step::Poll(waker) if waker.task == main_waker.task => {
                    let waker = Waker::from(waker);
                    if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return Ok(Some(value));
                    }
                }
                Step::Poll(waker) => self.poll_task(waker.task),
            }
        }
    }

    /// Takes every task and its wakers down; what they hold is dropped.
    pub(super) fn drop_tasks(&self) {
        // A task's drop may spawn or wake: taken out first, and again until none is left.
        loop {
            let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        let yielded = std::mem::take(&mut *self.yielded.borrow_mut());
        drop(yielded);
    }

    /// Takes the operations that are under way, hung ones too, in the order in which they would have completed.
    pub(super) fn take_flights(&self) -> Vec<Flight> {
        let events = std::mem::take(&mut *self.events.borrow_mut());
        let mut flights: Vec<Flight> = events
            .into_values()
            .filter_map(|event| match event {
                Event::Disk(flight) => Some(flight),
                Event::Wake(_) => None,
            })
            .collect();
        flights.append(&mut self.hung.borrow_mut());
        flights
    }

    fn new_waker(&self) -> Arc<TaskWaker> {
        let task = self.next_task.get();
        self.next_task.set(task + 1);
        Arc::new(TaskWaker { task, queued: AtomicBool::new(false), ready: Arc::downgrade(&self.ready) })
    }

    fn add_event(&self, time_ns: u64, event: Event) {
        let number = self.next_event.get();
        self.next_event.set(number + 1);
        self.events.borrow_mut().insert((time_ns, number), event);
    }

    fn release_late_writes(&self, late_writes: Vec<LateWrite>) {
        for late in late_writes {
            let delay_ns = self.disk_random.borrow_mut().below(5_000_000);
            let label = Label {
                operation: Operation::Write,
                path: Rc::from("(write of a killed process)"),
                offset: late.offset,
                len: late.bytes.len() as u64,
            };
            let effect: EffectOnDisk = Box::new(move |image, _| {
                if let Ok(node) = image.file_mut(late.inode) {
                    node.content.write(late.offset, late.bytes);
                }
            });
            self.add_event(self.now_ns.get() + delay_ns, Event::Disk(Flight { label, effect, late_write: None }));
        }
    }

    fn next_step(&self, until: Until) -> Result<Step, Halt> {
        loop {
            self.check_halt()?;
            self.fire_due_events();
            self.check_halt()?;
            if self.round_polls.get() < ROUND_POLLS_MAX
                && let Some(waker) = self.take_ready()
            {
                self.note_poll(waker.task);
                return Ok(Step::Poll(waker));
            }
            self.round_polls.set(0);
            let yielded = std::mem::take(&mut *self.yielded.borrow_mut());
            if !yielded.is_empty() || !self.ready.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
                yielded.into_iter().for_each(Waker::wake);
                continue;
            }
            if !self.advance_to_next_event(until) {
                return Ok(Step::Nothing);
            }
        }
    }

    fn check_halt(&self) -> Result<(), Halt> {
        if let Some(PowerCut::AtStep(step)) = self.cut.get()
            && self.steps.get() + 1 >= step
        {
            *self.halted.borrow_mut() = Some(Halt::PowerLost);
        }
        if self.steps.get() >= self.step_limit.get() {
            *self.halted.borrow_mut() = Some(Halt::StepLimit(self.step_limit.get()));
        }
        self.halted.borrow().clone().map_or(Ok(()), Err)
    }

    fn take_ready(&self) -> Option<Arc<TaskWaker>> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_empty() {
            return None;
        }
        let chosen = self.schedule.borrow_mut().below(ready.len() as u64) as usize;
        let waker = ready.swap_remove(chosen);
        waker.queued.store(false, Ordering::Relaxed);
        Some(waker)
    }

    fn note_poll(&self, task: u64) {
        self.steps.set(self.steps.get() + 1);
        self.round_polls.set(self.round_polls.get() + 1);
        let passed_ns = self.schedule.borrow_mut().between(100, 2_000);
        self.now_ns.set(self.now_ns.get() + passed_ns);
        self.trace.borrow_mut().add(&[task, self.now_ns.get()], || format!("{:>12} poll {task}", self.now_ns.get()));
    }

    fn poll_task(&self, number: u64) {
        // Taken out while it runs, so that it can spawn others.
        let Some(mut task) = self.tasks.borrow_mut().get_mut(&number).and_then(Option::take) else { return };
        let waker = Waker::from(Arc::clone(&task.waker));
        let done = task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if done {
            self.tasks.borrow_mut().remove(&number);
        } else if let Some(slot) = self.tasks.borrow_mut().get_mut(&number) {
            *slot = Some(task);
        }
    }

    fn fire_due_events(&self) {
        while self.halted.borrow().is_none() {
            let mut events = self.events.borrow_mut();
            let Some(entry) = events.first_entry() else { return };
            if entry.key().0 > self.now_ns.get() {
                return;
            }
            let (key, event) = entry.remove_entry();
            drop(events);
            match event {
                Event::Wake(waker) => waker.wake(),
                Event::Disk(flight) => self.land(key, flight),
            }
        }
    }

    pub(super) fn last_landing_ns(&self) -> Option<u64> {
        let events = self.events.borrow();
        events.iter().rev().find(|(_, event)| matches!(event, Event::Disk(_))).map(|(key, _)| key.0)
    }

    /// Carries out a disk operation whose time has come, unless the power goes first.
    fn land(&self, key: (u64, u64), flight: Flight) {
        let operation = flight.label.operation;
        self.trace.borrow_mut().add(&[key.0, key.1], || format!("{:>12} finish {}", key.0, flight.label));
        if operation.is_sync_point() {
            let number = self.sync_points.get() + 1;
            self.sync_points.set(number);
            if self.cut.get() == Some(PowerCut::DuringSync(number)) {
                self.events.borrow_mut().insert(key, Event::Disk(flight));
                *self.halted.borrow_mut() = Some(Halt::PowerLost);
                return;
            }
            if self.cut.get() == Some(PowerCut::AfterSync(number)) {
                *self.halted.borrow_mut() = Some(Halt::PowerLost);
            }
        }
        (flight.effect)(&mut self.image.borrow_mut(), Landing::Completed);
    }

    /// Lets time jump; false when there is nothing to wait for within `until`.
    fn advance_to_next_event(&self, until: Until) -> bool {
        let events = self.events.borrow();
        let next_ns = match until {
            Until::Idle if !events.values().any(|event| matches!(event, Event::Disk(_))) => None,
            _ => events.keys().next().map(|key| key.0),
        };
        match (next_ns, until) {
            (next, Until::Time(end_ns)) if next.is_none_or(|next_ns| next_ns > end_ns) => {
                self.now_ns.set(self.now_ns.get().max(end_ns));
                false
            }
            (Some(next_ns), _) => {
                self.now_ns.set(self.now_ns.get().max(next_ns));
                true
            }
            (None, _) => false,
        }
    }

    fn describe_waiting(&self) -> Vec<String> {
        let hung = self.hung.borrow();
        let hung = hung.iter().map(|flight| format!("hung disk operation: {}", flight.label));
        let tasks = self.tasks.borrow();
        let tasks = tasks
            .values()
            .flatten()
            .map(|task| format!("{:?} task {} spawned at {}", task.class, task.waker.task, task.spawned_at));
        std::iter::once("the future waited for".to_owned()).chain(tasks).chain(hung).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakers_still_queued_go_with_their_machine() {
        let core = Core::new(1, DiskImage::default());
        core.spawn(TaskClass::Foreground, Box::pin(async {}));
        let ready = Arc::downgrade(&core.ready);
        drop(core);
        assert!(ready.upgrade().is_none(), "the list of the ready is kept alive by the wakers in it");
    }
}
