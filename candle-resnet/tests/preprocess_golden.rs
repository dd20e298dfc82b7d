//! The transform against torchvision's: hashes of images drawn by formula, and real photos where they are at hand.
//!
//! `data/preprocess_synthetic.jsonl` was written by `scripts/golden_preprocess_synthetic.py`; versions in its first line.

use std::path::{Path, PathBuf};

use candle_resnet::preprocess::{Interpolation, Photo, Preprocessing, decode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Debug, Deserialize)]
struct Synthetic {
    kind: String,
    width: usize,
    height: usize,
    resize: usize,
    crop: usize,
    interpolation: Interpolation,
    pixels_sha256: String,
    tensor_sha256: String,
    grid: Vec<usize>,
    pixels: Vec<u8>,
}

/// The formula of the script's `draw`.
fn draw(kind: &str, width: usize, height: usize) -> Photo {
    let value = |x: u32, y: u32, c: u32| match kind {
        "noise" => {
            let sum = x.wrapping_mul(0x9E37_79B1).wrapping_add(y.wrapping_mul(0x85EB_CA77));
            let sum = sum.wrapping_add(c.wrapping_mul(0xC2B2_AE3D));
            ((sum ^ (sum >> 15)).wrapping_mul(0x2C1B_3C6D) >> 24) as u8
        }
        _ => ((x * x * (c + 1) + y * y * 3 + x * y) >> 5) as u8,
    };
    let size = |n: usize| 0..n as u32;
    let pixels = size(height).flat_map(|y| size(width).flat_map(move |x| size(3).map(move |c| value(x, y, c))));
    Photo::from_rgb8(width, height, pixels.collect()).unwrap()
}

fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn at_grid(pixels: &[u8], crop: usize, grid: &[usize]) -> Vec<u8> {
    let pixel = |y: &usize, x: &usize| pixels[(y * crop + x) * 3..][..3].to_vec();
    grid.iter().flat_map(|y| grid.iter().flat_map(move |x| pixel(y, x))).collect()
}

#[test]
fn synthetic_images_are_torchvisions_to_the_last_bit() {
    let lines = include_str!("data/preprocess_synthetic.jsonl").lines().skip(1);
    let cases: Vec<Synthetic> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cases.len(), 108);
    for case in cases {
        let recipe =
            Preprocessing { interpolation: case.interpolation, ..Preprocessing::imagenet(case.resize, case.crop) };
        let pixels = recipe.pixels(&draw(&case.kind, case.width, case.height));
        assert_eq!(at_grid(&pixels, case.crop, &case.grid), case.pixels, "{case:?}");
        assert_eq!(sha256(&pixels), case.pixels_sha256, "{case:?}");
        let tensor: Vec<u8> = recipe.normalise(&pixels).iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(sha256(&tensor), case.tensor_sha256, "{case:?}");
    }
}

#[derive(Debug, Deserialize)]
struct Real {
    image: String,
    resize: usize,
    crop: usize,
    interpolation: Interpolation,
    channel_means: [f64; 3],
    grid: Vec<usize>,
    pixels: Vec<Vec<[u8; 3]>>,
}

/// `PREPROCESS_GOLDEN` names the folder that holds `preprocess.jsonl` and the photos. Where it also holds a folder
/// `png`, with the photos as Pillow decodes and rotates them, those are compared too: they tell the resize from the
/// decoder. The issue allows 5 levels and 0.1 on a channel's mean; nothing keeps the two from being equal.
#[test]
#[ignore = "needs real photos: PREPROCESS_GOLDEN=folder cargo test --release -p candle-resnet -- --ignored photos"]
fn real_photos_are_torchvisions_to_the_last_bit() {
    let folder = PathBuf::from(std::env::var_os("PREPROCESS_GOLDEN").expect("PREPROCESS_GOLDEN names the folder"));
    let golden = std::fs::read_to_string(folder.join("preprocess.jsonl")).unwrap();
    let cases: Vec<Real> = golden.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut compared = 0;
    for case in &cases {
        let photo = folder.join(&case.image);
        let lossless = folder.join("png").join(&case.image).with_extension("png");
        for path in [Some(photo), lossless.exists().then_some(lossless)].into_iter().flatten() {
            let (level, mean) = distance(case, &path);
            assert!(level == 0 && mean <= ROUNDED_MEAN, "{path:?}: {level} levels, mean {mean}");
            compared += 1;
        }
    }
    assert!(compared > 0);
    println!("{} cases, {compared} comparisons, all equal", cases.len());
}

/// Means are stored with four decimals.
const ROUNDED_MEAN: f64 = 0.000_051;

/// The largest difference at the grid, in levels, and of the channels' means.
fn distance(case: &Real, path: &Path) -> (u8, f64) {
    let recipe = Preprocessing { interpolation: case.interpolation, ..Preprocessing::imagenet(case.resize, case.crop) };
    let pixels = recipe.pixels(&decode(path).unwrap());
    let expected = case.pixels.iter().flatten().flatten();
    let found = at_grid(&pixels, case.crop, &case.grid);
    let levels = found.iter().zip(expected).map(|(found, expected)| found.abs_diff(*expected)).max().unwrap();
    let mean = |channel| {
        let sum: u64 = pixels.iter().skip(channel).step_by(3).map(|&value| u64::from(value)).sum();
        sum as f64 / (case.crop * case.crop) as f64
    };
    (levels, (0..3).map(|channel| (mean(channel) - case.channel_means[channel]).abs()).fold(0.0, f64::max))
}
