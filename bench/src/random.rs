//! Random numbers, and the distributions keys are drawn from. The same seed gives the same sequence.

use anyhow::{Result, bail};

/// How strongly zipfian draws prefer the first keys; the value YCSB uses.
const ZIPFIAN_THETA: f64 = 0.99;

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A bijection of numbers that spreads neighbours far apart: SplitMix64's output function.
pub fn scramble(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Which keys are drawn how often.
#[derive(Clone, Debug)]
pub enum Distribution {
    /// All alike.
    Uniform,
    /// A few much more often; which ones is scattered over the key space.
    Zipfian(Zipfian),
    /// The most recently inserted most often.
    Latest(Zipfian),
}

impl Distribution {
    /// By name: `uniform`, `zipfian` or `latest`, over so many keys.
    pub fn by_name(name: &str, keys: u64) -> Result<Self> {
        Ok(match name {
            "uniform" => Self::Uniform,
            "zipfian" => Self::Zipfian(Zipfian::new(keys)),
            "latest" => Self::Latest(Zipfian::new(keys)),
            _ => bail!("no distribution is called '{name}'; take uniform, zipfian or latest"),
        })
    }

    /// One of `keys` keys.
    pub fn draw(&self, random: &mut Random, keys: u64) -> u64 {
        match self {
            Self::Uniform => random.below(keys),
            Self::Zipfian(zipfian) => scramble(zipfian.draw(random)) % keys,
            Self::Latest(zipfian) => keys - 1 - zipfian.draw(random).min(keys - 1),
        }
    }
}

/// Ranks drawn with a frequency of 1/rank^theta (the method of Gray et al.: Quickly Generating Billion-Record
/// Synthetic Databases, 1994).
#[derive(Clone, Debug)]
pub struct Zipfian {
    ranks: u64,
    zeta: f64,
    zeta_of_two: f64,
    alpha: f64,
    eta: f64,
}

impl Zipfian {
    /// Over so many ranks; takes time proportional to them, once.
    pub fn new(ranks: u64) -> Self {
        let sum = |count: u64| (1..=count).map(|rank| (rank as f64).powf(-ZIPFIAN_THETA)).sum::<f64>();
        let (zeta, zeta_of_two) = (sum(ranks), sum(2));
        let eta = (1.0 - (2.0 / ranks as f64).powf(1.0 - ZIPFIAN_THETA)) / (1.0 - zeta_of_two / zeta);
        Self { ranks, zeta, zeta_of_two, alpha: 1.0 / (1.0 - ZIPFIAN_THETA), eta }
    }

    /// A rank, from 0.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let unit = random.unit();
        let scaled = unit * self.zeta;
        if scaled < 1.0 || self.ranks < 2 {
            return 0;
        }
        if scaled < self.zeta_of_two {
            return 1;
        }
        let rank = self.ranks as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.ranks - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u64 = 200_000;

    fn frequencies(distribution: &Distribution, keys: u64) -> Vec<u64> {
        let mut random = Random::new(1);
        let mut counts = vec![0; keys as usize];
        (0..DRAWS).for_each(|_| counts[distribution.draw(&mut random, keys) as usize] += 1);
        counts
    }

    #[test]
    fn uniform_draws_all_keys_about_equally_often() {
        let counts = frequencies(&Distribution::Uniform, 100);
        assert!(counts.iter().all(|count| (1_700..2_300).contains(count)), "{counts:?}");
    }

    #[test]
    fn zipfian_ranks_have_the_frequencies_of_the_law() {
        let keys = 1_000;
        let zipfian = Zipfian::new(keys);
        let mut random = Random::new(2);
        let mut counts = vec![0u64; keys as usize];
        (0..DRAWS).for_each(|_| counts[zipfian.draw(&mut random) as usize] += 1);
        for rank in [1u64, 2] {
            let expected = DRAWS as f64 * (rank as f64).powf(-ZIPFIAN_THETA) / zipfian.zeta;
            let found = counts[rank as usize - 1] as f64;
            assert!((found / expected - 1.0).abs() < 0.05, "rank {rank}: {found} of {expected}");
        }
        // The closed form is an approximation from the third rank on; decades of ranks must still agree.
        for (from, to) in [(10u64, 100u64), (100, 1_000)] {
            let law: f64 = (from..to).map(|rank| (rank as f64).powf(-ZIPFIAN_THETA)).sum();
            let found: u64 = counts[from as usize - 1..to as usize - 1].iter().sum();
            let ratio = found as f64 / (DRAWS as f64 * law / zipfian.zeta);
            assert!((ratio - 1.0).abs() < 0.1, "ranks {from} to {to}: {ratio}");
        }
    }

    #[test]
    fn zipfian_favourites_are_scattered_and_latest_ones_are_last() {
        let keys = 1_000;
        let counts = frequencies(&Distribution::by_name("zipfian", keys).unwrap(), keys);
        let favourite = (0..1_000).max_by_key(|key| counts[*key]).unwrap();
        assert!(counts[favourite] > DRAWS / 20);
        assert!(counts[..10].iter().sum::<u64>() < DRAWS / 4, "the favourites lie together");
        let counts = frequencies(&Distribution::by_name("latest", keys).unwrap(), keys);
        assert_eq!((0..1_000).max_by_key(|key| counts[*key]), Some(999));
    }

    #[test]
    fn one_key_and_two_keys_can_be_drawn_from() {
        for keys in [1, 2] {
            for name in ["uniform", "zipfian", "latest"] {
                assert_eq!(frequencies(&Distribution::by_name(name, keys).unwrap(), keys).iter().sum::<u64>(), DRAWS);
            }
        }
        assert!(Distribution::by_name("normal", 5).is_err());
    }
}
