//! `deltadb delete`: silent when the deletion is durable, unless asked.

use super::arguments::DeleteArguments;
use super::connection::Connection;
use super::error::CliError;
use super::output::remark;
use delta_wire::Condition;

pub(super) fn run(arguments: DeleteArguments) -> Result<(), CliError> {
    let condition = arguments.if_version.map_or(Condition::None, Condition::IfVersion);
    let mut connection = Connection::open(&arguments.client)?;
    let version = connection.delete(&arguments.schema, &arguments.key, condition)?;
    remark(arguments.client.verbose, &format!("deleted, version {version}"));
    Ok(())
}
