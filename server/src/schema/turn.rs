//! One at a time: a turn that tasks of any shard wait for without blocking their thread, first come not always first
//! served.

use crate::runtime::inbox::woken_from_outside;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Who is at it, and who waits.
#[derive(Default)]
pub struct Turn {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: bool,
    waiting: Vec<Waker>,
}

/// Holds the turn until dropped, also when the task holding it is dropped.
pub struct Taken<'a>(&'a Turn);

impl Turn {
    /// Waits for the turn and takes it.
    pub async fn take(&self) -> Taken<'_> {
        // Whoever gives the turn back may be on another shard's thread.
        woken_from_outside(poll_fn(|context| {
            let mut state = self.lock();
            if state.taken {
                if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    state.waiting.push(context.waker().clone());
                }
                return Poll::Pending;
            }
            state.taken = true;
            Poll::Ready(Taken(self))
        }))
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, so a poisoned one holds nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.lock();
            state.taken = false;
            std::mem::take(&mut state.waiting)
        };
        // All of them: one that was dropped meanwhile would swallow a single wake-up.
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};
    use std::pin::pin;

    #[test]
    fn one_holds_it_and_the_next_gets_it_when_it_is_dropped() {
        block_on(async {
            let turn = Turn::default();
            let first = turn.take().await;
            let mut second = pin!(turn.take());
            assert!(poll_once(second.as_mut()).await.is_none());
            drop(first);
            assert!(poll_once(second.as_mut()).await.is_some());
        });
    }

    #[test]
    fn threads_exclude_each_other_and_none_is_forgotten() {
        let turn = Turn::default();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        let rounds = || async {
            for _ in 0..200 {
                let _taken = turn.take().await;
                assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                futures_lite::future::yield_now().await;
                inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| block_on(zip(rounds(), rounds())));
            }
        });
    }
}
