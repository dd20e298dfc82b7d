use super::*;
use crate::architecture::{ARCHITECTURES, Architecture};

fn blueprint(name: &str) -> Blueprint {
    Blueprint::of(Architecture::named(name).unwrap())
}

fn parameter_count(name: &str, classes: usize) -> usize {
    blueprint(name).parameter_count(classes)
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
fn activations_are_those_that_timm_publishes() {
    let millions = |name| blueprint(name).costs(224).iter().map(|cost| cost.activations).sum::<u64>() as f64 / 1e6;
    assert_eq!(format!("{:.1} {:.1}", millions("resnet18"), millions("resnet50")), "2.5 11.1");
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
    assert!(matches!(resnet18.stages[1].blocks[0].shortcut, Shortcut::Projection { .. }));
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

#[test]
fn squeezed_channels_are_multiples_of_eight() {
    let inner = |name: &str| match &blueprint(name).stages[0].blocks[0].attention {
        Some(Attention::SqueezeExcite { inner, .. }) => *inner,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(inner("seresnet18"), 8); // 64 / 16 = 4, but at least 8
    assert_eq!(inner("seresnet50"), 16);
    assert_eq!(inner("resnetrs50"), 64);
}

#[test]
fn kernels_along_channels_grow_with_their_logarithm() {
    let kernels: Vec<usize> = blueprint("ecaresnet50d")
        .stages
        .iter()
        .map(|stage| match &stage.blocks[0].attention {
            Some(Attention::EfficientChannel { kernel, .. }) => *kernel,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kernels, [5, 5, 5, 7]);
}

#[test]
fn output_stride_trades_strides_for_dilation() {
    let dilated = Architecture { output_stride: 8, ..*Architecture::named("resnet50").unwrap() };
    let blueprint = Blueprint::of(&dilated);
    let sizes: Vec<usize> = blueprint.costs(224).iter().map(|cost| cost.size).collect();
    assert_eq!(sizes, [56, 56, 28, 28, 28]);
    let dilations = |stage: usize, block: usize| blueprint.stages[stage].blocks[block].convs[1].dilation;
    assert_eq!([dilations(2, 0), dilations(2, 1), dilations(3, 0), dilations(3, 1)], [1, 2, 2, 4]);
    assert_eq!(blueprint.parameters(1000), super::tests::blueprint("resnet50").parameters(1000));
}

#[test]
fn pruned_tables_name_every_convolution_and_nothing_else() {
    for architecture in ARCHITECTURES {
        let Some(table) = architecture.pruned else { continue };
        let named: Vec<&str> = table.lines().map(|line| line.split_once('\t').unwrap().0).collect();
        let parameters = Blueprint::of(architecture).trunk_parameters();
        let kernels = parameters.iter().filter(|spec| spec.role == Role::Convolution);
        let convs: Vec<&str> = kernels.filter_map(|spec| spec.name.strip_suffix(".weight")).collect();
        assert_eq!(named, convs, "{}", architecture.name);
    }
}
