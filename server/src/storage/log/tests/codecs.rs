//! The formats by themselves.

use crate::command::EntityRef;
use crate::crypto::keyring::Keyring;
use crate::crypto::seal::{Purpose, SealingKey};
use crate::storage::log::LogIdentity;
use crate::storage::log::format::checkpoint::{CHUNK_HEADER_BYTES, CheckpointHeader, ChunkHeader};
use crate::storage::log::format::frame::{
    FRAME_HEADER_BYTES, FrameHeader, FrameProblem, FrameTags, finish_frame, parse_frame, verify_frame,
};
use crate::storage::log::format::manifest::{CheckpointRef, Manifest, ManifestHeader, SegmentEnd, SegmentRef};
use crate::storage::log::format::record::{
    RecordContent, RecordHeader, RecordKind, open_record, parse_record, record_bytes, seal_record,
};
use crate::storage::log::format::segment::{SegmentFooter, SegmentHeader, SegmentKind};
use crate::storage::log::format::{BLOCK_BYTES_MAX, Binding, FormatError};
use crate::storage::log::testing::TestPlatform;
use proptest::prelude::*;

const IDENTITY: LogIdentity = LogIdentity { store_id: [3; 16], generation: 2, shard: 1 };
const ID: [u8; 16] = [5; 16];

fn keyring() -> Keyring {
    Keyring::create(&TestPlatform::new(9).entropy, [3; 16], 0)
}

fn sealing(purpose: Purpose) -> (SealingKey, Binding) {
    let keyring = keyring();
    let key = SealingKey::derive(keyring.active(), &[1; 32], purpose);
    (key, Binding::new(&IDENTITY, &ID, keyring.active().id()))
}

fn sealed_record(entity: EntityRef<'_>, document: &[u8], header: &RecordHeader) -> Vec<u8> {
    let (key, binding) = sealing(Purpose::Segment);
    let mut bytes = vec![0; record_bytes(entity, document.len())];
    seal_record(&mut bytes, header, RecordContent { entity, document }, &key, &binding, [4; 12]).unwrap();
    bytes
}

/// A frame of records with rising sequences, padded to a block.
fn frame(documents: &[Vec<u8>], number: u64) -> (Vec<u8>, FrameHeader) {
    let (key, binding) = sealing(Purpose::Segment);
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    let mut tags = FrameTags::new();
    for (sequence, document) in (100..).zip(documents) {
        let header =
            RecordHeader { kind: RecordKind::Put, body_bytes: 0, sequence, time_unix_ms: 1, expiry_unix_ms: 0 };
        let record = sealed_record(EntityRef { schema: "s", key: "k" }, document, &header);
        tags.push(&parse_record(&record).unwrap().1);
        bytes.extend(record);
    }
    let mut header = FrameHeader {
        number,
        first_sequence: 100,
        records: documents.len() as u32,
        length: bytes.len() as u32,
        previous_tag: [6; 16],
        tag: [0; 16],
    };
    bytes.resize(bytes.len().next_multiple_of(512), 0xee);
    header.tag = finish_frame(&mut bytes, &header, &ID, &key, &binding, &mut tags, [8; 12]).unwrap();
    (bytes, header)
}

fn check_frame(bytes: &[u8]) -> Result<FrameHeader, FrameProblem> {
    let (key, binding) = sealing(Purpose::Segment);
    let header = parse_frame(bytes, &ID)?;
    let padded = (header.length as usize).next_multiple_of(512);
    let bytes = bytes.get(..padded).ok_or(FrameProblem::Torn)?;
    verify_frame(bytes, &header, SegmentKind::Commit, &key, &binding, &mut FrameTags::new())?;
    Ok(header)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn records_round_trip_and_any_flipped_bit_shows(
        schema in "[a-z]{1,20}", key in "\\PC{1,40}", document in prop::collection::vec(any::<u8>(), 0..300),
        sequence in 1u64..(1 << 53), time_unix_ms: u64, flip: prop::sample::Index,
    ) {
        let header = RecordHeader { kind: RecordKind::Put, body_bytes: 0, sequence, time_unix_ms, expiry_unix_ms: 7 };
        let entity = EntityRef { schema: &schema, key: &key };
        let bytes = sealed_record(entity, &document, &header);
        let (sealing_key, binding) = sealing(Purpose::Segment);
        let mut copy = bytes.clone();
        let (found, content) = open_record(&mut copy, &sealing_key, &binding).unwrap();
        prop_assert_eq!(content, RecordContent { entity, document: &document });
        prop_assert_eq!((found.sequence, found.time_unix_ms, found.expiry_unix_ms), (sequence, time_unix_ms, 7));
        prop_assert_eq!(found.record_bytes(), bytes.len());
        let mut damaged = bytes.clone();
        let bit = flip.index(bytes.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(open_record(&mut damaged, &sealing_key, &binding).is_err());
        let elsewhere = Binding::new(&LogIdentity { shard: 9, ..IDENTITY }, &ID, keyring().active().id());
        prop_assert!(open_record(&mut bytes.clone(), &sealing_key, &elsewhere).is_err());
    }

    #[test]
    fn frames_round_trip_and_any_flipped_bit_shows(
        documents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8), flip: prop::sample::Index,
        cut: prop::sample::Index,
    ) {
        let (bytes, header) = frame(&documents, 17);
        prop_assert_eq!(check_frame(&bytes).unwrap(), header);
        let bit = flip.index(bytes.len() * 8);
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(check_frame(&damaged).is_err(), "bit {}", bit);
        let mut torn = bytes.clone();
        let from = cut.index(bytes.len());
        if torn[from..].iter().any(|byte| *byte != 0) {
            torn[from..].fill(0);
            prop_assert!(check_frame(&torn).is_err(), "cut at {}", from);
        }
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let (key, binding) = sealing(Purpose::Segment);
        prop_assert!(open_record(&mut bytes.clone(), &key, &binding).is_err());
        prop_assert!(check_frame(&bytes).is_err());
        prop_assert!(SegmentHeader::parse(&bytes, &IDENTITY).is_err());
        prop_assert!(ManifestHeader::parse(&bytes, &IDENTITY).is_err());
        prop_assert!(CheckpointHeader::parse(&bytes, &IDENTITY).is_err());
        prop_assert!(ChunkHeader::parse(&bytes, 0, &[0; 16]).is_err());
        prop_assert!(SegmentFooter::open(&bytes, 0, &ID, &key, &binding).is_err());
    }
}

#[test]
fn a_whole_frame_with_a_wrong_tag_is_forged_not_torn() {
    let (mut bytes, _) = frame(&[b"one".to_vec()], 3);
    bytes[24] ^= 1;
    let crc = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(check_frame(&bytes), Err(FrameProblem::Forged(FormatError::NotAuthentic)));
}

#[test]
fn segment_headers_and_footers_round_trip_and_any_flipped_bit_shows() {
    let keyring = keyring();
    let (key, binding) = sealing(Purpose::Segment);
    let header = SegmentHeader {
        block_bytes: 512,
        kind: SegmentKind::Compacted,
        number: 77,
        id: ID,
        key_id: keyring.active().id(),
        salt: [1; 32],
        created_unix_ms: 5,
    };
    let mut block = vec![9; BLOCK_BYTES_MAX];
    header.seal(&IDENTITY, &key, [2; 12], &mut block).unwrap();
    assert_eq!(SegmentHeader::parse(&block, &IDENTITY).unwrap(), header);
    SegmentHeader::verify(&block, &key).unwrap();
    for byte in (0..200).chain([2048, 4095]) {
        let mut damaged = block.clone();
        damaged[byte] ^= 0x10;
        let refused =
            SegmentHeader::parse(&damaged, &IDENTITY).is_err() || SegmentHeader::verify(&damaged, &key).is_err();
        assert!(refused, "byte {byte}");
    }
    let mut newer = block.clone();
    newer[8] = 2;
    assert_eq!(SegmentHeader::parse(&newer, &IDENTITY), Err(FormatError::Version(2)));
    let other = LogIdentity { store_id: [0; 16], ..IDENTITY };
    assert_eq!(SegmentHeader::parse(&block, &other), Err(FormatError::Foreign("store")));

    let footer = SegmentFooter { offset: 8192, frames: 3, records: 9, last_frame: 12, last_tag: [3; 16] };
    let mut block = vec![9; 512];
    footer.seal(&ID, &key, &binding, [2; 12], &mut block).unwrap();
    assert_eq!(SegmentFooter::open(&block, 8192, &ID, &key, &binding), Ok(footer));
    assert!(SegmentFooter::open(&block, 4096, &ID, &key, &binding).is_err(), "it is bound to its place");
    for byte in 0..block.len() {
        let mut damaged = block.clone();
        damaged[byte] ^= 1;
        assert!(SegmentFooter::open(&damaged, 8192, &ID, &key, &binding).is_err(), "byte {byte}");
    }
}

#[test]
fn manifests_round_trip_and_any_flipped_bit_shows() {
    let keyring = keyring();
    let key_id = keyring.active().id();
    let (key, _) = sealing(Purpose::Manifest);
    let end = SegmentEnd { offset: 9, footer: true, last_frame: 8, last_tag: [1; 16] };
    let manifest = Manifest {
        number: 4,
        keyring_generation: 2,
        clean: true,
        sequence_floor: 99,
        segment_number_next: 12,
        segment_bytes_next: 1 << 20,
        checkpoint_number_next: 3,
        checkpoint: Some(CheckpointRef {
            number: 2,
            id: [2; 16],
            key_id: key_id.0,
            tag: [3; 16],
            entities: 5,
            frame: 6,
            frame_tag: [4; 16],
            segment: 7,
            offset: 8,
        }),
        segments: vec![SegmentRef {
            number: 1,
            id: ID,
            key_id: key_id.0,
            compacted: false,
            checkpointed: true,
            end: Some(end),
        }],
    };
    let file = manifest.seal(&IDENTITY, key_id, &key, &[1; 32], [7; 12]).unwrap();
    let open = |file: &[u8]| {
        let header = ManifestHeader::parse(file, &IDENTITY)?;
        // A reader takes key and salt from the file.
        let data_key = keyring.get(header.key_id).ok_or(FormatError::NotAuthentic)?;
        Manifest::open(file, &header, &SealingKey::derive(data_key, &header.salt, Purpose::Manifest))
    };
    assert_eq!(open(&file), Ok(manifest));
    for byte in 0..file.len() {
        let mut damaged = file.clone();
        damaged[byte] ^= 0x40;
        assert!(open(&damaged).is_err(), "byte {byte}");
        assert!(open(&file[..byte]).is_err(), "cut at {byte}");
    }
}

#[test]
fn checkpoint_chunks_are_bound_to_their_place() {
    let (key, binding) = sealing(Purpose::Checkpoint);
    let seal = |number: u64, total: u64, previous_tag| {
        let header = ChunkHeader { number, total, previous_tag, body_bytes: 100 };
        let mut chunk = vec![1; header.chunk_bytes()];
        chunk[CHUNK_HEADER_BYTES..][..100].fill(b'x');
        let tag = header.seal(&key, &binding, [number as u8; 12], &mut chunk).unwrap();
        (chunk, tag)
    };
    let (first, tag) = seal(0, 0, [9; 16]);
    let (last, _) = seal(1, 2, tag);
    let header = ChunkHeader::parse(&first, 0, &[9; 16]).unwrap();
    let mut copy = first.clone();
    assert_eq!(header.open(&key, &binding, &mut copy).unwrap(), (tag, &[b'x'; 100][..]));
    assert!(ChunkHeader::parse(&last, 1, &tag).unwrap().total == 2);
    assert!(ChunkHeader::parse(&last, 0, &tag).is_err() && ChunkHeader::parse(&last, 1, &[9; 16]).is_err());
    for byte in 0..first.len() {
        let mut damaged = first.clone();
        damaged[byte] ^= 2;
        let opened = ChunkHeader::parse(&damaged, 0, &[9; 16]);
        let opened = opened.and_then(|header| header.open(&key, &binding, &mut damaged).map(|(tag, _)| tag));
        assert!(opened.is_err(), "byte {byte}");
    }
}
