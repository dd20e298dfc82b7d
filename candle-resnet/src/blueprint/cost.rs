//! What each part of a network costs for one square image.

use super::parameters::{block_parameters, conv_norm_parameters, count};
use super::{Attention, Block, Blueprint, ConvNorm, Shortcut, Stage, Stem};

/// What a part of the network costs for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageCost {
    /// `stem`, `layer1`, …
    pub name: String,
    /// Channels put out.
    pub channels: usize,
    /// Side of the map put out.
    pub size: usize,
    /// Parameters, without running statistics.
    pub parameters: usize,
    /// Multiply-adds of the convolutions and attentions.
    pub multiply_adds: u64,
}

impl Blueprint {
    /// What each part costs for one square image of side `size`: the stem, then every stage.
    pub fn costs(&self, size: usize) -> Vec<StageCost> {
        let mut costs = vec![stem_cost(&self.stem, size)];
        for stage in &self.stages {
            let size = costs.last().map_or(size, |cost| cost.size);
            costs.push(stage_cost(stage, size));
        }
        costs
    }

    /// Multiply-adds of convolutions, attentions and a classifier of `classes` outputs for one square image of side `size`.
    pub fn multiply_adds(&self, classes: usize, size: usize) -> u64 {
        let stages: u64 = self.costs(size).iter().map(|cost| cost.multiply_adds).sum();
        stages + (self.feature_width * classes) as u64
    }
}

fn stem_cost(stem: &Stem, size: usize) -> StageCost {
    let (conv_size, multiply_adds) = chain_cost(&stem.convs, size);
    StageCost {
        name: "stem".into(),
        channels: stem.convs.last().map_or(0, |conv| conv.out_channels),
        size: stem.pools.iter().fold(conv_size, |size, pool| pool.output_size(size)),
        parameters: count(&stem.convs.iter().flat_map(conv_norm_parameters).collect::<Vec<_>>()),
        multiply_adds,
    }
}

fn stage_cost(stage: &Stage, size: usize) -> StageCost {
    let mut cost = StageCost { name: stage.name.clone(), channels: 0, size, parameters: 0, multiply_adds: 0 };
    for block in &stage.blocks {
        let (size, multiply_adds) = block_cost(block, cost.size);
        cost.size = size;
        cost.multiply_adds += multiply_adds;
        cost.parameters += count(&block_parameters(block));
        cost.channels = block.out_channels();
    }
    cost
}

/// Side of the block's output and its multiply-adds.
fn block_cost(block: &Block, size: usize) -> (usize, u64) {
    let (before, after) = block.convs.split_at(block.strided_position() + 1);
    let (strided, first) = chain_cost(before, size);
    let pooled = block.anti_alias.map_or(strided, |pool| pool.output_size(strided));
    let (out, second) = chain_cost(after, pooled);
    let attention = block.attention.as_ref().map_or(0, |attention| attention_cost(attention, block.out_channels()));
    (out, first + second + attention + shortcut_cost(&block.shortcut, size))
}

fn shortcut_cost(shortcut: &Shortcut, size: usize) -> u64 {
    match shortcut {
        Shortcut::Identity | Shortcut::ZeroPadded { .. } => 0,
        Shortcut::Projection { pool, conv } => {
            let size = pool.map_or(size, |pool| pool.output_size(size));
            conv.multiply_adds_per_pixel() * square(conv.output_size(size))
        }
    }
}

fn attention_cost(attention: &Attention, channels: usize) -> u64 {
    match attention {
        Attention::SqueezeExcite { channels, inner, .. } => 2 * (channels * inner) as u64,
        Attention::EfficientChannel { kernel, .. } => (channels * kernel) as u64,
    }
}

/// Side of the map after convolutions in a row, and their multiply-adds.
fn chain_cost(convs: &[ConvNorm], size: usize) -> (usize, u64) {
    convs.iter().fold((size, 0), |(size, total), conv| {
        let size = conv.output_size(size);
        (size, total + conv.multiply_adds_per_pixel() * square(size))
    })
}

impl ConvNorm {
    /// Multiply-adds for one output pixel.
    fn multiply_adds_per_pixel(&self) -> u64 {
        self.weight_shape().iter().product::<usize>() as u64
    }
}

fn square(size: usize) -> u64 {
    (size * size) as u64
}
