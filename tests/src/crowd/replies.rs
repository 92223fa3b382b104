//! Replies as they come in, in either protocol: only what each was is kept.

use delta_wire::{FrameDecoder, Reply, decode_reply};
use std::ops::Range;

/// What one connection received.
pub struct Replies {
    undecoded: Undecoded,
    /// The last reply said that the connection ends with it.
    pub says_end: bool,
}

enum Undecoded {
    /// Frames.
    Wire(FrameDecoder),
    /// Heads with bodies of known length.
    Http(Vec<u8>),
}

impl Replies {
    /// Nothing yet.
    pub fn new(wire: bool) -> Self {
        let undecoded = if wire { Undecoded::Wire(FrameDecoder::new()) } else { Undecoded::Http(Vec::new()) };
        Self { undecoded, says_end: false }
    }

    /// Takes bytes, and notes each reply that is whole. A document is compared where there is one that is `due`.
    pub fn take(&mut self, mut bytes: &[u8], due: Option<&[u8]>, told: &mut Vec<String>) {
        let is_due = |document: &[u8]| due.is_none_or(|due| due == document);
        match &mut self.undecoded {
            Undecoded::Wire(decoder) => {
                while let Ok(Some(frame)) = decoder.next(&mut bytes, 1 << 30) {
                    let reply = decode_reply(frame);
                    // Request 0 is none: such an error is about the connection.
                    self.says_end = matches!(reply, Ok((0, Reply::Error(_))));
                    told.push(match reply {
                        Ok((_, Reply::Error(error))) => error.code.name().to_owned(),
                        Ok((_, Reply::Document(stored))) if !is_due(&stored.content) => "another document".to_owned(),
                        Ok(_) => "ok".to_owned(),
                        Err(_) => "malformed".to_owned(),
                    });
                }
            }
            Undecoded::Http(rest) => {
                rest.extend_from_slice(bytes);
                let mut taken = 0;
                while let Some(reply) = first_reply(&rest[taken..]) {
                    let body = taken + reply.body.start..taken + reply.body.end;
                    taken = body.end;
                    self.says_end = reply.says_end;
                    let is_right = reply.status != "200" || is_due(&rest[body]);
                    told.push(if is_right { reply.status } else { "another document".to_owned() });
                }
                rest.drain(..taken);
            }
        }
    }
}

struct HttpReply {
    status: String,
    body: Range<usize>,
    says_end: bool,
}

/// The reply these bytes begin with, once it is whole.
fn first_reply(bytes: &[u8]) -> Option<HttpReply> {
    let head_bytes = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_bytes]).ok()?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse::<usize>().expect("a length is a number"));
    let (status, body) = (head.get(9..12)?.to_owned(), head_bytes..head_bytes + length);
    let says_end = head.lines().any(|line| line == "connection: close");
    (bytes.len() >= body.end).then_some(HttpReply { status, body, says_end })
}
