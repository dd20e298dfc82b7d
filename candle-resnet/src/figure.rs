//! The residual network as the paper's figure, over any way of computing a convolution and its norm.
//!
//! [`Network`](crate::network::Network) fills it with trainable layers, [`Trunk`](crate::trunk::Trunk) with folded ones;
//! what a block is, is said once.

mod attention;
mod pool;

#[cfg(feature = "cudnn")]
pub(crate) use pool::forward as pool;
pub(crate) use pool::global as global_pool;

use candle_core::{Result, Tensor};

use crate::architecture::GlobalPool;
use crate::blueprint::{Block, Blueprint, ConvNorm, Pool, Shortcut, Stem};
use crate::features::Boundary;
use crate::part::Part;
use crate::training::Statistics;
pub(crate) use attention::AttentionLayer;

/// A convolution followed by its norm.
pub(crate) trait ConvNormLayer {
    /// (N, C, H, W) → (N, C', H', W'); `statistics` are what a batch norm normalises by.
    fn forward(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor>;

    /// The same with `shortcut` added, and cut off at 0.
    fn forward_relu(&self, x: &Tensor, shortcut: Option<&Tensor>, statistics: Statistics) -> Result<Tensor> {
        add_relu(self.forward(x, statistics)?, shortcut)
    }

    /// A pool of maps as these layers make them, behind a ReLU.
    fn pool(x: &Tensor, pool: Pool) -> Result<Tensor> {
        pool::forward(x, pool)
    }
}

/// `y` with `shortcut` added, cut off at 0.
pub(crate) fn add_relu(y: Tensor, shortcut: Option<&Tensor>) -> Result<Tensor> {
    match shortcut {
        Some(shortcut) => (y + shortcut)?.relu(),
        None => y.relu(),
    }
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

/// What may differ from one pass through the network to the next.
pub(crate) trait Pass {
    /// What becomes of the branch of block `block` of `blocks`, counted over all stages from 0, before its shortcut is added;
    /// (N, C, H, W) → (N, C, H, W).
    fn branch(&mut self, branch: Tensor, block: usize, blocks: usize) -> Result<Tensor>;

    /// Whether every branch stays as it is.
    fn keeps_branches(&self) -> bool {
        false
    }

    /// What batch norms of a part normalise by.
    fn statistics(&self, part: Part) -> Statistics;
}

/// Evaluation: every branch as it is, running statistics everywhere.
impl Pass for () {
    fn branch(&mut self, branch: Tensor, _: usize, _: usize) -> Result<Tensor> {
        Ok(branch)
    }

    fn keeps_branches(&self) -> bool {
        true
    }

    fn statistics(&self, _: Part) -> Statistics {
        Statistics::Running
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

    /// What the part `first` is given → the map at a boundary behind it, both (N, C, H, W).
    pub(crate) fn map_at(&self, x: &Tensor, first: Part, boundary: Boundary, pass: &mut impl Pass) -> Result<Tensor> {
        if boundary.stages > self.stages.len() {
            candle_core::bail!("the network has {} stages and no `{boundary}`", self.stages.len())
        }
        let x = match first {
            Part::Stem => self.stem.forward(x, pass.statistics(Part::Stem))?,
            Part::Stage(_) | Part::Classifier => x.clone(),
        };
        let blocks = self.stages.iter().map(Vec::len).sum();
        let last = Part::Stage(boundary.stages);
        let mut passed = self.numbered_blocks().filter(|&(part, ..)| first <= part && part <= last);
        passed.try_fold(x, |x, (part, number, block)| match pass.keeps_branches() {
            true => block.forward(&x, pass.statistics(part)),
            false => block.forward_with(&x, pass.statistics(part), |branch| pass.branch(branch, number, blocks)),
        })
    }

    /// What the part `first` is given → (N, D): the last map, pooled over its pixels.
    pub(crate) fn features(&self, x: &Tensor, first: Part, pass: &mut impl Pass) -> Result<Tensor> {
        let last = Boundary { stages: self.stages.len() };
        global_pool(&self.map_at(x, first, last, pass)?, self.global_pool)
    }

    /// Every block with its stage and its number over all stages, from 0.
    fn numbered_blocks(&self) -> impl Iterator<Item = (Part, usize, &ResidualBlock<L>)> {
        let stages = (1..).map(Part::Stage).zip(&self.stages);
        let blocks = stages.flat_map(|(part, blocks)| blocks.iter().map(move |block| (part, block)));
        blocks.enumerate().map(|(number, (part, block))| (part, number, block))
    }
}

impl<L: ConvNormLayer> StemLayers<L> {
    fn build(stem: &Stem, parameters: &impl Parameters<Layer = L>) -> Result<StemLayers<L>> {
        Ok(StemLayers { convs: conv_norms(&stem.convs, parameters)?, pools: stem.pools.clone() })
    }

    fn forward(&self, images: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let x = self.convs.iter().try_fold(images.clone(), |x, conv| conv.forward_relu(&x, None, statistics))?;
        self.pools.iter().try_fold(x, |x, &pool| L::pool(&x, pool))
    }
}

impl<L: ConvNormLayer> ResidualBlock<L> {
    fn build(block: &Block, parameters: &impl Parameters<Layer = L>) -> Result<ResidualBlock<L>> {
        let attention = block.attention.as_ref();
        Ok(ResidualBlock {
            convs: conv_norms(&block.convs, parameters)?,
            anti_alias: block.anti_alias.map(|pool| (block.strided_position(), pool)),
            attention: attention
                .map(|attention| AttentionLayer::build(attention, &mut |name, shape| parameters.tensor(name, shape)))
                .transpose()?,
            shortcut: ShortcutLayer::build(&block.shortcut, parameters)?,
        })
    }

    fn forward(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let shortcut = self.shortcut.forward(x, statistics)?;
        match self.convs.split_last() {
            Some((last, before)) if self.ends_in_convolution() => {
                last.forward_relu(&self.through(before, x, statistics)?, Some(&shortcut), statistics)
            }
            _ => (self.branch(x, statistics)? + shortcut)?.relu(),
        }
    }

    /// As [`forward`](ResidualBlock::forward), with what `pass` makes of the branch.
    fn forward_with(
        &self,
        x: &Tensor,
        statistics: Statistics,
        pass: impl FnOnce(Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        (pass(self.branch(x, statistics)?)? + self.shortcut.forward(x, statistics)?)?.relu()
    }

    /// Whether nothing comes between the last convolution and the shortcut.
    fn ends_in_convolution(&self) -> bool {
        self.attention.is_none() && self.anti_alias.is_none_or(|(after, _)| after + 1 < self.convs.len())
    }

    fn branch(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let Some((last, before)) = self.convs.split_last() else { return Ok(x.clone()) };
        let branch = last.forward(&self.through(before, x, statistics)?, statistics)?;
        let branch = self.anti_aliased(branch, before.len())?;
        match &self.attention {
            Some(attention) => attention.forward(&branch),
            None => Ok(branch),
        }
    }

    /// Convolutions that a ReLU follows.
    fn through(&self, convs: &[L], x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        convs.iter().enumerate().try_fold(x.clone(), |x, (position, conv)| {
            self.anti_aliased(conv.forward_relu(&x, None, statistics)?, position)
        })
    }

    /// What becomes of the map behind the convolution at `position`.
    fn anti_aliased(&self, x: Tensor, position: usize) -> Result<Tensor> {
        match self.anti_alias {
            Some((after, pool)) if after == position => pool::forward(&x, pool),
            _ => Ok(x),
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

    fn forward(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        match self {
            ShortcutLayer::Identity => Ok(x.clone()),
            ShortcutLayer::Projection { pool: None, conv } => conv.forward(x, statistics),
            ShortcutLayer::Projection { pool: Some(pool), conv } => conv.forward(&pool::forward(x, *pool)?, statistics),
            &ShortcutLayer::ZeroPadded { stride, padding } => {
                pool::every_nth(&pool::every_nth(x, 2, stride)?, 3, stride)?.pad_with_zeros(1, padding, padding)
            }
        }
    }
}

fn conv_norms<P: Parameters>(units: &[ConvNorm], parameters: &P) -> Result<Vec<P::Layer>> {
    units.iter().map(|unit| parameters.conv_norm(unit)).collect()
}
