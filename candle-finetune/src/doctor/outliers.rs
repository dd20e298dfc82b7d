//! Pictures unlike all others: how far an image's features are from those of its nearest neighbours, whatever their class.
//!
//! Distances are one less the cosine of features as they are, which said more than standardised ones (docs/LOG.md). Knows no files and
//! no labels.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::pairs::{BLOCK, Near, directions, nearest};

/// Neighbours that count, where there are twenty times as many images: more than the few that may be odd in the same way.
const NEIGHBOURS: usize = 50;

/// Neighbours that count at least.
const FEWEST_NEIGHBOURS: usize = 5;

/// Fewest images among which one can stand out.
pub(super) const FEWEST: usize = 30;

/// How many spreads above the median distance an image stands out.
const SPREADS: f32 = 3.0;

/// The mean distance of each image of `features` (N, D) to its nearest neighbours, a twentieth of all but from 5 to 50, N ≥ 6; 0 is
/// equal to them.
///
/// # Errors
/// Those of `proceed`, which is asked now and then whether to go on, and of the tensor operations.
pub(super) fn distances(features: &Tensor, proceed: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f32>> {
    let directions = directions(&features.to_device(&Device::Cpu)?)?;
    let count = directions.dim(0)?;
    let mut distances = Vec::with_capacity(count);
    for start in (0..count).step_by(BLOCK) {
        proceed()?;
        let own = directions.narrow(0, start, BLOCK.min(count - start))?;
        let found = nearest(&own, &directions, neighbours(count), Some(start))?;
        distances.extend(found.iter().map(|nearest| 1.0 - mean(nearest)));
    }
    Ok(distances)
}

fn mean(nearest: &[Near]) -> f32 {
    nearest.iter().map(|near| near.cosine).sum::<f32>() / nearest.len() as f32
}

/// Whether each distance stands out above the others, by their median and the median of how far they are from it.
pub(super) fn stand_out(distances: &[f32]) -> Vec<bool> {
    /// What makes a standard deviation of that median where distances are normal.
    const NORMAL: f32 = 1.4826;
    let middle = median(distances.to_vec());
    let spread = NORMAL * median(distances.iter().map(|distance| (distance - middle).abs()).collect());
    let limit = middle + SPREADS * spread;
    distances.iter().map(|&distance| distances.len() >= FEWEST && distance > limit).collect()
}

fn median(mut values: Vec<f32>) -> f32 {
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f32::total_cmp).1 }
}

fn neighbours(images: usize) -> usize {
    (images / 20).clamp(FEWEST_NEIGHBOURS, NEIGHBOURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_points_elsewhere_stands_out() {
        // 40 directions on an arc, and one that is opposite to them.
        let angles: Vec<f32> = (0..40).map(|index| index as f32 * 0.02).chain([3.5]).collect();
        let rows: Vec<f32> = angles.iter().flat_map(|angle| [angle.cos(), angle.sin(), 0.0]).collect();
        let features = Tensor::from_vec(rows, (41, 3), &Device::Cpu).unwrap();
        let distances = distances(&features, &mut || Ok(())).unwrap();
        let out = stand_out(&distances);
        assert!(out[40] && distances[40] > 0.5, "{distances:?}");
        assert!(distances[..40].iter().all(|&distance| distance < distances[40] / 2.0), "{distances:?}");
    }

    #[test]
    fn neighbours_across_blocks_are_those_of_one_product() {
        let count = BLOCK + 100;
        let values: Vec<f32> = (0..count * 3).map(|index| ((index * 7919) % 1009) as f32).collect();
        let features = Tensor::from_vec(values, (count, 3), &Device::Cpu).unwrap();
        let found = distances(&features, &mut || Ok(())).unwrap();
        let rows = directions(&features).unwrap();
        let cosines = rows.matmul(&rows.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
        for index in [0, BLOCK - 1, BLOCK, count - 1] {
            let mut others = cosines[index].clone();
            others.remove(index);
            others.sort_by(|a, b| b.total_cmp(a));
            let expected = 1.0 - others[..NEIGHBOURS].iter().sum::<f32>() / NEIGHBOURS as f32;
            assert!((found[index] - expected).abs() < 1e-5, "{index}: {} {expected}", found[index]);
        }
    }

    #[test]
    fn among_few_nothing_stands_out() {
        assert!(stand_out(&[0.0, 0.0, 0.0, 9.0]).iter().all(|out| !out));
    }
}
