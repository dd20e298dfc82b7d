//! The residual network as the paper's figure, over any way of computing a convolution and its norm.
//!
//! [`Network`](crate::network::Network) fills it with trainable layers, [`Trunk`](crate::trunk::Trunk) with folded ones;
//! what a block is, is said once.

mod attention;
mod pool;

use candle_core::{Result, Tensor};

use crate::architecture::GlobalPool;
use crate::blueprint::{Block, Blueprint, ConvNorm, Pool, Shortcut, Stem};
use crate::features::Boundary;
use attention::AttentionLayer;

/// A convolution followed by its norm.
pub(crate) trait ConvNormLayer {
    /// (N, C, H, W) → (N, C', H', W')
    fn forward(&self, x: &Tensor) -> Result<Tensor>;
}

/// Where a figure's layers get their tensors.
pub(crate) trait Parameters {
    /// What a convolution and its norm become.
    type Layer: ConvNormLayer;

    /// The layer of a convolution and its norm.
    fn conv_norm(&self, unit: &ConvNorm) -> Result<Self::Layer>;

    /// Any other tensor.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor>;
}

/// What becomes of a residual branch before its shortcut is added.
pub(crate) trait Branches {
    /// The branch of block `block` of `blocks`, counted over all stages from 0; (N, C, H, W) → (N, C, H, W).
    fn pass(&mut self, branch: Tensor, block: usize, blocks: usize) -> Result<Tensor>;
}

/// Evaluation: every branch as it is.
impl Branches for () {
    fn pass(&mut self, branch: Tensor, _: usize, _: usize) -> Result<Tensor> {
        Ok(branch)
    }
}

/// A network from pixels to pooled features.
#[derive(Debug, Clone)]
pub(crate) struct Figure<L> {
    stem: StemLayers<L>,
    stages: Vec<Vec<ResidualBlock<L>>>,
    global_pool: GlobalPool,
}

#[derive(Debug, Clone)]
struct StemLayers<L> {
    convs: Vec<L>,
    pools: Vec<Pool>,
}

#[derive(Debug, Clone)]
struct ResidualBlock<L> {
    convs: Vec<L>,
    /// After the ReLU of which convolution, and what.
    anti_alias: Option<(usize, Pool)>,
    attention: Option<AttentionLayer>,
    shortcut: ShortcutLayer<L>,
}

#[derive(Debug, Clone)]
enum ShortcutLayer<L> {
    Identity,
    Projection { pool: Option<Pool>, conv: L },
    ZeroPadded { stride: usize, padding: usize },
}

impl<L: ConvNormLayer> Figure<L> {
    /// Builds every layer of `blueprint` over `parameters`.
    pub(crate) fn build(blueprint: &Blueprint, parameters: &impl Parameters<Layer = L>) -> Result<Figure<L>> {
        let stage = |blocks: &[Block]| blocks.iter().map(|block| ResidualBlock::build(block, parameters)).collect();
        Ok(Figure {
            stem: StemLayers::build(&blueprint.stem, parameters)?,
            stages: blueprint.stages.iter().map(|blocks| stage(&blocks.blocks)).collect::<Result<_>>()?,
            global_pool: blueprint.global_pool,
        })
    }

    /// (N, C, H, W) → (N, C', H', W'), the map at a boundary.
    pub(crate) fn map_at(&self, images: &Tensor, boundary: Boundary, branches: &mut impl Branches) -> Result<Tensor> {
        let Some(passed) = self.stages.get(..boundary.stages) else {
            candle_core::bail!("the network has {} stages and no `{boundary}`", self.stages.len())
        };
        let blocks = self.stages.iter().map(Vec::len).sum();
        let mut numbered = passed.iter().flatten().enumerate();
        numbered.try_fold(self.stem.forward(images)?, |x, (number, block)| {
            block.forward(&x, |branch| branches.pass(branch, number, blocks))
        })
    }

    /// (N, C, H, W) → (N, D): the last map, pooled over its pixels.
    pub(crate) fn features(&self, images: &Tensor, branches: &mut impl Branches) -> Result<Tensor> {
        let last = Boundary { stages: self.stages.len() };
        pool::global(&self.map_at(images, last, branches)?, self.global_pool)
    }
}

impl<L: ConvNormLayer> StemLayers<L> {
    fn build(stem: &Stem, parameters: &impl Parameters<Layer = L>) -> Result<StemLayers<L>> {
        Ok(StemLayers { convs: conv_norms(&stem.convs, parameters)?, pools: stem.pools.clone() })
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let x = self.convs.iter().try_fold(images.clone(), |x, conv| conv.forward(&x)?.relu())?;
        self.pools.iter().try_fold(x, |x, &pool| pool::forward(&x, pool))
    }
}

impl<L: ConvNormLayer> ResidualBlock<L> {
    fn build(block: &Block, parameters: &impl Parameters<Layer = L>) -> Result<ResidualBlock<L>> {
        let attention = block.attention.as_ref();
        Ok(ResidualBlock {
            convs: conv_norms(&block.convs, parameters)?,
            anti_alias: block.anti_alias.map(|pool| (block.strided_position(), pool)),
            attention: attention.map(|attention| AttentionLayer::build(attention, parameters)).transpose()?,
            shortcut: ShortcutLayer::build(&block.shortcut, parameters)?,
        })
    }

    fn forward(&self, x: &Tensor, pass: impl FnOnce(Tensor) -> Result<Tensor>) -> Result<Tensor> {
        (pass(self.residual(x)?)? + self.shortcut.forward(x)?)?.relu()
    }

    fn residual(&self, x: &Tensor) -> Result<Tensor> {
        let mut branch = x.clone();
        for (position, conv) in self.convs.iter().enumerate() {
            branch = conv.forward(&branch)?;
            if position + 1 < self.convs.len() {
                branch = branch.relu()?;
            }
            match self.anti_alias {
                Some((after, pool)) if after == position => branch = pool::forward(&branch, pool)?,
                _ => {}
            }
        }
        match &self.attention {
            Some(attention) => attention.forward(&branch),
            None => Ok(branch),
        }
    }
}

impl<L: ConvNormLayer> ShortcutLayer<L> {
    fn build(shortcut: &Shortcut, parameters: &impl Parameters<Layer = L>) -> Result<ShortcutLayer<L>> {
        Ok(match shortcut {
            Shortcut::Identity => ShortcutLayer::Identity,
            Shortcut::Projection { pool, conv } => {
                ShortcutLayer::Projection { pool: *pool, conv: parameters.conv_norm(conv)? }
            }
            &Shortcut::ZeroPadded { stride, padding } => ShortcutLayer::ZeroPadded { stride, padding },
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            ShortcutLayer::Identity => Ok(x.clone()),
            ShortcutLayer::Projection { pool: None, conv } => conv.forward(x),
            ShortcutLayer::Projection { pool: Some(pool), conv } => conv.forward(&pool::forward(x, *pool)?),
            &ShortcutLayer::ZeroPadded { stride, padding } => {
                pool::every_nth(&pool::every_nth(x, 2, stride)?, 3, stride)?.pad_with_zeros(1, padding, padding)
            }
        }
    }
}

fn conv_norms<P: Parameters>(units: &[ConvNorm], parameters: &P) -> Result<Vec<P::Layer>> {
    units.iter().map(|unit| parameters.conv_norm(unit)).collect()
}
