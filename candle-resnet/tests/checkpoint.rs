//! Weights files that PyTorch wrote, and broken ones, read through the public interface.
//!
//! The files come from `scripts/make_checkpoints.py`; each is compared with a safetensors twin.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use candle_resnet::architecture::Architecture;
use candle_resnet::blueprint::Blueprint;
use candle_resnet::checkpoint::{self, Problem, Tensors};
use candle_resnet::layout::Placement;
use zip::write::SimpleFileOptions;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints").join(name)
}

fn read(name: &str) -> Tensors {
    checkpoint::read(&fixture(name)).unwrap()
}

fn problem(bytes: &[u8]) -> Problem {
    checkpoint::read_bytes(bytes).unwrap_err()
}

fn error(name: &str) -> checkpoint::CheckpointError {
    checkpoint::read(&fixture(name)).unwrap_err()
}

/// Names, shapes, element types and every bit: safetensors bytes have them all.
fn assert_same(found: &Tensors, expected: &Tensors) {
    let serialised = |tensors: &Tensors| safetensors::serialize(tensors, None).unwrap();
    let described = |tensors: &Tensors| {
        tensors.iter().map(|(name, tensor)| format!("{name} {:?} {:?}", tensor.dtype(), tensor.dims())).collect()
    };
    let (found_list, expected_list): (Vec<String>, Vec<String>) = (described(found), described(expected));
    assert_eq!(found_list, expected_list);
    assert!(serialised(found) == serialised(expected), "values differ");
}

#[test]
fn every_form_of_a_file_equals_its_safetensors_twin() {
    for twin in ["network", "dtypes", "views", "parameters", "trainer"] {
        let expected = read(&format!("{twin}.safetensors"));
        assert_same(&read(&format!("{twin}_zip.pth")), &expected);
        assert_same(&read(&format!("{twin}_legacy.pth")), &expected);
    }
}

#[test]
fn protocol_compression_and_byte_order_do_not_change_the_values() {
    let expected = read("network.safetensors");
    for name in ["protocol5_zip.pth", "protocol5_legacy.pth", "network_deflated.pth", "network_big_endian.pth"] {
        assert_same(&read(name), &expected);
    }
}

#[test]
fn values_are_those_of_the_formula() {
    let tensors = read("network_legacy.pth");
    let weight = tensors["fc.weight"].to_vec2::<f32>().unwrap();
    assert_eq!(weight, [[-12.5, -3.25], [6.0, -10.0], [-0.75, 8.5]]);
}

#[test]
fn what_a_training_script_saved_gets_torchvisions_names() {
    let mut expected = read("network.safetensors");
    expected.remove("bn1.num_batches_tracked");
    let tensors = read("trainer_legacy.pth");
    let network = Blueprint::of(Architecture::named("resnet18").unwrap());
    let placement = Placement::find(tensors.keys().map(String::as_str), &network).unwrap();
    assert_eq!(placement.prefix, "module.");
    assert_same(&placement.apply(tensors).tensors, &expected);
}

#[test]
fn code_beside_the_weights_is_not_run() {
    for name in ["malicious_zip.pth", "malicious_legacy.pth"] {
        assert_same(&read(name), &read("network.safetensors"));
    }
    assert!(!Path::new("checkpoint-ran-code").exists());
}

#[test]
fn code_in_place_of_the_weights_is_named_and_not_run() {
    for name in ["only_code_zip.pth", "only_code_legacy.pth"] {
        let message = error(name).to_string();
        assert!(message.ends_with("holds an object of `posix.system`, expected a dictionary of tensors"), "{message}");
    }
    assert!(!Path::new("checkpoint-ran-code").exists());
}

#[test]
fn a_whole_network_is_refused_with_the_way_out() {
    for name in ["whole_module_zip.pth", "whole_module_legacy.pth"] {
        let error = error(name);
        assert!(error.to_string().contains(name) && error.to_string().contains("`__main__.Net`"), "{error}");
        assert!(error.hint().unwrap().contains("state_dict()"));
    }
}

#[test]
fn torchscript_and_the_tar_form_are_called_what_they_are() {
    assert!(matches!(error("torchscript.pt").problem(), Problem::TorchScript { .. }));
    assert!(matches!(error("old_tar.pth").problem(), Problem::TarForm));
}

#[test]
fn what_is_no_file_is_called_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let problem = |path: &Path| checkpoint::read(path).unwrap_err().to_string();
    assert!(problem(folder.path()).ends_with("is a folder, expected a file"));
    let empty = folder.path().join("empty.pth");
    std::fs::write(&empty, b"").unwrap();
    assert!(problem(&empty).ends_with("empty.pth`: is empty"));
    assert!(problem(&folder.path().join("absent.pth")).contains("absent.pth`: "));
}

#[test]
fn a_pointer_in_place_of_a_file_is_refused_by_name_and_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n").unwrap();
    let error = checkpoint::read(&path).unwrap_err();
    assert!(error.to_string().ends_with("model.safetensors`: is a git-lfs pointer, not weights"));
    assert!(error.hint().unwrap().contains("git lfs pull"));
}

#[cfg(unix)]
#[test]
fn a_device_is_refused_and_not_read() {
    let error = checkpoint::read(Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(error.problem(), Problem::NotAFile));
}

#[test]
fn no_beginning_of_a_file_is_taken_for_the_whole() {
    for name in ["network.safetensors", "network_zip.pth", "network_legacy.pth", "views_legacy.pth", "trainer_zip.pth"]
    {
        let bytes = std::fs::read(fixture(name)).unwrap();
        for length in 0..bytes.len() {
            assert!(checkpoint::read_bytes(&bytes[..length]).is_err(), "{name} cut at {length}");
        }
    }
}

#[test]
fn truncated_weights_say_where_they_end() {
    let mut bytes = std::fs::read(fixture("network_legacy.pth")).unwrap();
    let length = bytes.len();
    bytes.truncate(length - 1);
    let expected = format!("ends at byte {length}, the file at byte {}", length - 1);
    assert!(problem(&bytes).to_string().contains(&expected));
    assert!(problem(&bytes).hint().unwrap().contains("fetch the file again"));
}

#[test]
fn a_flipped_bit_in_stored_elements_is_found() {
    let mut bytes = std::fs::read(fixture("network_zip.pth")).unwrap();
    let bias = (-12.5f32).to_le_bytes(); // every tensor of the formula begins with it
    let at = bytes.windows(4).position(|window| window == bias).unwrap();
    bytes[at] ^= 1;
    assert!(problem(&bytes).to_string().starts_with("is a broken zip archive: entry `network_zip/data/"));
}

#[test]
fn zip_archives_of_other_things_are_refused() {
    assert!(matches!(problem(&archive(&[("weights.npy", b"")])), Problem::NoPickle));
}

#[test]
fn a_byte_order_that_does_not_exist_is_refused() {
    let bytes = archive(&[("a/data.pkl", b"}."), ("a/byteorder", b"middle")]);
    assert_eq!(problem(&bytes).to_string(), "has byte order `middle`, expected `little` or `big`");
}

#[test]
fn a_zip_bomb_is_refused() {
    let zeros = vec![0; 32 << 20];
    let pickle = tensor_pickle("FloatStorage", &[2], &[1]);
    let bomb = archive(&[("a/data.pkl", &pickle), ("a/data/0", &zeros)]);
    assert!(bomb.len() < 64 << 10);
    assert!(matches!(problem(&bomb), Problem::TooMuchData { .. }));
    assert!(matches!(problem(&archive(&[("a/data.pkl", &zeros)])), Problem::TooMuchData { .. }));
}

#[test]
fn a_tensor_larger_than_its_storage_is_refused_with_both_sizes() {
    let bytes = legacy(&tensor_pickle("FloatStorage", &[3, 2], &[2, 1]), 2, &[0; 8]);
    assert_eq!(problem(&bytes).to_string(), "tensor `x` wants 6 elements of storage `0`, which has 2");
}

#[test]
fn one_element_repeated_without_end_is_refused() {
    let bytes = legacy(&tensor_pickle("FloatStorage", &[30_000, 30_000], &[0, 0]), 1, &[0; 4]);
    assert!(matches!(problem(&bytes), Problem::TooMuchData { .. }));
    let bytes = legacy(&tensor_pickle("FloatStorage", &[i32::MAX; 3], &[0; 3]), 1, &[0; 4]);
    assert_eq!(problem(&bytes).to_string(), "tensor `x`: its size overflows");
}

#[test]
fn negative_sizes_and_counts_are_refused() {
    let bytes = legacy(&tensor_pickle("FloatStorage", &[-1], &[1]), 1, &[0; 4]);
    assert_eq!(problem(&bytes).to_string(), "tensor `x`: its size or stride is negative");
    let bytes = legacy(&tensor_pickle("FloatStorage", &[1], &[1]), -1, &[0; 4]);
    assert_eq!(problem(&bytes).to_string(), "has a broken list of storages: storage `0` has -1 elements");
}

#[test]
fn a_count_beyond_the_file_is_truncation() {
    let bytes = legacy(&tensor_pickle("FloatStorage", &[1], &[1]), i64::MAX / 4, &[0; 4]);
    assert!(matches!(problem(&bytes), Problem::Truncated { .. }));
}

#[test]
fn complex_weights_are_refused_by_name() {
    let bytes = legacy(&tensor_pickle("ComplexFloatStorage", &[1], &[1]), 1, &[0; 8]);
    assert_eq!(problem(&bytes).to_string(), "tensor `x` has elements of type `complex64`, which are not supported");
}

#[test]
fn a_missing_storage_is_named() {
    let bytes = archive(&[("a/data.pkl", &tensor_pickle("FloatStorage", &[1], &[1]))]);
    assert_eq!(problem(&bytes).to_string(), "tensor `x` wants storage `0`, which the file does not have");
}

#[test]
fn a_dictionary_without_tensors_lists_what_it_has() {
    let bytes = archive(&[("a/data.pkl", b"}X\x05\0\0\0epochK\x01s.")]);
    assert_eq!(problem(&bytes).to_string(), "holds no tensors by name; it has `epoch`");
    assert!(problem(&bytes).hint().unwrap().contains("state_dict()"));
}

/// Lengths of the tensors in a checkpoint whose entries are networks of one tensor, `x`, of these lengths.
fn lengths(networks: &[(&str, i32)]) -> Result<Vec<usize>, Problem> {
    let network = |length| dictionary(&[("x", tensor("FloatStorage", &[length], &[1]))]);
    let mut entries: Vec<_> = networks.iter().map(|&(key, length)| (key, network(length))).collect();
    entries.extend([("epoch", b"K\x01".to_vec()), ("args", dictionary(&[("lr", b"K\x01".to_vec())]))]);
    let bytes = legacy(&pickle_of(&dictionary(&entries)), 3, &[0; 12]);
    Ok(checkpoint::read_bytes(&bytes)?.values().map(|tensor| tensor.elem_count()).collect())
}

#[test]
fn of_weights_and_their_average_the_average_is_read() {
    assert_eq!(lengths(&[("state_dict", 2), ("state_dict_ema", 3)]).unwrap(), [3]);
    assert_eq!(lengths(&[("model_ema", 3), ("model", 2)]).unwrap(), [3]);
    assert_eq!(lengths(&[("state_dict", 2)]).unwrap(), [2]);
}

#[test]
fn an_average_of_fewer_tensors_is_none_of_the_weights() {
    let network = |names: &[&str]| {
        let tensors: Vec<_> = names.iter().map(|name| (*name, tensor("FloatStorage", &[2], &[1]))).collect();
        dictionary(&tensors)
    };
    let inside = |network| dictionary(&[("state_dict", network)]);
    let (weights, counted) = (network(&["x", "y"]), network(&["x", "y", "bn.num_batches_tracked"]));
    for (model, average, expected) in [
        (weights.clone(), network(&["num_updates"]), "x y"),
        (inside(weights.clone()), network(&["num_updates"]), "x y"),
        (weights, inside(network(&["a", "b"])), "a b"),
        (counted, network(&["a", "b"]), "a b"),
    ] {
        let bytes = legacy(&pickle_of(&dictionary(&[("model", model), ("model_ema", average)])), 3, &[0; 12]);
        let names: Vec<String> = checkpoint::read_bytes(&bytes).unwrap().into_keys().collect();
        assert_eq!(names.join(" "), expected);
    }
}

#[test]
fn the_only_network_is_found_under_any_key() {
    assert_eq!(lengths(&[("my_net", 2)]).unwrap(), [2]);
    assert_eq!(lengths(&[("student", 3), ("model", 2)]).unwrap(), [2]);
    let problem = lengths(&[("student", 2), ("teacher", 2)]).unwrap_err();
    assert_eq!(problem.to_string(), "holds no tensors by name; it has `student`, `teacher`, `epoch`, `args`");
}

#[test]
fn a_pickle_of_something_else_is_refused() {
    assert!(matches!(problem(b"\x80\x04K\x01."), Problem::NotTorchSave));
}

#[test]
fn an_unknown_opcode_is_told_with_its_place() {
    let bytes = archive(&[("a/data.pkl", b"}\xff")]);
    assert_eq!(problem(&bytes).to_string(), "is a broken pickle at byte 1: unknown opcode 0xff");
}

/// A zip archive with deflated entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated))
            .unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The pickle of `{"x": tensor}` with storage `0`.
fn tensor_pickle(storage: &str, size: &[i32], stride: &[i32]) -> Vec<u8> {
    pickle_of(&dictionary(&[("x", tensor(storage, size, stride))]))
}

fn pickle_of(object: &[u8]) -> Vec<u8> {
    [object, b"."].concat()
}

fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().map(|(key, value)| [&text(key)[..], value, b"s"].concat());
    [vec![b'}'], entries.collect::<Vec<_>>().concat()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A view of storage `0`.
fn tensor(storage: &str, size: &[i32], stride: &[i32]) -> Vec<u8> {
    let tuple = |numbers: &[i32]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| [&b"J"[..], &number.to_le_bytes()].concat()).collect();
        [b"(", &numbers[..], b"t"].concat()
    };
    [
        &b"ctorch._utils\n_rebuild_tensor_v2\n(("[..],
        &text("storage"),
        format!("ctorch\n{storage}\n").as_bytes(),
        &text("0"),
        &text("cpu"),
        b"K\x01NtQK\x00",
        &tuple(size),
        &tuple(stride),
        b"\x89}tR",
    ]
    .concat()
}

/// A file of before PyTorch 1.6 with one storage, `0`.
fn legacy(pickle: &[u8], count: i64, data: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    [magic, &b"\x80\x02M\xe9\x03.}."[..], pickle, b"](X\x01\0\0\x000e.", &count.to_le_bytes(), data].concat()
}
