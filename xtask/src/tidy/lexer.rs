//! As much of Rust's grammar as line-based rules need.
//!
//! Owns: telling code from comments and literals, matching brackets, finding words.
//! Refuses to know: any rule. A full parser would need every file to compile first.

/// `text` with comments, strings and character literals replaced by spaces; lines and byte
/// offsets stay as they were.
#[must_use]
pub fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match non_code_end(bytes, at) {
            Some(end) => {
                let blanks = bytes[at..end].iter().map(|&b| if b == b'\n' { b } else { b' ' });
                out.extend(blanks);
                at = end;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that starts at `at` ends; `None` when code starts there.
fn non_code_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let found = |offset: Option<usize>, length: usize| {
        Some(offset.map_or(bytes.len(), |offset| at + offset + length))
    };
    match rest {
        [b'/', b'/', ..] => found(rest.iter().position(|&b| b == b'\n'), 0),
        [b'/', b'*', ..] => Some(at + block_comment_length(rest)),
        [b'"', ..] => Some(at + string_length(rest)),
        [b'r', b'"' | b'#', ..] => {
            let hashes = rest[1..].iter().take_while(|&&b| b == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return None; // a raw identifier
            }
            let close: Vec<u8> = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            let body = 2 + hashes;
            let offset = rest[body..].windows(close.len()).position(|window| window == close);
            found(offset.map(|offset| body + offset), close.len())
        }
        [b'\'', b'\\', ..] => {
            // The escaped character may itself be a quote.
            let offset = rest.iter().skip(3).position(|&b| b == b'\'');
            found(offset.map(|offset| offset + 3), 1)
        }
        [b'\'', first, ..] => {
            let width = match first {
                0..=0x7f => 1,
                0x80..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xff => 4,
            };
            // Anything else is a lifetime or a label.
            (rest.get(1 + width) == Some(&b'\'')).then_some(at + width + 2)
        }
        _ => None,
    }
}

fn block_comment_length(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `code` without items under `#[cfg(test)]`; offsets stay as they were.
#[must_use]
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    for (start, _) in code.match_indices(MARK) {
        let body = body_of(code, start + MARK.len());
        let end = body.map_or(start + MARK.len(), |(_, close)| close + 1);
        let blank: String =
            code[start..end].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Offsets of the braces around the body of the item whose head is at `from`; `None` for an item
/// that ends with a semicolon.
#[must_use]
pub fn body_of(code: &str, from: usize) -> Option<(usize, usize)> {
    let mut nested = 0_i32;
    for (offset, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested -= 1,
            // Inside brackets it is the length of an array type.
            b';' if nested == 0 => return None,
            b'{' if nested == 0 => return Some((offset, closing(code, offset)?)),
            _ => {}
        }
    }
    None
}

/// The offset of the brace that closes the one at `open`.
#[must_use]
pub fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_i32;
    code.bytes().enumerate().skip(open).find_map(|(offset, byte)| {
        depth += match byte {
            b'{' => 1,
            b'}' => -1,
            _ => 0,
        };
        (byte == b'}' && depth == 0).then_some(offset)
    })
}

/// Offsets where `word` stands and is not part of a longer name.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let in_name = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        !in_name(before) && !in_name(bytes.get(at + word.len()))
    })
}

/// The line of an offset, from 1.
#[must_use]
pub fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|&&b| b == b'\n').count() + 1
}
