//! Opening a shard's log after anything happened to its files: a valid small store on the simulated disk, mutated.
//!
//! Holds: start is refused, or damage is reported, or what is served is a state the store really had; after a clean
//! shutdown it is the last one, and no later one loses more than its unfinished end; a document is served only under
//! the key and version it was written with; versions are not given out twice; what was opened goes on and opens
//! again; a salvage writes nothing.

use super::input::Input;
use deltadb::command::EntityRef;
use deltadb::crypto::keyring::Keyring;
use deltadb::metrics::Metrics;
use deltadb::runtime::platform::{Clock, Platform};
use deltadb::runtime::sim::{DiskImage, Sim, SimPlatform};
use deltadb::storage::log::{LogIdentity, LogOptions, LogSizes, LogStorage};
use deltadb::storage::{Change, Mutation, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const DIRECTORY: &str = "/shards/1/0";

/// Schema and key to version and document.
type Model = BTreeMap<(String, String), (u64, Vec<u8>)>;
type Log = Rc<LogStorage<SimPlatform>>;

/// Tries one input: which disk to start from, then mutations of its files.
pub fn run(data: &[u8]) {
    STORE.with(|store| {
        let mut input = Input::new(data);
        let base = &store.bases[input.below(store.bases.len())];
        let mut image = base.image.clone();
        let mut rolled_back = false;
        for _ in 0..12 {
            if input.is_empty() {
                break;
            }
            rolled_back |= mutate(&mut image, &store.older, &mut input);
        }
        let oldest = if rolled_back { 0 } else { base.oldest_state };
        judge(store, &image, oldest, base.version_max);
    });
}

/// Each kind of mutation on each base.
pub fn seeds() -> Vec<Vec<u8>> {
    let kinds = (0..KINDS).map(|kind| vec![kind, 1, 0, 17, 0, 0, 5, 1, 2, 3, 4, 5, 0, 16, 0, 0]);
    let each = kinds.flat_map(|mutation| (0..3).map(move |base| [&[base][..], &mutation].concat()));
    // The unfinished end cut off at many places.
    let cuts = (0..8).flat_map(|file| (1..24).map(move |at| vec![1, 2, file, 0, 0, at * 2]));
    each.chain(cuts).chain([vec![0], vec![1], vec![2]]).collect()
}

/// A disk to begin with.
struct Base {
    image: DiskImage,
    /// The oldest state that damage to an unfinished end may lead back to.
    oldest_state: usize,
    /// The highest version given out so far.
    version_max: u64,
}

/// Disks of one store's life, and all that it ever held.
struct Store {
    bases: Vec<Base>,
    older: Vec<DiskImage>,
    states: Vec<Model>,
    written: BTreeSet<(String, String, u64, Vec<u8>)>,
    version_max: u64,
}

thread_local! {
    static STORE: Store = Store::make();
}

/// The keys of the store.
pub fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::create(Sim::new(11).platform().entropy(), [7; 16], 0))
}

/// How its shard is opened.
pub fn options(keyring: &Arc<Keyring>, salvage: bool) -> LogOptions {
    let sizes = LogSizes {
        segment_bytes_first: 16 << 10,
        segment_bytes_max: 32 << 10,
        batch_bytes: 4 << 10,
        batch_records: 32,
        records_in_flight: 64,
        checkpoint_due_bytes: 1 << 40,
        checkpoint_chunk_bytes: 4 << 10,
        verify_at_open_bytes: 1 << 30,
        window_bytes: 16 << 10,
        space_kept_bytes: 16 << 10,
        ..LogSizes::default()
    };
    LogOptions {
        directory: PathBuf::from(DIRECTORY),
        create: false,
        identity: LogIdentity { store_id: [7; 16], generation: 1, shard: 0 },
        keyring: keyring.clone(),
        salvage,
        metrics: Metrics::new(1),
        sizes,
    }
}

impl Store {
    fn make() -> Self {
        let (mut store, keyring) = (
            Self {
                bases: Vec::new(),
                older: Vec::new(),
                states: vec![Model::new()],
                written: BTreeSet::new(),
                version_max: 0,
            },
            keyring(),
        );
        let sim = Sim::new(1);
        let log = open(&sim, LogOptions { create: true, ..options(&keyring, false) }).expect("a new shard opens");
        store.live(&sim, &log, 0..14);
        store.shut_down(sim, log);
        let oldest_state = store.states.len() - 1;
        let sim = Sim::on_disk(2, store.bases[0].image.clone());
        let log = open(&sim, options(&keyring, false)).expect("it opens again");
        store.live(&sim, &log, 14..24);
        store.bases.push(Base { image: sim.disk_image(), oldest_state, version_max: store.version_max });
        store.live(&sim, &log, 24..30);
        store.shut_down(sim, log);
        store
    }

    /// Writes, overwrites and deletes, a batch a step, and keeps disks of the past.
    fn live(&mut self, sim: &Sim, log: &Log, steps: std::ops::Range<usize>) {
        for step in steps {
            let mut state = self.states.last().cloned().unwrap_or_default();
            let schema = ["s", "t"][step % 2];
            let keys: Vec<String> = (0..1 + step % 4).map(|number| format!("k{}", (step + number) % 9)).collect();
            let document = format!("{{\"step\":{step},\"text\":\"{}\"}}", crate::filler(100 + step * 61, step as u64));
            let deletes = step % 5 == 4;
            let mutation = || if deletes { Mutation::Delete } else { Mutation::Put(document.as_bytes()) };
            let present = |key: &&String| !deletes || state.contains_key(&(schema.to_owned(), (*key).clone()));
            let keys: Vec<&String> = keys.iter().filter(present).collect();
            let entity = |key| EntityRef { schema, key };
            let changes: Vec<Change<'_>> =
                keys.iter().map(|key| Change { entity: entity(key.as_str()), mutation: mutation() }).collect();
            if changes.is_empty() {
                continue;
            }
            let versions = write(sim, log, &changes);
            for (key, version) in keys.into_iter().zip(versions) {
                self.version_max = version;
                let name = (schema.to_owned(), key.clone());
                if deletes {
                    state.remove(&name);
                } else {
                    let body = document.clone().into_bytes();
                    self.written.insert((name.0.clone(), name.1.clone(), version, body.clone()));
                    state.insert(name, (version, body));
                }
            }
            self.states.push(state);
            if step % 4 == 1 {
                self.older.push(sim.disk_image());
            }
        }
        let settling = sim.platform().clock().sleep(Duration::from_secs(1));
        sim.run_until(settling).expect("the machine runs");
    }

    fn shut_down(&mut self, sim: Sim, log: Log) {
        sim.run_until(log.shutdown()).expect("the machine runs").expect("a clean shutdown");
        drop(log);
        let (oldest_state, version_max) = (self.states.len() - 1, self.version_max);
        self.bases.push(Base { image: sim.crash(), oldest_state, version_max });
    }
}

/// Kinds of mutation.
const KINDS: u8 = 11;

/// Does one thing to the shard's files; whether it brought back an older content.
fn mutate(image: &mut DiskImage, older: &[DiskImage], input: &mut Input<'_>) -> bool {
    let kind = input.byte() % KINDS;
    let files: Vec<PathBuf> = image.list_files().into_iter().map(|(path, _)| path).collect();
    if files.is_empty() {
        return false;
    }
    let path = files[input.below(files.len())].clone();
    let other = files[input.below(files.len())].clone();
    let mut bytes = read(image, &path);
    let at = position(input, bytes.len());
    match kind {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << input.below(8)),
        1 => overwrite(&mut bytes, at, input.short_bytes()),
        2 => bytes.truncate(at),
        3 => {
            let len = usize::from(input.u16());
            bytes.iter_mut().skip(at).take(len).for_each(|byte| *byte = 0);
        }
        4 | 5 => {
            // A part from elsewhere in this file or in another, most often a whole block.
            let source = if kind == 4 { bytes.clone() } else { read(image, &other) };
            let (from, len) = (position(input, source.len()), usize::from(input.byte()) * 64);
            let end = source.len().min(from + len);
            overwrite(&mut bytes, at, &source[from.min(end)..end]);
        }
        6 => {
            let past = &older[input.below(older.len())];
            match past.peek(&path) {
                Ok(old) => bytes = old,
                Err(_) => {
                    let _ = image.remove(&path);
                    return true;
                }
            }
        }
        7 => {
            let _ = image.remove(&path);
            return false;
        }
        8 => {
            let (one, another) = (bytes.clone(), read(image, &other));
            let _ = image.replace(&other, &one);
            bytes = another;
        }
        9 => bytes.extend_from_slice(input.short_bytes()),
        _ => {
            let names = ["MANIFEST", "1.seg", "2.seg", "9.seg", "1.ckpt", "7.ckpt", "MANIFEST.tmp", "x"];
            let name = Path::new(DIRECTORY).join(names[input.below(names.len())]);
            let _ = image.replace(name, &bytes);
            return false;
        }
    }
    let _ = image.replace(&path, &bytes);
    kind == 6
}

fn read(image: &DiskImage, path: &Path) -> Vec<u8> {
    image.peek(path).unwrap_or_default()
}

fn overwrite(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes.iter_mut().skip(at).zip(new).for_each(|(byte, new)| *byte = *new);
}

/// A place in a file, often where a block begins.
fn position(input: &mut Input<'_>, len: usize) -> usize {
    let at = input.u16() as usize % len.max(1);
    if at.is_multiple_of(4) { at / 512 * 512 } else { at }
}

fn open(sim: &Sim, options: LogOptions) -> Result<Log, String> {
    let opening = LogStorage::open(sim.platform(), options);
    sim.run_until(opening).expect("the machine runs").map_err(|error| error.to_string())
}

fn write(sim: &Sim, log: &Log, changes: &[Change<'_>]) -> Vec<u64> {
    let mut versions = Vec::new();
    log.append(changes, &mut versions).expect("a log that opened takes writes");
    sim.run_until(log.commit()).expect("the machine runs").expect("the disk is good");
    versions
}

/// Everything served, or the first error.
fn read_all(sim: &Sim, log: &Log) -> Result<Model, String> {
    let mut model = Model::new();
    for (schema, count) in log.schemas() {
        let entries = log.list(&schema, "", None, usize::MAX);
        assert_eq!(entries.len() as u64, count);
        for (key, version) in entries {
            let entity = EntityRef { schema: &schema, key: &key };
            assert_eq!(log.durable_version(entity), Some(version));
            let read = sim.run_until(log.read(entity)).expect("the machine runs").map_err(|error| error.to_string())?;
            let (found, document) = read.expect("what is listed is there");
            assert_eq!(found, version);
            model.insert((schema.clone(), key.into_string()), (version, document.body().to_vec()));
        }
    }
    Ok(model)
}

fn judge(store: &Store, image: &DiskImage, oldest: usize, version_max: u64) {
    let keyring = keyring();
    let sim = Sim::on_disk(3, image.clone());
    let Ok(log) = open(&sim, options(&keyring, false)) else { return judge_salvage(store, image, &keyring) };
    let reported = !log.open_report().damage.is_empty();
    let Ok(found) = read_all(&sim, &log) else { return };
    judge_served(store, &found);
    if reported {
        return;
    }
    let states = &store.states[oldest..];
    assert!(states.contains(&found), "what is served was never a state of the store: {}", in_words(&found));
    let new = Change { entity: EntityRef { schema: "s", key: "new" }, mutation: Mutation::Put(b"[\"new\"]") };
    let version = write(&sim, &log, &[new])[0];
    assert!(oldest == 0 || version > version_max, "version {version} was given out before");
    drop(log);
    let mut expected = found;
    expected.insert(("s".to_owned(), "new".to_owned()), (version, b"[\"new\"]".to_vec()));
    let sim = Sim::on_disk(4, sim.crash());
    let log = open(&sim, options(&keyring, false)).expect("what was opened once opens again");
    assert!(log.open_report().damage.is_empty(), "damage that was not seen before");
    assert!(read_all(&sim, &log).as_ref() == Ok(&expected), "a write after the recovery is lost");
}

fn judge_served(store: &Store, found: &Model) {
    for ((schema, key), (version, body)) in found {
        let document = (schema.clone(), key.clone(), *version, body.clone());
        assert!(store.written.contains(&document), "{schema}/{key} version {version} was never written so");
    }
}

fn judge_salvage(store: &Store, image: &DiskImage, keyring: &Arc<Keyring>) {
    let sim = Sim::on_disk(5, image.clone());
    let Ok(log) = open(&sim, options(keyring, true)) else { return };
    if let Ok(found) = read_all(&sim, &log) {
        judge_served(store, &found);
    }
    let _ = sim.run_until(log.shutdown()).expect("the machine runs");
    drop(log);
    let content = |image: &DiskImage| -> Vec<_> {
        image.list_files().into_iter().map(|(path, _)| (read(image, &path), path)).collect()
    };
    assert!(content(&sim.disk_image()) == content(image), "a salvage changed the disk");
}

fn in_words(model: &Model) -> String {
    model.iter().map(|((schema, key), (version, _))| format!("{schema}/{key}@{version} ")).collect()
}
