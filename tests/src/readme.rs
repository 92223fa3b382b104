//! README.md as data: its tables and the commands in it.

use crate::binary::repository;

/// The whole text.
pub fn text() -> String {
    std::fs::read_to_string(repository().join("README.md")).expect("README.md")
}

/// The fenced blocks of a language, in order.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let (mut blocks, mut open) = (Vec::new(), None::<Vec<&str>>);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take().map(|lines| lines.join("\n"))),
            (Some(lines), None) => lines.push(line),
            (None, Some(found)) if found == language => open = Some(Vec::new()),
            _ => {}
        }
    }
    blocks
}

/// The rows of the table whose header row starts with `first_header`, without header and rule.
pub fn table(text: &str, first_header: &str) -> Vec<Vec<String>> {
    let cells =
        |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    let mut lines = text
        .lines()
        .skip_while(|line| !(line.starts_with('|') && cells(line).first().is_some_and(|cell| cell == first_header)));
    assert!(lines.next().is_some(), "README.md has no table that starts with '{first_header}'");
    lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// The words in backticks of a cell.
pub fn code_words(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_tables_are_found() {
        let text = "x\n```sh\na\nb\n```\n```json\n{}\n```\n| n | m |\n| --- | --- |\n| 1 | `a` `b` |\n\n| 2 | c |";
        assert_eq!(blocks(text, "sh"), ["a\nb"]);
        assert_eq!(table(text, "n"), [["1", "`a` `b`"]]);
        assert_eq!(code_words("`a` · `b`"), ["a", "b"]);
    }
}
