//! Element types of stored tensors, and contiguous bytes → candle tensors.
//!
//! The names are PyTorch's: `torch.float32`, `torch.FloatStorage`.

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;

use super::error::Problem;

/// One element type: what PyTorch calls it, its width, and what candle makes of it.
#[derive(Debug)]
pub(super) struct ElementType {
    /// As in `torch.float32`.
    pub(super) name: &'static str,
    alias: &'static str,
    /// As in `torch.FloatStorage`; empty where PyTorch has none.
    storage: &'static str,
    safetensors: Option<Dtype>,
    /// Bytes per element.
    pub(super) size: usize,
    reading: Reading,
}

#[derive(Debug)]
enum Reading {
    As(DType),
    BoolAsU8,
    I8AsI16,
    U16AsI32,
    Unsupported,
}

use Reading::*;

#[rustfmt::skip]
static ELEMENT_TYPES: &[ElementType] = &[
    row("float32", "float", "FloatStorage", Some(Dtype::F32), 4, As(DType::F32)),
    row("float64", "double", "DoubleStorage", Some(Dtype::F64), 8, As(DType::F64)),
    row("float16", "half", "HalfStorage", Some(Dtype::F16), 2, As(DType::F16)),
    row("bfloat16", "", "BFloat16Storage", Some(Dtype::BF16), 2, As(DType::BF16)),
    row("int64", "long", "LongStorage", Some(Dtype::I64), 8, As(DType::I64)),
    row("int32", "int", "IntStorage", Some(Dtype::I32), 4, As(DType::I32)),
    row("int16", "short", "ShortStorage", Some(Dtype::I16), 2, As(DType::I16)),
    row("int8", "", "CharStorage", Some(Dtype::I8), 1, I8AsI16),
    row("uint8", "", "ByteStorage", Some(Dtype::U8), 1, As(DType::U8)),
    row("bool", "", "BoolStorage", Some(Dtype::BOOL), 1, BoolAsU8),
    row("uint16", "", "", Some(Dtype::U16), 2, U16AsI32),
    row("uint32", "", "", Some(Dtype::U32), 4, As(DType::U32)),
    row("uint64", "", "", Some(Dtype::U64), 8, Unsupported),
    row("complex64", "cfloat", "ComplexFloatStorage", Some(Dtype::C64), 8, Unsupported),
    row("complex128", "cdouble", "ComplexDoubleStorage", None, 16, Unsupported),
    row("float8_e4m3fn", "", "", Some(Dtype::F8_E4M3), 1, Unsupported),
    row("float8_e5m2", "", "", Some(Dtype::F8_E5M2), 1, Unsupported),
    row("qint8", "", "QInt8Storage", None, 1, Unsupported),
    row("quint8", "", "QUInt8Storage", None, 1, Unsupported),
    row("qint32", "", "QInt32Storage", None, 4, Unsupported),
    row("quint4x2", "", "QUInt4x2Storage", None, 1, Unsupported),
    row("quint2x4", "", "QUInt2x4Storage", None, 1, Unsupported),
];

const fn row(
    name: &'static str,
    alias: &'static str,
    storage: &'static str,
    safetensors: Option<Dtype>,
    size: usize,
    reading: Reading,
) -> ElementType {
    ElementType { name, alias, storage, safetensors, size, reading }
}

fn find(wanted: impl Fn(&ElementType) -> bool) -> Option<&'static ElementType> {
    ELEMENT_TYPES.iter().find(|element| wanted(element))
}

impl ElementType {
    /// The type called `torch.NAME`.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        find(|element| !name.is_empty() && (element.name == name || element.alias == name))
    }

    /// The type whose storage class is `torch.CLASS`; bytes for the classes that have no type of their own.
    pub(super) fn of_storage_class(class: &str) -> Option<&'static Self> {
        match class {
            "UntypedStorage" | "_UntypedStorage" => Self::named("uint8"),
            _ => find(|element| !class.is_empty() && element.storage == class),
        }
    }

    /// The type that a safetensors header names.
    pub(super) fn of_safetensors(dtype: Dtype) -> Option<&'static Self> {
        find(|element| element.safetensors == Some(dtype))
    }

    /// Contiguous little-endian elements in row-major order → a tensor of shape `dims`.
    ///
    /// `data` must hold exactly the elements of `dims`; both readers have checked that, and it is checked again here
    /// because candle does not.
    pub(super) fn tensor(&self, name: &str, data: &[u8], dims: &[usize]) -> Result<Tensor, Problem> {
        let bytes = element_count(dims).and_then(|count| count.checked_mul(self.size));
        if bytes != Some(data.len()) {
            return Err(Problem::malformed_tensor(name, "its shape does not match its data"));
        }
        let cpu = &Device::Cpu;
        let tensor = match &self.reading {
            As(dtype) => Tensor::from_raw_buffer(data, *dtype, dims, cpu),
            BoolAsU8 => Tensor::from_vec(data.iter().map(|&byte| u8::from(byte != 0)).collect(), dims, cpu),
            I8AsI16 => Tensor::from_vec(data.iter().map(|&byte| i16::from(byte as i8)).collect(), dims, cpu),
            U16AsI32 => Tensor::from_vec(data.as_chunks().0.iter().map(|&pair| widen(pair)).collect(), dims, cpu),
            Unsupported => return Err(Problem::unsupported_element(name, self.name)),
        };
        Ok(tensor?)
    }
}

fn widen(pair: [u8; 2]) -> i32 {
    i32::from(u16::from_le_bytes(pair))
}

/// The number of elements of a tensor of shape `dims`.
///
/// None if the product overflows even without the dimensions that are zero: strides are such products, too.
pub(super) fn element_count(dims: &[usize]) -> Option<usize> {
    let nonzero = dims.iter().try_fold(1usize, |count, &size| count.checked_mul(size.max(1)))?;
    Some(if dims.contains(&0) { 0 } else { nonzero })
}

/// Big-endian elements of `size` bytes → little-endian.
pub(super) fn swap_bytes(mut data: Vec<u8>, size: usize) -> Vec<u8> {
    data.chunks_exact_mut(size.max(1)).for_each(<[u8]>::reverse);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_own_row() {
        for element in ELEMENT_TYPES {
            assert!(std::ptr::eq(ElementType::named(element.name).unwrap(), element));
            if !element.storage.is_empty() {
                assert!(std::ptr::eq(ElementType::of_storage_class(element.storage).unwrap(), element));
            }
        }
        assert!(ElementType::named("").is_none());
        assert!(ElementType::of_storage_class("").is_none());
    }

    #[test]
    fn widths_match_candles() {
        for element in ELEMENT_TYPES {
            if let As(dtype) = element.reading {
                assert_eq!(dtype.size_in_bytes(), element.size, "{}", element.name);
            }
        }
    }

    #[test]
    fn a_product_that_overflows_is_refused_even_beside_a_zero() {
        assert_eq!(element_count(&[]), Some(1));
        assert_eq!(element_count(&[2, 0, 3]), Some(0));
        assert_eq!(element_count(&[0, usize::MAX, usize::MAX]), None);
    }

    #[test]
    fn a_shape_that_does_not_fit_its_data_is_refused() {
        let float = ElementType::named("float32").unwrap();
        assert!(matches!(float.tensor("x", &[0; 8], &[3]), Err(Problem::MalformedTensor { .. })));
    }

    #[test]
    fn signed_bytes_keep_their_sign() {
        let tensor = ElementType::named("int8").unwrap().tensor("x", &[0xff, 1], &[2]).unwrap();
        assert_eq!(tensor.to_vec1::<i16>().unwrap(), [-1, 1]);
    }
}
