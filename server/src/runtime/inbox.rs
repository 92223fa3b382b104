//! Wake-ups from other threads: helper threads and whoever asks for the stop.
//!
//! A shard's tasks may be woken only on their own thread, where the ring's driver sees that there is something to run.
//! So a waker that another thread is to use goes through the shard's inbox: the thread leaves it there and, if the
//! shard does not know yet, writes the eventfd that the ring watches.
#![allow(unsafe_code)]

use super::ring::{OperationKind, Ring, Token};
use io_uring::{opcode, types};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

thread_local! {
    /// The inbox of the shard that runs on this thread.
    static INBOX: RefCell<Option<Arc<Inbox>>> = const { RefCell::new(None) };
}

/// Wakers left by other threads.
pub(super) struct Inbox {
    wakers: Mutex<Vec<Waker>>,
    told: AtomicBool,
    event: OwnedFd,
}

impl Inbox {
    /// Opens the inbox of the calling thread's shard, for as long as the thread lives.
    pub fn open() -> io::Result<Arc<Self>> {
        use rustix::event::{EventfdFlags, eventfd};
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let inbox = Arc::new(Self { wakers: Mutex::default(), told: AtomicBool::new(false), event });
        INBOX.set(Some(inbox.clone()));
        Ok(inbox)
    }

    /// Has the ring watch it. Again after each completion without more to come.
    pub fn watch(&self, ring: &Ring) {
        let entry = opcode::PollAdd::new(types::Fd(self.event.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        // SAFETY: a poll points to nothing; the descriptor outlives the driver, which holds the inbox.
        unsafe { ring.queue(Token::new(OperationKind::Inbox, 0, 0), entry) };
    }

    /// Wakes everybody whose waker was left.
    pub fn empty(&self) {
        // Nothing to read is no error: a completion may come twice for one write.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        self.told.store(false, Ordering::SeqCst);
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }

    fn leave(&self, waker: Waker) {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
        if !self.told.swap(true, Ordering::SeqCst) {
            // It cannot be full: it counts to one between two readings.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

/// A waker that other threads may use.
struct Foreign {
    inbox: Arc<Inbox>,
    waker: Waker,
}

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        self.inbox.leave(self.waker.clone());
    }
}

/// A future whose wakers may be used by other threads. On a thread without a shard it is the future itself.
pub async fn woken_from_outside<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut foreign: Option<Waker> = None;
    std::future::poll_fn(|cx| {
        let inbox = INBOX.with_borrow(Clone::clone);
        let Some(inbox) = inbox else { return future.as_mut().poll(cx) };
        let foreign = foreign.get_or_insert_with(|| Arc::new(Foreign { inbox, waker: cx.waker().clone() }).into());
        future.as_mut().poll(&mut std::task::Context::from_waker(foreign))
    })
    .await
}
