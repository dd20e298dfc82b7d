//! All pairs of rows of two matrices, block by block as products, so that memory does not grow with the number of pairs; and which
//! rows are nearest by cosine. Exact. Knows neither images nor files.

use candle_core::{D, DType, Result, Tensor};
use rayon::prelude::*;

/// Rows in a block: its products with another are 4 MB.
pub(crate) const BLOCK: usize = 1024;

/// A row and its cosine with another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Near {
    pub(crate) row: usize,
    pub(crate) cosine: f32,
}

/// (N, D), (M, D) → N rows of M products, on the CPU.
pub(crate) fn products(own: &Tensor, others: &Tensor) -> Result<Vec<f32>> {
    own.matmul(&others.t()?)?.flatten_all()?.to_vec1()
}

/// Rows (N, D) made 1 long; rows of zeros stay.
pub(crate) fn directions(rows: &Tensor) -> Result<Tensor> {
    let lengths = rows.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    rows.broadcast_div(&lengths.clamp(f32::MIN_POSITIVE, f32::MAX)?)
}

/// Of each row of `own` (N, D) f32 the `count` rows of `rows` (M, D) with the largest cosines, descending; of equal ones the first.
///
/// Rows of both are 1 long and on the CPU; `rows` may be of any float type. Where `own` are rows of `rows` themselves, from `first` on, a
/// row is not its own neighbour.
pub(crate) fn nearest(own: &Tensor, rows: &Tensor, count: usize, first: Option<usize>) -> Result<Vec<Vec<Near>>> {
    let total = rows.dim(0)?;
    let mut nearest = vec![Nearest::new(count); own.dim(0)?];
    for start in (0..total).step_by(BLOCK) {
        let others = rows.narrow(0, start, BLOCK.min(total - start))?.to_dtype(DType::F32)?;
        let cosines = products(own, &others)?;
        let lists = nearest.par_iter_mut().zip(cosines.par_chunks(others.dim(0)?)).enumerate();
        lists.for_each(|(index, (nearest, cosines))| {
            nearest.offer_all(cosines, start, first.map(|first| first + index))
        });
    }
    Ok(nearest.into_iter().map(|nearest| nearest.found).collect())
}

/// The largest cosines so far, descending.
#[derive(Clone)]
struct Nearest {
    found: Vec<Near>,
    count: usize,
}

impl Nearest {
    fn new(count: usize) -> Nearest {
        Nearest { found: Vec::new(), count }
    }

    /// Takes the cosines of the rows from `start` on, but for that of the row `itself`.
    fn offer_all(&mut self, cosines: &[f32], start: usize, itself: Option<usize>) {
        for (row, &cosine) in (start..).zip(cosines) {
            if itself != Some(row) {
                self.offer(Near { row, cosine });
            }
        }
    }

    fn offer(&mut self, near: Near) {
        let full = self.found.len() >= self.count;
        let beaten = full && self.found.last().is_none_or(|last| near.cosine <= last.cosine);
        if beaten || near.cosine.is_nan() {
            return;
        }
        let place = self.found.partition_point(|kept| kept.cosine >= near.cosine);
        self.found.insert(place, near);
        self.found.truncate(self.count);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn rows(count: usize) -> Tensor {
        let values: Vec<f32> = (0..count * 3).map(|index| ((index * 7919) % 1009) as f32 - 500.0).collect();
        directions(&Tensor::from_vec(values, (count, 3), &Device::Cpu).unwrap()).unwrap()
    }

    /// Every cosine in f64, sorted.
    fn naive(own: &[f32], rows: &[Vec<f32>], itself: Option<usize>) -> Vec<(usize, f64)> {
        let cosine = |row: &Vec<f32>| own.iter().zip(row).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let mut all: Vec<(usize, f64)> =
            rows.iter().map(cosine).enumerate().filter(|&(row, _)| itself != Some(row)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    }

    fn check(found: &[Near], naive: &[(usize, f64)]) {
        for (near, expected) in found.iter().zip(naive) {
            // Rows that are as near as each other in f32 may come in either order.
            assert!((f64::from(near.cosine) - expected.1).abs() < 1e-6, "{near:?} {expected:?}");
            let own = naive.iter().find(|(row, _)| *row == near.row).unwrap();
            assert!((f64::from(near.cosine) - own.1).abs() < 1e-6, "{near:?} {own:?}");
        }
    }

    #[test]
    fn the_nearest_across_blocks_are_those_of_a_plain_search() {
        let (queries, known) = (rows(5), rows(2 * BLOCK + 100));
        let values = known.to_vec2::<f32>().unwrap();
        let found = nearest(&queries, &known, 7, None).unwrap();
        for (query, found) in queries.to_vec2::<f32>().unwrap().iter().zip(&found) {
            assert_eq!(found.len(), 7);
            check(found, &naive(query, &values, None));
        }
    }

    #[test]
    fn a_row_is_not_its_own_neighbour() {
        let known = rows(BLOCK + 100);
        let values = known.to_vec2::<f32>().unwrap();
        let first = BLOCK - 2;
        let found = nearest(&known.narrow(0, first, 4).unwrap(), &known, 3, Some(first)).unwrap();
        for (index, found) in found.iter().enumerate() {
            assert!(found.iter().all(|near| near.row != first + index));
            check(found, &naive(&values[first + index], &values, Some(first + index)));
        }
    }

    #[test]
    fn fewer_rows_than_asked_for_are_all_there_are() {
        assert_eq!(nearest(&rows(1), &rows(3), 5, None).unwrap()[0].len(), 3);
        assert!(nearest(&rows(1), &rows(3), 0, None).unwrap()[0].is_empty());
    }

    #[test]
    fn directions_are_one_long_and_nothing_stays_nothing() {
        let rows = Tensor::new(&[[3f32, 4.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        assert_eq!(directions(&rows).unwrap().to_vec2::<f32>().unwrap(), [[0.6, 0.8], [0.0, 0.0]]);
    }
}
