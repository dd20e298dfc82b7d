//! Both forms of every network against PyTorch's logits and features.
//!
//! Weights and inputs come from a formula, so no weight file is stored; `scripts/golden/` says how the rows were made.

mod device;

use candle_resnet::architecture::Architecture;
use candle_resnet::blueprint::Blueprint;
use candle_resnet::certificate::{Difference, NetworkOutputs, NetworkReference};

use self::device::{device, tolerance};

/// Of the largest magnitude in the row, on the CPU.
const TOLERANCE: f64 = 1e-4;

/// Too much memory and time for a test that always runs.
fn is_large(row: &NetworkReference) -> bool {
    row.parameters > 30_000_000
}

fn built_in(source: &str) -> impl Iterator<Item = NetworkReference> {
    NetworkReference::built_in().into_iter().filter(move |row| row.source == source)
}

/// The network and the input as the first columns of a table.
fn describe(row: &NetworkReference, architecture: &Architecture) -> String {
    let multiply_adds = Blueprint::of(architecture).multiply_adds(row.classes, 224);
    let options = match (row.output_stride, &row.global_pool) {
        (None, None) => String::new(),
        (stride, pool) => format!(", stride {}, {}", stride.unwrap_or(32), pool.as_deref().unwrap_or("avg")),
    };
    format!(
        "| {} | {}{options} | {:.2} | {:.2} | {} | {}×{}",
        row.source,
        row.model,
        row.parameters as f64 / 1e6,
        multiply_adds as f64 / 1e9,
        row.feature_dim,
        row.input[2],
        row.input[3]
    )
}

fn check_row(row: &NetworkReference) {
    let architecture = row.architecture().unwrap();
    let blueprint = Blueprint::of(&architecture);
    let counts = (blueprint.parameter_count(row.classes), blueprint.parameters(row.classes).len());
    assert_eq!(counts, (row.parameters, row.tensors), "{}", row.model);
    assert_eq!(architecture.feature_width(), row.feature_dim, "{}", row.model);

    let outputs = NetworkOutputs::compute(row, &architecture, device()).unwrap();
    let difference = row.compare(&outputs).unwrap();
    for (form, difference) in [("network", difference.trainable), ("trunk", difference.frozen)] {
        assert!(difference.passes(tolerance(TOLERANCE)), "the {form} of {} {:?}: {difference:?}", row.model, row.input);
    }
    let columns = |Difference { logits, features, .. }: Difference| format!("{logits:.1e} | {features:.1e}");
    // scripts/golden/make_table.sh reads these lines.
    let (trainable, frozen) = (columns(difference.trainable), columns(difference.frozen));
    println!("{} | {trainable} | {frozen} |", describe(row, &architecture));
}

fn check_rows(lines: &str) {
    NetworkReference::parse(lines).unwrap().iter().for_each(check_row);
}

#[test]
fn torchvisions_networks_compute_what_pytorch_computes() {
    built_in("torchvision").for_each(|row| check_row(&row));
}

#[test]
fn odd_sizes_and_batches_compute_what_pytorch_computes() {
    check_rows(include_str!("golden/torchvision_odd_sizes.jsonl"));
}

#[test]
fn cifar_networks_compute_what_pytorch_computes() {
    built_in("paper").for_each(|row| check_row(&row));
}

#[test]
fn timms_networks_compute_what_timm_computes() {
    built_in("timm").filter(|row| !is_large(row)).for_each(|row| check_row(&row));
}

/// Needs some gigabytes of memory and minutes.
#[test]
#[ignore = "large networks: run by scripts/check_real_data.sh"]
fn timms_large_networks_compute_what_timm_computes() {
    built_in("timm").filter(is_large).for_each(|row| check_row(&row));
}

#[test]
fn odd_sizes_dilation_and_pools_compute_what_timm_computes() {
    check_rows(include_str!("golden/timm_variants.jsonl"));
}

#[test]
fn adapted_first_convolutions_compute_what_timm_computes() {
    check_rows(include_str!("golden/timm_channels.jsonl"));
}

#[test]
fn timms_networks_and_the_one_it_has_no_function_for_are_all_there() {
    assert_eq!(built_in("timm").count(), 82);
}
