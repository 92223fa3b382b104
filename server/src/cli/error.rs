//! How a subcommand ends when it does not end well.

use crate::config::ConfigError;
use crate::exit::ExitStatus;
use delta_wire::client::ClientError;
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
    /// The server refused, or no usable answer came.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No key is at hand.
    #[error("{0}")]
    NoKey(String),
    /// There is nothing to connect to.
    #[error("{0}")]
    Unreachable(String),
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
            // What the client has no code for is a connection that failed or fell silent.
            CliError::Client(error) => error.code().map_or(ExitStatus::Unavailable, ExitStatus::of_error),
            CliError::NoKey(_) => ExitStatus::Unauthenticated,
            CliError::Unreachable(_) => ExitStatus::Unavailable,
            CliError::Local(_) => ExitStatus::Failure,
            CliError::OutputClosed => ExitStatus::OutputClosed,
            CliError::Ended { status, .. } => *status,
        }
    }

    /// What to say on stderr, without a line end; nothing when nobody is there to be told.
    pub(super) fn text(&self) -> Option<String> {
        let mut text = match self {
            CliError::OutputClosed => return None,
            _ => self.to_string(),
        };
        if let CliError::Client(ClientError::Server(error)) = self {
            for violation in &error.violations {
                text.push_str(&format!("\n  at '{}': {} ({})", violation.pointer, violation.detail, violation.keyword));
            }
        }
        Some(text)
    }

    /// An error of writing to stdout.
    pub(super) fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::OutputClosed,
            _ => CliError::Local(format!("writing the output failed: {error}")),
        }
    }
}
