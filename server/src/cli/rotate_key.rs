//! `deltadb rotate-key`: a new data key, active on every shard when this returns; prints its id.

use super::arguments::PlainArguments;
use super::connection::Connection;
use super::error::CliError;
use super::output::print_line;

pub(super) fn run(arguments: PlainArguments) -> Result<(), CliError> {
    let key_id = Connection::open(&arguments.client)?.rotate_key()?;
    print_line(&key_id)
}
