//! The learning rate of a step, as a pure function.
//!
//! Keeps no state: a run that stops and goes on asks for the same step and gets the same rate.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// How the learning rate goes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Half a cosine from the peak towards 0 (Loshchilov & Hutter 2017, without restarts).
    #[default]
    Cosine,
    /// Stays at the peak.
    Constant,
}

/// A learning rate for each of `steps` steps, of which the first `warmup` rise linearly to the peak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// What follows the warm-up.
    pub shape: Shape,
    /// The highest learning rate.
    pub peak: f64,
    /// Steps of linear warm-up; step `warmup - 1` is the first at the peak.
    pub warmup: usize,
    /// All steps, warm-up included.
    pub steps: usize,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        match self.shape {
            Shape::Constant => self.peak,
            Shape::Cosine => self.peak * 0.5 * (1.0 + (PI * self.progress(step)).cos()),
        }
    }

    /// How much of the part after the warm-up lies behind `step`, in [0, 1].
    fn progress(&self, step: usize) -> f64 {
        let length = self.steps.saturating_sub(self.warmup).max(1);
        ((step - self.warmup) as f64 / length as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_follow_the_table() {
        let cosine = Schedule { shape: Shape::Cosine, peak: 0.8, warmup: 0, steps: 4 };
        let warm = Schedule { warmup: 2, steps: 6, ..cosine };
        let constant = Schedule { shape: Shape::Constant, ..warm };
        let half = 0.5f64.sqrt();
        let table = [
            (cosine, 0, 0.8),
            (cosine, 1, 0.4 * (1.0 + half)),
            (cosine, 2, 0.4),
            (cosine, 3, 0.4 * (1.0 - half)),
            (cosine, 4, 0.0),
            (cosine, 9, 0.0),
            (warm, 0, 0.4),
            (warm, 1, 0.8),
            (warm, 2, 0.8),
            (warm, 4, 0.4),
            (constant, 0, 0.4),
            (constant, 5, 0.8),
        ];
        for (schedule, step, expected) in table {
            let found = schedule.at(step);
            assert!((found - expected).abs() < 1e-12, "{schedule:?} step {step}: {found} != {expected}");
        }
    }

    #[test]
    fn a_warm_up_longer_than_the_run_never_leaves_the_ramp() {
        let schedule = Schedule { shape: Shape::Cosine, peak: 1.0, warmup: 10, steps: 5 };
        let rates: Vec<f64> = (0..5).map(|step| schedule.at(step)).collect();
        assert_eq!(rates, [0.1, 0.2, 0.3, 0.4, 0.5]);
    }
}
