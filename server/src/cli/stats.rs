//! `deltadb stats`: the server's figures, as the JSON it sends.

use super::arguments::PlainArguments;
use super::connection::Connection;
use super::error::CliError;
use super::output::print_line;

pub(super) fn run(arguments: PlainArguments) -> Result<(), CliError> {
    let figures = Connection::open(&arguments.client)?.stats()?;
    print_line(figures.trim_end())
}
