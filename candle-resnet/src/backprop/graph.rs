//! A blueprint → what is computed one after another, from the part that is entered to the last map.

use super::attention::ChannelAttention;
use super::convolution::Convolution;
use super::group_norm::GroupNorm;
use super::norm::BatchNorm;
use crate::architecture::{GlobalPool, Norm};
use crate::blueprint::{Block, Blueprint, ConvNorm, Pool, Shortcut};
use crate::part::Part;

/// A map, by its place on the tape.
pub(super) type Value = usize;

/// The map that comes in.
pub(super) const INPUT: Value = 0;

/// How a network is given images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Images {
    #[cfg(feature = "cudnn")]
    AsTheyAre,
    /// Squares of pixels as channels, where the first convolution likes it.
    Unfolded,
}

/// One operation on whole maps.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) operation: Operation,
    pub(super) from: Value,
    /// Added before the ReLU of a norm or an attention.
    pub(super) residual: Option<Value>,
    pub(super) to: Value,
}

#[derive(Debug)]
pub(super) enum Operation {
    Convolve(Convolution),
    Normalise(BatchNorm),
    NormaliseGroups(GroupNorm),
    Attend(ChannelAttention),
    Pool(Pool),
    ShiftChannels { channels: usize, stride: usize, padding: usize },
}

#[derive(Debug)]
pub(super) struct Graph {
    /// Pixels of a square of the image that become channels; 1 where a map comes in.
    pub(super) unfolding: usize,
    pub(super) nodes: Vec<Node>,
    /// Channels of each value.
    pub(super) channels: Vec<usize>,
    /// Blocks of the whole network.
    pub(super) blocks: usize,
    pub(super) global_pool: GlobalPool,
}

impl Graph {
    /// From the part `first` on; `None` if the network has operations that are not to be found here.
    pub(super) fn of(blueprint: &Blueprint, first: Part, images: Images) -> Option<Graph> {
        let (input, unfolding) = match first {
            Part::Stem => {
                let conv = blueprint.stem.convs.first()?;
                let factor = if images == Images::Unfolded { Convolution::unfolding(conv) } else { 1 };
                (conv.in_channels * factor * factor, factor)
            }
            Part::Stage(stage) => (blueprint.stages.get(stage - 1)?.blocks.first()?.convs.first()?.in_channels, 1),
            Part::Classifier => return None,
        };
        let blocks = blueprint.stages.iter().map(|stage| stage.blocks.len()).sum();
        let global_pool = blueprint.global_pool;
        let mut graph = Graph { unfolding, nodes: Vec::new(), channels: vec![input], blocks, global_pool };
        let mut last = INPUT;
        if first == Part::Stem {
            last = graph.stem(blueprint);
        }
        let mut number = 0;
        for (index, stage) in blueprint.stages.iter().enumerate() {
            let part = Part::Stage(index + 1);
            for block in &stage.blocks {
                if part >= first {
                    last = graph.block(block, (part, number), last)?;
                }
                number += 1;
            }
        }
        Some(graph)
    }

    /// The map that comes out.
    pub(super) fn output(&self) -> Value {
        self.channels.len() - 1
    }

    fn stem(&mut self, blueprint: &Blueprint) -> Value {
        let mut last = INPUT;
        for (index, unit) in blueprint.stem.convs.iter().enumerate() {
            let unfolded = index == 0 && self.unfolding > 1;
            let convolution = if unfolded { Convolution::of_images(unit) } else { Convolution::of_maps(unit) };
            let convolved = self.push(Operation::Convolve(convolution), last, None, unit.out_channels);
            last = self.norm(unit, Part::Stem, convolved, Tail { relu: true, ..Tail::default() });
        }
        for &pool in &blueprint.stem.pools {
            last = self.push(Operation::Pool(pool), last, None, self.channels[last]);
        }
        last
    }

    fn block(&mut self, block: &Block, (part, number): (Part, usize), input: Value) -> Option<Value> {
        let residual = self.shortcut(&block.shortcut, part, input);
        let mut last = input;
        for (position, unit) in block.convs.iter().enumerate() {
            let ends = position + 1 == block.convs.len();
            let convolved = self.push(Operation::Convolve(Convolution::of_maps(unit)), last, None, unit.out_channels);
            let tail = match (ends, &block.attention) {
                (true, None) => Tail { relu: true, residual: Some(residual), branch: Some(number) },
                (true, Some(_)) => Tail::default(),
                (false, _) => Tail { relu: true, ..Tail::default() },
            };
            last = self.norm(unit, part, convolved, tail);
            if let Some(pool) = block.anti_alias.filter(|_| position == block.strided_position()) {
                if ends {
                    return None;
                }
                last = self.push(Operation::Pool(pool), last, None, unit.out_channels);
            }
        }
        if let Some(attention) = block.attention.clone() {
            let channels = self.channels[last];
            let attention = ChannelAttention { attention, channels, branch: number };
            last = self.push(Operation::Attend(attention), last, Some(residual), channels);
        }
        Some(last)
    }

    fn shortcut(&mut self, shortcut: &Shortcut, part: Part, input: Value) -> Value {
        match shortcut {
            Shortcut::Identity => input,
            Shortcut::Projection { pool, conv } => {
                let pooled = pool.map_or(input, |pool| self.push(Operation::Pool(pool), input, None, conv.in_channels));
                let convolution = Operation::Convolve(Convolution::of_maps(conv));
                let convolved = self.push(convolution, pooled, None, conv.out_channels);
                self.norm(conv, part, convolved, Tail::default())
            }
            &Shortcut::ZeroPadded { stride, padding } => {
                let channels = self.channels[input];
                let operation = Operation::ShiftChannels { channels, stride, padding };
                self.push(operation, input, None, channels + 2 * padding)
            }
        }
    }

    fn norm(&mut self, unit: &ConvNorm, part: Part, from: Value, tail: Tail) -> Value {
        let Tail { relu, residual, branch } = tail;
        let (name, channels) = (unit.norm.clone(), unit.out_channels);
        let operation = match unit.norm_kind {
            Norm::Batch => Operation::Normalise(BatchNorm { name, channels, part, relu, branch }),
            Norm::Group { groups } => Operation::NormaliseGroups(GroupNorm { name, channels, groups, relu, branch }),
        };
        self.push(operation, from, residual, channels)
    }

    fn push(&mut self, operation: Operation, from: Value, residual: Option<Value>, channels: usize) -> Value {
        let to = self.channels.len();
        self.channels.push(channels);
        self.nodes.push(Node { operation, from, residual, to });
        to
    }
}

/// What follows a norm.
#[derive(Default)]
struct Tail {
    relu: bool,
    residual: Option<Value>,
    /// The number of the block whose branch ends here.
    branch: Option<usize>,
}
