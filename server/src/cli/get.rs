//! `deltadb get`: the document's own bytes to stdout, its version to stderr when asked.

use super::arguments::GetArguments;
use super::connection::Connection;
use super::error::CliError;
use super::output::{print_bytes, remark};

pub(super) fn run(arguments: GetArguments) -> Result<(), CliError> {
    let mut connection = Connection::open(&arguments.client)?;
    let stored = connection.get(&arguments.schema, &arguments.key)?;
    remark(arguments.client.verbose, &format!("version {}", stored.version));
    print_bytes(&stored.content)
}
