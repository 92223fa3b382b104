//! Disk operations in flight on the shard's ring: who waits, and the memory that the kernel works on.
//!
//! An operation's buffer and file stay in this table until its last completion, whatever becomes of the future that
//! started it, so that dropping the future is sound at any time.
#![allow(unsafe_code)]

use super::buffer::AlignedBuffer;
use super::ring::{Completion, OperationKind, Ring, Token};
use io_uring::squeue;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// The share of the newest commit in the running mean: an eighth.
const MEAN_SHIFT: u32 = 3;

struct Slot<F> {
    generation: u32,
    operation: Option<Operation<F>>,
}

struct Operation<F> {
    /// Kept so that the descriptor stays open.
    file: Rc<F>,
    buffer: Option<AlignedBuffer>,
    waker: Option<Waker>,
    /// Completions still to come.
    outstanding: u8,
    result: i32,
    sync_result: i32,
    abandoned: bool,
    /// When it began, of an operation that somebody's reply waits for.
    commit_started: Option<Instant>,
}

/// The table. `F` is what keeps a descriptor open.
pub(super) struct DiskOperations<F> {
    ring: Rc<Ring>,
    slots: RefCell<Vec<Slot<F>>>,
    free: RefCell<Vec<u32>>,
    in_flight: Cell<usize>,
    commits: RefCell<Vec<Instant>>,
    commit_mean_ns: Cell<u64>,
}

/// What an operation ended with.
pub(super) struct Finished {
    pub result: io::Result<usize>,
    pub buffer: Option<AlignedBuffer>,
}

impl<F> DiskOperations<F> {
    pub fn new(ring: Rc<Ring>) -> Self {
        Self {
            ring,
            slots: RefCell::new(Vec::new()),
            free: RefCell::new(Vec::new()),
            in_flight: Cell::new(0),
            commits: RefCell::new(Vec::new()),
            commit_mean_ns: Cell::new(0),
        }
    }

    /// Starts an operation, and with `synced` a second one that runs when the first has succeeded in full.
    ///
    /// # Safety
    /// The entries point only into `buffer` and to the descriptor that `file` keeps open.
    pub unsafe fn start(
        self: &Rc<Self>,
        file: Rc<F>,
        buffer: Option<AlignedBuffer>,
        entry: squeue::Entry,
        synced: Option<squeue::Entry>,
        is_commit: bool,
    ) -> DiskOperation<F> {
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut slots = self.slots.borrow_mut();
            slots.push(Slot { generation: 0, operation: None });
            slots.len() as u32 - 1
        });
        let commit_started = is_commit.then(Instant::now);
        let generation = {
            let place = &mut self.slots.borrow_mut()[slot as usize];
            place.generation = place.generation.wrapping_add(1);
            place.operation = Some(Operation {
                file,
                buffer,
                waker: None,
                outstanding: 1 + u8::from(synced.is_some()),
                result: 0,
                sync_result: 0,
                abandoned: false,
                commit_started,
            });
            place.generation
        };
        self.in_flight.set(self.in_flight.get() + 1);
        self.commits.borrow_mut().extend(commit_started);
        let token = Token::new(OperationKind::Disk, slot, generation);
        // SAFETY: buffer and file lie in the table until the last completion; the rest is the caller's promise.
        unsafe {
            match synced {
                None => self.ring.queue(token, entry),
                Some(sync) => {
                    let sync_token = Token::new(OperationKind::DiskSync, slot, generation);
                    self.ring.queue_linked((token, entry), (sync_token, sync));
                }
            }
        }
        if is_commit {
            // A failure to submit is met again, and told, by the driver's own submission.
            let _ = self.ring.submit_at_once();
        }
        DiskOperation { operations: self.clone(), slot, finished: false }
    }

    /// One completion of a disk operation.
    pub fn complete(&self, completion: Completion) {
        let Token { kind, slot, generation } = completion.token;
        let mut slots = self.slots.borrow_mut();
        let place = &mut slots[slot as usize];
        let Some(operation) = place.operation.as_mut().filter(|_| place.generation == generation) else { return };
        match kind {
            OperationKind::DiskSync => operation.sync_result = completion.result,
            _ => operation.result = completion.result,
        }
        operation.outstanding -= 1;
        if operation.outstanding > 0 {
            return;
        }
        self.in_flight.set(self.in_flight.get() - 1);
        if let Some(started) = operation.commit_started {
            self.commit_finished(started);
        }
        if operation.abandoned {
            let operation = place.operation.take();
            drop(slots);
            self.free.borrow_mut().push(slot);
            // Outside the borrow: the last handle of a file may go with it.
            drop(operation);
        } else if let Some(waker) = operation.waker.take() {
            drop(slots);
            waker.wake();
        }
    }

    /// Whether somebody's reply waits for a disk operation.
    pub fn commit_is_in_flight(&self) -> bool {
        !self.commits.borrow().is_empty()
    }

    /// Until when a commit in flight is worth staying awake for: twice the running mean after its start.
    pub fn commit_expected_by(&self) -> Option<Instant> {
        let started = *self.commits.borrow().first()?;
        Some(started + std::time::Duration::from_nanos(2 * self.commit_mean_ns.get()))
    }

    /// Whether no operation is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    fn commit_finished(&self, started: Instant) {
        let mut commits = self.commits.borrow_mut();
        if let Some(position) = commits.iter().position(|other| *other == started) {
            commits.remove(position);
        }
        let took_ns = started.elapsed().as_nanos() as u64;
        let mean_ns = self.commit_mean_ns.get();
        self.commit_mean_ns.set(match mean_ns {
            0 => took_ns,
            mean_ns => mean_ns - (mean_ns >> MEAN_SHIFT) + (took_ns >> MEAN_SHIFT),
        });
    }
}

/// Waits for one operation.
pub(super) struct DiskOperation<F> {
    operations: Rc<DiskOperations<F>>,
    slot: u32,
    finished: bool,
}

impl<F> Future for DiskOperation<F> {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        assert!(!self.finished, "polled after it was finished");
        let slot = self.slot;
        let mut slots = self.operations.slots.borrow_mut();
        let place = &mut slots[slot as usize].operation;
        let waits = place.as_mut().is_some_and(|operation| {
            if operation.outstanding > 0 {
                operation.waker = Some(cx.waker().clone());
            }
            operation.outstanding > 0
        });
        if waits {
            return Poll::Pending;
        }
        let operation = place.take();
        drop(slots);
        self.operations.free.borrow_mut().push(slot);
        self.finished = true;
        let Operation { buffer, result, sync_result, file, .. } =
            operation.expect("a slot holds its operation until the future takes it");
        drop(file);
        Poll::Ready(Finished { result: outcome(result, sync_result), buffer })
    }
}

/// A failed sync fails the write; one that was cancelled because the write fell short leaves the short count to tell.
fn outcome(result: i32, sync_result: i32) -> io::Result<usize> {
    if result >= 0 && sync_result < 0 && sync_result != -libc::ECANCELED {
        return Err(io::Error::from_raw_os_error(-sync_result));
    }
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

impl<F> Drop for DiskOperation<F> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let mut slots = self.operations.slots.borrow_mut();
        let place = &mut slots[self.slot as usize].operation;
        match place {
            Some(operation) if operation.outstanding > 0 => {
                operation.abandoned = true;
                operation.waker = None;
            }
            _ => {
                let operation = place.take();
                drop(slots);
                self.operations.free.borrow_mut().push(self.slot);
                drop(operation);
            }
        }
    }
}
