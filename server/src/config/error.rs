//! What can be wrong with a configuration, each naming its place and the remedy. Values of secrets never appear.

use std::path::PathBuf;

/// Why a configuration was refused. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value does not parse or is out of range.
    #[error("{place}: {reason}")]
    Value {
        /// Flag, variable, or key and file.
        place: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// The configuration file cannot be read.
    #[error("--config {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's or the parser's words.
        reason: String,
    },
    /// The configuration file names something this version does not know.
    #[error("unknown key '{key}' in {}: {hint}", path.display())]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The file.
        path: PathBuf,
        /// The nearest known key, or where to find them all.
        hint: String,
    },
    /// The configuration file holds a secret itself.
    #[error("'{key}' in {}: a secret does not belong in this file; write it to a file of its own (mode 0600) and set {key}-file to its path", path.display())]
    SecretInFile {
        /// The key.
        key: String,
        /// The file.
        path: PathBuf,
    },
    /// The same secret by two means.
    #[error("the {what} is given twice, by {first} and by {second}: keep one of them")]
    SecretTwice {
        /// Which secret.
        what: String,
        /// One means.
        first: String,
        /// The other.
        second: String,
    },
    /// A secret's file or value cannot be used.
    #[error("{means}: {reason}")]
    Secret {
        /// By what means it was given.
        means: String,
        /// Why it is of no use, without the value.
        reason: String,
    },
    /// Two values do not go together.
    #[error("{reason}")]
    Relation {
        /// Both, and the remedy.
        reason: String,
    },
}
