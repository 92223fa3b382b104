//! `/metrics`: all figures as OpenMetrics text, which Prometheus reads.
//!
//! Labels are few and bounded: shard, route, status, operation. Figures of HTTP routes are summed over the shards.

use super::catalogue::{DISTRIBUTIONS, Distribution, FIGURES, Figure, LATENCY_POWERS, SECONDS, Unit};
use super::process::{self, ProcessFigures};
use super::{HISTOGRAM_BUCKETS, HTTP_CLASSES, HTTP_ROUTES, HTTP_STATUSES, Metrics, ShardMetrics, WIRE_OPERATIONS};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as NameUnit};
use std::fmt::Error;
use std::sync::Arc;

/// Everything, with its end mark.
pub fn open_metrics(metrics: &Arc<Metrics>) -> String {
    let mut registry = Registry::default();
    registry.sub_registry_with_prefix("deltadb").register_collector(Box::new(ShardCollector(metrics.clone())));
    registry.sub_registry_with_prefix("process").register_collector(Box::new(ProcessCollector(process::read())));
    let mut text = String::with_capacity(64 << 10);
    // Writing to a String fails only if a figure refuses to be written, and then a scrape must not look complete.
    if text::encode(&mut text, &registry).is_err() {
        tracing::error!("the metrics could not be rendered");
        text.clear();
    }
    text
}

/// The figures of all shards.
#[derive(Debug)]
struct ShardCollector(Arc<Metrics>);

impl Collector for ShardCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let shards = &self.0.shards;
        let mut build = encoder.encode_descriptor("build", "Version of this server", None, MetricType::Info)?;
        build.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        for figure in FIGURES {
            encode_figure(&mut encoder, figure, shards)?;
        }
        for distribution in DISTRIBUTIONS {
            encode_distribution(&mut encoder, distribution, shards)?;
        }
        encode_wire_requests(&mut encoder, shards)?;
        encode_http_requests(&mut encoder, shards)?;
        encode_http_latency(&mut encoder, shards)
    }
}

fn encode_figure(encoder: &mut DescriptorEncoder, figure: &Figure, shards: &[ShardMetrics]) -> Result<(), Error> {
    let unit = match figure.unit {
        Unit::Things => None,
        Unit::Bytes => Some(&NameUnit::Bytes),
    };
    let kind = if figure.grows { MetricType::Counter } else { MetricType::Gauge };
    let mut metric = encoder.encode_descriptor(figure.name, figure.help, unit, kind)?;
    for (number, shard) in shards.iter().enumerate() {
        let labels = [("shard", number)];
        let mut series = metric.encode_family(&labels)?;
        let value = (figure.value)(shard);
        if figure.grows { count(&mut series, value)? } else { series.encode_gauge(&value)? }
    }
    Ok(())
}

fn encode_distribution(
    encoder: &mut DescriptorEncoder,
    distribution: &Distribution,
    shards: &[ShardMetrics],
) -> Result<(), Error> {
    let unit = unit_of(distribution.unit);
    let mut metric =
        encoder.encode_descriptor(distribution.name, distribution.help, unit.as_ref(), MetricType::Histogram)?;
    for (number, shard) in shards.iter().enumerate() {
        let values = (distribution.values)(shard);
        let summary = summarize(&values.bucket_counts(), values.sum(), distribution.powers, distribution.scale);
        let labels = [("shard", number)];
        summary.encode(&mut metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_wire_requests(encoder: &mut DescriptorEncoder, shards: &[ShardMetrics]) -> Result<(), Error> {
    let help = "Requests on the wire protocol";
    let mut metric = encoder.encode_descriptor("wire_requests", help, None, MetricType::Counter)?;
    for (number, shard) in shards.iter().enumerate() {
        for (operation, requests) in WIRE_OPERATIONS.iter().zip(&shard.wire_requests) {
            if requests.value() > 0 {
                let shard = number.to_string();
                let labels = [("shard", shard.as_str()), ("operation", operation)];
                count(&mut metric.encode_family(&labels)?, requests.value())?;
            }
        }
    }
    Ok(())
}

fn encode_http_requests(encoder: &mut DescriptorEncoder, shards: &[ShardMetrics]) -> Result<(), Error> {
    let help = "HTTP requests by route and status";
    let mut metric = encoder.encode_descriptor("http_requests", help, None, MetricType::Counter)?;
    for (route, name) in HTTP_ROUTES.iter().enumerate() {
        for (position, status) in HTTP_STATUSES.iter().enumerate() {
            let requests: u64 = shards.iter().map(|shard| shard.http.requests[route][position].value()).sum();
            if requests > 0 {
                let status = if *status == 0 { "other".to_owned() } else { status.to_string() };
                let labels = [("route", *name), ("status", status.as_str())];
                count(&mut metric.encode_family(&labels)?, requests)?;
            }
        }
    }
    Ok(())
}

fn encode_http_latency(encoder: &mut DescriptorEncoder, shards: &[ShardMetrics]) -> Result<(), Error> {
    let help = "Time from an HTTP request's head to its reply, by route and class of status";
    let unit = NameUnit::Seconds;
    let mut metric = encoder.encode_descriptor("http_request_duration", help, Some(&unit), MetricType::Histogram)?;
    for (route, name) in HTTP_ROUTES.iter().enumerate() {
        for (position, class) in HTTP_CLASSES.iter().enumerate() {
            let mut counts = [0; HISTOGRAM_BUCKETS];
            let mut sum = 0;
            for shard in shards {
                let latency = &shard.http.latency_ns[route][position];
                counts.iter_mut().zip(latency.bucket_counts()).for_each(|(total, more)| *total += more);
                sum += latency.sum();
            }
            if counts.iter().any(|count| *count > 0) {
                let labels = [("route", *name), ("status", *class)];
                summarize(&counts, sum, LATENCY_POWERS, SECONDS).encode(&mut metric.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}

/// A histogram as it is shown.
struct Summary {
    buckets: Vec<(f64, u64)>,
    sum: f64,
    count: u64,
}

impl Summary {
    fn encode(&self, series: &mut MetricEncoder<'_>) -> Result<(), Error> {
        series.encode_histogram::<NoLabelSet>(self.sum, self.count, &self.buckets, None)
    }
}

/// Merges buckets below the first power shown into its bucket, and those above the last into the unbounded one.
fn summarize(counts: &[u64; HISTOGRAM_BUCKETS], sum: u64, powers: (u32, u32), scale: f64) -> Summary {
    let (first, last) = powers;
    let mut buckets: Vec<(f64, u64)> = (first..=last).map(|power| (2f64.powi(power as i32) * scale, 0)).collect();
    buckets.push((f64::INFINITY, 0));
    let unbounded = buckets.len() - 1;
    for (index, count) in counts.iter().enumerate() {
        // Bucket `index` holds values below 2^(index + 1).
        let place = (index + 1).saturating_sub(first as usize).min(unbounded);
        if let Some(bucket) = buckets.get_mut(place) {
            bucket.1 += count;
        }
    }
    Summary { buckets, sum: sum as f64 * scale, count: counts.iter().sum() }
}

/// Figures of the process under the names that dashboards know.
#[derive(Debug)]
struct ProcessCollector(ProcessFigures);

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let figures = &self.0;
        if let Some(seconds) = figures.cpu_seconds {
            let unit = NameUnit::Seconds;
            let help = "User and system time";
            let mut metric = encoder.encode_descriptor("cpu", help, Some(&unit), MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, f64, f64>(&seconds, None)?;
        }
        gauge(&mut encoder, "resident_memory", "Resident memory", "bytes", figures.resident_bytes)?;
        gauge(&mut encoder, "virtual_memory", "Address space", "bytes", figures.virtual_bytes)?;
        let start = figures.start_unix_seconds;
        gauge(&mut encoder, "start_time", "Start in seconds since the Unix epoch", "seconds", start)?;
        gauge(&mut encoder, "threads", "Threads", "", figures.threads)?;
        gauge(&mut encoder, "open_fds", "Open file descriptors", "", figures.open_fds)?;
        gauge(&mut encoder, "max_fds", "Most file descriptors it may open", "", figures.max_fds)
    }
}

fn gauge<V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    unit: &str,
    value: Option<V>,
) -> Result<(), Error> {
    let Some(value) = value else { return Ok(()) };
    let unit = unit_of(unit);
    encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?.encode_gauge(&value)
}

fn unit_of(name: &str) -> Option<NameUnit> {
    match name {
        "bytes" => Some(NameUnit::Bytes),
        "seconds" => Some(NameUnit::Seconds),
        _ => None,
    }
}

fn count(series: &mut MetricEncoder<'_>, value: u64) -> Result<(), Error> {
    series.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    /// Reads the text as a scraper would: every sample belongs to the family declared before it, no family and no
    /// series comes twice, every value is a number, and the end mark is there. Returns series and values.
    fn scrape(text: &str) -> HashMap<String, f64> {
        let mut families = HashSet::new();
        let mut family = String::new();
        let mut samples = HashMap::new();
        let body = text.strip_suffix("# EOF\n").expect("the end mark");
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (keyword, name, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                match keyword {
                    "HELP" => {
                        assert!(families.insert(name.to_owned()), "{name} is declared twice");
                        assert!(!value.is_empty() && name.starts_with(['d', 'p']), "{line}");
                        family = name.to_owned();
                    }
                    "TYPE" => assert!(["counter", "gauge", "histogram", "info"].contains(&value), "{line}"),
                    "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                    _ => panic!("{line}"),
                }
                assert_eq!(name, family);
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect(line);
            let name = series.split('{').next().unwrap();
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} is not of {family}"));
            assert!(["", "_total", "_info", "_sum", "_count", "_bucket"].contains(&suffix), "{line}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
        }
        samples
    }

    #[test]
    fn a_scrape_parses_and_shows_what_was_counted() {
        let metrics = Metrics::new(2);
        metrics.shards[1].cache_hits.add(5);
        metrics.shards[0].cache_bytes.set(77);
        metrics.shards[0].wire_requests[2].add(3);
        for (shard, amount) in [(0, 2), (1, 3)] {
            metrics.shards[shard].http.requests[2][0].add(amount);
            metrics.shards[shard].http.latency_ns[2][0].record(5_000_000);
        }
        metrics.shards[1].http.latency_ns[2][3].record(1_000);
        metrics.shards[1].request_ns.record(1_000);
        let samples = scrape(&open_metrics(&metrics));
        assert_eq!(samples["deltadb_wire_request_duration_seconds_count{shard=\"1\"}"], 1.0);
        assert_eq!(samples["deltadb_cache_hits_total{shard=\"1\"}"], 5.0);
        assert_eq!(samples["deltadb_cache_bytes{shard=\"0\"}"], 77.0);
        assert_eq!(samples["deltadb_wire_requests_total{shard=\"0\",operation=\"put\"}"], 3.0);
        assert_eq!(samples["deltadb_http_requests_total{route=\"entity_put\",status=\"200\"}"], 5.0);
        let latency = |kind: &str, class: &str| {
            format!("deltadb_http_request_duration_seconds_{kind}{{route=\"entity_put\",status=\"{class}\"}}")
        };
        assert_eq!((samples[&latency("count", "2xx")], samples[&latency("count", "5xx")]), (2.0, 1.0));
        assert!((samples[&latency("sum", "2xx")] - 0.01).abs() < 1e-9);
        assert!(samples["process_resident_memory_bytes"] > 1e6);
        assert!(samples.keys().any(|series| series.starts_with("deltadb_build_info{version=")));
        assert!(!samples.keys().any(|series| series.contains("entity_get")), "unused routes have no series");
    }

    #[test]
    fn buckets_are_cumulative_and_bounded_as_named() {
        let mut counts = [0; HISTOGRAM_BUCKETS];
        // Values 0 and 1 fall into bucket 0, 8 to 15 into bucket 3, and the last is beyond what is shown.
        (counts[0], counts[3], counts[30]) = (2, 4, 8);
        let summary = summarize(&counts, 100, (2, 5), 1.0);
        assert_eq!(summary.buckets, [(4.0, 2), (8.0, 0), (16.0, 4), (32.0, 0), (f64::INFINITY, 8)]);
        assert_eq!((summary.count, summary.sum), (14, 100.0));
    }
}
