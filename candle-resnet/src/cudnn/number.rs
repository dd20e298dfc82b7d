//! What maps may be held in.

use candle_core::DType;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::cudnn::{CudnnDataType, sys};
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use half::{bf16, f16};

use super::Library;
use super::fused::Prepared;

/// What maps may be held in.
pub(crate) trait Number: CudaDType + CudnnDataType + DeviceRepr + Copy + 'static {
    const DTYPE: DType;
    const ZERO: Self;
    const ONE: Self;
    /// What cuDNN multiplies with: f32 is multiplied in full, halves on tensor cores.
    const MATH: sys::cudnnMathType_t;

    /// What a library has prepared for such maps.
    fn prepared(library: &mut Library) -> &mut Prepared<Self>;
}

macro_rules! number {
    ($type:ident, $dtype:ident, $zero:expr, $one:expr, $math:ident) => {
        impl Number for $type {
            const DTYPE: DType = DType::$dtype;
            const ZERO: $type = $zero;
            const ONE: $type = $one;
            const MATH: sys::cudnnMathType_t = sys::cudnnMathType_t::$math;

            fn prepared(library: &mut Library) -> &mut Prepared<$type> {
                &mut library.$type
            }
        }
    };
}

number!(f32, F32, 0.0, 1.0, CUDNN_FMA_MATH);
number!(bf16, BF16, bf16::ZERO, bf16::ONE, CUDNN_TENSOR_OP_MATH);
number!(f16, F16, f16::ZERO, f16::ONE, CUDNN_TENSOR_OP_MATH);

/// Evaluates a `Result` with the [`Number`] of a dtype that is known at run time.
macro_rules! with_number {
    ($dtype:expr, $number:ident => $result:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $number = f32;
                $result
            }
            candle_core::DType::BF16 => {
                type $number = half::bf16;
                $result
            }
            candle_core::DType::F16 => {
                type $number = half::f16;
                $result
            }
            other => Err(candle_core::Error::msg(format!("cuDNN is given maps of f32, bf16 or f16, not of {other:?}"))),
        }
    };
}
pub(super) use with_number;
