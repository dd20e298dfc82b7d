//! The layer tree that `print(model)` shows in PyTorch: torchvision's for its own networks, timm's for the others.

use std::fmt::Write;

use crate::architecture::{Architecture, BlockKind, GlobalPool, Norm};
use crate::blueprint::{Attention, Block, Blueprint, ConvNorm, Pool, Shortcut, Stage, Stem};

/// The layer tree of `architecture`.
pub fn layer_tree(architecture: &Architecture, classes: usize) -> String {
    let blueprint = Blueprint::of(architecture);
    let mut tree = Tree { text: String::new(), depth: 0, dialect: Dialect::of(architecture) };
    tree.open("ResNet");
    tree.stem(&blueprint.stem);
    blueprint.stages.iter().for_each(|stage| tree.stage(stage));
    tree.global_pool(blueprint.global_pool);
    tree.classifier(blueprint.feature_width, classes);
    tree.close();
    tree.text
}

/// Whose modules are shown.
#[derive(Clone, Copy, PartialEq)]
enum Dialect {
    Torchvision,
    Timm,
}

/// torchvision's networks; the CIFAR ones are built like them.
const TORCHVISION: [&str; 10] = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
];

impl Dialect {
    fn of(architecture: &Architecture) -> Dialect {
        let torchvisions = TORCHVISION.contains(&architecture.name) || architecture.name.ends_with("_cifar");
        if torchvisions { Dialect::Torchvision } else { Dialect::Timm }
    }
}

const RELU: &str = "ReLU(inplace=True)";

/// An indented text that is written line by line.
struct Tree {
    text: String,
    depth: usize,
    dialect: Dialect,
}

impl Tree {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{:indent$}{line}", "", indent = 2 * self.depth); // a String takes every write
    }

    fn module(&mut self, name: &str, text: &str) {
        self.line(&format!("({name}): {text}"));
    }

    fn open(&mut self, title: &str) {
        self.line(&format!("{title}("));
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.line(")");
    }

    /// `(name): Sequential(…)` of numbered modules.
    fn sequential(&mut self, name: &str, modules: &[String]) {
        self.open(&format!("({name}): Sequential"));
        modules.iter().enumerate().for_each(|(position, module)| self.module(&position.to_string(), module));
        self.close();
    }

    fn stem(&mut self, stem: &Stem) {
        let (replaced_pool, convs): (Vec<&ConvNorm>, Vec<&ConvNorm>) =
            stem.convs.iter().partition(|unit| unit.conv.starts_with("maxpool"));
        self.stem_convs(&convs);
        for unit in replaced_pool {
            self.sequential("maxpool", &[conv_text(unit), norm_text(unit), RELU.into()]);
        }
        match stem.pools.as_slice() {
            [] => {}
            [pool] => self.module("maxpool", &pool_text(*pool)),
            pools => self.sequential("maxpool", &pools.iter().map(|&pool| pool_text(pool)).collect::<Vec<_>>()),
        }
    }

    /// One convolution, or several in a `Sequential` that the last one's norm follows.
    fn stem_convs(&mut self, convs: &[&ConvNorm]) {
        let Some((last, before)) = convs.split_last() else { return };
        if before.is_empty() {
            self.module("conv1", &conv_text(last));
        } else {
            let modules = before.iter().flat_map(|unit| [conv_text(unit), norm_text(unit), RELU.into()]);
            self.sequential("conv1", &modules.chain([conv_text(last)]).collect::<Vec<_>>());
        }
        self.module("bn1", &norm_text(last));
        self.module(if self.dialect == Dialect::Timm { "act1" } else { "relu" }, RELU);
    }

    fn stage(&mut self, stage: &Stage) {
        self.open(&format!("({}): Sequential", stage.name));
        for (position, block) in stage.blocks.iter().enumerate() {
            let class = match block.kind {
                BlockKind::Basic => "BasicBlock",
                BlockKind::Bottleneck => "Bottleneck",
            };
            self.open(&format!("({position}): {class}"));
            match self.dialect {
                Dialect::Torchvision => self.torchvisions_branch(block),
                Dialect::Timm => self.timms_branch(block),
            }
            self.shortcut(&block.shortcut);
            self.close();
        }
        self.close();
    }

    fn conv_norm(&mut self, unit: &ConvNorm) {
        self.module(leaf(&unit.conv), &conv_text(unit));
        self.module(leaf(&unit.norm), &norm_text(unit));
    }

    /// One ReLU: after the first norm of a basic block, after the last of a bottleneck.
    fn torchvisions_branch(&mut self, block: &Block) {
        let shown_after = if block.kind == BlockKind::Basic { 0 } else { block.convs.len() - 1 };
        for (position, unit) in block.convs.iter().enumerate() {
            self.conv_norm(unit);
            if position == shown_after {
                self.module("relu", RELU);
            }
        }
    }

    /// A ReLU after every norm, and the places where drop block and anti-aliasing go.
    fn timms_branch(&mut self, block: &Block) {
        for (position, unit) in block.convs.iter().enumerate() {
            let strided = position == block.strided_position();
            self.conv_norm(unit);
            if strided {
                self.module("drop_block", "Identity()");
            }
            if position + 1 == block.convs.len() {
                block.attention.iter().for_each(|attention| self.attention(attention));
            }
            self.module(&format!("act{}", position + 1), RELU);
            if strided {
                self.module("aa", &block.anti_alias.map_or("Identity()".into(), pool_text));
            }
        }
    }

    fn attention(&mut self, attention: &Attention) {
        match attention {
            Attention::SqueezeExcite { channels, inner, .. } => {
                self.open("(se): SEModule");
                self.module("fc1", &format!("Conv2d({channels}, {inner}, kernel_size=(1, 1), stride=(1, 1))"));
                self.module("bn", "Identity()");
                self.module("act", RELU);
                self.module("fc2", &format!("Conv2d({inner}, {channels}, kernel_size=(1, 1), stride=(1, 1))"));
            }
            Attention::EfficientChannel { kernel, .. } => {
                self.open("(se): EcaModule");
                let padding = kernel / 2;
                let shape = format!("kernel_size=({kernel},), stride=(1,), padding=({padding},)");
                self.module("conv", &format!("Conv1d(1, 1, {shape}, bias=False)"));
            }
        }
        self.module("gate", "Sigmoid()");
        self.close();
    }

    fn shortcut(&mut self, shortcut: &Shortcut) {
        match shortcut {
            Shortcut::Identity => {}
            Shortcut::Projection { pool, conv } => {
                let pool = pool.map_or("Identity()".into(), pool_text);
                let modules = [pool, conv_text(conv), norm_text(conv)];
                // The first place is a pool's only where the convolution stands in the second.
                let skipped = if leaf(&conv.conv) == "0" { 1 } else { 0 };
                self.sequential("downsample", &modules[skipped..]);
            }
            Shortcut::ZeroPadded { stride, padding } => {
                self.line(&format!("(shortcut): ZeroPadded(stride={stride}, channels={padding}+{padding})"));
            }
        }
    }

    fn global_pool(&mut self, pool: GlobalPool) {
        if self.dialect == Dialect::Torchvision && pool == GlobalPool::Average {
            return self.line("(avgpool): AdaptiveAvgPool2d(output_size=(1, 1))");
        }
        let kind = pool.name();
        let flatten = "Flatten(start_dim=1, end_dim=-1)";
        self.module("global_pool", &format!("SelectAdaptivePool2d(pool_type={kind}, flatten={flatten})"));
    }

    fn classifier(&mut self, width: usize, classes: usize) {
        match classes {
            0 => self.module("fc", "Identity()"),
            _ => self.module("fc", &format!("Linear(in_features={width}, out_features={classes}, bias=True)")),
        }
    }
}

/// The last part of a dotted name.
fn leaf(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn conv_text(unit: &ConvNorm) -> String {
    let pair = |value: usize| format!("({value}, {value})");
    let mut text = format!(
        "Conv2d({}, {}, kernel_size={}, stride={}",
        unit.in_channels,
        unit.out_channels,
        pair(unit.kernel),
        pair(unit.stride)
    );
    if unit.padding() > 0 {
        text += &format!(", padding={}", pair(unit.padding()));
    }
    if unit.dilation > 1 {
        text += &format!(", dilation={}", pair(unit.dilation));
    }
    if unit.groups > 1 {
        text += &format!(", groups={}", unit.groups);
    }
    text + ", bias=False)"
}

fn norm_text(unit: &ConvNorm) -> String {
    let channels = unit.out_channels;
    match unit.norm_kind {
        Norm::Batch => {
            format!(
                "BatchNorm2d({channels}, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)"
            )
        }
        Norm::Group { groups } => format!("GroupNorm({groups}, {channels}, eps=1e-05, affine=True, bias=True)"),
    }
}

fn pool_text(pool: Pool) -> String {
    match pool {
        Pool::Max { stride } => {
            format!("MaxPool2d(kernel_size=3, stride={stride}, padding=1, dilation=1, ceil_mode=False)")
        }
        Pool::Average | Pool::AverageToTheEdge => "AvgPool2d(kernel_size=2, stride=2, padding=0)".into(),
        Pool::AverageSameSize => "AvgPool2dSame(kernel_size=(2, 2), stride=(1, 1), padding=(0, 0))".into(),
        Pool::Blur { .. } => "BlurPool2d()".into(),
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::architecture::ARCHITECTURES;

    #[test]
    fn trees_are_the_ones_that_pytorch_prints() {
        let trees = [
            ("resnet18", include_str!("../../tests/data/resnet18_tree.txt")),
            ("resnext50_32x4d", include_str!("../../tests/data/resnext50_32x4d_tree.txt")),
            ("test_resnet", include_str!("../../tests/data/test_resnet_tree.txt")),
        ];
        for (name, expected) in trees {
            assert_eq!(layer_tree(Architecture::named(name).unwrap(), 1000), expected, "{name}");
        }
    }

    /// `scripts/golden/golden_trees.py` says how the digests were made.
    #[test]
    fn every_tree_of_timm_has_the_digest_of_the_one_that_pytorch_prints() {
        let digests = include_str!("../../tests/golden/timm_trees.tsv");
        let digests: Vec<(&str, &str)> = digests.lines().map(|line| line.split_once('\t').unwrap()).collect();
        let timms = |architecture: &&Architecture| Dialect::of(architecture) == Dialect::Timm;
        assert_eq!(digests.len(), ARCHITECTURES.iter().filter(timms).count());
        for (name, expected) in digests {
            let digest = Sha256::digest(layer_tree(Architecture::named(name).unwrap(), 1000));
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, expected, "{name}");
        }
    }
}
