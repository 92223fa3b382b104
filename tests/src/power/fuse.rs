//! A file system of one file, whose bytes are a device: the kernel's FUSE protocol, spoken on `/dev/fuse` directly.
//!
//! The file is opened for direct I/O, so that no page cache lies between the kernel and the device: every write
//! arrives before it is acknowledged above, and a sync arrives as FSYNC. A write that asks to be synced itself
//! (`O_DSYNC`, `RWF_DSYNC`) carries `O_DSYNC` in its flags and is flushed before it is answered. Whatever else the
//! kernel asks is refused with ENOSYS, which it takes for "not supported".

use super::device::Device;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Its name in the file system.
pub const FILE_NAME: &str = "disk";

/// Largest write the kernel may send, and what one request may take beyond it.
const WRITE_BYTES_MAX: u32 = 1 << 20;
const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX as usize + (64 << 10);

const IN_HEADER_BYTES: usize = 40;
const OUT_HEADER_BYTES: usize = 16;
const ROOT: u64 = 1;
const FILE: u64 = 2;
/// Names and attributes never change: the kernel may keep them for a day.
const VALID_SECONDS: u64 = 86_400;
const PROTOCOL: [u32; 2] = [7, 31];
const INIT_BIG_WRITES: u32 = 1 << 5;
const INIT_MAX_PAGES: u32 = 1 << 22;
const OPEN_DIRECT_IO: u32 = 1;

/// Operations, as the kernel numbers them.
mod operation {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
}

/// Mounts the file system in the calling thread's mount namespace and serves it on a thread of its own until it is
/// unmounted. The error is for a person.
pub fn mount(device: &Arc<Device>, directory: &std::path::Path) -> Result<JoinHandle<()>, String> {
    let kernel = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let kernel = File::from(kernel.map_err(|error| format!("/dev/fuse cannot be opened: {error}"))?);
    // The descriptor goes to mount(8) as its standard input: mount(2) looks it up by number.
    let stdin = kernel.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new("mount");
    command.args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "delta-tests"]);
    super::run(command.arg(directory).stdin(Stdio::from(stdin)))?;
    let session = Session { device: Arc::clone(device), connection: device.connection(), kernel };
    Ok(std::thread::spawn(move || session.serve()))
}

struct Session {
    device: Arc<Device>,
    connection: u64,
    kernel: File,
}

/// What an operation is answered with.
type Answer = Result<Vec<u8>, Errno>;

impl Session {
    fn serve(mut self) {
        let mut buffer = vec![0; REQUEST_BYTES_MAX];
        loop {
            match self.kernel.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => self.handle(&buffer[..count]),
                Err(error) => match Errno::from_io_error(&error) {
                    // The request was given up before it was read.
                    Some(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                    // Unmounted.
                    _ => return,
                },
            }
        }
    }

    fn handle(&mut self, request: &[u8]) {
        let (operation, node) = (u32_at(request, 4), u64_at(request, 16));
        let body = &request[IN_HEADER_BYTES..];
        let answer = match operation {
            operation::FORGET | operation::BATCH_FORGET | operation::INTERRUPT => return,
            operation::INIT => Ok(init(body)),
            operation::LOOKUP if body.strip_suffix(&[0]) == Some(FILE_NAME.as_bytes()) => Ok(self.entry()),
            operation::LOOKUP => Err(Errno::NOENT),
            operation::GETATTR | operation::SETATTR => Ok(self.attributes_reply(node)),
            operation::OPEN => Ok(words(&[0, 0, OPEN_DIRECT_IO, 0])),
            operation::STATFS => Ok(self.statistics()),
            operation::READ => self.read(body),
            operation::WRITE => self.write(body),
            operation::FSYNC => self.device.flush(self.connection).map(|()| Vec::new()).map_err(errno),
            operation::FLUSH | operation::RELEASE | operation::DESTROY => Ok(Vec::new()),
            _ => Err(Errno::NOSYS),
        };
        let (error, answer) = match answer {
            Ok(answer) => (0, answer),
            Err(error) => (-error.raw_os_error(), Vec::new()),
        };
        let mut header = words(&[(OUT_HEADER_BYTES + answer.len()) as u32, error as u32]);
        header.extend_from_slice(&request[8..16]);
        // It fails only when the file system was unmounted meanwhile, and then nobody waits for it.
        let _ = self.kernel.write_vectored(&[IoSlice::new(&header), IoSlice::new(&answer)]);
    }

    /// Handle, offset, size, and flags that say how the data is to be cached.
    fn read(&self, body: &[u8]) -> Answer {
        let (offset, size) = (u64_at(body, 8), u64::from(u32_at(body, 16)));
        let mut bytes = vec![0; size.min(self.device.size_bytes().saturating_sub(offset)) as usize];
        self.device.read(self.connection, offset, &mut bytes).map_err(errno)?;
        Ok(bytes)
    }

    /// Handle, offset, size, flags of the write, lock owner, flags of the open file and of this call; then the data.
    fn write(&self, body: &[u8]) -> Answer {
        let (offset, size, flags) = (u64_at(body, 8), u32_at(body, 16), u32_at(body, 32));
        let bytes = &body[IN_HEADER_BYTES..][..size as usize];
        if offset + u64::from(size) > self.device.size_bytes() {
            return Err(Errno::NOSPC);
        }
        self.device.write(self.connection, offset, bytes).map_err(errno)?;
        if OFlags::from_bits_retain(flags).contains(OFlags::DSYNC) {
            self.device.flush(self.connection).map_err(errno)?;
        }
        Ok(words(&[size, 0]))
    }

    /// Node, generation, how long name and attributes are valid, attributes.
    fn entry(&self) -> Vec<u8> {
        let mut bytes = longs(&[FILE, 0, VALID_SECONDS, VALID_SECONDS, 0]);
        bytes.extend(self.attributes(FILE));
        bytes
    }

    fn attributes_reply(&self, node: u64) -> Vec<u8> {
        let mut bytes = longs(&[VALID_SECONDS, 0]);
        bytes.extend(self.attributes(node));
        bytes
    }

    /// Inode, size, blocks, three times; their nanoseconds, mode, links, owner, group, device, block size, flags.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let is_root = node == ROOT;
        let size = if is_root { 0 } else { self.device.size_bytes() };
        let mode = if is_root { 0o040_700 } else { 0o100_600 };
        let mut bytes = longs(&[node, size, size / 512, 0, 0, 0]);
        bytes.extend(words(&[0, 0, 0, mode, 1 + u32::from(is_root), 0, 0, 0, 4096, 0]));
        bytes
    }

    fn statistics(&self) -> Vec<u8> {
        let mut bytes = longs(&[self.device.size_bytes() / 4096, 0, 0, 2, 0]);
        bytes.extend(words(&[4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0]));
        bytes
    }
}

/// Version, read-ahead, flags, background requests, largest write, time granularity, pages a request, and zeros.
fn init(body: &[u8]) -> Vec<u8> {
    let read_ahead = u32_at(body, 8);
    let mut bytes = words(&[PROTOCOL[0], PROTOCOL[1], read_ahead, INIT_BIG_WRITES | INIT_MAX_PAGES]);
    bytes.extend(words(&[0, WRITE_BYTES_MAX, 1]));
    bytes.extend(((WRITE_BYTES_MAX / 4096) as u16).to_ne_bytes());
    bytes.resize(64, 0);
    bytes
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}
