//! An architecture spelled out: every layer with its parameter names, shapes and strides.
//!
//! The one place that turns a table row into layers. The trainable network, the trunk, the check of weights, the
//! initialisation and the summary all read it; it holds no tensor. Parameters are named as torchvision's and timm's
//! state dicts name them: `layer1.0.conv1.weight`.

mod assembly;
mod cost;
mod parameters;

use crate::architecture::{BlockKind, GlobalPool, Norm};

pub use cost::StageCost;
pub use parameters::{ParameterSpec, Role, classifier_parameters};

/// ε of every norm, as torchvision and timm set it.
pub const NORM_EPSILON: f64 = 1e-5;

/// Every layer of a network before its classifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blueprint {
    /// What stands before the first stage.
    pub stem: Stem,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// How the last map becomes features.
    pub global_pool: GlobalPool,
    /// D: pooled features.
    pub feature_width: usize,
}

/// Convolutions with a ReLU after each, then pools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stem {
    /// The convolutions, in order; one that stands in the place of a pool is the last.
    pub convs: Vec<ConvNorm>,
    /// The pools after them, in order.
    pub pools: Vec<Pool>,
}

/// A run of blocks at one resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// `layer1`, `layer2`, …
    pub name: String,
    /// The blocks, in order.
    pub blocks: Vec<Block>,
}

/// One residual block: convolutions with ReLU between them, attention, the shortcut added before the last ReLU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Name of the block: `layer1.0`.
    pub name: String,
    /// What it is made of.
    pub kind: BlockKind,
    /// The residual branch, in order.
    pub convs: Vec<ConvNorm>,
    /// The pool that takes a stride's place, after the ReLU of the strided convolution.
    pub anti_alias: Option<Pool>,
    /// What weighs the channels of the residual branch.
    pub attention: Option<Attention>,
    /// The other branch.
    pub shortcut: Shortcut,
}

/// A convolution without bias and the norm after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvNorm {
    /// Name of the convolution: `layer1.0.conv1`.
    pub conv: String,
    /// Name of the norm: `layer1.0.bn1`.
    pub norm: String,
    /// What the norm is.
    pub norm_kind: Norm,
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Pixels from one tap of the kernel to the next.
    pub dilation: usize,
    /// Groups.
    pub groups: usize,
}

/// A pool: no parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// The largest of 3×3 pixels; one pixel of padding never wins.
    Max {
        /// Stride in both directions.
        stride: usize,
    },
    /// The mean of 2×2 pixels, stride 2; an odd last row or column is left out.
    Average,
    /// The mean of 2×2 pixels, stride 2; of an odd last row or column, the mean of the pixels there are.
    AverageToTheEdge,
    /// The mean of 2×2 pixels, stride 1; beyond the last row and column lie zeros.
    AverageSameSize,
    /// A 3×3 binomial blur of the map, reflected at its edges.
    Blur {
        /// Stride in both directions.
        stride: usize,
    },
}

/// What weighs the channels of a map by their means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attention {
    /// Two dense layers, stored as 1×1 convolutions with bias.
    SqueezeExcite {
        /// Name of the module: `layer1.0.se`.
        name: String,
        /// Channels in and out.
        channels: usize,
        /// Channels between.
        inner: usize,
    },
    /// One convolution along the channels, without bias.
    EfficientChannel {
        /// Name of the module: `layer1.0.se`.
        name: String,
        /// Length of the kernel, odd.
        kernel: usize,
    },
}

/// How a block's input reaches its sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortcut {
    /// Unchanged.
    Identity,
    /// Through a convolution and a norm.
    Projection {
        /// What comes before the convolution.
        pool: Option<Pool>,
        /// The convolution.
        conv: ConvNorm,
    },
    /// Every `stride`-th pixel, with `padding` zero channels before and after.
    ZeroPadded {
        /// Stride in both directions.
        stride: usize,
        /// Zero channels on each side.
        padding: usize,
    },
}

impl ConvNorm {
    /// Zeros on each side, so that stride 1 keeps the size.
    pub fn padding(&self) -> usize {
        self.dilation * (self.kernel / 2)
    }

    /// Side of the map that comes out of one with side `size`.
    pub fn output_size(&self, size: usize) -> usize {
        window_output_size(size, self.dilation * (self.kernel - 1) + 1, self.stride, self.padding())
    }

    /// (out, in / groups, kernel, kernel).
    pub fn weight_shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels / self.groups, self.kernel, self.kernel]
    }
}

impl Pool {
    /// Side of the map that comes out of one with side `size`.
    pub fn output_size(self, size: usize) -> usize {
        match self {
            Pool::Max { stride } | Pool::Blur { stride } => window_output_size(size, 3, stride, 1),
            Pool::Average => size / 2,
            Pool::AverageToTheEdge => size.div_ceil(2),
            Pool::AverageSameSize => size,
        }
    }
}

impl Block {
    /// The convolution whose ReLU [`anti_alias`](Block::anti_alias) follows: the one that is strided elsewhere.
    pub fn strided_position(&self) -> usize {
        strided_position(self.kind)
    }

    /// Channels put out.
    pub fn out_channels(&self) -> usize {
        self.convs.last().map_or(0, |conv| conv.out_channels)
    }

    /// Every convolution with its norm.
    fn conv_norms(&self) -> impl Iterator<Item = &ConvNorm> {
        let projection = match &self.shortcut {
            Shortcut::Projection { conv, .. } => Some(conv),
            Shortcut::Identity | Shortcut::ZeroPadded { .. } => None,
        };
        self.convs.iter().chain(projection)
    }
}

/// The convolution of a block that takes its stride.
fn strided_position(kind: BlockKind) -> usize {
    match kind {
        BlockKind::Basic => 0,
        BlockKind::Bottleneck => 1,
    }
}

/// Positions that a window of side `window` takes on a side of `size` with `padding` on both ends.
pub(crate) fn window_output_size(size: usize, window: usize, stride: usize, padding: usize) -> usize {
    (size + 2 * padding).saturating_sub(window) / stride + 1
}

#[cfg(test)]
mod tests;
