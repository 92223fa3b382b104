//! One self-contained page: latency distributions, throughput over time, and figures side by side.

mod chart;

use crate::measure::{Measured, STEP};
use chart::{Axis, Line, Scale};
use hdrhistogram::Histogram;
use std::collections::HashMap;
use std::fmt::Write;

/// Points of a latency curve.
const CURVE_POINTS: usize = 160;
/// The curve ends where one request in so many is slower.
const CURVE_END: f64 = 1e-5;

/// One question put to several servers, or to one.
pub struct Scenario {
    /// What is asked.
    pub title: String,
    /// The servers, in the order shown; the first is the one others are compared with.
    pub contenders: Vec<Contender>,
}

/// One thing that a server is held to.
pub struct MarkRow {
    pub what: String,
    /// `None` when it was not measured.
    pub figure: Option<f64>,
    /// With its sign and unit.
    pub threshold: String,
    /// `met`, or another word.
    pub verdict: &'static str,
    /// The figures behind it, or why there are none.
    pub detail: String,
}

/// What one server answered.
pub struct Contender {
    /// Its name.
    pub name: String,
    /// Requests per second of each round, in ascending order.
    pub rates: Vec<f64>,
    /// Server CPU for each request, in each round, in ascending order.
    pub cpu_us: Vec<f64>,
    /// Medians over the rounds.
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// How busy the generator was in the round where it was busiest, from 0 to 1.
    pub own_load: f64,
    /// Documents read and found right, in all rounds.
    pub verified: u64,
    /// Requests that were refused or went wrong, in all rounds.
    pub troubles: u64,
    /// Latencies of all rounds.
    latencies_ns: Histogram<u64>,
    /// Requests per second in each step of the round in the middle.
    steps: Vec<f64>,
}

impl Contender {
    /// From the rounds it ran; none is an empty one.
    pub fn new(name: String, rounds: &[Measured]) -> Self {
        let each = |figure: &dyn Fn(&Measured) -> f64| sorted(rounds.iter().map(figure).collect());
        let quantile_us =
            |quantile: f64| median(&each(&|round| round.all_latencies_ns().value_at_quantile(quantile) as f64 / 1e3));
        let mut latencies_ns = Measured::default().all_latencies_ns();
        for round in rounds {
            // All have the same bounds, so that adding cannot fail.
            let _ = latencies_ns.add(round.all_latencies_ns());
        }
        let rates = each(&Measured::requests_per_second);
        let middle = rounds.iter().find(|round| round.requests_per_second() == median(&rates));
        Self {
            name,
            cpu_us: sorted(rounds.iter().filter_map(Measured::server_cpu_us_per_request).collect()),
            p50_us: quantile_us(0.5),
            p99_us: quantile_us(0.99),
            p999_us: quantile_us(0.999),
            own_load: rounds.iter().map(Measured::own_load).fold(0.0, f64::max),
            verified: rounds.iter().map(|round| round.verified).sum(),
            troubles: rounds.iter().map(troubles).sum(),
            latencies_ns,
            steps: middle.map(steps).unwrap_or_default(),
            rates,
        }
    }

    /// The median of the rounds' requests per second.
    pub fn rate(&self) -> f64 {
        median(&self.rates)
    }

    /// The median of server CPU for each request, when it was measured.
    pub fn cpu_us(&self) -> Option<f64> {
        (!self.cpu_us.is_empty()).then(|| median(&self.cpu_us))
    }

    /// How far the rounds lie apart, as a part of their median.
    pub fn spread(&self) -> f64 {
        match (self.rates.first(), self.rates.last()) {
            (Some(least), Some(most)) => (most - least) / self.rate().max(1e-9),
            _ => 0.0,
        }
    }
}

/// The middle of sorted numbers; the upper one of two.
fn median(numbers: &[f64]) -> f64 {
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

fn sorted(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn troubles(round: &Measured) -> u64 {
    round.errors.values().sum::<u64>() + round.faults.named().iter().map(|(_, count)| count).sum::<u64>()
}

/// Without the last step, which is cut short.
fn steps(round: &Measured) -> Vec<f64> {
    let whole = (round.elapsed.as_nanos() / STEP.as_nanos()) as usize;
    round.answered_by_step.iter().take(whole).map(|count| *count as f64 / STEP.as_secs_f64()).collect()
}

/// The page.
pub fn page(title: &str, subtitle: &str, marks: &[MarkRow], scenarios: &[&Scenario]) -> String {
    let mut body = marks_table(marks);
    let mut palette = Palette::default();
    for scenario in scenarios {
        let colors = palette.of(scenario);
        let _ = write!(body, "<section><h2>{}</h2>", escaped(&scenario.title));
        body.push_str(&legend(scenario, &colors));
        body.push_str("<div class=charts>");
        body.push_str(&latency_chart(scenario, &colors));
        body.push_str(&throughput_chart(scenario, &colors));
        body.push_str("</div>");
        body.push_str(&figures(scenario, &colors));
        body.push_str("</section>");
    }
    let (title, subtitle) = (escaped(title), escaped(subtitle));
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body><header><h1>{title}</h1><p>{subtitle}</p></header>\
         <main>{body}</main></body></html>\n"
    )
}

/// A colour for each server, the same all over the page unless two of one scenario would share it.
#[derive(Default)]
struct Palette(HashMap<String, usize>);

impl Palette {
    fn of(&mut self, scenario: &Scenario) -> Vec<usize> {
        let known = |palette: &Self, contender: &Contender| palette.0.get(server_of(&contender.name)).copied();
        // Those that have one come first, so that newcomers take what is left.
        let mut colors: Vec<Option<usize>> = Vec::new();
        for contender in &scenario.contenders {
            let color = known(self, contender).filter(|color| !colors.contains(&Some(*color)));
            colors.push(color);
        }
        for (number, contender) in scenario.contenders.iter().enumerate() {
            if colors[number].is_none() {
                let free = (0..chart::COLORS).find(|color| !colors.contains(&Some(*color)));
                let color = free.unwrap_or(number % chart::COLORS);
                colors[number] = Some(color);
                self.0.entry(server_of(&contender.name).to_owned()).or_insert(color);
            }
        }
        colors.into_iter().flatten().collect()
    }
}

/// A contender's name without what is said of it in parentheses.
fn server_of(name: &str) -> &str {
    name.split(" (").next().unwrap_or(name)
}

fn marks_table(marks: &[MarkRow]) -> String {
    let measured = marks.iter().filter(|mark| mark.figure.is_some()).count();
    if measured == 0 {
        return String::new();
    }
    let met = marks.iter().filter(|mark| mark.verdict == "met").count();
    let mut text =
        format!("<section class=marks><h2>Marks</h2><p class=legend>{met} met of {measured} measured</p><table>");
    text.push_str("<tr><th>mark</th><th>figure</th><th>threshold</th><th></th><th></th></tr>");
    for mark in marks {
        let figure = mark.figure.map_or("–".to_owned(), |figure| format!("{figure:.3}"));
        let class = match mark.verdict {
            "met" => "good",
            "NOT MET" => "bad",
            _ => "soft",
        };
        let _ = write!(
            text,
            "<tr><th>{}</th><td>{figure}</td><td>{}</td><td><b class={class}>{}</b></td><td class=detail>{}</td></tr>",
            escaped(&mark.what),
            escaped(&mark.threshold),
            escaped(&mark.verdict.to_lowercase()),
            escaped(&mark.detail),
        );
    }
    text + "</table></section>"
}

fn latency_chart(scenario: &Scenario, colors: &[usize]) -> String {
    let lines: Vec<Line> = scenario
        .contenders
        .iter()
        .zip(colors)
        .map(|(contender, color)| Line { color: *color, points: curve(&contender.latencies_ns) })
        .collect();
    let slower = Axis {
        label: "requests faster than this",
        scale: Scale::Nines,
        marks: [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999]
            .map(|part: f64| (part, format!("{} %", (part * 1e6).round() / 1e4)))
            .to_vec(),
    };
    chart::draw("Latency", &Axis::decades("µs", &lines), &slower, &lines)
}

/// Latency in µs against the part of requests that is faster.
fn curve(latencies_ns: &Histogram<u64>) -> Vec<(f64, f64)> {
    if latencies_ns.is_empty() {
        return Vec::new();
    }
    let end = CURVE_END.max(1.0 / latencies_ns.len() as f64);
    (0..CURVE_POINTS)
        .map(|point| 1.0 - end.powf(point as f64 / (CURVE_POINTS - 1) as f64))
        .map(|part| (latencies_ns.value_at_quantile(part) as f64 / 1e3, part))
        .collect()
}

fn throughput_chart(scenario: &Scenario, colors: &[usize]) -> String {
    let lines: Vec<Line> = scenario
        .contenders
        .iter()
        .zip(colors)
        .map(|(contender, color)| Line {
            color: *color,
            points: contender
                .steps
                .iter()
                .enumerate()
                .map(|(step, rate)| ((step as f64 + 0.5) * STEP.as_secs_f64(), *rate))
                .collect(),
        })
        .collect();
    let time = Axis::linear("seconds", lines.iter().flat_map(|line| &line.points).map(|point| point.0));
    let rate = Axis::linear("requests/s", lines.iter().flat_map(|line| &line.points).map(|point| point.1));
    chart::draw("Throughput", &time, &rate, &lines)
}

fn legend(scenario: &Scenario, colors: &[usize]) -> String {
    let mut text = String::from("<p class=legend>");
    for (contender, color) in scenario.contenders.iter().zip(colors) {
        let _ = write!(text, "<span><i class=\"fill{color}\"></i>{}</span>", escaped(&contender.name));
    }
    text + "</p>"
}

fn figures(scenario: &Scenario, colors: &[usize]) -> String {
    let most = scenario.contenders.iter().map(Contender::rate).fold(1e-9, f64::max);
    let own = scenario.contenders.first().map_or(0.0, Contender::rate);
    let mut text = String::from(
        "<table><tr><th></th><th colspan=2>requests/s</th><th>ours is</th><th>spread</th><th>p50 µs</th><th>p99 µs</th>\
         <th>p99.9 µs</th><th>server CPU µs</th></tr>",
    );
    for (number, contender) in scenario.contenders.iter().enumerate() {
        let rate = contender.rate();
        let cpu = contender.cpu_us().map_or("–".to_owned(), |cpu_us| format!("{cpu_us:.2}"));
        let ratio = if number == 0 { "–".to_owned() } else { format!("{:.2} ×", own / rate.max(1e-9)) };
        let trouble = match contender.troubles {
            0 => String::new(),
            count => format!(" <b class=trouble>{count} went wrong</b>"),
        };
        let _ = write!(
            text,
            "<tr><th>{}{trouble}</th><td class=bar><div class=\"fill{}\" style=\"width:{:.1}%\"></div></td><td>{}</td>\
             <td>{ratio}</td><td>{:.0} %</td><td>{:.1}</td><td>{:.1}</td><td>{:.1}</td><td>{cpu}</td></tr>",
            escaped(&contender.name),
            colors[number],
            rate / most * 100.0,
            crate::output::grouped(rate as u64),
            contender.spread() * 100.0,
            contender.p50_us,
            contender.p99_us,
            contender.p999_us,
        );
    }
    text + "</table>"
}

/// Text that is safe between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "\
:root{--back:#fbfaf7;--card:#fff;--ink:#1d2433;--soft:#6a7385;--grid:#e4e2db;\
--c0:#d9480f;--c1:#1864ab;--c2:#2b8a3e;--c3:#862e9c;--c4:#b08900;--c5:#0b7285;--c6:#a61e4d;--c7:#495057}\
@media(prefers-color-scheme:dark){:root{--back:#12151c;--card:#1a1f29;--ink:#e8eaf0;--soft:#949db0;--grid:#2b3241;\
--c0:#ff8a4c;--c1:#6cb2f5;--c2:#6fd68a;--c3:#d494e6;--c4:#e6c04a;--c5:#53c9dc;--c6:#f783ac;--c7:#adb5bd}}\
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\
header,main{max-width:1200px;margin:auto;padding:0 24px}header{padding-top:40px}h1{font-size:30px;margin:0;\
letter-spacing:-.02em}header p{color:var(--soft);margin:4px 0 20px}section{background:var(--card);border-radius:14px;\
padding:20px 24px 24px;margin:0 0 24px;box-shadow:0 1px 3px #0002}h2{font-size:19px;margin:0 0 4px}\
.legend{margin:0 0 10px;display:flex;flex-wrap:wrap;gap:4px 20px;color:var(--soft)}.legend i{display:inline-block;\
width:11px;height:11px;border-radius:3px;margin-right:7px}.charts{display:grid;gap:16px;\
grid-template-columns:repeat(auto-fit,minmax(340px,1fr))}svg{width:100%;height:auto;display:block}\
svg text{fill:var(--soft);font-size:11.5px}svg text.name{fill:var(--ink);font-size:13px;font-weight:600}\
.grid{stroke:var(--grid);stroke-width:1}.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}\
table{width:100%;border-collapse:collapse;margin-top:16px;font-variant-numeric:tabular-nums}\
th,td{padding:5px 10px;text-align:right;border-top:1px solid var(--grid);white-space:nowrap}tr:first-child th{border:0;\
color:var(--soft);font-weight:500}th:first-child{text-align:left;font-weight:600}td.bar{width:26%;padding-right:0}\
td.bar div{height:13px;border-radius:4px;min-width:2px}.trouble,.bad{color:#e03131}.good{color:#2f9e44}.soft{color:var(--soft);font-weight:400}\
.marks th:first-child{white-space:normal}td.detail{text-align:left;white-space:normal;color:var(--soft)}\
.line0{stroke:var(--c0)}.line1{stroke:var(--c1)}.line2{stroke:var(--c2)}.line3{stroke:var(--c3)}.line4{stroke:var(--c4)}\
.line5{stroke:var(--c5)}.line6{stroke:var(--c6)}.line7{stroke:var(--c7)}.fill0{background:var(--c0)}\
.fill1{background:var(--c1)}.fill2{background:var(--c2)}.fill3{background:var(--c3)}.fill4{background:var(--c4)}\
.fill5{background:var(--c5)}.fill6{background:var(--c6)}.fill7{background:var(--c7)}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Kind;
    use std::time::Duration;

    fn round(rate: u64, cpu_ms: u64) -> Measured {
        let mut measured = Measured::default();
        for request in 0..rate {
            measured.record(Kind::Read, 10_000 + request * 100);
            measured.count(request * 1_000_000_000 / rate);
        }
        measured.elapsed = Duration::from_secs(1);
        measured.server_cpu = Some(Duration::from_millis(cpu_ms));
        measured
    }

    #[test]
    fn a_contender_has_the_medians_of_its_rounds() {
        let contender = Contender::new("x".to_owned(), &[round(300, 3), round(100, 1), round(200, 4)]);
        assert_eq!(contender.rate(), 200.0);
        assert_eq!(contender.spread(), 1.0);
        assert!((contender.cpu_us().unwrap() - 10.0).abs() < 1e-6);
        assert_eq!(contender.latencies_ns.len(), 600);
        assert_eq!(contender.steps.len(), 10);
        assert_eq!(contender.steps.iter().sum::<f64>(), 2_000.0);
    }

    #[test]
    fn a_server_keeps_its_colour_and_no_two_of_a_scenario_share_one() {
        let scenario = |names: &[&str]| {
            let contenders = names.iter().map(|name| Contender::new((*name).to_owned(), &[])).collect();
            Scenario { title: String::new(), contenders }
        };
        let mut palette = Palette::default();
        assert_eq!(palette.of(&scenario(&["a", "b (not durable)", "c"])), [0, 1, 2]);
        assert_eq!(palette.of(&scenario(&["a", "d", "b"])), [0, 2, 1]);
        // Both c and d have the third colour.
        assert_eq!(palette.of(&scenario(&["c", "d"])), [2, 0]);
    }

    #[test]
    fn the_page_names_everything_and_loads_nothing() {
        let contenders = vec![
            Contender::new("ours".to_owned(), &[round(900, 3)]),
            Contender::new("<them>".to_owned(), &[round(300, 3)]),
            Contender::new("failed".to_owned(), &[]),
        ];
        let scenario = Scenario { title: "GET & more".to_owned(), contenders };
        let mark = |verdict, figure| MarkRow {
            what: "speed <of light>".to_owned(),
            figure,
            threshold: "≤ 1 ×".to_owned(),
            verdict,
            detail: "the reason".to_owned(),
        };
        let marks = [mark("met", Some(0.5)), mark("NOT MET", Some(1.5)), mark("not measured", None)];
        let page = page("title", "subtitle", &marks, &[&scenario]);
        assert!(page.contains("1 met of 2 measured") && page.contains("speed &lt;of light&gt;"));
        for part in ["GET &amp; more", "&lt;them&gt;", "3.00 ×", "<svg", "curve line1", "99.9 %", "requests/s"] {
            assert!(page.contains(part), "'{part}' is missing");
        }
        assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("NaN") && !page.contains("inf"));
    }
}
