//! JSON files that people can read and nobody can forge: the last member is the HMAC of all text before it.
//!
//! ```text
//! { … members …,
//!   "mac": "<64 hexadecimal digits>"
//! }
//! ```
//! The MAC is over the exact bytes, so every byte of the file counts, white space included. Content is handed out
//! only after it verified; [`peek`] is for what must be known before there is a key, and nothing may rest on it.

use super::mac::{MAC_BYTES, MacKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

const BEFORE_MAC: &[u8] = b",\n  \"mac\": \"";
const AFTER_MAC: &[u8] = b"\"\n}\n";
const BODY_END: &[u8] = b"\n}";
const TAIL_BYTES: usize = BEFORE_MAC.len() + 2 * MAC_BYTES + AFTER_MAC.len();

/// Why a file's content is not handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacJsonError {
    /// The MAC does not fit, or there is none.
    #[error("its MAC does not fit its content")]
    Forged,
    /// It is authentic, and yet not what this version writes.
    #[error("it is authentic but lacks what this version expects")]
    Unexpected,
}

/// The file of a body that has at least one member.
pub fn render(body: &impl Serialize, key: &MacKey) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(body).expect("plain data renders as JSON");
    assert!(text.ends_with(BODY_END), "the body is an object with members");
    text.truncate(text.len() - BODY_END.len());
    let mac = hex::encode(key.tag(&text));
    text.extend_from_slice(BEFORE_MAC);
    text.extend_from_slice(mac.as_bytes());
    text.extend_from_slice(AFTER_MAC);
    text
}

/// The body of a file that [`render`] made with the same key.
pub fn open<T: DeserializeOwned>(text: &[u8], key: &MacKey) -> Result<T, MacJsonError> {
    let (body, mac) = split(text).ok_or(MacJsonError::Forged)?;
    if !key.verify(body, &mac) {
        return Err(MacJsonError::Forged);
    }
    serde_json::from_slice(&[body, BODY_END].concat()).map_err(|_| MacJsonError::Unexpected)
}

/// Some members of a file, unauthenticated: to name a version or a key in an error, or to choose the key.
pub fn peek<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

/// Body without its end, and MAC; only the one spelling that [`render`] uses.
fn split(text: &[u8]) -> Option<(&[u8], [u8; MAC_BYTES])> {
    let (body, tail) = text.split_at_checked(text.len().checked_sub(TAIL_BYTES)?)?;
    let digits = tail.strip_prefix(BEFORE_MAC)?.strip_suffix(AFTER_MAC)?;
    let mut mac = [0; MAC_BYTES];
    hex::decode_to_slice(digits, &mut mac).ok()?;
    (hex::encode(mac).as_bytes() == digits).then_some((body, mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        format_version: u32,
        names: Vec<String>,
    }

    fn file() -> (Body, MacKey, Vec<u8>) {
        let body = Body { format_version: 1, names: vec!["a".into(), "b".into()] };
        let key = MacKey::from_bytes(&[1; 32]);
        let text = render(&body, &key);
        (body, key, text)
    }

    #[test]
    fn is_json_and_opens_as_what_it_was() {
        let (body, key, text) = file();
        assert_eq!(open::<Body>(&text, &key), Ok(body));
        let whole: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(whole["names"][1], "b");
        assert_eq!(whole["mac"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn every_byte_counts() {
        let (_, key, text) = file();
        for at in 0..text.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut forged = text.clone();
                forged[at] ^= flip;
                assert_eq!(open::<Body>(&forged, &key), Err(MacJsonError::Forged), "byte {at} ^ {flip:#x}");
            }
            assert_eq!(open::<Body>(&text[..at], &key), Err(MacJsonError::Forged));
        }
        assert_eq!(open::<Body>(&[&text[..], b"\n"].concat(), &key), Err(MacJsonError::Forged));
        assert_eq!(open::<Body>(&text, &MacKey::from_bytes(&[2; 32])), Err(MacJsonError::Forged));
    }

    #[test]
    fn peeks_without_a_key() {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        assert_eq!(peek::<Version>(&file().2).unwrap().format_version, 1);
        assert!(peek::<Version>(b"{}").is_none());
    }
}
