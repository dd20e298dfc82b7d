//! The 3×3 max-pool with one pixel of padding and its gradient, as PyTorch computes both.
//!
//! Of equal pixels the first in row-major order gets the gradient, and a NaN wins over every number. Which pixel won is found again
//! from the map when the gradient is asked for, so that nothing but the map is kept.

use std::ops::Range;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

const WINDOW: usize = 3;
const PADDING: usize = 1;

/// (N, C, H, W) → (N, C, H', W'), f32 or f64, contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaxPool {
    /// Stride in both directions.
    pub(crate) stride: usize,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool-3x3"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (images, channels, height, width) = layout.shape().dims4()?;
        let planes = Planes::new(*self, height, width)?;
        let pooled = match storage {
            CpuStorage::F32(map) => CpuStorage::F32(planes.pool(contiguous(map, layout)?)),
            CpuStorage::F64(map) => CpuStorage::F64(planes.pool(contiguous(map, layout)?)),
            other => bail!("the max-pool takes f32 and f64, not {:?}", other.dtype()),
        };
        Ok((pooled, Shape::from((images, channels, planes.rows.len(), planes.columns.len()))))
    }

    fn bwd(&self, map: &Tensor, _pooled: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        map.apply_op2_no_bwd(&gradient.contiguous()?, &MaxPoolGradient(*self)).map(Some)
    }
}

/// The map (N, C, H, W) and the gradient of what was pooled (N, C, H', W') → the gradient of the map.
struct MaxPoolGradient(MaxPool);

impl CustomOp2 for MaxPoolGradient {
    fn name(&self) -> &'static str {
        "max-pool-3x3-gradient"
    }

    fn cpu_fwd(
        &self,
        map: &CpuStorage,
        map_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, _, height, width) = map_layout.shape().dims4()?;
        let planes = Planes::new(self.0, height, width)?;
        let spread = match (map, gradient) {
            (CpuStorage::F32(map), CpuStorage::F32(gradient)) => {
                CpuStorage::F32(planes.spread(contiguous(map, map_layout)?, contiguous(gradient, gradient_layout)?))
            }
            (CpuStorage::F64(map), CpuStorage::F64(gradient)) => {
                CpuStorage::F64(planes.spread(contiguous(map, map_layout)?, contiguous(gradient, gradient_layout)?))
            }
            _ => bail!("the max-pool's map and gradient are not both f32 or both f64"),
        };
        Ok((spread, map_layout.shape().clone()))
    }
}

fn contiguous<'a, T>(values: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("the max-pool takes contiguous maps"),
    }
}

/// The windows over planes of one size.
struct Planes {
    height: usize,
    width: usize,
    /// Rows of the map that each row of windows covers.
    rows: Vec<Range<usize>>,
    /// Columns of the map that each column of windows covers.
    columns: Vec<Range<usize>>,
}

impl Planes {
    fn new(pool: MaxPool, height: usize, width: usize) -> Result<Planes> {
        if height == 0 || width == 0 {
            bail!("a map of {height}×{width} pixels cannot be pooled");
        }
        Ok(Planes { height, width, rows: windows(height, pool.stride), columns: windows(width, pool.stride) })
    }

    /// The largest value of every window.
    fn pool<T: WithDType>(&self, map: &[T]) -> Vec<T> {
        let mut pooled = vec![T::zero(); map.len() / self.pixels() * self.windows()];
        let planes = pooled.par_chunks_mut(self.windows()).zip(map.par_chunks(self.pixels()));
        planes.for_each(|(pooled, plane)| {
            pooled.iter_mut().zip(self.winners(plane)).for_each(|(pooled, winner)| *pooled = plane[winner]);
        });
        pooled
    }

    /// What every pixel gets of the windows that it won.
    fn spread<T: WithDType>(&self, map: &[T], gradient: &[T]) -> Vec<T> {
        let mut spread = vec![T::zero(); map.len()];
        let planes = spread.par_chunks_mut(self.pixels()).zip(map.par_chunks(self.pixels()));
        planes.zip(gradient.par_chunks(self.windows())).for_each(|((spread, plane), gradient)| {
            self.winners(plane).zip(gradient).for_each(|(winner, &gradient)| spread[winner] += gradient);
        });
        spread
    }

    /// The pixel of `plane` that wins each window, in the order of windows.
    fn winners<'a, T: WithDType>(&'a self, plane: &'a [T]) -> impl Iterator<Item = usize> + 'a {
        let window = |rows: &'a Range<usize>| self.columns.iter().map(move |columns| (rows, columns));
        self.rows.iter().flat_map(window).map(move |(rows, columns)| winner(plane, self.width, rows, columns))
    }

    fn pixels(&self) -> usize {
        self.height * self.width
    }

    fn windows(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}

/// Positions of a side of `size` pixels that each window covers, without the padding.
fn windows(size: usize, stride: usize) -> Vec<Range<usize>> {
    let count = (size + 2 * PADDING - WINDOW) / stride + 1;
    let covered = |window| {
        let start: usize = window * stride;
        start.saturating_sub(PADDING)..(start + WINDOW - PADDING).min(size)
    };
    (0..count).map(covered).collect()
}

/// Index of the first largest value in a window; of the last NaN where there is one.
fn winner<T: WithDType>(plane: &[T], width: usize, rows: &Range<usize>, columns: &Range<usize>) -> usize {
    let mut best = rows.start * width + columns.start;
    for row in rows.clone() {
        for index in row * width + columns.start..row * width + columns.end {
            if plane[index] > plane[best] || is_nan(plane[index]) {
                best = index;
            }
        }
    }
    best
}

fn is_nan<T: PartialOrd>(value: T) -> bool {
    value.partial_cmp(&value).is_none()
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use serde::Deserialize;

    use super::*;
    use crate::certificate::formula;

    /// What PyTorch makes of a map with many ties; `scripts/golden/golden_max_pool.py`.
    #[derive(Deserialize)]
    struct Golden {
        shape: [usize; 4],
        stride: usize,
        /// Pixels of the map that are NaN.
        nan_at: Vec<usize>,
        /// NaN is null.
        pooled: Vec<Option<f32>>,
        gradient: Vec<f32>,
    }

    impl Golden {
        fn map(&self) -> Var {
            let mut values = levels("pool.map", self.shape.iter().product(), 4.0);
            self.nan_at.iter().for_each(|&index| values[index] = f32::NAN);
            Var::from_tensor(&Tensor::from_vec(values, &self.shape, &Device::Cpu).unwrap()).unwrap()
        }
    }

    /// Whole numbers below `levels`.
    fn levels(name: &str, count: usize, levels: f32) -> Vec<f32> {
        formula::unit(name, count).into_iter().map(|unit| (unit * levels).floor()).collect()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn values_and_gradients_are_those_of_pytorch() {
        let rows = include_str!("../../tests/golden/max_pool.jsonl").lines();
        let rows: Vec<Golden> = rows.map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(rows.iter().any(|row| !row.nan_at.is_empty()));
        for golden in rows {
            let what = format!("{:?} by {}", golden.shape, golden.stride);
            let map = golden.map();
            let pooled = map.apply_op1(MaxPool { stride: golden.stride }).unwrap();
            let found: Vec<Option<f32>> = values(&pooled).into_iter().map(|x| (!x.is_nan()).then_some(x)).collect();
            assert_eq!(found, golden.pooled, "{what}");
            let weights = levels("pool.gradient", golden.pooled.len(), 64.0);
            let weights = Tensor::from_vec(weights, pooled.dims(), &Device::Cpu).unwrap();
            let gradients = (pooled * weights).unwrap().sum_all().unwrap().backward().unwrap();
            assert_eq!(values(gradients.get(&map).unwrap()), golden.gradient, "{what}");
        }
    }

    #[test]
    fn maps_that_cannot_be_pooled_are_refused() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let message = |map: Tensor| map.apply_op1(MaxPool { stride: 2 }).unwrap_err().to_string();
        let f32 = candle_core::DType::F32;
        assert!(message(zeros(&[1, 1, 4, 4], candle_core::DType::U8)).contains("not U8"));
        assert!(message(zeros(&[1, 1, 0, 4], f32)).contains("0×4 pixels"));
        assert!(message(zeros(&[1, 1, 4, 5], f32).t().unwrap()).contains("contiguous"));
    }
}
