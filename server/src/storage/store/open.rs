//! Opening and making a data directory.
//!
//! A store comes into being in an order that every crash leaves in one of these states, each of which the next start
//! takes up: nothing; `master.key` alone; with `keyring.json`; with an incomplete `store.json`; complete. Shards are
//! made only once `store.json` is there, so a directory with shards but without the others has lost them.

use super::descriptor::Descriptor;
use super::read::read;
use super::{Layout, Opened, RootKeyInput, Store, StoreError, StoreOptions};
use crate::crypto::keyring::{KEYRING_FORMAT_VERSION, Keyring, KeyringError};
use crate::crypto::root_key::{RootKey, RootKeyId, RootKeySource};
use crate::limits::SHARDS_MAX;
use crate::runtime::platform::{Clock, Disk, Entropy, Platform};
use crate::runtime::publish::{TEMPORARY_SUFFIX, publish};
use std::io;
use std::path::Path;
use zeroize::Zeroizing;

pub(super) const DESCRIPTOR_BYTES_MAX: usize = 64 << 10;
/// Holds the most keys a keyring may have, at under 400 bytes each.
pub(super) const KEYRING_BYTES_MAX: usize = 1 << 20;
const MASTER_KEY_BYTES_MAX: usize = 4096;

/// A root key, where it came from, and what the operator should hear.
pub(super) struct ChosenKey {
    pub key: RootKey,
    pub source: RootKeySource,
    pub warnings: Vec<String>,
}

/// Which files a directory holds.
pub(super) struct Survey {
    descriptor: bool,
    keyring: bool,
    shards: bool,
    master_key: bool,
}

/// What an existing store consists of.
pub(super) struct Existing {
    pub chosen: ChosenKey,
    pub keyring: Keyring,
    pub descriptor: Descriptor,
}

pub(super) async fn open_or_create<P: Platform>(platform: &P, options: StoreOptions) -> Result<Opened, StoreError> {
    let asked = options.shards_wanted.unwrap_or(options.default_shards);
    if !(1..=SHARDS_MAX).contains(&usize::from(asked)) {
        return Err(StoreError::ShardCount { given: asked });
    }
    let layout = Layout::new(&options.directory);
    let disk = platform.disk();
    let directory = layout.directory();
    disk.create_dir_all(directory).await.map_err(StoreError::io("create the data directory", directory))?;
    remove_temporary_files(disk, &layout).await?;
    // A process that was killed may have renamed what is seen now and not synced it; what follows builds on it.
    disk.sync_dir(directory).await.map_err(StoreError::io("sync", directory))?;
    let survey = survey(disk, &layout).await?;
    let (input, expected) = (options.root_key, options.expected_key_id);
    survey.check_not_lost(&layout)?;
    let existing = match (survey.descriptor, survey.keyring) {
        (true, _) => open_existing(platform, &layout, &survey, input, expected).await?,
        (false, true) => resume(platform, &layout, &survey, input, expected, asked).await?,
        (false, false) => create(platform, &layout, &survey, input, expected, asked).await?,
    };
    Ok(existing.opened(&layout, options.shards_wanted))
}

pub(super) async fn open_to_read<P: Platform>(platform: &P, options: StoreOptions) -> Result<Opened, StoreError> {
    let layout = Layout::new(&options.directory);
    let survey = survey(platform.disk(), &layout).await?;
    survey.check_whole(&layout)?;
    let existing = open_existing(platform, &layout, &survey, options.root_key, options.expected_key_id).await?;
    Ok(existing.opened(&layout, options.shards_wanted))
}

impl Existing {
    fn opened(self, layout: &Layout, shards_wanted: Option<u16>) -> Opened {
        let Self { chosen, keyring, descriptor } = self;
        let (created, shards) = (!descriptor.complete, descriptor.shards);
        Opened {
            store: Store::new(layout.directory(), chosen.key, keyring, descriptor),
            created,
            root_key_source: chosen.source,
            shards_wanted: shards_wanted.filter(|wanted| *wanted != shards),
            warnings: chosen.warnings,
        }
    }
}

/// Reads and verifies the store in a directory.
pub(super) async fn open_existing<P: Platform>(
    platform: &P,
    layout: &Layout,
    survey: &Survey,
    input: RootKeyInput,
    expected: Option<RootKeyId>,
) -> Result<Existing, StoreError> {
    let (disk, path) = (platform.disk(), layout.descriptor());
    let text = read(disk, &path, DESCRIPTOR_BYTES_MAX).await?;
    let store_id = Descriptor::claimed_store_id(&text, &path)?;
    let (chosen, keyring) = open_keyring(disk, layout, survey, input, expected, Some(store_id)).await?;
    let descriptor = Descriptor::open(&text, &keyring.store_mac_key(), &path)?;
    if descriptor.store_id != keyring.store_id() {
        return Err(other_store(layout, keyring.store_id(), descriptor.store_id));
    }
    if descriptor.complete {
        check_generation(disk, layout, descriptor.generation).await?;
    }
    Ok(Existing { chosen, keyring, descriptor })
}

/// Which of the files that matter are there; `NoStore` is for callers that need one.
pub(super) async fn survey<D: Disk>(disk: &D, layout: &Layout) -> Result<Survey, StoreError> {
    let directory = layout.directory();
    let names = disk.read_dir(directory).await.map_err(StoreError::io("list", directory))?;
    let has = |name: &Path| names.iter().any(|found| Some(found.as_ref()) == name.file_name());
    Ok(Survey {
        descriptor: has(&layout.descriptor()),
        keyring: has(&layout.keyring()),
        shards: has(&layout.shards()),
        master_key: has(&layout.master_key()),
    })
}

impl Survey {
    /// Whether there is a store that was once created.
    pub fn holds_store(&self) -> bool {
        self.descriptor && self.keyring
    }

    /// Data without keys or a description has lost them: they are never made anew.
    fn check_not_lost(&self, layout: &Layout) -> Result<(), StoreError> {
        match (self.descriptor, self.keyring, self.shards) {
            (true, false, _) | (false, false, true) => Err(StoreError::KeyringMissing { path: layout.keyring() }),
            (false, true, true) => Err(StoreError::DescriptorMissing { path: layout.descriptor() }),
            _ => Ok(()),
        }
    }

    /// There is a store, and all that makes it one.
    pub fn check_whole(&self, layout: &Layout) -> Result<(), StoreError> {
        self.check_not_lost(layout)?;
        if self.holds_store() { Ok(()) } else { Err(StoreError::NoStore { directory: layout.directory().to_owned() }) }
    }
}

/// Publishes a keyring; what is written has been opened again.
pub(super) async fn write_keyring<P: Platform>(
    platform: &P,
    layout: &Layout,
    keyring: &Keyring,
    root: &RootKey,
) -> Result<(), StoreError> {
    let (path, text) = (layout.keyring(), keyring.seal(root, platform.entropy()));
    assert!(text.len() <= KEYRING_BYTES_MAX, "a keyring of {} bytes could not be read back", text.len());
    assert!(Keyring::open(&text, root).is_ok(), "a keyring that does not open must not replace one that does");
    publish(platform.disk(), &path, &text).await.map_err(StoreError::io("write", &path))
}

/// The generation of the keyring that readers of the directory see, if it can be read.
pub(super) async fn keyring_on_disk<D: Disk>(disk: &D, layout: &Layout, root: &RootKey) -> Option<u64> {
    let text = read(disk, &layout.keyring(), KEYRING_BYTES_MAX).await.ok()?;
    Keyring::open(&text, root).ok().map(|keyring| keyring.generation())
}

/// Publishes `store.json`.
pub(super) async fn write_descriptor<P: Platform>(
    platform: &P,
    layout: &Layout,
    descriptor: &Descriptor,
    keyring: &Keyring,
) -> Result<(), StoreError> {
    let path = layout.descriptor();
    let text = descriptor.render(&keyring.store_mac_key());
    publish(platform.disk(), &path, &text).await.map_err(StoreError::io("write", &path))
}

/// Makes a store in a fresh directory: root key durable, then keyring, then `store.json`.
async fn create<P: Platform>(
    platform: &P,
    layout: &Layout,
    survey: &Survey,
    input: RootKeyInput,
    expected: Option<RootKeyId>,
    shards: u16,
) -> Result<Existing, StoreError> {
    sync_ancestors(platform.disk(), layout.directory()).await?;
    let chosen = match choose(platform.disk(), layout, survey, input).await? {
        Some(chosen) => chosen,
        None => match expected {
            Some(expected) => {
                return Err(StoreError::RootKeyMissing { directory: layout.directory().to_owned(), expected });
            }
            None => make_master_key(platform, layout).await?,
        },
    };
    check_expected(&chosen, expected)?;
    let mut store_id = [0; 16];
    platform.entropy().fill(&mut store_id);
    let keyring = Keyring::create(platform.entropy(), store_id, platform.clock().unix_ms());
    write_keyring(platform, layout, &keyring, &chosen.key).await?;
    describe(platform, layout, chosen, keyring, shards).await
}

/// Takes up a creation that was cut short between keyring and `store.json`.
async fn resume<P: Platform>(
    platform: &P,
    layout: &Layout,
    survey: &Survey,
    input: RootKeyInput,
    expected: Option<RootKeyId>,
    shards: u16,
) -> Result<Existing, StoreError> {
    let (chosen, keyring) = open_keyring(platform.disk(), layout, survey, input, expected, None).await?;
    if keyring.generation() != 1 {
        // Keys were changed since, so the store was complete once and has lost its description and its shards.
        return Err(StoreError::DescriptorMissing { path: layout.descriptor() });
    }
    describe(platform, layout, chosen, keyring, shards).await
}

/// Publishes the first `store.json`.
async fn describe<P: Platform>(
    platform: &P,
    layout: &Layout,
    chosen: ChosenKey,
    keyring: Keyring,
    shards: u16,
) -> Result<Existing, StoreError> {
    let descriptor = Descriptor {
        store_id: keyring.store_id(),
        hash_seed: platform.entropy().next_u64(),
        shards,
        generation: 1,
        created_unix_ms: platform.clock().unix_ms(),
        complete: false,
    };
    write_descriptor(platform, layout, &descriptor, &keyring).await?;
    Ok(Existing { chosen, keyring, descriptor })
}

async fn open_keyring<D: Disk>(
    disk: &D,
    layout: &Layout,
    survey: &Survey,
    input: RootKeyInput,
    expected: Option<RootKeyId>,
    store_id: Option<[u8; 16]>,
) -> Result<(ChosenKey, Keyring), StoreError> {
    let path = layout.keyring();
    let text = read(disk, &path, KEYRING_BYTES_MAX).await?;
    let header = Keyring::header(&text).map_err(|error| keyring_error(&path, "", error))?;
    if let Some(store_id) = store_id.filter(|store_id| *store_id != header.store_id) {
        return Err(other_store(layout, header.store_id, store_id));
    }
    let chosen = choose(disk, layout, survey, input).await?.ok_or_else(|| StoreError::RootKeyMissing {
        directory: layout.directory().to_owned(),
        expected: header.root_key_id,
    })?;
    check_expected(&chosen, expected)?;
    let origin = chosen.source.to_string();
    let keyring = Keyring::open(&text, &chosen.key).map_err(|error| keyring_error(&path, &origin, error))?;
    Ok((chosen, keyring))
}

/// The key that was given, else the one in `master.key`, else none.
async fn choose<D: Disk>(
    disk: &D,
    layout: &Layout,
    survey: &Survey,
    input: RootKeyInput,
) -> Result<Option<ChosenKey>, StoreError> {
    let path = layout.master_key();
    match input {
        RootKeyInput::Given { key, source } => {
            let mut warnings = Vec::new();
            if survey.master_key {
                let opens = read_master_key(disk, &path).await.is_ok_and(|other| other.id() == key.id());
                warnings.push(match opens {
                    true => unprotected(&path),
                    false => format!("{} is not the root key of this store: remove it", path.display()),
                });
            }
            Ok(Some(ChosenKey { key, source, warnings }))
        }
        RootKeyInput::None if survey.master_key => {
            let key = read_master_key(disk, &path).await?;
            let warnings = vec![unprotected(&path)];
            Ok(Some(ChosenKey { key, source: RootKeySource::DataDirectory(path), warnings }))
        }
        RootKeyInput::None => Ok(None),
    }
}

async fn read_master_key<D: Disk>(disk: &D, path: &Path) -> Result<RootKey, StoreError> {
    let content = read(disk, path, MASTER_KEY_BYTES_MAX).await?;
    // Bytes that are no text are no key either: the error is the parser's.
    let text = std::str::from_utf8(&content).unwrap_or("");
    Ok(RootKey::parse(text, &path.display().to_string())?)
}

async fn make_master_key<P: Platform>(platform: &P, layout: &Layout) -> Result<ChosenKey, StoreError> {
    let (path, key) = (layout.master_key(), RootKey::generate(platform.entropy()));
    let mut text = Zeroizing::new(String::with_capacity(65));
    text.push_str(&key.to_hex());
    text.push('\n');
    publish(platform.disk(), &path, text.as_bytes()).await.map_err(StoreError::io("write", &path))?;
    let warnings = vec![format!("no root key was given: a new one was made in {}", path.display()), unprotected(&path)];
    Ok(ChosenKey { key, source: RootKeySource::DataDirectory(path), warnings })
}

fn unprotected(path: &Path) -> String {
    format!(
        "the root key lies beside the data in {}: whoever can read the directory can read everything; \
         keep it out of backups of the directory; for production keep it elsewhere and give --master-key-file",
        path.display()
    )
}

fn check_expected(chosen: &ChosenKey, expected: Option<RootKeyId>) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != chosen.key.id() => {
            Err(StoreError::UnexpectedRootKey { origin: chosen.source.to_string(), expected, given: chosen.key.id() })
        }
        _ => Ok(()),
    }
}

/// A complete store has the generation it names; anything else is an old `store.json`, or lost shards.
async fn check_generation<D: Disk>(disk: &D, layout: &Layout, generation: u64) -> Result<(), StoreError> {
    let shards = layout.shards();
    let mut names = match disk.read_dir(&shards).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(StoreError::io("list", &shards))?,
    };
    if names.contains(&generation.to_string()) {
        return Ok(());
    }
    names.sort();
    let found = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    Err(StoreError::GenerationMissing { path: layout.generation(generation), found })
}

/// What a crash left unpublished, in the directories whose files are published by rename. Shards clear their own.
async fn remove_temporary_files<D: Disk>(disk: &D, layout: &Layout) -> Result<(), StoreError> {
    for directory in [layout.directory().to_owned(), layout.templates(), layout.credentials_directory()] {
        let names = match disk.read_dir(&directory).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            names => names.map_err(StoreError::io("list", &directory))?,
        };
        for name in names.iter().filter(|name| name.ends_with(TEMPORARY_SUFFIX)) {
            let path = directory.join(name);
            disk.remove_file(&path).await.map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Makes the data directory's own name durable. Its parent must be synced where it can be; those above it may have
/// been made just now too, but may also be closed to this user, so they are only tried.
async fn sync_ancestors<D: Disk>(disk: &D, directory: &Path) -> Result<(), StoreError> {
    for (distance, ancestor) in directory.ancestors().skip(1).enumerate() {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match disk.sync_dir(ancestor).await {
            Ok(()) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => {}
                _ if distance > 0 => {}
                _ => return Err(StoreError::io("sync", ancestor)(error)),
            },
        }
    }
    Ok(())
}

fn keyring_error(path: &Path, origin: &str, error: KeyringError) -> StoreError {
    let path = path.to_owned();
    match error {
        KeyringError::NewerFormat { found } => {
            StoreError::NewerFormat { path, found, supported: KEYRING_FORMAT_VERSION }
        }
        KeyringError::WrongRootKey { expected, given } => {
            StoreError::WrongRootKey { path, origin: origin.to_owned(), expected, given }
        }
        KeyringError::Damaged { reason } => StoreError::Damaged { path, reason: reason.to_owned() },
    }
}

fn other_store(layout: &Layout, found: [u8; 16], expected: [u8; 16]) -> StoreError {
    let (path, descriptor) = (layout.keyring(), layout.descriptor());
    StoreError::OtherStore { path, descriptor, found: hex::encode(found), expected: hex::encode(expected) }
}
