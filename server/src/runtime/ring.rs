//! The raw io_uring ring of one shard thread: queueing, one submission a turn, reaping, and the thread's sleep.
//!
//! Invariants: only the thread that made the ring touches it; `user_data` is a [`Token`] (operation, slot,
//! generation), never a file descriptor; an entry that finds the submission queue full waits in order in a backlog
//! and linked entries are never torn apart; whatever is queued wakes a resting driver. What an operation's memory
//! is, and how long it lives, is its owner's business: see [`Ring::queue`].
#![allow(unsafe_code)]

use io_uring::{IoUring, cqueue, squeue, types};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::task::Waker;
use std::time::Duration;

/// Entries of the submission queue; what does not fit waits in the backlog.
const SUBMISSION_ENTRIES: u32 = 2048;
/// Entries of the completion queue; the kernel keeps what overflows.
const COMPLETION_ENTRIES: u32 = 8192;
/// io-wq threads for operations that the kernel cannot do inline (fdatasync, fallocate): bounded and unbounded.
const WORKERS_MAX: [u32; 2] = [4, 4];
/// IORING_ENTER_GETEVENTS: run the ring's task work, so that completions get posted.
const ENTER_GETEVENTS: u32 = 1;

/// What an operation is, and so whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum OperationKind {
    /// Nobody waits for it.
    Ignored = 0,
    Accept = 1,
    Receive = 2,
    Send = 3,
    /// Any operation on a connection that only has to be over before the connection is.
    Control = 4,
    /// The cancelling of an accept.
    AcceptCancel = 5,
    Timer = 6,
    /// A disk operation.
    Disk = 7,
    /// The fdatasync linked behind a disk write.
    DiskSync = 8,
    /// Another shard rang.
    Doorbell = 9,
    /// This shard rang; the slot is the peer.
    Ringing = 10,
    /// Another thread has left wakers in the inbox.
    Inbox = 11,
    /// The next timer may be due.
    Alarm = 12,
}

/// Who gets the completion: 8 bits of kind, 24 of slot, 32 of generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: OperationKind,
    pub slot: u32,
    pub generation: u32,
}

/// Slots that a token can name.
pub(super) const TOKEN_SLOTS: u32 = 1 << 24;

impl Token {
    pub fn new(kind: OperationKind, slot: u32, generation: u32) -> Self {
        debug_assert!(slot < TOKEN_SLOTS);
        Self { kind, slot, generation }
    }

    pub fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot) << 8 | self.kind as u64
    }

    pub fn unpack(packed: u64) -> Self {
        let kind = match packed as u8 {
            1 => OperationKind::Accept,
            2 => OperationKind::Receive,
            3 => OperationKind::Send,
            4 => OperationKind::Control,
            5 => OperationKind::AcceptCancel,
            6 => OperationKind::Timer,
            7 => OperationKind::Disk,
            8 => OperationKind::DiskSync,
            9 => OperationKind::Doorbell,
            10 => OperationKind::Ringing,
            11 => OperationKind::Inbox,
            12 => OperationKind::Alarm,
            _ => OperationKind::Ignored,
        };
        Self { kind, slot: packed as u32 >> 8, generation: (packed >> 32) as u32 }
    }
}

/// One completion, copied out of the queue before anything runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub token: Token,
    /// A count, or a negative error number.
    pub result: i32,
    /// The provided buffer it filled.
    pub buffer: Option<u16>,
    /// Whether the same operation completes again.
    pub more: bool,
}

enum Queued {
    One(squeue::Entry),
    Linked([squeue::Entry; 2]),
}

/// The ring. Shared within its thread by sockets, files and the doorbell.
pub(super) struct Ring {
    uring: RefCell<IoUring>,
    backlog: RefCell<VecDeque<Queued>>,
    /// Operations in the submission queue that are over as soon as it is submitted.
    immediate: Cell<u32>,
    /// The driver while it rests, which it does only as long as background work runs.
    resting: RefCell<Option<Waker>>,
}

impl Ring {
    /// Makes the ring of the calling thread. `cpus` is where the kernel's helper threads may run.
    pub fn new(cpus: &[usize]) -> io::Result<Self> {
        let uring: IoUring = IoUring::builder()
            .dontfork()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)?;
        let mut workers = WORKERS_MAX;
        uring.submitter().register_iowq_max_workers(&mut workers)?;
        if !cpus.is_empty() {
            // Helper threads follow the cpuset, not the affinity mask; a refusal costs placement, nothing else.
            let _ = uring.submitter().register_iowq_aff(&cpu_set(cpus));
        }
        Ok(Self {
            uring: RefCell::new(uring),
            backlog: RefCell::default(),
            immediate: Cell::new(0),
            resting: RefCell::new(None),
        })
    }

    /// A descriptor of the ring, to ring it from another one.
    pub fn duplicate_fd(&self) -> io::Result<OwnedFd> {
        let uring = self.uring.borrow();
        // SAFETY: the ring owns the descriptor and outlives this borrow.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(uring.as_raw_fd()) };
        fd.as_fd().try_clone_to_owned()
    }

    /// Registers the memory of a provided buffer ring.
    ///
    /// # Safety
    /// `entries` points to `count` buffer ring entries, page-aligned, which live until the ring is gone.
    pub unsafe fn register_buffers(&self, entries: u64, count: u16, group: u16) -> io::Result<()> {
        // SAFETY: the caller's promise is the very one asked for here.
        unsafe { self.uring.borrow().submitter().register_buf_ring_with_flags(entries, count, group, 0) }
    }

    /// Takes the memory of a provided buffer ring back.
    pub fn unregister_buffers(&self, group: u16) -> io::Result<()> {
        self.uring.borrow().submitter().unregister_buf_ring(group)
    }

    /// Queues one operation for the next submission.
    ///
    /// # Safety
    /// Whatever the entry points to stays valid, and is touched by nobody in conflict with the operation, until the
    /// operation's last completion is reaped (or the ring is gone).
    pub unsafe fn queue(&self, token: Token, entry: squeue::Entry) {
        let entry = entry.user_data(token.pack());
        if self.backlog.borrow().is_empty() {
            // SAFETY: the caller's promise.
            if unsafe { self.uring.borrow_mut().submission().push(&entry) }.is_ok() {
                return self.wake_driver();
            }
        }
        self.backlog.borrow_mut().push_back(Queued::One(entry));
        self.wake_driver();
    }

    /// The same for an operation that the kernel never lets wait: it is over, one way or the other, when the call that
    /// submits it returns, so that a sleep which begins with that call is not ended by it.
    ///
    /// # Safety
    /// As for [`Ring::queue`].
    pub unsafe fn queue_immediate(&self, token: Token, entry: squeue::Entry) {
        // SAFETY: the caller's promise.
        unsafe { self.queue(token, entry) };
        if self.backlog.borrow().is_empty() {
            self.immediate.set(self.immediate.get() + 1);
        }
    }

    /// Queues two operations, of which the second runs only after the first succeeded in full.
    ///
    /// # Safety
    /// As for [`Ring::queue`], for both.
    pub unsafe fn queue_linked(&self, first: (Token, squeue::Entry), second: (Token, squeue::Entry)) {
        let first = first.1.flags(squeue::Flags::IO_LINK).user_data(first.0.pack());
        self.backlog.borrow_mut().push_back(Queued::Linked([first, second.1.user_data(second.0.pack())]));
        self.wake_driver();
    }

    /// Hands everything queued to the kernel and has pending completions posted, in at most one system call; in none
    /// when there is nothing to do.
    pub fn submit(&self) -> io::Result<()> {
        let (queued, due) = self.fill();
        if queued == 0 && !due {
            return Ok(());
        }
        self.immediate.set(0);
        let uring = self.uring.borrow();
        // SAFETY: no argument is passed; the entries are valid by the promise of `queue`.
        passing(unsafe { uring.submitter().enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) })
    }

    /// Hands everything queued to the kernel at once, and has nothing else done there. For a disk write that is to
    /// start now: within one submission of many entries the kernel holds block I/O back until the last entry is
    /// through, behind every send that goes along (measured: 250 µs for 50 sends).
    pub fn submit_at_once(&self) -> io::Result<()> {
        let (queued, _) = self.fill();
        self.immediate.set(0);
        let uring = self.uring.borrow();
        // SAFETY: no argument is passed; the entries are valid by the promise of `queue`.
        passing(unsafe { uring.submitter().enter::<libc::sigset_t>(queued, 0, 0, None) })
    }

    /// Whether an entry queued now goes with the next submission.
    pub fn takes_at_once(&self) -> bool {
        self.backlog.borrow().is_empty() && !self.uring.borrow_mut().submission().is_full()
    }

    /// Submits, then sleeps in the kernel until there is a completion to reap, or a signal came, or `at_most` passed.
    ///
    /// Completions of what [`Ring::queue_immediate`] queued do not count: their number is known. To wait for one too many
    /// would be to sleep on, so nothing is counted that might not be in this very submission.
    pub fn submit_and_sleep(&self, at_most: Option<Duration>) -> io::Result<()> {
        self.fill();
        let immediate = self.immediate.take() as usize;
        let wanted = if self.backlog.borrow().is_empty() { immediate + 1 } else { 1 };
        let uring = self.uring.borrow();
        let submitter = uring.submitter();
        passing(match at_most {
            None => submitter.submit_and_wait(wanted),
            Some(at_most) => {
                let at_most = types::Timespec::from(at_most);
                submitter.submit_with_args(wanted, &types::SubmitArgs::new().timespec(&at_most))
            }
        })
    }

    /// Whether everything that is queued is over as soon as it is submitted.
    pub fn holds_only_immediate(&self) -> bool {
        self.backlog.borrow().is_empty() && self.uring.borrow_mut().submission().len() == self.immediate.get() as usize
    }

    /// Whether there are completions to reap, or to be had for a call.
    pub fn has_arrived(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let submission = uring.submission();
        if submission.taskrun() || submission.cq_overflow() {
            return true;
        }
        drop(submission);
        !uring.completion().is_empty()
    }

    /// Moves the backlog into the submission queue; answers how much that holds, and whether completions wait in the
    /// kernel for a call.
    fn fill(&self) -> (u32, bool) {
        let mut uring = self.uring.borrow_mut();
        let mut submission = uring.submission();
        let mut backlog = self.backlog.borrow_mut();
        while let Some(next) = backlog.front() {
            // SAFETY: whoever queued the entry made the promise that `queue` asks for.
            let pushed = match next {
                Queued::One(entry) => unsafe { submission.push(entry) },
                Queued::Linked(entries) => unsafe { submission.push_multiple(entries) },
            };
            if pushed.is_err() {
                break;
            }
            backlog.pop_front();
        }
        (submission.len() as u32, submission.taskrun() || submission.cq_overflow())
    }

    /// Moves up to `limit` completions into `completions`.
    pub fn reap(&self, completions: &mut Vec<Completion>, limit: usize) {
        let mut uring = self.uring.borrow_mut();
        completions.extend(uring.completion().take(limit).map(|entry| Completion {
            token: Token::unpack(entry.user_data()),
            result: entry.result(),
            buffer: cqueue::buffer_select(entry.flags()),
            more: cqueue::more(entry.flags()),
        }));
    }

    /// Whether a turn would find something to submit or to reap. Reads memory only.
    pub fn has_work(&self) -> bool {
        !self.backlog.borrow().is_empty() || !self.uring.borrow_mut().submission().is_empty() || self.has_arrived()
    }

    /// Wakes the driver if it rests: something was queued, or a slice of background work is over.
    #[inline]
    pub fn wake_driver(&self) {
        if let Some(waker) = self.resting.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The driver rests until [`Ring::wake_driver`].
    pub fn rest_driver(&self, waker: &Waker) {
        *self.resting.borrow_mut() = Some(waker.clone());
    }
}

/// A signal, a passed time or a full completion queue are no failure: what is left goes with the next turn.
fn passing(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// A cancellation of every operation that carries this token.
pub(super) fn cancel_entry(token: Token) -> squeue::Entry {
    io_uring::opcode::AsyncCancel2::new(types::CancelBuilder::user_data(token.pack()).all()).build()
}

fn cpu_set(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: a CPU set is a plain bit field; all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus.iter().copied().filter(|cpu| *cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::opcode;

    #[test]
    fn a_token_survives_packing() {
        for kind in [OperationKind::Accept, OperationKind::Receive, OperationKind::DiskSync, OperationKind::Ringing] {
            let token = Token::new(kind, TOKEN_SLOTS - 1, u32::MAX);
            assert_eq!(Token::unpack(token.pack()), token);
        }
        assert_eq!(Token::unpack(Token::new(OperationKind::Send, 0, 7).pack()).generation, 7);
    }

    #[test]
    fn a_sleep_is_not_ended_by_what_is_over_at_once() {
        let ring = Ring::new(&[]).unwrap();
        let kinds = |ring: &Ring| {
            let mut completions = Vec::new();
            ring.reap(&mut completions, 10);
            completions.iter().map(|completion| completion.token.kind).collect::<Vec<_>>()
        };
        let time = types::Timespec::new().nsec(2_000_000);
        for _ in 0..2 {
            // SAFETY: a nop points to nothing; the time lives until the timeout is over.
            unsafe {
                ring.queue(Token::new(OperationKind::Alarm, 0, 0), opcode::Timeout::new(&time).build());
                (0..3).for_each(|_| {
                    ring.queue_immediate(Token::new(OperationKind::Send, 0, 0), opcode::Nop::new().build())
                });
            }
            assert!(!ring.holds_only_immediate());
            ring.submit_and_sleep(None).unwrap();
            assert_eq!(kinds(&ring), [[OperationKind::Send; 3].as_slice(), &[OperationKind::Alarm]].concat());
        }
        // What was submitted otherwise is not counted a second time.
        // SAFETY: as above.
        unsafe { ring.queue_immediate(Token::new(OperationKind::Send, 0, 0), opcode::Nop::new().build()) };
        assert!(ring.holds_only_immediate());
        ring.submit().unwrap();
        ring.submit_and_sleep(None).unwrap();
        assert_eq!(kinds(&ring), [OperationKind::Send]);
        assert!(ring.holds_only_immediate());
    }

    #[test]
    fn more_than_the_queue_holds_waits_in_order() {
        let ring = Ring::new(&[]).unwrap();
        let total = SUBMISSION_ENTRIES * 2 + 3;
        for number in 0..total {
            // SAFETY: a nop points to nothing.
            unsafe { ring.queue(Token::new(OperationKind::Disk, number, 1), opcode::Nop::new().build()) };
        }
        let mut completions = Vec::new();
        while ring.has_work() {
            ring.submit().unwrap();
            ring.reap(&mut completions, 100);
        }
        let slots: Vec<u32> = completions.iter().map(|completion| completion.token.slot).collect();
        assert_eq!(slots, (0..total).collect::<Vec<_>>());
    }
}
