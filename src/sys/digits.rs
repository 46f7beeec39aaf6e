//! Numbers as text, without allocating.

/// Longest text of a number: 20 decimal digits, or "0x" and 16 hexadecimal ones.
const DIGITS_MAX: usize = 20;

/// A number as text, without allocating.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    text: [u8; DIGITS_MAX],
    start: usize,
}

impl core::ops::Deref for Digits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

fn digits(mut value: usize, base: usize, prefix: &[u8]) -> Digits {
    let mut digits = Digits { text: [b'0'; DIGITS_MAX], start: DIGITS_MAX };
    loop {
        digits.start -= 1;
        digits.text[digits.start] = b"0123456789abcdef"[value % base];
        value /= base;
        if value == 0 {
            break;
        }
    }
    let number = digits.start;
    digits.start -= prefix.len();
    digits.text[digits.start..number].copy_from_slice(prefix);
    digits
}

/// `value` in hexadecimal, with "0x".
pub fn hex(value: usize) -> Digits {
    digits(value, 16, b"0x")
}

/// `value` in decimal.
pub fn decimal(value: usize) -> Digits {
    digits(value, 10, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        assert_eq!(&*hex(0), b"0x0");
        assert_eq!(&*hex(usize::MAX), format!("{:#x}", usize::MAX).as_bytes());
        assert_eq!(&*decimal(usize::MAX), usize::MAX.to_string().as_bytes());
        assert_eq!(&*decimal(1050), b"1050");
    }
}
