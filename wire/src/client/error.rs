//! What can go wrong between asking and being answered.

use crate::error_code::ErrorCode;
use crate::reply::ServerError;
use std::time::Duration;

/// Why a request has no answer to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server refused it or failed at it, and says so.
    #[error(transparent)]
    Server(Box<ServerError>),
    /// A write was sent and its fate is not known: it may be durable, or not, or become so. It was not sent again.
    #[error("the outcome of the write is unknown ({reason}); read the entity to find out before writing again")]
    OutcomeUnknown { reason: String },
    /// A read was not answered in time.
    #[error("no reply within {waited:?}; the server may be busy, or the timeout too short")]
    Timeout { waited: Duration },
    /// No connection, or it was lost before the request was sent whole.
    #[error("no connection to {address}: {reason}")]
    Connection { address: String, reason: String },
    /// The other side does not keep to the protocol.
    #[error("the server at {address} does not speak this protocol: {reason}")]
    Protocol { address: String, reason: String },
    /// The request is larger than the server takes; it was not sent.
    #[error("the request has {size_bytes} bytes, the server takes at most {size_bytes_max}; split it")]
    TooLarge { size_bytes: usize, size_bytes_max: usize },
}

impl ClientError {
    /// The code the server gave, if it was the server.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Server(error) => Some(error.code),
            ClientError::OutcomeUnknown { .. } => Some(ErrorCode::OutcomeUnknown),
            ClientError::TooLarge { .. } => Some(ErrorCode::TooLarge),
            ClientError::Timeout { .. } | ClientError::Connection { .. } | ClientError::Protocol { .. } => None,
        }
    }
}

impl From<ServerError> for ClientError {
    fn from(error: ServerError) -> Self {
        match error.code {
            ErrorCode::OutcomeUnknown => ClientError::OutcomeUnknown { reason: error.message },
            _ => ClientError::Server(Box::new(error)),
        }
    }
}
