//! Chunks of OpenAI's dialect, written anew.
//!
//! Owns: their shape and order. Refuses to know: who is asked.

use bytes::BytesMut;

use super::{Members, Part, StreamWriter, object, put};
use crate::ai::answer::{call_id, seal};
use crate::ai::{finish, usage};

impl StreamWriter {
    pub(super) fn openai_part(&mut self, part: &Part, out: &mut BytesMut) {
        match part {
            Part::Text(text) => {
                let text = self.without_overlap(text);
                if !text.is_empty() {
                    self.delta(out, |delta| delta.text("content", text));
                }
            }
            Part::Refusal(text) => self.delta(out, |delta| delta.text("refusal", text)),
            Part::Thought { text, .. } if !text.is_empty() => {
                self.delta(out, |delta| delta.text("reasoning_content", text));
            }
            Part::ToolStart { index, id, name, signature } => {
                let id = call_id(id, "call", &self.ids, *index as usize);
                self.delta(out, |delta| {
                    delta.array("tool_calls", |list| {
                        list.object(|call| {
                            call.count("index", u64::from(*index));
                            call.text("id", &id);
                            call.text("type", "function");
                            call.object("function", |function| {
                                function.text("name", name);
                                function.text("arguments", "");
                            });
                            seal(signature.as_deref(), call);
                        });
                    });
                });
            }
            Part::ToolArguments { index, text } => self.delta(out, |delta| {
                delta.array("tool_calls", |list| {
                    list.object(|call| {
                        call.count("index", u64::from(*index));
                        call.object("function", |function| function.text("arguments", text));
                    });
                });
            }),
            Part::Finish(found) => {
                self.begin(out);
                self.finish = Some(*found);
                self.finish_is_written = true;
                self.chunk(out, |body| {
                    choice(body, |_| {}, Some(finish::openai(*found)));
                });
            }
            Part::Usage(found) => self.usage = Some(*found),
            _ => {}
        }
    }

    /// The usage that is known, once, if it is wanted.
    pub(super) fn openai_usage(&mut self, out: &mut BytesMut) {
        let Some(found) = self.usage else { return };
        if !self.wants_usage || self.usage_is_written {
            return;
        }
        self.usage_is_written = true;
        let is_estimated = self.usage_is_estimated;
        self.chunk(out, |body| {
            body.array("choices", |_| {});
            body.object("usage", |inner| {
                usage::write_openai(&found, inner);
                if is_estimated {
                    inner.flag("estimated", true);
                }
            });
        });
    }

    pub(super) fn openai_end(&mut self, out: &mut BytesMut) {
        self.openai_usage(out);
        put(None, b"[DONE]", out);
    }

    /// The role comes first, and apart.
    fn begin(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.chunk(out, |body| {
                let role = |delta: &mut Members<'_>| {
                    delta.text("role", "assistant");
                    delta.text("content", "");
                };
                choice(body, role, None);
            });
        }
    }

    fn delta(&mut self, out: &mut BytesMut, write: impl FnOnce(&mut Members<'_>)) {
        self.begin(out);
        self.chunk(out, |body| choice(body, write, None));
    }

    fn chunk(&self, out: &mut BytesMut, write: impl FnOnce(&mut Members<'_>)) {
        let json = object(|body| {
            match &self.id {
                Some(id) => body.text("id", id),
                None => body.text("id", &format!("chatcmpl-{}", self.ids.unique)),
            }
            body.text("object", "chat.completion.chunk");
            body.raw("created", &self.ids.created_secs.to_string());
            body.text("model", &self.as_model);
            write(body);
        });
        put(None, &json, out);
    }
}

fn choice(body: &mut Members<'_>, delta: impl FnOnce(&mut Members<'_>), finish: Option<&str>) {
    body.array("choices", |list| {
        list.object(|choice| {
            choice.count("index", 0);
            choice.object("delta", delta);
            choice.null("logprobs");
            match finish {
                Some(word) => choice.text("finish_reason", word),
                None => choice.null("finish_reason"),
            }
        });
    });
}
