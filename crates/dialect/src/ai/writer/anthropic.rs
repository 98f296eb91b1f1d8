//! Events of Anthropic's dialect, written anew.
//!
//! Owns: their shape and order: one block is open at a time, each is closed, and the reason to end
//! comes with the usage. Refuses to know: who is asked.

use bytes::BytesMut;

use super::{Members, Open, Part, StreamWriter, object, put};
use crate::ai::answer::call_id;
use crate::ai::{Finish, finish, usage};

impl StreamWriter {
    pub(super) fn anthropic_part(&mut self, part: &Part, out: &mut BytesMut) {
        match part {
            Part::Text(text) => {
                let text = self.without_overlap(text);
                self.text(text, out);
            }
            Part::Refusal(text) => {
                self.declines = true;
                self.text(text, out);
            }
            // A thought has no place here without its own model's seal; that there is one keeps a
            // client from giving up.
            Part::Thought { .. } => {
                self.start(out);
                event("ping", out, |_| {});
            }
            Part::ToolStart { index, id, name, .. } => {
                let id = call_id(id, "toolu", &self.ids, *index as usize);
                self.open(Open::Call, out, |block| {
                    block.text("type", "tool_use");
                    block.text("id", &id);
                    block.text("name", name);
                    block.object("input", |_| {});
                });
                self.calls.push((*index, self.blocks));
            }
            Part::ToolArguments { index, text } => {
                // Calls may come mixed, and the number says which block it is, open or not.
                let of_call = self.calls.iter().find(|(call, _)| call == index);
                if let Some((_, block)) = of_call {
                    delta(*block, out, |delta| {
                        delta.text("type", "input_json_delta");
                        delta.text("partial_json", text);
                    });
                }
            }
            Part::Finish(found) => {
                self.start(out);
                self.close(out);
                self.finish = Some(*found);
            }
            Part::Usage(found) => self.usage = Some(*found),
            _ => {}
        }
    }

    pub(super) fn anthropic_end(&mut self, out: &mut BytesMut) {
        if let Some(found) = self.finish
            && !self.finish_is_written
        {
            self.finish_is_written = true;
            let found = if self.declines { Finish::Refusal } else { found };
            let (used, is_estimated) = (self.usage.unwrap_or_default(), self.usage_is_estimated);
            event("message_delta", out, |body| {
                body.object("delta", |delta| {
                    delta.text("stop_reason", finish::anthropic(found));
                    delta.null("stop_sequence");
                });
                body.object("usage", |inner| {
                    usage::write_anthropic(&used, inner);
                    if is_estimated {
                        inner.flag("estimated", true);
                    }
                });
            });
        }
        event("message_stop", out, |_| {});
    }

    fn text(&mut self, text: &str, out: &mut BytesMut) {
        if text.is_empty() {
            return;
        }
        if self.open != Some(Open::Text) {
            self.open(Open::Text, out, |block| {
                block.text("type", "text");
                block.text("text", "");
            });
        }
        delta(self.blocks, out, |delta| {
            delta.text("type", "text_delta");
            delta.text("text", text);
        });
    }

    fn start(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let used = self.usage.unwrap_or_default();
        event("message_start", out, |body| {
            body.object("message", |message| {
                message.text("id", &format!("msg_{}", self.ids.unique));
                message.text("type", "message");
                message.text("role", "assistant");
                message.text("model", &self.as_model);
                message.array("content", |_| {});
                message.null("stop_reason");
                message.null("stop_sequence");
                message.object("usage", |inner| usage::write_anthropic(&used, inner));
            });
        });
    }

    fn open(&mut self, kind: Open, out: &mut BytesMut, write: impl FnOnce(&mut Members<'_>)) {
        self.start(out);
        self.close(out);
        let number = self.blocks;
        event("content_block_start", out, |body| {
            body.count("index", number);
            body.object("content_block", write);
        });
        self.open = Some(kind);
    }

    fn close(&mut self, out: &mut BytesMut) {
        if self.open.take().is_some() {
            let number = self.blocks;
            event("content_block_stop", out, |body| body.count("index", number));
            self.blocks += 1;
        }
    }
}

fn delta(number: u64, out: &mut BytesMut, write: impl FnOnce(&mut Members<'_>)) {
    event("content_block_delta", out, |body| {
        body.count("index", number);
        body.object("delta", write);
    });
}

fn event(name: &str, out: &mut BytesMut, write: impl FnOnce(&mut Members<'_>)) {
    let json = object(|body| {
        body.text("type", name);
        write(body);
    });
    put(Some(name), &json, out);
}
