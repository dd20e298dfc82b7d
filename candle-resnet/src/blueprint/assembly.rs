//! A row of the table → its layers.

use std::collections::HashMap;

use super::{Attention, Block, Blueprint, ConvNorm, Pool, Shortcut, Stage, Stem, strided_position};
use crate::architecture::{self, AntiAlias, Architecture, AttentionKind, BlockKind, ShortcutKind, StemPool};

impl Blueprint {
    /// Spells out an architecture.
    pub fn of(architecture: &Architecture) -> Blueprint {
        let mut resolution = Resolution::after_stem(architecture);
        let mut channels = architecture.stem_width;
        let rows = architecture.blocks.iter().zip(architecture.depths).zip(architecture.widths);
        let mut stages = Vec::new();
        for (index, ((&kind, &depth), &width)) in rows.enumerate() {
            let first = if index == 0 { resolution.keep() } else { resolution.halve(architecture.output_stride) };
            let stage = StageShape { name: format!("layer{}", index + 1), kind, depth, width, channels, first };
            stages.push(stage.build(architecture));
            channels = width * kind.expansion();
        }
        let mut blueprint = Blueprint {
            stem: stem(architecture),
            stages,
            global_pool: architecture.global_pool,
            feature_width: channels,
        };
        if let Some(table) = architecture.pruned {
            blueprint.prune(table, architecture.in_channels);
        }
        blueprint.feature_width *= architecture.global_pool.features_per_channel();
        blueprint
    }

    /// Gives every convolution that `table` names the channels that stand there, and its successors the same.
    fn prune(&mut self, table: &str, in_channels: usize) {
        let lines = table.lines().filter_map(|line| line.split_once('\t'));
        let widths: HashMap<&str, usize> =
            lines.filter_map(|(name, width)| Some((name, width.parse().ok()?))).collect();
        let mut channels = narrow_chain(&mut self.stem.convs, in_channels, &widths);
        for block in self.stages.iter_mut().flat_map(|stage| &mut stage.blocks) {
            if let Shortcut::Projection { conv, .. } = &mut block.shortcut {
                narrow_chain(std::slice::from_mut(conv), channels, &widths);
            }
            channels = narrow_chain(&mut block.convs, channels, &widths);
        }
        self.feature_width = channels;
    }
}

/// Sets the channels of convolutions in a row; what the last puts out.
fn narrow_chain(convs: &mut [ConvNorm], in_channels: usize, widths: &HashMap<&str, usize>) -> usize {
    convs.iter_mut().fold(in_channels, |channels, conv| {
        conv.in_channels = channels;
        conv.out_channels = widths.get(conv.conv.as_str()).copied().unwrap_or(conv.out_channels);
        conv.out_channels
    })
}

/// How far the map has shrunk, and how far apart the taps of a kernel lie in its place.
struct Resolution {
    stride: usize,
    dilation: usize,
}

/// Stride and dilations of a stage's first block; the other blocks have `dilation` throughout.
#[derive(Clone, Copy)]
struct Step {
    stride: usize,
    /// Of the convolution that takes the stride.
    first_dilation: usize,
    dilation: usize,
}

impl Resolution {
    fn after_stem(architecture: &Architecture) -> Resolution {
        let conv_stride = if architecture.stem == architecture::Stem::ThreeByThree { 1 } else { 2 };
        let pool_stride = if architecture.stem_pool == StemPool::None { 1 } else { 2 };
        Resolution { stride: conv_stride * pool_stride, dilation: 1 }
    }

    fn keep(&self) -> Step {
        Step { stride: 1, first_dilation: self.dilation, dilation: self.dilation }
    }

    /// Halves the map, or doubles the dilation where the map would pass `output_stride`.
    fn halve(&mut self, output_stride: usize) -> Step {
        if self.stride < output_stride {
            self.stride *= 2;
            return Step { stride: 2, ..self.keep() };
        }
        let first_dilation = self.dilation;
        self.dilation *= 2;
        Step { first_dilation, ..self.keep() }
    }
}

fn conv_norm(architecture: &Architecture, conv: String, norm: String, channels: (usize, usize)) -> ConvNorm {
    ConvNorm {
        conv,
        norm,
        norm_kind: architecture.norm,
        in_channels: channels.0,
        out_channels: channels.1,
        kernel: 1,
        stride: 1,
        dilation: 1,
        groups: 1,
    }
}

fn stem(architecture: &Architecture) -> Stem {
    let mut convs = stem_convs(architecture);
    if architecture.stem_pool == StemPool::Convolution {
        let width = architecture.stem_width;
        let pool = conv_norm(architecture, "maxpool.0".into(), "maxpool.1".into(), (width, width));
        convs.push(ConvNorm { kernel: 3, stride: 2, ..pool });
    }
    Stem { convs, pools: stem_pools(architecture) }
}

fn stem_convs(architecture: &Architecture) -> Vec<ConvNorm> {
    let (channels, width) = (architecture.in_channels, architecture.stem_width);
    let conv = |conv: &str, norm: &str, in_out, kernel, stride| ConvNorm {
        kernel,
        stride,
        ..conv_norm(architecture, conv.into(), norm.into(), in_out)
    };
    let deep = |first: usize, second: usize| {
        vec![
            conv("conv1.0", "conv1.1", (channels, first), 3, 2),
            conv("conv1.3", "conv1.4", (first, second), 3, 1),
            conv("conv1.6", "bn1", (second, width), 3, 1),
        ]
    };
    match architecture.stem {
        architecture::Stem::SevenBySeven => vec![conv("conv1", "bn1", (channels, width), 7, 2)],
        architecture::Stem::ThreeByThree => vec![conv("conv1", "bn1", (channels, width), 3, 1)],
        architecture::Stem::Deep => deep(width / 2, width / 2),
        architecture::Stem::DeepTiered => deep(width / 8 * 3, width / 2),
    }
}

fn stem_pools(architecture: &Architecture) -> Vec<Pool> {
    match (architecture.stem_pool, architecture.anti_alias) {
        (StemPool::None | StemPool::Convolution, _) => vec![],
        (StemPool::Max, None) => vec![Pool::Max { stride: 2 }],
        (StemPool::Max, Some(AntiAlias::Average)) => vec![Pool::Average],
        (StemPool::Max, Some(AntiAlias::Blur)) => vec![Pool::Max { stride: 1 }, Pool::Blur { stride: 2 }],
    }
}

/// What is known of a stage before its blocks are built.
struct StageShape {
    name: String,
    kind: BlockKind,
    depth: usize,
    width: usize,
    /// What comes in.
    channels: usize,
    first: Step,
}

impl StageShape {
    fn build(self, architecture: &Architecture) -> Stage {
        let out_channels = self.width * self.kind.expansion();
        let rest = Step { stride: 1, first_dilation: self.first.dilation, ..self.first };
        let block = |position: usize| BlockShape {
            architecture,
            name: format!("{}.{position}", self.name),
            kind: self.kind,
            width: self.width,
            in_channels: if position == 0 { self.channels } else { out_channels },
            out_channels,
            step: if position == 0 { self.first } else { rest },
        };
        Stage { blocks: (0..self.depth).map(|position| block(position).build()).collect(), name: self.name }
    }
}

/// What is known of a block before its layers are built.
struct BlockShape<'a> {
    architecture: &'a Architecture,
    name: String,
    kind: BlockKind,
    width: usize,
    in_channels: usize,
    out_channels: usize,
    step: Step,
}

impl BlockShape<'_> {
    fn build(self) -> Block {
        let mut convs = match self.kind {
            BlockKind::Basic => self.basic_convs(),
            BlockKind::Bottleneck => self.bottleneck_convs(),
        };
        let anti_alias = self.anti_alias();
        if let Some(strided) = convs.get_mut(strided_position(self.kind)) {
            strided.stride = if anti_alias.is_some() { 1 } else { self.step.stride };
            strided.dilation = self.step.first_dilation;
        }
        let (attention, shortcut) = (self.attention(), self.shortcut());
        Block { name: self.name, kind: self.kind, convs, anti_alias, attention, shortcut }
    }

    /// The `position`-th convolution, not strided.
    fn conv(&self, position: usize, channels: (usize, usize), kernel: usize) -> ConvNorm {
        let (conv, norm) = (format!("{}.conv{position}", self.name), format!("{}.bn{position}", self.name));
        let dilation = if kernel > 1 { self.step.dilation } else { 1 };
        ConvNorm { kernel, dilation, ..conv_norm(self.architecture, conv, norm, channels) }
    }

    fn basic_convs(&self) -> Vec<ConvNorm> {
        let inner = self.width / self.architecture.reduce_first;
        vec![self.conv(1, (self.in_channels, inner), 3), self.conv(2, (inner, self.out_channels), 3)]
    }

    fn bottleneck_convs(&self) -> Vec<ConvNorm> {
        let groups = self.architecture.groups;
        let inner = self.width * self.architecture.base_width / 64 * groups;
        let first = inner / self.architecture.reduce_first;
        vec![
            self.conv(1, (self.in_channels, first), 1),
            ConvNorm { groups, ..self.conv(2, (first, inner), 3) },
            self.conv(3, (inner, self.out_channels), 1),
        ]
    }

    /// The pool in the place of the stride, where there is one. A dilated stage is blurred as well, but not averaged.
    fn anti_alias(&self) -> Option<Pool> {
        let Step { stride, first_dilation, dilation } = self.step;
        match self.architecture.anti_alias? {
            AntiAlias::Average => (stride > 1).then_some(Pool::Average),
            AntiAlias::Blur => (stride > 1 || first_dilation != dilation).then_some(Pool::Blur { stride }),
        }
    }

    fn attention(&self) -> Option<Attention> {
        let (name, channels) = (format!("{}.se", self.name), self.out_channels);
        Some(match self.architecture.attention? {
            AttentionKind::SqueezeExcite { reduction } => {
                Attention::SqueezeExcite { name, channels, inner: squeezed(channels, reduction) }
            }
            AttentionKind::EfficientChannel => Attention::EfficientChannel { name, kernel: channel_kernel(channels) },
        })
    }

    fn shortcut(&self) -> Shortcut {
        let Step { stride, first_dilation, dilation } = self.step;
        let strided = stride > 1 || dilation > 1;
        let (in_channels, out_channels) = (self.in_channels, self.out_channels);
        if stride == 1 && in_channels == out_channels {
            return Shortcut::Identity;
        }
        match self.architecture.shortcut {
            ShortcutKind::Projection => {
                Shortcut::Projection { pool: None, conv: ConvNorm { stride, ..self.projection(0) } }
            }
            ShortcutKind::WideProjection if strided => {
                let conv = ConvNorm { kernel: 3, stride, dilation: first_dilation, ..self.projection(0) };
                Shortcut::Projection { pool: None, conv }
            }
            ShortcutKind::WideProjection => Shortcut::Projection { pool: None, conv: self.projection(0) },
            ShortcutKind::AveragedProjection => {
                Shortcut::Projection { pool: self.shortcut_pool(), conv: self.projection(1) }
            }
            ShortcutKind::ZeroPadded => Shortcut::ZeroPadded { stride, padding: (out_channels - in_channels) / 2 },
        }
    }

    /// A 1×1 convolution, the `position`-th module of the shortcut, with the norm after it.
    fn projection(&self, position: usize) -> ConvNorm {
        let name = |position: usize| format!("{}.downsample.{position}", self.name);
        let channels = (self.in_channels, self.out_channels);
        conv_norm(self.architecture, name(position), name(position + 1), channels)
    }

    fn shortcut_pool(&self) -> Option<Pool> {
        match self.step {
            Step { dilation: 2.., .. } => Some(Pool::AverageSameSize),
            Step { stride: 2.., .. } => Some(Pool::AverageToTheEdge),
            Step { .. } => None,
        }
    }
}

/// Inner channels of a squeeze-excite: the nearest multiple of 8, at least 8.
fn squeezed(channels: usize, reduction: usize) -> usize {
    ((channels + 4 * reduction) / (8 * reduction) * 8).max(8)
}

/// Length of the kernel along `channels`: half of 1 + log₂ C, rounded down, then made odd; at least 3.
fn channel_kernel(channels: usize) -> usize {
    let whole_log = channels.checked_ilog2().unwrap_or(0) as usize;
    (whole_log.div_ceil(2) | 1).max(3)
}
