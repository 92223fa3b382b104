//! Tables for a person, JSON lines for a program.

use super::findings::{Answered, Findings};
use delta_bench::output;
use delta_bench::report::{Contender, MarkRow, Scenario};
use serde_json::json;

/// One question and its answers.
pub fn table(scenario: &Scenario) {
    println!("{}", scenario.title);
    println!(
        "  {:<30}{:>12}{:>9}{:>9}{:>10}{:>10}{:>10}{:>9}{:>11}",
        "", "requests/s", "ours is", "spread", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs", "generator"
    );
    let own = scenario.contenders.first().map_or(0.0, Contender::rate);
    for (number, contender) in scenario.contenders.iter().enumerate() {
        let ratio = if number == 0 { String::new() } else { format!("{:.2} ×", own / contender.rate().max(1e-9)) };
        let cpu = contender.cpu_us().map_or(String::new(), |cpu_us| format!("{cpu_us:.2}"));
        println!(
            "  {:<30}{:>12}{ratio:>9}{:>7.0} %{:>10.1}{:>10.1}{:>10.1}{cpu:>9}{:>9.0} %",
            contender.name,
            output::grouped(contender.rate() as u64),
            contender.spread() * 100.0,
            contender.p50_us,
            contender.p99_us,
            contender.p999_us,
            contender.own_load * 100.0,
        );
    }
    println!();
}

/// The same, a line a server.
pub fn json_lines(answered: &Answered) {
    for (server, contender) in answered.servers.iter().zip(&answered.scenario.contenders) {
        let line = json!({
            "question": answered.question,
            "server": server,
            "requests_per_second": contender.rate(),
            "rounds": contender.rates,
            "p50_us": contender.p50_us,
            "p99_us": contender.p99_us,
            "p99.9_us": contender.p999_us,
            "server_cpu_us_per_request": contender.cpu_us(),
            "server_cpu_us_per_request_rounds": contender.cpu_us,
            "generator_load": contender.own_load,
            "verified": contender.verified,
            "troubles": contender.troubles,
        });
        println!("{line}");
    }
}

/// Figures of probes.
pub fn figures(findings: &Findings, is_json: bool) {
    for (name, value) in findings.figures() {
        match is_json {
            true => println!("{}", json!({"figure": name, "value": value})),
            false => println!("  {name:<30}{value:>16.3}"),
        }
    }
    if !is_json {
        println!();
    }
}

/// The marks.
pub fn marks(rows: &[MarkRow], is_json: bool) {
    if is_json {
        for row in rows {
            let line = json!({"mark": row.what, "figure": row.figure, "threshold": row.threshold,
                "verdict": row.verdict, "detail": row.detail});
            println!("{line}");
        }
        return;
    }
    println!("{:<72}{:>9}  {:<12}  {:<13}", "mark", "figure", "threshold", "");
    for row in rows {
        let figure = row.figure.map_or("–".to_owned(), |figure| format!("{figure:.3}"));
        println!("{:<72}{figure:>9}  {:<12}  {:<13}{}", row.what, row.threshold, row.verdict, row.detail);
    }
}
