//! Every exit status of `deltadb`, in one table: scripts and service managers rely on the numbers.
//!
//! Numbers are stable: none is reused or changed. `--help` and README.md print this table; a test compares them.

use delta_wire::ErrorCode;

macro_rules! exit_statuses {
    ($($name:ident = $number:literal, $meaning:literal;)*) => {
        /// How the process ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum ExitStatus { $(#[doc = $meaning] $name = $number,)* }

        impl ExitStatus {
            /// Every status, in order of its number.
            pub const ALL: &'static [ExitStatus] = &[$(ExitStatus::$name,)*];

            /// What it means, in a few words.
            pub fn meaning(self) -> &'static str {
                match self { $(ExitStatus::$name => $meaning,)* }
            }
        }
    };
}

exit_statuses! {
    Success = 0, "done";
    Failure = 1, "it failed for a reason not listed here";
    Usage = 2, "wrong arguments or configuration";
    NotFound = 3, "no such entity or schema";
    ConditionFailed = 4, "the condition of a write does not hold";
    Refused = 5, "the server refused the input: name, JSON, schema, size";
    Unauthenticated = 6, "the key is missing, unknown or lacks the permission";
    Unavailable = 7, "no connection, or the server cannot serve this now: try again later";
    OutcomeUnknown = 8, "the write may or may not be durable: read to find out";
    DirectoryInUse = 10, "serve: another server holds the data directory";
    DirectoryUnusable = 11, "serve: the data directory cannot be created, read or written";
    AddressUnusable = 12, "serve: an address is in use or cannot be listened on";
    RingRefused = 13, "serve: io_uring is not allowed here";
    KernelTooOld = 14, "serve: the kernel lacks what is needed";
    LimitsTooLow = 15, "serve: the memlock or file-descriptor limit is too low";
    DiskFull = 16, "serve: too little disk space to start";
    RootKey = 17, "serve: the root key is missing, malformed or another store's";
    StoreForeign = 18, "serve: the directory holds a newer format, or files of another store";
    StoreDamaged = 19, "serve: stored data is damaged; see --salvage";
    StoppedAtOnce = 130, "serve: a second signal ended it at once";
    OutputClosed = 141, "whoever read the output went away";
}

impl ExitStatus {
    /// The number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The status of a command that a server answered with this error.
    pub fn of_error(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotFound => ExitStatus::NotFound,
            ErrorCode::PreconditionFailed | ErrorCode::Conflict => ExitStatus::ConditionFailed,
            ErrorCode::BadRequest
            | ErrorCode::InvalidName
            | ErrorCode::InvalidJson
            | ErrorCode::InvalidSchema
            | ErrorCode::MethodNotAllowed
            | ErrorCode::TooLarge
            | ErrorCode::UnsupportedMediaType
            | ErrorCode::SchemaViolation
            | ErrorCode::PreconditionRequired
            | ErrorCode::HeadersTooLarge => ExitStatus::Refused,
            ErrorCode::Unauthenticated | ErrorCode::Forbidden => ExitStatus::Unauthenticated,
            ErrorCode::UnsupportedProtocol
            | ErrorCode::RequestTimeout
            | ErrorCode::Overloaded
            | ErrorCode::Unavailable
            | ErrorCode::TemplateDamaged
            | ErrorCode::OutOfSpace => ExitStatus::Unavailable,
            ErrorCode::OutcomeUnknown => ExitStatus::OutcomeUnknown,
            ErrorCode::Corrupted | ErrorCode::Internal => ExitStatus::Failure,
        }
    }
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        std::process::ExitCode::from(status.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_rise() {
        assert!(ExitStatus::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    }

    #[test]
    fn no_server_error_looks_like_success_and_only_an_unknown_outcome_like_one() {
        for code in ErrorCode::ALL {
            let status = ExitStatus::of_error(*code);
            assert_ne!(status, ExitStatus::Success);
            assert_eq!(status == ExitStatus::OutcomeUnknown, *code == ErrorCode::OutcomeUnknown);
        }
    }
}
