//! Damage to the files of a store that was shut down cleanly: detected at opening or at reading, or without effect.
//!
//! Not part of what every backend must pass: it asks for authenticated files, which the contract of one that keeps
//! its data elsewhere need not promise.

use super::oracle::{History, Session, entity};
use super::workload::{Load, work};
use super::{Checked, StorageUnderTest, Violation, machine};
use crate::runtime::sim::{DiskImage, Random, Sim, SimPlatform};
use crate::storage::Storage;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// The ends of files are where headers and footers are, so they get a share of the flipped bits of their own.
const END_BYTES: u64 = 256;

/// Flips bits (this many in every file), cuts, removes, swaps and rolls back files of a store, one at a time.
pub fn check_damage<T>(under_test: &T, seed: u64, flips: u64) -> Result<(), Violation>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let violation = |detail| Violation { check: "damage", seed, detail };
    let mut history = History::default();
    let older = shut_down_store(under_test, seed, DiskImage::default(), &mut history).map_err(violation)?;
    let image = shut_down_store(under_test, seed + 1, older.clone(), &mut history).map_err(violation)?;
    let mut random = Random::new(seed);
    for (what, damaged) in damages(&image, &older, flips, &mut random) {
        let result = detected_or_harmless(under_test, seed, damaged(&image), history.clone());
        result.map_err(|detail| violation(format!("{what}: {detail}")))?;
    }
    Ok(())
}

type Damage = Box<dyn Fn(&DiskImage) -> DiskImage>;

fn damages(image: &DiskImage, older: &DiskImage, flips: u64, random: &mut Random) -> Vec<(String, Damage)> {
    let mut damages: Vec<(String, Damage)> = Vec::new();
    let files: Vec<PathBuf> = image.list_files().into_iter().map(|(path, _)| path).collect();
    for path in &files {
        let Ok(bytes) = image.peek(path) else { continue };
        let named = |what: &str| format!("{} {what}", path.display());
        for bit in bits_to_flip(&bytes, flips, random) {
            damages.push((
                named(&format!("with bit {} of byte {} flipped", bit % 8, bit / 8)),
                edit(path, move |image, path| {
                    let _ = image.flip_bit(path, bit);
                }),
            ));
        }
        for len in [0, 1, bytes.len() as u64 / 2, (bytes.len() as u64).saturating_sub(1)] {
            damages.push((
                named(&format!("cut to {len} bytes")),
                edit(path, move |image, path| {
                    let _ = image.truncate(path, len);
                }),
            ));
        }
        damages.push((
            named("removed"),
            edit(path, |image, path| {
                let _ = image.remove(path);
            }),
        ));
        if let Ok(old_bytes) = older.peek(path)
            && old_bytes != bytes
        {
            damages.push((
                named("rolled back"),
                edit(path, move |image, path| {
                    let _ = image.replace(path, &old_bytes);
                }),
            ));
        }
        for other in files.iter().filter(|other| *other > path) {
            let Ok(other_bytes) = image.peek(other) else { continue };
            let (bytes, other_path) = (bytes.clone(), other.clone());
            damages.push((
                named(&format!("swapped with {}", other.display())),
                edit(path, move |image, path| {
                    let _ = image.replace(path, &other_bytes);
                    let _ = image.replace(&other_path, &bytes);
                }),
            ));
        }
    }
    damages
}

fn edit(path: &Path, edit: impl Fn(&mut DiskImage, &Path) + 'static) -> Damage {
    let path = path.to_owned();
    Box::new(move |image| {
        let mut image = image.clone();
        edit(&mut image, &path);
        image
    })
}

/// Half among the bytes that are not zero, half at the ends.
fn bits_to_flip(bytes: &[u8], flips: u64, random: &mut Random) -> Vec<u64> {
    let len = bytes.len() as u64;
    if len * 8 <= flips {
        return (0..len * 8).collect();
    }
    let written: Vec<u64> = (0..len).filter(|position| bytes[*position as usize] != 0).collect();
    let end_bytes = END_BYTES.min(len);
    let mut bits = Vec::new();
    for number in 0..flips {
        let byte = match number % 4 {
            0 => random.below(end_bytes),
            1 => len - 1 - random.below(end_bytes),
            _ if written.is_empty() => random.below(len),
            _ => written[random.below(written.len() as u64) as usize],
        };
        bits.push(byte * 8 + random.below(8));
    }
    bits
}

fn shut_down_store<T>(under_test: &T, seed: u64, image: DiskImage, history: &mut History) -> Checked<DiskImage>
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let sim = machine(Sim::on_disk(seed, image));
    let platform = sim.platform();
    let shared = RefCell::new(std::mem::take(history));
    let run = async {
        let session = Session::begin(under_test.open(&platform, Path::new("/data")).await?, &shared).await?;
        work(&session, &platform, &mut Random::new(seed), Load::SMALL, 12).await?;
        session.verify().await?;
        session.storage.shutdown().await.map_err(|error| format!("shutdown failed: {error}"))
    };
    sim.run_until(run).map_err(|halt| format!("the machine halted: {halt:?}"))??;
    *history = shared.into_inner();
    Ok(sim.disk_image())
}

fn detected_or_harmless<T>(under_test: &T, seed: u64, image: DiskImage, history: History) -> Checked
where
    T: StorageUnderTest<Platform = SimPlatform>,
{
    let sim = machine(Sim::on_disk(seed, image));
    let platform = sim.platform();
    let expected = history.visible();
    let shared = RefCell::new(history);
    let run = async {
        let Ok(storage) = under_test.open(&platform, Path::new("/data")).await else { return Ok(()) };
        for (name, (version, body)) in &expected {
            match storage.read(entity(name)).await {
                Err(_) => return Ok(()),
                Ok(Some((found, document))) if found == *version && document.body() == &body[..] => {}
                Ok(Some(_)) => return Err(format!("{name:?} is served wrong")),
                Ok(None) => return Err(format!("{name:?} is lost without a word")),
            }
        }
        Session::begin(storage, &shared).await.map(drop)
    };
    sim.run_until(run).map_err(|halt| format!("the machine halted: {halt:?}"))?
}
