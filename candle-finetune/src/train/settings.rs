//! How a head is trained: settings, their defaults, their ranges.
//!
//! Only values; what they do is in `fit`. Where `lr` and `weight_decay` are left out they are derived from the features
//! by [`HeadSettings::resolved`], so that one default serves 64 dimensions and 2048, a hundred photos and a million.

use serde::{Deserialize, Serialize};

use super::error::{Result, TrainError};
use super::loss::{CrossEntropy, balanced};
use super::optimizer::{AdamW, Optimizer, Parameter, Sgd};
use super::schedule::{Shape, not_a_shape};

/// SGD's derived learning rate times the features' mean squared length, which bounds the loss's curvature.
const SGD_LR: f64 = 6.4;

/// AdamW's derived learning rate times the features' mean squared length.
const ADAMW_LR: f64 = 1.0;

/// The derived penalty times images, over the 3/2 power of the features' mean squared length.
const PENALTY: f64 = 0.008;

/// The optimiser and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerSettings {
    /// `torch.optim.SGD`.
    Sgd {
        /// In [0, 1).
        momentum: f64,
        /// Whether the step looks ahead along the momentum.
        nesterov: bool,
    },
    /// `torch.optim.AdamW`.
    #[serde(rename = "adamw")]
    AdamW {
        /// Memories of the gradient's mean and square, each in [0, 1).
        betas: [f64; 2],
        /// Added to the root of the mean square; above 0.
        eps: f64,
    },
}

impl OptimizerSettings {
    /// SGD with Nesterov momentum 0.9.
    pub const SGD: Self = Self::Sgd { momentum: 0.9, nesterov: true };

    /// AdamW with PyTorch's defaults.
    pub const ADAMW: Self = Self::AdamW { betas: [0.9, 0.999], eps: 1e-8 };

    /// The optimiser over `parameters`.
    ///
    /// # Errors
    /// Only those of allocating its state.
    pub fn build(&self, parameters: Vec<Parameter>) -> Result<Box<dyn Optimizer>> {
        Ok(match *self {
            Self::Sgd { momentum, nesterov } => Box::new(Sgd::new(parameters, momentum, nesterov)?),
            Self::AdamW { betas, eps } => Box::new(AdamW::new(parameters, betas, eps)?),
        })
    }
}

/// What each class counts in the loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeights {
    /// All the same.
    #[default]
    None,
    /// In inverse proportion to the number of training images.
    Balanced,
    /// One positive number per class.
    Given(Vec<f64>),
}

impl ClassWeights {
    /// Whether every number is above 0.
    pub(super) fn validate(&self) -> Result<()> {
        let ClassWeights::Given(weights) = self else {
            return Ok(());
        };
        let fine = weights.iter().all(|&weight| weight > 0.0 && weight.is_finite());
        check("class-weights", format!("{weights:?}"), fine, "numbers above 0")
    }
}

/// How a head is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct HeadSettings {
    /// Passes over the training images, at least 1.
    pub epochs: usize,
    /// Views per step, at least 1; the last step of an epoch takes what remains.
    pub batch_size: usize,
    /// The highest learning rate, above 0; derived from the features if left out.
    pub lr: Option<f64>,
    /// The optimiser.
    pub optimizer: OptimizerSettings,
    /// Pull of the weights (not the biases) towards 0, at least 0; derived from the features if left out.
    pub weight_decay: Option<f64>,
    /// Part of the features that is zero in each step, in [0, 1).
    pub drop_rate: f64,
    /// Part of each target that is spread over all classes, in [0, 1).
    pub label_smoothing: f64,
    /// What each class counts.
    pub class_weights: ClassWeights,
    /// Epochs in which the learning rate rises to its highest, at most `epochs`.
    pub warmup_epochs: usize,
    /// How the learning rate goes.
    pub schedule: Shape,
    /// Stop after this many epochs without a better validation accuracy; never if left out.
    pub patience: Option<usize>,
    /// Decides initial weights, order and dropout; nothing else is random.
    pub seed: u64,
    /// Train on features of mean 0 and spread 1, and fold both into the head afterwards.
    pub standardise: bool,
}

impl Default for HeadSettings {
    fn default() -> Self {
        Self {
            epochs: 60,
            batch_size: 32,
            lr: None,
            optimizer: OptimizerSettings::SGD,
            weight_decay: None,
            drop_rate: 0.0,
            label_smoothing: 0.0,
            class_weights: ClassWeights::None,
            warmup_epochs: 1,
            schedule: Shape::Cosine,
            patience: None,
            seed: 0,
            standardise: true,
        }
    }
}

impl HeadSettings {
    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for the first that is not.
    pub fn validate(&self) -> Result<()> {
        check_epochs(self.epochs)?;
        check("batch-size", self.batch_size, self.batch_size >= 1, "at least 1")?;
        check_weights(self.lr, self.weight_decay)?;
        check("drop-rate", self.drop_rate, unit(self.drop_rate), "from 0 up and below 1")?;
        check("label-smoothing", self.label_smoothing, unit(self.label_smoothing), "from 0 up and below 1")?;
        check_warmup(self.warmup_epochs, self.epochs)?;
        check_schedule(&self.schedule)?;
        check_patience(self.patience)?;
        check_optimizer(&self.optimizer)?;
        self.class_weights.validate()
    }

    /// The same settings with `lr` and `weight_decay` filled in for `images` training images of `classes` classes whose
    /// features have the mean squared length `length` (if standardised, the number of dimensions that vary).
    ///
    /// SGD's penalty is `0.008 · length^1.5 / images`. It lies within half a point of the best accuracy of a grid from
    /// 1e-4 to 3 for 64 and 512 dimensions with 100, 400 and 3200 photos and for 2048 with 400, measured on training
    /// images held out of each other. Its learning rate is `6.4 / length`, as the curvature grows with `length`. AdamW
    /// decays relative to its normalised gradient, whose spread in a batch is about 1 / √(batch size · classes).
    pub fn resolved(&self, images: usize, classes: usize, length: f64) -> Self {
        let length = if length > 0.0 { length } else { 1.0 };
        let penalty = PENALTY * length.powf(1.5) / images.max(1) as f64;
        let (lr, weight_decay) = match self.optimizer {
            OptimizerSettings::Sgd { .. } => (SGD_LR / length, penalty),
            OptimizerSettings::AdamW { .. } => {
                (ADAMW_LR / length, penalty * ((self.batch_size * classes) as f64).sqrt())
            }
        };
        Self { lr: self.lr.or(Some(lr)), weight_decay: self.weight_decay.or(Some(weight_decay)), ..self.clone() }
    }

    /// The loss for classes of which the training part has `counts` images.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if the weights given are not one per class.
    pub fn loss(&self, counts: &[usize]) -> Result<CrossEntropy> {
        cross_entropy(self.label_smoothing, &self.class_weights, counts)
    }
}

pub(super) fn cross_entropy(smoothing: f64, weights: &ClassWeights, counts: &[usize]) -> Result<CrossEntropy> {
    let plain = CrossEntropy::new(counts.len()).with_smoothing(smoothing);
    match weights {
        ClassWeights::None => Ok(plain),
        ClassWeights::Balanced => Ok(plain.with_weights(balanced(counts))),
        ClassWeights::Given(weights) => {
            let allowed = format!("one for each of {} classes", counts.len());
            check("class-weights", format!("{} numbers", weights.len()), weights.len() == counts.len(), &allowed)?;
            Ok(plain.with_weights(weights.clone()))
        }
    }
}

/// Whether there is anything to do.
pub(super) fn check_epochs(epochs: usize) -> Result<()> {
    check("epochs", epochs, epochs >= 1, "at least 1")
}

/// Whether a learning rate and a weight decay, where given, are in range.
pub(super) fn check_weights(lr: Option<f64>, decay: Option<f64>) -> Result<()> {
    if let Some(lr) = lr {
        check("lr", lr, lr > 0.0 && lr.is_finite(), "a number above 0")?;
    }
    if let Some(decay) = decay {
        check("weight-decay", decay, decay >= 0.0 && decay.is_finite(), "a number from 0 up")?;
    }
    Ok(())
}

pub(super) fn check_warmup(warmup: usize, epochs: usize) -> Result<()> {
    check("warmup-epochs", warmup, warmup <= epochs, &format!("at most `epochs`, {epochs}"))
}

pub(super) fn check_schedule(schedule: &Shape) -> Result<()> {
    if schedule.is_valid() { Ok(()) } else { Err(not_a_shape(schedule)) }
}

pub(super) fn check_patience(patience: Option<usize>) -> Result<()> {
    check("patience", patience.unwrap_or(1), patience != Some(0), "at least 1")
}

pub(super) fn check_optimizer(optimizer: &OptimizerSettings) -> Result<()> {
    match *optimizer {
        OptimizerSettings::Sgd { momentum, nesterov } => {
            check("momentum", momentum, unit(momentum), "from 0 up and below 1")?;
            check("nesterov", nesterov, !nesterov || momentum > 0.0, "false without momentum")
        }
        OptimizerSettings::AdamW { betas, eps } => {
            check("betas", format!("{betas:?}"), betas.into_iter().all(unit), "two numbers from 0 up and below 1")?;
            check("eps", eps, eps > 0.0 && eps.is_finite(), "a number above 0")
        }
    }
}

/// Whether `x` is in [0, 1).
pub(super) fn unit(x: f64) -> bool {
    (0.0..1.0).contains(&x)
}

/// Refuses a setting that is not `fine`.
pub(super) fn check(name: &'static str, found: impl ToString, fine: bool, allowed: &str) -> Result<()> {
    if fine { Ok(()) } else { Err(TrainError::Setting { name, found: found.to_string(), allowed: allowed.into() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        HeadSettings::default().validate().unwrap();
        HeadSettings { optimizer: OptimizerSettings::ADAMW, ..Default::default() }.validate().unwrap();
    }

    #[test]
    fn every_bad_setting_is_named_with_its_value() {
        let good = HeadSettings::default;
        let sgd = |momentum, nesterov| OptimizerSettings::Sgd { momentum, nesterov };
        let adamw = |betas, eps| OptimizerSettings::AdamW { betas, eps };
        let bad = [
            ("epochs", "0", HeadSettings { epochs: 0, ..good() }),
            ("batch-size", "0", HeadSettings { batch_size: 0, ..good() }),
            ("lr", "0", HeadSettings { lr: Some(0.0), ..good() }),
            ("lr", "-0.1", HeadSettings { lr: Some(-0.1), ..good() }),
            ("lr", "NaN", HeadSettings { lr: Some(f64::NAN), ..good() }),
            ("lr", "inf", HeadSettings { lr: Some(f64::INFINITY), ..good() }),
            ("weight-decay", "-1", HeadSettings { weight_decay: Some(-1.0), ..good() }),
            ("weight-decay", "NaN", HeadSettings { weight_decay: Some(f64::NAN), ..good() }),
            ("drop-rate", "1", HeadSettings { drop_rate: 1.0, ..good() }),
            ("drop-rate", "NaN", HeadSettings { drop_rate: f64::NAN, ..good() }),
            ("label-smoothing", "1", HeadSettings { label_smoothing: 1.0, ..good() }),
            ("label-smoothing", "NaN", HeadSettings { label_smoothing: f64::NAN, ..good() }),
            ("warmup-epochs", "31", HeadSettings { warmup_epochs: 31, epochs: 30, ..good() }),
            ("schedule", "step=0:0.1", HeadSettings { schedule: Shape::Step { every: 0, gamma: 0.1 }, ..good() }),
            ("schedule", "step=1:NaN", HeadSettings { schedule: Shape::Step { every: 1, gamma: f64::NAN }, ..good() }),
            ("patience", "0", HeadSettings { patience: Some(0), ..good() }),
            ("momentum", "1", HeadSettings { optimizer: sgd(1.0, false), ..good() }),
            ("nesterov", "true", HeadSettings { optimizer: sgd(0.0, true), ..good() }),
            ("betas", "[0.9, 1.0]", HeadSettings { optimizer: adamw([0.9, 1.0], 1e-8), ..good() }),
            ("eps", "0", HeadSettings { optimizer: adamw([0.9, 0.999], 0.0), ..good() }),
            (
                "class-weights",
                "[1.0, 0.0]",
                HeadSettings { class_weights: ClassWeights::Given(vec![1., 0.]), ..good() },
            ),
        ];
        for (expected, value, settings) in bad {
            match settings.validate() {
                Err(TrainError::Setting { name, found, .. }) => assert_eq!((name, found.as_str()), (expected, value)),
                other => panic!("{expected} = {value}: {other:?}"),
            }
        }
    }

    #[test]
    fn class_weights_must_be_one_per_class() {
        let settings = HeadSettings { class_weights: ClassWeights::Given(vec![1.0; 3]), ..Default::default() };
        settings.loss(&[1, 2, 3]).unwrap();
        let error = settings.loss(&[1, 2]).unwrap_err();
        assert_eq!(error.to_string(), "setting `class-weights` is 3 numbers, must be one for each of 2 classes");
    }

    #[test]
    fn given_values_are_kept_and_missing_ones_derived() {
        let settings = HeadSettings { lr: Some(0.5), ..Default::default() }.resolved(100, 2, 25.0);
        assert_eq!((settings.lr, settings.weight_decay), (Some(0.5), Some(0.01)));
        assert_eq!(HeadSettings::default().resolved(100, 2, 64.0).lr, Some(0.1));
    }

    #[test]
    fn settings_survive_toml() {
        let given = HeadSettings {
            lr: Some(0.01),
            patience: Some(5),
            optimizer: OptimizerSettings::ADAMW,
            class_weights: ClassWeights::Given(vec![1.0, 2.5]),
            schedule: Shape::STEP,
            ..Default::default()
        };
        let one_cycle = HeadSettings { schedule: Shape::OneCycle, ..Default::default() };
        for settings in [given, one_cycle, HeadSettings::default()] {
            let text = toml::to_string(&settings).unwrap();
            assert_eq!(toml::from_str::<HeadSettings>(&text).unwrap(), settings, "{text}");
        }
    }

    #[test]
    fn missing_settings_take_their_default_and_unknown_ones_are_refused() {
        let settings: HeadSettings =
            toml::from_str("epochs = 7\nclass-weights = \"balanced\"\nschedule = \"one-cycle\"").unwrap();
        let (class_weights, schedule) = (ClassWeights::Balanced, Shape::OneCycle);
        let expected = HeadSettings { epochs: 7, class_weights, schedule, ..Default::default() };
        assert_eq!(settings, expected);
        assert!(toml::from_str::<HeadSettings>("epoch = 7").unwrap_err().to_string().contains("epoch"));
    }
}
