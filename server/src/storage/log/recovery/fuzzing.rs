//! For fuzz targets only: checkpoints whose chunks hold any bytes at all, sealed as real ones are and loaded as a start
//! loads them. Without this no fuzzer gets behind the tags to what reads the archives.

use super::{Access, Recovery};
use crate::command::Version;
use crate::crypto::seal::{Purpose, SealingKey};
use crate::runtime::platform::{Entropy, Platform};
use crate::runtime::publish::publish;
use crate::storage::log::LogOptions;
use crate::storage::log::format::checkpoint::{
    CHECKPOINT_HEADER_BYTES, CHUNK_HEADER_BYTES, CheckpointChunk, CheckpointEntry, CheckpointHeader, CheckpointRun,
    CheckpointTail, ChunkHeader,
};
use crate::storage::log::format::manifest::CheckpointRef;
use crate::storage::log::format::{Binding, FormatError, Tag};
use crate::storage::log::index::WalkCursor;
use crate::storage::log::segment::checkpoint_path;
use rkyv::rancor;
use std::io;
use std::ops::ControlFlow;

/// What came of loading a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Schema, key and version of every entity taken, in the order of the index.
    pub entities: Vec<(String, String, Version)>,
    /// Why it cannot be used, if it cannot; then nothing of it may be taken.
    pub damage: Option<String>,
}

/// The body of a chunk with these entities: schema, key and version each, grouped by schema, in key order.
pub fn chunk_body(entities: &[(&str, &str, Version)]) -> Vec<u8> {
    let mut chunk = CheckpointChunk::default();
    for (schema, key, version) in entities {
        if chunk.runs.last().is_none_or(|run| run.schema != *schema) {
            chunk.runs.push(CheckpointRun { schema: (*schema).to_owned(), entries: 0 });
        }
        if let Some(run) = chunk.runs.last_mut() {
            run.entries += 1;
        }
        let key_bytes = key.len() as u16;
        chunk.entries.push(CheckpointEntry { version: *version, segment: 1, offset: 4096, length: 100, key_bytes });
        chunk.keys.extend_from_slice(key.as_bytes());
    }
    rkyv::to_bytes::<rancor::Error>(&chunk).map(|body| body.to_vec()).unwrap_or_default()
}

/// The body of the last chunk.
pub fn tail_body(entities: u64) -> Vec<u8> {
    let tail = CheckpointTail { entities, tombstones: Vec::new() };
    rkyv::to_bytes::<rancor::Error>(&tail).map(|body| body.to_vec()).unwrap_or_default()
}

/// Seals the bodies as the chunks of a checkpoint, the last as its tail, and loads it as a start does.
pub async fn load<P: Platform>(platform: &P, options: &LogOptions, bodies: &[&[u8]]) -> io::Result<Loaded> {
    let (file, reference) = seal(platform, options, bodies).map_err(io::Error::other)?;
    publish(platform.disk(), &checkpoint_path(&options.directory, reference.number), &file).await?;
    let mut recovery = Recovery::new(platform, options, Access::Read);
    recovery.manifest.checkpoint = Some(reference);
    recovery.load_checkpoint().await.map_err(io::Error::other)?;
    let mut entities = Vec::new();
    recovery.state.index.walk(&mut WalkCursor::default(), |schema, entry| {
        entities.push((schema.to_owned(), entry.key.to_string(), entry.version));
        ControlFlow::Continue(())
    });
    Ok(Loaded { entities, damage: recovery.report.damage.first().map(|damage| damage.reason.clone()) })
}

fn seal<P: Platform>(
    platform: &P,
    options: &LogOptions,
    bodies: &[&[u8]],
) -> Result<(Vec<u8>, CheckpointRef), FormatError> {
    let (identity, data_key) = (&options.identity, options.keyring.active());
    let header = CheckpointHeader { number: 1, id: random(platform), key_id: data_key.id(), salt: random(platform) };
    let key = SealingKey::derive(data_key, &header.salt, Purpose::Checkpoint);
    let binding = Binding::new(identity, &header.id, header.key_id);
    let mut file = vec![0; CHECKPOINT_HEADER_BYTES];
    let mut tag: Tag = header.seal(identity, &key, random(platform), &mut file)?;
    for (number, body) in (0..).zip(bodies) {
        let last = number + 1 == bodies.len() as u64;
        let total = if last { number + 1 } else { 0 };
        let chunk = ChunkHeader { number, total, previous_tag: tag, body_bytes: body.len() as u32 };
        let mut bytes = vec![0; chunk.chunk_bytes()];
        bytes.get_mut(CHUNK_HEADER_BYTES..).ok_or(FormatError::Truncated)?[..body.len()].copy_from_slice(body);
        tag = chunk.seal(&key, &binding, random(platform), &mut bytes)?;
        file.extend_from_slice(&bytes);
    }
    let reference = CheckpointRef {
        number: 1,
        id: header.id,
        key_id: header.key_id.0,
        tag,
        entities: 0,
        frame: 0,
        frame_tag: [0; 16],
        segment: 0,
        offset: 0,
    };
    Ok((file, reference))
}

fn random<P: Platform, const N: usize>(platform: &P) -> [u8; N] {
    let mut bytes = [0; N];
    platform.entropy().fill(&mut bytes);
    bytes
}
