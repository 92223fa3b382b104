//! What every shard thread is given at its start, and how it reports back.

use crate::auth::Authenticator;
use crate::crypto::keyring::Keyring;
use crate::exit::ExitStatus;
use crate::gateway::health::Board;
use crate::mailbox::Mailboxes;
use crate::metrics::Metrics;
use crate::routing::Topology;
use crate::schema::Templates;
use crate::storage::store::Store;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a shard tells the main thread.
#[derive(Debug)]
pub(super) enum ShardReport {
    /// Its log is open and it answers its peers.
    Opened,
    /// Its listeners are bound.
    Listening {
        /// Where HTTP is served.
        http: SocketAddr,
        /// Where the wire protocol is served.
        wire: SocketAddr,
    },
    /// It ended as asked.
    Stopped,
    /// It ended but for its disk, which does not answer: its thread cannot be waited for.
    Abandoned {
        /// One sentence.
        message: String,
    },
    /// It could not start or did not end well.
    Failed {
        /// How the process is to end.
        status: ExitStatus,
        /// One sentence with the remedy.
        message: String,
    },
}

/// What the main thread waits for.
#[derive(Debug)]
pub(super) enum Notice {
    /// A shard got on.
    Shard(ShardReport),
    /// A stop was asked for.
    Stop,
}

/// Shared by all shard threads.
pub(super) struct Plan {
    pub(super) store: Arc<Store>,
    pub(super) store_id: [u8; 16],
    pub(super) generation: u64,
    pub(super) shard_directories: Vec<PathBuf>,
    /// Shards may lack their files and make new ones.
    pub(super) created: bool,
    pub(super) salvage: bool,
    pub(super) scrub_bytes_per_s_per_shard: u64,
    pub(super) keyring: Arc<Keyring>,
    pub(super) templates: Arc<Templates>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) topology: Arc<Topology>,
    pub(super) shard_addresses: Arc<[OnceLock<SocketAddr>]>,
    pub(super) mailboxes: Mailboxes,
    pub(super) board: Arc<Board>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) body_bytes_max: usize,
    pub(super) cache_bytes_per_shard: usize,
    pub(super) cache_entries_per_shard: usize,
    pub(super) cache_ttl_ms: u64,
    /// Bound addresses: port 0 is replaced by what the first shard got, so that all shards share it.
    pub(super) addresses: Mutex<(SocketAddr, SocketAddr)>,
    pub(super) wire_socket: Option<PathBuf>,
    pub(super) wire_shard_base_port: u16,
    pub(super) notices: Mutex<Sender<Notice>>,
    pub(super) shards_allowed_to_listen: AtomicU8,
    pub(super) abandoned: AtomicBool,
}

/// Who may bind its listeners.
pub(super) const NOBODY: u8 = 0;
pub(super) const FIRST_SHARD: u8 = 1;
pub(super) const EVERYBODY: u8 = 2;

impl Plan {
    pub(super) fn report(&self, report: ShardReport) {
        // The main thread outlives the shards; should it be gone, the process is ending anyway.
        let _ = self.notices.lock().unwrap_or_else(PoisonError::into_inner).send(Notice::Shard(report));
    }

    pub(super) fn may_listen(&self, shard: usize) -> bool {
        match self.shards_allowed_to_listen.load(Ordering::Acquire) {
            NOBODY => false,
            FIRST_SHARD => shard == 0,
            _ => true,
        }
    }

    pub(super) fn allow_to_listen(&self, who: u8) {
        self.shards_allowed_to_listen.store(who, Ordering::Release);
    }

    /// A shard's thread is not waited for.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// Whether there is such a shard.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Where HTTP and the wire protocol listen.
    pub(super) fn addresses(&self) -> (SocketAddr, SocketAddr) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_addresses(&self, http: SocketAddr, wire: SocketAddr) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = (http, wire);
    }
}
