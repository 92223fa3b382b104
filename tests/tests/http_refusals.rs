//! Bad input over HTTP: every status, each with a problem document, and nothing lost.

use delta_tests::{Response, TestServer, filler, http};
use std::io::Write;

#[test]
fn bad_json_is_400_and_writes_nothing() {
    let server = TestServer::start();
    let mut http = server.http();
    let deep = format!("{}1{}", "[".repeat(129), "]".repeat(129));
    let bomb = "[".repeat(100_000);
    for body in ["", "{", "{\"a\":}", "nul", "1 2", "{\"a\":1,}", "'a'", "[1,]", "\u{7f}", &deep, &bomb] {
        http.put("/entity/s/k", body).expect_problem(400);
    }
    http.request("PUT", "/entity/s/k", &[("content-type", "application/json")], b"\"\xff\xfe\"").expect_problem(400);
    http.get("/entity/s/k").expect_problem(404);
    let allowed = format!("{}1{}", "[".repeat(128), "]".repeat(128));
    http.put("/entity/s/k", &allowed).expect(201);
}

#[test]
fn a_map_that_is_no_map_or_names_a_key_twice_is_400_and_writes_nothing() {
    let server = TestServer::start();
    let mut http = server.http();
    for body in ["[]", "1", "\"x\"", "null", r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, r#"{"":1}"#, r#"{"a/b":1}"#] {
        http.put("/entity/s", body).expect_problem(400);
    }
    http.request("PUT", "/entity/s", &[("content-type", "application/json"), ("if-match", "\"1\"")], br#"{"a":1}"#)
        .expect_problem(400);
    http.get("/entity/s/a").expect_problem(404);
}

#[test]
fn bad_names_are_400() {
    let server = TestServer::start();
    let mut http = server.http();
    let long_key = "k".repeat(513);
    let long_schema = "s".repeat(129);
    for path in [
        "/entity/s/a..b",
        "/entity/s/%2e%2e",
        "/entity/s/a%2Fb",
        "/entity/s/a%5Cb",
        "/entity/s/a%00b",
        "/entity/s/a%0Ab",
        "/entity/s/a%7Fb",
        "/entity/s/%C2%85",
        "/entity/s/%FF",
        "/entity/s/%C3%28",
        "/entity/%2e%2e/k",
        "/entity/a%5Cb/k",
        &format!("/entity/s/{long_key}"),
        &format!("/entity/{long_schema}/k"),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let body = if method == "PUT" { &b"1"[..] } else { b"" };
            http.request(method, path, &[("content-type", "application/json")], body).expect_problem(400);
        }
    }
    http.put("/schema/a..b", "{}").expect_problem(400);
    assert!(!server.data_dir().join("a").exists());
}

#[test]
fn unknown_routes_are_404_and_wrong_methods_405_with_allow() {
    let server = TestServer::start();
    let mut http = server.http();
    for path in ["/nothing", "/entity", "/entity/s/k/more", "/admin/nothing", "/schema"] {
        http.get(path).expect_problem(404);
    }
    for (method, path) in [("POST", "/entity/s/k"), ("PUT", "/health"), ("DELETE", "/metrics"), ("POST", "/schema/s")] {
        let refused = http.request(method, path, &[("content-type", "application/json")], b"").expect_problem(405);
        assert!(refused.header("allow").is_some_and(|allow| !allow.is_empty()), "{method} {path}");
    }
}

#[test]
fn a_missing_or_wrong_key_is_401_and_does_not_show_it() {
    let server = TestServer::start();
    server.http().put("/entity/s/k", "1").expect(201);
    let mut http = server.http_anonymous();
    let wrong: [&[(&str, &str)]; 5] = [
        &[],
        &[("authorization", "Bearer wrong-key-hunter2")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Basic aHVudGVyMg==")],
        &[("authorization", "hunter2")],
    ];
    for headers in wrong {
        for (method, path) in [("GET", "/entity/s/k"), ("PUT", "/entity/s/k"), ("DELETE", "/schema/s")] {
            let refused = http.request(method, path, headers, b"").expect_problem(401);
            assert!(refused.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
            assert!(!refused.text().contains("hunter2") && !refused.text().contains("aHVudGVyMg"));
        }
    }
    assert_eq!(server.http().get("/entity/s/k").expect(200).text(), "1");
    assert!(!server.stderr().contains("hunter2"));
}

#[test]
fn an_oversize_body_is_413_however_it_is_announced() {
    let server = TestServer::builder().arguments(["--rest-max-body-size", "64KiB"]).start();
    let mut http = server.http();
    let body = format!("\"{}\"", filler(70_000, 3));
    http.put("/entity/s/k", &body).expect_problem(413);
    let mut stream = http::connect(server.rest).unwrap();
    let head = format!(
        "PUT /entity/s/k HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        delta_tests::ADMIN_KEY,
        body.len()
    );
    // The server may stop reading half-way; what counts is its answer.
    let _ = stream.write_all(head.as_bytes());
    http::read_response(&mut stream, &mut Vec::new(), false).unwrap().expect_problem(413);
    http.get("/entity/s/k").expect_problem(404);
    http.put("/entity/s/k", &format!("\"{}\"", filler(60_000, 3))).expect(201);
}

#[test]
fn another_media_type_is_415() {
    let server = TestServer::start();
    let mut http = server.http();
    for media in ["text/plain", "application/xml", "application/x-www-form-urlencoded"] {
        http.request("PUT", "/entity/s/k", &[("content-type", media)], b"1").expect_problem(415);
    }
    http.request("PUT", "/entity/s/k", &[("content-type", "application/json; charset=utf-8")], b"1").expect(201);
}

#[test]
fn an_invalid_template_is_400_with_the_reason_and_the_old_one_stays() {
    let server = TestServer::start();
    let mut http = server.http();
    http.put("/schema/s", r#"{"type":"integer"}"#);
    for template in [
        "{",
        "[]",
        r#"{"type":"nonsense"}"#,
        r#"{"required":"name"}"#,
        r#"{"pattern":"("}"#,
        r#"{"pattern":"(?=look)ahead"}"#,
        r#"{"$ref":"https://example.com/other.json"}"#,
        r#"{"$ref":"file:///etc/passwd"}"#,
    ] {
        let refused = http.put("/schema/s", template).expect_problem(400);
        assert!(refused.json()["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{template}");
    }
    http.put("/entity/s/k", "\"x\"").expect_problem(422);
    http.put("/entity/s/k", "1").expect(201);
}

#[test]
fn a_head_too_large_is_431() {
    let server = TestServer::start();
    let mut http = server.http();
    let long = "x".repeat(256 << 10);
    let response = http.request("GET", "/health", &[("x-filler", &long)], b"");
    assert_eq!(response.status, 431, "{}", response.text());
    server.http().get("/health").expect(200);
}

#[test]
fn what_is_not_http_is_answered_with_400_or_closed() {
    let server = TestServer::start();
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"X Y Z\r\n\r\n"]
    {
        let mut stream = http::connect(server.rest).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        if let Ok(response) = http::read_response(&mut stream, &mut Vec::new(), false) {
            assert_eq!(response.status, 400, "{}", response.text());
        }
    }
    server.http().get("/health").expect(200);
}

#[test]
fn bad_listing_parameters_are_400() {
    let server = TestServer::start();
    let mut http = server.http();
    for query in ["limit=0", "limit=x", "limit=-1", "limit=99999999999999999999", "documents=perhaps"] {
        http.get(&format!("/entity/s?{query}")).expect_problem(400);
    }
}

#[test]
fn a_damaged_template_file_refuses_writes_with_503_naming_it_and_nothing_else() {
    let server = TestServer::builder().shards(2).start();
    let mut http = server.http();
    http.put("/schema/s", r#"{"type":"integer"}"#);
    http.put("/entity/s/k", "1").expect(201);
    let file = server.data_dir().join("templates/s.json");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"{\"type\": nonsense").unwrap();
    delta_tests::eventually("the damage is noticed though nobody writes", || http.get("/readyz").status == 503);
    let name = file.display().to_string();
    let names_it = |refused: Response| {
        let text = refused.expect_problem(503).text();
        assert!(text.contains(&name) && text.contains("not valid JSON"), "{text}");
    };
    names_it(http.put("/entity/s/k", "2"));
    names_it(http.put("/entity/s", r#"{"k":2}"#));
    // The damaged text is not handed out as if it were a template, and the template is not said to be absent.
    names_it(http.get("/schema/s"));
    assert!(http.get("/admin/schemas").expect(200).text().contains("\"s\""));
    http.get("/entity/s/k").expect(200);
    http.put("/entity/other/k", "1").expect(201);
    std::fs::write(&file, good).unwrap();
    delta_tests::eventually("the repair is noticed", || http.get("/readyz").status == 200);
    http.put("/entity/s/k", "3").expect(200);
    http.get("/schema/s").expect(200);
    let log = server.stderr();
    let reports = log.lines().filter(|line| line.contains("cannot be used") && line.contains(&name));
    assert_eq!(reports.count(), 1, "damage is logged once: {log}");
}

#[test]
fn a_template_that_is_no_regular_file_is_damaged_and_holds_nothing_up() {
    let server = TestServer::builder().shards(2).start();
    let mut http = server.http();
    let templates = server.data_dir().join("templates");
    std::fs::create_dir(templates.join("directory.json")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(templates.join("pipe.json")).status().unwrap();
    assert!(made.success());
    delta_tests::eventually("both are noticed", || {
        let said = http.get("/readyz").text();
        ["directory.json", "pipe.json"].iter().all(|name| said.contains(name))
    });
    for schema in ["directory", "pipe"] {
        let refused = http.put(&format!("/entity/{schema}/k"), "1").expect_problem(503);
        assert!(refused.text().contains("no regular file"), "{}", refused.text());
    }
    http.put("/schema/other", r#"{"type":"integer"}"#).expect(201);
    http.put("/entity/other/k", "1").expect(201);
    std::fs::remove_file(templates.join("pipe.json")).unwrap();
    delta_tests::eventually("the removal is noticed", || http.put("/entity/pipe/k", "1").status == 201);
    server.stop_cleanly();
}

#[test]
fn what_is_done_to_template_files_is_logged_once_each() {
    let server = TestServer::start();
    let mut http = server.http();
    let file = server.data_dir().join("templates/n.json");
    std::fs::write(&file, r#"{"type":"string"}"#).unwrap();
    delta_tests::eventually("the new template counts", || http.put("/entity/n/a", "1").status == 422);
    std::fs::write(&file, r#"{"type":"integer"}"#).unwrap();
    delta_tests::eventually("the changed template counts", || http.put("/entity/n/a", "1").status < 300);
    std::fs::remove_file(&file).unwrap();
    delta_tests::eventually("the removal counts", || http.put("/entity/n/a", "\"text\"").status < 300);
    http.get("/schema/n").expect_problem(404);
    let logged = |what: &str| server.stderr().lines().filter(|line| line.contains(what)).count();
    delta_tests::eventually("all three are logged", || {
        ["n.json was added", "n.json was changed", "n.json was removed"].iter().all(|what| logged(what) == 1)
    });
    // What a client stores is no change of a file.
    http.put("/schema/n", "{}").expect(201);
    http.delete("/schema/n").expect(200);
    assert_eq!((logged("was added"), logged("was changed"), logged("was removed")), (1, 1, 1));
}
