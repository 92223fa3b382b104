//! Finds the `deltadb` binary under test: `$DELTADB_BIN`, or the one built beside the tests, made fresh once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the repository")
}

/// The binary under test.
pub fn deltadb() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("DELTADB_BIN") {
        Some(path) => std::fs::canonicalize(&path).unwrap_or_else(|error| panic!("$DELTADB_BIN {path:?}: {error}")),
        None => build(),
    })
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(repository()).args(["build", "--quiet", "--package", "deltadb", "--bin", "deltadb"]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.status().expect("cargo runs");
    assert!(built.success(), "building deltadb failed");
    profile.join("deltadb")
}
