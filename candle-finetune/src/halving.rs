//! Work on a batch that a GPU may have no room for: done in halves, then.

use candle_core::{Result, Tensor};
use candle_resnet::device_memory::is_out_of_memory;

/// What `compute` makes of `batch`, row by row; of its halves, one after the other, where the device has no room for all of it.
pub(crate) fn halved_where_memory_is_short(
    batch: &Tensor,
    compute: &mut dyn FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let rows = batch.dim(0)?;
    match compute(batch) {
        Err(error) if rows > 1 && is_out_of_memory(&error) => {
            tracing::debug!("no room on the device for {rows} images at once: halves of them are tried");
            let mut half = |start, rows| halved_where_memory_is_short(&batch.narrow(0, start, rows)?, compute);
            Tensor::cat(&[half(0, rows / 2)?, half(rows / 2, rows - rows / 2)?], 0)
        }
        computed => computed,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Error};

    use super::*;

    /// A device with room for `most` rows.
    fn doubled(batch: &Tensor, most: usize) -> Result<Tensor> {
        if batch.dim(0)? > most {
            return Err(Error::wrap("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"));
        }
        batch * 2.0
    }

    #[test]
    fn a_batch_without_room_is_done_in_parts() {
        let batch = Tensor::new(&[[1f32], [2.0], [3.0], [4.0], [5.0]], &Device::Cpu).unwrap();
        for most in 1..=5 {
            let all = halved_where_memory_is_short(&batch, &mut |part| doubled(part, most)).unwrap();
            assert_eq!(all.to_vec2::<f32>().unwrap(), [[2.0], [4.0], [6.0], [8.0], [10.0]]);
        }
        assert!(is_out_of_memory(&halved_where_memory_is_short(&batch, &mut |part| doubled(part, 0)).unwrap_err()));
    }

    #[test]
    fn other_errors_are_told_at_once() {
        let batch = Tensor::new(&[[1f32], [2.0]], &Device::Cpu).unwrap();
        let mut calls = 0;
        let failed = halved_where_memory_is_short(&batch, &mut |_| {
            calls += 1;
            Err(Error::msg("shapes do not fit"))
        });
        assert!(failed.is_err());
        assert_eq!(calls, 1);
    }
}
