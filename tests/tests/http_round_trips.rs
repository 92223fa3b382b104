//! Everything the HTTP gateway promises when all goes well.

use delta_tests::{TestServer, filler, http::encode};
use serde_json::{Value, json};

#[test]
fn a_document_comes_back_byte_for_byte() {
    let server = TestServer::builder().shards(2).start();
    let mut http = server.http();
    let document = "{ \"b\" : 1.0,\n\t\"a\":[true,null,\"\\u00e4\"] }";
    let written = http.put("/entity/people/ada", document).expect(201);
    let version = written.header("etag").expect("a write has an ETag").to_owned();
    let read = http.get("/entity/people/ada").expect(200);
    assert_eq!(read.text(), document);
    assert_eq!(read.header("etag"), Some(version.as_str()));
    assert!(read.header("content-type").unwrap().starts_with("application/json"));
    assert_eq!(http.get("/entity/people?key=ada").expect(200).text(), document);
    server.stop_cleanly();
}

#[test]
fn a_repeated_name_is_kept_as_sent_and_its_last_value_validated() {
    let server = TestServer::start();
    let mut http = server.http();
    http.put("/schema/n", r#"{"properties":{"a":{"type":"integer"}}}"#);
    let document = r#"{"a":"text","b":0,"a":1}"#;
    http.put("/entity/n/k", document).expect(201);
    http.put("/entity/n/k", r#"{"a":1,"b":0,"a":"text"}"#).expect_problem(422);
    assert_eq!(http.get("/entity/n/k").expect(200).text(), document);
}

#[test]
fn a_map_writes_each_key_and_says_its_version() {
    let server = TestServer::builder().shards(2).start();
    let mut http = server.http();
    let reply = http.put("/entity/people", r#"{"ada":{"n":1},"bob":[2],"cy":"three","dee":4}"#).expect(200).json();
    assert_eq!(reply["status"], "ok");
    assert_eq!(reply["versions"].as_object().unwrap().len(), 4);
    for (key, expected) in [("ada", r#"{"n":1}"#), ("bob", "[2]"), ("cy", "\"three\""), ("dee", "4")] {
        let read = http.get(&format!("/entity/people/{key}")).expect(200);
        assert_eq!(read.text(), expected);
        assert_eq!(read.header("etag").unwrap(), format!("\"{}\"", reply["versions"][key]));
    }
}

#[test]
fn versions_rise_and_conditions_hold() {
    let server = TestServer::start();
    let mut http = server.http();
    let path = "/entity/s/k";
    let json = ("content-type", "application/json");
    let first = http.request("PUT", path, &[json, ("if-none-match", "*")], b"1").expect(201);
    let first = first.header("etag").unwrap().to_owned();
    http.request("PUT", path, &[json, ("if-none-match", "*")], b"2").expect_problem(412);
    http.request("PUT", path, &[json, ("if-match", "\"999999\"")], b"2").expect_problem(412);
    let second = http.request("PUT", path, &[json, ("if-match", &first)], b"2").expect(200);
    let second = second.header("etag").unwrap().to_owned();
    let number = |tag: &str| tag.trim_matches('"').parse::<u64>().unwrap();
    assert!(number(&second) > number(&first));
    http.request("GET", path, &[("if-none-match", &second)], b"").expect(304);
    assert_eq!(http.request("GET", path, &[("if-none-match", &first)], b"").expect(200).text(), "2");
    http.request("DELETE", path, &[("if-match", &first)], b"").expect_problem(412);
    http.request("DELETE", path, &[("if-match", &second)], b"").expect(200);
    http.request("PUT", path, &[json, ("if-match", "*")], b"3").expect_problem(412);
    http.get(path).expect_problem(404);
    http.delete(path).expect_problem(404);
    let again = http.put(path, "4").expect(201);
    assert!(number(again.header("etag").unwrap()) > number(&second));
}

#[test]
fn both_forms_delete() {
    let server = TestServer::start();
    let mut http = server.http();
    http.put("/entity/s", r#"{"a":1,"b":2}"#).expect(200);
    assert_eq!(http.delete("/entity/s?key=a").expect(200).json()["status"], "ok");
    assert_eq!(http.delete("/entity/s/b").expect(200).json()["status"], "ok");
    http.get("/entity/s?key=a").expect_problem(404);
    http.get("/entity/s/b").expect_problem(404);
}

#[test]
fn names_of_every_allowed_kind_work_percent_encoded() {
    let server = TestServer::builder().shards(2).start();
    let mut http = server.http();
    let long = "k".repeat(512);
    for (position, key) in ["ä ö", "a.b", "?&=#%+", "\"quoted\"", "日本", &long].into_iter().enumerate() {
        let path = format!("/entity/{}/{}", encode("schéma"), encode(key));
        http.put(&path, &position.to_string()).expect(201);
        assert_eq!(http.get(&path).expect(200).text(), position.to_string(), "{key}");
        let query = format!("/entity/{}?key={}", encode("schéma"), encode(key));
        assert_eq!(http.get(&query).expect(200).text(), position.to_string(), "{key}");
    }
}

#[test]
fn listings_go_through_every_key_once_in_order() {
    let server = TestServer::builder().shards(2).start();
    let mut http = server.http();
    let map: serde_json::Map<String, Value> = (0..250).map(|n| (format!("k{n:03}"), json!(n))).collect();
    http.put("/entity/s", &Value::Object(map).to_string()).expect(200);
    http.put("/entity/s/other", "1").expect(201);
    let mut keys = Vec::new();
    let mut after = String::new();
    loop {
        let page = http.get(&format!("/entity/s?prefix=k&limit=60&after={}", encode(&after))).expect(200).json();
        let entries = page["entries"].as_array().unwrap_or_else(|| panic!("{page}"));
        keys.extend(entries.iter().map(|entry| entry["key"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(keys, (0..250).map(|n| format!("k{n:03}")).collect::<Vec<_>>());
    let page = http.get("/entity/s?prefix=k00&documents=true").expect(200).json();
    let documents: Vec<_> = page["entries"].as_array().unwrap().iter().map(|entry| &entry["document"]).collect();
    assert_eq!(documents, (0..10).map(|n| json!(n)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    let streamed = http.request("GET", "/entity/s?documents=true", &[("accept", "application/x-ndjson")], b"");
    assert_eq!(streamed.expect(200).text().lines().count(), 251);
    assert_eq!(http.get("/entity/nothing?prefix=").expect(200).json()["entries"], json!([]));
}

#[test]
fn templates_are_kept_listed_applied_and_removed() {
    let server = TestServer::builder().shards(2).start();
    let mut http = server.http();
    let template = r#"{"type":"object","required":["name"],"properties":{"name":{"type":"string"}}}"#;
    http.put("/schema/people", template);
    assert_eq!(http.get("/schema/people").expect(200).json(), serde_json::from_str::<Value>(template).unwrap());
    assert!(http.get("/admin/schemas").expect(200).text().contains("\"people\""));
    http.put("/entity/people/ada", r#"{"name":"Ada"}"#).expect(201);
    let refused = http.put("/entity/people/bob", r#"{"name":7}"#).expect_problem(422).json();
    assert_eq!(refused["errors"][0]["pointer"], "/name", "{refused}");
    assert_eq!(refused["errors"][0]["keyword"], "type", "{refused}");
    http.get("/entity/people/bob").expect(404);
    http.delete("/schema/people").expect(200);
    http.get("/schema/people").expect_problem(404);
    http.put("/entity/people/bob", r#"{"name":7}"#).expect(201);
    let counted = http.get("/api/schemas?counts=true").expect(200).text();
    assert!(counted.contains("people") && counted.contains('2'), "{counted}");
}

#[test]
fn templates_are_applied_to_each_key_of_a_map_before_any_is_written() {
    let server = TestServer::builder().shards(2).start();
    let mut http = server.http();
    http.put("/schema/numbers", r#"{"type":"integer"}"#);
    let refused = http.put("/entity/numbers", r#"{"good":1,"bad":"x"}"#).expect_problem(422);
    assert!(refused.text().contains("bad"), "{}", refused.text());
    http.get("/entity/numbers/good").expect(404);
}

#[test]
fn an_edited_template_file_counts_without_a_restart() {
    let server = TestServer::start();
    let mut http = server.http();
    http.put("/schema/n", r#"{"type":"integer"}"#);
    http.put("/entity/n/a", "\"text\"").expect_problem(422);
    std::fs::write(server.data_dir().join("templates/n.json"), r#"{"type":"string"}"#).unwrap();
    delta_tests::eventually("the edited template counts", || http.put("/entity/n/a", "\"text\"").status < 300);
    http.put("/entity/n/a", "1").expect_problem(422);
}

#[test]
fn large_documents_and_pipelined_requests_come_back_whole_and_in_order() {
    let server = TestServer::builder().shards(2).start();
    let mut http = server.http();
    let large = format!("\"{}\"", filler(900_000, 1));
    http.put("/entity/s/large", &large).expect(201);
    assert!(http.get("/entity/s/large").expect(200).text() == large, "the large document differs");
    http.put(
        "/entity/s",
        &json!((0..50).map(|n| (format!("k{n}"), json!(n))).collect::<serde_json::Map<_, _>>()).to_string(),
    )
    .expect(200);
    let mut stream = delta_tests::http::connect(server.rest).unwrap();
    let requests: String = (0..50)
        .map(|n| {
            format!(
                "GET /entity/s/k{n} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
                delta_tests::ADMIN_KEY
            )
        })
        .collect();
    std::io::Write::write_all(&mut stream, requests.as_bytes()).unwrap();
    let mut ahead = Vec::new();
    for n in 0..50 {
        let response = delta_tests::http::read_response(&mut stream, &mut ahead, false).unwrap();
        assert_eq!(response.expect(200).text(), n.to_string());
    }
}

#[test]
fn a_client_that_ends_its_side_gets_every_reply_it_is_owed() {
    let server = TestServer::builder().shards(2).start();
    let mut stream = delta_tests::http::connect(server.rest).unwrap();
    let head = format!("host: x\r\nauthorization: Bearer {}\r\n", delta_tests::ADMIN_KEY);
    let puts: String =
        (0..20).map(|n| format!("PUT /entity/s/k{n} HTTP/1.1\r\n{head}content-length: 1\r\n\r\n{}", n % 10)).collect();
    std::io::Write::write_all(&mut stream, puts.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut ahead = Vec::new();
    for _ in 0..20 {
        delta_tests::http::read_response(&mut stream, &mut ahead, false).unwrap().expect(201);
    }
    assert_eq!(std::io::Read::read(&mut stream, &mut [0]).unwrap(), 0, "then the server ends its side too");
}

#[test]
fn probes_and_metrics_need_no_key() {
    let server = TestServer::builder().shards(2).start();
    server.http().put("/entity/s/k", "1").expect(201);
    let mut http = server.http_anonymous();
    for path in ["/health", "/livez", "/readyz"] {
        http.get(path).expect(200);
    }
    let metrics = http.get("/metrics").expect(200);
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain") || metrics.text().contains("# TYPE"));
    for series in [
        "deltadb_http_requests_total{route=\"entity_put\",status=\"201\"} 1\n",
        "deltadb_http_request_duration_seconds_count{route=\"entity_put\",status=\"2xx\"} 1\n",
        "deltadb_wire_request_duration_seconds_count{shard=\"1\"} ",
        "deltadb_cache_hits_total{shard=\"0\"} ",
        "deltadb_commit_duration_seconds_bucket{",
        "deltadb_commit_size_bytes_sum{",
        "deltadb_segment_wait_seconds_count{",
        "deltadb_network_received_bytes_total{",
        "deltadb_writes_waiting{",
        "deltadb_mailbox_outstanding{",
        "deltadb_seal_failures_total{",
        "deltadb_open_failures_total{",
    ] {
        assert!(metrics.text().contains(series), "{series} is missing: {}", metrics.text());
    }
    for line in metrics.text().lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "not a sample: {line}");
    }
}
