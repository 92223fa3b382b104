//! Replies as they come in, in either protocol: only what each was is kept.

use delta_wire::{FrameDecoder, Reply, decode_reply};

/// The undecoded rest of what one connection received.
pub enum Replies {
    /// Frames.
    Wire(FrameDecoder),
    /// Heads with bodies of known length.
    Http(Vec<u8>),
}

impl Replies {
    /// Nothing yet.
    pub fn new(wire: bool) -> Self {
        if wire { Self::Wire(FrameDecoder::new()) } else { Self::Http(Vec::new()) }
    }

    /// Takes bytes, and notes each reply that is whole.
    pub fn take(&mut self, mut bytes: &[u8], told: &mut Vec<String>) {
        match self {
            Replies::Wire(decoder) => {
                while let Ok(Some(frame)) = decoder.next(&mut bytes, 1 << 30) {
                    told.push(match decode_reply(frame) {
                        Ok((_, Reply::Error(error))) => error.code.name().to_owned(),
                        Ok(_) => "ok".to_owned(),
                        Err(_) => "malformed".to_owned(),
                    });
                }
            }
            Replies::Http(rest) => {
                rest.extend_from_slice(bytes);
                let mut taken = 0;
                while let Some((status, length)) = first_reply(&rest[taken..]) {
                    told.push(status);
                    taken += length;
                }
                rest.drain(..taken);
            }
        }
    }
}

/// The status and the length of the reply these bytes begin with, once it is whole.
fn first_reply(bytes: &[u8]) -> Option<(String, usize)> {
    let head_bytes = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_bytes]).ok()?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse::<usize>().expect("a length is a number"));
    let status = head.get(9..12)?.to_owned();
    (bytes.len() >= head_bytes + length).then_some((status, head_bytes + length))
}
