//! The trainable form of a network: ordinary candle layers over a `VarBuilder`, on any device.
//!
//! Batch norms run in evaluation mode. For frozen weights use [`Trunk`](crate::trunk::Trunk), which keeps no graph.

use candle_core::{Result, Tensor};
use candle_nn::{BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, GroupNorm, Linear, Module, ModuleT, VarBuilder};

use crate::architecture::{Architecture, Norm};
use crate::blueprint::{Blueprint, ConvNorm, NORM_EPSILON};
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

    /// (N, C, H, W) → (N, D), pooled.
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.figure.features(images)
    }

    /// (N, C, H, W) → (N, classes).
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.fc.forward(&self.features(images)?)
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
