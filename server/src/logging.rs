//! Log lines to stderr, as text or JSON, from one level up.
//!
//! What is logged is the caller's to choose; the rule is that no secret and no document content ever is. Stdout
//! stays free for the start block and for what clients asked for.

use crate::config::{LogFormat, LogLevel};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Sends the process's log lines to stderr from now on. A second call changes nothing.
pub fn start(format: LogFormat, level: LogLevel) {
    let lines = match format {
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).with_ansi(false).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
    };
    // Refused only when a subscriber is there already (tests of one process share it), which is as good.
    tracing_subscriber::registry().with(lines.with_filter(filter(level))).try_init().ok();
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_lets_through_itself_and_what_is_more_severe() {
        assert!(filter(LogLevel::Warn) >= tracing::Level::ERROR);
        assert!(filter(LogLevel::Warn) < tracing::Level::INFO);
        assert_eq!(filter(LogLevel::Off), LevelFilter::OFF);
    }
}
