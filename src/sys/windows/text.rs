//! Text between Windows' UTF-16 and the crate's UTF-8, without allocating.

/// `from` as UTF-8 at the beginning of `to`, as far as whole letters fit; what is no text is shown as U+FFFD.
pub(super) fn to_utf8(from: impl IntoIterator<Item = u16>, to: &mut [u8]) -> &[u8] {
    let mut len = 0;
    for letter in char::decode_utf16(from) {
        let letter = letter.unwrap_or(char::REPLACEMENT_CHARACTER);
        let Some(room) = to.get_mut(len..len + letter.len_utf8()) else { break };
        letter.encode_utf8(room);
        len += letter.len_utf8();
    }
    &to[..len]
}

/// `from`, which ends with no zero, as UTF-16 and a zero in `to`. `false`: it is no text, or does not fit.
#[must_use]
pub(super) fn to_utf16(from: &[u8], to: &mut [u16]) -> bool {
    let Ok(text) = core::str::from_utf8(from) else { return false };
    let mut rest = to.iter_mut();
    text.encode_utf16().chain([0]).all(|unit| rest.next().map(|place| *place = unit).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_both_ways_as_far_as_it_fits() {
        let text = "C:\\Gr\u{fc}\u{df}e \u{1f600}";
        let mut wide = [1; 20];
        assert!(to_utf16(text.as_bytes(), &mut wide));
        let end = wide.iter().position(|&unit| unit == 0).unwrap();
        assert_eq!(end, text.encode_utf16().count());
        let mut bytes = [0; 40];
        assert_eq!(to_utf8(wide[..end].iter().copied(), &mut bytes), text.as_bytes());
        // The last letter takes four bytes, of which three are there.
        let mut short = [0; 14];
        assert_eq!(short.len() + 1, text.len());
        assert_eq!(to_utf8(wide[..end].iter().copied(), &mut short), "C:\\Gr\u{fc}\u{df}e ".as_bytes());
        assert!(!to_utf16(text.as_bytes(), &mut [0; 5]));
        assert!(!to_utf16(b"\xff", &mut wide));
        assert_eq!(to_utf8([0xd800], &mut bytes), "\u{fffd}".as_bytes());
    }
}
