//! What a comparison has found out so far, by question and server, and single figures by name.

use delta_bench::report::{Contender, Scenario};
use std::collections::BTreeMap;

/// One question and its answers.
pub struct Answered {
    pub question: &'static str,
    /// Requests per second that were due, when the loop was open.
    pub offered_rate: Option<f64>,
    /// Who was asked, in the order of the scenario's contenders.
    pub servers: Vec<&'static str>,
    pub scenario: Scenario,
}

/// Of the offered rate, what must be answered for CPU times to be comparable.
const KEPT_UP: f64 = 0.97;

/// All of it.
#[derive(Default)]
pub struct Findings {
    pub answered: Vec<Answered>,
    figures: BTreeMap<&'static str, f64>,
}

impl Findings {
    /// Enters a figure of a probe.
    pub fn enter(&mut self, name: &'static str, value: f64) {
        self.figures.insert(name, value);
    }

    /// Figures of probes, by name.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.figures.iter().map(|(name, value)| (*name, *value))
    }

    /// A figure, or why there is none.
    pub fn figure(&self, probe: &str, name: &str) -> Result<f64, String> {
        self.figures.get(name).copied().ok_or_else(|| format!("--questions {probe} was not put"))
    }

    /// What a server answered, or why it did not.
    pub fn contender(&self, question: &str, server: &str) -> Result<&Contender, String> {
        let answered = self.answered.iter().find(|one| one.question == question);
        let answered = answered.ok_or_else(|| format!("--questions {question} was not put"))?;
        let place = answered.servers.iter().position(|one| *one == server);
        let contender = place.and_then(|place| answered.scenario.contenders.get(place));
        let contender =
            contender.ok_or_else(|| format!("{server} was not asked: not installed, or not among --peers"))?;
        match answered.offered_rate {
            Some(offered) if contender.rate() < offered * KEPT_UP => {
                Err(format!("{server} answered {:.0}/s of {offered:.0}/s that were due", contender.rate()))
            }
            _ => Ok(contender),
        }
    }

    /// The ratio of two servers' figures in one question.
    pub fn ratio(
        &self,
        question: &str,
        of: &str,
        to: &str,
        figure: impl Fn(&Contender) -> Option<f64>,
    ) -> Result<(f64, f64, f64), String> {
        let of_whom = |server| {
            let value = figure(self.contender(question, server)?);
            value.filter(|value| *value > 0.0).ok_or_else(|| format!("{server} has no such figure"))
        };
        let (ours, theirs) = (of_whom(of)?, of_whom(to)?);
        Ok((ours / theirs, ours, theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delta_bench::measure::Measured;
    use std::time::Duration;

    fn answered(offered_rate: Option<f64>) -> Findings {
        let mut round = Measured::default();
        (0..1_000).for_each(|_| round.count(0));
        round.elapsed = Duration::from_secs(1);
        let contenders = vec![Contender::new("delta".to_owned(), &[round])];
        let scenario = Scenario { title: String::new(), contenders };
        let one = Answered { question: "get-paced", offered_rate, servers: vec!["delta"], scenario };
        Findings { answered: vec![one], ..Findings::default() }
    }

    #[test]
    fn who_does_not_keep_up_with_an_open_loop_has_no_figure() {
        assert!(answered(None).contender("get-paced", "delta").is_ok());
        assert!(answered(Some(1_000.0)).contender("get-paced", "delta").is_ok());
        let late = answered(Some(1_100.0)).contender("get-paced", "delta").err();
        assert_eq!(late.as_deref(), Some("delta answered 1000/s of 1100/s that were due"));
    }

    #[test]
    fn what_was_not_asked_says_so() {
        let findings = answered(None);
        assert!(findings.contender("put-1", "delta").err().unwrap().contains("--questions put-1"));
        assert!(findings.contender("get-paced", "etcd").err().unwrap().contains("not installed"));
        assert!(findings.figure("idle", "idle_cpu_percent").unwrap_err().contains("--questions idle"));
    }
}
