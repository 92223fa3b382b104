//! What a comparison has found out so far, by question and server, and single figures by name.

use delta_bench::report::{Contender, Scenario};
use std::collections::BTreeMap;

/// One question and its answers.
pub struct Answered {
    pub question: &'static str,
    /// Who was asked, in the order of the scenario's contenders.
    pub servers: Vec<&'static str>,
    pub scenario: Scenario,
}

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
        contender.ok_or_else(|| format!("{server} was not asked: not installed, or not among --peers"))
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
