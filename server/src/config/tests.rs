//! What counts over what, what is refused, and that no secret shows.

use super::*;
use clap::{Args, FromArgMatches};
use secrecy::ExposeSecret;
use std::collections::BTreeMap;

fn flags(arguments: &[&str]) -> ServeFlags {
    let command = ServeFlags::augment_args(clap::Command::new("serve"));
    let matches = command.try_get_matches_from(std::iter::once(&"serve").chain(arguments)).unwrap();
    ServeFlags::from_arg_matches(&matches).unwrap()
}

fn resolve(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    Config::resolve(flags(arguments), &|name| variables.get(name).map(OsString::from))
}

fn with_file(text: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let config = ["--config", file.path().to_str().unwrap()];
    resolve(&[&config[..], arguments].concat(), variables)
}

fn message(result: Result<Config, ConfigError>) -> String {
    result.expect_err("this must be refused").to_string()
}

#[test]
fn defaults_are_what_the_help_says() {
    let config = resolve(&[], &[]).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("./delta-data"));
    assert_eq!(config.rest_addr, "127.0.0.1:8080".parse::<std::net::SocketAddr>().unwrap());
    assert_eq!(config.wire_addr, "127.0.0.1:7400".parse::<std::net::SocketAddr>().unwrap());
    assert_eq!((config.shards, config.cache_bytes, config.cache_entries, config.cache_ttl), (None, None, None, None));
    assert_eq!((config.body_bytes_max, config.spin_us, config.salvage), (1 << 20, 20, false));
    assert!(config.admin_key.is_none() && config.master_key.is_none());
}

#[test]
fn a_flag_counts_over_a_variable_over_the_file_over_the_default() {
    let file = "shards = 3\ncache_bytes = \"1MiB\"\nrest-addr = \"127.0.0.1:1\"\nspin_us = 7\n";
    let variables = [("DELTA_SHARDS", "4"), ("DELTA_CACHE_BYTES", "2MiB")];
    let config = with_file(file, &["--shards", "5"], &variables).unwrap();
    assert_eq!(config.shards, Some(5));
    assert_eq!(config.cache_bytes, Some(2 << 20));
    assert_eq!(config.rest_addr.port(), 1);
    assert_eq!(config.spin_us, 7);
    assert_eq!(config.wire_addr.port(), 7400);
}

#[test]
fn the_file_can_be_named_by_a_variable_and_the_directory_by_its_alias() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "shared_fs = \"/elsewhere\"").unwrap();
    let config = resolve(&[], &[("DELTA_CONFIG", file.path().to_str().unwrap())]).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/elsewhere"));
    assert_eq!(resolve(&["--shared-fs", "/there"], &[]).unwrap().data_dir, PathBuf::from("/there"));
    assert_eq!(resolve(&[], &[("DELTA_SHARED_FS", "/it")]).unwrap().data_dir, PathBuf::from("/it"));
}

#[test]
fn every_setting_has_a_flag_and_a_variable() {
    let command = ServeFlags::augment_args(clap::Command::new("serve"));
    let mut flags: Vec<_> = command.get_arguments().filter_map(|flag| flag.get_long()).collect();
    let mut names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    flags.sort_unstable();
    names.sort_unstable();
    assert_eq!(flags, names);
    for setting in &SETTINGS {
        let variable = format!("DELTA_{}", setting.name.replace('-', "_").to_uppercase());
        assert!(setting.variable_names().contains(&variable), "{variable}");
    }
}

#[test]
fn bad_values_are_refused_naming_their_place() {
    for (arguments, variables, expected) in [
        (&["--shards", "0"][..], &[][..], "--shards: '0' is not a whole number from 1 to 256"),
        (&[], &[("DELTA_SHARDS", "257")], "$DELTA_SHARDS: '257'"),
        (&[], &[("DELTA_CACHE_BYTES", "")], "$DELTA_CACHE_BYTES: '' is not a size"),
        (&["--cache-bytes", "12 parsecs"], &[], "--cache-bytes: '12 parsecs' is not a size"),
        (&["--cache-ttl", "1y"], &[], "--cache-ttl: '1y' is not a duration"),
        (&["--rest-addr", "8080"], &[], "--rest-addr: '8080' is not an address"),
        (&["--rest-max-body-size", "1GiB"], &[], "--rest-max-body-size: '1GiB' is out of range"),
        (&["--log-level", "loud"], &[], "--log-level: 'loud' is not a log level"),
        (&["--key-id", "xyz"], &[], "--key-id: 'xyz' is not a key id"),
        (&["--data-dir", ""], &[], "--data-dir: the path is empty"),
        (&["--salvage=perhaps"], &[], "--salvage: 'perhaps' is neither"),
        (&["--rest-addr", "127.0.0.1:9", "--wire-addr", "127.0.0.1:9"], &[], "--rest-addr and --wire-addr are both"),
        (&["--wire-shard-base-port", "65535", "--shards", "2"], &[], "a base of at most 65534"),
        (&["--config", "/nowhere/at/all.toml"], &[], "--config /nowhere/at/all.toml: No such file"),
    ] {
        let text = message(resolve(arguments, variables));
        assert!(text.contains(expected), "{text:?} should hold {expected:?}");
    }
}

#[test]
fn the_file_refuses_what_it_does_not_know() {
    for (file, expected) in [
        ("shard = 3", "unknown key 'shard'"),
        ("config = \"x\"", "unknown key 'config'"),
        ("[server]\nshards = 3", "unknown key 'server'"),
        ("shards = [1]", "shards in "),
        ("data_dir = \"a\"\ndata-dir = \"b\"", "is the same setting as"),
        ("data_dir = \"a\"\nshared-fs = \"b\"", "is the same setting as"),
        ("shards = \n", "(line 1)"),
    ] {
        let text = message(with_file(file, &[], &[]));
        assert!(text.contains(expected), "{text:?} should hold {expected:?}");
    }
}

#[test]
fn a_secret_in_the_file_is_refused_but_its_path_is_taken() {
    let text = message(with_file("admin_key = \"hunter2\"", &[], &[]));
    assert!(text.contains("'admin-key'") && text.contains("admin-key-file") && !text.contains("hunter2"), "{text}");
    let text = message(with_file("master_key = hunter2", &[], &[]));
    assert!(!text.contains("hunter2"), "{text}");
    let config = with_file("admin_key_file = \"/run/admin\"", &[], &[]).unwrap();
    assert!(
        matches!(config.admin_key, Some(SecretSource::File { path, .. }) if path == std::path::Path::new("/run/admin"))
    );
}

#[test]
fn a_secret_given_twice_is_refused_by_any_two_means() {
    let value = ["--admin-key", "hunter2"];
    for (arguments, variables, first, second) in [
        (&value[..], &[("ADMIN_KEY", "hunter2")][..], "--admin-key", "$ADMIN_KEY"),
        (&value, &[("DELTA_ADMIN_KEY_FILE", "/f")], "--admin-key", "$DELTA_ADMIN_KEY_FILE"),
        (&[], &[("ADMIN_KEY", "hunter2"), ("DELTA_ADMIN_KEY", "hunter2")], "$DELTA_ADMIN_KEY", "$ADMIN_KEY"),
        (&[], &[("MASTER_KEY", "hunter2"), ("MASTER_KEY_FILE", "/f")], "$MASTER_KEY", "$MASTER_KEY_FILE"),
        (&["--master-key-file", "/f"], &[("MASTER_KEY_FILE", "/f")], "--master-key-file", "$MASTER_KEY_FILE"),
    ] {
        let text = message(resolve(arguments, variables));
        assert!(text.contains(first) && text.contains(second) && text.contains("twice"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let text = message(with_file("admin-key-file = \"/f\"", &value, &[]));
    assert!(text.contains("--admin-key") && text.contains("admin-key-file in"), "{text}");
}

#[test]
fn no_debug_or_error_text_shows_a_secret() {
    let config = resolve(&["--admin-key", "hunter2"], &[("MASTER_KEY", "hunter3")]).unwrap();
    let text = format!("{config:?}");
    assert!(!text.contains("hunter") && text.contains("--admin-key") && text.contains("$MASTER_KEY"), "{text}");
    let secret = config.admin_key.unwrap().read_credential().unwrap();
    assert_eq!(secret.expose_secret(), "hunter2");
    let spaced = resolve(&["--admin-key", "hunter 2"], &[]).unwrap().admin_key.unwrap();
    let text = spaced.read_credential().unwrap_err().to_string();
    assert!(text.starts_with("--admin-key:") && !text.contains("hunter"), "{text}");
    assert!(message(resolve(&["--admin-key", ""], &[])).contains("the secret is empty"));
}

#[test]
fn a_secret_file_is_read_without_its_line_end_and_bounded() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let source = SecretSource::File { path: file.path().to_owned(), means: Means::flag("--key-file") };
    std::fs::write(file.path(), "hunter2\r\n").unwrap();
    assert_eq!(source.read_text().unwrap().expose_secret(), "hunter2");
    assert_eq!(source.read_bytes().unwrap().as_slice(), b"hunter2\r\n");
    std::fs::write(file.path(), "\n").unwrap();
    assert!(source.read_text().unwrap_err().to_string().contains("empty"));
    std::fs::write(file.path(), vec![b'a'; 5000]).unwrap();
    assert!(source.read_text().unwrap_err().to_string().contains("longer than 4096"));
    std::fs::write(file.path(), [0xff, 0xfe]).unwrap();
    assert!(source.read_text().unwrap_err().to_string().contains("not text"));
}

#[test]
fn sizes_and_durations_mean_what_they_say() {
    for (text, bytes) in
        [("0", 0), ("17", 17), ("17B", 17), ("1KiB", 1024), ("1 KiB", 1024), ("2kb", 2000), ("3GiB", 3 << 30)]
    {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in ["-1", "1.5MiB", "MiB", "1 XB", "99999999999TiB", "KiB1"] {
        assert!(parse_size(text).is_err(), "{text}");
    }
    for (text, milliseconds) in [("0", 0), ("90", 90_000), ("250ms", 250), ("5m", 300_000), ("7d", 604_800_000)] {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
    }
    assert!(parse_duration("1w").is_err());
    assert!(parse_duration("18446744073709551615d").is_err());
}

#[test]
fn variables_that_look_like_settings_and_are_none_are_named() {
    let names = ["DELTA_REST_ADDR", "DELTA_REST_ADR", "DELTA_KEY", "DELTADB_BIN", "ADMIN_KEY", "PATH"];
    assert_eq!(unknown_variables(names.iter().map(OsString::from)), ["DELTA_REST_ADR"]);
}
