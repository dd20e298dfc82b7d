//! The shapes of networks, as a table: block kinds, depths, widths, stem and shortcut.
//!
//! Knows nothing about weights: preprocessing, labels and licence belong to a [`ModelCard`](crate::card::ModelCard).
//! Sources: He et al. 2015 (arXiv 1512.03385), Xie et al. 2016 (1611.05431), Zagoruyko & Komodakis 2016 (1605.07146);
//! names and strides as in torchvision's `resnet.py` (the stride of a bottleneck sits in its 3×3 convolution).

use crate::preprocess::Preprocessing;

/// What one residual block is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3, 1×1 convolutions; puts out four times its width.
    Bottleneck,
}

impl BlockKind {
    /// Channels that a block of this kind puts out per channel of its width.
    pub fn expansion(self) -> usize {
        match self {
            BlockKind::Basic => 1,
            BlockKind::Bottleneck => 4,
        }
    }
}

/// What stands before the first stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// One 7×7 convolution of stride 2, then a 3×3 max-pool of stride 2.
    SevenBySeven,
    /// One 3×3 convolution of stride 1 and no pool: the CIFAR networks.
    ThreeByThree,
}

/// How a block's input reaches its sum where shapes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortcutKind {
    /// A strided 1×1 convolution and a norm (the paper's option B).
    Projection,
    /// Every second pixel, and zeros for the new channels (option A): no parameters.
    ZeroPadded,
}

/// A network's shape, but for its number of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// The name that torchvision, timm or the paper uses.
    pub name: &'static str,
    /// What every block is made of.
    pub block: BlockKind,
    /// Blocks in each stage.
    pub depths: &'static [usize],
    /// Width of each stage before expansion.
    pub widths: &'static [usize],
    /// Groups of the 3×3 convolutions (ResNeXt's cardinality).
    pub groups: usize,
    /// Channels of each group where a stage's width is 64 (bottlenecks only).
    pub base_width: usize,
    /// What stands before the first stage.
    pub stem: Stem,
    /// Channels that the stem puts out.
    pub stem_width: usize,
    /// How inputs reach the sum where shapes differ.
    pub shortcut: ShortcutKind,
}

impl Architecture {
    /// The architecture of this exact name.
    pub fn named(name: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|architecture| architecture.name == name)
    }

    /// D: the number of pooled features before the classifier.
    pub fn feature_width(&self) -> usize {
        self.widths.last().map_or(self.stem_width, |width| width * self.block.expansion())
    }

    /// What weights that say nothing else take: ImageNet's mean and std throughout, the CIFAR networks 32×32 pixels
    /// without a resize, the others 224 out of 256.
    pub fn default_preprocessing(&self) -> Preprocessing {
        match self.stem {
            Stem::SevenBySeven => Preprocessing::imagenet(256, 224),
            Stem::ThreeByThree => Preprocessing::cifar(),
        }
    }
}

const IMAGENET_WIDTHS: &[usize] = &[64, 128, 256, 512];
const CIFAR_WIDTHS: &[usize] = &[16, 32, 64];

const fn imagenet(
    name: &'static str,
    block: BlockKind,
    depths: &'static [usize],
    groups: usize,
    base_width: usize,
) -> Architecture {
    Architecture {
        name,
        block,
        depths,
        widths: IMAGENET_WIDTHS,
        groups,
        base_width,
        stem: Stem::SevenBySeven,
        stem_width: 64,
        shortcut: ShortcutKind::Projection,
    }
}

const fn cifar(name: &'static str, depths: &'static [usize]) -> Architecture {
    Architecture {
        name,
        block: BlockKind::Basic,
        depths,
        widths: CIFAR_WIDTHS,
        groups: 1,
        base_width: 64,
        stem: Stem::ThreeByThree,
        stem_width: 16,
        shortcut: ShortcutKind::ZeroPadded,
    }
}

use BlockKind::{Basic, Bottleneck};

/// Every architecture that this crate builds.
pub const ARCHITECTURES: &[Architecture] = &[
    imagenet("resnet18", Basic, &[2, 2, 2, 2], 1, 64),
    imagenet("resnet34", Basic, &[3, 4, 6, 3], 1, 64),
    imagenet("resnet50", Bottleneck, &[3, 4, 6, 3], 1, 64),
    imagenet("resnet101", Bottleneck, &[3, 4, 23, 3], 1, 64),
    imagenet("resnet152", Bottleneck, &[3, 8, 36, 3], 1, 64),
    imagenet("resnext50_32x4d", Bottleneck, &[3, 4, 6, 3], 32, 4),
    imagenet("resnext101_32x8d", Bottleneck, &[3, 4, 23, 3], 32, 8),
    imagenet("resnext101_64x4d", Bottleneck, &[3, 4, 23, 3], 64, 4),
    imagenet("wide_resnet50_2", Bottleneck, &[3, 4, 6, 3], 1, 128),
    imagenet("wide_resnet101_2", Bottleneck, &[3, 4, 23, 3], 1, 128),
    cifar("resnet20_cifar", &[3, 3, 3]),
    cifar("resnet32_cifar", &[5, 5, 5]),
    cifar("resnet44_cifar", &[7, 7, 7]),
    cifar("resnet56_cifar", &[9, 9, 9]),
    cifar("resnet110_cifar", &[18, 18, 18]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for architecture in ARCHITECTURES {
            assert_eq!(Architecture::named(architecture.name), Some(architecture));
            assert_eq!(ARCHITECTURES.iter().filter(|other| other.name == architecture.name).count(), 1);
        }
        assert_eq!(Architecture::named("resnet-50"), None);
    }

    #[test]
    fn feature_widths_are_the_papers() {
        let width = |name| Architecture::named(name).map(Architecture::feature_width);
        assert_eq!(width("resnet18"), Some(512));
        assert_eq!(width("wide_resnet50_2"), Some(2048));
        assert_eq!(width("resnet56_cifar"), Some(64));
    }
}
