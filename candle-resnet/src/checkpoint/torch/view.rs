//! Offset, size and strides over a storage → contiguous elements.

use std::borrow::Cow;

use crate::checkpoint::element::element_count;
use crate::checkpoint::pickle::{Object, ObjectId, Pickle, TensorParts, Value};

/// More dimensions than any tensor has; PyTorch itself allows 64.
const MOST_DIMENSIONS: usize = 64;

/// A checked description of which elements of a storage a tensor has.
#[derive(Debug, PartialEq)]
pub(super) struct View {
    offset: usize,
    /// Row-major, outermost dimension first.
    pub(super) size: Vec<usize>,
    /// Elements from one index to the next, per dimension.
    stride: Vec<usize>,
    /// How many elements the tensor has.
    pub(super) count: usize,
    /// How many elements the storage must have.
    pub(super) end: usize,
}

type Reason = &'static str;

impl View {
    /// The view that a pickle describes.
    pub(super) fn of(pickle: &Pickle<'_>, parts: &TensorParts) -> Result<Self, Reason> {
        let offset = usize::try_from(parts.offset).map_err(|_| "its storage offset is negative")?;
        Self::new(offset, numbers(pickle, parts.size)?, numbers(pickle, parts.stride)?)
    }

    fn new(offset: usize, size: Vec<usize>, mut stride: Vec<usize>) -> Result<Self, Reason> {
        if size.len() != stride.len() {
            return Err("it has not one stride per dimension");
        }
        ignore_strides_of_one(&size, &mut stride);
        let count = element_count(&size).ok_or("its size overflows")?;
        let end = if count == 0 { 0 } else { end(offset, &size, &stride).ok_or("its strides overflow")? };
        Ok(Self { offset, size, stride, count, end })
    }

    /// The tensor's elements of `width` bytes each, in row-major order.
    ///
    /// `storage` must hold at least [`View::end`] elements. Borrowed where the view is contiguous.
    pub(super) fn gather<'a>(&self, storage: &'a [u8], width: usize) -> Cow<'a, [u8]> {
        if self.count == 0 {
            return Cow::Borrowed(&[]);
        }
        match self.is_contiguous() {
            true => Cow::Borrowed(elements(storage, self.offset, self.count, width)),
            false => Cow::Owned(self.gather_strided(storage, width)),
        }
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.size.iter().zip(&self.stride).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size; // a product of sizes, so at most `count`
            fits
        })
    }

    fn gather_strided(&self, storage: &[u8], width: usize) -> Vec<u8> {
        let mut gathered = Vec::with_capacity(self.count * width);
        let mut index = vec![0; self.size.len()];
        let mut at = self.offset;
        for _ in 0..self.count {
            gathered.extend_from_slice(elements(storage, at, 1, width));
            at = self.advance(&mut index, at);
        }
        gathered
    }

    /// Counts `index` up by one, last dimension first, and moves `at` with it.
    fn advance(&self, index: &mut [usize], mut at: usize) -> usize {
        for ((index, &size), &stride) in index.iter_mut().zip(&self.size).zip(&self.stride).rev() {
            *index += 1;
            at += stride;
            if *index < size {
                break;
            }
            at -= stride * size;
            *index = 0;
        }
        at
    }
}

/// A dimension of one is never stepped along; PyTorch writes any stride there.
fn ignore_strides_of_one(size: &[usize], stride: &mut [usize]) {
    for (stride, _) in stride.iter_mut().zip(size).filter(|(_, size)| **size == 1) {
        *stride = 0;
    }
}

/// Never out of range once `end` was checked; empty rather than a panic if it is.
fn elements(storage: &[u8], at: usize, count: usize, width: usize) -> &[u8] {
    storage.get(at * width..(at + count) * width).unwrap_or_default()
}

/// One more than the largest position that the view, which is not empty, touches.
fn end(offset: usize, size: &[usize], stride: &[usize]) -> Option<usize> {
    let reach = |end: usize, (&size, &stride): (&usize, &usize)| end.checked_add((size - 1).checked_mul(stride)?);
    size.iter().zip(stride).try_fold(offset.checked_add(1)?, reach)
}

fn numbers(pickle: &Pickle<'_>, id: ObjectId) -> Result<Vec<usize>, Reason> {
    let Some(Object::Tuple(numbers) | Object::List(numbers)) = pickle.object(id) else {
        return Err("its size or stride is no tuple");
    };
    if numbers.len() > MOST_DIMENSIONS {
        return Err("it has more than 64 dimensions");
    }
    numbers.iter().map(number).collect()
}

fn number(value: &Value<'_>) -> Result<usize, Reason> {
    match value {
        Value::Int(number) => usize::try_from(*number).map_err(|_| "its size or stride is negative"),
        _ => Err("its size or stride is no number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    fn gathered(offset: usize, size: &[usize], stride: &[usize], storage: &[u8]) -> Vec<u8> {
        View::new(offset, size.to_vec(), stride.to_vec()).unwrap().gather(storage, 1).into_owned()
    }

    #[test]
    fn strided_views_are_gathered_in_row_major_order() {
        let storage: Vec<u8> = (0..12).collect();
        assert_eq!(gathered(0, &[3, 2], &[1, 3], &storage), [0, 3, 1, 4, 2, 5]);
        assert_eq!(gathered(1, &[2, 2], &[6, 2], &storage), [1, 3, 7, 9]);
        assert_eq!(gathered(5, &[2, 3], &[0, 0], &storage), [5; 6]);
        assert_eq!(gathered(7, &[], &[], &storage), [7]);
    }

    #[test]
    fn the_stride_of_a_dimension_of_one_does_not_matter() {
        let view = View::new(0, vec![1, 3], vec![usize::MAX, 1]).unwrap();
        assert!(view.is_contiguous());
        assert_eq!(view.end, 3);
        assert_eq!(gathered(0, &[1, 2], &[usize::MAX, 2], &[1, 2, 3]), [1, 3]);
    }

    #[test]
    fn an_empty_view_wants_nothing_wherever_it_lies() {
        let view = View::new(1000, vec![0, 5], vec![5, 1]).unwrap();
        assert_eq!((view.count, view.end), (0, 0));
    }

    #[test]
    fn what_overflows_is_refused() {
        let huge = usize::MAX / 2;
        assert!(View::new(0, vec![huge, huge], vec![0, 0]).is_err());
        assert!(View::new(0, vec![3, 2], vec![huge, 1]).is_err());
        assert!(View::new(usize::MAX, vec![1], vec![1]).is_err());
        assert!(View::new(0, vec![2], vec![]).is_err());
    }

    proptest! {
        #[test]
        fn permuted_views_equal_candles(size in prop::collection::vec(1usize..5, 3), turn in 0usize..3) {
            let count: usize = size.iter().product();
            let storage: Vec<u8> = (0..count).map(|value| value as u8).collect();
            let tensor = Tensor::from_slice(&storage, size, &Device::Cpu).unwrap();
            let axes = [turn, (turn + 1) % 3, (turn + 2) % 3];
            let permuted = tensor.permute(axes).unwrap();
            let expected = permuted.flatten_all().unwrap().to_vec1::<u8>().unwrap();
            prop_assert_eq!(gathered(0, permuted.dims(), permuted.stride(), &storage), expected);
        }
    }
}
