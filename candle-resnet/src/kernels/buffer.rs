//! Memory for maps and weights: begins at a cache line, since vectors that straddle two lines cost twice, and lies in large pages
//! where the system has them, since whoever streams weights crosses a page every 64 vectors otherwise.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::lanes::LANES;

const LINE: usize = 64;
const LARGE_PAGE: usize = 2 << 20;

/// Floats, zero at first; their number is rounded up to sixteens.
pub(crate) struct Buffer {
    start: NonNull<f32>,
    floats: usize,
}

// SAFETY: it owns plain floats.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn zeros(floats: usize) -> Buffer {
        let floats = floats.div_ceil(LANES).saturating_mul(LANES);
        if floats == 0 {
            return Buffer { start: NonNull::dangling(), floats };
        }
        let layout = Buffer::layout(floats);
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        ask_for_large_pages(start, layout.size()); // Before anything is written there.
        // SAFETY: the allocation is that long.
        unsafe { start.write_bytes(0, layout.size()) };
        Buffer { start: start.cast(), floats }
    }

    pub(crate) fn of(values: &[f32]) -> Buffer {
        let mut buffer = Buffer::zeros(values.len());
        buffer.as_mut_slice()[..values.len()].copy_from_slice(values);
        buffer
    }

    /// Makes room for `floats`; what was there may be lost.
    pub(crate) fn reserve(&mut self, floats: usize) {
        if self.floats < floats {
            *self = Buffer::zeros(floats);
        }
    }

    /// # Panics
    /// If there are more floats than any memory could hold.
    fn layout(floats: usize) -> Layout {
        let bytes = floats.saturating_mul(size_of::<f32>());
        let alignment = if bytes >= LARGE_PAGE { LARGE_PAGE } else { LINE };
        let layout = Layout::from_size_align(bytes, alignment);
        layout.unwrap_or_else(|_| panic!("{floats} floats are more than any memory holds"))
    }

    pub(crate) fn len(&self) -> usize {
        self.floats
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: the allocation holds that many floats, all of them written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.floats) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.floats) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.floats > 0 {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), Buffer::layout(self.floats)) }
        }
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
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

impl std::fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} floats", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_at_a_line_and_hold_zeros() {
        for floats in [1, 16, 17, 1000, 600_000] {
            let buffer = Buffer::zeros(floats);
            assert_eq!(buffer.as_slice().as_ptr().align_offset(LINE), 0);
            assert_eq!(buffer.len(), floats.next_multiple_of(LANES));
            assert!(buffer.as_slice().iter().all(|&value| value == 0.0));
        }
        assert!(Buffer::zeros(0).as_slice().is_empty());
    }

    #[test]
    #[should_panic(expected = "more than any memory holds")]
    fn a_length_that_no_memory_has_is_refused() {
        Buffer::zeros(usize::MAX - 100);
    }
}
