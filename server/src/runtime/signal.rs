//! Single-threaded wake-ups between tasks of one shard: a level-triggered signal and a table of one-shot replies.
//! Nothing here is `Send`; nothing here allocates once warm.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// One task waits, anyone on the thread raises. Raising before waiting is remembered.
#[derive(Default)]
pub struct Signal {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Wakes the waiter, or lets the next wait return at once.
    pub fn raise(&self) {
        if !self.raised.replace(true)
            && let Some(waker) = self.waiter.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Waits until raised, and lowers it again.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            let mut waiter = self.waiter.borrow_mut();
            match &*waiter {
                Some(waker) if waker.will_wake(context.waker()) => {}
                _ => *waiter = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }
}

enum Slot<T> {
    Free {
        next: u32,
    },
    Waiting {
        waker: Option<Waker>,
    },
    Filled(T),
    /// Its waiter is gone; the value is dropped when it comes, and only then is the slot free.
    Abandoned,
}

const NO_SLOT: u32 = u32::MAX;

/// Replies that are still to come, each awaited by one task under a slot number. A slot is reused only after its reply
/// came, so a late reply can never reach a stranger.
pub struct ReplySlots<T> {
    slots: RefCell<Vec<Slot<T>>>,
    first_free: Cell<u32>,
    waiting: Cell<usize>,
}

impl<T> Default for ReplySlots<T> {
    fn default() -> Self {
        Self { slots: RefCell::default(), first_free: Cell::new(NO_SLOT), waiting: Cell::new(0) }
    }
}

impl<T> ReplySlots<T> {
    /// Takes a slot for one reply.
    pub fn reserve(&self) -> u32 {
        let mut slots = self.slots.borrow_mut();
        self.waiting.set(self.waiting.get() + 1);
        let free = self.first_free.get();
        if free == NO_SLOT {
            slots.push(Slot::Waiting { waker: None });
            return (slots.len() - 1) as u32;
        }
        if let Slot::Free { next } = slots[free as usize] {
            self.first_free.set(next);
        }
        slots[free as usize] = Slot::Waiting { waker: None };
        free
    }

    /// Gives the slot back unused: no reply will come.
    pub fn cancel(&self, slot: u32) {
        self.release(&mut self.slots.borrow_mut(), slot);
    }

    /// Brings the reply.
    pub fn fill(&self, slot: u32, value: T) {
        let mut slots = self.slots.borrow_mut();
        match std::mem::replace(&mut slots[slot as usize], Slot::Filled(value)) {
            Slot::Waiting { waker } => {
                drop(slots);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Slot::Abandoned => drop(self.release(&mut slots, slot)),
            Slot::Free { .. } | Slot::Filled(_) => panic!("reply slot {slot} was filled twice"),
        }
    }

    /// Waits for the reply of a reserved slot. Dropping the future abandons it.
    pub async fn wait(&self, slot: u32) -> T {
        struct Abandon<'a, T>(&'a ReplySlots<T>, u32, bool);
        impl<T> Drop for Abandon<'_, T> {
            fn drop(&mut self) {
                if self.2 {
                    self.0.abandon(self.1);
                }
            }
        }
        let mut guard = Abandon(self, slot, true);
        let value = poll_fn(|context| {
            let mut slots = self.slots.borrow_mut();
            match &mut slots[slot as usize] {
                Slot::Waiting { waker } => {
                    *waker = Some(context.waker().clone());
                    Poll::Pending
                }
                _ => Poll::Ready(self.release(&mut slots, slot)),
            }
        })
        .await;
        guard.2 = false;
        match value {
            Slot::Filled(value) => value,
            _ => panic!("reply slot {slot} was awaited twice"),
        }
    }

    /// Replies still to come or to be picked up.
    pub fn outstanding(&self) -> usize {
        self.waiting.get()
    }

    fn abandon(&self, slot: u32) {
        let mut slots = self.slots.borrow_mut();
        if matches!(slots[slot as usize], Slot::Filled(_)) {
            self.release(&mut slots, slot);
        } else {
            slots[slot as usize] = Slot::Abandoned;
        }
    }

    fn release(&self, slots: &mut [Slot<T>], slot: u32) -> Slot<T> {
        self.waiting.set(self.waiting.get() - 1);
        std::mem::replace(&mut slots[slot as usize], Slot::Free { next: self.first_free.replace(slot) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    #[test]
    fn a_signal_raised_before_the_wait_is_remembered_once() {
        let signal = Signal::default();
        signal.raise();
        block_on(signal.wait());
        assert!(block_on(poll_once(signal.wait())).is_none());
        block_on(zip(signal.wait(), async { signal.raise() }));
    }

    #[test]
    fn replies_reach_their_own_waiter_and_abandoned_slots_are_not_reused_early() {
        let slots = ReplySlots::default();
        let (first, second) = (slots.reserve(), slots.reserve());
        block_on(poll_once(slots.wait(first)));
        let third = slots.reserve();
        assert!(third != first && third != second, "an abandoned slot still owes a reply");
        slots.fill(first, "late");
        assert_eq!(slots.reserve(), first);
        slots.fill(second, "second");
        slots.fill(third, "third");
        assert_eq!((block_on(slots.wait(third)), block_on(slots.wait(second))), ("third", "second"));
        assert_eq!(slots.outstanding(), 1);
    }
}
