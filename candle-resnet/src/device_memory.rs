//! The memory of a GPU: what there is, what a piece of work takes, and errors that say that it was not enough.

use candle_core::{Device, Error, Result};

/// Parts of what the driver, cuBLAS and cuDNN say where memory is short.
const SHORT: [&str; 3] = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED"];

/// Whether an operation failed because the device has no room for it.
///
/// What was computed before is still there, and less of the same may work.
pub fn is_out_of_memory(error: &Error) -> bool {
    let text = error.to_string();
    SHORT.iter().any(|short| text.contains(short))
}

/// Bytes that tensors of this program may take on `device`, those that they take already included; `None` for a CPU and for Metal.
///
/// # Errors
/// Only the driver's.
pub fn capacity(device: &Device) -> Result<Option<u64>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::capacity(device).map(Some),
        _ => Ok(None),
    }
}

/// Does some work on `device`; gives what comes of it, and the most bytes that tensors took there meanwhile, where [`capacity`] is known.
///
/// # Errors
/// Only the driver's, which may be those of the work.
pub fn peak<T>(device: &Device, work: impl FnOnce() -> T) -> Result<(T, Option<u64>)> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            cuda::forget_peak(device)?;
            let done = work();
            Ok((done, Some(cuda::peak(device)?)))
        }
        _ => Ok((work(), None)),
    }
}

/// candle's memory on NVIDIA GPUs is that of the device's default pool.
#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::cuda_backend::CudaDevice;
    use candle_core::cuda_backend::cudarc::driver::result::device;
    use candle_core::cuda_backend::cudarc::driver::sys::{
        CUmemPool_attribute, CUmemoryPool, cuMemPoolGetAttribute, cuMemPoolSetAttribute,
    };
    use candle_core::{Error, Result};

    pub(super) fn capacity(device: &CudaDevice) -> Result<u64> {
        let stream = device.cuda_stream();
        let (free, _) = stream.context().mem_get_info().map_err(Error::wrap)?;
        Ok(free as u64 + get(device, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?)
    }

    /// Since [`forget_peak`].
    pub(super) fn peak(device: &CudaDevice) -> Result<u64> {
        get(device, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)
    }

    pub(super) fn forget_peak(device: &CudaDevice) -> Result<()> {
        let mut nothing = 0u64; // the only value that it can be set to
        let pool = pool(device)?;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        // SAFETY: the value is of the attribute's type.
        unsafe { cuMemPoolSetAttribute(pool, attribute, (&raw mut nothing).cast()) }.result().map_err(Error::wrap)
    }

    fn get(device: &CudaDevice, attribute: CUmemPool_attribute) -> Result<u64> {
        let mut value = 0u64;
        let pool = pool(device)?;
        // SAFETY: the value is of the type of all attributes that are asked for here.
        unsafe { cuMemPoolGetAttribute(pool, attribute, (&raw mut value).cast()) }.result().map_err(Error::wrap)?;
        Ok(value)
    }

    fn pool(device: &CudaDevice) -> Result<CUmemoryPool> {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        // SAFETY: the device is there, as candle opened it.
        unsafe { device::get_default_mem_pool(stream.context().cu_device()) }.map_err(Error::wrap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drivers_say_of_memory_is_known() {
        let short = Error::wrap("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")");
        assert!(is_out_of_memory(&short));
        assert!(is_out_of_memory(&Error::wrap("CublasError(CUBLAS_STATUS_ALLOC_FAILED)")));
        assert!(is_out_of_memory(&Error::wrap("CudnnError(CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)")));
        assert!(is_out_of_memory(&short.context("while a map was made")));
        assert!(!is_out_of_memory(&Error::msg("shapes do not fit")));
    }

    #[test]
    fn a_cpu_has_no_memory_of_its_own() {
        assert_eq!(capacity(&Device::Cpu).unwrap(), None);
        assert_eq!(peak(&Device::Cpu, || 3).unwrap(), (3, None));
    }

    #[test]
    #[cfg(feature = "cuda")]
    fn the_peak_of_a_gpu_is_what_was_held_at_once() {
        use candle_core::{DType, Tensor};

        let Ok(device) = Device::new_cuda(0) else { return };
        const BYTES: u64 = 64 << 20;
        let (_, before) = peak(&device, || ()).unwrap();
        let zeros = || Tensor::zeros(BYTES as usize / 4, DType::F32, &device).unwrap();
        let (_, after) = peak(&device, || drop((zeros(), zeros()))).unwrap();
        let more = after.unwrap().saturating_sub(before.unwrap());
        assert!(more >= 2 * BYTES, "{more}"); // other tests may hold some, too
        assert!(capacity(&device).unwrap().unwrap() > after.unwrap());
        let too_much = Tensor::zeros(1 << 45, DType::F32, &device);
        assert!(is_out_of_memory(&too_much.unwrap_err()));
    }
}
