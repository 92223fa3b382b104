//! The store's own files, looked over while it is open: what is damaged would keep the next start from opening it.
//!
//! They are read past the page cache, which would show what was written and not what the device still has. Memory knows
//! both files, so one that is damaged is written anew, as long as the other one shows that the directory is still this
//! store's. An authentic file that is newer than what memory knows was written by somebody else: it is told of and left.

use super::change::Change;
use super::descriptor::Descriptor;
use super::open::{DESCRIPTOR_BYTES_MAX, KEYRING_BYTES_MAX, write_descriptor, write_keyring};
use super::{Store, StoreError};
use crate::crypto::keyring::Keyring;
use crate::runtime::buffer::AlignedBuffer;
use crate::runtime::platform::{Caching, Disk, DiskFile, OpenMode, Platform};
use std::cmp::Ordering;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// The system's number for what a device cannot read or write.
const EIO: i32 = 5;

/// A file of the store that is not what it should be.
#[derive(Debug)]
pub struct Unsound {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// It was written anew and is sound again, or why not.
    pub mended: Result<(), String>,
}

impl fmt::Display for Unsound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, reason, mended } = self;
        match mended {
            Ok(()) => write!(formatter, "{} was unsound and has been written anew: {reason}", path.display()),
            Err(why) => write!(
                formatter,
                "{} is unsound: {reason}; it is not put right, because {why}; \
                 keep a backup at hand, for without this file the store does not open again",
                path.display()
            ),
        }
    }
}

/// What a file is found to be.
enum Found {
    Sound,
    /// It cannot be read now, for a reason that says nothing about it.
    Unread,
    /// Damaged, missing, or an older one put back: memory knows better.
    Worse(String),
    /// Authentic, and not what this process wrote.
    Strange(String),
}

/// Both files.
struct Files {
    keyring: Found,
    descriptor: Found,
}

impl Store {
    /// Reads `keyring.json` and `store.json` and writes anew the one that is damaged; returns what was wrong. While a
    /// change is under way nothing can be told: it is looked at again later.
    pub async fn look_over<P: Platform>(&self, platform: &P) -> Vec<Unsound> {
        let (keyring, descriptor) = {
            let state = self.state();
            (state.keyring.clone(), state.descriptor.clone())
        };
        let files = self.verify_files(platform, &keyring, &descriptor).await;
        if files.tell_nothing() {
            return Vec::new();
        }
        match self.begin() {
            // That may have been a change under way. While this is one, there is no other.
            Ok((keyring, descriptor)) => {
                let (unsound, change) = self.mend(platform, &keyring, &descriptor).await;
                self.state().change = change;
                unsound
            }
            // What the failed change left may be authentic and newer, and is what the next start needs.
            Err(StoreError::ChangeFailed { reason }) => {
                let why = format!("an earlier change of the store failed ({reason})");
                let worse = [(self.layout.keyring(), files.keyring), (self.layout.descriptor(), files.descriptor)];
                let worse = worse.into_iter().filter_map(|(path, found)| match found {
                    Found::Worse(reason) => Some(Unsound { path, reason, mended: Err(why.clone()) }),
                    _ => None,
                });
                worse.collect()
            }
            Err(_) => Vec::new(),
        }
    }

    /// Writes the one that is damaged anew, if the other is sound; the caller has begun a change, and this is its end.
    async fn mend<P: Platform>(
        &self,
        platform: &P,
        keyring: &Keyring,
        descriptor: &Descriptor,
    ) -> (Vec<Unsound>, Change) {
        let files = self.verify_files(platform, keyring, descriptor).await;
        let written = match (&files.keyring, &files.descriptor) {
            (Found::Worse(_), Found::Sound) => {
                Some(write_keyring(platform, &self.layout, keyring, &self.root_key).await)
            }
            (Found::Sound, Found::Worse(_)) => {
                Some(write_descriptor(platform, &self.layout, descriptor, keyring).await)
            }
            _ => None,
        };
        // It may be in place and not durable. Whatever else: it is not what was there, as after any failed change.
        let failed =
            written.as_ref().and_then(|written| written.as_ref().err()).filter(|error| !error.is_out_of_space());
        let change = failed.map_or(Change::None, |error| Change::Failed(error.to_string()));
        let mended = match written {
            Some(written) => written.map_err(|error| format!("writing it anew failed: {}", said(error))),
            None => Err("nothing shows that the directory is still this store's alone".to_owned()),
        };
        let both = [(self.layout.keyring(), files.keyring), (self.layout.descriptor(), files.descriptor)];
        let unsound = both.into_iter().filter_map(|(path, found)| match found {
            Found::Worse(reason) | Found::Strange(reason) => Some(Unsound { path, reason, mended: mended.clone() }),
            Found::Sound | Found::Unread => None,
        });
        (unsound.collect(), change)
    }

    async fn verify_files<P: Platform>(&self, platform: &P, keyring: &Keyring, descriptor: &Descriptor) -> Files {
        Files {
            keyring: self.verify_keyring(platform, keyring).await,
            descriptor: self.verify_descriptor(platform, keyring, descriptor).await,
        }
    }

    async fn verify_keyring<P: Platform>(&self, platform: &P, current: &Keyring) -> Found {
        let text = match read_from_device(platform.disk(), &self.layout.keyring(), KEYRING_BYTES_MAX).await {
            Ok(text) => text,
            Err(error) => return unreadable(&error),
        };
        let found = match Keyring::open(&text, &self.root_key) {
            Ok(found) => found,
            Err(error) => return Found::Worse(error.to_string()),
        };
        if found.store_id() != current.store_id() {
            return Found::Strange("it is of another store".into());
        }
        by_generation(found.generation(), current.generation(), true)
    }

    async fn verify_descriptor<P: Platform>(&self, platform: &P, keyring: &Keyring, current: &Descriptor) -> Found {
        let path = self.layout.descriptor();
        let text = match read_from_device(platform.disk(), &path, DESCRIPTOR_BYTES_MAX).await {
            Ok(text) => text,
            Err(error) => return unreadable(&error),
        };
        match Descriptor::open(&text, &keyring.store_mac_key(), &path) {
            Ok(found) => by_generation(found.generation, current.generation, found == *current),
            Err(error) => Found::Worse(said(error)),
        }
    }
}

impl Files {
    fn tell_nothing(&self) -> bool {
        [&self.keyring, &self.descriptor].iter().all(|found| matches!(found, Found::Sound | Found::Unread))
    }
}

fn by_generation(found: u64, current: u64, equal: bool) -> Found {
    match (found.cmp(&current), equal) {
        (Ordering::Greater, _) => Found::Strange(format!(
            "it is generation {found} and this server wrote {current} last: another server may be at work here"
        )),
        (Ordering::Equal, true) => Found::Sound,
        _ => Found::Worse(format!("it is an older one: generation {found}, and {current} was written last")),
    }
}

/// What an error of reading says about the file.
fn unreadable(error: &io::Error) -> Found {
    match error.kind() {
        io::ErrorKind::NotFound => Found::Worse("it is missing".into()),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => Found::Worse(error.to_string()),
        _ if error.raw_os_error() == Some(EIO) => Found::Worse("the device cannot read it".into()),
        _ => Found::Unread,
    }
}

/// What is wrong, without the file and the remedy: both are said by who reports it.
fn said(error: StoreError) -> String {
    match error {
        StoreError::Damaged { reason, .. } => reason,
        StoreError::Io { action, error, .. } => format!("cannot {action} it: {error}"),
        error => error.to_string(),
    }
}

/// The whole file, of at most `bytes_max` bytes, as the device has it.
async fn read_from_device<D: Disk>(disk: &D, path: &Path, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = disk.open(path, OpenMode::Read, Caching::Direct).await?;
    let size = file.size().await?;
    if size > bytes_max as u64 {
        let reason = format!("it has {size} bytes, and at most {bytes_max} are expected");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    // Reserved whole, so that growing leaves no copy behind.
    let mut content = Zeroizing::new(Vec::with_capacity(size as usize));
    while (content.len() as u64) < size {
        // A short read ends with a whole block, so that the next one is aligned as well.
        let rest = size as usize - content.len();
        let padded = AlignedBuffer::zeroed(rest.next_multiple_of(file.alignment()));
        let (count, mut buffer) = file.read_at(content.len() as u64, padded).await;
        match count? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => content.extend_from_slice(&buffer[..count.min(rest)]),
        }
        buffer.zeroize();
    }
    Ok(content)
}
