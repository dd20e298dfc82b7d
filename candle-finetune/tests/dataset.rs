//! Every layout that is understood, and every way a folder can fail to be a dataset.

use std::{
    fs,
    path::{Path, PathBuf},
};

use candle_finetune::dataset::{
    Dataset, DatasetError, Examples, Finding, SplitName, Survey, images_below, scan, survey,
};
use tempfile::TempDir;

/// A folder with these files in it; a name that ends in `/` is an empty folder. The content is never looked at.
fn folder(names: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in names {
        let path = root.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"photo").unwrap();
        }
    }
    root
}

fn read(root: &TempDir) -> Dataset {
    scan(root.path()).unwrap_or_else(|error| panic!("{error}"))
}

/// The error's text without the temporary path, and its hint.
fn refusal(root: &TempDir) -> (String, String) {
    let error = scan(root.path()).expect_err("was accepted");
    (short(&error.to_string(), root.path()), error.hint().unwrap())
}

fn short(text: &str, root: &Path) -> String {
    text.replace(&root.display().to_string(), "DIR").replace('\\', "/")
}

/// `path label` below the root, of a split.
fn listed(dataset: &Dataset, split: SplitName) -> Vec<String> {
    let below = |path: &Path| path.strip_prefix(&dataset.root).unwrap().to_string_lossy().replace('\\', "/");
    dataset.split(split).iter().map(|sample| format!("{} {}", below(&sample.path), sample.label)).collect()
}

fn examples(root: &TempDir, names: &[&str]) -> Examples {
    Examples { count: names.len(), paths: names.iter().map(|name| root.path().join(name)).collect() }
}

#[test]
fn one_folder_per_class_is_a_training_set_sorted_by_name() {
    let root = folder(&["bees/2.jpg", "bees/1.JPG", "Wasps/a.webp", "ants/x.png", "ants/deep/er/y.png"]);
    let dataset = read(&root);
    assert_eq!(dataset.classes, ["Wasps", "ants", "bees"], "by code point, as in torchvision");
    assert_eq!(
        listed(&dataset, SplitName::Train),
        ["Wasps/a.webp 0", "ants/deep/er/y.png 1", "ants/x.png 1", "bees/1.JPG 2", "bees/2.jpg 2"]
    );
    assert_eq!(dataset.splits.len(), 1);
    assert_eq!(dataset.findings, []);
    dataset.check_for_training().unwrap();
}

#[test]
fn folders_that_all_bear_split_names_are_splits() {
    let root = folder(&["Training/a/1.png", "Training/b/1.png", "valid/b/2.png", "valid/a/2.png", "test/a/3.png"]);
    let dataset = read(&root);
    assert_eq!(dataset.classes, ["a", "b"]);
    assert_eq!(listed(&dataset, SplitName::Train), ["Training/a/1.png 0", "Training/b/1.png 1"]);
    assert_eq!(listed(&dataset, SplitName::Val), ["valid/a/2.png 0", "valid/b/2.png 1"]);
    assert_eq!(listed(&dataset, SplitName::Test), ["test/a/3.png 0"]);
    let missing = Finding::MissingClasses { split: SplitName::Test, classes: vec!["b".to_owned()] };
    assert_eq!(missing.to_string(), "no test images of `b`");
    assert_eq!(dataset.findings, [missing]);
}

#[test]
fn class_may_be_called_train() {
    let dataset = read(&folder(&["bus/1.png", "train/1.png", "tram/1.png"]));
    assert_eq!(dataset.classes, ["bus", "train", "tram"]);
    let split = read(&folder(&["train/train/1.png", "train/bus/1.png", "test/train/2.png", "test/bus/2.png"]));
    assert_eq!(split.classes, ["bus", "train"]);
    assert_eq!(listed(&split, SplitName::Test), ["test/bus/2.png 0", "test/train/2.png 1"]);
}

#[test]
fn split_names_over_images_are_classes_and_it_is_said() {
    let dataset = read(&folder(&["train/1.png", "val/1.png"]));
    assert_eq!(dataset.classes, ["train", "val"]);
    assert_eq!(dataset.split(SplitName::Train).len(), 2);
    let said = dataset.findings[0].to_string();
    assert_eq!(said, "`train`, `val` hold images, not class folders: they are taken as classes");
}

#[test]
fn clutter_is_passed_over_and_told() {
    let root = folder(&[
        ".DS_Store",
        "__MACOSX/._a",
        "readme.txt",
        "a/1.png",
        "a/Thumbs.db",
        "a/.ipynb_checkpoints/1-checkpoint.png",
        "a/notes.txt",
        "b/1.gif",
        "b/2.HEIC",
    ]);
    let dataset = read(&root);
    assert_eq!(dataset.classes, ["a", "b"]);
    assert_eq!(listed(&dataset, SplitName::Train), ["a/1.png 0", "b/1.gif 1"]);
    assert_eq!(
        dataset.findings,
        [
            Finding::Hidden(examples(&root, &[".DS_Store", "__MACOSX"])),
            Finding::StrayFiles(examples(&root, &["readme.txt"])),
            Finding::Hidden(examples(&root, &["a/.ipynb_checkpoints", "a/Thumbs.db"])),
            Finding::NotImages(examples(&root, &["a/notes.txt"])),
            Finding::Unsupported(examples(&root, &["b/2.HEIC"])),
            Finding::Gifs(examples(&root, &["b/1.gif"])),
        ]
    );
    let text = short(&dataset.findings[3].to_string(), root.path());
    assert_eq!(text, "passed over files that are no images: 1 (DIR/a/notes.txt)");
}

#[test]
fn names_with_spaces_and_other_scripts_are_classes() {
    let dataset = read(&folder(&["rote Ameise/bild 1.jpg", "蜂/写真.png", "Käfer/ä.jpg"]));
    assert_eq!(dataset.classes, ["Käfer", "rote Ameise", "蜂"]);
    assert_eq!(dataset.split(SplitName::Train).len(), 3);
}

#[test]
fn classes_that_differ_in_case_alone_are_told() {
    let root = folder(&["Cat/1.png", "dog/1.png"]);
    if root.path().join("cat").exists() {
        return; // This file system takes the two names for one.
    }
    fs::create_dir(root.path().join("cat")).unwrap();
    fs::write(root.path().join("cat/1.png"), b"photo").unwrap();
    let dataset = read(&root);
    assert_eq!(dataset.classes, ["Cat", "cat", "dog"]);
    assert_eq!(dataset.findings, [Finding::SameButForCase(vec!["Cat".to_owned(), "cat".to_owned()])]);
}

#[test]
fn class_in_other_characters_that_look_the_same_is_told() {
    let root = folder(&["train/caf\u{e9}/a.png", "train/tea/a.png", "val/cafe\u{301}/b.png"]);
    let (error, hint) = refusal(&root);
    assert!(error.contains("the val part has classes that train lacks"), "{error}");
    assert!(hint.contains("look the same (Unicode's forms NFC and NFD)"), "{hint}");
}

#[test]
fn unlabelled_test_images_are_left_out_and_told() {
    let root = folder(&["train/a/1.png", "train/b/1.png", "test/1.png", "test/2.png"]);
    let dataset = read(&root);
    assert_eq!(dataset.splits.keys().collect::<Vec<_>>(), [&SplitName::Train]);
    let images = examples(&root, &["test/1.png", "test/2.png"]);
    assert_eq!(dataset.findings, [Finding::Unlabelled { split: SplitName::Test, images }]);
}

#[test]
fn class_without_validation_images_is_told_once() {
    let root = folder(&["train/a/1.png", "train/b/1.png", "train/c/1.png", "val/a/1.png", "val/b/"]);
    let (split, class) = (SplitName::Val, "b".to_owned());
    let missing = Finding::MissingClasses { split, classes: vec!["c".to_owned()] };
    assert_eq!(read(&root).findings, [Finding::EmptyClass { split, class }, missing]);
}

#[test]
fn test_part_alone_can_be_read_but_not_trained_on() {
    let dataset = read(&folder(&["test/b/1.png", "test/a/1.png"]));
    assert_eq!(dataset.classes, ["a", "b"]);
    let error = dataset.check_for_training().unwrap_err();
    assert!(matches!(error, DatasetError::NoTraining { .. }));
    assert!(error.to_string().ends_with("has no training images, only test"), "{error}");
}

#[test]
fn folder_above_the_dataset_is_recognised() {
    let root = folder(&["hymenoptera/train/ants/1.png", "hymenoptera/train/bees/1.png", "hymenoptera/val/ants/1.png"]);
    let error = read(&root).check_for_training().unwrap_err();
    assert_eq!(
        short(&error.to_string(), root.path()),
        "DIR: holds one class only, `hymenoptera`; training needs two or more"
    );
    assert_eq!(short(&error.hint().unwrap(), root.path()), "did you mean DIR/hymenoptera?");
}

#[test]
fn what_is_no_folder_is_refused() {
    let missing = scan(Path::new("no/such/folder")).unwrap_err();
    assert_eq!(missing.to_string(), "no/such/folder: no such folder");
    let root = folder(&["photos.tar", "photo.jpg"]);
    let archive = scan(&root.path().join("photos.tar")).unwrap_err();
    assert_eq!(short(&archive.to_string(), root.path()), "DIR/photos.tar: is a file, expected a folder of photos");
    assert_eq!(archive.hint().unwrap(), "unpack the archive and name the folder");
    let photo = scan(&root.path().join("photo.jpg")).unwrap_err();
    assert_eq!(photo.hint().unwrap(), "name a folder that holds one folder of photos per class");
}

#[test]
fn folders_without_images_are_refused() {
    assert_eq!(refusal(&folder(&[])).0, "DIR: holds no images");
    assert_eq!(refusal(&folder(&["notes.txt", ".hidden/1.png"])).0, "DIR: holds no images");
    assert_eq!(refusal(&folder(&["test/a/", "test/b/"])).0, "DIR: holds no images");
}

#[test]
fn images_without_class_folders_are_refused() {
    let (error, hint) = refusal(&folder(&["1.png", "2.png", "notes.txt"]));
    assert_eq!(error, "DIR: holds 2 images but no class folders");
    assert_eq!(hint, "sort the photos into one folder per class, named as the class");
    let (error, _) = refusal(&folder(&["train/a/1.png", "train/b/1.png", "val/1.png"]));
    assert_eq!(error, "DIR/val: holds 1 images but no class folders");
}

#[test]
fn training_class_without_images_is_refused() {
    let (error, hint) = refusal(&folder(&["a/1.png", "b/"]));
    assert_eq!(error, "DIR/b: class folder holds no images");
    assert_eq!(hint, "put photos into it, or remove the folder");
    let (error, hint) = refusal(&folder(&["train/a/1.png", "train/b/1.heic", "train/b/x/2.heic"]));
    assert_eq!(error, "DIR/train/b: class folder holds no images that can be read, only 2 other files");
    assert_eq!(hint, "convert its images to JPEG or PNG, or remove the folder");
}

#[test]
fn split_without_class_folders_is_refused() {
    let (error, _) = refusal(&folder(&["train/a/1.png", "train/b/1.png", "val/"]));
    assert_eq!(error, "DIR/val: holds no class folders, expected one per class");
}

#[test]
fn two_folders_for_one_split_are_refused() {
    let (error, hint) = refusal(&folder(&["train/a/1.png", "val/a/1.png", "valid/a/1.png"]));
    assert_eq!(
        (error.as_str(), hint.as_str()),
        ("DIR/val and DIR/valid: both are val folders, expected one", "merge the two")
    );
}

#[test]
fn class_that_train_lacks_is_refused() {
    let (error, hint) = refusal(&folder(&["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"]));
    assert_eq!(error, "DIR: the val part has classes that train lacks: `c`");
    assert_eq!(hint, "train has `a`, `b`");
    let (error, hint) = refusal(&folder(&["train/cat/1.png", "train/dog/1.png", "test/Cat/1.png"]));
    assert_eq!(error, "DIR: the test part has classes that train lacks: `Cat`");
    assert_eq!(hint, "train calls it `cat`, not `Cat`: names must agree in case too");
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    };

    #[test]
    fn links_are_followed_and_circles_come_to_an_end() {
        let root = folder(&["a/1.png", "b/1.png"]);
        let elsewhere = folder(&["far/2.png", "3.png"]);
        symlink(elsewhere.path().join("far"), root.path().join("a/linked")).unwrap();
        symlink(elsewhere.path().join("3.png"), root.path().join("b/3.png")).unwrap();
        symlink(root.path().join("a"), root.path().join("a/round")).unwrap();
        symlink("gone.png", root.path().join("b/broken.png")).unwrap();
        symlink(elsewhere.path(), root.path().join("c")).unwrap();
        let dataset = read(&root);
        assert_eq!(
            listed(&dataset, SplitName::Train),
            ["a/1.png 0", "a/linked/2.png 0", "b/1.png 1", "b/3.png 1", "c/3.png 2", "c/far/2.png 2"]
        );
        let broken = Finding::Unusable(examples(&root, &["b/broken.png"]));
        assert_eq!(dataset.findings, [broken, Finding::SeenBefore(examples(&root, &["a/round"]))]);
    }

    #[test]
    fn links_back_to_the_dataset_are_neither_a_class_nor_photos_of_one() {
        let root = folder(&["a/1.png", "b/1.png"]);
        symlink(".", root.path().join("again")).unwrap();
        symlink(root.path(), root.path().join("a/up")).unwrap();
        let dataset = read(&root);
        assert_eq!(dataset.classes, ["a", "b"]);
        assert_eq!(listed(&dataset, SplitName::Train), ["a/1.png 0", "b/1.png 1"]);
        let seen = ["again", "a/up"].map(|link| Finding::SeenBefore(examples(&root, &[link])));
        assert_eq!(dataset.findings, seen);
        let below = images_below(&root.path().join("a")).unwrap();
        assert_eq!(below.images, [root.path().join("a/1.png")]);
        assert_eq!(images_below(&root.path().join("a/up/b")).unwrap().images.len(), 1);
    }

    #[test]
    fn class_name_that_is_no_text_is_refused_but_a_file_name_is_not() {
        let root = folder(&["a/1.png", "b/1.png"]);
        let strange = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
        if fs::write(root.path().join("a").join(strange), b"photo").is_err() {
            return; // This file system knows no such names.
        }
        assert_eq!(read(&root).split(SplitName::Train).len(), 3);
        fs::create_dir(root.path().join(strange)).unwrap();
        let (error, hint) = refusal(&root);
        assert!(error.ends_with(": the folder's name is not UTF-8"), "{error}");
        assert_eq!(hint, "rename the folder: its name becomes a label");
    }

    /// What a folder of `mode` makes of data set and problems; nothing where the system lets us read it all the same, as root.
    fn surveyed(
        root: &TempDir,
        folder: &str,
        mode: u32,
    ) -> Option<(Result<Survey, DatasetError>, Option<DatasetError>)> {
        let locked = root.path().join(folder);
        fs::set_permissions(&locked, fs::Permissions::from_mode(mode)).unwrap();
        let readable_anyway = fs::metadata(locked.join("1.png")).is_ok();
        let (survey, scanned) = (survey(root.path()), scan(root.path()));
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
        (!readable_anyway).then(|| (survey, scanned.err()))
    }

    #[test]
    fn folder_that_may_not_be_read_is_refused_and_a_survey_goes_on_without_it() {
        let root = folder(&["a/1.png", "b/1.png", "b/old/1.png", "c/1.png"]);
        // Neither list nor entries; a list whose entries nobody may look at.
        for (locked, mode, left) in [("b/old", 0o000, 3), ("b", 0o000, 2), ("b", 0o644, 2)] {
            let Some((survey, error)) = surveyed(&root, locked, mode) else { continue };
            let survey = survey.unwrap();
            assert_eq!(survey.dataset.split(SplitName::Train).len(), left);
            assert_eq!(survey.problems.len(), 1, "{:?}", survey.problems);
            let error = error.unwrap();
            assert!(
                matches!(&error, DatasetError::Unreadable { path, .. } if path.starts_with(root.path().join(locked)))
            );
            assert_eq!(error.to_string(), survey.problems[0].to_string());
            assert_eq!(error.hint().unwrap(), "check the owner and the mode of the folder, or take it away");
        }
        let locked = root.path().join("b/old");
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        let (readable_anyway, images) = (fs::read_dir(&locked).is_ok(), images_below(root.path()));
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(images.is_ok(), readable_anyway);
    }

    #[test]
    fn class_name_that_would_break_lines_is_refused_but_a_file_name_is_not() {
        let root = folder(&["a/1.png", "a/1\n2.png", "b/1.png"]);
        assert_eq!(read(&root).split(SplitName::Train).len(), 3);
        fs::create_dir(root.path().join("c\nd")).unwrap();
        let (error, hint) = refusal(&root);
        assert_eq!(error, "\"DIR/c/nd\": the folder's name holds control characters");
        assert_eq!(hint, "rename the folder: its name becomes a label");
        assert_eq!(survey(root.path()).unwrap().dataset.classes, ["a", "b"]);
    }

    #[test]
    fn class_folders_none_of_which_has_a_good_name_are_not_overlooked() {
        let of_split = ["train/a/1.png", "train/b/1.png", "test/e\nf/1.png", "test/g\nh/1.png"];
        let beside_images = ["train/1.png", "test/1.png", "test/e\nf/1.png"];
        for (files, named) in [
            (&["a\nb/1.png", "c\nd/1.png"][..], "a/nb"),
            (&["a\nb/1.png", "1.png"], "a/nb"),
            (&of_split, "test/e/nf"),
            (&beside_images, "test/e/nf"),
        ] {
            let (error, hint) = refusal(&folder(files));
            assert_eq!(error, format!("\"DIR/{named}\": the folder's name holds control characters"));
            assert_eq!(hint, "rename the folder: its name becomes a label");
        }
    }

    #[test]
    fn a_survey_goes_on_without_a_folder_whose_name_is_no_text() {
        let root = folder(&["a/1.png", "b/1.png"]);
        if fs::create_dir(root.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"))).is_err() {
            return; // This file system knows no such names.
        }
        let survey = survey(root.path()).unwrap();
        assert!(matches!(survey.problems[..], [DatasetError::NotUtf8 { .. }]));
        assert_eq!(survey.dataset.classes, ["a", "b"]);
    }

    #[test]
    fn link_to_a_dataset_is_a_dataset() {
        let root = folder(&["a/1.png", "b/1.png"]);
        let other = tempfile::tempdir().unwrap();
        let link: PathBuf = other.path().join("link");
        symlink(root.path(), &link).unwrap();
        assert_eq!(scan(&link).unwrap().classes, ["a", "b"]);
    }
}
