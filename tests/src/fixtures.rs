//! Stores that earlier builds wrote, kept under `tests/fixtures/` for ever: `format-<version>/` each, with the store's
//! files, its root key, and what it holds.

use crate::small_store::Documents;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The data directory in a fixture.
pub const STORE: &str = "store";
/// The file of its root key.
pub const ROOT_KEY_FILE: &str = "root.key";
/// What it holds: one JSON object a line, with schema, key, version and document.
pub const DOCUMENTS: &str = "documents.ndjson";

/// Where the fixture of a format version lies.
pub fn directory(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(format!("format-{version}"))
}

/// The text of [`DOCUMENTS`]. Documents go in as text, for their bytes must come back as they are.
pub fn render(documents: &Documents) -> anyhow::Result<String> {
    let mut text = String::new();
    for ((schema, key), (version, body)) in documents {
        let body = std::str::from_utf8(body)?;
        text += &json!({"schema": schema, "key": key, "version": version, "document": body}).to_string();
        text.push('\n');
    }
    Ok(text)
}

/// What the fixture of a version holds.
pub fn documents(version: u32) -> Documents {
    let path = directory(version).join(DOCUMENTS);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a JSON object a line");
        let text = |member: &str| value[member].as_str().expect("a string").to_owned();
        let version = value["version"].as_u64().expect("a version");
        ((text("schema"), text("key")), (version, text("document").into_bytes()))
    };
    text.lines().map(parse).collect()
}

/// Name, from the directory of all fixtures on, and content of every file of one.
pub fn files(version: u32) -> Vec<(String, Vec<u8>)> {
    let directory = directory(version);
    let all = directory.parent().expect("fixtures lie together");
    let mut found = Vec::new();
    let mut folders = vec![directory.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(all).expect("it lies there").display().to_string();
            found.push((name, fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))));
        }
    }
    found
}

/// Copies the store of a fixture, which is never opened where it lies.
pub fn copy_store(version: u32, target: &Path) {
    copy(&directory(version).join(STORE), target);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory for the copy");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("a directory entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a file type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("a file that can be copied")),
        }
    }
}
