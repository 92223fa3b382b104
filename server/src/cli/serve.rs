//! `deltadb serve`: configuration, log lines, then the start.

use super::error::CliError;
use crate::config::{Config, ServeFlags};
use crate::{logging, start};

pub(super) fn run(flags: Box<ServeFlags>) -> Result<(), CliError> {
    let config = Config::resolve(*flags, &|name| std::env::var_os(name))?;
    logging::start(config.log_format, config.log_level);
    start::serve(config).map_err(|error| CliError::Ended { status: error.status, message: error.message })
}
