//! The residual network as the paper's figure, over any way of computing a convolution and its norm.
//!
//! [`Network`](crate::network::Network) fills it with trainable layers, [`Trunk`](crate::trunk::Trunk) with folded ones;
//! what a block is, is said once.

use candle_core::{Result, Tensor};

use crate::blueprint::{Block, Blueprint, ConvNorm, MaxPool, Shortcut};

/// A convolution followed by its norm.
pub(crate) trait ConvNormLayer {
    /// (N, C, H, W) → (N, C', H', W')
    fn forward(&self, x: &Tensor) -> Result<Tensor>;
}

/// A network from pixels to the last feature map.
#[derive(Debug, Clone)]
pub(crate) struct Figure<L> {
    stem: L,
    pool: Option<MaxPool>,
    stages: Vec<Vec<ResidualBlock<L>>>,
}

#[derive(Debug, Clone)]
struct ResidualBlock<L> {
    convs: Vec<L>,
    shortcut: ShortcutLayer<L>,
}

#[derive(Debug, Clone)]
enum ShortcutLayer<L> {
    Identity,
    Projection(L),
    ZeroPadded { stride: usize, padding: usize },
}

impl<L: ConvNormLayer> Figure<L> {
    /// Builds every layer of `blueprint` with `layer`.
    pub(crate) fn build(blueprint: &Blueprint, mut layer: impl FnMut(&ConvNorm) -> Result<L>) -> Result<Figure<L>> {
        Ok(Figure {
            stem: layer(&blueprint.stem)?,
            pool: blueprint.pool,
            stages: blueprint
                .stages
                .iter()
                .map(|stage| build_stage(&stage.blocks, &mut layer))
                .collect::<Result<_>>()?,
        })
    }

    /// (N, 3, H, W) → (N, C, H', W'), the last stage's map.
    pub(crate) fn feature_map(&self, images: &Tensor) -> Result<Tensor> {
        let mut x = self.stem.forward(images)?.relu()?;
        if let Some(pool) = self.pool {
            x = max_pool_after_relu(&x, pool)?;
        }
        for block in self.stages.iter().flatten() {
            x = block.forward(&x)?;
        }
        Ok(x)
    }

    /// (N, 3, H, W) → (N, D): the last map's mean over its pixels.
    pub(crate) fn features(&self, images: &Tensor) -> Result<Tensor> {
        self.feature_map(images)?.mean((2, 3)) // (N, D, H', W') → (N, D)
    }
}

fn build_stage<L>(blocks: &[Block], layer: &mut impl FnMut(&ConvNorm) -> Result<L>) -> Result<Vec<ResidualBlock<L>>> {
    blocks.iter().map(|block| build_block(block, layer)).collect()
}

fn build_block<L>(block: &Block, layer: &mut impl FnMut(&ConvNorm) -> Result<L>) -> Result<ResidualBlock<L>> {
    let convs = block.convs.iter().map(&mut *layer).collect::<Result<_>>()?;
    let shortcut = match &block.shortcut {
        Shortcut::Identity => ShortcutLayer::Identity,
        Shortcut::Projection(projection) => ShortcutLayer::Projection(layer(projection)?),
        &Shortcut::ZeroPadded { stride, padding } => ShortcutLayer::ZeroPadded { stride, padding },
    };
    Ok(ResidualBlock { convs, shortcut })
}

impl<L: ConvNormLayer> ResidualBlock<L> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        (self.residual(x)? + self.shortcut.forward(x)?)?.relu()
    }

    fn residual(&self, x: &Tensor) -> Result<Tensor> {
        let mut branch = x.clone();
        for (position, conv) in self.convs.iter().enumerate() {
            if position > 0 {
                branch = branch.relu()?;
            }
            branch = conv.forward(&branch)?;
        }
        Ok(branch)
    }
}

impl<L: ConvNormLayer> ShortcutLayer<L> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            ShortcutLayer::Identity => Ok(x.clone()),
            ShortcutLayer::Projection(projection) => projection.forward(x),
            &ShortcutLayer::ZeroPadded { stride, padding } => {
                every_nth(&every_nth(x, 2, stride)?, 3, stride)?.pad_with_zeros(1, padding, padding)
            }
        }
    }
}

/// Keeps positions 0, `n`, 2`n`, … of a dimension.
fn every_nth(x: &Tensor, dimension: usize, n: usize) -> Result<Tensor> {
    let kept = Tensor::arange_step(0u32, x.dim(dimension)? as u32, n as u32, x.device())?;
    x.contiguous()?.index_select(&kept, dimension)
}

/// A max-pool of values that a ReLU has made non-negative, so that padding with zeros never wins over one of them.
fn max_pool_after_relu(x: &Tensor, pool: MaxPool) -> Result<Tensor> {
    x.pad_with_zeros(2, pool.padding, pool.padding)?
        .pad_with_zeros(3, pool.padding, pool.padding)?
        .max_pool2d_with_stride(pool.kernel, pool.stride)
}
