//! One helper thread a shard for rare blocking work: opening, renaming, removing, the last close of a big file.
//!
//! Work runs in order. The thread ends when the last handle is gone and everything sent before is done.

use super::inbox::woken_from_outside;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

type Work = Box<dyn FnOnce() + Send>;

/// A handle to the helper thread.
#[derive(Clone)]
pub(super) struct Offload(Sender<Work>);

struct Answer<T> {
    value: Option<T>,
    waker: Option<Waker>,
    lost: bool,
}

impl Offload {
    /// Starts the thread; it inherits the affinity of the calling one.
    pub fn start(name: &str) -> io::Result<Self> {
        let (sender, receiver) = channel::<Work>();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // A panic in one piece of work is reported by its missing answer; the thread goes on.
            receiver.into_iter().for_each(|work| drop(catch_unwind(AssertUnwindSafe(work))));
        })?;
        Ok(Self(sender))
    }

    /// Runs `work` some time; nobody waits for it.
    pub fn run_detached(&self, work: impl FnOnce() + Send + 'static) {
        // Only a dead thread refuses, and then the closure is dropped here, which closes what it holds.
        let _ = self.0.send(Box::new(work));
    }

    /// Runs `work` and waits for its result.
    pub fn run<T: Send + 'static, W: FnOnce() -> io::Result<T> + Send + 'static>(
        &self,
        work: W,
    ) -> impl Future<Output = io::Result<T>> + 'static + use<T, W> {
        let answer = Arc::new(Mutex::new(Answer { value: None, waker: None, lost: false }));
        let promise = Promise(answer.clone());
        self.run_detached(move || promise.keep(work()));
        woken_from_outside(std::future::poll_fn(move |cx| {
            let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
            match answer.value.take() {
                Some(value) => Poll::Ready(value),
                None if answer.lost => Poll::Ready(Err(io::Error::other("the helper thread failed"))),
                None => {
                    answer.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

/// Tells the waiting side, with a value or, when the work panicked, without.
struct Promise<T>(Arc<Mutex<Answer<T>>>);

impl<T> Promise<T> {
    fn keep(self, value: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).value = Some(value);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let waker = {
            let mut answer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            answer.lost = answer.value.is_none();
            answer.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    #[test]
    fn work_is_answered_in_order_and_a_panic_is_an_error() {
        let offload = Offload::start("offload-test").unwrap();
        let first = offload.run(|| Ok(1));
        let second = offload.run(|| -> io::Result<i32> { panic!("expected by this test") });
        let third = offload.run(|| Ok(3));
        assert_eq!(block_on(third).unwrap(), 3);
        assert!(block_on(second).is_err());
        assert_eq!(block_on(first).unwrap(), 1);
    }
}
