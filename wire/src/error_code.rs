//! The one table of error codes: a stable number, a short name and an HTTP status each.

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $short:literal, $status:literal;)*) => {
        /// Why a request was refused or failed. Numbers are stable: they are never reused or changed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum ErrorCode { $($(#[$doc])* $name = $number,)* }

        impl ErrorCode {
            /// Every code, in order of its number.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code of a number, if there is one.
            pub fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(ErrorCode::$name),)* _ => None }
            }

            /// The stable number on the wire.
            pub fn number(self) -> u16 { self as u16 }

            /// The short name, as in the HTTP member `error`.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$name => $short,)* }
            }

            /// The HTTP status it maps to.
            pub fn http_status(self) -> u16 {
                match self { $(ErrorCode::$name => $status,)* }
            }
        }
    };
}

error_codes! {
    /// The request is malformed: a frame, a parameter or a header.
    BadRequest = 1, "bad_request", 400;
    /// A schema id or entity key breaks the naming rules.
    InvalidName = 2, "invalid_name", 400;
    /// The document is not well-formed JSON, too deep, or not UTF-8.
    InvalidJson = 3, "invalid_json", 400;
    /// The template is not a JSON Schema this server can compile.
    InvalidSchema = 4, "invalid_schema", 400;
    /// The client speaks another protocol version.
    UnsupportedProtocol = 5, "unsupported_protocol", 400;
    /// No credential, or one that is not known.
    Unauthenticated = 6, "unauthenticated", 401;
    /// The credential lacks the permission named.
    Forbidden = 7, "forbidden", 403;
    /// There is no such entity, template or route.
    NotFound = 8, "not_found", 404;
    /// The route does not take this method.
    MethodNotAllowed = 9, "method_not_allowed", 405;
    /// The request did not arrive in time.
    RequestTimeout = 10, "request_timeout", 408;
    /// A JSON Patch test failed.
    Conflict = 11, "conflict", 409;
    /// The condition of a write does not hold.
    PreconditionFailed = 12, "precondition_failed", 412;
    /// The body, frame or document is larger than the limit.
    TooLarge = 13, "too_large", 413;
    /// The media type is not taken here.
    UnsupportedMediaType = 14, "unsupported_media_type", 415;
    /// The document breaks its schema.
    SchemaViolation = 15, "schema_violation", 422;
    /// The route demands a condition.
    PreconditionRequired = 16, "precondition_required", 428;
    /// The request head is too large.
    HeadersTooLarge = 17, "headers_too_large", 431;
    /// A bound is reached; try again after a moment.
    Overloaded = 18, "overloaded", 503;
    /// The server cannot serve this now: draining, poisoned or read-only.
    Unavailable = 19, "unavailable", 503;
    /// The write may or may not be durable; read to find out, do not assume.
    OutcomeUnknown = 20, "outcome_unknown", 503;
    /// The template of this schema is damaged on disk; writes to it are refused.
    TemplateDamaged = 21, "template_damaged", 503;
    /// The disk is full; reads go on, writes resume when there is space.
    OutOfSpace = 22, "out_of_space", 507;
    /// What was read back failed authentication and is not served.
    Corrupted = 23, "corrupted", 500;
    /// A bug in the server; it is logged there.
    Internal = 24, "internal", 500;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        for (position, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
            assert_eq!(code.number() as usize, position + 1);
            assert!(ErrorCode::ALL.iter().filter(|other| other.name() == code.name()).count() == 1);
            assert!((400..=599).contains(&code.http_status()));
        }
        assert_eq!(ErrorCode::from_number(0), None);
    }
}
