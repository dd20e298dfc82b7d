//! The trainable form of a network: ordinary candle layers over a `VarBuilder`, on any device.
//!
//! Batch norms run in evaluation mode. For frozen weights use [`Trunk`](crate::trunk::Trunk), which keeps no graph.

use candle_core::{Result, Tensor};
use candle_nn::{BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Linear, Module, ModuleT, VarBuilder};

use crate::architecture::Architecture;
use crate::blueprint::{BATCH_NORM_EPSILON, Blueprint, ConvNorm};
use crate::figure::{ConvNormLayer, Figure};

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
        let figure = Figure::build(&blueprint, |unit| TrainableConvNorm::new(unit, &variables))?;
        let fc = candle_nn::linear(blueprint.feature_width, classes, variables.pp("fc"))?;
        Ok(Network { figure, fc })
    }

    /// (N, 3, H, W) → (N, D), pooled.
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.figure.features(images)
    }

    /// (N, 3, H, W) → (N, classes).
    ///
    /// # Errors
    /// If shapes or devices do not fit.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.fc.forward(&self.features(images)?)
    }
}

#[derive(Debug, Clone)]
struct TrainableConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl TrainableConvNorm {
    fn new(unit: &ConvNorm, variables: &VarBuilder) -> Result<TrainableConvNorm> {
        let config = Conv2dConfig {
            padding: unit.padding(),
            stride: unit.stride,
            groups: unit.groups,
            ..Conv2dConfig::default()
        };
        let (in_channels, out_channels) = (unit.in_channels, unit.out_channels);
        let conv = candle_nn::conv2d_no_bias(in_channels, out_channels, unit.kernel, config, variables.pp(&unit.conv))?;
        let epsilon = BatchNormConfig { eps: BATCH_NORM_EPSILON, ..BatchNormConfig::default() };
        let norm = candle_nn::batch_norm(out_channels, epsilon, variables.pp(&unit.norm))?;
        Ok(TrainableConvNorm { conv, norm })
    }
}

impl ConvNormLayer for TrainableConvNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.norm.forward_t(&self.conv.forward(x)?, false)
    }
}
