use candle_core::{Device, Tensor};

use super::*;
use crate::architecture::Architecture;
use crate::features::{Boundary, FeatureExtractor};
use crate::initialise::fresh_weights;
use crate::trunk::Trunk;

fn trunk(name: &str, options: &PlanOptions) -> Trunk {
    let architecture = Architecture::named(name).unwrap();
    let weights = fresh_weights(architecture, 10, 0, &Device::Cpu).unwrap();
    Trunk::compile_with(architecture, &weights, &Device::Cpu, options).unwrap()
}

/// (N, 3, H, W) of values that differ from image to image.
fn images(count: usize, (height, width): (usize, usize)) -> Tensor {
    let values: Vec<f32> =
        (0..count * 3 * height * width).map(|index| (index * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
    Tensor::from_vec(values, (count, 3, height, width), &Device::Cpu).unwrap()
}

fn features(trunk: &Trunk, images: &Tensor) -> Vec<Vec<f32>> {
    trunk.features(images).unwrap().to_vec2().unwrap()
}

fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let largest = b.iter().flatten().fold(0f32, |largest, value| largest.max(value.abs()));
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

fn small() -> PlanOptions {
    PlanOptions { workload: Workload { image: (64, 64), batch: 8, threads: 2, images: None }, ..PlanOptions::default() }
}

#[test]
fn an_image_gives_the_same_bits_in_any_company() {
    for name in ["resnet18", "resnet20_cifar", "seresnet50"] {
        let trunk = trunk(name, &small());
        let images = images(7, (40, 33));
        let together = features(&trunk, &images);
        for index in [0, 3, 6] {
            assert_eq!(features(&trunk, &images.narrow(0, index, 1).unwrap())[0], together[index], "{name}");
        }
    }
}

#[test]
fn maps_at_any_boundary_give_the_bits_that_their_images_give() {
    // Of basic blocks, with zeros for shortcuts, of bottlenecks in groups, with attention, with blurs, with group norms.
    for name in ["resnet18", "resnet20_cifar", "resnext50_32x4d", "seresnet50", "resnetblur18", "resnet50_gn"] {
        for precision in [Precision::F32, Precision::Bf16] {
            let trunk = trunk(name, &PlanOptions { precision, ..small() });
            let images = images(5, (64, 50));
            let expected = features(&trunk, &images);
            for boundary in Boundary::all(Architecture::named(name).unwrap()) {
                let maps = trunk.map_at(&images, boundary).unwrap();
                let found = trunk.features_of_maps(&maps, boundary).unwrap().to_vec2::<f32>().unwrap();
                assert_eq!(found, expected, "{name} in {precision} at {boundary}");
                assert_eq!(features(&trunk, &images), expected, "{name} in {precision}: memory is used again");
            }
        }
    }
}

#[test]
fn maps_of_another_boundary_are_refused() {
    let [deep, shallow] = ["resnet18", "resnet20_cifar"].map(|name| Architecture::named(name).unwrap());
    let trunk = trunk("resnet20_cifar", &small());
    let map = trunk.map_at(&images(2, (32, 32)), Boundary::named(shallow, "layer1").unwrap()).unwrap();
    let refused = |boundary| trunk.features_of_maps(&map, boundary).unwrap_err().to_string();
    let error = refused(Boundary::last(shallow));
    assert!(error.contains("maps of shape (16, 32, 32) where (64, H, W) is expected"), "{error}");
    let error = refused(Boundary::last(deep));
    assert!(error.contains("maps of shape (16, 32, 32) where no map is expected"), "{error}");
}

#[test]
fn threads_do_not_change_a_bit() {
    // In the second, 1×1 convolutions go by Strassen's method, over maps of an odd number of pixels, too.
    for (name, options, size) in
        [("resnet18", small(), (64, 64)), ("resnext50_32x4d", PlanOptions::default(), (224, 224))]
    {
        let trunk = trunk(name, &options);
        let images = images(3, size);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| features(&trunk, &images))
        };
        let alone = with(1);
        for threads in [2, 3, 5, 8] {
            assert_eq!(with(threads), alone, "{name}, {threads} threads");
        }
        assert_eq!(features(&trunk, &images.narrow(0, 1, 1).unwrap())[0], alone[1], "{name}");
    }
}

#[test]
fn many_callers_share_one_trunk() {
    let trunk = trunk("resnet18", &small());
    let sizes = [(64, 64), (33, 47), (32, 32), (96, 64)];
    let expected = sizes.map(|size| features(&trunk, &images(2, size)));
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (trunk, expected) = (&trunk, &expected);
            scope.spawn(move || {
                for round in 0..6 {
                    let kind = (caller + round) % sizes.len();
                    assert_eq!(features(trunk, &images(2, sizes[kind])), expected[kind]);
                }
            });
        }
    });
}

#[test]
fn instruction_sets_and_plans_agree() {
    for name in ["resnet18", "resnext50_32x4d", "resnet50_gn", "ecaresnet26t"] {
        let images = images(2, (64, 64));
        let reference = features(&trunk(name, &small()), &images);
        for instruction_set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
            for low_memory in [false, true] {
                let other = trunk(name, &PlanOptions { instruction_set, low_memory, ..small() });
                let difference = difference(&features(&other, &images), &reference);
                assert!(difference < 2e-5, "{name} on {instruction_set:?}: {difference:.1e}");
            }
        }
    }
}

#[test]
fn bf16_is_near_f32_on_every_instruction_set_and_plan() {
    for name in ["resnet18", "resnext50_32x4d", "seresnet50", "resnet50_gn", "resnetblur50"] {
        let images = images(2, (64, 64));
        let reference = features(&trunk(name, &small()), &images);
        let mut all = Vec::new();
        for instruction_set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
            for low_memory in [false, true] {
                let options = PlanOptions { precision: Precision::Bf16, instruction_set, low_memory, ..small() };
                let in_half = features(&trunk(name, &options), &images);
                let difference = difference(&in_half, &reference);
                assert!(difference < 0.05, "{name} on {instruction_set:?}: {difference:.1e}");
                all.push(in_half);
            }
        }
        assert_ne!(all[0], reference, "{name}: computed in f32");
    }
}

#[test]
fn bf16_gives_the_same_bits_on_any_number_of_threads_and_in_any_company() {
    let options = PlanOptions { precision: Precision::Bf16, ..small() };
    let trunk = trunk("resnet18", &options);
    let images = images(5, (64, 48));
    let with = |threads: usize, images: &Tensor| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| features(&trunk, images))
    };
    let alone = with(1, &images);
    for threads in [2, 3, 8] {
        assert_eq!(with(threads, &images), alone, "{threads} threads");
    }
    assert_eq!(with(1, &images.narrow(0, 3, 1).unwrap())[0], alone[3]);
}

#[test]
fn images_that_a_network_cannot_take_are_refused() {
    let message = |trunk: &Trunk, images: &Tensor| trunk.features(images).unwrap_err().to_string();
    let four = Tensor::zeros((1, 4, 32, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    let refused = message(&trunk("resnet18", &small()), &four);
    assert!(refused.contains("(4, 32, 32) where (3, H, W) is expected"), "{refused}");
    let refused = message(&trunk("resnetblur50", &small()), &images(1, (2, 2)));
    assert!(refused.contains("too small"), "{refused}");
}

#[test]
fn no_image_gives_no_features() {
    let none = Tensor::zeros((0, 3, 32, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(trunk("resnet18", &small()).features(&none).unwrap().dims(), [0, 512]);
}
