//! The shapes of networks: block kinds, depths, widths, stem, shortcut and what else tells one ResNet from another.
//!
//! The rows lie in a table of their own, [`ARCHITECTURES`]. Knows nothing about weights: preprocessing, labels and licence
//! belong to a [`ModelCard`](crate::card::ModelCard). Names as in torchvision and timm; the stride of a bottleneck sits
//! in its 3×3 convolution. Sources: He et al. 2015 (arXiv 1512.03385), Zagoruyko & Komodakis 2016 (1605.07146), Xie et
//! al. 2016 (1611.05431), Hu et al. 2017 (1709.01507), He et al. 2018 (1812.01187, the stems and shortcuts C and D), Wu &
//! He 2018 (1803.08494), Zhang 2019 (1904.11486), Wang et al. 2019 (1910.03151), Aflalo et al. 2020 (2002.08258, the
//! pruned networks), Bello et al. 2021 (2103.07579).

mod table;

use crate::blueprint::Blueprint;
use crate::preprocess::Preprocessing;

pub use table::ARCHITECTURES;

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

/// The convolutions before the first stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// One 7×7 convolution of stride 2.
    SevenBySeven,
    /// Three 3×3 convolutions, the first of stride 2; the first two put out half the stem's width.
    Deep,
    /// As [`Deep`](Stem::Deep), but the first convolution puts out three eighths of the stem's width.
    DeepTiered,
    /// One 3×3 convolution of stride 1: the CIFAR networks.
    ThreeByThree,
}

/// What halves the stem's map before the first stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StemPool {
    /// Nothing: the CIFAR networks.
    None,
    /// A 3×3 max-pool of stride 2; anti-aliased where the network is.
    Max,
    /// A 3×3 convolution of stride 2 with norm and ReLU.
    Convolution,
}

/// How a block's input reaches its sum where shapes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShortcutKind {
    /// A strided 1×1 convolution and a norm (the paper's option B).
    Projection,
    /// A strided 3×3 convolution and a norm; 1×1 where the stride is 1.
    WideProjection,
    /// The mean of 2×2 pixels, then a 1×1 convolution and a norm: no pixel is thrown away.
    AveragedProjection,
    /// Every second pixel, and zeros for the new channels (option A): no parameters.
    ZeroPadded,
}

/// What weighs the channels of a block's residual branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionKind {
    /// Two dense layers over the channels' means, the inner one narrower by `reduction`.
    SqueezeExcite {
        /// Channels of the block for each inner channel, before that is rounded to a multiple of 8.
        reduction: usize,
    },
    /// One small convolution along the channels' means.
    EfficientChannel,
}

/// What halves a map in the place of a stride, so that a shift of the input moves the output as little as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AntiAlias {
    /// The mean of 2×2 pixels.
    Average,
    /// Every second pixel of a blurred map.
    Blur,
}

/// What follows every convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Statistics of each channel over the training images.
    Batch,
    /// Statistics of each group of channels of each image.
    Group {
        /// Number of groups.
        groups: usize,
    },
}

/// How the last map becomes features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GlobalPool {
    /// The mean over all pixels.
    Average,
    /// The largest value of all pixels.
    Max,
    /// Half the sum of both.
    AverageMax,
    /// The means, then the largest values: twice the features.
    AverageThenMax,
}

impl GlobalPool {
    /// Every pool by the name that timm gives it.
    pub const NAMES: [(&str, GlobalPool); 4] = [
        ("avg", GlobalPool::Average),
        ("max", GlobalPool::Max),
        ("avgmax", GlobalPool::AverageMax),
        ("catavgmax", GlobalPool::AverageThenMax),
    ];

    /// The pool that timm calls `name`.
    pub fn named(name: &str) -> Option<GlobalPool> {
        GlobalPool::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, pool)| pool)
    }

    /// Timm's name of the pool.
    pub fn name(self) -> &'static str {
        GlobalPool::NAMES.into_iter().find(|(_, pool)| *pool == self).map_or("avg", |(name, _)| name)
    }

    /// Features per channel of the last map.
    pub fn features_per_channel(self) -> usize {
        match self {
            GlobalPool::Average | GlobalPool::Max | GlobalPool::AverageMax => 1,
            GlobalPool::AverageThenMax => 2,
        }
    }
}

/// A network's shape, but for its number of classes.
///
/// Other input channels, another output stride or another pool make another architecture of the same name:
///
/// ```
/// use candle_resnet::architecture::{Architecture, GlobalPool};
///
/// let resnet50 = Architecture::named("resnet50").expect("the table has it");
/// let dense = Architecture { output_stride: 8, global_pool: GlobalPool::AverageThenMax, ..*resnet50 };
/// assert_eq!(dense.feature_width(), 4096);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Architecture {
    /// The name that torchvision, timm or the paper uses.
    pub name: &'static str,
    /// What the blocks of each stage are made of.
    pub blocks: &'static [BlockKind],
    /// Blocks in each stage.
    pub depths: &'static [usize],
    /// Width of each stage before expansion.
    pub widths: &'static [usize],
    /// Groups of the 3×3 convolutions (ResNeXt's cardinality; bottlenecks only).
    pub groups: usize,
    /// Channels of each group where a stage's width is 64 (bottlenecks only).
    pub base_width: usize,
    /// What the channels between a block's first two convolutions are divided by.
    pub reduce_first: usize,
    /// Channels of an image: 3 throughout the table.
    pub in_channels: usize,
    /// The convolutions before the first stage.
    pub stem: Stem,
    /// Channels that the stem puts out.
    pub stem_width: usize,
    /// What halves the stem's map.
    pub stem_pool: StemPool,
    /// How inputs reach the sum where shapes differ.
    pub shortcut: ShortcutKind,
    /// What weighs the channels of every block.
    pub attention: Option<AttentionKind>,
    /// What halves maps in the place of strides and of the stem's pool; nowhere together with [`StemPool::Convolution`].
    pub anti_alias: Option<AntiAlias>,
    /// What follows every convolution.
    pub norm: Norm,
    /// Channels that convolutions put out where pruning has changed them: `layer1.0.conv1<TAB>47` a line.
    pub pruned: Option<&'static str>,
    /// Pixels of the image for each pixel of the last map: 32, 16 or 8. Stages that would pass it are dilated instead of
    /// strided; the parameters stay the same.
    pub output_stride: usize,
    /// How the last map becomes features.
    pub global_pool: GlobalPool,
}

impl Architecture {
    /// The architecture of this exact name.
    pub fn named(name: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|architecture| architecture.name == name)
    }

    /// The architecture of one kind of block throughout that differs from the paper's networks of such blocks (`resnet18`,
    /// `resnet50`) in its depths alone.
    pub fn plain(kind: BlockKind, depths: &[usize]) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|row| row.depths == depths && **row == row.stripped(kind))
    }

    /// The plain network of this name and depth.
    fn stripped(&self, kind: BlockKind) -> Architecture {
        Architecture { name: self.name, depths: self.depths, ..*table::base(kind) }
    }

    /// D: the number of pooled features before the classifier.
    pub fn feature_width(&self) -> usize {
        Blueprint::of(self).feature_width
    }

    /// What weights that say nothing else take: ImageNet's mean and std throughout, the CIFAR networks 32×32 pixels
    /// without a resize, the others 224 out of 256.
    pub fn default_preprocessing(&self) -> Preprocessing {
        match self.stem {
            Stem::ThreeByThree => Preprocessing::cifar(),
            Stem::SevenBySeven | Stem::Deep | Stem::DeepTiered => Preprocessing::imagenet(256, 224),
        }
    }
}

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
    fn plain_networks_are_told_by_blocks_and_depths() {
        let plain = |kind, depths: &[usize]| Architecture::plain(kind, depths).map(|architecture| architecture.name);
        assert_eq!(plain(BlockKind::Basic, &[3, 4, 6, 3]), Some("resnet34"));
        assert_eq!(plain(BlockKind::Bottleneck, &[3, 4, 6, 3]), Some("resnet50"));
        assert_eq!(plain(BlockKind::Bottleneck, &[2, 2, 2, 2]), Some("resnet26"));
        assert_eq!(plain(BlockKind::Basic, &[1, 1, 1, 1]), None, "resnet10t has another stem");
    }

    #[test]
    fn pools_go_by_timms_names() {
        for (name, pool) in GlobalPool::NAMES {
            assert_eq!((GlobalPool::named(name), pool.name()), (Some(pool), name));
        }
        assert_eq!(GlobalPool::named("mean"), None);
    }

    #[test]
    fn feature_widths_are_the_papers() {
        let width = |name| Architecture::named(name).map(Architecture::feature_width);
        assert_eq!(width("resnet18"), Some(512));
        assert_eq!(width("wide_resnet50_2"), Some(2048));
        assert_eq!(width("resnet56_cifar"), Some(64));
    }
}
