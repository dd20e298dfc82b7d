//! A convolution that trains: maps → maps, and the gradients of its input and of its weights.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError,
    FilterDescriptor, TensorDescriptor, sys,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaDevice};
use candle_core::{DType, Result};
use half::bf16;

use super::{Window, map};

/// What maps may be held in.
pub(crate) trait Number: CudaDType + CudnnDataType + DeviceRepr + Copy + 'static {
    const DTYPE: DType;
    const ZERO: Self;
    const ONE: Self;
}

impl Number for f32 {
    const DTYPE: DType = DType::F32;
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
}

impl Number for bf16 {
    const DTYPE: DType = DType::BF16;
    const ZERO: bf16 = bf16::ZERO;
    const ONE: bf16 = bf16::ONE;
}

/// A convolution of maps of one size, (N, H, W, C) → (N, H', W', C'), with weights (C', K, K, C / groups). Sums are f32, and
/// products, too, where maps are.
///
/// Algorithms add in one order, so that the same input gives the same bits, unless cuDNN has none of these for a shape.
#[derive(Debug)]
pub(crate) struct TrainableConv<T: Number> {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<T>,
    weight: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
    x_values: usize,
    weight_values: usize,
    y_values: usize,
    forward: Chosen<sys::cudnnConvolutionFwdAlgo_t>,
    input_gradient: Chosen<sys::cudnnConvolutionBwdDataAlgo_t>,
    weight_gradient: Chosen<sys::cudnnConvolutionBwdFilterAlgo_t>,
}

/// An algorithm and the bytes of scratch that it asks for.
#[derive(Debug, Clone, Copy)]
struct Chosen<A> {
    algorithm: A,
    workspace: usize,
}

impl<A: Copy> Chosen<A> {
    /// `preferred`, unless there is no such thing for these shapes; then what `other` names.
    fn new(
        preferred: A,
        other: impl FnOnce() -> std::result::Result<A, CudnnError>,
        workspace: impl Fn(A) -> std::result::Result<usize, CudnnError>,
    ) -> std::result::Result<Chosen<A>, CudnnError> {
        if let Ok(workspace) = workspace(preferred) {
            return Ok(Chosen { algorithm: preferred, workspace });
        }
        let algorithm = other()?;
        Ok(Chosen { algorithm, workspace: workspace(algorithm)? })
    }
}

impl<T: Number> TrainableConv<T> {
    /// Of maps `x` (N, H, W, C) to `out` (N, H', W', C').
    pub(crate) fn new(cudnn: &Arc<Cudnn>, x: [usize; 4], out: [usize; 4], window: Window) -> Result<TrainableConv<T>> {
        TrainableConv::prepared(cudnn, x, out, window).map_err(candle_core::Error::wrap)
    }

    fn prepared(
        cudnn: &Arc<Cudnn>,
        x: [usize; 4],
        out: [usize; 4],
        window: Window,
    ) -> std::result::Result<TrainableConv<T>, CudnnError> {
        let weight = [out[3], x[3] / window.groups, window.size, window.size];
        let conv = window.descriptor(cudnn, if T::DTYPE == DType::F32 { FULL } else { TENSOR_CORES })?;
        let filter = weight.map(|value| value as i32);
        let weight_map = cudnn.create_4d_filter(sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, filter)?;
        let (x_map, y_map) = (map(cudnn, x)?, map(cudnn, out)?);
        let forward = ConvForward { conv: &conv, x: &x_map, w: &weight_map, y: &y_map };
        let input_gradient = ConvBackwardData { conv: &conv, dx: &x_map, w: &weight_map, dy: &y_map };
        let weight_gradient = ConvBackwardFilter { conv: &conv, x: &x_map, dw: &weight_map, dy: &y_map };
        Ok(TrainableConv {
            forward: Chosen::new(
                sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
                || forward.pick_algorithm(),
                |algorithm| forward.get_workspace_size(algorithm),
            )?,
            input_gradient: Chosen::new(
                sys::cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
                || input_gradient.pick_algorithm(),
                |algorithm| input_gradient.get_workspace_size(algorithm),
            )?,
            weight_gradient: Chosen::new(
                sys::cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
                || weight_gradient.pick_algorithm(),
                |algorithm| weight_gradient.get_workspace_size(algorithm),
            )?,
            x_values: x.iter().product(),
            weight_values: weight.iter().product(),
            y_values: out.iter().product(),
            weight: weight_map,
            x: x_map,
            y: y_map,
            conv,
        })
    }

    /// Maps → maps.
    pub(crate) fn forward(&self, device: &CudaDevice, x: &CudaSlice<T>, weight: &CudaSlice<T>) -> Result<CudaSlice<T>> {
        self.check([(x, self.x_values), (weight, self.weight_values)])?;
        let call = ConvForward { conv: &self.conv, x: &self.x, w: &self.weight, y: &self.y };
        // SAFETY: cuDNN writes all of `y`, and scratch before it reads it; descriptors say what lies in the slices.
        unsafe {
            let (mut y, mut workspace) = (device.alloc(self.y_values)?, scratch(device, self.forward.workspace)?);
            call.launch(self.forward.algorithm, Some(&mut workspace), (T::ONE, T::ZERO), x, weight, &mut y)
                .map_err(candle_core::Error::wrap)?;
            Ok(y)
        }
    }

    /// The gradient of what comes out → that of what goes in.
    pub(crate) fn input_gradient(
        &self,
        device: &CudaDevice,
        gradient: &CudaSlice<T>,
        weight: &CudaSlice<T>,
    ) -> Result<CudaSlice<T>> {
        self.check([(gradient, self.y_values), (weight, self.weight_values)])?;
        let call = ConvBackwardData { conv: &self.conv, dx: &self.x, w: &self.weight, dy: &self.y };
        let Chosen { algorithm, workspace } = self.input_gradient;
        // SAFETY: as in `forward`.
        unsafe {
            let (mut to, mut workspace) = (device.alloc(self.x_values)?, scratch(device, workspace)?);
            call.launch(algorithm, Some(&mut workspace), (T::ONE, T::ZERO), &mut to, weight, gradient)
                .map_err(candle_core::Error::wrap)?;
            Ok(to)
        }
    }

    /// What goes in, and the gradient of what comes out → that of the weights, (C', K, K, C / groups).
    pub(crate) fn weight_gradient(
        &self,
        device: &CudaDevice,
        x: &CudaSlice<T>,
        gradient: &CudaSlice<T>,
    ) -> Result<CudaSlice<T>> {
        self.check([(x, self.x_values), (gradient, self.y_values)])?;
        let call = ConvBackwardFilter { conv: &self.conv, x: &self.x, dw: &self.weight, dy: &self.y };
        let Chosen { algorithm, workspace } = self.weight_gradient;
        // SAFETY: as in `forward`.
        unsafe {
            let (mut to, mut workspace) = (device.alloc(self.weight_values)?, scratch(device, workspace)?);
            call.launch(algorithm, Some(&mut workspace), (T::ONE, T::ZERO), x, &mut to, gradient)
                .map_err(candle_core::Error::wrap)?;
            Ok(to)
        }
    }

    fn check(&self, slices: [(&CudaSlice<T>, usize); 2]) -> Result<()> {
        match slices.into_iter().find(|(slice, values)| slice.len() != *values) {
            Some((slice, values)) => candle_core::bail!("a convolution was given {} values, not {values}", slice.len()),
            None => Ok(()),
        }
    }
}

const FULL: sys::cudnnMathType_t = sys::cudnnMathType_t::CUDNN_FMA_MATH;
const TENSOR_CORES: sys::cudnnMathType_t = sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH;

/// Memory to be written before it is read.
unsafe fn scratch(device: &CudaDevice, bytes: usize) -> Result<CudaSlice<u8>> {
    // SAFETY: the caller's.
    unsafe { device.alloc(bytes.max(1)) }
}
