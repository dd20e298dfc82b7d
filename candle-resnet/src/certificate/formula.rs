//! Weights and inputs from a formula, so that no weight file need be stored.
//!
//! Every value depends only on the tensor's name and the element's row-major index. The port of
//! `scripts/golden/formula.py`, equal to it bit for bit: a test in candle-finetune holds values that Python printed.

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// FNV-1a, 64 bits.
pub fn fnv1a64(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// `count` values in [0, 1), exact multiples of 2⁻²⁴: a SplitMix64 stream seeded by the name.
pub fn unit(name: &str, count: usize) -> Vec<f32> {
    let seed = fnv1a64(name);
    (1..=count as u64)
        .map(|index| (mix(seed.wrapping_add(index.wrapping_mul(GAMMA))) >> 40) as f32 * 2f32.powi(-24))
        .collect()
}

/// SplitMix64's output function.
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The value of a state-dict entry of this name and shape, row-major.
pub fn tensor(name: &str, shape: &[usize]) -> Vec<f32> {
    let units = unit(name, shape.iter().product());
    let value: Box<dyn Fn(f32) -> f32> = if name.ends_with("running_var") {
        Box::new(|u| 0.5 + u)
    } else if name.ends_with("running_mean") || name.ends_with("bias") {
        Box::new(|u| 0.1 * (2.0 * u - 1.0))
    } else if shape.len() <= 1 {
        Box::new(|u| 0.25 + 0.5 * u) // the scale of a norm
    } else {
        let fan_in: usize = shape[1..].iter().product();
        let bound = (6.0 / fan_in as f64).sqrt() as f32;
        Box::new(move |u| bound * (2.0 * u - 1.0))
    };
    units.into_iter().map(value).collect()
}

/// Network input in [-2, 2), row-major.
pub fn image_batch(name: &str, shape: &[usize]) -> Vec<f32> {
    unit(name, shape.iter().product()).into_iter().map(|u| 4.0 * u - 2.0).collect()
}

/// `count` labels below `classes`, as the golden scripts draw them.
pub fn labels(name: &str, count: usize, classes: usize) -> Vec<u32> {
    unit(name, count).into_iter().map(|u| (u * classes as f32) as u32).collect()
}
