//! What the server is held to: each mark with its figure of this run, its threshold, and whether it is met.

use super::findings::Findings;
use delta_bench::report::{Contender, MarkRow};

/// What a figure must be.
#[derive(Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Below(bound) => value < bound,
        }
    }
}

/// A figure, and the figures behind it.
type Found = Result<(f64, String), String>;

/// One mark.
pub struct Mark {
    pub what: &'static str,
    /// Written after figure and bound.
    pub unit: &'static str,
    pub bound: Bound,
    /// It counts only with so many CPUs; with fewer it is shown.
    pub cpus_min: usize,
    pub find: fn(&Findings) -> Found,
}

const ALWAYS: &str = "redis-always";
const NONE: &str = "redis-none";

/// All marks, in the order shown.
pub const MARKS: [Mark; 24] = [
    mark("PUT, 50 connections: rate against Redis appendfsync always", "×", Bound::AtLeast(2.4), |f| {
        rates(f, "put-50", "delta", ALWAYS)
    }),
    mark("PUT, 50 connections: rate against Redis without persistence", "×", Bound::AtLeast(1.0), |f| {
        rates(f, "put-50", "delta", NONE)
    }),
    mark("PUT, 1 connection: p50 against Redis appendfsync always", "×", Bound::AtMost(0.6), |f| {
        medians(f, "put-1", "delta", ALWAYS)
    }),
    mark("PUT, 50 × 16 pipelined: rate against Redis appendfsync always", "×", Bound::AtLeast(1.5), |f| {
        rates(f, "put-50x16", "delta", ALWAYS)
    }),
    mark("GET from cache, 50 connections: CPU per request against Redis", "×", Bound::AtMost(1.0), |f| {
        cpu(f, "get-paced", "delta", NONE)
    }),
    mark("GET from cache, 50 connections: CPU per request against a bare ring", "×", Bound::AtMost(1.35), |f| {
        cpu(f, "get-paced", "delta", "floor-wire")
    }),
    mark("GET from cache, 1 connection: p50 against Redis", "×", Bound::AtMost(0.6), |f| {
        medians(f, "get-1", "delta", NONE)
    }),
    mark("GET from cache, 50 × 16 pipelined: rate against Redis", "×", Bound::AtLeast(1.0), |f| {
        rates(f, "get-50x16", "delta", NONE)
    }),
    mark("GET, cache miss over 10 million entities: device reads", "", Bound::AtMost(1.005), |f| {
        Ok((f.figure("ten-million", "miss_device_reads")?, "reads of the device for each miss".to_owned()))
    }),
    mark("GET, cache miss: CPU against a hit + 1.5 × a bare ring read", "×", Bound::AtMost(1.0), |f| {
        let figure = |name| f.figure("ten-million", name);
        let (miss, hit, read) = (figure("miss_cpu_us")?, figure("hit_cpu_us")?, figure("bare_read_cpu_us")?);
        Ok((miss / (hit + 1.5 * read), format!("{miss:.2} µs; hit {hit:.2} µs, bare read {read:.2} µs")))
    }),
    mark("GET, cache miss: rate against the device's, where that is the limit", "×", Bound::AtLeast(0.8), |f| {
        let figure = |name| f.figure("ten-million", name);
        let (rate, device, busy) = (figure("miss_rate")?, figure("bare_read_rate")?, figure("miss_cpu_busy")?);
        let detail = format!("{rate:.0}/s and {device:.0}/s; the server's CPU was {:.0} % busy", busy * 100.0);
        Ok((rate / device, detail))
    }),
    mark("commits: rate against a bare loop of the same write", "×", Bound::AtLeast(0.8), |f| {
        let figure = |name| f.figure("commits", name);
        let (rate, bare) = (figure("commit_rate")?, figure("bare_commit_rate")?);
        let (bytes, connections) = (figure("commit_bytes")?, figure("commit_connections")?);
        let detail = format!("{rate:.0}/s and {bare:.0}/s of {bytes:.0} bytes, at {connections:.0} connections");
        Ok((rate / bare, detail))
    }),
    mark("p99.9 of GET at half of maximum, during compaction and checkpoints", "×", Bound::AtMost(1.0), |f| {
        let figure = |name| f.figure("maintenance", name);
        let (with, without) = (figure("p999_with_us")?, figure("p999_without_us")?);
        let allowed = (without * 1.25).max(without + 100.0);
        Ok((with / allowed, format!("{with:.1} µs; {without:.1} µs without, so that {allowed:.1} µs are allowed")))
    }),
    mark("10 million entities: memory each beyond the key, outside the cache", "bytes", Bound::AtMost(100.0), |f| {
        let index = f.figure("ten-million", "index_bytes_per_entity")?;
        Ok((f.figure("ten-million", "memory_bytes_per_entity")?, format!("of the process; the index says {index:.1}")))
    }),
    mark("10 million entities: reopening after a clean end", "s", Bound::Below(5.0), |f| {
        Ok((f.figure("ten-million", "reopen_clean_s")?, "from start to the first request taken".to_owned()))
    }),
    mark("10 million entities: reopening after a kill during writes", "s", Bound::Below(5.0), |f| {
        Ok((f.figure("ten-million", "reopen_killed_s")?, "with what was logged since the checkpoint".to_owned()))
    }),
    mark("10 million entities: PUT rate against 10,000", "×", Bound::AtLeast(0.9), |f| {
        pair(f, "put_rate_large", "put_rate_small")
    }),
    mark("10 million entities: GET rate against 10,000", "×", Bound::AtLeast(0.9), |f| {
        pair(f, "get_rate_large", "get_rate_small")
    }),
    on_three_cpus("two shards, shard-aware client: CPU per GET against one shard", Bound::AtMost(1.1), |f| {
        cpu(f, "shards-get", "delta-two", "delta")
    }),
    on_three_cpus("two shards, client that is not: CPU per GET against one shard", Bound::AtMost(1.6), |f| {
        cpu(f, "shards-get", "delta-two-unaware", "delta")
    }),
    on_three_cpus("two shards, shard-aware client: CPU per PUT against one shard", Bound::AtMost(1.1), |f| {
        cpu(f, "shards-put", "delta-two", "delta")
    }),
    mark("Unix socket: CPU per GET against TCP", "×", Bound::AtMost(0.75), |f| {
        cpu(f, "get-paced", "delta-unix", "delta")
    }),
    mark("HTTP GET, 64 keep-alive connections: rate against bare hyper", "×", Bound::AtLeast(0.7), |f| {
        rates(f, "http-get", "delta-http", "floor-http")
    }),
    mark("idle server: CPU", "%", Bound::Below(0.2), |f| {
        let connections = f.figure("idle", "idle_connections")?;
        Ok((f.figure("idle", "idle_cpu_percent")?, format!("with {connections:.0} silent connections")))
    }),
];

const fn mark(what: &'static str, unit: &'static str, bound: Bound, find: fn(&Findings) -> Found) -> Mark {
    Mark { what, unit, bound, cpus_min: 1, find }
}

const fn on_three_cpus(what: &'static str, bound: Bound, find: fn(&Findings) -> Found) -> Mark {
    Mark { what, unit: "×", bound, cpus_min: 3, find }
}

fn rates(findings: &Findings, question: &str, of: &str, to: &str) -> Found {
    let (ratio, ours, theirs) = findings.ratio(question, of, to, |one| Some(one.rate()))?;
    Ok((ratio, format!("{ours:.0}/s and {theirs:.0}/s")))
}

fn medians(findings: &Findings, question: &str, of: &str, to: &str) -> Found {
    let (ratio, ours, theirs) = findings.ratio(question, of, to, |one| Some(one.p50_us))?;
    Ok((ratio, format!("{ours:.1} µs and {theirs:.1} µs")))
}

fn cpu(findings: &Findings, question: &str, of: &str, to: &str) -> Found {
    let (ratio, ours, theirs) = findings.ratio(question, of, to, Contender::cpu_us)?;
    Ok((ratio, format!("{ours:.2} µs and {theirs:.2} µs")))
}

fn pair(findings: &Findings, large: &str, small: &str) -> Found {
    let (large, small) = (findings.figure("ten-million", large)?, findings.figure("ten-million", small)?);
    Ok((large / small, format!("{large:.0}/s and {small:.0}/s, all from the cache")))
}

/// Every mark as a row of the table.
pub fn judge(findings: &Findings, cpus: usize) -> Vec<MarkRow> {
    let row = |mark: &Mark| {
        let (sign, bound) = match mark.bound {
            Bound::AtLeast(bound) => ("≥", bound),
            Bound::AtMost(bound) => ("≤", bound),
            Bound::Below(bound) => ("<", bound),
        };
        let threshold = format!("{sign} {bound} {}", mark.unit).trim_end().to_owned();
        let (figure, verdict, detail) = match (mark.find)(findings) {
            Err(reason) => (None, "not measured", reason),
            Ok((figure, detail)) if cpus < mark.cpus_min => {
                (Some(figure), "shown only", format!("{detail}; a mark from {} CPUs on", mark.cpus_min))
            }
            Ok((figure, detail)) if mark.bound.holds(figure) => (Some(figure), "met", detail),
            Ok((figure, detail)) => (Some(figure), "NOT MET", detail),
        };
        MarkRow { what: mark.what.to_owned(), figure, threshold, verdict, detail }
    };
    MARKS.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_say_what_is_met_what_is_not_and_why_nothing_is_known() {
        let mut findings = Findings::default();
        findings.enter("idle_cpu_percent", 0.1);
        findings.enter("idle_connections", 50.0);
        findings.enter("reopen_clean_s", 5.0);
        let rows = judge(&findings, 2);
        let verdict = |start: &str| {
            let row = rows.iter().find(|row| row.what.starts_with(start)).unwrap();
            (row.verdict, row.threshold.as_str(), row.detail.as_str())
        };
        assert_eq!(verdict("idle server"), ("met", "< 0.2 %", "with 50 silent connections"));
        assert_eq!(verdict("10 million entities: reopening after a clean").0, "NOT MET");
        assert_eq!(verdict("PUT, 1 connection"), ("not measured", "≤ 0.6 ×", "--questions put-1 was not put"));
    }

    #[test]
    fn the_allowance_for_maintenance_is_the_larger_of_a_quarter_and_100_us() {
        let verdict = |with, without| {
            let mut findings = Findings::default();
            findings.enter("p999_with_us", with);
            findings.enter("p999_without_us", without);
            judge(&findings, 2).into_iter().find(|row| row.what.starts_with("p99.9")).unwrap().verdict
        };
        assert_eq!([verdict(149.0, 50.0), verdict(151.0, 50.0)], ["met", "NOT MET"]);
        assert_eq!([verdict(1_249.0, 1_000.0), verdict(1_251.0, 1_000.0)], ["met", "NOT MET"]);
    }
}
