//! A convolution that trains: maps → maps, and the gradients of its input and of its weights.

use std::sync::{Arc, Once};

use candle_core::Result;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnError, FilterDescriptor,
    TensorDescriptor, sys,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr};

use super::algorithm::Chosen;
use super::{Number, Window, map};

/// A convolution of maps of one size, (N, H, W, C) → (N, H', W', C'), with weights (C', K, K, C / groups).
#[derive(Debug)]
pub(super) struct PlainConv<T: Number> {
    conv: ConvDescriptor<f32>,
    x: TensorDescriptor<T>,
    weight: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
    dims: Dims,
    chosen: Chosen<sys::cudnnConvolutionFwdAlgo_t>,
}

/// Of maps that go in, (N, H, W, C), of weights, (C', C / groups, K, K), and of maps that come out, (N, H', W', C').
#[derive(Debug, Clone, Copy)]
struct Dims {
    x: [usize; 4],
    weight: [usize; 4],
    y: [usize; 4],
}

impl Dims {
    /// Values of each.
    fn values(&self) -> [usize; 3] {
        [self.x, self.weight, self.y].map(|dims| dims.iter().product())
    }
}

impl<T: Number> PlainConv<T> {
    /// Of maps `x` (N, H, W, C) to `out` (N, H', W', C').
    pub(super) fn new(
        cudnn: &Arc<Cudnn>,
        x: [usize; 4],
        out: [usize; 4],
        window: Window,
    ) -> std::result::Result<PlainConv<T>, CudnnError> {
        let dims = Dims { x, weight: [out[3], x[3] / window.groups, window.size, window.size], y: out };
        let conv = window.descriptor::<T>(cudnn)?;
        let filter = dims.weight.map(|value| value as i32);
        let weight = cudnn.create_4d_filter(sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, filter)?;
        let (x_map, y_map) = (map(cudnn, x)?, map(cudnn, out)?);
        let call = ConvForward { conv: &conv, x: &x_map, w: &weight, y: &y_map };
        let chosen = Chosen::new(|| call.pick_algorithm(), |algorithm| call.get_workspace_size(algorithm))?;
        Ok(PlainConv { conv, x: x_map, weight, y: y_map, dims, chosen })
    }

    /// Maps → maps.
    pub(super) fn forward<S: DevicePtr<T>>(&self, device: &CudaDevice, x: &S, weight: &S) -> Result<CudaSlice<T>> {
        let [x_values, weight_values, y_values] = self.dims.values();
        check([(x.len(), x_values), (weight.len(), weight_values)])?;
        let call = ConvForward { conv: &self.conv, x: &self.x, w: &self.weight, y: &self.y };
        let Chosen { algorithm, workspace } = self.chosen;
        // SAFETY: cuDNN writes all of `y`, and scratch before it reads it; descriptors say what lies in the slices.
        unsafe {
            let (mut y, mut workspace) = (device.alloc(y_values)?, scratch(device, workspace)?);
            call.launch(algorithm, Some(&mut workspace), (T::ONE, T::ZERO), x, weight, &mut y)
                .map_err(candle_core::Error::wrap)?;
            Ok(y)
        }
    }
}

/// A convolution with its gradients.
///
/// Algorithms add in one order, so that the same input gives the same bits, unless cuDNN has none of these for a shape.
#[derive(Debug)]
pub(crate) struct TrainableConv<T: Number> {
    plain: PlainConv<T>,
    input_gradient: Chosen<sys::cudnnConvolutionBwdDataAlgo_t>,
    weight_gradient: Chosen<sys::cudnnConvolutionBwdFilterAlgo_t>,
}

impl<T: Number> TrainableConv<T> {
    /// Of maps `x` (N, H, W, C) to `out` (N, H', W', C').
    pub(crate) fn new(cudnn: &Arc<Cudnn>, x: [usize; 4], out: [usize; 4], window: Window) -> Result<TrainableConv<T>> {
        let plain = PlainConv::new(cudnn, x, out, window).map_err(candle_core::Error::wrap)?;
        TrainableConv::with_gradients(plain).map_err(candle_core::Error::wrap)
    }

    fn with_gradients(plain: PlainConv<T>) -> std::result::Result<TrainableConv<T>, CudnnError> {
        let PlainConv { conv, x, weight, y, .. } = &plain;
        let of_input = ConvBackwardData { conv, dx: x, w: weight, dy: y };
        let of_weight = ConvBackwardFilter { conv, x, dw: weight, dy: y };
        Ok(TrainableConv {
            input_gradient: Chosen::new(
                || of_input.pick_algorithm(),
                |algorithm| of_input.get_workspace_size(algorithm),
            )?,
            weight_gradient: Chosen::new(
                || of_weight.pick_algorithm(),
                |algorithm| of_weight.get_workspace_size(algorithm),
            )?,
            plain,
        })
    }

    /// Maps → maps.
    pub(crate) fn forward(&self, device: &CudaDevice, x: &CudaSlice<T>, weight: &CudaSlice<T>) -> Result<CudaSlice<T>> {
        self.plain.forward(device, x, weight)
    }

    /// The gradient of what comes out → that of what goes in.
    pub(crate) fn input_gradient(
        &self,
        device: &CudaDevice,
        gradient: &CudaSlice<T>,
        weight: &CudaSlice<T>,
    ) -> Result<CudaSlice<T>> {
        let PlainConv { conv, x, weight: filter, y, dims, .. } = &self.plain;
        let [x_values, weight_values, y_values] = dims.values();
        check([(gradient.len(), y_values), (weight.len(), weight_values)])?;
        warn_once_unless(self.input_gradient.adds_in_one_order(), dims);
        let call = ConvBackwardData { conv, dx: x, w: filter, dy: y };
        let Chosen { algorithm, workspace } = self.input_gradient;
        // SAFETY: as in `forward`.
        unsafe {
            let (mut to, mut workspace) = (device.alloc(x_values)?, scratch(device, workspace)?);
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
        let PlainConv { conv, x: map, weight, y, dims, .. } = &self.plain;
        let [x_values, weight_values, y_values] = dims.values();
        check([(x.len(), x_values), (gradient.len(), y_values)])?;
        warn_once_unless(self.weight_gradient.adds_in_one_order(), dims);
        let call = ConvBackwardFilter { conv, x: map, dw: weight, dy: y };
        let Chosen { algorithm, workspace } = self.weight_gradient;
        // SAFETY: as in `forward`.
        unsafe {
            let (mut to, mut workspace) = (device.alloc(weight_values)?, scratch(device, workspace)?);
            call.launch(algorithm, Some(&mut workspace), (T::ONE, T::ZERO), x, &mut to, gradient)
                .map_err(candle_core::Error::wrap)?;
            Ok(to)
        }
    }
}

fn check(lengths: [(usize, usize); 2]) -> Result<()> {
    match lengths.into_iter().find(|(found, wanted)| found != wanted) {
        Some((found, wanted)) => candle_core::bail!("a convolution was given {found} values, not {wanted}"),
        None => Ok(()),
    }
}

/// Says once that a training will not be the same when it is repeated.
fn warn_once_unless(adds_in_one_order: bool, Dims { x, weight, y }: &Dims) {
    static WARNED: Once = Once::new();
    if !adds_in_one_order {
        WARNED.call_once(|| {
            tracing::warn!(
                "cuDNN adds in an order that varies for the gradient of a convolution {weight:?} from maps {x:?} to {y:?}: runs may differ in \
                 the last bits"
            );
        });
    }
}

/// Memory to be written before it is read.
pub(super) unsafe fn scratch(device: &CudaDevice, bytes: usize) -> Result<CudaSlice<u8>> {
    // SAFETY: the caller's.
    unsafe { device.alloc(bytes.max(1)) }
}
