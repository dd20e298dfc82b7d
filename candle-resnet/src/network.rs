//! The trainable form of a network: ordinary candle layers over a `VarBuilder`, on any device.
//!
//! It can be entered at any part with the map that this part is given, and trained from there on. For frozen weights use
//! [`Trunk`](crate::trunk::Trunk), which keeps no graph.

use candle_core::{Result, Tensor};
use candle_nn::{BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, GroupNorm, Linear, Module, ModuleT, VarBuilder};

use crate::architecture::{Architecture, Norm};
use crate::blueprint::{Blueprint, ConvNorm, NORM_EPSILON};
use crate::features::Boundary;
use crate::figure::{ConvNormLayer, Figure, Parameters};
use crate::part::Part;
use crate::training::{Statistics, TrainingMode};

/// A whole network with its classifier `fc`.
#[derive(Debug, Clone)]
pub struct Network {
    figure: Figure<TrainableConvNorm>,
    fc: Linear,
}

impl Network {
    /// Builds the network over variables named as torchvision names them.
    ///
    /// # Errors
    /// If `variables` lacks a tensor or holds one of another shape.
    pub fn new(architecture: &Architecture, classes: usize, variables: VarBuilder) -> Result<Network> {
        let blueprint = Blueprint::of(architecture);
        let figure = Figure::build(&blueprint, &Variables(&variables))?;
        let fc = candle_nn::linear(blueprint.feature_width, classes, variables.pp("fc"))?;
        Ok(Network { figure, fc })
    }

    /// (N, C, H, W) → (N, C', H', W'), the map at a boundary.
    ///
    /// # Errors
    /// If the network has no such boundary, or shapes or devices do not fit.
    pub fn map_at(&self, images: &Tensor, boundary: Boundary) -> Result<Tensor> {
        self.figure.map_at(images, Part::Stem, boundary, &mut ())
    }

    /// (N, C, H, W) → (N, D), pooled.
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.figure.features(images, Part::Stem, &mut ())
    }

    /// (N, C, H, W) → (N, classes).
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.forward_from(Part::Stem, images)
    }

    /// What `part` is given, images for the stem and else the map (N, C, H, W) at its [entry](Part::entry) → (N, classes).
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn forward_from(&self, part: Part, x: &Tensor) -> Result<Tensor> {
        self.fc.forward(&self.figure.features(x, part, &mut ())?)
    }

    /// As [`forward_from`](Network::forward_from) in a training step.
    ///
    /// Batch norms that normalise by the batch move their running statistics: those variables that the network was built over.
    ///
    /// # Errors
    /// If shapes or devices do not fit, or a batch norm has but one value to normalise by.
    pub fn forward_train(&self, part: Part, x: &Tensor, mode: &mut TrainingMode) -> Result<Tensor> {
        let features = self.features_train(part, x, mode)?;
        self.classify_train(&features, mode)
    }

    /// What `part` is given → (N, D), pooled, in a training step.
    pub(crate) fn features_train(&self, part: Part, x: &Tensor, mode: &mut TrainingMode) -> Result<Tensor> {
        self.figure.features(x, part, mode)
    }

    /// (N, D) → (N, classes), in a training step.
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn classify_train(&self, features: &Tensor, mode: &mut TrainingMode) -> Result<Tensor> {
        self.fc.forward(&mode.dropout.apply(features)?)
    }
}

/// Layers over variables, which train.
struct Variables<'a>(&'a VarBuilder<'a>);

impl Parameters for Variables<'_> {
    type Layer = TrainableConvNorm;

    fn conv_norm(&self, unit: &ConvNorm) -> Result<TrainableConvNorm> {
        Ok(TrainableConvNorm { conv: conv(unit, self.0)?, norm: TrainableNorm::new(unit, self.0.pp(&unit.norm))? })
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.0.get(shape, name)
    }
}

#[derive(Debug, Clone)]
struct TrainableConvNorm {
    conv: Conv2d,
    norm: TrainableNorm,
}

#[derive(Debug, Clone)]
enum TrainableNorm {
    Batch(BatchNorm),
    Group(GroupNorm),
}

fn conv(unit: &ConvNorm, variables: &VarBuilder) -> Result<Conv2d> {
    let config = Conv2dConfig {
        padding: unit.padding(),
        stride: unit.stride,
        dilation: unit.dilation,
        groups: unit.groups,
        ..Conv2dConfig::default()
    };
    candle_nn::conv2d_no_bias(unit.in_channels, unit.out_channels, unit.kernel, config, variables.pp(&unit.conv))
}

impl TrainableNorm {
    fn new(unit: &ConvNorm, variables: VarBuilder) -> Result<TrainableNorm> {
        Ok(match unit.norm_kind {
            Norm::Batch => {
                let config = BatchNormConfig { eps: NORM_EPSILON, ..BatchNormConfig::default() };
                TrainableNorm::Batch(candle_nn::batch_norm(unit.out_channels, config, variables)?)
            }
            Norm::Group { groups } => {
                TrainableNorm::Group(candle_nn::group_norm(groups, unit.out_channels, NORM_EPSILON, variables)?)
            }
        })
    }
}

impl ConvNormLayer for TrainableConvNorm {
    fn forward(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let x = self.conv.forward(x)?;
        match (&self.norm, statistics) {
            (TrainableNorm::Batch(norm), Statistics::Running) => norm.forward_t(&x, false),
            (TrainableNorm::Batch(norm), Statistics::Batch) => normalise_by_the_batch(norm, &x),
            (TrainableNorm::Group(norm), _) => norm.forward(&x),
        }
    }
}

fn normalise_by_the_batch(norm: &BatchNorm, x: &Tensor) -> Result<Tensor> {
    let (images, _, height, width) = x.dims4()?;
    if images * height * width < 2 {
        candle_core::bail!("a batch norm cannot normalise by one image whose map has one pixel");
    }
    norm.forward_t(x, true)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::drop_path::StochasticDepth;
    use crate::initialise::fresh_weights;
    use crate::training::NormPolicy;
    use crate::weights;

    fn network() -> Network {
        let architecture = Architecture::named("resnet20_cifar").unwrap();
        let weights = fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap();
        Network::new(architecture, 10, VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu)).unwrap()
    }

    fn images(count: usize) -> Tensor {
        let values: Vec<f32> = (0..count * 3 * 32 * 32).map(|index| ((index * 37 % 101) as f32) / 50.0 - 1.0).collect();
        Tensor::from_vec(values, (count, 3, 32, 32), &Device::Cpu).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.detach().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn mode(rate: f64, seed: u64, norms: NormPolicy) -> TrainingMode {
        TrainingMode { depth: StochasticDepth::new(rate, seed).unwrap(), ..TrainingMode::new(norms) }
    }

    #[test]
    fn without_a_rate_and_with_frozen_norms_training_computes_what_evaluation_does() {
        let (network, images) = (network(), images(2));
        let trained = network.forward_train(Part::Stem, &images, &mut mode(0.0, 0, NormPolicy::frozen())).unwrap();
        assert_eq!(values(&trained), values(&network.forward(&images).unwrap()));
    }

    #[test]
    fn stochastic_depth_changes_training_from_its_seed_and_evaluation_never() {
        let (network, images) = (network(), images(4));
        let evaluated = values(&network.forward(&images).unwrap());
        let trained = |seed| {
            let mut mode = mode(0.5, seed, NormPolicy::frozen());
            values(&network.forward_train(Part::Stem, &images, &mut mode).unwrap())
        };
        assert_ne!(trained(1), evaluated);
        assert_eq!(trained(1), trained(1));
        assert_ne!(trained(1), trained(2));
        assert_eq!(values(&network.forward(&images).unwrap()), evaluated);
    }

    #[test]
    fn every_part_continues_from_its_map_as_the_whole_does() {
        let architecture = Architecture::named("resnet20_cifar").unwrap();
        let (network, images) = (network(), images(2));
        let whole = values(&network.forward(&images).unwrap());
        for part in Part::all(architecture).skip(1) {
            let map = network.map_at(&images, part.entry(architecture).unwrap()).unwrap();
            assert_eq!(values(&network.forward_from(part, &map).unwrap()), whole, "{part}");
            let trained = network.forward_train(part, &map, &mut mode(0.0, 0, NormPolicy::frozen())).unwrap();
            assert_eq!(values(&trained), whole, "{part}");
        }
    }

    #[test]
    fn only_norms_that_are_not_frozen_move_and_in_training_alone() {
        let architecture = Architecture::named("resnet20_cifar").unwrap();
        let weights = fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap();
        let variables = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
        let network = Network::new(architecture, 10, variables).unwrap();
        let state = || -> Vec<(String, Vec<f32>)> {
            weights::tensors(&weights).unwrap().into_iter().map(|(name, tensor)| (name, values(&tensor))).collect()
        };
        let before = state();
        network.forward(&images(2)).unwrap();
        assert_eq!(state(), before);
        let policy = [Part::Stage(2)].into_iter().collect();
        network.forward_train(Part::Stem, &images(2), &mut mode(0.0, 0, policy)).unwrap();
        let moved: Vec<String> =
            state().into_iter().zip(before).filter(|(now, before)| now != before).map(|(now, _)| now.0).collect();
        assert_eq!(moved.len(), 2 * 6, "{moved:?}");
        assert!(moved.iter().all(|name| name.starts_with("layer2.") && name.contains(".running_")), "{moved:?}");
    }

    #[test]
    fn one_value_is_no_batch() {
        let (network, policy) = (network(), [Part::Stage(3)].into_iter().collect());
        let map = Tensor::zeros((1, 32, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let error = network.forward_train(Part::Stage(3), &map, &mut mode(0.0, 0, policy)).unwrap_err().to_string();
        assert!(error.contains("one pixel"), "{error}");
    }

    #[test]
    fn gradients_flow_through_the_branches_that_stay() {
        let architecture = Architecture::named("resnet20_cifar").unwrap();
        let weights = fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap();
        let variables = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
        let network = Network::new(architecture, 10, variables).unwrap();
        let mut mode = mode(0.9, 3, NormPolicy::frozen());
        let loss = network.forward_train(Part::Stem, &images(1), &mut mode).unwrap().sqr().unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let variables = weights.data().lock().unwrap();
        let largest = |name: &str| {
            let gradient = gradients.get(&variables[name]).unwrap();
            gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
        };
        let kept: Vec<bool> =
            (0..9).map(|block| largest(&format!("layer{}.{}.conv2.weight", block / 3 + 1, block % 3)) > 0.0).collect();
        assert!(kept[0], "the first block's branch is never left out");
        assert!(kept.contains(&false), "of an image some branches are left out: {kept:?}");
    }
}
