//! The tensors that a network's state dict holds: names, shapes, and what each does.

use super::{Attention, Block, Blueprint, ConvNorm};
use crate::architecture::Norm;

/// A named tensor that a state dict holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Its name in torchvision's or timm's state dict.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
}

impl ParameterSpec {
    fn new(layer: &str, suffix: &str, shape: &[usize], role: Role) -> ParameterSpec {
        ParameterSpec { name: format!("{layer}.{suffix}"), shape: shape.to_vec(), role }
    }

    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a tensor of a state dict does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Weight of a two-dimensional convolution.
    Convolution,
    /// γ of a norm.
    NormScale,
    /// β of a norm.
    NormShift,
    /// Running mean of a norm: a statistic, not a parameter.
    RunningMean,
    /// Running variance of a norm: a statistic, not a parameter.
    RunningVariance,
    /// Weight or bias of the classifier, bias of a squeeze-excite, kernel along the channels: what PyTorch bounds by the
    /// number of `inputs` to one output.
    Dense {
        /// Values that one output is summed from.
        inputs: usize,
    },
}

impl Role {
    /// Whether an optimiser may change it; running statistics are not parameters.
    pub fn is_parameter(self) -> bool {
        !matches!(self, Role::RunningMean | Role::RunningVariance)
    }
}

impl Blueprint {
    /// Every tensor of the trunk's state dict, in order.
    pub fn trunk_parameters(&self) -> Vec<ParameterSpec> {
        let stem = self.stem.convs.iter().flat_map(conv_norm_parameters);
        let blocks = self.stages.iter().flat_map(|stage| &stage.blocks);
        stem.chain(blocks.flat_map(block_parameters)).collect()
    }

    /// Every tensor of the whole state dict, in order; without a classifier where there are no classes.
    pub fn parameters(&self, classes: usize) -> Vec<ParameterSpec> {
        let mut parameters = self.trunk_parameters();
        if classes > 0 {
            parameters.extend(classifier_parameters(self.feature_width, classes));
        }
        parameters
    }

    /// Values that an optimiser may change: those of every tensor but running statistics.
    pub fn parameter_count(&self, classes: usize) -> usize {
        count(&self.parameters(classes))
    }
}

/// Values of all tensors that an optimiser may change.
pub(super) fn count(parameters: &[ParameterSpec]) -> usize {
    parameters.iter().filter(|spec| spec.role.is_parameter()).map(ParameterSpec::elements).sum()
}

/// `fc.weight` (classes, D) and `fc.bias` (classes).
pub fn classifier_parameters(feature_width: usize, classes: usize) -> [ParameterSpec; 2] {
    let role = Role::Dense { inputs: feature_width };
    [
        ParameterSpec::new("fc", "weight", &[classes, feature_width], role),
        ParameterSpec::new("fc", "bias", &[classes], role),
    ]
}

pub(super) fn block_parameters(block: &Block) -> Vec<ParameterSpec> {
    let convs = block.convs.iter().flat_map(conv_norm_parameters);
    let attention = block.attention.iter().flat_map(attention_parameters);
    let shortcut = block.conv_norms().skip(block.convs.len()).flat_map(conv_norm_parameters);
    convs.chain(attention).chain(shortcut).collect()
}

pub(super) fn conv_norm_parameters(unit: &ConvNorm) -> Vec<ParameterSpec> {
    let of_norm = |suffix, role| ParameterSpec::new(&unit.norm, suffix, &[unit.out_channels], role);
    let mut parameters = vec![
        ParameterSpec::new(&unit.conv, "weight", &unit.weight_shape(), Role::Convolution),
        of_norm("weight", Role::NormScale),
        of_norm("bias", Role::NormShift),
    ];
    if unit.norm_kind == Norm::Batch {
        parameters.push(of_norm("running_mean", Role::RunningMean));
        parameters.push(of_norm("running_var", Role::RunningVariance));
    }
    parameters
}

fn attention_parameters(attention: &Attention) -> Vec<ParameterSpec> {
    match *attention {
        Attention::SqueezeExcite { ref name, channels, inner } => {
            let layer = |layer: &str, out_channels: usize, in_channels: usize| {
                let name = format!("{name}.{layer}");
                [
                    ParameterSpec::new(&name, "weight", &[out_channels, in_channels, 1, 1], Role::Convolution),
                    ParameterSpec::new(&name, "bias", &[out_channels], Role::Dense { inputs: in_channels }),
                ]
            };
            [layer("fc1", inner, channels), layer("fc2", channels, inner)].concat()
        }
        Attention::EfficientChannel { ref name, kernel } => {
            vec![ParameterSpec::new(name, "conv.weight", &[1, 1, kernel], Role::Dense { inputs: kernel })]
        }
    }
}
