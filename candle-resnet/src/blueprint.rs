//! An architecture spelled out: every layer with its parameter names, shapes and strides.
//!
//! The one place that turns a table row into layers. The trainable network, the trunk, the check of weights, the
//! initialisation and the summary all read it; it holds no tensor. Parameters are named as torchvision's state dict
//! names them: `layer1.0.conv1.weight`.

use crate::architecture::{Architecture, BlockKind, ShortcutKind, Stem};

/// ε of every batch norm, as torchvision and timm set it.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// A convolution without bias and the batch norm after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvNorm {
    /// Name of the convolution: `layer1.0.conv1`.
    pub conv: String,
    /// Name of the norm: `layer1.0.bn1`.
    pub norm: String,
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Groups.
    pub groups: usize,
}

impl ConvNorm {
    /// Zeros on each side: half the kernel, so that stride 1 keeps the size.
    pub fn padding(&self) -> usize {
        self.kernel / 2
    }

    /// Side of the map that comes out of one with side `size`.
    pub fn output_size(&self, size: usize) -> usize {
        window_output_size(size, self.kernel, self.stride, self.padding())
    }

    /// (out, in / groups, kernel, kernel).
    pub fn weight_shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels / self.groups, self.kernel, self.kernel]
    }

    /// Multiply-adds for one output pixel.
    fn multiply_adds_per_pixel(&self) -> u64 {
        self.weight_shape().iter().product::<usize>() as u64
    }
}

/// A max-pool whose padding never wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPool {
    /// Side of the square window.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Padding on each side.
    pub padding: usize,
}

impl MaxPool {
    /// Side of the map that comes out of one with side `size`.
    pub fn output_size(&self, size: usize) -> usize {
        window_output_size(size, self.kernel, self.stride, self.padding)
    }
}

/// How a block's input reaches its sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortcut {
    /// Unchanged.
    Identity,
    /// Through a strided 1×1 convolution and a norm.
    Projection(ConvNorm),
    /// Every `stride`-th pixel, with `padding` zero channels before and after.
    ZeroPadded {
        /// Stride in both directions.
        stride: usize,
        /// Zero channels on each side.
        padding: usize,
    },
}

/// One residual block: convolutions with ReLU between them, the shortcut added before the last ReLU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Name of the block: `layer1.0`.
    pub name: String,
    /// The residual branch, in order.
    pub convs: Vec<ConvNorm>,
    /// The other branch.
    pub shortcut: Shortcut,
}

impl Block {
    /// Side of the map that comes out of one with side `size`.
    pub fn output_size(&self, size: usize) -> usize {
        self.convs.iter().fold(size, |size, conv| conv.output_size(size))
    }
}

/// A run of blocks at one resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// `layer1`, `layer2`, …
    pub name: String,
    /// The blocks, in order.
    pub blocks: Vec<Block>,
}

/// Every layer of a network before its classifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blueprint {
    /// The first convolution.
    pub stem: ConvNorm,
    /// The pool after it, where there is one.
    pub pool: Option<MaxPool>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// D: pooled features.
    pub feature_width: usize,
}

/// A named tensor that a state dict holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpec {
    /// torchvision's name.
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
    /// Weight of a convolution.
    Convolution,
    /// γ of a norm.
    NormScale,
    /// β of a norm.
    NormShift,
    /// Running mean of a norm: a statistic, not a parameter.
    RunningMean,
    /// Running variance of a norm: a statistic, not a parameter.
    RunningVariance,
    /// Weight of the classifier.
    LinearWeight,
    /// Bias of the classifier.
    LinearBias,
}

impl Role {
    /// Whether an optimiser may change it; running statistics are not parameters.
    pub fn is_parameter(self) -> bool {
        !matches!(self, Role::RunningMean | Role::RunningVariance)
    }
}

impl Blueprint {
    /// Spells out an architecture for images of three channels.
    pub fn of(architecture: &Architecture) -> Blueprint {
        let (stem, pool) = stem(architecture);
        let mut channels = stem.out_channels;
        let stages = (0..architecture.depths.len())
            .map(|index| {
                let stage = stage(architecture, index, channels);
                channels = architecture.widths[index] * architecture.block.expansion();
                stage
            })
            .collect();
        Blueprint { stem, pool, stages, feature_width: channels }
    }

    /// Every convolution with its norm, in the order of the state dict.
    pub fn conv_norms(&self) -> impl Iterator<Item = &ConvNorm> {
        let blocks = self.stages.iter().flat_map(|stage| &stage.blocks);
        std::iter::once(&self.stem).chain(blocks.flat_map(block_conv_norms))
    }

    /// Every tensor of the trunk's state dict, in order.
    pub fn trunk_parameters(&self) -> Vec<ParameterSpec> {
        self.conv_norms().flat_map(conv_norm_parameters).collect()
    }

    /// Every tensor of the whole state dict, in order.
    pub fn parameters(&self, classes: usize) -> Vec<ParameterSpec> {
        let mut parameters = self.trunk_parameters();
        parameters.extend(classifier_parameters(self.feature_width, classes));
        parameters
    }

    /// What each part costs for one square image of side `size`: the stem, then every stage.
    pub fn costs(&self, size: usize) -> Vec<StageCost> {
        let conv_size = self.stem.output_size(size);
        let pooled = self.pool.map_or(conv_size, |pool| pool.output_size(conv_size));
        let mut costs = vec![StageCost {
            name: "stem".into(),
            channels: self.stem.out_channels,
            size: pooled,
            parameters: conv_norm_parameter_count(&self.stem),
            multiply_adds: self.stem.multiply_adds_per_pixel() * square(conv_size),
        }];
        let mut size = pooled;
        for stage in &self.stages {
            let cost = stage_cost(stage, size);
            size = cost.size;
            costs.push(cost);
        }
        costs
    }
}

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
    /// Multiply-adds of the convolutions.
    pub multiply_adds: u64,
}

/// `fc.weight` (classes, D) and `fc.bias` (classes).
pub fn classifier_parameters(feature_width: usize, classes: usize) -> [ParameterSpec; 2] {
    [
        ParameterSpec::new("fc", "weight", &[classes, feature_width], Role::LinearWeight),
        ParameterSpec::new("fc", "bias", &[classes], Role::LinearBias),
    ]
}

fn stem(architecture: &Architecture) -> (ConvNorm, Option<MaxPool>) {
    let conv = |kernel, stride| ConvNorm {
        conv: "conv1".into(),
        norm: "bn1".into(),
        in_channels: 3,
        out_channels: architecture.stem_width,
        kernel,
        stride,
        groups: 1,
    };
    match architecture.stem {
        Stem::SevenBySeven => (conv(7, 2), Some(MaxPool { kernel: 3, stride: 2, padding: 1 })),
        Stem::ThreeByThree => (conv(3, 1), None),
    }
}

fn stage(architecture: &Architecture, index: usize, in_channels: usize) -> Stage {
    let name = format!("layer{}", index + 1);
    let width = architecture.widths[index];
    let out_channels = width * architecture.block.expansion();
    let blocks = (0..architecture.depths[index])
        .map(|position| {
            let first = position == 0;
            let stride = if first && index > 0 { 2 } else { 1 };
            let block_in = if first { in_channels } else { out_channels };
            block(architecture, format!("{name}.{position}"), block_in, width, stride)
        })
        .collect();
    Stage { name, blocks }
}

fn block(architecture: &Architecture, name: String, in_channels: usize, width: usize, stride: usize) -> Block {
    let convs = match architecture.block {
        BlockKind::Basic => basic_convs(&name, in_channels, width, stride),
        BlockKind::Bottleneck => bottleneck_convs(architecture, &name, in_channels, width, stride),
    };
    let out_channels = width * architecture.block.expansion();
    let shortcut = shortcut(architecture.shortcut, &name, in_channels, out_channels, stride);
    Block { name, convs, shortcut }
}

/// The `position`-th convolution of a block, with kernel, stride and groups.
fn conv(
    block: &str,
    position: usize,
    channels: (usize, usize),
    kernel: usize,
    stride: usize,
    groups: usize,
) -> ConvNorm {
    ConvNorm {
        conv: format!("{block}.conv{position}"),
        norm: format!("{block}.bn{position}"),
        in_channels: channels.0,
        out_channels: channels.1,
        kernel,
        stride,
        groups,
    }
}

fn basic_convs(block: &str, in_channels: usize, width: usize, stride: usize) -> Vec<ConvNorm> {
    vec![conv(block, 1, (in_channels, width), 3, stride, 1), conv(block, 2, (width, width), 3, 1, 1)]
}

fn bottleneck_convs(
    architecture: &Architecture,
    block: &str,
    in_channels: usize,
    width: usize,
    stride: usize,
) -> Vec<ConvNorm> {
    let inner = width * architecture.base_width / 64 * architecture.groups;
    let out_channels = width * architecture.block.expansion();
    vec![
        conv(block, 1, (in_channels, inner), 1, 1, 1),
        conv(block, 2, (inner, inner), 3, stride, architecture.groups),
        conv(block, 3, (inner, out_channels), 1, 1, 1),
    ]
}

fn shortcut(kind: ShortcutKind, block: &str, in_channels: usize, out_channels: usize, stride: usize) -> Shortcut {
    if stride == 1 && in_channels == out_channels {
        return Shortcut::Identity;
    }
    match kind {
        ShortcutKind::Projection => Shortcut::Projection(ConvNorm {
            conv: format!("{block}.downsample.0"),
            norm: format!("{block}.downsample.1"),
            in_channels,
            out_channels,
            kernel: 1,
            stride,
            groups: 1,
        }),
        ShortcutKind::ZeroPadded => Shortcut::ZeroPadded { stride, padding: (out_channels - in_channels) / 2 },
    }
}

fn block_conv_norms(block: &Block) -> impl Iterator<Item = &ConvNorm> {
    let projection = match &block.shortcut {
        Shortcut::Projection(projection) => Some(projection),
        Shortcut::Identity | Shortcut::ZeroPadded { .. } => None,
    };
    block.convs.iter().chain(projection)
}

fn conv_norm_parameters(unit: &ConvNorm) -> [ParameterSpec; 5] {
    let channels = &[unit.out_channels];
    [
        ParameterSpec::new(&unit.conv, "weight", &unit.weight_shape(), Role::Convolution),
        ParameterSpec::new(&unit.norm, "weight", channels, Role::NormScale),
        ParameterSpec::new(&unit.norm, "bias", channels, Role::NormShift),
        ParameterSpec::new(&unit.norm, "running_mean", channels, Role::RunningMean),
        ParameterSpec::new(&unit.norm, "running_var", channels, Role::RunningVariance),
    ]
}

fn conv_norm_parameter_count(unit: &ConvNorm) -> usize {
    let parameters = conv_norm_parameters(unit);
    parameters.iter().filter(|spec| spec.role.is_parameter()).map(ParameterSpec::elements).sum()
}

fn stage_cost(stage: &Stage, size: usize) -> StageCost {
    let mut cost = StageCost { name: stage.name.clone(), channels: 0, size, parameters: 0, multiply_adds: 0 };
    for block in &stage.blocks {
        cost.multiply_adds += block_multiply_adds(block, cost.size);
        cost.parameters += block_conv_norms(block).map(conv_norm_parameter_count).sum::<usize>();
        cost.channels = block.convs.last().map_or(0, |conv| conv.out_channels);
        cost.size = block.output_size(cost.size);
    }
    cost
}

fn block_multiply_adds(block: &Block, size: usize) -> u64 {
    let mut map = size;
    let mut total = 0;
    for conv in &block.convs {
        map = conv.output_size(map);
        total += conv.multiply_adds_per_pixel() * square(map);
    }
    if let Shortcut::Projection(projection) = &block.shortcut {
        total += projection.multiply_adds_per_pixel() * square(projection.output_size(size));
    }
    total
}

/// Positions that a window of `kernel` takes on a side of `size` with `padding` on both ends.
fn window_output_size(size: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    (size + 2 * padding).saturating_sub(kernel) / stride + 1
}

fn square(size: usize) -> u64 {
    (size * size) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::ARCHITECTURES;

    fn blueprint(name: &str) -> Blueprint {
        Blueprint::of(Architecture::named(name).unwrap())
    }

    fn parameter_count(name: &str, classes: usize) -> usize {
        let parameters = blueprint(name).parameters(classes);
        parameters.iter().filter(|spec| spec.role.is_parameter()).map(ParameterSpec::elements).sum()
    }

    #[test]
    fn parameter_counts_are_torchvisions() {
        let published = [
            ("resnet18", 11_689_512),
            ("resnet34", 21_797_672),
            ("resnet50", 25_557_032),
            ("resnet101", 44_549_160),
            ("resnet152", 60_192_808),
            ("resnext50_32x4d", 25_028_904),
            ("resnext101_32x8d", 88_791_336),
            ("resnext101_64x4d", 83_455_272),
            ("wide_resnet50_2", 68_883_240),
            ("wide_resnet101_2", 126_886_696),
        ];
        for (name, parameters) in published {
            assert_eq!(parameter_count(name, 1000), parameters, "{name}");
        }
        assert_eq!(parameter_count("resnet20_cifar", 10), 269_722);
        assert_eq!(parameter_count("resnet110_cifar", 10), 1_727_962);
    }

    #[test]
    fn multiply_adds_are_the_published_ones() {
        let total = |name, size| blueprint(name).costs(size).iter().map(|cost| cost.multiply_adds).sum::<u64>();
        let fc = 512 * 1000;
        assert_eq!(total("resnet18", 224) + fc, 1_814_073_344);
        assert_eq!(total("resnet50", 224) + 2048 * 1000, 4_089_184_256);
    }

    #[test]
    fn odd_maps_round_up_at_every_halving() {
        let sizes: Vec<usize> = blueprint("resnet18").costs(97).iter().map(|cost| cost.size).collect();
        assert_eq!(sizes, [25, 25, 13, 7, 4]);
    }

    #[test]
    fn first_block_of_a_stage_projects_only_where_shapes_differ() {
        let resnet18 = blueprint("resnet18");
        assert_eq!(resnet18.stages[0].blocks[0].shortcut, Shortcut::Identity);
        assert!(matches!(resnet18.stages[1].blocks[0].shortcut, Shortcut::Projection(_)));
        let resnet20 = blueprint("resnet20_cifar");
        assert_eq!(resnet20.stages[1].blocks[0].shortcut, Shortcut::ZeroPadded { stride: 2, padding: 8 });
    }

    #[test]
    fn parameter_names_are_unique_in_every_architecture() {
        for architecture in ARCHITECTURES {
            let parameters = Blueprint::of(architecture).parameters(10);
            let names: std::collections::BTreeSet<&str> = parameters.iter().map(|spec| spec.name.as_str()).collect();
            assert_eq!(names.len(), parameters.len(), "{}", architecture.name);
        }
    }
}
