//! How many augmented views of each image there are: a number, or a fresh one in each epoch.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many augmented views of each image there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub enum ViewCount {
    /// So many, each seen again and again.
    Kept(usize),
    /// As many as there are epochs, each seen once.
    Fresh,
}

/// A number, or the word `fresh`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Number(usize),
    Word(String),
}

impl TryFrom<Text> for ViewCount {
    type Error = String;

    fn try_from(text: Text) -> Result<ViewCount, String> {
        match text {
            Text::Number(views) => Ok(ViewCount::Kept(views)),
            Text::Word(word) => word.parse(),
        }
    }
}

impl From<ViewCount> for Text {
    fn from(views: ViewCount) -> Text {
        match views {
            ViewCount::Kept(views) => Text::Number(views),
            ViewCount::Fresh => Text::Word(views.to_string()),
        }
    }
}

impl FromStr for ViewCount {
    type Err = String;

    fn from_str(text: &str) -> Result<ViewCount, String> {
        match text {
            "fresh" => Ok(ViewCount::Fresh),
            _ => text.parse().map(ViewCount::Kept).map_err(|_| "expected a number of views or `fresh`".into()),
        }
    }
}

impl fmt::Display for ViewCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ViewCount::Kept(views) => write!(f, "{views}"),
            ViewCount::Fresh => write!(f, "fresh"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::Augmentation;

    #[test]
    fn views_survive_toml_as_a_number_or_a_word() {
        for (views, written) in [(ViewCount::Kept(3), "views = 3"), (ViewCount::Fresh, "views = \"fresh\"")] {
            let augmentation = Augmentation { views, ..Augmentation::mirror() };
            let text = toml::to_string(&augmentation).unwrap();
            assert!(text.contains(written), "{text}");
            assert_eq!(toml::from_str::<Augmentation>(&text).unwrap(), augmentation);
        }
        assert_eq!("fresh".parse(), Ok(ViewCount::Fresh));
        assert!("-1".parse::<ViewCount>().is_err() && "stale".parse::<ViewCount>().is_err());
    }
}
