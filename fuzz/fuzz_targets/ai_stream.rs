//! Owns: the program of the parser `ai_stream`. Refuses to know: what that parser is.
#![no_main]

tai_fuzz::program!();
