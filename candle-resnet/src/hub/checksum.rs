//! A Hub entity tag → which checksum the file must have.
//!
//! Large files are tagged with their SHA-256, the others with git's blob identifier: the SHA-1 of `blob`, a space, the
//! length in decimal, a zero byte and the content.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::name::{is_hexadecimal, is_safe_component};

/// The Hub's name for a file's content, and the name of its blob in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntityTag(String);

impl EntityTag {
    /// Reads a header like `"0a1b…"` or `W/"0a1b…"`. `None` if it could not name a file.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let tag = header.trim();
        let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
        is_safe_component(tag).then(|| Self(tag.into()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The content's SHA-256, if that is what the tag is.
    pub(super) fn sha256(&self) -> Option<&str> {
        is_hexadecimal(&self.0, 64).then_some(&self.0)
    }

    /// Compares a file with the tag. Gives the file's own digest where they differ.
    ///
    /// Tags that are no digest (a mirror may have its own) fit every file.
    pub(super) fn mismatch(&self, path: &Path) -> io::Result<Option<String>> {
        let file = File::open(path)?;
        let found = match self.0.len() {
            _ if self.sha256().is_some() => digest(Sha256::new(), file)?,
            _ if is_hexadecimal(&self.0, 40) => {
                let header = format!("blob {}\0", file.metadata()?.len());
                digest(Sha1::new_with_prefix(header), file)?
            }
            _ => return Ok(None),
        };
        Ok((found != self.0).then_some(found))
    }
}

/// The SHA-256 of a file's content, in lower-case hexadecimal.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    digest(Sha256::new(), File::open(path)?)
}

/// The SHA-256 of `bytes`, in lower-case hexadecimal.
pub(crate) fn sha256_of_bytes(bytes: &[u8]) -> String {
    hexadecimal(Sha256::digest(bytes))
}

/// The digest of everything that `content` gives, in lower-case hexadecimal.
fn digest(mut hasher: impl Digest, mut content: impl Read) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match content.read(&mut buffer)? {
            0 => break,
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(hexadecimal(hasher.finalize()))
}

fn hexadecimal(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // `printf 'hello\n' | sha256sum` and `printf 'hello\n' | git hash-object --stdin`.
    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    const GIT: &str = "ce013625030ba8dba906f756967f9e9ca394464a";

    fn mismatch(tag: &str, content: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, content).unwrap();
        EntityTag::parse(tag).unwrap().mismatch(&path).unwrap()
    }

    #[test]
    fn quotes_and_weakness_are_no_part_of_a_tag() {
        for header in ["\"abc\"", "W/\"abc\"", "abc"] {
            assert_eq!(EntityTag::parse(header).unwrap().as_str(), "abc");
        }
    }

    #[test]
    fn a_tag_that_leads_out_of_the_cache_is_refused() {
        for header in ["", "\"\"", "\"../x\"", "\"a/b\"", "\"..\"", "\"a\\b\"", "\".hidden\""] {
            assert_eq!(EntityTag::parse(header), None, "{header}");
        }
    }

    #[test]
    fn sixty_four_digits_are_the_contents_sha256() {
        assert_eq!(mismatch(SHA256, "hello\n"), None);
        assert_eq!(mismatch(&"0".repeat(64), "hello\n").as_deref(), Some(SHA256));
    }

    #[test]
    fn forty_digits_are_gits_name_for_the_content() {
        assert_eq!(mismatch(GIT, "hello\n"), None);
        assert_eq!(mismatch(&"0".repeat(40), "hello\n").as_deref(), Some(GIT));
    }

    #[test]
    fn other_tags_fit_every_content() {
        assert_eq!(mismatch("5f3-60c2", "hello\n"), None);
    }
}
