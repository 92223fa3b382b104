//! The offline check of one shard: everything its manifest names is read and authenticated, nothing is written, and
//! damage does not end it.
//!
//! It opens the shard as a start would, noting what a start would refuse, then reads every listed segment byte by byte
//! and compares its records with the index.

use super::format::manifest::MANIFEST_NAME;
use super::index::WalkCursor;
use super::recovery::Access;
use super::segment::checkpoint_path;
use super::state::LogStorage;
use super::{Damage, LogOptions, LogSizes, OpenError};
use crate::crypto::keyring::DataKeyId;
use crate::runtime::platform::{Disk, Platform};
use crate::storage::Storage;
use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardCheck {
    /// Every damaged place, in the order it was met.
    pub damage: Vec<Damage>,
    /// Files that nothing names: the next start removes them.
    pub leftovers: Vec<PathBuf>,
    /// Files read.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Whole frames.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Live entities.
    pub entities: u64,
    /// Data keys that the files name.
    pub key_ids: Vec<DataKeyId>,
}

/// Checks a shard that nobody has open; `belongs` says whether (schema, key) is this shard's.
pub async fn check_shard<P: Platform>(
    platform: P,
    options: LogOptions,
    belongs: impl Fn(&str, &str) -> bool,
) -> Result<ShardCheck, OpenError> {
    // Opening need not verify what is read whole afterwards.
    let sizes = LogSizes { verify_at_open_bytes: 0, ..options.sizes };
    let directory = options.directory.clone();
    let log = LogStorage::open_with(platform.clone(), LogOptions { sizes, ..options }, Access::Check).await?;
    let (seen, found) = log.check_listed().await;
    let mut places = BTreeSet::new();
    let mut damage = log.open_report().damage.clone();
    damage.extend(found);
    let strangers = count_strangers(&log, belongs);
    if strangers > 0 {
        let reason = format!("{strangers} of its documents belong to other shards");
        damage.push(Damage { file: directory.clone(), offset: 0, reason });
    }
    damage.retain(|damage| places.insert((damage.file.clone(), damage.offset)));
    let mut check = ShardCheck {
        damage,
        leftovers: Vec::new(),
        files: 0,
        bytes: 0,
        frames: seen.frames,
        records: seen.records,
        entities: log.status().entities,
        key_ids: log.key_ids_in_use(),
    };
    let named = named_files(&log, &directory);
    for path in file_paths(platform.disk(), &directory).await? {
        if !named.contains(&path) {
            check.leftovers.push(path);
            continue;
        }
        let stamp = platform.disk().stamp(&path).await;
        check.files += 1;
        check.bytes += stamp.map_err(super::recovery::io_error("measure", &path))?.size_bytes;
    }
    Ok(check)
}

fn count_strangers<P: Platform>(log: &LogStorage<P>, belongs: impl Fn(&str, &str) -> bool) -> u64 {
    let mut strangers = 0;
    log.state.borrow().index.walk(&mut WalkCursor::default(), |schema, entry| {
        strangers += u64::from(!belongs(schema, &entry.key));
        ControlFlow::Continue(())
    });
    strangers
}

fn named_files<P: Platform>(log: &Rc<LogStorage<P>>, directory: &Path) -> BTreeSet<PathBuf> {
    let state = log.state.borrow();
    let segments = state.segments.iter().map(|segment| segment.path.clone());
    let checkpoint = state.checkpoint.as_ref().map(|checkpoint| checkpoint_path(directory, checkpoint.number));
    segments.chain(checkpoint).chain([directory.join(MANIFEST_NAME)]).collect()
}

async fn file_paths<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let mut names = match disk.read_dir(directory).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(super::recovery::io_error("list", directory))?,
    };
    names.sort_unstable();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}
