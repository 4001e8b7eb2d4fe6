//! Numbers of phones, identity cards and bank cards: runs of digits, in which a blank or a dash may stand between groups.

use super::find::Preset;
use std::ops::Range;

/// Groups of digits that may be one number, at most.
const MAX_GROUPS: usize = 8;
/// Digits of the shortest number that any preset takes, and of the longest.
const LEAST: usize = 8;
const MOST: usize = 19;

/// Is it a number of this kind? Text, and its digits alone.
fn is_one(preset: Preset, text: &str, digits: &[u8]) -> bool {
    match preset {
        Preset::Phones => phone(text, digits),
        Preset::IdCards => id_card(text, digits),
        Preset::BankCards => bank_card(text, digits),
        _ => false,
    }
}

/// Adds where `text` holds numbers of the kinds that are wanted; all others of `presets` are passed over.
///
/// Each row of groups is looked at as a whole first, then at shorter parts of it (`2024 13812345678` is a year and a
/// number).
pub(super) fn numbers(presets: &[Preset], text: &str, out: &mut Vec<(Range<usize>, Preset)>) {
    let wanted = |preset: &Preset| matches!(preset, Preset::Phones | Preset::IdCards | Preset::BankCards);
    if !presets.iter().any(wanted) {
        return;
    }
    let bytes = text.as_bytes();
    let mut groups = Vec::new();
    let mut at = 0;
    while let Some(start) = next_row(bytes, at) {
        groups.clear();
        row(bytes, start, &mut groups);
        at = groups.last().map_or(start + 1, |group| group.end);
        let digits: usize = groups.iter().map(ExactSizeIterator::len).sum();
        if digits >= LEAST {
            for preset in presets.iter().filter(|preset| wanted(preset)) {
                of_row(*preset, text, &groups, out);
            }
        }
    }
}

/// Where a row of at least [`LEAST`] bytes begins, from `at` on, where none goes on. Of two bytes in a row that stand
/// side by side at least one is a digit: looking at every eighth byte is enough to meet each row.
fn next_row(bytes: &[u8], at: usize) -> Option<usize> {
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let between = |at: usize| matches!(bytes.get(at), Some(b' ' | b'-'));
    let mut probe = at + LEAST - 1;
    while probe < bytes.len() {
        let inside = digit(probe) || (between(probe) && digit(probe - 1) && digit(probe + 1));
        if !inside {
            probe += LEAST;
            continue;
        }
        let mut start = if digit(probe) { probe } else { probe - 1 };
        while start > at {
            if digit(start - 1) {
                start -= 1;
            } else if between(start - 1) && start - 1 > at && digit(start - 2) {
                start -= 2;
            } else {
                break;
            }
        }
        return Some(start);
    }
    None
}

/// The groups of the row that begins here.
fn row(bytes: &[u8], start: usize, groups: &mut Vec<Range<usize>>) {
    let mut from = start;
    loop {
        let len = bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        groups.push(from..from + len);
        let end = from + len;
        let goes_on =
            matches!(bytes.get(end), Some(b' ' | b'-')) && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
        if !goes_on {
            break;
        }
        from = end + 1;
    }
    // The last digit of an identity card may be an X.
    if let Some(group) = groups.last_mut()
        && group.len() == 17
        && matches!(bytes.get(group.end), Some(b'X' | b'x'))
    {
        group.end += 1;
    }
}

fn of_row(preset: Preset, text: &str, groups: &[Range<usize>], out: &mut Vec<(Range<usize>, Preset)>) {
    let bytes = text.as_bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let row = groups.first().map_or(0, |group| group.start);
    let plus = row > 0 && bytes[row - 1] == b'+';
    let mut first = 0;
    while first < groups.len() {
        let begin = groups[first].start - usize::from(plus && first == 0);
        let free = begin == 0 || !(word(bytes[begin - 1]) || matches!(bytes[begin - 1], b'.' | b'-' | b'/'));
        let longest = groups.len().min(first + MAX_GROUPS);
        let hit = free.then(|| {
            (first..longest).rev().find(|last| {
                let end = groups[*last].end;
                let of_it = &groups[first..=*last];
                let count: usize = of_it.iter().map(ExactSizeIterator::len).sum();
                if !(LEAST..=MOST).contains(&count) || bytes.get(end).is_some_and(|b| word(*b)) {
                    return false;
                }
                let mut digits = [0; MOST];
                let all = of_it.iter().flat_map(|group| &bytes[group.clone()]);
                for (place, digit) in digits.iter_mut().zip(all) {
                    *place = *digit;
                }
                is_one(preset, &text[begin..end], &digits[..count])
            })
        });
        match hit.flatten() {
            Some(last) => {
                out.push((begin..groups[last].end, preset));
                first = last + 1;
            }
            None => first += 1,
        }
    }
}

fn phone(text: &str, digits: &[u8]) -> bool {
    let mobile =
        |digits: &[u8]| digits.len() == 11 && digits[0] == b'1' && (b'3'..=b'9').contains(&digits[1]);
    match text.strip_prefix('+') {
        Some(_) => (8..=15).contains(&digits.len()),
        None => mobile(digits) || digits.strip_prefix(b"86").is_some_and(mobile),
    }
}

/// GB 11643: 17 digits, of which 8 are a date, and a check digit (ISO 7064, MOD 11-2).
fn id_card(text: &str, digits: &[u8]) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    if digits.len() != 18 || text.len() != 18 {
        return false;
    }
    let number = |range: Range<usize>| std::str::from_utf8(&digits[range]).ok()?.parse::<u32>().ok();
    let (Some(year), Some(month), Some(day)) = (number(6..10), number(10..12), number(12..14)) else {
        return false;
    };
    let is_date = (1900..=2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let sum: u32 = WEIGHTS
        .iter()
        .zip(digits)
        .map(|(w, d)| w * u32::from(d - b'0'))
        .sum();
    let check = b"10X98765432"[(sum % 11) as usize];
    is_date && digits[17].eq_ignore_ascii_case(&check)
}

/// ISO/IEC 7812: 13 to 19 digits, the last one by Luhn's sum.
fn bank_card(text: &str, digits: &[u8]) -> bool {
    if !(13..=19).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) || text.starts_with('+') {
        return false;
    }
    // No issuer begins with 0 or 1; times in milliseconds and ids of that length do.
    if matches!(digits[0], b'0' | b'1') || digits.iter().all(|d| *d == digits[0]) {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(digit - b'0');
            if at % 2 == 0 {
                digit
            } else {
                digit * 2 - if digit > 4 { 9 } else { 0 }
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [Preset; 3] = [Preset::Phones, Preset::IdCards, Preset::BankCards];

    /// Every row, one byte after the other.
    fn rows(bytes: &[u8]) -> Vec<Vec<Range<usize>>> {
        let (mut at, mut all) = (0, Vec::new());
        while let Some(found) = bytes[at..].iter().position(u8::is_ascii_digit) {
            let mut groups = Vec::new();
            row(bytes, at + found, &mut groups);
            at = groups.last().unwrap().end;
            all.push(groups);
        }
        all
    }

    proptest! {
        #[test]
        fn the_same_is_found_as_by_looking_at_every_byte(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "1", "13812345678", "+86 138-1234-5678", "+1 415 555 2671", " ", "-", "x", ".", "中", "4111 1111 1111 1111", "86",
                "11010519491231002X", "110105194912310021", "11010519491231002", "X", "2024", "+", "4111111111111111", "1 2-3 4 5-6 7 8",
            ]), 0..10)
        ) {
            let text = parts.concat();
            let mut wanted = Vec::new();
            for groups in rows(text.as_bytes()) {
                for preset in KINDS {
                    of_row(preset, &text, &groups, &mut wanted);
                }
            }
            let mut out = Vec::new();
            numbers(&KINDS, &text, &mut out);
            prop_assert_eq!(out, wanted, "{}", text);
        }
    }

    #[test]
    fn only_what_is_wanted_is_found() {
        let text = "13812345678 4111 1111 1111 1111";
        let mut out = Vec::new();
        numbers(&[Preset::Mails, Preset::BankCards], text, &mut out);
        assert_eq!(out, [(12..31, Preset::BankCards)]);
    }
}
