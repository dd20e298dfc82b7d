//! Convolutions on NVIDIA's cuDNN: the frozen form's with bias, residual and ReLU in one pass, in bf16, and those that train.
//!
//! Maps are tensors (N, C, H, W) whose channels lie side by side in memory, as PyTorch's `channels_last`: views of tensors
//! (N, H, W, C). Maps that lie otherwise are copied first. Sums are f32.

mod convolution;
mod unfold;

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::{
    ActivationDescriptor, ConvBiasActivationForward, ConvDescriptor, Cudnn, CudnnDataType, CudnnError,
    FilterDescriptor, PoolingDescriptor, PoolingForward, TensorDescriptor, sys,
};
use candle_core::cuda_backend::cudarc::driver::result::device;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, sys as driver};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, DeviceId};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Storage, Tensor};
use half::bf16;

pub(crate) use self::convolution::{Number, TrainableConv};
use self::unfold::Unfolding;
use crate::blueprint::window_output_size;

/// A convolution with everything that is folded into it.
#[derive(Debug, Clone)]
pub(crate) struct FusedConv {
    weight: Tensor, // (C', K, K, C / groups)
    bias: Tensor,   // (C')
    window: Window,
    /// Where images come in that had better be unfolded.
    unfolding: Option<Unfolding>,
}

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

    fn descriptor(
        self,
        cudnn: &Arc<Cudnn>,
        math: sys::cudnnMathType_t,
    ) -> std::result::Result<ConvDescriptor<f32>, CudnnError> {
        let Window { stride, padding, dilation, groups, .. } = self;
        let [stride, padding, dilation] = [stride, padding, dilation].map(|value| [value as i32; 2]);
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut conv = cudnn.create_conv2d(padding, stride, dilation, mode)?;
        conv.set_math_type(math)?;
        conv.set_group_count(groups as i32)?;
        Ok(conv)
    }
}

impl FusedConv {
    /// `weight` (C', C / groups, K, K) and `bias` (C') on a CUDA device.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor, window: Window) -> Result<FusedConv> {
        let device = weight.device();
        let unfolding = Unfolding::of(weight.dim(1)? * window.groups, window);
        let (weight, window) = match unfolding {
            Some(unfolding) => (unfolding.weights(weight)?.to_device(device)?, unfolding.window()),
            None => (weight.clone(), window),
        };
        let weight = weight.to_dtype(DType::BF16)?.permute((0, 2, 3, 1))?.contiguous()?;
        let bias = bias.flatten_all()?.to_dtype(DType::BF16)?.contiguous()?;
        Ok(FusedConv { weight, bias, window, unfolding })
    }

    /// Maps (N, C, H, W) → (N, C', H', W'), with `residual` added, and cut off at 0 if `relu`.
    pub(crate) fn forward(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        let call = Call { conv: self, relu };
        let x = match self.unfolding {
            Some(unfolding) => unfolding.images(x)?,
            None => channels_last(x)?,
        };
        let y = match residual {
            Some(residual) => x.apply_op2_no_bwd(&channels_last(residual)?, &call)?,
            None => x.apply_op1_no_bwd(&call)?,
        };
        y.permute((0, 3, 1, 2))
    }
}

/// A 3×3 max-pool of maps (N, C, H, W) with a border of one pixel.
pub(crate) fn max_pool(x: &Tensor, stride: usize) -> Result<Tensor> {
    let window = Window { size: 3, stride, padding: 1, dilation: 1, groups: 1 };
    channels_last(x)?.apply_op1_no_bwd(&MaxPool(window))?.permute((0, 3, 1, 2))
}

/// (N, C, H, W) → the same as (N, H, W, C), without a copy where it lies so already.
fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::BF16)?.permute((0, 2, 3, 1))?.contiguous()
}

/// One use of a convolution.
struct Call<'a> {
    conv: &'a FusedConv,
    relu: bool,
}

impl CustomOp1 for Call<'_> {
    fn name(&self) -> &'static str {
        "fused-conv"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("cuDNN computes on CUDA devices alone")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.launch((x, layout), None)
    }
}

impl CustomOp2 for Call<'_> {
    fn name(&self) -> &'static str {
        "fused-conv-residual"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("cuDNN computes on CUDA devices alone")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        residual: &CudaStorage,
        residual_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.launch((x, x_layout), Some((residual, residual_layout)))
    }
}

impl Call<'_> {
    fn launch(
        &self,
        (x, layout): (&CudaStorage, &Layout),
        residual: Option<(&CudaStorage, &Layout)>,
    ) -> Result<(CudaStorage, Shape)> {
        let FusedConv { weight, bias, window, .. } = self.conv;
        let (images, height, width, channels) = layout.shape().dims4()?;
        let out = [images, window.output(height), window.output(width), weight.dim(0)?];
        if residual.is_some_and(|(_, layout)| layout.dims() != out) || channels != weight.dim(3)? * window.groups {
            candle_core::bail!("a convolution to {out:?} was given maps of {:?}", layout.dims());
        }
        let device = x.device.clone();
        let key = ConvKey { x: [images, height, width, channels], out, window: *window, relu: self.relu };
        if weight.device().location() != Device::Cuda(device.clone()).location() {
            candle_core::bail!("weights and maps are not on one device");
        }
        let ((weight, of_weight), (bias, of_bias)) = (weight.storage_and_layout(), bias.storage_and_layout());
        let weight = cuda_values(&weight)?.slice(of_weight.start_offset()..);
        let bias = cuda_values(&bias)?.slice(of_bias.start_offset()..);
        let x = x.as_cuda_slice::<bf16>()?.slice(layout.start_offset()..);
        // Where there is no residual, what stands for it is taken times 0 and not read.
        // SAFETY: nobody reads it.
        let none = unsafe { device.alloc::<bf16>(if residual.is_some() { 1 } else { out.iter().product() })? };
        let z = match residual {
            Some((residual, layout)) => residual.as_cuda_slice::<bf16>()?.slice(layout.start_offset()..),
            None => none.slice(..),
        };
        let scales = (bf16::ONE, if residual.is_some() { bf16::ONE } else { bf16::ZERO });
        // SAFETY: cuDNN writes all of it.
        let mut y = unsafe { device.alloc::<bf16>(out.iter().product())? };
        with_library(&device, |library| {
            let prepared = library.conv(key)?;
            // SAFETY: scratch, which is written before it is read.
            let mut workspace = unsafe { device.alloc::<u8>(prepared.workspace.max(1))? };
            // SAFETY: the descriptors say what lies in the slices, whose lengths follow from the shapes checked above.
            unsafe {
                let algorithm = prepared.algorithm;
                prepared.forward().launch(algorithm, Some(&mut workspace), scales, &x, &weight, &z, &bias, &mut y)
            }
            .map_err(candle_core::Error::wrap)
        })?;
        Ok((CudaStorage::wrap_cuda_slice(y, device), Shape::from(out.to_vec())))
    }
}

fn cuda_values(storage: &Storage) -> Result<&CudaSlice<bf16>> {
    match storage {
        Storage::Cuda(storage) => storage.as_cuda_slice::<bf16>(),
        _ => candle_core::bail!("the weights are not on a CUDA device"),
    }
}

struct MaxPool(Window);

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "channels-last-max-pool"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("cuDNN computes on CUDA devices alone")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (images, height, width, channels) = layout.shape().dims4()?;
        let out = [images, self.0.output(height), self.0.output(width), channels];
        let device = x.device.clone();
        let x = x.as_cuda_slice::<bf16>()?.slice(layout.start_offset()..);
        // SAFETY: cuDNN writes all of it.
        let mut y = unsafe { device.alloc::<bf16>(out.iter().product())? };
        with_library(&device, |library| {
            let Window { size, stride, padding, .. } = self.0;
            let [size, stride, padding] = [size, stride, padding].map(|value| [value as i32; 2]);
            let mode = sys::cudnnPoolingMode_t::CUDNN_POOLING_MAX;
            let cudnn = &library.cudnn;
            let pooling: PoolingDescriptor<f32> =
                cudnn.create_poolingnd(&size, &padding, &stride, mode, PROPAGATE).map_err(candle_core::Error::wrap)?;
            let [x_map, y_map] = [[images, height, width, channels], out].map(|dims| map(cudnn, dims));
            let (x_map, y_map) = (x_map.map_err(candle_core::Error::wrap)?, y_map.map_err(candle_core::Error::wrap)?);
            let forward = PoolingForward { pooling: &pooling, x: &x_map, y: &y_map };
            // SAFETY: the descriptors say what lies in the slices.
            unsafe { forward.launch((bf16::ONE, bf16::ZERO), &x, &mut y) }.map_err(candle_core::Error::wrap)
        })?;
        Ok((CudaStorage::wrap_cuda_slice(y, device), Shape::from(out.to_vec())))
    }
}

const PROPAGATE: sys::cudnnNanPropagation_t = sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN;

thread_local! {
    /// cuDNN's handles belong to the thread that made them.
    static LIBRARIES: RefCell<HashMap<DeviceId, Library>> = RefCell::new(HashMap::new());
}

/// cuDNN on one device, and what was prepared for it.
struct Library {
    cudnn: Arc<Cudnn>,
    convs: HashMap<ConvKey, PreparedConv>,
}

/// What the descriptors of a convolution say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ConvKey {
    /// (N, H, W, C)
    x: [usize; 4],
    /// (N, H', W', C')
    out: [usize; 4],
    window: Window,
    relu: bool,
}

struct PreparedConv {
    conv: ConvDescriptor<f32>,
    activation: ActivationDescriptor<f32>,
    x: TensorDescriptor<bf16>,
    weight: FilterDescriptor<bf16>,
    bias: TensorDescriptor<bf16>,
    y: TensorDescriptor<bf16>,
    algorithm: sys::cudnnConvolutionFwdAlgo_t,
    /// Bytes of scratch.
    workspace: usize,
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
                let cudnn = Cudnn::new(device.cuda_stream()).map_err(candle_core::Error::wrap)?;
                place.insert(Library { cudnn, convs: HashMap::new() })
            }
        })
    })
}

/// Lets memory that was freed wait for its next use: the driver would give it back whenever the device is waited for, and mapping it
/// anew takes longer than a training step does.
fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
    let mut everything = u64::MAX;
    let attribute = driver::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let number = device.cuda_stream().context().cu_device();
    // SAFETY: the pool is the device's own, and the driver copies the value, which is of the attribute's type.
    unsafe {
        let pool = device::get_default_mem_pool(number).map_err(candle_core::Error::wrap)?;
        let value = (&raw mut everything).cast();
        driver::cuMemPoolSetAttribute(pool, attribute, value).result().map_err(candle_core::Error::wrap)
    }
}

impl Library {
    fn conv(&mut self, key: ConvKey) -> Result<&PreparedConv> {
        Ok(match self.convs.entry(key) {
            Entry::Occupied(prepared) => prepared.into_mut(),
            Entry::Vacant(place) => {
                let prepared = PreparedConv::new(&self.cudnn, place.key()).map_err(candle_core::Error::wrap)?;
                place.insert(prepared)
            }
        })
    }
}

impl PreparedConv {
    fn new(cudnn: &Arc<Cudnn>, ConvKey { x, out, window, relu }: &ConvKey) -> std::result::Result<Self, CudnnError> {
        let &Window { size, groups, .. } = window;
        let activation = match relu {
            true => sys::cudnnActivationMode_t::CUDNN_ACTIVATION_RELU,
            false => sys::cudnnActivationMode_t::CUDNN_ACTIVATION_IDENTITY,
        };
        let filter = [out[3], x[3] / groups, size, size].map(|value| value as i32);
        let mut prepared = PreparedConv {
            conv: window.descriptor(cudnn, sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH)?,
            activation: cudnn.create_activation(activation, PROPAGATE, 0.0)?,
            x: map(cudnn, *x)?,
            weight: cudnn.create_4d_filter(sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, filter)?,
            bias: map(cudnn, [1, 1, 1, out[3]])?,
            y: map(cudnn, *out)?,
            // The only one that takes any activation, and the one that runs on tensor cores.
            algorithm: sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
            workspace: 0,
        };
        prepared.workspace = prepared.forward().get_workspace_size(prepared.algorithm)?;
        Ok(prepared)
    }

    fn forward(&self) -> ConvBiasActivationForward<'_, bf16, f32, f32, bf16> {
        let PreparedConv { conv, activation, x, weight, bias, y, .. } = self;
        ConvBiasActivationForward { conv, act: activation, x, w: weight, z: y, bias, y }
    }
}

/// The descriptor of a map (N, H, W, C).
fn map<T: CudnnDataType>(cudnn: &Arc<Cudnn>, dims: [usize; 4]) -> std::result::Result<TensorDescriptor<T>, CudnnError> {
    let [images, height, width, channels] = dims.map(|value| value as i32);
    cudnn.create_4d_tensor(sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, [images, channels, height, width])
}
