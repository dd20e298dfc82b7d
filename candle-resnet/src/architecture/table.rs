//! Every architecture, one row each: torchvision's ten and all others of timm's `resnet.py`, then the CIFAR networks.
//!
//! A row says how a network differs from a base row.

use super::{AntiAlias, Architecture, AttentionKind, BlockKind, GlobalPool, Norm, ShortcutKind, Stem, StemPool};

const D18: &[usize] = &[2, 2, 2, 2];
const D50: &[usize] = &[3, 4, 6, 3];
const D101: &[usize] = &[3, 4, 23, 3];
const D152: &[usize] = &[3, 8, 36, 3];
const D200: &[usize] = &[3, 24, 36, 3];
const D269: &[usize] = &[3, 30, 48, 8];

const SE: Option<AttentionKind> = Some(AttentionKind::SqueezeExcite { reduction: 16 });
const SE4: Option<AttentionKind> = Some(AttentionKind::SqueezeExcite { reduction: 4 });
const ECA: Option<AttentionKind> = Some(AttentionKind::EfficientChannel);
const AVERAGE: Option<AntiAlias> = Some(AntiAlias::Average);
const BLUR: Option<AntiAlias> = Some(AntiAlias::Blur);

/// The paper's networks of basic blocks.
const BASIC: Architecture = Architecture {
    name: "",
    blocks: &[BlockKind::Basic; 4],
    depths: D18,
    widths: &[64, 128, 256, 512],
    groups: 1,
    base_width: 64,
    reduce_first: 1,
    in_channels: 3,
    stem: Stem::SevenBySeven,
    stem_width: 64,
    stem_pool: StemPool::Max,
    shortcut: ShortcutKind::Projection,
    attention: None,
    anti_alias: None,
    norm: Norm::Batch,
    pruned: None,
    output_stride: 32,
    global_pool: GlobalPool::Average,
};
/// The paper's networks of bottlenecks.
const B: Architecture = Architecture { blocks: &[BlockKind::Bottleneck; 4], ..BASIC };

/// The paper's networks of blocks of one kind.
pub(super) fn base(kind: BlockKind) -> &'static Architecture {
    match kind {
        BlockKind::Basic => &BASIC,
        BlockKind::Bottleneck => &B,
    }
}

// The letters that the Gluon networks are told apart by: C has a deep stem, S a wide one, D averages in its shortcuts as
// well, T does so with a tiered stem.
const BASIC_D: Architecture = Architecture { stem: Stem::Deep, shortcut: ShortcutKind::AveragedProjection, ..BASIC };
const BASIC_T: Architecture = Architecture { stem: Stem::DeepTiered, ..BASIC_D };
const B_C: Architecture = Architecture { stem: Stem::Deep, ..B };
const B_S: Architecture = Architecture { stem_width: 128, ..B_C };
const B_D: Architecture = Architecture { shortcut: ShortcutKind::AveragedProjection, ..B_C };
const B_T: Architecture = Architecture { stem: Stem::DeepTiered, ..B_D };
/// ResNet-RS.
const RS: Architecture = Architecture { stem_pool: StemPool::Convolution, attention: SE4, ..B_D };
const CIFAR: Architecture = Architecture {
    blocks: &[BlockKind::Basic; 3],
    widths: &[16, 32, 64],
    stem: Stem::ThreeByThree,
    stem_width: 16,
    stem_pool: StemPool::None,
    shortcut: ShortcutKind::ZeroPadded,
    ..BASIC
};

/// Every architecture that this crate builds.
pub const ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "resnet18", ..BASIC },
    Architecture { name: "resnet34", depths: D50, ..BASIC },
    Architecture { name: "resnet50", depths: D50, ..B },
    Architecture { name: "resnet101", depths: D101, ..B },
    Architecture { name: "resnet152", depths: D152, ..B },
    Architecture { name: "resnext50_32x4d", depths: D50, groups: 32, base_width: 4, ..B },
    Architecture { name: "resnext101_32x8d", depths: D101, groups: 32, base_width: 8, ..B },
    Architecture { name: "resnext101_64x4d", depths: D101, groups: 64, base_width: 4, ..B },
    Architecture { name: "wide_resnet50_2", depths: D50, base_width: 128, ..B },
    Architecture { name: "wide_resnet101_2", depths: D101, base_width: 128, ..B },
    // Other depths, stems and shortcuts.
    Architecture { name: "resnet10t", depths: &[1, 1, 1, 1], ..BASIC_T },
    Architecture { name: "resnet14t", depths: &[1, 1, 1, 1], ..B_T },
    Architecture { name: "resnet18d", ..BASIC_D },
    Architecture { name: "resnet34d", depths: D50, ..BASIC_D },
    Architecture { name: "resnet26", ..B },
    Architecture { name: "resnet26d", ..B_D },
    Architecture { name: "resnet26t", ..B_T },
    Architecture { name: "resnet50c", depths: D50, ..B_C },
    Architecture { name: "resnet50d", depths: D50, ..B_D },
    Architecture { name: "resnet50s", depths: D50, ..B_S },
    Architecture { name: "resnet50t", depths: D50, ..B_T },
    Architecture { name: "resnet101c", depths: D101, ..B_C },
    Architecture { name: "resnet101d", depths: D101, ..B_D },
    Architecture { name: "resnet101s", depths: D101, ..B_S },
    Architecture { name: "resnet152c", depths: D152, ..B_C },
    Architecture { name: "resnet152d", depths: D152, ..B_D },
    Architecture { name: "resnet152s", depths: D152, ..B_S },
    Architecture { name: "resnet200", depths: D200, ..B },
    Architecture { name: "resnet200d", depths: D200, ..B_D },
    Architecture { name: "resnext50d_32x4d", depths: D50, groups: 32, base_width: 4, ..B_D },
    Architecture { name: "resnext101_32x4d", depths: D101, groups: 32, base_width: 4, ..B },
    Architecture { name: "resnext101_32x16d", depths: D101, groups: 32, base_width: 16, ..B },
    Architecture { name: "resnext101_32x32d", depths: D101, groups: 32, base_width: 32, ..B },
    // timm has a card of it, but no function that builds it.
    Architecture { name: "resnext101_32x48d", depths: D101, groups: 32, base_width: 48, ..B },
    // Group norm.
    Architecture { name: "resnet50_gn", depths: D50, norm: Norm::Group { groups: 32 }, ..B },
    // Efficient channel attention.
    Architecture { name: "ecaresnet26t", attention: ECA, ..B_T },
    Architecture { name: "ecaresnet50d", depths: D50, attention: ECA, ..B_D },
    Architecture { name: "ecaresnet50t", depths: D50, attention: ECA, ..B_T },
    Architecture {
        name: "ecaresnetlight",
        depths: &[1, 1, 11, 3],
        shortcut: ShortcutKind::AveragedProjection,
        attention: ECA,
        ..B
    },
    Architecture { name: "ecaresnet101d", depths: D101, attention: ECA, ..B_D },
    Architecture { name: "ecaresnet200d", depths: D200, attention: ECA, ..B_D },
    Architecture { name: "ecaresnet269d", depths: D269, attention: ECA, ..B_D },
    Architecture { name: "ecaresnext26t_32x4d", groups: 32, base_width: 4, attention: ECA, ..B_T },
    Architecture { name: "ecaresnext50t_32x4d", depths: D50, groups: 32, base_width: 4, attention: ECA, ..B_T },
    Architecture {
        name: "ecaresnet50d_pruned",
        depths: D50,
        attention: ECA,
        pruned: Some(include_str!(concat!(env!("MODELS"), "/pruned/ecaresnet50d_pruned.tsv"))),
        ..B_D
    },
    Architecture {
        name: "ecaresnet101d_pruned",
        depths: D101,
        attention: ECA,
        pruned: Some(include_str!(concat!(env!("MODELS"), "/pruned/ecaresnet101d_pruned.tsv"))),
        ..B_D
    },
    // Squeeze-excite.
    Architecture { name: "seresnet18", attention: SE, ..BASIC },
    Architecture { name: "seresnet34", depths: D50, attention: SE, ..BASIC },
    Architecture { name: "seresnet50", depths: D50, attention: SE, ..B },
    Architecture { name: "seresnet50t", depths: D50, attention: SE, ..B_T },
    Architecture { name: "seresnet101", depths: D101, attention: SE, ..B },
    Architecture { name: "seresnet152", depths: D152, attention: SE, ..B },
    Architecture { name: "seresnet152d", depths: D152, attention: SE, ..B_D },
    Architecture { name: "seresnet200d", depths: D200, attention: SE, ..B_D },
    Architecture { name: "seresnet269d", depths: D269, attention: SE, ..B_D },
    Architecture { name: "seresnext26d_32x4d", groups: 32, base_width: 4, attention: SE, ..B_D },
    Architecture { name: "seresnext26t_32x4d", groups: 32, base_width: 4, attention: SE, ..B_T },
    Architecture { name: "seresnext50_32x4d", depths: D50, groups: 32, base_width: 4, attention: SE, ..B },
    Architecture { name: "seresnext101_32x4d", depths: D101, groups: 32, base_width: 4, attention: SE, ..B },
    Architecture { name: "seresnext101_32x8d", depths: D101, groups: 32, base_width: 8, attention: SE, ..B },
    Architecture { name: "seresnext101d_32x8d", depths: D101, groups: 32, base_width: 8, attention: SE, ..B_D },
    Architecture { name: "seresnext101_64x4d", depths: D101, groups: 64, base_width: 4, attention: SE, ..B },
    Architecture {
        name: "senet154",
        depths: D152,
        groups: 64,
        base_width: 4,
        reduce_first: 2,
        shortcut: ShortcutKind::WideProjection,
        attention: SE,
        ..B_S
    },
    // Anti-aliased.
    Architecture { name: "resnetblur18", anti_alias: BLUR, ..BASIC },
    Architecture { name: "resnetblur50", depths: D50, anti_alias: BLUR, ..B },
    Architecture { name: "resnetblur50d", depths: D50, anti_alias: BLUR, ..B_D },
    Architecture { name: "resnetblur101d", depths: D101, anti_alias: BLUR, ..B_D },
    Architecture { name: "resnetaa34d", depths: D50, anti_alias: AVERAGE, ..BASIC_D },
    Architecture { name: "resnetaa50", depths: D50, anti_alias: AVERAGE, ..B },
    Architecture { name: "resnetaa50d", depths: D50, anti_alias: AVERAGE, ..B_D },
    Architecture { name: "resnetaa101d", depths: D101, anti_alias: AVERAGE, ..B_D },
    Architecture { name: "seresnetaa50d", depths: D50, attention: SE, anti_alias: AVERAGE, ..B_D },
    Architecture {
        name: "seresnextaa101d_32x8d",
        depths: D101,
        groups: 32,
        base_width: 8,
        attention: SE,
        anti_alias: AVERAGE,
        ..B_D
    },
    Architecture {
        name: "seresnextaa201d_32x8d",
        depths: &[3, 24, 36, 4],
        groups: 32,
        base_width: 8,
        stem_width: 128,
        attention: SE,
        anti_alias: AVERAGE,
        ..B_D
    },
    // ResNet-RS.
    Architecture { name: "resnetrs50", depths: D50, ..RS },
    Architecture { name: "resnetrs101", depths: D101, ..RS },
    Architecture { name: "resnetrs152", depths: D152, ..RS },
    Architecture { name: "resnetrs200", depths: D200, ..RS },
    Architecture { name: "resnetrs270", depths: &[4, 29, 53, 4], ..RS },
    Architecture { name: "resnetrs350", depths: &[4, 36, 72, 4], ..RS },
    Architecture { name: "resnetrs420", depths: &[4, 44, 87, 4], ..RS },
    // timm's smallest, for tests.
    Architecture {
        name: "test_resnet",
        blocks: &[BlockKind::Basic, BlockKind::Basic, BlockKind::Bottleneck, BlockKind::Basic],
        depths: &[1, 1, 1, 1],
        widths: &[32, 48, 48, 96],
        stem_width: 32,
        ..BASIC_D
    },
    // CIFAR.
    Architecture { name: "resnet20_cifar", depths: &[3, 3, 3], ..CIFAR },
    Architecture { name: "resnet32_cifar", depths: &[5, 5, 5], ..CIFAR },
    Architecture { name: "resnet44_cifar", depths: &[7, 7, 7], ..CIFAR },
    Architecture { name: "resnet56_cifar", depths: &[9, 9, 9], ..CIFAR },
    Architecture { name: "resnet110_cifar", depths: &[18, 18, 18], ..CIFAR },
];
