//! Environment variables → where the cache is, which Hub to ask, and as whom.
//!
//! Reads nothing but the variables and the token file. The meaning is that of `huggingface_hub`'s `constants.py`.

use std::fmt;
use std::path::{Path, PathBuf};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where the cache is, which Hub to ask, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The folder that holds `models--owner--name` folders.
    pub cache: PathBuf,
    /// Address of the Hub or of a mirror of it.
    pub endpoint: String,
    /// Access token, sent to the endpoint and to no other host.
    pub token: Option<String>,
    /// Whether requests are forbidden.
    pub offline: bool,
}

/// Leaves the token out.
impl fmt::Debug for HubSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HubSettings")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .finish()
    }
}

impl HubSettings {
    /// What the process's environment says.
    ///
    /// | variable | meaning |
    /// | --- | --- |
    /// | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` | the cache; otherwise `$HF_HOME/hub` |
    /// | `HF_HOME` | otherwise `$XDG_CACHE_HOME/huggingface`, otherwise `~/.cache/huggingface` |
    /// | `HF_ENDPOINT` | the Hub's address |
    /// | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN` | the token; otherwise the file `HF_TOKEN_PATH` or `$HF_HOME/token` |
    /// | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | use no token |
    /// | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | make no request |
    ///
    /// An empty variable counts as absent, switches are on for `1`, `on`, `yes` and `true`, and `~` at the start of a
    /// path is the home folder.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// [`HubSettings::from_env`] with another source of variables. Still reads the token file.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let variables = Variables { lookup: &lookup };
        let home = variables.hub_home();
        Self {
            cache: variables
                .path("HF_HUB_CACHE")
                .or_else(|| variables.path("HUGGINGFACE_HUB_CACHE"))
                .unwrap_or_else(|| home.join("hub")),
            endpoint: variables.endpoint(),
            token: variables.token(&home),
            offline: variables.switch("HF_HUB_OFFLINE", Some("TRANSFORMERS_OFFLINE")),
        }
    }
}

struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn switch(&self, name: &str, older_name: Option<&str>) -> bool {
        let value = self.text(name).or_else(|| self.text(older_name?));
        value.is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(|value| self.expand(&value))
    }

    fn expand(&self, path: &str) -> PathBuf {
        match path.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with(std::path::is_separator) => {
                self.user_home().join(rest.trim_start_matches(std::path::is_separator))
            }
            _ => PathBuf::from(path),
        }
    }

    fn user_home(&self) -> PathBuf {
        let names = if cfg!(windows) { ["USERPROFILE", "HOME"] } else { ["HOME", "USERPROFILE"] };
        names.into_iter().find_map(|name| self.text(name)).map_or_else(|| PathBuf::from("."), PathBuf::from)
    }

    fn hub_home(&self) -> PathBuf {
        self.path("HF_HOME").unwrap_or_else(|| {
            let caches = self.path("XDG_CACHE_HOME").unwrap_or_else(|| self.user_home().join(".cache"));
            caches.join("huggingface")
        })
    }

    fn endpoint(&self) -> String {
        let endpoint = self.text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into());
        endpoint.trim_end_matches('/').into()
    }

    fn token(&self, home: &Path) -> Option<String> {
        if self.switch("HF_HUB_DISABLE_IMPLICIT_TOKEN", None) {
            return None;
        }
        let named = self.text("HF_TOKEN").or_else(|| self.text("HUGGING_FACE_HUB_TOKEN"));
        named.and_then(|token| clean(&token)).or_else(|| {
            let path = self.path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            clean(&std::fs::read_to_string(path).ok()?)
        })
    }
}

/// A token copied from a web page often brings a line break along.
fn clean(token: &str) -> Option<String> {
    let token = token.replace(['\r', '\n'], "");
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        HubSettings::from_lookup(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn without_variables_the_cache_is_below_the_home_folder() {
        let found = settings(&[("HOME", "/home/ada"), ("USERPROFILE", "/home/ada")]);
        assert_eq!(found.cache, Path::new("/home/ada/.cache/huggingface/hub"));
        assert_eq!(found.endpoint, "https://huggingface.co");
        assert_eq!(found.token, None);
        assert!(!found.offline);
    }

    #[test]
    fn each_variable_overrides_the_more_general_one() {
        let mut variables = vec![("HOME", "/home/ada"), ("USERPROFILE", "/home/ada")];
        for (name, value, expected) in [
            ("XDG_CACHE_HOME", "/xdg", "/xdg/huggingface/hub"),
            ("HF_HOME", "~/hf", "/home/ada/hf/hub"),
            ("HUGGINGFACE_HUB_CACHE", "/legacy", "/legacy"),
            ("HF_HUB_CACHE", "~/cache", "/home/ada/cache"),
        ] {
            variables.push((name, value));
            assert_eq!(settings(&variables).cache, Path::new(expected), "{name}");
        }
    }

    #[test]
    fn only_a_lone_tilde_is_the_home_folder() {
        assert_eq!(settings(&[("HOME", "/home/ada"), ("HF_HOME", "~bob/hf")]).cache, Path::new("~bob/hf/hub"));
        let lone = settings(&[("HOME", "/home/ada"), ("USERPROFILE", "/home/ada"), ("HF_HOME", "~")]);
        assert_eq!(lone.cache, Path::new("/home/ada/hub"));
    }

    #[test]
    fn empty_variables_count_as_absent() {
        let found = settings(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", ""), ("HF_ENDPOINT", "")]);
        assert_eq!(found.cache, Path::new("/hf/hub"));
        assert_eq!(found.endpoint, "https://huggingface.co");
    }

    #[test]
    fn endpoint_loses_its_last_slash() {
        assert_eq!(settings(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
    }

    #[test]
    fn offline_is_a_switch_and_its_newer_name_wins() {
        for on in ["1", "on", "YES", "True"] {
            assert!(settings(&[("HF_HUB_OFFLINE", on)]).offline, "{on}");
            assert!(settings(&[("TRANSFORMERS_OFFLINE", on)]).offline, "{on}");
        }
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]).offline);
    }

    #[test]
    fn token_comes_from_the_variable_then_from_the_login_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        std::fs::write(home.path().join("other"), "hf_other\r\n").unwrap();
        let hf_home = home.path().to_str().unwrap();
        let other = home.path().join("other");
        let mut variables = vec![("HF_HOME", hf_home)];
        for (name, value, expected) in [
            ("UNRELATED", "", Some("hf_file")),
            ("HF_TOKEN_PATH", other.to_str().unwrap(), Some("hf_other")),
            ("HUGGING_FACE_HUB_TOKEN", " hf_legacy ", Some("hf_legacy")),
            ("HF_TOKEN", "hf_variable\n", Some("hf_variable")),
            ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes", None),
        ] {
            variables.push((name, value));
            assert_eq!(settings(&variables).token.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn debug_output_hides_the_token() {
        let shown = format!("{:?}", settings(&[("HF_TOKEN", "hf_secret")]));
        assert!(!shown.contains("hf_secret"), "{shown}");
    }
}
