//! `deltadb list`: keys one a line, or one JSON object a line; pages are fetched as they are printed.

use super::arguments::ListArguments;
use super::connection::Connection;
use super::error::CliError;
use super::output::{lines, on_one_line};
use crate::limits::PAGE_ENTRIES_MAX;
use delta_wire::PageEntry;
use delta_wire::client::ListQuery;
use std::io::Write;

pub(super) fn run(arguments: ListArguments) -> Result<(), CliError> {
    let mut connection = Connection::open(&arguments.client)?;
    let mut after = arguments.after.clone();
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut output = lines();
    while left > 0 {
        let limit = left.min(PAGE_ENTRIES_MAX as u64) as u32;
        let page = connection.list(&ListQuery {
            schema: &arguments.schema,
            prefix: &arguments.prefix,
            after: after.as_deref(),
            limit,
            documents: arguments.documents,
        })?;
        left = left.saturating_sub(page.entries.len() as u64);
        for entry in page.entries {
            write_entry(&mut output, entry, &arguments).map_err(CliError::of_output)?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    output.flush().map_err(CliError::of_output)
}

fn write_entry(output: &mut impl Write, entry: PageEntry, arguments: &ListArguments) -> std::io::Result<()> {
    if !arguments.documents && !arguments.json {
        return writeln!(output, "{}", entry.key);
    }
    let key = serde_json::Value::from(entry.key);
    write!(output, "{{\"key\":{key},\"version\":{}", entry.version)?;
    if let Some(mut document) = entry.content {
        on_one_line(&mut document);
        output.write_all(b",\"document\":")?;
        output.write_all(&document)?;
    }
    output.write_all(b"}\n")
}
