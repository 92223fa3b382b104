//! The generator's own io_uring: many connected sockets, one thread, one system call a turn.
//!
//! It owns the sockets and all memory the kernel reads or writes, so nothing outside has to know how long an
//! operation lasts. Received bytes are lent to a handler and the buffer handed back at once; bytes to send are
//! appended to a buffer that the kernel does not have. One send a socket is in flight. This is the one file of the
//! crate in which `unsafe` is allowed.
#![allow(unsafe_code)]

use io_uring::types::{BufRingEntry, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Bytes of one receive buffer.
const BUFFER_BYTES: usize = 16 << 10;
/// Receive buffers at least and at most; powers of two.
const BUFFERS_MIN: usize = 64;
const BUFFERS_MAX: usize = 1024;
const BUFFER_GROUP: u16 = 0;
const SUBMISSION_ENTRIES: u32 = 4096;
const COMPLETION_ENTRIES: u32 = 16384;
/// Completions handled between two submissions.
const BUNCH: usize = 32;
/// IORING_ENTER_GETEVENTS: run deferred work, so that completions get posted.
const ENTER_GETEVENTS: u32 = 1;
/// `user_data` is a socket's number, and this bit for its sends.
const SEND: u64 = 1 << 32;
/// How long a drop waits for the kernel to let go of memory, in turns of up to 1 ms.
const RELEASE_TURNS_MAX: usize = 10_000;

/// What happened on a socket.
pub enum Event<'a> {
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
}

struct Socket {
    fd: OwnedFd,
    /// What is appended to.
    waiting: Vec<u8>,
    /// What the kernel has while `send_in_flight`; then it is not touched.
    sending: Vec<u8>,
    sent_bytes: usize,
    send_in_flight: bool,
    is_dirty: bool,
    is_open: bool,
}

impl Ring {
    /// A ring over connected sockets, which are numbered in the order given.
    pub fn new(sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)?;
        let raw: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
        uring.submitter().register_files(&raw)?;
        let count = (sockets.len() * 2).next_power_of_two().clamp(BUFFERS_MIN, BUFFERS_MAX);
        let memory = Buffers::new(count)?;
        // SAFETY: the entries are page-aligned, `count` many, and unmapped only in `drop`, when the kernel holds no
        // operation any more.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(memory.entries as u64, count as u16, BUFFER_GROUP, 0)?
        };
        let unarmed = (0..sockets.len()).collect();
        let sockets = sockets.into_iter().map(Socket::new).collect();
        Ok(Self {
            uring: ManuallyDrop::new(uring),
            memory: ManuallyDrop::new(memory),
            sockets: ManuallyDrop::new(sockets),
            dirty: Vec::new(),
            unarmed,
            kernel_holds: 0,
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
        for _ in 0..BUNCH {
            let Some(completion) = self.completion() else { return };
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
        for socket in std::mem::take(&mut self.unarmed) {
            let entry = opcode::RecvMulti::new(Fixed(socket as u32), BUFFER_GROUP).build().user_data(socket as u64);
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

    fn after_send(&mut self, number: usize, result: i32, handler: &mut impl FnMut(usize, Event<'_>, &mut Vec<u8>)) {
        self.kernel_holds -= 1;
        let socket = &mut self.sockets[number];
        socket.send_in_flight = false;
        if result < 0 {
            close(socket, number, Some(io::Error::from_raw_os_error(-result)), handler);
            return;
        }
        socket.sent_bytes += result as usize;
        if socket.sent_bytes < socket.sending.len() || !socket.waiting.is_empty() {
            mark_dirty(&mut self.dirty, socket, number);
        }
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
        for socket in self.sockets.iter() {
            let _ = rustix::net::shutdown(&socket.fd, rustix::net::Shutdown::Both);
        }
        for _ in 0..RELEASE_TURNS_MAX {
            if self.kernel_holds == 0 {
                break;
            }
            self.dirty.clear();
            self.unarmed.clear();
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
            fd,
            waiting: Vec::new(),
            sending: Vec::new(),
            sent_bytes: 0,
            send_in_flight: false,
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
        let _ = rustix::net::shutdown(&socket.fd, rustix::net::Shutdown::Both);
        handler(number, Event::Closed(error), &mut socket.waiting);
    }
}

fn rustix_flag_nosignal() -> i32 {
    rustix::net::SendFlags::NOSIGNAL.bits() as i32
}

fn is_harmless(error: &io::Error) -> bool {
    [Errno::TIME, Errno::INTR, Errno::BUSY].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Receive buffers: a ring of entries by which the kernel is told of free ones, and the bytes.
struct Buffers {
    entries: *mut BufRingEntry,
    bytes: *mut u8,
    count: usize,
    tail: u16,
}

impl Buffers {
    fn new(count: usize) -> io::Result<Self> {
        let mut buffers = Self {
            entries: map(count * size_of::<BufRingEntry>())?.cast(),
            bytes: map(count * BUFFER_BYTES)?,
            count,
            tail: 0,
        };
        (0..count).for_each(|buffer| buffers.give_back(buffer as u16));
        Ok(buffers)
    }

    fn lend(&mut self, buffer: u16, length: usize, read: impl FnOnce(&[u8])) {
        assert!(usize::from(buffer) < self.count && length <= BUFFER_BYTES, "the kernel names a buffer it was given");
        // SAFETY: in range; the kernel filled it and does not touch it again before it is given back below.
        read(unsafe { std::slice::from_raw_parts(self.bytes.add(usize::from(buffer) * BUFFER_BYTES), length) });
        self.give_back(buffer);
    }

    fn give_back(&mut self, buffer: u16) {
        let position = usize::from(self.tail) & (self.count - 1);
        // SAFETY: both offsets are in range; the kernel reads the entry only after the tail below says so. The fields
        // are written one by one because the tail lies in the spare bytes of the first entry.
        unsafe {
            let entry = &mut *self.entries.add(position);
            entry.set_addr(self.bytes.add(usize::from(buffer) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is an aligned u16 in the mapping, written by this thread only and read by the kernel.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        shared.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: these are the two mappings made in `new`, with the same lengths; nobody uses them any more.
        unsafe {
            let _ = munmap(self.entries.cast(), self.count * size_of::<BufRingEntry>());
            let _ = munmap(self.bytes.cast(), self.count * BUFFER_BYTES);
        }
    }
}

fn map(length_bytes: usize) -> io::Result<*mut u8> {
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
    let pointer = unsafe {
        mmap_anonymous(std::ptr::null_mut(), length_bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?
    };
    Ok(pointer.cast())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn echo(mut peer: UnixStream, total_bytes: usize) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let mut left = total_bytes;
            let mut buffer = vec![0; 4096];
            while left > 0 {
                let length = peer.read(&mut buffer).unwrap();
                peer.write_all(&buffer[..length]).unwrap();
                left -= length;
            }
        })
    }

    #[test]
    fn every_byte_comes_back_in_order_and_the_end_is_told_once() {
        let total_bytes = 3 << 20;
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
        let (mut sockets, mut peers) = (Vec::new(), Vec::new());
        for (ours, theirs) in pairs {
            sockets.push(OwnedFd::from(ours));
            peers.push(echo(theirs, total_bytes));
        }
        let mut ring = Ring::new(sockets).unwrap();
        let sent: Vec<u8> = (0..total_bytes).map(|position| (position % 251) as u8).collect();
        (0..3).for_each(|socket| ring.outbound(socket).extend_from_slice(&sent));
        let mut received = vec![Vec::new(); 3];
        let mut closed = [0; 3];
        while closed.iter().sum::<usize>() < 3 {
            ring.turn(Wait::Endless).unwrap();
            ring.reap(|socket, event, _| match event {
                Event::Received(bytes) => received[socket].extend_from_slice(bytes),
                Event::Closed(_) => closed[socket] += 1,
            });
        }
        drop(ring);
        peers.into_iter().for_each(|peer| peer.join().unwrap());
        assert!(received.iter().all(|bytes| *bytes == sent));
        assert_eq!(closed, [1; 3]);
    }

    #[test]
    fn a_turn_that_may_not_wait_returns_without_an_event() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut ring = Ring::new(vec![ours.into()]).unwrap();
        for wait in [Wait::Until(Duration::ZERO), Wait::Until(Duration::from_millis(1))] {
            ring.turn(wait).unwrap();
            ring.reap(|_, _, _| panic!("nothing happened on the socket"));
        }
    }
}
