//! The only place that wires rooms together: an ordered start, and an ordered stop.
//!
//! Order of the start: process limits → machine checks → directory lock → addresses → store and keys → shards open
//! their logs → listeners → start block. Nothing is listened on before every log is open; a failure anywhere ends with
//! one sentence and an exit status of its own, and leaves no half-started server behind.

mod admin_key;
mod block;
mod check;
pub mod custodian;
mod plan;
mod prepare;
mod shard;
pub mod shards;
mod signals;

use crate::auth::Authenticator;
use crate::config::{Config, SecretSource};
use crate::exit::ExitStatus;
use crate::gateway::health::Board;
use crate::limits::{CONNECTIONS_MAX, CONNECTIONS_TURNED_AWAY_MAX};
use crate::mailbox::Mailboxes;
use crate::metrics::Metrics;
use crate::routing::Topology;
use crate::runtime::net::{ListenAddress, probe_address};
use crate::runtime::placement::Placement;
use crate::runtime::preflight::{self, PreflightError};
use crate::runtime::shard::ShardThreads;
use crate::storage::store::{DirectoryLock, StoreError, restrict_file_modes};
use admin_key::AdminKey;
pub use check::{CheckReport, check_in};
use plan::{EVERYBODY, FIRST_SHARD, NOBODY, Notice, Plan, ShardReport};
use prepare::Prepared;
use signals::StopSignal;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long a start waits for another server to let go of the directory: a killed one may linger.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// The same for its addresses, which it holds until the kernel has taken all its memory back.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(2);
const ADDRESS_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// A start with less free space than this is refused.
const FREE_BYTES_MIN: u64 = 16 << 20;
/// A start that cannot hold this many connections is refused.
const CONNECTIONS_MIN: u64 = 64;
/// Part of the memory limit that caches take unless told otherwise.
const CACHE_SHARE: u64 = 4;

/// Why the server did not start or did not end well.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// How the process is to end.
    pub status: ExitStatus,
    /// One sentence with the remedy.
    pub message: String,
}

impl StartError {
    fn new(status: ExitStatus, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::Locked { .. } => ExitStatus::DirectoryInUse,
            StoreError::Io { .. } | StoreError::NoStore { .. } => ExitStatus::DirectoryUnusable,
            StoreError::NewerFormat { .. } | StoreError::OtherStore { .. } => ExitStatus::StoreForeign,
            StoreError::RootKeyMissing { .. }
            | StoreError::WrongRootKey { .. }
            | StoreError::UnexpectedRootKey { .. }
            | StoreError::SameRootKey { .. }
            | StoreError::RootKey(_) => ExitStatus::RootKey,
            StoreError::ShardCount { .. } => ExitStatus::Usage,
            _ => ExitStatus::StoreDamaged,
        };
        Self::new(status, error.to_string())
    }
}

/// Serves until told to stop.
pub fn serve(config: Config) -> Result<(), StartError> {
    let no_handlers = |error: std::io::Error| {
        StartError::new(ExitStatus::Failure, format!("signal handlers cannot be installed: {error}"))
    };
    let stop = StopSignal::install().map_err(no_handlers)?;
    let placement = machine(&config)?;
    let lock = DirectoryLock::acquire(&config.data_dir, LOCK_PATIENCE)?;
    check_space(&config.data_dir)?;
    probe_addresses(&config)?;
    let prepared = prepare::prepare(&config, &placement)?;
    let admin_key = admin_key::obtain(&config)?;
    probe_shard_ports(&config, usize::from(prepared.store.shards()))?;
    let (notify, notices) = channel();
    let plan = Arc::new(make_plan(&config, &placement, &prepared, &admin_key, notify.clone()));
    // Once the main thread is gone the process is ending anyway.
    stop.on_raise(move || drop(notify.send(Notice::Stop))).map_err(no_handlers)?;
    let threads = start_shards(&config, &placement, &plan)?;
    let outcome = run(&config, &plan, &prepared, &admin_key, &notices, &stop);
    if outcome.is_err() {
        plan.board.begin_drain();
    }
    if plan.is_abandoned() {
        // What a disk has not answered ends with the process, and so does the lock on the directory.
        std::mem::forget(lock);
        return outcome;
    }
    let ended = threads.join().map_err(|error| StartError::new(ExitStatus::Failure, error.to_string()));
    drop(lock);
    outcome.and(ended)
}

/// Wraps the keyring of a stopped store with another root key; returns the id of the new one.
pub fn rewrap(
    data_dir: &Path,
    present: &SecretSource,
    new: &SecretSource,
    key_id: Option<&str>,
) -> Result<String, StartError> {
    restrict_file_modes();
    let lock = DirectoryLock::acquire(data_dir, LOCK_PATIENCE)?;
    prepare::rewrap(lock, present, new, key_id)
}

/// Reads and authenticates everything a stopped store holds; writes nothing.
pub fn check(data_dir: &Path, root_key: &SecretSource, key_id: Option<&str>) -> Result<CheckReport, StartError> {
    restrict_file_modes();
    if !data_dir.is_dir() {
        return Err(StoreError::NoStore { directory: data_dir.to_owned() }.into());
    }
    let lock = DirectoryLock::acquire(data_dir, LOCK_PATIENCE)?;
    check::check(lock, root_key, key_id)
}

/// Process limits and what the machine must offer, before anything is touched.
fn machine(config: &Config) -> Result<Placement, StartError> {
    restrict_file_modes();
    let refused = |error: PreflightError| {
        let status = match &error {
            PreflightError::OldKernel { .. } | PreflightError::MissingOperation { .. } => ExitStatus::KernelTooOld,
            PreflightError::Memlock { .. } | PreflightError::Descriptors { .. } => ExitStatus::LimitsTooLow,
            _ => ExitStatus::RingRefused,
        };
        StartError::new(status, error.to_string())
    };
    preflight::harden_process().map_err(refused)?;
    preflight::check_io().map_err(refused)?;
    let placement = Placement::detect().map_err(|error| {
        StartError::new(ExitStatus::Failure, format!("the CPUs of this process cannot be read: {error}"))
    })?;
    let shards = config.shards.unwrap_or(placement.available_cpus()) as u64;
    preflight::raise_descriptor_limit((CONNECTIONS_MAX + CONNECTIONS_TURNED_AWAY_MAX) as u64 * shards, CONNECTIONS_MIN)
        .map_err(refused)?;
    Ok(placement)
}

fn check_space(directory: &Path) -> Result<(), StartError> {
    let failed = |error: rustix::io::Errno| {
        let message = format!("free space of {} cannot be read: {error}", directory.display());
        StartError::new(ExitStatus::DirectoryUnusable, message)
    };
    let figures = rustix::fs::statvfs(directory).map_err(failed)?;
    let free = figures.f_bavail * figures.f_frsize;
    if free >= FREE_BYTES_MIN {
        return Ok(());
    }
    let message = format!(
        "{} has {free} bytes of free disk space; at least {FREE_BYTES_MIN} are needed to start: free some",
        directory.display()
    );
    Err(StartError::new(ExitStatus::DiskFull, message))
}

/// Each address is tried without SO_REUSEPORT first: one that is in use is refused, never shared silently.
fn probe_addresses(config: &Config) -> Result<(), StartError> {
    let mut addresses = vec![
        ("--rest-addr", ListenAddress::Tcp(config.rest_addr)),
        ("--wire-addr", ListenAddress::Tcp(config.wire_addr)),
    ];
    if let Some(path) = &config.wire_socket {
        addresses.push(("--wire-socket", ListenAddress::Unix(path.clone())));
    }
    addresses.into_iter().try_for_each(|(flag, address)| probe(flag, &address, pause))
}

/// The ports of the shards, once it is known how many there are.
fn probe_shard_ports(config: &Config, shards: usize) -> Result<(), StartError> {
    let (base, flag) = (config.wire_shard_base_port, "--wire-shard-base-port");
    if base == 0 {
        return Ok(());
    }
    let mut ports = usize::from(base)..usize::from(base) + shards;
    if ports.end > usize::from(u16::MAX) + 1 {
        let message = format!("{shards} shards do not fit above {flag} {base}: give a lower one");
        return Err(StartError::new(ExitStatus::Usage, message));
    }
    for taken in [config.rest_addr.port(), config.wire_addr.port()] {
        if ports.contains(&usize::from(taken)) {
            let message =
                format!("the {shards} ports from {flag} {base} include {taken}, which is listened on already");
            return Err(StartError::new(ExitStatus::Usage, message));
        }
    }
    ports.try_for_each(|port| {
        probe(flag, &ListenAddress::Tcp(SocketAddr::new(config.wire_addr.ip(), port as u16)), pause)
    })
}

fn pause() {
    std::thread::sleep(ADDRESS_RETRY_INTERVAL);
}

/// Tries an address, and again after each pause while it is in use and patience lasts.
fn probe(flag: &str, address: &ListenAddress, mut pause: impl FnMut()) -> Result<(), StartError> {
    let deadline = Instant::now() + ADDRESS_PATIENCE;
    let mut probed = probe_address(address);
    while probed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) && Instant::now() < deadline {
        pause();
        probed = probe_address(address);
    }
    probed.map_err(|error| {
        let shown = match address {
            ListenAddress::Tcp(address) => address.to_string(),
            ListenAddress::Unix(path) => path.display().to_string(),
        };
        let message = format!("cannot listen on {shown} ({error}): stop what uses it or give another {flag}");
        StartError::new(ExitStatus::AddressUnusable, message)
    })
}

fn make_plan(
    config: &Config,
    placement: &Placement,
    prepared: &Prepared,
    admin_key: &AdminKey,
    notify: Sender<Notice>,
) -> Plan {
    let store = &prepared.store;
    let shards = usize::from(store.shards());
    let cache_bytes = config.cache_bytes.unwrap_or_else(|| placement.memory_limit_bytes() / CACHE_SHARE);
    let cache_entries = config.cache_entries.unwrap_or(u64::from(u32::MAX));
    Plan {
        store: store.clone(),
        store_id: store.id(),
        generation: store.generation(),
        shard_directories: (0..shards).map(|shard| store.shard_directory(shard)).collect(),
        created: prepared.created,
        salvage: config.salvage,
        scrub_bytes_per_s_per_shard: (config.scrub_mib_per_s << 20).div_ceil(shards as u64),
        keyring: store.keyring(),
        templates: prepared.templates.clone(),
        authenticator: Arc::new(Authenticator::new(&admin_key.key)),
        topology: Arc::new(Topology::new(store.hash_seed(), shards)),
        shard_addresses: (0..shards).map(|_| OnceLock::new()).collect::<Vec<OnceLock<SocketAddr>>>().into(),
        mailboxes: Mailboxes::new(shards),
        board: Arc::new(Board::new(shards)),
        metrics: Metrics::new(shards),
        body_bytes_max: config.body_bytes_max,
        cache_bytes_per_shard: (cache_bytes / shards as u64) as usize,
        cache_entries_per_shard: cache_entries.div_ceil(shards as u64) as usize,
        cache_ttl_ms: config.cache_ttl.map_or(0, |ttl| ttl.as_millis() as u64),
        addresses: Mutex::new((config.rest_addr, config.wire_addr)),
        wire_socket: config.wire_socket.clone(),
        wire_shard_base_port: config.wire_shard_base_port,
        notices: Mutex::new(notify),
        shards_allowed_to_listen: AtomicU8::new(NOBODY),
        abandoned: AtomicBool::new(false),
    }
}

fn start_shards(config: &Config, placement: &Placement, plan: &Arc<Plan>) -> Result<ShardThreads, StartError> {
    let shards = plan.shard_directories.len();
    let spin = Duration::from_micros(config.spin_us);
    let plan_of_shards = plan.clone();
    crate::runtime::shard::start(placement, shards, spin, plan.metrics.clone(), move |context| {
        shard::run(plan_of_shards.clone(), context)
    })
    .map_err(|error| StartError::new(ExitStatus::RingRefused, error.to_string()))
}

/// From opened logs to the end of the last shard.
fn run(
    config: &Config,
    plan: &Plan,
    prepared: &Prepared,
    admin_key: &AdminKey,
    notices: &Receiver<Notice>,
    stop: &StopSignal,
) -> Result<(), StartError> {
    let shards = plan.shard_directories.len();
    let mut progress = Progress { notices, stop, plan, opened: 0, listening: 0, stopped: 0 };
    if !progress.until(|progress| progress.opened == shards)? {
        return progress.finish(shards);
    }
    // What a salvage opened may be the ruin of a generation of which another one is a whole copy.
    if !config.salvage {
        prepared.complete()?;
    }
    plan.allow_to_listen(FIRST_SHARD);
    if !progress.until(|progress| progress.listening == 1)? {
        return progress.finish(shards);
    }
    plan.allow_to_listen(EVERYBODY);
    if !progress.until(|progress| progress.listening == shards)? {
        return progress.finish(shards);
    }
    block::print(config, plan, prepared, admin_key);
    progress.until(|_| false)?;
    progress.finish(shards)
}

/// Counts what shards report.
struct Progress<'a> {
    notices: &'a Receiver<Notice>,
    stop: &'a StopSignal,
    plan: &'a Plan,
    opened: usize,
    listening: usize,
    stopped: usize,
}

impl Progress<'_> {
    /// Waits until the goal is reached (`true`) or a stop is asked for (`false`).
    fn until(&mut self, goal: impl Fn(&Self) -> bool) -> Result<bool, StartError> {
        while !goal(self) {
            if self.stop.is_raised() {
                return Ok(false);
            }
            self.step()?;
        }
        Ok(true)
    }

    /// Drains, and waits for every shard to end.
    fn finish(mut self, shards: usize) -> Result<(), StartError> {
        tracing::info!("stopping: finishing what was accepted; a second signal stops at once");
        self.plan.board.begin_drain();
        let mut outcome = Ok(());
        while self.stopped < shards {
            // Who fails does not keep the others from their end.
            outcome = outcome.and(self.step());
        }
        outcome?;
        tracing::info!("stopped; the log is sealed");
        Ok(())
    }

    fn step(&mut self) -> Result<(), StartError> {
        match self.notices.recv() {
            Ok(Notice::Shard(ShardReport::Opened)) => self.opened += 1,
            Ok(Notice::Shard(ShardReport::Listening { http, wire })) => {
                self.listening += 1;
                self.plan.set_addresses(http, wire);
            }
            Ok(Notice::Shard(ShardReport::Stopped)) => self.stopped += 1,
            Ok(Notice::Shard(ShardReport::Failed { status, message })) => {
                self.stopped += 1;
                return Err(StartError::new(status, message));
            }
            Ok(Notice::Shard(ShardReport::Abandoned { message })) => {
                self.stopped += 1;
                self.plan.abandon();
                return Err(StartError::new(ExitStatus::Failure, message));
            }
            // Whoever waits for something looks at the signal itself.
            Ok(Notice::Stop) => {}
            Err(_) => {
                self.stopped = self.plan.shard_directories.len();
                return Err(StartError::new(ExitStatus::Failure, "every shard is gone: see the log"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_address_that_a_killed_process_still_holds_is_waited_for() {
        const PAUSES: usize = 5;
        let lingering = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddress::Tcp(lingering.local_addr().unwrap());
        let (mut lingering, mut pauses) = (Some(lingering), 0);
        let ends_in_time = || {
            pauses += 1;
            lingering.take_if(|_| pauses == PAUSES);
        };
        probe("--wire-addr", &address, ends_in_time).unwrap();
        assert_eq!(pauses, PAUSES);
    }

    #[test]
    fn an_address_that_stays_in_use_is_refused_by_name() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let refused = probe("--wire-addr", &ListenAddress::Tcp(address), pause).unwrap_err();
        assert_eq!(refused.status, ExitStatus::AddressUnusable);
        assert!(refused.message.contains(&address.to_string()) && refused.message.contains("--wire-addr"));
    }
}
