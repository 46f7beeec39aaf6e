//! Numbers as text, the same in the terminal and on the page.

use crate::results::Machine;

/// What stands where nothing was measured.
pub(crate) const NONE: &str = "-";

/// Three significant digits, without decimals above 100.
pub(crate) fn significant(value: f64) -> String {
    // The limits are where rounding would make a fourth digit.
    if value >= 99.95 {
        format!("{value:.0}")
    } else if value >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// A time in nanoseconds, in the unit that suits it.
pub(crate) fn time(nanoseconds: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    // 999.5 and above would be written as 1000.
    let unit = units.into_iter().find(|(size, _)| nanoseconds >= 0.9995 * size);
    let (size, unit) = unit.unwrap_or((1.0, "ns"));
    format!("{} {unit}", significant(nanoseconds / size))
}

/// Bytes, in MiB, without the unit.
pub(crate) fn mebibytes(bytes: f64) -> String {
    significant(bytes / f64::from(1 << 20))
}

/// What was measured on, and the commit that was.
pub(crate) fn machine(machine: &Machine) -> String {
    let memory = significant(machine.memory as f64 / f64::from(1 << 30));
    let cores = count(machine.cores, "core");
    let Machine { processor, kernel, huge_pages, compiler, commit, .. } = machine;
    format!("{processor}, {cores}, {memory} GiB, {kernel}, huge pages {huge_pages}, {compiler}; magalloc at {commit}")
}

/// A multiple.
pub(crate) fn ratio(ratio: f64) -> String {
    significant(ratio)
}

/// A number of things.
pub(crate) fn whole(number: f64) -> String {
    format!("{number:.0}")
}

/// A multiple that is held against a limit of two decimals.
pub(crate) fn precise_ratio(ratio: f64) -> String {
    format!("{ratio:.3}")
}

/// A share, as a number of percent.
pub(crate) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent >= 10.0 || percent.fract() < 0.05 { format!("{percent:.0}") } else { format!("{percent:.1}") }
}

/// A spread, in percent; always with a decimal, for a column of them.
pub(crate) fn spread(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A count in thousands or millions, for the labels of an axis.
pub(crate) fn short(count: f64) -> String {
    let unit = [(1e6, "M"), (1e3, "k")].into_iter().find(|(size, _)| count >= *size);
    let (size, unit) = unit.unwrap_or((1.0, ""));
    format!("{}{unit}", (10.0 * count / size).round() / 10.0)
}

/// A count with its noun.
pub(crate) fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A count, with its thousands apart.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What `format` makes of the value, if there is one.
pub(crate) fn or_none(value: Option<f64>, format: fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        assert_eq!([1.234, 12.34, 123.4, 999.4].map(time), ["1.23 ns", "12.3 ns", "123 ns", "999 ns"]);
        assert_eq!([999.7, 12_345.0, 1e6, 2.5e9].map(time), ["1.00 µs", "12.3 µs", "1.00 ms", "2.50 s"]);
    }

    #[test]
    fn percents_have_a_decimal_where_it_matters() {
        assert_eq!([0.05, 0.0512, 0.823, 1.2].map(percent), ["5", "5.1", "82", "120"]);
    }

    #[test]
    fn labels_of_axes_are_short() {
        assert_eq!([8.0, 1_000.0, 2_500.0, 1_000_007.0].map(short), ["8", "1k", "2.5k", "1M"]);
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([1, 999, 1_000, 12_345_678].map(thousands), ["1", "999", "1,000", "12,345,678"]);
    }
}
