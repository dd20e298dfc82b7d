//! Checks that repository, revision, path and entity tag are names that cannot lead out of the cache.
//!
//! Does not ask whether they exist. The rules for repositories are those of `huggingface_hub`'s `validate_repo_id`.

use super::HubFile;
use super::error::{HubError, NameKind};

const LONGEST_REPOSITORY: usize = 96;

/// Refuses a file whose names could mean something outside its repository's folder.
pub(super) fn check(file: &HubFile) -> Result<(), HubError> {
    check_repository(&file.repository)?;
    check_revision(file.revision())?;
    refuse(NameKind::Path, &file.path, path_fault(&file.path))
}

/// Refuses a name that is not `owner/name` or `name`.
pub(super) fn check_repository(repository: &str) -> Result<(), HubError> {
    refuse(NameKind::Repository, repository, repository_fault(repository))
}

/// Refuses a name that could not be a branch, tag or commit.
pub(super) fn check_revision(revision: &str) -> Result<(), HubError> {
    refuse(NameKind::Revision, revision, path_fault(revision))
}

/// Whether `name` can be the name of a file or folder on every system.
pub(super) fn is_safe_component(name: &str) -> bool {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    !name.is_empty() && name.len() <= 128 && name.chars().all(allowed) && !name.starts_with('.')
}

/// Whether `revision` is a full commit hash and so needs no looking up.
pub(super) fn is_commit(revision: &str) -> bool {
    is_hexadecimal(revision, 40)
}

/// Whether `text` is `digits` lower-case hexadecimal digits.
pub(super) fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn refuse(kind: NameKind, name: &str, fault: Option<&'static str>) -> Result<(), HubError> {
    match fault {
        Some(fault) => Err(HubError::InvalidName { kind, name: name.into(), fault }),
        None => Ok(()),
    }
}

fn repository_fault(repository: &str) -> Option<&'static str> {
    let plain = |part: &str| is_safe_component(part) && !part.starts_with('-') && !part.ends_with(['-', '.']);
    if repository.split('/').count() > 2 || !repository.split('/').all(plain) {
        Some("expected `owner/name` of letters, digits, `-`, `_` and `.`")
    } else if repository.contains("--") || repository.contains("..") {
        Some("`--` and `..` are not allowed")
    } else if repository.len() > LONGEST_REPOSITORY {
        Some("at most 96 characters are allowed")
    } else {
        None
    }
}

fn path_fault(path: &str) -> Option<&'static str> {
    let fits = |part: &str| !matches!(part, "" | "." | "..");
    if !path.split('/').all(fits) {
        Some("empty, `.` and `..` components are not allowed")
    } else if path.chars().any(|letter| letter.is_control() || matches!(letter, '\\' | ':')) {
        Some("`\\`, `:` and control characters are not allowed")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_the_hub_has_them_pass() {
        for repository in ["timm/resnet18.tv_in1k", "gpt2", "Foo-BAR/foo.bar_123"] {
            assert!(check(&HubFile::new(repository, "onnx/model file.safetensors").at("refs/pr/1")).is_ok());
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for repository in ["", "/", "a/b/c", "../a", "a/..", "a--b", "-a/b", ".a/b", "a\\b", "a b", "C:", "a/b.", "ä/b"]
        {
            assert!(check_repository(repository).is_err(), "{repository}");
        }
        for path in ["", "/etc/passwd", "a//b", "a/../b", "..", ".", "a/", "a\\b", "C:/a", "a\0b", "a\nb"] {
            assert!(check(&HubFile::new("a/b", path)).is_err(), "{path:?}");
            assert!(check(&HubFile::new("a/b", "c").at(path)).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_component_is_safe_if_it_is_no_hidden_or_nested_name() {
        assert!(is_safe_component("d41d8cd98f00b204e9800998ecf8427e-2"));
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "a:b", "a b", &"a".repeat(129)] {
            assert!(!is_safe_component(name), "{name}");
        }
    }

    #[test]
    fn only_forty_lower_case_digits_are_a_commit() {
        assert!(is_commit("0123456789abcdef0123456789abcdef01234567"));
        assert!(!is_commit("0123456789ABCDEF0123456789ABCDEF01234567"));
        assert!(!is_commit("main"));
    }
}
