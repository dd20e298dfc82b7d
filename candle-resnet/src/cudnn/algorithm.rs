//! Which of cuDNN's algorithms computes a convolution or a gradient of it.

use candle_core::cuda_backend::cudarc::cudnn::{CudnnError, sys};

/// The algorithms of a convolution, or of one of its gradients.
pub(super) trait Algorithm: Copy + PartialEq + 'static {
    /// Those that add in one order, so that the same input gives the same bits; the one to prefer first.
    const IN_ORDER: &'static [Self];
}

impl Algorithm for sys::cudnnConvolutionFwdAlgo_t {
    const IN_ORDER: &'static [Self] = &[
        Self::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
        Self::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
        Self::CUDNN_CONVOLUTION_FWD_ALGO_GEMM,
        Self::CUDNN_CONVOLUTION_FWD_ALGO_DIRECT,
        Self::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD,
        Self::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED,
        Self::CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING,
        Self::CUDNN_CONVOLUTION_FWD_ALGO_FFT,
    ];
}

/// All but `ALGO_0`.
impl Algorithm for sys::cudnnConvolutionBwdDataAlgo_t {
    const IN_ORDER: &'static [Self] = &[
        Self::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
        Self::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD,
        Self::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED,
        Self::CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING,
        Self::CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT,
    ];
}

/// All but `ALGO_0`, `ALGO_3`, and `WINOGRAD`, which there is by name alone.
impl Algorithm for sys::cudnnConvolutionBwdFilterAlgo_t {
    const IN_ORDER: &'static [Self] = &[
        Self::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
        Self::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
        Self::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING,
        Self::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT,
    ];
}

/// An algorithm and the bytes of scratch that it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen<A> {
    pub(super) algorithm: A,
    pub(super) workspace: usize,
}

impl<A: Algorithm> Chosen<A> {
    /// The preferred one; where there is no such thing for these shapes, what cuDNN would take if that adds in one order, else another that
    /// does, and what cuDNN would take only where there is none.
    ///
    /// # Errors
    /// If cuDNN has nothing.
    pub(super) fn new(
        own: impl FnOnce() -> Result<A, CudnnError>,
        workspace: impl Fn(A) -> Result<usize, CudnnError>,
    ) -> Result<Chosen<A>, CudnnError> {
        let chosen = |algorithm| workspace(algorithm).map(|workspace| Chosen { algorithm, workspace });
        let (preferred, others) = (&A::IN_ORDER[..1], &A::IN_ORDER[1..]);
        let first_of = |algorithms: &[A]| algorithms.iter().find_map(|&algorithm| chosen(algorithm).ok());
        if let Some(found) = first_of(preferred) {
            return Ok(found);
        }
        let own = own();
        let own_in_order = own.iter().copied().find(|own| A::IN_ORDER.contains(own));
        match own_in_order.and_then(|own| chosen(own).ok()).or_else(|| first_of(others)) {
            Some(found) => Ok(found),
            None => chosen(own?),
        }
    }

    /// Whether the same input gives the same bits.
    pub(super) fn adds_in_one_order(&self) -> bool {
        A::IN_ORDER.contains(&self.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use sys::cudnnConvolutionBwdFilterAlgo_t as Filter;

    use super::*;

    const NOT_THERE: CudnnError = CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED);
    const PREFERRED: Filter = Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
    const OTHER: Filter = Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED;
    const LAST: Filter = Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT;
    const VARYING: Filter = Filter::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3;

    /// What is chosen where there are some algorithms, of which cuDNN would take one.
    fn chosen(there: &[Filter], own: Result<Filter, CudnnError>) -> Result<Filter, CudnnError> {
        let workspace = |algorithm| if there.contains(&algorithm) { Ok(7) } else { Err(NOT_THERE) };
        Chosen::new(|| own, workspace).map(|chosen| {
            assert_eq!(chosen.workspace, 7);
            assert_eq!(chosen.adds_in_one_order(), chosen.algorithm != VARYING);
            chosen.algorithm
        })
    }

    #[test]
    fn what_adds_in_one_order_goes_before_what_cudnn_would_take() {
        for (there, own, expected) in [
            (&[VARYING, LAST, OTHER, PREFERRED][..], Ok(LAST), Ok(PREFERRED)),
            (&[VARYING, LAST, OTHER], Ok(LAST), Ok(LAST)),
            (&[VARYING, LAST, OTHER], Ok(VARYING), Ok(OTHER)),
            (&[VARYING, LAST], Err(NOT_THERE), Ok(LAST)),
            (&[VARYING], Ok(VARYING), Ok(VARYING)),
            (&[], Err(NOT_THERE), Err(NOT_THERE)),
        ] {
            assert_eq!(chosen(there, own), expected, "{there:?} {own:?}");
        }
    }
}
