//! Where tests of networks and of training compute: on the CPU, or where `FINETUNE_TEST_DEVICE` says, on `cuda` or `metal`.

#![allow(dead_code)] // Each test program uses another part of it.

use std::sync::OnceLock;

use candle_core::Device;

/// What a GPU may be off by: it sums f32 in other orders than PyTorch's CPU, and convolves in other ways.
const ON_A_GPU: f64 = 1e-3;

/// The device's name, as `--device` takes it.
pub fn name() -> String {
    std::env::var("FINETUNE_TEST_DEVICE").unwrap_or_else(|_| "cpu".into())
}

/// The device, opened once: tensors of one that is opened twice do not go together.
pub fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| match name().as_str() {
        "cpu" => Device::Cpu,
        "cuda" => Device::new_cuda(0).unwrap(),
        "metal" => Device::new_metal(0).unwrap(),
        other => panic!("`FINETUNE_TEST_DEVICE` is `{other}`, expected cpu, cuda or metal"),
    })
}

/// What f32 may be off by on the device; `on_the_cpu` there.
pub fn tolerance(on_the_cpu: f64) -> f64 {
    if device().is_cpu() { on_the_cpu } else { on_the_cpu.max(ON_A_GPU) }
}
