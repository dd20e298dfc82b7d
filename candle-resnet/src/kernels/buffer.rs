//! Memory for maps and weights: begins at a cache line, since vectors that straddle two lines cost twice, and lies in large pages
//! where the system has them, since whoever streams weights crosses a page every 64 vectors otherwise.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::lanes::LANES;
use super::stored::Stored;

const LINE: usize = 64;
const LARGE_PAGE: usize = 2 << 20;

/// Values, zero at first; their number is rounded up to sixteens.
pub(crate) struct Buffer<S = f32> {
    start: NonNull<S>,
    length: usize,
    /// What was allocated, somewhat before the start.
    allocation: NonNull<u8>,
}

// SAFETY: it owns plain values.
unsafe impl<S: Stored> Send for Buffer<S> {}
// SAFETY: as above; shared references only read.
unsafe impl<S: Stored> Sync for Buffer<S> {}

impl<S: Stored> Buffer<S> {
    pub(crate) fn zeros(length: usize) -> Buffer<S> {
        let length = length.div_ceil(LANES).saturating_mul(LANES);
        if length == 0 {
            return Buffer { start: NonNull::dangling(), length, allocation: NonNull::dangling() };
        }
        let layout = layout::<S>(length);
        // The system's memory is zero at first: whoever writes to a page first, maybe one of several threads, makes it so.
        // SAFETY: the layout is not empty.
        let Some(allocation) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        // SAFETY: the allocation is longer than what is asked for by as much as this can be.
        let start = unsafe { allocation.add(allocation.align_offset(alignment::<S>(length))) };
        ask_for_large_pages(start, length * size_of::<S>());
        Buffer { start: start.cast(), length, allocation }
    }

    pub(crate) fn of(values: &[S]) -> Buffer<S> {
        let mut buffer = Buffer::zeros(values.len());
        buffer.as_mut_slice()[..values.len()].copy_from_slice(values);
        buffer
    }

    /// Makes room for `length` values; what was there may be lost.
    pub(crate) fn reserve(&mut self, length: usize) {
        if self.length < length {
            *self = Buffer::zeros(length);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn as_slice(&self) -> &[S] {
        // SAFETY: the allocation holds that many values, all of them written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [S] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

/// Where values of such a number begin.
fn alignment<S>(length: usize) -> usize {
    if length.saturating_mul(size_of::<S>()) >= LARGE_PAGE { LARGE_PAGE } else { LINE }
}

/// Room to begin anywhere: memory that must lie in a certain way is not given out as zeros without being written.
///
/// # Panics
/// If there are more values than any memory could hold.
fn layout<S>(length: usize) -> Layout {
    let bytes = length.saturating_mul(size_of::<S>()).saturating_add(alignment::<S>(length));
    let layout = Layout::from_size_align(bytes, align_of::<S>());
    layout.unwrap_or_else(|_| panic!("{length} values are more than any memory holds"))
}

/// Floats that have room for `length` values.
pub(super) fn floats_for<S>(length: usize) -> usize {
    (length * size_of::<S>()).div_ceil(size_of::<f32>())
}

/// The memory of floats, for values of another kind.
pub(super) fn view<S: Stored>(floats: &[f32]) -> &[S] {
    let length = size_of_val(floats) / size_of::<S>();
    // SAFETY: as long; a float is aligned as any stored value must be, and any bits are one.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), length) }
}

/// As [`view`].
pub(super) fn view_mut<S: Stored>(floats: &mut [f32]) -> &mut [S] {
    let length = size_of_val(floats) / size_of::<S>();
    // SAFETY: as above, and borrowed mutably.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), length) }
}

impl<S> Drop for Buffer<S> {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.allocation.as_ptr(), layout::<S>(self.length)) }
        }
    }
}

impl<S: Stored> Default for Buffer<S> {
    fn default() -> Buffer<S> {
        Buffer::zeros(0)
    }
}

/// A hint: whatever comes of it, the memory is the same.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(start: NonNull<u8>, bytes: usize) {
    if bytes >= LARGE_PAGE {
        // SAFETY: the range is one of our own allocations; the advice changes no value.
        unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: NonNull<u8>, _: usize) {}

impl<S: Stored> std::fmt::Debug for Buffer<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} values", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_at_a_line_and_hold_zeros() {
        for floats in [1, 16, 17, 1000, 600_000] {
            let buffer = Buffer::<f32>::zeros(floats);
            assert_eq!(buffer.as_slice().as_ptr().align_offset(LINE), 0);
            assert_eq!(buffer.len(), floats.next_multiple_of(LANES));
            assert!(buffer.as_slice().iter().all(|&value| value == 0.0));
        }
        assert!(Buffer::<f32>::zeros(0).as_slice().is_empty());
    }

    #[test]
    #[should_panic(expected = "more than any memory holds")]
    fn a_length_that_no_memory_has_is_refused() {
        Buffer::<f32>::zeros(usize::MAX - 100);
    }
}
