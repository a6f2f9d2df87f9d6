//! Patterns of paths as Go's `path/filepath` has them: `*`, `?`, `[a-z]`, `[^a]` and `\\x`.
//!
//! What lies between two `*` is looked for once, at the first place where it fits: no earlier `*` can do better by taking more.
//! The time is at most the pattern's length times the path's.

/// A pattern, read.
pub(super) struct Pattern {
    /// What lies between `*`, each with whether one comes before it.
    chunks: Vec<(bool, Vec<Token>)>,
}

enum Token {
    Byte(u8),
    /// `?`: any letter but `/`.
    Letter,
    /// Letters between bounds, or all others.
    Class {
        negated: bool,
        ranges: Vec<(u32, u32)>,
    },
}

impl Pattern {
    /// The pattern in a text; nothing if it is broken.
    pub(super) fn read(mut text: &[u8]) -> Option<Self> {
        let mut chunks = vec![(false, Vec::new())];
        while let Some((first, rest)) = text.split_first() {
            text = rest;
            let token = match first {
                b'*' => {
                    match chunks.last_mut() {
                        Some((star, tokens)) if tokens.is_empty() => *star = true,
                        _ => chunks.push((true, Vec::new())),
                    }
                    continue;
                }
                b'?' => Token::Letter,
                b'[' => class(&mut text)?,
                b'\\' => {
                    let (byte, rest) = text.split_first()?;
                    text = rest;
                    Token::Byte(*byte)
                }
                byte => Token::Byte(*byte),
            };
            if let Some((_, tokens)) = chunks.last_mut() {
                tokens.push(token);
            }
        }
        Some(Self { chunks })
    }

    /// Whether a whole path fits.
    pub(super) fn fits(&self, mut path: &[u8]) -> bool {
        for (index, (star, tokens)) in self.chunks.iter().enumerate() {
            let last = index + 1 == self.chunks.len();
            if *star && tokens.is_empty() {
                return !path.contains(&b'/');
            }
            let reach = if *star { path.iter().take_while(|byte| **byte != b'/').count() } else { 0 };
            let rest = (0..=reach)
                .find_map(|start| after(tokens, &path[start..]).filter(|rest| !last || rest.is_empty()));
            let Some(rest) = rest else { return false };
            path = rest;
        }
        path.is_empty()
    }
}

/// What follows the tokens at the start of a path.
fn after<'a>(tokens: &[Token], mut path: &'a [u8]) -> Option<&'a [u8]> {
    for token in tokens {
        let (found, length) = letter(path)?;
        let length = match token {
            Token::Byte(byte) if path[0] == *byte => 1,
            Token::Letter if found != u32::from(b'/') => length,
            Token::Class { negated, ranges }
                if ranges.iter().any(|(low, high)| (low..=high).contains(&&found)) != *negated =>
            {
                length
            }
            _ => return None,
        };
        path = &path[length..];
    }
    Some(path)
}

/// The class whose text follows `[`.
fn class(text: &mut &[u8]) -> Option<Token> {
    let negated = text.first() == Some(&b'^');
    if negated {
        *text = &text[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if text.first()? == &b']' && !ranges.is_empty() {
            *text = &text[1..];
            return Some(Token::Class { negated, ranges });
        }
        let low = bound(text)?;
        let high = if text.first() == Some(&b'-') {
            *text = &text[1..];
            bound(text)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

fn bound(text: &mut &[u8]) -> Option<u32> {
    if text.first() == Some(&b'\\') {
        *text = &text[1..];
    } else if matches!(text.first(), Some(b'-' | b']')) {
        return None;
    }
    let (letter, length) = letter(text)?;
    *text = &text[length..];
    (letter != INVALID).then_some(letter)
}

/// Stands for bytes that are no letter.
const INVALID: u32 = u32::MAX;

/// The first letter, and its length.
fn letter(text: &[u8]) -> Option<(u32, usize)> {
    text.first()?;
    let start = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(start) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default(),
    };
    Some(valid.chars().next().map_or((INVALID, 1), |letter| (u32::from(letter), letter.len_utf8())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("a*", "abc", Some(true)),
            ("a*", "a/c", Some(false)),
            ("*", "", Some(true)),
            ("public/**", "public/d/b", Some(false)),
            ("*/b*c", "a/bxc", Some(true)),
            ("*a*b*c", "xaxbxcxc", Some(true)),
            ("*a*b*c", "xbxaxc", Some(false)),
            ("b?", "b\u{e4}", Some(true)),
            ("b?", "b/", Some(false)),
            ("[a-c]x", "bx", Some(true)),
            ("[^a-c]x", "bx", Some(false)),
            ("[\u{e4}]x", "\u{e4}x", Some(true)),
            ("[^a]x", "/x", Some(true)),
            ("[\\]]", "]", Some(true)),
            ("\\*", "*", Some(true)),
            ("\\", "", None),
            ("[a", "a", None),
            ("[]a]", "a", None),
            ("[a-]", "a", None),
            ("x[a", "b", None),
        ] {
            let found = Pattern::read(pattern.as_bytes()).map(|pattern| pattern.fits(path.as_bytes()));
            assert_eq!(found, expected, "{pattern} {path}");
        }
    }

    /// Each `*` that is tried again for each place of the one before takes 2000^40 steps.
    #[test]
    fn many_stars_are_no_work() {
        let pattern = Pattern::read("*a".repeat(40).as_bytes()).unwrap();
        assert!(!pattern.fits("a".repeat(2000).replace('a', "ab").as_bytes()));
        assert!(pattern.fits("a".repeat(2000).as_bytes()));
    }
}
