//! The only place that wires rooms together.

use crate::config::Config;
use crate::exit::ExitStatus;

/// Why the server did not start or did not end well.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// How the process is to end.
    pub status: ExitStatus,
    /// One sentence with the remedy.
    pub message: String,
}

/// Serves until told to stop.
pub fn serve(_config: Config) -> Result<(), StartError> {
    Err(StartError { status: ExitStatus::Failure, message: "the rooms are not wired together yet".into() })
}

/// Wraps the keyring of a stopped store with another root key; returns the id of the new one.
pub fn rewrap(
    _data_dir: &std::path::Path,
    _present: &crate::config::SecretSource,
    _new: &crate::config::SecretSource,
    _key_id: Option<&str>,
) -> Result<String, StartError> {
    Err(StartError { status: ExitStatus::Failure, message: "the rooms are not wired together yet".into() })
}
