//! Against torchvision: pixels by hashes, what is drawn by histograms.
//!
//! `tests/golden/augment.tsv` was written by `scripts/golden/golden_augment.py` (torchvision 0.29.2, Pillow 13.0.0).

use std::ops::Range as Bounds;

use candle_resnet::preprocess::{Area, Interpolation};
use rand::Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::image::Image;
use super::operation::{Operation, Ranges, STRONGEST};
use super::*;

/// The lines of one kind, in columns.
fn golden(kind: &str) -> Vec<Vec<&'static str>> {
    let lines = include_str!("../../tests/golden/augment.tsv").lines().map(|line| line.split('\t').collect());
    lines.filter(|columns: &Vec<&str>| columns[0] == kind).map(|columns| columns[1..].to_vec()).collect()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn numbers(text: &str) -> Vec<f64> {
    text.split(' ').map(|number| number.parse().unwrap()).collect()
}

fn size(text: &str) -> (usize, usize) {
    let (width, height) = text.split_once('×').unwrap();
    (width.parse().unwrap(), height.parse().unwrap())
}

/// The script's `draw`.
fn image(kind: &str, (width, height): (usize, usize)) -> Image {
    let level = |x: u32, y: u32, c: u32| match kind {
        "noise" => {
            let sum = x.wrapping_mul(0x9E37_79B1).wrapping_add(y.wrapping_mul(0x85EB_CA77));
            let sum = sum.wrapping_add(c.wrapping_mul(0xC2B2_AE3D));
            ((sum ^ (sum >> 15)).wrapping_mul(0x2C1B_3C6D) >> 24) as u8
        }
        "waves" => 40 + (((x * x * (c + 1) + y * y * 3 + x * y) >> 5) % 128) as u8,
        "flat" => 77 + 20 * c as u8,
        _ => (((y * 1500 + x) * 7) >> (8 * (2 - c))) as u8, // every 7th colour
    };
    let pixel = |x: u32, y: u32| std::array::from_fn(|channel| level(x, y, channel as u32));
    let pixels = (0..height as u32).flat_map(|y| (0..width as u32).map(move |x| pixel(x, y))).collect();
    Image { width, height, pixels }
}

fn operation(name: &str) -> Option<Operation> {
    Operation::ALL.into_iter().find(|operation| format!("{operation:?}") == name)
}

/// What `name` makes of an image here.
fn result(image: &Image, name: &str, numbers: &[f64]) -> Vec<u8> {
    let changed = match (name, numbers) {
        ("Hue", [factor]) => image.with_hue_turned(*factor),
        ("Flip", _) => image.mirrored(),
        ("VFlip", _) => image.upside_down(),
        ("PadCrop", &[padding, left, top]) => image.shifted((left - padding) as i64, (top - padding) as i64),
        ("Crop bilinear", area) => return cropped(image, area, Interpolation::Bilinear),
        ("Crop bicubic", area) => return cropped(image, area, Interpolation::Bicubic),
        (name, [strength]) => operation(name).unwrap().apply(image, *strength),
        _ => panic!("{name} {numbers:?}"),
    };
    changed.bytes().to_vec()
}

fn cropped(image: &Image, area: &[f64], interpolation: Interpolation) -> Vec<u8> {
    let [left, top, width, height, side] = *area else { panic!("{area:?}") };
    let area = Area { left: left as usize, top: top as usize, width: width as usize, height: height as usize };
    let photo = Photo::from_rgb8(image.width, image.height, image.bytes().to_vec()).unwrap();
    let recipe = Preprocessing { interpolation, ..Preprocessing::imagenet(side as usize, side as usize) };
    recipe.squashed(&photo.cropped(area).unwrap())
}

#[test]
fn every_operation_is_torchvisions_to_the_last_bit() {
    let lines = golden("pixels");
    assert_eq!(lines.len(), 274);
    for line in lines {
        let [kind, dimensions, name, values, expected] = line[..] else { panic!("{line:?}") };
        let found = result(&image(kind, size(dimensions)), name, &numbers(values));
        assert_eq!(digest(&found), expected, "{line:?}");
    }
}

#[test]
fn magnitudes_are_torchvisions_to_the_last_bit() {
    let lines = golden("magnitudes");
    assert_eq!(lines.len(), 3 * Operation::ALL.len(), "every operation");
    for (index, line) in lines.iter().enumerate() {
        let [class, dimensions, name, expected, strongest] = line[..] else { panic!("{line:?}") };
        let ranges = if class == "RandAugment" { Ranges::RAND_AUGMENT } else { Ranges::TRIVIAL_WIDE };
        let (width, height) = if dimensions == "-" { (0, 0) } else { size(dimensions) };
        let operation = operation(name).unwrap();
        assert_eq!(operation, Operation::ALL[index % Operation::ALL.len()], "the order is torchvision's");
        let strength = |magnitude| ranges.strength(operation, magnitude, width, height);
        assert_eq!(strength(STRONGEST), strongest.parse::<f64>().unwrap(), "{line:?}");
        let varies = strength(0) != strength(STRONGEST);
        let bins: Vec<u8> = (if varies { 0..=STRONGEST } else { 0..=0 })
            .flat_map(|magnitude| (strength(magnitude) as f32).to_le_bytes())
            .collect();
        assert_eq!(digest(&bins), expected, "{line:?}");
    }
}

/// Counts in ten bins.
fn histogram(values: &[f64], bounds: Bounds<f64>) -> Vec<f64> {
    let mut counts = vec![0.0; 10];
    for value in values {
        let bin = (value - bounds.start) / (bounds.end - bounds.start) * 10.0;
        counts[(bin as usize).min(9)] += 1.0;
    }
    counts
}

/// That counts of `draws` draws come from the same distribution as torchvision's fractions of 200,000, by χ² at 10⁻⁶ for
/// up to ten bins.
fn assert_drawn_alike(counts: &[f64], fractions: &str, draws: usize, what: &str) {
    let fractions = numbers(fractions);
    let expected: Vec<f64> = fractions.iter().map(|fraction| fraction * draws as f64).collect();
    let noise = 1.0 + draws as f64 / 200_000.0; // the fractions are a sample themselves
    let term = |(&found, &expected): (&f64, &f64)| (found - expected).powi(2) / (expected.max(1.0) * noise);
    let chi_squared: f64 = counts.iter().zip(&expected).map(term).sum();
    assert!(chi_squared < 50.0, "{what}: χ² {chi_squared}, {counts:?}, torchvision's {expected:?}");
}

fn area_range(text: &str) -> AreaRange {
    let [smallest, largest, lowest, highest] = numbers(text)[..] else { panic!("{text}") };
    AreaRange { scale: Range { low: smallest, high: largest }, ratio: Range { low: lowest, high: highest } }
}

#[test]
fn areas_that_are_cropped_and_erased_are_distributed_as_torchvisions() {
    const DRAWS: usize = 50_000;
    let lines = [("crop", golden("crop")), ("erase", golden("erase"))];
    for (kind, line) in lines.iter().flat_map(|(kind, lines)| lines.iter().map(move |line| (*kind, line))) {
        let [dimensions, ranges, areas, ratios, lefts, tops] = line[..] else { panic!("{line:?}") };
        let ((width, height), range) = (size(dimensions), area_range(ranges));
        let mut random = view_generator(0, 0, 0);
        let draws = (0..DRAWS).filter_map(|_| match kind {
            "crop" => Some(range.crop(width, height, &mut random)),
            _ => range.erased(width, height, &mut random),
        });
        let drawn: Vec<Area> = draws.filter(|area| (area.width, area.height) != (width, height)).collect();
        let of = |value: fn(&Area) -> f64| drawn.iter().map(value).collect::<Vec<f64>>();
        let whole = (width * height) as f64;
        let limit = range.ratio.low.ln().abs().max(range.ratio.high.ln().abs()) + 0.2;
        let alike = |values: &[f64], bounds, fractions, what| {
            assert_drawn_alike(&histogram(values, bounds), fractions, DRAWS, &format!("{kind} {what} {line:?}"));
        };
        alike(&of(|area| (area.width * area.height) as f64), 0.0..whole, areas, "area");
        let ratio = |area: &Area| (area.width.max(1) as f64 / area.height.max(1) as f64).ln();
        alike(&of(ratio), -limit..limit + 0.01, ratios, "ratio");
        alike(&of(|area| area.left as f64), 0.0..width as f64, lefts, "left");
        alike(&of(|area| area.top as f64), 0.0..height as f64, tops, "top");
    }
}

/// That all of `counts` could be equally likely; five standard deviations.
fn assert_uniform(counts: &[usize], what: &str) {
    let draws: usize = counts.iter().sum();
    let expected = draws as f64 / counts.len() as f64;
    let far = 5.0 * (expected * (1.0 - 1.0 / counts.len() as f64)).sqrt();
    assert!(counts.iter().all(|&count| (count as f64 - expected).abs() < far), "{what}: {counts:?}");
}

#[test]
fn operations_signs_and_magnitudes_are_equally_likely() {
    let image = image("waves", (8, 8));
    let mut random = view_generator(1, 2, 3);
    let mut operations = [0; Operation::ALL.len()];
    let mut signs = [0; 2];
    let mut magnitudes = [0; STRONGEST as usize + 1];
    for _ in 0..50_000 {
        let any = |random: &mut rand_chacha::ChaCha8Rng| {
            let magnitude = crate::random::below(random, u64::from(STRONGEST) + 1);
            magnitudes[magnitude] += 1;
            magnitude as u8
        };
        let (operation, strength) = operation::draw(&Ranges::TRIVIAL_WIDE, any, &image, &mut random);
        operations[operation as usize] += 1;
        if operation == Operation::Rotate && strength != 0.0 {
            signs[usize::from(strength < 0.0)] += 1;
        }
    }
    assert_uniform(&operations, "operations");
    assert_uniform(&magnitudes, "magnitudes");
    assert_uniform(&signs, "signs");
}

/// A photo of 90×70 pixels.
fn photo() -> Photo {
    let image = image("noise", (90, 70));
    Photo::from_rgb8(90, 70, image.bytes().to_vec()).unwrap()
}

fn view(policy: &str, draw: Draw) -> Vec<f32> {
    augmented(&photo(), &Preprocessing::imagenet(40, 32), 3, &policy.parse().unwrap(), draw).unwrap()
}

const POLICIES: [&str; 4] = [
    "crop,flip,vflip,randaugment,color=0.4:0.4:0.4:0.1,erase",
    "padcrop,trivial,erase=1",
    "crop=0.5,randaugment=4:30",
    "color=0.4:0.4:0.4:0.5",
];

#[test]
fn a_view_depends_on_seed_view_and_image_alone() {
    for policy in POLICIES {
        let draws: Vec<Draw> = (0..60).map(|n| Draw { seed: n % 2, view: n % 6 / 2, image: n / 6 }).collect();
        let alone: Vec<Vec<f32>> = draws.iter().map(|&draw| view(policy, draw)).collect();
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let together: Vec<Vec<f32>> = pool.install(|| draws.par_iter().map(|&draw| view(policy, draw)).collect());
            assert!(together == alone, "{policy}");
        }
        assert_ne!(alone[0], alone[1], "the seed counts");
        assert_ne!(alone[0], alone[2], "the view counts");
        assert_ne!(alone[0], alone[6], "the image counts");
    }
}

#[test]
fn a_certain_flip_is_the_mirror_image_and_draws_nothing_else() {
    let recipe = Preprocessing::imagenet(40, 32);
    let plain = recipe.apply(&photo());
    let mirrored: Vec<f32> = plain.chunks_exact(32).flat_map(|row| row.iter().rev().copied()).collect();
    for view_number in 0..20 {
        let draw = Draw { seed: 3, view: view_number, image: 1 };
        assert_eq!(augmented(&photo(), &recipe, 3, &Policy::mirror(), draw).unwrap(), mirrored);
    }
}

#[test]
fn half_of_the_views_are_flipped() {
    let plain = view("flip=1", Draw { seed: 0, view: 0, image: 0 });
    // Binomial(400, 1/2): mean 200, standard deviation 10.
    let flipped = (0..400).filter(|&view_number| view("flip", Draw { seed: 0, view: view_number, image: 0 }) == plain);
    assert!((150..250).contains(&flipped.count()));
}

#[test]
fn a_shift_keeps_the_middle_and_lets_black_in() {
    let recipe = Preprocessing { mean: [0.0; 3], std: [1.0; 3], ..Preprocessing::imagenet(40, 32) };
    let white = Photo::from_rgb8(90, 70, vec![255; 90 * 70 * 3]).unwrap();
    let policy: Policy = "padcrop=3".parse().unwrap();
    let mut shifts = std::collections::BTreeSet::new();
    for image in 0..600 {
        let planes = augmented(&white, &recipe, 3, &policy, Draw { seed: 0, view: 0, image }).unwrap();
        let is_white = |x: usize, y: usize| planes[y * 32 + x] == 1.0;
        assert!(is_white(3, 3) && is_white(28, 28));
        let black = |positions: Bounds<usize>| positions.filter(|&n| !is_white(n, 16)).count();
        let black_rows = |positions: Bounds<usize>| positions.filter(|&n| !is_white(16, n)).count();
        shifts.insert((black(0..3), black(29..32), black_rows(0..3), black_rows(29..32)));
    }
    assert_eq!(shifts.len(), 49, "every shift in both directions");
}

#[test]
fn grey_networks_see_grey_views() {
    let recipe = Preprocessing::imagenet(40, 32).for_channels(1);
    let policy: Policy = POLICIES[0].parse().unwrap();
    let view = augmented(&photo(), &recipe, 1, &policy, Draw { seed: 0, view: 0, image: 0 }).unwrap();
    assert_eq!(view.len(), 32 * 32);
    assert!(augmented(&photo(), &recipe, 4, &policy, Draw { seed: 0, view: 0, image: 0 }).is_err());
}

#[test]
fn any_photo_and_any_side_have_views() {
    let mut random = view_generator(5, 0, 0);
    for (width, height) in [(1, 1), (1, 300), (300, 1), (2, 2), (31, 33)] {
        let bytes = (0..width * height * 3).map(|_| random.next_u32() as u8).collect();
        let photo = Photo::from_rgb8(width, height, bytes).unwrap();
        for (policy, crop) in POLICIES.iter().flat_map(|policy| [(policy, 1), (policy, 2), (policy, 32)]) {
            let recipe = Preprocessing::imagenet(crop, crop);
            for image in 0..40 {
                let draw = Draw { seed: 0, view: 0, image };
                let planes = augmented(&photo, &recipe, 3, &policy.parse().unwrap(), draw).unwrap();
                assert!(planes.len() == 3 * crop * crop && planes.iter().all(|value| value.is_finite()));
            }
        }
    }
}

#[test]
fn views_are_counted_from_one_to_a_thousand() {
    for (views, fine) in [(0, false), (1, true), (1000, true), (1001, false)] {
        let augmentation = Augmentation { views: ViewCount::Kept(views), ..Augmentation::mirror() };
        assert_eq!(augmentation.validate().is_ok(), fine, "{views}");
    }
    let nothing = Augmentation { policy: Policy::default(), views: ViewCount::Kept(1) };
    assert_eq!(nothing.validate(), Err(AugmentError::Empty));
}
