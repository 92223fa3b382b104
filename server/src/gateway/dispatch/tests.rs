//! Three shards of one store on one simulated machine, with real logs: what a client of either protocol sees.

use super::*;
use crate::cache::CacheOptions;
use crate::command::{Condition, PutItem, Version};
use crate::crypto::keyring::{DataKeyId, Keyring};
use crate::limits::{DISK_TIMEOUT_MS, DISK_WATCH_INTERVAL_MS, MAILBOX_CREDITS};
use crate::mailbox::Mailboxes;
use crate::runtime::platform::Clock;
use crate::runtime::sim::{Effect, Fault, Operation, Sim, SimDoorbell, SimPlatform};
use crate::storage::log::{LogIdentity, LogOptions, LogSizes, LogStorage};
use secrecy::SecretString;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

const SHARDS: usize = 3;
type Shard = Rc<Dispatch<SimPlatform, LogStorage<SimPlatform>, SimDoorbell>>;

struct Cluster {
    sim: Sim,
    shards: Vec<Shard>,
}

impl Cluster {
    fn start(seed: u64) -> Self {
        Self::start_with(seed, false, None)
    }

    fn start_with(seed: u64, salvage: bool, custodian: Option<Rc<dyn KeyCustodian>>) -> Self {
        let sim = Sim::new(seed);
        let platform = sim.platform();
        let keyring = Arc::new(Keyring::create(platform.entropy(), [7; 16], 0));
        let open_templates = Templates::open(&platform, "/templates".as_ref());
        let templates = sim.run_until(open_templates).unwrap().unwrap();
        let (boxes, board, metrics) = (Mailboxes::new(SHARDS), Arc::new(Board::new(SHARDS)), Metrics::new(SHARDS));
        let topology = Arc::new(Topology::new(5, SHARDS));
        let authenticator = Arc::new(Authenticator::new(&SecretString::from("key")));
        let mut shards = Vec::new();
        for shard in 0..SHARDS {
            let options = LogOptions {
                create: true,
                directory: format!("/shards/1/{shard}").into(),
                identity: LogIdentity { store_id: [7; 16], generation: 1, shard: shard as u16 },
                keyring: keyring.clone(),
                salvage: false,
                metrics: metrics.clone(),
                sizes: LogSizes { segment_bytes_first: 1 << 20, ..LogSizes::default() },
            };
            let storage = sim.run_until(LogStorage::open(platform.clone(), options)).unwrap().unwrap();
            let delivery = Rc::new(Delivery::new(boxes.end(shard, sim.doorbell())));
            let sink = delivery.clone();
            let cache = CacheOptions { bytes_max: 1 << 20, entries_max: 1 << 10, ttl_ms: 0 };
            let sink = Rc::new(move |ticket, outcome| sink.deliver(ticket, outcome));
            let engine = Engine::start(platform.clone(), storage, cache, metrics.clone(), shard, sink);
            let dispatch = Dispatch::new(Parts {
                platform: platform.clone(),
                shard,
                engine,
                delivery,
                templates: templates.clone(),
                authenticator: authenticator.clone(),
                topology: topology.clone(),
                shard_addresses: (0..SHARDS).map(|_| OnceLock::new()).collect::<Vec<_>>().into(),
                board: board.clone(),
                metrics: metrics.clone(),
                body_bytes_max: 1 << 20,
                custodian: custodian.clone().filter(|_| shard == 0),
                salvage,
            });
            let (turning, doorbell) = (dispatch.clone(), sim.doorbell());
            platform.spawn().spawn(TaskClass::Foreground, async move {
                loop {
                    while turning.turn() {}
                    doorbell.rung(shard).await;
                }
            });
            shards.push(dispatch);
        }
        Self { sim, shards }
    }

    fn call(&self, shard: usize, command: Command<'static>) -> Outcome {
        self.sim.run_until(self.shards[shard].call(&Principal::admin(), command)).unwrap()
    }

    fn put(&self, shard: usize, key: &str, document: &str) -> Outcome {
        let (key, document) = (Cow::Owned(key.to_owned()), Cow::Owned(document.as_bytes().to_vec()));
        self.call(shard, Command::Put { schema: "s".into(), key, document, condition: Condition::None })
    }

    fn get(&self, shard: usize, key: &str) -> Result<String, ErrorCode> {
        match self.call(shard, Command::Get { schema: "s".into(), key: Cow::Owned(key.to_owned()) }) {
            Outcome::Document { document, .. } => Ok(String::from_utf8_lossy(document.body()).into_owned()),
            Outcome::Failed(failure) => Err(failure.code),
            other => panic!("{other:?}"),
        }
    }

    fn list(&self, shard: usize, after: Option<String>, limit: usize) -> (Vec<String>, Option<String>) {
        let (schema, prefix) = ("s".into(), "k".into());
        let after = after.map(Cow::Owned);
        match self.call(shard, Command::List { schema, prefix, after, limit, documents: true }) {
            Outcome::Page(page) => {
                assert!(page.entries.iter().all(|entry| entry.document.is_some()));
                (page.entries.into_iter().map(|entry| entry.key).collect(), page.next)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn failure_of(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("a failure was expected, not {other:?}"),
    }
}

#[test]
fn every_shard_serves_every_key() {
    let cluster = Cluster::start(1);
    for number in 0..60 {
        let key = format!("k{number}");
        assert!(matches!(
            cluster.put(number % SHARDS, &key, &number.to_string()),
            Outcome::Written { created: true, .. }
        ));
        assert_eq!(cluster.get((number + 1) % SHARDS, &key), Ok(number.to_string()));
    }
    assert_eq!(cluster.get(0, "nobody"), Err(ErrorCode::NotFound));
    let owned: Vec<u64> = cluster.shards.iter().map(|shard| shard.engine().storage().status().entities).collect();
    assert_eq!(owned.iter().sum::<u64>(), 60);
    assert!(owned.iter().all(|count| *count > 5), "keys spread over the shards: {owned:?}");
    assert!(cluster.shards.iter().all(|shard| shard.outstanding() == 0));
}

#[test]
fn pages_over_all_shards_show_every_key_once_in_order() {
    let cluster = Cluster::start(2);
    let mut expected: Vec<String> = (0..40).map(|number| format!("k{number:02}")).collect();
    for key in expected.iter().rev() {
        cluster.put(0, key, "{}");
    }
    cluster.put(0, "other", "{}");
    for limit in [1, 7, 40, 1000] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (keys, next) = cluster.list(1, after, limit);
            assert!(keys.len() <= limit);
            seen.extend(keys);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
    cluster.call(2, Command::Delete { schema: "s".into(), key: "k07".into(), condition: Condition::None });
    expected.retain(|key| key != "k07");
    assert_eq!(cluster.list(0, None, 1000), (expected, None));
}

#[test]
fn several_keys_come_back_in_the_order_asked() {
    let cluster = Cluster::start(3);
    let item =
        |number: usize| PutItem { key: format!("k{number}").into(), document: number.to_string().into_bytes().into() };
    let items = (0..30).map(item).collect();
    let Outcome::WrittenMany(written) = cluster.call(1, Command::MultiPut { schema: "s".into(), items }) else {
        panic!("one result a key")
    };
    let versions: Vec<Version> = written.into_iter().map(|result| result.unwrap().0).collect();
    let keys = (0..31).rev().map(|number| format!("k{number}").into()).collect();
    let Outcome::Documents(read) = cluster.call(2, Command::MultiGet { schema: "s".into(), keys }) else {
        panic!("one result a key")
    };
    assert_eq!(read[0].as_ref().unwrap_err().code, ErrorCode::NotFound);
    for (result, number) in read[1..].iter().zip((0..30).rev()) {
        let (version, document) = result.as_ref().unwrap();
        assert_eq!((*version, document.body()), (versions[number], number.to_string().as_bytes()));
    }
}

#[test]
fn a_template_put_on_any_shard_binds_every_shard_before_it_is_answered() {
    let cluster = Cluster::start(4);
    let template = Cow::Borrowed(&br#"{"type":"object","required":["name"]}"#[..]);
    let put = Command::SchemaPut { id: "s".into(), template };
    assert!(matches!(cluster.call(2, put), Outcome::TemplateChanged { created: true }));
    for shard in 0..SHARDS {
        let failure = failure_of(cluster.put(shard, &format!("k{shard}"), "{}"));
        assert_eq!((failure.code, failure.violations[0].keyword.as_str()), (ErrorCode::SchemaViolation, "required"));
        assert!(matches!(cluster.put(shard, &format!("k{shard}"), r#"{"name":1}"#), Outcome::Written { .. }));
    }
    let items = vec![
        PutItem { key: "good".into(), document: br#"{"name":1}"#[..].into() },
        PutItem { key: "bad".into(), document: b"{}"[..].into() },
    ];
    let failure = failure_of(cluster.call(0, Command::MultiPut { schema: "s".into(), items }));
    assert_eq!((failure.code, failure.key.as_deref()), (ErrorCode::SchemaViolation, Some("bad")));
    assert_eq!(cluster.get(0, "good"), Err(ErrorCode::NotFound), "all are validated before any is written");
    assert!(matches!(cluster.call(1, Command::SchemaDelete { id: "s".into() }), Outcome::TemplateChanged { .. }));
    assert!(matches!(cluster.put(0, "bad", "{}"), Outcome::Written { .. }));
}

#[test]
fn more_at_once_than_another_shard_has_room_for_waits_and_is_not_refused() {
    const AT_ONCE: usize = 2 * MAILBOX_CREDITS;
    let (cluster, admin) = (Cluster::start(6), Principal::admin());
    let on_many_keys: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let item = |part| PutItem { key: format!("k{number}-{part}").into(), document: b"1"[..].into() };
            let command = Command::MultiPut { schema: "s".into(), items: (0..8).map(item).collect() };
            cluster.shards[0].call(&admin, command)
        })
        .collect();
    let on_one_key: Vec<_> = (0..2 * AT_ONCE)
        .map(|number| {
            let key = Cow::Owned(format!("one{number}"));
            let put = Command::Put { schema: "s".into(), key, document: b"1"[..].into(), condition: Condition::None };
            cluster.shards[0].call(&admin, put)
        })
        .collect();
    assert!(cluster.shards[0].waiting_for_room() > 0, "this many must meet the bound");
    let all = async {
        for outcome in on_many_keys {
            match outcome.await {
                Outcome::WrittenMany(results) => assert!(results.iter().all(Result::is_ok)),
                other => panic!("{other:?}"),
            }
        }
        for outcome in on_one_key {
            assert!(matches!(outcome.await, Outcome::Written { created: true, .. }));
        }
    };
    cluster.sim.run_until(all).unwrap();
    assert!(cluster.shards.iter().all(|shard| shard.outstanding() == 0 && shard.waiting_for_room() == 0));
}

/// A key of each shard, by its owner.
fn key_of_each(cluster: &Cluster) -> [String; SHARDS] {
    let owner = |key: &String| cluster.shards[0].parts.topology.owner_of("s", key);
    std::array::from_fn(|shard| (0..).map(|n| format!("k{n}")).find(|key| owner(key) == shard).unwrap())
}

/// Every commit of this shard from now on begins and never ends.
fn hang_commits_of(cluster: &Cluster, shard: usize) {
    let fault = Fault::next(&[Operation::SyncedWrite], Effect::Hang);
    cluster.sim.inject(fault.on_path(&format!("/shards/1/{shard}/")).times(u64::MAX));
}

#[test]
fn a_disk_that_never_answers_leaves_writes_unknown_and_everything_else_served() {
    let cluster = Cluster::start(7);
    let keys = key_of_each(&cluster);
    for key in &keys {
        assert!(matches!(cluster.put(0, key, "1"), Outcome::Written { .. }));
    }
    hang_commits_of(&cluster, 1);
    // At home, over the mailbox, and as a part of several.
    for shard in [1, 0] {
        let failure = failure_of(cluster.put(shard, &keys[1], "2"));
        let expected = if shard == 1 { ErrorCode::OutcomeUnknown } else { ErrorCode::Unavailable };
        assert_eq!(failure.code, expected, "a write behind one that hangs is not begun: {}", failure.message);
    }
    let items = keys.iter().map(|key| PutItem { key: key.clone().into(), document: b"3"[..].into() }).collect();
    let Outcome::WrittenMany(results) = cluster.call(2, Command::MultiPut { schema: "s".into(), items }) else {
        panic!("one result a key")
    };
    let codes: Vec<_> = results.iter().map(|result| result.as_ref().err().map(|failure| failure.code)).collect();
    assert_eq!(codes, [None, Some(ErrorCode::Unavailable), None]);
    assert_eq!(cluster.get(0, &keys[1]), Ok("1".into()), "nothing undurable is shown");
    assert_eq!(cluster.get(1, &keys[0]), Ok("3".into()));
    assert!(cluster.shards[1].engine().is_stalled() && !cluster.shards[0].engine().is_stalled());
    assert!(cluster.shards.iter().all(|shard| shard.outstanding() == 0), "credits and places are given back");
}

#[test]
fn a_write_over_the_mailbox_that_hangs_is_answered_as_at_home() {
    let cluster = Cluster::start(8);
    let keys = key_of_each(&cluster);
    hang_commits_of(&cluster, 2);
    let admin = Principal::admin();
    let put = |shard: usize| {
        let key = Cow::Owned(keys[2].clone());
        let put = Command::Put { schema: "s".into(), key, document: b"1"[..].into(), condition: Condition::None };
        cluster.shards[shard].call(&admin, put)
    };
    let waiting = [put(0), put(1), put(2)];
    let began_ns = cluster.shards[0].parts.platform.clock().now_ns();
    for outcome in waiting {
        assert_eq!(failure_of(cluster.sim.run_until(outcome).unwrap()).code, ErrorCode::OutcomeUnknown);
    }
    let waited_ms = (cluster.shards[0].parts.platform.clock().now_ns() - began_ns) / 1_000_000;
    assert!((DISK_TIMEOUT_MS..=DISK_TIMEOUT_MS + 2 * DISK_WATCH_INTERVAL_MS).contains(&waited_ms), "{waited_ms} ms");
    assert!(cluster.shards.iter().all(|shard| shard.outstanding() == 0));
}

#[test]
fn a_stop_answers_everybody_whatever_they_wait_for() {
    let cluster = Cluster::start(9);
    let (keys, admin) = (key_of_each(&cluster), Principal::admin());
    cluster.put(0, &keys[2], "1");
    cluster.shards[2].engine().clear_cache();
    hang_commits_of(&cluster, 1);
    cluster.sim.inject(Fault::next(&[Operation::Read], Effect::Hang).on_path("/shards/1/2/").times(u64::MAX));
    cluster.sim.inject(Fault::next(&[Operation::Open, Operation::Create], Effect::Hang).on_path("/templates"));
    let name = |key: &str| Cow::Owned(key.to_owned());
    let put = |shard: usize| {
        let (key, document) = (name(&keys[1]), b"1"[..].into());
        let put = Command::Put { schema: "s".into(), key, document, condition: Condition::None };
        cluster.shards[shard].call(&admin, put)
    };
    let writes = [put(0), put(1)];
    let items = keys.iter().map(|key| PutItem { key: key.clone().into(), document: b"3"[..].into() }).collect();
    let several = cluster.shards[2].call(&admin, Command::MultiPut { schema: "s".into(), items });
    let get = || Command::Get { schema: "s".into(), key: name(&keys[2]) };
    let reads = [cluster.shards[0].call(&admin, get()), cluster.shards[2].call(&admin, get())];
    let template = Command::SchemaPut { id: "t".into(), template: b"{}"[..].into() };
    let template = cluster.shards[1].call(&admin, template);
    cluster.sim.run_for(Duration::from_secs(1)).unwrap();
    assert!(cluster.shards.iter().all(|shard| shard.outstanding() > 0), "everybody waits for something");

    cluster.shards[0].parts.board.begin_drain();
    for shard in &cluster.shards {
        let shard = shard.clone();
        let platform = shard.parts.platform.clone();
        platform.spawn().spawn(TaskClass::Foreground, async move { shard.give_up().await });
    }
    cluster.sim.run_for(Duration::from_secs(2)).unwrap();
    assert!(cluster.shards.iter().all(|shard| shard.outstanding() == 0), "nobody waits any longer");
    for outcome in writes {
        assert_eq!(failure_of(cluster.sim.run_until(outcome).unwrap()).code, ErrorCode::OutcomeUnknown);
    }
    for outcome in reads {
        let failure = failure_of(cluster.sim.run_until(outcome).unwrap());
        assert_eq!(failure.code, ErrorCode::Unavailable);
        assert!(failure.message.contains("shutting down"), "{}", failure.message);
    }
    let Outcome::WrittenMany(results) = cluster.sim.run_until(several).unwrap() else { panic!("one result a key") };
    let codes: Vec<_> = results.iter().map(|result| result.as_ref().err().map(|failure| failure.code)).collect();
    assert_eq!(codes, [None, Some(ErrorCode::OutcomeUnknown), None], "of each key what became of it");
    assert_eq!(failure_of(cluster.sim.run_until(template).unwrap()).code, ErrorCode::OutcomeUnknown);
}

#[test]
fn what_may_not_or_cannot_be_done_is_refused_by_name() {
    let cluster = Cluster::start(5);
    let nobody = Principal::anonymous();
    let get = Command::Get { schema: "s".into(), key: "k".into() };
    let refused = failure_of(cluster.sim.run_until(cluster.shards[0].call(&nobody, get)).unwrap());
    assert_eq!(refused.code, ErrorCode::Forbidden);
    assert!(refused.message.contains("'read'"));
    assert_eq!(failure_of(cluster.put(0, "a/b", "{}")).code, ErrorCode::InvalidName);
    assert_eq!(failure_of(cluster.put(0, "k", "{")).code, ErrorCode::InvalidJson);
    assert_eq!(failure_of(cluster.put(0, "k", &"1".repeat((1 << 20) + 1))).code, ErrorCode::TooLarge);
    let keys = vec![Cow::Borrowed("k"); MULTI_KEYS_MAX + 1];
    let many = Command::MultiGet { schema: "s".into(), keys };
    assert_eq!(failure_of(cluster.call(0, many)).code, ErrorCode::TooLarge);
    cluster.shards[0].parts.board.begin_drain();
    assert_eq!(failure_of(cluster.put(1, "k", "{}")).code, ErrorCode::Unavailable);
}

/// Keeps one retiring key and counts what it is asked to change.
#[derive(Default)]
struct Counting {
    changes: Cell<u32>,
}

impl Counting {
    fn change(&self) -> KeyringFuture {
        self.changes.set(self.changes.get() + 1);
        Box::pin(std::future::ready(Err("it only counts".to_owned())))
    }
}

impl KeyCustodian for Counting {
    fn rotate(&self) -> KeyringFuture {
        self.change()
    }

    fn drop_unused(&self, _: BTreeSet<DataKeyId>) -> KeyringFuture {
        self.change()
    }

    fn has_retiring_keys(&self) -> bool {
        true
    }
}

/// What a salvage could not open may name the keys that seem unused.
#[test]
fn a_salvage_changes_neither_keys_nor_templates() {
    for (salvage, changes) in [(false, 2), (true, 0)] {
        let custodian = Rc::new(Counting::default());
        let cluster = Cluster::start_with(6, salvage, Some(custodian.clone()));
        cluster.sim.run_until(cluster.shards[0].drop_unused_keys()).unwrap();
        for shard in [0, 1] {
            let put = Command::SchemaPut { id: "s".into(), template: Cow::Borrowed(b"{}") };
            for command in [put, Command::SchemaDelete { id: "s".into() }] {
                let outcome = cluster.call(shard, command);
                match salvage {
                    true => assert_eq!(failure_of(outcome).code, ErrorCode::Unavailable),
                    false => assert!(matches!(outcome, Outcome::TemplateChanged { .. })),
                }
            }
        }
        assert_eq!(failure_of(cluster.call(1, Command::RotateKey)).code, ErrorCode::Unavailable);
        assert_eq!(custodian.changes.get(), changes);
        assert!(matches!(cluster.call(0, Command::SchemaList), Outcome::Templates(ids) if ids.is_empty()));
    }
}
