//! Waking parked shards: a flag a shard and a message from ring to ring.
//!
//! The two sides never miss each other. A shard about to park raises its flag, then looks into its mailboxes once
//! more; a shard that has put something into a mailbox then looks at the flag. With a full fence between the two steps
//! on either side, at least one of them sees the other.
#![allow(unsafe_code)]

use super::platform::Doorbell;
use super::ring::{Completion, OperationKind, Ring, Token};
use io_uring::{opcode, types};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

/// What all shards share: a flag each, and a descriptor of each ring, kept until the last shard is gone.
pub(super) struct DoorbellTable(Vec<Door>);

/// On a cache line of its own: it is read at every crossing and written at every parking.
#[repr(align(128))]
struct Door {
    parked: AtomicBool,
    ring: OnceLock<OwnedFd>,
}

impl DoorbellTable {
    pub fn new(shards: usize) -> Arc<Self> {
        let door = || Door { parked: AtomicBool::new(false), ring: OnceLock::new() };
        Arc::new(Self((0..shards).map(|_| door()).collect()))
    }
}

/// The doorbell of one shard: its own flag, and the ring it rings others with.
#[derive(Clone)]
pub struct ShardDoorbell {
    table: Arc<DoorbellTable>,
    index: usize,
    ring: Rc<Ring>,
}

impl ShardDoorbell {
    /// Hangs up the doorbell of shard `index`.
    pub(super) fn new(table: Arc<DoorbellTable>, index: usize, ring: Rc<Ring>) -> std::io::Result<Self> {
        // A ring is hung up once; a second descriptor of the same ring would do as well.
        let _ = table.0[index].ring.set(ring.duplicate_fd()?);
        Ok(Self { table, index, ring })
    }

    /// Raises the flag. The caller then looks into its mailboxes once more before it sleeps.
    pub(super) fn announce_parking(&self) {
        self.table.0[self.index].parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Takes the flag down.
    pub(super) fn awake(&self) {
        self.table.0[self.index].parked.store(false, Ordering::Relaxed);
    }

    /// What became of a ring: one that failed is repeated, for the peer may sleep.
    pub(super) fn complete(&self, completion: Completion) {
        if completion.result < 0 && completion.token.kind == OperationKind::Ringing {
            self.send(completion.token.slot as usize);
        }
    }

    fn send(&self, peer: usize) {
        let Some(ring) = self.table.0[peer].ring.get() else { return };
        let message = Token::new(OperationKind::Doorbell, 0, 0).pack();
        let entry = opcode::MsgRingData::new(types::Fd(ring.as_raw_fd()), 0, message, None).build();
        // SAFETY: a message points to nothing, and the table keeps the peer's descriptor.
        unsafe { self.ring.queue(Token::new(OperationKind::Ringing, peer as u32, 0), entry) };
    }
}

impl Doorbell for ShardDoorbell {
    #[inline]
    fn ring(&self, peer: usize) {
        if peer == self.index {
            // It is awake, since it rings, and looks into its mailboxes every turn.
            return self.ring.wake_driver();
        }
        fence(Ordering::SeqCst);
        let parked = &self.table.0[peer].parked;
        // The first to find the flag raised takes it down and rings; the others know that it will wake.
        if parked.load(Ordering::Relaxed) && parked.swap(false, Ordering::AcqRel) {
            self.send(peer);
        }
    }
}
