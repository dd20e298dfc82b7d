//! The frozen form of a network, from pixels to pooled features: batch norms folded, no variable, no graph.
//!
//! Compiled once from the same weights as the trainable [`Network`](crate::network::Network). Holds no classifier.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::VarMap;

use crate::architecture::Architecture;
use crate::blueprint::{BATCH_NORM_EPSILON, Blueprint, ConvNorm};
use crate::features::FeatureExtractor;
use crate::figure::{ConvNormLayer, Figure};

/// A frozen network on one device; cheap to clone, safe to share between threads.
#[derive(Debug, Clone)]
pub struct Trunk {
    figure: Figure<FoldedConvNorm>,
    feature_width: usize,
    device: Device,
}

impl Trunk {
    /// Folds every batch norm of `weights` into its convolution, in f64, and moves the result to `device`.
    ///
    /// `weights` holds the trunk under torchvision's names; `fc` and whatever else it holds is not read. What comes out
    /// is detached: nothing that uses it is tracked.
    ///
    /// # Errors
    /// If a tensor is missing or shapes do not fit.
    pub fn compile(architecture: &Architecture, weights: &VarMap, device: &Device) -> Result<Trunk> {
        let blueprint = Blueprint::of(architecture);
        let variables = weights.data().lock().map_err(|_| candle_core::Error::msg("the weights' lock is poisoned"))?;
        let figure = Figure::build(&blueprint, |unit| FoldedConvNorm::fold(unit, &variables, device))?;
        Ok(Trunk { figure, feature_width: blueprint.feature_width, device: device.clone() })
    }
}

impl FeatureExtractor for Trunk {
    fn feature_width(&self) -> usize {
        self.feature_width
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.figure.features(&images.detach())
    }
}

/// A convolution with the norm's scale in its weights and the norm's shift as its bias.
#[derive(Debug, Clone)]
struct FoldedConvNorm {
    weight: Tensor, // (C', C / groups, K, K)
    bias: Tensor,   // (1, C', 1, 1)
    stride: usize,
    padding: usize,
    groups: usize,
}

impl FoldedConvNorm {
    fn fold(unit: &ConvNorm, weights: &HashMap<String, Var>, device: &Device) -> Result<FoldedConvNorm> {
        let double = |layer: &str, suffix: &str| double_precision(weights, &format!("{layer}.{suffix}"));
        let spread = (double(&unit.norm, "running_var")? + BATCH_NORM_EPSILON)?.sqrt()?;
        let scale = (double(&unit.norm, "weight")? / spread)?; // (C')
        let bias = (double(&unit.norm, "bias")? - (double(&unit.norm, "running_mean")? * &scale)?)?;
        let weight = double(&unit.conv, "weight")?.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?;
        Ok(FoldedConvNorm {
            weight: weight.to_dtype(DType::F32)?.to_device(device)?,
            bias: bias.to_dtype(DType::F32)?.to_device(device)?.reshape((1, (), 1, 1))?,
            stride: unit.stride,
            padding: unit.padding(),
            groups: unit.groups,
        })
    }
}

impl ConvNormLayer for FoldedConvNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.conv2d(&self.weight, self.padding, self.stride, 1, self.groups)?.broadcast_add(&self.bias)
    }
}

/// A detached copy of the variable `name` on the CPU, where every dtype is at hand.
fn double_precision(weights: &HashMap<String, Var>, name: &str) -> Result<Tensor> {
    let variable =
        weights.get(name).ok_or_else(|| candle_core::Error::msg(format!("the weights hold no tensor `{name}`")))?;
    variable.as_detached_tensor().to_device(&Device::Cpu)?.to_dtype(DType::F64)
}
