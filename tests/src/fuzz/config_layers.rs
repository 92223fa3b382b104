//! The configuration: any flags, variables and file.
//!
//! Holds: what is accepted is within its bounds; a setting means the same by flag, variable and file, and is refused
//! in the same words; neither a configuration nor an error shows the secret it was given.

use super::input::{join, parts};
use clap::{Args, Command, FromArgMatches};
use deltadb::config::{Config, ConfigError, SETTINGS, SPIN_US_MAX, ServeFlags};
use deltadb::limits::{BODY_BYTES_CEILING, SHARDS_MAX};
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsRawFd;

const SECRET: &str = "Secret-of-the-fuzzer-31337";

/// Tries one input: flags a line each, variables a line each, the file; and one setting by name and value.
pub fn run(data: &[u8]) {
    let mut parts = parts(data).map(|part| String::from_utf8_lossy(part).into_owned());
    let (flags, variables) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (file, setting) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    layers(&flags, &variables, &file);
    if let Some((name, value)) = setting.split_once('=') {
        by_each_means(name, value);
    }
}

/// Every setting by every means, right and wrong.
pub fn seeds() -> Vec<Vec<u8>> {
    let flags = "--data-dir=/d\n--rest-addr=127.0.0.1:1\n--shards=3\n--salvage\n--log-level=debug\n--cache-ttl=5m";
    let variables = "DELTA_WIRE_ADDR=[::1]:7400\nDELTA_SHARDS=2\nMASTER_KEY_FILE=/k\nDELTA_SPIN_US=0";
    let file =
        "cache_bytes = \"512MiB\"\ncache-size = 1000\nsalvage = true\nlog-format = \"json\"\nshared_fs = \"/x\"\n";
    let bad = ["shards = [1]", "unknown = 1", "admin_key = \"x\"", "a = ", "shards = 1\nshards = 2"];
    let values = [
        "rest-addr=localhost:80",
        "cache-bytes=7 GiB",
        "cache-ttl=250ms",
        "shards=257",
        "key-id=0123456789ABCDEF",
        "rest-max-body-size=64MiB",
        "wire-shard-base-port=65535",
        "salvage=off",
        "spin-us=10001",
        "log-level=loud",
        "wire-socket=",
    ];
    let full = join(&[flags.as_bytes(), variables.as_bytes(), file.as_bytes(), b"shards=4"]);
    let files = bad.iter().map(|text| join(&[b"", b"", text.as_bytes()]));
    let settings = values.iter().map(|text| join(&[b"", b"", b"", text.as_bytes()]));
    [full].into_iter().chain(files).chain(settings).collect()
}

fn layers(flags: &str, variables: &str, file: &str) {
    // Only this target names files to read, or it would read the machine's.
    let names_file = |text: &&str| text.to_ascii_lowercase().contains("config");
    let arguments: Vec<&str> = flags.lines().filter(|line| !names_file(line)).collect();
    let mut variables: BTreeMap<String, OsString> = variables
        .lines()
        .filter(|line| !names_file(line))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), OsString::from(value)))
        .collect();
    let told =
        [flags, file].iter().any(|text| text.contains(SECRET)) || variables.values().any(|value| value == SECRET);
    variables.entry("ADMIN_KEY".to_owned()).or_insert_with(|| SECRET.into());
    let Some(flags) = parse_flags(&arguments) else { return };
    let outcome = resolve(flags, &variables, file);
    let words = match &outcome {
        Ok(config) => {
            judge(config);
            format!("{config:?}")
        }
        Err(error) => format!("{error} {error:?}"),
    };
    assert!(told || !words.contains(SECRET), "the secret shows: {words}");
}

fn by_each_means(name: &str, value: &str) {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name && name != "config") else { return };
    if setting.secret || name.ends_with("-file") || value.contains('\0') {
        return;
    }
    let Some(flags) = parse_flags(&[&format!("--{name}={value}")]) else { return };
    let variable = setting.variable_names().remove(0);
    let outcomes = [
        resolve(flags, &BTreeMap::new(), ""),
        resolve(ServeFlags::default(), &BTreeMap::from([(variable, value.into())]), ""),
        resolve(ServeFlags::default(), &BTreeMap::new(), &format!("{name} = {}", toml::Value::from(value))),
    ];
    let words = outcomes.map(|outcome| match outcome {
        Ok(config) => {
            judge(&config);
            format!("{config:?}")
        }
        Err(ConfigError::Value { reason, .. } | ConfigError::Relation { reason }) => reason,
        Err(other) => panic!("another refusal: {other}"),
    });
    assert!(words[0] == words[1] && words[1] == words[2], "{name}={value:?} means three things: {words:#?}");
}

fn parse_flags(arguments: &[&str]) -> Option<ServeFlags> {
    let command = ServeFlags::augment_args(Command::new("serve").no_binary_name(true));
    let matches = command.try_get_matches_from(arguments).ok()?;
    ServeFlags::from_arg_matches(&matches).ok()
}

fn resolve(mut flags: ServeFlags, variables: &BTreeMap<String, OsString>, file: &str) -> Result<Config, ConfigError> {
    let mut memory = std::fs::File::from(memfd_create("config", MemfdFlags::CLOEXEC).expect("a file in memory"));
    memory.write_all(file.as_bytes()).expect("memory takes writes");
    flags.config = Some(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    Config::resolve(flags, &|name| variables.get(name).cloned())
}

fn judge(config: &Config) {
    assert!((1024..=BODY_BYTES_CEILING).contains(&config.body_bytes_max));
    assert!(config.spin_us <= SPIN_US_MAX);
    assert!(config.shards.is_none_or(|shards| (1..=SHARDS_MAX).contains(&shards)));
    assert!(config.cache_ttl.is_none_or(|ttl| !ttl.is_zero()));
    let is_hex =
        |id: &String| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    assert!(config.key_id.as_ref().is_none_or(is_hex));
    let last_port = usize::from(config.wire_shard_base_port) + config.shards.unwrap_or(1) - 1;
    assert!(config.wire_shard_base_port == 0 || last_port <= usize::from(u16::MAX));
    assert!(config.rest_addr != config.wire_addr || config.rest_addr.port() == 0);
}
