//! How a subcommand ends when it does not end well.

use crate::command::ErrorCode;
use crate::config::ConfigError;
use crate::exit::ExitStatus;
use std::io;

/// Why a subcommand failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The arguments do not make sense together.
    #[error("{0}")]
    Usage(String),
    /// A setting or a key is of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server answered with an error.
    #[error("{message}")]
    Answered {
        /// Its code.
        code: ErrorCode,
        /// Its words.
        message: String,
    },
    /// No answer came; nothing was changed.
    #[error("{0}")]
    Unreachable(String),
    /// No answer came to a write.
    #[error("the outcome is unknown: {0}; read the entity to find out")]
    OutcomeUnknown(String),
    /// Something on this side, a file or a stream.
    #[error("{0}")]
    Local(String),
    /// Whoever read stdout went away.
    #[error("the output was closed")]
    OutputClosed,
    /// A server or an offline command ended with a status of its own.
    #[error("{message}")]
    Ended {
        /// How the process is to end.
        status: ExitStatus,
        /// Why.
        message: String,
    },
}

impl CliError {
    /// How the process is to end.
    pub(super) fn status(&self) -> ExitStatus {
        match self {
            CliError::Usage(_) | CliError::Config(_) => ExitStatus::Usage,
            CliError::Answered { code, .. } => ExitStatus::of_error(*code),
            CliError::Unreachable(_) => ExitStatus::Unavailable,
            CliError::OutcomeUnknown(_) => ExitStatus::OutcomeUnknown,
            CliError::Local(_) => ExitStatus::Failure,
            CliError::OutputClosed => ExitStatus::OutputClosed,
            CliError::Ended { status, .. } => *status,
        }
    }

    /// What to say on stderr; nothing when nobody is there to be told.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            CliError::OutputClosed => None,
            CliError::Answered { code, message } => Some(format!("{message} ({})", code.name())),
            _ => Some(self.to_string()),
        }
    }

    /// An error of writing to stdout.
    pub(super) fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::OutputClosed,
            _ => CliError::Local(format!("writing the output failed: {error}")),
        }
    }
}
