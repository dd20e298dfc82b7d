//! Convolutions on NVIDIA's cuDNN: the frozen form's with bias, residual and ReLU in one pass, and those that train.
//!
//! Maps are tensors (N, C, H, W) whose channels lie side by side in memory, as PyTorch's `channels_last`: views of tensors
//! (N, H, W, C). Maps that lie otherwise are copied first. They are f32, bf16 or f16; sums are f32, and products, too, where maps are.

mod algorithm;
mod convolution;
mod fused;
mod number;
mod pool;
mod tensors;
mod unfold;

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::{
    ConvDescriptor, Cudnn, CudnnDataType, CudnnError, TensorDescriptor, sys,
};
use candle_core::cuda_backend::cudarc::driver::result::device::get_default_mem_pool;
use candle_core::cuda_backend::cudarc::driver::sys as driver;
use candle_core::cuda_backend::{CudaDevice, DeviceId};
use candle_core::{DType, Result, Tensor};
use half::{bf16, f16};

pub(crate) use self::convolution::TrainableConv;
pub(crate) use self::fused::FusedConv;
use self::fused::Prepared;
pub(crate) use self::number::Number;
pub(crate) use self::pool::max_pool;
pub(crate) use self::tensors::{Values, tensor};
pub(crate) use self::unfold::Unfolding;
use crate::blueprint::window_output_size;

/// How a convolution or a pool goes over a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    pub(crate) size: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) dilation: usize,
    pub(crate) groups: usize,
}

impl Window {
    /// Pixels that come out of a row of so many.
    fn output(self, pixels: usize) -> usize {
        window_output_size(pixels, self.dilation * (self.size - 1) + 1, self.stride, self.padding)
    }

    /// For maps of `T`.
    fn descriptor<T: Number>(self, cudnn: &Arc<Cudnn>) -> std::result::Result<ConvDescriptor<f32>, CudnnError> {
        let Window { stride, padding, dilation, groups, .. } = self;
        let [stride, padding, dilation] = [stride, padding, dilation].map(|value| [value as i32; 2]);
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut conv = cudnn.create_conv2d(padding, stride, dilation, mode)?;
        conv.set_math_type(T::MATH)?;
        conv.set_group_count(groups as i32)?;
        Ok(conv)
    }
}

/// (N, C, H, W) → the same as (N, H, W, C), without a copy where it lies so already.
fn channels_last(x: &Tensor, dtype: DType) -> Result<Tensor> {
    x.to_dtype(dtype)?.permute((0, 2, 3, 1))?.contiguous()
}

thread_local! {
    /// cuDNN's handles belong to the thread that made them.
    static LIBRARIES: RefCell<HashMap<DeviceId, Library>> = RefCell::new(HashMap::new());
}

/// cuDNN on one device, and what was prepared for it.
pub(crate) struct Library {
    cudnn: Arc<Cudnn>,
    f32: Prepared<f32>,
    bf16: Prepared<bf16>,
    f16: Prepared<f16>,
}

/// cuDNN on `device`, for this thread.
pub(crate) fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
    with_library(device, |library| Ok(library.cudnn.clone()))
}

/// Calls cuDNN on `device` from this thread.
fn with_library<T>(device: &CudaDevice, call: impl FnOnce(&mut Library) -> Result<T>) -> Result<T> {
    LIBRARIES.with(|libraries| {
        let mut libraries = libraries.borrow_mut();
        call(match libraries.entry(device.id()) {
            Entry::Occupied(library) => library.into_mut(),
            Entry::Vacant(place) => {
                keep_freed_memory(device)?;
                make_no_events(device);
                let cudnn = Cudnn::new(device.cuda_stream()).map_err(candle_core::Error::wrap)?;
                let (f32, bf16, f16) = (Prepared::default(), Prepared::default(), Prepared::default());
                place.insert(Library { cudnn, f32, bf16, f16 })
            }
        })
    })
}

/// Leaves out the two events that cudarc makes for every tensor so that several streams can wait for each other. candle has one stream in each
/// thread, which such events are not used for, and making them takes longer than starting kernels. The crate's docs tell of it.
fn make_no_events(device: &CudaDevice) {
    if !device.cuda_stream().context().is_in_multi_stream_mode() {
        // SAFETY: nothing here shares a tensor between streams but by events of its own; whoever makes further streams is told to do likewise.
        unsafe { device.disable_event_tracking() };
    }
}

/// Lets memory that was freed wait for its next use: the driver would give it back whenever the device is waited for, and mapping it
/// anew takes longer than a training step does.
fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
    let mut everything = u64::MAX;
    let attribute = driver::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let number = device.cuda_stream().context().cu_device();
    // SAFETY: the pool is the device's own, and the driver copies the value, which is of the attribute's type.
    unsafe {
        let pool = get_default_mem_pool(number).map_err(candle_core::Error::wrap)?;
        let value = (&raw mut everything).cast();
        driver::cuMemPoolSetAttribute(pool, attribute, value).result().map_err(candle_core::Error::wrap)
    }
}

const PROPAGATE: sys::cudnnNanPropagation_t = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;

/// The descriptor of a map (N, H, W, C).
fn map<T: CudnnDataType>(cudnn: &Arc<Cudnn>, dims: [usize; 4]) -> std::result::Result<TensorDescriptor<T>, CudnnError> {
    let [images, height, width, channels] = dims.map(|value| value as i32);
    cudnn.create_4d_tensor(sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, [images, channels, height, width])
}
