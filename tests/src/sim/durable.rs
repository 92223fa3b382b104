//! No reply before durability, judged by the device and not by what the product believes of it: whatever an answer tells
//! of must lie whole in what a power cut at this moment would leave, in a file that a stable name leads to.
//!
//! Where each record was asked to be written is read off the requests; what became of it, off the disk.

use super::model::{Broken, Name, broken};
use super::server::Server;
use super::watch::{Seen, hash};
use deltadb::command::Version;
use deltadb::runtime::sim::{DiskImage, DiskRequest};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes of a frame, where they were asked to be.
#[derive(Clone, Copy)]
struct Place {
    inode: u64,
    offset: u64,
    len: usize,
    content: u64,
    compacted: bool,
}

impl Place {
    fn is_stable(&self, image: &DiskImage) -> bool {
        hash(&image.peek_stable(self.inode, self.offset, self.len)) == self.content
    }
}

/// Where the records of a life were written: by shard directory and version, first as committed, then as compacted.
#[derive(Default)]
pub struct Places(BTreeMap<PathBuf, BTreeMap<Version, Vec<Place>>>);

impl Places {
    /// A frame with these records is asked to be written.
    pub fn note(&mut self, request: &DiskRequest<'_>, seen: &Seen) {
        let DiskRequest::Write { path, inode, offset, bytes } = *request else { return };
        if seen.sequences.is_empty() {
            return;
        }
        let place = Place { inode, offset, len: bytes.len(), content: hash(bytes), compacted: seen.compacted };
        let shard = self.0.entry(path.parent().unwrap_or(Path::new("")).to_owned()).or_default();
        for sequence in &seen.sequences {
            shard.entry(*sequence).or_default().push(place);
        }
    }

    /// A write is acknowledged at this version right now.
    pub fn judge_acknowledged(&self, server: &Server, name: &Name, version: Version) -> Result<(), Broken> {
        if self.is_stable(server, name, version).unwrap_or(false) {
            return Ok(());
        }
        // What replaced it since makes room for others: then that must be there.
        let newest = server.durable_version(name);
        let replaced = match newest {
            Some(newest) => newest > version && self.is_stable(server, name, newest).unwrap_or(false),
            // So does a deletion, whose version only the one who asked for it is told.
            None => self.of(server, name).is_some_and(|shard| shard.range(version + 1..).next().is_some()),
        };
        if replaced {
            return Ok(());
        }
        let detail = format!("{name:?} is acknowledged at version {version}, which a power cut now would lose");
        broken("no reply before durability", detail)
    }

    /// A version is shown to a reader right now. Where an earlier life wrote it is not known any more.
    pub fn judge_shown(&self, server: &Server, name: &Name, version: Version) -> Result<(), Broken> {
        let places = self.of(server, name).and_then(|shard| shard.get(&version));
        let committed = places.is_some_and(|places| places.iter().any(|place| !place.compacted));
        if committed { self.judge_acknowledged(server, name, version) } else { Ok(()) }
    }

    fn of(&self, server: &Server, name: &Name) -> Option<&BTreeMap<Version, Vec<Place>>> {
        self.0.get(&server.shard_directory(server.owner_of(name)))
    }

    /// Whether some copy of a record is stable; `None`: it was never asked to be written.
    fn is_stable(&self, server: &Server, name: &Name, version: Version) -> Option<bool> {
        let places = self.of(server, name)?.get(&version)?;
        Some(server.look_at_disk(|image| places.iter().any(|place| place.is_stable(image))))
    }
}
