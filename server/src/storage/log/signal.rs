//! Waiting on one thread: a signal that many may wait for, and a lock that is held over awaits.
//!
//! No atomics: everything here stays on its shard's thread. A waiter that is dropped leaves a stale waker behind,
//! which is woken once for nothing.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::task::{Poll, Waker};

/// Something changed; look again.
#[derive(Default)]
pub struct Signal {
    epoch: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Remember this, look at the state, then wait with [`Signal::changed`]: nothing between is missed.
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// Wakes everybody who waits.
    pub fn notify(&self) {
        self.epoch.set(self.epoch.get() + 1);
        if self.wakers.borrow().is_empty() {
            return;
        }
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until there was a notification after `seen`.
    pub fn changed(&self, seen: u64) -> impl Future<Output = ()> + '_ {
        poll_fn(move |context| {
            if self.epoch.get() != seen {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
    }
}

/// A lock over awaits.
#[derive(Default)]
pub struct Lock {
    held: Cell<bool>,
    freed: Signal,
}

/// Frees the lock when dropped.
pub struct Guard<'a>(&'a Lock);

impl Lock {
    /// Takes the lock, or waits for it.
    pub async fn lock(&self) -> Guard<'_> {
        loop {
            let seen = self.freed.epoch();
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            self.freed.changed(seen).await;
        }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<Guard<'_>> {
        if self.held.replace(true) { None } else { Some(Guard(self)) }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.held.set(false);
        self.0.freed.notify();
    }
}
