//! The learning rate of a step, as a pure function.
//!
//! Keeps no state: a run that stops and goes on asks for the same step and gets the same rate.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::TrainError;

/// How many times lower than the peak a one-cycle begins.
const ONE_CYCLE_START: f64 = 25.0;

/// How many times lower than its beginning a one-cycle ends.
const ONE_CYCLE_END: f64 = 1e4;

/// The part of a one-cycle in which the learning rate rises, where nobody says how long.
const ONE_CYCLE_WARMUP: f64 = 0.3;

/// How the learning rate goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Shape {
    /// Half a cosine from the peak towards 0 (Loshchilov & Hutter 2017, without restarts).
    #[default]
    Cosine,
    /// Stays at the peak.
    Constant,
    /// A straight line from the peak to 0.
    Linear,
    /// Half a cosine from 1/25 of the peak up to it in the warm-up, and another down to 1/250000 of it (Smith & Topin 2018);
    /// `torch.optim.lr_scheduler.OneCycleLR` with the momentum left as it is.
    OneCycle,
    /// Falls at once, again and again; `torch.optim.lr_scheduler.StepLR`.
    Step {
        /// Epochs from one fall to the next, at least 1, counted from the beginning of the run, warm-up included.
        every: usize,
        /// What remains at each, above 0 and at most 1.
        gamma: f64,
    },
}

impl Shape {
    /// Falls as torchvision's training script sets them.
    pub const STEP: Self = Self::Step { every: 30, gamma: 0.1 };

    /// Epochs of warm-up in a run of `epochs` where nobody says how many: 0.3 of a one-cycle as in PyTorch, else 1; but a short
    /// run is not all warm-up.
    pub fn default_warmup(&self, epochs: usize) -> usize {
        match self {
            Shape::OneCycle => (ONE_CYCLE_WARMUP * epochs as f64).round() as usize,
            _ => usize::from(epochs > 1),
        }
    }

    /// Whether its numbers are in their ranges.
    pub(super) fn is_valid(&self) -> bool {
        match *self {
            Shape::Step { every, gamma } => every >= 1 && gamma > 0.0 && gamma <= 1.0,
            _ => true,
        }
    }
}

/// As text: `cosine`, `one-cycle`, `step=30:0.1`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Cosine => write!(f, "cosine"),
            Shape::Constant => write!(f, "constant"),
            Shape::Linear => write!(f, "linear"),
            Shape::OneCycle => write!(f, "one-cycle"),
            Shape::Step { every, gamma } => write!(f, "step={every}:{gamma}"),
        }
    }
}

/// From text; `step` alone is [`Shape::STEP`].
impl FromStr for Shape {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        let shape = match text {
            "cosine" => Some(Shape::Cosine),
            "constant" => Some(Shape::Constant),
            "linear" => Some(Shape::Linear),
            "one-cycle" => Some(Shape::OneCycle),
            "step" => Some(Shape::STEP),
            _ => text.strip_prefix("step=").and_then(falls),
        };
        shape.filter(Shape::is_valid).ok_or_else(|| not_a_shape(text))
    }
}

impl TryFrom<String> for Shape {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self, TrainError> {
        text.parse()
    }
}

impl From<Shape> for String {
    fn from(shape: Shape) -> String {
        shape.to_string()
    }
}

/// `EVERY:GAMMA`.
fn falls(numbers: &str) -> Option<Shape> {
    let (every, gamma) = numbers.split_once(':')?;
    Some(Shape::Step { every: every.parse().ok()?, gamma: gamma.parse().ok()? })
}

pub(super) fn not_a_shape(found: impl ToString) -> TrainError {
    let allowed = "`cosine`, `constant`, `linear`, `one-cycle` or `step=EVERY:GAMMA`, every at least 1 epoch, gamma above 0 and at most 1";
    TrainError::Setting { name: "schedule", found: found.to_string(), allowed: allowed.into() }
}

/// A learning rate for each of `steps` steps, of which the first `warmup` rise to the peak: linearly, but in a one-cycle as it says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// How the learning rate goes.
    pub shape: Shape,
    /// The highest learning rate.
    pub peak: f64,
    /// Steps of warm-up; step `warmup - 1` is the first at the peak.
    pub warmup: usize,
    /// All steps, warm-up included.
    pub steps: usize,
    /// Steps of one epoch, at least 1.
    pub steps_per_epoch: usize,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.rising(step);
        }
        match self.shape {
            Shape::Constant => self.peak,
            Shape::Cosine => annealed(self.peak, 0.0, self.progress(step)),
            Shape::Linear => self.peak * (1.0 - self.progress(step)),
            Shape::OneCycle => annealed(self.peak, self.peak / ONE_CYCLE_START / ONE_CYCLE_END, self.descent(step)),
            Shape::Step { every, gamma } => self.peak * gamma.powf((step / self.steps_per_epoch / every) as f64),
        }
    }

    fn rising(&self, step: usize) -> f64 {
        match (self.shape, self.warmup - 1) {
            (Shape::OneCycle, last @ 1..) => {
                annealed(self.peak / ONE_CYCLE_START, self.peak, step as f64 / last as f64)
            }
            _ => self.peak * (step + 1) as f64 / self.warmup as f64,
        }
    }

    /// How much of the part after the warm-up lies behind `step`, in [0, 1].
    fn progress(&self, step: usize) -> f64 {
        self.part(step - self.warmup)
    }

    /// As [`progress`](Schedule::progress), but from the last step of the warm-up to the last of all.
    fn descent(&self, step: usize) -> f64 {
        self.part(step + 1 - self.warmup)
    }

    fn part(&self, steps: usize) -> f64 {
        let length = self.steps.saturating_sub(self.warmup).max(1);
        (steps as f64 / length as f64).min(1.0)
    }
}

/// On half a cosine from `start` to `end`, `progress` of the way.
fn annealed(start: f64, end: f64, progress: f64) -> f64 {
    end + (start - end) * 0.5 * (1.0 + (PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_follow_the_table() {
        let cosine = Schedule { shape: Shape::Cosine, peak: 0.8, warmup: 0, steps: 4, steps_per_epoch: 2 };
        let warm = Schedule { warmup: 2, steps: 6, ..cosine };
        let constant = Schedule { shape: Shape::Constant, ..warm };
        let linear = Schedule { shape: Shape::Linear, ..warm };
        let falls = Schedule { shape: Shape::Step { every: 2, gamma: 0.5 }, ..warm };
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
            (linear, 0, 0.4),
            (linear, 2, 0.8),
            (linear, 5, 0.2),
            (linear, 6, 0.0),
            (falls, 1, 0.8),
            (falls, 3, 0.8),
            (falls, 4, 0.4),
            (falls, 8, 0.2),
        ];
        for (schedule, step, expected) in table {
            let found = schedule.at(step);
            assert!((found - expected).abs() < 1e-12, "{schedule:?} step {step}: {found} != {expected}");
        }
    }

    #[test]
    fn a_warm_up_longer_than_the_run_never_leaves_the_ramp() {
        let schedule = Schedule { shape: Shape::Cosine, peak: 1.0, warmup: 10, steps: 5, steps_per_epoch: 1 };
        let rates: Vec<f64> = (0..5).map(|step| schedule.at(step)).collect();
        assert_eq!(rates, [0.1, 0.2, 0.3, 0.4, 0.5]);
    }

    #[test]
    fn a_one_cycle_may_be_of_any_length() {
        let at = |warmup, steps, step| {
            Schedule { shape: Shape::OneCycle, peak: 1.0, warmup, steps, steps_per_epoch: 1 }.at(step)
        };
        let table = [
            (at(1, 2, 0), 1.0),
            (at(1, 2, 1), 4e-6),
            (at(1, 2, 9), 4e-6),
            (at(2, 2, 0), 0.04),
            (at(2, 2, 1), 1.0),
            (at(2, 2, 2), 4e-6),
            (at(0, 1, 0), 4e-6),
        ];
        table
            .into_iter()
            .for_each(|(found, expected)| assert!((found - expected).abs() < 1e-12, "{found} != {expected}"));
    }

    #[test]
    fn shapes_survive_text() {
        for shape in
            [Shape::Cosine, Shape::Constant, Shape::Linear, Shape::OneCycle, Shape::Step { every: 7, gamma: 0.25 }]
        {
            assert_eq!(shape.to_string().parse::<Shape>().unwrap(), shape);
        }
        assert_eq!("step".parse::<Shape>().unwrap(), Shape::STEP);
        for text in [
            "",
            "cosin",
            "step=",
            "step=3",
            "step=0:0.1",
            "step=3:0",
            "step=3:1.5",
            "step=3:NaN",
            "step=3:0.1:2",
            "linear=3",
        ] {
            let message = text.parse::<Shape>().unwrap_err().to_string();
            assert!(message.starts_with(&format!("setting `schedule` is {text}, must be `cosine`, ")), "{message}");
        }
    }

    #[test]
    fn warm_up_where_nobody_says_how_long() {
        let epochs = |shape: Shape| [1, 2, 15, 60].map(|epochs| shape.default_warmup(epochs));
        assert_eq!((epochs(Shape::OneCycle), epochs(Shape::Linear)), ([0, 1, 5, 18], [0, 1, 1, 1]));
    }
}
