//! The admin key: the one given, the one in `<data-dir>/admin.key`, or a new one there.

use super::StartError;
use crate::config::Config;
use crate::exit::ExitStatus;
use secrecy::SecretString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The key, and where it came from in words for the start block.
pub(super) struct AdminKey {
    pub(super) key: SecretString,
    pub(super) origin: String,
}

/// Finds or makes it. The directory is locked and exists.
pub(super) fn obtain(config: &Config) -> Result<AdminKey, StartError> {
    if let Some(source) = &config.admin_key {
        let key = source.read_credential().map_err(|error| StartError::new(ExitStatus::Usage, error.to_string()))?;
        return Ok(AdminKey { key, origin: format!("given by {}", source.means().text) });
    }
    let path = config.admin_key_path();
    match fs::read_to_string(&path) {
        Ok(text) => {
            let text = Zeroizing::new(text);
            let key = text.trim();
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                let message =
                    format!("{} holds no key: remove it to have one made, or put one line there", path.display());
                return Err(StartError::new(ExitStatus::Usage, message));
            }
            Ok(AdminKey { key: SecretString::from(key), origin: format!("in {}", path.display()) })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = make(&path).map_err(|error| unusable(&path, &error))?;
            Ok(AdminKey { key, origin: format!("made in {}", path.display()) })
        }
        Err(error) => Err(unusable(&path, &error)),
    }
}

/// A new key, durable under its name before anybody is told.
fn make(path: &Path) -> std::io::Result<SecretString> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    let text = Zeroizing::new(hex::encode(*bytes));
    let temporary = path.with_extension("key.tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{}", *text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(SecretString::from(text.as_str()))
}

fn unusable(path: &Path, error: &std::io::Error) -> StartError {
    let message = format!("the admin key file {} cannot be used: {error}", path.display());
    StartError::new(ExitStatus::DirectoryUnusable, message)
}
