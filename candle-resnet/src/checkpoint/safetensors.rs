//! safetensors → tensors by name.
//!
//! The header is parsed and validated by the `safetensors` crate; only element types and shapes are checked here.

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use candle_core::Tensor;

use super::Tensors;
use super::element::ElementType;
use super::error::Problem;

/// Reads a whole safetensors file.
pub(super) fn read(bytes: &[u8]) -> Result<Tensors, Problem> {
    refuse_cut_header(bytes)?;
    let file = SafeTensors::deserialize(bytes)?;
    file.iter().map(|(name, view)| Ok((name.to_owned(), tensor(name, &view)?))).collect()
}

/// The crate says only that the header's length is invalid; a cut download is by far the likeliest reason.
fn refuse_cut_header(bytes: &[u8]) -> Result<(), Problem> {
    let Some(length) = bytes.first_chunk() else {
        return Ok(());
    };
    let end = u64::from_le_bytes(*length).saturating_add(8);
    if end > bytes.len() as u64 {
        return Err(Problem::Truncated { part: "the header".to_owned(), end, length: bytes.len() });
    }
    Ok(())
}

fn tensor(name: &str, view: &TensorView<'_>) -> Result<Tensor, Problem> {
    match ElementType::of_safetensors(view.dtype()) {
        Some(element) => element.tensor(name, view.data(), view.shape()),
        None => Err(Problem::unsupported_element(name, &format!("{:?}", view.dtype()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn a_shape_whose_strides_overflow_is_refused() {
        let header =
            r#"{"x":{"dtype":"F32","shape":[0,4611686018427387904,4611686018427387904],"data_offsets":[0,0]}}"#;
        assert!(matches!(read(&file(header, &[])), Err(Problem::MalformedTensor { .. })));
    }

    #[test]
    fn a_cut_header_is_called_truncated() {
        let bytes = file(r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, &[7]);
        assert!(matches!(read(&bytes[..20]), Err(Problem::Truncated { end: 61, length: 20, .. })));
    }

    #[test]
    fn cut_data_are_an_error() {
        let bytes = file(r#"{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#, &[7]);
        assert!(matches!(read(&bytes), Err(Problem::Safetensors(_))));
    }

    #[test]
    fn complex_elements_are_named_in_the_error() {
        let bytes = file(r#"{"x":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#, &[0; 8]);
        let message = read(&bytes).unwrap_err().to_string();
        assert_eq!(message, "tensor `x` has elements of type `complex64`, which are not supported");
    }
}
