//! Results for a person (a table) and for a program (one JSON object a line).

use crate::measure::{Kind, Measured};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;

/// Quantiles shown, with their names.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// The table of one run.
pub fn table(title: &str, measured: &Measured) -> String {
    let mut text = format!("{title}\n");
    let _ = writeln!(
        text,
        "  {} requests in {:.2} s: {} requests/s; {} documents verified",
        grouped(measured.answered),
        measured.elapsed.as_secs_f64(),
        grouped(measured.requests_per_second() as u64),
        grouped(measured.verified),
    );
    let _ = writeln!(
        text,
        "  {:<18}{:>12}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "latency, µs", "count", "p50", "p90", "p99", "p99.9", "max"
    );
    for (kind, latencies) in shown(measured) {
        let _ = write!(text, "  {:<18}{:>12}", kind.name(), grouped(latencies.len()));
        for (_, quantile) in QUANTILES {
            let _ = write!(text, "{:>10.1}", microseconds(latencies.value_at_quantile(quantile)));
        }
        let _ = writeln!(text, "{:>10.1}", microseconds(latencies.max()));
    }
    if let Some(cpu_us) = measured.server_cpu_us_per_request() {
        let _ = writeln!(text, "  server CPU: {cpu_us:.2} µs a request");
    }
    let _ = writeln!(text, "  generator: {:.0} % of its CPU{}", measured.own_load() * 100.0, lag(measured));
    if measured.never_sent > 0 {
        let waited = "requests waited for a connection until the end and count as answered then";
        let _ = writeln!(text, "  the rate was not kept: {} {waited}", grouped(measured.never_sent));
    }
    for (code, count) in &measured.errors {
        let _ = writeln!(text, "  ERROR {code}: {}", grouped(*count));
    }
    for (name, count) in measured.faults.named().into_iter().filter(|(_, count)| *count > 0) {
        let _ = writeln!(text, "  FAULT {name}: {}", grouped(count));
    }
    if let (Some(trouble), false) = (&measured.first_trouble, measured.is_clean()) {
        let _ = writeln!(text, "  first: {trouble}");
    }
    text
}

/// The same for a program.
pub fn json(title: &str, measured: &Measured) -> Value {
    let latencies: serde_json::Map<String, Value> = shown(measured)
        .map(|(kind, latencies)| {
            let mut figures: serde_json::Map<String, Value> = QUANTILES
                .iter()
                .map(|(name, quantile)| {
                    ((*name).to_owned(), microseconds(latencies.value_at_quantile(*quantile)).into())
                })
                .collect();
            figures.insert("max".to_owned(), microseconds(latencies.max()).into());
            figures.insert("count".to_owned(), latencies.len().into());
            (kind.name().to_owned(), Value::Object(figures))
        })
        .collect();
    json!({
        "title": title,
        "requests": measured.answered,
        "seconds": measured.elapsed.as_secs_f64(),
        "requests_per_second": measured.requests_per_second(),
        "verified": measured.verified,
        "latency_us": latencies,
        "server_cpu_us_per_request": measured.server_cpu_us_per_request(),
        "generator_load": measured.own_load(),
        "generator_lag_us_max": measured.own_lag_max.as_secs_f64() * 1e6,
        "never_sent": measured.never_sent,
        "errors": measured.errors,
        "faults": measured.faults.named().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

/// The kinds of operation that occurred.
pub fn shown(measured: &Measured) -> impl Iterator<Item = (Kind, &Histogram<u64>)> {
    Kind::ALL.into_iter().map(|kind| (kind, measured.latencies_ns(kind))).filter(|(_, latencies)| !latencies.is_empty())
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn lag(measured: &Measured) -> String {
    match measured.own_lag_max {
        lag if lag.is_zero() => String::new(),
        lag => format!(", at most {:.1} µs late", lag.as_secs_f64() * 1e6),
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn thousands_are_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn both_forms_say_what_happened_and_what_went_wrong() {
        let mut measured = Measured::default();
        for _ in 0..1_000 {
            measured.count(5);
            measured.record(Kind::Read, 20_000);
        }
        measured.elapsed = Duration::from_secs(2);
        measured.server_cpu = Some(Duration::from_millis(4));
        measured.refused("overloaded");
        measured.faults.lost = 3;
        measured.never_sent = 1_000;
        measured.trouble(|| "the reason".to_owned());
        let text = table("a run", &measured);
        for part in [
            "500 requests/s",
            "4.00 µs a request",
            "not kept: 1,000 requests",
            "ERROR overloaded: 1",
            "FAULT lost: 3",
            "first: the reason",
        ] {
            assert!(text.contains(part), "'{part}' is missing in {text}");
        }
        let value = json("a run", &measured);
        assert_eq!(value["requests_per_second"], 500.0);
        assert_eq!(value["faults"]["lost"], 3);
        assert_eq!(value["errors"]["overloaded"], 1);
        assert_eq!(value["never_sent"], 1_000);
        assert!((value["latency_us"]["read"]["p50"].as_f64().unwrap() - 20.0).abs() < 0.1);
    }
}
