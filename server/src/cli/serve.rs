//! `deltadb serve`: configuration, log lines, then the start.

use super::error::CliError;
use crate::config::{Config, ServeFlags, unknown_variables};
use crate::{logging, start};

pub(super) fn run(flags: Box<ServeFlags>) -> Result<(), CliError> {
    let config = Config::resolve(*flags, &|name| std::env::var_os(name))?;
    logging::start(config.log_format, config.log_level);
    for name in unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
        tracing::warn!("the variable {name} is no setting of deltadb and does nothing: is it misspelt?");
    }
    start::serve(config).map_err(|error| CliError::Ended { status: error.status, message: error.message })
}
