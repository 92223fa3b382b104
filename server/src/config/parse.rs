//! Text to value, one function a kind. Each error is the half sentence that follows the name of the place.

use super::{LogFormat, LogLevel};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A size: digits and a unit (`B`, `KiB`, `MiB`, `GiB`, `TiB`, `KB`, `MB`, `GB`, `TB`); bytes without one.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" => Some(1),
        _ => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor),
    };
    let size = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    size.ok_or_else(|| format!("'{text}' is not a size; write it like 512MiB, 2GiB or 1048576"))
}

/// A size within bounds.
pub fn parse_size_within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let size = parse_size(text)?;
    if (least..=most).contains(&size) {
        return Ok(size);
    }
    Err(format!("'{text}' is out of range; give {least} to {most} bytes"))
}

/// A duration: digits and a unit (`ms`, `s`, `m`, `h`, `d`); seconds without one.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let factor_ms = match unit {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let milliseconds =
        number.parse::<u64>().ok().zip(factor_ms).and_then(|(number, factor)| number.checked_mul(factor));
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| format!("'{text}' is not a duration; write it like 250ms, 30s, 5m, 24h or 7d"))
}

/// A whole number within bounds.
pub fn parse_count(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ if most == u64::MAX => Err(format!("'{text}' is not a whole number of {least} or more")),
        _ => Err(format!("'{text}' is not a whole number from {least} to {most}")),
    }
}

/// An address to listen on.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let literal = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    literal
        .parse()
        .map_err(|_| format!("'{text}' is not an address; write it like 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"))
}

/// A path; any text but the empty one.
pub fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("the path is empty".into());
    }
    Ok(text.into())
}

/// A root key id: 16 hex digits.
pub fn parse_key_id(text: &str) -> Result<String, String> {
    if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("'{text}' is not a key id; it has 16 hex digits, as the start block prints it"))
}

/// A switch.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("'{text}' is neither true nor false")),
    }
}

/// A log format.
pub fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("'{text}' is not a log format; choose text or json")),
    }
}

/// A log level.
pub fn parse_log_level(text: &str) -> Result<LogLevel, String> {
    match text {
        "off" => Ok(LogLevel::Off),
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err(format!("'{text}' is not a log level; choose off, error, warn, info, debug or trace")),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}
