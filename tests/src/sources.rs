//! The repository's own files, for tests that judge them, and trees of files in general.

use crate::binary::repository;
use std::path::{Path, PathBuf};

/// Every Rust file of a crate folder (`server/src`), sorted, without generated ones.
pub fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = files_below(&repository().join(folder));
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found.retain(|path| !path.components().any(|part| part.as_os_str() == "generated"));
    found
}

/// Every file below a directory, sorted.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for entry in entries {
            let entry = entry.expect("a directory entry");
            match entry.file_type().expect("a file type").is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

/// Copies a tree of files.
pub fn copy_tree(from: &Path, to: &Path) {
    for file in files_below(from) {
        let relative = file.strip_prefix(from).expect("a file below the directory");
        let target = to.join(relative);
        std::fs::create_dir_all(target.parent().expect("a parent")).expect("a directory");
        std::fs::copy(&file, &target).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

/// A file's text without comments, for searching code; strings stay.
pub fn code_of(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The part of a file that is built into the product: what comes before its test module.
pub fn production_part(text: &str) -> &str {
    match text.find("#[cfg(test)]\nmod ") {
        Some(start) if text[start..].lines().nth(1).is_some_and(|line| line.ends_with('{')) => &text[..start],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_test_modules_are_told_from_code() {
        assert_eq!(code_of("a // b\n// c\nd"), "a \n\nd");
        assert_eq!(production_part("a\n#[cfg(test)]\nmod tests {\nb"), "a\n");
        assert_eq!(production_part("a\n#[cfg(test)]\nmod tests;\nb"), "a\n#[cfg(test)]\nmod tests;\nb");
    }
}
