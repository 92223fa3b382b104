//! Sleeping tasks of one shard. The driver wakes those whose time has come, once a turn, and sleeps no longer than
//! until the next.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Cheap to clone; stays on its thread.
#[derive(Clone, Default)]
pub(super) struct Timers(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    /// By time, and by number where times are equal.
    sleeping: BTreeMap<(Instant, u64), Waker>,
    last_number: u64,
}

/// Removes a sleeper that is dropped before its time.
struct Sleeper {
    timers: Timers,
    key: (Instant, u64),
}

impl Timers {
    /// Waits at least so long.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        // A time beyond the clock's end never comes.
        let until = Instant::now().checked_add(duration);
        let timers = self.clone();
        async move {
            let Some(until) = until else { return std::future::pending().await };
            let number = {
                let mut state = timers.0.borrow_mut();
                state.last_number += 1;
                state.last_number
            };
            let sleeper = Sleeper { timers, key: (until, number) };
            std::future::poll_fn(|cx| {
                if Instant::now() >= until {
                    return Poll::Ready(());
                }
                sleeper.timers.0.borrow_mut().sleeping.insert(sleeper.key, cx.waker().clone());
                Poll::Pending
            })
            .await;
        }
    }

    /// When the next sleeper is due.
    pub fn next(&self) -> Option<Instant> {
        self.0.borrow().sleeping.first_key_value().map(|((until, _), _)| *until)
    }

    /// Wakes whoever is due; `true` when there was anybody.
    pub fn fire(&self) -> bool {
        let Some(next) = self.next() else { return false };
        let now = Instant::now();
        if next > now {
            return false;
        }
        let mut state = self.0.borrow_mut();
        let later = state.sleeping.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.sleeping, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
        true
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.timers.0.borrow_mut().sleeping.remove(&self.key);
    }
}
