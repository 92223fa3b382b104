//! One thread of tasks with time of its own: the clock moves only when nothing can run.

use crate::runtime::platform::{Clock, Spawn, TaskClass};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

type Ready = Arc<Mutex<VecDeque<u64>>>;
type Task = Pin<Box<dyn Future<Output = ()>>>;

struct TaskWaker {
    id: u64,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap();
        if !ready.contains(&self.id) {
            ready.push_back(self.id);
        }
    }
}

#[derive(Default)]
struct Inner {
    ready: Ready,
    tasks: RefCell<BTreeMap<u64, Task>>,
    next_id: Cell<u64>,
    now_ns: Cell<u64>,
    timers: RefCell<Vec<(u64, Waker)>>,
}

/// A handle.
#[derive(Clone)]
pub struct Executor(Rc<Inner>);

const MAIN: u64 = 0;

impl Executor {
    pub fn new() -> Self {
        let inner = Inner::default();
        inner.next_id.set(MAIN + 1);
        inner.now_ns.set(1_000_000_000);
        Self(Rc::new(inner))
    }

    fn waker(&self, id: u64) -> Waker {
        Arc::new(TaskWaker { id, ready: self.0.ready.clone() }).into()
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        self.waker(MAIN).wake();
        loop {
            let next = self.0.ready.lock().unwrap().pop_front();
            match next {
                Some(MAIN) => {
                    let waker = self.waker(MAIN);
                    if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return value;
                    }
                }
                Some(id) => self.poll_task(id),
                None => self.advance_time(),
            }
        }
    }

    fn poll_task(&self, id: u64) {
        let Some(mut task) = self.0.tasks.borrow_mut().remove(&id) else { return };
        let waker = self.waker(id);
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.0.tasks.borrow_mut().insert(id, task);
        }
    }

    fn advance_time(&self) {
        let mut timers = self.0.timers.borrow_mut();
        let earliest = timers.iter().map(|(at, _)| *at).min().expect("nothing can run and nobody waits for the clock");
        self.0.now_ns.set(self.0.now_ns.get().max(earliest));
        let (due, later) = std::mem::take(&mut *timers).into_iter().partition(|(at, _)| *at <= earliest);
        *timers = later;
        drop(timers);
        let due: Vec<(u64, Waker)> = due;
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// Lets everything else that is ready run once.
pub fn yield_once() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

#[derive(Clone)]
pub struct TestClock(pub Executor);

impl Clock for TestClock {
    fn now_ns(&self) -> u64 {
        self.0.0.now_ns.get()
    }
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + self.now_ns() / 1_000_000
    }
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let executor = self.0.clone();
        let until = self.now_ns() + duration.as_nanos() as u64;
        poll_fn(move |context| {
            if executor.0.now_ns.get() >= until {
                return Poll::Ready(());
            }
            executor.0.timers.borrow_mut().push((until, context.waker().clone()));
            Poll::Pending
        })
    }
}

#[derive(Clone)]
pub struct TestSpawn(pub Executor);

impl Spawn for TestSpawn {
    fn spawn(&self, _class: TaskClass, future: impl Future<Output = ()> + 'static) {
        let inner = &self.0.0;
        let id = inner.next_id.get();
        inner.next_id.set(id + 1);
        inner.tasks.borrow_mut().insert(id, Box::pin(future));
        self.0.waker(id).wake();
    }
    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        yield_once()
    }
    fn yield_if_due(&self) -> impl Future<Output = ()> + 'static {
        yield_once()
    }
}
