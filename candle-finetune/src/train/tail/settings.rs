//! How a tail is trained: settings, their defaults, their ranges.
//!
//! Only values. What is left out follows from the others by [`TailSettings::resolved`].

use std::fmt;
use std::str::FromStr;

use candle_resnet::architecture::Architecture;
use candle_resnet::part::Part;
use candle_resnet::training::NormPolicy;
use serde::{Deserialize, Serialize};

use crate::train::ema::EmaSettings;
use crate::train::error::Result;
use crate::train::groups::{Groups, Rate, fits};
use crate::train::loss::CrossEntropy;
use crate::train::mixup::Mixup;
use crate::train::schedule::Shape;
use crate::train::settings::{
    ClassWeights, OptimizerSettings, check, check_epochs, check_optimizer, check_patience, check_schedule,
    check_warmup, check_weights, cross_entropy, unit,
};

/// Learning rate of SGD for each image of a batch: 0.0125 for 32 images.
const SGD_LR: f64 = 0.05 / 128.0;

/// Learning rate of AdamW for each image of a batch: 0.0003 for 32 images.
const ADAMW_LR: f64 = 0.0012 / 128.0;

/// By how much higher rates are where the weights were drawn rather than pretrained.
const FRESH: f64 = 2.0;

/// What trains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrainFrom {
    /// A stage, counted from 1, and all behind it.
    Stage(usize),
    /// The whole network.
    All,
    /// `fc` and parameters whose names fit one of these patterns, in which `*` stands for any characters: `layer4.1.*`, `*.bn2.weight`.
    Matching(Vec<String>),
}

impl TrainFrom {
    /// The first part of `architecture` in which something trains.
    ///
    /// # Errors
    /// [`TrainError::Setting`](crate::train::TrainError::Setting) if it has no such stage, or a pattern fits no parameter.
    pub fn part(&self, architecture: &Architecture) -> Result<Part> {
        let part = match self {
            TrainFrom::Stage(stage) => Part::Stage(*stage),
            TrainFrom::All => Part::Stem,
            TrainFrom::Matching(patterns) => return first_of(patterns, architecture),
        };
        let stages = architecture.depths.len();
        let names: Vec<String> = (1..=stages).rev().map(|stage| format!("layer{stage}")).collect();
        let allowed = format!("head, {} or all for `{}`", names.join(", "), architecture.name);
        check("train-from", self, Part::all(architecture).any(|known| known == part), &allowed)?;
        Ok(part)
    }

    /// Whether the parameter `name` of the first part or one behind it trains.
    pub fn trains(&self, name: &str) -> bool {
        match self {
            TrainFrom::Stage(_) | TrainFrom::All => true,
            TrainFrom::Matching(patterns) => {
                name.starts_with("fc.") || patterns.iter().any(|pattern| fits(pattern, name))
            }
        }
    }
}

/// The first part with a parameter that fits one of `patterns`.
fn first_of(patterns: &[String], architecture: &Architecture) -> Result<Part> {
    let tensors = Part::tensors(architecture, 1);
    let parameters = || tensors.iter().filter(|(_, spec)| spec.role.is_parameter());
    let part = |pattern: &String| parameters().find(|(_, spec)| fits(pattern, &spec.name)).map(|(part, _)| *part);
    for pattern in patterns {
        let allowed = format!("a pattern that fits the name of a parameter of `{}`", architecture.name);
        check("train-from", pattern, part(pattern).is_some(), &allowed)?;
    }
    Ok(patterns.iter().filter_map(part).min().unwrap_or(Part::Classifier))
}

impl fmt::Display for TrainFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrainFrom::Stage(stage) => write!(f, "layer{stage}"),
            TrainFrom::All => write!(f, "all"),
            TrainFrom::Matching(patterns) => write!(f, "{}", patterns.join(",")),
        }
    }
}

impl FromStr for TrainFrom {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<TrainFrom, String> {
        let stage = || name.strip_prefix("layer")?.parse().ok().filter(|&stage| stage >= 1);
        match name {
            "all" => Ok(TrainFrom::All),
            // Every name of a parameter has a point.
            _ if name.contains(['*', '.']) => Ok(TrainFrom::Matching(name.split(',').map(str::to_string).collect())),
            _ => stage()
                .map(TrainFrom::Stage)
                .ok_or_else(|| format!("`{name}` is neither a stage, such as layer4, nor all, nor a pattern of names")),
        }
    }
}

impl TryFrom<String> for TrainFrom {
    type Error = String;

    fn try_from(name: String) -> std::result::Result<TrainFrom, String> {
        name.parse()
    }
}

impl From<TrainFrom> for String {
    fn from(from: TrainFrom) -> String {
        from.to_string()
    }
}

/// What batch norms of the parts that train do. Those of other parts keep their running statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNorm {
    /// They normalise by their running statistics, which stay as they are.
    #[default]
    Frozen,
    /// They normalise by the batch, and their running statistics follow it.
    Train,
}

/// Which images an epoch sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampler {
    /// Each once.
    #[default]
    Shuffled,
    /// As many, but of every class the same number: images of rare classes several times.
    Balanced,
}

/// How a tail is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct TailSettings {
    /// What trains.
    pub train_from: TrainFrom,
    /// Whether a head is fitted on features first, from which the tail then starts.
    pub head_first: bool,
    /// Passes over the training images, at least 1.
    pub epochs: usize,
    /// Images of a batch, at least 1.
    pub batch_size: usize,
    /// Batches of a step, at least 1: their gradients are averaged.
    pub accumulate: usize,
    /// Which images an epoch sees.
    pub sampler: Sampler,
    /// The highest learning rate, which is `fc`'s, above 0; derived from batch size and optimiser if left out.
    pub lr: Option<f64>,
    /// The learning rate of each part beside that of the part behind it, above 0 and at most 1.
    pub layer_decay: f64,
    /// The optimiser.
    pub optimizer: OptimizerSettings,
    /// Pull of the weights towards 0, at least 0; derived from the optimiser if left out.
    pub weight_decay: Option<f64>,
    /// The norm of all gradients that they are scaled down to where it is above, above 0; never if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Whether norms and biases are pulled as well.
    pub decay_vectors: bool,
    /// What batch norms of the parts that train do.
    pub batch_norm: BatchNorm,
    /// Part of the features that is zero in each step, in [0, 1).
    pub drop_rate: f64,
    /// Part of the images that do without the last block's branch in each step, in [0, 1).
    pub drop_path: f64,
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
    /// How what the first part that trains is given is mixed within a batch; the pixels where everything trains. Not at all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixup: Option<Mixup>,
    /// The average of weights that is measured and delivered in their place; none if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaSettings>,
}

/// [`TailSettings::pretrained`] for the whole network.
impl Default for TailSettings {
    fn default() -> TailSettings {
        TailSettings::pretrained(TrainFrom::All)
    }
}

impl TailSettings {
    /// For weights that were trained on other images.
    ///
    /// Batch norms follow the batch only where the whole network does: statistics of maps that stay as they are need no
    /// small batches to be measured anew.
    pub fn pretrained(train_from: TrainFrom) -> TailSettings {
        TailSettings {
            batch_norm: if train_from == TrainFrom::All { BatchNorm::Train } else { BatchNorm::Frozen },
            train_from,
            head_first: true,
            epochs: 10,
            batch_size: 32,
            accumulate: 1,
            sampler: Sampler::Shuffled,
            lr: None,
            layer_decay: 0.7,
            optimizer: OptimizerSettings::SGD,
            weight_decay: None,
            clip_norm: None,
            decay_vectors: false,
            drop_rate: 0.0,
            drop_path: 0.0,
            label_smoothing: 0.0,
            class_weights: ClassWeights::None,
            warmup_epochs: 1,
            schedule: Shape::Cosine,
            patience: None,
            mixup: None,
            ema: None,
        }
    }

    /// For weights that were drawn.
    pub fn from_scratch(train_from: TrainFrom) -> TailSettings {
        TailSettings {
            head_first: false,
            epochs: 100,
            batch_size: 128,
            layer_decay: 1.0,
            batch_norm: BatchNorm::Train,
            warmup_epochs: 5,
            ..TailSettings::pretrained(train_from)
        }
    }

    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// [`TrainError::Setting`](crate::train::TrainError::Setting) for the first that is not.
    pub fn validate(&self) -> Result<()> {
        check_epochs(self.epochs)?;
        check("batch-size", self.batch_size, self.batch_size >= 1, "at least 1")?;
        check("accumulate", self.accumulate, self.accumulate >= 1, "at least 1")?;
        check_weights(self.lr, self.weight_decay)?;
        if let Some(norm) = self.clip_norm {
            check("clip-norm", norm, norm > 0.0 && norm.is_finite(), "a number above 0")?;
        }
        self.mixup.as_ref().map_or(Ok(()), Mixup::validate)?;
        self.ema.as_ref().map_or(Ok(()), EmaSettings::validate)?;
        let decay = self.layer_decay;
        check("layer-decay", decay, decay > 0.0 && decay <= 1.0, "above 0 and at most 1")?;
        check("drop-rate", self.drop_rate, unit(self.drop_rate), "from 0 up and below 1")?;
        check("drop-path", self.drop_path, unit(self.drop_path), "from 0 up and below 1")?;
        check("label-smoothing", self.label_smoothing, unit(self.label_smoothing), "from 0 up and below 1")?;
        check_warmup(self.warmup_epochs, self.epochs)?;
        check_schedule(&self.schedule)?;
        check_patience(self.patience)?;
        check_optimizer(&self.optimizer)?;
        self.class_weights.validate()
    }

    /// The same settings with `lr` and `weight_decay` filled in, for weights that were drawn (`fresh`) or pretrained.
    ///
    /// The rate is proportional to the images of a step (Goyal et al. 2017).
    pub fn resolved(&self, fresh: bool) -> TailSettings {
        let (rate, decay) = match self.optimizer {
            OptimizerSettings::Sgd { .. } => (SGD_LR, 1e-4),
            OptimizerSettings::AdamW { .. } => (ADAMW_LR, 0.01),
        };
        let lr = rate * (self.batch_size * self.accumulate) as f64 * if fresh { FRESH } else { 1.0 };
        TailSettings { lr: self.lr.or(Some(lr)), weight_decay: self.weight_decay.or(Some(decay)), ..self.clone() }
    }

    /// Each part of `architecture` that trains, with what scales its learning rate.
    ///
    /// # Errors
    /// As [`TrainFrom::part`].
    pub fn scales(&self, architecture: &Architecture) -> Result<Vec<(Part, f64)>> {
        let first = self.train_from.part(architecture)?;
        let parts: Vec<Part> = Part::all(architecture).filter(|&part| part >= first).collect();
        let behind = |index| (parts.len() - 1 - index) as i32;
        Ok(parts.iter().enumerate().map(|(index, &part)| (part, self.layer_decay.powi(behind(index)))).collect())
    }

    /// Those of [`scales`](TailSettings::scales) in which a parameter trains.
    fn training_parts(&self, architecture: &Architecture) -> Result<Vec<(Part, f64)>> {
        let tensors = Part::tensors(architecture, 1);
        let trains = |part| tensors.iter().any(|(of, spec)| *of == part && self.train_from.trains(&spec.name));
        Ok(self.scales(architecture)?.into_iter().filter(|(part, _)| trains(*part)).collect())
    }

    /// The groups of an optimiser over the parameters that train.
    ///
    /// # Errors
    /// As [`TrainFrom::part`].
    pub fn groups(&self, architecture: &Architecture) -> Result<Groups> {
        let rate = |(part, scale)| Rate {
            // What is in the stem has no name in common; later patterns win.
            pattern: if part == Part::Stem { "*".into() } else { format!("{part}.*") },
            scale,
        };
        Ok(Groups {
            weight_decay: self.weight_decay.unwrap_or(0.0),
            decay_vectors: self.decay_vectors,
            rates: self.training_parts(architecture)?.into_iter().map(rate).collect(),
        })
    }

    /// What batch norms of `architecture` normalise by.
    ///
    /// # Errors
    /// As [`TrainFrom::part`].
    pub fn norms(&self, architecture: &Architecture) -> Result<NormPolicy> {
        let parts = self.training_parts(architecture)?.into_iter();
        Ok(match self.batch_norm {
            BatchNorm::Frozen => NormPolicy::frozen(),
            BatchNorm::Train => parts.map(|(part, _)| part).collect(),
        })
    }

    /// The loss for classes of which the training part has `counts` images.
    ///
    /// # Errors
    /// [`TrainError::Setting`](crate::train::TrainError::Setting) if the weights given are not one per class.
    pub fn loss(&self, counts: &[usize]) -> Result<CrossEntropy> {
        cross_entropy(self.label_smoothing, &self.class_weights, counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainError;

    fn resnet18() -> &'static Architecture {
        Architecture::named("resnet18").unwrap()
    }

    #[test]
    fn defaults_are_valid_and_survive_toml() {
        let all = TailSettings {
            clip_norm: Some(1.0),
            mixup: Some(Mixup::default()),
            ema: Some(EmaSettings::default()),
            ..TailSettings::from_scratch(TrainFrom::All)
        };
        for settings in [TailSettings::pretrained(TrainFrom::Stage(4)), all] {
            settings.validate().unwrap();
            let text = toml::to_string(&settings).unwrap();
            assert_eq!(toml::from_str::<TailSettings>(&text).unwrap(), settings, "{text}");
        }
        let settings: TailSettings = toml::from_str("train-from = \"layer3\"\nepochs = 3").unwrap();
        assert_eq!((settings.train_from, settings.epochs), (TrainFrom::Stage(3), 3));
        for wrong in ["train-from = \"layer\"", "train-from = \"fc\"", "epoch = 3"] {
            assert!(toml::from_str::<TailSettings>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_bad_setting_is_named_with_its_value() {
        let (good, mixup) = (TailSettings::default, Mixup::default());
        let bad = [
            ("epochs", "0", TailSettings { epochs: 0, ..good() }),
            ("batch-size", "0", TailSettings { batch_size: 0, ..good() }),
            ("accumulate", "0", TailSettings { accumulate: 0, ..good() }),
            ("clip-norm", "0", TailSettings { clip_norm: Some(0.0), ..good() }),
            ("ema-decay", "1", TailSettings { ema: Some(EmaSettings { decay: 1.0, warmup: true }), ..good() }),
            ("mixup-alpha", "-1", TailSettings { mixup: Some(Mixup { mixup_alpha: -1.0, ..mixup }), ..good() }),
            ("lr", "NaN", TailSettings { lr: Some(f64::NAN), ..good() }),
            ("weight-decay", "-1", TailSettings { weight_decay: Some(-1.0), ..good() }),
            ("layer-decay", "0", TailSettings { layer_decay: 0.0, ..good() }),
            ("layer-decay", "1.5", TailSettings { layer_decay: 1.5, ..good() }),
            ("layer-decay", "NaN", TailSettings { layer_decay: f64::NAN, ..good() }),
            ("drop-rate", "1", TailSettings { drop_rate: 1.0, ..good() }),
            ("drop-path", "-0.1", TailSettings { drop_path: -0.1, ..good() }),
            ("label-smoothing", "1", TailSettings { label_smoothing: 1.0, ..good() }),
            ("warmup-epochs", "11", TailSettings { warmup_epochs: 11, ..good() }),
            ("patience", "0", TailSettings { patience: Some(0), ..good() }),
        ];
        for (expected, value, settings) in bad {
            match settings.validate() {
                Err(TrainError::Setting { name, found, .. }) => assert_eq!((name, found.as_str()), (expected, value)),
                other => panic!("{expected} = {value}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_stage_that_the_network_does_not_have_is_named_beside_those_it_has() {
        let error = TrainFrom::Stage(4).part(Architecture::named("resnet20_cifar").unwrap()).unwrap_err();
        let said = "setting `train-from` is layer4, must be head, layer3, layer2, layer1 or all for `resnet20_cifar`";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn patterns_train_what_they_fit_from_the_first_part_that_holds_some() {
        let from: TrainFrom = "layer4.1.*,layer3.*.bn2.*".parse().unwrap();
        assert_eq!(from.part(resnet18()).unwrap(), Part::Stage(3));
        let trains = ["layer3.0.bn2.weight", "layer3.0.conv1.weight", "layer4.0.conv1.weight", "layer4.1.conv1.weight"];
        assert_eq!(trains.map(|name| from.trains(name)), [true, false, false, true]);
        assert!(from.trains("fc.bias"));
        assert_eq!(from.to_string().parse::<TrainFrom>().unwrap(), from);
        let settings = TailSettings { layer_decay: 0.5, ..TailSettings::pretrained("layer3.*".parse().unwrap()) };
        let rates: Vec<(String, f64)> =
            settings.groups(resnet18()).unwrap().rates.into_iter().map(|rate| (rate.pattern, rate.scale)).collect();
        assert_eq!(rates, [("layer3.*".to_string(), 0.25), ("fc.*".to_string(), 1.0)], "nothing of layer4 trains");
        let error = "layer4.*,layer9.*".parse::<TrainFrom>().unwrap().part(resnet18()).unwrap_err();
        let said =
            "setting `train-from` is layer9.*, must be a pattern that fits the name of a parameter of `resnet18`";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn every_part_has_a_lower_rate_than_the_one_behind_it() {
        let settings = TailSettings { layer_decay: 0.5, ..TailSettings::pretrained(TrainFrom::Stage(3)) };
        let expected = [(Part::Stage(3), 0.25), (Part::Stage(4), 0.5), (Part::Classifier, 1.0)];
        assert_eq!(settings.scales(resnet18()).unwrap(), expected);
    }

    #[test]
    fn rates_are_proportional_to_the_batch_and_given_ones_stay() {
        let lr = |settings: TailSettings, fresh| settings.resolved(fresh).lr.unwrap();
        let of_batch = |batch_size| TailSettings { batch_size, ..TailSettings::default() };
        assert!((lr(of_batch(128), false) - 0.05).abs() < 1e-12);
        assert!((lr(of_batch(128), true) - 0.1).abs() < 1e-12);
        assert_eq!(lr(TailSettings { lr: Some(0.3), ..of_batch(1) }, true), 0.3);
    }

    #[test]
    fn norms_follow_the_batch_only_where_the_network_trains() {
        use candle_resnet::training::Statistics;
        let settings = TailSettings { batch_norm: BatchNorm::Train, ..TailSettings::pretrained(TrainFrom::Stage(4)) };
        let norms = settings.norms(resnet18()).unwrap();
        assert_eq!(
            [Part::Stage(3), Part::Stage(4)].map(|part| norms.of(part)),
            [Statistics::Running, Statistics::Batch]
        );
        let some = TailSettings { train_from: "layer2.*".parse().unwrap(), ..settings.clone() };
        let norms = some.norms(resnet18()).unwrap();
        assert_eq!(
            [Part::Stage(2), Part::Stage(4)].map(|part| norms.of(part)),
            [Statistics::Batch, Statistics::Running],
            "nothing of layer4 trains"
        );
        let frozen = TailSettings { batch_norm: BatchNorm::Frozen, ..settings };
        assert_eq!(frozen.norms(resnet18()).unwrap(), NormPolicy::frozen());
    }
}
