//! `Stats`: the figures as one JSON document, for people and scripts.

use super::Metrics;
use super::catalogue::{DISTRIBUTIONS, FIGURES, Unit};
use super::process;
use serde_json::{Map, Value, json};

/// `{"version", "process", "totals", "shards", …}`; members of `extra`, an object, are added and win.
pub fn stats_json(metrics: &Metrics, extra: Value) -> String {
    let shards: Vec<Map<String, Value>> = metrics.shards.iter().map(shard_figures).collect();
    let mut totals = Map::new();
    let adds_up =
        |name: &String| FIGURES.iter().all(|figure| figure.unit != Unit::UnixSeconds || figure.full_name() != *name);
    for (name, value) in shards.iter().flatten().filter(|(name, _)| adds_up(name)) {
        let total = totals.get(name).and_then(Value::as_u64).unwrap_or(0);
        totals.insert(name.clone(), (total + value.as_u64().unwrap_or(0)).into());
    }
    let process = process::read();
    let mut document = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "process": {
            "resident_bytes": process.resident_bytes,
            "cpu_seconds": process.cpu_seconds,
            "start_unix_seconds": process.start_unix_seconds,
            "threads": process.threads,
            "open_fds": process.open_fds,
        },
        "totals": totals,
        "shards": shards,
    });
    if let (Some(document), Value::Object(extra)) = (document.as_object_mut(), extra) {
        document.extend(extra);
    }
    document.to_string()
}

fn shard_figures(shard: &super::ShardMetrics) -> Map<String, Value> {
    let mut figures: Map<String, Value> =
        FIGURES.iter().map(|figure| (figure.full_name(), (figure.value)(shard).into())).collect();
    for distribution in DISTRIBUTIONS {
        let values = (distribution.values)(shard);
        let count: u64 = values.bucket_counts().iter().sum();
        figures.insert(format!("{}_count", distribution.name), count.into());
        figures.insert(format!("{}_sum{}", distribution.name, raw_unit(distribution.unit)), values.sum().into());
    }
    let http: u64 = shard.http.requests.iter().flatten().map(super::Counter::value).sum();
    let wire: u64 = shard.wire_requests.iter().map(super::Counter::value).sum();
    figures.insert("http_requests".into(), http.into());
    figures.insert("wire_requests".into(), wire.into());
    figures
}

/// Sums are kept in the unit recorded: nanoseconds where `/metrics` shows seconds.
fn raw_unit(unit: &str) -> &'static str {
    match unit {
        "seconds" => "_ns",
        "bytes" => "_bytes",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_the_shards_and_extras_join() {
        let metrics = Metrics::new(2);
        metrics.shards[0].entities.set(3);
        metrics.shards[1].entities.set(4);
        metrics.shards[1].http.requests[0][0].add(9);
        let text = stats_json(&metrics, json!({"store_id": "x", "version": "other"}));
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["totals"]["entities"], 7);
        assert_eq!(document["totals"]["http_requests"], 9);
        let moment = "scrub_last_pass_unix_seconds";
        assert!(document["totals"][moment].is_null() && document["shards"][0][moment] == 0, "moments do not add up");
        assert_eq!(document["shards"][1]["entities"], 4);
        assert_eq!((&document["store_id"], &document["version"]), (&json!("x"), &json!("other")));
        assert!(document["process"]["resident_bytes"].as_u64() > Some(0));
    }
}
