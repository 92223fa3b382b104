//! 32 secret bytes: filled in place, never moved about in plain memory, wiped when dropped, never shown.

use crate::runtime::platform::Entropy;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes in every symmetric key of the product.
pub const KEY_BYTES: usize = 32;

/// On the heap, so that moving the owner leaves no copy behind.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Secret(Box<[u8; KEY_BYTES]>);

impl Secret {
    /// Made by writing into the place it will live in.
    pub fn filled_by(fill: impl FnOnce(&mut [u8; KEY_BYTES])) -> Self {
        let mut secret = Self(Box::new([0; KEY_BYTES]));
        fill(&mut secret.0);
        secret
    }

    /// A new random one.
    pub fn random(entropy: &impl Entropy) -> Self {
        Self::filled_by(|bytes| entropy.fill(bytes))
    }

    /// The bytes, for a cipher or a derivation.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}
