//! The command line over the wire protocol: output that pipes, exit statuses that scripts can use.

use delta_tests::{Cli, TestServer, filler};
use serde_json::{Value, json};

#[test]
fn documents_go_in_and_come_out_byte_for_byte_over_both_protocols() {
    let server = TestServer::builder().shards(2).start();
    let (cli, mut http) = (server.cli(), server.http());
    let document = "{ \"a\" :\n 1.0 }";
    let put = cli.run_with(&["put", "s", "k"], document.as_bytes()).expect(0);
    assert_eq!((put.text().as_str(), put.stderr.as_str()), ("", ""));
    assert_eq!(cli.run(&["get", "s", "k"]).expect(0).stdout, document.as_bytes());
    assert_eq!(http.get("/entity/s/k").expect(200).text(), document);
    http.put("/entity/s/k", "2").expect(200);
    assert_eq!(cli.run(&["get", "s", "k"]).expect(0).text(), "2");
    cli.run(&["delete", "s", "k"]).expect(0);
    http.get("/entity/s/k").expect(404);
    cli.run(&["get", "s", "k"]).expect(3);
    cli.run(&["delete", "s", "k"]).expect(3);
}

#[test]
fn files_large_documents_and_verbose_remarks() {
    let server = TestServer::builder().shards(2).start();
    let cli = server.cli();
    let file = tempfile::NamedTempFile::new().unwrap();
    let document = format!("\"{}\"", filler(1_000_000, 5));
    std::fs::write(file.path(), &document).unwrap();
    let put = cli.run(&["put", "s", "k", file.path().to_str().unwrap(), "--json", "--verbose"]).expect(0);
    let reply: Value = serde_json::from_slice(&put.stdout).unwrap();
    assert_eq!(reply["created"], true);
    assert!(put.stderr.contains(&format!("version {}", reply["version"])), "{}", put.stderr);
    let get = cli.run(&["get", "s", "k", "--verbose"]).expect(0);
    assert!(get.stdout == document.as_bytes() && get.stderr.contains("version"));
}

#[test]
fn conditions_end_with_their_own_status() {
    let server = TestServer::start();
    let cli = server.cli();
    let put = cli.run_with(&["put", "s", "k", "-", "--if-absent", "--json"], b"1").expect(0);
    let version = serde_json::from_slice::<Value>(&put.stdout).unwrap()["version"].to_string();
    cli.run_with(&["put", "s", "k", "-", "--if-absent"], b"2").expect(4);
    cli.run_with(&["put", "s", "k", "-", "--if-version", &version], b"2").expect(0);
    cli.run_with(&["put", "s", "k", "-", "--if-version", &version], b"3").expect(4);
    cli.run(&["delete", "s", "k", "--if-version", &version]).expect(4);
    assert_eq!(cli.run(&["get", "s", "k"]).expect(0).text(), "2");
}

#[test]
fn refusals_end_with_their_own_status_and_say_why() {
    let server = TestServer::start();
    let cli = server.cli();
    let bad = cli.run_with(&["put", "s", "k"], b"{").expect(5);
    assert!(bad.stderr.starts_with("deltadb: ") && bad.stderr.lines().count() == 1, "{}", bad.stderr);
    cli.run_with(&["put", "s", "a/b"], b"1").expect(5);
    cli.run_with(&["put", "..", "k"], b"1").expect(5);
    cli.run_with(&["schema", "put", "s"], br#"{"type":"nonsense"}"#).expect(5);
    cli.run_with(&["schema", "put", "s"], br#"{"type":"integer"}"#).expect(0);
    cli.run_with(&["put", "s", "k"], b"\"x\"").expect(5);
    cli.run(&["get", "s", "absent"]).expect(3);
    cli.run(&["schema", "get", "absent"]).expect(3);
    for arguments in
        [&["get", "s"][..], &["nonsense"], &["put", "s", "k", "--if-version", "x"], &["ping", "--timeout", "0"]]
    {
        cli.run(arguments).expect(2);
    }
    cli.run(&["put", "s", "k", "/nowhere/at/all.json"]).expect(1);
}

#[test]
fn keys_are_found_given_and_refused() {
    let server = TestServer::builder().own_key().start();
    let cli = server.cli().without("DELTA_KEY");
    let data_dir = server.data_dir().to_str().unwrap();
    cli.run(&["ping", "--data-dir", data_dir]).expect(0);
    let key_file = server.data_dir().join("admin.key");
    cli.run(&["ping", "--key-file", key_file.to_str().unwrap()]).expect(0);
    cli.run(&["ping", "--data-dir", "/nowhere"]).expect(6);
    let wrong = cli.run(&["ping", "--key", "wrong-hunter2"]).expect(6);
    assert!(!wrong.stderr.contains("hunter2"), "{}", wrong.stderr);
    cli.clone().variable("DELTA_KEY", "hunter2").run(&["ping", "--key", "hunter2"]).expect(2);
    let key = std::fs::read_to_string(&key_file).unwrap();
    assert!(!server.start_block.join("\n").contains(key.trim()) && !server.stderr().contains(key.trim()));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&key_file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn no_server_is_its_own_status() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let silent = Cli::new(&address).run(&["ping", "--timeout", "300ms"]).expect(7);
    assert!(silent.stderr.contains(&address), "{}", silent.stderr);
    drop(listener);
    Cli::new(&address).run(&["ping"]).expect(7);
    Cli::new("unix:/nowhere/at/all").run(&["ping"]).expect(7);
}

#[test]
fn listings_are_one_line_an_entry_across_pages() {
    let server = TestServer::builder().shards(2).start();
    let (cli, mut http) = (server.cli(), server.http());
    let map: serde_json::Map<String, Value> = (0..1000).map(|n| (format!("k{n:04}"), json!({ "n": n }))).collect();
    http.put("/entity/s", &Value::Object(map).to_string()).expect(200);
    let map: serde_json::Map<String, Value> = (1000..1500).map(|n| (format!("k{n:04}"), json!({ "n": n }))).collect();
    http.put("/entity/s", &Value::Object(map).to_string()).expect(200);
    let expected: Vec<String> = (0..1500).map(|n| format!("k{n:04}")).collect();
    assert_eq!(cli.run(&["list", "s"]).expect(0).text().lines().collect::<Vec<_>>(), expected);
    let part = cli.run(&["list", "s", "--prefix", "k00", "--after", "k0049", "--limit", "3"]).expect(0);
    assert_eq!(part.text(), "k0050\nk0051\nk0052\n");
    http.put("/entity/s/k0000", "{\n \"n\": 0\n}").expect(200);
    let lines = cli.run(&["list", "s", "--documents", "--limit", "1200"]).expect(0).text();
    assert_eq!(lines.lines().count(), 1200);
    for (n, line) in lines.lines().enumerate() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&entry["key"], &entry["document"]["n"]), (&json!(format!("k{n:04}")), &json!(n)));
        assert!(entry["version"].is_u64());
    }
    assert_eq!(cli.run(&["list", "absent"]).expect(0).text(), "");
}

#[test]
fn a_reader_that_goes_away_ends_a_listing_quietly() {
    let server = TestServer::start();
    let mut http = server.http();
    for part in 0..20 {
        let document = filler(1000, part);
        let map: serde_json::Map<String, Value> =
            (0..500).map(|n| (format!("k{part:02}{n:03}"), json!(document))).collect();
        http.put("/entity/s", &Value::Object(map).to_string()).expect(200);
    }
    let binary = delta_tests::binary::deltadb().display().to_string();
    let script = format!("set -o pipefail; '{binary}' list s --documents | head -n 1 > /dev/null");
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .env("DELTA_ADDR", server.wire.to_string())
        .env("DELTA_KEY", delta_tests::ADMIN_KEY)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn templates_stats_and_rotation() {
    let server = TestServer::builder().shards(2).start();
    let cli = server.cli();
    let template = br#"{"type": "integer"}"#;
    cli.run_with(&["schema", "put", "b"], template).expect(0);
    cli.run_with(&["schema", "put", "a"], template).expect(0);
    assert_eq!(cli.run(&["schema", "get", "b"]).expect(0).stdout, template);
    assert_eq!(cli.run(&["schema", "list"]).expect(0).text(), "a\nb\n");
    cli.run(&["schema", "delete", "a"]).expect(0);
    assert_eq!(cli.run(&["schema", "list"]).expect(0).text(), "b\n");
    cli.run_with(&["put", "b", "k"], b"7").expect(0);
    let stats: Value = serde_json::from_slice(&cli.run(&["stats"]).expect(0).stdout).unwrap();
    assert!(stats.is_object());
    let first = cli.run(&["rotate-key"]).expect(0).text();
    let second = cli.run(&["rotate-key"]).expect(0).text();
    assert_ne!(first, second);
    assert_eq!(cli.run(&["get", "b", "k"]).expect(0).text(), "7");
    cli.run_with(&["put", "b", "k2"], b"8").expect(0);
    server.stop_cleanly();
}

#[test]
fn a_unix_socket_serves_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("wire.sock");
    let server = TestServer::builder().arguments(["--wire-socket", socket.to_str().unwrap()]).start();
    let cli = Cli::new(&format!("unix:{}", socket.display()));
    cli.run_with(&["put", "s", "k"], b"1").expect(0);
    assert_eq!(server.cli().run(&["get", "s", "k"]).expect(0).text(), "1");
    cli.run(&["ping"]).expect(0);
    server.stop_cleanly();
    assert!(!socket.exists(), "the socket's name is left behind");
}

#[test]
fn shards_listen_on_ports_of_their_own_and_clients_find_them() {
    let server = TestServer::builder().shards(4).start();
    let cli = server.cli();
    for n in 0..40 {
        cli.run_with(&["put", "s", &format!("k{n}")], n.to_string().as_bytes()).expect(0);
    }
    for n in 0..40 {
        assert_eq!(cli.run(&["get", "s", &format!("k{n}")]).expect(0).text(), n.to_string());
    }
}
