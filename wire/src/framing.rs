//! Cuts a byte stream into frames: a little-endian u32 length, then that many bytes.
//!
//! A frame that lies whole in the received bytes is handed out in place; only a tail is copied. A length is judged as
//! soon as its four bytes are there, and memory grows with bytes received, never with a length announced.

/// Bytes of the length before each frame.
pub const LENGTH_PREFIX_BYTES: usize = 4;

/// Smallest FlatBuffer: the root's offset, and a table's offset to an empty vtable.
const FRAME_BYTES_MIN: usize = 8;

/// An emptied buffer larger than this is given back.
const IDLE_CAPACITY_BYTES_MAX: usize = 16 << 10;

/// Why a stream cannot be cut any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// The announced length is over the limit.
    #[error("a frame of {length} bytes is announced, at most {length_max} are taken here; send smaller documents")]
    TooLarge { length: usize, length_max: usize },
    /// The announced length cannot hold a frame.
    #[error("a frame of {length} bytes is announced, which cannot hold a message; this is not the wire protocol")]
    TooSmall { length: usize },
}

/// The undecoded rest of one stream.
#[derive(Default)]
pub struct FrameDecoder {
    /// Bytes copied from input; those before `start` were handed out already.
    buffered: Vec<u8>,
    start: usize,
}

impl FrameDecoder {
    /// An empty one; it allocates nothing until a frame arrives in pieces.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next whole frame, without its length, or `None` when more bytes are needed; then all of `input` is taken.
    /// Call it until it gives `None` or until no more frames are wanted ([`FrameDecoder::stash`] keeps the rest).
    /// After an error the stream has no further meaning.
    pub fn next<'decoder, 'input: 'decoder>(
        &'decoder mut self,
        input: &mut &'input [u8],
        frame_bytes_max: usize,
    ) -> Result<Option<&'decoder [u8]>, FramingError> {
        if self.start == self.buffered.len() {
            self.forget_consumed();
            return match frame_length(input, frame_bytes_max)? {
                Some(length) if input.len() - LENGTH_PREFIX_BYTES >= length => {
                    let (frame, rest) = input[LENGTH_PREFIX_BYTES..].split_at(length);
                    *input = rest;
                    Ok(Some(frame))
                }
                _ => {
                    self.buffered.extend_from_slice(input);
                    *input = &[];
                    Ok(None)
                }
            };
        }
        loop {
            let pending = &self.buffered[self.start..];
            let missing = match frame_length(pending, frame_bytes_max)? {
                Some(length) => (LENGTH_PREFIX_BYTES + length).saturating_sub(pending.len()),
                None => LENGTH_PREFIX_BYTES - pending.len(),
            };
            if missing == 0 {
                break;
            }
            if input.is_empty() {
                self.forget_consumed();
                return Ok(None);
            }
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.buffered.extend_from_slice(taken);
            *input = rest;
        }
        let first = self.start + LENGTH_PREFIX_BYTES;
        let length = frame_length(&self.buffered[self.start..], frame_bytes_max)?.unwrap_or(0);
        self.start = first + length;
        Ok(Some(&self.buffered[first..self.start]))
    }

    /// Keeps input for later without looking at it.
    pub fn stash(&mut self, input: &[u8]) {
        self.forget_consumed();
        self.buffered.extend_from_slice(input);
    }

    /// Bytes kept.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered.len() - self.start
    }

    fn forget_consumed(&mut self) {
        if self.start == self.buffered.len() {
            self.buffered.clear();
            if self.buffered.capacity() > IDLE_CAPACITY_BYTES_MAX {
                self.buffered = Vec::new();
            }
        } else if self.start > 0 {
            self.buffered.drain(..self.start);
        }
        self.start = 0;
    }
}

/// The announced length, once its bytes are there.
#[inline]
/// The frames that lie whole at the beginning of some bytes, without their lengths.
pub fn whole_frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = frame_length(bytes, usize::MAX).ok()??;
        let (frame, rest) = bytes[LENGTH_PREFIX_BYTES..].split_at_checked(length)?;
        bytes = rest;
        Some(frame)
    })
}

fn frame_length(bytes: &[u8], length_max: usize) -> Result<Option<usize>, FramingError> {
    let Some(prefix) = bytes.first_chunk::<LENGTH_PREFIX_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    if length < FRAME_BYTES_MIN {
        return Err(FramingError::TooSmall { length });
    }
    if length > length_max {
        return Err(FramingError::TooLarge { length, length_max });
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream_of(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        for frame in frames {
            stream.extend_from_slice(&(frame.len() as u32).to_le_bytes());
            stream.extend_from_slice(frame);
        }
        stream
    }

    /// Feeds the stream in pieces, stashing every `stash_every`-th piece instead of decoding it at once.
    fn decode_in_pieces(stream: &[u8], cuts: &[usize], stash_every: usize) -> Vec<Vec<u8>> {
        let mut decoder = FrameDecoder::new();
        let mut frames = Vec::new();
        let mut rest = stream;
        let mut cuts = cuts.iter().cycle();
        let mut piece_number = 0;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cuts.next().unwrap()).clamp(1, rest.len()));
            rest = after;
            piece_number += 1;
            let mut input = piece;
            if piece_number % stash_every == 0 {
                decoder.stash(piece);
                input = &[];
            }
            while let Some(frame) = decoder.next(&mut input, 1 << 20).unwrap() {
                frames.push(frame.to_vec());
            }
            assert!(input.is_empty(), "None must have taken everything");
        }
        assert_eq!(decoder.buffered_bytes(), 0);
        frames
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 8..200), 0..20),
            cuts in prop::collection::vec(1usize..300, 1..12),
            stash_every in 2usize..5,
        ) {
            let stream = stream_of(&frames);
            prop_assert_eq!(whole_frames(&stream).collect::<Vec<_>>(), frames.iter().collect::<Vec<_>>());
            let cut = &stream[..stream.len().saturating_sub(1)];
            prop_assert_eq!(whole_frames(cut).count(), frames.len().saturating_sub(1));
            prop_assert_eq!(decode_in_pieces(&stream, &cuts, stash_every), frames);
        }

        #[test]
        fn garbage_never_panics_and_never_holds_more_than_arrived(
            garbage in prop::collection::vec(any::<u8>(), 0..600),
            cut in 1usize..50,
        ) {
            let mut decoder = FrameDecoder::new();
            let mut arrived = 0;
            'stream: for piece in garbage.chunks(cut) {
                let mut input = piece;
                arrived += piece.len();
                loop {
                    match decoder.next(&mut input, 512) {
                        Ok(Some(frame)) => prop_assert!(frame.len() <= 512),
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
                prop_assert!(decoder.buffered_bytes() <= arrived.min(512 + LENGTH_PREFIX_BYTES));
            }
        }
    }

    #[test]
    fn lengths_are_judged_before_anything_is_kept() {
        for (announced, error) in [
            (7u32, FramingError::TooSmall { length: 7 }),
            (101, FramingError::TooLarge { length: 101, length_max: 100 }),
            (u32::MAX, FramingError::TooLarge { length: u32::MAX as usize, length_max: 100 }),
        ] {
            let mut decoder = FrameDecoder::new();
            let bytes = announced.to_le_bytes();
            let mut input = &bytes[..];
            assert_eq!(decoder.next(&mut input, 100), Err(error));
            assert_eq!(decoder.buffered_bytes(), 0);
        }
    }

    #[test]
    fn whole_frames_are_handed_out_in_place() {
        let stream = stream_of(&[vec![1; 8], vec![2; 9]]);
        let mut decoder = FrameDecoder::new();
        let mut input = &stream[..];
        for position in [4, 16] {
            let frame = decoder.next(&mut input, 100).unwrap().unwrap();
            assert_eq!(frame.as_ptr(), stream[position..].as_ptr());
        }
        assert_eq!(decoder.next(&mut input, 100), Ok(None));
    }
}
