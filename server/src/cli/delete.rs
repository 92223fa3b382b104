//! `deltadb delete`: silent when the deletion is durable, unless asked.

use super::arguments::DeleteArguments;
use super::connection::{Connection, WriteCondition};
use super::error::CliError;
use super::output::remark;

pub(super) fn run(arguments: DeleteArguments) -> Result<(), CliError> {
    let condition = arguments.if_version.map_or(WriteCondition::None, WriteCondition::IfVersion);
    let mut connection = Connection::open(&arguments.client)?;
    let version = connection.delete(&arguments.schema, &arguments.key, condition)?;
    remark(arguments.client.verbose, &format!("deleted, version {version}"));
    Ok(())
}
