//! Names with numbers in them, as `layer{1}.{0}.conv{1}`: a brace holds what counting starts from.

/// The numbers of `name`, each counted from 0; `None` where `name` is not of this pattern.
pub(super) fn read(pattern: &str, name: &str) -> Option<Vec<usize>> {
    let mut rest = name;
    let mut positions = Vec::new();
    for piece in pieces(pattern) {
        match piece {
            Piece::Text(text) => rest = rest.strip_prefix(text)?,
            Piece::Number { first } => {
                let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let (number, after) = rest.split_at(digits);
                positions.push(canonical(number)?.checked_sub(first)?);
                rest = after;
            }
        }
    }
    rest.is_empty().then_some(positions)
}

/// The name of this pattern with these numbers, each counted from 0.
pub(super) fn write(pattern: &str, positions: &[usize]) -> String {
    let mut positions = positions.iter();
    let text = |piece| match piece {
        Piece::Text(text) => text.to_owned(),
        Piece::Number { first } => (positions.next().unwrap_or(&0) + first).to_string(),
    };
    pieces(pattern).map(text).collect()
}

enum Piece<'a> {
    Text(&'a str),
    Number { first: usize },
}

/// Text and numbers by turns.
fn pieces(pattern: &str) -> impl Iterator<Item = Piece<'_>> {
    let piece = |(index, text): (usize, _)| match index % 2 {
        0 => Piece::Text(text),
        _ => Piece::Number { first: text.parse().unwrap_or(0) },
    };
    pattern.split(['{', '}']).enumerate().map(piece)
}

/// A number that is written without leading zeros: two names must not mean one.
fn canonical(digits: &str) -> Option<usize> {
    digits.parse().ok().filter(|number: &usize| number.to_string() == digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: &str = "layer{1}.{0}.conv{1}";

    #[test]
    fn numbers_are_counted_from_what_the_brace_says() {
        assert_eq!(read(PATTERN, "layer3.0.conv2"), Some(vec![2, 0, 1]));
        assert_eq!(write("stages.{0}.layers.{0}.layer.{0}", &[2, 0, 1]), "stages.2.layers.0.layer.1");
    }

    #[test]
    fn what_is_not_of_the_pattern_has_no_numbers() {
        for name in [
            "layer3.0.conv",
            "layer0.0.conv1",
            "layer01.0.conv1",
            "layer1.0.conv1.weight",
            "layer99999999999999999999.0.conv1",
            "",
        ] {
            assert_eq!(read(PATTERN, name), None, "{name}");
        }
    }

    #[test]
    fn a_pattern_without_numbers_is_a_name() {
        assert_eq!(read("conv1", "conv1"), Some(vec![]));
        assert_eq!(write("classifier.1", &[]), "classifier.1");
    }
}
