//! Owns: x. Refuses to know: y.
use super::{Api, Event, Finish, Ids};
use bytes::BytesMut;
use types::Usage;

/// Writes a stream in the client's dialect.
#[derive(Debug)]
pub struct StreamWriter {
    to: Api,
    from: Api,
    as_model: String,
    ids: Ids,
    wants_usage: bool,
}

impl StreamWriter {
    /// For a client that speaks `to` and a provider that speaks `from`.
    #[must_use]
    pub fn new(to: Api, from: Api, as_model: &str, ids: Ids, wants_usage: bool) -> StreamWriter {
        StreamWriter { to, from, as_model: as_model.to_owned(), ids, wants_usage }
    }
    /// Writes what an event says. A `Done` is not written: [`StreamWriter::end`] does that, so that
    /// usage can still be put before it.
    pub fn write(&mut self, _event: &Event, _out: &mut BytesMut) {
        let _ = (self.to, self.from, &self.as_model, &self.ids, self.wants_usage);
    }
    /// Another provider takes the answer up where it was cut; `so_far` is the text that the client has.
    pub fn resume(&mut self, from: Api, _so_far: &str) {
        self.from = from;
    }
    /// Usage that the stream itself did not hold. Written before the end, if the client wants it.
    pub fn usage(&mut self, _usage: &Usage, _is_estimated: bool, _out: &mut BytesMut) {}
    /// Ends the answer here, for a reason of ours.
    pub fn finish(&mut self, _finish: Finish, _out: &mut BytesMut) {}
    /// Says that the answer failed. Nothing is to be written after it.
    pub fn error(&mut self, _code: &str, _message: &str, _out: &mut BytesMut) {}
    /// A comment, which clients do not see: `: tai {text}`.
    pub fn note(&mut self, _text: &str, _out: &mut BytesMut) {}
    /// The proper end.
    pub fn end(&mut self, _out: &mut BytesMut) {}
}
