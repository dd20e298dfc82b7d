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
    /// Values that the convolutions put out: what a training step has to keep, a few times over.
    pub activations: u64,
}

/// What convolutions cost.
#[derive(Default, Clone, Copy)]
struct Work {
    multiply_adds: u64,
    activations: u64,
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.multiply_adds += other.multiply_adds;
        self.activations += other.activations;
    }
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
    let (conv_size, work) = chain_cost(&stem.convs, size);
    StageCost {
        name: "stem".into(),
        channels: stem.convs.last().map_or(0, |conv| conv.out_channels),
        size: stem.pools.iter().fold(conv_size, |size, pool| pool.output_size(size)),
        parameters: count(&stem.convs.iter().flat_map(conv_norm_parameters).collect::<Vec<_>>()),
        multiply_adds: work.multiply_adds,
        activations: work.activations,
    }
}

fn stage_cost(stage: &Stage, mut size: usize) -> StageCost {
    let mut total = Work::default();
    for block in &stage.blocks {
        let (out, work) = block_cost(block, size);
        size = out;
        total += work;
    }
    StageCost {
        name: stage.name.clone(),
        channels: stage.blocks.last().map_or(0, Block::out_channels),
        size,
        parameters: stage.blocks.iter().map(|block| count(&block_parameters(block))).sum(),
        multiply_adds: total.multiply_adds,
        activations: total.activations,
    }
}

/// Side of the block's output and what it costs.
fn block_cost(block: &Block, size: usize) -> (usize, Work) {
    let (before, after) = block.convs.split_at(block.strided_position() + 1);
    let (strided, mut work) = chain_cost(before, size);
    let pooled = block.anti_alias.map_or(strided, |pool| pool.output_size(strided));
    let (out, second) = chain_cost(after, pooled);
    work += second;
    work += shortcut_cost(&block.shortcut, size);
    work.multiply_adds +=
        block.attention.as_ref().map_or(0, |attention| attention_cost(attention, block.out_channels()));
    (out, work)
}

fn shortcut_cost(shortcut: &Shortcut, size: usize) -> Work {
    match shortcut {
        Shortcut::Identity | Shortcut::ZeroPadded { .. } => Work::default(),
        Shortcut::Projection { pool, conv } => {
            let size = pool.map_or(size, |pool| pool.output_size(size));
            conv.work(conv.output_size(size))
        }
    }
}

fn attention_cost(attention: &Attention, channels: usize) -> u64 {
    match attention {
        Attention::SqueezeExcite { channels, inner, .. } => 2 * (channels * inner) as u64,
        Attention::EfficientChannel { kernel, .. } => (channels * kernel) as u64,
    }
}

/// Side of the map after convolutions in a row, and what they cost.
fn chain_cost(convs: &[ConvNorm], mut size: usize) -> (usize, Work) {
    let mut total = Work::default();
    for conv in convs {
        size = conv.output_size(size);
        total += conv.work(size);
    }
    (size, total)
}

impl ConvNorm {
    /// What it costs to put out a map of side `size`.
    fn work(&self, size: usize) -> Work {
        let multiply_adds = self.weight_shape().iter().product::<usize>() as u64 * square(size);
        Work { multiply_adds, activations: self.out_channels as u64 * square(size) }
    }
}

fn square(size: usize) -> u64 {
    (size * size) as u64
}
