//! Every route, method and status, as tables.

use super::fake_api::BODY_BYTES_MAX;
use super::harness::{Client, request};
use crate::command::ErrorCode;
use crate::gateway::http::routes::RESOURCES;
use serde_json::json;

/// Checks what every problem document must hold.
fn check_problem(answer: &super::harness::Answer, what: &str) {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    let problem = answer.json();
    assert_eq!(problem["status"], answer.status, "{what}");
    for member in ["type", "title", "detail", "error"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{what}: {member} in {problem}");
    }
    assert_eq!(answer.header("retry-after").is_some(), answer.status == 503, "{what}");
    assert_eq!(answer.header("www-authenticate").is_some(), answer.status == 401, "{what}");
    assert_eq!(answer.header("allow").is_some(), answer.status == 405, "{what}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
}

#[test]
fn each_request_has_its_status() {
    // One store for the whole table: later rows see what earlier ones did.
    let table: &[(&str, &str, &[&str], &str, u16)] = &[
        ("GET", "/entity/s/a", &[], "", 404),
        ("PUT", "/entity/s/a", &[], "{\"n\":1}", 201),
        ("PUT", "/entity/s/a", &[], "{\"n\":2}", 200),
        ("GET", "/entity/s/a", &[], "", 200),
        ("GET", "/entity/s?key=a", &[], "", 200),
        ("HEAD", "/entity/s/a", &[], "", 200),
        ("HEAD", "/entity/s/nothing", &[], "", 404),
        ("GET", "/entity/s/a", &["if-none-match: \"2\""], "", 304),
        ("GET", "/entity/s/a", &["if-none-match: W/\"1\", W/\"2\""], "", 304),
        ("GET", "/entity/s/a", &["if-none-match: \"1\""], "", 200),
        ("GET", "/entity/s/a", &["if-match: \"1\""], "", 412),
        ("GET", "/entity/s/a", &["if-match: W/\"2\""], "", 412),
        ("GET", "/entity/s/a", &["if-match: \"2\""], "", 200),
        ("GET", "/entity/s/a", &["if-match: 2"], "", 400),
        ("GET", "/entity/s/nothing", &["if-match: *"], "", 404),
        ("PUT", "/entity/s/a", &["if-none-match: *"], "1", 412),
        ("PUT", "/entity/s/b", &["if-none-match: *"], "1", 201),
        ("PUT", "/entity/s/c", &["if-match: *"], "1", 412),
        ("PUT", "/entity/s/a", &["if-match: \"1\""], "1", 412),
        ("PUT", "/entity/s/a", &["if-match: \"elsewhere\""], "1", 412),
        ("PUT", "/entity/s/a", &["if-match: W/\"2\""], "1", 412),
        ("PUT", "/entity/s/a", &["if-match: \"1\", \"2\""], "1", 200),
        ("PUT", "/entity/s/a", &["if-match: *"], "1", 200),
        ("PUT", "/entity/s/a", &["if-none-match: \"9\""], "1", 400),
        ("PUT", "/entity/s/a", &["if-match: *", "if-none-match: *"], "1", 400),
        ("PUT", "/entity/s/a", &[], "{broken", 400),
        ("PUT", "/entity/s/a", &["content-type: application/json; charset=utf-8"], "1", 200),
        ("PUT", "/entity/s/a", &["content-type: text/plain"], "1", 415),
        ("PUT", "/entity/s/a", &["content-encoding: gzip"], "1", 415),
        ("PUT", "/entity/s/fail-schema_violation", &[], "1", 422),
        ("PUT", "/entity/s/fail-overloaded", &[], "1", 503),
        ("PUT", "/entity/s/fail-outcome_unknown", &[], "1", 503),
        ("PUT", "/entity/s/fail-out_of_space", &[], "1", 507),
        ("GET", "/entity/s/fail-corrupted", &[], "", 500),
        ("PATCH", "/entity/s/a", &[], "{}", 405),
        ("POST", "/entity/s/a", &[], "{}", 405),
        ("TRACE", "/entity/s/a", &[], "", 405),
        ("OPTIONS", "/entity/s/a", &[], "", 204),
        ("DELETE", "/entity/s/b", &["if-match: \"77\""], "", 412),
        ("DELETE", "/entity/s/b", &["if-none-match: *"], "", 400),
        ("DELETE", "/entity/s/b", &["if-match: *"], "", 200),
        ("DELETE", "/entity/s/b", &[], "", 404),
        ("DELETE", "/entity/s?key=a", &[], "", 200),
        ("DELETE", "/entity/s?key=a", &[], "", 404),
        ("DELETE", "/entity/s", &[], "", 400),
        ("PUT", "/entity/s", &[], "{\"x\":1,\"y\":[2]}", 200),
        ("PUT", "/entity/s", &["if-match: *"], "{\"x\":1}", 400),
        ("PUT", "/entity/s", &[], "{\"x\":1,\"x\":2}", 400),
        ("PUT", "/entity/s", &[], "[1]", 400),
        ("PUT", "/entity/s", &[], "{}", 200),
        ("PUT", "/entity/s", &[], "{\"a/b\":1}", 400),
        ("PUT", "/entity/s", &["content-type: text/csv"], "{}", 415),
        ("GET", "/entity/s", &[], "", 200),
        ("GET", "/entity/s?limit=1&documents=true&prefix=x&after=a", &[], "", 200),
        ("GET", "/entity/s?limit=0", &[], "", 400),
        ("GET", "/entity/s?limit=1001", &[], "", 400),
        ("GET", "/entity/s?limit=many", &[], "", 400),
        ("GET", "/entity/s?documents=maybe", &[], "", 400),
        ("GET", "/entity/s?unknown=1", &[], "", 400),
        ("GET", "/entity/s?prefix=a&prefix=b", &[], "", 400),
        ("GET", "/entity/s?key=a&prefix=b", &[], "", 400),
        ("GET", "/entity/s/x?prefix=b", &[], "", 400),
        ("GET", "/entity/s/a%2Fb", &[], "", 400),
        ("GET", "/entity/../x", &[], "", 400),
        ("GET", "/entity/s/%2e%2e", &[], "", 400),
        ("GET", "/entity/s/%ff", &[], "", 400),
        ("GET", "/entity/s/%zz", &[], "", 400),
        ("GET", "/entity/s/%01", &[], "", 400),
        ("GET", "/entity/s/", &[], "", 400),
        ("GET", "/entity//x", &[], "", 400),
        ("GET", "/entity", &[], "", 404),
        ("GET", "/entity/s/x/y", &[], "", 404),
        ("GET", "/nothing", &[], "", 404),
        ("GET", "/api/keys", &[], "", 404),
        ("GET", "/schema/s", &[], "", 404),
        ("PUT", "/schema/s", &[], "{\"type\":\"object\"}", 201),
        ("PUT", "/schema/s", &[], "{}", 200),
        ("PUT", "/schema/s", &[], "7", 400),
        ("PUT", "/schema/s", &["if-match: *"], "{}", 400),
        ("GET", "/schema/s", &[], "", 200),
        ("POST", "/schema/s", &[], "{}", 405),
        ("GET", "/admin/schemas", &[], "", 200),
        ("DELETE", "/schema/s", &[], "", 200),
        ("DELETE", "/schema/s", &[], "", 404),
        ("GET", "/api/schemas", &[], "", 200),
        ("GET", "/api/schemas?counts=true", &[], "", 200),
        ("GET", "/admin/stats", &[], "", 200),
        ("DELETE", "/admin/stats", &[], "", 405),
        ("POST", "/admin/keys/rotate", &[], "", 200),
        ("GET", "/admin/keys/rotate", &[], "", 405),
        ("GET", "/health", &[], "", 200),
        ("HEAD", "/health", &[], "", 200),
        ("GET", "/livez", &[], "", 200),
        ("GET", "/readyz", &[], "", 200),
        ("GET", "/readyz?verbose", &[], "", 400),
        ("GET", "/metrics", &[], "", 200),
        ("GET", "/", &[], "", 200),
        ("POST", "/", &[], "", 405),
        ("OPTIONS", "/", &[], "", 204),
    ];
    let mut client = Client::new();
    for (method, target, headers, body, status) in table {
        let answer = client.ask(method, target, headers, body);
        let what = format!("{method} {target} {headers:?} {body}");
        assert_eq!(answer.status, *status, "{what}: {}", answer.body);
        if *status >= 400 && *method != "HEAD" {
            check_problem(&answer, &what);
        }
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{what}");
        assert!(!client.is_closed(), "{what}: small requests keep their connection");
    }
}

#[test]
fn every_error_code_becomes_its_status() {
    let mut client = Client::new();
    for code in ErrorCode::ALL {
        let answer = client.ask("PUT", &format!("/entity/s/fail-{}", code.name()), &[], "1");
        assert_eq!(answer.status, code.http_status());
        assert_eq!(answer.json()["error"], code.name());
        if code.http_status() != 405 {
            check_problem(&answer, code.name());
        }
    }
}

#[test]
fn credentials_and_permissions_are_demanded_before_anything_else() {
    let mut client = Client::new();
    let powerless = ["authorization: bearer powerless"];
    let wrong = ["authorization: Bearer wrong"];
    let basic = ["authorization: Basic a2V5"];
    for resource in RESOURCES {
        for route in resource.routes {
            let target = match resource.allow {
                _ if std::ptr::eq(resource, &RESOURCES[0]) => "/entity/s/%zz",
                _ if std::ptr::eq(resource, &RESOURCES[1]) => "/entity/%zz?key=1&nonsense",
                _ => continue,
            };
            let method = route.method.as_str();
            for headers in [&[][..], &wrong, &basic] {
                let answer = client.ask_bare(method, target, headers, "");
                assert_eq!(answer.status, 401, "{method} {target} {headers:?}");
                check_problem(&answer, target);
            }
            assert_eq!(client.ask_bare(method, target, &powerless, "").status, 403, "{method} {target}");
            assert_eq!(client.ask(method, target, &[], "").status, 400, "{method} {target}");
        }
    }
    let guarded = [
        ("PUT", "/schema/s"),
        ("DELETE", "/schema/s"),
        ("GET", "/api/schemas"),
        ("GET", "/admin/stats"),
        ("POST", "/admin/keys/rotate"),
    ];
    for (method, target) in guarded {
        assert_eq!(client.ask_bare(method, target, &[], "").status, 401, "{method} {target}");
        let answer = client.ask_bare(method, target, &powerless, "");
        assert_eq!(answer.status, 403, "{method} {target}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("permission"), "{}", answer.body);
    }
    assert_eq!(client.api.calls.get(), 0, "nothing of this may reach the server behind");
    for target in ["/schema/s", "/admin/schemas", "/health", "/livez", "/readyz", "/metrics", "/"] {
        let answer = client.ask_bare("GET", target, &wrong, "");
        assert!([200, 404].contains(&answer.status), "{target} is open to everyone");
    }
}

#[test]
fn documents_come_back_as_the_bytes_that_were_sent() {
    let mut client = Client::new();
    let document = format!("{{ \"text\" :\t\"{}\",\n \"n\": 1.50 }}", "x".repeat(60_000));
    let answer = client.ask("PUT", "/entity/s/a%20b", &[], &document);
    assert_eq!((answer.status, answer.header("etag")), (201, Some("\"1\"")));
    assert_eq!(answer.json(), json!({"status": "ok", "version": 1, "created": true}));
    let answer = client.ask("GET", "/entity/s?key=a+b", &[], "");
    assert_eq!((answer.header("etag"), answer.header("content-type")), (Some("\"1\""), Some("application/json")));
    assert_eq!(answer.body, document);
    let head = client.ask("HEAD", "/entity/s/a%20b", &[], "");
    assert_eq!(head.header("content-length"), Some(document.len().to_string().as_str()));
    let cached = client.ask("GET", "/entity/s/a%20b", &["if-none-match: \"1\""], "");
    assert_eq!((cached.status, cached.header("etag"), cached.body.as_str()), (304, Some("\"1\""), ""));
}

#[test]
fn a_failed_condition_names_the_version_found() {
    let mut client = Client::new();
    client.api.insert("s", "a", "1");
    let answer = client.ask("PUT", "/entity/s/a", &["if-match: \"9\""], "2");
    assert_eq!((answer.status, answer.header("etag")), (412, Some("\"1\"")));
    assert_eq!(answer.json()["version"], 1);
}

#[test]
fn many_documents_answer_with_versions_and_with_what_failed() {
    let mut client = Client::new();
    let answer = client.ask("PUT", "/entity/s", &[], "{\"b\":1,\"a\":2}");
    assert_eq!(answer.body, "{\"status\":\"ok\",\"versions\":{\"b\":1,\"a\":2}}");

    let body = "{\"ok\":1,\"fail-schema_violation\":2,\"fail-overloaded\":3}";
    let answer = client.ask("PUT", "/entity/s", &[], body);
    check_problem(&answer, "partial failure");
    let problem = answer.json();
    assert_eq!((answer.status, &problem["error"]), (503, &json!("overloaded")), "the worst decides");
    assert_eq!(problem["versions"], json!({"ok": 3}));
    assert_eq!(problem["errors"][0]["key"], "fail-schema_violation");
    assert_eq!(problem["errors"][0]["status"], 422);
    assert_eq!(problem["errors"][0]["violations"][0]["pointer"], "/a");
    assert_eq!(problem["errors"][1]["key"], "fail-overloaded");

    let unknown = "{\"fail-out_of_space\":1,\"fail-outcome_unknown\":2}";
    let answer = client.ask("PUT", "/entity/s", &[], unknown);
    assert_eq!(answer.json()["error"], "outcome_unknown", "not knowing is worse than any failure");
}

#[test]
fn violations_are_listed() {
    let answer = Client::new().ask("PUT", "/entity/s/fail-schema_violation", &[], "1");
    let expected = json!([{"pointer": "/a", "keyword": "type", "detail": "is not a string"}]);
    assert_eq!(answer.json()["errors"], expected);
}

#[test]
fn listings_page_with_a_cursor() {
    let mut client = Client::new();
    for key in ["a1", "a2", "a\"3", "b"] {
        client.api.insert("s", key, "{ }");
    }
    let mut found = Vec::new();
    let mut target = "/entity/s?prefix=a&limit=2&documents=1".to_owned();
    loop {
        let page = client.ask("GET", &target, &[], "").json();
        for entry in page["entries"].as_array().unwrap() {
            assert_eq!(entry["document"], json!({}));
            found.push(entry["key"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/entity/s?prefix=a&limit=2&documents=1&after={}", next.replace('"', "%22"));
    }
    assert_eq!(found, ["a\"3", "a1", "a2"]);
    let page = client.ask("GET", "/entity/s?prefix=zzz", &[], "");
    assert_eq!(page.body, "{\"entries\":[],\"next\":null}");
    let entry = client.ask("GET", "/entity/s?prefix=b", &[], "").json();
    assert_eq!(entry["entries"], json!([{"key": "b", "version": 4}]));
}

#[test]
fn lines_stream_every_page() {
    let mut client = Client::new();
    for number in 0..2500 {
        client.api.insert("s", &format!("k{number:04}"), "{\r\n\"a\": 1\n}");
    }
    let lines = ["accept: application/x-ndjson"];
    let answer = client.ask("GET", "/entity/s?documents=true", &lines, "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    assert!(!answer.broken_off);
    let keys: Vec<String> = answer
        .body
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|entry| entry["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys, (0..2500).map(|number| format!("k{number:04}")).collect::<Vec<_>>());

    let some = client.ask("GET", "/entity/s?limit=1234&after=k0009", &lines, "");
    assert_eq!(some.body.lines().count(), 1234);
    assert!(some.body.starts_with("{\"key\":\"k0010\",\"version\":11}\n"));
    assert_eq!(client.ask("GET", "/entity/nothing", &lines, "").body, "");
    assert_eq!(client.ask("HEAD", "/entity/s", &lines, "").status, 200);
    assert_eq!(client.ask("GET", "/entity/s/k0001", &[], "").status, 200, "the connection is still good");
}

#[test]
fn a_listing_that_breaks_off_does_not_look_complete() {
    let mut client = Client::new();
    for number in 0..200 {
        client.api.insert("s", &format!("broken{number:03}"), "1");
    }
    let answer = client.ask("GET", "/entity/s?prefix=broken", &["accept: application/x-ndjson"], "");
    assert_eq!(answer.status, 200);
    assert!(answer.broken_off && client.is_closed());
}

#[test]
fn schemas_and_templates_are_listed() {
    let mut client = Client::new();
    client.ask("PUT", "/schema/people", &[], "{ \"type\": \"object\" }");
    assert_eq!(client.ask_bare("GET", "/schema/people", &[], "").body, "{ \"type\": \"object\" }");
    assert_eq!(client.ask_bare("GET", "/admin/schemas", &[], "").body, "{\"templates\":[\"people\"]}");
    let plain = client.ask("GET", "/api/schemas", &[], "").json();
    assert_eq!(plain, json!({"schemas": [{"id": "people"}, {"id": "things"}]}));
    let counted = client.ask("GET", "/api/schemas?counts=true", &[], "").json();
    assert_eq!(counted["schemas"][1], json!({"id": "things", "entities": 1}));
    let rotated = client.ask("POST", "/admin/keys/rotate", &[], "").json();
    assert_eq!(rotated, json!({"status": "ok", "key_id": "00ff"}));
}

#[test]
fn a_server_that_is_not_ready_says_why() {
    let mut client = Client::new();
    {
        let mut health = client.api.health.borrow_mut();
        health.ready = false;
        health.reasons = vec!["shard 0: a write to the log failed".into()];
    }
    for target in ["/readyz", "/health"] {
        let answer = client.ask_bare("GET", target, &[], "");
        assert_eq!(answer.status, 503);
        check_problem(&answer, target);
        assert_eq!(answer.json()["reasons"], json!(["shard 0: a write to the log failed"]));
    }
    assert_eq!(client.ask_bare("GET", "/livez", &[], "").status, 200);
    let mut health = client.api.health.borrow_mut();
    (health.ready, health.draining) = (true, true);
    drop(health);
    assert_eq!(client.ask_bare("GET", "/readyz", &[], "").status, 503);
}

#[test]
fn the_page_comes_with_a_policy_that_fits_it() {
    let answer = Client::new().ask_bare("GET", "/", &[], "");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-frame-options"), Some("DENY"));
}

#[test]
fn requests_are_counted_by_route_and_status() {
    let mut client = Client::new();
    client.ask("PUT", "/entity/s/a", &[], "1");
    client.ask("GET", "/entity/s?key=a", &[], "");
    client.ask("GET", "/entity/s", &[], "");
    client.ask_bare("GET", "/entity/s/a", &[], "");
    client.ask("GET", "/nowhere", &[], "");
    let text = client.ask_bare("GET", "/metrics", &[], "").body;
    for (route, status) in
        [("entity_put", 201), ("entity_get", 200), ("entity_list", 200), ("entity_get", 401), ("other", 404)]
    {
        let line = format!("deltadb_http_requests_total{{route=\"{route}\",status=\"{status}\"}} 1\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
}

#[test]
fn a_panic_is_answered_and_counted() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut client = Client::new();
    let answer = client.ask("GET", "/entity/s/panic", &[], "");
    std::panic::set_hook(hook);
    check_problem(&answer, "panic");
    assert_eq!((answer.status, answer.header("connection")), (500, Some("close")));
    assert_eq!(client.metrics().panics_caught.value(), 1);
}

#[test]
fn bodies_over_the_limit_are_refused_unread() {
    let mut client = Client::new();
    let head = request("PUT", "/entity/s/a", &["authorization: Bearer the-admin-key"], "");
    let head = head.strip_suffix("\r\n").unwrap();
    client.send(format!("{head}content-length: {}\r\n\r\n", BODY_BYTES_MAX + 1));
    let answers = super::harness::Answer::all(&client.take(), false);
    assert_eq!((answers[0].status, answers[0].header("connection")), (413, Some("close")));
    check_problem(&answers[0], "too large");
    // The connection drains what still comes, for a while, so that the reply is not lost to a reset.
    assert!(client.is_shut_down() && !client.is_closed());
    client.send(vec![b'x'; 50_000]);
    assert!(!client.is_closed());
    client.advance(2_000);
    assert!(client.is_closed());
    assert_eq!(client.api.calls.get(), 0);
}
