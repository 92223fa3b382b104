//! What goes to stdout and what comes from stdin or a file.

use super::error::CliError;
use crate::limits::BODY_BYTES_CEILING;
use std::io::{BufWriter, Read, Write};

/// Writes bytes to stdout as they are.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(CliError::of_output)
}

/// Writes one line to stdout.
pub(super) fn print_line(line: &str) -> Result<(), CliError> {
    print_bytes(format!("{line}\n").as_bytes())
}

/// Stdout for many lines; to be flushed at the end.
pub(super) fn lines() -> BufWriter<std::io::StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, std::io::stdout().lock())
}

/// Tells a person something, on stderr, if asked to.
pub(super) fn remark(verbose: bool, text: &str) {
    if verbose {
        // A remark nobody can read is no reason to fail.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// Reads a document or template: a file, or stdin for `-`.
pub(super) fn read_input(file: &str) -> Result<Vec<u8>, CliError> {
    let bound = BODY_BYTES_CEILING as u64 + 1;
    let mut bytes = Vec::new();
    let (name, read) = match file {
        "-" => ("standard input", std::io::stdin().lock().take(bound).read_to_end(&mut bytes)),
        path => (path, std::fs::File::open(path).and_then(|file| file.take(bound).read_to_end(&mut bytes))),
    };
    match read {
        Ok(count) if count as u64 == bound => {
            Err(CliError::Usage(format!("{name} is larger than any server takes ({BODY_BYTES_CEILING} bytes)")))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(CliError::Local(format!("{name}: {error}"))),
    }
}

/// A JSON text on one line: line ends between its tokens become spaces (inside strings JSON allows none).
pub(super) fn on_one_line(json: &mut [u8]) {
    for byte in json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_several_lines_becomes_one_and_stays_the_same_value() {
        let mut text = b"{\r\n  \"a\\n\": [1,\n2]\n}".to_vec();
        let before: serde_json::Value = serde_json::from_slice(&text).unwrap();
        on_one_line(&mut text);
        assert!(!text.contains(&b'\n') && !text.contains(&b'\r'));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap(), before);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read_input("/nowhere/document.json").unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/document.json: "), "{error}");
    }
}
