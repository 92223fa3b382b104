//! The request to stop: raised once by any thread, waited for by every shard.

use super::inbox::woken_from_outside;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Cheap to clone and to share between threads.
#[derive(Clone, Debug, Default)]
pub struct StopSignal(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    raised: bool,
    waiting: Vec<Waker>,
}

impl StopSignal {
    /// Asks everybody to stop; a second call changes nothing.
    pub fn raise(&self) {
        let waiting = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.raised = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether it was raised.
    pub fn is_raised(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).raised
    }

    /// Waits until it is raised.
    pub fn raised(&self) -> impl Future<Output = ()> + 'static {
        let shared = self.0.clone();
        woken_from_outside(std::future::poll_fn(move |cx| {
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if state.raised {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        }))
    }
}
