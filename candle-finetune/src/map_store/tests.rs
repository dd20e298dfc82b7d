use candle_core::{Device, Tensor};
use candle_resnet::plan::Precision;

use super::*;

fn key(name: &str) -> Key {
    Key::new("maps").with("name", name.as_bytes())
}

fn shape(rows: usize) -> MapShape {
    MapShape { rows, map: (2, 3, 1), precision: Precision::F32 }
}

/// Maps whose values name row and place.
fn maps(rows: &[usize]) -> Tensor {
    let values = rows.iter().flat_map(|&row| (0..6).map(move |place| (10 * row + place) as f32));
    Tensor::from_vec(values.collect(), (rows.len(), 2, 3, 1), &Device::Cpu).unwrap()
}

fn values(maps: &Tensor) -> Vec<f32> {
    maps.flatten_all().unwrap().to_vec1().unwrap()
}

fn write(store: &MapStore, name: &str, rows: usize) {
    let mut writer = store.create(&key(name), shape(rows)).unwrap();
    writer.write(&(0..rows).collect::<Vec<_>>(), &maps(&(0..rows).collect::<Vec<_>>())).unwrap();
    writer.finish().unwrap();
}

#[test]
fn rows_come_back_in_any_order_and_those_left_out_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let store = MapStore::new(folder.path(), 1000);
    for precision in Precision::ALL {
        let key = key(precision.name());
        assert!(store.find(&key).is_none());
        let mut writer = store.create(&key, MapShape { precision, ..shape(5) }).unwrap();
        writer.write(&[0, 1], &maps(&[0, 1])).unwrap();
        writer.write(&[4, 3], &maps(&[4, 3])).unwrap();
        assert!(store.find(&key).is_none(), "not before it is finished");
        writer.finish().unwrap();
        let found = store.find(&key).unwrap();
        assert_eq!([0, 1, 2, 3, 4, 5].map(|row| found.has(row)), [true, true, false, true, true, false]);
        assert_eq!(values(&found.maps(&[3, 0, 4]).unwrap()), values(&maps(&[3, 0, 4])));
    }
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = MapStore::new(folder.path(), 1000);
    let mut writer = store.create(&key("a"), shape(2)).unwrap();
    writer.write(&[0], &maps(&[0])).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = MapStore::new(folder.path(), 900); // A file of four rows takes 100 bytes and its header.
    for name in ["a", "b"] {
        write(&store, name, 4);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(store.find(&key("a")).is_some(), "which is a use of it");
    write(&store, "c", 20);
    let there = ["a", "b", "c"].map(|name| store.find(&key(name)).is_some());
    assert_eq!(there, [true, false, true]);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_goes() {
    let folder = tempfile::tempdir().unwrap();
    let store = MapStore::new(folder.path(), 1000);
    write(&store, "a", 4);
    assert!(store.has_room(shape(4), 0) && !store.has_room(shape(1 << 20), 0));
    let error = store.create(&key("b"), shape(1 << 20)).unwrap_err();
    assert_eq!(error.to_string(), "the maps take 25.17 MB and may take 1.00 kB");
    assert!(store.find(&key("a")).is_some());
    let vast = MapStore::new(folder.path(), u64::MAX);
    let error = vast.create(&key("b"), shape(1 << 50)).unwrap_err();
    assert!(matches!(error, MapStoreError::Space { .. }), "{error}");
    assert!(!vast.has_room(shape(1 << 50), 0));
    assert!(vast.has_room(shape(4), 1) && !vast.has_room(shape(4), 1 << 60), "others stay");
    assert!(store.find(&key("a")).is_some());
}

#[test]
fn whoever_asks_what_is_there_makes_a_key_only_where_a_file_is_as_long() {
    let folder = tempfile::tempdir().unwrap();
    let store = MapStore::new(folder.path().join("store"), 1000);
    assert!(!store.holds(shape(4), || unreachable!()));
    write(&store, "a", 4);
    assert!(store.holds(shape(4), || key("a")) && !store.holds(shape(4), || key("b")));
    assert!(!store.holds(shape(5), || unreachable!()));
}

#[test]
fn a_damaged_file_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = MapStore::new(folder.path(), 1000);
    write(&store, "a", 4);
    let path = store.path(&key("a"));
    let bytes = fs::read(&path).unwrap();
    for damaged in [&bytes[..bytes.len() - 1], &bytes[..20], b""] {
        fs::write(&path, damaged).unwrap();
        assert!(store.find(&key("a")).is_none());
        assert!(!path.exists());
    }
    fs::write(&path, &bytes).unwrap();
    assert!(store.find(&key("a")).is_some());
}

#[test]
fn every_part_of_a_key_counts_and_parts_do_not_run_into_one_another() {
    let keys = [
        Key::new("maps"),
        key("a"),
        key("b"),
        Key::new("maps").with("nam", b"ea"),
        key("a").with("name", b""),
        Key::new("maps").with("other", b"a"),
    ];
    let names: std::collections::BTreeSet<String> = keys.iter().map(Key::to_string).collect();
    assert_eq!(names.len(), keys.len());
    assert_eq!(key("a").to_string(), key("a").to_string());
}
