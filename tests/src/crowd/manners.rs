//! How members of a crowd behave, and what each of them is owed.

use super::Member;
use crate::{ADMIN_KEY, filler};
use delta_wire::encode::Scratch;
use delta_wire::{Condition, ErrorCode, Request};

/// The key, below the schema `crowd`, of the document that slow readers ask for.
pub const SLOW_READ_KEY: &str = "large";
/// How often each of them asks: for several times what its socket and the server's take without the server's memory.
pub const SLOW_READS: usize = 40;
const SLOW_READ_BYTES: usize = 8000;

/// The document that slow readers ask for, and take for no other.
pub fn slow_read_document() -> String {
    format!("\"{}\"", filler(SLOW_READ_BYTES, 5))
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manners {
    /// Asks once, reads the reply, and stays.
    HttpIdle,
    /// Says nothing.
    HttpSilent,
    /// A head, byte by byte.
    HttpSlowHead,
    /// A head, and its body byte by byte.
    HttpSlowBody,
    /// No HTTP.
    HttpGarbage,
    /// Announces a body of gigabytes.
    HttpOversize,
    /// Asks twice and ends its side.
    HttpHalfClosed,
    /// Ends its side within a head.
    HttpHalfHead,
    /// Asks many times at once and reads the replies a few hundred bytes at a time.
    HttpSlowReader,
    /// Asks without end and reads only when told.
    HttpFlood,
    /// Asks once, reads the reply, and stays.
    WireIdle,
    /// Says nothing.
    WireSilent,
    /// A Hello, byte by byte.
    WireSlowHello,
    /// A Hello, and then a request byte by byte.
    WireSlowFrame,
    /// No frames.
    WireGarbage,
    /// Announces a frame of gigabytes.
    WireOversize,
    /// Asks twice and ends its side.
    WireHalfClosed,
    /// Ends its side within a frame.
    WireHalfFrame,
    /// Asks many times at once and reads the replies a few hundred bytes at a time.
    WireSlowReader,
    /// Asks without end and reads only when told.
    WireFlood,
}

impl Manners {
    /// All but those that flood.
    pub const UNRULY: [Manners; 18] = [
        Manners::HttpIdle,
        Manners::HttpSilent,
        Manners::HttpSlowHead,
        Manners::HttpSlowBody,
        Manners::HttpGarbage,
        Manners::HttpOversize,
        Manners::HttpHalfClosed,
        Manners::HttpHalfHead,
        Manners::HttpSlowReader,
        Manners::WireIdle,
        Manners::WireSilent,
        Manners::WireSlowHello,
        Manners::WireSlowFrame,
        Manners::WireGarbage,
        Manners::WireOversize,
        Manners::WireHalfClosed,
        Manners::WireHalfFrame,
        Manners::WireSlowReader,
    ];

    /// Whether it speaks to the wire port.
    pub fn is_wire(self) -> bool {
        self >= Manners::WireIdle
    }

    /// Whether the server must end it by itself.
    pub fn must_end(self) -> bool {
        let is_idle = matches!(self, Manners::HttpIdle | Manners::WireIdle);
        !is_idle && !self.sips() && self.reads()
    }

    /// Whether it reads, but slowly, until it is told to read everything.
    pub fn sips(self) -> bool {
        matches!(self, Manners::HttpSlowReader | Manners::WireSlowReader)
    }

    pub(super) fn reads(self) -> bool {
        !matches!(self, Manners::HttpFlood | Manners::WireFlood) && !self.sips()
    }

    pub(super) fn drips(self) -> bool {
        use Manners::{HttpSlowBody, HttpSlowHead, WireSlowFrame, WireSlowHello};
        matches!(self, HttpSlowHead | HttpSlowBody | WireSlowHello | WireSlowFrame)
    }

    pub(super) fn half_closes(self) -> bool {
        use Manners::{HttpHalfClosed, HttpHalfHead, WireHalfClosed, WireHalfFrame};
        matches!(self, HttpHalfClosed | HttpHalfHead | WireHalfClosed | WireHalfFrame)
    }

    /// What it sends, at once or byte by byte. Those that drip have more than they will ever get rid of.
    pub(super) fn first_words(self) -> Vec<u8> {
        let get = http("GET /entity/crowd/known", "");
        let hello = hello();
        match self {
            Manners::HttpIdle | Manners::HttpFlood => get,
            Manners::HttpSilent | Manners::WireSilent => Vec::new(),
            Manners::HttpSlowHead => http("GET /entity/crowd/known", &format!("x-slow: {}\r\n", filler(4000, 1))),
            Manners::HttpSlowBody => {
                let head = "content-type: application/json\r\ncontent-length: 4000\r\n";
                [http("PUT /entity/crowd/slow", head), filler(4000, 1).into_bytes()].concat()
            }
            Manners::HttpGarbage => [filler(300, 7).as_bytes(), b"\r\n\r\n\0\0\xff\xfe"].concat(),
            Manners::HttpOversize => {
                let head = "content-type: application/json\r\ncontent-length: 5000000000\r\n";
                http("PUT /entity/crowd/oversize", head)
            }
            Manners::HttpHalfClosed => get.repeat(2),
            Manners::HttpSlowReader => http(&format!("GET /entity/crowd/{SLOW_READ_KEY}"), "").repeat(SLOW_READS),
            Manners::HttpHalfHead => get[..40].to_vec(),
            Manners::WireIdle | Manners::WireFlood => [hello, ping(2)].concat(),
            Manners::WireSlowHello => {
                let mut frame = Vec::new();
                Scratch::new().hello(&mut frame, 1, Some(filler(4000, 1).as_bytes()));
                frame
            }
            Manners::WireSlowFrame => {
                let mut frame = Vec::new();
                let document = format!("\"{}\"", filler(4000, 1));
                let (key, document, condition) = ("slow", document.as_bytes(), Condition::None);
                Scratch::new().request(&mut frame, 2, &Request::Put { schema: "crowd", key, document, condition });
                frame
            }
            Manners::WireGarbage => filler(300, 3).into_bytes(),
            Manners::WireOversize => [hello, (1u32 << 31).to_le_bytes().to_vec()].concat(),
            Manners::WireHalfClosed => [hello, ping(2), ping(3)].concat(),
            Manners::WireHalfFrame => [hello, ping(2)[..9].to_vec()].concat(),
            Manners::WireSlowReader => {
                let mut frames = hello;
                for request_id in (2..).take(SLOW_READS) {
                    let request = Request::Get { schema: "crowd", key: SLOW_READ_KEY };
                    Scratch::new().request(&mut frames, request_id, &request);
                }
                frames
            }
        }
    }

    /// One more question of one that stayed.
    pub fn question(self) -> Option<Vec<u8>> {
        match self {
            Manners::HttpIdle => Some(http("GET /entity/crowd/known", "")),
            Manners::WireIdle => Some(ping(5)),
            _ => None,
        }
    }
}

impl Member {
    /// Whether it was told what it is owed; says what is missing.
    pub fn judge(&self) -> Result<(), String> {
        let told: Vec<&str> = self.told.iter().map(String::as_str).collect();
        let timeout = ErrorCode::RequestTimeout.name();
        let right = match self.manners {
            Manners::HttpIdle => told.starts_with(&["200"]) && told.iter().all(|status| *status == "200"),
            Manners::HttpSilent => told.is_empty() || told == ["408"],
            Manners::HttpSlowHead | Manners::HttpSlowBody => told == ["408"],
            Manners::HttpGarbage | Manners::HttpHalfHead => told == ["400"],
            Manners::HttpOversize => told == ["413"],
            Manners::HttpHalfClosed => told == ["200", "200"],
            Manners::WireIdle => told.len() >= 2 && told.iter().all(|reply| *reply == "ok"),
            Manners::WireSilent | Manners::WireSlowHello | Manners::WireSlowFrame => told.last() == Some(&timeout),
            Manners::WireGarbage => told.len() == 1 && told[0] != "ok",
            Manners::WireOversize => told == ["ok", ErrorCode::TooLarge.name()],
            Manners::WireHalfClosed => told == ["ok", "ok", "ok"],
            Manners::WireHalfFrame => told == ["ok", ErrorCode::BadRequest.name()],
            Manners::HttpSlowReader => told == ["200"; SLOW_READS],
            Manners::WireSlowReader => told == ["ok"; 1 + SLOW_READS],
            Manners::HttpFlood | Manners::WireFlood => true,
        };
        if right { Ok(()) } else { Err(format!("{:?} was told {told:?}", self.manners)) }
    }
}

pub(super) fn http(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\n{headers}\r\n").into_bytes()
}

fn hello() -> Vec<u8> {
    let mut frame = Vec::new();
    Scratch::new().hello(&mut frame, 1, Some(ADMIN_KEY.as_bytes()));
    frame
}

fn ping(request_id: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    Scratch::new().request(&mut frame, request_id, &Request::Ping);
    frame
}
