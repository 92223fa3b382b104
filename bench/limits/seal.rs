//! AES-256-GCM alone, over one buffer that stays in the cache.

use crate::SealFlags;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use anyhow::Result;
use serde_json::json;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Messages between two looks at the clock.
const BUNCH: u64 = 256;

/// Seals one message again and again, each time under another nonce.
pub fn seal(flags: &SealFlags) -> Result<()> {
    let cipher = Aes256Gcm::new(&[7; 32].into());
    let mut buffer = vec![0x5a; flags.bytes];
    let duration = Duration::try_from_secs_f64(flags.seconds)?;
    let (mut sealed, begun) = (0u64, Instant::now());
    while begun.elapsed() < duration {
        for _ in 0..BUNCH {
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&sealed.to_le_bytes());
            let tag = cipher.encrypt_inout_detached(&nonce.into(), b"", InOutBuf::from(&mut *buffer));
            anyhow::ensure!(tag.is_ok(), "{} bytes cannot be sealed at once", flags.bytes);
            black_box(&mut buffer);
            sealed += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let line = json!({
        "limit": "AES-256-GCM",
        "bytes": flags.bytes,
        "operations_per_second": sealed as f64 / seconds,
        "cpu_us_per_operation": seconds * 1e6 / sealed as f64,
        "bytes_per_second": (sealed * flags.bytes as u64) as f64 / seconds,
    });
    println!("{line}");
    Ok(())
}
