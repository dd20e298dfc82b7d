//! Memory for tests whose last value is followed by a page that nobody may touch.

use std::ops::{Deref, DerefMut};

use super::stored::Stored;

#[cfg(target_os = "linux")]
pub(super) struct Guarded<S = f32> {
    start: *mut S,
    length: usize,
    mapping: *mut libc::c_void,
    bytes: usize,
}

#[cfg(target_os = "linux")]
impl<S: Stored> Guarded<S> {
    pub(super) fn zeros(length: usize) -> Guarded<S> {
        // On ARM a page may have 16 or 64 KiB.
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let used = (length * size_of::<S>()).next_multiple_of(page);
        let bytes = used + page;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping; its last page is closed, the values end where it begins.
        unsafe {
            let mapping = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
            assert_ne!(mapping, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(mapping.add(used), page, libc::PROT_NONE), 0);
            let start = mapping.cast::<S>().add(used / size_of::<S>() - length);
            Guarded { start, length, mapping, bytes }
        }
    }
}

#[cfg(target_os = "linux")]
impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `zeros`.
        unsafe { libc::munmap(self.mapping, self.bytes) };
    }
}

#[cfg(target_os = "linux")]
impl<S> Deref for Guarded<S> {
    type Target = [S];

    fn deref(&self) -> &[S] {
        // SAFETY: that many values were mapped, zero at first.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

#[cfg(target_os = "linux")]
impl<S> DerefMut for Guarded<S> {
    fn deref_mut(&mut self) -> &mut [S] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

/// Elsewhere, ordinary memory.
#[cfg(not(target_os = "linux"))]
pub(super) struct Guarded<S = f32>(Vec<S>);

#[cfg(not(target_os = "linux"))]
impl<S: Stored> Guarded<S> {
    pub(super) fn zeros(length: usize) -> Guarded<S> {
        Guarded(vec![S::default(); length])
    }
}

#[cfg(not(target_os = "linux"))]
impl<S> Deref for Guarded<S> {
    type Target = [S];

    fn deref(&self) -> &[S] {
        &self.0
    }
}

#[cfg(not(target_os = "linux"))]
impl<S> DerefMut for Guarded<S> {
    fn deref_mut(&mut self) -> &mut [S] {
        &mut self.0
    }
}

impl<S: Stored> Guarded<S> {
    pub(super) fn of(values: &[S]) -> Guarded<S> {
        let mut guarded = Guarded::zeros(values.len());
        guarded.copy_from_slice(values);
        guarded
    }
}
