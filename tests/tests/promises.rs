//! The table of promises names tests that exist: in every file that it names and that is there, the function is too.

use delta_tests::binary::repository;
use delta_tests::readme::{code_words, table};
use std::path::PathBuf;

/// Where a file named in the table may lie.
const FOLDERS: [&str; 3] = ["tests/tests", "server/src", ""];

#[test]
fn every_test_that_the_table_of_promises_names_exists() {
    let text = std::fs::read_to_string(repository().join("tests/README.md")).unwrap();
    let mut wrong = Vec::new();
    for row in table(&text, "promise") {
        assert_eq!(row.len(), 4, "{row:?}");
        let named: Vec<String> = code_words(&row[2]).into_iter().filter(|word| word.contains("::")).collect();
        assert!(!named.is_empty(), "no test is named for: {}", row[0]);
        wrong.extend(named.into_iter().filter(|name| !exists(name)));
    }
    assert!(wrong.is_empty(), "named in tests/README.md, but not there: {wrong:#?}");
}

fn exists(name: &str) -> bool {
    let Some((file, test)) = name.split_once("::") else { return false };
    let files = FOLDERS.iter().map(|folder| repository().join(folder).join(file));
    let found: Option<PathBuf> = files.into_iter().find(|path| path.is_file());
    let Some(path) = found else { return false };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.contains(&format!("#[test]\nfn {test}()")) || text.contains(&format!("#[test]\n    fn {test}()"))
}
