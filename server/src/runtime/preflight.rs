//! What is checked and set before any executor is made: io_uring, the kernel, limits, and the process' own secrecy.
//!
//! Every failure is one sentence that names the remedy. Nothing here changes the machine; limits are raised only
//! for this process.
#![allow(unsafe_code)]

use crate::limits::{CONNECTIONS_MAX, CONNECTIONS_TURNED_AWAY_MAX};
use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Operations the ring asks for, and the kernel that brought the last of them.
const OPERATIONS: [(u8, &str); 13] = [
    (opcode::Accept::CODE, "accept"),
    (opcode::Recv::CODE, "recv"),
    (opcode::Send::CODE, "send"),
    (opcode::SendMsg::CODE, "sendmsg"),
    (opcode::AsyncCancel::CODE, "async_cancel"),
    (opcode::Shutdown::CODE, "shutdown"),
    (opcode::Close::CODE, "close"),
    (opcode::Timeout::CODE, "timeout"),
    (opcode::Read::CODE, "read"),
    (opcode::Write::CODE, "write"),
    (opcode::Fsync::CODE, "fsync"),
    (opcode::Fallocate::CODE, "fallocate"),
    (opcode::MsgRingData::CODE, "msg_ring"),
];

/// The oldest kernel with multishot receive, single-issuer rings and STATX_DIOALIGN.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// glommio refuses to start below this.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Descriptors beside connections: files, listeners, rings.
const DESCRIPTORS_BESIDE_CONNECTIONS: u64 = 256;

/// Why this process cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// The kernel was built without it.
    #[error("this kernel has no io_uring: use Linux {}.{} or newer, built with CONFIG_IO_URING", KERNEL_MIN.0, KERNEL_MIN.1)]
    NoIoUring,
    /// Refused by a security policy.
    #[error(
        "io_uring is refused by a seccomp or security policy: allow io_uring_setup, io_uring_enter and \
         io_uring_register (with Docker: --security-opt seccomp=unconfined or a profile with these calls)"
    )]
    Refused,
    /// Switched off for this user or for everybody.
    #[error("io_uring is switched off (kernel.io_uring_disabled = {value}): run `sysctl kernel.io_uring_disabled=0`")]
    Disabled {
        /// 1: for unprivileged processes; 2: for all.
        value: u8,
    },
    /// Too old.
    #[error("Linux {release} is too old: {}.{} or newer is needed", KERNEL_MIN.0, KERNEL_MIN.1)]
    OldKernel {
        /// As `uname -r` says.
        release: String,
    },
    /// An operation is missing.
    #[error(
        "this kernel's io_uring lacks the operation {operation}: use a newer kernel, or one that does not restrict it"
    )]
    MissingOperation {
        /// Its name.
        operation: &'static str,
    },
    /// Too little lockable memory.
    #[error(
        "the limit on locked memory is {limit_bytes} bytes and {MEMLOCK_BYTES_MIN} are needed: raise it with \
         `ulimit -l 8192`, or LimitMEMLOCK=8M in the systemd unit"
    )]
    Memlock {
        /// The limit.
        limit_bytes: u64,
    },
    /// Too few descriptors.
    #[error(
        "the limit on open files is {limit} and {needed} are needed: raise it with `ulimit -n {needed}`, or \
         LimitNOFILE={needed} in the systemd unit"
    )]
    Descriptors {
        /// The hard limit.
        limit: u64,
        /// What is needed at least.
        needed: u64,
    },
    /// Anything else.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

/// Checks kernel, io_uring and locked memory.
pub fn check_io() -> Result<(), PreflightError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if kernel_version(&release).is_some_and(|version| version < KERNEL_MIN) {
        return Err(PreflightError::OldKernel { release });
    }
    // Checked first, because a ring that cannot lock its memory fails with a less telling error.
    let limit_bytes = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    if limit_bytes < MEMLOCK_BYTES_MIN {
        return Err(PreflightError::Memlock { limit_bytes });
    }
    let ring = IoUring::new(8).map_err(|error| refusal(error, disabled_setting()))?;
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe);
    probed.map_err(|source| PreflightError::System { doing: "ask io_uring for its operations", source })?;
    match OPERATIONS.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, operation)) => Err(PreflightError::MissingOperation { operation }),
        None => Ok(()),
    }
}

/// Raises the limit on open files as far as it goes, at most to what `connections` ask for; answers the new limit.
/// Refused when even `connections_min` connections would not fit.
pub fn raise_descriptor_limit(connections: u64, connections_min: u64) -> Result<u64, PreflightError> {
    let limits = getrlimit(Resource::Nofile);
    let (current, hard) = (limits.current.unwrap_or(u64::MAX), limits.maximum.unwrap_or(u64::MAX));
    let wanted = connections.saturating_add(DESCRIPTORS_BESIDE_CONNECTIONS).min(hard);
    if current < wanted {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limits.maximum })
            .map_err(|error| PreflightError::System { doing: "raise the limit on open files", source: error.into() })?;
    }
    let (limit, needed) = (current.max(wanted), connections_min.saturating_add(DESCRIPTORS_BESIDE_CONNECTIONS));
    if limit < needed {
        return Err(PreflightError::Descriptors { limit, needed });
    }
    Ok(limit)
}

/// Connections that each of so many shards may hold: what the limit on open files leaves when files, listeners and
/// rings have theirs. Clients must not be able to take the descriptor that the next segment needs.
pub fn connections_max(shards: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let left = limit.saturating_sub(DESCRIPTORS_BESIDE_CONNECTIONS) / shards.max(1) as u64;
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    (left - turned_away_max(left)).clamp(1, CONNECTIONS_MAX)
}

/// Connections beyond so many that are told that there is no room.
pub fn turned_away_max(connections: usize) -> usize {
    CONNECTIONS_TURNED_AWAY_MAX.min(connections / 8)
}

/// Keeps secrets in this process: no core dump, and no other process of this user may look inside.
pub fn harden_process() -> Result<(), PreflightError> {
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, no_core)
        .map_err(|error| PreflightError::System { doing: "switch core dumps off", source: error.into() })?;
    // SAFETY: this option takes one plain number.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        return Err(PreflightError::System {
            doing: "make the process undumpable",
            source: io::Error::last_os_error(),
        });
    }
    Ok(())
}

/// The meaning of a ring that cannot be made.
fn refusal(error: io::Error, disabled: u8) -> PreflightError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => PreflightError::NoIoUring,
        Some(libc::EPERM | libc::EACCES) if disabled > 0 => PreflightError::Disabled { value: disabled },
        Some(libc::EPERM | libc::EACCES) => PreflightError::Refused,
        _ => PreflightError::System { doing: "make an io_uring ring", source: error },
    }
}

/// The sysctl; 0 where it does not exist.
fn disabled_setting() -> u8 {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_passes() {
        check_io().unwrap();
        assert!(raise_descriptor_limit(100, 10).unwrap() >= 356);
        let refused = raise_descriptor_limit(100, u64::MAX / 2);
        assert!(refused.is_err_and(|error| error.to_string().contains("ulimit -n")));
    }

    #[test]
    fn each_refusal_names_its_remedy() {
        let told = |number, disabled| refusal(io::Error::from_raw_os_error(number), disabled).to_string();
        assert!(told(libc::ENOSYS, 0).contains("CONFIG_IO_URING"));
        assert!(told(libc::EPERM, 0).contains("seccomp"));
        assert!(told(libc::EPERM, 2).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(told(libc::ENOMEM, 0).contains("make an io_uring ring"));
    }

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(kernel_version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(kernel_version("5.10"), Some((5, 10)));
        assert_eq!(kernel_version("next"), None);
    }
}
