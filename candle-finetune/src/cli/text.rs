//! Numbers as people read them, and arguments as shells do.

/// Seconds in the two units that matter.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A count in thousands or millions.
pub fn count(number: usize) -> String {
    match number {
        0..1000 => number.to_string(),
        1000..1_000_000 => format!("{:.1} k", number as f64 / 1e3),
        _ => format!("{:.2} M", number as f64 / 1e6),
    }
}

/// Bytes in the unit that matters.
pub fn bytes(number: u64) -> String {
    match number {
        0..1_000_000_000 => format!("{:.0} MB", number as f64 / 1e6),
        _ => format!("{:.1} GB", number as f64 / 1e9),
    }
}

/// A fraction in percent, in as many digits as it takes to tell it from 0 and 100.
pub fn percent(fraction: f64) -> String {
    let digits =
        if (0.9995..1.0).contains(&fraction) || (f64::MIN_POSITIVE..0.0005).contains(&fraction) { 4 } else { 1 };
    format!("{:.digits$} %", 100.0 * fraction)
}

/// So many of a thing whose plural ends in s.
pub fn several(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// An argument as a shell takes it.
pub fn quoted(argument: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "/\\._-:=,".contains(character);
    if argument.chars().all(plain) { argument.into() } else { format!("'{}'", argument.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_units_that_matter() {
        let durations = [0.04, 9.4, 42.4, 59.7, 3599.0, 7261.0].map(duration);
        assert_eq!(durations, ["0.0 s", "9.4 s", "42 s", "1 min 00 s", "59 min 59 s", "2 h 01 min"]);
    }

    #[test]
    fn percentages_that_are_not_whole_do_not_look_so() {
        assert_eq!(
            [0.0, 0.05, 0.8349, 1.0, 0.99991].map(percent),
            ["0.0 %", "5.0 %", "83.5 %", "100.0 %", "99.9910 %"]
        );
    }

    #[test]
    fn numbers_are_rounded_to_their_unit() {
        assert_eq!([999, 9_536, 11_689_512].map(count), ["999", "9.5 k", "11.69 M"]);
        assert_eq!([43_000_000, 1_340_000_000].map(bytes), ["43 MB", "1.3 GB"]);
    }
}
