//! A row of numbers as a row of blocks.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `values` from the lowest block to the highest, a column for each; where there are more of them than `width` columns, a column is
/// the mean of its share.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let columns = columns(values, width);
    let finite = columns.iter().copied().filter(|value| value.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    columns.iter().map(|&value| block(value, low, high)).collect()
}

fn columns(values: &[f64], width: usize) -> Vec<f64> {
    let count = values.len().min(width);
    let mean = |share: &[f64]| share.iter().sum::<f64>() / share.len() as f64;
    (0..count).map(|column| mean(&values[column * values.len() / count..(column + 1) * values.len() / count])).collect()
}

/// The block for `value`; a gap for what is no number, and one in the middle where all are the same.
fn block(value: f64, low: f64, high: f64) -> char {
    const TOP: f64 = (BLOCKS.len() - 1) as f64;
    match value {
        _ if !value.is_finite() => ' ',
        _ if low == high => BLOCKS[BLOCKS.len() / 2],
        _ => BLOCKS[((value - low) / (high - low) * TOP).round() as usize],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_and_highest_are_the_outer_blocks() {
        assert_eq!(sparkline(&[0.125, 1.0, 0.5625, 0.25], 10), "▁█▅▂");
        assert_eq!(sparkline(&[2.0, 1.5, 1.25, 1.0], 10), "█▅▃▁");
    }

    #[test]
    fn more_values_than_columns_are_averaged() {
        let rising: Vec<f64> = (0..80).map(f64::from).collect();
        assert_eq!(sparkline(&rising, 8), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[0.0, 2.0, 4.0, 4.0, 4.0], 2), "▁█");
    }

    #[test]
    fn equal_values_are_a_flat_line_and_what_is_no_number_a_gap() {
        assert_eq!(sparkline(&[0.5, 0.5, 0.5], 10), "▅▅▅");
        assert_eq!(sparkline(&[1.0, f64::NAN, 2.0, f64::INFINITY], 10), "▁ █ ");
        assert_eq!(sparkline(&[f64::NAN], 10), " ");
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(sparkline(&[], 10), "");
        assert_eq!(sparkline(&[1.0, 2.0], 0), "");
    }
}
