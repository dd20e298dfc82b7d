//! One source for all instruction sets: a kernel is plain Rust that the compiler turns into vector instructions, compiled
//! on x86-64 for every processor, for those with AVX2 and for those with AVX-512. The widest is chosen at run time.
//!
//! On aarch64 the one version uses NEON, which all such processors have, as its assembly shows.
//! Results cannot differ: kernels compute with integers, and all versions come from the same lines.

/// Work whose inner loops gain from wide vectors.
///
/// `run` and what it calls in its loops must be `#[inline(always)]`: only what is inlined is compiled anew. That holds for
/// closures with large bodies too, which cannot be marked.
pub(super) trait Kernel {
    type Output;

    fn run(self) -> Self::Output;
}

/// A compiled version of a kernel.
type Version<K> = fn(K) -> <K as Kernel>::Output;

/// Runs the version for the widest vectors that this processor has.
pub(super) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    let widest = versions().next().unwrap_or(K::run);
    widest(kernel)
}

/// What this processor can run, from wide vectors to narrow.
#[cfg(target_arch = "x86_64")]
pub(super) fn versions<K: Kernel>() -> impl Iterator<Item = Version<K>> {
    let has_avx2 =
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2");
    let has_avx512 = has_avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let versions: [(bool, Version<K>); 3] = [
        // SAFETY: handed out only where the processor has said that it knows these instructions.
        (has_avx512, |kernel| unsafe { with_avx512(kernel) }),
        // SAFETY: likewise.
        (has_avx2, |kernel| unsafe { with_avx2(kernel) }),
        (true, K::run),
    ];
    versions.into_iter().filter(|(can_run, _)| *can_run).map(|(_, run)| run)
}

/// What this processor can run.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn versions<K: Kernel>() -> impl Iterator<Item = Version<K>> {
    std::iter::once(K::run as Version<K>)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512bw,avx512dq,avx512vl")]
fn with_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}
