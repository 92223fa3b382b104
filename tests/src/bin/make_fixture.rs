//! Makes the old-format fixture of the format this build writes: `cargo run -p delta-tests --bin make_fixture`.
//!
//! Run once, when a format version is new; a fixture that is there is never made again, for what later builds must
//! open is what the first build of a format wrote. See tests/fixtures/README.md.

use anyhow::{Context, ensure};
use delta_tests::fixtures::{self, DOCUMENTS, ROOT_KEY_FILE, STORE};
use delta_tests::small_store::{DIRECTORY, Documents, Life, ROOT_KEY, check, live, open_and_read};
use deltadb::runtime::sim::DiskImage;
use deltadb::storage::store::STORE_FORMAT_VERSION;
use std::fs;

fn main() -> anyhow::Result<()> {
    let directory = fixtures::directory(STORE_FORMAT_VERSION);
    ensure!(!directory.exists(), "{} is there already: it stays as it is", directory.display());
    let mut documents = Documents::new();
    // Two lives: the second finds a checkpoint, compacted segments and two data keys, and adds a third.
    let first = Life {
        seed: 4,
        shards: 2,
        documents: 20,
        document_bytes: 1500,
        rounds: 4,
        rotates: true,
        frame_records: 1,
        kept: 0,
        rotates_at_end: false,
    };
    let second = Life { seed: 5, documents: 12, document_bytes: 200, rounds: 2, ..first };
    let disk = live(second, live(first, DiskImage::default(), &mut documents), &mut documents);
    ensure!(open_and_read(&disk).map_err(anyhow::Error::msg)? == documents, "the store holds what was written");
    ensure!(check(&disk).map_err(anyhow::Error::msg)?.is_empty(), "the store is sound");
    for (path, bytes) in disk.list_files() {
        let target = directory.join(STORE).join(path.strip_prefix(DIRECTORY)?);
        fs::create_dir_all(target.parent().context("a file lies in a directory")?)?;
        fs::write(&target, disk.peek(&path)?)?;
        println!("{bytes:>8} {}", target.display());
    }
    fs::write(directory.join(ROOT_KEY_FILE), format!("{ROOT_KEY}\n"))?;
    fs::write(directory.join(DOCUMENTS), fixtures::render(&documents)?)?;
    Ok(())
}
