//! The store's own files, looked over while it is open: what is damaged would keep the next start from opening it.
//!
//! Memory knows both files, so one that is damaged is written anew, as long as the other one shows that the directory is
//! still this store's.

use super::change::Change;
use super::descriptor::Descriptor;
use super::open::{DESCRIPTOR_BYTES_MAX, KEYRING_BYTES_MAX, write_descriptor, write_keyring};
use super::read::read;
use super::{Store, StoreError};
use crate::crypto::keyring::Keyring;
use crate::runtime::platform::Platform;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

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
            Ok(()) => write!(formatter, "{} was damaged ({reason}) and has been written anew", path.display()),
            Err(why) => write!(
                formatter,
                "{} is damaged ({reason}) and was not written anew: {why}; \
                 put it back from a backup before this server stops, for without it the store does not open again",
                path.display()
            ),
        }
    }
}

/// What each of the two is found to be.
struct Found {
    keyring: Result<(), String>,
    descriptor: Result<(), String>,
}

impl Store {
    /// Reads `keyring.json` and `store.json` and writes anew the one that is damaged; returns what was wrong.
    pub async fn look_over<P: Platform>(&self, platform: &P) -> Vec<Unsound> {
        let (keyring, descriptor) = {
            let state = self.state();
            (state.keyring.clone(), state.descriptor.clone())
        };
        if self.find(platform, &keyring, &descriptor).await.is_sound() {
            return Vec::new();
        }
        // That may have been a change under way. While this one is, there is no other.
        match self.begin() {
            Ok((keyring, descriptor)) => {
                let unsound = self.mend(platform, keyring, descriptor).await;
                // Whatever became of it: each file is as it was, or what memory holds.
                self.state().change = Change::None;
                unsound
            }
            // Looked at again later; and what a failed change left may be what the next start needs.
            Err(_) => Vec::new(),
        }
    }

    async fn mend<P: Platform>(&self, platform: &P, keyring: Arc<Keyring>, descriptor: Descriptor) -> Vec<Unsound> {
        let found = self.find(platform, &keyring, &descriptor).await;
        let (keyring_path, descriptor_path) = (self.layout.keyring(), self.layout.descriptor());
        match (found.keyring, found.descriptor) {
            (Ok(()), Ok(())) => Vec::new(),
            (Err(reason), Ok(())) => {
                let mended = write_keyring(platform, &self.layout, &keyring, &self.root_key).await.map_err(said);
                vec![Unsound { path: keyring_path, reason, mended }]
            }
            (Ok(()), Err(reason)) => {
                let mended = write_descriptor(platform, &self.layout, &descriptor, &keyring).await.map_err(said);
                vec![Unsound { path: descriptor_path, reason, mended }]
            }
            (Err(of_keyring), Err(of_descriptor)) => {
                let mended =
                    || Err("neither of the two files shows that the directory is still this store's".to_owned());
                let both = [(keyring_path, of_keyring), (descriptor_path, of_descriptor)];
                both.map(|(path, reason)| Unsound { path, reason, mended: mended() }).into()
            }
        }
    }

    async fn find<P: Platform>(&self, platform: &P, keyring: &Keyring, descriptor: &Descriptor) -> Found {
        Found {
            keyring: self.verify_keyring(platform, keyring).await,
            descriptor: self.verify_descriptor(platform, keyring, descriptor).await,
        }
    }

    async fn verify_keyring<P: Platform>(&self, platform: &P, current: &Keyring) -> Result<(), String> {
        let text = read(platform.disk(), &self.layout.keyring(), KEYRING_BYTES_MAX).await.map_err(said)?;
        let found = Keyring::open(&text, &self.root_key).map_err(|error| error.to_string())?;
        if found.store_id() != current.store_id() {
            return Err("it is of another store".into());
        }
        if found.generation() != current.generation() {
            let (found, current) = (found.generation(), current.generation());
            return Err(format!("it is generation {found}, and {current} was written last"));
        }
        Ok(())
    }

    async fn verify_descriptor<P: Platform>(
        &self,
        platform: &P,
        keyring: &Keyring,
        current: &Descriptor,
    ) -> Result<(), String> {
        let path = self.layout.descriptor();
        let text = read(platform.disk(), &path, DESCRIPTOR_BYTES_MAX).await.map_err(said)?;
        let found = Descriptor::open(&text, &keyring.store_mac_key(), &path).map_err(said)?;
        if found == *current { Ok(()) } else { Err("it is not the one that was written last".into()) }
    }
}

impl Found {
    fn is_sound(&self) -> bool {
        self.keyring.is_ok() && self.descriptor.is_ok()
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
