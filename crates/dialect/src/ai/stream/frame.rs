//! Server-sent events, as blocks of lines.
//!
//! Owns: where a block ends, wherever the bytes were split, and its bound. Refuses to know:
//! dialects.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::BadStream;

/// Bytes of one event, with the empty line behind it.
pub(super) const EVENT_BYTES: usize = 1 << 20;

/// Bytes that are no whole block yet.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: BytesMut,
    /// Of the buffer, what cannot hold the end of a block.
    searched: usize,
}

impl Frames {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole block, with the empty line behind it.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, BadStream> {
        match self.end() {
            Some(end) if end > EVENT_BYTES => Err(BadStream::TooLarge),
            Some(end) => {
                self.searched = 0;
                Ok(Some(self.buffer.split_to(end).freeze()))
            }
            None if self.buffer.len() > EVENT_BYTES => Err(BadStream::TooLarge),
            None => Ok(None),
        }
    }

    /// What is left when nothing more comes.
    pub(super) fn rest(&mut self) -> Bytes {
        self.searched = 0;
        self.buffer.split().freeze()
    }

    /// Where the first block ends: behind a line end that another one follows.
    fn end(&mut self) -> Option<usize> {
        let mut at = self.searched;
        while let Some(found) = self.buffer.get(at..)?.iter().position(|byte| *byte == b'\n') {
            let behind = at + found + 1;
            match (self.buffer.get(behind), self.buffer.get(behind + 1)) {
                (Some(b'\n'), _) => return Some(behind + 1),
                (Some(b'\r'), Some(b'\n')) => return Some(behind + 2),
                // What decides has not come yet.
                (None, _) | (Some(b'\r'), None) => {
                    self.searched = at + found;
                    return None;
                }
                _ => at = behind,
            }
        }
        self.searched = self.buffer.len();
        None
    }
}

/// The data of a block, its lines joined; `None` where it has none, as comments have.
pub(super) fn data(block: &[u8]) -> Result<Option<Cow<'_, str>>, BadStream> {
    let text = std::str::from_utf8(block).map_err(|_| BadStream::Malformed)?;
    let mut data: Option<Cow<'_, str>> = None;
    for line in text.lines() {
        let Some(line) = line.strip_prefix("data:") else { continue };
        let line = line.strip_prefix(' ').unwrap_or(line);
        match &mut data {
            None => data = Some(Cow::Borrowed(line)),
            Some(joined) => {
                let joined = joined.to_mut();
                joined.push('\n');
                joined.push_str(line);
            }
        }
    }
    Ok(data)
}

/// Where the JSON of a block stands that has one line of data.
pub(in crate::ai) fn data_range(block: &[u8]) -> Option<std::ops::Range<usize>> {
    const NAME: &[u8] = b"data:";
    let mut found = None;
    let mut at = 0;
    for line in block.split_inclusive(|byte| *byte == b'\n') {
        if let Some(rest) = line.strip_prefix(NAME) {
            if found.is_some() {
                return None;
            }
            let spaces = usize::from(rest.starts_with(b" "));
            let start = at + NAME.len() + spaces;
            let ends = rest.len() - rest.trim_ascii_end().len();
            found = Some(start..at + line.len() - ends);
        }
        at += line.len();
    }
    found.filter(|range| range.start <= range.end)
}
