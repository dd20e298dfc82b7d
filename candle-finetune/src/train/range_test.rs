//! The learning-rate range test: a short training whose rate rises from far too low to far too high, and what its losses say.
//!
//! Knows neither networks nor images. The test is Smith's (2017, arXiv:1506.01186); rates, smoothing, end and proposals are those of
//! `Learner.lr_find` in fastai 2.

use super::error::{Result, TrainError};
use super::settings::check;

/// Fewest steps of a test: with fewer nothing is left to look at.
const FEWEST_STEPS: usize = 10;

/// What remains of the average at each step.
const MOMENTUM: f64 = 0.98;

/// How many times the lowest smoothed loss ends the test.
const TOO_HIGH: f64 = 4.0;

/// One in so many steps, the first ones, says nothing: the average is of few losses yet.
const UNSETTLED: usize = 10;

/// The last steps, which say nothing: the loss rises.
const RISING: usize = 5;

/// How the rate rises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangeTest {
    /// Learning rate of the first step, above 0.
    pub lowest: f64,
    /// Learning rate that a step after the last would have, above `lowest`.
    pub highest: f64,
    /// Steps, at least 10, unless the loss ends the test before.
    pub steps: usize,
}

/// From 1e-7 to 10 in 100 steps.
impl Default for RangeTest {
    fn default() -> RangeTest {
        RangeTest { lowest: 1e-7, highest: 10.0, steps: 100 }
    }
}

impl RangeTest {
    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for the first that is not.
    pub fn validate(&self) -> Result<()> {
        let RangeTest { lowest, highest, steps } = *self;
        check("lowest", lowest, lowest > 0.0 && lowest.is_finite(), "a number above 0")?;
        let higher = format!("a number above `lowest`, {lowest}");
        check("highest", highest, highest > lowest && highest.is_finite(), &higher)?;
        check("steps", steps, steps >= FEWEST_STEPS, &format!("at least {FEWEST_STEPS}"))
    }

    /// The rate of a step, counted from 0: `lowest · (highest / lowest)^(step / steps)`.
    pub fn rate(&self, step: usize) -> f64 {
        self.lowest * (self.highest / self.lowest).powf(step as f64 / self.steps as f64)
    }
}

/// A step of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Its learning rate.
    pub lr: f64,
    /// The loss before it.
    pub loss: f64,
    /// The average of all losses so far, later ones counting more, free of the bias towards its start.
    pub smoothed: f64,
}

/// Why a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Steps,
    /// The smoothed loss came to more than four times its lowest, or a loss or a gradient left the range of numbers.
    Diverged,
}

/// A test that runs: says the rate of the next step, and is told the loss.
#[derive(Clone, Debug)]
pub struct Sweep {
    test: RangeTest,
    points: Vec<Point>,
    average: f64,
    lowest: f64,
    diverged: bool,
}

impl Sweep {
    /// A test before its first step.
    ///
    /// # Errors
    /// As [`RangeTest::validate`].
    pub fn new(test: RangeTest) -> Result<Sweep> {
        test.validate()?;
        Ok(Sweep { test, points: Vec::new(), average: 0.0, lowest: f64::INFINITY, diverged: false })
    }

    /// Steps that are still to do, unless the loss ends the test.
    pub fn left(&self) -> usize {
        if self.diverged { 0 } else { self.test.steps - self.points.len() }
    }

    /// The rate of the next step; none where the test is over.
    pub fn rate(&self) -> Option<f64> {
        (self.left() > 0).then(|| self.test.rate(self.points.len()))
    }

    /// Takes the loss that the next step began with.
    ///
    /// # Errors
    /// [`TrainError::NonFiniteStart`] if the first loss is infinite or not a number.
    pub fn record(&mut self, loss: f64) -> Result<()> {
        let Some(lr) = self.rate() else { return Ok(()) };
        if !loss.is_finite() {
            self.diverged = true;
            return if self.points.is_empty() { Err(TrainError::NonFiniteStart { loss }) } else { Ok(()) };
        }
        self.average = MOMENTUM * self.average + (1.0 - MOMENTUM) * loss;
        let weight = 1.0 - MOMENTUM.powi(self.points.len() as i32 + 1);
        let smoothed = self.average / weight;
        self.lowest = self.lowest.min(smoothed);
        self.diverged = smoothed > TOO_HIGH * self.lowest;
        self.points.push(Point { lr, loss, smoothed });
        Ok(())
    }

    /// Ends the test where something else than a loss left the range of numbers.
    pub fn end(&mut self) {
        self.diverged = true;
    }

    /// What was recorded.
    pub fn into_curve(self) -> Curve {
        let end = if self.diverged { End::Diverged } else { End::Steps };
        Curve { test: self.test, points: self.points, end }
    }
}

/// The losses of a test.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// How the rate rose.
    pub test: RangeTest,
    /// Every step, in order.
    pub points: Vec<Point>,
    /// Why there are no more.
    pub end: End,
}

impl Curve {
    /// The steps that proposals are made of: all but the first tenth of those that were planned and the last five that were done.
    fn telling(&self) -> &[Point] {
        let end = self.points.len().saturating_sub(RISING);
        self.points.get(self.test.steps / UNSETTLED..end).unwrap_or(&[])
    }

    /// Where the longest valley is half way down: fastai's `valley`, its default.
    ///
    /// The valley is the longest sequence of steps, others between them left out, of which each has a lower smoothed loss than the
    /// one before; of several, the one that ends first. With the last of its `n` steps as number `e`, the proposal is the step of number
    /// `e - n + ⌊n/3⌋ + ⌊n/6⌋` (the first where that is below 0). None where the loss never falls.
    pub fn valley(&self) -> Option<Point> {
        let points = self.telling();
        let lengths = falling_lengths(points.iter().map(|point| point.smoothed));
        let length = lengths.iter().copied().max().filter(|&length| length > 1)?;
        let end = lengths.iter().position(|&other| other == length)?;
        Some(points[(end + length / 3 + length / 6).saturating_sub(length)])
    }

    /// The step after which the smoothed loss falls most beside the logarithm of the rate: fastai's `steep`. None where the loss never
    /// falls.
    pub fn steep(&self) -> Option<Point> {
        let slope = |[before, after]: [Point; 2]| (after.smoothed - before.smoothed) / (after.lr / before.lr).ln();
        let pairs = self.telling().windows(2).map(|pair| (pair[0], slope([pair[0], pair[1]])));
        let steepest = pairs.min_by(|(_, one), (_, other)| one.total_cmp(other));
        steepest.filter(|&(_, slope)| slope < 0.0).map(|(point, _)| point)
    }
}

/// For each value the length of the longest strictly falling subsequence that ends with it.
fn falling_lengths(values: impl Iterator<Item = f64>) -> Vec<usize> {
    // The highest value that a falling sequence of each length ends with.
    let mut highest: Vec<f64> = Vec::new();
    let length = |value| {
        let before = highest.partition_point(|&end| end > value);
        match highest.get_mut(before) {
            Some(end) => *end = value,
            None => highest.push(value),
        }
        before + 1
    };
    values.map(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test with these smoothed losses, the first at rate 1, each rate ten times the one before; with ten losses that say nothing before
    /// them and five behind.
    fn curve(smoothed: &[f64]) -> Curve {
        let losses = [&[9.0; 10], smoothed, &[9.0; 5]].concat();
        let point = |(step, &smoothed): (usize, &f64)| Point { lr: 10f64.powi(step as i32 - 10), loss: 0.0, smoothed };
        let points = losses.iter().enumerate().map(point).collect();
        Curve { test: RangeTest::default(), points, end: End::Diverged }
    }

    fn swept(losses: &[f64]) -> Curve {
        let mut sweep = Sweep::new(RangeTest { steps: 10, ..RangeTest::default() }).unwrap();
        losses.iter().for_each(|&loss| sweep.record(loss).unwrap());
        sweep.into_curve()
    }

    #[test]
    fn rates_rise_by_the_same_factor_from_the_lowest_on() {
        let test = RangeTest::default();
        assert_eq!(test.rate(0), 1e-7);
        assert!((test.rate(50) / 1e-3 - 1.0).abs() < 1e-12, "half way between 1e-7 and 10 by powers of ten");
        assert!((test.rate(99) / 10f64.powf(0.92) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn every_bad_setting_is_named_with_its_value() {
        let good = RangeTest::default;
        let bad = [
            ("lowest", "0", RangeTest { lowest: 0.0, ..good() }),
            ("lowest", "-1", RangeTest { lowest: -1.0, ..good() }),
            ("lowest", "NaN", RangeTest { lowest: f64::NAN, ..good() }),
            ("highest", "0.1", RangeTest { lowest: 0.1, highest: 0.1, ..good() }),
            ("highest", "NaN", RangeTest { highest: f64::NAN, ..good() }),
            ("highest", "inf", RangeTest { highest: f64::INFINITY, ..good() }),
            ("steps", "9", RangeTest { steps: 9, ..good() }),
        ];
        for (expected, value, test) in bad {
            match Sweep::new(test).unwrap_err() {
                TrainError::Setting { name, found, .. } => assert_eq!((name, found.as_str()), (expected, value)),
                other => panic!("{expected} = {value}: {other:?}"),
            }
        }
    }

    #[test]
    fn losses_are_smoothed_without_a_bias_towards_zero() {
        let smoothed: Vec<f64> = swept(&[2.0, 1.0, 4.0]).points.iter().map(|point| point.smoothed).collect();
        // (0.98 · 2 + 1) / (0.98 + 1), and so on.
        let expected = [2.0, 2.96 / 1.98, (0.9604 * 2.0 + 0.98 * 1.0 + 4.0) / (0.9604 + 0.98 + 1.0)];
        assert!(
            smoothed.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12),
            "{smoothed:?}"
        );
    }

    #[test]
    fn the_test_ends_above_four_times_the_lowest_smoothed_loss() {
        // After 1 the average with x is (0.98 + x) / 1.98: 4 for x = 6.94.
        assert_eq!(swept(&[1.0, 6.93, 1.0]).points.len(), 3);
        let ended = swept(&[1.0, 6.95, 1.0]);
        assert_eq!((ended.points.len(), ended.end), (2, End::Diverged));
    }

    #[test]
    fn the_test_ends_after_its_steps_and_where_numbers_end() {
        let all = swept(&[1.0; 12]);
        assert_eq!((all.points.len(), all.end), (10, End::Steps));
        let infinite = swept(&[1.0, f64::INFINITY, 1.0]);
        assert_eq!((infinite.points.len(), infinite.end), (1, End::Diverged));
    }

    #[test]
    fn a_first_loss_that_is_no_number_is_an_error() {
        let mut sweep = Sweep::new(RangeTest::default()).unwrap();
        let error = sweep.record(f64::NAN).unwrap_err();
        assert_eq!(error.to_string(), "the loss is NaN before the first step");
    }

    #[test]
    fn the_valley_is_half_way_down_the_longest_fall() {
        let valley = |losses: &[f64]| curve(losses).valley().map(|point| point.lr);
        // Six fall, the last as number 5: 5 - 6 + 2 + 1 = 2.
        assert_eq!(valley(&[8.0, 7.0, 6.0, 5.0, 4.0, 3.0]), Some(1e2));
        // 5 4 3 2 of numbers 2, 3, 5 and 6, whatever lies between: 6 - 4 + 1 + 0 = 3.
        assert_eq!(valley(&[1.0, 1.0, 5.0, 4.0, 6.0, 3.0, 2.0, 7.0]), Some(1e3));
        // 1 - 2 + 0 + 0 is below the first.
        assert_eq!(valley(&[9.0, 8.0]), Some(1.0));
        // 3 2 ends as number 2, 4 2 as number 4: 2 - 2 + 0 + 0 = 0, and not 2.
        assert_eq!(valley(&[2.0, 3.0, 2.0, 4.0, 2.0]), Some(1.0));
    }

    #[test]
    fn the_steepest_fall_begins_at_its_rate() {
        let steep = |losses: &[f64]| curve(losses).steep().map(|point| point.lr);
        assert_eq!(steep(&[8.0, 7.5, 5.0, 4.0, 4.5]), Some(1e1));
        assert_eq!(steep(&[5.0, 4.0, 6.0, 5.0]), Some(1.0), "of two that are as steep, the first");
    }

    #[test]
    fn a_loss_that_never_falls_proposes_nothing() {
        for losses in [&[1.0, 2.0, 2.0, 3.0][..], &[1.0], &[]] {
            assert_eq!((curve(losses).valley(), curve(losses).steep()), (None, None), "{losses:?}");
        }
    }

    #[test]
    fn the_first_tenth_and_the_last_five_steps_say_nothing() {
        // They would be the longest and the steepest fall.
        let flat = curve(&[3.0, 2.9, 2.8]);
        let steps = flat.points.iter().enumerate();
        let falling = |(step, &point): (usize, &Point)| match step {
            10..13 => point,
            _ => Point { smoothed: 100.0 - step as f64, ..point },
        };
        let ends = Curve { points: steps.map(falling).collect(), ..flat.clone() };
        assert_eq!((ends.valley(), ends.steep()), (flat.valley(), flat.steep()));
        assert_eq!(flat.valley().unwrap().lr, 1.0, "2 - 3 + 1 + 0 = 0 of three");
    }

    #[test]
    fn lengths_of_falls_are_those_of_the_plain_definition() {
        let mut generator = crate::random::generator(5, 0);
        let values: Vec<f64> = (0..200).map(|_| crate::random::below(&mut generator, 50) as f64).collect();
        let mut plain = vec![1; values.len()];
        for end in 0..values.len() {
            for before in (0..end).filter(|&before| values[end] < values[before]) {
                plain[end] = plain[end].max(plain[before] + 1);
            }
        }
        assert_eq!(falling_lengths(values.into_iter()), plain);
    }
}
