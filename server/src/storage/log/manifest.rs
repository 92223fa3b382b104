//! Publishing the manifest: what is in force becomes what a restart finds.

use super::device::is_out_of_space;
use super::format::manifest::{MANIFEST_NAME, Manifest};
use super::segment::SegmentTable;
use super::state::{LogStorage, SegmentOf};
use crate::crypto::keyring::DataKeyId;
use crate::crypto::seal::{Purpose, SealingKey};
use crate::runtime::platform::{Disk, DiskFile, Platform};
use crate::runtime::publish::publish_with;
use crate::storage::{CommitError, Refusal};
use std::io;

/// Why a background step did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// No space; it can be tried again.
    OutOfSpace,
    /// The shard is poisoned, closing or read-only.
    Stopped,
}

impl<P: Platform> LogStorage<P> {
    /// Replaces the manifest by one that says what is in force now. Other failures than want of space poison. After want
    /// of space another task's manifest may have said it all the same: see [`Self::manifest_names`].
    pub(super) async fn publish_manifest(&self, clean: bool) -> Result<(), Interrupt> {
        let _guard = self.manifest_lock.lock().await;
        self.state.borrow().check_writable().map_err(|_| Interrupt::Stopped)?;
        let path = self.directory.join(MANIFEST_NAME);
        for attempt in 0..2 {
            let (manifest, names, bytes) = self.seal_manifest(clean)?;
            self.state.borrow_mut().manifest_keys.extend(&names);
            match publish_with(self.disk(), &path, &bytes, self.sync_names()).await {
                Ok(()) => {
                    let mut state = self.state.borrow_mut();
                    state.manifest = manifest;
                    state.at_work = !clean;
                    state.manifest_keys = names;
                    return Ok(());
                }
                Err(error) if is_out_of_space(&error) && attempt == 0 => self.make_room(bytes.len() as u64).await,
                Err(error) if is_out_of_space(&error) => break,
                Err(error) => {
                    self.poison(format!("publishing {}: {error}", path.display()));
                    return Err(Interrupt::Stopped);
                }
            }
        }
        Err(Interrupt::OutOfSpace)
    }

    /// Whether the manifest in force lists a segment.
    pub(super) fn manifest_names(&self, segment: &SegmentOf<P>) -> bool {
        self.state.borrow().manifest.segments.iter().any(|listed| listed.id == segment.header.id)
    }

    /// The manifest, the data keys it names with its own first, and its sealed form.
    fn seal_manifest(&self, clean: bool) -> Result<(Manifest, Vec<DataKeyId>, Vec<u8>), Interrupt> {
        let salt = self.random();
        let nonce = self.nonce();
        let state = self.state.borrow();
        let manifest = Manifest {
            number: state.manifest.number + 1,
            keyring_generation: state.keyring.generation(),
            clean,
            sequence_floor: state.next_sequence,
            segment_number_next: state.segment_number_next,
            segment_bytes_next: state.segment_bytes_next,
            checkpoint_number_next: state.checkpoint_number_next,
            checkpoint: state.checkpoint.clone(),
            segments: SegmentTable::listed(&state.segments).iter().map(|segment| segment.to_ref()).collect(),
        };
        let data_key = state.keyring.active();
        let key = SealingKey::derive(data_key, &salt, Purpose::Manifest);
        let sealed = manifest.seal(&self.identity, data_key.id(), &key, &salt, nonce);
        let names = manifest.key_ids(data_key.id());
        drop(state);
        match sealed {
            Ok(bytes) => Ok((manifest, names, bytes)),
            Err(error) => {
                self.poison(format!("sealing the manifest failed: {error}"));
                Err(Interrupt::Stopped)
            }
        }
    }

    /// On a full disk, takes room for small files out of the last spare.
    pub(super) async fn make_room(&self, bytes: u64) {
        let Some(mut spare) = self.state.borrow_mut().spare.take() else { return };
        let left = spare.bytes.saturating_sub(bytes.next_multiple_of(64 << 10));
        let left = left - left % (64 << 10);
        if left >= spare.bytes / 2 && spare.file.set_len(left).await.is_ok() && spare.file.sync_data().await.is_ok() {
            spare.bytes = left;
        }
        self.keep_spare(spare).await;
    }

    /// The interrupt as an error of a caller who waits.
    pub(super) fn commit_error(&self, interrupt: Interrupt) -> CommitError {
        let refusal = match interrupt {
            Interrupt::OutOfSpace => Refusal::OutOfSpace,
            Interrupt::Stopped => match self.state.borrow().check_writable() {
                Err(refusal) => refusal,
                Ok(()) => Refusal::ReadOnly { reason: "the shard is closing".to_owned() },
            },
        };
        refusal.into()
    }

    /// Sorts a failed background write: want of space can pass, anything else poisons.
    pub(super) fn interrupt(&self, action: &str, error: &io::Error) -> Interrupt {
        if is_out_of_space(error) {
            return Interrupt::OutOfSpace;
        }
        self.poison(format!("{action}: {error}"));
        Interrupt::Stopped
    }

    /// Makes the directory's names durable.
    pub(super) async fn sync_directory(&self) -> Result<(), Interrupt> {
        self.sync_names().await.map_err(|error| self.interrupt("syncing the shard's directory", &error))
    }

    /// The same, for whoever tells of the error. A sync that fails takes names with it that others gave: theirs would
    /// succeed and save nothing. So there is one at a time, and after one that fails, for whatever reason, none.
    pub(super) async fn sync_names(&self) -> io::Result<()> {
        let _guard = self.names_lock.lock().await;
        self.state.borrow().check_writable().map_err(io::Error::other)?;
        let result = self.disk().sync_dir(&self.directory).await;
        if let Err(error) = &result {
            self.poison(format!("syncing the shard's directory: {error}"));
        }
        result
    }
}
