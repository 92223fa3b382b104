//! The instrument's own io_uring: many sockets, one thread, one system call a turn.
//!
//! It owns the sockets and all memory the kernel reads or writes, so nothing outside has to know how long an
//! operation lasts. Received bytes are lent to a handler and the buffer handed back at once; bytes to send are
//! appended to a buffer that the kernel does not have. One send a socket is in flight. The generator gives it sockets
//! that are connected; the bare server it is held against gives it a listener. This is the one room of the crate in
//! which `unsafe` is allowed.
#![allow(unsafe_code)]

mod buffers;
pub mod disk;
mod memory;
#[cfg(test)]
mod tests;

pub use memory::Memory;

use buffers::Buffers;

use io_uring::types::{Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, Submitter, cqueue, opcode, squeue};
use rustix::io::Errno;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Receive buffers at least and at most; powers of two.
const BUFFERS_MIN: usize = 64;
const BUFFERS_MAX: usize = 1024;
const BUFFER_GROUP: u16 = 0;
const SUBMISSION_ENTRIES: u32 = 4096;
const COMPLETION_ENTRIES: u32 = 16384;
/// Sockets of a listening ring at most.
const SOCKETS_MAX: u32 = 4096;
/// Completions handled between two submissions: few for a generator, so that its peer has work meanwhile.
const BUNCH: usize = 32;
const BUNCH_LISTENING: usize = 512;
/// IORING_ENTER_GETEVENTS: run deferred work, so that completions get posted.
const ENTER_GETEVENTS: u32 = 1;
/// `user_data` is a socket's number, and this bit for its sends.
const SEND: u64 = 1 << 32;
/// `user_data` of the accept.
const ACCEPT: u64 = 1 << 33;
/// How long a drop waits for the kernel to let go of memory, in turns of up to 1 ms.
const RELEASE_TURNS_MAX: usize = 10_000;

/// What happened on a socket.
pub enum Event<'a> {
    /// A listening ring accepted it; its number may have been another's before.
    Opened,
    /// Bytes arrived.
    Received(&'a [u8]),
    /// The peer closed it, or it failed with this error; nothing follows.
    Closed(Option<io::Error>),
}

/// The sockets and their ring.
pub struct Ring {
    uring: ManuallyDrop<IoUring>,
    memory: ManuallyDrop<Buffers>,
    sockets: ManuallyDrop<Vec<Socket>>,
    /// Sockets with bytes to send that were not handed to the kernel yet.
    dirty: Vec<usize>,
    /// Sockets whose receive has to be armed (again).
    unarmed: Vec<usize>,
    /// Operations whose last completion has not been reaped.
    kernel_holds: usize,
    /// Whose connections are accepted, and whether that has to be armed (again).
    listener: Option<OwnedFd>,
    accept_is_unarmed: bool,
    /// Places whose sockets are gone.
    free: Vec<usize>,
    bunch: usize,
}

struct Socket {
    /// Until a listening ring lets go of it.
    fd: Option<OwnedFd>,
    /// What is appended to.
    waiting: Vec<u8>,
    /// What the kernel has while `send_in_flight`; then it is not touched.
    sending: Vec<u8>,
    sent_bytes: usize,
    send_in_flight: bool,
    receive_in_flight: bool,
    is_dirty: bool,
    is_open: bool,
}

impl Ring {
    /// A ring over connected sockets, which are numbered in the order given.
    pub fn new(sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let raw: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let mut ring = Self::build(sockets.len(), |submitter| submitter.register_files(&raw))?;
        ring.unarmed = (0..sockets.len()).collect();
        ring.sockets.extend(sockets.into_iter().map(Socket::new));
        Ok(ring)
    }

    /// A ring that serves whoever connects to this listening socket.
    pub fn listening(listener: OwnedFd) -> io::Result<Self> {
        let mut ring = Self::build(BUFFERS_MAX, |submitter| submitter.register_files_sparse(SOCKETS_MAX))?;
        ring.listener = Some(listener);
        ring.accept_is_unarmed = true;
        ring.bunch = BUNCH_LISTENING;
        Ok(ring)
    }

    fn build(buffers: usize, register: impl FnOnce(&Submitter<'_>) -> io::Result<()>) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)?;
        register(&uring.submitter())?;
        let count = (buffers * 2).next_power_of_two().clamp(BUFFERS_MIN, BUFFERS_MAX);
        let memory = Buffers::new(count)?;
        // SAFETY: the entries are page-aligned, `count` many, and unmapped only in `drop`, when the kernel holds no
        // operation any more.
        unsafe { uring.submitter().register_buf_ring_with_flags(memory.address(), count as u16, BUFFER_GROUP, 0)? };
        Ok(Self {
            uring: ManuallyDrop::new(uring),
            memory: ManuallyDrop::new(memory),
            sockets: ManuallyDrop::new(Vec::new()),
            dirty: Vec::new(),
            unarmed: Vec::new(),
            kernel_holds: 0,
            listener: None,
            accept_is_unarmed: false,
            free: Vec::new(),
            bunch: BUNCH,
        })
    }

    /// Where bytes for a socket are appended; they leave with the next [`Ring::turn`].
    pub fn outbound(&mut self, socket: usize) -> &mut Vec<u8> {
        mark_dirty(&mut self.dirty, &mut self.sockets[socket], socket);
        &mut self.sockets[socket].waiting
    }

    /// Submits everything queued and waits for a completion: without end, up to a time, or not at all.
    pub fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.arm_receives()?;
        for socket in std::mem::take(&mut self.dirty) {
            self.sockets[socket].is_dirty = false;
            self.send(socket)?;
        }
        let result = match wait {
            Wait::Until(time) if time.is_zero() => self.enter_without_waiting(),
            Wait::Until(time) => {
                let time = Timespec::from(time);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
            Wait::Endless => self.uring.submit_and_wait(1),
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if is_harmless(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hands completions, but no more than a bunch of them, to `handler`: the socket, what happened, and where its next bytes are appended.
    pub fn reap(&mut self, mut handler: impl FnMut(usize, Event<'_>, &mut Vec<u8>)) {
        // What is answered to one bunch is sent before the next is looked at, so that the peer has work meanwhile.
        for _ in 0..self.bunch {
            let Some(completion) = self.completion() else { return };
            if completion.user_data() == ACCEPT {
                self.after_accept(&completion, &mut handler);
                continue;
            }
            let socket = (completion.user_data() & (SEND - 1)) as usize;
            if completion.user_data() & SEND != 0 {
                self.after_send(socket, completion.result(), &mut handler);
            } else {
                self.after_receive(socket, &completion, &mut handler);
            }
        }
    }

    fn completion(&mut self) -> Option<cqueue::Entry> {
        self.uring.completion().next()
    }

    fn enter_without_waiting(&self) -> io::Result<usize> {
        // A thread that never sleeps holds up what the kernel wants to run on this CPU, such as the end of a server's
        // disk write; so it offers the CPU each time.
        rustix::thread::sched_yield();
        // SAFETY: the shared submission queue is only read for its length, by the thread that fills it.
        let queued = unsafe { self.uring.submission_shared().len() };
        // SAFETY: no argument is passed, so none has to be valid.
        unsafe { self.uring.submitter().enter::<()>(queued as u32, 0, ENTER_GETEVENTS, None) }
    }

    fn arm_receives(&mut self) -> io::Result<()> {
        if let (Some(listener), true) = (&self.listener, std::mem::take(&mut self.accept_is_unarmed)) {
            let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build().user_data(ACCEPT);
            // SAFETY: it names no memory.
            unsafe { self.push(&entry)? };
        }
        for socket in std::mem::take(&mut self.unarmed) {
            let entry = opcode::RecvMulti::new(Fixed(socket as u32), BUFFER_GROUP).build().user_data(socket as u64);
            self.sockets[socket].receive_in_flight = true;
            // SAFETY: it names no memory but the provided buffers, which live until `kernel_holds` is zero.
            unsafe { self.push(&entry)? };
        }
        Ok(())
    }

    fn send(&mut self, number: usize) -> io::Result<()> {
        let socket = &mut self.sockets[number];
        if socket.send_in_flight || !socket.is_open {
            return Ok(());
        }
        if socket.sent_bytes == socket.sending.len() {
            socket.sending.clear();
            socket.sent_bytes = 0;
            std::mem::swap(&mut socket.sending, &mut socket.waiting);
        }
        let rest = &socket.sending[socket.sent_bytes..];
        if rest.is_empty() {
            return Ok(());
        }
        let length = rest.len().min(1 << 30) as u32;
        let entry = opcode::Send::new(Fixed(number as u32), rest.as_ptr(), length)
            .flags(rustix_flag_nosignal())
            .build()
            .user_data(number as u64 | SEND);
        socket.send_in_flight = true;
        // SAFETY: `sending` is neither changed nor freed while `send_in_flight`; moving the `Socket` moves no heap.
        unsafe { self.push(&entry) }
    }

    /// # Safety
    /// What the entry points to is valid until its last completion was reaped.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise is the very one asked for here.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.uring.submit()?;
        }
        self.kernel_holds += 1;
        Ok(())
    }

    fn after_accept(&mut self, completion: &cqueue::Entry, handler: &mut impl FnMut(usize, Event<'_>, &mut Vec<u8>)) {
        if !cqueue::more(completion.flags()) {
            self.kernel_holds -= 1;
            self.accept_is_unarmed = true;
        }
        if completion.result() < 0 {
            return; // The peer is told by the kernel; the next one may have more luck.
        }
        // SAFETY: the kernel made this descriptor for us just now, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(completion.result()) };
        let number = self.free.pop().unwrap_or(self.sockets.len());
        let registered = self.uring.submitter().register_files_update(number as u32, &[socket.as_raw_fd()]);
        if registered.is_err() {
            return; // The table is full, or the kernel is short of memory: the connection is closed here.
        }
        // Where replies are small, waiting for more of them would cost the peer a delayed acknowledgement. A Unix
        // socket has no such option and needs none.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
        if number == self.sockets.len() {
            self.sockets.push(Socket::new(socket));
        } else {
            self.sockets[number] = Socket::new(socket);
        }
        self.unarmed.push(number);
        handler(number, Event::Opened, &mut self.sockets[number].waiting);
    }

    /// Lets go of a socket of a listening ring once the kernel has.
    fn release(&mut self, number: usize) {
        let socket = &mut self.sockets[number];
        let is_over = !socket.is_open && !socket.send_in_flight && !socket.receive_in_flight && socket.fd.is_some();
        if is_over && self.listener.is_some() && !self.unarmed.contains(&number) {
            // Should it fail, the place is lost; the descriptor is closed all the same.
            if self.uring.submitter().register_files_update(number as u32, &[-1]).is_ok() {
                self.free.push(number);
            }
            socket.fd = None;
        }
    }

    fn after_send(&mut self, number: usize, result: i32, handler: &mut impl FnMut(usize, Event<'_>, &mut Vec<u8>)) {
        self.kernel_holds -= 1;
        let socket = &mut self.sockets[number];
        socket.send_in_flight = false;
        if result < 0 {
            close(socket, number, Some(io::Error::from_raw_os_error(-result)), handler);
            self.release(number);
            return;
        }
        socket.sent_bytes += result as usize;
        if socket.sent_bytes < socket.sending.len() || !socket.waiting.is_empty() {
            mark_dirty(&mut self.dirty, socket, number);
        }
        self.release(number);
    }

    fn after_receive(
        &mut self,
        number: usize,
        completion: &cqueue::Entry,
        handler: &mut impl FnMut(usize, Event<'_>, &mut Vec<u8>),
    ) {
        let has_more = cqueue::more(completion.flags());
        if !has_more {
            self.kernel_holds -= 1;
        }
        let result = completion.result();
        let socket = &mut self.sockets[number];
        socket.receive_in_flight &= has_more;
        match cqueue::buffer_select(completion.flags()) {
            Some(buffer) if result > 0 => {
                self.memory.lend(buffer, result as usize, |bytes| {
                    handler(number, Event::Received(bytes), &mut socket.waiting);
                });
                if !socket.waiting.is_empty() {
                    mark_dirty(&mut self.dirty, socket, number);
                }
            }
            Some(buffer) => self.memory.lend(buffer, 0, |_| {}),
            None => {}
        }
        let is_short_of_buffers = -result == Errno::NOBUFS.raw_os_error();
        if result <= 0 && !is_short_of_buffers {
            let error = (result < 0).then(|| io::Error::from_raw_os_error(-result));
            close(socket, number, error, handler);
        } else if !has_more && socket.is_open {
            self.unarmed.push(number);
        }
        self.release(number);
    }
}

/// How long a turn waits for a completion.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// At most so long; zero does not wait at all.
    Until(Duration),
    /// As long as it takes.
    Endless,
}

impl Drop for Ring {
    fn drop(&mut self) {
        for fd in self.sockets.iter().filter_map(|socket| socket.fd.as_ref()).chain(&self.listener) {
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
        }
        for _ in 0..RELEASE_TURNS_MAX {
            if self.kernel_holds == 0 {
                break;
            }
            self.dirty.clear();
            self.unarmed.clear();
            self.accept_is_unarmed = false;
            let _ = self.turn(Wait::Until(Duration::from_millis(1)));
            self.reap(|_, _, _| {});
        }
        if self.kernel_holds > 0 {
            return; // The kernel may still use the memory: it is lost rather than shared.
        }
        // SAFETY: each is dropped once, here, and not used again; the kernel holds no operation, and the ring goes
        // before the memory registered with it.
        unsafe {
            ManuallyDrop::drop(&mut self.uring);
            ManuallyDrop::drop(&mut self.sockets);
            ManuallyDrop::drop(&mut self.memory);
        }
    }
}

impl Socket {
    fn new(fd: OwnedFd) -> Self {
        Self {
            fd: Some(fd),
            waiting: Vec::new(),
            sending: Vec::new(),
            sent_bytes: 0,
            send_in_flight: false,
            receive_in_flight: false,
            is_dirty: false,
            is_open: true,
        }
    }
}

fn mark_dirty(dirty: &mut Vec<usize>, socket: &mut Socket, number: usize) {
    if !socket.is_dirty {
        socket.is_dirty = true;
        dirty.push(number);
    }
}

fn close(
    socket: &mut Socket,
    number: usize,
    error: Option<io::Error>,
    handler: &mut impl FnMut(usize, Event<'_>, &mut Vec<u8>),
) {
    if std::mem::replace(&mut socket.is_open, false) {
        if let Some(fd) = &socket.fd {
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
        }
        handler(number, Event::Closed(error), &mut socket.waiting);
    }
}

fn rustix_flag_nosignal() -> i32 {
    rustix::net::SendFlags::NOSIGNAL.bits() as i32
}

fn is_harmless(error: &io::Error) -> bool {
    [Errno::TIME, Errno::INTR, Errno::BUSY].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
