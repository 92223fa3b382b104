//! The `deltadb` binary: a thin door to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    deltadb::cli::run()
}
