//! Pools over maps (N, C, H, W), each with its gradient.

use candle_core::{DType, Result, Tensor};

use crate::architecture::GlobalPool;
use crate::blueprint::Pool;
use crate::ops::{self, MaxPool};

/// (N, C, H, W) → (N, C, H', W')
pub(crate) fn forward(x: &Tensor, pool: Pool) -> Result<Tensor> {
    match pool {
        Pool::Max { stride } => max_after_relu(x, stride),
        Pool::Average => cut_to_even(&cut_to_even(x, 2)?, 3)?.avg_pool2d(2),
        Pool::AverageToTheEdge => extend_to_even(&extend_to_even(x, 2)?, 3)?.avg_pool2d(2),
        Pool::AverageSameSize => mean_with_next(&mean_with_next(x, 2)?, 3),
        Pool::Blur { stride } => blur(&blur(x, 2, stride)?, 3, stride),
    }
}

/// (N, C, H, W) → (N, D); of halves in f32.
pub(crate) fn global(x: &Tensor, pool: GlobalPool) -> Result<Tensor> {
    let mean = || mean(x);
    let max = || widened(x)?.flatten_from(2)?.max(2);
    match pool {
        GlobalPool::Average => mean(),
        GlobalPool::Max => max(),
        GlobalPool::AverageMax => (mean()? + max()?)? * 0.5,
        GlobalPool::AverageThenMax => Tensor::cat(&[mean()?, max()?], 1),
    }
}

/// (N, C, H, W) → (N, C), the mean of each channel; of halves in f32.
pub(super) fn mean(x: &Tensor) -> Result<Tensor> {
    widened(x)?.mean((2, 3))
}

/// Halves as f32: a sum over a map would run out of their digits, and of f16's range.
fn widened(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::BF16 | DType::F16 => x.to_dtype(DType::F32),
        _ => Ok(x.clone()),
    }
}

/// Keeps positions 0, `n`, 2`n`, … of a dimension.
pub(super) fn every_nth(x: &Tensor, dimension: usize, n: usize) -> Result<Tensor> {
    let kept = Tensor::arange_step(0u32, x.dim(dimension)? as u32, n as u32, x.device())?;
    x.contiguous()?.index_select(&kept, dimension)
}

/// A 3×3 max-pool of values that a ReLU has made non-negative.
fn max_after_relu(x: &Tensor, stride: usize) -> Result<Tensor> {
    if x.device().is_cpu() {
        return x.contiguous()?.apply_op1(MaxPool { stride });
    }
    // Zeros beyond the edge never win over a value that is not negative.
    ops::max_pool(x, stride)
}

/// Leaves out an odd dimension's last position: the pool would not read it, but candle would give it a gradient.
fn cut_to_even(x: &Tensor, dimension: usize) -> Result<Tensor> {
    x.narrow(dimension, 0, x.dim(dimension)? / 2 * 2)
}

/// Doubles an odd dimension's last position: the mean of a pixel and its copy is the pixel.
fn extend_to_even(x: &Tensor, dimension: usize) -> Result<Tensor> {
    let odd = x.dim(dimension)? % 2;
    x.pad_with_same(dimension, 0, odd)
}

/// The mean of every position and the next one; after the last comes zero.
fn mean_with_next(x: &Tensor, dimension: usize) -> Result<Tensor> {
    let next = x.narrow(dimension, 1, x.dim(dimension)? - 1)?.pad_with_zeros(dimension, 0, 1)?;
    (x + next)? * 0.5
}

/// (1, 2, 1) / 4 along a dimension that is reflected at both ends, at every `stride`-th position.
///
/// Both directions in turn make the binomial 3×3 filter, without a convolution for every channel.
fn blur(x: &Tensor, dimension: usize, stride: usize) -> Result<Tensor> {
    let size = x.dim(dimension)?;
    if size < 2 {
        candle_core::bail!("a map of one pixel cannot be blurred: the image is too small for this network");
    }
    let x = x.contiguous()?;
    let taps = |neighbour: fn(usize, usize) -> usize| {
        let positions: Vec<u32> = (0..size).step_by(stride).map(|centre| neighbour(centre, size) as u32).collect();
        x.index_select(&Tensor::new(positions, x.device())?, dimension)
    };
    let before = taps(|centre, _| centre.abs_diff(1));
    let after = taps(|centre, size| if centre + 1 < size { centre + 1 } else { size - 2 });
    ((before? + after?)? * 0.25)? + (taps(|centre, _| centre)? * 0.5)?
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    /// One channel of 0, 1, 2, … in rows.
    fn ramp(height: usize, width: usize) -> Tensor {
        let values = Tensor::arange(0f32, (height * width) as f32, &Device::Cpu).unwrap();
        values.reshape((1, 1, height, width)).unwrap()
    }

    fn values(x: &Tensor) -> Vec<Vec<f32>> {
        x.squeeze(0).unwrap().squeeze(0).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn average_to_the_edge_takes_the_pixels_there_are() {
        let pooled = forward(&ramp(3, 3), Pool::AverageToTheEdge).unwrap();
        assert_eq!(values(&pooled), [[2.0, 3.5], [6.5, 8.0]]);
        let cut = forward(&ramp(3, 3), Pool::Average).unwrap();
        assert_eq!(values(&cut), [[2.0]]);
    }

    #[test]
    fn average_of_the_same_size_counts_zeros_beyond_the_edge() {
        let pooled = forward(&ramp(2, 2), Pool::AverageSameSize).unwrap();
        assert_eq!(values(&pooled), [[1.5, 1.0], [1.25, 0.75]]);
    }

    #[test]
    fn blur_reflects_at_the_edges() {
        // Reflected rows of a ramp: 1 0 1 2 1, so that position 0 becomes (1 + 0 + 1) / 4 and position 2 (1 + 4 + 1) / 4.
        let blurred = forward(&ramp(1, 3).broadcast_as((1, 1, 2, 3)).unwrap(), Pool::Blur { stride: 2 }).unwrap();
        assert_eq!(values(&blurred), [[0.5, 1.5]]);
    }

    #[test]
    fn blurring_one_pixel_is_an_error() {
        let message = forward(&ramp(1, 1), Pool::Blur { stride: 2 }).unwrap_err().to_string();
        assert!(message.contains("too small"), "{message}");
    }

    #[test]
    fn sizes_are_those_of_the_blueprint() {
        for pool in POOLS {
            for size in [2, 3, 7, 8] {
                let pooled = forward(&ramp(size, size), pool).unwrap();
                assert_eq!(pooled.dims()[2..], [pool.output_size(size); 2], "{pool:?} of {size}");
            }
        }
    }

    #[test]
    fn global_pools_are_mean_and_maximum() {
        let pooled = |pool| global(&ramp(2, 2), pool).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(pooled(GlobalPool::Average), [1.5]);
        assert_eq!(pooled(GlobalPool::Max), [3.0]);
        assert_eq!(pooled(GlobalPool::AverageMax), [2.25]);
        assert_eq!(pooled(GlobalPool::AverageThenMax), [1.5, 3.0]);
    }

    const POOLS: [Pool; 7] = [
        Pool::Max { stride: 1 },
        Pool::Max { stride: 2 },
        Pool::Average,
        Pool::AverageToTheEdge,
        Pool::AverageSameSize,
        Pool::Blur { stride: 1 },
        Pool::Blur { stride: 2 },
    ];

    /// Σ i · yᵢ of what `pool` makes of `x`, so that every output counts differently.
    fn weighted(pool: &dyn Fn(&Tensor) -> Result<Tensor>, x: &Tensor) -> Tensor {
        let y = pool(x).unwrap().flatten_all().unwrap();
        let weights = Tensor::arange(1f64, 1.0 + y.elem_count() as f64, &Device::Cpu).unwrap();
        (y * weights).unwrap().sum_all().unwrap()
    }

    /// The largest difference between the gradient and central differences, relative to the largest gradient.
    fn gradient_error(pool: &dyn Fn(&Tensor) -> Result<Tensor>, shape: [usize; 4]) -> f64 {
        const STEP: f64 = 1e-4;
        // Pixels of a window differ by more than two steps: none takes another's place as the largest.
        let pixels: Vec<f64> =
            (0..shape.iter().product::<usize>()).map(|index| (index * 37 % 101) as f64 / 50.0).collect();
        let image = |pixels: Vec<f64>| Tensor::from_vec(pixels, &shape, &Device::Cpu).unwrap();
        let x = Var::from_tensor(&image(pixels.clone())).unwrap();
        let gradients = weighted(pool, &x).backward().unwrap();
        let found: Vec<f64> = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let moved = |index: usize, step: f64| {
            let mut pixels = pixels.clone();
            pixels[index] += step;
            weighted(pool, &image(pixels)).to_scalar::<f64>().unwrap()
        };
        let slope = |index| (moved(index, STEP) - moved(index, -STEP)) / (2.0 * STEP);
        let errors = found.iter().enumerate().map(|(index, found)| (found - slope(index)).abs());
        errors.fold(0.0, f64::max) / found.iter().copied().fold(0.0, f64::max)
    }

    #[test]
    fn gradients_are_central_differences_on_maps_of_any_size() {
        for pool in POOLS {
            for (height, width) in [(2, 2), (3, 3), (4, 7), (5, 2)] {
                let error = gradient_error(&|x| forward(x, pool), [2, 2, height, width]);
                assert!(error < 1e-8, "{pool:?} of {height}×{width}: {error:.1e}");
            }
        }
    }

    #[test]
    fn candles_own_average_of_an_odd_map_would_fail_that_test() {
        let error = gradient_error(&|x| x.avg_pool2d(2), [1, 1, 3, 3]);
        assert!(error > 0.1, "{error:.1e}");
    }
}
