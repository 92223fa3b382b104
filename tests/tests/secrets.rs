//! Nothing readable on disk or in the logs: a used store is searched for everything that was planted.

use delta_tests::{ADMIN_KEY, TestServer, sources};
use std::path::Path;
use std::process::{Command, Stdio};

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
    let scratch = tempfile::tempdir().unwrap();
    // Root may look into every process: the server, and whoever looks, run as somebody else.
    let nobody = rustix::process::geteuid().is_root();
    let builder = TestServer::builder().data_dir(scratch.path().join("data")).variable("MASTER_KEY", &"e7".repeat(32));
    let server = if nobody {
        // Where the binary was built, nobody else may be able to go.
        let copy = scratch.path().join("deltadb");
        std::fs::copy(delta_tests::binary::deltadb(), &copy).unwrap();
        for path in [scratch.path(), &copy] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let run_copy = ["sh".to_owned(), "-c".to_owned(), format!("shift; exec '{}' \"$@\"", copy.display())];
        builder.launcher(as_nobody().into_iter().map(str::to_owned).chain(run_copy).chain(["sh".to_owned()])).start()
    } else {
        builder.start()
    };
    server.http().put("/entity/s/k", "1").expect(201);

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let command_line = std::fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
    assert!(contains(&command_line, b"serve"), "it is the server that is looked at");

    // A process that can be dumped shows memory and environment to its own user; this one must not.
    let mut other = command_as(nobody, &["sleep", "60"]).spawn().unwrap();
    delta_tests::eventually("another process of this user can be looked into", || opens(nobody, other.id(), "environ"));
    let shown: Vec<_> =
        ["environ", "maps", "auxv"].into_iter().filter(|file| !opens(nobody, other.id(), file)).collect();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(shown.is_empty(), "another process of this user hides {shown:?}: what follows would prove nothing");
    for file in ["environ", "maps", "auxv", "mem", "fd/0"] {
        assert!(!opens(nobody, server.pid(), file), "/proc/PID/{file} of the server is open to its user");
    }
}

/// The id of a user without rights.
const NOBODY: u32 = 65534;

fn as_nobody() -> [&'static str; 5] {
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
}

fn command_as(nobody: bool, words: &[&str]) -> Command {
    let launcher = if nobody { &as_nobody()[..] } else { &[] };
    let words: Vec<&str> = launcher.iter().chain(words).copied().collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Whether a file of a process can be opened by its user.
fn opens(nobody: bool, pid: u32, file: &str) -> bool {
    let script = format!(": < /proc/{pid}/{file}");
    command_as(nobody, &["sh", "-c", &script]).status().unwrap().success()
}
