//! The trainable form of a network: ordinary candle layers over a `VarBuilder`, on any device.
//!
//! Batch norms run in evaluation mode. For frozen weights use [`Trunk`](crate::trunk::Trunk), which keeps no graph.

use candle_core::{Result, Tensor};
use candle_nn::{BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, GroupNorm, Linear, Module, ModuleT, VarBuilder};

use crate::architecture::{Architecture, Norm};
use crate::blueprint::{Blueprint, ConvNorm, NORM_EPSILON};
use crate::drop_path::StochasticDepth;
use crate::features::Boundary;
use crate::figure::{ConvNormLayer, Figure, Parameters};

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
        self.figure.map_at(images, boundary, &mut ())
    }

    /// (N, C, H, W) → (N, D), pooled.
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.figure.features(images, &mut ())
    }

    /// As [`features`](Network::features) in a training step: `depth` leaves out residual branches.
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn features_train(&self, images: &Tensor, depth: &mut StochasticDepth) -> Result<Tensor> {
        self.figure.features(images, depth)
    }

    /// (N, C, H, W) → (N, classes).
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.fc.forward(&self.features(images)?)
    }

    /// As [`forward`](Network::forward) in a training step: `depth` leaves out residual branches.
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn forward_train(&self, images: &Tensor, depth: &mut StochasticDepth) -> Result<Tensor> {
        self.fc.forward(&self.features_train(images, depth)?)
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
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.conv.forward(x)?;
        match &self.norm {
            TrainableNorm::Batch(norm) => norm.forward_t(&x, false),
            TrainableNorm::Group(norm) => norm.forward(&x),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::initialise::fresh_weights;

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

    #[test]
    fn without_a_rate_training_computes_what_evaluation_does() {
        let (network, images) = (network(), images(2));
        let mut depth = StochasticDepth::new(0.0, 0).unwrap();
        assert_eq!(
            values(&network.forward_train(&images, &mut depth).unwrap()),
            values(&network.forward(&images).unwrap())
        );
    }

    #[test]
    fn stochastic_depth_changes_training_from_its_seed_and_evaluation_never() {
        let (network, images) = (network(), images(4));
        let evaluated = values(&network.features(&images).unwrap());
        let trained = |seed| {
            let mut depth = StochasticDepth::new(0.5, seed).unwrap();
            values(&network.features_train(&images, &mut depth).unwrap())
        };
        assert_ne!(trained(1), evaluated);
        assert_eq!(trained(1), trained(1));
        assert_ne!(trained(1), trained(2));
        assert_eq!(values(&network.features(&images).unwrap()), evaluated);
    }

    #[test]
    fn gradients_flow_through_the_branches_that_stay() {
        let architecture = Architecture::named("resnet20_cifar").unwrap();
        let weights = fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap();
        let variables = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
        let network = Network::new(architecture, 10, variables).unwrap();
        let mut depth = StochasticDepth::new(0.9, 3).unwrap();
        let loss = network.forward_train(&images(1), &mut depth).unwrap().sqr().unwrap().sum_all().unwrap();
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
