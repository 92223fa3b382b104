//! One shard's life: open its log, join the rooms, serve, drain, seal the log.

use super::custodian::StoreCustodian;
use super::plan::{Plan, ShardReport};
use crate::cache::CacheOptions;
use crate::engine::Engine;
use crate::exit::ExitStatus;
use crate::gateway::dispatch::{Delivery, Dispatch, Parts};
use crate::gateway::service::{HTTP_LISTENER, ShardService, WIRE_LISTENER, WIRE_SHARD_LISTENER, WIRE_SOCKET_LISTENER};
use crate::gateway::wire::WireIdentity;
use crate::limits::{DISK_TIMEOUT_MS, DRAIN_TIMEOUT_MS, SCRUB_INTERVAL_MS, SEAL_TIMEOUT_MS};
use crate::runtime::doorbell::ShardDoorbell;
use crate::runtime::net::{ListenAddress, Net};
use crate::runtime::platform::{Clock, Platform};
use crate::runtime::production::Production;
use crate::runtime::shard::ShardContext;
use crate::schema::FileChange;
use crate::storage::Storage;
use crate::storage::log::{LogIdentity, LogOptions, LogSizes, LogStorage, OpenError};
use crate::storage::store::Unsound;
use futures_lite::future::or;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

type ShardDispatch = Dispatch<Production, LogStorage<Production>, ShardDoorbell>;
type Failed = (ExitStatus, String);
type Running = ShardService<Production, LogStorage<Production>, ShardDoorbell>;

/// How often a shard looks whether it shall stop. Each look wakes an idle shard, which is to cost next to nothing.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two rounds of housekeeping (gauges, templates, health).
const TICKS_PER_ROUND: u64 = 10;
/// Rounds between two looks for data keys that nobody names any more.
const ROUNDS_PER_KEY_CHECK: u64 = 10;
/// The same between two looks at the store's own files, and before the first: without them it does not open again.
const ROUNDS_PER_STORE_LOOK: u64 = 60;
const ROUNDS_BEFORE_STORE_LOOK: u64 = 10;
/// Connections still open after the drain get this long to take their last bytes.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs to the end of the process's life. Errors reach the main thread through the plan's reports.
pub(super) async fn run(plan: Arc<Plan>, context: ShardContext) {
    let report = match serve(&plan, context).await {
        Ok(ended) => ended,
        Err((status, message)) => {
            // The others need not wait for it when they drain.
            plan.board.shard_is_quiet();
            ShardReport::Failed { status, message }
        }
    };
    plan.report(report);
}

async fn serve(plan: &Arc<Plan>, context: ShardContext) -> Result<ShardReport, Failed> {
    let ShardContext { index, platform, net, doorbell, .. } = context;
    let storage = open_log(plan, index, &platform).await?;
    let dispatch = join(plan, index, &platform, doorbell, storage.clone());
    let identity =
        WireIdentity { server_version: env!("CARGO_PKG_VERSION").into(), store_id: hex::encode(plan.store_id) };
    let service = ShardService::new(platform.clone(), net.clone(), dispatch.clone(), identity);
    net.attach(service.clone());
    plan.report(ShardReport::Opened);
    while !plan.may_listen(index) {
        if plan.board.is_draining() {
            return seal(index, &platform, &storage, Duration::from_millis(SEAL_TIMEOUT_MS)).await;
        }
        platform.clock().sleep(Duration::from_millis(1)).await;
    }
    let bound = listen(plan, index, &net)
        .map_err(|error| (ExitStatus::AddressUnusable, format!("shard {index} cannot listen: {error}")))?;
    if let Some(address) = bound.shard {
        let _ = plan.shard_addresses[index].set(address);
    }
    // Before anybody is told that this server is ready, so that `/readyz` says the same.
    let mut known = Vec::new();
    report_health(plan, index, &dispatch, &Alerts::default(), &mut known);
    plan.report(ShardReport::Listening { http: bound.http, wire: bound.wire });
    keep_house(plan, index, &platform, &dispatch, known).await;
    let all_done = drain(plan, index, &platform, &net, &dispatch, &service).await;
    let patience = if all_done { Duration::from_millis(SEAL_TIMEOUT_MS) } else { FAREWELL };
    let sealed = seal(index, &platform, &storage, patience).await;
    farewell(&platform, &net).await;
    sealed
}

/// Ends the log, unless the disk does not answer. The last checkpoint of a large shard may take long.
async fn seal(
    index: usize,
    platform: &Production,
    storage: &Rc<LogStorage<Production>>,
    patience: Duration,
) -> Result<ShardReport, Failed> {
    let unsealed =
        |reason: &str| format!("shard {index} did not seal its log ({reason}); nothing acknowledged is lost");
    match while_it_gets_ahead(platform.clock(), patience, || storage.chunks_written(), storage.shutdown()).await {
        Some(Ok(())) => Ok(ShardReport::Stopped),
        Some(Err(error)) => Err((ExitStatus::Failure, unsealed(&error.to_string()))),
        None => Ok(ShardReport::Abandoned { message: unsealed("the disk does not answer") }),
    }
}

/// Waits for work that counts its steps; not any more once it makes none for so long.
async fn while_it_gets_ahead<T>(
    clock: &impl Clock,
    patience: Duration,
    steps: impl Fn() -> u64,
    work: impl Future<Output = T>,
) -> Option<T> {
    let stands_still = async {
        let mut seen = steps();
        loop {
            clock.sleep(patience).await;
            let now = steps();
            if now == seen {
                return None;
            }
            seen = now;
        }
    };
    or(async { Some(work.await) }, stands_still).await
}

async fn open_log(plan: &Plan, index: usize, platform: &Production) -> Result<Rc<LogStorage<Production>>, Failed> {
    let options = LogOptions {
        create: plan.created,
        directory: plan.shard_directories[index].clone(),
        identity: LogIdentity { store_id: plan.store_id, generation: plan.generation as u32, shard: index as u16 },
        keyring: plan.keyring.clone(),
        salvage: plan.salvage,
        metrics: plan.metrics.clone(),
        sizes: LogSizes { scrub_bytes_per_s: plan.scrub_bytes_per_s_per_shard, ..LogSizes::default() },
    };
    let storage = LogStorage::open(platform.clone(), options).await.map_err(|error| refused(index, &error))?;
    let report = storage.open_report();
    tracing::info!(
        "shard {index} opened with {} entities: {} from its checkpoint, {} records replayed{}",
        report.entities,
        report.checkpoint_entities,
        report.records_replayed,
        if report.clean || plan.created { "" } else { "; it had not been shut down cleanly" }
    );
    if !report.direct_io {
        tracing::warn!(
            "the file system of {} refuses O_DIRECT: commits are buffered writes with fdatasync, which is slower",
            plan.shard_directories[index].display()
        );
    }
    for damage in &report.damage {
        tracing::error!("shard {index}: {damage}");
    }
    Ok(storage)
}

fn refused(index: usize, error: &OpenError) -> Failed {
    let status = match error {
        OpenError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => ExitStatus::DiskFull,
        OpenError::Io { .. } => ExitStatus::DirectoryUnusable,
        OpenError::Damaged(_) | OpenError::KeyMissing { .. } | OpenError::KeyringOlder { .. } => {
            ExitStatus::StoreDamaged
        }
        OpenError::Foreign { .. } => ExitStatus::StoreForeign,
    };
    (status, format!("shard {index} cannot open its log: {error}"))
}

fn join(
    plan: &Arc<Plan>,
    index: usize,
    platform: &Production,
    doorbell: ShardDoorbell,
    storage: Rc<LogStorage<Production>>,
) -> Rc<ShardDispatch> {
    let delivery = Rc::new(Delivery::new(plan.mailboxes.end(index, doorbell)));
    let sink = delivery.clone();
    let cache = CacheOptions {
        bytes_max: plan.cache_bytes_per_shard,
        entries_max: plan.cache_entries_per_shard,
        ttl_ms: plan.cache_ttl_ms,
    };
    let engine = Engine::start(
        platform.clone(),
        storage,
        cache,
        plan.metrics.clone(),
        index,
        Rc::new(move |ticket, outcome| sink.deliver(ticket, outcome)),
    );
    let custodian = (index == 0).then(|| StoreCustodian::keeping(plan.store.clone(), platform.clone()));
    Dispatch::new(Parts {
        platform: platform.clone(),
        shard: index,
        engine,
        delivery,
        templates: plan.templates.clone(),
        authenticator: plan.authenticator.clone(),
        topology: plan.topology.clone(),
        shard_addresses: plan.shard_addresses.clone(),
        board: plan.board.clone(),
        metrics: plan.metrics.clone(),
        body_bytes_max: plan.body_bytes_max,
        custodian,
        salvage: plan.salvage,
    })
}

struct Bound {
    http: SocketAddr,
    wire: SocketAddr,
    shard: Option<SocketAddr>,
}

/// Shard 0 goes first: where the system chooses a port, the others share what it got.
fn listen(plan: &Plan, index: usize, net: &Net) -> io::Result<Bound> {
    let missing = || io::Error::other("the system did not say which address it bound");
    let (rest, wire) = plan.addresses();
    let http = net.listen(HTTP_LISTENER, ListenAddress::Tcp(rest))?.ok_or_else(missing)?;
    let wire = net.listen(WIRE_LISTENER, ListenAddress::Tcp(wire))?.ok_or_else(missing)?;
    let mut own = SocketAddr::new(wire.ip(), 0);
    if plan.wire_shard_base_port != 0 {
        own.set_port(plan.wire_shard_base_port + index as u16);
    }
    let shard = net.listen(WIRE_SHARD_LISTENER, ListenAddress::Tcp(own))?;
    if index == 0
        && let Some(path) = &plan.wire_socket
    {
        let listened = net.listen(WIRE_SOCKET_LISTENER, ListenAddress::Unix(path.clone()));
        listened
            .map_err(|error| io::Error::new(error.kind(), format!("{} (--wire-socket): {error}", path.display())))?;
    }
    Ok(Bound { http, wire, shard })
}

/// Until a stop is asked for: gauges and health, and on the first shard what is done to files. These may lie on a disk
/// that does not answer: neither health nor the stop waits for them.
async fn keep_house(
    plan: &Plan,
    index: usize,
    platform: &Production,
    dispatch: &Rc<ShardDispatch>,
    known: Vec<String>,
) {
    let alerts = Alerts::default();
    let watched = watch_health(plan, index, platform, dispatch, &alerts, known);
    match index {
        0 => or(watched, keep_files(plan, platform, dispatch, &alerts)).await,
        _ => watched.await,
    }
}

async fn watch_health(
    plan: &Plan,
    index: usize,
    platform: &Production,
    dispatch: &Rc<ShardDispatch>,
    alerts: &Alerts,
    mut known: Vec<String>,
) {
    let (mut ticks, mut took_writes) = (0u64, true);
    while !plan.board.is_draining() {
        let takes_writes = dispatch.engine().storage().takes_writes();
        let changed = std::mem::replace(&mut took_writes, takes_writes) != takes_writes;
        if changed || ticks.is_multiple_of(TICKS_PER_ROUND) {
            report_health(plan, index, dispatch, alerts, &mut known);
        }
        ticks += 1;
        platform.clock().sleep(TICK).await;
    }
}

/// Templates, data keys that can go, and the store's own files. Never ends.
async fn keep_files(plan: &Plan, platform: &Production, dispatch: &Rc<ShardDispatch>, alerts: &Alerts) {
    let may_look = plan.scrub_bytes_per_s_per_shard > 0 && !plan.salvage;
    let mut templates_readable = true;
    for round in 1u64.. {
        look_over_templates(plan, platform, &mut templates_readable).await;
        if round.is_multiple_of(ROUNDS_PER_KEY_CHECK) {
            dispatch.drop_unused_keys().await;
        }
        if may_look && round % ROUNDS_PER_STORE_LOOK == ROUNDS_BEFORE_STORE_LOOK {
            let unsound = plan.store.look_over(platform).await;
            let new = alerts.take_up(unsound, platform.clock().now_ns());
            plan.metrics.shards[0].scrub_damage.add(new);
        }
        platform.clock().sleep(TICK * TICKS_PER_ROUND as u32).await;
    }
}

/// What was found wrong with the store's own files within the last day, whether it was put right or not.
#[derive(Default)]
struct Alerts(RefCell<Vec<Alert>>);

struct Alert {
    text: String,
    until_ns: u64,
}

impl Alerts {
    /// Takes up what a look found, and logs what is new of it; says how much that was.
    fn take_up(&self, unsound: Vec<Unsound>, now_ns: u64) -> u64 {
        let mut alerts = self.0.borrow_mut();
        alerts.retain(|alert| alert.until_ns > now_ns);
        let mut new = 0;
        for file in unsound {
            let (text, until_ns) = (file.to_string(), now_ns + SCRUB_INTERVAL_MS * 1_000_000);
            let known = alerts.iter_mut().find(|alert| alert.text == text);
            // What was put right and is found again is another finding.
            if known.is_none() || file.mended.is_ok() {
                tracing::error!("{text}");
                new += 1;
            }
            match known {
                Some(known) => known.until_ns = until_ns,
                None => alerts.push(Alert { text, until_ns }),
            }
        }
        new
    }

    fn texts(&self) -> Vec<String> {
        self.0.borrow().iter().map(|alert| alert.text.clone()).collect()
    }
}

/// Picks up what was done to the template files. A file that does not compile is a problem of the health report.
async fn look_over_templates(plan: &Plan, platform: &Production, readable: &mut bool) {
    match plan.templates.rescan(platform).await {
        Ok(changes) => {
            for (id, change) in changes {
                let file = plan.templates.path_of(&id);
                match change {
                    FileChange::Added => tracing::info!("the template file {} was added", file.display()),
                    FileChange::Changed => tracing::info!("the template file {} was changed", file.display()),
                    FileChange::Removed => tracing::info!(
                        "the template file {} was removed: schema '{id}' takes any JSON from now on",
                        file.display()
                    ),
                }
            }
            *readable = true;
        }
        // Said once, not every second.
        Err(error) if std::mem::take(readable) => {
            tracing::warn!("template files cannot be looked over: {error}; what is known stays in force");
        }
        Err(_) => {}
    }
}

/// Tells the board what is wrong, and the log what has become wrong or right since the last time.
fn report_health(plan: &Plan, index: usize, dispatch: &ShardDispatch, alerts: &Alerts, known: &mut Vec<String>) {
    dispatch.keep_house();
    let mut problems = Vec::new();
    let status = dispatch.engine().storage().status();
    if let Some(reason) = status.refuses_writes {
        problems.push(format!("shard {index} refuses writes: {reason}"));
    }
    if dispatch.engine().is_stalled() {
        let waited_s = DISK_TIMEOUT_MS / 1000;
        problems.push(format!("shard {index} refuses writes: its disk has not answered one for {waited_s} s"));
    }
    if index == 0 {
        let damaged = plan.templates.damaged().into_iter();
        problems.extend(damaged.map(|(id, reason)| plan.templates.damaged_failure(&id, &reason).message.into_owned()));
    }
    for problem in problems.iter().filter(|problem| !known.contains(problem)) {
        tracing::warn!("not ready: {problem}");
    }
    if problems.is_empty() && !known.is_empty() {
        tracing::info!("shard {index} serves reads and writes again");
    }
    known.clone_from(&problems);
    plan.board.report(index, problems);
    plan.board.alert(index, [status.damage, alerts.texts()].concat());
}

/// Finishes what was accepted; `false` when that could not be waited for. Peers may still ask until every shard is
/// quiet.
async fn drain(
    plan: &Plan,
    index: usize,
    platform: &Production,
    net: &Net,
    dispatch: &Rc<ShardDispatch>,
    service: &Rc<Running>,
) -> bool {
    net.stop_listening();
    let deadline_ns = platform.clock().now_ns() + DRAIN_TIMEOUT_MS * 1_000_000;
    let in_time = || platform.clock().now_ns() < deadline_ns;
    service.drain();
    while dispatch.outstanding() > 0 && in_time() {
        platform.clock().sleep(Duration::from_millis(1)).await;
    }
    let left = dispatch.outstanding();
    if left > 0 {
        tracing::warn!("shard {index} stops before {left} requests were carried out: their callers are told so");
        dispatch.give_up().await;
    }
    plan.board.shard_is_quiet();
    while !plan.board.all_quiet() && in_time() {
        platform.clock().sleep(Duration::from_millis(1)).await;
    }
    left == 0 && !dispatch.engine().is_stalled()
}

/// Lets the last replies leave.
async fn farewell(platform: &Production, net: &Net) {
    let deadline_ns = platform.clock().now_ns() + FAREWELL.as_nanos() as u64;
    while net.connections() > 0 && platform.clock().now_ns() < deadline_ns {
        platform.clock().sleep(Duration::from_millis(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sim::Sim;
    use std::cell::Cell;

    #[test]
    fn work_is_waited_for_while_it_gets_ahead_and_no_longer() {
        const PATIENCE: Duration = Duration::from_secs(30);
        let sim = Sim::new(1);
        let clock = sim.platform().clock().clone();
        let steps = Cell::new(0);
        let work = async {
            for _ in 0..20 {
                clock.sleep(PATIENCE / 3).await;
                steps.set(steps.get() + 1);
            }
            "done"
        };
        assert_eq!(sim.run_until(while_it_gets_ahead(&clock, PATIENCE, || steps.get(), work)).unwrap(), Some("done"));
        let begun = clock.now_ns();
        let hangs = std::future::pending::<()>();
        assert_eq!(sim.run_until(while_it_gets_ahead(&clock, PATIENCE, || 7, hangs)).unwrap(), None);
        let waited = Duration::from_nanos(clock.now_ns() - begun);
        assert!((PATIENCE..PATIENCE * 2).contains(&waited), "{waited:?}");
    }
}
