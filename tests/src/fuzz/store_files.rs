//! Opening a data directory after anything happened to `store.json`, `keyring.json` and `master.key`.
//!
//! Holds: it is refused, or it is the same store with the same keys; over existing shards no store is ever made anew;
//! no error tells a key.

use super::input::Input;
use deltadb::crypto::root_key::RootKey;
use deltadb::runtime::platform::{Clock, Platform};
use deltadb::runtime::sim::{DiskImage, Sim};
use deltadb::storage::store::{Layout, Opened, RootKeyInput, Store, StoreOptions};
use std::path::{Path, PathBuf};

const DIRECTORY: &str = "/data";

/// Tries one input: what is done to the three files, one after the other.
pub fn run(data: &[u8]) {
    LIFE.with(|life| {
        let mut input = Input::new(data);
        let given = input.byte();
        let mut image = life.image.clone();
        let mut rolled_back = false;
        for _ in 0..8 {
            if input.is_empty() {
                break;
            }
            rolled_back |= mutate(&mut image, life, &mut input);
        }
        judge(life, image, given % 2 == 1, rolled_back);
    });
}

/// Each kind of change to each file.
pub fn seeds() -> Vec<Vec<u8>> {
    let kinds = (0..8).map(|kind| [kind, 30, 0, 7, b'1', b'2', b'"', b',', b'0', b'}', b'a']);
    let each =
        kinds.flat_map(|mutation| (0..3).map(move |file| [&[0, mutation[0], file][..], &mutation[1..]].concat()));
    // A digit becomes another: what still reads well must not authenticate.
    let digits =
        (0..2).flat_map(|file| (0..400).step_by(3).map(move |at| vec![0, 0, file, at as u8, (at / 256) as u8]));
    each.chain(digits).chain([vec![0], vec![1]]).collect()
}

/// What the store is known by.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    id: [u8; 16],
    hash_seed: u64,
    shards: u16,
    generation: u64,
    keyring_generation: u64,
    keys: Vec<String>,
}

struct Life {
    image: DiskImage,
    older: DiskImage,
    known: [Known; 2],
    root_key: String,
}

thread_local! {
    static LIFE: Life = Life::make();
}

impl Life {
    fn make() -> Self {
        let sim = Sim::new(1);
        let opened = open(&sim, None).expect("a fresh directory becomes a store");
        // Its shards lie there, so it must never be made anew.
        let shard = opened.store.shard_directory(0).join("MANIFEST");
        sim.poke(|image| image.replace(&shard, b"a shard")).expect("a file");
        let platform = sim.platform();
        sim.run_until(opened.store.complete_creation(&platform)).expect("the machine runs").expect("a complete store");
        let (first, older) = (known(&opened.store), sim.disk_image());
        let rotating = opened.store.rotate_data_key(&platform);
        sim.run_until(rotating).expect("the machine runs").expect("a new key");
        let second = known(&opened.store);
        let image = sim.disk_image();
        let text = image.peek(Layout::new(Path::new(DIRECTORY)).master_key()).expect("master.key");
        let root_key = String::from_utf8(text).expect("hex").trim().to_owned();
        Self { image, older, known: [first, second], root_key }
    }
}

fn known(store: &Store) -> Known {
    let keyring = store.keyring();
    Known {
        id: store.id(),
        hash_seed: store.hash_seed(),
        shards: store.shards(),
        generation: store.generation(),
        keyring_generation: keyring.generation(),
        keys: keyring.keys().map(|key| key.id().to_string()).collect(),
    }
}

fn open(sim: &Sim, root_key: Option<RootKey>) -> Result<Opened, String> {
    let root_key = root_key.map_or(RootKeyInput::None, |key| RootKeyInput::Given {
        key,
        source: deltadb::crypto::root_key::RootKeySource::DataDirectory(PathBuf::from("/elsewhere")),
    });
    let options = StoreOptions {
        directory: PathBuf::from(DIRECTORY),
        root_key,
        expected_key_id: None,
        shards_wanted: None,
        default_shards: 2,
    };
    let platform = sim.platform();
    let opening = Store::open_or_create(&platform, options);
    sim.run_until(opening).expect("the machine runs").map_err(|error| error.to_string())
}

/// Does one thing to one of the files; whether it brought back an older content.
fn mutate(image: &mut DiskImage, life: &Life, input: &mut Input<'_>) -> bool {
    let layout = Layout::new(Path::new(DIRECTORY));
    let paths = [layout.descriptor(), layout.keyring(), layout.master_key()];
    let kind = input.byte() % 8;
    let path = &paths[input.below(3)];
    let mut bytes = image.peek(path).unwrap_or_default();
    let at = usize::from(input.u16()) % bytes.len().max(1);
    match kind {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << input.below(8)),
        1 => bytes.iter_mut().skip(at).zip(input.short_bytes()).for_each(|(byte, new)| *byte = *new),
        2 => bytes.truncate(at),
        3 => bytes = [&bytes[..at], input.short_bytes(), &bytes[at..]].concat(),
        4 => {
            let end = (at + usize::from(input.byte())).min(bytes.len());
            bytes.drain(at..end);
        }
        5 => {
            let _ = image.remove(path);
            return false;
        }
        6 => bytes = life.older.peek(path).unwrap_or_default(),
        _ => {
            let other = image.peek(&paths[input.below(3)]).unwrap_or_default();
            bytes = [&bytes[..at], &other[at.min(other.len())..]].concat();
        }
    }
    let _ = image.replace(path, &bytes);
    kind == 6
}

fn judge(life: &Life, image: DiskImage, given: bool, rolled_back: bool) {
    let sim = Sim::on_disk(2, image);
    let _ = sim.platform().clock().now_ns();
    let key = given.then(|| RootKey::parse(&life.root_key, "the test").expect("the root key"));
    match open(&sim, key) {
        Err(message) => assert!(!message.contains(&life.root_key), "an error tells the root key"),
        Ok(opened) => {
            let found = known(&opened.store);
            let allowed = if rolled_back { &life.known[..] } else { &life.known[1..] };
            let same_store = allowed.iter().any(|known| {
                // The keyring and store.json are separate files, each with an older self.
                (found.id, found.hash_seed, found.shards) == (known.id, known.hash_seed, known.shards)
                    && allowed
                        .iter()
                        .any(|other| found.keyring_generation == other.keyring_generation && found.keys == other.keys)
            });
            assert!(same_store, "another store was opened: {found:?}");
            assert!(!opened.created || rolled_back, "its shards would be made anew");
        }
    }
}
