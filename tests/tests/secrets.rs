//! Nothing readable on disk or in the logs: a used store is searched for everything that was planted.

use delta_tests::{ADMIN_KEY, TestServer, sources};
use std::path::Path;

const PLANTED_DOCUMENT: &str = "PlantedDocumentText-8d1f";
const PLANTED_MEMBER: &str = "PlantedMemberName-2c77";
const PLANTED_KEY: &str = "PlantedEntityKey-93ab";
const PLANTED_WRONG_KEY: &str = "PlantedWrongCredential-51e0";

#[test]
fn a_used_directory_and_its_logs_hold_no_plaintext() {
    let directory = tempfile::tempdir().unwrap();
    let root_key = "e7".repeat(32);
    let start = || {
        let builder = TestServer::builder().data_dir(directory.path()).variable("MASTER_KEY", &root_key);
        builder.arguments(["--log-level", "trace"]).start()
    };
    let server = start();
    use_everything(&server);
    let mut logs = server.kill().stderr;
    search(directory.path(), &logs, &root_key);
    let server = start();
    use_everything(&server);
    server.cli().run(&["rotate-key"]).expect(0);
    use_everything(&server);
    let ended = server.stop();
    assert_eq!(ended.status, 0);
    logs.push_str(&ended.stderr);
    logs.push_str(&ended.stdout);
    search(directory.path(), &logs, &root_key);
}

fn use_everything(server: &TestServer) {
    let mut http = server.http();
    let document = format!("{{\"{PLANTED_MEMBER}\":\"{PLANTED_DOCUMENT}\"}}");
    http.put("/schema/checked", r#"{"type":"object","properties":{"n":{"type":"integer"}}}"#);
    for n in 0..50 {
        let path = format!("/entity/checked/{PLANTED_KEY}-{n}");
        assert!(http.put(&path, &document).status < 300);
        http.get(&path).expect(200);
    }
    http.delete(&format!("/entity/checked/{PLANTED_KEY}-7")).expect(200);
    // Refusals are where content slips into messages.
    let invalid = format!("{{\"{PLANTED_MEMBER}\":\"{PLANTED_DOCUMENT}\",\"n\":\"{PLANTED_DOCUMENT}\"}}");
    let refused = http.put(&format!("/entity/checked/{PLANTED_KEY}"), &invalid).expect_problem(422);
    assert!(!refused.text().contains(PLANTED_DOCUMENT), "{}", refused.text());
    let refused = http.put(&format!("/entity/s/{PLANTED_KEY}"), &format!("{{{PLANTED_DOCUMENT}")).expect_problem(400);
    assert!(!refused.text().contains(PLANTED_DOCUMENT), "{}", refused.text());
    let authorization = format!("Bearer {PLANTED_WRONG_KEY}");
    http.request("GET", "/entity/s/k", &[("authorization", &authorization)], b"").expect(401);
    server.cli().variable("DELTA_KEY", PLANTED_WRONG_KEY).run(&["ping"]).expect(6);
    server.cli().run_with(&["put", "s", PLANTED_KEY], document.as_bytes()).expect(0);
    server.cli().run(&["list", "s", "--documents"]).expect(0);
    for metrics in [http.get("/metrics").text(), server.cli().run(&["stats"]).expect(0).text()] {
        for planted in [PLANTED_DOCUMENT, PLANTED_KEY, ADMIN_KEY] {
            assert!(!metrics.contains(planted), "a figure names {planted}");
        }
    }
}

fn search(directory: &Path, logs: &str, root_key: &str) {
    let raw_key = [0xe7; 32];
    let planted: [(&str, &[u8]); 7] = [
        ("a document", PLANTED_DOCUMENT.as_bytes()),
        ("a member name", PLANTED_MEMBER.as_bytes()),
        ("an entity key", PLANTED_KEY.as_bytes()),
        ("a wrong credential", PLANTED_WRONG_KEY.as_bytes()),
        ("the admin key", ADMIN_KEY.as_bytes()),
        ("the root key", root_key.as_bytes()),
        ("the root key's bytes", &raw_key),
    ];
    let files = sources::files_below(directory);
    assert!(files.len() > 3);
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let name = file.display().to_string();
        for (what, planted) in planted {
            assert!(!contains(&bytes, planted), "{name} holds {what} in plaintext");
            assert!(!contains(name.as_bytes(), planted), "the name {name} tells {what}");
        }
    }
    for (what, planted) in &planted[..6] {
        // An entity key is not content, yet no log line has a reason to hold one.
        assert!(!contains(logs.as_bytes(), planted), "the logs hold {what}");
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn the_process_cannot_be_dumped_and_hides_its_keys() {
    let server = TestServer::builder().variable("MASTER_KEY", &"e7".repeat(32)).start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}
