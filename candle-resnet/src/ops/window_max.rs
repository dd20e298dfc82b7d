//! The 3×3 max-pool of maps that are not negative, and its gradient, where there is no kernel of our own: candle's pool, which has
//! no gradient, and tensor operations for the way back.
//!
//! Of equal pixels the first in row-major order gets the gradient, as in PyTorch; around the map lie zeros, and of a window
//! that is zero everywhere one of them may get it. A NaN gets none.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Result, Shape, Tensor};

const WINDOW: usize = 3;

/// (N, C, H, W) → (N, C, ⌈H / stride⌉, ⌈W / stride⌉); `stride` is 1 or 2.
pub(crate) fn max_pool(map: &Tensor, stride: usize) -> Result<Tensor> {
    let (_, _, height, width) = map.dims4()?;
    let behind = |size: usize| blocks(size, stride) * stride - 1 - size;
    let padded = map.pad_with_zeros(2, 1, behind(height))?.pad_with_zeros(3, 1, behind(width))?;
    padded.contiguous()?.apply_op1(WindowMax { stride })
}

/// How many times `stride` pixels all windows over a side of `size` pixels and its padding cover.
fn blocks(size: usize, stride: usize) -> usize {
    size.div_ceil(stride) + (WINDOW - 1) / stride
}

/// The largest value of each window that lies in a contiguous map, whose sides are multiples of `stride`.
struct WindowMax {
    stride: usize,
}

impl WindowMax {
    fn forward<S: BackendStorage>(&self, storage: &S, layout: &Layout) -> Result<(S, Shape)> {
        let (images, channels, height, width) = layout.shape().dims4()?;
        let windows = |size: usize| (size - WINDOW) / self.stride + 1;
        let pooled = storage.max_pool2d(layout, (WINDOW, WINDOW), (self.stride, self.stride))?;
        Ok((pooled, Shape::from((images, channels, windows(height), windows(width)))))
    }
}

impl CustomOp1 for WindowMax {
    fn name(&self) -> &'static str {
        "window-max-3x3"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(storage, layout)
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.forward(storage, layout)
    }

    fn metal_fwd(&self, storage: &MetalStorage, layout: &Layout) -> Result<(MetalStorage, Shape)> {
        self.forward(storage, layout)
    }

    fn bwd(&self, map: &Tensor, pooled: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (images, channels, height, width) = map.dims4()?;
        let (_, _, rows, columns) = pooled.dims4()?;
        let (planes, stride) = (images * channels, self.stride);
        let map = map.detach().reshape((planes, height / stride, stride, width / stride, stride))?;
        let of_windows = |values: &Tensor| values.detach().reshape((planes, rows, 1, columns, 1));
        let (pooled, gradient) = (of_windows(pooled)?, of_windows(gradient)?);
        let mut undecided = pooled.ones_like()?; // windows whose first largest pixel lies further on
        let mut spread = map.zeros_like()?;
        for tap in taps() {
            let won = (tap.of(&map, &pooled, stride)?.eq(&pooled)?.to_dtype(map.dtype())? * &undecided)?;
            undecided = (undecided - &won)?;
            spread = (spread + tap.put((won * &gradient)?, &map, stride)?)?;
        }
        spread.reshape((images, channels, height, width)).map(Some)
    }
}

/// A place in a window. Maps are (planes, H / stride, stride, W / stride, stride), what belongs to windows (planes, H', 1, W', 1).
struct Tap {
    row: usize,
    column: usize,
}

/// Every place, in row-major order.
fn taps() -> impl Iterator<Item = Tap> {
    (0..WINDOW * WINDOW).map(|place| Tap { row: place / WINDOW, column: place % WINDOW })
}

impl Tap {
    /// The pixel at this place of each window; `windows` is of the shape of what comes out.
    fn of(&self, map: &Tensor, windows: &Tensor, stride: usize) -> Result<Tensor> {
        let starts = self.starts(stride).into_iter();
        starts.zip(1..).try_fold(map.clone(), |map, (start, axis)| map.narrow(axis, start, windows.dim(axis)?))
    }

    /// A map of the shape of `map` with the `values` of windows at this place of each, and zeros elsewhere.
    fn put(&self, values: Tensor, map: &Tensor, stride: usize) -> Result<Tensor> {
        let starts = self.starts(stride).into_iter();
        starts.zip(1..).try_fold(values, |values, (start, axis)| {
            let behind = map.dim(axis)? - values.dim(axis)? - start;
            values.pad_with_zeros(axis, start, behind)
        })
    }

    /// Where the place of the first window lies along axes 1 to 4 of a map.
    fn starts(&self, stride: usize) -> [usize; 4] {
        [self.row / stride, self.row % stride, self.column / stride, self.column % stride]
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::certificate::formula;
    use crate::ops::MaxPool;

    /// Whole numbers from 1 to `levels`, so that there are many ties and every sum is exact.
    fn levels(name: &str, shape: &[usize], levels: f32) -> Tensor {
        let units = formula::unit(name, shape.iter().product()).into_iter();
        Tensor::from_vec(units.map(|unit| 1.0 + (unit * levels).floor()).collect(), shape, &Device::Cpu).unwrap()
    }

    /// What is pooled of `map`, and the gradient of a weighted sum of it.
    fn pooled_and_gradient(map: &Tensor, pool: impl Fn(&Tensor) -> Result<Tensor>) -> [Vec<f32>; 2] {
        let map = Var::from_tensor(map).unwrap();
        let pooled = pool(&map).unwrap();
        let sum = (&pooled * levels("pool.gradient", pooled.dims(), 64.0)).unwrap().sum_all().unwrap();
        let gradients = sum.backward().unwrap();
        [&pooled, gradients.get(&map).unwrap()].map(|tensor| tensor.flatten_all().unwrap().to_vec1().unwrap())
    }

    #[test]
    fn values_and_gradients_are_those_of_the_kernel() {
        for stride in [1, 2] {
            for (height, width) in [(1, 1), (2, 2), (3, 5), (4, 7), (8, 6), (9, 1)] {
                let map = levels("pool.map", &[2, 3, height, width], 4.0);
                let found = pooled_and_gradient(&map, |map| max_pool(map, stride));
                let expected = pooled_and_gradient(&map, |map| map.apply_op1(MaxPool { stride }));
                assert_eq!(found, expected, "{height}×{width} by {stride}");
            }
        }
    }
}
